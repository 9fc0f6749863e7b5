//! HC-SR04: distance by the time that a click of ultrasound takes to come back.
//!
//! A pulse of at least 10 us on TRIG makes it send eight periods of 40 kHz; ECHO is then high for as long as the sound is on its way there and
//! back (HC-SR04 user guide, "Timing diagram"). Both edges have the kernel's time stamps.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::board::{Level, Pin};
use crate::sensors::pins::{LineEdge, LineTwin, Lines, PinsPlace};
use crate::sensors::{About, Chip, Part, Physical, Quantity, Scene, Trouble};

/// Reads an HC-SR04 (ultrasound): the distance to what is in front, in metres.
///
/// Its ECHO gives 5 V, which destroys a pin of the Pi: put a divider of 1 kOhm and 2 kOhm between. Nothing within 4 m is an error, not a distance.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct HcSr04 {
    /// The air's temperature in degrees Celsius, for the speed of sound: 10 degrees too warm are 1.7 % too far. Default: 20.
    #[serde(default = "room")]
    pub temperature: f64,
}

/// Where an HC-SR04 is connected.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct HcSr04Pins {
    /// The BCM number of the pin that TRIG is on.
    pub trigger: Pin,
    /// The BCM number of the pin that ECHO is on, behind a divider.
    pub echo: Pin,
}

fn room() -> f64 {
    20.0
}

/// User guide, "Electric parameter": 2 cm to 4 m.
const NEAREST_M: f64 = 0.02;
const FARTHEST_M: f64 = 4.0;
/// User guide: "trigger input signal 10 us", and a cycle of more than 60 ms, so that no old echo is taken for a new one.
const TRIGGER: Duration = Duration::from_micros(10);
const CYCLE: Duration = Duration::from_millis(60);
/// ECHO rises some 0.5 ms after TRIG; more than that waits for a kernel that is busy.
const BEGINS_WITHIN: Duration = Duration::from_millis(50);
/// Without an echo ECHO falls by itself: after 38 ms, with some boards 200 ms.
const ENDS_WITHIN: Duration = Duration::from_millis(250);

impl PinsPlace for HcSr04Pins {
    const EDGES: bool = true;

    fn output(&self) -> (&'static str, Pin) {
        ("trigger", self.trigger)
    }

    fn input(&self) -> (&'static str, Pin) {
        ("echo", self.echo)
    }
}

impl Part for HcSr04 {
    type Place = HcSr04Pins;
    const NAME: &'static str = "hcsr04";
    const ABOUT: About = About {
        title: "HC-SR04 ultrasonic distance",
        quantities: &[Quantity::new("distance", "m", (NEAREST_M, FARTHEST_M), 3)],
        addresses: &[],
        wiring: &[
            ("VCC", "5 V, pin 2"),
            ("TRIG", "the pin `trigger`, such as GPIO23, pin 16"),
            (
                "ECHO",
                "NEVER STRAIGHT TO A PIN: it gives 5 V, and the Pi's pins take 3.3 V. Through 1 kOhm to the pin `echo`, such as \
                 GPIO24, pin 18, and from that pin 2 kOhm to ground",
            ),
            ("GND", "ground, pin 6"),
        ],
        setup: "None: the kernel's /dev/gpiochip0 and the group `gpio`. Of HC-SR04P and RCWL-1601 on 3.3 V ECHO needs no divider.",
        notes: "Accurate to some 3 mm where a hard, flat thing of half a square metre is in front; cloth, slopes and anything beside \
                its 15 degrees give no echo, or another's. Two of them hear each other: read them at different times.",
        data_sheet: "HC-SR04 user guide (ELECFreaks); speed of sound in air: ISO 9613-1:1993, annex A, 343.2 m/s at 20 degC",
        takes_ms: 60,
    };
    const EXAMPLE: &'static str = r#"
[nodes.tank]
type = "hcsr04"
trigger = 23
echo = 24
temperature = 12
every = "1s"

[nodes.show]
type = "debug"
from = "tank"
"#;

    fn problems(&self) -> Vec<(&'static str, String)> {
        if (-40.0..=85.0).contains(&self.temperature) {
            return Vec::new();
        }
        let message = format!(
            "{} is not a temperature of air, -40 to 85",
            self.temperature
        );
        vec![("temperature", message)]
    }

    fn open(&self, lines: Box<dyn Lines>) -> Result<Box<dyn Chip>, Trouble> {
        let opened = lines.now();
        Ok(Box::new(Ranger {
            lines,
            metres_a_second: sound(self.temperature),
            // It may have been triggered just before, by one that failed.
            triggered: opened,
        }))
    }

