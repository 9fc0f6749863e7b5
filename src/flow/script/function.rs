//! Functions: JavaScript that makes messages of a message, and remembers.

use std::borrow::Cow;
use std::rc::Rc;

use rquickjs::{
    Array, CatchResultExt, Ctx, Function as JsFunction, Persistent, Type, Value as JsValue,
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error as _};

use super::expression::headers_to_js;
use super::literals::refuse_big_ints;
use super::values::{Taker, text_to_js, to_js};
use super::{Sandbox, ScriptError, in_scratch, mentions};
use crate::message::{Message, Text, Timestamp, Value};

/// What Node-RED's functions or other places where JavaScript runs have, and what to do here. A dot or a parenthesis follows
/// the name.
pub(crate) const NOT_HERE: [(&str, &str); 19] = [
    (
        "node.",
        "`return` what is to be sent; `throw new Error(\"...\")` makes the message fail",
    ),
    ("context.", "use `state`, which is kept between messages"),
    (
        "flow.",
        "use `state`; what several nodes need goes along wires",
    ),
    (
        "global.",
        "use `state`; what several nodes need goes along wires",
    ),
    ("env.", "use `vars`, the flow's variables"),
    ("RED.", "each reader of a message gets its own copy anyhow"),
    ("process.", "a function sees `msg`, `state` and `vars`"),
    ("Buffer.", "payloads are numbers, text, lists and objects"),
    ("console.", "send what you want to see to a `debug` node"),
    (
        "Promise.",
        "a function answers at once; there is nothing to wait for",
    ),
    ("require(", "there are no modules"),
    ("setTimeout(", "use a `delay` node"),
    ("setInterval(", "use an `inject` node"),
    ("setImmediate(", "a function answers at once"),
    ("clearTimeout(", "there are no timers"),
    ("clearInterval(", "there are no timers"),
    ("fetch(", "a function has no network"),
    ("BigInt(", "numbers are 64-bit floats"),
    ("queueMicrotask(", "a function answers at once"),
];

/// What stands before the body, in one line, and behind it, where it is compiled.
const BEFORE: &str =
    "(function (state, vars) { \"use strict\"; return [() => state, function (msg) {";
const AFTER: &str = "}]; })";
/// The same to check it.
const CHECKED: &str = "function checked(msg) { \"use strict\";";

/// The text of a JavaScript function's body, known to be valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionBody(String);

impl FunctionBody {
    /// Checks that the text is a function's body, without evaluating anything.
    pub fn parse(text: &str) -> Result<FunctionBody, ScriptError> {
        in_scratch(|sandbox| {
            sandbox.check(CHECKED, text, "}")?;
            // Behind a brace that closes our function, a statement follows above, and a comma or a brace here.
            sandbox
                .check(
                    "function checked() { \"use strict\"; return { f(msg) {",
                    text,
                    "} }; }",
                )
                .map_err(|error| match error {
                    ScriptError::Thrown { place, .. } => ScriptError::Thrown {
                        place,
                        text: "a brace or parenthesis is closed that was not opened".into(),
                    },
                    other => other,
                })?;
            refuse_big_ints(sandbox, CHECKED, text, "}")
        })?;
        Ok(FunctionBody(text.to_owned()))
    }

    pub fn text(&self) -> &str {
        &self.0
    }

