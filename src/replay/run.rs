//! The run: rows and wake-ups in the order of time.
//!
//! The clock stands at the time of the latest row so far. Before a row of a later time is handled, everything happens that is due
//! before that time; what is due at that very time comes after the row, as on a device. A row of an earlier time is handled at
//! the time at which the clock stands.

use std::collections::{HashMap, VecDeque};
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::blocks::Source;
use super::feeds::{self, FeedError, ids};
use super::report::{FileReport, Report};
use super::rows::{self, FileError, Row, RowOptions, RowProblem};
use super::sinks::Sinks;
use super::{Feed, Progress};
use crate::flow::Graph;
use crate::flow::estimate::Load;
use crate::message::{Message, NodeId, Text, Timestamp};
use crate::nodes::Link;
use crate::runtime::{Address, Effect, Effects, Engine, Event, Now};

/// The flow's place in its engine.
const FLOW: u32 = 0;
/// Rows that are handed over together, if they come at the same time.
const TOGETHER: usize = 256;
/// Wake-ups in one turn, so that what they set off need not be kept for all.
const WAKES: usize = 64;
/// Wake-ups after the last row. There are at most as many as windows can be open, unless something goes on for ever.
const MOST_WAKES_AFTER: u64 = 1_000_000;
/// Messages that links of the flow may carry in one moment.
const MOST_LINKED: usize = 100_000;
/// Rows between two looks at how far it is.
const PROGRESS_EVERY: u64 = 4096;

/// What to replay, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The name of the device, for topics.
    pub device: String,
    pub feeds: Vec<Feed>,
    pub rows: RowOptions,
    /// Whether `inject` nodes that are not fed run.
    pub inject: bool,
    /// How far rows are put into order.
    pub reorder: Option<Duration>,
    /// Whether a row that is wrong ends the replay.
    pub strict: bool,
}