    fn twin(&self, scene: Scene) -> Box<dyn LineTwin> {
        Box::new(Twin {
            scene,
            metres_a_second: sound(self.temperature),
            high_since: None,
            echo: None,
        })
    }
}

/// The speed of sound in dry air in m/s: 331.3 at 0 degC, and as the root of the absolute temperature.
fn sound(degc: f64) -> f64 {
    331.3 * (1.0 + degc / 273.15).sqrt()
}

struct Ranger {
    lines: Box<dyn Lines>,
    metres_a_second: f64,
    triggered: Duration,
}

impl Chip for Ranger {
    fn measure(&mut self) -> Result<Vec<f64>, Trouble> {
        let since = self.lines.now().saturating_sub(self.triggered);
        self.lines.wait(CYCLE.saturating_sub(since));
        self.forget_edges()?;
        if self.lines.level()?.is_high() {
            return Err(Trouble::NotReady(
                "ECHO is high before it was asked: is it wired, does its divider go to ground, is TRIG on the other pin?".to_owned(),
            ));
        }
        self.triggered = self.lines.now();
        self.lines.drive(Level::High)?;
        self.lines.wait(TRIGGER);
        self.lines.drive(Level::Low)?;
        let rise = self.lines.edge(BEGINS_WITHIN)?.ok_or_else(|| {
            Trouble::NotReady(
                "ECHO does not rise: look at its 5 V, at ground, and whether TRIG and ECHO are swapped".to_owned(),
            )
        })?;
        let fall = self.lines.edge(ENDS_WITHIN)?.ok_or_else(out_of_range)?;
        let metres = self.metres(rise, fall)?;
        if metres > FARTHEST_M {
            return Err(out_of_range());
        }
        Ok(vec![metres])
    }
}

impl Ranger {
    /// Takes what came since the last reading, of an echo that was given up.
    fn forget_edges(&mut self) -> Result<(), Trouble> {
        // What the kernel keeps of one line.
        const MOST: usize = 64;
        for _ in 0..MOST {
            if self.lines.edge(Duration::ZERO)?.is_none() {
                return Ok(());
            }
        }
        Err(Trouble::NotReady(
            "ECHO does not come to rest: is it connected, and its divider to ground?".to_owned(),
        ))
    }

    /// There and back is twice the way.
    fn metres(&self, rise: LineEdge, fall: LineEdge) -> Result<f64, Trouble> {
        match (rise.level, fall.level, fall.at.checked_sub(rise.at)) {
            (Level::High, Level::Low, Some(span)) => {
                Ok(span.as_secs_f64() * self.metres_a_second / 2.0)
            }
            _ => Err(Trouble::NotReady(
                "ECHO gave no pulse but other edges: is its wire loose, or beside one that switches?".to_owned(),
            )),
        }
    }
}

fn out_of_range() -> Trouble {
    Trouble::NotReady(format!(
        "out of range: no echo from within {FARTHEST_M} m; nothing is there, or it throws the sound aside"
    ))
}

struct Twin {
    scene: Scene,
    metres_a_second: f64,
    /// Since when TRIG is high.
    high_since: Option<Duration>,
    /// From when to when ECHO is high, the last time.
    echo: Option<(Duration, Duration)>,
}

impl Twin {
    const BEGINS_AFTER: Duration = Duration::from_micros(450);
    const GIVES_UP_AFTER: Duration = Duration::from_millis(38);
}

impl LineTwin for Twin {
    fn driven(&mut self, level: Level, at: Duration) {
        if level.is_high() {
            self.high_since.get_or_insert(at);
            return;
        }
        let Some(since) = self.high_since.take() else {
            return;
        };
        let is_busy = self.echo.is_some_and(|(_, until)| at < until);
        if at - since < TRIGGER || is_busy {
            return;
        }
        let metres = self.scene.value(Physical::Distance).max(0.0);
        let span = match metres <= FARTHEST_M {
            true => Duration::from_secs_f64(2.0 * metres / self.metres_a_second),
            false => Twin::GIVES_UP_AFTER,
        };
        let begins = at + Twin::BEGINS_AFTER;
        self.echo = Some((begins, begins + span));
    }

    fn level(&mut self, at: Duration) -> Level {
        let is_high = |(from, until)| (from..until).contains(&at);
        Level::from(self.echo.is_some_and(is_high))
    }

