//! `template`: text made of a message.

use schemars::JsonSchema;
use serde::Deserialize;

use super::path::{Path, Target};
use super::{BuildError, Definition, Surroundings, bounds};
use crate::flow::estimate::Load;
use crate::message::{Message, Value};
use crate::runtime::node::{Context, Node};

/// Fills parts of the message into a text: `"{{payload.temp}} °C in {{topic}}"`.
///
/// A placeholder names a part of the message as in `change` (`payload`, `payload.list[0]`, `topic`, `headers.unit`, `time`,
/// which is RFC 3339), or `device`, `flow` or `node`. Text is filled in as it is, everything else as JSON; nothing is
/// escaped for HTML, so that `{{{payload}}}` means the same. There are no sections and partials of Mustache here: for what
/// is computed, use `change` or `function`. `${name}` in the text is a variable of the flow, as everywhere.
///
/// What is missing or null, or is NaN or an infinity, leaves its place empty, unless `strict` makes the message fail. With
/// `format = "json"` it becomes `null`, and text is escaped for a place between quotes: `{"name": "{{payload.name}}"}`.
/// The text may have up to 1 MiB; what would be longer fails, as does a result that is no JSON where it should be.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Template {
    /// The text with its placeholders.
    template: Parts,
    /// `text`, or `json` to send the value that the text means as JSON. Default: `text`.
    #[serde(default)]
    format: Format,
    /// The part of the message that gets the result: the payload or a part of it, `topic` or `headers.NAME`. Default:
    /// `payload`.
    #[serde(default = "Target::payload")]
    set: Target,
    /// Whether a message fails that lacks what a placeholder names. Default: `false`.
    #[serde(default)]
    strict: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Format {
    #[default]
    Text,
    Json,
}

/// A text, taken apart at its placeholders.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(inline)]
struct Parts(#[schemars(with = "String")] Vec<Part>);

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Fixed(String),
    Device,
    Flow,
    Node,
    Message(Path),
}

impl TryFrom<String> for Parts {
    type Error = String;

    fn try_from(text: String) -> Result<Parts, String> {
        let mut parts = Vec::new();
        let mut rest = text.as_str();
        while let Some(open) = rest.find("{{") {
            let (open_brace, close_brace) = match rest[open..].starts_with("{{{") {
                true => ("{{{", "}}}"),
                false => ("{{", "}}"),
            };
            let inside = &rest[open + open_brace.len()..];
            let close = inside.find(close_brace).ok_or_else(|| {
                format!("the text has a `{open_brace}` without its `{close_brace}`")
            })?;
            if open > 0 {
                parts.push(Part::Fixed(rest[..open].into()));
            }
            parts.push(Part::parse(inside[..close].trim())?);
            rest = &inside[close + close_brace.len()..];
        }
        if !rest.is_empty() {
            parts.push(Part::Fixed(rest.into()));
        }
        Ok(Parts(parts))
    }
}

impl Part {
    fn parse(name: &str) -> Result<Part, String> {
        match name {
            "device" => Ok(Part::Device),
            "flow" => Ok(Part::Flow),
            "node" => Ok(Part::Node),
            _ if name.starts_with(['#', '/', '^', '>', '!', '&', '=']) => Err(format!(
                "`{{{{{name}}}}}`: there are only plain placeholders here, like `{{{{payload.temp}}}}`"
            )),
            _ => Path::parse(name).map(Part::Message).map_err(|wrong| {
                format!("`{{{{{name}}}}}`: {wrong}, or is `device`, `flow` or `node`")
            }),
        }
    }
}

impl Definition for Template {
    const NAME: &'static str = "template";
    const EXAMPLE: &'static str = r#"
[nodes.probe]
type = "ds18b20"
device = "28-0316a2795aff"

[nodes.sentence]
type = "template"
from = "probe"
template = "{{device}}: {{payload}} °C at {{time}}"

[nodes.show]
type = "debug"
from = "sentence"
"#;

