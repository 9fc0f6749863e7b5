//! One test, from its start to its end.
//!
//! [`explain`]: why it has failed; [`files`]: rows that are fed; [`sinks`]: what is recorded.

mod explain;
mod files;
mod sinks;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use self::files::FedFile;
pub(super) use self::sinks::Recorded;
use self::sinks::Sinks;
use super::compare::Difference;
use super::feeding::{FileRows, Formulas};
use super::test::{Action, Expected, Fed, Feed, Messages, Test, When};
use super::watch::{Item, Track, Watch, words};
use super::world::{Seen, World};
use crate::board::Pin;
use crate::flow::diagnostic::Source;
use crate::message::Value;
use crate::runtime::Address;
use crate::runtime::driver::chain;

/// What may happen in one test: wake-ups, feeds, edges, looks at what must be so. At one a second that is most of a year.
const MOST_EVENTS: u64 = if cfg!(test) { 200_000 } else { 20_000_000 };
/// Expectations of one test that are told, and failures of nodes.
const MOST_TOLD: usize = 20;

/// What became of a test.
#[derive(Debug)]
pub struct Outcome {
    pub flow: String,
    pub test: String,
    /// What was not as expected; nothing if the test has passed.
    pub unmet: Vec<Unmet>,
    /// What nodes could not handle, the first ones, with its test time.
    pub failures: Vec<(Duration, String)>,
    /// How many there were.
    pub failure_count: u64,
    /// How much time passed for the flow.
    pub flow_time: Duration,
    /// How long that took.
    pub took: Duration,
    /// Where the test stands.
    pub(super) source: Arc<Source>,
    pub(super) span: Range<usize>,
}

impl Outcome {
    pub fn has_passed(&self) -> bool {
        self.unmet.is_empty()
    }

    /// The name of the test, with that of its flow.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.flow, self.test)
    }

    /// The file of the test.
    pub fn file(&self) -> &str {
        &self.source.path
    }

    /// The line in which the test begins.
    pub fn line(&self) -> usize {
        self.source.line_and_column(self.span.start).0
    }
}

/// Something that was not as expected.
#[derive(Debug)]
pub struct Unmet {
    /// Where in the test file that stands.
    pub span: Range<usize>,
    pub headline: String,
    pub differences: Vec<Difference>,
    /// What was looked at, and did what: `report` sent.
    pub subject: Option<String>,
    /// What came until then, and after it.
    pub before: Vec<Item>,
    pub after: Vec<Item>,
    pub hints: Vec<String>,
}

/// Runs a test. `took` of the outcome is left to the caller.
pub(super) fn run(test: &Test) -> Outcome {
    let mut run = Run::new(test, false);
    run.finish();
    let mut outcome = Outcome {
        flow: test.flow.clone(),
        test: test.name.clone(),
        unmet: Vec::new(),
        failures: std::mem::take(&mut run.failures),
        failure_count: run.failure_count,
        flow_time: run.world.now(),
        took: Duration::ZERO,
        source: test.source.clone(),
        span: test.span.clone(),
    };
    outcome.unmet = run.unmet();
    outcome
}

/// Runs a test for what comes to the sinks of its own flow, of which so many items are kept each.
pub(super) fn record(test: &Test, most: usize) -> Recorded {
    let mut run = Run::new(test, false);
    run.sinks = Some(Sinks::of(test, most));
    run.finish();
    Recorded {
        sinks: run.sinks.map(|sinks| sinks.sinks).unwrap_or_default(),
        failures: run.failure_count,
    }
}

/// How many messages each node of a test's flows sends.
fn count_messages(test: &Test) -> HashMap<Address, u64> {
    let mut run = Run::new(test, true);
    run.finish();
    run.counts
}

/// What is to be done at an instant, in that order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    Act {
        step: usize,
        number: u64,
    },
    /// The next row of a file.
    Row {
        file: usize,
    },
    /// To close an instant at which an expectation begins.
    Begin,
    Judge {
        watch: usize,
    },
}

