//! `switch`: sends messages different ways, by rules.

mod rule;

use schemars::JsonSchema;
use serde::Deserialize;

use self::rule::{Rule, Test};
use super::{BuildError, Definition, Problem, Surroundings};
use crate::flow::script::{Compiled, Expression};
use crate::message::Message;
use crate::runtime::node::{Context, Node};

/// Sends each message on by the rules it meets, each with an output port.
///
/// A rule is one test and, with `to`, the name of a port; without it the port is the rule's number: `from = "NODE.2"` reads
/// what meets the second rule, `from = "NODE"` what goes to the first rule's port. Rules may share a port. What meets no
/// rule ends here.
///
/// The tests, of which some may be written as a sign (`"<" = 5`):
///
/// - `eq` (`==`) and `ne` (`!=`): the same value, of the same type; or not.
/// - `lt` (`<`), `le` (`<=`), `gt` (`>`), `ge` (`>=`), `between = [LOW, HIGH]` with both ends: numbers by size, text by code
///   point.
/// - `contains`: a text has this text in it, a list has this item. `has`: an object has this field.
/// - `matches`: this regular expression is found in a text; `^` and `$` tie it to the ends, `(?i)` makes it blind to case.
/// - `is`: the type, which is `null`, `boolean`, `number` (a finite one), `nan` (NaN or an infinity), `text`, `list` or
///   `object`.
/// - `null = true` or `false`: is null, or is not.
/// - `else = true`, in the last rule: no other one was met.
///
/// A value of another type than the test's does not meet it, which is no failure; it is not equal (`ne`). A message fails if
/// its value cannot be computed, or is text of more than 64 KiB where a regular expression would have to look.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Switch {
    /// What to test, in JavaScript; it sees what the condition of `where` sees. Default: `payload`.
    value: Option<Expression>,
    /// The rules, in order: `{ gt = 60, to = "hot" }`. A port's name has lower-case letters, digits, `_` and `-`.
    rules: Vec<Rule>,
    /// Which rules send a message on: the `first` one met, or `all` that are met. A port to which several lead gets it once.
    /// Default: `first`.
    #[serde(default)]
    r#match: Match,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Match {
    #[default]
    First,
    All,
}

impl Definition for Switch {
    const NAME: &'static str = "switch";
    const PORTS: &'static [&'static str] = &[];
    const NAMES_PORTS: bool = true;
    const EXAMPLE: &'static str = r#"
[nodes.probe]
type = "ds18b20"
device = "28-0316a2795aff"

[nodes.by-temperature]
type = "switch"
from = "probe"
rules = [
  { gt = 8, to = "spoiling" },
  { between = [2, 8], to = "good" },
  { else = true, to = "freezing" },
]

[nodes.alarm]
type = "debug"
from = ["by-temperature.spoiling", "by-temperature.freezing"]

