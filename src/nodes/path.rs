//! Paths to parts of a message, as options name them: `payload`, `payload.temp`, `payload.list[0].name`, `topic`, `time`,
//! `headers.unit`.
//!
//! A step is the name of an object's field or an item's place in a list, counted from 0: `payload.list.0` is
//! `payload.list[0]`. A name with other characters than letters, digits, `_`, `-` and `$` is written
//! `payload["outdoor temperature"]`. The time is text (RFC 3339).

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use crate::message::{Message, Text, Value};

/// Steps that one path may have.
const MOST_STEPS: usize = 32;

/// A part of a message.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Path {
    root: Root,
    steps: Steps,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Root {
    Payload,
    Topic,
    Time,
    Headers,
}

/// A part of a message that can be set: the payload or a part of it, the topic, a header.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(inline)]
pub(super) struct Target(Path);

/// A way into a value: `temp`, `readings[0].temp`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(inline)]
pub(super) struct Steps(#[schemars(with = "String")] Vec<Step>);

#[derive(Clone, Debug, PartialEq)]
struct Step {
    name: Text,
    /// The place in a list that the name is, if it is one.
    place: Option<usize>,
}

impl Path {
    pub(super) fn parse(text: &str) -> Result<Path, String> {
        let end = text.find(['.', '[']).unwrap_or(text.len());
        let root = match &text[..end] {
            "payload" => Root::Payload,
            "topic" => Root::Topic,
            "time" => Root::Time,
            "headers" => Root::Headers,
            _ => {
                return Err(format!(
                    "`{text}` is no part of a message; one begins with `payload`, `topic`, `time` or `headers`"
                ));
            }
        };
        let steps = match &text[end..] {
            "" => Steps(Vec::new()),
            rest => Steps::parse(rest.strip_prefix('.').unwrap_or(rest))
                .map_err(|wrong| format!("`{text}`: {wrong}"))?,
        };
        if matches!(root, Root::Topic | Root::Time) && !steps.0.is_empty() {
            return Err(format!("`{text}`: `{root}` has no parts"));
        }
        Ok(Path { root, steps })
    }

    /// What is there, if anything is. A copy shares its text, lists and objects.
    pub(super) fn get(&self, message: &Message) -> Option<Value> {
        match self.root {
            Root::Payload => self.steps.get(&message.payload).cloned(),
            Root::Topic => Some(Value::Text(message.topic.clone())),
            Root::Time => Some(Value::Text(message.time.to_string().into())),
            Root::Headers => {
                let headers = Value::Object(message.headers.clone().unwrap_or_default());
                self.steps.get(&headers).cloned()
            }
        }
    }
}

impl Target {
    pub(super) fn parse(text: &str) -> Result<Target, String> {
        let path = Path::parse(text)?;
        match path.root {
            Root::Time => Err("the time of a message cannot be set".into()),
            Root::Headers if path.steps.0.is_empty() => {
                Err("headers are set one by one: `headers.NAME`".into())
            }
            _ => Ok(Target(path)),
        }
    }

    pub(super) fn payload() -> Target {
        Target(Path {
            root: Root::Payload,
            steps: Steps(Vec::new()),
        })
    }

    pub(super) fn get(&self, message: &Message) -> Option<Value> {
        self.0.get(message)
    }

    /// Puts a value there. Objects that are missing on the way, or are `null`, are made. An error says what is in the way;
    /// the message is then half changed and must not go on.
    pub(super) fn set(&self, message: &mut Message, value: Value) -> Result<(), String> {
        let Target(Path { root, steps }) = self;
        match root {
            Root::Payload => steps.set(&mut message.payload, value),
            Root::Headers => {
                let mut headers = Value::Object(message.headers.take().unwrap_or_default());
                let outcome = steps.set(&mut headers, value);
                if let Value::Object(headers) = headers {
                    message.headers = Some(headers);
                }
                outcome
            }
            Root::Topic | Root::Time => match value {
                Value::Text(topic) => {
                    message.topic = topic;
                    Ok(())
                }
                other => Err(format!("it must be text, not {}", other.kind())),
            },
        }
        .map_err(|wrong| format!("`{self}` cannot be set: {wrong}"))
    }

    /// Takes out what is there. Of a list it takes out the item. The payload as a whole is `null` then, the topic empty.
    pub(super) fn remove(&self, message: &mut Message) -> Option<Value> {
        let Target(Path { root, steps }) = self;
        match root {
            Root::Payload => steps.remove(&mut message.payload),
            Root::Headers => {
                let mut headers = Value::Object(message.headers.take()?);
                let removed = steps.remove(&mut headers);
                if let Value::Object(headers) = headers {
                    message.headers = Some(headers).filter(|headers| !headers.is_empty());
                }
                removed
            }
            Root::Topic | Root::Time => Some(Value::Text(std::mem::replace(
                &mut message.topic,
                "".into(),
            ))),
        }
    }
}

impl Steps {
    pub(super) fn parse(text: &str) -> Result<Steps, String> {
        let mut steps = Vec::new();
        let mut rest = text;
        loop {
            let (step, after) = match rest.strip_prefix('[') {
                Some(inside) => bracketed(inside)?,
                None => named(rest)?,
            };
            steps.push(step);
            rest = match after.strip_prefix('.') {
                Some(next) => next,
                None if after.is_empty() => break,
                None if after.starts_with('[') => after,
                None => return Err(format!("`.` or `[` is missing before `{after}`")),
            };
        }
        if steps.len() > MOST_STEPS {
            return Err(format!("more than {MOST_STEPS} steps"));
        }
        Ok(Steps(steps))
    }

    pub(super) fn get<'a>(&self, value: &'a Value) -> Option<&'a Value> {
        self.0.iter().try_fold(value, |here, step| match here {
            Value::Object(fields) => fields.get(&*step.name),
            Value::List(items) => items.get(step.place?),
            _ => None,
        })
    }

    fn set(&self, value: &mut Value, new: Value) -> Result<(), String> {
        let mut here = value;
        for step in &self.0 {
            if *here == Value::Null {
                *here = Value::Object(Arc::default());
            }
            here = match here {
                Value::Object(fields) => Arc::make_mut(fields)
                    .entry(step.name.clone())
                    .or_insert(Value::Null),
                Value::List(items) => {
                    let length = items.len();
                    let place = step.place.filter(|place| *place <= length);
                    let place = place.ok_or_else(|| {
                        format!("`{}` is no place in a list of {length}", step.name)
                    })?;
                    let items = Arc::make_mut(items);
                    if place == length {
                        items.push(Value::Null);
                    }
                    &mut items[place]
                }
                other => {
                    return Err(format!("{} has no field `{}`", other.kind(), step.name));
                }
            };
        }
        *here = new;
        Ok(())
    }

    fn remove(&self, value: &mut Value) -> Option<Value> {
        // First a look, so that nothing shared is copied in vain.
        self.get(value)?;
        let Some((last, way)) = self.0.split_last() else {
            return Some(std::mem::take(value));
        };
        let mut here = value;
        for step in way {
            here = match here {
                Value::Object(fields) => Arc::make_mut(fields).get_mut(&*step.name)?,
                Value::List(items) => Arc::make_mut(items).get_mut(step.place?)?,
                _ => return None,
            };
        }
        match here {
            Value::Object(fields) => Arc::make_mut(fields).shift_remove(&*last.name),
            Value::List(items) => Some(Arc::make_mut(items).remove(last.place?)),
            _ => None,
        }
    }
}

