//! JavaScript expressions (QuickJS), with limits on memory, stack and work.
//!
//! An [`Expression`] is text that is known to be valid JavaScript; a [`Sandbox`] is one runtime, shared by the expressions of
//! one flow; a [`Compiled`] expression can be evaluated. There is no `Date` and no I/O in the sandbox: nodes get the time
//! from the engine. The limit on work counts steps, not time, so that a flow does the same under virtual time and on a
//! slow device; `sandbox.js` limits the built-in functions that would take long in one step, and freezes all that scripts
//! share, so that none of them leaves anything behind for the next.
//!
//! What is not limited that way: arithmetic on very large BigInts, which can take seconds.

use std::borrow::Cow;
use std::cell::Cell;
use std::rc::Rc;

use rquickjs::context::intrinsic;
use rquickjs::function::Args;
use rquickjs::{
    Array, CatchResultExt, CaughtError, Ctx, Function, Object as JsObject, Persistent,
    Value as JsValue,
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error as _};

use crate::message::{Message, Object, Text, Value};

/// Bytes that the scripts of one flow may use together.
const MEMORY_LIMIT: usize = 16 * 1024 * 1024;
/// Bytes of stack for one evaluation.
const STACK_LIMIT: usize = 256 * 1024;
/// How often QuickJS may ask whether to go on, in one evaluation. It asks every 10,000 jumps and calls, so that this is
/// some five million of them: about a tenth of a second on a desktop machine.
const WORK_LIMIT: u32 = 500;
/// How deep lists and objects may lie in each other when they come out of a script.
const DEPTH_LIMIT: usize = 64;
/// How many values may come out of a script at once, in lists and objects.
const SIZE_LIMIT: usize = 100_000;
/// What makes a new runtime safe to use.
const PRELUDE: &str = include_str!("sandbox.js");

type Intrinsics = (
    intrinsic::Eval,
    intrinsic::RegExpCompiler,
    intrinsic::RegExp,
    intrinsic::Json,
    intrinsic::MapSet,
);

/// What an expression can speak of, in the order in which it is passed.
const NAMES: [&str; 6] = ["payload", "topic", "time", "headers", "msg", "vars"];

/// The text of a JavaScript expression, known to be valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expression(String);

impl Expression {
    /// Checks that the text is one expression. Nothing in it is evaluated, but for what an author puts outside of the
    /// expression on purpose; that is refused afterwards.
    pub fn parse(text: &str) -> Result<Expression, ScriptError> {
        thread_local! {
            static SCRATCH: Result<Sandbox, ScriptError> = Sandbox::new(&Object::new());
        }
        SCRATCH.with(|sandbox| {
            let sandbox = sandbox.as_ref().map_err(Clone::clone)?;
            let expression = Expression(text.to_owned());
            sandbox.compile(&expression, &[])?;
            // Text that closes our parenthesis and opens another does not also fit between brackets.
            sandbox.compile_between("[", &expression, "]")?;
            Ok(expression)
        })
    }

    pub fn text(&self) -> &str {
        &self.0
    }

    /// Whether a name occurs in the text; if not, it need not be passed.
    fn mentions(&self, name: &str) -> bool {
        self.0.contains(name)
    }
}

impl<'de> Deserialize<'de> for Expression {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Expression, D::Error> {
        Expression::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// `"format": "javascript"` tells the checker not to insert variables into it.
impl JsonSchema for Expression {
    fn schema_name() -> Cow<'static, str> {
        "Expression".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "javascript" })
    }
}

/// What went wrong in a script, in words for the author of the flow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScriptError {
    #[error("JavaScript: {0}")]
    Thrown(String),
    #[error("JavaScript ran for too long (a limit of about five million steps) and was stopped")]
    TooLong,
    #[error("JavaScript used more than its {} MiB of memory and was stopped", MEMORY_LIMIT / 1024 / 1024)]
    TooMuchMemory,
    #[error("JavaScript gave back {0}, which cannot be a payload")]
    NotAValue(String),
    #[error("the JavaScript engine could not start: {0}")]
    NoEngine(String),
}

/// One JavaScript runtime with its limits. Not for use from several threads.
///
/// What lives in the runtime must be dropped before the runtime: so `vars` stands before `context`.
#[derive(Clone)]
pub struct Sandbox {
    vars: Rc<Persistent<JsValue<'static>>>,
    context: rquickjs::Context,
    /// How often QuickJS may still ask whether to go on.
    work: Rc<Cell<u32>>,
}

