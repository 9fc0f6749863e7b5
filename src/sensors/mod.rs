//! Sensors, behind one trait.
//!
//! A *part* is a kind of sensor that one can buy: `parts` has a file for each. A [`SensorSpec`] is a part as a flow names it: its
//! options and its *place*, which is where it is connected. Opened on real hardware or simulated, it is a [`Sensor`]. It need
//! not be there when it is opened: readings tell. Why it is made like this: `docs/decisions/0024-sensors.md`.
//!
//! Must not: know boards, flows or clocks; cache a reading; hand out a number that cannot be true.
//!
//! Terms: a *link* is the way to one part; a *bus* is what parts have to share, one after the other: reading a DS18B20 holds the
//! 1-wire bus for up to 750 ms, so parts on one bus belong on one thread, which no flow waits for; a *twin* is a simulated
//! part, and the *scene* is what it measures.

mod held;
pub mod i2c;
pub mod kernel;
pub mod modbus;
mod part;
pub mod parts;
pub mod pins;
mod place;
mod scene;
pub mod serial;
pub mod spi;
pub mod survey;
mod trouble;

use std::fmt;
use std::sync::Arc;

use crate::message::Value;
use crate::runtime::clock::Now;

use self::held::{Held, Open};
pub use self::kernel::OneWire;
pub use self::part::{About, Chip, Options, Part, Quantity};
pub use self::place::{Hardware, Pins, Place};
pub use self::scene::{Physical, Scene, World};
pub use self::trouble::Trouble;

/// A sensor that is read.
pub trait Sensor: Send {
    /// Takes a reading. Blocks for as long as the hardware takes.
    fn read(&mut self, now: Now) -> Result<Value, SensorError>;
}

/// Which sensor, as a flow names it. Two that are equal are one.
#[derive(Clone)]
pub struct SensorSpec {
    /// All that tells it from others.
    key: Arc<str>,
    part: &'static str,
    name: Arc<str>,
    bus: Arc<str>,
    pins: Pins,
    quantities: Arc<[Quantity]>,
    connect: Arc<dyn Connect>,
}

/// A part at a place, their types erased.
trait Connect: Send + Sync {
    fn open(self: Arc<Self>, hardware: Hardware) -> Open;
    fn simulate(self: Arc<Self>, scene: Scene) -> Open;
}

struct Connection<P: Part> {
    part: P,
    place: P::Place,
}

impl<P: Part> Connect for Connection<P> {
    fn open(self: Arc<Self>, hardware: Hardware) -> Open {
        Box::new(move || self.part.open(self.place.link(&P::ABOUT, &hardware)?))
    }

    fn simulate(self: Arc<Self>, scene: Scene) -> Open {
        Box::new(move || self.place.simulate(&self.part, scene.clone()))
    }
}

impl SensorSpec {
    pub fn new<P: Part>(part: P, place: P::Place) -> SensorSpec {
        SensorSpec {
            key: format!("{} {part:?} {place:?}", P::NAME).into(),
            part: P::NAME,
            name: format!("{} on {}", P::NAME, place.describe(&P::ABOUT)).into(),
            bus: place.bus().into(),
            pins: place.pins(),
            quantities: part.quantities().into(),
            connect: Arc::new(Connection { part, place }),
        }
    }

    /// The part's node type.
    pub fn part(&self) -> &'static str {
        self.part
    }

    /// The bus that reads one sensor after the other.
    pub fn bus(&self) -> &str {
        &self.bus
    }

    /// The pins of a Pi that it is read over.
    pub fn pins(&self) -> Pins {
        self.pins
    }

    /// What its readings have.
    pub fn quantities(&self) -> &[Quantity] {
        &self.quantities
    }

    /// A sensor of this computer.
    pub fn open(&self, hardware: &Hardware) -> Box<dyn Sensor> {
        self.hold(self.connect.clone().open(hardware.clone()), None)
    }

    /// A simulated one, in this world.
    pub fn simulate(&self, world: Arc<dyn World>) -> Box<dyn Sensor> {
        let scene = Scene::new(world, &self.key);
        let open = self.connect.clone().simulate(scene.clone());
        self.hold(open, Some(scene))
    }

    fn hold(&self, open: Open, scene: Option<Scene>) -> Box<dyn Sensor> {
        let quantities = self.quantities.to_vec();
        Box::new(Held::new(self.name.to_string(), quantities, open, scene))
    }
}

impl PartialEq for SensorSpec {
    fn eq(&self, other: &SensorSpec) -> bool {
        self.key == other.key
    }
}

impl Eq for SensorSpec {}

impl fmt::Debug for SensorSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)
    }
}

/// Why there is no reading.
#[derive(Debug, thiserror::Error)]
#[error("{name}")]
pub struct SensorError {
    /// Which part, and where.
    name: String,
    source: Trouble,
}

impl SensorError {
    fn new(name: &str, source: Trouble) -> SensorError {
        SensorError {
            name: name.to_owned(),
            source,
        }
    }

    pub fn trouble(&self) -> &Trouble {
        &self.source
    }
}

#[cfg(test)]
fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests;
