//! One life from start to end: turns the device on and off, and calls its storage thread's work when that is due.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::Duration;

use super::plan::Plan;
use super::world::{Stop, World};
use crate::outbox::simulated::{SimulatedOutbox, StorageWork};
use crate::outbox::simulated_disk::{Crash, Stopped, while_the_world_goes_on};

/// How long a healed device may take to deliver everything: longer than its longest pauses, one after the other.
const PATIENCE: Duration = Duration::from_secs(1_800);
/// What may still come when all was delivered: late packets, and the commit that says so.
const AFTERWARDS: Duration = Duration::from_secs(8);
/// Steps of the storage thread in one moment. More is a thread that spins.
const MOST_STEPS: u32 = 20_000;

/// How a life went.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) verdict: Option<String>,
    pub(super) hash: u32,
    pub(super) lines: Vec<String>,
    pub(super) hits: BTreeMap<&'static str, u64>,
    pub(super) records: usize,
    pub(super) deliveries: usize,
    pub(super) duplicates: usize,
    pub(super) lost_with_crashes: usize,
}

/// Lives the whole plan.
pub(super) fn live(plan: &Plan, tells_all: bool) -> Outcome {
    let world = Rc::new(RefCell::new(World::new(plan.clone(), tells_all)));
    let mut life = Life {
        world: world.clone(),
        work: None,
    };
    let ended = catch_unwind(AssertUnwindSafe(|| life.run()));
    drop(life);
    let mut world = Rc::into_inner(world)
        .expect("only the life had it")
        .into_inner();
    if let Err(panic) = ended {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied());
        world
            .oracle
            .fail(format!("a panic: {}", text.unwrap_or("without words")));
    }
    world.outcome()
}

impl World {
    fn outcome(self) -> Outcome {
        Outcome {
            verdict: self.oracle.verdict().map(str::to_owned),
            hash: self.history.hash(),
            hits: self.hits,
            records: self.oracle.next_number(),
            deliveries: self.oracle.deliveries,
            duplicates: self.oracle.duplicates,
            lost_with_crashes: self.oracle.lost_with_crashes,
            lines: self.history.into_lines(),
        }
    }
}

struct Life {
    world: Rc<RefCell<World>>,
    work: Option<StorageWork>,
}

impl Life {
    fn run(&mut self) {
        let end = self.world.borrow().plan.length + PATIENCE;
        let mut idle_since = None;
        loop {
            self.take_turn();
            let mut world = self.world.borrow_mut();
            if world.oracle.verdict().is_some() {
                return;
            }
            if !world.is_idle() {
                idle_since = None;
            } else if world.now >= *idle_since.get_or_insert(world.now) + AFTERWARDS {
                return world.judge();
            }
            if world.now >= end {
                let ledger = world.device.as_ref().map(|it| it.outbox.ledger());
                return world
                    .oracle
                    .fail(format!("nothing moves any more: {ledger:?}"));
            }
            let work_due = self.work.as_ref().and_then(StorageWork::due);
            let idle_due = idle_since.map(|since| since + AFTERWARDS);
            let due = [world.next_due(), work_due, idle_due, Some(end)];
            let due = due.into_iter().flatten().min().unwrap_or(end);
            if world.next_due().is_some_and(|next| next <= due) {
                world.step();
            } else {
                world.run_until(due);
            }
        }
    }

    /// Does what is due now and is not the world's.
    fn take_turn(&mut self) {
        let (stop, power) = {
            let mut world = self.world.borrow_mut();
            let power = std::mem::take(&mut world.power_is_due);
            (world.stop.take(), power && world.device.is_none())
        };
        match stop {
            Some(Stop::Crash(crash)) => return self.turn_off(crash),
            Some(Stop::Restart) => return self.restart(),
            None => {}
        }
        if power {
            return self.turn_on();
        }
        let mut steps = 0;
        loop {
            let now = self.world.borrow().now;
            let Some(work) = &mut self.work else { return };
            if !work.is_due(now) {
                return;
            }
            let before = self.world.borrow().device_now();
            let well = with_world(&self.world, || work.step(before));
            if !well {
                return self.turn_off_midway();
            }
            self.world.borrow_mut().follow_up();
            if self.world.borrow().stop.is_some() || self.world.borrow().oracle.verdict().is_some()
            {
                return;
            }
            steps += u32::from(self.world.borrow().now == now);
            if steps > MOST_STEPS {
                let spins = "the storage thread spins".to_owned();
                return self.world.borrow_mut().oracle.fail(spins);
            }
        }
    }

    fn turn_on(&mut self) {
        let (sizes, disk, now) = {
            let world = self.world.borrow();
            (world.plan.sizes, world.disk.clone(), world.device_now())
        };
        let opened = with_world(&self.world, || SimulatedOutbox::open(&sizes, &disk, now));
        match opened {
            None => self.turn_off_midway(),
            Some(Err(error)) => self.world.borrow_mut().not_turned_on(&error.to_string()),
            Some(Ok((outbox, work, opening))) => {
                self.work = Some(work);
                let mut world = self.world.borrow_mut();
                // What was found belongs to what was before.
                world.turned_on(outbox, opening.epoch);
                world.follow_up();
            }
        }
    }

    fn restart(&mut self) {
        let Some(mut work) = self.work.take() else {
            return;
        };
        let now = self.world.borrow().device_now();
        let well = with_world(&self.world, || work.finish(now));
        self.world.borrow_mut().follow_up();
        if well {
            self.turn_off(Crash::Kill);
        } else {
            self.turn_off_midway();
        }
    }

    /// The disk or the world has stopped the device in the midst of something.
    fn turn_off_midway(&mut self) {
        let crash = {
            let mut world = self.world.borrow_mut();
            let of_disk = world.disk.lock().faults.stops_in.take();
            match world.stop.take() {
                Some(Stop::Crash(crash)) => crash,
                _ => of_disk.map_or(Crash::Kill, |(_, crash)| crash),
            }
        };
        self.turn_off(crash);
    }

    fn turn_off(&mut self, crash: Crash) {
        self.work = None;
        let mut world = self.world.borrow_mut();
        world.follow_up();
        world.turned_off(crash);
    }
}

/// Runs work of the storage thread; while its disk takes time, the world goes on, and may crash.
fn with_world<T>(world: &Rc<RefCell<World>>, work: impl FnOnce() -> T) -> T {
    let world = world.clone();
    let meanwhile = move |span: Duration| {
        let mut world = world.borrow_mut();
        let until = world.now + span;
        world.run_until(until);
        let is_over = matches!(world.stop, Some(Stop::Crash(_)));
        drop(world);
        if is_over {
            resume_unwind(Box::new(Stopped));
        }
    };
    while_the_world_goes_on(Rc::new(meanwhile), work)
}