impl Sandbox {
    /// A sandbox whose scripts see `variables` as `vars`.
    pub fn new(variables: &Object) -> Result<Sandbox, ScriptError> {
        let no_engine = |error: rquickjs::Error| ScriptError::NoEngine(error.to_string());
        let runtime = rquickjs::Runtime::new().map_err(no_engine)?;
        runtime.set_memory_limit(MEMORY_LIMIT);
        runtime.set_max_stack_size(STACK_LIMIT);
        let work = Rc::new(Cell::new(WORK_LIMIT));
        let left = work.clone();
        runtime.set_interrupt_handler(Some(Box::new(move || {
            left.set(left.get().saturating_sub(1));
            left.get() == 0
        })));
        let context = rquickjs::Context::custom::<Intrinsics>(&runtime).map_err(no_engine)?;
        let vars = context
            .with(|ctx| {
                let vars = object_to_js(&ctx, variables)?;
                let freeze: Function = ctx.eval("Object.freeze")?;
                freeze.call::<_, ()>((vars.clone(),))?;
                ctx.eval::<(), _>(PRELUDE)?;
                Ok(Persistent::save(&ctx, vars))
            })
            .map_err(no_engine)?;
        Ok(Sandbox {
            context,
            work,
            vars: Rc::new(vars),
        })
    }

    /// Makes an expression ready to be evaluated many times. `nodes` are the names of the flow's nodes, for `msg.source`.
    pub fn compile(
        &self,
        expression: &Expression,
        nodes: &[Text],
    ) -> Result<Compiled, ScriptError> {
        let function = self.compile_between("(", expression, ")")?;
        let mentions = NAMES.map(|name| expression.mentions(name));
        Ok(Compiled {
            function,
            mentions,
            nodes: nodes.into(),
            sandbox: self.clone(),
        })
    }

    fn compile_between(
        &self,
        open: &str,
        expression: &Expression,
        close: &str,
    ) -> Result<Persistent<Function<'static>>, ScriptError> {
        self.work.set(WORK_LIMIT);
        let names = NAMES.join(", ");
        let source = format!(
            "(function({names}) {{ \"use strict\"; return {open}\n{}\n{close}; }})",
            expression.0
        );
        self.context.with(|ctx| {
            let function = ctx
                .eval::<Function, _>(source)
                .catch(&ctx)
                .map_err(|error| self.in_words(error))?;
            Ok(Persistent::save(&ctx, function))
        })
    }

    fn in_words(&self, error: CaughtError<'_>) -> ScriptError {
        if self.work.get() == 0 {
            return ScriptError::TooLong;
        }
        let text = match error {
            CaughtError::Exception(exception) => exception
                .message()
                .unwrap_or_else(|| "an exception without a message".into()),
            // With no memory left, QuickJS cannot even make the error.
            CaughtError::Value(value) if value.is_null() => {
                "null was thrown, as it is when the memory is used up".into()
            }
            CaughtError::Value(value) => value
                .as_string()
                .and_then(|text| text.to_string().ok())
                .unwrap_or_else(|| "something that is no Error was thrown".into()),
            CaughtError::Error(error) => error.to_string(),
        };
        if text.contains("out of memory") {
            ScriptError::TooMuchMemory
        } else {
            ScriptError::Thrown(text)
        }
    }
}

/// An expression that can be evaluated. `function` stands before `sandbox`: see [`Sandbox`].
pub struct Compiled {
    function: Persistent<Function<'static>>,
    /// Per entry of [`NAMES`], whether the expression mentions it.
    mentions: [bool; NAMES.len()],
    nodes: Rc<[Text]>,
    sandbox: Sandbox,
}

impl Compiled {
    /// The expression's value for a message.
    pub fn value(&self, message: &Message) -> Result<Value, ScriptError> {
        self.evaluate(message, |value| from_js(&value, 0, &mut 0))
    }

    /// Whether JavaScript takes the expression's value for true.
    pub fn is_true(&self, message: &Message) -> Result<bool, ScriptError> {
        self.evaluate(message, |value| Ok(is_truthy(&value)))
    }

    fn evaluate<T>(
        &self,
        message: &Message,
        take: impl FnOnce(JsValue<'_>) -> Result<T, ScriptError>,
    ) -> Result<T, ScriptError> {
        self.sandbox.work.set(WORK_LIMIT);
        self.sandbox.context.with(|ctx| {
            let outcome = self
                .call(&ctx, message)
                .catch(&ctx)
                .map_err(|error| self.sandbox.in_words(error))?;
            take(outcome)
        })
    }

    fn call<'js>(&self, ctx: &Ctx<'js>, message: &Message) -> rquickjs::Result<JsValue<'js>> {
        let undefined = || JsValue::new_undefined(ctx.clone());
        let [payload, topic, time, headers, msg, vars] = self.mentions;
        let mut args = Args::new(ctx.clone(), NAMES.len());
        args.push_arg(if payload {
            to_js(ctx, &message.payload)?
        } else {
            undefined()
        })?;
        args.push_arg(if topic {
            text_to_js(ctx, &message.topic)?
        } else {
            undefined()
        })?;
        args.push_arg(if time {
            JsValue::new_float(ctx.clone(), message.time.as_millis_f64())
        } else {
            undefined()
        })?;
        args.push_arg(if headers {
            headers_to_js(ctx, message)?
        } else {
            undefined()
        })?;
        args.push_arg(if msg {
            self.message_to_js(ctx, message)?
        } else {
            undefined()
        })?;
        args.push_arg(if vars {
            (*self.sandbox.vars).clone().restore(ctx)?
        } else {
            undefined()
        })?;
        self.function.clone().restore(ctx)?.call_arg(args)
    }
}

