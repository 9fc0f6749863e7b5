//! The node types: one file each, and one list of them.
//!
//! To add a node type, write a file with a struct of its options that implements [`Definition`] and a [`Node`](crate::runtime::Node) that does the
//! work; then add two lines here: the `mod` and the entry in
//! [`GROUPS`]. Parsing, checking, `tidegate nodes` and the
//! example's test come from the definition.

mod batch;
mod bounds;
mod calibrate;
mod catch;
mod change;
mod convert;
mod counter;
mod csv;
mod debounce;
mod debug;
mod definition;
mod delay;
mod delta;
mod ewma;
mod filter;
mod function;
mod gpio_in;
mod gpio_out;
mod hysteresis;
mod inject;
mod integrate;
mod interlock;
mod join;
mod json;
mod keyed;
mod lag;
mod latch;
mod limits;
mod link_in;
mod link_out;
mod median;
mod mqtt_in;
mod node_type;
mod parts;
mod path;
mod pid;
mod pulses;
mod pwm_out;
mod range;
mod rate;
#[cfg(test)]
mod restart_test;
mod sample;
mod sampler;
mod schedule;
mod sensor;
mod series;
mod slew;
mod smooth;
mod sort;
mod split;
mod status;
mod stuck;
mod surroundings;
mod switch;
mod template;
#[cfg(test)]
pub(crate) mod testing;
mod throttle;
mod timeout;
mod timers;
#[cfg(test)]
mod together_test;
mod trigger;
mod units;
mod uplink;
mod r#where;
mod window;
mod zscore;

use crate::sensors::parts as known;

pub use definition::{Definition, Link, Problem, Publishes, Spec, Use, Watch, Watched};
pub use node_type::NodeType;
pub(crate) use node_type::place_of;
pub(crate) use schedule::Zone;
pub use surroundings::{BuildError, Surroundings};

/// Node types that belong together.
#[derive(Debug)]
pub struct Group {
    pub title: &'static str,
    pub about: &'static str,
    pub types: &'static [NodeType],
}

