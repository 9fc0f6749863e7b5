//! Values on their way into a script and out of it.

use rquickjs::object::Property;
use rquickjs::{Array, Atom, Ctx, Object as JsObject, Value as JsValue};

use super::ScriptError;
use super::sandbox::{MEMORY_LIMIT, Sandbox};
use crate::message::{Object, Value};

/// How deep lists and objects may lie in each other when they come out of a script.
const DEPTH_LIMIT: usize = 64;
/// How many values may come out of a script at once, in lists and objects.
const SIZE_LIMIT: usize = 100_000;
/// How many bytes of text may come out of a script at once. A script can name one text many times; here each is a copy.
const TEXT_LIMIT: usize = MEMORY_LIMIT;

pub(super) fn text_to_js<'js>(ctx: &Ctx<'js>, text: &str) -> rquickjs::Result<JsValue<'js>> {
    Ok(rquickjs::String::from_str(ctx.clone(), text)?.into_value())
}

pub(super) fn object_to_js<'js>(ctx: &Ctx<'js>, fields: &Object) -> rquickjs::Result<JsValue<'js>> {
    let object = JsObject::new(ctx.clone())?;
    for (name, field) in fields {
        // Not by `set`: `__proto__` and `toString` are fields like any other.
        let field = Property::from(to_js(ctx, field)?);
        object.prop(&**name, field.writable().enumerable().configurable())?;
    }
    Ok(object.into_value())
}

pub(super) fn to_js<'js>(ctx: &Ctx<'js>, value: &Value) -> rquickjs::Result<JsValue<'js>> {
    Ok(match value {
        Value::Null => JsValue::new_null(ctx.clone()),
        Value::Bool(level) => JsValue::new_bool(ctx.clone(), *level),
        Value::Number(number) => JsValue::new_float(ctx.clone(), *number),
        Value::Text(text) => text_to_js(ctx, text)?,
        Value::List(list) => {
            let array = Array::new(ctx.clone())?;
            for (place, item) in list.iter().enumerate() {
                array.set(place, to_js(ctx, item)?)?;
            }
            array.into_value()
        }
        Value::Object(object) => object_to_js(ctx, object)?,
    })
}

/// Takes values out of a script, as much of them as may come out at once. Getters run on the way, within the limits of the
/// evaluation.
pub(super) struct Taker<'a> {
    sandbox: &'a Sandbox,
    values: usize,
    bytes: usize,
}

