//! `switch`: sends messages different ways, by rules.

use std::borrow::Cow;
use std::cmp::Ordering;

use regex_lite::Regex;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error;
use serde::{Deserialize, Deserializer};

use super::{BuildError, Definition, Problem, Surroundings, bounds};
use crate::flow::script::{Compiled, Expression};
use crate::message::{Message, Text, Value};
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

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(transform = add_signs)]
struct Rule {
    /// Is this value.
    #[serde(alias = "==")]
    eq: Option<Value>,
    /// Is another value.
    #[serde(alias = "!=")]
    ne: Option<Value>,
    /// Is less than this number or text.
    #[serde(alias = "<")]
    lt: Option<Value>,
    /// Is this number or text, or less.
    #[serde(alias = "<=")]
    le: Option<Value>,
    /// Is greater than this number or text.
    #[serde(alias = ">")]
    gt: Option<Value>,
    /// Is this number or text, or greater.
    #[serde(alias = ">=")]
    ge: Option<Value>,
    /// Is one of these two numbers or texts, or lies between them.
    between: Option<Vec<Value>>,
    /// A text that has this text in it, or a list that has this item.
    contains: Option<Value>,
    /// An object that has this field.
    has: Option<String>,
    /// A text in which this regular expression is found.
    matches: Option<Pattern>,
    /// Is of this type.
    is: Option<Kind>,
    /// Is null (`true`), or is not (`false`).
    null: Option<bool>,
    /// No other rule was met: `true`.
    r#else: Option<bool>,
    /// The port. Default: the rule's number, from `1`.
    to: Option<String>,
}

/// The other spellings of tests, for editors that read the schema.
fn add_signs(schema: &mut Schema) {
    const SIGNS: [(&str, &str); 6] = [
        ("eq", "=="),
        ("ne", "!="),
        ("lt", "<"),
        ("le", "<="),
        ("gt", ">"),
        ("ge", ">="),
    ];
    let properties = schema
        .get_mut("properties")
        .and_then(|it| it.as_object_mut());
    if let Some(properties) = properties {
        for (name, sign) in SIGNS {
            if let Some(test) = properties.get(name).cloned() {
                properties.insert(sign.into(), test);
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Null,
    Boolean,
    Number,
    Nan,
    Text,
    List,
    Object,
}

/// A regular expression whose size is bounded, so that what it takes to search a text is too.
#[derive(Clone, Debug)]
struct Pattern(Regex);

/// Bytes that a regular expression may take when it is compiled.
const LARGEST_PATTERN: usize = 64 * 1024;
/// Bytes of a text that are searched.
const LONGEST_SEARCHED: usize = 64 * 1024;

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Pattern, D::Error> {
        let text = String::deserialize(deserializer)?;
        regex_lite::RegexBuilder::new(&text)
            .size_limit(LARGEST_PATTERN)
            .build()
            .map(Pattern)
            .map_err(|error| {
                D::Error::custom(format!("`{text}` is no regular expression: {error}"))
            })
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl JsonSchema for Pattern {
    fn schema_name() -> Cow<'static, str> {
        "Pattern".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "regex" })
    }
}

impl Definition for Switch {
    const NAME: &'static str = "switch";
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

/// A valid test.
#[derive(Clone, Debug, PartialEq)]
enum Test {
    Equal(Value),
    NotEqual(Value),
    Order(Side, Value),
    Between(Value, Value),
    Contains(Value),
    Has(Text),
    Matches(Pattern),
    Is(Kind),
    Null(bool),
    Else,
}

/// On which side of a limit a value lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Less,
    AtMost,
    Greater,
    AtLeast,
}

/// Which option of a rule is wrong, and why.
type Flaw = (&'static str, String);

impl Rule {
    /// The name of the port of a rule at this place.
    fn port(&self, place: usize) -> String {
        self.to.clone().unwrap_or_else(|| (place + 1).to_string())
    }

    /// The one test of the rule.
    fn test(&self) -> Result<Test, Flaw> {
        let order = |limit: &Option<Value>, name: &'static str, side: Side| {
            let limit = limit.clone()?;
            Some((name, ordered(&limit).map(|()| Test::Order(side, limit))))
        };
        let equal = |value: &Value| match bounds::is_finite(value) {
            true => Ok(value.clone()),
            false => Err("must be finite; `is = \"nan\"` finds what is not".to_owned()),
        };
        let written = [
            self.eq
                .as_ref()
                .map(|value| (".eq", equal(value).map(Test::Equal))),
            self.ne
                .as_ref()
                .map(|value| (".ne", equal(value).map(Test::NotEqual))),
            order(&self.lt, ".lt", Side::Less),
            order(&self.le, ".le", Side::AtMost),
            order(&self.gt, ".gt", Side::Greater),
            order(&self.ge, ".ge", Side::AtLeast),
            self.between
                .as_ref()
                .map(|ends| (".between", between(ends))),
            self.contains
                .as_ref()
                .map(|item| (".contains", equal(item).map(Test::Contains))),
            self.has
                .as_deref()
                .map(|field| (".has", Ok(Test::Has(field.into())))),
            self.matches
                .clone()
                .map(|pattern| (".matches", Ok(Test::Matches(pattern)))),
            self.is.map(|kind| (".is", Ok(Test::Is(kind)))),
            self.null.map(|is_null| (".null", Ok(Test::Null(is_null)))),
            self.r#else.map(|is_else| match is_else {
                true => (".else", Ok(Test::Else)),
                false => (".else", Err("can only be `true`".to_owned())),
            }),
        ];
        let mut written = written.into_iter().flatten();
        match (written.next(), written.next()) {
            (Some((option, test)), None) => test.map_err(|wrong| (option, wrong)),
            (None, _) => Err(("", "needs a test, such as `gt = 5` or `else = true`".into())),
            (Some((one, _)), Some((other, _))) => Err((
                "",
                format!(
                    "has two tests, `{}` and `{}`; a rule has one",
                    &one[1..],
                    &other[1..]
                ),
            )),
        }
    }
}

