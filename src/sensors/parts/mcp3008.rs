//! Microchip MCP3004, MCP3008, MCP3204 and MCP3208: analog-to-digital converters of 10 and 12 bits, on SPI.
//!
//! By the data sheets DS21295D (10 bits) and DS21298E (12 bits): section 5.0 has what is sent, section 6.1 how it falls into bytes, and
//! figure 5-2 that the result comes a second time, from its lowest bit on, if the clock goes on. That is as good as a check sum.

use schemars::JsonSchema;
use serde::Deserialize;

use super::inputs::Inputs;
use crate::sensors::spi::{SpiLink, SpiMode, SpiPlace, SpiTwin};
use crate::sensors::{About, Chip, Part, Physical, Quantity, Scene, Trouble};

/// Reads an input of an MCP3008 or MCP3004, converters of 10 bits: a voltage in volt.
///
/// Write a node for each input.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct Mcp3008 {
    /// The input, 0 to 7 for CH0 to CH7 (MCP3004: 0 to 3); or the difference of two neighbours, such as `"0-1"` or `"1-0"`, which is 0
    /// if it would be negative.
    channel: Inputs,
    /// The voltage at VREF, in volt, 0.25 to 5.5: the greatest that it can tell. Default: 3.3.
    #[serde(default = "usual_reference")]
    reference: f64,
}

/// Reads an input of an MCP3208 or MCP3204, converters of 12 bits: a voltage in volt.
///
/// Write a node for each input.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct Mcp3208 {
    /// The input, 0 to 7 for CH0 to CH7 (MCP3204: 0 to 3); or the difference of two neighbours, such as `"0-1"` or `"1-0"`, which is 0
    /// if it would be negative.
    channel: Inputs,
    /// The voltage at VREF, in volt, 0.25 to 5.5: the greatest that it can tell. Default: 3.3.
    #[serde(default = "usual_reference")]
    reference: f64,
}

fn usual_reference() -> f64 {
    3.3
}

const WIRING: &[(&str, &str)] = &[
    ("VDD", "3.3 V, pin 17"),
    ("VREF", "3.3 V, or a reference that is steadier"),
    ("AGND, DGND", "ground, pin 25"),
    ("CLK", "GPIO11, pin 23"),
    ("DOUT", "GPIO9, pin 21"),
    ("DIN", "GPIO10, pin 19"),
    ("CS/SHDN", "GPIO8, pin 24; GPIO7, pin 26, for `select = 1`"),
    ("CH0 to CH7", "what is measured, from 0 V to VREF"),
];
const SETUP: &str = "`dtparam=spi=on` in /boot/firmware/config.txt.";

impl Part for Mcp3008 {
    type Place = SpiPlace;
    const NAME: &'static str = "mcp3008";
    const ABOUT: About = About {
        title: "Microchip MCP3008, MCP3004",
        quantities: &[Quantity::new("voltage", "V", (0.0, 3.3), 3)],
        addresses: &[],
        wiring: WIRING,
        setup: SETUP,
        notes: "As accurate as its reference, and 1 step of 1/1024 of it. Supply it with 3.3 V: with 5 V its output puts 5 V on a pin of the Pi. A \
                voltage above VREF reads as VREF. What it measures should have less than 1 kohm, or 100 nF from input to ground. A 4-20 mA \
                transmitter: 150 ohm (0.1 %) from the input to ground, which is 0.6 V to 3.0 V, for a `range` node with `in = [0.6, 3.0]`. If DOUT \
                is broken and its pin low, that reads as 0 V.",
        data_sheet: "Microchip DS21295D, 2008",
        takes_ms: 1,
    };
    const EXAMPLE: &'static str = r#"
[nodes.dial]
type = "mcp3008"
channel = 0
every = "100ms"

[nodes.percent]
type = "range"
from = "dial"
in = [0, 3.3]
out = [0, 100]

[nodes.show]
type = "debug"
from = "percent"
"#;

    fn problems(&self) -> Vec<(&'static str, String)> {
        problems(&self.channel, self.reference)
    }

    fn quantities(&self) -> Vec<Quantity> {
        vec![quantity(Bits::Ten, self.reference)]
    }

