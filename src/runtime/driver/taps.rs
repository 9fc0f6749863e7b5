//! Taps: what nodes of running flows send, shown to those who watch from outside.
//!
//! A watcher has a *tap queue* of [`TAPPED`] messages. What finds it full is dropped for this watcher alone, who is told how
//! many were, at the place where they are missing: a slow watcher loses messages, an engine loses no time. A tap follows its node when
//! the flow gets another graph; it ends when the node is gone, has other ports, or has gone to the other engine.

use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crossbeam_channel::{Sender, TrySendError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::flow::Graph;
use crate::flow::diagnostic::did_you_mean;
use crate::message::{Message, Text};
use crate::runtime::engine::Engine;
use crate::runtime::node::Address;

/// Messages that wait for one watcher.
const TAPPED: usize = 1_024;
/// Watchers at once.
pub(super) const MOST_TAPS: usize = 16;
/// Names that an error lists.
const MOST_NAMES: usize = 10;

/// How to watch the nodes of running flows.
#[derive(Clone)]
pub struct Taps {
    engines: Arc<[Tappable; 2]>,
    places: Arc<Semaphore>,
}

/// An engine's flows, and how to ask it for a tap.
pub(super) struct Tappable {
    /// With their places.
    flows: RwLock<Vec<(u32, Arc<Graph>)>>,
    requests: Sender<Watcher>,
}

/// A tap that shows what a node sends, until it is dropped.
#[derive(Debug)]
pub struct Tap {
    pub flow: Text,
    pub node: Text,
    /// The names of the node's ports.
    pub ports: Vec<String>,
    queue: mpsc::Receiver<Tapped>,
    /// What was dropped since the last message in the queue.
    dropped: Arc<AtomicU64>,
    /// A message whose turn is next.
    held: Option<Seen>,
}

/// What a watcher sees.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen {
    Message {
        /// The port's place among the node's ports.
        port: usize,
        message: Message,
    },
    /// So many messages are missing here.
    Dropped(u64),
}

/// Why a node cannot be watched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TapError {
    #[error("no node `{node}` runs here ({help})")]
    NoNode { node: String, help: String },
    #[error("several flows have a node `{node}` (say which one: {candidates})")]
    Ambiguous { node: String, candidates: String },
    #[error("node `{node}` ({node_type}) sends nothing (watch the node before it)")]
    SendsNothing {
        node: String,
        node_type: &'static str,
    },
    #[error("node `{node}` has no port `{port}` ({help})")]
    NoPort {
        node: String,
        port: String,
        help: String,
    },
    #[error("{MOST_TAPS} taps are there already, which is the most (end one of them)")]
    TooMany,
    #[error("the engine of this flow does not take the tap (is it stopping, or stuck?)")]
    NoAnswer,
}

impl Taps {
    pub(super) fn new(engines: [Tappable; 2]) -> Taps {
        Taps {
            engines: Arc::new(engines),
            places: Arc::new(Semaphore::new(MOST_TAPS)),
        }
    }

    /// From now on the engine has these flows.
    pub(super) fn set_flows(&self, engine: usize, flows: Vec<(u32, Arc<Graph>)>) {
        let known = &self.engines[engine].flows;
        *known.write().unwrap_or_else(PoisonError::into_inner) = flows;
    }

    /// Watches a node, named as `FLOW/NODE`, or as `NODE` where one flow alone has it; with `.PORT` one of its ports only.
    pub fn watch(&self, wanted: &str) -> Result<Tap, TapError> {
        let (path, port) = match wanted.split_once('.') {
            Some((path, port)) => (path, Some(port)),
            None => (wanted, None),
        };
        let Found {
            requests,
            graph,
            address,
        } = self.find(path)?;
        let node = &graph.nodes()[usize::from(address.node.0)];
        let full_name = || format!("{}/{}", graph.name(), node.name);
        if node.ports.is_empty() {
            return Err(TapError::SendsNothing {
                node: full_name(),
                node_type: node.node_type.name,
            });
        }
        let no_port = |port: &str| TapError::NoPort {
            node: full_name(),
            port: port.to_owned(),
            help: did_you_mean(port, node.ports.iter().map(String::as_str))
                .unwrap_or_else(|| there_are(&node.ports)),
        };
        let port = port
            .map(|port| {
                let place = node.ports.iter().position(|known| known == port);
                place.ok_or_else(|| no_port(port))
            })
            .transpose()?;
        let place = self.places.clone().try_acquire_owned();
        let (queue, receiver) = mpsc::channel(TAPPED);
        let dropped = Arc::<AtomicU64>::default();
        let watcher = Watcher {
            node: address,
            ports: node.ports.clone(),
            port,
            queue,
            dropped: dropped.clone(),
            _place: place.map_err(|_| TapError::TooMany)?,
        };
        requests.try_send(watcher).map_err(|error| match error {
            TrySendError::Full(_) | TrySendError::Disconnected(_) => TapError::NoAnswer,
        })?;
        Ok(Tap {
            flow: graph.name().clone(),
            node: node.name.clone(),
            ports: node.ports.clone(),
            queue: receiver,
            dropped,
            held: None,
        })
    }

