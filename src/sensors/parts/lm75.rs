//! The LM75 and its many successors, on I2C.
//!
//! What they share, by the data sheet of the TMP75 (TI SBOS288M, "Programming"): the temperature in the high bits of
//! register 0, and a configuration in register 1 whose bit 0 makes it sleep. The NS/TI LM75A (SNIS153) has 9 bits and the NXP LM75B
//! (its data sheet, revision 6.1) 11; bits 5 and 6 of their configuration are reserved. The TMP75, TMP105, TMP175 and
//! TMP275 have in these the number of bits; in the TMP102 (SBOS397I) and TMP112 (SBOS473L) they say 12 for ever.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::sensors::i2c::{I2cLink, I2cPlace, I2cTwin};
use crate::sensors::{About, Chip, Part, Physical, Quantity, Scene, Trouble};

/// Reads an LM75 or one of its successors, such as TMP75, TMP102 and TMP105: the temperature in degrees Celsius.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct Lm75 {
    /// Which one it is: it decides how fine a reading is. Default: `lm75`, which goes with all, at 0.5 degC if the chip does not say more.
    #[serde(default)]
    chip: Model,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Model {
    #[default]
    Lm75,
    Lm75b,
    Tmp75,
    Tmp102,
    Tmp105,
    Tmp112,
    Tmp175,
    Tmp275,
}

impl Part for Lm75 {
    type Place = I2cPlace;
    const NAME: &'static str = "lm75";
    const ABOUT: About = About {
        title: "LM75, LM75B, TMP75, TMP102, TMP105, TMP112, TMP175, TMP275",
        quantities: &[Quantity::new("temperature", "degC", (-55.0, 125.0), 4)],
        addresses: &[0x48, 0x49, 0x4a, 0x4b, 0x4c, 0x4d, 0x4e, 0x4f],
        wiring: &[
            ("VCC, V+ or +VS", "3.3 V, pin 1"),
            ("GND", "ground, pin 6"),
            ("SDA", "GPIO2, pin 3"),
            ("SCL", "GPIO3, pin 5"),
            (
                "A0, A1, A2",
                "ground for 0; 3.3 V adds 1, 2, 4 to address 0x48",
            ),
            (
                "ADD0 of a TMP102",
                "ground 0x48, 3.3 V 0x49, SDA 0x4a, SCL 0x4b",
            ),
            ("OS or ALERT", "not needed"),
        ],
        setup: "`dtparam=i2c_arm=on` in /boot/firmware/config.txt.",
        notes: "Accurate to 2 degC, TMP112 and TMP275 to 0.5 degC. Resolves 0.5 degC (LM75), 0.125 degC (LM75B) or 0.0625 degC (TMP). \
                A chip marked LM75A is an `lm75` if TI made it, and an `lm75b` if NXP did. The MCP9808 has other registers and does \
                not go with this. It measures the board that it is soldered to more than the air. These chips have no id, so another \
                part at the address may be taken for one.",
        data_sheet: "TI SBOS288M (TMP75, TMP175), SBOS397I (TMP102), SBOS473L (TMP112), SNIS153 (LM75A); NXP LM75B revision 6.1",
        takes_ms: CONVERSION_MS,
    };
    const EXAMPLE: &'static str = r#"
[nodes.cabinet]
type = "lm75"
chip = "tmp102"
every = "10s"

[nodes.show]
type = "debug"
from = "cabinet"
"#;

    fn open(&self, link: I2cLink) -> Result<Box<dyn Chip>, Trouble> {
        let thermometer = Thermometer::open(link, self.chip)?;
        Ok(Box::new(thermometer))
    }

    fn twin(&self, scene: Scene) -> Box<dyn I2cTwin> {
        Box::new(Twin {
            model: self.chip,
            scene,
            register: 0,
            config: self.chip.at_power_up(),
        })
    }
}

mod register {
    pub(super) const TEMPERATURE: u8 = 0;
    pub(super) const CONFIG: u8 = 1;
}

/// Configuration: it sleeps.
const SHUTDOWN: u8 = 0b0000_0001;
/// Configuration: how many bits more than 9.
const RESOLUTION: u8 = 0b0110_0000;
/// Configuration: measures once in shutdown; always written as 0.
const ONE_SHOT: u8 = 0b1000_0000;
/// The longest conversion of these at their finest: 300 ms of LM75, TMP75 and TMP105. The TMP102 measures four times a second.
const CONVERSION_MS: u64 = 300;

/// Where the number of bits is from.
enum Resolution {
    /// It is in the configuration, or zeros are there, for 9.
    Told,
    Fixed(u8),
    /// It is set to 12 in the configuration.
    Set,
}