    fn load(&self, input: Load) -> Load {
        let size = |part: &Part| match part {
            Part::Fixed(text) => text.len() as f64,
            Part::Message(_) => input.bytes,
            Part::Device | Part::Flow | Part::Node => NAME_BYTES,
        };
        input.sized(self.template.0.iter().map(size).sum())
    }

    fn build(&self, site: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError> {
        let resolved = |part: &Part| match part {
            Part::Device => Part::Fixed(site.device.to_string()),
            Part::Flow => Part::Fixed(site.flow.to_string()),
            Part::Node => Part::Fixed(site.node.to_string()),
            other => other.clone(),
        };
        Ok(Box::new(Writer {
            parts: self.template.0.iter().map(resolved).collect(),
            format: self.format,
            set: self.set.clone(),
            strict: self.strict,
        }))
    }
}

/// What the name of a device, flow or node typically takes.
const NAME_BYTES: f64 = 12.0;

struct Writer {
    parts: Vec<Part>,
    format: Format,
    set: Target,
    strict: bool,
}

impl Node for Writer {
    fn message(&mut self, message: &mut Message, cx: &mut Context<'_>) {
        let result = self.text(message).and_then(|text| match self.format {
            Format::Text => Ok(Value::Text(text.into())),
            Format::Json => {
                serde_json::from_str(&text).map_err(|error| format!("the text is no JSON: {error}"))
            }
        });
        let set = result.and_then(|value| {
            self.set.set(message, value)?;
            bounds::check_size(&message.payload)
        });
        match set {
            Ok(()) => cx.pass(0),
            Err(reason) => cx.fail(reason),
        }
    }
}

impl Writer {
    fn text(&self, message: &Message) -> Result<String, String> {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Fixed(fixed) => text.push_str(fixed),
                Part::Message(path) => self.fill_in(path, message, &mut text)?,
                Part::Device | Part::Flow | Part::Node => {
                    unreachable!("names are filled in when the node is built")
                }
            }
            bounds::check_text(text.len())?;
        }
        Ok(text)
    }

    fn fill_in(&self, path: &Path, message: &Message, text: &mut String) -> Result<(), String> {
        let found = path.get(message).filter(|found| match found {
            Value::Null => false,
            Value::Number(number) => number.is_finite(),
            _ => true,
        });
        match (found, self.format) {
            (None, _) if self.strict => return Err(format!("there is no `{path}`")),
            (None, Format::Text) => {}
            (None, Format::Json) => text.push_str("null"),
            (Some(Value::Text(found)), Format::Text) => text.push_str(&found),
            (Some(Value::Text(found)), Format::Json) => {
                let quoted = bounds::to_json(&Value::Text(found))?;
                text.push_str(&quoted[1..quoted.len() - 1]);
            }
            (Some(found), _) => text.push_str(&bounds::to_json(&found)?),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::message::{Timestamp, Value};
    use crate::nodes::testing::{Run, node_problems, run_node, run_node_json};

    fn check(options: &str, payloads: &str, expected: &[&str]) {
        let sent = run_node_json(&format!("type = 'template'\n{options}"), payloads);
        assert_eq!(sent, expected, "{options}");
    }

    #[test]
    fn parts_are_filled_in() {
        check("template = 'fixed'", "[1]", &["\"fixed\""]);
        check("template = ''", "[1]", &["\"\""]);
        check(
            "template = '{{payload.t}}°C, {{ payload.name }}'",
            r#"[{"t":4.5,"name":"café <b>"}]"#,
            &["\"4.5°C, café <b>\""],
        );
        check("template = '{{{payload}}}!'", r#"["a"]"#, &["\"a!\""]);
        check(
            "template = '{{payload}}'",
            r#"[true, [1, "x"], {"a":1}]"#,
            &["\"true\"", r#""[1,\"x\"]""#, r#""{\"a\":1}""#],
        );
        check(
            "template = '{{topic}} {{time}} {{device}} {{flow}} {{node}} {{headers.none}}'",
            "[1]",
            &["\"t 1970-01-01T00:00:10.000Z test-device test tested \""],
        );
        check(
            "template = 'a } b }} c { d'",
            "[1]",
            &["\"a } b }} c { d\""],
        );
    }

    #[test]
    fn what_is_missing_leaves_its_place_empty_or_fails() {
        check(
            "template = '<{{payload.x}}>'",
            r#"[{}, {"x":null}, 5]"#,
            &["\"<>\""; 3],
        );
        check(
            "template = '<{{payload.x}}>'\nstrict = true",
            r#"[{}, {"x":null}, {"x":""}]"#,
            &[
                "failed: there is no `payload.x`",
                "failed: there is no `payload.x`",
                "\"<>\"",
            ],
        );
        let odd = [f64::NAN, f64::INFINITY].map(Value::Number);
        assert_eq!(
            run_node("type = 'template'\ntemplate = '<{{payload}}>'", odd),
            ["\"<>\""; 2]
        );
    }

    #[test]
    fn json_is_read_and_text_in_it_escaped() {
        check(
            r#"template = '{"name": "{{payload.name}}", "t": [{{payload.t}}]}'
format = 'json'"#,
            r#"[{"name":"a \"b\"\n","t":5}, {"name":"x"}, {"name":"x","t":"no"}]"#,
            &[
                r#"{"name":"a \"b\"\n","t":[5]}"#,
                r#"{"name":"x","t":[null]}"#,
                "failed: the text is no JSON: expected ident at line 1 column 22",
            ],
        );
        check(
            "template = '{\"a\":{\"b\":{{payload}}}}'\nformat = 'json'",
            "[[1]]",
            &[r#"{"a":{"b":[1]}}"#],
        );
    }

    #[test]
    fn the_result_goes_where_it_is_wanted() {
        let mut run =
            Run::new("type = 'template'\ntemplate = 'hall/{{payload.id}}'\nset = 'topic'");
        let payload: Value = serde_json::from_str(r#"{"id":7}"#).expect("JSON");
        run.deliver(Timestamp::default(), payload.clone());
        assert_eq!(&*run.messages[0].topic, "hall/7");
        assert_eq!(run.messages[0].payload, payload);
        check(
            "template = 'x'\nset = 'payload.a'",
            "[5]",
            &["failed: `payload.a` cannot be set: a number has no field `a`"],
        );
    }

    #[test]
    fn the_text_is_bounded() {
        let long = Value::from("a".repeat(600_000).as_str());
        let sent = run_node(
            "type = 'template'\ntemplate = '{{payload}}{{payload}}'",
            [long],
        );
        assert_eq!(sent, ["failed: the text would be longer than 1 MiB"]);
    }

    #[test]
    fn variables_are_put_in_before() {
        let mut run = Run::flow(
            "[vars]\nunit = 'bar'\n[nodes.source]\ntype = 'inject'\nevery = '10000d'\n\
             [nodes.tested]\ntype = 'template'\nfrom = 'source'\ntemplate = '{{payload}} ${unit}'\n\
             [nodes.sink]\ntype = 'debug'\nfrom = 'tested'",
        );
        run.deliver(Timestamp::default(), 3.0.into());
        assert_eq!(run.sent, ["\"3 bar\""]);
    }

    #[test]
    fn mistakes_are_said() {
        let check = |options: &str, expected: &str| {
            let found = node_problems(&format!("type = 'template'\n{options}"));
            let is_said = found.iter().any(|found| found.contains(expected));
            assert!(is_said, "{options}: {found:?}");
        };
        check(
            "template = '{{payload'",
            "the text has a `{{` without its `}}`",
        );
        check(
            "template = '{{{payload}}'",
            "the text has a `{{{` without its `}}}`",
        );
        check("template = '{{}}'", "`{{}}`: `` is no part of a message");
        check(
            "template = '{{temp}}'",
            "`{{temp}}`: `temp` is no part of a message; one begins with",
        );
        check(
            "template = '{{#payload.list}}x{{/payload.list}}'",
            "only plain placeholders",
        );
        check(
            "template = 'x'\nset = 'time'",
            "the time of a message cannot be set",
        );
        check(
            "template = 'x'\nformat = 'yaml'",
            "`yaml` is not known here",
        );
    }
}