    fn open(&self, link: SpiLink) -> Result<Box<dyn Chip>, Trouble> {
        Converter::open(link, Bits::Ten, &self.channel, self.reference)
    }

    fn twin(&self, scene: Scene) -> Box<dyn SpiTwin> {
        Twin::boxed(Bits::Ten, self.reference, scene)
    }
}

impl Part for Mcp3208 {
    type Place = SpiPlace;
    const NAME: &'static str = "mcp3208";
    const ABOUT: About = About {
        title: "Microchip MCP3208, MCP3204",
        quantities: &[Quantity::new("voltage", "V", (0.0, 3.3), 4)],
        addresses: &[],
        wiring: WIRING,
        setup: SETUP,
        notes: "As accurate as its reference, and 2 steps of 1/4096 of it. Else as the MCP3008, whose notes hold for it.",
        data_sheet: "Microchip DS21298E, 2008",
        takes_ms: 1,
    };
    const EXAMPLE: &'static str = r#"
[nodes.battery]
type = "mcp3208"
channel = 2
reference = 2.5
every = "1s"

[nodes.show]
type = "debug"
from = "battery"
"#;

    fn problems(&self) -> Vec<(&'static str, String)> {
        problems(&self.channel, self.reference)
    }

    fn quantities(&self) -> Vec<Quantity> {
        vec![quantity(Bits::Twelve, self.reference)]
    }

    fn open(&self, link: SpiLink) -> Result<Box<dyn Chip>, Trouble> {
        Converter::open(link, Bits::Twelve, &self.channel, self.reference)
    }