impl Model {
    fn resolution(self) -> Resolution {
        match self {
            Model::Lm75 => Resolution::Told,
            Model::Lm75b => Resolution::Fixed(11),
            Model::Tmp75
            | Model::Tmp102
            | Model::Tmp105
            | Model::Tmp112
            | Model::Tmp175
            | Model::Tmp275 => Resolution::Set,
        }
    }

    /// The first byte of the configuration (TMP75: table 7-8; TMP102: section 6.5.3).
    fn at_power_up(self) -> u8 {
        match self {
            Model::Tmp102 | Model::Tmp112 => RESOLUTION,
            _ => 0,
        }
    }
}

struct Thermometer {
    link: I2cLink,
    model: Model,
    /// What the configuration has to be.
    config: u8,
}

impl Thermometer {
    fn open(mut link: I2cLink, model: Model) -> Result<Thermometer, Trouble> {
        let found = link.register(register::CONFIG)?;
        let awake = found & !(SHUTDOWN | ONE_SHOT);
        let config = match model.resolution() {
            Resolution::Set => awake | RESOLUTION,
            // Reserved bits keep what they have.
            Resolution::Told | Resolution::Fixed(_) => awake,
        };
        link.send(&[register::CONFIG, config])?;
        let kept = link.register(register::CONFIG)?;
        if !is_kept(kept, config) {
            return Err(Trouble::WrongPart {
                says: format!("its configuration stays {kept:#04x}"),
                expected: format!("{config:#04x}"),
                remedy: "look at what the chip is marked with, and write it as `chip`".to_owned(),
            });
        }
        // After power-up it says 0 degC until it has measured (TMP75, "Temperature Register").
        link.wait_ms(CONVERSION_MS);
        Ok(Thermometer {
            link,
            model,
            config,
        })
    }
}

/// Whether the bits that matter are what was written.
fn is_kept(found: u8, written: u8) -> bool {
    (found ^ written) & (SHUTDOWN | RESOLUTION) == 0
}

impl Chip for Thermometer {
    fn measure(&mut self) -> Result<Vec<f64>, Trouble> {
        let config = self.link.register(register::CONFIG)?;
        if !is_kept(config, self.config) {
            return Err(Trouble::NotReady(format!(
                "its configuration went from {:#04x} to {config:#04x}: it lost power, or another program uses it",
                self.config
            )));
        }
        let raw = self.link.word(register::TEMPERATURE)?;
        let bits = match self.model.resolution() {
            Resolution::Told => 9 + ((config & RESOLUTION) >> 5),
            Resolution::Fixed(bits) => bits,
            // TMP102, section 6.5.2: bit 0 is set in extended mode, where the rest has another scale.
            Resolution::Set if raw & 0x000f != 0 => {
                return Err(Trouble::NotReady(format!(
                    "it gives {raw:#06x}, which has more than 12 bits: another program left it in extended mode; take its power \
                     away for a moment"
                )));
            }
            Resolution::Set => 12,
        };
        Ok(vec![degc(raw, bits)])
    }
}

/// The temperature: 1/256 degC, of which so many bits from the top count. The rest is undefined in some of these chips.
fn degc(raw: u16, bits: u8) -> f64 {
    let counts = raw & (u16::MAX << (16 - bits));
    f64::from(counts as i16) / 256.0
}

/// The simulated chip.
struct Twin {
    model: Model,
    scene: Scene,
    register: u8,
    config: u8,
}

impl Twin {
    fn raw(&self) -> u16 {
        let bits = match self.model.resolution() {
            Resolution::Fixed(bits) => bits,
            Resolution::Told | Resolution::Set => 9 + ((self.config & RESOLUTION) >> 5),
        };
        let degc = self.scene.value(Physical::Temperature);
        let rest = 16 - bits;
        let step = f64::from(1_u16 << rest) / 256.0;
        // As far as the sign allows, like the chip.
        let highest = f64::from(i16::MAX >> rest);
        let count = (degc / step).round().clamp(-highest - 1.0, highest);
        (count as i16 as u16) << rest
    }
}

