//! Topics with placeholders: `sites/{device}/{topic}`.
//!
//! `{device}`, `{flow}` and `{node}` are known when a flow is built, `{topic}` is the message's own.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error};

use crate::flow::diagnostic::did_you_mean;

const PLACEHOLDERS: [&str; 4] = ["device", "flow", "node", "topic"];

/// A topic to publish to, valid but for what `{topic}` brings in.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicTemplate(Vec<Part>);

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Fixed(String),
    Device,
    Flow,
    Node,
    Topic,
}

impl TopicTemplate {
    pub fn parse(text: &str) -> Result<TopicTemplate, String> {
        if text.is_empty() {
            return Err("a topic must not be empty".into());
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            push_fixed(&mut parts, &rest[..open])?;
            let close = rest[open..]
                .find('}')
                .ok_or("the topic has a `{` without its `}`")?;
            let name = &rest[open + 1..open + close];
            parts.push(match name {
                "device" => Part::Device,
                "flow" => Part::Flow,
                "node" => Part::Node,
                "topic" => Part::Topic,
                _ => {
                    let hint = did_you_mean(name, PLACEHOLDERS).unwrap_or_else(|| {
                        "there are `{device}`, `{flow}`, `{node}` and `{topic}`".into()
                    });
                    return Err(format!("unknown placeholder `{{{name}}}`: {hint}"));
                }
            });
            rest = &rest[open + close + 1..];
        }
        push_fixed(&mut parts, rest)?;
        Ok(TopicTemplate(parts))
    }

    /// About how long it is, in bytes, once it is filled in, on a device with an id of `device` bytes.
    pub fn typical_len(&self, device: usize, flow: usize, node: usize) -> usize {
        let len = |part: &Part| match part {
            Part::Fixed(text) => text.len(),
            Part::Device => device,
            Part::Flow => flow,
            Part::Node => node,
            // A source's own topic is the flow's and the node's name.
            Part::Topic => flow + 1 + node,
        };
        self.0.iter().map(len).sum()
    }

    /// The same with everything filled in that does not change while a flow runs.
    pub fn resolve(&self, device: &str, flow: &str, node: &str) -> ResolvedTopic {
        let mut resolved = ResolvedTopic(vec![String::new()]);
        for part in &self.0 {
            let text = match part {
                Part::Fixed(text) => text,
                Part::Device => device,
                Part::Flow => flow,
                Part::Node => node,
                Part::Topic => {
                    resolved.0.push(String::new());
                    continue;
                }
            };
            resolved
                .0
                .last_mut()
                .expect("it is never empty")
                .push_str(text);
        }
        resolved
    }
}

fn push_fixed(parts: &mut Vec<Part>, text: &str) -> Result<(), String> {
    if text.contains(['+', '#']) {
        return Err("a topic to publish to must not contain the wildcards `+` and `#`".into());
    }
    if text.contains('\0') {
        return Err("a topic must not contain a NUL character".into());
    }
    if !text.is_empty() {
        parts.push(Part::Fixed(text.into()));
    }
    Ok(())
}

/// A topic in which only `{topic}` is open: what stands between its occurrences.
#[derive(Clone, Debug, PartialEq)]
pub struct ResolvedTopic(Vec<String>);

impl ResolvedTopic {
    pub fn fill(&self, topic: &str) -> String {
        self.0.join(topic)
    }
}

impl fmt::Display for TopicTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.resolve("{device}", "{flow}", "{node}").fill("{topic}"))
    }
}

impl<'de> Deserialize<'de> for TopicTemplate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<TopicTemplate, D::Error> {
        TopicTemplate::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl JsonSchema for TopicTemplate {
    fn schema_name() -> Cow<'static, str> {
        "TopicTemplate".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "topic" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_filled() {
        let check = |text: &str, expected: &str| {
            let template = TopicTemplate::parse(text).expect("a valid template");
            assert_eq!(
                template
                    .resolve("press-7", "cold-store", "report")
                    .fill("a/b"),
                expected
            );
            assert_eq!(template.to_string(), text);
        };
        check("plain/topic", "plain/topic");
        check("{device}/{flow}/{node}", "press-7/cold-store/report");
        check("x/{topic}/y/{topic}", "x/a/b/y/a/b");
    }

    #[test]
    fn mistakes_are_said() {
        let check = |text: &str, expected: &str| {
            let error = TopicTemplate::parse(text).expect_err("an invalid template");
            assert!(error.contains(expected), "{error}");
        };
        check("", "must not be empty");
        check("a/#", "wildcards");
        check("a/{devcie}", "did you mean `device`?");
        check("a/{device", "without its `}`");
        check("a/{x}", "there are `{device}`");
    }
}