impl<'a> Taker<'a> {
    pub(super) fn new(sandbox: &'a Sandbox) -> Taker<'a> {
        Taker {
            sandbox,
            values: 0,
            bytes: 0,
        }
    }

    /// A value as JSON would have it: what is `undefined` is null, and left out of objects.
    pub(super) fn value(&mut self, value: &JsValue<'_>) -> Result<Value, ScriptError> {
        self.nested(value, 0)
    }

    /// Whether what came out was so much that it may be what fills the memory.
    pub(super) fn took_much(&self) -> bool {
        self.values > SIZE_LIMIT / 10 || self.bytes > TEXT_LIMIT / 10
    }

    /// Counts one more value.
    pub(super) fn count(&mut self) -> Result<(), ScriptError> {
        self.values += 1;
        if self.values > SIZE_LIMIT {
            return Err(not_a_value(format!("more than {SIZE_LIMIT} values")));
        }
        Ok(())
    }

    fn nested(&mut self, value: &JsValue<'_>, depth: usize) -> Result<Value, ScriptError> {
        self.count()?;
        if depth > DEPTH_LIMIT {
            return Err(not_a_value(format!(
                "something nested more than {DEPTH_LIMIT} deep"
            )));
        }
        if value.is_null() || value.is_undefined() {
            return Ok(Value::Null);
        }
        if let Some(level) = value.as_bool() {
            return Ok(Value::Bool(level));
        }
        if let Some(number) = value.as_number() {
            return Ok(Value::Number(number));
        }
        if value.is_string() {
            return Ok(Value::Text(self.text(value)?.into()));
        }
        if value.is_array() {
            return self.list(value, depth);
        }
        match value.as_object() {
            Some(object) if !value.is_function() && !value.is_promise() => {
                self.object(object, depth)
            }
            _ => Err(not_a_value(format!("a {}", value.type_name()))),
        }
    }

    /// A string as text.
    pub(super) fn text(&mut self, value: &JsValue<'_>) -> Result<String, ScriptError> {
        let string = value.as_string().expect("the caller has seen a string");
        let text = string
            .to_string()
            .map_err(|error| self.error(value.ctx(), error))?;
        self.add_bytes(text.len())?;
        Ok(text)
    }

    fn add_bytes(&mut self, bytes: usize) -> Result<(), ScriptError> {
        self.bytes += bytes;
        if self.bytes > TEXT_LIMIT {
            return Err(not_a_value(format!(
                "more than {} MiB of text",
                TEXT_LIMIT / 1024 / 1024
            )));
        }
        Ok(())
    }

    fn list(&mut self, value: &JsValue<'_>, depth: usize) -> Result<Value, ScriptError> {
        let mut list = Vec::new();
        for place in 0..self.length(value)? {
            let item: JsValue<'_> = self.item(value, place)?;
            list.push(self.nested(&item, depth + 1)?);
        }
        Ok(Value::List(list.into()))
    }

    /// The length of an array. Not by rquickjs: that panics where it is 2^31 or more.
    pub(super) fn length(&self, array: &JsValue<'_>) -> Result<u32, ScriptError> {
        let length: f64 = self.field(array, "length")?;
        Ok(length as u32)
    }

    pub(super) fn item<'js>(
        &self,
        array: &JsValue<'js>,
        place: u32,
    ) -> Result<JsValue<'js>, ScriptError> {
        self.field(array, place)
    }

    /// A field of an object or an element of an array.
    pub(super) fn field<'js, K, V>(&self, owner: &JsValue<'js>, key: K) -> Result<V, ScriptError>
    where
        K: rquickjs::IntoAtom<'js>,
        V: rquickjs::FromJs<'js>,
    {
        let owner = owner.as_object().expect("the caller has seen an object");
        owner
            .get(key)
            .map_err(|error| self.error(owner.ctx(), error))
    }

    fn object(&mut self, object: &JsObject<'_>, depth: usize) -> Result<Value, ScriptError> {
        let mut fields = Object::new();
        let mut is_empty = true;
        for entry in object.props::<Atom<'_>, JsValue<'_>>() {
            let (name, field) = entry.map_err(|error| self.error(object.ctx(), error))?;
            is_empty = false;
            if !field.is_undefined() {
                // Not by `Atom::to_string`: that takes half a character for UTF-8, and ends at a U+0000.
                let name = name
                    .to_value()
                    .map_err(|error| self.error(object.ctx(), error))?;
                let name = self.text(&name)?;
                fields.insert(name.into(), self.nested(&field, depth + 1)?);
            }
        }
        if is_empty {
            let plain = self.sandbox.plain(object)?;
            if !plain.is_object() {
                return self.nested(&plain, depth + 1);
            }
        }
        Ok(Value::Object(fields.into()))
    }

    /// In words, and no longer pending in the script's context.
    fn error(&self, ctx: &Ctx<'_>, error: rquickjs::Error) -> ScriptError {
        match error {
            rquickjs::Error::Utf8(_) => {
                not_a_value("text with half a character (a lone surrogate)".into())
            }
            error if ctx.has_exception() => self
                .sandbox
                .in_words(rquickjs::CaughtError::from_error(ctx, exception(error))),
            error => not_a_value(error.to_string()),
        }
    }
}

/// The error under which rquickjs looks for the pending exception.
fn exception(_: rquickjs::Error) -> rquickjs::Error {
    rquickjs::Error::Exception
}

pub(super) fn not_a_value(what: String) -> ScriptError {
    ScriptError::NotAValue(what)
}

pub(super) fn is_truthy(value: &JsValue<'_>) -> bool {
    if let Some(level) = value.as_bool() {
        level
    } else if let Some(number) = value.as_number() {
        number != 0.0 && !number.is_nan()
    } else if let Some(text) = value.as_string() {
        text.to_string().map_or(true, |text| !text.is_empty())
    } else {
        !value.is_null() && !value.is_undefined()
    }
}
