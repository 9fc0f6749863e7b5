//! Sensor threads: one per bus, which reads its sensors one after the other. It may wait for hardware; nobody waits for it.
//!
//! A request brings the sensor and where its reading goes. So a sensor stays open when flows change, and a bus knows nothing of them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use super::{ThreadError, chain, spawn};
use crate::runtime::clock::Clock;
use crate::runtime::engine::Event;
use crate::runtime::node::{Address, Input};
use crate::sensors::{Sensor, SensorSpec};

/// Readings that wait for one bus.
const READ_QUEUE: usize = 1_024;
/// How long a stop waits for a reading that is under way.
const FAREWELL: Duration = Duration::from_secs(1);

/// An open sensor, and the way to the thread of its bus. Clones are the same one.
#[derive(Clone)]
pub(super) struct Attached {
    pub(super) spec: SensorSpec,
    /// Locked by the thread of its bus only, so never waited for.
    sensor: Arc<Mutex<Box<dyn Sensor>>>,
    bus: Sender<Request>,
}

/// A reading that is wanted.
struct Request {
    sensor: Arc<Mutex<Box<dyn Sensor>>>,
    to: Address,
    readings: Sender<Event>,
}

/// How one engine asks for readings.
pub(super) struct Readers {
    sensors: HashMap<Address, Attached>,
    /// Where the readings go.
    readings: Sender<Event>,
}

/// The running threads.
pub(super) struct SensorThreads {
    clock: Clock,
    buses: BTreeMap<String, Bus>,
    stop: Arc<AtomicBool>,
}

struct Bus {
    requests: Sender<Request>,
    thread: JoinHandle<()>,
}

impl Readers {
    pub(super) fn new(readings: Sender<Event>) -> Readers {
        Readers {
            sensors: HashMap::new(),
            readings,
        }
    }

    pub(super) fn set(&mut self, sensors: HashMap<Address, Attached>) {
        self.sensors = sensors;
    }

    /// Asks for a reading; if its thread cannot take the request, says why.
    pub(super) fn request(&self, from: Address) -> Result<(), &'static str> {
        let Some(Attached { sensor, bus, .. }) = self.sensors.get(&from) else {
            return Err("the sensor could not be opened; the log says why");
        };
        let request = Request {
            sensor: sensor.clone(),
            to: from,
            readings: self.readings.clone(),
        };
        bus.try_send(request).map_err(|error| match error {
            TrySendError::Full(_) => "its bus is so far behind that the reading was left out",
            TrySendError::Disconnected(_) => "the thread that reads its bus has ended",
        })
    }
}

impl SensorThreads {
    pub(super) fn new(clock: &Clock) -> SensorThreads {
        SensorThreads {
            clock: clock.clone(),
            buses: BTreeMap::new(),
            stop: Arc::default(),
        }
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Gives a sensor to the thread of its bus, which is started if it does not run.
    pub(super) fn attach(
        &mut self,
        spec: &SensorSpec,
        sensor: Box<dyn Sensor>,
    ) -> Result<Attached, ThreadError> {
        let name = spec.bus();
        let bus = match self.buses.get(name) {
            Some(bus) if !bus.thread.is_finished() => bus,
            _ => {
                let bus = self.start(name)?;
                self.buses
                    .entry(name.to_owned())
                    .insert_entry(bus)
                    .into_mut()
            }
        };
        Ok(Attached {
            spec: spec.clone(),
            sensor: Arc::new(Mutex::new(sensor)),
            bus: bus.requests.clone(),
        })
    }

    fn start(&self, name: &str) -> Result<Bus, ThreadError> {
        let (requests, inbox) = bounded(READ_QUEUE);
        let (clock, stop) = (self.clock.clone(), self.stop.clone());
        let thread = spawn(&format!("sensors {name}"), move || {
            read(&inbox, &clock, &stop)
        })?;
        Ok(Bus { requests, thread })
    }

    /// Lets go of buses that none of these is on; their threads end when nobody can ask any more.
    pub(super) fn keep_for(&mut self, sensors: &[Attached]) {
        let used: HashSet<&str> = sensors.iter().map(|sensor| sensor.spec.bus()).collect();
        self.buses.retain(|name, _| used.contains(&**name));
    }

    /// Ends the threads. One that hangs in its hardware is left behind: it holds nothing that others need.
    pub(super) fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        let deadline = Instant::now() + FAREWELL;
        for (name, Bus { requests, thread }) in self.buses {
            drop(requests);
            while !thread.is_finished() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
            if !thread.is_finished() {
                tracing::warn!("a sensor on the bus {name} does not answer; it is not waited for");
            }
        }
    }
}

