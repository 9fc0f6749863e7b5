//! The payloads of feeds: plain, or by JavaScript of the time and the number of the repetition.

use std::time::Duration;

use super::test::{Action, Fed, FedPayload, Feed, Test};
use crate::flow::script::{Compiled, Sandbox, ScriptError};
use crate::message::{Message, NodeId, Timestamp, Value};

/// The formulas of a test, ready to be evaluated.
pub(super) struct Formulas {
    /// By step and action.
    compiled: Vec<Vec<Option<Compiled>>>,
}

impl Formulas {
    pub(super) fn compile(test: &Test) -> Result<Formulas, ScriptError> {
        let mut sandbox = None;
        let mut compile = |action: &Action| {
            let Action::Feed(Feed {
                what:
                    Fed::Message {
                        payload: FedPayload::Formula(formula),
                        ..
                    },
                ..
            }) = action
            else {
                return Ok(None);
            };
            // They see the variables of the test's flow, whose node they feed or not.
            let sandbox = match &sandbox {
                Some(sandbox) => sandbox,
                None => sandbox.insert(Sandbox::new(test.flows[0].vars())?),
            };
            sandbox.compile(&formula.expression, &[]).map(Some)
        };
        let steps = test.steps.iter();
        let compiled = steps.map(|step| step.actions.iter().map(&mut compile).collect());
        Ok(Formulas {
            compiled: compiled.collect::<Result<_, _>>()?,
        })
    }

    /// What a feed sends at a time, in its repetition of that number.
    pub(super) fn payload(
        &self,
        (step, action): (usize, usize),
        feed: &Feed,
        time: Duration,
        number: u64,
    ) -> Result<Value, ScriptError> {
        match (&self.compiled[step][action], &feed.what) {
            (Some(compiled), _) => {
                let now = [
                    ("t", Value::Number(time.as_secs_f64())),
                    ("n", Value::Number(number as f64)),
                ];
                compiled.value(&Message {
                    topic: "".into(),
                    payload: Value::object(now),
                    time: Timestamp::default(),
                    source: NodeId(0),
                    headers: None,
                })
            }
            (
                None,
                Fed::Message {
                    payload: FedPayload::Plain(payload),
                    ..
                },
            ) => Ok(payload.clone()),
            (None, _) => Ok(Value::Null),
        }
    }
}
