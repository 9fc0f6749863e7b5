//! What the simulated sensors measure.
//!
//! The cold store is quick on purpose, a minute for what takes a real one an hour, so that a short demonstration shows its
//! thermostat switching.

use std::f64::consts::TAU;
use std::time::Duration;

use super::SharedStore;
use crate::runtime::clock::Now;
use crate::sensors::{Physical, World};

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

/// The world that simulated sensors measure: the cold store, and a few things that rise and fall.
pub(super) struct SimulatedWorld {
    seed: u64,
    store: SharedStore,
}

impl SimulatedWorld {
    pub(super) fn new(seed: u64, store: SharedStore) -> SimulatedWorld {
        SimulatedWorld { seed, store }
    }
}

impl World for SimulatedWorld {
    fn value(&self, physical: Physical, name: &str, now: Now) -> f64 {
        const STANDARD_GRAVITY: f64 = 9.806_65;
        let seconds = now.mono.as_secs_f64();
        let number = u64::try_from(now.mono.as_nanos()).unwrap_or(u64::MAX);
        let noise = Noise::new(self.seed, name).normal(number);
        let wave = |period_s: f64| (TAU * seconds / period_s).sin();
        match physical {
            Physical::Temperature => self.store.lock().degc_at(now.mono) + 0.03 * noise,
            Physical::Humidity => 70.0 + 5.0 * wave(600.0) + 0.3 * noise,
            Physical::Pressure => 1013.0 + 4.0 * wave(3600.0) + 0.05 * noise,
            Physical::Voltage => 1.65 + 0.8 * wave(30.0) + 0.005 * noise,
            Physical::Current => 0.8 + 0.3 * wave(45.0) + 0.002 * noise,
            // A machine that shakes at 25 Hz, four seconds in each ten hard.
            Physical::Acceleration(axis) => {
                let hard = seconds % 10.0 >= 6.0;
                let amplitude = if hard { 3.0 } else { 0.4 };
                let gravity = if axis == 2 { STANDARD_GRAVITY } else { 0.0 };
                gravity + amplitude * wave(1.0 / 25.0) + 0.05 * noise
            }
            Physical::Rotation(axis) => 10.0 * wave(4.0 + f64::from(axis)) + 0.1 * noise,
            Physical::Co2 => 900.0 + 350.0 * wave(1800.0) + 4.0 * noise,
            Physical::Light => (300.0 + 320.0 * wave(1200.0)).max(0.0) + 0.5 * noise.abs(),
            Physical::Distance => 1.2 + 0.7 * wave(240.0) + 0.003 * noise,
            Physical::Weight => 42.0 + 8.0 * wave(900.0) + 0.01 * noise,
            Physical::Particles => (12.0 + 7.0 * wave(700.0) + 0.4 * noise).max(0.0),
            Physical::Uptime => seconds,
            Physical::Share => (50.0 + 30.0 * wave(120.0) + noise).clamp(0.0, 100.0),
        }
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
