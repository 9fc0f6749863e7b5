use std::sync::Arc;

use super::kernel::{IioPlace, sysfs};
use super::parts::{Ds18b20, Iio};
use super::*;

fn ds18b20(id: &str) -> SensorSpec {
    let device = id.to_owned();
    SensorSpec::new(Ds18b20 { device }, super::kernel::OneWire {})
}

fn iio(device: &str, channel: &str) -> SensorSpec {
    let (device, channel) = (device.to_owned(), channel.to_owned());
    SensorSpec::new(Iio { channel }, IioPlace { device })
}

#[test]
fn all_w1_sensors_share_a_bus_and_every_iio_device_has_its_own() {
    assert_eq!(ds18b20("28-0316a2795aff").bus(), "w1");
    assert_eq!(iio("bme280", "temp").bus(), "iio:bme280");
    assert_eq!(iio("bme280", "pressure").bus(), "iio:bme280");
}

#[test]
fn what_is_written_alike_is_one_sensor() {
    assert_eq!(iio("bme280", "temp"), iio("bme280", "temp"));
    assert_ne!(iio("bme280", "temp"), iio("bme280", "pressure"));
    assert_ne!(ds18b20("28-000000000001"), ds18b20("28-000000000002"));
}

#[test]
fn a_sensor_need_not_be_there_when_it_is_opened() {
    let sys = sysfs(&[]);
    let hardware = Hardware {
        sys: sys.path().into(),
        ..Hardware::real()
    };
    let mut missing = iio("bme280", "temp").open(&hardware);
    let error = chain(&missing.read(Now::default()).unwrap_err());
    assert!(
        error.starts_with("iio on the kernel's driver of `bme280`: /"),
        "{error}"
    );

    let folder = sys.path().join("bus/iio/devices/iio:device0");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("name"), "bme280\n").unwrap();
    std::fs::write(folder.join("in_temp_input"), "21500\n").unwrap();
    assert_eq!(missing.read(Now::default()).unwrap(), Value::Number(21.5));
}

#[test]
fn a_simulated_sensor_measures_what_is_around_it_when_it_is_asked() {
    struct Clockwork;
    impl World for Clockwork {
        fn value(&self, physical: Physical, _: &str, now: Now) -> f64 {
            assert_eq!(physical, Physical::Temperature);
            now.mono.as_secs_f64()
        }
    }
    let mut probe = ds18b20("28-000000000001").simulate(Arc::new(Clockwork));
    for (seconds, expected) in [(3.0, 3.0), (4.0, 4.0), (4.04, 4.0625)] {
        let now = Now::default().later(std::time::Duration::from_secs_f64(seconds));
        assert_eq!(probe.read(now).unwrap(), Value::Number(expected));
    }
}
