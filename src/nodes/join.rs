//! `join`: puts messages together: the parts of one, or the newest of several sensors.

mod auto;
mod fields;
mod gather;
mod latest;

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use self::auto::Reassembler;
use self::fields::{Fields, What};
use self::gather::Gatherer;
use self::latest::Latest;
use super::bounds::MOST_PARTS;
use super::{BuildError, Definition, Problem, Surroundings, parts};
use crate::flow::estimate::Load;
use crate::flow::options::Span;
use crate::message::Text;
use crate::runtime::node::Node;

/// Puts several messages together into one: the parts of a message that `split` or `csv` took apart, or messages of several
/// sensors.
///
/// `auto` joins what belongs together by `headers.parts` into what it was: a list, an object, a text. The whole has its own
/// topic and headers again. A message without `headers.parts` fails. At most 1,000 wholes are waited for; the oldest fails
/// for one more.
///
/// The other modes join what comes, of all topics: `list` payloads one after the other; `text` them as one text, with `with`
/// between (what is not text as JSON); `object` them as the fields of an object, named by topic or source; `merge` the fields
/// of several objects into one. Of two values for one field the later counts. What is together goes out after `count`
/// messages (`object`: fields), or when all `keys` are there, or `every` so long after the first message, whichever
/// comes first.
///
/// What is not complete `timeout` after its first message fails, or goes out as it is with `partial`. To join always the
/// newest value of several sensors, use `mode = "object"` with `by = "source"`, `keep = true` and `keys`.
///
/// The result has time and topic of its last message, and its headers but for `parts`. Times here are monotonic. What came is
/// kept over a restart, and the time while the device is off counts. Together,
/// what is kept may have 10,000 payloads to one result, 100,000 values and 4 MiB of text; what is beyond fails.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Join {
    /// What to make: `auto`, `list`, `text`, `object` or `merge`. Default: `auto`.
    #[serde(default)]
    mode: Mode,
    /// How many messages make a result, up to 10,000; for an `object`, how many fields. Not with `keys`.
    count: Option<usize>,
    /// The fields that make an `object` or `merge` complete; further ones may be there too.
    keys: Option<Vec<String>>,
    /// What names the fields of an `object`: the messages' `topic`, or their `source` (the node they come from). Default:
    /// `topic`.
    by: Option<By>,
    /// Whether an `object` or `merge` keeps its values when it has gone out, so that it goes out again, whole, with each
    /// further message; with `every`, no more often than that. Default: `false`.
    #[serde(default)]
    keep: bool,
    /// How long after its first message what is there goes out, from `1ms`.
    every: Option<Span>,
    /// How long to wait for what is missing, from `1ms`. Default: `1m`. With `keep`: how long a value counts. Default: for
    /// ever.
    timeout: Option<Span>,
    /// Whether what is not complete at the `timeout` goes out as it is. Default: `false`.
    #[serde(default)]
    partial: bool,
    /// What stands between the pieces of a `text`. Default: a line end.
    with: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Mode {
    #[default]
    Auto,
    List,
    Text,
    Object,
    Merge,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum By {
    #[default]
    Topic,
    Source,
}

const DEFAULT_TIMEOUT: Span = Span(Duration::from_secs(60));

impl Definition for Join {
    const NAME: &'static str = "join";
    const EXAMPLE: &'static str = r#"
[nodes.temperature]
type = "iio"
device = "bme280"
channel = "temp"

[nodes.humidity]
type = "iio"
device = "bme280"
channel = "humidityrelative"

[nodes.climate]
type = "join"
from = ["temperature", "humidity"]
mode = "object"
by = "source"
keys = ["temperature", "humidity"]
keep = true
timeout = "5m"

[nodes.show]
type = "debug"
from = "climate"
"#;

    fn inputs(&self) -> Vec<(&'static str, String)> {
        match (&self.keys, self.by) {
            (Some(keys), Some(By::Source)) => {
                keys.iter().map(|key| ("keys", key.clone())).collect()
            }
            _ => Vec::new(),
        }
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems = self.out_of_place();
        let mut wrong = |option: &str, message: &str| problems.push(Problem::new(option, message));
        if self
            .count
            .is_some_and(|count| !(1..=MOST_PARTS).contains(&count))
        {
            wrong("count", "must be from 1 to 10,000");
        }
        if let Some(keys) = &self.keys {
            if keys.is_empty() || keys.len() > MOST_PARTS {
                wrong("keys", "must name from 1 to 10,000 fields");
            }
            let twice = (1..keys.len()).find(|place| keys[..*place].contains(&keys[*place]));
            if let Some(place) = twice {
                wrong(&format!("keys.{place}"), "is named twice");
            }
            if self.count.is_some() {
                wrong("count", "says the same as `keys`; leave one of them out");
            }
        }
        let least = Span(Duration::from_millis(1));
        if self.every.is_some_and(|every| every < least) {
            wrong("every", "must be at least 1ms");
        }
        if self.timeout.is_some_and(|timeout| timeout < least) {
            wrong("timeout", "must be at least 1ms");
        }
        problems
    }

    fn load(&self, input: Load) -> Load {
        match self.mode {
            Mode::Auto => input,
            _ if self.keep => {
                let fields = self
                    .keys
                    .as_ref()
                    .map_or(self.count, |keys| Some(keys.len()));
                let whole = input.sized(input.bytes * fields.unwrap_or(2) as f64);
                self.every
                    .map_or(whole, |every| whole.at_most_every(every.0))
            }
            _ => self.load_of_gathered(input),
        }
    }

    fn build(&self, site: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError> {
        let timeout = self.timeout.unwrap_or(DEFAULT_TIMEOUT).0;
        if self.mode == Mode::Auto {
            return Ok(Box::new(Reassembler::new(timeout, self.partial)));
        }
        let what = match (self.mode, self.by.unwrap_or_default()) {
            (Mode::Merge, _) => What::FieldsOfPayload,
            (_, By::Topic) => What::PayloadByTopic,
            (_, By::Source) => What::PayloadBySource(site.nodes.clone()),
        };
        let need = match (&self.keys, self.count) {
            (Some(keys), _) => Need::Keys(keys.iter().map(|key| key.as_str().into()).collect()),
            (None, Some(count)) => Need::Count(count),
            (None, None) => Need::Nothing,
        };
        if self.keep {
            let every = self.every.map(|every| every.0);
            let counts_for = self.timeout.map(|timeout| timeout.0);
            return Ok(Box::new(Latest::new(what, need, every, counts_for)));
        }
        let shape = match self.mode {
            Mode::Text => gather::Shape::Text(self.with.as_deref().unwrap_or("\n").into()),
            Mode::Object | Mode::Merge => gather::Shape::Fields(what),
            Mode::List | Mode::Auto => gather::Shape::List,
        };
        let at_end = match (self.every, self.partial) {
            (Some(every), _) => gather::AtEnd::SendAfter(every.0),
            (None, true) => gather::AtEnd::SendAfter(timeout),
            (None, false) => gather::AtEnd::FailAfter(timeout),
        };
        Ok(Box::new(Gatherer::new(shape, need, at_end)))
    }
}

impl Join {
    /// Options that mean nothing together, or whose partner is missing.
    fn out_of_place(&self) -> Vec<Problem> {
        let is_auto = self.mode == Mode::Auto;
        let has_fields = matches!(self.mode, Mode::Object | Mode::Merge);
        let is_complete_by = self.count.is_some() || self.keys.is_some() || self.every.is_some();
        let found = [
            (
                is_auto && self.count.is_some(),
                "count",
                "does not go with `mode = \"auto\"`, where the parts say how many they are",
            ),
            (
                is_auto && self.every.is_some(),
                "every",
                "does not go with `mode = \"auto\"`; use `timeout`, with `partial`",
            ),
            (
                self.keys.is_some() && !has_fields,
                "keys",
                "needs `mode = \"object\"` or \"merge\"",
            ),
            (
                self.keep && !has_fields,
                "keep",
                "needs `mode = \"object\"` or \"merge\"",
            ),
            (
                self.by.is_some() && self.mode != Mode::Object,
                "by",
                "needs `mode = \"object\"`",
            ),
            (
                self.with.is_some() && self.mode != Mode::Text,
                "with",
                "needs `mode = \"text\"`",
            ),
            (
                !is_auto && !self.keep && !is_complete_by,
                "mode",
                "needs `count`, `every`, or for an object `keys`, to say when the result goes out",
            ),
            (
                self.keep && self.partial,
                "partial",
                "does not go with `keep`; without `count` and `keys` what is there goes out",
            ),
            (
                !self.keep && self.every.is_some() && self.timeout.is_some(),
                "timeout",
                "does not go with `every`, after which what is there goes out",
            ),
            (
                self.every.is_some() && self.partial,
                "partial",
                "does not go with `every`, after which what is there goes out",
            ),
        ];
        let wrong = found.into_iter().filter(|(is_wrong, ..)| *is_wrong);
        wrong
            .map(|(_, option, message)| Problem::new(option, message))
            .collect()
    }

    fn load_of_gathered(&self, input: Load) -> Load {
        let messages = match (&self.keys, self.count) {
            // One message may bring all fields.
            (Some(_), _) if self.mode == Mode::Merge => 1,
            (Some(keys), _) => keys.len(),
            (None, Some(count)) => count,
            (None, None) => MOST_PARTS,
        };
        let waits = self.every.or(self.timeout.filter(|_| self.partial));
        parts::load_together(input, messages.max(1), waits.map(|waits| waits.0))
    }
}

/// When something is complete.
enum Need {
    Count(usize),
    Keys(Vec<Text>),
    Nothing,
}

impl Need {
    /// Whether it is, after so many messages or fields.
    fn is_met(&self, count: usize, fields: &Fields) -> bool {
        match self {
            Need::Count(needed) => count >= *needed,
            Need::Keys(keys) => keys.iter().all(|key| fields.has(key)),
            Need::Nothing => false,
        }
    }

    /// What is missing, in words.
    fn missing(&self, count: usize, fields: &Fields) -> String {
        match self {
            Need::Count(needed) => format!("only {count} of {needed} came"),
            Need::Keys(keys) => {
                let missing = keys.iter().filter(|key| !fields.has(key));
                format!("{} did not come", named(missing))
            }
            Need::Nothing => format!("only {count} came"),
        }
    }
}

/// Names of fields for a message to the user, the first few of them.
fn named<'a>(names: impl Iterator<Item = &'a Text>) -> String {
    const MOST_NAMED: usize = 5;
    let names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
    let first = names.get(..MOST_NAMED).unwrap_or(&names).join(", ");
    match names.len().saturating_sub(MOST_NAMED) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use crate::flow::estimate::Load;
    use crate::nodes::testing::{graph, node_problems, problems};

    #[test]
    fn mistakes_are_said() {
        let check = |options: &str, expected: &str| {
            let found = node_problems(&format!("type = 'join'\n{options}"));
            assert_eq!(found.len(), 1, "{options}: {found:?}");
            assert!(found[0].contains(expected), "{options}: {found:?}");
        };
        check("count = 2", "`count`: does not go with `mode = \"auto\"`");
        check(
            "every = '1s'",
            "`every`: does not go with `mode = \"auto\"`",
        );
        check("mode = 'list'", "`mode`: needs `count`, `every`");
        check("mode = 'object'", "`mode`: needs `count`, `every`");
        check(
            "mode = 'list'\ncount = 0",
            "`count`: must be from 1 to 10,000",
        );
        check(
            "mode = 'list'\ncount = 10001",
            "`count`: must be from 1 to 10,000",
        );
        check(
            "mode = 'list'\nkeys = ['a']",
            "`keys`: needs `mode = \"object\"`",
        );
        check(
            "mode = 'text'\ncount = 2\nkeep = true",
            "`keep`: needs `mode = \"object\"`",
        );
        check(
            "mode = 'merge'\ncount = 2\nby = 'topic'",
            "`by`: needs `mode = \"object\"`",
        );
        check(
            "mode = 'list'\ncount = 2\nwith = ','",
            "`with`: needs `mode = \"text\"`",
        );
        check(
            "mode = 'object'\nkeys = []",
            "`keys`: must name from 1 to 10,000 fields",
        );
        check(
            "mode = 'object'\nkeys = ['a', 'b', 'a']",
            "`keys.2`: is named twice",
        );
        check(
            "mode = 'object'\nkeys = ['a']\ncount = 1",
            "`count`: says the same as `keys`",
        );
        check(
            "mode = 'object'\nkeep = true\npartial = true",
            "`partial`: does not go with `keep`",
        );
        check(
            "mode = 'list'\nevery = '1s'\ntimeout = '1s'",
            "`timeout`: does not go with `every`",
        );
        check(
            "mode = 'list'\nevery = '1s'\npartial = true",
            "`partial`: does not go with `every`",
        );
        check(
            "mode = 'list'\nevery = '0s'",
            "`every`: must be at least 1ms",
        );
        check("timeout = '0s'", "`timeout`: must be at least 1ms");
        check("mode = 'array'", "`array` is not known here");
        check(
            "mode = 'object'\nby = 'source'\nkeys = ['sourec']",
            "`keys`: this node does not read from `sourec` (did you mean `source`?)",
        );
    }

    #[test]
    fn what_is_meant_is_not_complained_about() {
        for options in [
            "timeout = '5s'\npartial = true",
            "mode = 'object'\nkeep = true",
            "mode = 'object'\nkeep = true\nevery = '1s'\ntimeout = '5s'",
            "mode = 'merge'\nkeys = ['a']\npartial = true",
            "mode = 'text'\nwith = ', '\nevery = '1s'",
            "mode = 'object'\nby = 'source'\nkeys = ['source']",
            "mode = 'object'\nkeys = ['any topic']",
        ] {
            let found = node_problems(&format!("type = 'join'\n{options}"));
            assert_eq!(found, [""; 0], "{options}");
        }
    }

    #[test]
    fn a_key_that_is_a_port_is_found_by_its_node() {
        let found = problems(
            "[nodes.s]\ntype = 'switch'\nfrom = 'a'\nrules = [{ else = true, to = 'x' }]\n\
             [nodes.a]\ntype = 'inject'\nevery = '1s'\n\
             [nodes.j]\ntype = 'join'\nfrom = ['s.x', 'a']\nmode = 'object'\nby = 'source'\nkeys = ['s', 'a']\n\
             [nodes.d]\ntype = 'debug'\nfrom = 'j'",
        );
        assert_eq!(found, [""; 0]);
    }

    #[test]
    fn the_load_follows_from_the_options() {
        let check = |options: &str, expected: (f64, f64)| {
            let graph = graph(&format!(
                "[nodes.a]\ntype = 'inject'\nevery = '1s'\n[nodes.j]\ntype = 'join'\nfrom = 'a'\n{options}\n[nodes.d]\ntype = 'debug'\nfrom = 'j'"
            ));
            let join = graph.find("j").expect("it is there");
            let load = graph.nodes()[usize::from(join.0)].spec.load(Load {
                per_second: 2.0,
                bytes: 10.0,
            });
            assert_eq!((load.per_second, load.bytes), expected, "{options}");
        };
        check("", (2.0, 10.0));
        check("mode = 'list'\ncount = 4", (0.5, 40.0));
        check("mode = 'list'\ncount = 4\nevery = '1s'", (1.5, 20.0));
        check("mode = 'object'\nkeys = ['a', 'b']", (1.0, 20.0));
        check("mode = 'merge'\nkeys = ['a', 'b']", (2.0, 10.0));
        check(
            "mode = 'object'\nkeys = ['a', 'b']\nkeep = true",
            (2.0, 20.0),
        );
        check("mode = 'object'\nkeep = true\nevery = '10s'", (0.1, 20.0));
    }
}