    /// What stands before and after each place where the text has a name by itself: not within another, and not behind a
    /// dot.
    fn uses<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
        let text = self.text();
        text.match_indices(name)
            .map(move |(start, _)| (&text[..start], &text[start + name.len()..]))
            .filter(move |(before, after)| {
                let is_field = before.ends_with('.') && !before.ends_with("...");
                !is_field && !before.ends_with(is_part) && !after.starts_with(is_part)
            })
    }

    /// Names that the text uses but a sandbox does not have, and what to do instead. One that it declares is its own.
    pub fn names_not_here(&self) -> Vec<(&'static str, &'static str)> {
        let is_used = |name: &str, next: &str| {
            self.uses(name).any(|(_, after)| {
                let field = after.strip_prefix(next);
                field.is_some_and(|field| next == "(" || field.starts_with(char::is_alphabetic))
            })
        };
        let declares = [
            "let ",
            "const ",
            "var ",
            "function ",
            "class ",
            "(",
            ", ",
            "{ ",
        ];
        let is_declared = |name: &str, next: &str| {
            self.uses(name).any(|(before, after)| {
                declares.iter().any(|word| before.ends_with(word)) && !after.starts_with(next)
                    || after.trim_start().starts_with("=>")
            })
        };
        let names = NOT_HERE.into_iter().filter_map(|(use_of, remedy)| {
            let (name, next) = use_of.split_at(use_of.len() - 1);
            (is_used(name, next) && !is_declared(name, next)).then_some((name, remedy))
        });
        names.collect()
    }

    /// Fields of `msg` that the text names and that messages do not have.
    pub fn unknown_fields(&self) -> Vec<&str> {
        const FIELDS: [&str; 5] = ["payload", "topic", "time", "source", "headers"];
        let mut unknown = Vec::new();
        // A function within may have its own `msg`.
        if self
            .uses("msg")
            .any(|(_, after)| after.trim_start_matches(')').trim_start().starts_with("=>"))
        {
            return unknown;
        }
        for (_, after) in self.uses("msg") {
            let Some(field) = after.strip_prefix("?.").or_else(|| after.strip_prefix('.')) else {
                continue;
            };
            let end = field.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '$');
            let field = &field[..end.unwrap_or(field.len())];
            if !field.is_empty() && !FIELDS.contains(&field) && !unknown.contains(&field) {
                unknown.push(field);
            }
        }
        unknown
    }

    /// Whether the text does more with `msg` than to name a field of it, or to return it. Then it may see any field.
    fn looks_at_whole_message(&self) -> bool {
        self.uses("msg").any(|(before, after)| {
            let after = after.trim_start();
            let names_field = after.starts_with('.') || after.starts_with("?.");
            let returns_it = before.trim_end().ends_with("return") && !after.starts_with('[');
            !names_field && !returns_it
        }) || self.text().contains("arguments")
            || self.text().contains("\\u")
    }
}

impl<'de> Deserialize<'de> for FunctionBody {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<FunctionBody, D::Error> {
        FunctionBody::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// `"format": "javascript"` tells the checker not to insert variables into it.
impl JsonSchema for FunctionBody {
    fn schema_name() -> Cow<'static, str> {
        "FunctionBody".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "javascript" })
    }
}

impl Sandbox {
    /// Makes a function ready to be called many times. `state` is what it begins with; `outputs` is how many it has; `nodes`
    /// are the names of the flow's nodes, for `msg.source`.
    pub fn compile_function(
        &self,
        body: &FunctionBody,
        state: &Value,
        outputs: usize,
        nodes: &[Text],
    ) -> Result<Function, ScriptError> {
        let sees = |name| body.looks_at_whole_message() || mentions(body.text(), name);
        Ok(Function {
            parts: Some(self.make(body, state)?),
            sees: ["topic", "time", "source", "headers"].map(sees),
            body: body.clone(),
            initial: state.clone(),
            outputs,
            nodes: nodes.into(),
            sandbox: self.clone(),
        })
    }

    /// The function and what reads its state, which is new.
    fn make(&self, body: &FunctionBody, state: &Value) -> Result<Parts, ScriptError> {
        self.run(f64::NAN, |ctx| {
            let source = format!("{BEFORE}\n{}\n{AFTER}", body.text());
            let outer: JsFunction<'_> = self.evaluate(ctx, source)?;
            self.parts(ctx, outer, state)
                .catch(ctx)
                .map_err(|error| self.in_words(error))
        })
    }

    fn parts<'js>(
        &self,
        ctx: &Ctx<'js>,
        outer: JsFunction<'js>,
        state: &Value,
    ) -> rquickjs::Result<Parts> {
        let made: Array<'js> = outer.call((to_js(ctx, state)?, self.vars(ctx)?))?;
        let state: JsFunction<'js> = made.get(0)?;
        Ok(Parts {
            call: Persistent::save(ctx, self.from_parts(ctx, made.get(1)?)?),
            state: Persistent::save(ctx, state),
        })
    }
}

/// A function that can be called. What lives in the sandbox stands before it: see [`Sandbox`].
pub struct Function {
    /// None if there was no memory for it; then the next call makes it.
    parts: Option<Parts>,
    /// Whether it can see the message's topic, time, source and headers.
    sees: [bool; 4],
    body: FunctionBody,
    initial: Value,
    outputs: usize,
    nodes: Rc<[Text]>,
    sandbox: Sandbox,
}

struct Parts {
    call: Persistent<JsFunction<'static>>,
    state: Persistent<JsFunction<'static>>,
}

/// When more of the memory than this is still in use after it ran out, the state is what takes it.
const LARGE_STATE: f64 = 0.5;

