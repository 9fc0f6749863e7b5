//! The body of a function as its author wrote it.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{Deserialize, Deserializer, Error as _};

use super::literals::refuse_big_ints;
use super::{ScriptError, in_scratch, javascript_schema, mentions};

/// What Node-RED's functions or other places where JavaScript runs have, and what to do here. A dot or a parenthesis follows
/// the name.
const NOT_HERE: [(&str, &str); 19] = [
    (
        "node.",
        "`return` what is to be sent; `throw new Error(\"...\")` makes the message fail",
    ),
    ("context.", "use `state`, which is kept between messages"),
    (
        "flow.",
        "use `state`; what several nodes need goes along wires",
    ),
    (
        "global.",
        "use `state`; what several nodes need goes along wires",
    ),
    ("env.", "use `vars`, the flow's variables"),
    ("RED.", "each reader of a message gets its own copy anyhow"),
    ("process.", "a function sees `msg`, `state` and `vars`"),
    ("Buffer.", "payloads are numbers, text, lists and objects"),
    ("console.", "send what you want to see to a `debug` node"),
    (
        "Promise.",
        "a function answers at once; there is nothing to wait for",
    ),
    ("require(", "there are no modules"),
    ("setTimeout(", "use a `delay` node"),
    ("setInterval(", "use an `inject` node"),
    ("setImmediate(", "a function answers at once"),
    ("clearTimeout(", "there are no timers"),
    ("clearInterval(", "there are no timers"),
    ("fetch(", "a function has no network"),
    ("BigInt(", "numbers are 64-bit floats"),
    ("queueMicrotask(", "a function answers at once"),
];

/// What stands before the body, in one line, where it is checked.
const CHECKED: &str = "function checked(msg) { \"use strict\";";

/// The text of a JavaScript function's body, known to be valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionBody(String);

impl FunctionBody {
    /// Checks that the text is a function's body, without evaluating anything.
    pub fn parse(text: &str) -> Result<FunctionBody, ScriptError> {
        in_scratch(|sandbox| {
            sandbox.check(CHECKED, text, "}")?;
            // Behind a brace that closes our function, a statement follows above, and a comma or a brace here.
            sandbox
                .check(
                    "function checked() { \"use strict\"; return { f(msg) {",
                    text,
                    "} }; }",
                )
                .map_err(|error| match error {
                    ScriptError::Thrown { place, .. } => ScriptError::Thrown {
                        place,
                        text: "a brace or parenthesis is closed that was not opened".into(),
                    },
                    other => other,
                })?;
            refuse_big_ints(sandbox, CHECKED, text, "}")
        })?;
        Ok(FunctionBody(text.to_owned()))
    }

    pub fn text(&self) -> &str {
        &self.0
    }