[nodes.show]
type = "debug"
from = "by-temperature.good"
"#;

    fn ports(&self) -> Vec<String> {
        let mut ports = Vec::new();
        for (place, rule) in self.rules.iter().enumerate() {
            let port = rule.port(place);
            if !ports.contains(&port) {
                ports.push(port);
            }
        }
        ports
    }

    fn problems(&self) -> Vec<Problem> {
        if self.rules.is_empty() {
            return vec![Problem::new("rules", "must have at least one rule")];
        }
        let mut problems = Vec::new();
        for (place, rule) in self.rules.iter().enumerate() {
            let at = |option: &str| format!("rules.{place}{option}");
            if let Err((option, wrong)) = rule.test() {
                problems.push(Problem::new(at(option), wrong));
            }
            if rule.to.as_ref().is_some_and(|port| !is_port_name(port)) {
                let wrong = "a port's name has lower-case letters, digits, `_` and `-` only";
                problems.push(Problem::new(at(".to"), wrong));
            }
            if rule.r#else.is_some() && place + 1 < self.rules.len() {
                let wrong = "must stand in the last rule: the ones after it would never be met";
                problems.push(Problem::new(at(".else"), wrong));
            }
        }
        problems
    }

    fn warnings(&self) -> Vec<Problem> {
        let tests: Vec<Option<Test>> = self.rules.iter().map(|rule| rule.test().ok()).collect();
        let mut warnings = Vec::new();
        for (place, test) in tests.iter().enumerate().filter(|(_, test)| test.is_some()) {
            let earlier = tests[..place].iter().position(|earlier| earlier == test);
            let Some(earlier) = earlier else { continue };
            let is_idle = self.r#match == Match::First
                || self.rules[earlier].port(earlier) == self.rules[place].port(place);
            if is_idle {
                let message = format!("does nothing: `rules.{earlier}` has the same test");
                warnings.push(Problem::new(format!("rules.{place}"), message));
            }
        }
        warnings
    }

    fn build(&self, site: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError> {
        let ports = Definition::ports(self);
        let port_of = |place: usize, rule: &Rule| {
            let name = rule.port(place);
            let found = ports.iter().position(|port| *port == name);
            found.expect("`ports` has the port of each rule")
        };
        let rules = self.rules.iter().enumerate().map(|(place, rule)| {
            let test = rule.test().expect("`problems` refuses other rules");
            (test, port_of(place, rule))
        });
        let value = self.value.as_ref().map(|value| site.compile(value));
        Ok(Box::new(Router {
            value: value.transpose()?,
            rules: rules.collect(),
            is_first_only: self.r#match == Match::First,
            met: Vec::new(),
        }))
    }
}

fn is_port_name(name: &str) -> bool {
    let is_fit =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
    !name.is_empty() && name.bytes().all(is_fit)
}

struct Router {
    value: Option<Compiled>,
    /// Each with the place of its port.
    rules: Vec<(Test, usize)>,
    is_first_only: bool,
    /// The ports of the rules that the message at hand met; kept for its memory.
    met: Vec<usize>,
}

