//! Devices with Modbus: meters, inverters, controllers.
//!
//! What is read is a table of the flow's: names, each with an address and how its words make a number. Registers next to each other
//! are read in one request.
//!
//! Must not: read across a gap, since a device may refuse all for one address that it has not; tear a number of several words.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::sensors::modbus::{Kind, ModbusLink, ModbusPlace, ModbusTwin, Request};
use crate::sensors::{About, Chip, Part, Physical, Quantity, Scene, Trouble};

/// Reads registers of a Modbus device, over TCP (`host`) or a serial line (RTU, `port`).
///
/// The payload is an object with a field for each name in `registers`, or a number if there is one only.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct Modbus {
    /// What to read: names, each with `address`, and where they differ from the defaults `kind`, `type`, `scale`, `offset` and `unit`.
    registers: BTreeMap<String, Register>,
    /// Which word of a number comes first where it has more than one: `big` for the high word, `little` for the low one. Default:
    /// `big`.
    #[serde(default)]
    word_order: WordOrder,
}

/// A number in a device.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Register {
    /// Its address, or that of its first word, from 0: what a manual calls 40001 is holding register 0, 30005 input register 4.
    address: u16,
    /// `holding` and `input` are registers, `coil` and `discrete` bits. Default: `holding`.
    #[serde(default)]
    kind: Kind,
    /// How its words make a number. Default: `u16`; of bits `bool`, which is 0 or 1.
    #[serde(rename = "type")]
    format: Option<Format>,
    /// The reading is the number times this. Default: 1.
    #[serde(default = "one")]
    scale: f64,
    /// Added to it then. Default: 0.
    #[serde(default)]
    offset: f64,
    /// The unit of the reading, for the header `unit`. Default: none.
    #[serde(default)]
    unit: String,
}

