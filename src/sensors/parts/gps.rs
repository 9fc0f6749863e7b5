//! Satellite receivers that send NMEA 0183.
//!
//! Of what they send, two sentences are enough: GGA has position, height, satellites and HDOP, RMC has the speed. Their fields are
//! those of the u-blox 8 / M8 Receiver Description (UBX-13003221, "NMEA Messages Overview" and "Standard Messages"), since NMEA's
//! own text is not public. Other receivers send the same.
//!
//! Must not: mix two epochs: both sentences of a reading say the same time; hand out a position without a fix.
//!
//! The crate `nmea` was looked at: it merges sentences into one state, in which a field may be from an earlier epoch, and
//! brings chrono, nom and heapless, for the eleven fields that are read here.

use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::Deserialize;

use crate::sensors::serial::{SerialLink, SerialMode, SerialPlace, SerialTwin};
use crate::sensors::{About, Chip, Part, Physical, Quantity, Scene, Trouble};

/// Reads a satellite receiver (GPS, Galileo, GLONASS, BeiDou) that sends NMEA 0183: position, height, speed and how good the fix is.
///
/// Without a fix there is no reading.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct Gps {
    /// Bits per second: 9600 for most, 38400 for newer u-blox ones (M10), 4800 for old ones. Default: 9600.
    #[serde(default = "usual_baud")]
    baud: u32,
}

fn usual_baud() -> u32 {
    9_600
}

/// Receivers speak once a second; two epochs may be needed for a whole one.
const PATIENCE: Duration = Duration::from_secs(3);
/// NMEA allows 82 characters; some receivers send more.
const LONGEST: usize = 120;
/// Of an international knot, 1852 m in an hour.
const MS_PER_KNOT: f64 = 1_852.0 / 3_600.0;

impl Part for Gps {
    type Place = SerialPlace;
    const NAME: &'static str = "gps";
    const ABOUT: About = About {
        title: "Satellite receivers with NMEA 0183, as u-blox NEO-6M to NEO-M9N",
        quantities: &[
            Quantity::new("latitude", "deg", (-90.0, 90.0), 7),
            Quantity::new("longitude", "deg", (-180.0, 180.0), 7),
            Quantity::new("altitude", "m", (-1_000.0, 100_000.0), 1),
            Quantity::new("speed", "m/s", (0.0, 600.0), 2),
            Quantity::new("satellites", "", (0.0, 99.0), 0),
            Quantity::new("hdop", "", (0.0, 99.99), 2),
        ],
        addresses: &[],
        wiring: &[
            ("VCC", "3.3 V, pin 1, or 5 V, pin 2, as its board says"),
            ("GND", "ground, pin 6"),
            (
                "TX",
                "GPIO15 (receives), pin 10: 3.3 V; boards with 5 V levels need a divider",
            ),
            ("RX", "nothing, or GPIO14, pin 8"),
            ("PPS", "nothing"),
        ],
        setup: "`enable_uart=1` in /boot/firmware/config.txt, and no console on the port (`sudo raspi-config`, Interface, Serial Port). One with \
                USB needs nothing: `port = \"ttyACM0\"`. gpsd must not have the port.",
        notes: "Good to about 2.5 m where it sees the sky; `hdop` above 5 is a poor fix. A first fix takes about 30 s, indoors minutes or \
                for ever. North and east are positive; the altitude is above mean sea level.",
        data_sheet: "u-blox 8 / M8 Receiver Description, UBX-13003221; NMEA 0183 V4.1",
        takes_ms: 2_000,
    };
    const EXAMPLE: &'static str = r#"
[nodes.position]
type = "gps"
port = "ttyACM0"
every = "10s"

[nodes.show]
type = "debug"
from = "position"
"#;

    fn problems(&self) -> Vec<(&'static str, String)> {
        const KNOWN: [u32; 7] = [4_800, 9_600, 19_200, 38_400, 57_600, 115_200, 230_400];
        if KNOWN.contains(&self.baud) {
            return Vec::new();
        }
        let message = format!("{} is not a speed of such receivers: {KNOWN:?}", self.baud);
        vec![("baud", message)]
    }