    fn twin(&self, scene: Scene) -> Box<dyn SpiTwin> {
        Twin::boxed(Bits::Twelve, self.reference, scene)
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Bits {
    Ten,
    Twelve,
}

impl Bits {
    fn count(self) -> u32 {
        match self {
            Bits::Ten => 10,
            Bits::Twelve => 12,
        }
    }

    fn steps(self) -> f64 {
        f64::from(1_u32 << self.count())
    }
}

/// `SGL/DIFF`, `D2`, `D1` and `D0` (table 5-2).
const CODES: &[(u8, Option<u8>, u8)] = &[
    (0, None, 0b1000),
    (1, None, 0b1001),
    (2, None, 0b1010),
    (3, None, 0b1011),
    (4, None, 0b1100),
    (5, None, 0b1101),
    (6, None, 0b1110),
    (7, None, 0b1111),
    (0, Some(1), 0b0000),
    (1, Some(0), 0b0001),
    (2, Some(3), 0b0010),
    (3, Some(2), 0b0011),
    (4, Some(5), 0b0100),
    (5, Some(4), 0b0101),
    (6, Some(7), 0b0110),
    (7, Some(6), 0b0111),
];

/// At 2.7 V the MCP3008 takes 1.35 MHz, the MCP3208 1 MHz; both need 10 kHz at least (section 6.2).
const MODE: SpiMode = SpiMode {
    mode: 0,
    hz: 1_000_000,
};

fn problems(channel: &Inputs, reference: f64) -> Vec<(&'static str, String)> {
    let mut problems: Vec<(&str, String)> = channel.problem(CODES).into_iter().collect();
    // Electrical characteristics, "reference input".
    if !(0.25..=5.5).contains(&reference) {
        let message = format!("must be from 0.25 to 5.5, not {reference}");
        problems.push(("reference", message));
    }
    problems
}

fn quantity(bits: Bits, reference: f64) -> Quantity {
    let decimals = (bits.steps() / reference).log10().ceil().clamp(0.0, 9.0) as u8;
    Quantity::new("voltage", "V", (0.0, reference), decimals)
}

/// What goes through while chip select is low: the request ends where the code's lower eight bits begin to fill the third byte, and two
/// more take its second coming.
const BYTES: usize = 5;

/// Figure 6-1: leading zeros, start bit, `SGL/DIFF`, `D2`, `D1`, `D0`.
fn request(bits: Bits, code: u8) -> [u8; BYTES] {
    let shift = match bits {
        Bits::Ten => 4,
        Bits::Twelve => 6,
    };
    let [first, second] = ((0b1_0000 | u16::from(code)) << shift).to_be_bytes();
    [first, second, 0, 0, 0]
}

/// The code, if it came twice alike after a null bit.
fn decode(bits: Bits, answer: [u8; BYTES]) -> Result<u32, Trouble> {
    let count = bits.count();
    // From the null bit on: it, the code, and the code's other bits in the other order.
    let [_, a, b, c, d] = answer.map(u32::from);
    let all = a << 24 | b << 16 | c << 8 | d;
    if all >> (16 + count) & 1 != 0 {
        return Err(Trouble::NoAnswer);
    }
    let mask = (1 << count) - 1;
    let code = all >> 16 & mask;
    // Its lowest bit is there once.
    let again = (all >> (17 - count)) & mask;
    if again.reverse_bits() >> (32 - count) != code {
        return Err(Trouble::Checksum);
    }
    Ok(code)
}

struct Converter {
    link: SpiLink,
    bits: Bits,
    request: [u8; BYTES],
    reference: f64,
}

impl Converter {
    fn open(
        mut link: SpiLink,
        bits: Bits,
        channel: &Inputs,
        reference: f64,
    ) -> Result<Box<dyn Chip>, Trouble> {
        let code = channel.code(CODES).expect("the options were checked");
        link.set(MODE)?;
        Ok(Box::new(Converter {
            link,
            bits,
            request: request(bits, code),
            reference,
        }))
    }
}

impl Chip for Converter {
    fn measure(&mut self) -> Result<Vec<f64>, Trouble> {
        let answer = self.link.transfer(self.request)?;
        let code = decode(self.bits, answer)?;
        // Equation 4-2.
        Ok(vec![f64::from(code) * self.reference / self.bits.steps()])
    }
}

/// The simulated chip: the scene's voltage is at each of its inputs, and between any two.
struct Twin {
    bits: Bits,
    reference: f64,
    scene: Scene,
}

impl Twin {
    fn boxed(bits: Bits, reference: f64, scene: Scene) -> Box<dyn SpiTwin> {
        Box::new(Twin {
            bits,
            reference,
            scene,
        })
    }

    fn code(&self) -> u64 {
        let steps = self.bits.steps();
        let volts = self.scene.value(Physical::Voltage);
        (volts / self.reference * steps).clamp(0.0, steps - 1.0) as u64
    }
}

impl SpiTwin for Twin {
    /// Bit by bit, as in section 5.0: after the start bit four bits of request and a clock for sampling, then a null bit, the code from
    /// its highest bit, and again from its second lowest.
    fn transfer(&mut self, out: &[u8], into: &mut [u8]) {
        let clocks = out.len() * 8;
        let is_high = |clock: usize| out[clock / 8] >> (7 - clock % 8) & 1 == 1;
        // Nobody drives the line, and a resistor pulls it up.
        into.fill(0xff);
        let Some(start) = (0..clocks).find(|clock| is_high(*clock)) else {
            return;
        };
        let (code, count) = (self.code(), self.bits.count());
        let down = (0..count).rev();
        let places = down.chain(1..count).map(|place| code >> place & 1 == 1);
        let mut driven = std::iter::once(false).chain(places);
        for clock in start + 6..clocks {
            // Zeros without end.
            if !driven.next().unwrap_or(false) {
                into[clock / 8] &= !(1 << (7 - clock % 8));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Figures 6-1 of both data sheets, CH0 and others of table 5-2.
    #[test]
    fn a_request_stands_so_that_the_code_fills_the_third_byte() {
        let check = |bits: Bits, channel: Inputs, expected: [u8; 2]| {
            let request = request(bits, channel.code(CODES).unwrap());
            let [first, second, rest @ ..] = request;
            assert_eq!([first, second], expected, "{bits:?} {channel:?}");
            assert_eq!(rest, [0; 3]);
        };
        let pair = |text: &str| Inputs::Difference(text.to_owned());
        check(Bits::Ten, Inputs::One(0), [0b1, 0b1000_0000]);
        check(Bits::Ten, Inputs::One(7), [0b1, 0b1111_0000]);
        check(Bits::Ten, pair("1-0"), [0b1, 0b0001_0000]);
        check(Bits::Twelve, Inputs::One(0), [0b110, 0b0000_0000]);
        check(Bits::Twelve, Inputs::One(5), [0b111, 0b0100_0000]);
        check(Bits::Twelve, pair("6-7"), [0b101, 0b1000_0000]);
    }

    /// By hand from figure 5-2; the bits before the null bit are anything.
    #[test]
    fn a_code_counts_if_it_comes_twice_alike() {
        let check = |bits: Bits, answer: [u8; BYTES], expected: &str| {
            let said = match decode(bits, answer) {
                Ok(code) => format!("{code:#b}"),
                Err(trouble) => trouble.to_string(),
            };
            assert!(said.contains(expected), "{bits:?} {answer:02x?}: {said}");
        };
        // 11 0000 0101, then 0 1000 0011 and zeros.
        check(
            Bits::Ten,
            [0xff, 0b1111_1011, 0b0000_0101, 0b0100_0001, 0b1000_0000],
            "0b1100000101",
        );
        check(
            Bits::Ten,
            [0, 0b0000_0011, 0xff, 0xff, 0x80],
            "0b1111111111",
        );
        check(Bits::Ten, [0, 0, 0, 0, 0], "0b0");
        check(Bits::Ten, [0xff; 5], "nothing answers");
        check(Bits::Ten, [0, 0b100, 0, 0, 0], "nothing answers");
        // One bit lost.
        check(Bits::Ten, [0, 0b10, 0b101, 0b0100_0001, 0x80], "check sum");
        check(Bits::Ten, [0, 0b11, 0b101, 0b0100_0001, 0], "check sum");
        // 1000 0000 0011, then 100 0000 0001.
        check(
            Bits::Twelve,
            [0xff, 0b1110_1000, 0b0000_0011, 0b1000_0000, 0b0010_0000],
            "0b100000000011",
        );
        check(Bits::Twelve, [0, 0b1_0000, 0, 0, 0], "nothing answers");
    }

    #[test]
    fn a_reading_is_what_is_around_the_twin() {
        let check = |twelve: bool, reference: f64, volts: f64, expected: f64| {
            let scene = Scene::still(&[(Physical::Voltage, volts)]);
            let channel = Inputs::One(3);
            let chip = if twelve {
                let part = Mcp3208 { channel, reference };
                part.open(SpiLink::to(part.twin(scene)))
            } else {
                let part = Mcp3008 { channel, reference };
                part.open(SpiLink::to(part.twin(scene)))
            };
            let read = chip.unwrap().measure().unwrap();
            assert!((read[0] - expected).abs() < 1e-9, "{volts}: {read:?}");
        };
        check(false, 3.3, 1.65, 1.65);
        check(false, 1.024, 0.333_5, 0.333);
        check(false, 1.024, 2.0, 1.023);
        check(false, 1.024, -0.1, 0.0);
        check(true, 4.096, 1.234_5, 1.234);
        check(true, 4.096, 5.0, 4.095);
    }

    #[test]
    fn nothing_connected_is_no_reading() {
        struct Pulled(u8);
        impl SpiTwin for Pulled {
            fn transfer(&mut self, _: &[u8], into: &mut [u8]) {
                into.fill(self.0);
            }
        }
        let channel = Inputs::One(0);
        let part = Mcp3008 {
            channel,
            reference: 3.3,
        };
        let mut chip = part.open(SpiLink::to(Box::new(Pulled(0xff)))).unwrap();
        let trouble = chip.measure().unwrap_err();
        assert!(matches!(trouble, Trouble::NoAnswer), "{trouble}");
    }

    #[test]
    fn options_that_it_does_not_have_are_told() {
        let check = |channel: Inputs, reference: f64, expected: &[&str]| {
            let problems = Mcp3008 { channel, reference }.problems();
            let at: Vec<&str> = problems.iter().map(|(at, _)| *at).collect();
            assert_eq!(at, expected, "{problems:?}");
        };
        let pair = |text: &str| Inputs::Difference(text.to_owned());
        check(Inputs::One(7), 5.5, &[]);
        check(pair("7-6"), 0.25, &[]);
        check(Inputs::One(8), 5.6, &["channel", "reference"]);
        check(pair("0-2"), 0.24, &["channel", "reference"]);
        check(Inputs::One(0), f64::NAN, &["reference"]);
    }
}
