//! From tests as written to [`Test`]s: names, times, payloads.
//!
//! Everything that can be wrong is reported; tests come out only when nothing is.

mod actions;
mod expectations;
mod names;
mod times;

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use self::names::Names;
use super::options::OutboxOptions;
use super::test::{Expected, Step, Test};
use super::written::{self, WrittenFile, WrittenStep, WrittenTest};
use crate::flow::diagnostic::{Report, did_you_mean};
use crate::flow::file::is_node_name;
use crate::flow::{Graph, Site, Variables, directory};
use crate::message::{NodeId, Value};
use crate::nodes::{Use, place_of};
use crate::outbox;

/// A checkpoint more often than that would be most of what a test does.
const SHORTEST_CHECKPOINT: Duration = Duration::from_secs(1);

/// The flow of a test file, and the directory in which it and other flows are.
#[derive(Debug)]
pub(super) struct Beside {
    pub(super) directory: PathBuf,
    /// The flow's file.
    pub(super) flow: PathBuf,
}

impl Beside {
    fn name(&self) -> String {
        directory::flow_name(&self.flow)
    }

    fn file_of(&self, flow: &str) -> PathBuf {
        self.directory.join(format!("{flow}.toml"))
    }

    /// The names of the flows in the directory.
    fn names(&self) -> Vec<String> {
        let files = directory::find(&self.directory).unwrap_or_default();
        files
            .iter()
            .map(|file| directory::flow_name(file))
            .collect()
    }

    /// The flow and others with it, all with these variables.
    fn load(&self, with: &[String], variables: &Variables) -> Site {
        let mut site = Site::default();
        let others = with.iter().map(|name| self.file_of(name));
        for file in std::iter::once(self.flow.clone()).chain(others) {
            // What cannot be read is found by the number of flows.
            let _ = site.load_more(&file, |_| variables.clone());
        }
        site
    }
}

/// Checks the text of a test file. The report gets all that is wrong. Nothing is looked up of a flow that is not valid itself.
pub(super) fn check(beside: &Beside, is_flow_valid: bool, report: &mut Report) -> Vec<Test> {
    let source = report.source().clone();
    let WrittenFile { tests: written } = written::parse(&source, report);
    let mut tests = Vec::new();
    if is_flow_valid {
        for test in &written {
            let checker = Checker { beside, report };
            tests.extend(checker.test(test));
        }
    }
    if report.has_errors() {
        return Vec::new();
    }
    tests
}

struct Checker<'c> {
    beside: &'c Beside,
    report: &'c mut Report,
}

