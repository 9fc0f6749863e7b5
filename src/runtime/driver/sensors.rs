//! Sensor threads: one per bus, which reads its sensors one after the other. It may wait for hardware; nobody waits for it.

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use super::{ThreadError, chain, spawn};
use crate::runtime::clock::Clock;
use crate::runtime::engine::Event;
use crate::runtime::node::{Address, Input};
use crate::sensors::Sensor;

/// Readings that wait for one bus.
const READ_QUEUE: usize = 1_024;
/// How long a stop waits for a reading that is under way.
const FAREWELL: Duration = Duration::from_secs(1);

/// A sensor, who reads it, and where its readings go.
pub(super) struct Attached {
    pub(super) address: Address,
    pub(super) sensor: Box<dyn Sensor>,
    pub(super) readings: Sender<Event>,
}

/// The sensors by bus, before their threads start.
#[derive(Default)]
pub(super) struct Buses(BTreeMap<String, Vec<(Engine, Attached)>>);

/// Which of the two engines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Engine {
    Control,
    Data,
}

impl Engine {
    /// What messages to the user call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Engine::Control => "control engine",
            Engine::Data => "data engine",
        }
    }
}

/// How one engine asks for readings.
#[derive(Clone, Default)]
pub(super) struct Readers(HashMap<Address, (Sender<usize>, usize)>);

/// The running threads.
#[derive(Default)]
pub(super) struct SensorThreads {
    threads: Vec<(String, JoinHandle<()>)>,
    stop: Arc<AtomicBool>,
}

impl Buses {
    pub(super) fn attach(&mut self, bus: String, engine: Engine, attached: Attached) {
        self.0.entry(bus).or_default().push((engine, attached));
    }

    /// Starts a thread for each bus; gives the readers for control and for data.
    pub(super) fn start(
        self,
        clock: &Clock,
    ) -> Result<(SensorThreads, Readers, Readers), ThreadError> {
        let mut threads = SensorThreads::default();
        let (mut control, mut data) = (Readers::default(), Readers::default());
        for (bus, attached) in self.0 {
            let (queue, requests) = bounded(READ_QUEUE);
            for (place, (engine, sensor)) in attached.iter().enumerate() {
                let readers = match engine {
                    Engine::Control => &mut control,
                    Engine::Data => &mut data,
                };
                readers.0.insert(sensor.address, (queue.clone(), place));
            }
            let attached = attached.into_iter().map(|(_, attached)| attached).collect();
            let (clock, stop) = (clock.clone(), threads.stop.clone());
            let thread = spawn(&format!("sensors {bus}"), move || {
                read(attached, &requests, &clock, &stop)
            })?;
            threads.threads.push((bus, thread));
        }
        Ok((threads, control, data))
    }
}

impl Readers {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Asks for a reading; if its thread cannot take the request, says why.
    pub(super) fn request(&self, from: Address) -> Result<(), &'static str> {
        let Some((queue, place)) = self.0.get(&from) else {
            return Err("the sensor could not be opened at the start; the log says why");
        };
        queue.try_send(*place).map_err(|error| match error {
            TrySendError::Full(_) => "its bus is so far behind that the reading was left out",
            TrySendError::Disconnected(_) => "the thread that reads its bus has ended",
        })
    }
}

impl SensorThreads {
    /// Ends the threads. One that hangs in its hardware is left behind: it holds nothing that others need.
    pub(super) fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        let deadline = Instant::now() + FAREWELL;
        for (bus, thread) in self.threads {
            while !thread.is_finished() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
            if !thread.is_finished() {
                tracing::warn!("a sensor on the bus {bus} does not answer; it is not waited for");
            }
        }
    }
}

/// Until nobody can ask any more, or it is told to stop.
fn read(mut attached: Vec<Attached>, requests: &Receiver<usize>, clock: &Clock, stop: &AtomicBool) {
    while let Ok(place) = requests.recv() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let Attached {
            address,
            sensor,
            readings,
        } = &mut attached[place];
        let value = match catch_unwind(AssertUnwindSafe(|| sensor.read(clock.now()))) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(chain(&error)),
            Err(_) => Err("the sensor's driver panicked; please report this".to_owned()),
        };
        let input = Input::Reading {
            time: clock.now().wall,
            value,
        };
        // Without its engine nobody wants the reading.
        let _ = readings.send(Event::Input {
            to: *address,
            input,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{NodeId, Value};
    use crate::runtime::clock::Now;
    use crate::sensors::SensorError;

    struct Fixed(f64);

    impl Sensor for Fixed {
        fn read(&mut self, _: Now) -> Result<Value, SensorError> {
            Ok(Value::Number(self.0))
        }
    }

    #[test]
    fn control_and_data_each_get_the_reading_they_asked_for_and_no_other() {
        let address = Address {
            flow: 0,
            node: NodeId(0),
        };
        let mut buses = Buses::default();
        let mut attach = |engine, number| {
            let (readings, inbox) = bounded(8);
            buses.attach(
                "w1".into(),
                engine,
                Attached {
                    address,
                    sensor: Box::new(Fixed(number)),
                    readings,
                },
            );
            inbox
        };
        let control_inbox = attach(Engine::Control, 1.0);
        let data_inbox = attach(Engine::Data, 2.0);
        let (threads, control, data) = buses.start(&Clock::start()).unwrap();
        let expect = |inbox: &Receiver<Event>, number: f64| {
            let event = inbox.recv_timeout(Duration::from_secs(5)).unwrap();
            let Event::Input {
                input: Input::Reading { value, .. },
                ..
            } = event
            else {
                panic!("{event:?}")
            };
            assert_eq!(value, Ok(Value::Number(number)));
        };
        control.request(address).unwrap();
        expect(&control_inbox, 1.0);
        data.request(address).unwrap();
        expect(&data_inbox, 2.0);
        assert!(control_inbox.is_empty() && data_inbox.is_empty());
        assert!(Readers::default().request(address).is_err());
        drop((control, data));
        threads.stop();
    }
}
