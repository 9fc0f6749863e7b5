//! Runs flows on a simulated board without waiting: the time of each event is the time it is due.
//!
//! The same flows on the same board with the same seed do the same, to the last bit; an hour takes milliseconds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_channel::Receiver;

use crate::board::{Board, BoardError, Drive, Edge, Level, Pin, Simulated};
use crate::flow::Graph;
use crate::message::{Message, Timestamp};
use crate::nodes::Use;
use crate::outbox::Draft;
use crate::runtime::clock::Now;
use crate::runtime::engine::{Engine, Event};
use crate::runtime::links::{self, LinkQueue, Linked};
use crate::runtime::node::{Address, Effect, Effects, Input};
use crate::runtime::pulses::PulseCounter;
use crate::runtime::state::Checkpoint;
use crate::sensors::Sensor;

/// Messages that links may carry in one moment. Only a loop of links carries that many, and it would stop time.
const MOST_LINKED: usize = 100_000;
/// Wake-ups that are done before links are looked at.
const MOST_WAKES: usize = 1_024;

/// What flows did, each with the time at which they did it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trace {
    /// What went to the outbox.
    pub drafts: Vec<(Timestamp, Draft)>,
    /// What `debug` nodes showed, with their labels.
    pub shown: Vec<(Timestamp, String, Message)>,
    /// What outputs were driven with.
    pub outputs: Vec<(Timestamp, Pin, Drive)>,
    /// What nodes could not handle, as `flow/node: reason`.
    pub failures: Vec<(Timestamp, String)>,
    /// Panics that stopped a flow.
    pub panics: Vec<(Timestamp, String)>,
}

/// Flows under virtual time.
pub struct VirtualRun {
    engine: Engine,
    board: Simulated,
    sensors: HashMap<Address, Box<dyn Sensor>>,
    /// The level of each input and the time of its edge.
    levels: HashMap<Address, (Timestamp, Level)>,
    counters: HashMap<Address, Arc<Mutex<PulseCounter>>>,
    edges: Arc<Mutex<Vec<(Address, Edge)>>>,
    links: LinkQueue,
    linked: Receiver<Linked>,
    now: Now,
    done: Vec<(Timestamp, Effect)>,
}

impl VirtualRun {
    /// Starts flows at `start` on a simulated board.
    pub fn start(
        device: &str,
        flows: Vec<Arc<Graph>>,
        board: Simulated,
        start: Timestamp,
    ) -> Result<VirtualRun, BoardError> {
        let now = Now {
            mono: Duration::ZERO,
            wall: start,
        };
        VirtualRun::resume(device, flows, &[], &[], board, now)
    }

    /// The same, with flows that go on from checkpoints, each in the place of its flow, and nodes that are watched: see
    /// [`Engine::tap`].
    pub fn resume(
        device: &str,
        flows: Vec<Arc<Graph>>,
        checkpoints: &[Option<Arc<Checkpoint>>],
        taps: &[Address],
        mut board: Simulated,
        now: Now,
    ) -> Result<VirtualRun, BoardError> {
        board.advance(now);
        let edges = Arc::<Mutex<Vec<(Address, Edge)>>>::default();
        let mut sensors = HashMap::new();
        let mut levels = HashMap::new();
        let mut counters = HashMap::new();
        for (index, flow) in (0..).zip(&flows) {
            for (node, needed) in flow.uses() {
                let address = Address { flow: index, node };
                match needed {
                    // Brokers are none of the board; whoever runs this feeds what they would bring.
                    Use::Output { .. } | Use::Subscription(_) => {}
                    Use::Input { pin, pull } => {
                        let edges = edges.clone();
                        let sink = move |edge| {
                            lock(&edges).push((address, edge));
                        };
                        let level = board.input(*pin, *pull, Arc::new(sink))?;
                        levels.insert(address, (now.wall, level));
                    }
                    Use::Pulses {
                        pin,
                        pull,
                        counting,
                    } => {
                        let counter = Arc::new(Mutex::new(PulseCounter::new(*counting)));
                        counters.insert(address, counter.clone());
                        let sink = move |edge| lock(&counter).edge(&edge);
                        board.input(*pin, *pull, Arc::new(sink))?;
                    }
                    Use::Sensor(spec) => {
                        sensors.insert(address, board.sensor(spec)?);
                    }
                }
            }
        }
        let (links, linked) = LinkQueue::new("engine", &flows);
        let mut run = VirtualRun {
            engine: Engine::new(device),
            board,
            sensors,
            levels,
            counters,
            edges,
            links,
            linked,
            now,
            done: Vec::new(),
        };
        run.start_flows(flows, checkpoints, taps);
        Ok(run)
    }

