//! The world of one life: virtual time, the queue of happenings, and the device in it, all but its storage thread's work, which
//! `life` calls.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use super::Random;
use super::history::History;
use super::network::{Network, Outcome, Travel};
use super::oracle::{Oracle, Payload, Told, text_of};
use super::plan::{Fault, Kind, Plan};
use crate::board::{Simulated, Simulation as Board};
use crate::flow::{Graph, Report, Variables, check};
use crate::message::{Message, NodeId, Timestamp, Value};
use crate::outbox::simulated::{LOADED_MAX, Settlement, SimulatedOutbox};
use crate::outbox::simulated_disk::{Crash, Disk, DiskWitness, SharedDisk};
use crate::outbox::{Ledger, WhenFull};
use crate::runtime::node::Effect;
use crate::runtime::{Address, Checkpoint, Event, Now, VirtualRun};
use crate::uplink::simulated::{Deed, Link, Signal};

/// What runs on the device. Messages are put into the `uplink` nodes; the rest keeps the engine's timers going.
const FLOW: &str = r#"
[nodes.tick]
type = "inject"
every = "3s"

[nodes.show]
type = "debug"
from = "tick"

# Only what is put into them is to be counted.
[nodes.never]
type = "inject"
every = "30d"

[nodes.hall]
type = "uplink"
from = "never"
topic = "hall/{topic}"

[nodes.yard]
type = "uplink"
from = "never"
topic = "yard/{topic}"
live_first = true

[nodes.roof]
type = "uplink"
from = "never"
topic = "roof/{topic}"
expires = "20s"

[nodes.alarms]
type = "uplink"
from = "never"
topic = "alarms/{topic}"
priority = "high"

[nodes.doors]
type = "uplink"
from = "never"
topic = "doors/{topic}"
priority = "high"
live_first = true
replay_topic = "doors-before/{topic}"

[nodes.counts]
type = "uplink"
from = "never"
topic = "counts/{topic}"
priority = "low"
expires = "1h"

[nodes.levels]
type = "uplink"
from = "never"
topic = "levels/{topic}"
priority = "low"
live_first = true
"#;

/// The first of its `uplink` nodes, and how many there are.
const UPLINKS: (u16, usize) = (3, 7);

static GRAPH: LazyLock<Arc<Graph>> = LazyLock::new(|| {
    let mut report = Report::new("simulation.toml", FLOW);
    let graph = check("simulation", &Variables::default(), &mut report);
    let found = report.into_diagnostics();
    let found: Vec<String> = found.iter().map(|it| it.render(false)).collect();
    Arc::new(graph.unwrap_or_else(|| panic!("{}", found.join("\n"))))
});

/// How often what the flow remembers is kept.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(5);
/// The wall clock at the beginning.
const START: Timestamp = Timestamp::from_millis(1_790_000_000_000);
const SECOND_NANOS: i64 = 1_000_000_000;

#[derive(Clone, Copy, Debug)]
enum Happening {
    Message,
    FlowIsDue(u32),
    Checkpoint(u32),
    FaultBegins(usize),
    FaultEnds(usize),
    BrokerIsBack,
    Travels(u32, Travel),
    Signal(u32, Signal),
    PowerOn,
    Heal,
}

/// Why the device is to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    Crash(Crash),
    Restart,
}

/// The device while it is on.
pub(super) struct Device {
    pub(super) outbox: SimulatedOutbox,
    run: VirtualRun,
    link: Link,
    /// By how much live time is ahead of what would be without steps, in nanoseconds.
    live_ahead: i64,
    /// The disk was well since the start.
    disk_is_well: bool,
    /// The ledger as it was found.
    found: Ledger,
}

pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) now: Duration,
    queue: BinaryHeap<Reverse<(Duration, u64)>>,
    happenings: BTreeMap<u64, Happening>,
    next: u64,
    traffic: Random,
    /// For what the device itself draws.
    own: Random,
    pub(super) history: History,
    pub(super) oracle: Oracle,
    pub(super) hits: BTreeMap<&'static str, u64>,
    pub(super) disk: SharedDisk,
    pub(super) device: Option<Device>,
    network: Network,
    /// The number of the process.
    life: u32,
    connections: u32,
    checkpoint: Option<Arc<Checkpoint>>,
    /// By how much the clock on the wall was set, in nanoseconds.
    set_by: i64,
    disk_faults: u32,
    pub(super) stop: Option<Stop>,
    pub(super) power_is_due: bool,
    pub(super) is_healed: bool,
}

