//! Runs one node by itself, for its tests.

use std::sync::Arc;
use std::time::Duration;

use crate::flow::{Graph, Report, Variables, check};
use crate::message::{Message, Timestamp, Value};
use crate::runtime::Now;
use crate::runtime::engine::{Engine, Event};
use crate::runtime::node::{Address, Effect};
use crate::runtime::state::Checkpoint;

/// A graph from a flow's text, which must be valid.
pub(crate) fn graph(text: &str) -> Arc<Graph> {
    let mut report = Report::new("test.toml", text);
    let graph = check("test", &Variables::default(), &mut report);
    let rendered: String = report.diagnostics.iter().map(|d| d.render(false)).collect();
    Arc::new(graph.unwrap_or_else(|| panic!("{rendered}")))
}

/// What is wrong with a flow's text, one line for each problem.
pub(crate) fn problems(text: &str) -> Vec<String> {
    let mut report = Report::new("test.toml", text);
    check("test", &Variables::default(), &mut report);
    let found = report.into_diagnostics();
    found.iter().map(ToString::to_string).collect()
}

/// What is wrong with one node between a source and a sink. `options` are the node's lines, with its type.
pub(crate) fn node_problems(options: &str) -> Vec<String> {
    problems(&between(&["source"], options))
}

/// The same without their places: what is said behind `error: ` or `warning: `.
pub(crate) fn node_mistakes(options: &str) -> Vec<String> {
    let said = |problem: &String| match problem
        .split_once(": ")
        .and_then(|it| it.1.split_once(": "))
    {
        Some((_, said)) => said.to_owned(),
        None => problem.clone(),
    };
    node_problems(options).iter().map(said).collect()
}

/// Checks what is wrong with one node: one problem for each text, which is a part of its message.
pub(crate) fn check_problems(options: &str, expected: &[&str]) {
    let found = node_problems(options);
    let is_as_expected = found.len() == expected.len()
        && found
            .iter()
            .zip(expected)
            .all(|(found, expected)| found.contains(expected));
    assert!(
        is_as_expected,
        "{options}: {found:#?}, expected {expected:#?}"
    );
}

/// What a node of one input sends for payloads that come a second apart, from 10 s after 1970 on; failures too. Time
/// then goes on for an hour. `options` are the node's lines, with its type.
pub(crate) fn run_node(options: &str, payloads: impl IntoIterator<Item = Value>) -> Vec<String> {
    let times = (10..).map(|second| Timestamp::from_millis(second * 1000));
    run_node_at(options, times.zip(payloads))
}

/// The same with payloads as a JSON list.
pub(crate) fn run_node_json(options: &str, payloads: &str) -> Vec<String> {
    let payloads: Vec<Value> = serde_json::from_str(payloads).expect("a JSON list");
    run_node(options, payloads)
}

/// The same with the time of each message, at which it also comes; time never goes back.
pub(crate) fn run_node_at(
    options: &str,
    payloads: impl IntoIterator<Item = (Timestamp, Value)>,
) -> Vec<String> {
    let mut run = Run::new(options);
    for (time, payload) in payloads {
        run.go_on_until(time);
        run.deliver(time, payload);
    }
    run.go_on_until(run.now.wall.saturating_add(Duration::from_secs(3600)));
    run.sent
}

/// A flow with a node `tested`, whose messages the test makes up.
///
/// Beside it runs a *twin*: the same flow in another engine, where it gets its own graph anew before it does anything, and goes on from
/// what its nodes remembered. What the two do must be the same. So each test of a node tests its state too.
pub(crate) struct Run {
    engine: Engine,
    twin: Engine,
    /// The place of the flow in the twin's engine.
    twin_flow: u32,
    steps: u32,
    graph: Arc<Graph>,
    pub(crate) now: Now,
    /// What came to `debug` nodes, as JSON, behind the node's name and a colon unless that is `sink`; failures and other
    /// effects too.
    pub(crate) sent: Vec<String>,
    /// The messages among them.
    pub(crate) messages: Vec<Message>,
}

fn between(sources: &[&str], options: &str) -> String {
    format!(
        "{}\n[nodes.sink]\ntype = 'debug'\nfrom = 'tested'",
        behind(sources, options)
    )
}

fn behind(sources: &[&str], options: &str) -> String {
    let mut flow = String::new();
    for source in sources {
        // Of no node, so that it sends nothing by itself, ever.
        flow += &format!("[nodes.{source}]\ntype = 'catch'\nnodes = []\n");
    }
    let from: Vec<String> = sources.iter().map(|source| format!("'{source}'")).collect();
    flow + &format!("[nodes.tested]\nfrom = [{}]\n{options}", from.join(", "))
}

impl Run {
    /// The node `tested` between a source that sends nothing by itself and a sink that notes what comes.
    pub(crate) fn new(options: &str) -> Run {
        Run::flow(&between(&["source"], options))
    }

    /// The same with several sources.
    pub(crate) fn with_sources(sources: &[&str], options: &str) -> Run {
        Run::flow(&between(sources, options))
    }

    /// With a sink behind each of some ports, named as the port.
    pub(crate) fn with_ports(ports: &[&str], options: &str) -> Run {
        let mut flow = behind(&["source"], options);
        for port in ports {
            flow += &format!("\n[nodes.{port}]\ntype = 'debug'\nfrom = 'tested.{port}'");
        }
        Run::flow(&flow)
    }

    /// A node that sends nothing; its effects are noted.
    pub(crate) fn sink(options: &str) -> Run {
        Run::flow(&behind(&["source"], options))
    }