impl Function {
    /// Calls the function with a message: what it sends, each with the place of the output. `now` is what it sees as the
    /// time. Where it fails, nothing is sent, and what it did to its state until then stays done.
    pub fn call(
        &mut self,
        message: &Message,
        now: Timestamp,
    ) -> Result<Vec<(usize, Message)>, ScriptError> {
        let parts = match self.parts.take() {
            Some(parts) => parts,
            None => self.sandbox.make(&self.body, &self.initial)?,
        };
        let parts = self.parts.insert(parts);
        let call = parts.call.clone();
        let outcome = self.sandbox.run(now.as_millis_f64(), |ctx| {
            let returned = self
                .enter(ctx, call, message)
                .catch(ctx)
                .map_err(|error| self.sandbox.in_words(error))?;
            self.sent(&returned, message)
        });
        outcome.map_err(|error| match error {
            ScriptError::TooMuchMemory if self.sandbox.memory_share() > LARGE_STATE => {
                self.begin_anew(error)
            }
            other => self.in_its_words(other),
        })
    }

    /// What the function remembers, as JSON has it.
    pub fn state(&self) -> Result<Value, ScriptError> {
        let Some(parts) = &self.parts else {
            return Ok(self.initial.clone());
        };
        self.sandbox.run(f64::NAN, |ctx| {
            let state = parts.state.clone().restore(ctx);
            let state: JsValue<'_> = state
                .and_then(|state| state.call(()))
                .catch(ctx)
                .map_err(|error| self.sandbox.in_words(error))?;
            Taker::new(&self.sandbox).value(&state)
        })
    }

    fn enter<'js>(
        &self,
        ctx: &Ctx<'js>,
        call: Persistent<JsFunction<'static>>,
        message: &Message,
    ) -> rquickjs::Result<JsValue<'js>> {
        let undefined = || JsValue::new_undefined(ctx.clone());
        let [topic, time, source, headers] = self.sees;
        let topic = if topic {
            text_to_js(ctx, &message.topic)?
        } else {
            undefined()
        };
        let time = if time {
            JsValue::new_float(ctx.clone(), message.time.as_millis_f64())
        } else {
            undefined()
        };
        let source = if source {
            let name = self.nodes.get(usize::from(message.source.0));
            text_to_js(ctx, name.map_or("", |name| name))?
        } else {
            undefined()
        };
        let headers = if headers {
            headers_to_js(ctx, message)?
        } else {
            undefined()
        };
        let payload = to_js(ctx, &message.payload)?;
        call.restore(ctx)?
            .call((payload, topic, time, source, headers))
    }

    /// Lets go of a state that leaves no room for anything else.
    fn begin_anew(&mut self, error: ScriptError) -> ScriptError {
        self.parts = None;
        self.sandbox.clear_away();
        ScriptError::StateTooLarge(Box::new(error))
    }

    /// What a returned value sends.
    fn sent(
        &self,
        returned: &JsValue<'_>,
        incoming: &Message,
    ) -> Result<Vec<(usize, Message)>, ScriptError> {
        let mut taker = Taker::new(&self.sandbox);
        let mut sent = Vec::new();
        if is_nothing(returned) {
            return Ok(sent);
        }
        if !returned.is_array() {
            sent.push((0, message(&mut taker, returned, incoming)?));
            return Ok(sent);
        }
        let entries = taker.length(returned)?;
        if entries as usize > self.outputs {
            let outputs = match self.outputs {
                1 => "one output".to_owned(),
                outputs => format!("{outputs} outputs"),
            };
            return Err(ScriptError::NotAMessage(format!(
                "a list of {entries}, but the node has {outputs}: a list has one entry for each output; several messages \
                 out of one are a list in it: `return [[first, second]]`"
            )));
        }
        for output in 0..entries {
            let entry = taker.item(returned, output)?;
            if is_nothing(&entry) {
                continue;
            }
            let output = output as usize;
            if !entry.is_array() {
                sent.push((output, message(&mut taker, &entry, incoming)?));
                continue;
            }
            for place in 0..taker.length(&entry)? {
                let entry = taker.item(&entry, place)?;
                taker.count()?;
                if !is_nothing(&entry) {
                    sent.push((output, message(&mut taker, &entry, incoming)?));
                }
            }
        }
        Ok(sent)
    }

    /// The error with what to do, where the function's text tells.
    fn in_its_words(&self, error: ScriptError) -> ScriptError {
        let ScriptError::Thrown { place, text } = error else {
            return error;
        };
        let name = text.strip_suffix(" is not defined").unwrap_or_default();
        let remedy = NOT_HERE
            .iter()
            .find(|(known, _)| known[..known.len() - 1] == *name);
        let text = if let Some((_, remedy)) = remedy {
            format!("there is no `{name}` here: {remedy}")
        } else if text == "not a function" && mentions(self.body.text(), "async") {
            "async functions cannot run here: a function answers at once; there is nothing to wait for".into()
        } else {
            text
        };
        ScriptError::Thrown { place, text }
    }
}