impl Checker<'_> {
    fn test(mut self, written: &WrittenTest<'_>) -> Option<Test> {
        let options = &written.options;
        let with = self.with(written);
        let flows = self.flows(written, &with?)?;
        if options.checkpoint.0 < SHORTEST_CHECKPOINT {
            let span = place(&written.table, "checkpoint");
            self.report
                .error(span, "`checkpoint`: must be at least 1s", None);
        }
        self.device(written);
        let fed = fed_nodes(&flows, written);
        let names = Names::new(&flows, &fed, &self.beside.directory);
        let steps: Vec<Step> = written
            .steps
            .iter()
            .filter_map(|step| self.step(step, &names))
            .collect();
        self.order(written, &steps);
        let flows = (0..).zip(&flows).map(|(index, flow)| {
            let of_flow = fed.iter().filter(|address| address.flow == index);
            let nodes: HashSet<NodeId> = of_flow.map(|address| address.node).collect();
            Arc::new(flow.fed(&nodes))
        });
        let flows = flows.collect();
        let expectations = || steps.iter().flat_map(|step| &step.expectations);
        let speaks_of_failures =
            expectations().any(|it| matches!(it.what, Expected::Failures { .. }));
        Some(Test {
            flow: self.beside.name(),
            name: written.name.get_ref().clone(),
            description: options.description.clone(),
            source: self.report.source().clone(),
            span: written.name.span(),
            start: options.start.0,
            device: options.device.clone(),
            flows,
            checkpoint: options.checkpoint.0,
            outbox: outbox_settings(written.outbox.as_ref()),
            steps,
            speaks_of_failures,
        })
    }

    /// The names of the flows that run with the test's.
    fn with(&mut self, written: &WrittenTest<'_>) -> Option<Vec<String>> {
        let list = written
            .table
            .get("with")
            .and_then(|list| list.get_ref().as_array());
        let mut with: Vec<String> = Vec::new();
        let mut is_right = true;
        for item in list.into_iter().flat_map(|list| list.iter()) {
            let Some(name) = item.get_ref().as_str() else {
                continue;
            };
            let problem = if name == self.beside.name() {
                Some(("this is the test's own flow".to_owned(), None))
            } else if with.iter().any(|known| known == name) {
                Some((format!("`{name}` is named twice"), None))
            } else if !is_node_name(name) || !self.beside.file_of(name).is_file() {
                let known = self.beside.names();
                let help =
                    did_you_mean(name, known.iter().map(String::as_str)).unwrap_or_else(|| {
                        format!("it would be {}", self.beside.file_of(name).display())
                    });
                Some((
                    format!("there is no flow `{name}` beside this one"),
                    Some(help),
                ))
            } else {
                None
            };
            match problem {
                None => with.push(name.to_owned()),
                Some((message, help)) => {
                    is_right = false;
                    self.report.error(item.span(), message, help);
                }
            }
        }
        is_right.then_some(with)
    }

    /// The flows of the test, with the variables that it gives them.
    fn flows(&mut self, written: &WrittenTest<'_>, with: &[String]) -> Option<Vec<Arc<Graph>>> {
        let plain = self.beside.load(with, &Variables::default());
        if plain.flows.len() < plain.files {
            let first = plain.diagnostics.iter().find(|found| found.is_error());
            let help = first.map(ToString::to_string);
            let message = "these flows cannot run together";
            self.report
                .error(place(&written.table, "with"), message, help);
            return None;
        }
        let vars = &written.options.vars;
        let table = written
            .table
            .get("vars")
            .and_then(|vars| vars.get_ref().as_table());
        let Some(table) = table.filter(|_| !vars.is_empty()) else {
            return Some(plain.flows);
        };
        let before = self.report.diagnostics.len();
        self.variables(table, vars, &plain.flows);
        if self.report.diagnostics.len() > before {
            return None;
        }
        let variables = Variables {
            values: vars.clone(),
            texts: BTreeMap::new(),
        };
        let given = self.beside.load(with, &variables);
        if given.flows.len() < given.files {
            let first = given.diagnostics.iter().find(|found| found.is_error());
            let help = first.map(ToString::to_string);
            let message = "with these variables the flow is not valid";
            self.report
                .error(place(&written.table, "vars"), message, help);
            return None;
        }
        Some(given.flows)
    }

    fn variables(
        &mut self,
        table: &DeTable<'_>,
        vars: &BTreeMap<String, Value>,
        flows: &[Arc<Graph>],
    ) {
        let known = || flows.iter().flat_map(|flow| flow.vars().keys());
        for (key, value) in table {
            let name: &str = key.get_ref();
            if !known().any(|known| &**known == name) {
                let help = did_you_mean(name, known().map(|known| &**known));
                let message = format!("the flow has no variable `{name}`");
                self.report.error(key.span(), message, help);
            } else if !matches!(
                vars.get(name),
                Some(Value::Bool(_) | Value::Number(_) | Value::Text(_))
            ) {
                let message = format!("`{name}` must be text, a number or true/false");
                self.report.error(value.span(), message, None);
            }
        }
    }

    fn device(&mut self, written: &WrittenTest<'_>) {
        if let Err(problem) = crate::config::DeviceId::parse(&written.options.device) {
            let span = place(&written.table, "device");
            self.report
                .error(span, format!("`device`: {problem}"), None);
        }
    }

    fn step(&mut self, written: &WrittenStep<'_>, names: &Names<'_>) -> Option<Step> {
        let when = times::when(written, self.report);
        let actions = actions::read(written, when, names, self.report);
        let expectations = expectations::read(written, when, names, self.report);
        let says_nothing = actions::KEYS
            .iter()
            .chain(expectations::KEYS)
            .all(|key| !written.table.contains_key(*key));
        if says_nothing && written.is_complete {
            let help = "it has `feed`, `pin`, `uplink`, `disk`, `power_cut`, `restart` or `clock_step` to do something, and \
                        `expect`, `failures` or `outbox` to look at something";
            let message = "this step does nothing and expects nothing";
            self.report
                .error(written.span.clone(), message, Some(help.into()));
        }
        Some(Step {
            when: when?,
            span: written.span.clone(),
            actions,
            expectations,
        })
    }

    /// What must hold of all steps together.
    fn order(&mut self, written: &WrittenTest<'_>, steps: &[Step]) {
        let expects = |step: &WrittenStep<'_>| {
            expectations::KEYS
                .iter()
                .any(|key| step.table.contains_key(*key))
        };
        if !written.steps.iter().any(expects) && written.table.contains_key("steps") {
            let help = "a step with `expect.NODE`, `failures` or `outbox` says what must be so; without one the test cannot fail";
            let message = format!("the test `{}` expects nothing", written.name.get_ref());
            self.report
                .error(written.name.span(), message, Some(help.into()));
        }
        let start = written.options.start.0;
        for step in steps {
            let end = start.saturating_add(step.when.last());
            if end.saturating_since(start) < step.when.last() {
                let message = "this lies beyond the year 2261";
                self.report.error(step.span.clone(), message, None);
            }
        }
    }
}

