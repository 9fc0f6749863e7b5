//! `iio`: a sensor that the kernel's Industrial I/O subsystem drives.

use schemars::JsonSchema;
use serde::Deserialize;

use super::sampler::{self, Sampler, every_second};
use super::{BuildError, Definition, Problem, Surroundings, Use};
use crate::flow::estimate::Load;
use crate::flow::options::Span;
use crate::runtime::node::Node;
use crate::sensors::SensorSpec;

/// Reads one channel of a sensor that the kernel drives (Industrial I/O): BME280, ADXL345, DHT22, ADS1115 and many more.
///
/// The payload is a number: degrees Celsius, percent relative humidity, hectopascal, metres per second squared, volts.
/// The kernel finds the sensor by an overlay in the Pi's `config.txt`, such as `dtoverlay=i2c-sensor,bme280`.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Iio {
    /// The device's name, as in `/sys/bus/iio/devices/iio:device0/name`, such as `bme280`. An ADS1115 is called `ads1015`, as its
    /// driver is.
    device: String,
    /// The channel, as in the names of the device's files: `temp`, `humidityrelative`, `pressure`, `accel_x`, `voltage0`.
    channel: String,
    /// How often to read it, at least 1 ms apart. Default: `1s`.
    #[serde(default = "every_second")]
    every: Span,
    /// The topic of its messages. Default: the flow's and the node's name.
    topic: Option<String>,
}

impl Iio {
    fn spec(&self) -> SensorSpec {
        SensorSpec::Iio {
            device: self.device.clone(),
            channel: self.channel.clone(),
        }
    }
}

impl Definition for Iio {
    const NAME: &'static str = "iio";
    const HAS_INPUT: bool = false;
    const EXAMPLE: &'static str = r#"
[nodes.humidity]
type = "iio"
device = "bme280"
channel = "humidityrelative"
every = "2s"

[nodes.show]
type = "debug"
from = "humidity"
"#;

    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.device.is_empty() || self.device.contains(['/', '\0']) {
            problems.push(Problem::new(
                "device",
                format!("`{}` cannot be the name of a device", self.device),
            ));
        }
        if let Err(error) = self.spec().check() {
            problems.push(Problem::new("channel", error.to_string()));
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
