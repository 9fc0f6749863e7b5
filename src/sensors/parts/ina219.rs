//! TI INA219 and INA226: current and voltage of a supply, by the voltage over a shunt, on I2C.
//!
//! Registers are those of the data sheets SBOS448G (INA219, section 8.6) and SBOS547A (INA226, section 7.6). The current is computed
//! here from the shunt's voltage, so the chips' calibration register, and what depends on it, is not used.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::sensors::i2c::{I2cLink, I2cPlace, I2cTwin, WordRegisters, WordTwin};
use crate::sensors::{About, Chip, Part, Physical, Quantity, Scene, Trouble};

/// Reads an INA219: voltage in volt, current in ampere and power in watt of what it supplies.
///
/// It measures when it is asked, the mean of 16 conversions, and sleeps in between.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct Ina219 {
    /// The resistance of the shunt, in ohm, 0.0001 to 100. R100 on a board is 0.1. Default: 0.1.
    #[serde(default = "usual_shunt")]
    shunt: f64,
}

/// Reads an INA226: voltage in volt, current in ampere and power in watt of what it supplies.
///
/// It measures when it is asked, the mean of 16 conversions, and sleeps in between.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct Ina226 {
    /// The resistance of the shunt, in ohm, 0.0001 to 100. R100 on a board is 0.1, R010 is 0.01, R002 is 0.002. Default: 0.1.
    #[serde(default = "usual_shunt")]
    shunt: f64,
}

const USUAL_SHUNT: f64 = 0.1;

fn usual_shunt() -> f64 {
    USUAL_SHUNT
}

const ADDRESSES: &[u8] = &[
    0x40, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49, 0x4a, 0x4b, 0x4c, 0x4d, 0x4e, 0x4f,
];
const SETUP: &str = "`dtparam=i2c_arm=on` in /boot/firmware/config.txt.";

impl Part for Ina219 {
    type Place = I2cPlace;
    const NAME: &'static str = "ina219";
    const ABOUT: About = About {
        title: "Texas Instruments INA219",
        quantities: &INA219.quantities(USUAL_SHUNT, 4),
        addresses: ADDRESSES,
        wiring: &[
            ("VCC", "3.3 V, pin 1"),
            ("GND", "ground, pin 6, and the ground of the supply"),
            ("SDA", "GPIO2, pin 3"),
            ("SCL", "GPIO3, pin 5"),
            ("VIN+", "the supply's plus"),
            ("VIN-", "the load's plus"),
            (
                "A0, A1",
                "ground for 0x40; 3.3 V at A0 adds 1, at A1 adds 4",
            ),
        ],
        setup: SETUP,
        notes: "Accurate to 0.5 %, and as good as the shunt, which is 1 % on most boards. Up to 3.2 A at 0.1 ohm, and 26 V: more destroys it. The \
                current is positive from VIN+ to VIN-. What the shunt takes, up to 0.32 V, is not in the voltage, which is that at VIN-.",
        data_sheet: "TI SBOS448G, December 2015",
        takes_ms: 21,
    };
    const EXAMPLE: &'static str = r#"
[nodes.battery]
type = "ina219"
every = "5s"

[nodes.show]
type = "debug"
from = "battery"
"#;

    fn problems(&self) -> Vec<(&'static str, String)> {
        problems(self.shunt)
    }

    fn quantities(&self) -> Vec<Quantity> {
        INA219.quantities_of(self.shunt)
    }

    fn open(&self, link: I2cLink) -> Result<Box<dyn Chip>, Trouble> {
        INA219.open(link, self.shunt)
    }

    fn twin(&self, scene: Scene) -> Box<dyn I2cTwin> {
        Twin::boxed(&INA219, self.shunt, scene)
    }
}

