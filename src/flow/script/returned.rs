//! What a function returns, as messages.

use rquickjs::{Type, Value as JsValue};

use super::values::Taker;
use super::{Sandbox, ScriptError};
use crate::message::{Message, Text, Timestamp, Value};

/// The messages that a returned value stands for, each with the place of its output.
pub(super) fn messages(
    sandbox: &Sandbox,
    returned: &JsValue<'_>,
    incoming: &Message,
    outputs: usize,
) -> Result<Vec<(usize, Message)>, ScriptError> {
    let mut taker = Taker::new(sandbox);
    let mut sent = Vec::new();
    if is_nothing(returned) {
        return Ok(sent);
    }
    if !returned.is_array() {
        sent.push((0, message(&mut taker, returned, incoming)?));
        return Ok(sent);
    }
    let entries = taker.length(returned)?;
    if entries as usize > outputs {
        let outputs = match outputs {
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
