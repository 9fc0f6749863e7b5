//! `filter`: report by exception.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error;
use serde::{Deserialize, Deserializer};

use super::keyed::Keyed;
use super::{BuildError, Definition, Surroundings};
use crate::message::{Message, Value};
use crate::runtime::node::{Context, Node};
use crate::runtime::state::{Pause, State, StateError};

/// Passes a message on only when its payload differs from the last one passed, per topic (report by exception).
///
/// With `deadband`, a number passes when it differs by more than that. After a restart the first message of each topic passes,
/// for outputs are at their safe level then, and nobody knows what was passed just before a power cut. At most 10,000 topics are remembered; messages of
/// further topics fail.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Filter {
    /// How much a number must have changed: a number in its own unit, or a percentage of the last one passed, such as
    /// `"5%"`. Default: any change.
    #[serde(default)]
    deadband: Deadband,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Deadband {
    #[default]
    AnyChange,
    Absolute(f64),
    /// A share of the last value passed; 5% is 0.05.
    Share(f64),
}

impl<'de> Deserialize<'de> for Deadband {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Deadband, D::Error> {
        let deadband = match Value::deserialize(deserializer)? {
            Value::Number(number) => Some(Deadband::Absolute(number)),
            Value::Text(text) => text
                .strip_suffix('%')
                .and_then(|percent| percent.trim().parse().ok())
                .map(|percent: f64| Deadband::Share(percent / 100.0)),
            _ => None,
        };
        match deadband {
            Some(Deadband::Absolute(size) | Deadband::Share(size))
                if !size.is_finite() || size < 0.0 =>
            {
                Err(D::Error::custom(
                    "a dead band is a finite number, not negative",
                ))
            }
            Some(deadband) => Ok(deadband),
            None => Err(D::Error::custom(
                "a dead band is a number, or a percentage like \"5%\"",
            )),
        }
    }
}

impl JsonSchema for Deadband {
    fn schema_name() -> Cow<'static, str> {
        "Deadband".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["number", "string"] })
    }
}

impl Definition for Filter {
    const NAME: &'static str = "filter";
    const EXAMPLE: &'static str = r#"
[nodes.humidity]
type = "iio"
device = "bme280"
channel = "humidityrelative"

[nodes.changes]
type = "filter"
from = "humidity"
deadband = 0.5

[nodes.show]
type = "debug"
from = "changes"
"#;

    fn hint(option: &str) -> Option<&'static str> {
        matches!(option, "when" | "condition" | "if")
            .then_some("for a condition use `where`; `filter` reports by exception")
    }

    fn build(&self, _: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError> {
        Ok(Box::new(Exceptions {
            deadband: self.deadband,
            last: Keyed::default(),
        }))
    }
}

struct Exceptions {
    deadband: Deadband,
    /// The last payload passed, per topic.
    last: Keyed<Value>,
}

impl Node for Exceptions {
    fn save(&self) -> Option<State> {
        Some(State::of(&self.last))
    }

    /// After a restart those that read it do not have what was passed last: an output is at its safe level, and other payloads may
    /// have been passed since the state was taken.
    fn resume(
        &mut self,
        state: &State,
        pause: Pause,
        _: &mut Context<'_>,
    ) -> Result<(), StateError> {
        if pause == Pause::Reload {
            self.last = state.read()?;
        }
        Ok(())
    }

    fn message(&mut self, message: &mut Message, cx: &mut Context<'_>) {
        let mut is_first = false;
        let first = || {
            is_first = true;
            message.payload.clone()
        };
        let Some(last) = self.last.get_or_fail(&message.topic, cx, first) else {
            return;
        };
        if self.deadband.is_exceeded(last, &message.payload) {
            *last = message.payload.clone();
        } else if !is_first {
            return;
        }
        cx.pass(0);
    }
}

