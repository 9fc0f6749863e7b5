//! What drives a simulated input: edges as a function of the seed and the time.

use std::time::Duration;

use serde::Deserialize;

use super::quantities::Noise;
use super::{Level, Pin};

/// What drives a simulated input.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, schemars::JsonSchema)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Signal {
    /// A square wave, as a flow meter or a proximity switch at a wheel gives.
    Pulses {
        /// Rising edges in a second; up to 10000.
        hz: f64,
    },
    /// A contact that closes and opens at times that vary by a tenth; high while it is closed.
    Contact {
        /// How long it stays closed, in seconds, from 0.001 to a day; about.
        closed_s: f64,
        /// How long it stays open, in seconds, from 0.001 to a day; about.
        open_s: f64,
    },
    /// A level that never changes.
    Level {
        /// Whether it is high.
        #[serde(default)]
        high: bool,
    },
}

impl Signal {
    /// Why it cannot be, if it cannot.
    pub(super) fn check(&self) -> Result<(), String> {
        const DAY_S: f64 = 86_400.0;
        match *self {
            Signal::Pulses { hz } if !(hz > 0.0 && hz <= 10_000.0) => {
                Err(format!("hz = {hz} is not above 0 and up to 10000"))
            }
            Signal::Contact { closed_s, open_s } => {
                for (name, span) in [("closed_s", closed_s), ("open_s", open_s)] {
                    if !(0.001..=DAY_S).contains(&span) {
                        return Err(format!("{name} = {span} is not from 0.001 to {DAY_S}"));
                    }
                }
                Ok(())
            }
            Signal::Pulses { .. } | Signal::Level { .. } => Ok(()),
        }
    }
}

/// The edges of one input from a moment on. Edge 0 rises, edge 1 falls, and so on; before edge 0 the level is low.
pub(super) struct Timeline {
    signal: Signal,
    noise: Noise,
    /// The edge that comes next.
    next: u64,
}

impl Timeline {
    /// The edges after `mono`. The signal began when monotonic time did, whoever listened.
    pub(super) fn from(signal: Signal, seed: u64, pin: Pin, mono: Duration) -> Timeline {
        let mut timeline = Timeline {
            signal,
            noise: Noise::new(seed, &pin.to_string()),
            next: 0,
        };
        // Near enough and not too late, whatever the jitter; the few edges left are stepped over.
        let passed = match signal {
            Signal::Pulses { hz } => mono.as_secs_f64() * hz,
            Signal::Contact { closed_s, open_s } => mono.as_secs_f64() / (closed_s + open_s),
            Signal::Level { .. } => 0.0,
        };
        timeline.next = (passed as u64).saturating_sub(1) * 2;
        while timeline.pop_until(mono).is_some() {}
        timeline
    }

    /// The level between the last edge and the next.
    pub(super) fn level(&self) -> Level {
        match self.signal {
            Signal::Level { high } => Level::from(high),
            Signal::Pulses { .. } | Signal::Contact { .. } => Level::from(self.next % 2 == 1),
        }
    }

    /// When the next edge comes.
    pub(super) fn next(&self) -> Option<Duration> {
        self.time_of(self.next)
    }

    /// The next edge and the level after it, if it is due by `mono`.
    pub(super) fn pop_until(&mut self, mono: Duration) -> Option<(Duration, Level)> {
        let time = self.next().filter(|&time| time <= mono)?;
        self.next += 1;
        Some((time, self.level()))
    }

    /// Computed from the edge's number, not from the edge before: no error adds up over weeks.
    fn time_of(&self, edge: u64) -> Option<Duration> {
        let cycle = (edge / 2) as f64;
        let falls = edge % 2 == 1;
        let seconds = match self.signal {
            Signal::Pulses { hz } => (cycle + if falls { 1.0 } else { 0.5 }) / hz,
            Signal::Contact { closed_s, open_s } => {
                let planned = cycle * (closed_s + open_s) + if falls { closed_s } else { 0.0 };
                let jitter = 0.1 * closed_s.min(open_s);
                // Never before the start of time, and edges never change places.
                planned + jitter * (1.0 + self.noise.uniform(edge)) / 2.0
            }
            Signal::Level { .. } => return None,
        };
        Duration::try_from_secs_f64(seconds).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edges(signal: Signal, seed: u64, from: f64, until: f64) -> Vec<(f64, bool)> {
        let pin = Pin::new(5).unwrap();
        let mut timeline = Timeline::from(signal, seed, pin, Duration::from_secs_f64(from));
        let until = Duration::from_secs_f64(until);
        std::iter::from_fn(|| timeline.pop_until(until))
            .map(|(time, level)| (time.as_secs_f64(), level.is_high()))
            .collect()
    }

    #[test]
    fn pulses_keep_their_frequency() {
        let signal = Signal::Pulses { hz: 12.0 };
        let ten_seconds = edges(signal, 1, 0.0, 10.0);
        assert_eq!(ten_seconds.iter().filter(|(_, high)| *high).count(), 120);
        let weeks_later = edges(signal, 1, 2e6, 2e6 + 10.0);
        assert_eq!(weeks_later.iter().filter(|(_, high)| *high).count(), 120);
    }

    #[test]
    fn a_contact_s_edges_alternate_and_keep_their_distance() {
        let signal = Signal::Contact {
            closed_s: 9.0,
            open_s: 3.0,
        };
        let edges = edges(signal, 7, 0.0, 1200.0);
        assert!((199..=201).contains(&edges.len()), "{}", edges.len());
        for pair in edges.windows(2) {
            let ((start, high), (end, next_high)) = (pair[0], pair[1]);
            assert_ne!(high, next_high);
            let planned = if high { 9.0 } else { 3.0 };
            assert!((end - start - planned).abs() <= 0.3, "{start} to {end}");
        }
    }

    #[test]
    fn edges_depend_on_the_seed_and_not_on_when_one_began_to_listen() {
        let signal = Signal::Contact {
            closed_s: 2.0,
            open_s: 1.0,
        };
        let all = edges(signal, 7, 0.0, 300.0);
        assert_ne!(all, edges(signal, 8, 0.0, 300.0));
        for from in [0.0, 0.5, 2.05, 99.9, 150.0, 299.0] {
            let later: Vec<_> = all.iter().copied().filter(|(t, _)| *t > from).collect();
            assert_eq!(edges(signal, 7, from, 300.0), later, "from {from}");
        }
    }

    #[test]
    fn signals_that_cannot_be_are_refused() {
        let check = |text: &str, expected: &str| {
            let error = match toml::from_str::<Signal>(text) {
                Ok(signal) => signal.check().unwrap_err(),
                Err(error) => error.to_string(),
            };
            assert!(error.contains(expected), "{error}");
        };
        check("kind = 'pulses'\nhz = 0.0", "hz = 0 is not above 0");
        check("kind = 'pulses'\nhz = nan", "hz = NaN is not");
        check(
            "kind = 'contact'\nclosed_s = 1.0\nopen_s = 0.0",
            "open_s = 0 is not from 0.001",
        );
        check("kind = 'level'\nhigh = true\nhihg = 1", "hihg");
        check("kind = 'sine'", "sine");
    }
}