fn is_nothing(value: &JsValue<'_>) -> bool {
    value.is_undefined() || value.is_null()
}

/// The message that an object stands for: what it lacks but the payload is the incoming message's.
fn message(
    taker: &mut Taker<'_>,
    value: &JsValue<'_>,
    incoming: &Message,
) -> Result<Message, ScriptError> {
    let not_a_message = |what: String| {
        Err(ScriptError::NotAMessage(format!(
            "{what}: a message is written `{{ payload: ... }}`, or `msg.payload = ...; return msg;`"
        )))
    };
    if value.is_promise() {
        return Err(ScriptError::NotAMessage(
            "a Promise: a function answers at once; there is nothing to wait for".into(),
        ));
    }
    if !value.is_object() || value.is_function() || value.is_array() {
        return not_a_message(format!("{}, which is no message", kind(value)));
    }
    let payload: JsValue<'_> = taker.field(value, "payload")?;
    if payload.is_undefined() {
        return not_a_message("an object without a payload".into());
    }
    let payload = taker.value(&payload)?;
    if let Some(number) = not_finite(&payload) {
        let name = if number.is_nan() {
            "NaN"
        } else if number > 0.0 {
            "Infinity"
        } else {
            "-Infinity"
        };
        return Err(ScriptError::NotAValue(name.into()));
    }
    let topic = topic(taker, &taker.field(value, "topic")?, incoming)?;
    let time = time(&taker.field(value, "time")?, incoming)?;
    let headers: JsValue<'_> = taker.field(value, "headers")?;
    let headers = if headers.is_undefined() {
        incoming.headers.clone()
    } else {
        match taker.value(&headers)? {
            Value::Null => None,
            Value::Object(headers) => (!headers.is_empty()).then_some(headers),
            other => {
                return Err(ScriptError::NotAMessage(format!(
                    "a message whose headers are {}; they are an object",
                    other.kind()
                )));
            }
        }
    };
    Ok(Message {
        topic,
        payload,
        time,
        source: incoming.source,
        headers,
    })
}

/// A number in a payload that JSON could only write as null.
fn not_finite(payload: &Value) -> Option<f64> {
    match payload {
        Value::Number(number) => (!number.is_finite()).then_some(*number),
        Value::List(list) => list.iter().find_map(not_finite),
        Value::Object(object) => object.values().find_map(not_finite),
        _ => None,
    }
}

fn topic(
    taker: &mut Taker<'_>,
    value: &JsValue<'_>,
    incoming: &Message,
) -> Result<Text, ScriptError> {
    if value.is_undefined() {
        return Ok(incoming.topic.clone());
    }
    if !value.is_string() {
        return Err(ScriptError::NotAMessage(format!(
            "a message whose topic is {}; it is text",
            kind(value)
        )));
    }
    let topic = taker.text(value)?;
    Ok(if topic == *incoming.topic {
        incoming.topic.clone()
    } else {
        topic.into()
    })
}

fn time(value: &JsValue<'_>, incoming: &Message) -> Result<Timestamp, ScriptError> {
    if value.is_undefined() {
        return Ok(incoming.time);
    }
    match value.as_number() {
        // Not a nanosecond is lost where nothing was changed.
        Some(millis) if millis == incoming.time.as_millis_f64() => Ok(incoming.time),
        // Beyond this, nanoseconds do not fit into 64 bits: before the year 1678 or after 2261.
        Some(millis) if millis.abs() < 9.2e12 => Ok(Timestamp::from_nanos((millis * 1e6) as i64)),
        Some(millis) => Err(ScriptError::NotAMessage(format!(
            "a message whose time is {millis}; it is in milliseconds since 1970, as `Date.now()` has it"
        ))),
        None => Err(ScriptError::NotAMessage(format!(
            "a message whose time is {}; it is a number of milliseconds since 1970, as `Date.now()` has it",
            kind(value)
        ))),
    }
}

/// What a value is, as messages name it.
fn kind(value: &JsValue<'_>) -> &'static str {
    match value.type_of() {
        Type::Undefined | Type::Uninitialized => "undefined",
        Type::Null => "null",
        Type::Bool => "a boolean",
        Type::Int | Type::Float => "a number",
        Type::String => "text",
        Type::Symbol => "a symbol",
        Type::BigInt => "a BigInt",
        Type::Array => "a list",
        Type::Function | Type::Constructor => "a function",
        _ => "an object",
    }
}