    /// What stands before and after each place where the text has a name by itself: not within another, and not behind a
    /// dot.
    fn uses<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
        let text = self.text();
        text.match_indices(name)
            .map(move |(start, _)| (&text[..start], &text[start + name.len()..]))
            .filter(move |(before, after)| {
                let is_field = before.ends_with('.') && !before.ends_with("...");
                !is_field && !before.ends_with(is_part) && !after.starts_with(is_part)
            })
    }

    /// Names that the text uses but a sandbox does not have, and what to do instead. One that it declares is its own.
    pub fn names_not_here(&self) -> Vec<(&'static str, &'static str)> {
        let is_used = |name: &str, next: &str| {
            self.uses(name).any(|(_, after)| {
                let field = after.strip_prefix(next);
                field.is_some_and(|field| next == "(" || field.starts_with(char::is_alphabetic))
            })
        };
        let declares = [
            "let ",
            "const ",
            "var ",
            "function ",
            "class ",
            "(",
            ", ",
            "{ ",
        ];
        let is_declared = |name: &str, next: &str| {
            self.uses(name).any(|(before, after)| {
                declares.iter().any(|word| before.ends_with(word)) && !after.starts_with(next)
                    || after.trim_start().starts_with("=>")
            })
        };
        let names = NOT_HERE.into_iter().filter_map(|(use_of, remedy)| {
            let (name, next) = use_of.split_at(use_of.len() - 1);
            (is_used(name, next) && !is_declared(name, next)).then_some((name, remedy))
        });
        names.collect()
    }

    /// Fields of `msg` that the text names and that messages do not have.
    pub fn unknown_fields(&self) -> Vec<&str> {
        const FIELDS: [&str; 5] = ["payload", "topic", "time", "source", "headers"];
        let mut unknown = Vec::new();
        // A function within may have its own `msg`.
        if self
            .uses("msg")
            .any(|(_, after)| after.trim_start_matches(')').trim_start().starts_with("=>"))
        {
            return unknown;
        }
        for (_, after) in self.uses("msg") {
            let Some(field) = after.strip_prefix("?.").or_else(|| after.strip_prefix('.')) else {
                continue;
            };
            let end = field.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '$');
            let field = &field[..end.unwrap_or(field.len())];
            if !field.is_empty() && !FIELDS.contains(&field) && !unknown.contains(&field) {
                unknown.push(field);
            }
        }
        unknown
    }

    /// What there is in the place of a name that is not defined.
    pub(super) fn remedy(name: &str) -> Option<&'static str> {
        let known = |use_of: &str| use_of[..use_of.len() - 1] == *name;
        let found = NOT_HERE.iter().find(|(use_of, _)| known(use_of));
        found.map(|(_, remedy)| *remedy)
    }

    /// Whether a function with this body can see a field of `msg`.
    pub(super) fn sees(&self, field: &str) -> bool {
        self.looks_at_whole_message() || mentions(&self.0, field)
    }

    /// Whether the text does more with `msg` than to name a field of it, or to return it. Then it may see any field.
    fn looks_at_whole_message(&self) -> bool {
        let text = self.text();
        // What a function within returns, the body may look at.
        let has_functions = ["=>", "function", "class", "get "]
            .iter()
            .any(|word| text.contains(word));
        self.uses("msg").any(|(before, after)| {
            let after = after.trim_start();
            let names_field = match after.strip_prefix("?.") {
                Some(field) => !field.trim_start().starts_with('['),
                None => after.starts_with('.'),
            };
            let returns_it = before.trim_end().ends_with("return") && !after.starts_with('[');
            !names_field && (!returns_it || has_functions)
        }) || text.contains("arguments")
            || text.contains("\\u")
    }
}

impl<'de> Deserialize<'de> for FunctionBody {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<FunctionBody, D::Error> {
        FunctionBody::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl JsonSchema for FunctionBody {
    fn schema_name() -> Cow<'static, str> {
        "FunctionBody".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        javascript_schema()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_function_can_see_of_its_message_is_made() {
        let check = |code: &str, expected: [bool; 3]| {
            let body = FunctionBody::parse(code).expect("valid");
            assert_eq!(
                ["topic", "time", "headers"].map(|field| body.sees(field)),
                expected,
                "{code}"
            );
        };
        check("msg.payload += 1; return msg;", [false, false, false]);
        check("return { payload: msg?.payload };", [false, false, false]);
        check("msg.topic = 'x'; return msg", [true, false, false]);
        check(
            "const { time } = msg; return { payload: time };",
            [true, true, true],
        );
        for whole in [
            "return { ...msg };",
            "return [msg];",
            "return { payload: JSON.stringify(msg) };",
            "return msg[msg.payload];",
            "return { payload: msg['to' + 'pic'] };",
            "const m = msg; return m;",
            "return arguments[0];",
            "return m\\u0073g;",
            "return { payload: msg?.['to' + 'pic'] };",
            "return { payload: msg?. ['to' + 'pic'] };",
            "return { payload: [1].map(() => { return msg; }) };",
            "function whole() { return msg; } return { payload: whole() };",
            "return { payload: { get whole() { return msg; } } };",
        ] {
            check(&whole.replace("\\\\", "\\"), [true, true, true]);
        }
    }
}