/// Until nobody can ask any more, or it is told to stop.
fn read(requests: &Receiver<Request>, clock: &Clock, stop: &AtomicBool) {
    while let Ok(request) = requests.recv() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let Request {
            sensor,
            to,
            readings,
        } = request;
        let mut sensor = sensor.lock().unwrap_or_else(PoisonError::into_inner);
        let value = match catch_unwind(AssertUnwindSafe(|| sensor.read(clock.now()))) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(chain(&error)),
            Err(_) => Err("the sensor's driver panicked; please report this".to_owned()),
        };
        drop(sensor);
        let input = Input::Reading {
            time: clock.now().wall,
            value,
        };
        // Without its engine nobody wants the reading.
        let _ = readings.send(Event::Input { to, input });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{NodeId, Value};
    use crate::runtime::clock::Now;
    use crate::sensors::parts::Ds18b20;
    use crate::sensors::{OneWire, SensorError};

    struct Fixed(f64);

    impl Sensor for Fixed {
        fn read(&mut self, _: Now) -> Result<Value, SensorError> {
            Ok(Value::Number(self.0))
        }
    }

    fn number(inbox: &Receiver<Event>) -> Option<f64> {
        let event = inbox.recv_timeout(Duration::from_secs(5)).unwrap();
        match event {
            Event::Input {
                input: Input::Reading { value, .. },
                ..
            } => value.unwrap().as_number(),
            other => panic!("{other:?}"),
        }
    }

    fn spec(device: &str) -> SensorSpec {
        let device = device.to_owned();
        SensorSpec::new(Ds18b20 { device }, OneWire {})
    }

    #[test]
    fn each_engine_gets_the_reading_it_asked_for_and_no_other() {
        let address = Address {
            flow: 0,
            node: NodeId(0),
        };
        let mut threads = SensorThreads::new(&Clock::start());
        let mut engine = |device: &str, number| {
            let (readings, inbox) = bounded(8);
            let sensor = threads.attach(&spec(device), Box::new(Fixed(number)));
            let mut readers = Readers::new(readings);
            assert!(readers.request(address).is_err(), "there is none yet");
            readers.set([(address, sensor.unwrap())].into());
            (readers, inbox)
        };
        let (control, control_inbox) = engine("28-000000000001", 1.0);
        let (data, data_inbox) = engine("28-000000000002", 2.0);
        control.request(address).unwrap();
        assert_eq!(number(&control_inbox), Some(1.0));
        data.request(address).unwrap();
        assert_eq!(number(&data_inbox), Some(2.0));
        assert!(control_inbox.is_empty() && data_inbox.is_empty());
        assert_eq!(threads.buses.len(), 1, "they are on one bus");
        drop((control, data));
        threads.stop();
    }

    #[test]
    fn a_bus_that_nobody_uses_ends_and_comes_back() {
        let mut threads = SensorThreads::new(&Clock::start());
        let sensor = threads.attach(&spec("28-000000000001"), Box::new(Fixed(1.0)));
        threads.keep_for(&[sensor.unwrap()]);
        assert_eq!(threads.buses.len(), 1);
        let thread = threads.buses.pop_first().unwrap().1.thread;
        threads.keep_for(&[]);
        thread.join().unwrap();
        assert!(
            threads
                .attach(&spec("28-000000000001"), Box::new(Fixed(1.0)))
                .is_ok()
        );
        threads.stop();
    }
}
