//! The parts, one file each.
//!
//! To add one, write a file with a struct of its options that implements [`Part`](super::Part), and add two lines: the `mod` here, and
//! the entry in `nodes::GROUPS`. Each part is tested with bytes of its data sheet, and against its twin.

mod ads1115;
mod adxl345;
mod bh1750;
mod bme280;
mod dht22;
mod ds18b20;
mod gps;
mod hcsr04;
mod hwmon;
mod hx711;
mod iio;
mod ina219;
mod inputs;
mod lm75;
mod mcp3008;
mod mhz19;
mod modbus;
mod mpu6050;
mod pms5003;
mod scd4x;
mod sds011;
mod sensirion;
mod sht3x;
mod sht4x;
mod system;
mod vl53l0x;

pub use self::vl53l0x::Vl53l0x;
pub use ads1115::{Ads1015, Ads1115};
pub use adxl345::Adxl345;
pub use bh1750::Bh1750;
pub use bme280::{Bme280, Bmp280};
pub use dht22::Dht22;
pub use ds18b20::Ds18b20;
pub use gps::Gps;
pub use hcsr04::HcSr04;
pub use hwmon::Hwmon;
pub use hx711::Hx711;
pub use iio::Iio;
pub use ina219::{Ina219, Ina226};
pub use lm75::Lm75;
pub use mcp3008::{Mcp3008, Mcp3208};
pub use mhz19::Mhz19;
pub use modbus::Modbus;
pub use mpu6050::Mpu6050;
pub use pms5003::Pms5003;
pub use scd4x::Scd4x;
pub use sds011::Sds011;
pub use sht3x::Sht3x;
pub use sht4x::Sht4x;
pub use system::System;
