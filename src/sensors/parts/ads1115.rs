//! TI ADS1115 and ADS1015: analog-to-digital converters of 16 and 12 bits with four inputs, on I2C.
//!
//! Registers are those of the ADS1115 data sheet, SBAS444D (section 9.6; 9.3.3 for the scale, 9.4.2.1 for a single conversion). The
//! ADS1015 (SBAS473E) has other rates, and its 12 bits at the top of the same 16.

use schemars::JsonSchema;
use serde::Deserialize;

use super::inputs::Inputs;
use crate::sensors::i2c::{I2cLink, I2cPlace, I2cTwin, WordRegisters, WordTwin};
use crate::sensors::{About, Chip, Part, Physical, Quantity, Scene, Trouble};

/// Reads an input of an ADS1115, a converter of 16 bits: a voltage in volt.
///
/// Write a node for each input. It measures when it is asked, and sleeps in between.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct Ads1115 {
    /// The input, 0 to 3 for A0 to A3 against ground; or the difference of two: `"0-1"`, `"0-3"`, `"1-3"` or `"2-3"`.
    channel: Inputs,
    /// The greatest voltage it can tell, in volt, of either sign: 6.144, 4.096, 2.048, 1.024, 0.512 or 0.256. Default: 4.096. No input may
    /// be above the supply, whatever the range.
    #[serde(default = "usual_range")]
    range: f64,
    /// Conversions per second: 8, 16, 32, 64, 128, 250, 475 or 860. Slower ones have less noise, and take longer. Default: 128.
    #[serde(default = "usual_rate_of_16")]
    rate: u16,
}

/// Reads an input of an ADS1015, the ADS1115 with 12 bits: a voltage in volt.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct Ads1015 {
    /// The input, 0 to 3 for A0 to A3 against ground; or the difference of two: `"0-1"`, `"0-3"`, `"1-3"` or `"2-3"`.
    channel: Inputs,
    /// The greatest voltage it can tell, in volt, of either sign: 6.144, 4.096, 2.048, 1.024, 0.512 or 0.256. Default: 4.096. No input may
    /// be above the supply, whatever the range.
    #[serde(default = "usual_range")]
    range: f64,
    /// Conversions per second: 128, 250, 490, 920, 1600, 2400 or 3300. Default: 1600.
    #[serde(default = "usual_rate_of_12")]
    rate: u16,
}

fn usual_range() -> f64 {
    4.096
}

fn usual_rate_of_16() -> u16 {
    128
}

fn usual_rate_of_12() -> u16 {
    1600
}

const ADDRESSES: &[u8] = &[0x48, 0x49, 0x4a, 0x4b];
const WIRING: &[(&str, &str)] = &[
    ("VDD", "3.3 V, pin 1"),
    ("GND", "ground, pin 6"),
    ("SDA", "GPIO2, pin 3"),
    ("SCL", "GPIO3, pin 5"),
    (
        "ADDR",
        "ground for 0x48, 3.3 V for 0x49, SDA for 0x4a, SCL for 0x4b",
    ),
    ("A0 to A3", "what is measured, from 0 V to 3.3 V"),
    ("ALRT", "not needed"),
];
const SETUP: &str = "`dtparam=i2c_arm=on` in /boot/firmware/config.txt.";

impl Part for Ads1115 {
    type Place = I2cPlace;
    const NAME: &'static str = "ads1115";
    const ABOUT: About = About {
        title: "Texas Instruments ADS1115",
        quantities: &[Quantity::new("voltage", "V", (-4.096, 4.096), 4)],
        addresses: ADDRESSES,
        wiring: WIRING,
        setup: SETUP,
        notes: "Accurate to about 0.15 % of the range. Supply it with 3.3 V: with 5 V its pull-ups put 5 V on the pins of the Pi. No input may be \
                more than 0.3 V below ground or above the supply. A 4-20 mA transmitter: loop supply (24 V) to the transmitter's plus, its minus to A0, \
                150 ohm (0.1 %) from A0 to ground, which the supply shares; that is 0.6 V to 3.0 V, for a `range` node with `in = [0.6, 3.0]`. \
                Less than 0.54 V (3.6 mA) is a broken wire. For 0-10 V: 22 kohm from the signal to A0, 10 kohm from A0 to ground, and `in = [0, 3.125]`. \
                A reading takes a little longer than one conversion, so 140 ms at `rate = 8`.",
        data_sheet: "TI SBAS444D, January 2018",
        takes_ms: 10,
    };
    const EXAMPLE: &'static str = r#"
[nodes.loop]
type = "ads1115"
channel = 0
range = 4.096
rate = 16              # less noise
every = "1s"

[nodes.level]
type = "range"
from = "loop"
in = [0.6, 3.0]        # 4-20 mA over 150 ohms
out = [0, 100]

[nodes.show]
type = "debug"
from = "level"
"#;

