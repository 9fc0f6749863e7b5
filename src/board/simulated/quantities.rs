//! What the simulated sensors measure.
//!
//! The cold store is quick on purpose, a minute for what takes a real one an hour, so that a short demonstration shows its
//! thermostat switching.

use std::f64::consts::TAU;
use std::time::Duration;

use super::SharedStore;
use crate::message::Value;
use crate::runtime::clock::Now;
use crate::sensors::{Sensor, SensorError, SensorSpec};

/// Noise that depends on a seed, a name and a number, and on nothing before.
#[derive(Clone, Copy)]
pub(super) struct Noise(u64);

impl Noise {
    pub(super) fn new(seed: u64, name: &str) -> Noise {
        let state = name
            .bytes()
            .fold(seed, |state, byte| mix(state ^ u64::from(byte)));
        Noise(mix(state))
    }

    /// Evenly from -1 to 1.
    pub(super) fn uniform(self, number: u64) -> f64 {
        let bits = mix(self.0 ^ mix(number)) >> 11;
        bits as f64 / (1_u64 << 52) as f64 - 1.0
    }

    /// About normal with a standard deviation of 1 and never beyond 3.5: the sum of twelve even ones.
    fn normal(self, number: u64) -> f64 {
        let first = number.wrapping_mul(12);
        let sum: f64 = (0..12)
            .map(|i| self.uniform(first.wrapping_add(i)) / 2.0)
            .sum();
        sum.clamp(-3.5, 3.5)
    }
}