impl World {
    pub(super) fn new(plan: Plan, tells_all: bool) -> World {
        let seed = plan.seed;
        let disk = Disk::new(Random::of(seed, 2), plan.generation_size);
        let mut world = World {
            now: Duration::ZERO,
            queue: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            next: 0,
            traffic: Random::of(seed, 3),
            own: Random::of(seed, 4),
            history: History::new(tells_all),
            oracle: Oracle::new(plan.link.window),
            hits: BTreeMap::new(),
            disk: SharedDisk(Arc::new(Mutex::new(disk))),
            device: None,
            network: Network::new(Random::of(seed, 5), plan.link.packet_ids),
            life: 0,
            connections: 0,
            checkpoint: None,
            set_by: 0,
            disk_faults: 0,
            stop: None,
            power_is_due: false,
            is_healed: false,
            plan,
        };
        world.at(Duration::ZERO, Happening::PowerOn);
        world.at(Duration::from_millis(1), Happening::Message);
        for index in 0..world.plan.faults.len() {
            let at = world.plan.faults[index].at;
            world.at(at, Happening::FaultBegins(index));
        }
        world.at(world.plan.length, Happening::Heal);
        world
    }

    fn at(&mut self, time: Duration, happening: Happening) {
        self.next += 1;
        self.queue.push(Reverse((time.max(self.now), self.next)));
        self.happenings.insert(self.next, happening);
    }

    fn say(&mut self, what: std::fmt::Arguments<'_>) {
        self.history.say(self.now, what);
    }

    fn hit(&mut self, what: &'static str) {
        *self.hits.entry(what).or_default() += 1;
    }

    pub(super) fn next_due(&self) -> Option<Duration> {
        self.queue.peek().map(|Reverse((time, _))| *time)
    }

    /// Lets everything happen up to a time, or until the device crashes.
    pub(super) fn run_until(&mut self, time: Duration) {
        while let Some(due) = self.next_due().filter(|due| *due <= time) {
            self.now = due;
            self.step();
            if matches!(self.stop, Some(Stop::Crash(_))) || self.oracle.verdict().is_some() {
                return;
            }
        }
        self.now = self.now.max(time);
        self.tell_time();
    }

    /// One happening, with what follows from it at once.
    pub(super) fn step(&mut self) {
        let Some(Reverse((time, number))) = self.queue.pop() else {
            return;
        };
        self.now = time;
        self.tell_time();
        let happening = self.happenings.remove(&number);
        match happening.expect("every number in the queue has one") {
            Happening::Message => self.message(),
            Happening::FlowIsDue(life) if life == self.life => self.run_flow(),
            Happening::Checkpoint(life) if life == self.life => self.keep_checkpoint(),
            Happening::FlowIsDue(_) | Happening::Checkpoint(_) => {}
            Happening::FaultBegins(index) => self.begin(self.plan.faults[index], index),
            Happening::FaultEnds(index) => self.end(self.plan.faults[index].kind),
            Happening::BrokerIsBack => self.network.end(Kind::BrokerAway),
            Happening::Travels(connection, travel) => {
                self.network.arrive(connection, travel, self.now);
            }
            Happening::Signal(life, signal) if life == self.life => self.signal(signal),
            Happening::Signal(..) => {}
            Happening::PowerOn => self.power_is_due = true,
            Happening::Heal => self.heal(),
        }
        self.follow_up();
    }

    /// What the device's parts see as the time.
    fn tell_time(&mut self) {
        let now = self.device_now();
        if let Some(device) = &mut self.device {
            device.outbox.set_now(now);
            device.run.stand_at(now.mono);
        }
    }

    pub(super) fn device_now(&self) -> Now {
        let ahead = self.device.as_ref().map_or(self.set_by, |it| it.live_ahead);
        let wall = START.saturating_add(self.now).as_nanos();
        Now {
            mono: self.now,
            wall: Timestamp::from_nanos(wall.saturating_add(ahead)),
        }
    }