    fn find(&self, path: &str) -> Result<Found<'_>, TapError> {
        let flows: Vec<Place<'_>> = self.engines.iter().flat_map(Tappable::places).collect();
        let flows = &flows[..];
        // A node's own name may have a `/` in it as well.
        let in_flow = |graph: &Graph| path.strip_prefix(&**graph.name())?.strip_prefix('/');
        let mut found = find_in(flows, in_flow);
        if found.is_empty() {
            found = find_in(flows, |_| Some(path));
        }
        match <[Found<'_>; 1]>::try_from(found) {
            Ok([found]) => Ok(found),
            Err(none) if none.is_empty() => Err(unknown(path, flows)),
            Err(several) => {
                let names = several
                    .iter()
                    .map(|found| format!("{}/{path}", found.graph.name()));
                Err(TapError::Ambiguous {
                    node: path.to_owned(),
                    candidates: list(&names.collect::<Vec<_>>()),
                })
            }
        }
    }
}

/// A flow's place in its engine, and how to ask that.
type Place<'a> = (u32, Arc<Graph>, &'a Sender<Watcher>);

impl Tappable {
    pub(super) fn new(flows: Vec<(u32, Arc<Graph>)>, requests: Sender<Watcher>) -> Tappable {
        Tappable {
            flows: RwLock::new(flows),
            requests,
        }
    }

    fn places(&self) -> impl Iterator<Item = Place<'_>> {
        let flows = self.flows.read().unwrap_or_else(PoisonError::into_inner);
        let flows = flows.clone().into_iter();
        flows.map(|(place, graph)| (place, graph, &self.requests))
    }
}

/// The nodes of a name, which may depend on the flow.
fn find_in<'a, 'name>(
    flows: &[Place<'a>],
    name: impl Fn(&Graph) -> Option<&'name str>,
) -> Vec<Found<'a>> {
    let found = flows.iter().filter_map(|(flow, graph, requests)| {
        let address = Address {
            flow: *flow,
            node: graph.find(name(graph)?)?,
        };
        Some(Found {
            requests,
            graph: graph.clone(),
            address,
        })
    });
    found.collect()
}

fn unknown(path: &str, flows: &[Place<'_>]) -> TapError {
    let (mut names, mut full_names) = (Vec::new(), Vec::new());
    for (_, graph, _) in flows {
        for node in graph.nodes() {
            names.push(&*node.name);
            full_names.push(format!("{}/{}", graph.name(), node.name));
        }
    }
    let candidates = names
        .into_iter()
        .chain(full_names.iter().map(String::as_str));
    let help = did_you_mean(path, candidates).unwrap_or_else(|| there_are(&full_names));
    TapError::NoNode {
        node: path.to_owned(),
        help,
    }
}

/// A node that runs.
struct Found<'a> {
    requests: &'a Sender<Watcher>,
    graph: Arc<Graph>,
    address: Address,
}

fn there_are(names: &[impl AsRef<str>]) -> String {
    match names {
        [] => "there is none".to_owned(),
        names => format!("there are {}", list(names)),
    }
}

fn list(names: &[impl AsRef<str>]) -> String {
    let shown = names.iter().take(MOST_NAMES);
    let mut text = shown
        .map(|name| format!("`{}`", name.as_ref()))
        .collect::<Vec<_>>()
        .join(", ");
    if names.len() > MOST_NAMES {
        text += &format!(" and {} more", names.len() - MOST_NAMES);
    }
    text
}