/// The sources that rest: those that a step feeds, and all sensors.
fn fed_nodes(flows: &[Arc<Graph>], written: &WrittenTest<'_>) -> HashSet<crate::runtime::Address> {
    let none = HashSet::new();
    let names = Names::new(flows, &none, Path::new(""));
    let mut fed: HashSet<_> = (0..)
        .zip(flows)
        .flat_map(|(flow, graph)| {
            let sensors = graph.uses();
            let sensors = sensors.filter(|(_, needed)| matches!(needed, Use::Sensor(_)));
            sensors.map(move |(node, _)| crate::runtime::Address { flow, node })
        })
        .collect();
    for step in &written.steps {
        for (key, _) in entries(&step.table, "feed") {
            fed.extend(
                names
                    .find(key.get_ref())
                    .filter(|node| names.can_be_fed(*node)),
            );
        }
    }
    fed
}

fn outbox_settings(options: Option<&OutboxOptions>) -> outbox::Settings {
    let mut settings = outbox::Settings::new("");
    if let Some(options) = options {
        settings.commit = options.commit.map_or(settings.commit, |span| span.0);
        settings.max_size = options.max_size.map_or(settings.max_size, |size| size.0);
        settings.when_full = options.when_full.unwrap_or(settings.when_full);
    }
    settings
}

/// The entries of a table inside of another one.
fn entries<'t, 'a>(
    table: &'t DeTable<'a>,
    key: &str,
) -> impl Iterator<
    Item = (
        &'t Spanned<toml::de::DeString<'a>>,
        &'t Spanned<DeValue<'a>>,
    ),
> {
    let inner = table.get(key).and_then(|value| value.get_ref().as_table());
    inner.into_iter().flat_map(|inner| inner.iter())
}

/// Where the value of a key stands.
fn place(table: &DeTable<'_>, key: &str) -> Range<usize> {
    place_of(table, key).unwrap_or_default()
}

/// A value of a file as a payload.
fn payload(value: &Spanned<DeValue<'_>>) -> Value {
    Value::deserialize(ValueDeserializer::from(value.clone())).unwrap_or_default()
}