impl Part for Ina226 {
    type Place = I2cPlace;
    const NAME: &'static str = "ina226";
    const ABOUT: About = About {
        title: "Texas Instruments INA226",
        quantities: &INA226.quantities(USUAL_SHUNT, 5),
        addresses: ADDRESSES,
        wiring: &[
            ("VCC or VS", "3.3 V, pin 1"),
            ("GND", "ground, pin 6, and the ground of the supply"),
            ("SDA", "GPIO2, pin 3"),
            ("SCL", "GPIO3, pin 5"),
            ("IN+", "the supply's plus"),
            ("IN-", "the load's plus"),
            (
                "VBUS or VBS",
                "what the voltage is measured of: the load's plus",
            ),
            (
                "A0, A1",
                "ground for 0x40; 3.3 V at A0 adds 1, at A1 adds 4",
            ),
            ("ALE or ALERT", "not needed"),
        ],
        setup: SETUP,
        notes: "Accurate to 0.1 %, and as good as the shunt, which is 1 % on most boards. The shunt may have up to 0.08 V: 0.8 A at 0.1 ohm, 8 A at \
                0.01 ohm; and up to 36 V: more destroys it. The current is positive from IN+ to IN-.",
        data_sheet: "TI SBOS547A, August 2015",
        takes_ms: 42,
    };
    const EXAMPLE: &'static str = r#"
[nodes.solar]
type = "ina226"
address = 0x41
shunt = 0.01
quantity = "power"
every = "10s"

[nodes.show]
type = "debug"
from = "solar"
"#;

    fn problems(&self) -> Vec<(&'static str, String)> {
        problems(self.shunt)
    }

    fn quantities(&self) -> Vec<Quantity> {
        INA226.quantities_of(self.shunt)
    }

    fn open(&self, link: I2cLink) -> Result<Box<dyn Chip>, Trouble> {
        INA226.open(link, self.shunt)
    }

    fn twin(&self, scene: Scene) -> Box<dyn I2cTwin> {
        Twin::boxed(&INA226, self.shunt, scene)
    }
}

mod register {
    pub(super) const CONFIG: u8 = 0;
    pub(super) const SHUNT: u8 = 1;
    pub(super) const BUS: u8 = 2;
    /// INA226 only, like those that follow.
    pub(super) const MASK_ENABLE: u8 = 6;
    pub(super) const MANUFACTURER: u8 = 0xfe;
    pub(super) const DIE: u8 = 0xff;
}

/// Configuration: resets the chip.
const RESET: u16 = 1 << 15;
/// INA226: "TI" in ASCII, and what its die says.
const MANUFACTURER: u16 = 0x5449;
const DIE: u16 = 0x2260;

/// What tells the two apart.
struct Model {
    name: &'static str,
    /// What the configuration is after a reset.
    config_at_reset: u16,
    /// Starts a conversion of both voltages.
    once: u16,
    /// How long that takes.
    takes_ms: u64,
    /// V for each count of the shunt's register, and the first count at the end of the scale on either side.
    shunt_step: f64,
    shunt_ends: (i16, i16),
    /// V for each count of the bus voltage, the most counts, and the most volts that the chip bears.
    bus_step: f64,
    bus_counts: f64,
    bus_most: f64,
    has_id: bool,
}

const INA219: Model = Model {
    name: "an INA219",
    config_at_reset: 0x399f,
    // BRNG 1: 32 V; PG 11: 320 mV; BADC and SADC 1100: 16 samples; MODE 011: triggered (tables 4 to 6).
    once: 0x3e63,
    // 2 x 8.51 ms (table 5), with the 10 % more that its electrical characteristics have as the longest.
    takes_ms: 19,
    shunt_step: 10e-6,
    shunt_ends: (-32_000, 32_000),
    bus_step: 4e-3,
    bus_counts: 8_191.0,
    bus_most: 26.0,
    has_id: false,
};
const INA226: Model = Model {
    name: "an INA226",
    config_at_reset: 0x4127,
    // 0100 that it always has; AVG 010: 16 samples; VBUSCT and VSHCT 100: 1.1 ms; MODE 011: triggered (tables 6 to 9).
    once: 0x4523,
    // 2 x 16 x 1.21 ms, the longest of its electrical characteristics.
    takes_ms: 39,
    shunt_step: 2.5e-6,
    shunt_ends: (i16::MIN, i16::MAX),
    bus_step: 1.25e-3,
    bus_counts: 32_767.0,
    bus_most: 36.0,
    has_id: true,
};

