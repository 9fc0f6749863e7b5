//! Devices that speak Modbus: over a serial line (RTU), or TCP.
//!
//! Requests and answers are those of the MODBUS Application Protocol Specification V1.1b3 (section 6 for the functions, 7 for
//! exceptions); how they travel is in `rtu` and `tcp`.
//!
//! Several units may be at one line or behind one gateway, which often takes one connection only: so all nodes that name the same
//! one share it, on the thread of its bus.
//!
//! Must not: wait longer than `timeout` for one answer; take an answer for another question's.
//!
//! The crate tokio-modbus was looked at. Its RTU decoder logs a wrong check sum and waits on, so that a bad cable looks like a dead
//! unit; and it wants a tokio runtime and a second crate for serial ports on each bus thread, for four kinds of requests.

mod rtu;
mod tcp;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serialport::{Parity, StopBits};

use super::part::{About, Chip, Part};
use super::place::{Hardware, Pins, Place};
use super::scene::Scene;
use super::serial::SerialMode;
use super::trouble::Trouble;
use crate::flow::options::Span;

/// A Modbus device: `host` for TCP, or `port` for a serial line (RTU).
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct ModbusPlace {
    /// Modbus TCP: the address or name of the device or gateway, as `192.0.2.20` or, at a port other than 502, `192.0.2.20:1502`.
    host: Option<String>,
    /// Modbus RTU: the serial port under /dev, as `ttyUSB0` or `serial/by-id/...`.
    port: Option<String>,
    /// RTU: bits per second. Default: 19200.
    #[serde(default = "usual_baud")]
    baud: u32,
    /// RTU: the parity. Default: `even`.
    #[serde(default)]
    parity: LineParity,
    /// RTU: 1 or 2. Default: 1 with a parity, 2 without, so that a character has 11 bits; devices with 8N1 take both.
    stop_bits: Option<u8>,
    /// The device's number on the line or behind the gateway (slave address, unit identifier), 1 to 247; over TCP up to 255.
    /// Default: 1.
    #[serde(default = "usual_unit_id")]
    unit_id: u8,
    /// How long to wait for an answer, 10 ms to 10 s. Default: `1s`.
    #[serde(default = "usual_timeout")]
    timeout: Span,
}

/// The defaults of "MODBUS over Serial Line" V1.02, sections 2.2 (number), 2.5.1 (parity) and 3.2 (bits per second).
fn usual_baud() -> u32 {
    19_200
}
fn usual_unit_id() -> u8 {
    1
}
fn usual_timeout() -> Span {
    Span(Duration::from_secs(1))
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum LineParity {
    #[default]
    Even,
    Odd,
    None,
}

/// Which table of a device is read (V1.1b3, section 4.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Words that can be written too; "4xxxx" in manuals.
    #[default]
    Holding,
    /// Words that can only be read; "3xxxx".
    Input,
    /// Bits that can be written too; "0xxxx".
    Coil,
    /// Bits that can only be read; "1xxxx".
    Discrete,
}

/// A request for some adjacent registers or bits of one kind.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Request {
    pub kind: Kind,
    pub address: u16,
    pub count: u16,
}

/// The way to one unit.
pub struct ModbusLink {
    unit_id: u8,
    timeout: Duration,
    line: Arc<Mutex<dyn Line>>,
}

/// What carries requests: a serial line, a connection, or a simulated unit.
trait Line: Send {
    /// Sends a request (a PDU: function and data) to a unit and gives its answer.
    fn exchange(
        &mut self,
        unit_id: u8,
        request: &[u8],
        timeout: Duration,
    ) -> Result<Vec<u8>, Trouble>;
}

/// A simulated unit: takes a PDU and gives one.
pub trait ModbusTwin: Send {
    fn answer(&mut self, request: &[u8]) -> Vec<u8>;
}

/// Where a line goes, and how.
#[derive(Clone, Debug, PartialEq)]
enum Route {
    Serial { path: PathBuf, mode: SerialMode },
    Tcp { host: String },
}

impl Place for ModbusPlace {
    type Link = ModbusLink;
    type Twin = Box<dyn ModbusTwin>;
    const BY: &'static str = "Modbus";