impl Compiled {
    fn message_to_js<'js>(
        &self,
        ctx: &Ctx<'js>,
        message: &Message,
    ) -> rquickjs::Result<JsValue<'js>> {
        let object = JsObject::new(ctx.clone())?;
        object.set("payload", to_js(ctx, &message.payload)?)?;
        object.set("topic", text_to_js(ctx, &message.topic)?)?;
        object.set("time", message.time.as_millis_f64())?;
        let source = self.nodes.get(usize::from(message.source.0));
        object.set("source", source.map_or("", |name| name))?;
        object.set("headers", headers_to_js(ctx, message)?)?;
        Ok(object.into_value())
    }
}

fn headers_to_js<'js>(ctx: &Ctx<'js>, message: &Message) -> rquickjs::Result<JsValue<'js>> {
    match &message.headers {
        Some(headers) => object_to_js(ctx, headers),
        None => Ok(JsObject::new(ctx.clone())?.into_value()),
    }
}

fn text_to_js<'js>(ctx: &Ctx<'js>, text: &str) -> rquickjs::Result<JsValue<'js>> {
    Ok(rquickjs::String::from_str(ctx.clone(), text)?.into_value())
}

fn object_to_js<'js>(ctx: &Ctx<'js>, fields: &Object) -> rquickjs::Result<JsValue<'js>> {
    let object = JsObject::new(ctx.clone())?;
    for (name, field) in fields {
        object.set(&**name, to_js(ctx, field)?)?;
    }
    Ok(object.into_value())
}

fn to_js<'js>(ctx: &Ctx<'js>, value: &Value) -> rquickjs::Result<JsValue<'js>> {
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

