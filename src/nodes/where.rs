//! `where`: passes what meets a condition.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{BuildError, Definition, Surroundings};
use crate::flow::script::{Compiled, Expression};
use crate::message::Message;
use crate::runtime::node::{Context, Node};

/// Passes a message on only where a JavaScript condition holds.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Where {
    /// The condition, which sees `payload`, `topic`, `time` (milliseconds since 1970), `headers`, `msg` and `vars`.
    when: Expression,
}

impl Definition for Where {
    const NAME: &'static str = "where";
    const EXAMPLE: &'static str = r#"
[nodes.probe]
type = "ds18b20"
device = "28-0316a2795aff"

[nodes.plausible]
type = "where"
from = "probe"
when = "payload > -40 && payload < 60"

[nodes.show]
type = "debug"
from = "plausible"
"#;

    fn build(&self, site: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError> {
        Ok(Box::new(Condition {
            when: site.compile(&self.when)?,
        }))
    }
}

struct Condition {
    when: Compiled,
}

impl Node for Condition {
    fn message(&mut self, message: &mut Message, cx: &mut Context<'_>) {
        match self.when.is_true(message) {
            Ok(true) => cx.pass(0),
            Ok(false) => {}
            Err(error) => cx.fail(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::message::Value;
    use crate::nodes::testing::run_node;

    #[test]
    fn it_passes_what_meets_the_condition_and_fails_what_throws() {
        let payloads: Vec<Value> =
            serde_json::from_str(r#"[1, 7, null, "8", {"x": 9}]"#).expect("JSON");
        assert_eq!(
            run_node("type = 'where'\nwhen = 'payload.valueOf() > 5'", payloads),
            [
                "7",
                "failed: JavaScript: cannot read property 'valueOf' of null",
                "\"8\""
            ]
        );
    }
}