/// SplitMix64's step: Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014, figure 17.
fn mix(state: u64) -> u64 {
    let z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A room that nears the temperature of what heats or cools it (Newton's law of cooling).
pub(super) struct ColdStore {
    /// When it had the temperature.
    since: Duration,
    degc: f64,
    /// The share of time that it is cooled, 0 to 1.
    cooling: f64,
}

impl Default for ColdStore {
    fn default() -> ColdStore {
        ColdStore {
            since: Duration::ZERO,
            degc: 4.5,
            cooling: 0.0,
        }
    }
}

impl ColdStore {
    const WARMS_TO_DEGC: f64 = 12.0;
    const WARMS_IN_S: f64 = 60.0;
    const COOLS_TO_DEGC: f64 = -2.0;
    const COOLS_IN_S: f64 = 20.0;

    pub(super) fn begin(&mut self, mono: Duration) {
        self.since = mono;
    }

    pub(super) fn set_cooling(&mut self, duty: f64, mono: Duration) {
        self.degc = self.degc_at(mono);
        self.since = self.since.max(mono);
        self.cooling = duty;
    }

    /// Short pulses of cooling act like their mean: rates add up.
    fn degc_at(&self, mono: Duration) -> f64 {
        let warms_per_s = (1.0 - self.cooling) / Self::WARMS_IN_S;
        let cools_per_s = self.cooling / Self::COOLS_IN_S;
        let per_s = warms_per_s + cools_per_s;
        let target =
            (warms_per_s * Self::WARMS_TO_DEGC + cools_per_s * Self::COOLS_TO_DEGC) / per_s;
        let span_s = mono.saturating_sub(self.since).as_secs_f64();
        target + (self.degc - target) * (-span_s * per_s).exp()
    }
}

#[derive(Clone, Copy)]
enum Quantity {
    /// degC, in the cold store.
    Temperature,
    /// %, relative.
    Humidity,
    /// hPa.
    Pressure,
    /// V.
    Voltage,
    /// m/s^2; a machine that shakes at 25 Hz, four seconds in each ten hard.
    Acceleration {
        /// What the axis shows of gravity.
        gravity: f64,
    },
}

pub(super) struct SimulatedSensor {
    quantity: Quantity,
    noise: Noise,
    store: SharedStore,
}

impl SimulatedSensor {
    pub(super) fn new(
        spec: &SensorSpec,
        seed: u64,
        store: SharedStore,
    ) -> Result<SimulatedSensor, SensorError> {
        const STANDARD_GRAVITY: f64 = 9.806_65;
        spec.check()?;
        let (name, quantity) = match spec {
            SensorSpec::W1 { device } => (device.clone(), Quantity::Temperature),
            SensorSpec::Iio { device, channel } => {
                let kind: &str = channel
                    .split(|c: char| !c.is_ascii_lowercase())
                    .next()
                    .unwrap_or_default();
                let quantity = match kind {
                    "temp" => Quantity::Temperature,
                    "humidityrelative" => Quantity::Humidity,
                    "pressure" => Quantity::Pressure,
                    "voltage" => Quantity::Voltage,
                    "accel" => Quantity::Acceleration {
                        gravity: if channel.ends_with("_z") {
                            STANDARD_GRAVITY
                        } else {
                            0.0
                        },
                    },
                    _ => {
                        return Err(SensorError::NotSimulated {
                            quantity: kind.to_owned(),
                            known: "temp, humidityrelative, pressure, voltage and accel",
                        });
                    }
                };
                (format!("{device}/{channel}"), quantity)
            }
        };
        Ok(SimulatedSensor {
            quantity,
            noise: Noise::new(seed, &name),
            store,
        })
    }
}

impl Sensor for SimulatedSensor {
    fn read(&mut self, now: Now) -> Result<Value, SensorError> {
        let seconds = now.mono.as_secs_f64();
        let number = u64::try_from(now.mono.as_nanos()).unwrap_or(u64::MAX);
        let noise = self.noise.normal(number);
        let wave = |period_s: f64| (TAU * seconds / period_s).sin();
        let (value, step) = match self.quantity {
            // A DS18B20 at 12 bits has steps of 1/16 degC.
            Quantity::Temperature => (
                self.store.lock().degc_at(now.mono) + 0.03 * noise,
                1.0 / 16.0,
            ),
            Quantity::Humidity => (70.0 + 5.0 * wave(600.0) + 0.3 * noise, 0.01),
            Quantity::Pressure => (1013.0 + 4.0 * wave(3600.0) + 0.05 * noise, 0.01),
            Quantity::Voltage => (1.65 + 0.8 * wave(30.0) + 0.005 * noise, 0.001),
            Quantity::Acceleration { gravity } => {
                let hard = seconds % 10.0 >= 6.0;
                let amplitude = if hard { 3.0 } else { 0.4 };
                // The ADXL345 in full resolution: 3.9 mg a step (data sheet, table 1).
                (
                    gravity + amplitude * wave(1.0 / 25.0) + 0.05 * noise,
                    0.0383,
                )
            }
        };
        let stepped = (value / step).round() * step;
        Ok(Value::Number((stepped * 1e6).round() / 1e6))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_even_normal_and_without_memory() {
        let noise = Noise::new(1, "probe");
        let count = 10_000_u64;
        let mean = |f: &dyn Fn(u64) -> f64| (0..count).map(f).sum::<f64>() / count as f64;
        assert!(mean(&|i| noise.uniform(i)).abs() < 0.02);
        assert!(mean(&|i| noise.normal(i)).abs() < 0.04);
        let variance = mean(&|i| noise.normal(i).powi(2));
        assert!((0.95..1.05).contains(&variance), "{variance}");
        assert_eq!(noise.uniform(5), noise.uniform(5));
        assert_ne!(noise.uniform(5), Noise::new(2, "probe").uniform(5));
        assert_ne!(noise.uniform(5), Noise::new(1, "other").uniform(5));
    }

    #[test]
    fn the_cold_store_warms_and_cools_however_often_one_looks() {
        let at = Duration::from_secs_f64;
        let mut store = ColdStore::default();
        assert_eq!(store.degc_at(at(0.0)), 4.5);
        assert!(store.degc_at(at(5.0)) > 5.0, "warm enough to be cooled");
        assert!((store.degc_at(at(1e6)) - 12.0).abs() < 1e-9);

        store.set_cooling(1.0, at(5.0));
        let mut often = ColdStore::default();
        for tenth in 0..=50 {
            often.set_cooling(0.0, at(f64::from(tenth) / 10.0));
        }
        often.set_cooling(1.0, at(5.0));
        assert!((store.degc_at(at(12.0)) - often.degc_at(at(12.0))).abs() < 1e-9);
        assert!(store.degc_at(at(12.0)) < 3.1);
        assert!((store.degc_at(at(1e6)) + 2.0).abs() < 1e-9);
    }

    #[test]
    fn pulses_cool_the_store_like_their_mean() {
        let at = Duration::from_secs_f64;
        let mut mean = ColdStore::default();
        mean.set_cooling(0.3, at(0.0));
        let mut pulsed = ColdStore::default();
        for tenth in 0..1000 {
            let cooling = if tenth % 10 < 3 { 1.0 } else { 0.0 };
            pulsed.set_cooling(cooling, at(f64::from(tenth) / 10.0));
        }
        let (mean, pulsed) = (mean.degc_at(at(100.0)), pulsed.degc_at(at(100.0)));
        assert!((mean - pulsed).abs() < 0.1, "{mean} and {pulsed}");
        assert!((3.0..5.0).contains(&mean), "{mean}");
    }
}
