//! `change`: sets, moves, deletes and replaces parts of a message.

use schemars::JsonSchema;
use serde::Deserialize;

use super::path::{Path, Target};
use super::{BuildError, Definition, Problem, Surroundings, bounds};
use crate::flow::script::{Compiled, Expression};
use crate::message::{Message, Text, Value};
use crate::runtime::node::{Context, Node};

/// Sets, moves, deletes or replaces parts of a message: its payload, topic and headers.
///
/// The rules apply in order; each sees what the ones before it did. A part is written `payload`, `payload.temp`,
/// `payload.list[0]`, `payload["odd name"]`, `topic`, `headers.unit`. To set a part of what is missing or null makes an
/// object of it; a list takes a new item at its end.
///
/// A message fails, and does not go on, if a rule cannot do what it says: `from` or `move` names what is not there, a
/// number is in the way of an object, a topic is not text, JavaScript throws or gives NaN or an infinity. To delete what is
/// not there is no failure. A payload may come to have 100,000 values, 4 MiB of text and 128 levels.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Change {
    /// What to do, in order: `{ set = PART, to = VALUE }`, `{ set = PART, from = PART }`, `{ set = PART, to_js = JAVASCRIPT }`,
    /// `{ move = PART, to = PART }`, `{ delete = PART }`, `{ change = PART, find = TEXT, with = TEXT }`.
    rules: Vec<Rule>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Rule {
    /// The part to set.
    set: Option<Target>,
    /// The part to move; `to` names where.
    r#move: Option<Target>,
    /// The part to take away. Of a list it takes out the item; the payload as a whole becomes null, the topic empty.
    delete: Option<Target>,
    /// The text in which to replace each occurrence of `find` by `with`.
    change: Option<Target>,
    /// The value to set, of any type; or the part to move to.
    to: Option<Value>,
    /// The part whose value to set; also `time` (text in RFC 3339) and `headers`.
    from: Option<Path>,
    /// The value to set, computed: JavaScript that sees what the condition of `where` sees.
    to_js: Option<Expression>,
    /// The text to look for, not empty.
    find: Option<String>,
    /// What to put in its place.
    with: Option<String>,
}

impl Definition for Change {
    const NAME: &'static str = "change";
    const EXAMPLE: &'static str = r#"
[nodes.probe]
type = "ds18b20"
device = "28-0316a2795aff"

[nodes.reading]
type = "change"
from = "probe"
rules = [
  { move = "payload", to = "payload.celsius" },
  { set = "payload.fahrenheit", to_js = "payload.celsius * 1.8 + 32" },
  { set = "payload.place", to = "cold store" },
  { set = "topic", to = "cold-store/temperature" },
]

[nodes.show]
type = "debug"
from = "reading"
"#;

    fn problems(&self) -> Vec<Problem> {
        if self.rules.is_empty() {
            return vec![Problem::new("rules", "must have at least one rule")];
        }
        let rules = self.rules.iter().enumerate();
        rules
            .filter_map(|(place, rule)| rule.problem(&format!("rules.{place}")))
            .collect()
    }

    fn build(&self, site: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError> {
        let actions = self.rules.iter().map(|rule| rule.action(site));
        Ok(Box::new(Changer {
            actions: actions.collect::<Result<_, _>>()?,
        }))
    }
}

impl Rule {
    /// What is wrong with a rule that stands at this place.
    fn problem(&self, at: &str) -> Option<Problem> {
        let what = present(&[
            ("set", self.set.is_some()),
            ("move", self.r#move.is_some()),
            ("delete", self.delete.is_some()),
            ("change", self.change.is_some()),
        ]);
        let how = present(&[
            ("to", self.to.is_some()),
            ("from", self.from.is_some()),
            ("to_js", self.to_js.is_some()),
            ("find", self.find.is_some()),
            ("with", self.with.is_some()),
        ]);
        let needs = match (&what[..], &how[..]) {
            (["set"], ["to" | "from" | "to_js"])
            | (["move"], ["to"])
            | (["delete"], [])
            | (["change"], ["find", "with"]) => return self.problem_in_values(at),
            ([], _) => "needs one of `set`, `move`, `delete` and `change`",
            (["set"], _) => "`set` needs one of `to`, `from` and `to_js`, and nothing else",
            (["move"], _) => "`move` needs `to`, and nothing else",
            (["delete"], _) => "`delete` needs nothing else",
            (["change"], _) => "`change` needs `find` and `with`, and nothing else",
            _ => "does one thing only; make a rule of each",
        };
        Some(Problem::new(at, needs))
    }

    fn problem_in_values(&self, at: &str) -> Option<Problem> {
        let problem =
            |option: &str, message: String| Some(Problem::new(format!("{at}.{option}"), message));
        if self.find.as_ref().is_some_and(String::is_empty) {
            return problem("find", "must not be empty".into());
        }
        let to = self.to.as_ref()?;
        if self.r#move.is_some() {
            let wrong = destination(to).err()?;
            return problem("to", wrong);
        }
        if !bounds::is_finite(to) {
            return problem("to", "must not have a number that is not finite".into());
        }
        None
    }