/// Refuses what nothing can be compared with by size.
fn ordered(limit: &Value) -> Result<(), String> {
    match limit {
        Value::Number(number) if number.is_finite() => Ok(()),
        Value::Text(_) => Ok(()),
        other => Err(format!(
            "must be a finite number or text, not {}",
            match other {
                Value::Number(number) => number.to_string(),
                other => other.kind().to_owned(),
            }
        )),
    }
}

fn between(ends: &[Value]) -> Result<Test, String> {
    let [low, high] = ends else {
        return Err("needs two ends, like [2, 8]".into());
    };
    ordered(low).and_then(|()| ordered(high))?;
    match compare(low, high) {
        None => Err("must have two numbers or two texts as its ends".into()),
        Some(Ordering::Greater) => Err(format!("is empty: write it [{high}, {low}]")),
        Some(_) => Ok(Test::Between(low.clone(), high.clone())),
    }
}

/// The order of two numbers or two texts; nothing else has one here.
fn compare(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.partial_cmp(b),
        (Value::Text(a), Value::Text(b)) => Some(a.cmp(b)),
        _ => None,
    }
}

impl Test {
    fn is_met(&self, value: &Value) -> Result<bool, String> {
        Ok(match self {
            Test::Equal(other) => value == other,
            Test::NotEqual(other) => value != other,
            Test::Order(side, limit) => {
                compare(value, limit).is_some_and(|order| side.is_there(order))
            }
            Test::Between(low, high) => {
                compare(value, low).is_some_and(Ordering::is_ge)
                    && compare(value, high).is_some_and(Ordering::is_le)
            }
            Test::Contains(item) => match (value, item) {
                (Value::Text(text), Value::Text(part)) => text.contains(&**part),
                (Value::List(items), item) => items.contains(item),
                _ => false,
            },
            Test::Has(field) => value.get(field).is_some(),
            Test::Matches(pattern) => match value {
                Value::Text(text) if text.len() > LONGEST_SEARCHED => {
                    return Err(format!(
                        "a text of {} bytes is too long to look in for `{}`",
                        text.len(),
                        pattern.0.as_str()
                    ));
                }
                Value::Text(text) => pattern.0.is_match(text),
                _ => false,
            },
            Test::Is(kind) => *kind == Kind::of(value),
            Test::Null(is_null) => (*value == Value::Null) == *is_null,
            // It is asked last: the router looks whether another was met.
            Test::Else => true,
        })
    }
}

impl Side {
    /// Whether a value that compares so with the limit lies on this side.
    fn is_there(self, order: Ordering) -> bool {
        match self {
            Side::Less => order.is_lt(),
            Side::AtMost => order.is_le(),
            Side::Greater => order.is_gt(),
            Side::AtLeast => order.is_ge(),
        }
    }
}

impl Kind {
    fn of(value: &Value) -> Kind {
        match value {
            Value::Null => Kind::Null,
            Value::Bool(_) => Kind::Boolean,
            Value::Number(number) if !number.is_finite() => Kind::Nan,
            Value::Number(_) => Kind::Number,
            Value::Text(_) => Kind::Text,
            Value::List(_) => Kind::List,
            Value::Object(_) => Kind::Object,
        }
    }
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
    use crate::nodes::NodeType;
    use crate::nodes::testing::{Run, node_problems, run_node};

    /// What one rule lets through, of a JSON list.
    fn check(test: &str, payloads: &str, expected: &[&str]) {
        let payloads: Vec<Value> = serde_json::from_str(payloads).expect("JSON");
        let sent = run_node(
            &format!("type = 'switch'\nrules = [{{ {test} }}]"),
            payloads,
        );
        assert_eq!(sent, expected, "{test}");
    }

    const ALL_KINDS: &str = r#"[null, true, false, 0, 5, "", "5", "b", [], [5], {}, {"a":5}]"#;