/// What it measured.
#[derive(Debug, PartialEq)]
struct Raw {
    shunt: i16,
    bus: u16,
}

impl Model {
    /// The current has the decimals of a count.
    fn quantities_of(&self, shunt: f64) -> Vec<Quantity> {
        let decimals = (shunt / self.shunt_step).log10().ceil().clamp(0.0, 9.0) as u8;
        self.quantities(shunt, decimals).to_vec()
    }

    const fn quantities(&self, shunt: f64, decimals: u8) -> [Quantity; 3] {
        let most = -(self.shunt_ends.0 as f64) * self.shunt_step / shunt;
        let power = most * self.bus_most;
        [
            Quantity::new("voltage", "V", (0.0, self.bus_most), 3),
            Quantity::new("current", "A", (-most, most), decimals),
            Quantity::new("power", "W", (-power, power), decimals),
        ]
    }

    fn open(&'static self, mut link: I2cLink, shunt: f64) -> Result<Box<dyn Chip>, Trouble> {
        if self.has_id {
            self.check_id(&mut link)?;
        }
        link.set_word(register::CONFIG, RESET)?;
        // What it is after power-up takes less (electrical characteristics: 40 us).
        link.wait_ms(1);
        let config = link.word(register::CONFIG)?;
        if config != self.config_at_reset {
            return Err(self.wrong(config));
        }
        Ok(Box::new(Meter {
            link,
            model: self,
            shunt,
        }))
    }

    fn check_id(&self, link: &mut I2cLink) -> Result<(), Trouble> {
        let manufacturer = link.word(register::MANUFACTURER)?;
        let die = link.word(register::DIE)?;
        if (manufacturer, die) == (MANUFACTURER, DIE) {
            return Ok(());
        }
        Err(Trouble::WrongPart {
            says: format!("its manufacturer and die are {manufacturer:#06x} and {die:#06x}"),
            expected: format!("{MANUFACTURER:#06x} and {DIE:#06x} of {}", self.name),
            remedy:
                "is it an INA219, which is `type = \"ina219\"`, or something else at this address?"
                    .to_owned(),
        })
    }

    /// What a configuration tells that is not this chip's.
    fn wrong(&self, config: u16) -> Trouble {
        let known = [&INA219, &INA226];
        let known = known.into_iter().find(|it| it.config_at_reset == config);
        Trouble::WrongPart {
            says: match known {
                Some(other) => format!("it is {}", other.name),
                None => format!("its configuration after a reset is {config:#06x}"),
            },
            expected: self.name.to_owned(),
            remedy: match known {
                Some(other) if other.has_id => "write `type = \"ina226\"`".to_owned(),
                Some(_) => "write `type = \"ina219\"`".to_owned(),
                None => "is something else at this address?".to_owned(),
            },
        }
    }

    /// The values, unless the shunt's voltage is at an end of the scale.
    fn values(&self, raw: &Raw, shunt: f64) -> Result<Vec<f64>, Trouble> {
        let (least, most) = self.shunt_ends;
        if raw.shunt <= least || raw.shunt >= most {
            return Err(Trouble::Saturated(format!(
                "the shunt has {:.4} V or more, the end of what it can tell, so the current is {:.3} A or more, if the shunt is \
                 {shunt} ohm: use a smaller shunt, and write it as `shunt`",
                f64::from(most) * self.shunt_step,
                f64::from(most) * self.shunt_step / shunt,
            )));
        }
        let volts = f64::from(raw.bus) * self.bus_step;
        let amperes = f64::from(raw.shunt) * self.shunt_step / shunt;
        Ok(vec![volts, amperes, volts * amperes])
    }
}

fn problems(shunt: f64) -> Vec<(&'static str, String)> {
    if (0.0001..=100.0).contains(&shunt) {
        return Vec::new();
    }
    let message = format!("must be from 0.0001 to 100 ohm, not {shunt}");
    vec![("shunt", message)]
}

struct Meter {
    link: I2cLink,
    model: &'static Model,
    shunt: f64,
}