impl Deadband {
    fn is_exceeded(self, last: &Value, value: &Value) -> bool {
        let (Value::Number(last), Value::Number(number)) = (last, value) else {
            return last != value;
        };
        if !number.is_finite() || !last.is_finite() {
            // There are many NaNs, which differ by how they came about: they are one here.
            return number != last && !(number.is_nan() && last.is_nan());
        }
        let change = (number - last).abs();
        match self {
            Deadband::AnyChange => change > 0.0,
            Deadband::Absolute(size) => change > size,
            Deadband::Share(share) => change > share * last.abs(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::message::{Timestamp, Value};
    use crate::nodes::keyed::MOST_KEYS as MOST_TOPICS;
    use crate::nodes::testing::{Run, node_mistakes, run_node};

    fn check(options: &str, payloads: &str, expected: &[&str]) {
        let payloads: Vec<Value> = serde_json::from_str(payloads).expect("JSON");
        assert_eq!(
            run_node(&format!("type = 'filter'\n{options}"), payloads),
            expected
        );
    }

    #[test]
    fn any_change_passes_without_a_dead_band() {
        check(
            "",
            r#"[1, 1, 2, "a", "a", true, [1], [1], {"x":1}, null, null]"#,
            &["1", "2", "\"a\"", "true", "[1]", "{\"x\":1}", "null"],
        );
    }

    #[test]
    fn a_dead_band_is_exceeded_not_reached() {
        check(
            "deadband = 0.5",
            "[1, 1.5, 1.6, 1.2, 2.2]",
            &["1", "1.6", "2.2"],
        );
        check(
            "deadband = '10%'",
            "[100, 110, 111, 99.9, 99]",
            &["100", "111", "99"],
        );
        check("deadband = '10%'", "[0, 0, 0.1]", &["0", "0.1"]);
    }

    #[test]
    fn numbers_that_are_none_count_as_a_change_once() {
        let payloads = [
            1.0,
            f64::INFINITY,
            f64::INFINITY,
            1.0,
            f64::NAN,
            f64::NAN,
            1.0,
        ];
        let sent = run_node(
            "type = 'filter'\ndeadband = '10%'",
            payloads.map(Value::Number),
        );
        assert_eq!(sent, ["1", "null", "1", "null", "1"]);
        let nans = [f64::NAN, -f64::NAN, f64::NEG_INFINITY, f64::INFINITY];
        let sent = run_node("type = 'filter'", nans.map(Value::Number));
        assert_eq!(sent, ["null"; 3], "one for both NaNs");
    }

    #[test]
    fn a_dead_band_is_a_size() {
        let check = |deadband: &str, expected: &str| {
            let found = node_mistakes(&format!("type = 'filter'\ndeadband = {deadband}"));
            assert!(found[0].contains(expected), "{deadband}: {found:?}");
        };
        for deadband in ["-1", "nan", "inf", "'-5%'", "'inf%'"] {
            check(deadband, "a dead band is a finite number, not negative");
        }
        for deadband in ["true", "'5'", "'%'", "'five%'"] {
            check(
                deadband,
                "a dead band is a number, or a percentage like \"5%\"",
            );
        }
    }

    #[test]
    fn topics_are_apart_and_their_number_is_bounded() {
        let mut run = Run::new("type = 'filter'");
        for topic in (0..=MOST_TOPICS).chain([0, 1]) {
            run.deliver_on(&format!("t{topic}"), Timestamp::default(), 1.0.into());
        }
        assert_eq!(run.sent.len(), MOST_TOPICS + 1);
        assert_eq!(
            run.sent[MOST_TOPICS],
            "failed: remembers 10000 topics already, `t10000` is one too many"
        );
    }

    /// An output behind it is at its safe level, and waits to be driven.
    #[test]
    fn after_a_restart_the_first_message_passes() {
        let mut run = Run::new("type = 'filter'");
        for _ in 0..2 {
            run.deliver(Timestamp::default(), true.into());
        }
        run.restart(Duration::from_secs(1));
        for _ in 0..2 {
            run.deliver(Timestamp::default(), true.into());
        }
        assert_eq!(run.sent, ["true", "true"]);
    }
}