    #[test]
    fn equality_is_of_type_and_value() {
        check("eq = 5", ALL_KINDS, &["5"]);
        check("'==' = '5'", ALL_KINDS, &["\"5\""]);
        check("eq = [5]", ALL_KINDS, &["[5]"]);
        check("eq = { a = 5 }", ALL_KINDS, &[r#"{"a":5}"#]);
        check("eq = false", ALL_KINDS, &["false"]);
        check("ne = 5", "[5, 4, \"5\", null]", &["4", "\"5\"", "null"]);
        check("'!=' = 5", "[5, 4]", &["4"]);
    }

    #[test]
    fn order_is_of_numbers_and_of_text() {
        check("lt = 5", "[4.9, 5, 5.1]", &["4.9"]);
        check("'<' = 5", "[4.9, 5, 5.1]", &["4.9"]);
        check("le = 5", "[4.9, 5, 5.1]", &["4.9", "5"]);
        check("'<=' = 5", "[4.9, 5, 5.1]", &["4.9", "5"]);
        check("gt = 5", "[4.9, 5, 5.1]", &["5.1"]);
        check("'>' = 5", "[4.9, 5, 5.1]", &["5.1"]);
        check("ge = 5", "[4.9, 5, 5.1]", &["5", "5.1"]);
        check("'>=' = 5", "[4.9, 5, 5.1]", &["5", "5.1"]);
        check("between = [2, 8]", "[1.9, 2, 8, 8.1, \"5\"]", &["2", "8"]);
        check("between = [5, 5]", "[4.9, 5, 5.1]", &["5"]);
        check(
            "between = ['b', 'd']",
            r#"["a","b","c","d","da",3]"#,
            &["\"b\"", "\"c\"", "\"d\""],
        );
        check("gt = ''", ALL_KINDS, &["\"5\"", "\"b\""]);
        check("lt = 1", ALL_KINDS, &["0"]);
    }

    #[test]
    fn parts_and_patterns_are_found() {
        check(
            "contains = 'b'",
            r#"["abc", "B", ["b"], ["ab"], {"b":1}, null]"#,
            &["\"abc\"", "[\"b\"]"],
        );
        check("contains = 5", r#"["5", [1,5], 5]"#, &["[1,5]"]);
        check(
            "has = 'a'",
            r#"[{"a":null}, {"b":1}, "a", ["a"]]"#,
            &[r#"{"a":null}"#],
        );
        check(
            "matches = '^pump-[0-9]+$'",
            r#"["pump-12", "pump-", "a pump-1", 5]"#,
            &["\"pump-12\""],
        );
        check(
            "matches = '(?i)ALARM'",
            r#"["an alarm!", "calm"]"#,
            &["\"an alarm!\""],
        );
    }

    #[test]
    fn types_are_told_apart() {
        for (kind, expected) in [
            ("null", &["null"][..]),
            ("boolean", &["true", "false"]),
            ("number", &["0", "5"]),
            ("text", &["\"\"", "\"5\"", "\"b\""]),
            ("list", &["[]", "[5]"]),
            ("object", &["{}", r#"{"a":5}"#]),
            ("nan", &[]),
        ] {
            check(&format!("is = '{kind}'"), ALL_KINDS, expected);
        }
        check("null = true", ALL_KINDS, &["null"]);
        check("null = false", "[null, 0]", &["0"]);
        check("else = true", "[null, 0]", &["null", "0"]);
    }

    #[test]
    fn what_is_no_number_is_met_by_no_comparison() {
        let odd = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY].map(Value::Number);
        let check = |test: &str, expected: usize| {
            let sent = run_node(
                &format!("type = 'switch'\nrules = [{{ {test} }}]"),
                odd.clone(),
            );
            assert_eq!(sent.len(), expected, "{test}: {sent:?}");
        };
        check("is = 'nan'", 3);
        check("is = 'number'", 0);
        check("gt = 5", 1);
        check("lt = 5", 1);
        check("between = [-1e308, 1e308]", 0);
        check("eq = 0", 0);
        check("ne = 0", 3);
    }

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
    fn long_text_is_not_searched() {
        let text = |bytes: usize| Value::from("x".repeat(bytes).as_str());
        let options = "type = 'switch'\nrules = [{ matches = 'y' }, { else = true }]";
        let check = |bytes: usize, expected: &[&str]| {
            assert_eq!(run_node(options, [text(bytes)]), expected);
        };
        check(65_536, &[]);
        check(
            65_537,
            &["failed: a text of 65537 bytes is too long to look in for `y`"],
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
        check("{ is = 'string' }", "unknown variant `string`");
        check("{ else = false }", "`rules.0.else`: can only be `true`");
        check(
            "{ else = true }, { eq = 1 }",
            "`rules.0.else`: must stand in the last rule",
        );
        check("{ eq = 1, to = 'Hot!' }", "`rules.0.to`: a port's name has");
        check("{ eq = 1, to = '' }", "`rules.0.to`: a port's name has");
        check("{ eq = 1, too = 'a' }", "unknown field `too`");
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

    #[test]
    fn the_schema_knows_the_signs() {
        let schema = NodeType::find("switch").expect("it is there").schema();
        let rule = schema
            .pointer("/$defs/Rule/properties")
            .expect("a rule's options");
        assert_eq!(rule.get("<="), rule.get("le"));
        assert!(rule.get("<=").is_some());
    }
}
