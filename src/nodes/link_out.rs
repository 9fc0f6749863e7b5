//! `link out`: sends messages to other flows.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{Deserializer, Error};

use super::{BuildError, Definition, Link, Surroundings};
use crate::flow::file::is_node_name;
use crate::message::{Message, Text};
use crate::runtime::node::{Context, Input, Node};

/// Sends each message to all `link in` nodes of the same link, in whatever flow they are.
///
/// A link is named for the whole device. Each `link in` gets its own copy, soon after this node has got the message and never before
/// this flow has done with it; the other flow does not hold up this one. Messages wait in a queue of 8,192 for all links of
/// an engine together. When it is full, the message is dropped and counted, and this node fails.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct LinkOut {
    /// The link's name: lower-case letters, digits, `_` and `-`.
    link: LinkName,
}

impl Definition for LinkOut {
    const NAME: &'static str = "link out";
    const PORTS: &'static [&'static str] = &[];
    const EXAMPLE: &'static str = r#"
[nodes.store]
type = "ds18b20"
device = "28-0316a2795aff"
every = "1m"

[nodes.to-alarms]
type = "link out"
from = "store"
link = "temperatures"

# Most often in a flow of its own:
[nodes.temperatures]
type = "link in"
link = "temperatures"

[nodes.too-warm]
type = "hysteresis"
from = "temperatures"
above = 4.0
below = 2.0

[nodes.show]
type = "debug"
from = "too-warm"
"#;

    fn link(&self) -> Option<Link> {
        Some(Link::Out(self.link.0.clone()))
    }

    fn build(&self, _: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError> {
        Ok(Box::new(Entrance {
            link: self.link.0.clone(),
        }))
    }
}

/// A name that a link can have.
#[derive(Clone, Debug)]
pub(super) struct LinkName(pub(super) Text);

impl<'de> Deserialize<'de> for LinkName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<LinkName, D::Error> {
        let name = String::deserialize(deserializer)?;
        if is_node_name(&name) {
            Ok(LinkName(name.into()))
        } else {
            Err(D::Error::custom(format!(
                "`{name}` is no name for a link; use lower-case letters, digits, `_` and `-`"
            )))
        }
    }
}

impl JsonSchema for LinkName {
    fn schema_name() -> Cow<'static, str> {
        "LinkName".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[a-z0-9_-]+$" })
    }
}

struct Entrance {
    link: Text,
}

impl Node for Entrance {
    fn message(&mut self, message: &mut Message, cx: &mut Context<'_>) {
        cx.link(self.link.clone(), message.clone());
    }

    /// The link did not take a message, or does so again.
    fn input(&mut self, input: Input, cx: &mut Context<'_>) {
        if let Input::Reading {
            value: Err(reason), ..
        } = input
        {
            cx.fail(reason);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::message::{Timestamp, Value};
    use crate::nodes::testing::{Run, problems};

    #[test]
    fn the_message_is_handed_over_as_it_is() {
        let mut run = Run::sink("type = 'link out'\nlink = 'x'");
        run.deliver(Timestamp::from_millis(7), Value::from("hello"));
        assert_eq!(run.sent.len(), 1);
        for part in [
            "Link",
            "link: \"x\"",
            "topic: \"t\"",
            "\"hello\"",
            "7000000",
        ] {
            assert!(run.sent[0].contains(part), "no {part} in {:?}", run.sent);
        }
    }

    #[test]
    fn the_name_is_checked() {
        let check = |name: &str, expected: &[&str]| {
            let found = problems(&format!(
                "[nodes.a]\ntype = 'inject'\nevery = '1s'\n[nodes.b]\ntype = 'link out'\nfrom = 'a'\nlink = {name}"
            ));
            assert_eq!(found, expected, "{name}");
        };
        check("'cold-store_1'", &[]);
        for bad in ["", "Alarms", "a b", "a/b"] {
            check(
                &format!("'{bad}'"),
                &[&format!(
                    "test.toml:7:8: error: `link`: `{bad}` is no name for a link; use lower-case letters, digits, `_` and `-` \
                     (`link`: The link's name: lower-case letters, digits, `_` and `-`)"
                )],
            );
        }
        check(
            "3",
            &[
                "test.toml:7:8: error: `link`: integer `3`, expected text in quotes (`link`: The link's name: lower-case letters, digits, `_` and `-`)",
            ],
        );
    }
}
