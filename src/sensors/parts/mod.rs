//! The parts, one file each.
//!
//! To add one, write a file with a struct of its options that implements [`Part`](super::Part), and add two lines: the `mod` here, and
//! the entry in `nodes::GROUPS`. Each part is tested with bytes of its data sheet, and against its twin.

mod bme280;
mod ds18b20;
mod gps;
mod iio;
mod mhz19;
mod modbus;
mod pms5003;
mod sds011;

pub use bme280::{Bme280, Bmp280};
pub use ds18b20::Ds18b20;
pub use gps::Gps;
pub use iio::Iio;
pub use mhz19::Mhz19;
pub use modbus::Modbus;
pub use pms5003::Pms5003;
pub use sds011::Sds011;