impl Node for Router {
    fn message(&mut self, message: &mut Message, cx: &mut Context<'_>) {
        let computed;
        let value = match self.value.as_ref().map(|value| value.value(message)) {
            None => &message.payload,
            Some(Ok(value)) => {
                computed = value;
                &computed
            }
            Some(Err(error)) => return cx.fail(error.to_string()),
        };
        self.met.clear();
        for (test, port) in &self.rules {
            if *test == Test::Else && !self.met.is_empty() {
                break;
            }
            match test.is_met(value) {
                Ok(false) => {}
                Ok(true) if self.is_first_only => return cx.pass(*port),
                Ok(true) if self.met.contains(port) => {}
                Ok(true) => self.met.push(*port),
                Err(reason) => return cx.fail(reason),
            }
        }
        if let Some((last, others)) = self.met.split_last() {
            for port in others {
                cx.emit(*port, message.clone());
            }
            cx.pass(*last);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::message::{Timestamp, Value};
    use crate::nodes::testing::{Run, node_problems};

    const THREE: &str = "rules = [{ lt = 5, to = 'low' }, { gt = 3, to = 'high' }, { eq = 4, to = 'low' }, { is = 'text', to = 'word' }, { else = true, to = 'other' }]";

    fn check_ports(options: &str, payloads: &str, expected: &[&str]) {
        let mut run = Run::with_ports(
            &["low", "high", "word", "other"],
            &format!("type = 'switch'\n{THREE}\n{options}"),
        );
        let payloads: Vec<Value> = serde_json::from_str(payloads).expect("JSON");
        for payload in payloads {
            run.deliver(Timestamp::default(), payload);
        }
        assert_eq!(run.sent, expected, "{options}");
    }

    #[test]
    fn the_first_rule_that_is_met_decides() {
        check_ports(
            "",
            "[4, 6, null, \"a\"]",
            &["low: 4", "high: 6", "other: null", "word: \"a\""],
        );
    }

    #[test]
    fn with_all_each_port_gets_the_message_once() {
        check_ports(
            "match = 'all'",
            "[4, 6, 2, null]",
            &["low: 4", "high: 4", "high: 6", "low: 2", "other: null"],
        );
    }

    #[test]
    fn ports_are_named_by_number_or_by_name_and_the_first_is_the_nodes() {
        let mut run = Run::flow(
            "[nodes.source]\ntype = 'inject'\nevery = '10000d'\n\
             [nodes.tested]\ntype = 'switch'\nfrom = 'source'\nrules = [{ lt = 1 }, { lt = 2 }, { lt = 3, to = '1' }]\n\
             [nodes.one]\ntype = 'debug'\nfrom = 'tested'\n[nodes.two]\ntype = 'debug'\nfrom = 'tested.2'",
        );
        for payload in [0.0, 1.0, 2.0, 3.0] {
            run.deliver(Timestamp::default(), payload.into());
        }
        assert_eq!(run.sent, ["one: 0", "two: 1", "one: 2"]);
    }

    #[test]
    fn a_value_is_computed() {
        let mut run = Run::new("type = 'switch'\nvalue = 'payload.t'\nrules = [{ gt = 5 }]");
        let payloads: Vec<Value> =
            serde_json::from_str(r#"[{"t":6}, {"t":4}, null, 9]"#).expect("JSON");
        for payload in payloads {
            run.deliver(Timestamp::default(), payload);
        }
        assert_eq!(
            run.sent,
            [
                r#"{"t":6}"#,
                "failed: JavaScript: cannot read property 't' of null"
            ]
        );
    }

    #[test]
    fn mistakes_in_rules_are_said() {
        let check = |rules: &str, expected: &str| {
            let found = node_problems(&format!("type = 'switch'\nrules = [{rules}]"));
            let found: Vec<&String> = found.iter().filter(|it| it.contains("error")).collect();
            assert_eq!(found.len(), 1, "{rules}: {found:?}");
            assert!(found[0].contains(expected), "{rules}: {found:?}");
        };
        check("", "`rules`: must have at least one rule");
        check("{ to = 'a' }", "`rules.0`: needs a test");
        check(
            "{ lt = 1, gt = 0 }",
            "`rules.0`: has two tests, `lt` and `gt`",
        );
        check("{ eq = nan }", "`rules.0.eq`: must be finite");
        check(
            "{ lt = true }",
            "`rules.0.lt`: must be a finite number or text, not a boolean",
        );
        check(
            "{ gt = inf }",
            "`rules.0.gt`: must be a finite number or text, not inf",
        );
        check("{ between = [1] }", "`rules.0.between`: needs two ends");
        check(
            "{ between = [8, 2] }",
            "`rules.0.between`: is empty: write it [2, 8]",
        );
        check("{ between = [1, 'a'] }", "two numbers or two texts");
        check("{ between = [1, nan] }", "not NaN");
        check("{ matches = '(' }", "`(` is no regular expression");
        check(
            "{ matches = '(a{1000}){1000}' }",
            "is no regular expression",
        );
        check("{ is = 'string' }", "`string` is not known here");
        check("{ else = false }", "`rules.0.else`: can only be `true`");
        check(
            "{ else = true }, { eq = 1 }",
            "`rules.0.else`: must stand in the last rule",
        );
        check("{ eq = 1, to = 'Hot!' }", "`rules.0.to`: a port's name has");
        check("{ eq = 1, to = '' }", "`rules.0.to`: a port's name has");
        check("{ eq = 1, too = 'a' }", "there is no `too` here");
    }

    #[test]
    fn a_rule_that_does_nothing_is_a_warning() {
        let check = |options: &str, expected: &[&str]| {
            let found = node_problems(&format!("type = 'switch'\n{options}"));
            let found: Vec<&str> = found
                .iter()
                .filter_map(|it| it.split_once("warning: ").map(|(_, message)| message))
                .collect();
            assert_eq!(found, expected, "{options}");
        };
        let twice = "rules = [{ gt = 5 }, { lt = 5 }, { '>' = 5 }]";
        check(
            twice,
            &["`rules.2`: does nothing: `rules.0` has the same test"],
        );
        check(&format!("{twice}\nmatch = 'all'"), &[]);
        check(
            "rules = [{ matches = 'a', to = 'x' }, { matches = 'a', to = 'x' }]\nmatch = 'all'",
            &["`rules.1`: does nothing: `rules.0` has the same test"],
        );
        check("rules = [{ matches = 'a' }, { matches = 'b' }]", &[]);
    }
}
