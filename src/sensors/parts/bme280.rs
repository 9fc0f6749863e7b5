//! Bosch BME280 and BMP280.
//!
//! Registers, constants and formulas are those of the BME280 data sheet, BST-BME280-DS001 (section 4.2.2 for the calibration, 5.4 for
//! the registers, 8.1 for the formulas in double precision); the BMP280 has the same without humidity (BST-BMP280-DS001).

use schemars::JsonSchema;
use serde::Deserialize;

use crate::sensors::i2c::{I2cLink, I2cPlace, I2cTwin, RegisterTwin, Registers};
use crate::sensors::{About, Chip, Part, Physical, Quantity, Scene, Trouble};

/// Reads a BME280: temperature in degrees Celsius, relative humidity in percent, pressure in hectopascal.
///
/// It measures when it is asked, and sleeps in between, so that it does not warm itself.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct Bme280 {}

/// Reads a BMP280, the BME280 without humidity: temperature in degrees Celsius, pressure in hectopascal.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct Bmp280 {}

/// Data sheet, table 2 (temperature) and table 3 (pressure): the range in which it operates.
const TEMPERATURE: Quantity = Quantity::new("temperature", "degC", (-40.0, 85.0), 2);
const PRESSURE: Quantity = Quantity::new("pressure", "hPa", (300.0, 1100.0), 2);
const HUMIDITY: Quantity = Quantity::new("humidity", "%", (0.0, 100.0), 2);

const WIRING: &[(&str, &str)] = &[
    ("VIN or VCC", "3.3 V, pin 1"),
    ("GND", "ground, pin 6"),
    ("SDA or SDI", "GPIO2, pin 3"),
    ("SCL or SCK", "GPIO3, pin 5"),
    ("SDO", "ground for 0x76, 3.3 V for 0x77"),
    ("CSB", "3.3 V, which selects I2C"),
];
const SETUP: &str = "`dtparam=i2c_arm=on` in /boot/firmware/config.txt.";

impl Part for Bme280 {
    type Place = I2cPlace;
    const NAME: &'static str = "bme280";
    const ABOUT: About = About {
        title: "Bosch BME280",
        quantities: &[TEMPERATURE, HUMIDITY, PRESSURE],
        addresses: &[0x76, 0x77],
        wiring: WIRING,
        setup: SETUP,
        notes: "Accurate to 1 degC, 3 % and 1 hPa. Boards that are sold as BME280 often have a BMP280, which measures no humidity: then \
                the error says so.",
        data_sheet: "BST-BME280-DS001, revision 1.23",
        takes_ms: 10,
    };
    const EXAMPLE: &'static str = r#"
[nodes.air]
type = "bme280"
every = "10s"

[nodes.show]
type = "debug"
from = "air"
"#;

    fn open(&self, link: I2cLink) -> Result<Box<dyn Chip>, Trouble> {
        let chip = Bosch::open(link, Model::Bme280)?;
        Ok(Box::new(chip))
    }

    fn twin(&self, scene: Scene) -> Box<dyn I2cTwin> {
        Twin::boxed(Model::Bme280, scene)
    }
}

impl Part for Bmp280 {
    type Place = I2cPlace;
    const NAME: &'static str = "bmp280";
    const ABOUT: About = About {
        title: "Bosch BMP280",
        quantities: &[TEMPERATURE, PRESSURE],
        addresses: &[0x76, 0x77],
        wiring: WIRING,
        setup: SETUP,
        notes: "Accurate to 1 degC and 1 hPa.",
        data_sheet: "BST-BMP280-DS001, revision 1.26",
        takes_ms: 10,
    };
    const EXAMPLE: &'static str = r#"
[nodes.barometer]
type = "bmp280"
address = 0x77
quantity = "pressure"
every = "1m"

[nodes.show]
type = "debug"
from = "barometer"
"#;

    fn open(&self, link: I2cLink) -> Result<Box<dyn Chip>, Trouble> {
        let chip = Bosch::open(link, Model::Bmp280)?;
        Ok(Box::new(chip))
    }