/// A step as a plain name, and what comes after it.
fn named(text: &str) -> Result<(Step, &str), String> {
    let end = text
        .find(|c: char| !is_plain_character(c))
        .unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    if let (true, Some(odd)) = (name.is_empty(), rest.chars().next()) {
        return Err(format!(
            "a name cannot begin with `{odd}` (other names are written in brackets: [\"NAME\"])"
        ));
    }
    if name.is_empty() {
        return Err("a name is missing at the end".into());
    }
    Ok((Step::new(name), rest))
}

/// Whether a name needs no brackets.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.chars().all(is_plain_character)
}

fn is_plain_character(c: char) -> bool {
    c.is_alphanumeric() || "_-$".contains(c)
}

/// A step in brackets, whose first one has been read, and what comes after it.
fn bracketed(text: &str) -> Result<(Step, &str), String> {
    let quote = text.chars().next().filter(|c| ['"', '\''].contains(c));
    let end = match quote {
        Some(quote) => text[1..]
            .find(&format!("{quote}]"))
            .map(|end| (1..end + 1, end + 3)),
        None => text.find(']').map(|end| (0..end, end + 1)),
    };
    let (name, end) = end.ok_or("`[` without its `]`")?;
    let step = Step::new(&text[name]);
    if quote.is_none() && step.place.is_none() {
        return Err(format!(
            "`[{}]` is no place in a list; a name in brackets needs quotes",
            step.name
        ));
    }
    Ok((step, &text[end..]))
}