struct Run<'t> {
    test: &'t Test,
    world: World,
    formulas: Option<Formulas>,
    turns: BinaryHeap<Reverse<(Duration, Turn)>>,
    watches: Vec<Watch<'t>>,
    tracks: HashMap<Messages, Track>,
    /// What each output is driven with, and how that changed.
    outputs: BTreeMap<Pin, Output>,
    /// Outputs that were driven in this instant.
    driven: HashSet<Pin>,
    failures: Vec<(Duration, String)>,
    failure_count: u64,
    events: u64,
    /// Messages of each node, if all are counted.
    counts: HashMap<Address, u64>,
    is_counting: bool,
    /// What comes to sinks, if that is recorded.
    sinks: Option<Sinks>,
    /// Files that are being fed.
    files: Vec<FedFile<'t>>,
    /// When the device was off.
    offs: Vec<(Duration, Duration)>,
    /// What ended the test before its end.
    broken: Option<Unmet>,
}

#[derive(Default)]
struct Output {
    /// At the end of the last instant.
    settled: Option<f64>,
    now: f64,
    track: Track,
}

impl<'t> Run<'t> {
    fn new(test: &'t Test, is_counting: bool) -> Run<'t> {
        let steps = || test.steps.iter();
        let watches: Vec<Watch<'_>> = steps()
            .flat_map(|step| step.expectations.iter().map(|it| Watch::new(it, step.when)))
            .collect();
        let mut turns = BinaryHeap::new();
        // What outputs are at the start is what their first change is from.
        turns.push(Reverse((Duration::ZERO, Turn::Begin)));
        for (place, step) in steps().enumerate() {
            if !step.actions.is_empty() {
                let turn = Turn::Act {
                    step: place,
                    number: 0,
                };
                turns.push(Reverse((step.when.first(), turn)));
            }
            // A step that only lasts makes the test last.
            turns.push(Reverse((step.when.last(), Turn::Begin)));
        }
        for (place, watch) in watches.iter().enumerate() {
            push_turns(&mut turns, place, watch);
        }
        let first = steps().filter(|step| step.when.first() == Duration::ZERO);
        let first = first.flat_map(|step| &step.actions);
        let taps = if is_counting {
            all_nodes(test)
        } else {
            let sent = watches.iter().filter_map(|watch| match watch.messages() {
                Some(Messages::Sent { from, .. }) => Some(from),
                _ => None,
            });
            let taps: HashSet<Address> = sent.collect();
            taps.into_iter().collect()
        };
        let world = World::start(test, taps, first);
        let (formulas, broken) = match Formulas::compile(test) {
            Ok(formulas) => (Some(formulas), None),
            Err(error) => (None, Some(broken(test.span.clone(), error.to_string()))),
        };
        Run {
            test,
            world,
            formulas,
            turns,
            watches,
            tracks: HashMap::new(),
            outputs: BTreeMap::new(),
            driven: HashSet::new(),
            failures: Vec::new(),
            failure_count: 0,
            events: 0,
            counts: HashMap::new(),
            is_counting,
            sinks: None,
            files: Vec::new(),
            offs: Vec::new(),
            broken,
        }
    }

    fn finish(&mut self) {
        self.observe();
        while self.broken.is_none()
            && let Some(Reverse((turn_at, _))) = self.turns.peek()
        {
            let due = self.world.next_due();
            let time = due.map_or(*turn_at, |due| due.min(*turn_at));
            self.instant(time);
        }
    }

    /// All that happens at a time: what was due, what steps do, what follows; then what must be so.
    fn instant(&mut self, time: Duration) {
        self.rest(time);
        while let Some(Reverse((at, turn))) = self.turns.peek().copied()
            && at == time
            && self.broken.is_none()
        {
            match turn {
                Turn::Act { step, number } => {
                    self.turns.pop();
                    self.act(step, number, time);
                }
                Turn::Row { file } => {
                    self.turns.pop();
                    self.feed_row(file);
                }
                Turn::Begin | Turn::Judge { .. } => break,
            }
        }
        self.rest(time);
        if self.broken.is_some() {
            return;
        }
        self.close_outputs(time);
        while let Some(Reverse((at, turn))) = self.turns.peek().copied()
            && at == time
        {
            self.turns.pop();
            if let Turn::Judge { watch } = turn {
                self.events += 1;
                self.judge(watch);
            }
        }
        if self.events > MOST_EVENTS {
            self.break_off();
        }
    }

    /// Lets the flows do what is due until nothing is.
    fn rest(&mut self, time: Duration) {
        loop {
            self.events += self.world.go_to(time);
            self.observe();
            if self.events > MOST_EVENTS {
                self.break_off();
                return;
            }
            if self.world.next_due().is_none_or(|due| due > time) {
                return;
            }
        }
    }

    fn break_off(&mut self) {
        let mut unmet = broken(
            self.test.span.clone(),
            format!(
                "the test was stopped at {}: more than {MOST_EVENTS} wake-ups, feeds and looks",
                words(self.world.now())
            ),
        );
        unmet.hints.push(
            "does a node wake up again and again without time going on? else let it last less, or let `inject`, feeds and \
             expectations be less often"
                .into(),
        );
        self.broken = Some(unmet);
    }

    fn act(&mut self, place: usize, number: u64, time: Duration) {
        let step = &self.test.steps[place];
        for (action_place, action) in step.actions.iter().enumerate() {
            self.events += 1;
            match action {
                Action::Feed(
                    feed @ Feed {
                        what: Fed::File { path, options },
                        ..
                    },
                ) => match FileRows::open(path, options) {
                    Ok(rows) => {
                        let until = match step.when {
                            When::Through { to, .. } => Some(to),
                            _ => None,
                        };
                        self.files.push(FedFile {
                            feed,
                            rows,
                            next: None,
                            from: time,
                            until,
                        });
                        self.next_row(self.files.len() - 1);
                    }
                    Err(error) => self.broken = Some(broken(feed.span.clone(), chain(&error))),
                },
                Action::Feed(feed) => {
                    let formulas = self.formulas.as_ref();
                    let payload = formulas.map_or(Ok(Value::Null), |formulas| {
                        formulas.payload((place, action_place), feed, time, number)
                    });
                    match payload {
                        Ok(payload) => self.world.feed(feed, payload),
                        Err(error) => {
                            let headline = format!("what is fed at {} has no value", words(time));
                            let mut unmet = broken(feed.span.clone(), headline);
                            unmet.hints.push(error.to_string());
                            self.broken = Some(unmet);
                            return;
                        }
                    }
                }
                Action::PowerCut(span) | Action::Restart(span) => {
                    self.offs.push((time, time + *span));
                    self.world.act(action);
                }
                action => self.world.act(action),
            }
            self.observe();
        }
        if self.events > MOST_EVENTS {
            self.break_off();
        } else if let Some(next) = step.when.repetition(number + 1) {
            let turn = Turn::Act {
                step: place,
                number: number + 1,
            };
            self.turns.push(Reverse((next, turn)));
        }
    }

    /// Shows what has happened to those who look at it.
    fn observe(&mut self) {
        let now = self.world.now();
        for seen in self.world.take_seen() {
            match seen {
                Seen::Drove { pin, drive } => {
                    self.outputs.entry(pin).or_default().now = drive.duty();
                    self.driven.insert(pin);
                }
                Seen::Failed { from, reason } => self.failed(now, from, &reason),
                Seen::Sent {
                    from,
                    port,
                    message,
                } => {
                    if self.is_counting {
                        *self.counts.entry(from).or_default() += 1;
                    }
                    let of = Messages::Sent { from, port };
                    self.message(of, &message.topic, message.payload);
                }
                Seen::Shown { by, message } => {
                    self.message(Messages::Shown { by }, &message.topic, message.payload);
                }
                Seen::Arrived { of, topic, payload } => {
                    self.message(Messages::Arrived { of }, &topic, payload);
                }
            }
        }
    }

    fn message(&mut self, of: Messages, topic: &str, payload: Value) {
        if let Some(sinks) = &mut self.sinks
            && let Messages::Shown { by: node } | Messages::Arrived { of: node } = of
        {
            let place = sinks.by_node.get(&node).copied();
            let item = Item {
                at: self.world.now(),
                topic: topic.to_owned(),
                payload: payload.clone(),
            };
            sinks.add(place, item);
        }
        let mut watches = self.watches.iter_mut();
        if !watches.any(|watch| watch.messages() == Some(of)) {
            return;
        }
        let item = Item {
            at: self.world.now(),
            topic: topic.to_owned(),
            payload,
        };
        let track = self.tracks.entry(of).or_default();
        track.add(item.clone());
        for watch in &mut self.watches {
            if watch.messages() == Some(of) {
                watch.message(&item, track);
            }
        }
    }

    fn failed(&mut self, at: Duration, from: Option<Address>, reason: &str) {
        self.failure_count += 1;
        let node = from.map(|from| self.test.name_of(from));
        let text = match node {
            Some(node) => format!("`{node}`: {reason}"),
            None => reason.to_owned(),
        };
        for watch in &mut self.watches {
            watch.failure(at, &text);
        }
        if self.failures.len() < MOST_TOLD {
            self.failures.push((at, text));
        }
    }

    /// What outputs are driven with once all that happens at a time has happened.
    fn close_outputs(&mut self, time: Duration) {
        for (pin, output) in &mut self.outputs {
            let is_change = output.settled.is_some_and(|before| before != output.now);
            let is_new = self.driven.contains(pin) && output.settled != Some(output.now);
            let item = Item {
                at: time,
                topic: String::new(),
                payload: Value::Number(output.now),
            };
            if is_new {
                output.track.add(item.clone());
            }
            if is_change && let Some(sinks) = &mut self.sinks {
                let place = sinks.by_pin.get(pin).copied();
                sinks.add(place, item.clone());
            }
            output.settled = Some(output.now);
            for watch in &mut self.watches {
                if matches!(&watch.expectation.what, Expected::Output { pin: of, .. } if of == pin)
                {
                    watch.output(&item, is_change, &output.track);
                }
            }
        }
        self.driven.clear();
    }

    fn judge(&mut self, place: usize) {
        let watch = &mut self.watches[place];
        let track = match &watch.expectation.what {
            Expected::Messages { of, .. } => self.tracks.get(of),
            Expected::Output { pin, .. } => self.outputs.get(pin).map(|output| &output.track),
            _ => None,
        };
        let ledger = self.world.ledger();
        watch.judge(track, &|key| number_of(&ledger, key));
        push_turns(&mut self.turns, place, watch);
    }
}

fn push_turns(turns: &mut BinaryHeap<Reverse<(Duration, Turn)>>, place: usize, watch: &Watch<'_>) {
    if let Some((from, to)) = watch.due() {
        turns.push(Reverse((from, Turn::Begin)));
        turns.push(Reverse((to, Turn::Judge { watch: place })));
    }
}

fn broken(span: Range<usize>, headline: String) -> Unmet {
    Unmet {
        span,
        headline,
        differences: Vec::new(),
        subject: None,
        before: Vec::new(),
        after: Vec::new(),
        hints: Vec::new(),
    }
}

fn all_nodes(test: &Test) -> Vec<Address> {
    let flows = (0..).zip(&test.flows);
    let nodes = flows.flat_map(|(flow, graph)| {
        let nodes = graph.nodes().iter();
        nodes.filter_map(move |node| {
            let node = graph.find(&node.name)?;
            Some(Address { flow, node })
        })
    });
    nodes.collect()
}

fn number_of(ledger: &crate::outbox::Ledger, key: &str) -> u64 {
    let json = serde_json::to_value(ledger).unwrap_or_default();
    json.get(key)
        .and_then(serde_json::Value::as_u64)
        .unwrap_or_default()
}

impl Test {
    /// A node's name as a test writes it.
    fn name_of(&self, address: Address) -> String {
        let flow = &self.flows[address.flow as usize];
        let node = flow.node_name(address.node);
        match address.flow {
            0 => node.to_owned(),
            _ => format!("{}/{node}", flow.name()),
        }
    }
}
