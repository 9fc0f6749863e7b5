//! `mqtt in`: messages from a broker.

use bytes::Bytes;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{BuildError, Definition, Problem, Surroundings, Use, bounds};
use crate::flow::estimate::Load;
use crate::message::{Message, Value};
use crate::runtime::driver::subscribing::Subscription;
use crate::runtime::node::{Context, Input, Node};
use crate::subscriptions::filter;

/// Sends what is published on a broker that the plant already has: one of `[brokers]` in the settings.
///
/// The topic is that of the MQTT message; the time is when it came. A message that cannot be read as `format` says, or is longer
/// than 1 MiB, fails. While the broker is away nothing comes; it is tried again by itself. If the flow is busy, the broker waits.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct MqttIn {
    /// The broker's name: `hall` for `[brokers.hall]`.
    broker: String,
    /// A topic, or a list of them; `+` stands for one level, `#` at the end for all further ones.
    topic: Topics,
    /// How a payload is read: `auto` (JSON if it is JSON, else text), `json`, `number` or `text`. Default: `auto`.
    #[serde(default)]
    format: Format,
    /// The highest quality of service that is asked for, 0 or 1. Default: 0. With 1, and `when_full = "block"` in the settings of the
    /// outbox, messages wait at the broker while the outbox is nearly full, or Tidegate is not running; so outputs should not depend on them.
    #[serde(default)]
    qos: u8,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Topics {
    One(String),
    Several(Vec<String>),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Format {
    #[default]
    Auto,
    Json,
    Number,
    Text,
}

impl MqttIn {
    fn filters(&self) -> &[String] {
        match &self.topic {
            Topics::One(filter) => std::slice::from_ref(filter),
            Topics::Several(filters) => filters,
        }
    }
}

impl Definition for MqttIn {
    const NAME: &'static str = "mqtt in";
    const HAS_INPUT: bool = false;
    const EXAMPLE: &'static str = r#"
[nodes.sensors]
type = "mqtt in"
broker = "hall"
topic = "plant/+/temperature"
qos = 1

[nodes.minute]
type = "window"
from = "sensors"
by = "topic"
value = "payload.value"
size = "1m"

[nodes.report]
type = "uplink"
from = "minute"
topic = "sites/{device}/{topic}"
"#;

    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.filters().is_empty() {
            problems.push(Problem::new("topic", "names no topic"));
        }
        for filter in self.filters() {
            if let Some(problem) = filter::problem(filter) {
                problems.push(Problem::new("topic", format!("`{filter}` {problem}")));
            }
        }
        if self.qos > 1 {
            let message = "must be 0 or 1: with 2 a message would wait for two further answers, and is lost with the power all the same";
            problems.push(Problem::new("qos", message));
        }
        problems
    }

    fn uses(&self) -> Vec<Use> {
        vec![Use::Subscription(Subscription {
            broker: self.broker.clone(),
            filters: self.filters().to_vec(),
            qos: self.qos,
        })]
    }

    fn load(&self, _: Load) -> Load {
        Load::UNKNOWN
    }

    fn build(&self, _: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError> {
        Ok(Box::new(Receiver {
            format: self.format,
        }))
    }
}

struct Receiver {
    format: Format,
}

impl Node for Receiver {
    fn message(&mut self, _: &mut Message, _: &mut Context<'_>) {}

    fn input(&mut self, input: Input, cx: &mut Context<'_>) {
        let Input::Message {
            time,
            topic,
            payload,
        } = input
        else {
            return;
        };
        match read(self.format, &payload) {
            Ok(payload) => cx.originate(topic, payload, time),
            Err(problem) => cx.fail(format!("a message on `{topic}` {problem}")),
        }
    }
}

fn read(format: Format, payload: &Bytes) -> Result<Value, String> {
    if payload.len() > bounds::LONGEST_TEXT {
        return Err("is longer than 1 MiB, which is the most".to_owned());
    }
    let json = || serde_json::from_slice::<Value>(payload);
    let text = || match std::str::from_utf8(payload) {
        Ok(text) => Ok(Value::Text(text.into())),
        Err(_) => Err("is neither JSON nor text (UTF-8)".to_owned()),
    };
    match format {
        Format::Auto => json().or_else(|_| text()),
        Format::Json => json().map_err(|error| format!("is no JSON: {error}")),
        Format::Text => text(),
        Format::Number => {
            let written = std::str::from_utf8(payload).map(str::trim);
            let number = written.ok().and_then(|text| text.parse::<f64>().ok());
            let number = number.filter(|number| number.is_finite());
            number
                .map(Value::Number)
                .ok_or_else(|| "is no number".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nodes::testing::node_problems;

    #[test]
    fn payloads_are_read_as_the_format_says() {
        let check = |format, payload: &[u8], expected: Result<&str, &str>| {
            let found = read(format, &Bytes::copy_from_slice(payload));
            let found = found.map(|value| value.to_json());
            match expected {
                Ok(json) => assert_eq!(found.as_deref(), Ok(json), "{format:?}"),
                Err(words) => assert!(
                    found.as_ref().is_err_and(|problem| problem.contains(words)),
                    "{format:?}: {found:?}"
                ),
            }
        };
        check(Format::Auto, b"{\"value\":21.5}", Ok("{\"value\":21.5}"));
        check(Format::Auto, b"21.5", Ok("21.5"));
        check(Format::Auto, b"ON", Ok("\"ON\""));
        check(Format::Auto, b"", Ok("\"\""));
        check(Format::Auto, b"\xff\x00", Err("neither JSON nor text"));
        check(Format::Json, b"ON", Err("no JSON"));
        check(Format::Text, b"21.5", Ok("\"21.5\""));
        check(Format::Number, b" 21.5\n", Ok("21.5"));
        check(Format::Number, b"inf", Err("no number"));
        check(Format::Number, b"ON", Err("no number"));
        let long = vec![b' '; bounds::LONGEST_TEXT + 1];
        check(Format::Text, &long, Err("1 MiB"));
    }

    #[test]
    fn wrong_options_are_told() {
        let check = |options: &str, expected: &str| {
            let found = node_problems(&format!("type = 'mqtt in'\nbroker = 'hall'\n{options}"));
            assert!(
                found.iter().any(|problem| problem.contains(expected)),
                "{options}: {found:?}"
            );
        };
        check("topic = 'a/#/b'", "`#` that is not the whole");
        check("topic = []", "names no topic");
        check("topic = ['a', 'b+']", "`b+` has a `+`");
        check("topic = 'a'\nqos = 2", "must be 0 or 1");
    }
}