    fn start_flows(
        &mut self,
        flows: Vec<Arc<Graph>>,
        checkpoints: &[Option<Arc<Checkpoint>>],
        taps: &[Address],
    ) {
        let mut effects = Effects::new();
        for (place, flow) in flows.into_iter().enumerate() {
            for tap in taps.iter().filter(|tap| tap.flow as usize == place) {
                self.engine.tap(*tap, true);
            }
            let _index = match checkpoints.get(place).cloned().flatten() {
                Some(checkpoint) => {
                    self.engine
                        .add_restored(flow, checkpoint, self.now, &mut effects)
                }
                None => self.engine.add(flow, self.now, &mut effects),
            };
            self.perform(&mut effects);
        }
        // Not before: a link may lead to the last flow.
        self.deliver_linked();
    }

    /// Lets time pass.
    pub fn run_for(&mut self, span: Duration) {
        let end = self.now.mono + span;
        while let Some(next) = self.next_due().filter(|next| *next <= end) {
            self.go_to(next);
        }
        self.stand_at(end);
    }

    /// The time at which the flows are.
    pub fn now(&self) -> Now {
        self.now
    }

    /// When something is due, in monotonic time: a wake-up or an edge.
    pub fn next_due(&self) -> Option<Duration> {
        [self.engine.next_wake(), self.board.next_edge()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Goes on to a monotonic time, before which nothing is due, and does what is due there: edges, and wake-ups, of which very many
    /// are not all done at once and stay due. Gives how many it did.
    pub fn go_to(&mut self, mono: Duration) -> usize {
        self.stand_at(mono);
        let edges = self.deliver_edges();
        let mut effects = Effects::new();
        let wakes = self.engine.wake(self.now, MOST_WAKES, &mut effects);
        self.perform(&mut effects);
        self.deliver_linked();
        edges + wakes
    }

    /// Hands an event to a flow, now.
    pub fn handle(&mut self, event: Event) {
        let mut effects = Effects::new();
        self.engine.handle(self.now, event, &mut effects);
        self.perform(&mut effects);
        self.deliver_linked();
    }

    /// Gives an input pin a level, now; if it had the other one, that is an edge.
    pub fn set_input(&mut self, pin: Pin, level: Level) {
        self.board.set_input(pin, level);
        self.deliver_edges();
    }

    /// Live time goes ahead, as it does when the clock of the device is set.
    pub fn set_clock_ahead(&mut self, by: Duration) {
        self.now.wall = self.now.wall.saturating_add(by);
    }

    /// What each flow remembers now.
    pub fn checkpoints(&mut self) -> Vec<Option<Arc<Checkpoint>>> {
        let flows: Vec<u32> = self.engine.graphs().map(|(flow, _)| flow).collect();
        let now = self.now;
        let checkpoints = flows
            .into_iter()
            .map(|flow| self.engine.checkpoint(flow, now));
        checkpoints.collect()
    }

    /// Takes what has been done since this was called last, with the live time at which it was.
    pub fn take_done(&mut self) -> Vec<(Timestamp, Effect)> {
        std::mem::take(&mut self.done)
    }

    /// What has happened so far, and was not taken.
    pub fn trace(&self) -> Trace {
        let mut trace = Trace::default();
        for (time, effect) in &self.done {
            self.add_to(&mut trace, *time, effect.clone());
        }
        trace
    }

    /// Stops the flows, which puts their outputs to their safe level, and gives what has happened.
    pub fn stop(mut self) -> Trace {
        let mut trace = Trace::default();
        for (time, effect) in self.take_done() {
            self.add_to(&mut trace, time, effect);
        }
        let mut effects = Effects::new();
        self.engine.stop(&mut effects);
        for effect in effects {
            if let Effect::Output { pin, drive } = effect {
                trace.outputs.push((self.now.wall, pin, drive));
            }
        }
        trace
    }

    fn add_to(&self, trace: &mut Trace, time: Timestamp, effect: Effect) {
        match effect {
            Effect::Output { pin, drive } => trace.outputs.push((time, pin, drive)),
            Effect::Uplink { draft, .. } => trace.drafts.push((time, draft)),
            Effect::Debug { label, message, .. } => {
                trace.shown.push((time, label.to_string(), message));
            }
            Effect::Failed { from, reason } => {
                let place = self.place(from);
                trace.failures.push((time, format!("{place}: {reason}")));
            }
            Effect::Forgot { from, reason } => {
                let place = self.place(from);
                let failure = format!("{place}: begins anew: {reason}");
                trace.failures.push((time, failure));
            }
            Effect::FlowStopped { panic, .. } => trace.panics.push((time, panic)),
            Effect::ReadSensor { .. }
            | Effect::ReadLevel { .. }
            | Effect::Link { .. }
            | Effect::FlowRestarted { .. }
            | Effect::Tapped { .. } => {}
        }
    }

    /// Goes on to a monotonic time, before which nothing is due, and does nothing.
    pub fn stand_at(&mut self, mono: Duration) {
        self.now = self.now.later(mono.saturating_sub(self.now.mono));
        self.board.advance(self.now);
    }

    fn deliver_edges(&mut self) -> usize {
        let mut effects = Effects::new();
        let edges = std::mem::take(&mut *lock(&self.edges));
        let count = edges.len();
        for (to, edge) in edges {
            self.levels.insert(to, (edge.time, edge.level));
            let input = Input::Edge {
                time: edge.time,
                level: edge.level,
            };
            self.engine
                .handle(self.now, Event::Input { to, input }, &mut effects);
            self.perform(&mut effects);
            self.deliver_linked();
        }
        count
    }

    fn perform(&mut self, effects: &mut Effects) {
        while !effects.is_empty() {
            let mut answers = Vec::new();
            let time = self.now.wall;
            for effect in effects.drain(..) {
                match effect {
                    Effect::ReadSensor { from } => {
                        let sensor = self
                            .sensors
                            .get_mut(&from)
                            .expect("every sensor was opened at the start");
                        let value = sensor.read(self.now).map_err(|error| error.to_string());
                        answers.push(Event::Input {
                            to: from,
                            input: Input::Reading { time, value },
                        });
                    }
                    Effect::ReadLevel { from } => {
                        let input = match self.counters.get(&from) {
                            Some(counter) => Input::Pulses {
                                time,
                                pulses: lock(counter).read(),
                            },
                            None => {
                                let (time, level) = self.levels[&from];
                                Input::Edge { time, level }
                            }
                        };
                        answers.push(Event::Input { to: from, input });
                    }
                    Effect::Link {
                        from,
                        link,
                        message,
                    } => {
                        if let Err(error) = self.links.send(&link, &message) {
                            let value = Err(error.to_string());
                            answers.push(Event::Input {
                                to: from,
                                input: Input::Reading { time, value },
                            });
                        } else if self.engine.is_failing(from) {
                            answers.push(links::taken(from, time));
                        }
                    }
                    done => {
                        if let Effect::Output { pin, drive } = &done {
                            self.board
                                .output(*pin, *drive)
                                .expect("a simulated output takes everything");
                        }
                        self.done.push((time, done));
                    }
                }
            }
            for answer in answers {
                self.engine.handle(self.now, answer, effects);
            }
        }
    }

    /// Delivers what is in the link queue, and what comes into it meanwhile.
    fn deliver_linked(&mut self) {
        let mut effects = Effects::new();
        for _ in 0..MOST_LINKED {
            let Ok(linked) = self.linked.try_recv() else {
                return;
            };
            self.engine.handle(self.now, linked.into(), &mut effects);
            self.perform(&mut effects);
        }
        let mut dropped = self.linked.try_iter().map(Event::from);
        if let Some(Event::Messages { to, .. }) = dropped.next() {
            let more = 1 + dropped.count();
            let reason = format!(
                "links: {MOST_LINKED} messages in one moment, {more} more were dropped; do links lead back to where \
                 they began?"
            );
            self.done
                .push((self.now.wall, Effect::Failed { from: to, reason }));
        }
    }

    fn place(&self, address: Address) -> String {
        let flow = self.engine.graph(address.flow);
        format!("{}/{}", flow.name(), flow.node_name(address.node))
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::NodeId;
    use crate::nodes::testing::graph;

    const START: Timestamp = Timestamp::from_millis(60_000);

    fn run(flows: &[&str]) -> VirtualRun {
        let flows = flows.iter().map(|flow| graph(flow)).collect();
        let board = Simulated::new(&Default::default()).expect("its defaults are right");
        VirtualRun::start("d", flows, board, START).expect("the board has what the flows need")
    }

    fn tick(payload: &str) -> String {
        format!(
            "[nodes.tick]\ntype = 'inject'\nevery = '1s'\npayload = {payload}\ntopic = 'ticks'\n"
        )
    }

    const SEND: &str = "[nodes.go]\ntype = 'link out'\nlink = 'x'\nfrom = 'tick'";
    const SHOW: &str =
        "[nodes.show]\ntype = 'debug'\nfrom = 'come'\n[nodes.come]\ntype = 'link in'\nlink = 'x'\n";

    #[test]
    fn a_link_joins_flows_at_the_same_moment() {
        let send = format!("{}{SEND}", tick("7"));
        // In the same flow, in one before and in one behind.
        let mut run = run(&[SHOW, &format!("{send}\n{SHOW}"), SHOW]);
        run.run_for(Duration::from_millis(2_500));
        let trace = run.stop();
        assert_eq!(trace.failures, []);
        assert_eq!(trace.shown.len(), 6);
        for (place, (time, _, message)) in trace.shown.iter().enumerate() {
            let expected = if place < 3 { 61_000 } else { 62_000 };
            assert_eq!(*time, Timestamp::from_millis(expected));
            assert_eq!(message.time, *time);
            assert_eq!((&*message.topic, &message.payload), ("ticks", &7.0.into()));
        }
        let sources = trace.shown[..3]
            .iter()
            .map(|(_, _, message)| message.source);
        assert_eq!(sources.collect::<Vec<_>>(), [1, 3, 1].map(NodeId));
    }

    #[test]
    fn what_a_flow_sends_at_its_start_comes_to_flows_that_start_after_it() {
        let door = "[nodes.tick]\ntype = 'gpio in'\npin = 22\n";
        let run = run(&[&format!("{door}{SEND}"), SHOW]);
        let shown = run.trace().shown;
        assert_eq!((shown.len(), shown[0].0), (1, START));
    }

    #[test]
    fn links_go_on_after_what_they_set_off_in_one_flow_has_come_to_rest() {
        let flow = format!(
            "{}{SEND}\n{SHOW}[nodes.last]\ntype = 'debug'\nfrom = 'tick'",
            tick("1")
        );
        let mut run = run(&[&flow]);
        run.run_for(Duration::from_secs(1));
        let trace = run.trace();
        let labels = trace.shown.iter().map(|(_, label, _)| &**label);
        assert_eq!(labels.collect::<Vec<_>>(), ["last", "show"]);
    }

    #[test]
    fn a_full_link_queue_fails_what_sends_and_catch_hears_of_it() {
        let mut flow = tick("1");
        for number in 0..100 {
            flow += &format!(
                "[nodes.go{number}]\ntype = 'link out'\nlink = 'x'\nfrom = 'tick'\n\
                 [nodes.come{number}]\ntype = 'link in'\nlink = 'x'\n"
            );
        }
        let comes: Vec<String> = (0..100).map(|number| format!("'come{number}'")).collect();
        flow += &format!(
            "[nodes.show]\ntype = 'debug'\nfrom = [{}]\n\
             [nodes.refused]\ntype = 'catch'\n[nodes.caught]\ntype = 'debug'\nfrom = 'refused'",
            comes.join(", ")
        );
        let mut run = run(&[&flow]);
        run.run_for(Duration::from_secs(1));
        let trace = run.stop();
        let count = |wanted: &str| {
            let labels = trace.shown.iter().map(|(_, label, _)| label);
            labels.filter(|label| *label == wanted).count()
        };
        assert_eq!(count("show"), 8_192);
        // The 82nd finds room for 92 of 100, those after it for none.
        assert_eq!((trace.failures.len(), count("caught")), (19, 19));
        assert_eq!(
            trace.failures[0].1,
            "test/go81: the link queue of the engine is full"
        );
    }

    #[test]
    fn a_link_out_fails_and_works_again_as_its_link_does_and_not_with_each_message() {
        // In seconds 3, 4 and 6 there is no room for what `last` sends.
        let mut flow = String::from(
            "[nodes.flood]\ntype = 'inject'\nevery = '3s'\n[nodes.more]\ntype = 'inject'\nevery = '4s'\n[nodes.tick]\ntype = 'inject'\nevery = '1s'\n\
             [nodes.same]\ntype = 'where'\nwhen = 'true'\nfrom = 'tick'\n\
             [nodes.last]\ntype = 'link out'\nlink = 'x'\nfrom = ['tick', 'same']\n\
             [nodes.health]\ntype = 'status'\nnodes = ['last']\n\
             [nodes.told]\ntype = 'debug'\nfrom = 'health'\n",
        );
        for number in 0..100 {
            flow += &format!(
                "[nodes.go{number}]\ntype = 'link out'\nlink = 'x'\nfrom = ['flood', 'more']\n\
                 [nodes.come{number}]\ntype = 'link in'\nlink = 'x'\n"
            );
        }
        let comes: Vec<String> = (0..100).map(|number| format!("'come{number}'")).collect();
        flow += &format!(
            "[nodes.rest]\ntype = 'where'\nwhen = 'false'\nfrom = [{}]\n[nodes.none]\ntype = 'debug'\nfrom = 'rest'",
            comes.join(", ")
        );
        let mut run = run(&[&flow]);
        run.run_for(Duration::from_millis(7_500));
        let trace = run.stop();
        let told = trace.shown.iter().map(|(time, _, message)| {
            let state = message.payload.get("state").expect("a state").to_json();
            (time.as_nanos() / 1_000_000_000 - 60, state)
        });
        let expected = [
            (3, "\"failing\""),
            (5, "\"ok\""),
            (6, "\"failing\""),
            (7, "\"ok\""),
        ];
        let expected = expected.map(|(second, state)| (second, state.to_owned()));
        assert_eq!(told.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_loop_of_links_does_not_stop_time() {
        let round = "[nodes.round]\ntype = 'link out'\nlink = 'x'\nfrom = 'come'\n\
                     [nodes.come]\ntype = 'link in'\nlink = 'x'\n";
        let mut run = run(&[&format!("{}{SEND}\n{round}", tick("1"))]);
        run.run_for(Duration::from_secs(2));
        let trace = run.stop();
        assert_eq!(trace.failures.len(), 2, "{:?}", trace.failures);
        let (time, reason) = &trace.failures[0];
        assert_eq!(*time, Timestamp::from_millis(61_000));
        assert!(
            reason.starts_with(
                "test/come: links: 100000 messages in one moment, 1 more were dropped"
            ),
            "{reason}"
        );
    }
}