    fn problems(&self, _: &About) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        let mut wrong = |option, message: &str| problems.push((option, message.to_owned()));
        match (&self.host, &self.port) {
            (Some(_), Some(_)) => wrong(
                "port",
                "is for RTU and `host` for TCP: a device has one of them",
            ),
            (None, None) => wrong(
                "host",
                "is missing: `host` for Modbus TCP, or `port` for a serial line (RTU)",
            ),
            (Some(host), None) if !is_host(host) => {
                wrong(
                    "host",
                    "must be an address or a name, as `192.0.2.20` or `meter.lan:1502`",
                );
            }
            (None, Some(port)) if !is_device(port) => {
                wrong("port", "must be a name under /dev, as `ttyUSB0`");
            }
            _ => {}
        }
        if !(300..=4_000_000).contains(&self.baud) {
            wrong("baud", "must be 300 to 4000000; usual are 9600 and 19200");
        }
        if self.stop_bits.is_some_and(|bits| !(1..=2).contains(&bits)) {
            wrong("stop_bits", "must be 1 or 2");
        }
        // 0 is for all units at once, which none answers; 248 to 255 are reserved on a line (V1.02, section 2.2).
        if self.unit_id == 0 || (self.port.is_some() && self.unit_id > 247) {
            wrong("unit_id", "must be 1 to 247 (over TCP up to 255)");
        }
        let bounds = Duration::from_millis(10)..=Duration::from_secs(10);
        if !bounds.contains(&self.timeout.0) {
            wrong("timeout", "must be from 10ms to 10s");
        }
        problems
    }

    /// A serial line has the name that other parts at the same port have, so that they are on one thread.
    fn bus(&self) -> String {
        match &self.port {
            Some(port) => format!("serial-{}", without_dev(port)),
            None => format!("modbus-{}", self.host_and_port()),
        }
    }

    fn describe(&self, _: &About) -> String {
        let unit_id = self.unit_id;
        match &self.port {
            Some(port) => format!("/dev/{}, unit {unit_id}", without_dev(port)),
            None => format!("{}, unit {unit_id}", self.host_and_port()),
        }
    }

    fn pins(&self) -> Pins {
        match self.port.as_deref().map(without_dev) {
            Some("serial0" | "ttyAMA0" | "ttyS0") => Pins::Taken(&[14, 15]),
            _ => Pins::None,
        }
    }

    fn link(&self, _: &About, hardware: &Hardware) -> Result<ModbusLink, Trouble> {
        let route = match &self.port {
            Some(port) => Route::Serial {
                path: hardware.dev.join(without_dev(port)),
                mode: self.mode(),
            },
            None => Route::Tcp {
                host: self.host_and_port(),
            },
        };
        Ok(ModbusLink {
            unit_id: self.unit_id,
            timeout: self.timeout.0,
            line: shared(route)?,
        })
    }

    fn simulate<P: Part<Place = ModbusPlace>>(
        &self,
        part: &P,
        scene: Scene,
    ) -> Result<Box<dyn Chip>, Trouble> {
        part.open(ModbusLink::to(part.twin(scene)))
    }
}

impl ModbusPlace {
    fn host_and_port(&self) -> String {
        let host = self.host.as_deref().unwrap_or_default();
        match tcp::has_port(host) {
            true => host.to_owned(),
            false => format!("{host}:{}", tcp::PORT),
        }
    }

    fn mode(&self) -> SerialMode {
        let parity = match self.parity {
            LineParity::Even => Parity::Even,
            LineParity::Odd => Parity::Odd,
            LineParity::None => Parity::None,
        };
        let stop_bits = match (self.stop_bits, parity) {
            (Some(2), _) | (None, Parity::None) => StopBits::Two,
            _ => StopBits::One,
        };
        SerialMode {
            baud: self.baud,
            parity,
            stop_bits,
        }
    }
}

fn without_dev(port: &str) -> &str {
    port.strip_prefix("/dev/").unwrap_or(port)
}

fn is_device(port: &str) -> bool {
    let name = without_dev(port);
    !name.is_empty() && !name.starts_with('/') && name.split('/').all(|part| part != "..")
}

fn is_host(host: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
    !host.is_empty() && host.len() <= 260 && host.chars().all(allowed)
}

