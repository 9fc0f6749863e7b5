//! Runs flows on a simulated board without waiting: the time of each event is the time it is due.
//!
//! The same flows on the same board with the same seed do the same, to the last bit; an hour takes milliseconds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
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
use crate::sensors::Sensor;

/// Messages that links may carry in one moment. Only a loop of links carries that many, and it would stop time.
const MOST_LINKED: usize = 100_000;

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
    edges: Arc<Mutex<Vec<(Address, Edge)>>>,
    links: LinkQueue,
    linked: Receiver<Linked>,
    now: Now,
    trace: Trace,
}

impl VirtualRun {
    /// Starts flows at `start` on a simulated board.
    pub fn start(
        device: &str,
        flows: Vec<Arc<Graph>>,
        mut board: Simulated,
        start: Timestamp,
    ) -> Result<VirtualRun, BoardError> {
        let now = Now {
            mono: Duration::ZERO,
            wall: start,
        };
        board.advance(now);
        let edges = Arc::<Mutex<Vec<(Address, Edge)>>>::default();
        let mut sensors = HashMap::new();
        let mut levels = HashMap::new();
        for (index, flow) in flows.iter().enumerate() {
            let index = u32::try_from(index).expect("fewer than 2^32 flows fit into memory");
            for (node, needed) in flow.uses() {
                let address = Address { flow: index, node };
                match needed {
                    Use::Output { .. } => {}
                    Use::Input { pin, pull } => {
                        let edges = edges.clone();
                        let sink = move |edge| {
                            edges
                                .lock()
                                .unwrap_or_else(PoisonError::into_inner)
                                .push((address, edge))
                        };
                        let level = board.input(*pin, *pull, Arc::new(sink))?;
                        levels.insert(address, (start, level));
                    }
                    Use::Sensor(spec) => {
                        sensors.insert(address, board.sensor(spec)?);
                    }
                }
            }
        }
        let engine = Engine::new(device);
        let (links, linked) = LinkQueue::new("engine", &flows);
        let mut run = VirtualRun {
            engine,
            board,
            sensors,
            levels,
            edges,
            links,
            linked,
            now,
            trace: Trace::default(),
        };
        let mut effects = Effects::new();
        for flow in flows {
            run.engine.add(flow, now, &mut effects);
            run.perform(&mut effects);
        }
        // Not before: a link may lead to the last flow.
        run.deliver_linked();
        Ok(run)
    }

    /// Lets time pass.
    pub fn run_for(&mut self, span: Duration) {
        let end = self.now.mono + span;
        let mut effects = Effects::new();
        loop {
            let next = [self.engine.next_wake(), self.board.next_edge()]
                .into_iter()
                .flatten()
                .min();
            let Some(next) = next.filter(|next| *next <= end) else {
                break;
            };
            self.now = self.now.later(next.saturating_sub(self.now.mono));
            self.board.advance(self.now);
            let edges =
                std::mem::take(&mut *self.edges.lock().unwrap_or_else(PoisonError::into_inner));
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
            self.engine.wake(self.now, usize::MAX, &mut effects);
            self.perform(&mut effects);
            self.deliver_linked();
        }
        self.now = self.now.later(end.saturating_sub(self.now.mono));
        self.board.advance(self.now);
    }

    /// What has happened so far.
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// Stops the flows, which puts their outputs to their safe level, and gives what has happened.
    pub fn stop(mut self) -> Trace {
        let mut effects = Effects::new();
        self.engine.stop(&mut effects);
        self.perform(&mut effects);
        self.trace
    }

    fn perform(&mut self, effects: &mut Effects) {
        while !effects.is_empty() {
            let mut answers = Vec::new();
            let time = self.now.wall;
            for effect in effects.drain(..) {
                match effect {
                    Effect::Output { pin, drive } => {
                        self.board
                            .output(pin, drive)
                            .expect("a simulated output takes everything");
                        self.trace.outputs.push((time, pin, drive));
                    }
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
                        let (time, level) = self.levels[&from];
                        answers.push(Event::Input {
                            to: from,
                            input: Input::Edge { time, level },
                        });
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
                    Effect::Uplink { draft, .. } => self.trace.drafts.push((time, draft)),
                    Effect::Debug { label, message, .. } => {
                        self.trace.shown.push((time, label.to_string(), message))
                    }
                    Effect::Failed { from, reason } => {
                        let place = self.place(from);
                        self.trace
                            .failures
                            .push((time, format!("{place}: {reason}")));
                    }
                    Effect::Forgot { from, reason } => {
                        let place = self.place(from);
                        let failure = format!("{place}: begins anew: {reason}");
                        self.trace.failures.push((time, failure));
                    }
                    Effect::FlowStopped { panic, .. } => self.trace.panics.push((time, panic)),
                    Effect::FlowRestarted { .. } | Effect::Tapped { .. } => {}
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
        let dropped = self.linked.try_iter().count();
        if dropped > 0 {
            let reason = format!(
                "links: {MOST_LINKED} messages in one moment, {dropped} more were dropped; do links lead back to where \
                 they began?"
            );
            self.trace.failures.push((self.now.wall, reason));
        }
    }

    fn place(&self, address: Address) -> String {
        let flow = self.engine.graph(address.flow);
        format!("{}/{}", flow.name(), flow.node_name(address.node))
    }
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
        let shown = &run.trace().shown;
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
        let labels = run.trace().shown.iter().map(|(_, label, _)| &**label);
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
            reason.starts_with("links: 100000 messages in one moment, 1 more were dropped"),
            "{reason}"
        );
    }
}
