//! What a window node takes out of a message: a number, a key, a state.

use std::hash::{DefaultHasher, Hasher};

use crate::flow::script::{Compiled, Expression};
use crate::message::{Message, Text, Value};
use crate::nodes::{BuildError, Surroundings};
use crate::runtime::node::{Context, excerpt};

/// Bytes of a key, and of a state that is text.
const LONGEST_TEXT: usize = 1_024;

pub(super) struct Intake {
    value: Option<Compiled>,
    by: By,
    state: Option<Compiled>,
    /// Whether values are only told apart, so that they need not be numbers.
    takes_any: bool,
}

enum By {
    Nothing,
    /// Without asking JavaScript.
    Topic,
    Expression(Compiled),
}

impl Intake {
    pub(super) fn new(
        value: Option<&Expression>,
        by: Option<&Expression>,
        state: Option<&Expression>,
        takes_any: bool,
        site: &Surroundings<'_>,
    ) -> Result<Intake, BuildError> {
        let compile = |expression: &Expression| site.compile(expression);
        Ok(Intake {
            // The payload itself needs no JavaScript.
            value: value
                .filter(|value| value.text().trim() != "payload")
                .map(compile)
                .transpose()?,
            by: match by {
                None => By::Nothing,
                Some(by) if by.text().trim() == "topic" => By::Topic,
                Some(by) => By::Expression(site.compile(by)?),
            },
            state: state.map(compile).transpose()?,
            takes_any,
        })
    }

    /// The number to compute with, or a failure.
    #[inline]
    pub(super) fn number_or_fail(&self, message: &Message, cx: &mut Context<'_>) -> Option<f64> {
        let Some(value) = &self.value else {
            return match self.takes_any {
                true => Some(fingerprint(&message.payload)),
                false => cx.number_or_fail(&message.payload),
            };
        };
        let reason = match value.value(message) {
            Ok(value) if self.takes_any => return Some(fingerprint(&value)),
            Ok(Value::Number(number)) if number.is_finite() => return Some(number),
            Ok(other) => format!(
                "needs a finite number, but `value` gives {}: {}",
                other.kind(),
                excerpt(&other)
            ),
            Err(error) => error.to_string(),
        };
        cx.fail(reason);
        None
    }

    pub(super) fn has_keys(&self) -> bool {
        !matches!(self.by, By::Nothing)
    }

    /// The key, if the node has any.
    pub(super) fn key(&self, message: &Message) -> Result<Option<Text>, String> {
        let key = match &self.by {
            By::Nothing => return Ok(None),
            By::Topic => message.topic.clone(),
            By::Expression(by) => match by.value(message).map_err(|error| error.to_string())? {
                Value::Text(text) => text,
                Value::Null => return Err("`by` gives no key for this message: it is null".into()),
                // As text they would all be the key `null`.
                Value::Number(number) if !number.is_finite() => {
                    return Err(format!(
                        "`by` gives no key for this message: it is {number}"
                    ));
                }
                other => other.to_json().into(),
            },
        };
        if key.len() > LONGEST_TEXT {
            return Err(format!("a key has at most {LONGEST_TEXT} bytes"));
        }
        Ok(Some(key))
    }

    /// The state, if windows go by it.
    pub(super) fn state(&self, message: &Message) -> Result<Option<Value>, String> {
        let Some(state) = &self.state else {
            return Ok(None);
        };
        let state = state.value(message).map_err(|error| error.to_string())?;
        let is_fit = match &state {
            Value::Null | Value::Bool(_) => true,
            Value::Number(number) => number.is_finite(),
            Value::Text(text) => text.len() <= LONGEST_TEXT,
            Value::List(_) | Value::Object(_) => false,
        };
        if is_fit {
            return Ok(Some(state));
        }
        Err(format!(
            "a state is a finite number, true or false, null, or text of at most {LONGEST_TEXT} bytes, but `state` gives {}: {}",
            state.kind(),
            excerpt(&state)
        ))
    }
}

/// A whole number that tells a value from others, by 52 bits of a hash: among 10,000 values, two are taken for the same once
/// in 90 million times.
fn fingerprint(value: &Value) -> f64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(value.to_json().as_bytes());
    (hasher.finish() >> 12) as f64
}