    fn problems(&self) -> Vec<(&'static str, String)> {
        ADS1115.problems(&self.channel, self.range, self.rate)
    }

    fn quantities(&self) -> Vec<Quantity> {
        vec![ADS1115.quantity(self.range)]
    }

    fn open(&self, link: I2cLink) -> Result<Box<dyn Chip>, Trouble> {
        ADS1115.open(link, &self.channel, self.range, self.rate)
    }

    fn twin(&self, scene: Scene) -> Box<dyn I2cTwin> {
        Twin::boxed(&ADS1115, scene)
    }
}

impl Part for Ads1015 {
    type Place = I2cPlace;
    const NAME: &'static str = "ads1015";
    const ABOUT: About = About {
        title: "Texas Instruments ADS1015",
        quantities: &[Quantity::new("voltage", "V", (-4.096, 4.096), 3)],
        addresses: ADDRESSES,
        wiring: WIRING,
        setup: SETUP,
        notes: "Accurate to about 0.25 % of the range; resolves 2 mV at 4.096 V. Else as the ADS1115, whose notes hold for it, with how to wire a \
                4-20 mA transmitter.",
        data_sheet: "TI SBAS473E, January 2018",
        takes_ms: 3,
    };
    const EXAMPLE: &'static str = r#"
[nodes.bridge]
type = "ads1015"
channel = "0-1"
range = 4.096
rate = 3300
every = "100ms"

[nodes.show]
type = "debug"
from = "bridge"
"#;

    fn problems(&self) -> Vec<(&'static str, String)> {
        ADS1015.problems(&self.channel, self.range, self.rate)
    }

    fn quantities(&self) -> Vec<Quantity> {
        vec![ADS1015.quantity(self.range)]
    }

    fn open(&self, link: I2cLink) -> Result<Box<dyn Chip>, Trouble> {
        ADS1015.open(link, &self.channel, self.range, self.rate)
    }

    fn twin(&self, scene: Scene) -> Box<dyn I2cTwin> {
        Twin::boxed(&ADS1015, scene)
    }
}

mod register {
    pub(super) const CONVERSION: u8 = 0;
    pub(super) const CONFIG: u8 = 1;
}

/// The fields of the configuration (table 8): written, `OS` starts a conversion; read, it says that none is going on.
const OS: u16 = 1 << 15;
const MUX_SHIFT: u32 = 12;
const PGA_SHIFT: u32 = 9;
const SINGLE_SHOT: u16 = 1 << 8;
const RATE_SHIFT: u32 = 5;
const NO_COMPARATOR: u16 = 0b11;
/// What it is after power-up.
const CONFIG_AT_POWER_UP: u16 = 0x8583;

/// `MUX`.
const MUX: &[(u8, Option<u8>, u8)] = &[
    (0, None, 0b100),
    (1, None, 0b101),
    (2, None, 0b110),
    (3, None, 0b111),
    (0, Some(1), 0b000),
    (0, Some(3), 0b001),
    (1, Some(3), 0b010),
    (2, Some(3), 0b011),
];
/// `PGA`, by its place.
const RANGES: [f64; 6] = [6.144, 4.096, 2.048, 1.024, 0.512, 0.256];

/// What tells the two apart.
struct Model {
    name: &'static str,
    bits: u32,
    /// `DR`, by its place.
    rates: &'static [u16],
}

const ADS1115: Model = Model {
    name: "an ADS1115",
    bits: 16,
    rates: &[8, 16, 32, 64, 128, 250, 475, 860],
};
const ADS1015: Model = Model {
    name: "an ADS1015",
    bits: 12,
    rates: &[128, 250, 490, 920, 1600, 2400, 3300],
};