impl Tap {
    /// The next message, or how many are missing before it; none when the flows have stopped. Nothing is lost when this is
    /// dropped while it waits.
    pub async fn next(&mut self) -> Option<Seen> {
        if let Some(held) = self.held.take() {
            return Some(held);
        }
        if self.queue.is_empty() {
            // Nothing may come any more that could tell.
            let dropped = self.dropped.swap(0, Ordering::Relaxed);
            if dropped > 0 {
                return Some(Seen::Dropped(dropped));
            }
        }
        let Tapped {
            dropped_before,
            port,
            message,
        } = self.queue.recv().await?;
        let seen = Seen::Message { port, message };
        if dropped_before == 0 {
            return Some(seen);
        }
        self.held = Some(seen);
        Some(Seen::Dropped(dropped_before))
    }
}

/// What goes through a tap queue.
#[derive(Debug)]
struct Tapped {
    dropped_before: u64,
    port: usize,
    message: Message,
}

/// An engine's end of a tap.
pub(super) struct Watcher {
    node: Address,
    /// What it was told of the node's ports.
    ports: Vec<String>,
    /// The one port that is watched; none for all.
    port: Option<usize>,
    queue: mpsc::Sender<Tapped>,
    dropped: Arc<AtomicU64>,
    /// Free for another watcher once the engine has no tap for this one any more.
    _place: OwnedSemaphorePermit,
}

impl Watcher {
    /// Where its node is, if it is still what it was told.
    fn find(&self, engine: &Engine) -> Option<Address> {
        let there = engine.namesake(self.node)?;
        let node = &engine.graph(there.flow).nodes()[usize::from(there.node.0)];
        (node.ports == self.ports).then_some(there)
    }
}

/// Those who watch the nodes of one engine.
#[derive(Default)]
pub(super) struct Watchers(Vec<Watcher>);

impl Watchers {
    /// Whose node is gone meanwhile sees the end at once.
    pub(super) fn add(&mut self, mut watcher: Watcher, engine: &mut Engine) {
        if let Some(node) = watcher.find(engine) {
            engine.tap(node, true);
            watcher.node = node;
            self.0.push(watcher);
        }
    }

    /// After a change of flows: those whose node is not watched any more see the end.
    pub(super) fn follow(&mut self, engine: &Engine) {
        self.0.retain_mut(|watcher| {
            let there = watcher.find(engine);
            watcher.node = there.unwrap_or(watcher.node);
            there.is_some()
        });
    }

    /// Taps what is watched of a flow in an engine that is new.
    pub(super) fn tap_flow(&self, flow: u32, engine: &mut Engine) {
        for watcher in self.0.iter().filter(|watcher| watcher.node.flow == flow) {
            engine.tap(watcher.node, true);
        }
    }

