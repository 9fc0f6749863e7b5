//! `function`: JavaScript.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error;
use serde::{Deserialize, Deserializer};

use super::{BuildError, Definition, Problem, Surroundings};
use crate::flow::file::is_node_name;
use crate::flow::script::{self, FunctionBody};
use crate::message::{Message, Value};
use crate::runtime::node::{Context, Node};
use crate::runtime::state::{Pause, State, StateError};

/// Runs JavaScript for each message, for what no other node does; the common ones need none, and are much faster.
///
/// The code is the body of a function. It sees `msg` with `payload`, `topic`, `time` (milliseconds since 1970), `source` (the
/// sending node's name) and `headers`, which is its own and may be changed; `state`, which is kept from one message to the
/// next, and over a restart; and `vars`, the flow's variables. `Date.now()` and `new Date()` give the engine's time.
///
/// It returns a message, which is an object with a `payload`; what else it lacks it takes from the message that came.
/// `return null`, or no `return`, sends nothing. A list has one entry for each output: a message, null, or a list of
/// messages. So `return [[first, second]]` sends two out of the first one.
///
/// What the code throws, and what it returns that is no message or has NaN or an infinity in its payload, fails, and nothing
/// is sent; what it has changed in `state`
/// by then stays changed, as in Node-RED. `state` is JSON: numbers, text, lists and objects. When the flow starts again, a `Date`
/// in it has become text; with a function, a `Map`, or more than 100,000 values in it, it cannot be kept, and is as at the
/// first start, with a failure that says so. There is no clock but the engine's, no chance, no network, nothing to wait for
/// (`async`), and no BigInt.
///
/// Memory: 16 MiB for all JavaScript of a flow. What needs more fails. If that is because of `state`, that is as at the
/// first start again, and the failure says so.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Function {
    /// The body of the function, in strict mode, such as `"msg.payload = msg.payload * 2; return msg;"`.
    code: FunctionBody,
    /// How many outputs the node has, from 1 to 64, or a list of their names. Several have the names `1`, `2` and so on; a
    /// single one is `out`. Default: 1.
    #[serde(default)]
    outputs: Outputs,
    /// What `state` is at the first start, a table such as `{ count = 0 }`. Default: an empty one.
    #[serde(default = "empty")]
    state: Value,
}

const MOST_OUTPUTS: usize = 64;

fn empty() -> Value {
    Value::object::<&str>([])
}

/// The names of the outputs.
#[derive(Debug, PartialEq)]
struct Outputs(Vec<String>);

impl Default for Outputs {
    fn default() -> Outputs {
        Outputs(vec!["out".to_owned()])
    }
}

impl<'de> Deserialize<'de> for Outputs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Outputs, D::Error> {
        let names = match Value::deserialize(deserializer)? {
            Value::Number(1.0) => return Ok(Outputs::default()),
            Value::Number(count) if count.fract() == 0.0 && count > 1.0 => {
                let most = MOST_OUTPUTS as f64 + 1.0;
                Some(
                    (1..=count.min(most) as usize)
                        .map(|n| n.to_string())
                        .collect(),
                )
            }
            Value::List(names) => names
                .iter()
                .map(|name| match name {
                    Value::Text(name) => Some(name.to_string()),
                    _ => None,
                })
                .collect::<Option<Vec<_>>>(),
            _ => None,
        };
        names.map(Outputs).ok_or_else(|| {
            D::Error::custom(
                "outputs are a whole number from 1, or a list of names such as [\"good\", \"bad\"]",
            )
        })
    }
}

impl JsonSchema for Outputs {
    fn schema_name() -> Cow<'static, str> {
        "Outputs".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["integer", "array"], "items": { "type": "string" } })
    }
}