impl Model {
    fn problems(&self, channel: &Inputs, range: f64, rate: u16) -> Vec<(&'static str, String)> {
        let mut problems: Vec<(&str, String)> = channel.problem(MUX).into_iter().collect();
        if !RANGES.contains(&range) {
            let message = format!("{range} V is not a range of it; it has {}", list(&RANGES));
            problems.push(("range", message));
        }
        if !self.rates.contains(&rate) {
            let message = format!("{rate} is not a rate of it; it has {}", list(self.rates));
            problems.push(("rate", message));
        }
        problems
    }

    /// The configuration that starts a conversion.
    fn config(&self, channel: &Inputs, range: f64, rate: u16) -> Option<u16> {
        let mux = channel.code(MUX)?;
        let pga = RANGES.iter().position(|it| *it == range)?;
        let data_rate = self.rates.iter().position(|it| *it == rate)?;
        let fields = u16::from(mux) << MUX_SHIFT
            | (pga as u16) << PGA_SHIFT
            | (data_rate as u16) << RATE_SHIFT;
        Some(OS | fields | SINGLE_SHOT | NO_COMPARATOR)
    }

    /// With the decimals that tell one step from the next.
    fn quantity(&self, range: f64) -> Quantity {
        let step = range / f64::from(1_u32 << (self.bits - 1));
        let decimals = (-step.log10()).ceil().clamp(0.0, 9.0) as u8;
        Quantity::new("voltage", "V", (-range, range), decimals)
    }

    fn open(
        &'static self,
        link: I2cLink,
        channel: &Inputs,
        range: f64,
        rate: u16,
    ) -> Result<Box<dyn Chip>, Trouble> {
        let config = self.config(channel, range, rate);
        Ok(Box::new(Converter {
            link,
            model: self,
            config: config.expect("the options were checked"),
            range,
            rate,
        }))
    }

    /// The code of the scale's end.
    fn highest(&self) -> i16 {
        let unused = 16 - self.bits;
        i16::MAX >> unused << unused
    }
}

fn list<T: ToString>(of: &[T]) -> String {
    let each: Vec<String> = of.iter().map(T::to_string).collect();
    each.join(", ")
}

struct Converter {
    link: I2cLink,
    model: &'static Model,
    config: u16,
    range: f64,
    rate: u16,
}

impl Chip for Converter {
    fn measure(&mut self) -> Result<Vec<f64>, Trouble> {
        self.link.set_word(register::CONFIG, self.config)?;
        // Its clock may be 10 % slow (table of electrical characteristics, "data rate variation"), and it wakes up first.
        let conversion_ms = 1_100_u64.div_ceil(self.rate.into());
        self.link.wait_ms(conversion_ms + 1);
        self.wait_until_ready()?;
        let code = self.link.word(register::CONVERSION)? as i16;
        self.check(code)?;
        Ok(vec![f64::from(code) * self.range / 32_768.0])
    }
}

impl Converter {
    /// Waits for `OS`, and looks whether it does what it was told: the chip has no id.
    fn wait_until_ready(&mut self) -> Result<(), Trouble> {
        const TRIES: u32 = 20;
        for _ in 0..TRIES {
            let found = self.link.word(register::CONFIG)?;
            if found | OS != self.config {
                return Err(Trouble::WrongPart {
                    says: format!("its configuration is {found:#06x}"),
                    expected: format!("{:#06x}", self.config),
                    remedy: format!(
                        "is it {}, and does no other program use it?",
                        self.model.name
                    ),
                });
            }
            if found & OS != 0 {
                return Ok(());
            }
            self.link.wait_ms(2);
        }
        Err(Trouble::NotReady("it does not finish measuring".to_owned()))
    }

    fn check(&self, code: i16) -> Result<(), Trouble> {
        if code & !(-1 << (16 - self.model.bits)) != 0 {
            return Err(Trouble::WrongPart {
                says: format!("it gives {code:#06x}, which has more than 12 bits"),
                expected: self.model.name.to_owned(),
                remedy: "write `type = \"ads1115\"`".to_owned(),
            });
        }
        if code == i16::MIN || code == self.model.highest() {
            return Err(Trouble::Saturated(beyond(self.range, code < 0)));
        }
        Ok(())
    }
}