    fn open(&self, mut link: SerialLink) -> Result<Box<dyn Chip>, Trouble> {
        link.set(SerialMode::plain(self.baud))?;
        Ok(Box::new(move || read(&mut link)))
    }

    fn twin(&self, scene: Scene) -> Box<dyn SerialTwin> {
        Box::new(Twin {
            scene,
            second: 0,
            rest: Vec::new(),
        })
    }
}

/// Listens until both sentences of one epoch are there.
fn read(link: &mut SerialLink) -> Result<Vec<f64>, Trouble> {
    let deadline = Instant::now() + PATIENCE;
    let mut heard = Heard::default();
    // What has come since the last reading is older than what comes now.
    link.forget()?;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let line = match link.line(LONGEST, left) {
            Ok(line) => line,
            Err(Trouble::TimedOut { .. }) => return Err(heard.why_nothing()),
            Err(other) => return Err(other),
        };
        heard.take(&line)?;
        if let Some(values) = heard.whole()? {
            return Ok(values);
        }
        // It may send other things for ever.
        if left.is_zero() {
            return Err(heard.why_nothing());
        }
    }
}

/// What was heard so far.
#[derive(Default)]
struct Heard {
    fix: Option<Fix>,
    motion: Option<Motion>,
    lines: u32,
    sentences: u32,
    damaged: u32,
}

/// Of GGA.
#[derive(Debug, PartialEq)]
struct Fix {
    /// The epoch, as it is written: hhmmss.ss.
    time: String,
    /// None without a fix.
    position: Option<Position>,
    satellites: f64,
}

#[derive(Debug, PartialEq)]
struct Position {
    latitude: f64,
    longitude: f64,
    altitude: f64,
    hdop: f64,
}

/// Of RMC.
#[derive(Debug, PartialEq)]
struct Motion {
    time: String,
    /// In m/s; none without a fix.
    speed: Option<f64>,
}

impl Heard {
    fn take(&mut self, line: &[u8]) -> Result<(), Trouble> {
        self.lines += 1;
        let text = match sentence(line) {
            Sentence::Whole(text) => text,
            Sentence::Damaged => {
                self.damaged += 1;
                return Ok(());
            }
            Sentence::None => return Ok(()),
        };
        self.sentences += 1;
        let fields: Vec<&str> = text.split(',').collect();
        // Two letters say who talks, as GP for GPS or GN for several systems; P is for what a maker has invented.
        match fields[0].get(2..) {
            Some("GGA") if !text.starts_with('P') => {
                self.fix = Some(Fix::parse(&fields).ok_or_else(|| strange(text))?);
            }
            Some("RMC") if !text.starts_with('P') => {
                self.motion = Some(Motion::parse(&fields).ok_or_else(|| strange(text))?);
            }
            _ => {}
        }
        Ok(())
    }

    /// The reading, once both are there and of the same epoch. The older of two epochs waits in vain, and is replaced.
    fn whole(&self) -> Result<Option<Vec<f64>>, Trouble> {
        let (Some(fix), Some(motion)) = (&self.fix, &self.motion) else {
            return Ok(None);
        };
        if fix.time != motion.time {
            return Ok(None);
        }
        let (Some(position), Some(speed)) = (&fix.position, motion.speed) else {
            return Err(no_fix(fix.satellites));
        };
        Ok(Some(vec![
            position.latitude,
            position.longitude,
            position.altitude,
            speed,
            fix.satellites,
            position.hdop,
        ]))
    }