impl I2cTwin for Twin {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(&register) = bytes.first() {
            self.register = register;
        }
        if let [register::CONFIG, config] = *bytes {
            self.config = match self.model {
                // Read-only there (section 6.5.3.5).
                Model::Tmp102 | Model::Tmp112 => config | RESOLUTION,
                _ => config,
            };
        }
    }

    fn read(&mut self, into: &mut [u8]) {
        let word = match self.register {
            register::TEMPERATURE => self.raw().to_be_bytes(),
            _ => [self.config; 2],
        };
        for (byte, value) in into.iter_mut().zip(word) {
            *byte = value;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sensors::i2c::script::{Step, link};

    /// The table of the temperature data format of the TMP75 (12 bits), and those of LM75A (upper 9 bits) and LM75B (upper 11).
    #[test]
    fn the_tables_of_the_data_sheets_come_out() {
        let check = |raw: u16, bits: u8, expected: f64| {
            assert_eq!(degc(raw, bits), expected, "{raw:#06x} of {bits} bits");
        };
        check(0x7ff0, 12, 127.9375);
        check(0x6400, 12, 100.0);
        check(0x5000, 12, 80.0);
        check(0x4b00, 12, 75.0);
        check(0x1900, 12, 25.0);
        check(0x0040, 12, 0.25);
        check(0x0000, 12, 0.0);
        check(0xffc0, 12, -0.25);
        check(0xe700, 12, -25.0);
        check(0xc900, 12, -55.0);
        check(0x7d00, 9, 125.0);
        check(0xff80, 9, -0.5);
        check(0x7ee0, 11, 126.875);
        check(0xffe0, 11, -0.125);
        // What is below them does not count.
        check(0x19ff, 9, 25.5);
        check(0x191f, 11, 25.0);
        check(0xffff, 9, -0.5);
    }

    #[test]
    fn a_reading_is_what_is_around_the_twin_as_fine_as_it_can() {
        let check = |chip: Model, degc: f64, expected: f64| {
            let part = Lm75 { chip };
            let scene = Scene::still(&[(Physical::Temperature, degc)]);
            let link = I2cLink::to(0x48, part.twin(scene));
            let read = part.open(link).unwrap().measure().unwrap();
            assert_eq!(read, [expected], "{chip:?} at {degc}");
        };
        check(Model::Lm75, 21.3, 21.5);
        check(Model::Lm75b, 21.3, 21.25);
        check(Model::Tmp75, 21.3, 21.3125);
        check(Model::Tmp102, 21.3, 21.3125);
        check(Model::Tmp105, -18.06, -18.0625);
        check(Model::Lm75, -18.06, -18.0);
        check(Model::Tmp75, -0.06, -0.0625);
        // The scale's ends; whether that can be true is asked later.
        check(Model::Tmp75, 400.0, 127.9375);
        check(Model::Tmp75, -400.0, -128.0);
    }

    /// A TMP102 that is taken for an LM75 says that it has 12 bits.
    #[test]
    fn by_default_the_chip_says_how_many_bits() {
        let scene = Scene::still(&[(Physical::Temperature, 4.1875)]);
        let chip = Model::Tmp102;
        let link = I2cLink::to(0x48, Lm75 { chip }.twin(scene));
        let chip = Model::Lm75;
        assert_eq!(
            Lm75 { chip }.open(link).unwrap().measure().unwrap(),
            [4.1875]
        );
    }

    const OPEN: [Step; 5] = [
        Step::Takes(&[1]),
        // Asleep, with a polarity that stays.
        Step::Gives(&[0b0000_0101]),
        Step::Takes(&[1, 0b0110_0100]),
        Step::Takes(&[1]),
        Step::Gives(&[0b0110_0100]),
    ];

    /// What it says to these bytes after `OPEN`.
    fn said(steps: &[Step]) -> String {
        let steps: Vec<Step> = OPEN.iter().chain(steps).cloned().collect();
        let chip = Model::Tmp105;
        match (Lm75 { chip }.open(link(&steps))).and_then(|mut it| it.measure()) {
            Ok(values) => format!("{values:?}"),
            Err(trouble) => trouble.to_string(),
        }
    }

    #[test]
    fn it_is_woken_and_set_to_12_bits_and_has_to_stay_so() {
        let config = |is: &'static [u8]| [Step::Takes(&[1]), Step::Gives(is)];
        let raw = |is: &'static [u8]| [Step::Takes(&[0]), Step::Gives(is)];
        let both = |config_is, raw_is| [config(config_is), raw(raw_is)].concat();
        assert_eq!(said(&both(&[0x64], &[0x19, 0x10])), "[25.0625]");
        let lost_power = said(&config(&[0]));
        assert!(
            lost_power.contains("from 0x64 to 0x00: it lost power"),
            "{lost_power}"
        );
        let asleep = said(&config(&[0x65]));
        assert!(asleep.contains("from 0x64 to 0x65"), "{asleep}");
        let extended = said(&both(&[0x64], &[0x0c, 0x81]));
        assert!(extended.contains("extended mode"), "{extended}");
    }

    #[test]
    fn a_chip_that_does_not_take_the_setting_is_another() {
        let steps = [
            Step::Takes(&[1]),
            Step::Gives(&[0]),
            Step::Takes(&[1, RESOLUTION]),
            Step::Takes(&[1]),
            Step::Gives(&[0]),
        ];
        let chip = Model::Tmp75;
        let trouble = Lm75 { chip }.open(link(&steps)).err().unwrap();
        assert!(
            trouble.to_string().contains("write it as `chip`"),
            "{trouble}"
        );
    }
}