/// What to do about a voltage that the range does not reach.
fn beyond(range: f64, is_negative: bool) -> String {
    let sign = if is_negative { "-" } else { "" };
    let wider = RANGES.iter().rev().find(|it| **it > range);
    let remedy = match wider {
        Some(wider) => format!("write `range = {wider}`, or a greater one"),
        None => {
            "that is the widest range: put a divider of two resistors before the input".to_owned()
        }
    };
    format!("the voltage is {sign}{range} V or beyond, where its range ends: {remedy}")
}

/// The simulated chip: the scene's voltage is at each of its inputs, and between any two.
struct Twin {
    model: &'static Model,
    scene: Scene,
    config: u16,
    code: i16,
}

impl Twin {
    fn boxed(model: &'static Model, scene: Scene) -> Box<dyn I2cTwin> {
        WordRegisters::boxed(Twin {
            model,
            scene,
            config: CONFIG_AT_POWER_UP,
            code: 0,
        })
    }

    fn convert(&mut self) {
        let place = usize::from(self.config >> PGA_SHIFT & 0b111);
        // 6 and 7 are the smallest range too.
        let range = RANGES[place.min(RANGES.len() - 1)];
        let shift = 16 - self.model.bits;
        let steps = f64::from(1_u32 << (self.model.bits - 1));
        let volts = self.scene.value(Physical::Voltage);
        let count = (volts / range * steps).round().clamp(-steps, steps - 1.0);
        self.code = (count as i16) << shift;
    }
}

impl WordTwin for Twin {
    fn get(&mut self, register: u8) -> u16 {
        match register {
            register::CONVERSION => self.code as u16,
            register::CONFIG => self.config | OS,
            _ => 0,
        }
    }

