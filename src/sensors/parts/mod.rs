//! The parts, one file each.
//!
//! To add one, write a file with a struct of its options that implements [`Part`](super::Part), and add two lines: the `mod` here, and
//! the entry in `nodes::GROUPS`. Each part is tested with bytes of its data sheet, and against its twin.

mod bh1750;
mod bme280;
mod ds18b20;
mod iio;
mod mpu6050;
mod scd4x;
mod sensirion;
mod sht3x;
mod sht4x;
mod vl53l0x;

pub use self::vl53l0x::Vl53l0x;
pub use bh1750::Bh1750;
pub use bme280::{Bme280, Bmp280};
pub use ds18b20::Ds18b20;
pub use iio::Iio;
pub use mpu6050::Mpu6050;
pub use scd4x::Scd4x;
pub use sht3x::Sht3x;
pub use sht4x::Sht4x;