impl Step {
    fn new(name: &str) -> Step {
        let is_place = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
        Step {
            name: name.into(),
            place: is_place.then(|| name.parse().ok()).flatten(),
        }
    }
}

impl JsonSchema for Path {
    fn schema_name() -> Cow<'static, str> {
        "Path".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}

impl TryFrom<String> for Path {
    type Error = String;

    fn try_from(text: String) -> Result<Path, String> {
        Path::parse(&text)
    }
}

impl TryFrom<String> for Target {
    type Error = String;

    fn try_from(text: String) -> Result<Target, String> {
        Target::parse(&text)
    }
}

impl TryFrom<String> for Steps {
    type Error = String;

    fn try_from(text: String) -> Result<Steps, String> {
        Steps::parse(&text).map_err(|wrong| format!("`{text}`: {wrong}"))
    }
}

impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Root::Payload => "payload",
            Root::Topic => "topic",
            Root::Time => "time",
            Root::Headers => "headers",
        })
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.root)?;
        for step in &self.steps.0 {
            match step.place {
                Some(place) => write!(f, "[{place}]")?,
                None if is_plain(&step.name) => write!(f, ".{}", step.name)?,
                None => write!(f, "[\"{}\"]", step.name)?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{NodeId, Timestamp};

    fn value(json: &str) -> Value {
        serde_json::from_str(json).expect("JSON")
    }

    fn message(payload: &str) -> Message {
        Message {
            topic: "hall/1".into(),
            payload: value(payload),
            time: Timestamp::from_millis(1_500),
            source: NodeId(0),
            headers: Some(Arc::new(
                [("unit".into(), "C".into())].into_iter().collect(),
            )),
        }
    }

    #[test]
    fn paths_are_followed() {
        let check = |path: &str, expected: Option<&str>| {
            let message =
                message(r#"{"a":{"b":[1,{"c":2}]},"0":"zero","odd name":3,"q\"]":4,"n":null}"#);
            let found = Path::parse(path).expect(path).get(&message);
            assert_eq!(
                found.map(|found| found.to_json()).as_deref(),
                expected,
                "{path}"
            );
        };
        check("payload.a.b[0]", Some("1"));
        check("payload.a.b.0", Some("1"));
        check("payload.a.b[1].c", Some("2"));
        check("payload[\"a\"]['b'][1]", Some(r#"{"c":2}"#));
        check("payload.0", Some("\"zero\""));
        check("payload[0]", Some("\"zero\""));
        check("payload[\"odd name\"]", Some("3"));
        check("payload.n", Some("null"));
        check("topic", Some("\"hall/1\""));
        check("time", Some("\"1970-01-01T00:00:01.500Z\""));
        check("headers", Some(r#"{"unit":"C"}"#));
        check("headers.unit", Some("\"C\""));
        check("headers.none", None);
        check("payload.none", None);
        check("payload.none.deeper", None);
        check("payload.a.b[2]", None);
        check("payload.a.b.99999999999999999999999", None);
        check("payload.n.x", None);
        check("payload.a.b[0].x", None);
    }

    #[test]
    fn paths_are_shown_as_they_are_written() {
        for text in [
            "payload",
            "payload.a-b.c_d",
            "payload.list[0]",
            "payload[\"odd name\"].x",
            "payload[\"\"]",
            "headers.unit",
            "time",
        ] {
            assert_eq!(Path::parse(text).expect(text).to_string(), text);
        }
    }

    #[test]
    fn what_is_no_path_is_said() {
        let check = |text: &str, expected: &str| {
            let error = Path::parse(text).expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        };
        check("", "is no part of a message");
        check("temp", "begins with `payload`");
        check("msg.payload", "begins with `payload`");
        check("payload + 1", "is no part of a message");
        check("payload.", "a name is missing");
        check("payload..a", "cannot begin with `.`");
        check("payload.a b", "is missing before ` b`");
        check("payload.a+1", "is missing before `+1`");
        check("payload[0", "`[` without its `]`");
        check("payload[\"a]", "`[` without its `]`");
        check("payload[a]", "needs quotes");
        check("payload[-1]", "needs quotes");
        check("payload[]", "needs quotes");
        check("payload[0]a", "is missing before `a`");
        check("topic.a", "`topic` has no parts");
        check("time[0]", "`time` has no parts");
        check(&format!("payload{}", ".a".repeat(33)), "more than 32 steps");
        assert!(Path::parse(&format!("payload{}", ".a".repeat(32))).is_ok());
        assert_eq!(
            Target::parse("time"),
            Err("the time of a message cannot be set".into())
        );
        assert!(Target::parse("headers").is_err_and(|error| error.contains("one by one")));
        assert!(Steps::parse("").is_err());
    }

    #[test]
    fn values_are_set_and_what_is_missing_is_made() {
        let check = |payload: &str, path: &str, expected: Result<&str, &str>| {
            let mut message = message(payload);
            let outcome = Target::parse(path)
                .expect(path)
                .set(&mut message, Value::Number(7.0));
            let outcome = outcome.map(|()| message.payload.to_json());
            assert_eq!(
                outcome.as_deref().map_err(String::as_str),
                expected,
                "{path}"
            );
        };
        check("1", "payload", Ok("7"));
        check("{}", "payload.a.b", Ok(r#"{"a":{"b":7}}"#));
        check("null", "payload.a", Ok(r#"{"a":7}"#));
        check(
            r#"{"a":null,"c":1}"#,
            "payload.a[0]",
            Ok(r#"{"a":{"0":7},"c":1}"#),
        );
        check("[1,2]", "payload[1]", Ok("[1,7]"));
        check("[1,2]", "payload[2]", Ok("[1,2,7]"));
        check("[1,2]", "payload[2].x", Ok(r#"[1,2,{"x":7}]"#));
        check(
            "[1,2]",
            "payload[3]",
            Err("`payload[3]` cannot be set: `3` is no place in a list of 2"),
        );
        check(
            "[1,2]",
            "payload.x",
            Err("`payload.x` cannot be set: `x` is no place in a list of 2"),
        );
        check(
            "5",
            "payload.x",
            Err("`payload.x` cannot be set: a number has no field `x`"),
        );
        check(
            "5",
            "topic",
            Err("`topic` cannot be set: it must be text, not a number"),
        );
    }

    #[test]
    fn topic_and_headers_are_set_and_taken_out() {
        let mut message = message("1");
        let (topic, unit) = (Target::parse("topic"), Target::parse("headers.unit"));
        let (topic, unit) = (topic.expect("valid"), unit.expect("valid"));
        assert_eq!(topic.set(&mut message, "new".into()), Ok(()));
        assert_eq!(&*message.topic, "new");
        assert_eq!(unit.set(&mut message, "F".into()), Ok(()));
        assert_eq!(unit.get(&message), Some("F".into()));
        assert_eq!(unit.remove(&mut message), Some("F".into()));
        assert_eq!(message.headers, None, "no header is left");
        assert_eq!(unit.remove(&mut message), None);
        assert_eq!(unit.set(&mut message, "K".into()), Ok(()));
        assert_eq!(unit.get(&message), Some("K".into()));
        assert_eq!(topic.remove(&mut message), Some("new".into()));
        assert_eq!(&*message.topic, "");
    }

    #[test]
    fn values_are_taken_out() {
        let check = |payload: &str, path: &str, removed: Option<&str>, left: &str| {
            let mut message = message(payload);
            let found = Target::parse(path).expect(path).remove(&mut message);
            assert_eq!(
                found.map(|found| found.to_json()).as_deref(),
                removed,
                "{path}"
            );
            assert_eq!(message.payload.to_json(), left, "{path}");
        };
        check("5", "payload", Some("5"), "null");
        check(
            r#"{"a":1,"b":2,"c":3}"#,
            "payload.a",
            Some("1"),
            r#"{"b":2,"c":3}"#,
        );
        check("[[1,2,3]]", "payload[0][1]", Some("2"), "[[1,3]]");
        check(r#"{"a":1}"#, "payload.b.c", None, r#"{"a":1}"#);
        check("[1]", "payload[1]", None, "[1]");
    }

    #[test]
    fn a_copy_is_not_changed_with_the_original() {
        let original = message(r#"{"a":[1]}"#);
        let mut copy = original.clone();
        let path = Target::parse("payload.a[0]").expect("valid");
        assert_eq!(path.set(&mut copy, Value::Null), Ok(()));
        path.remove(&mut copy);
        assert_eq!(original.payload.to_json(), r#"{"a":[1]}"#);
    }
}