    fn set(&mut self, register: u8, value: u16) {
        if register == register::CONFIG {
            self.config = value;
            if value & OS != 0 {
                self.convert();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sensors::i2c::script::{Step, link};

    fn wide(channel: Inputs, range: f64) -> Ads1115 {
        Ads1115 {
            channel,
            range,
            rate: 128,
        }
    }

    /// By hand from table 8: after power-up it has 0x8583, which is 0-1, 2.048 V, single-shot, 128 a second, no comparator.
    #[test]
    fn options_become_the_fields_of_the_configuration() {
        let check = |model: &Model, channel: Inputs, range: f64, rate: u16, expected: u16| {
            let config = model.config(&channel, range, rate).unwrap();
            assert_eq!(
                config, expected,
                "{channel:?} {range} {rate}: {config:#06x}"
            );
        };
        let pair = |text: &str| Inputs::Difference(text.to_owned());
        check(&ADS1115, pair("0-1"), 2.048, 128, 0x8583);
        check(&ADS1115, Inputs::One(0), 4.096, 128, 0xc383);
        check(&ADS1115, Inputs::One(3), 6.144, 8, 0xf103);
        check(&ADS1115, pair("2-3"), 0.256, 860, 0xbbe3);
        check(&ADS1015, Inputs::One(1), 4.096, 1600, 0xd383);
        check(&ADS1015, Inputs::One(2), 1.024, 3300, 0xe7c3);
    }

    #[test]
    fn options_that_it_does_not_have_are_told() {
        let mut part = wide(Inputs::Difference("1-0".to_owned()), 5.0);
        part.rate = 100;
        let problems = part.problems();
        let at: Vec<&str> = problems.iter().map(|(at, _)| *at).collect();
        assert_eq!(at, ["channel", "range", "rate"], "{problems:?}");
        assert!(problems[1].1.contains("it has 6.144, 4.096, 2.048"));
        assert!(wide(Inputs::One(3), 0.256).problems().is_empty());
    }

    /// What it says when these bytes come from the conversion register, with a range of 2.048 V; table 3 has the codes.
    fn said(code: &'static [u8]) -> String {
        let steps = [
            Step::Takes(&[1, 0xc5, 0x83]),
            Step::Takes(&[1]),
            Step::Gives(&[0x45, 0x83]),
            Step::Takes(&[1]),
            Step::Gives(&[0xc5, 0x83]),
            Step::Takes(&[0]),
            Step::Gives(code),
        ];
        let chip = wide(Inputs::One(0), 2.048).open(link(&steps));
        match chip.unwrap().measure() {
            Ok(values) => format!("{values:?}"),
            Err(trouble) => trouble.to_string(),
        }
    }

    #[test]
    fn it_waits_until_it_is_ready_and_the_scales_ends_are_no_voltage() {
        let check = |code: &'static [u8], expected: &str| {
            let said = said(code);
            assert!(said.contains(expected), "{code:02x?}: {said}");
        };
        check(&[0x00, 0x00], "[0.0]");
        check(&[0x00, 0x01], "[6.25e-5]");
        check(&[0xff, 0xff], "[-6.25e-5]");
        check(&[0x40, 0x00], "[1.024]");
        check(&[0x7f, 0xfe], "[2.047875]");
        check(&[0x80, 0x01], "[-2.0479375]");
        check(&[0x7f, 0xff], "the voltage is 2.048 V or beyond");
        check(&[0x7f, 0xff], "write `range = 4.096`");
        check(&[0x80, 0x00], "the voltage is -2.048 V or beyond");
    }

    #[test]
    fn the_next_wider_range_is_named() {
        assert!(beyond(0.256, false).contains("`range = 0.512`"));
        assert!(beyond(4.096, false).contains("`range = 6.144`"));
        assert!(beyond(6.144, true).contains("divider"));
    }

    #[test]
    fn what_does_not_keep_its_configuration_is_another_part() {
        let steps = [
            Step::Takes(&[1, 0xc5, 0x83]),
            Step::Takes(&[1]),
            Step::Gives(&[0x60, 0xa0]),
        ];
        let chip = wide(Inputs::One(0), 2.048).open(link(&steps));
        let trouble = chip.unwrap().measure().unwrap_err();
        let expected = "its configuration is 0x60a0, but 0xc583 was expected";
        assert!(trouble.to_string().contains(expected), "{trouble}");
    }

    #[test]
    fn a_conversion_without_end_is_given_up() {
        struct Busy;
        impl WordTwin for Busy {
            fn get(&mut self, _: u8) -> u16 {
                0x4583
            }
            fn set(&mut self, _: u8, _: u16) {}
        }
        let link = I2cLink::to(0x48, WordRegisters::boxed(Busy));
        let chip = wide(Inputs::One(0), 2.048).open(link);
        let trouble = chip.unwrap().measure().unwrap_err();
        assert!(trouble.to_string().contains("does not finish"), "{trouble}");
    }

    #[test]
    fn a_reading_is_what_is_around_the_twin() {
        let read = |twin_is: &'static Model, read_as: &'static Model, volts: f64, range: f64| {
            let scene = Scene::still(&[(Physical::Voltage, volts)]);
            let link = I2cLink::to(0x48, Twin::boxed(twin_is, scene));
            let chip = read_as.open(link, &Inputs::One(1), range, 128);
            match chip.unwrap().measure() {
                Ok(values) => format!("{:.4}", values[0]),
                Err(trouble) => trouble.to_string(),
            }
        };
        assert_eq!(read(&ADS1115, &ADS1115, 1.650_12, 4.096), "1.6501");
        assert_eq!(read(&ADS1115, &ADS1115, -0.1, 0.256), "-0.1000");
        assert_eq!(read(&ADS1015, &ADS1015, 1.651, 4.096), "1.6520");
        assert_eq!(read(&ADS1015, &ADS1015, -0.003, 4.096), "-0.0040");
        assert!(read(&ADS1115, &ADS1115, 3.0, 2.048).contains("range = 4.096"));
        assert!(read(&ADS1015, &ADS1015, -3.0, 2.048).contains("range = 4.096"));
        assert!(read(&ADS1015, &ADS1015, 3.0, 2.048).contains("range = 4.096"));
        // 16 bits where there should be 12.
        let swapped = read(&ADS1115, &ADS1015, 1.650_12, 4.096);
        assert!(swapped.contains("write `type = \"ads1115\"`"), "{swapped}");
    }

    #[test]
    fn a_reading_has_the_decimals_of_a_step() {
        let check = |model: &Model, range: f64, expected: u8| {
            assert_eq!(model.quantity(range).decimals, expected, "{range}");
        };
        check(&ADS1115, 6.144, 4);
        check(&ADS1115, 4.096, 4);
        check(&ADS1115, 2.048, 5);
        check(&ADS1115, 0.256, 6);
        check(&ADS1015, 4.096, 3);
        check(&ADS1015, 0.256, 4);
    }
}