/// Lines in use, by where they go. They are the whole process's, as the ports are: a port opens once, and a gateway often takes
/// one connection.
static LINES: Mutex<BTreeMap<String, Known>> = Mutex::new(BTreeMap::new());

struct Known {
    route: Route,
    line: Weak<Mutex<dyn Line>>,
}

/// The line to there, which all who use it share.
fn shared(route: Route) -> Result<Arc<Mutex<dyn Line>>, Trouble> {
    let mut lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    lines.retain(|_, known| known.line.strong_count() > 0);
    let name = match &route {
        Route::Serial { path, .. } => path.to_string_lossy().into_owned(),
        Route::Tcp { host } => host.clone(),
    };
    if let Some(known) = lines.get(&name)
        && let Some(line) = known.line.upgrade()
    {
        if known.route == route {
            return Ok(line);
        }
        return Err(Trouble::NotReady(format!(
            "another node uses {name} with another `baud`, `parity` or `stop_bits`; all units of a line have the same"
        )));
    }
    let line: Arc<Mutex<dyn Line>> = match &route {
        Route::Serial { path, mode } => {
            Arc::new(Mutex::new(rtu::SerialLine::new(path.clone(), *mode)))
        }
        Route::Tcp { host } => Arc::new(Mutex::new(tcp::Connection::new(host.clone()))),
    };
    let known = Known {
        route,
        line: Arc::downgrade(&line),
    };
    lines.insert(name, known);
    Ok(line)
}

impl Kind {
    /// In a person's words.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Holding => "holding register",
            Kind::Input => "input register",
            Kind::Coil => "coil",
            Kind::Discrete => "discrete input",
        }
    }

    pub fn is_bit(self) -> bool {
        matches!(self, Kind::Coil | Kind::Discrete)
    }

    /// The function that reads it (V1.1b3, sections 6.1 to 6.4).
    pub fn function(self) -> u8 {
        match self {
            Kind::Coil => 1,
            Kind::Discrete => 2,
            Kind::Holding => 3,
            Kind::Input => 4,
        }
    }

    /// How many of them one request may read (V1.1b3, sections 6.1 to 6.4).
    pub fn most(self) -> u16 {
        if self.is_bit() { 2_000 } else { 125 }
    }
}

impl Request {
    /// Function, first address, and how many.
    pub fn pdu(self) -> [u8; 5] {
        let [address_high, address_low] = self.address.to_be_bytes();
        let [count_high, count_low] = self.count.to_be_bytes();
        [
            self.kind.function(),
            address_high,
            address_low,
            count_high,
            count_low,
        ]
    }

    /// How many bytes of data its answer has.
    pub fn bytes(self) -> usize {
        let count = usize::from(self.count);
        if self.kind.is_bit() {
            count.div_ceil(8)
        } else {
            count * 2
        }
    }
}

impl ModbusLink {
    /// To a simulated unit.
    pub(super) fn to(twin: Box<dyn ModbusTwin>) -> ModbusLink {
        ModbusLink {
            unit_id: 1,
            timeout: Duration::from_secs(1),
            line: Arc::new(Mutex::new(Simulated(twin))),
        }
    }

    /// The data of its answer, or the code of its exception.
    pub fn read(&mut self, request: Request) -> Result<Result<Vec<u8>, u8>, Trouble> {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = line.exchange(self.unit_id, &request.pdu(), self.timeout)?;
        let function = request.kind.function();
        match answer.as_slice() {
            // The highest bit marks an exception (V1.1b3, section 7).
            &[code, exception] if code == function | 0x80 => Ok(Err(exception)),
            &[code, bytes, ref data @ ..]
                if code == function
                    && data.len() == request.bytes()
                    && usize::from(bytes) == data.len() =>
            {
                Ok(Ok(data.to_vec()))
            }
            other => Err(Trouble::NotReady(format!(
                "its answer is not one to what was asked ({other:02x?}): do two devices have the unit id {}, or does something \
                 else use the line?",
                self.unit_id
            ))),
        }
    }
}

struct Simulated(Box<dyn ModbusTwin>);

impl Line for Simulated {
    fn exchange(&mut self, _: u8, request: &[u8], _: Duration) -> Result<Vec<u8>, Trouble> {
        Ok(self.0.answer(request))
    }
}

#[cfg(test)]
mod tests;