fn from_js(value: &JsValue<'_>, depth: usize, size: &mut usize) -> Result<Value, ScriptError> {
    *size += 1;
    if *size > SIZE_LIMIT {
        return Err(ScriptError::NotAValue(format!(
            "more than {SIZE_LIMIT} values"
        )));
    }
    let broken = |error: rquickjs::Error| ScriptError::NotAValue(error.to_string());
    if depth > DEPTH_LIMIT {
        return Err(ScriptError::NotAValue(format!(
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
    if let Some(text) = value.as_string() {
        return Ok(Value::Text(text.to_string().map_err(broken)?.into()));
    }
    if let Some(array) = value.as_array() {
        let items = array
            .iter::<JsValue>()
            .map(|item| from_js(&item.map_err(broken)?, depth + 1, size));
        return Ok(Value::List(items.collect::<Result<Vec<_>, _>>()?.into()));
    }
    if value.is_function() || value.is_symbol() {
        return Err(ScriptError::NotAValue(format!("a {}", value.type_name())));
    }
    if let Some(object) = value.as_object() {
        let mut fields = Object::new();
        for entry in object.props::<String, JsValue>() {
            let (name, field) = entry.map_err(broken)?;
            fields.insert(name.into(), from_js(&field, depth + 1, size)?);
        }
        return Ok(Value::Object(fields.into()));
    }
    Err(ScriptError::NotAValue(format!("a {}", value.type_name())))
}

fn is_truthy(value: &JsValue<'_>) -> bool {
    if let Some(level) = value.as_bool() {
        level
    } else if let Some(number) = value.as_number() {
        number != 0.0 && !number.is_nan()
    } else if let Some(text) = value.as_string() {
        text.to_string().is_ok_and(|text| !text.is_empty())
    } else {
        !value.is_null() && !value.is_undefined()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{NodeId, Timestamp};

    fn message(payload: Value) -> Message {
        Message {
            topic: "a/b".into(),
            payload,
            time: Timestamp::from_millis(1_500),
            source: NodeId(0),
            headers: None,
        }
    }

    fn evaluate(text: &str, payload: Value) -> Result<Value, ScriptError> {
        let vars = Object::from_iter([("warm".into(), Value::Number(5.0))]);
        Sandbox::new(&vars)?
            .compile(&Expression::parse(text)?, &["probe".into()])?
            .value(&message(payload))
    }

    #[test]
    fn expressions_see_the_message_and_the_variables() {
        let check = |text: &str, expected: Value| {
            assert_eq!(evaluate(text, Value::Number(7.0)), Ok(expected), "{text}")
        };
        check("payload * 2", Value::Number(14.0));
        check("payload > vars.warm", Value::Bool(true));
        check("topic.split('/')[1]", Value::from("b"));
        check("time", Value::Number(1_500.0));
        check("msg.payload + msg.time", Value::Number(1_507.0));
        check("headers.none", Value::Null);
        check("msg.source", Value::from("probe"));
        check(
            "({ a: [1, { b: null }] }) // a comment",
            serde_json::from_str(r#"{"a":[1,{"b":null}]}"#).expect("JSON"),
        );
    }

    #[test]
    fn what_goes_wrong_is_said_and_contained() {
        let check = |text: &str, expected: &str| {
            let error = evaluate(text, Value::Null).expect_err(text).to_string();
            assert!(error.contains(expected), "{text}: {error}");
        };
        check("payload.x", "cannot read property 'x' of null");
        check("(() => { while (true) {} })()", "ran for too long");
        check("'x'.repeat(1e9)", "at most 65536 characters");
        check("new Array(2 ** 32 - 1).sort()", "at most 100000 elements");
        check(
            "[].join.call({ length: 2 ** 32 - 1 })",
            "at most 100000 elements",
        );
        check(
            "[].concat(new Array(2 ** 32 - 1))",
            "at most 100000 elements",
        );
        check(
            "Array.from({ length: 2 ** 32 - 1 })",
            "at most 100000 elements",
        );
        check(
            "(() => { let s = 'xxxx'; while (s.length < 1e6) s += s; return s.indexOf(s + 'y'); })()",
            "at most 65536 characters",
        );
        check("/(x+)+y/.test('x'.repeat(1000))", "ran for too long");
        check(
            "(() => { let a = []; for (let i = 0; i < 60; i++) a = [a, a]; return a; })()",
            "more than 100000 values",
        );
        check("Math.random()", "not a function");
        check(
            "(() => { const a = []; while (true) a.push('x'.repeat(1000)); })()",
            "memory",
        );
        check("(function f() { return f(); })()", "stack");
        check("Date.now()", "Date");
        check("() => 1", "function");
        check("(() => { const a = []; a.push(a); return a; })()", "nested");
        check("(() => { throw 'plain words'; })()", "plain words");
    }

    #[test]
    fn syntax_errors_are_found_when_the_text_is_parsed() {
        assert!(Expression::parse("payload >").is_err());
        assert!(Expression::parse("payload > 1; payload < 2").is_err());
        assert!(Expression::parse("").is_err());
        assert!(Expression::parse("payload > 1 && payload < 2").is_ok());
    }

    #[test]
    fn text_that_breaks_out_of_the_expression_is_refused() {
        assert!(Expression::parse("1); globalThis.x = 1; (2").is_err());
        assert!(Expression::parse("1) }); globalThis.x = 1; (function () { return (2").is_err());
        assert!(Expression::parse("1] }); globalThis.x = 1; (function () { return [2").is_err());
        assert!(Expression::parse("...payload").is_err());
    }

    #[test]
    fn a_script_leaves_nothing_behind_for_the_next() {
        let vars = Object::from_iter([("warm".into(), Value::Number(5.0))]);
        let sandbox = Sandbox::new(&vars).expect("a sandbox");
        let run = |text: &str| {
            let expression = Expression::parse(text).expect("valid");
            sandbox
                .compile(&expression, &[])
                .expect("compiles")
                .value(&message(Value::Null))
        };
        let check = |text: &str| {
            let error = run(text).expect_err(text).to_string();
            assert!(
                error.contains("read-only") || error.contains("extensible"),
                "{text}: {error}"
            );
        };
        check("vars.warm = 9");
        check("globalThis.n = 1");
        check("Object.prototype.x = 1");
        check("Math.abs = null");
        check("Array.prototype.map = null");
        assert_eq!(
            run("[vars.warm, typeof n, ({}).x, [1, 2].map(x => x * 2).join()]")
                .expect("a value")
                .to_json(),
            r#"[5,"undefined",null,"2,4"]"#
        );
    }

    #[test]
    fn truth_is_javascripts() {
        let check = |text: &str, expected: bool| {
            let sandbox = Sandbox::new(&Object::new()).expect("a sandbox");
            let compiled = sandbox
                .compile(&Expression::parse(text).expect("valid"), &[])
                .expect("compiles");
            assert_eq!(
                compiled.is_true(&message(Value::Null)),
                Ok(expected),
                "{text}"
            );
        };
        check("0", false);
        check("NaN", false);
        check("''", false);
        check("undefined", false);
        check("null", false);
        check("'0'", true);
        check("[]", true);
        check("-1", true);
    }
}
