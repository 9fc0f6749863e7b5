//! Sensors.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SensorSpec {
    W1 { device: String },
    Iio { device: String, channel: String },
}