    fn change_after(&mut self, after: Duration) -> Option<LineEdge> {
        let (from, until) = self.echo?;
        let edges = [(Level::High, from), (Level::Low, until)];
        let mut edges = edges.map(|(level, at)| LineEdge { level, at }).into_iter();
        edges.find(|edge| edge.at > after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sensors::pins::Simulated;
    use std::collections::VecDeque;

    fn pulse(rise_us: u64, fall_us: u64) -> Vec<LineEdge> {
        let edge = |level, us| LineEdge {
            level,
            at: Duration::from_micros(us),
        };
        vec![edge(Level::High, rise_us), edge(Level::Low, fall_us)]
    }

    /// Lines that give these edges once TRIG was high for long enough, and note when that was.
    struct Played {
        edges: Vec<LineEdge>,
        given: VecDeque<LineEdge>,
        now: Duration,
        high_since: Option<Duration>,
        level: Level,
    }

    impl Lines for Played {
        fn drive(&mut self, level: Level) -> Result<(), Trouble> {
            if level.is_high() {
                self.high_since = Some(self.now);
            } else if self.now - self.high_since.take().unwrap() >= TRIGGER {
                self.given.extend(self.edges.iter().copied());
            }
            Ok(())
        }
        fn level(&mut self) -> Result<Level, Trouble> {
            Ok(self.level)
        }
        fn edge(&mut self, within: Duration) -> Result<Option<LineEdge>, Trouble> {
            let edge = self.given.pop_front();
            if edge.is_none() {
                self.now += within;
            }
            Ok(edge)
        }
        fn now(&self) -> Duration {
            self.now
        }
        fn wait(&mut self, span: Duration) {
            self.now += span;
        }
    }

    fn measure(degc: f64, edges: Vec<LineEdge>, level: Level) -> Result<f64, String> {
        let lines = Played {
            edges,
            given: VecDeque::new(),
            now: Duration::ZERO,
            high_since: None,
            level,
        };
        let mut ranger = HcSr04 { temperature: degc }.open(Box::new(lines)).unwrap();
        let measured = ranger.measure();
        measured
            .map(|values| values[0])
            .map_err(|trouble| trouble.to_string())
    }

    /// Computed by hand: 10 ms there and back are 1.716 m at 20 degC, where sound has 343.2 m/s, and 1.6565 m at 0 degC.
    #[test]
    fn the_distance_is_half_the_way_of_the_sound() {
        let check = |degc: f64, rise_us: u64, fall_us: u64, expected: f64| {
            let metres = measure(degc, pulse(rise_us, fall_us), Level::Low).unwrap();
            assert!((metres - expected).abs() < 0.000_5, "{metres}");
        };
        check(20.0, 500, 10_500, 1.716);
        check(0.0, 0, 10_000, 1.656_5);
        check(-20.0, 7, 1_007, 0.159_5);
        // Just inside of 4 m.
        check(20.0, 0, 23_300, 3.998_3);
    }

    #[test]
    fn what_is_no_distance_is_an_error() {
        let check = |edges: Vec<LineEdge>, level: Level, expected: &str| {
            let error = measure(20.0, edges, level).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        let mut reversed = pulse(0, 1_000);
        reversed.reverse();
        // Just outside of 4 m; the 38 ms of no echo; no end at all.
        check(pulse(0, 23_320), Level::Low, "out of range");
        check(pulse(500, 38_500), Level::Low, "out of range");
        check(pulse(500, 600)[..1].to_vec(), Level::Low, "out of range");
        check(vec![], Level::Low, "ECHO does not rise");
        check(pulse(0, 1_000), Level::High, "high before it was asked");
        check(reversed, Level::Low, "no pulse but other edges");
    }

    #[test]
    fn a_reading_is_what_is_around_the_twin_and_no_sooner_than_its_cycle_lets() {
        let check = |metres: f64, degc: f64, expected: Result<f64, &str>| {
            let part = HcSr04 { temperature: degc };
            let scene = Scene::still(&[(Physical::Distance, metres)]);
            let lines = Box::new(Simulated::new(part.twin(scene)));
            let mut ranger = part.open(lines).unwrap();
            for _ in 0..3 {
                match (ranger.measure(), expected) {
                    (Ok(found), Ok(expected)) => assert!((found[0] - expected).abs() < 1e-6),
                    (Err(trouble), Err(expected)) => {
                        assert!(trouble.to_string().contains(expected), "{trouble}");
                    }
                    (found, _) => panic!("{found:?}"),
                }
            }
        };
        check(1.25, 20.0, Ok(1.25));
        check(0.02, -10.0, Ok(0.02));
        check(4.5, 20.0, Err("out of range"));

        let scene = Scene::still(&[(Physical::Distance, 0.1)]);
        let part = HcSr04 { temperature: 20.0 };
        let mut ranger = Ranger {
            lines: Box::new(Simulated::new(part.twin(scene))),
            metres_a_second: sound(20.0),
            triggered: Duration::ZERO,
        };
        let mut last = Duration::ZERO;
        for _ in 0..3 {
            ranger.measure().unwrap();
            assert!(ranger.triggered - last >= CYCLE, "{:?}", ranger.triggered);
            last = ranger.triggered;
        }
    }
}