impl Chip for Meter {
    fn measure(&mut self) -> Result<Vec<f64>, Trouble> {
        let once = self.model.once;
        self.link.set_word(register::CONFIG, once)?;
        self.link.wait_ms(self.model.takes_ms);
        let bus = if self.model.has_id {
            self.wait_for_flags()?;
            self.link.word(register::BUS)?
        } else {
            self.wait_for_bus()?
        };
        let shunt = self.link.word(register::SHUNT)? as i16;
        let config = self.link.word(register::CONFIG)?;
        if config != once {
            return Err(Trouble::NotReady(format!(
                "its configuration went from {once:#06x} to {config:#06x}: it lost power, or another program uses it"
            )));
        }
        self.model.values(&Raw { shunt, bus }, self.shunt)
    }
}

impl Meter {
    /// INA226: waits for CVRF, bit 3 of Mask/Enable; OVF is bit 2.
    fn wait_for_flags(&mut self) -> Result<(), Trouble> {
        self.wait(|link| {
            let flags = link.word(register::MASK_ENABLE)?;
            Ok((flags & 0b1000 != 0, flags & 0b0100 != 0, 0))
        })?;
        Ok(())
    }

    /// INA219: waits for CNVR, bit 1 of the bus voltage's register; OVF is bit 0, the voltage is above.
    fn wait_for_bus(&mut self) -> Result<u16, Trouble> {
        self.wait(|link| {
            let bus = link.word(register::BUS)?;
            Ok((bus & 0b10 != 0, bus & 0b01 != 0, bus >> 3))
        })
    }

    /// Waits until `look` says that it is ready: whether it is, whether there was an overflow, and what to give.
    fn wait(
        &mut self,
        look: impl Fn(&mut I2cLink) -> Result<(bool, bool, u16), Trouble>,
    ) -> Result<u16, Trouble> {
        const TRIES: u32 = 10;
        for _ in 0..TRIES {
            let (is_ready, has_overflow, value) = look(&mut self.link)?;
            if is_ready && has_overflow {
                return Err(Trouble::Saturated(
                    "it says that a sum overflowed: the current is more than it can tell"
                        .to_owned(),
                ));
            }
            if is_ready {
                return Ok(value);
            }
            self.link.wait_ms(2);
        }
        Err(Trouble::NotReady("it does not finish measuring".to_owned()))
    }
}

/// The simulated chip: the scene's current goes through the shunt, and its voltage is what it supplies.
struct Twin {
    model: &'static Model,
    shunt: f64,
    scene: Scene,
    config: u16,
    /// Since it was last told to measure.
    raw: Option<Raw>,
}

impl Twin {
    fn boxed(model: &'static Model, shunt: f64, scene: Scene) -> Box<dyn I2cTwin> {
        WordRegisters::boxed(Twin {
            model,
            shunt,
            scene,
            config: model.config_at_reset,
            raw: None,
        })
    }

    fn measure(&self) -> Raw {
        let (least, most) = self.model.shunt_ends;
        let over_shunt = self.scene.value(Physical::Current) * self.shunt;
        let count = (over_shunt / self.model.shunt_step).round();
        let volts = self.scene.value(Physical::Voltage).max(0.0);
        Raw {
            shunt: count.clamp(least.into(), most.into()) as i16,
            bus: (volts / self.model.bus_step)
                .round()
                .min(self.model.bus_counts) as u16,
        }
    }
}

impl WordTwin for Twin {
    fn get(&mut self, register: u8) -> u16 {
        let (is_ready, bus, shunt) = match &self.raw {
            Some(raw) => (true, raw.bus, raw.shunt),
            None => (false, 0, 0),
        };
        match (register, self.model.has_id) {
            (register::CONFIG, _) => self.config,
            (register::SHUNT, _) => shunt as u16,
            (register::BUS, true) => bus,
            (register::BUS, false) => bus << 3 | u16::from(is_ready) << 1,
            (register::MASK_ENABLE, true) => u16::from(is_ready) << 3,
            (register::MANUFACTURER, true) => MANUFACTURER,
            (register::DIE, true) => DIE,
            _ => 0,
        }
    }

