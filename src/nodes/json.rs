//! `json`: between JSON text and values.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{BuildError, Definition, Surroundings, bounds};
use crate::message::{Message, Value};
use crate::runtime::node::{Context, Node};

/// Makes a value of JSON text, and JSON text of a value.
///
/// A message fails if its text is not valid JSON, is longer than 1 MiB or nested more than 127 deep, and if the text of its
/// value would be longer than 1 MiB. Numbers are 64-bit floats: whole ones are exact up to 2^53, and what is too large for
/// one fails. Of two fields with the same name the last counts. NaN and infinities have no form in JSON and become `null`.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Json {
    /// `auto` parses text and makes text of everything else; `parse` makes a value of text and passes on what is a value
    /// already; `stringify` makes text of a value and passes on what is text already. Default: `auto`.
    #[serde(default)]
    action: Action,
}

/// Between text and values, which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Action {
    #[default]
    Auto,
    Parse,
    Stringify,
}

impl Definition for Json {
    const NAME: &'static str = "json";
    const EXAMPLE: &'static str = r#"
[nodes.meter]
type = "inject"
every = "10s"
payload = '{"power": 412.5, "unit": "W"}'

[nodes.reading]
type = "json"
from = "meter"
action = "parse"

[nodes.power]
type = "change"
from = "reading"
rules = [{ move = "payload.power", to = "payload" }]

[nodes.show]
type = "debug"
from = "power"
"#;

    fn build(&self, _: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError> {
        Ok(Box::new(Converter {
            action: self.action,
        }))
    }
}

struct Converter {
    action: Action,
}

impl Node for Converter {
    fn message(&mut self, message: &mut Message, cx: &mut Context<'_>) {
        let converted = match (&message.payload, self.action) {
            (Value::Text(text), Action::Auto | Action::Parse) => parse(text),
            (Value::Text(_), Action::Stringify) | (_, Action::Parse) => return cx.pass(0),
            (value, Action::Auto | Action::Stringify) => {
                bounds::to_json(value).map(|text| Value::Text(text.into()))
            }
        };
        match converted {
            Ok(value) => {
                message.payload = value;
                cx.pass(0);
            }
            Err(reason) => cx.fail(reason),
        }
    }
}

fn parse(text: &str) -> Result<Value, String> {
    if text.len() > bounds::LONGEST_TEXT {
        return Err(format!(
            "a text of {} bytes is too long: 1 MiB is the most",
            text.len()
        ));
    }
    serde_json::from_str(text).map_err(|error| format!("the text is no JSON: {error}"))
}

#[cfg(test)]
mod tests {
    use crate::message::Value;
    use crate::nodes::testing::{node_problems, run_node, run_node_json};

    fn check(action: &str, payloads: &str, expected: &[&str]) {
        let sent = run_node_json(&format!("type = 'json'\naction = '{action}'"), payloads);
        assert_eq!(sent, expected, "{action}");
    }

    #[test]
    fn the_action_says_which_way() {
        const MIXED: &str = r#"["{\"a\":[1,null]}", {"a":[1,null]}, 5, true, null, "7"]"#;
        let (value, text) = (r#"{"a":[1,null]}"#, r#""{\"a\":[1,null]}""#);
        check(
            "auto",
            MIXED,
            &[value, text, "\"5\"", "\"true\"", "\"null\"", "7"],
        );
        check("parse", MIXED, &[value, value, "5", "true", "null", "7"]);
        check(
            "stringify",
            MIXED,
            &[text, text, "\"5\"", "\"true\"", "\"null\"", "\"7\""],
        );
    }

    #[test]
    fn what_is_no_json_fails() {
        check(
            "parse",
            r#"["", "{", "nan", "1 2", "1e999", "{\"a\":1,\"a\":2}"]"#,
            &[
                "failed: the text is no JSON: EOF while parsing a value at line 1 column 0",
                "failed: the text is no JSON: EOF while parsing an object at line 1 column 1",
                "failed: the text is no JSON: expected ident at line 1 column 2",
                "failed: the text is no JSON: trailing characters at line 1 column 3",
                "failed: the text is no JSON: number out of range at line 1 column 5",
                r#"{"a":2}"#,
            ],
        );
    }

    #[test]
    fn depth_and_size_are_bounded() {
        let nested = |depth: usize| Value::from(("[".repeat(depth) + &"]".repeat(depth)).as_str());
        let sent = run_node("type = 'json'", [nested(127), nested(128)]);
        assert_eq!(sent[0], format!("{}{}", "[".repeat(127), "]".repeat(127)));
        assert_eq!(
            sent[1],
            "failed: the text is no JSON: recursion limit exceeded at line 1 column 128"
        );
        let spaces = |bytes: usize| Value::from((" ".repeat(bytes - 1) + "1").as_str());
        assert_eq!(
            run_node("type = 'json'", [spaces(1_048_576), spaces(1_048_577)]),
            [
                "1",
                "failed: a text of 1048577 bytes is too long: 1 MiB is the most"
            ]
        );
        let long = Value::List(vec![Value::from("x".repeat(600_000).as_str()); 2].into());
        assert_eq!(
            run_node("type = 'json'", [long]),
            ["failed: the text would be longer than 1 MiB"]
        );
    }

    #[test]
    fn numbers_that_are_none_become_null() {
        let list = Value::List(vec![f64::NAN.into(), f64::INFINITY.into(), 1.0.into()].into());
        assert_eq!(run_node("type = 'json'", [list]), ["\"[null,null,1]\""]);
    }

    #[test]
    fn an_unknown_action_is_said() {
        let found = node_problems("type = 'json'\naction = 'prase'");
        assert!(found[0].contains("did you mean `parse`?"), "{found:?}");
    }
}