    /// A whole flow, which has a node `tested`.
    pub(crate) fn flow(text: &str) -> Run {
        let mut run = Run {
            engine: Engine::new("test-device"),
            twin: Engine::new("test-device"),
            twin_flow: 0,
            steps: 0,
            graph: graph(text),
            now: Now::default(),
            sent: Vec::new(),
            messages: Vec::new(),
        };
        let mut effects = Vec::new();
        run.engine.add(run.graph.clone(), run.now, &mut effects);
        let mut of_twin = Vec::new();
        run.twin.add(run.graph.clone(), run.now, &mut of_twin);
        run.note(effects, of_twin);
        run
    }

    /// Gives the twin its graph anew, if it is its turn: always at first, then ever more seldom, for that takes its time.
    fn reload_twin(&mut self) {
        const OFTEN: u32 = 100;
        self.steps += 1;
        if self.steps > OFTEN && !self.steps.is_power_of_two() {
            return;
        }
        let mut effects = Vec::new();
        let graph = self.graph.clone();
        let reloaded = self
            .twin
            .replace(self.twin_flow, graph, self.now, &mut effects);
        self.twin_flow = reloaded.expect("the flow was built before");
        assert_eq!(effects, [], "a reload of the same graph does nothing");
    }

    pub(crate) fn deliver(&mut self, time: Timestamp, payload: Value) {
        self.deliver_on("t", time, payload);
    }

    pub(crate) fn deliver_on(&mut self, topic: &str, time: Timestamp, payload: Value) {
        self.deliver_message("source", topic, time, payload);
    }

    /// A message that seems to come from a node, to the node `tested`.
    pub(crate) fn deliver_message(
        &mut self,
        source: &str,
        topic: &str,
        time: Timestamp,
        payload: Value,
    ) {
        let source = self.graph.find(source).expect("the flow has the node");
        self.deliver_whole(Message {
            topic: topic.into(),
            payload,
            time,
            source,
            headers: None,
        });
    }

    pub(crate) fn deliver_whole(&mut self, message: Message) {
        let to = Address {
            flow: 0,
            node: self.graph.find("tested").expect("the flow has the node"),
        };
        self.reload_twin();
        let to_twin = Address {
            flow: self.twin_flow,
            ..to
        };
        let (mut effects, mut of_twin) = (Vec::new(), Vec::new());
        for (engine, to, effects) in [
            (&mut self.twin, to_twin, &mut of_twin),
            (&mut self.engine, to, &mut effects),
        ] {
            let messages = vec![message.clone()];
            engine.handle(self.now, Event::Messages { to, messages }, effects);
        }
        self.note(effects, of_twin);
    }

    pub(crate) fn go_on_until(&mut self, wall: Timestamp) {
        let end = self.now.mono_at(wall);
        while let Some(next) = self.engine.next_wake().filter(|next| *next <= end) {
            self.now = self.now.later(next.saturating_sub(self.now.mono));
            self.reload_twin();
            // All that is due at once: in which order is the engine's business.
            let (mut effects, mut of_twin) = (Vec::new(), Vec::new());
            self.twin.wake(self.now, usize::MAX, &mut of_twin);
            self.engine.wake(self.now, usize::MAX, &mut effects);
            self.note(effects, of_twin);
        }
        self.now = self.now.later(end.saturating_sub(self.now.mono));
        // What is left was for graphs that the twin has no more, or was taken back.
        let mut of_twin = Vec::new();
        self.twin.wake(self.now, usize::MAX, &mut of_twin);
        assert_eq!(of_twin, [], "after a reload there is one more wake-up");
    }

    /// Stops the flow and starts it again from its checkpoint, as another process does after the device was off for so long. The wall
    /// clock went on. What is due by then comes with the next [`Run::go_on_until`], and what follows a message may come first.
    pub(crate) fn restart(&mut self, off: Duration) {
        self.restart_at(self.now.later(off));
    }

    /// The same with any clock at the start.
    pub(crate) fn restart_at(&mut self, now: Now) {
        let before = std::mem::replace(&mut self.now, now);
        let restart = |engine: &mut Engine, flow: u32| {
            let checkpoint = engine.checkpoint(flow, before);
            let bytes = checkpoint.expect("it runs").to_bytes();
            let checkpoint = Checkpoint::from_bytes(&bytes).expect("as written");
            let mut effects = Vec::new();
            *engine = Engine::new("test-device");
            engine.add_restored(
                self.graph.clone(),
                Arc::new(checkpoint),
                self.now,
                &mut effects,
            );
            effects
        };
        let effects = restart(&mut self.engine, 0);
        let of_twin = restart(&mut self.twin, self.twin_flow);
        self.twin_flow = 0;
        self.note(effects, of_twin);
    }

    fn note(&mut self, effects: Vec<Effect>, of_twin: Vec<Effect>) {
        // As text, because NaN is not equal to itself.
        let (expected, found) = (format!("{effects:#?}"), format!("{of_twin:#?}"));
        let found = found.replace(&format!("flow: {},", self.twin_flow), "flow: 0,");
        assert!(
            found == expected,
            "after a reload the flow does\n{found}\nand without it\n{expected}"
        );
        for effect in effects {
            self.sent.push(match effect {
                Effect::Debug { from, message, .. } => {
                    let payload = message.payload.to_json();
                    self.messages.push(message);
                    match self.graph.node_name(from.node) {
                        "sink" => payload,
                        other => format!("{other}: {payload}"),
                    }
                }
                Effect::Failed { reason, .. } => format!("failed: {reason}"),
                Effect::Output { pin, drive } => format!("{pin} {drive}"),
                other => format!("{other:?}"),
            });
        }
    }
}
