//! `ds18b20`: a 1-wire temperature sensor.

use schemars::JsonSchema;
use serde::Deserialize;

use super::sampler::{self, Sampler, every_second};
use super::{BuildError, Definition, Problem, Surroundings, Use};
use crate::flow::estimate::Load;
use crate::flow::options::Span;
use crate::runtime::node::Node;
use crate::sensors::SensorSpec;

/// Reads a DS18B20 temperature sensor on the kernel's 1-wire bus. The payload is a number in degrees Celsius.
///
/// The bus needs `dtoverlay=w1-gpio` in the Pi's `config.txt`. A reading takes the sensor up to 750 ms.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Ds18b20 {
    /// The sensor's 1-wire id, as in `/sys/bus/w1/devices`: `28-` and twelve hexadecimal digits.
    device: String,
    /// How often to read it, at least 1 ms apart. Default: `1s`.
    #[serde(default = "every_second")]
    every: Span,
    /// The topic of its messages. Default: the flow's and the node's name.
    topic: Option<String>,
}

impl Ds18b20 {
    fn spec(&self) -> SensorSpec {
        SensorSpec::W1 {
            device: self.device.clone(),
        }
    }
}

impl Definition for Ds18b20 {
    const NAME: &'static str = "ds18b20";
    const HAS_INPUT: bool = false;
    const EXAMPLE: &'static str = r#"
[nodes.probe]
type = "ds18b20"
device = "28-0316a2795aff"
every = "1s"

[nodes.show]
type = "debug"
from = "probe"
"#;

    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if let Err(error) = self.spec().check() {
            problems.push(Problem::new("device", error.to_string()));
        }
        problems.extend(sampler::too_fast(self.every));
        problems
    }

    fn uses(&self) -> Vec<Use> {
        vec![Use::Sensor(self.spec())]
    }

    fn load(&self, _: Load) -> Load {
        Load::every(self.every.0, Load::NUMBER_BYTES)
    }

    fn build(&self, surroundings: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError> {
        Ok(Sampler::boxed(
            surroundings,
            self.topic.as_deref(),
            self.every,
        ))
    }
}