    pub(super) fn show(&self, from: Address, port: usize, message: &Message) {
        let is_for = |watcher: &&Watcher| {
            watcher.node == from && watcher.port.is_none_or(|wanted| wanted == port)
        };
        for watcher in self.0.iter().filter(is_for) {
            match watcher.queue.try_reserve() {
                Ok(place) => place.send(Tapped {
                    dropped_before: watcher.dropped.swap(0, Ordering::Relaxed),
                    port,
                    message: message.clone(),
                }),
                // One who has left does not count.
                Err(_) => {
                    watcher.dropped.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    /// Takes back the taps of those who have left.
    pub(super) fn forget_gone(&mut self, engine: &mut Engine) {
        let (gone, here) = mem::take(&mut self.0)
            .into_iter()
            .partition(|watcher| watcher.queue.is_closed());
        self.0 = here;
        let gone: Vec<Watcher> = gone;
        for Watcher { node, .. } in gone {
            engine.tap(node, self.0.iter().any(|other| other.node == node));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crossbeam_channel::{Receiver, bounded};

    use super::*;
    use crate::message::{NodeId, Timestamp, Value};
    use crate::nodes::testing::graph;
    use crate::runtime::Now;
    use crate::runtime::node::{Effect, Effects};

    fn tappable(flows: Vec<Arc<Graph>>, requests: Sender<Watcher>) -> Tappable {
        Tappable::new((0..).zip(flows).collect(), requests)
    }

    fn empty() -> Tappable {
        tappable(Vec::new(), bounded(1).0)
    }

    /// Two flows with nodes `tick` and `show`; the second one has `hot`, `level` and `wall/cold` besides.
    fn taps() -> (Taps, Receiver<Watcher>, Vec<Arc<Graph>>) {
        let tick = "[nodes.tick]\ntype = 'inject'\nevery = '1s'\npayload = 7\n[nodes.show]\ntype = 'debug'\nfrom = 'tick'\n";
        let more = "[nodes.hot]\ntype = 'filter'\nfrom = 'tick'\n[nodes.level]\ntype = 'debug'\nfrom = 'hot'\n\
                    [nodes.cold]\ntype = 'filter'\nfrom = 'tick'";
        let named = |name: &str, text: &str| {
            let mut graph = Arc::into_inner(graph(text)).unwrap();
            graph.rename(name);
            graph.rename_node("cold", "wall/cold");
            Arc::new(graph)
        };
        let flows = vec![named("a", tick), named("b", &format!("{tick}{more}"))];
        let (data, requests) = bounded(MOST_TAPS);
        let taps = Taps::new([empty(), tappable(flows.clone(), data)]);
        (taps, requests, flows)
    }

    fn engine(flows: &[Arc<Graph>]) -> Engine {
        let mut engine = Engine::new("d");
        for flow in flows {
            engine.add(flow.clone(), Now::default(), &mut Effects::new());
        }
        engine
    }

    fn message(number: f64) -> Message {
        Message {
            topic: "t".into(),
            payload: Value::Number(number),
            time: Timestamp::default(),
            source: NodeId(0),
            headers: None,
        }
    }

    /// What there is to see, without waiting for more: payloads, and a minus sign before how many are missing.
    fn seen(tap: &mut Tap) -> Vec<f64> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        // Without tokio's own limit of messages in a row.
        runtime.block_on(tokio::task::unconstrained(async {
            let mut seen = Vec::new();
            // What is there is there at once.
            while let Ok(next) = tokio::time::timeout(Duration::ZERO, tap.next()).await {
                match next {
                    Some(Seen::Message { message, .. }) => {
                        seen.push(message.payload.as_number().unwrap());
                    }
                    Some(Seen::Dropped(dropped)) => seen.push(-(dropped as f64)),
                    None => break,
                }
            }
            seen
        }))
    }

    #[test]
    fn nodes_are_found_by_their_names() {
        let (taps, requests, _) = taps();
        let check = |wanted: &str, flow, node, port| {
            let tap = taps.watch(wanted).unwrap();
            let watcher = requests.try_recv().unwrap();
            assert_eq!((watcher.node.flow, watcher.node.node.0), (flow, node));
            assert_eq!(watcher.port, port, "{wanted}");
            assert_eq!(tap.ports, ["out"]);
        };
        check("a/tick", 0, 0, None);
        check("b/tick.out", 1, 0, Some(0));
        check("hot", 1, 2, None);
        check("hot.out", 1, 2, Some(0));
        check("b/wall/cold", 1, 4, None);
        check("wall/cold.out", 1, 4, Some(0));
    }

    #[test]
    fn what_cannot_be_watched_is_said_in_words() {
        let (taps, _requests, _) = taps();
        let check = |wanted: &str, expected: &str| {
            assert_eq!(taps.watch(wanted).unwrap_err().to_string(), expected);
        };
        check(
            "tick",
            "several flows have a node `tick` (say which one: `a/tick`, `b/tick`)",
        );
        check(
            "a/tikc",
            "no node `a/tikc` runs here (did you mean `a/tick`?)",
        );
        check("levle", "no node `levle` runs here (did you mean `level`?)");
        check("a/hot", "no node `a/hot` runs here (did you mean `b/hot`?)");
        check(
            "level",
            "node `b/level` (debug) sends nothing (watch the node before it)",
        );
        check(
            "hot.uot",
            "node `b/hot` has no port `uot` (did you mean `out`?)",
        );
        check(
            "xylophone/tick",
            "no node `xylophone/tick` runs here (there are `a/tick`, `a/show`, `b/tick`, `b/show`, `b/hot`, `b/level`, \
             `b/wall/cold`)",
        );
        let none = Taps::new([empty(), empty()]);
        assert_eq!(
            none.watch("a").unwrap_err().to_string(),
            "no node `a` runs here (there is none)"
        );
    }

    #[test]
    fn there_are_sixteen_places_and_one_is_free_when_the_engine_has_forgotten_the_watcher() {
        let (taps, requests, flows) = taps();
        let mut engine = engine(&flows);
        let mut watchers = Watchers::default();
        let mut held: Vec<Tap> = (0..MOST_TAPS)
            .map(|_| {
                let tap = taps.watch("hot").unwrap();
                watchers.add(requests.try_recv().unwrap(), &mut engine);
                tap
            })
            .collect();
        assert_eq!(taps.watch("hot").unwrap_err(), TapError::TooMany);
        held.pop();
        assert_eq!(taps.watch("hot").unwrap_err(), TapError::TooMany);
        watchers.forget_gone(&mut engine);
        assert!(taps.watch("hot").is_ok());
    }

    #[test]
    fn an_engine_that_takes_no_requests_is_named() {
        let (taps, requests, _) = taps();
        drop(requests);
        assert_eq!(taps.watch("hot").unwrap_err(), TapError::NoAnswer);
    }

    #[test]
    fn a_slow_watcher_is_told_what_it_missed_and_where() {
        let (taps, requests, flows) = taps();
        let mut engine = engine(&flows);
        let mut watchers = Watchers::default();
        let mut tap = taps.watch("a/tick").unwrap();
        watchers.add(requests.try_recv().unwrap(), &mut engine);
        let from = Address {
            flow: 0,
            node: NodeId(0),
        };
        let show = |numbers: std::ops::Range<usize>| {
            numbers.for_each(|number| watchers.show(from, 0, &message(number as f64)));
        };
        let numbers = |range: std::ops::Range<usize>| range.map(|number| number as f64);

        show(0..TAPPED);
        assert_eq!(
            seen(&mut tap),
            numbers(0..TAPPED).collect::<Vec<_>>(),
            "it is just full"
        );

        show(0..TAPPED + 3);
        let expected: Vec<f64> = numbers(0..TAPPED).chain([-3.0]).collect();
        assert_eq!(
            seen(&mut tap),
            expected,
            "told although nothing comes after"
        );

        show(0..TAPPED + 5);
        // One place is free, so the next message comes behind the gap.
        assert!(tap.queue.try_recv().is_ok());
        show(9..10);
        let expected: Vec<f64> = numbers(1..TAPPED).chain([-5.0, 9.0]).collect();
        assert_eq!(seen(&mut tap), expected, "told where it is missing");
        assert_eq!(seen(&mut tap), [0.0; 0], "told once");
    }

    #[test]
    fn watchers_of_one_node_do_not_disturb_each_other_and_the_last_one_takes_the_tap_away() {
        let (taps, requests, flows) = taps();
        let mut engine = engine(&flows);
        let mut watchers = Watchers::default();
        let mut watch = |wanted: &str, engine: &mut Engine| {
            let tap = taps.watch(wanted).unwrap();
            watchers.add(requests.try_recv().unwrap(), engine);
            tap
        };
        let mut first = watch("a/tick", &mut engine);
        let mut second = watch("a/tick.out", &mut engine);
        let mut other = watch("b/hot", &mut engine);
        let mut seconds = 0;
        let mut tick = |engine: &mut Engine, watchers: &Watchers| {
            seconds += 1;
            let mut effects = Effects::new();
            engine.wake(
                Now::default().later(Duration::from_secs(seconds)),
                9,
                &mut effects,
            );
            let mut tapped = 0;
            for effect in effects {
                if let Effect::Tapped {
                    from,
                    port,
                    message,
                } = effect
                {
                    tapped += 1;
                    watchers.show(from, port, &message);
                }
            }
            tapped
        };
        assert_eq!(tick(&mut engine, &watchers), 2, "a/tick and b/hot");
        for tap in [&mut first, &mut second, &mut other] {
            assert_eq!(seen(tap), [7.0]);
        }
        drop(first);
        watchers.forget_gone(&mut engine);
        assert_eq!(
            tick(&mut engine, &watchers),
            1,
            "`filter` lets no second 7 through"
        );
        assert_eq!(seen(&mut second), [7.0]);
        drop(second);
        watchers.forget_gone(&mut engine);
        assert_eq!(tick(&mut engine, &watchers), 0, "nobody is there");
        assert_eq!(watchers.0.len(), 1);
    }
}