    fn why_nothing(&self) -> Trouble {
        if self.lines == 0 && self.sentences == 0 {
            return Trouble::TimedOut { after: PATIENCE };
        }
        // The first line is often the rest of one.
        if self.damaged > 1 {
            return Trouble::Checksum;
        }
        if self.sentences == 0 {
            let said = "what comes is not NMEA 0183: look at `baud`, and whether the receiver is set to another protocol";
            return Trouble::NotReady(said.to_owned());
        }
        // Before it knows the time some leave it out, or send one sentence only.
        let has = |is_there| if is_there { "there is" } else { "there is no" };
        let said = format!(
            "no GGA and RMC of the same second came within {PATIENCE:?}: {} GGA, {} RMC; is one of them switched off in the receiver?",
            has(self.fix.is_some()),
            has(self.motion.is_some()),
        );
        Trouble::NotReady(said)
    }
}

fn no_fix(satellites: f64) -> Trouble {
    Trouble::NotReady(format!(
        "it has no fix ({satellites} satellites in use): its antenna needs the open sky, and a first fix takes half a minute or more"
    ))
}

fn strange(text: &str) -> Trouble {
    Trouble::NotReady(format!("it sends what is not NMEA 0183: `{text}`"))
}

enum Sentence<'a> {
    /// Between `$` and `*`.
    Whole(&'a str),
    /// The check sum is another one.
    Damaged,
    None,
}

/// `$`, the text, `*` and the exclusive or of all characters of the text in two hexadecimal digits.
fn sentence(line: &[u8]) -> Sentence<'_> {
    let whole = |line| {
        let line = std::str::from_utf8(line).ok()?;
        let (text, sum) = line.strip_prefix('$')?.split_once('*')?;
        Some((text, u8::from_str_radix(sum, 16).ok()?))
    };
    match whole(line) {
        Some((text, sum)) if check_sum(text) == sum => Sentence::Whole(text),
        Some(_) => Sentence::Damaged,
        None if line.starts_with(b"$") => Sentence::Damaged,
        None => Sentence::None,
    }
}

fn check_sum(text: &str) -> u8 {
    text.bytes().fold(0, |sum, byte| sum ^ byte)
}

impl Fix {
    /// xxGGA,time,lat,NS,lon,EW,quality,numSV,HDOP,alt,M,sep,M,diffAge,diffStation
    fn parse(fields: &[&str]) -> Option<Fix> {
        let [
            _,
            time,
            latitude,
            ns,
            longitude,
            ew,
            quality,
            satellites,
            hdop,
            altitude,
            ..,
        ] = *fields
        else {
            return None;
        };
        // 1 to 5 are fixes; 0 is none, 6 is dead reckoning, 7 set by hand, 8 made up.
        let position = match quality {
            "1" | "2" | "3" | "4" | "5" => Some(Position {
                latitude: degrees(latitude, ns, ["N", "S"])?,
                longitude: degrees(longitude, ew, ["E", "W"])?,
                altitude: number(altitude)?,
                hdop: number(hdop)?,
            }),
            _ => None,
        };
        Some(Fix {
            time: time.to_owned(),
            position,
            satellites: number(satellites).unwrap_or(0.0),
        })
    }
}

impl Motion {
    /// xxRMC,time,status,lat,NS,lon,EW,spd,cog,date,...
    fn parse(fields: &[&str]) -> Option<Motion> {
        let [_, time, status, _, _, _, _, knots, ..] = *fields else {
            return None;
        };
        let speed = match status {
            "A" => Some(number(knots)? * MS_PER_KNOT),
            _ => None,
        };
        let time = time.to_owned();
        Some(Motion { time, speed })
    }
}

fn number(field: &str) -> Option<f64> {
    field.parse().ok().filter(|number: &f64| number.is_finite())
}

/// From ddmm.mmmmm or dddmm.mmmmm, and the half of the earth.
fn degrees(field: &str, half: &str, [positive, negative]: [&str; 2]) -> Option<f64> {
    let whole = field.split('.').next()?.len().checked_sub(2)?;
    let degrees = number(field.get(..whole)?)?;
    let minutes = number(field.get(whole..)?)?;
    let value = degrees + minutes / 60.0;
    match half {
        _ if !(0.0..60.0).contains(&minutes) => None,
        _ if half == positive => Some(value),
        _ if half == negative => Some(-value),
        _ => None,
    }
}