    fn twin(&self, scene: Scene) -> Box<dyn I2cTwin> {
        Twin::boxed(Model::Bmp280, scene)
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Model {
    Bme280,
    Bmp280,
}

impl Model {
    /// What register `id` says.
    fn id(self) -> u8 {
        match self {
            Model::Bme280 => 0x60,
            Model::Bmp280 => 0x58,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Model::Bme280 => "a BME280",
            Model::Bmp280 => "a BMP280",
        }
    }
}

/// Registers (data sheet, table 18).
mod register {
    pub(super) const CALIBRATION: u8 = 0x88;
    pub(super) const ID: u8 = 0xd0;
    pub(super) const RESET: u8 = 0xe0;
    pub(super) const CALIBRATION_OF_HUMIDITY: u8 = 0xe1;
    pub(super) const CTRL_HUM: u8 = 0xf2;
    pub(super) const STATUS: u8 = 0xf3;
    pub(super) const CTRL_MEAS: u8 = 0xf4;
    pub(super) const CONFIG: u8 = 0xf5;
    pub(super) const DATA: u8 = 0xf7;
}

/// Resets the chip when it is written to `RESET`.
const RESET_WORD: u8 = 0xb6;
/// Each quantity once, then sleep again: `osrs_t` = 1, `osrs_p` = 1, `mode` = forced.
const ONCE: u8 = 0b0010_0101;
/// Humidity once.
const HUMIDITY_ONCE: u8 = 0b001;
/// The bit of `STATUS` that is set while it measures, and the one while it copies its calibration.
const MEASURING: u8 = 0b1000;
const COPYING: u8 = 0b0001;
/// What the data registers hold where nothing was measured (section 5.4.7 and later).
const SKIPPED: u32 = 0x80000;
const HUMIDITY_SKIPPED: u32 = 0x8000;

struct Bosch {
    link: I2cLink,
    model: Model,
    calibration: Calibration,
}

impl Bosch {
    fn open(mut link: I2cLink, model: Model) -> Result<Bosch, Trouble> {
        let id = link.register(register::ID)?;
        if id != model.id() {
            return Err(wrong(id, model));
        }
        link.send(&[register::RESET, RESET_WORD])?;
        // Section 1.1, "start-up time": 2 ms.
        link.wait_ms(2);
        wait_until_clear(&mut link, COPYING)?;
        let first = link.ask(&[register::CALIBRATION])?;
        let of_humidity = match model {
            Model::Bme280 => link.ask(&[register::CALIBRATION_OF_HUMIDITY])?,
            Model::Bmp280 => [0; 7],
        };
        link.send(&[register::CONFIG, 0])?;
        Ok(Bosch {
            link,
            model,
            calibration: Calibration::read(&first, &of_humidity),
        })
    }
}

impl Chip for Bosch {
    fn measure(&mut self) -> Result<Vec<f64>, Trouble> {
        if self.model == Model::Bme280 {
            // It counts from the next write of `CTRL_MEAS`.
            self.link.send(&[register::CTRL_HUM, HUMIDITY_ONCE])?;
        }
        self.link.send(&[register::CTRL_MEAS, ONCE])?;
        // Section 9.1: at most 1.25 + 2.3 + 2.3 + 0.575 + 2.3 + 0.575 ms.
        self.link.wait_ms(10);
        wait_until_clear(&mut self.link, MEASURING)?;
        let data: [u8; 8] = match self.model {
            Model::Bme280 => self.link.ask(&[register::DATA])?,
            Model::Bmp280 => {
                let [a, b, c, d, e, f] = self.link.ask(&[register::DATA])?;
                [a, b, c, d, e, f, 0, 0]
            }
        };
        let raw = Raw::read(&data);
        if raw.temperature == SKIPPED
            || raw.pressure == SKIPPED
            || (self.model == Model::Bme280 && raw.humidity == HUMIDITY_SKIPPED)
        {
            return Err(Trouble::NotReady(
                "it has measured nothing: did it lose power?".to_owned(),
            ));
        }
        let fine = self.calibration.fine(raw.temperature);
        let (degc, hpa) = (fine / 5120.0, self.calibration.hpa(raw.pressure, fine));
        Ok(match self.model {
            Model::Bme280 => vec![degc, self.calibration.share(raw.humidity, fine), hpa],
            Model::Bmp280 => vec![degc, hpa],
        })
    }
}

fn wrong(id: u8, expected: Model) -> Trouble {
    let others = [Model::Bme280, Model::Bmp280];
    let known = others.into_iter().find(|model| model.id() == id);
    Trouble::WrongPart {
        says: known.map_or_else(
            || format!("its id is {id:#04x}"),
            |it| format!("it is {}", it.name()),
        ),
        expected: expected.name().to_owned(),
        remedy: match known {
            Some(Model::Bmp280) => "write `type = \"bmp280\"`; it has no humidity".to_owned(),
            Some(Model::Bme280) => "write `type = \"bme280\"`".to_owned(),
            None => "is something else at this address?".to_owned(),
        },
    }
}

fn wait_until_clear(link: &mut I2cLink, bit: u8) -> Result<(), Trouble> {
    const TRIES: u32 = 20;
    for _ in 0..TRIES {
        if link.register(register::STATUS)? & bit == 0 {
            return Ok(());
        }
        link.wait_ms(2);
    }
    Err(Trouble::NotReady("it does not finish measuring".to_owned()))
}

/// What the data registers hold (section 5.4.7 to 5.4.9): 20 bits, 20 bits and 16.
#[derive(Debug, PartialEq)]
struct Raw {
    pressure: u32,
    temperature: u32,
    humidity: u32,
}

impl Raw {
    fn read(data: &[u8; 8]) -> Raw {
        let [p2, p1, p0, t2, t1, t0, h1, h0] = data.map(u32::from);
        Raw {
            pressure: p2 << 12 | p1 << 4 | p0 >> 4,
            temperature: t2 << 12 | t1 << 4 | t0 >> 4,
            humidity: h1 << 8 | h0,
        }
    }

    fn write(&self) -> [u8; 8] {
        let twenty = |raw: u32| [(raw >> 12) as u8, (raw >> 4) as u8, (raw << 4) as u8];
        let [p2, p1, p0] = twenty(self.pressure);
        let [t2, t1, t0] = twenty(self.temperature);
        [
            p2,
            p1,
            p0,
            t2,
            t1,
            t0,
            (self.humidity >> 8) as u8,
            self.humidity as u8,
        ]
    }
}

/// The trimming parameters, under the data sheet's names (table 16).
#[derive(Clone, Debug, Default, PartialEq)]
struct Calibration {
    t: [f64; 3],
    p: [f64; 9],
    h: [f64; 6],
}

impl Calibration {
    /// From 0x88 to 0xa1, and from 0xe1 to 0xe7.
    fn read(first: &[u8; 26], of_humidity: &[u8; 7]) -> Calibration {
        let word = |at: usize| u16::from_le_bytes([first[at], first[at + 1]]);
        let unsigned = |at| f64::from(word(at));
        let signed = |at| f64::from(word(at) as i16);
        let [h2_low, h2_high, h3, h4_high, h4_h5, h5_high, h6] = *of_humidity;
        // 12 bits with a sign: the high 8, and half of the byte that both share.
        let twelve = |high: u8, low: u8| f64::from(i16::from(high as i8) << 4 | i16::from(low));
        Calibration {
            t: [unsigned(0), signed(2), signed(4)],
            p: [
                unsigned(6),
                signed(8),
                signed(10),
                signed(12),
                signed(14),
                signed(16),
                signed(18),
                signed(20),
                signed(22),
            ],
            h: [
                f64::from(first[25]),
                f64::from(i16::from_le_bytes([h2_low, h2_high])),
                f64::from(h3),
                twelve(h4_high, h4_h5 & 0x0f),
                twelve(h5_high, h4_h5 >> 4),
                f64::from(h6 as i8),
            ],
        }
    }

    /// The data sheet's `t_fine`: the temperature in 1/5120 degC.
    fn fine(&self, raw: u32) -> f64 {
        let [t1, t2, t3] = self.t;
        let raw = f64::from(raw);
        let linear = (raw / 16_384.0 - t1 / 1_024.0) * t2;
        let square = (raw / 131_072.0 - t1 / 8_192.0).powi(2) * t3;
        linear + square
    }

    /// The pressure; not a number where the formula has none.
    fn hpa(&self, raw: u32, fine: f64) -> f64 {
        let [p1, p2, p3, p4, p5, p6, p7, p8, p9] = self.p;
        let t = fine / 2.0 - 64_000.0;
        let offset = (t * t * p6 / 32_768.0 + t * p5 * 2.0) / 4.0 + p4 * 65_536.0;
        let slope = (p3 * t * t / 524_288.0 + p2 * t) / 524_288.0;
        let slope = (1.0 + slope / 32_768.0) * p1;
        if slope == 0.0 {
            return f64::NAN;
        }
        let pa = (1_048_576.0 - f64::from(raw) - offset / 4_096.0) * 6_250.0 / slope;
        let bend = p9 * pa * pa / 2_147_483_648.0 + pa * p8 / 32_768.0 + p7;
        (pa + bend / 16.0) / 100.0
    }

    /// The relative humidity in percent, which the data sheet limits to 0 to 100.
    fn share(&self, raw: u32, fine: f64) -> f64 {
        let [h1, h2, h3, h4, h5, h6] = self.h;
        let t = fine - 76_800.0;
        let above = f64::from(raw) - (h4 * 64.0 + h5 / 16_384.0 * t);
        let gain = h2 / 65_536.0 * (1.0 + h6 / 67_108_864.0 * t * (1.0 + h3 / 67_108_864.0 * t));
        let share = above * gain;
        (share * (1.0 - h1 * share / 524_288.0)).clamp(0.0, 100.0)
    }
}

/// The simulated chip: its calibration is that of some real one, and its data registers hold what gives the scene's values by
/// the formulas.
struct Twin {
    model: Model,
    scene: Scene,
    data: [u8; 8],
}

/// Bytes that give the data sheet's worked example of temperature and pressure (BMP280, section 3.12: `dig_T1` = 27504 and so on), and
/// humidity of a usual chip.
const CALIBRATION: [u8; 26] = [
    0x70, 0x6b, 0x43, 0x67, 0x18, 0xfc, 0x7d, 0x8e, 0x43, 0xd6, 0xd0, 0x0b, 0x27, 0x0b, 0x8c, 0x00,
    0xf9, 0xff, 0x8c, 0x3c, 0xf8, 0xc6, 0x70, 0x17, 0x00, 0x4b,
];
const CALIBRATION_OF_HUMIDITY: [u8; 7] = [0x6a, 0x01, 0x00, 0x14, 0x0e, 0x03, 0x1e];

impl Twin {
    fn boxed(model: Model, scene: Scene) -> Box<dyn I2cTwin> {
        let mut twin = Twin {
            model,
            scene,
            data: [0; 8],
        };
        twin.skip();
        Registers::boxed(twin)
    }

    fn skip(&mut self) {
        self.data = Raw {
            pressure: SKIPPED,
            temperature: SKIPPED,
            humidity: HUMIDITY_SKIPPED,
        }
        .write();
    }

    fn measure(&mut self) {
        let calibration = Calibration::read(&CALIBRATION, &CALIBRATION_OF_HUMIDITY);
        let temperature = nearest(20, self.scene.value(Physical::Temperature), |raw| {
            calibration.fine(raw) / 5120.0
        });
        let fine = calibration.fine(temperature);
        self.data = Raw {
            temperature,
            // The higher the raw value, the lower the pressure.
            pressure: nearest(20, -self.scene.value(Physical::Pressure), |raw| {
                -calibration.hpa(raw, fine)
            }),
            humidity: nearest(16, self.scene.value(Physical::Humidity), |raw| {
                calibration.share(raw, fine)
            }),
        }
        .write();
    }
}

/// The raw value of so many bits whose value by a rising formula is the first that is not below the wanted one.
fn nearest(bits: u32, wanted: f64, formula: impl Fn(u32) -> f64) -> u32 {
    let mut raw = 0;
    for bit in (0..bits).rev() {
        let higher = raw | 1 << bit;
        if formula(higher) <= wanted {
            raw = higher;
        }
    }
    raw
}

impl RegisterTwin for Twin {
    fn get(&mut self, register: u8) -> u8 {
        let within = |start: u8| usize::from(register.wrapping_sub(start));
        match register {
            register::ID => self.model.id(),
            register::CALIBRATION..=0xa1 => CALIBRATION[within(register::CALIBRATION)],
            register::CALIBRATION_OF_HUMIDITY..=0xe7 => {
                CALIBRATION_OF_HUMIDITY[within(register::CALIBRATION_OF_HUMIDITY)]
            }
            register::DATA..=0xfe => self.data[within(register::DATA)],
            _ => 0,
        }
    }

    fn set(&mut self, register: u8, value: u8) {
        match (register, value) {
            (register::RESET, RESET_WORD) => self.skip(),
            (register::CTRL_MEAS, ONCE) => self.measure(),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sensors::i2c::script::{Step, link};

    /// The worked example of the BMP280's data sheet, section 3.12: temperature 519888 and pressure 415148 give 25.08 degC and
    /// 100653.27 Pa.
    #[test]
    fn the_example_of_the_data_sheet_comes_out() {
        let calibration = Calibration::read(&CALIBRATION, &[0; 7]);
        assert_eq!(calibration.t, [27_504.0, 26_435.0, -1_000.0]);
        let p = [
            36_477.0, -10_685.0, 3_024.0, 2_855.0, 140.0, -7.0, 15_500.0, -14_600.0, 6_000.0,
        ];
        assert_eq!(calibration.p, p);
        let fine = calibration.fine(519_888);
        assert!((fine / 5120.0 - 25.08).abs() < 0.005, "{}", fine / 5120.0);
        let hpa = calibration.hpa(415_148, fine);
        assert!((hpa - 1_006.532_7).abs() < 0.000_1, "{hpa}");
    }

    /// Data sheet, table 16: `dig_H4` is 0xE4 and the low half of 0xE5, `dig_H5` the high half of 0xE5 and 0xE6.
    #[test]
    fn the_calibration_of_humidity_is_read_across_its_shared_byte() {
        let mut first = [0; 26];
        first[25] = 75;
        let read = |bytes| Calibration::read(&first, &bytes).h;
        assert_eq!(
            read([0x6a, 0x01, 0, 0x14, 0x0e, 0x03, 0x1e]),
            [75.0, 362.0, 0.0, 334.0, 48.0, 30.0]
        );
        assert_eq!(
            read([0, 0, 0, 0xff, 0xff, 0xff, 0xff]),
            [75.0, 0.0, 0.0, -1.0, -1.0, -1.0]
        );
    }

    #[test]
    fn a_reading_is_what_is_around_the_twin() {
        let scene = Scene::still(&[
            (Physical::Temperature, 21.5),
            (Physical::Humidity, 44.0),
            (Physical::Pressure, 1_013.25),
        ]);
        let open = |twin| I2cLink::to(0x76, twin);
        let mut bme = Bme280 {}.open(open(Bme280 {}.twin(scene.clone()))).unwrap();
        let near = |values: Vec<f64>, expected: &[f64]| {
            assert_eq!(values.len(), expected.len());
            for (value, expected) in values.iter().zip(expected) {
                assert!((value - expected).abs() < 0.01, "{values:?}");
            }
        };
        near(bme.measure().unwrap(), &[21.5, 44.0, 1_013.25]);
        let mut bmp = Bmp280 {}.open(open(Bmp280 {}.twin(scene.clone()))).unwrap();
        near(bmp.measure().unwrap(), &[21.5, 1_013.25]);

        let wrong = Bme280 {}.open(open(Bmp280 {}.twin(scene))).err().unwrap();
        assert!(
            wrong.to_string().contains("write `type = \"bmp280\"`"),
            "{wrong}"
        );
    }

    #[test]
    fn what_was_not_measured_is_no_reading() {
        let steps = [
            Step::Takes(&[register::ID]),
            Step::Gives(&[0x58]),
            Step::Takes(&[register::RESET, 0xb6]),
            Step::Takes(&[register::STATUS]),
            Step::Gives(&[0]),
            Step::Takes(&[register::CALIBRATION]),
            Step::Gives(&CALIBRATION),
            Step::Takes(&[register::CONFIG, 0]),
            Step::Takes(&[register::CTRL_MEAS, 0x25]),
            Step::Takes(&[register::STATUS]),
            Step::Gives(&[MEASURING]),
            Step::Takes(&[register::STATUS]),
            Step::Gives(&[0]),
            Step::Takes(&[register::DATA]),
            Step::Gives(&[0x80, 0, 0, 0x80, 0, 0]),
        ];
        let mut chip = Bmp280 {}.open(link(&steps)).unwrap();
        let trouble = chip.measure().unwrap_err();
        assert!(
            trouble.to_string().contains("measured nothing"),
            "{trouble}"
        );
    }
}