    /// A message or a few come to the flow, and the next ones are put on the queue.
    fn message(&mut self) {
        let count = if self.traffic.one_in(8) { 4 } else { 1 };
        for _ in 0..count {
            self.send_one();
        }
        let pace = self.plan.pace.as_millis() as u64;
        let next = self.now + Duration::from_millis(self.traffic.between(1, 2 * pace));
        if next < self.plan.length {
            self.at(next, Happening::Message);
        }
    }

    fn send_one(&mut self) {
        let number = self.oracle.next_number();
        let length = match self.traffic.below(60) {
            0 => self.plan.link.max_packet + 100,
            _ => self.traffic.below(self.plan.payload_max),
        };
        let node = NodeId(UPLINKS.0 + self.traffic.below(UPLINKS.1) as u16);
        let topic = self.traffic.pick(&["a", "b"]);
        // Numbers can be merged; they are what they count.
        let is_number = if self.plan.is_of_numbers {
            !self.traffic.one_in(20)
        } else {
            self.traffic.one_in(2)
        };
        let text = text_of(number, if is_number { 0 } else { length });
        let now = self.device_now();
        let Some(device) = &mut self.device else {
            return;
        };
        device.run.handle(Event::Messages {
            to: Address { flow: 0, node },
            messages: vec![Message {
                topic: topic.into(),
                payload: if is_number {
                    Value::Number(number as f64)
                } else {
                    Value::from(text.as_str())
                },
                time: now.wall,
                source: NodeId(0),
                headers: None,
            }],
        });
        self.absorb();
    }

    /// Takes what the flow has done to the outbox.
    fn absorb(&mut self) {
        let Some(device) = &mut self.device else {
            return;
        };
        for (_, effect) in device.run.take_done() {
            let Effect::Uplink { draft, .. } = effect else {
                continue;
            };
            let payload: Payload = serde_json::from_slice(&draft.payload).unwrap_or_default();
            let text = payload.text();
            let told = Told::of(&draft);
            let topic = told.topic.clone();
            let is_large = text.len() >= self.plan.link.max_packet;
            let id = device.outbox.append(draft);
            self.oracle.appended(id, told, &text, is_large, self.now);
            let (epoch, seq, bytes) = (id.epoch, id.seq, text.len());
            self.history.say(
                self.now,
                format_args!("{epoch}/{seq} is taken in, for {topic}, {bytes} bytes"),
            );
        }
    }

    fn run_flow(&mut self) {
        let Some(device) = &mut self.device else {
            return;
        };
        device.run.go_to(self.now);
        self.absorb();
        self.wait_for_flow();
    }

    fn wait_for_flow(&mut self) {
        let due = self.device.as_ref().and_then(|it| it.run.next_due());
        if let Some(due) = due.filter(|_| !self.is_healed) {
            self.at(due, Happening::FlowIsDue(self.life));
        }
    }

    fn keep_checkpoint(&mut self) {
        if let Some(device) = &mut self.device {
            self.checkpoint = device.run.checkpoints().pop().flatten();
        }
        if !self.is_healed {
            self.at(
                self.now + CHECKPOINT_EVERY,
                Happening::Checkpoint(self.life),
            );
        }
    }

    fn signal(&mut self, signal: Signal) {
        let Some(device) = &mut self.device else {
            return;
        };
        let mut deeds = Vec::new();
        let Device { link, outbox, .. } = device;
        link.handle(signal, self.now, outbox, &mut deeds);
        let connection = link.connection();
        let settlements = outbox.take_settlements();
        for settlement in settlements {
            match settlement {
                Settlement::Acknowledged(id) => {
                    self.say(format_args!("{}/{} is acknowledged", id.epoch, id.seq));
                    self.oracle.settled(id, connection, self.now);
                }
                Settlement::DeadLettered(id, reason) => {
                    self.say(format_args!(
                        "{}/{} is given up: {reason}",
                        id.epoch, id.seq
                    ));
                    self.hit("dead letter");
                    self.oracle.dead_lettered(id);
                }
            }
        }
        for deed in deeds {
            self.perform(deed);
        }
    }