    fn action(&self, site: &Surroundings<'_>) -> Result<Action, BuildError> {
        Ok(match self {
            Rule {
                set: Some(part),
                to: Some(value),
                ..
            } => Action::Set(part.clone(), Origin::Value(value.clone())),
            Rule {
                set: Some(part),
                from: Some(from),
                ..
            } => Action::Set(part.clone(), Origin::Part(from.clone())),
            Rule {
                set: Some(part),
                to_js: Some(script),
                ..
            } => Action::Set(part.clone(), Origin::Script(site.compile(script)?)),
            Rule {
                r#move: Some(part),
                to: Some(to),
                ..
            } => Action::Move(
                part.clone(),
                destination(to).expect("`problems` refuses other places"),
            ),
            Rule {
                change: Some(part),
                find: Some(find),
                with: Some(with),
                ..
            } => Action::Replace {
                part: part.clone(),
                find: find.clone(),
                with: with.clone(),
            },
            Rule {
                delete: Some(part), ..
            } => Action::Delete(part.clone()),
            _ => unreachable!("`problems` refuses a rule that does nothing"),
        })
    }
}

/// The names of those that are there.
fn present<'a>(options: &[(&'a str, bool)]) -> Vec<&'a str> {
    let there = options.iter().filter(|(_, is_there)| *is_there);
    there.map(|(name, _)| *name).collect()
}

/// Where to move something.
fn destination(to: &Value) -> Result<Target, String> {
    match to {
        Value::Text(path) => Target::parse(path),
        other => Err(format!(
            "must name a part of the message, like \"payload.temp\", and is {}",
            other.kind()
        )),
    }
}

struct Changer {
    actions: Vec<Action>,
}

enum Action {
    Set(Target, Origin),
    Move(Target, Target),
    Delete(Target),
    Replace {
        part: Target,
        find: String,
        with: String,
    },
}

/// Where a value that is set comes from.
enum Origin {
    Value(Value),
    Part(Path),
    Script(Compiled),
}

impl Node for Changer {
    fn message(&mut self, message: &mut Message, cx: &mut Context<'_>) {
        let applied = self
            .actions
            .iter()
            .try_for_each(|action| action.apply(message));
        match applied {
            Ok(()) => cx.pass(0),
            Err(reason) => cx.fail(reason),
        }
    }
}

impl Action {
    fn apply(&self, message: &mut Message) -> Result<(), String> {
        match self {
            Action::Set(part, origin) => {
                let value = origin.value(message)?;
                put(part, message, value)
            }
            Action::Move(part, to) => {
                let value = part
                    .remove(message)
                    .ok_or_else(|| format!("there is no `{part}` to move"))?;
                put(to, message, value)
            }
            Action::Delete(part) => {
                part.remove(message);
                Ok(())
            }
            Action::Replace { part, find, with } => {
                let text = match part.get(message) {
                    Some(Value::Text(text)) => text,
                    Some(other) => return Err(format!("`{part}` is {}, not text", other.kind())),
                    None => return Err(format!("there is no `{part}`")),
                };
                let text = replaced(&text, find, with)?;
                put(part, message, Value::Text(text))
            }
        }
    }
}

impl Origin {
    fn value(&self, message: &Message) -> Result<Value, String> {
        match self {
            Origin::Value(value) => Ok(value.clone()),
            Origin::Part(path) => path
                .get(message)
                .ok_or_else(|| format!("there is no `{path}`")),
            Origin::Script(script) => {
                let value = script.value(message).map_err(|error| error.to_string())?;
                if !bounds::is_finite(&value) {
                    return Err("JavaScript gave NaN or an infinity".into());
                }
                Ok(value)
            }
        }
    }
}

