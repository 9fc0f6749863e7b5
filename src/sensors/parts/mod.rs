//! The parts, one file each.
//!
//! To add one, write a file with a struct of its options that implements [`Part`](super::Part), and add two lines: the `mod` here, and
//! the entry in `nodes::GROUPS`. Each part is tested with bytes of its data sheet, and against its twin.

mod bme280;
mod dht22;
mod ds18b20;
mod hcsr04;
mod hwmon;
mod hx711;
mod iio;
mod system;

pub use bme280::{Bme280, Bmp280};
pub use dht22::Dht22;
pub use ds18b20::Ds18b20;
pub use hcsr04::HcSr04;
pub use hwmon::Hwmon;
pub use hx711::Hx711;
pub use iio::Iio;
pub use system::System;