    fn perform(&mut self, deed: Deed) {
        match deed {
            Deed::Connect(connection) => {
                self.connections = connection + 1;
                self.say(format_args!("connection {connection} is tried"));
                self.network.connect(connection, self.now);
            }
            Deed::Publish(connection, packet_id, packet) => {
                let number = self.oracle.sent(connection, &packet.topic, &packet.payload);
                if let Some(number) = number {
                    self.say(format_args!(
                        "message {number} is sent on connection {connection} as packet {packet_id}"
                    ));
                    let publish = Travel::Publish { packet_id, number };
                    self.network.send(connection, publish, self.now);
                }
            }
            Deed::Ping(connection) => self.network.send(connection, Travel::Ping, self.now),
            Deed::GiveUp {
                connection,
                why,
                outstanding,
            } => {
                self.say(format_args!(
                    "connection {connection} is given up with {outstanding} records on their way: {why}"
                ));
                self.oracle.disconnected(outstanding);
                self.network.client_closes(connection, self.now);
            }
            Deed::After(span, signal) => {
                self.at(self.now + span, Happening::Signal(self.life, signal));
            }
        }
    }

    /// What happened at the network and the disk, and whether what must hold holds.
    pub(super) fn follow_up(&mut self) {
        self.signal(Signal::Look);
        while !self.network.outcomes.is_empty() {
            for outcome in std::mem::take(&mut self.network.outcomes) {
                self.take_outcome(outcome);
            }
        }
        let witness = std::mem::take(&mut self.disk.lock().witness);
        for witness in witness {
            match witness {
                DiskWitness::Did(what) => self.say(format_args!("disk: {what}")),
                DiskWitness::Hit(what) => self.hit(what),
                DiskWitness::Damage(harm) => self.oracle.damage(harm),
                DiskWitness::Durable {
                    ids,
                    acknowledged,
                    overflow,
                } => {
                    self.oracle.durable(&ids, acknowledged, overflow);
                }
            }
        }
        self.check_bounds();
    }