/// Why a replay did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error(transparent)]
    Feed(#[from] FeedError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{}, line {}: {}; without --strict such rows are left out and counted", path.display(), problem.line, problem.message)]
    Row { path: PathBuf, problem: RowProblem },
    #[error("cannot start a thread to read {}", path.display())]
    Thread {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("cannot write what came to the sinks")]
    Write(#[source] std::io::Error),
}

/// A replay that is ready to run: its files could be opened, and fit the flow.
pub struct Replay {
    graph: Arc<Graph>,
    /// The same, fed.
    fed: Arc<Graph>,
    settings: Settings,
    files: Vec<(NodeId, rows::Rows)>,
}

impl Replay {
    /// Opens the files.
    pub fn prepare(graph: Arc<Graph>, settings: Settings) -> Result<Replay, ReplayError> {
        let nodes = feeds::find(&graph, &settings.feeds)?;
        let fed = Arc::new(feeds::fed(&graph, &nodes, settings.inject));
        let mut files = Vec::new();
        for (node, feed) in nodes.into_iter().zip(&settings.feeds) {
            files.push((node, rows::open(&feed.path, &settings.rows)?));
        }
        Ok(Replay {
            graph,
            fed,
            settings,
            files,
        })
    }

    /// Runs it. `progress` is called now and then.
    pub fn run<W: Write>(
        self,
        out: W,
        progress: impl FnMut(Progress),
    ) -> Result<Report, ReplayError> {
        let mut sources = Vec::new();
        let mut report = Report::default();
        for ((node, rows), feed) in self.files.into_iter().zip(&self.settings.feeds) {
            let source = Source::start(node, rows, self.settings.reorder);
            sources.push(source.map_err(|source| ReplayError::Thread {
                path: feed.path.clone(),
                source,
            })?);
            report.files.push(FileReport {
                path: feed.path.clone(),
                ..FileReport::default()
            });
        }
        let mut run = Run {
            engine: Engine::new(&self.settings.device),
            now: Now::default(),
            effects: Effects::new(),
            sinks: Sinks::new(&self.fed, out),
            links: links(&self.fed),
            linked: VecDeque::new(),
            no_topic: "".into(),
            is_strict: self.settings.strict,
            graph: self.fed,
            sources,
            report,
            progress,
        };
        run.replay()?;
        run.sinks.flush().map_err(ReplayError::Write)?;
        let mut report = run.report;
        let counts = run.sinks.counts(&self.graph);
        report.sinks = counts
            .map(|(node, count)| (self.graph.node_name(node).to_owned(), count))
            .collect();
        Ok(report)
    }
}

/// The `link in` nodes of each link.
fn links(graph: &Graph) -> HashMap<Text, Vec<NodeId>> {
    let mut links = HashMap::<Text, Vec<NodeId>>::new();
    for (node, link) in graph.links() {
        if let Link::In(name) = link {
            links.entry(name).or_default().push(node);
        }
    }
    links
}

struct Run<W, P> {
    engine: Engine,
    graph: Arc<Graph>,
    now: Now,
    effects: Effects,
    sinks: Sinks<W>,
    links: HashMap<Text, Vec<NodeId>>,
    linked: VecDeque<(NodeId, Message)>,
    /// What a row without a topic has, until its source gives it its own.
    no_topic: Text,
    is_strict: bool,
    sources: Vec<Source>,
    report: Report,
    progress: P,
}

impl<W: Write, P: FnMut(Progress)> Run<W, P> {
    fn replay(&mut self) -> Result<(), ReplayError> {
        let Some(first) = self.earliest()? else {
            return Ok(());
        };
        self.start(first.time);
        let mut row = Some(first);
        let mut handed = 0;
        let mut told = 0;
        while let Some(next) = row {
            handed += self.hand_over(next)?;
            if handed - told >= PROGRESS_EVERY {
                told = handed;
                self.tell_progress(handed);
            }
            row = self.earliest()?;
        }
        self.end()
    }

    /// The source that has the earliest row; of those with rows of one time, the one that was named first.
    fn earliest(&mut self) -> Result<Option<Next>, ReplayError> {
        let mut earliest: Option<Next> = None;
        for place in 0..self.sources.len() {
            self.fill(place)?;
            if let Some(time) = self.sources[place].time()
                && earliest.is_none_or(|earliest| time < earliest.time)
            {
                earliest = Some(Next { place, time });
            }
        }
        Ok(earliest)
    }

    /// Waits for a source's next row, and takes note of those that were left out before it.
    #[inline]
    fn fill(&mut self, place: usize) -> Result<(), ReplayError> {
        let source = &mut self.sources[place];
        source.fill()?;
        if !source.problems.is_empty() {
            let file = &mut self.report.files[place];
            for problem in source.problems.drain(..) {
                if self.is_strict {
                    let path = file.path.clone();
                    return Err(ReplayError::Row { path, problem });
                }
                file.leave_out(problem);
            }
        }
        Ok(())
    }

    /// Starts the flow at the time of the first row. That outputs are at their safe level then is nothing that came to them.
    fn start(&mut self, first: Timestamp) {
        self.now = Now {
            mono: Duration::ZERO,
            wall: first,
        };
        self.report.span = Some((first, first));
        self.engine
            .add(self.graph.clone(), self.now, &mut self.effects);
    }

    /// Hands over a row, and those behind it that come at the same time. Gives how many there were.
    fn hand_over(&mut self, Next { place, time }: Next) -> Result<u64, ReplayError> {
        if time > self.now.wall {
            self.pass_until(time)?;
        } else if time < self.now.wall {
            // What is due now would wait for ever, if there were only late rows.
            self.wake_until(self.now.mono + Duration::from_nanos(1))?;
        }
        let mut messages = Vec::with_capacity(1);
        while let Some(row) = self.sources[place].take() {
            messages.push(self.message(row));
            if messages.len() == TOGETHER || self.sources.len() > 1 {
                break;
            }
            self.fill(place)?;
            if self.sources[place].time() != Some(time) {
                break;
            }
        }
        let count = messages.len() as u64;
        self.report.files[place].rows += count;
        let to = address(self.sources[place].to);
        self.engine.handle(
            self.now,
            Event::Messages { to, messages },
            &mut self.effects,
        );
        self.perform()?;
        Ok(count)
    }

    #[inline]
    fn message(
        &mut self,
        Row {
            time,
            topic,
            payload,
        }: Row,
    ) -> Message {
        if let Some((earliest, latest)) = &mut self.report.span {
            if time < *latest {
                self.report.out_of_order += 1;
                self.report.latest_by = self.report.latest_by.max(latest.saturating_since(time));
                *earliest = time.min(*earliest);
            }
            *latest = time.max(*latest);
        }
        Message {
            topic: topic.unwrap_or_else(|| self.no_topic.clone()),
            payload,
            time,
            source: NodeId(0),
            headers: None,
        }
    }

    /// Lets time pass until then; what is due before it happens.
    #[inline]
    fn pass_until(&mut self, time: Timestamp) -> Result<(), ReplayError> {
        let mono = self.now.mono_at(time);
        if self.engine.next_wake().is_some_and(|next| next < mono) {
            self.wake_until(mono)?;
        }
        self.now = self.now.later(mono.saturating_sub(self.now.mono));
        Ok(())
    }

    /// Runs the wake-ups that are due before a monotonic time, each at its own.
    fn wake_until(&mut self, mono: Duration) -> Result<(), ReplayError> {
        while let Some(next) = self.engine.next_wake().filter(|next| *next < mono) {
            self.wake(next, WAKES)?;
        }
        Ok(())
    }

    fn wake(&mut self, next: Duration, limit: usize) -> Result<(), ReplayError> {
        self.now = self.now.later(next.saturating_sub(self.now.mono));
        self.engine.wake(self.now, limit, &mut self.effects);
        self.perform()
    }

    /// After the last row: time goes on until no node waits for it. What would send although nothing comes rests, for the
    /// record has ended, and has not fallen silent.
    fn end(&mut self) -> Result<(), ReplayError> {
        let nodes = ids(&self.graph).zip(self.graph.nodes());
        let by_themselves = nodes.filter(|(_, node)| node.spec.load(Load::NONE).per_second > 0.0);
        let resting: Vec<NodeId> = by_themselves.map(|(id, _)| id).collect();
        let mut left = MOST_WAKES_AFTER;
        loop {
            for node in &resting {
                self.engine.rest(address(*node));
            }
            let Some(next) = self.engine.next_wake() else {
                break;
            };
            if left == 0 {
                self.report.is_unsettled = true;
                break;
            }
            left -= 1;
            self.wake(next, 1)?;
        }
        self.report.missed += self.engine.counters(FLOW).missed;
        Ok(())
    }

    /// Does what the engine wants done, and delivers what comes to links until nothing more comes.
    #[inline]
    fn perform(&mut self) -> Result<(), ReplayError> {
        if self.effects.is_empty() {
            return Ok(());
        }
        self.perform_all().map_err(ReplayError::Write)
    }

    fn perform_all(&mut self) -> std::io::Result<()> {
        let mut effects = std::mem::take(&mut self.effects);
        let mut left = MOST_LINKED;
        loop {
            for effect in effects.drain(..) {
                self.perform_one(effect)?;
            }
            let Some((node, message)) = self.linked.pop_front() else {
                break;
            };
            if left == 0 {
                self.report.missed += 1 + self.linked.len() as u64;
                self.linked.clear();
                break;
            }
            left -= 1;
            let event = Event::Messages {
                to: address(node),
                messages: vec![message],
            };
            self.engine.handle(self.now, event, &mut effects);
        }
        self.effects = effects;
        Ok(())
    }

    fn perform_one(&mut self, effect: Effect) -> std::io::Result<()> {
        match effect {
            Effect::Uplink { from, draft } => self.sinks.draft(from.node, &draft)?,
            Effect::Debug { from, message, .. } => self.sinks.message(from.node, &message)?,
            Effect::Link {
                from,
                link,
                message,
            } => {
                self.sinks.message(from.node, &message)?;
                for to in self.links.get(&link).into_iter().flatten() {
                    let message = Message {
                        source: *to,
                        ..message.clone()
                    };
                    self.linked.push_back((*to, message));
                }
            }
            Effect::Output { pin, drive } => self.sinks.output(pin, drive, self.now.wall)?,
            Effect::Failed { from, reason } => {
                let name = self.graph.node_name(from.node);
                let failures = match self.report.failures.get_mut(name) {
                    Some(failures) => failures,
                    None => self.report.failures.entry(name.to_owned()).or_default(),
                };
                failures.add(self.now.wall, || reason);
            }
            Effect::FlowStopped { node, panic, .. } => {
                let place = node.map_or("", |node| self.graph.node_name(node));
                let reason = || format!("in `{place}`: {panic}");
                self.report.panics.add(self.now.wall, reason);
            }
            // There is no board: whatever asks one is fed, or rests. The flow begins with nothing that it could forget.
            Effect::ReadSensor { .. }
            | Effect::ReadLevel { .. }
            | Effect::Tapped { .. }
            | Effect::FlowRestarted { .. }
            | Effect::Forgot { .. } => {}
        }
        Ok(())
    }

    fn tell_progress(&mut self, rows: u64) {
        let progress = Progress {
            rows,
            bytes: self.sources.iter().map(|source| source.position).sum(),
            time: self.now.wall,
        };
        (self.progress)(progress);
    }
}

/// A row that is to come next: its source, and its time.
#[derive(Clone, Copy)]
struct Next {
    place: usize,
    time: Timestamp,
}

fn address(node: NodeId) -> Address {
    Address { flow: FLOW, node }
}