    fn set(&mut self, register: u8, value: u16) {
        if register != register::CONFIG {
            return;
        }
        if value & RESET != 0 {
            (self.config, self.raw) = (self.model.config_at_reset, None);
        } else {
            self.config = value;
            self.raw = Some(self.measure());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sensors::i2c::script::{Step, link};

    fn said(outcome: Result<Vec<f64>, Trouble>) -> String {
        match outcome {
            Ok(values) => {
                let each: Vec<String> = values.iter().map(|it| format!("{it:.5}")).collect();
                each.join(" ")
            }
            Err(trouble) => trouble.to_string(),
        }
    }

    /// Both have the same example, 11.98 V and 20 mV over 2 milliohm, which is 10 A: 0x5d98 (2995 above three flags) and 0x07d0 in
    /// the INA219, 0x2570 and 0x1f40 in the INA226. INA219, table 7: 300 mV is 0x7530, -320 mV 0x8300.
    #[test]
    fn the_examples_of_the_data_sheets_come_out() {
        let check = |model: &Model, shunt: i16, bus: u16, ohms: f64, expected: &str| {
            let said = said(model.values(&Raw { shunt, bus }, ohms));
            assert!(said.contains(expected), "{shunt} {bus}: {said}");
        };
        check(&INA219, 0x7530, 0, 0.1, "0.00000 3.00000 0.00000");
        check(&INA219, 2_000, 2_995, 0.002, "11.98000 10.00000 119.80000");
        check(&INA219, -30_000, 1_250, 0.1, "5.00000 -3.00000 -15.00000");
        check(&INA219, 31_999, 0, 0.1, "3.19990");
        check(&INA219, 32_000, 0, 0.1, "0.3200 V or more");
        check(&INA219, 0x8300_u16 as i16, 0, 0.1, "3.200 A or more");
        check(&INA219, i16::MIN, 0, 0.1, "use a smaller shunt");
        check(
            &INA226,
            0x1f40,
            0x2570,
            0.002,
            "11.98000 10.00000 119.80000",
        );
        check(&INA226, -1, 0x7fff, 0.1, "40.95875 -0.00003");
        check(&INA226, i16::MAX, 0, 0.1, "0.0819 V or more");
        check(&INA226, i16::MIN, 0, 0.1, "0.819 A or more");
    }

    /// A reading of an INA219 whose registers give these bytes.
    fn read_219(bus: [&'static [u8]; 2], config: &'static [u8]) -> String {
        let [not_yet, bus] = bus;
        let steps = [
            Step::Takes(&[0, 0x80, 0x00]),
            Step::Takes(&[0]),
            Step::Gives(&[0x39, 0x9f]),
            Step::Takes(&[0, 0x3e, 0x63]),
            Step::Takes(&[2]),
            Step::Gives(not_yet),
            Step::Takes(&[2]),
            Step::Gives(bus),
            Step::Takes(&[1]),
            Step::Gives(&[0xff, 0x9c]),
            Step::Takes(&[0]),
            Step::Gives(config),
        ];
        // After an overflow nothing more is asked.
        let count = if bus[1] & 1 == 1 { 8 } else { steps.len() };
        let chip = Ina219 { shunt: 0.1 }.open(link(&steps[..count]));
        said(chip.unwrap().measure())
    }

    #[test]
    fn an_ina219_is_waited_for_and_looked_after() {
        let (not_yet, kept): (&[u8], &[u8]) = (&[0x12, 0x34], &[0x3e, 0x63]);
        // 0x1f40 is 1000 counts of 4 mV, above CNVR.
        let good = read_219([not_yet, &[0x1f, 0x42]], kept);
        assert_eq!(good, "4.00000 -0.01000 -0.04000");
        let overflow = read_219([not_yet, &[0x1f, 0x43]], kept);
        assert!(overflow.contains("overflowed"), "{overflow}");
        let reset = read_219([not_yet, &[0x1f, 0x42]], &[0x39, 0x9f]);
        assert!(reset.contains("from 0x3e63 to 0x399f"), "{reset}");
    }

    #[test]
    fn an_ina226_is_known_by_its_ids_and_waited_for() {
        let steps = [
            Step::Takes(&[0xfe]),
            Step::Gives(&[0x54, 0x49]),
            Step::Takes(&[0xff]),
            Step::Gives(&[0x22, 0x60]),
            Step::Takes(&[0, 0x80, 0x00]),
            Step::Takes(&[0]),
            Step::Gives(&[0x41, 0x27]),
            Step::Takes(&[0, 0x45, 0x23]),
            Step::Takes(&[6]),
            Step::Gives(&[0, 0]),
            Step::Takes(&[6]),
            Step::Gives(&[0, 0b1000]),
            Step::Takes(&[2]),
            Step::Gives(&[0x25, 0x70]),
            Step::Takes(&[1]),
            Step::Gives(&[0xe0, 0xc0]),
            Step::Takes(&[0]),
            Step::Gives(&[0x45, 0x23]),
        ];
        let chip = Ina226 { shunt: 0.002 }.open(link(&steps));
        assert_eq!(
            said(chip.unwrap().measure()),
            "11.98000 -10.00000 -119.80000"
        );
    }

    #[test]
    fn the_wrong_part_is_named() {
        let scene = Scene::still(&[]);
        let as_219 = Twin::boxed(&INA226, 0.1, scene.clone());
        let trouble = INA219.open(I2cLink::to(0x40, as_219), 0.1).err().unwrap();
        let expected = "it is an INA226, but an INA219 was expected: write `type = \"ina226\"`";
        assert!(trouble.to_string().contains(expected), "{trouble}");
        let as_226 = Twin::boxed(&INA219, 0.1, scene);
        let trouble = INA226.open(I2cLink::to(0x40, as_226), 0.1).err().unwrap();
        let expected = "`type = \"ina219\"`";
        assert!(trouble.to_string().contains(expected), "{trouble}");
    }

    #[test]
    fn a_conversion_without_end_is_given_up() {
        struct Busy;
        impl WordTwin for Busy {
            fn get(&mut self, register: u8) -> u16 {
                if register == register::CONFIG {
                    0x399f
                } else {
                    0
                }
            }
            fn set(&mut self, _: u8, _: u16) {}
        }
        let link = I2cLink::to(0x40, WordRegisters::boxed(Busy));
        let said = said(INA219.open(link, 0.1).unwrap().measure());
        assert!(said.contains("does not finish"), "{said}");
    }

    #[test]
    fn a_reading_is_what_is_around_the_twin() {
        let check = |model: &'static Model, shunt: f64, amperes: f64, expected: &str| {
            let scene = Scene::still(&[(Physical::Voltage, 5.0), (Physical::Current, amperes)]);
            let link = I2cLink::to(0x40, Twin::boxed(model, shunt, scene));
            let said = said(model.open(link, shunt).unwrap().measure());
            assert!(said.contains(expected), "{amperes}: {said}");
        };
        check(&INA219, 0.1, 1.234_51, "5.00000 1.23450 6.17250");
        check(&INA219, 0.1, -1.5, "5.00000 -1.50000 -7.50000");
        check(&INA219, 0.1, 4.0, "3.200 A or more");
        check(&INA226, 0.1, 0.5, "5.00000 0.50000 2.50000");
        check(&INA226, 0.01, -2.0, "5.00000 -2.00000 -10.00000");
        check(&INA226, 0.1, 1.0, "0.819 A or more");
    }

    #[test]
    fn the_range_is_that_of_the_shunt() {
        let check = |model: &Model, shunt: f64, most: f64, decimals: u8| {
            let [_, current, _] = model.quantities_of(shunt).try_into().unwrap();
            assert!((current.range.1 - most).abs() < 1e-9, "{current:?}");
            assert_eq!(current.decimals, decimals, "{current:?}");
        };
        check(&INA219, 0.1, 3.2, 4);
        check(&INA219, 0.01, 32.0, 3);
        check(&INA226, 0.1, 0.8192, 5);
        check(&INA226, 0.002, 40.96, 3);
        assert!(problems(0.1).is_empty());
        for wrong in [0.0, -0.1, 101.0, f64::NAN] {
            assert_eq!(problems(wrong)[0].0, "shunt", "{wrong}");
        }
    }
}