/// A receiver at the mouth of the Elbe, that moves as its scene shakes.
struct Twin {
    scene: Scene,
    second: u32,
    rest: Vec<u8>,
}

impl Twin {
    fn epoch(&mut self) -> Vec<u8> {
        self.second = (self.second + 1) % 60;
        let time = format!("1200{:02}.00", self.second);
        let minutes = 53.0 + self.scene.value(Physical::Share) / 1_000.0;
        let at = format!("53{minutes:08.5},N,00842.00000,E");
        let texts = [
            format!("GNRMC,{time},A,{at},0.10,,231126,,,A"),
            format!("GNGGA,{time},{at},1,09,0.90,3.5,M,45.0,M,,"),
        ];
        let lines = texts.map(|text| format!("${text}*{:02X}\r\n", check_sum(&text)));
        lines.concat().into_bytes()
    }
}

impl SerialTwin for Twin {
    fn write(&mut self, _: &[u8]) {}

    fn read(&mut self, into: &mut [u8]) -> usize {
        if self.rest.is_empty() {
            self.rest = self.epoch();
        }
        let length = into.len().min(self.rest.len());
        for (byte, sent) in into.iter_mut().zip(self.rest.drain(..length)) {
            *byte = sent;
        }
        length
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sensors::serial::sending;

    fn heard(lines: &str) -> Result<Vec<f64>, String> {
        let sent = format!("{}\r\n", lines.trim()).into_bytes().leak();
        let mut chip = Gps { baud: 9_600 }.open(sending(sent)).unwrap();
        chip.measure().map_err(|trouble| trouble.to_string())
    }

    /// With its check sum.
    fn nmea(text: &str) -> String {
        format!("${text}*{:02X}\n", check_sum(text))
    }

    /// The examples of u-blox' description for GGA and RMC, whose check sums are theirs.
    const GGA: &str = "$GPGGA,092725.00,4717.11399,N,00833.91590,E,1,08,1.01,499.6,M,48.0,M,,*5B\n";
    const RMC: &str = "$GPRMC,083559.00,A,4717.11437,N,00833.91522,E,0.004,77.52,091202,,,A*57\n";

    #[test]
    fn the_examples_of_the_description_are_decoded() {
        let mut both = Heard::default();
        both.take(GGA.trim().as_bytes()).unwrap();
        both.take(RMC.trim().as_bytes()).unwrap();
        assert_eq!((both.sentences, both.damaged), (2, 0));
        let fix = both.fix.unwrap();
        let position = fix.position.unwrap();
        assert_eq!((fix.time.as_str(), fix.satellites), ("092725.00", 8.0));
        assert!((position.latitude - (47.0 + 17.113_99 / 60.0)).abs() < 1e-9);
        assert!((position.longitude - (8.0 + 33.915_90 / 60.0)).abs() < 1e-9);
        assert_eq!((position.altitude, position.hdop), (499.6, 1.01));
        let speed = both.motion.unwrap().speed.unwrap();
        assert!((speed - 0.002_057_8).abs() < 1e-7, "{speed}");
    }

    #[test]
    fn south_and_west_are_negative() {
        let check = |field, half, halves, expected: Option<f64>| {
            assert_eq!(degrees(field, half, halves), expected, "{field} {half}");
        };
        check("4730.00", "N", ["N", "S"], Some(47.5));
        check("4730.00", "S", ["N", "S"], Some(-47.5));
        check("00830", "W", ["E", "W"], Some(-8.5));
        check("0015.000", "S", ["N", "S"], Some(-0.25));
        check("4760.00", "N", ["N", "S"], None);
        check("4730.00", "E", ["N", "S"], None);
        check("7", "N", ["N", "S"], None);
        check("", "", ["N", "S"], None);
    }

    #[test]
    fn sentences_of_two_epochs_are_not_mixed() {
        let rmc = |second: u32, knots: &str| {
            nmea(&format!(
                "GNRMC,1200{second:02}.00,A,5330.0,N,00842.0,E,{knots},,231126,,,A"
            ))
        };
        let gga = |second: u32, altitude: &str| {
            nmea(&format!(
                "GNGGA,1200{second:02}.00,5330.0,N,00842.0,E,1,09,0.9,{altitude},M,45.0,M,,"
            ))
        };
        let reading =
            |altitude, knots: f64| vec![53.5, 8.7, altitude, knots * MS_PER_KNOT, 9.0, 0.9];
        let check = |lines: &[String], expected: Result<Vec<f64>, &str>| match (
            heard(&lines.concat()),
            expected,
        ) {
            (Ok(values), Ok(expected)) => assert_eq!(values, expected),
            (Err(said), Err(expected)) => assert!(said.contains(expected), "{said}"),
            (outcome, expected) => panic!("{outcome:?} instead of {expected:?}"),
        };
        check(&[rmc(1, "2"), gga(1, "3.5")], Ok(reading(3.5, 2.0)));
        check(&[gga(1, "3.5"), rmc(1, "2")], Ok(reading(3.5, 2.0)));
        // It began to listen in the middle of an epoch.
        check(
            &[gga(1, "3.5"), rmc(2, "4"), gga(2, "5.5")],
            Ok(reading(5.5, 4.0)),
        );
        check(&[gga(1, "3.5"), rmc(2, "4")], Err("of the same second"));
        check(&[gga(1, "3.5")], Err("there is GGA, there is no RMC"));
    }

    #[test]
    fn without_a_fix_or_sense_there_is_no_reading() {
        let check = |lines: &str, expected: &str| {
            let said = heard(lines).unwrap_err();
            assert!(said.contains(expected), "{said}");
        };
        let none = [
            nmea("GPRMC,120001.00,V,,,,,,,231126,,,N"),
            nmea("GPGGA,120001.00,,,,,0,03,99.99,,,,,,"),
        ];
        check(&none.concat(), "no fix (3 satellites in use)");
        // Before it knows the time.
        let new = [
            nmea("GPRMC,,V,,,,,,,,,,N"),
            nmea("GPGGA,,,,,,0,00,99.99,,,,,,"),
        ];
        check(&new.concat(), "no fix (0 satellites in use)");
        let reckoned = [
            nmea("GPRMC,120001.00,A,5330.0,N,00842.0,E,1,,231126,,,E"),
            nmea("GPGGA,120001.00,5330.0,N,00842.0,E,6,00,9.9,3.5,M,45.0,M,,"),
        ];
        check(&reckoned.concat(), "no fix");
        let broken = GGA.replace("4717", "4718");
        check(&[&*broken, &broken].concat(), "check sum");
        check("\u{1}\u{2}\n\u{3}\n", "look at `baud`");
        check(&nmea("GPGGA,1"), "is not NMEA 0183: `GPGGA,1`");
        check("", "look at `baud`");
    }

    #[test]
    fn silence_is_no_answer() {
        let mut chip = Gps { baud: 9_600 }.open(sending(b"")).unwrap();
        assert!(matches!(chip.measure(), Err(Trouble::TimedOut { .. })));
    }

    #[test]
    fn a_reading_is_what_is_around_the_twin() {
        let part = Gps { baud: 9_600 };
        let scene = Scene::still(&[(Physical::Share, 50.0)]);
        let mut chip = part.open(SerialLink::to(part.twin(scene))).unwrap();
        for _ in 0..2 {
            let values = chip.measure().unwrap();
            assert!(
                (values[0] - (53.0 + 53.05 / 60.0)).abs() < 1e-6,
                "{values:?}"
            );
            assert_eq!(values[1..], [8.7, 3.5, 0.1 * MS_PER_KNOT, 9.0, 0.9]);
        }
    }
}