/// Sets a part, and sees to it that messages which go round cannot grow without bound.
fn put(part: &Target, message: &mut Message, value: Value) -> Result<(), String> {
    part.set(message, value)?;
    bounds::check_size(&message.payload)?;
    match &message.headers {
        Some(headers) => bounds::check_size(&Value::Object(headers.clone())),
        None => Ok(()),
    }
}

fn replaced(text: &str, find: &str, with: &str) -> Result<Text, String> {
    let times = text.matches(find).count();
    let bytes = text.len() - times * find.len() + times.saturating_mul(with.len());
    bounds::check_text(bytes)?;
    Ok(text.replace(find, with).into())
}

#[cfg(test)]
mod tests {
    use crate::message::{Timestamp, Value};
    use crate::nodes::testing::{Run, node_problems, run_node, run_node_json};

    fn check(rules: &str, payloads: &str, expected: &[&str]) {
        let sent = run_node_json(&format!("type = 'change'\nrules = [{rules}]"), payloads);
        assert_eq!(sent, expected, "{rules}");
    }

    #[test]
    fn values_are_set() {
        check("{ set = 'payload', to = 5 }", "[1, {\"a\":1}]", &["5", "5"]);
        check(
            "{ set = 'payload.place', to = { hall = 3, on = true } }",
            "[{\"t\":1}, null]",
            &[
                r#"{"t":1,"place":{"hall":3,"on":true}}"#,
                r#"{"place":{"hall":3,"on":true}}"#,
            ],
        );
        check(
            "{ set = 'payload', from = 'payload.list[1]' }",
            r#"[{"list":[1,2]}, {"list":[1]}]"#,
            &["2", "failed: there is no `payload.list[1]`"],
        );
        check(
            "{ set = 'payload.when', from = 'time' }, { set = 'payload.on', from = 'topic' }",
            "[{}, 7]",
            &[
                r#"{"when":"1970-01-01T00:00:10.000Z","on":"t"}"#,
                "failed: `payload.when` cannot be set: a number has no field `when`",
            ],
        );
    }