    fn take_outcome(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::At(time, connection, travel) => {
                self.at(time, Happening::Travels(connection, travel));
            }
            Outcome::Delivered(connection, number) => {
                self.say(format_args!(
                    "the broker has message {number}, on connection {connection}"
                ));
                self.oracle.delivered(connection, number);
            }
            Outcome::Acknowledges(connection, number) => {
                self.oracle.acknowledges(connection, number);
            }
            Outcome::Signal(signal) => self.signal(signal),
            Outcome::BrokerDied(away) => {
                self.say(format_args!("the broker dies, for {away:?}"));
                self.network.begin(Kind::BrokerAway);
                self.at(self.now + away, Happening::BrokerIsBack);
            }
            Outcome::Hit(what) => self.hit(what),
        }
    }

    fn check_bounds(&mut self) {
        let Some(device) = &self.device else {
            return;
        };
        let ledger = device.outbox.ledger();
        if !ledger.balances() {
            self.oracle
                .fail(format!("the ledger does not add up: {ledger:?}"));
        }
        let (pending, loaded, letters) = device.outbox.memory();
        let (queued, window) = (device.link.queued(), usize::from(self.plan.link.window));
        let sizes = &self.plan.sizes;
        for (what, found, limit) in [
            ("bytes of pending records", pending, sizes.max_pending),
            ("bytes read ahead", loaded, LOADED_MAX),
            ("dead letters in memory", letters, 256),
            ("packets at the client", queued, window),
            ("records on their way", device.link.outstanding(), window),
        ] {
            if found > limit {
                self.oracle
                    .fail(format!("{found} {what}, and the limit is {limit}"));
            }
        }
        // A commit is let through if there is room by a careful estimate; the books alone always are.
        let slack = 64 * 1024;
        let bytes = self.disk.lock().bytes();
        if bytes > sizes.max_size + slack && self.disk_faults == 0 {
            let limit = sizes.max_size;
            self.oracle
                .fail(format!("{bytes} bytes on disk, and the limit is {limit}"));
        }
    }

    fn begin(&mut self, fault: Fault, index: usize) {
        let Fault { kind, lasts, .. } = fault;
        if self.is_healed {
            return;
        }
        self.say(format_args!("FAULT {kind:?}, {lasts:?}"));
        self.at(self.now + lasts, Happening::FaultEnds(index));
        if kind.is_of_disk() {
            self.disk_faults += 1;
            if let Some(device) = &mut self.device {
                device.disk_is_well = false;
            }
        }
        let random = &mut self.own;
        let mut disk = self.disk.lock();
        let faults = &mut disk.faults;
        match kind {
            Kind::Kill => self.stop = Some(Stop::Crash(Crash::Kill)),
            Kind::PowerCut => self.stop = Some(Stop::Crash(Crash::PowerCut)),
            Kind::Restart => self.stop = self.stop.or(Some(Stop::Restart)),
            Kind::KillInWrite => {
                faults.stops_in = Some((random.between(1, 6) as u32, Crash::Kill));
            }
            Kind::PowerCutInWrite => {
                faults.stops_in = Some((random.between(1, 6) as u32, Crash::PowerCut));
            }
            Kind::DiskFull => faults.is_full = true,
            Kind::WriteError => faults.write_fails = true,
            Kind::FailedSync => faults.sync_fails = true,
            Kind::SlowSync => {
                faults.sync_takes = Duration::from_millis(random.between(50, 4_000));
            }
            Kind::ReadError => faults.failing_reads = random.between(1, 2) as u32,
            Kind::BadMedium => faults.failing_reads = 30,
            Kind::FlippedByte => disk.flip(),
            Kind::Dropped => self.network.drop_connection(self.now),
            Kind::HalfOpen => self.network.half_open(),
            Kind::LatePackets => self.network.make_late(self.now),
            Kind::BrokerDies => self.network.let_broker_die(),
            Kind::BrokerAway => {
                self.network.begin(kind);
                self.network.broker_goes_away(self.now);
            }
            Kind::Unreachable => {
                self.network.begin(kind);
                self.network.half_open();
            }
            Kind::SlowNetwork
            | Kind::SlowBroker
            | Kind::SilentBroker
            | Kind::RepeatedAcks
            | Kind::WrongAcks
            | Kind::ShuffledAcks => self.network.begin(kind),
            Kind::ClockForward | Kind::ClockBack | Kind::Burst => {
                drop(disk);
                self.begin_other(kind, lasts);
            }
        }
    }

    fn begin_other(&mut self, kind: Kind, lasts: Duration) {
        let step = lasts.as_secs() as i64 * 1_000 * SECOND_NANOS;
        match kind {
            Kind::ClockForward => {
                self.set_by += step;
                let set_by = self.set_by;
                if let Some(device) = &mut self.device
                    && device.live_ahead < set_by
                {
                    let by = (set_by - device.live_ahead) as u64;
                    device.run.set_clock_ahead(Duration::from_nanos(by));
                    device.live_ahead = set_by;
                }
                self.hit("clock forward");
            }
            Kind::ClockBack => {
                self.set_by -= step;
                self.hit("clock back");
            }
            _ => {
                let most = if self.plan.is_of_numbers { 600 } else { 150 };
                let count = self.traffic.between(20, most);
                for _ in 0..count {
                    self.send_one();
                }
                self.hit("burst");
            }
        }
    }

    fn end(&mut self, kind: Kind) {
        if self.is_healed {
            return;
        }
        self.say(format_args!("{kind:?} is over"));
        let mut disk = self.disk.lock();
        let faults = &mut disk.faults;
        match kind {
            Kind::DiskFull => faults.is_full = false,
            Kind::WriteError => faults.write_fails = false,
            Kind::FailedSync => faults.sync_fails = false,
            Kind::SlowSync => faults.sync_takes = Duration::ZERO,
            Kind::ReadError | Kind::BadMedium => faults.failing_reads = 0,
            _ => {}
        }
        drop(disk);
        self.network.end(kind);
    }

    fn heal(&mut self) {
        self.say(format_args!("all is healed"));
        self.is_healed = true;
        self.disk.lock().faults = Default::default();
        self.network.heal();
    }

    /// The device comes up with this outbox.
    pub(super) fn turned_on(&mut self, outbox: SimulatedOutbox, epoch: u64) {
        self.life += 1;
        self.oracle.opened(epoch);
        let now = self.device_now();
        let board = Simulated::new(&Board::default()).expect("its defaults are right");
        let flows = vec![GRAPH.clone()];
        let checkpoints = [self.checkpoint.clone()];
        let run = VirtualRun::resume("d", flows, &checkpoints, &[], board, now);
        let random = Random::of(self.own.next(), 6);
        self.device = Some(Device {
            found: outbox.ledger(),
            outbox,
            run: run.expect("the flow needs nothing of the board"),
            link: Link::new(self.plan.link, self.connections, random),
            live_ahead: self.set_by,
            disk_is_well: self.disk_faults == 0,
        });
        self.say(format_args!("the device starts, epoch {epoch}"));
        self.tell_time();
        self.wait_for_flow();
        self.at(
            self.now + CHECKPOINT_EVERY,
            Happening::Checkpoint(self.life),
        );
        self.signal(Signal::Retry);
    }

    /// The device could not start: it tries again.
    pub(super) fn not_turned_on(&mut self, why: &str) {
        self.say(format_args!("the outbox does not open: {why}"));
        self.hit("outbox does not open");
        self.at(self.now + Duration::from_secs(10), Happening::PowerOn);
    }

    /// The device is gone; it comes up again by itself.
    pub(super) fn turned_off(&mut self, crash: Crash) {
        if let Some(device) = self.device.take() {
            let ledger = device.outbox.ledger();
            let overflow = ledger.dropped_overflow_memory + ledger.dropped_overflow_disk;
            let dropped = overflow + ledger.dropped_expired;
            // With that policy what finds no room waits in memory.
            let may_wait = self.plan.sizes.when_full == WhenFull::Block;
            let within = (device.disk_is_well && overflow == 0 && !may_wait)
                .then(|| self.plan.sizes.commit + Duration::from_millis(1));
            let outstanding = device.link.outstanding();
            self.oracle.crashed(outstanding, dropped, self.now, within);
            let is_power_cut = crash == Crash::PowerCut;
            let connection = device.link.connection();
            self.network.client_dies(connection, self.now, is_power_cut);
            self.count(&device);
        }
        let mut disk = self.disk.lock();
        disk.acknowledged = self.oracle.settled_for_good();
        match crash {
            Crash::Kill => disk.killed(),
            Crash::PowerCut => disk.power_cut(),
        }
        drop(disk);
        self.stop = None;
        self.say(format_args!("the device is off: {crash:?}"));
        let off = Duration::from_millis(self.own.between(50, 4_000));
        self.at(self.now + off, Happening::PowerOn);
        self.follow_up();
    }

    fn count(&mut self, device: &Device) {
        let counts = device.link.counts();
        *self.hits.entry("unexpected PUBACK").or_default() += counts.unexpected_acks;
        let (now, found) = (device.outbox.ledger(), device.found);
        let mut count = |what, now: u64, before: u64| {
            *self.hits.entry(what).or_default() += now - before;
        };
        let (full, before) = (now.dropped_overflow_disk, found.dropped_overflow_disk);
        count("dropped: disk", full, before);
        let (full, before) = (now.dropped_overflow_memory, found.dropped_overflow_memory);
        count("dropped: memory", full, before);
        let (thinned, before) = (now.dropped_thinned, found.dropped_thinned);
        count("dropped: thinned", thinned, before);
        let (expired, before) = (now.dropped_expired, found.dropped_expired);
        count("dropped: expired", expired, before);
        let (damaged, before) = (now.dropped_damaged, found.dropped_damaged);
        count("dropped: damaged", damaged, before);
    }

    /// Whether nothing is left to be done.
    pub(super) fn is_idle(&self) -> bool {
        let device = self.device.as_ref();
        self.is_healed && device.is_some_and(|it| it.outbox.ledger().waiting() == 0)
    }

    /// The last word.
    pub(super) fn judge(&mut self) {
        if let Some(device) = self.device.take() {
            self.count(&device);
            self.oracle.end(&device.outbox.ledger());
        }
    }
}