fn one() -> f64 {
    1.0
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Format {
    Bool,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F32,
    F64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum WordOrder {
    #[default]
    Big,
    Little,
}

/// So that a reading stays within a message, and a line within seconds.
const MOST_REGISTERS: usize = 250;

impl Part for Modbus {
    type Place = ModbusPlace;
    const NAME: &'static str = "modbus";
    const ABOUT: About = About {
        title: "Devices with Modbus RTU or TCP",
        // An example: the flow names them.
        quantities: &[Quantity::new("voltage", "V", (f64::MIN, f64::MAX), 1)],
        addresses: &[],
        wiring: &[
            (
                "A or D- (RTU)",
                "A of an RS-485 adapter; makers do not agree on A and B: if nothing answers, swap them",
            ),
            ("B or D+ (RTU)", "B of the adapter"),
            (
                "Common (RTU)",
                "the adapter's ground, also where it seems to work without",
            ),
            (
                "Ends of the line (RTU)",
                "120 Ohm between A and B at both, and nowhere else",
            ),
            ("Network (TCP)", "the Pi's network; port 502"),
        ],
        setup: "RTU needs an RS-485 adapter (USB, or a HAT with `enable_uart=1`) that switches its direction by itself; TCP nothing. Modbus knows no \
                passwords: keep such devices in a network of their own.",
        notes: "Addresses are as they are on the wire, from 0: what a manual calls 40001 is `kind = \"holding\"`, `address = 0`; 30001 is \
                `input` 0, 10001 `discrete` 0 and 1 `coil` 0. If all readings look shifted by one, the manual counts from 0 already. If a number of \
                two words is nonsense, try `word_order = \"little\"`. Whole numbers above 2^53 lose their last digits. All nodes with the same \
                `port`, or the same `host`, share one line, one after the other.",
        data_sheet: "MODBUS Application Protocol Specification V1.1b3; MODBUS over Serial Line V1.02; MODBUS Messaging on TCP/IP \
                     Implementation Guide V1.0b",
        takes_ms: 100,
    };
    const EXAMPLE: &'static str = r#"
[nodes.meter]
type = "modbus"
host = "192.0.2.20"
unit_id = 1
every = "5s"

[nodes.meter.registers]
voltage = { address = 0, kind = "input", type = "u16", scale = 0.1, unit = "V" }
current = { address = 1, kind = "input", type = "i32", scale = 0.001, unit = "A" }
energy = { address = 256, kind = "input", type = "u32", scale = 0.01, unit = "kWh" }
relay = { address = 0, kind = "coil" }

[nodes.show]
type = "debug"
from = "meter"
"#;

    fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems: Vec<String> = Vec::new();
        if self.registers.is_empty() {
            problems.push("is empty: name at least one, as `voltage = { address = 0 }`".to_owned());
        }
        if self.registers.len() > MOST_REGISTERS {
            problems.push(format!("has more than {MOST_REGISTERS}: use several nodes"));
        }
        let wrong = |(name, register): (&String, &Register)| {
            register
                .problem()
                .map(|problem| format!("`{name}`: {problem}"))
        };
        problems.extend(self.registers.iter().filter_map(wrong));
        if self.registers.contains_key("") {
            problems.push("one has no name".to_owned());
        }
        problems
            .into_iter()
            .map(|problem| ("registers", problem))
            .collect()
    }

    fn quantities(&self) -> Vec<Quantity> {
        let quantity = |(name, register): (&String, &Register)| Quantity {
            name: Cow::Owned(name.clone()),
            unit: Cow::Owned(register.unit.clone()),
            range: (f64::MIN, f64::MAX),
            decimals: register.decimals(),
        };
        self.registers.iter().map(quantity).collect()
    }

    fn open(&self, link: ModbusLink) -> Result<Box<dyn Chip>, Trouble> {
        let registers: Vec<(String, Register)> = self.registers.clone().into_iter().collect();
        Ok(Box::new(Device {
            batches: batches(&registers),
            registers,
            word_order: self.word_order,
            link,
        }))
    }

    fn twin(&self, scene: Scene) -> Box<dyn ModbusTwin> {
        Box::new(Twin {
            registers: self.registers.values().cloned().collect(),
            word_order: self.word_order,
            scene,
        })
    }
}

struct Device {
    registers: Vec<(String, Register)>,
    batches: Vec<Batch>,
    word_order: WordOrder,
    link: ModbusLink,
}

/// What is read in one request.
#[derive(Debug, PartialEq)]
struct Batch {
    request: Request,
    /// Which registers, by their place in the list.
    of: Vec<usize>,
}

impl Chip for Device {
    fn measure(&mut self) -> Result<Vec<f64>, Trouble> {
        let mut values = vec![f64::NAN; self.registers.len()];
        for batch in &self.batches {
            let data = match self.link.read(batch.request)? {
                Ok(data) => data,
                Err(code) => return Err(refused(code, batch, &self.registers)),
            };
            for &place in &batch.of {
                let (name, register) = &self.registers[place];
                let at = register.address - batch.request.address;
                let number = register.decode(&data, at.into(), self.word_order);
                if !number.is_finite() {
                    return Err(Trouble::NotReady(format!(
                        "`{name}` is {number}: the device has no value for it now, or `type` or `word_order` is another"
                    )));
                }
                values[place] = number * register.scale + register.offset;
            }
        }
        Ok(values)
    }
}

/// Adjacent registers together, as many as one request may have.
fn batches(registers: &[(String, Register)]) -> Vec<Batch> {
    let mut order: Vec<usize> = (0..registers.len()).collect();
    order.sort_by_key(|&place| (registers[place].1.kind, registers[place].1.address));
    let mut batches: Vec<Batch> = Vec::new();
    for place in order {
        let register = &registers[place].1;
        let end = register.end();
        if let Some(Batch { request, of }) = batches.last_mut() {
            let start = u32::from(request.address);
            let so_far = start + u32::from(request.count);
            let count = end.max(so_far) - start;
            if request.kind == register.kind
                && u32::from(register.address) <= so_far
                && let Ok(count) = u16::try_from(count)
                && count <= request.kind.most()
            {
                request.count = count;
                of.push(place);
                continue;
            }
        }
        batches.push(Batch {
            request: Request {
                kind: register.kind,
                address: register.address,
                count: register.format().count(),
            },
            of: vec![place],
        });
    }
    batches
}

/// What exceptions mean (V1.1b3, section 7).
fn refused(code: u8, batch: &Batch, registers: &[(String, Register)]) -> Trouble {
    let Request {
        kind,
        address,
        count,
    } = batch.request;
    let last = u32::from(address) + u32::from(count) - 1;
    let names: Vec<&str> = batch.of.iter().map(|&it| &*registers[it].0).collect();
    let kind = kind.name();
    let why = match code {
        0x01 => "illegal function (0x01): it has none of this kind at all; try another `kind`",
        0x02 => {
            "illegal data address (0x02): it has none there; addresses here count from 0: 40001 in a manual is holding register 0"
        }
        0x03 => "illegal data value (0x03): not so many at once, or only part of a number",
        0x04 => "device failure (0x04): something is wrong in the device itself",
        0x05 | 0x06 => "it is busy (0x05 or 0x06): read it less often",
        0x08 => "memory parity error (0x08): its memory is damaged",
        0x0a => "gateway path unavailable (0x0a): the gateway is not set up for this `unit_id`",
        0x0b => {
            "gateway target device failed to respond (0x0b): the gateway is there, the device behind it with this `unit_id` is not"
        }
        _ => "an exception that the specification does not have",
    };
    Trouble::Refused(format!(
        "it refuses to read {kind} {address} to {last} ({}), exception {code:#04x}: {why}",
        names.join(", ")
    ))
}

impl Register {
    fn format(&self) -> Format {
        let usual = if self.kind.is_bit() {
            Format::Bool
        } else {
            Format::U16
        };
        self.format.unwrap_or(usual)
    }

    /// The address after its last.
    fn end(&self) -> u32 {
        u32::from(self.address) + u32::from(self.format().count())
    }

    fn problem(&self) -> Option<String> {
        if self.kind.is_bit() != (self.format() == Format::Bool) {
            return Some(format!(
                "`type = \"bool\"` is for coils and discrete inputs, and they have no other; this is a {}",
                self.kind.name()
            ));
        }
        if self.end() > 65_536 {
            return Some("it ends after the last address, 65535".to_owned());
        }
        if self.scale == 0.0 || !self.scale.is_finite() || !self.offset.is_finite() {
            return Some("`scale` and `offset` must be numbers, and `scale` not 0".to_owned());
        }
        None
    }

    /// As many as scale and offset make of a whole number; of others, all that may be of use.
    fn decimals(&self) -> u8 {
        const MOST: usize = 9;
        let of = |number: f64| {
            let text = number.to_string();
            text.split_once('.')
                .map_or(0, |(_, decimals)| decimals.len())
        };
        let decimals = match self.format() {
            Format::F32 | Format::F64 => MOST,
            _ => of(self.scale).max(of(self.offset)).min(MOST),
        };
        u8::try_from(decimals).expect("at most nine")
    }

    /// The number that is so many registers, or bits, behind the start of the data.
    fn decode(&self, data: &[u8], at: usize, word_order: WordOrder) -> f64 {
        if self.kind.is_bit() {
            // The first in the lowest bit (V1.1b3, section 6.1).
            return f64::from(data[at / 8] >> (at % 8) & 1);
        }
        let words = usize::from(self.format().count());
        let mut words: Vec<[u8; 2]> = data[2 * at..2 * (at + words)]
            .chunks_exact(2)
            .map(|word| [word[0], word[1]])
            .collect();
        if word_order == WordOrder::Little {
            words.reverse();
        }
        let bits = words
            .concat()
            .iter()
            .fold(0, |bits, byte| bits << 8 | u64::from(*byte));
        self.format().number(bits)
    }

    /// The data that is read as near to this value as there is.
    fn encode(&self, value: f64, word_order: WordOrder) -> Vec<[u8; 2]> {
        let bits = self.format().bits((value - self.offset) / self.scale);
        let count = usize::from(self.format().count());
        let bytes = bits.to_be_bytes();
        let mut words: Vec<[u8; 2]> = bytes[8 - 2 * count..]
            .chunks_exact(2)
            .map(|word| [word[0], word[1]])
            .collect();
        if word_order == WordOrder::Little {
            words.reverse();
        }
        words
    }
}

impl Format {
    /// How many registers, or bits.
    fn count(self) -> u16 {
        match self {
            Format::Bool | Format::U16 | Format::I16 => 1,
            Format::U32 | Format::I32 | Format::F32 => 2,
            Format::U64 | Format::I64 | Format::F64 => 4,
        }
    }

    /// Of the lowest bits; casts take those that the type has.
    fn number(self, bits: u64) -> f64 {
        match self {
            Format::Bool => (bits & 1) as f64,
            Format::U16 => f64::from(bits as u16),
            Format::I16 => f64::from(bits as u16 as i16),
            Format::U32 => f64::from(bits as u32),
            Format::I32 => f64::from(bits as u32 as i32),
            Format::U64 => bits as f64,
            Format::I64 => bits as i64 as f64,
            Format::F32 => shortest(f32::from_bits(bits as u32)),
            Format::F64 => f64::from_bits(bits),
        }
    }

    fn bits(self, number: f64) -> u64 {
        let whole = number.round();
        match self {
            Format::Bool => u64::from(number >= 0.5),
            Format::U16 => u64::from(whole as u16),
            Format::I16 => u64::from(whole as i16 as u16),
            Format::U32 => u64::from(whole as u32),
            Format::I32 => u64::from(whole as i32 as u32),
            Format::U64 => whole as u64,
            Format::I64 => whole as i64 as u64,
            Format::F32 => u64::from((number as f32).to_bits()),
            Format::F64 => number.to_bits(),
        }
    }
}

/// The number that a person would write for it: 230.1, not 230.10000610351562.
fn shortest(number: f32) -> f64 {
    number.to_string().parse().unwrap_or(number.into())
}

/// A unit that has these registers and no others. What they hold is what is around it, by their units.
struct Twin {
    registers: Vec<Register>,
    word_order: WordOrder,
    scene: Scene,
}

impl Twin {
    fn value(&self, register: &Register) -> f64 {
        let physical = match register.unit.as_str() {
            "V" => Physical::Voltage,
            "A" => Physical::Current,
            "degC" | "°C" => Physical::Temperature,
            "%" => Physical::Humidity,
            "hPa" | "mbar" => Physical::Pressure,
            "ppm" => Physical::Co2,
            "lx" => Physical::Light,
            "m" => Physical::Distance,
            "kg" => Physical::Weight,
            _ => Physical::Share,
        };
        let value = self.scene.value(physical);
        match register.format() {
            Format::Bool => f64::from(value >= 50.0),
            _ => value,
        }
    }

    /// What is at each address of a kind; bits as words of 0 or 1.
    fn image(&self, kind: Kind) -> BTreeMap<u32, [u8; 2]> {
        let of_kind = self.registers.iter().filter(|it| it.kind == kind);
        of_kind
            .flat_map(|register| {
                let words = register.encode(self.value(register), self.word_order);
                (u32::from(register.address)..).zip(words)
            })
            .collect()
    }
}

impl ModbusTwin for Twin {
    fn answer(&mut self, request: &[u8]) -> Vec<u8> {
        const ILLEGAL_FUNCTION: u8 = 0x01;
        const ILLEGAL_ADDRESS: u8 = 0x02;
        let &[function, a1, a0, c1, c0] = request else {
            return vec![request[0] | 0x80, ILLEGAL_FUNCTION];
        };
        let kinds = [Kind::Holding, Kind::Input, Kind::Coil, Kind::Discrete];
        let Some(kind) = kinds.into_iter().find(|kind| kind.function() == function) else {
            return vec![function | 0x80, ILLEGAL_FUNCTION];
        };
        let first = u32::from(u16::from_be_bytes([a1, a0]));
        let count = u16::from_be_bytes([c1, c0]);
        let image = self.image(kind);
        let wanted = first..first + u32::from(count);
        let words: Option<Vec<[u8; 2]>> = wanted.map(|at| image.get(&at).copied()).collect();
        let Some(words) = words else {
            return vec![function | 0x80, ILLEGAL_ADDRESS];
        };
        let data = match kind.is_bit() {
            true => packed(&words),
            false => words.concat(),
        };
        let length = u8::try_from(data.len()).expect("a request is for 250 bytes at most");
        [vec![function, length], data].concat()
    }
}

fn packed(bits: &[[u8; 2]]) -> Vec<u8> {
    let byte = |bits: &[[u8; 2]]| {
        let places = bits.iter().enumerate();
        places.fold(0, |byte, (place, [_, bit])| byte | bit << place)
    };
    bits.chunks(8).map(byte).collect()
}

#[cfg(test)]
mod tests;