    #[test]
    fn javascript_sees_what_the_rules_before_it_did() {
        check(
            "{ move = 'payload', to = 'payload.c' }, { set = 'payload.f', to_js = 'payload.c * 1.8 + 32' }",
            "[10]",
            &[r#"{"c":10,"f":50}"#],
        );
        check(
            "{ set = 'payload', to_js = 'payload.x.y' }",
            "[{}]",
            &["failed: JavaScript: cannot read property 'y' of undefined"],
        );
        check(
            "{ set = 'payload', to_js = '({ a: [payload / 0] })' }",
            "[0, 1]",
            &["failed: JavaScript gave NaN or an infinity"; 2],
        );
    }

    #[test]
    fn parts_are_moved_and_deleted() {
        check(
            "{ move = 'payload.a', to = 'payload.b.c' }",
            r#"[{"a":1,"x":2}, {"x":2}]"#,
            &[
                r#"{"x":2,"b":{"c":1}}"#,
                "failed: there is no `payload.a` to move",
            ],
        );
        check(
            "{ delete = 'payload.a' }, { delete = 'headers.none' }",
            r#"[{"a":1,"x":2}, {"x":2}, 5]"#,
            &[r#"{"x":2}"#, r#"{"x":2}"#, "5"],
        );
        check("{ delete = 'payload' }", "[5]", &["null"]);
    }

    #[test]
    fn text_is_replaced() {
        check(
            "{ change = 'payload', find = ',', with = '.' }",
            r#"["1,5 and 2,5", "none", "", 5]"#,
            &[
                "\"1.5 and 2.5\"",
                "\"none\"",
                "\"\"",
                "failed: `payload` is a number, not text",
            ],
        );
        check(
            "{ change = 'payload.x', find = 'a', with = '' }",
            r#"[{"x":"banana"}, {}]"#,
            &[r#"{"x":"bnn"}"#, "failed: there is no `payload.x`"],
        );
    }

    #[test]
    fn topic_and_headers_are_parts_too() {
        let mut run = Run::new(
            "type = 'change'\nrules = [{ set = 'headers.unit', to = 'C' }, { change = 'topic', find = 't', with = 'hall/t' }]",
        );
        run.deliver(Timestamp::from_millis(5), 1.0.into());
        let message = &run.messages[0];
        assert_eq!(&*message.topic, "hall/t");
        assert_eq!(message.time, Timestamp::from_millis(5));
        assert_eq!(
            message
                .headers
                .as_ref()
                .map(|headers| headers["unit"].clone()),
            Some("C".into())
        );
        check(
            "{ set = 'topic', from = 'payload' }",
            "[5]",
            &["failed: `topic` cannot be set: it must be text, not a number"],
        );
    }

    #[test]
    fn messages_do_not_grow_without_bound() {
        const TOO_MUCH: &str = "failed: more than 100000 values would come together";
        let list = Value::List(vec![Value::Null; 40_000].into());
        let check = |rules: &str, is_too_much: bool| {
            let sent = run_node(
                &format!("type = 'change'\nrules = [{rules}]"),
                [list.clone()],
            );
            assert_eq!(sent[0] == TOO_MUCH, is_too_much, "{rules}");
        };
        let twice =
            "{ move = 'payload', to = 'payload.a' }, { set = 'payload.b', from = 'payload.a' }";
        check(twice, false);
        check(
            &format!("{twice}, {{ set = 'payload.c', from = 'payload.a' }}"),
            true,
        );
        let headers =
            "{ set = 'headers.a', from = 'payload' }, { set = 'headers.b', from = 'payload' }";
        check(headers, false);
        check(
            &format!("{headers}, {{ set = 'headers.c', from = 'payload' }}"),
            true,
        );

        let long = Value::from("a".repeat(1024 * 1024).as_str());
        let sent = run_node(
            "type = 'change'\nrules = [{ change = 'payload', find = 'a', with = 'ab' }]",
            [long],
        );
        assert_eq!(sent, ["failed: the text would be longer than 1 MiB"]);

        // Each of five texts is short enough, all of them are not.
        let half = Value::from("a".repeat(512 * 1024).as_str());
        let names = ["a", "b", "c", "d", "e"];
        let texts = Value::object(names.map(|name| (name, half.clone())));
        let rules =
            names.map(|name| format!("{{ change = 'payload.{name}', find = 'a', with = 'ab' }}"));
        let sent = run_node(
            &format!("type = 'change'\nrules = [{}]", rules.join(", ")),
            [texts],
        );
        assert_eq!(
            sent,
            ["failed: more than 4 MiB of text would come together"]
        );
    }

    #[test]
    fn mistakes_in_rules_are_said() {
        let check = |rules: &str, expected: &str| {
            let found = node_problems(&format!("type = 'change'\nrules = [{rules}]"));
            assert_eq!(found.len(), 1, "{rules}: {found:?}");
            assert!(found[0].contains(expected), "{rules}: {found:?}");
        };
        check("", "must have at least one rule");
        check(
            "{}",
            "`rules.0`: needs one of `set`, `move`, `delete` and `change`",
        );
        check("{ to = 5 }", "`rules.0`: needs one of");
        check(
            "{ set = 'payload' }",
            "`set` needs one of `to`, `from` and `to_js`",
        );
        check(
            "{ set = 'payload', to = 1, from = 'topic' }",
            "`set` needs one of",
        );
        check(
            "{ delete = 'topic' }, { set = 'payload', move = 'payload.a', to = 'topic' }",
            "`rules.1`: does one thing only",
        );
        check("{ move = 'payload' }", "`move` needs `to`");
        check(
            "{ move = 'payload', to = 5 }",
            "`rules.0.to`: must name a part of the message, like \"payload.temp\", and is a number",
        );
        check(
            "{ move = 'payload', to = 'temp' }",
            "`rules.0.to`: `temp` is no part of a message",
        );
        check(
            "{ delete = 'payload', to = 5 }",
            "`delete` needs nothing else",
        );
        check(
            "{ change = 'payload', find = 'a' }",
            "`change` needs `find` and `with`",
        );
        check(
            "{ change = 'payload', find = '', with = 'a' }",
            "`rules.0.find`: must not be empty",
        );
        check(
            "{ set = 'payload', to = [nan] }",
            "`rules.0.to`: must not have a number",
        );
        check(
            "{ set = 'time', to = 1 }",
            "the time of a message cannot be set",
        );
        check("{ set = 'msg.payload', to = 1 }", "begins with `payload`");
        check("{ set = 'payload', too = 1 }", "there is no `too` here");
        check("{ set = 'payload', to_js = '1 +' }", "JavaScript:");
    }
}