/// All node types, in the order in which people read of them.
pub const GROUPS: &[Group] = &[
    Group {
        title: "Sources",
        about: "where messages begin",
        types: &[
            NodeType::of::<gpio_in::GpioIn>(),
            NodeType::of::<pulses::PulseMeter>(),
            NodeType::of::<mqtt_in::MqttIn>(),
            NodeType::of::<inject::Inject>(),
            NodeType::of::<link_in::LinkIn>(),
        ],
    },
    Group {
        title: "Sensors",
        about: "what is measured; wiring and setup are in [sensors.md](sensors.md)",
        types: &[
            sensor::of::<known::Ds18b20>(),
            sensor::of::<known::Bme280>(),
            sensor::of::<known::Bmp280>(),
            sensor::of::<known::Lm75>(),
            sensor::of::<known::Ads1115>(),
            sensor::of::<known::Ads1015>(),
            sensor::of::<known::Mcp3008>(),
            sensor::of::<known::Mcp3208>(),
            sensor::of::<known::Ina219>(),
            sensor::of::<known::Ina226>(),
            sensor::of::<known::Adxl345>(),
            sensor::of::<known::Sht4x>(),
            sensor::of::<known::Sht3x>(),
            sensor::of::<known::Scd4x>(),
            sensor::of::<known::Bh1750>(),
            sensor::of::<known::Mpu6050>(),
            sensor::of::<known::Vl53l0x>(),
            sensor::of::<known::Iio>(),
            sensor::of::<known::Mhz19>(),
            sensor::of::<known::Sds011>(),
            sensor::of::<known::Pms5003>(),
            sensor::of::<known::Gps>(),
            sensor::of::<known::Modbus>(),
            sensor::of::<known::HcSr04>(),
            sensor::of::<known::Hx711>(),
            sensor::of::<known::Dht22>(),
            sensor::of::<known::Hwmon>(),
            sensor::of::<known::System>(),
        ],
    },
    Group {
        title: "Route and shape",
        about: "which way a message goes, and what it says",
        types: &[
            NodeType::of::<switch::Switch>(),
            NodeType::of::<r#where::Where>(),
            NodeType::of::<change::Change>(),
            NodeType::of::<template::Template>(),
            NodeType::of::<range::Range>(),
            NodeType::of::<calibrate::Calibrate>(),
            NodeType::of::<convert::Convert>(),
            NodeType::of::<function::Function>(),
            NodeType::of::<json::Json>(),
            NodeType::of::<csv::Csv>(),
            NodeType::of::<split::Split>(),
            NodeType::of::<join::Join>(),
            NodeType::of::<batch::Batch>(),
            NodeType::of::<sort::Sort>(),
        ],
    },
    Group {
        title: "Rate and noise",
        about: "what is left of many readings",
        types: &[
            NodeType::of::<filter::Filter>(),
            NodeType::of::<delay::Delay>(),
            NodeType::of::<throttle::Throttle>(),
            NodeType::of::<debounce::Debounce>(),
            NodeType::of::<trigger::Trigger>(),
            NodeType::of::<sample::Sample>(),
            NodeType::of::<median::Median>(),
            NodeType::of::<smooth::Smooth>(),
            NodeType::of::<hysteresis::Hysteresis>(),
            NodeType::of::<timeout::Timeout>(),
            NodeType::of::<counter::Counter>(),
            NodeType::of::<rate::Rate>(),
            NodeType::of::<delta::Delta>(),
            NodeType::of::<lag::Lag>(),
            NodeType::of::<integrate::Integrate>(),
        ],
    },
    Group {
        title: "Windows",
        about: "statistics over stretches of time",
        types: &[NodeType::of::<window::Window>()],
    },
    Group {
        title: "Anomaly",
        about: "readings that cannot be right",
        types: &[
            NodeType::of::<limits::Limits>(),
            NodeType::of::<slew::Slew>(),
            NodeType::of::<stuck::Stuck>(),
            NodeType::of::<zscore::Zscore>(),
            NodeType::of::<ewma::Ewma>(),
        ],
    },
    Group {
        title: "Control",
        about: "what acts",
        types: &[
            NodeType::of::<gpio_out::GpioOut>(),
            NodeType::of::<pwm_out::PwmOut>(),
            NodeType::of::<pid::Pid>(),
            NodeType::of::<latch::Latch>(),
            NodeType::of::<interlock::Interlock>(),
        ],
    },
    Group {
        title: "Flow structure",
        about: "how flows hang together, and how they are doing",
        types: &[
            NodeType::of::<link_out::LinkOut>(),
            NodeType::of::<catch::Catch>(),
            NodeType::of::<status::Status>(),
        ],
    },
    Group {
        title: "Sinks",
        about: "where messages go",
        types: &[
            NodeType::of::<uplink::Uplink>(),
            NodeType::of::<debug::Debug>(),
        ],
    },
];

/// All node types.
pub fn node_types() -> impl Iterator<Item = &'static NodeType> + Clone {
    GROUPS.iter().flat_map(|group| group.types)
}

#[cfg(test)]
mod tests {
    use super::testing::graph;
    use super::*;
    use crate::flow::{Report, Variables, check};

    #[test]
    fn names_are_unique() {
        let names: std::collections::HashSet<&str> = node_types().map(|known| known.name).collect();
        assert_eq!(names.len(), node_types().count());
    }

    #[test]
    fn every_example_is_valid_and_shows_its_node() {
        for node_type in node_types() {
            let mut report = Report::new(node_type.name, node_type.example);
            check("example", &Variables::default(), &mut report);
            let found: String = report.diagnostics.iter().map(|d| d.render(false)).collect();
            assert_eq!(found, "", "the example of `{}`", node_type.name);
            let shown = graph(node_type.example)
                .nodes()
                .iter()
                .any(|node| node.node_type.name == node_type.name);
            assert!(shown, "the example of `{}` does not use it", node_type.name);
        }
    }

    #[test]
    fn every_option_and_type_is_documented() {
        for node_type in node_types() {
            let schema = node_type.schema();
            assert!(
                schema.get("description").is_some(),
                "`{}` has no description",
                node_type.name
            );
            let properties = schema
                .get("properties")
                .and_then(|properties| properties.as_object());
            for (name, option) in properties.into_iter().flatten() {
                assert!(
                    option.get("description").is_some(),
                    "`{}`: `{name}` has no description",
                    node_type.name
                );
            }
        }
    }
}