impl Definition for Function {
    const NAME: &'static str = "function";
    const NAMES_PORTS: bool = true;
    const EXAMPLE: &'static str = r#"
[vars]
litres_per_pulse = 10

[nodes.meter]
type = "gpio in"
pin = 22

[nodes.volume]
type = "function"
from = "meter"
outputs = ["total", "hourly"]
state = { litres = 0, since = 0, hour = 0 }
code = '''
if (msg.payload !== 1) return;                 // the falling edge of the same pulse
const hour = Math.floor(Date.now() / 3_600_000);
let hourly = null;
if (state.hour !== hour) {
  if (state.hour > 0) hourly = { payload: state.since, topic: "water/hourly" };
  state.hour = hour;
  state.since = 0;
}
state.litres += vars.litres_per_pulse;
state.since += vars.litres_per_pulse;
return [{ payload: state.litres, topic: "water/total" }, hourly];
'''

[nodes.show]
type = "debug"
from = ["volume.total", "volume.hourly"]
"#;

    fn ports(&self) -> Vec<String> {
        self.outputs.0.clone()
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let names = &self.outputs.0;
        if names.is_empty() || names.len() > MOST_OUTPUTS {
            problems.push(Problem::new(
                "outputs",
                format!("a node has from 1 to {MOST_OUTPUTS} outputs"),
            ));
        }
        for (place, name) in names.iter().enumerate() {
            let problem = if !is_node_name(name) {
                format!(
                    "`{name}` is no name for an output: lower-case letters, digits, `_` and `-`"
                )
            } else if names[..place].contains(name) {
                format!("`{name}` is named twice")
            } else {
                continue;
            };
            problems.push(Problem::new(format!("outputs.{place}"), problem));
        }
        if !matches!(self.state, Value::Object(_)) {
            problems.push(Problem::new(
                "state",
                format!(
                    "must be a table, such as {{ count = 0 }}, but is {}",
                    self.state.kind()
                ),
            ));
        }
        problems
    }

    fn warnings(&self) -> Vec<Problem> {
        let names = self.code.names_not_here();
        let names = names.into_iter().map(|(name, remedy)| {
            Problem::new("code", format!("there is no `{name}` here: {remedy}"))
        });
        let fields = self.code.unknown_fields();
        let fields = fields.into_iter().map(|field| {
            let message = format!(
                "a message has no field `{field}`, and does not carry one on; `msg.headers.{field}` goes with it"
            );
            Problem::new("code", message)
        });
        names.chain(fields).collect()
    }

    fn hint(option: &str) -> Option<&'static str> {
        match option {
            "func" => Some("the function's body is `code`"),
            "initialize" | "start" | "on_start" => {
                Some("what the function begins with is `state`, a table")
            }
            "libs" | "modules" => Some("there are no modules here"),
            _ => None,
        }
    }

    fn build(&self, site: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError> {
        let function = site.compile_function(&self.code, &self.state, self.outputs.0.len())?;
        Ok(Box::new(Running { function }))
    }
}

struct Running {
    function: script::Function,
}

impl Node for Running {
    fn save(&self) -> Option<State> {
        let state = self.function.state();
        Some(State::of(&state.map_err(|error| error.to_string())))
    }

    fn resume(&mut self, state: &State, _: Pause, cx: &mut Context<'_>) -> Result<(), StateError> {
        let state: Result<Value, String> = state.read()?;
        let set = state.and_then(|state| {
            let set = self.function.set_state(&state);
            set.map_err(|error| error.to_string())
        });
        if let Err(reason) = set {
            cx.fail(format!("`state` is as at the first start again: {reason}"));
        }
        Ok(())
    }

    fn message(&mut self, message: &mut Message, cx: &mut Context<'_>) {
        match self.function.call(message, cx.now().wall) {
            Ok(sent) => {
                for (port, message) in sent {
                    cx.emit(port, message);
                }
            }
            Err(error) => cx.fail(error.to_string()),
        }
    }
}

#[cfg(test)]
#[path = "function_test.rs"]
mod tests;
