//! Expressions: JavaScript that gives a value for a message.

use std::borrow::Cow;
use std::rc::Rc;

use rquickjs::function::Args;
use rquickjs::{
    CatchResultExt, Ctx, Function as JsFunction, Object as JsObject, Persistent, Value as JsValue,
};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{Deserialize, Deserializer, Error as _};

use super::literals::refuse_big_ints;
use super::values::{Taker, is_truthy, object_to_js, text_to_js, to_js};
use super::{Place, Sandbox, ScriptError, in_scratch, javascript_schema, mentions};
use crate::message::{Message, Text, Value};

/// What an expression can speak of, in the order in which it is passed.
const NAMES: [&str; 6] = ["payload", "topic", "time", "headers", "msg", "vars"];

/// The text of a JavaScript expression, known to be valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expression(String);

impl Expression {
    /// Checks that the text is one expression, without evaluating anything.
    pub fn parse(text: &str) -> Result<Expression, ScriptError> {
        let expression = Expression(text.to_owned());
        let before = |bracket| {
            format!(
                "function checked({}) {{ \"use strict\"; return {bracket}",
                NAMES.join(", ")
            )
        };
        in_scratch(|sandbox| {
            sandbox.check(&before("("), text, "); }")?;
            // Text that closes our parenthesis and opens another does not also fit between brackets.
            sandbox.check(&before("["), text, "]; }")?;
            refuse_big_ints(sandbox, &before("("), text, "); }")
        })
        .map_err(|error| expression.in_its_words(error))
        .map_err(|error| expression.ends_too_early(error))?;
        Ok(expression)
    }

    pub fn text(&self) -> &str {
        &self.0
    }

    /// An error at what stands behind the text, which its author did not write.
    fn ends_too_early(&self, error: ScriptError) -> ScriptError {
        let is_ours = |token: &str| {
            let said = [format!("'{token}'"), format!("token {token}")];
            let is_said = |text: &str| said.iter().any(|said| text.ends_with(said.as_str()));
            matches!(&error, ScriptError::Thrown { text, .. } if is_said(text))
                && !self.0.contains(token)
        };
        if self.0.trim().is_empty() {
            return ScriptError::Thrown {
                place: Place::default(),
                text: "there is nothing in it".into(),
            };
        }
        if [")", ";", "]", "}"].into_iter().any(is_ours) {
            return ScriptError::Thrown {
                place: Place::default(),
                text: "the expression ends too early: a value, or a closing bracket, is missing"
                    .into(),
            };
        }
        error
    }

    /// The error without its place, where that says nothing.
    fn in_its_words(&self, error: ScriptError) -> ScriptError {
        match error {
            ScriptError::Thrown { text, .. } if !self.0.trim().contains('\n') => {
                ScriptError::Thrown {
                    place: Place::default(),
                    text,
                }
            }
            other => other,
        }
    }
}

impl<'de> Deserialize<'de> for Expression {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Expression, D::Error> {
        Expression::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl JsonSchema for Expression {
    fn schema_name() -> Cow<'static, str> {
        "Expression".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        javascript_schema()
    }
}

impl Sandbox {
    /// Makes an expression ready to be evaluated many times. `nodes` are the names of the flow's nodes, for `msg.source`.
    pub fn compile(
        &self,
        expression: &Expression,
        nodes: &[Text],
    ) -> Result<Compiled, ScriptError> {
        let source = format!(
            "(function({}) {{ \"use strict\"; return (\n{}\n); }})",
            NAMES.join(", "),
            expression.0
        );
        let function = self.run(f64::NAN, |ctx| {
            let function = self.evaluate::<JsFunction<'_>>(ctx, source)?;
            Ok(Persistent::save(ctx, function))
        })?;
        // In other ways an expression can have what it does not name.
        let sees_all = mentions(&expression.0, "arguments") || mentions(&expression.0, "\\u");
        Ok(Compiled {
            function,
            mentions: NAMES.map(|name| sees_all || mentions(&expression.0, name)),
            expression: expression.clone(),
            nodes: nodes.into(),
            sandbox: self.clone(),
        })
    }
}

/// An expression that can be evaluated. `function` stands before `sandbox`: see [`Sandbox`].
pub struct Compiled {
    function: Persistent<JsFunction<'static>>,
    /// Per entry of [`NAMES`], whether the expression mentions it.
    mentions: [bool; NAMES.len()],
    expression: Expression,
    nodes: Rc<[Text]>,
    sandbox: Sandbox,
}

impl Compiled {
    /// The expression's value for a message.
    pub fn value(&self, message: &Message) -> Result<Value, ScriptError> {
        self.evaluate(message, |value| Taker::new(&self.sandbox).value(&value))
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
        self.sandbox
            .run(f64::NAN, |ctx| {
                let outcome = self
                    .call(ctx, message)
                    .catch(ctx)
                    .map_err(|error| self.sandbox.in_words(error))?;
                take(outcome)
            })
            .map_err(|error| self.expression.in_its_words(error))
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
            self.sandbox.vars(ctx)?
        } else {
            undefined()
        })?;
        self.function.clone().restore(ctx)?.call_arg(args)
    }

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

/// The headers as an object, which is empty where there are none.
pub(super) fn headers_to_js<'js>(
    ctx: &Ctx<'js>,
    message: &Message,
) -> rquickjs::Result<JsValue<'js>> {
    match &message.headers {
        Some(headers) => object_to_js(ctx, headers),
        None => Ok(JsObject::new(ctx.clone())?.into_value()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{NodeId, Object, Timestamp};

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
        check("p\\u0061yload", Value::Number(7.0));
        check("arguments[0]", Value::Number(7.0));
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
        check("Math.random()", "there is no chance here");
        check(
            "(() => { const a = []; while (true) a.push('x'.repeat(1000)); })()",
            "memory",
        );
        check("(function f() { return f(); })()", "stack");
        check("Date.now()", "no current time");
        check("new Date()", "no current time");
        check("() => 1", "function");
        check("(() => { const a = []; a.push(a); return a; })()", "nested");
        check("(() => { throw 'plain words'; })()", "plain words");
    }

    #[test]
    fn built_in_functions_that_would_run_for_long_in_one_step_do_not() {
        const SPARSE: &str =
            "const sparse = []; const items = sparse.keys(); sparse.length = 2 ** 32 - 1;";
        const NESTED: &str =
            "let nested = []; for (let i = 0; i < 60; i++) nested = [nested, nested];";
        const LONG: &str = "const long = 'x'.repeat(60000);";
        const COMPUTED: &str =
            "let n = 0; const computed = { get length() { return n++ ? 2 ** 53 - 1 : 0; } };";
        let check = |before: &str, text: &str, expected: &str| {
            let text = format!("(() => {{ {before} return {text}; }})()");
            let said = evaluate(&text, Value::Null).map_or_else(|e| e.to_string(), |v| v.to_json());
            assert!(said.contains(expected), "{text}: {said}");
        };
        check(NESTED, "nested.flat(Infinity).length", "ran for too long");
        check(NESTED, "String(nested).length", "call stack size");
        check(SPARSE, "[sparse].flat().length", "at most 100000 elements");
        check(SPARSE, "[0].flatMap(() => sparse).length", "at most 100000");
        check(SPARSE, "items.drop(1e9).next()", "not a function");
        check(SPARSE, "items.includes('x')", "not a function");
        check(SPARSE, "items.join('').length", "not a function");
        check(SPARSE, "Math.sumPrecise(items)", "not a function");
        check(
            SPARSE,
            "new Set().union({ size: 1, has() {}, keys: () => sparse.values() })",
            "ran for too long",
        );
        check(SPARSE, "[...items].length", "memory");
        check(SPARSE, "String.raw({ raw: sparse })", "at most 100000");
        check(
            "",
            "String.raw({ raw: { length: 2 ** 53 - 1 } })",
            "at most",
        );
        check(COMPUTED, "String.raw({ raw: computed })", "works on lists");
        check(
            "",
            "String.raw`a\\n${1}b` + String.raw({ raw: 'xy' }, 2)",
            r#""a\\n1bx2y""#,
        );
        check(SPARSE, "sparse.forEach(x => x)", "ran for too long");
        check(SPARSE, "Object.fromEntries(sparse.entries())", "memory");
        check(SPARSE, "JSON.stringify(sparse)", "memory");
        check(LONG, "encodeURIComponent(long + long)", "at most 65536");
        check(
            "",
            "decodeURI(encodeURI('é')) + escape(null) + encodeURI()",
            "énullundefined",
        );
        check(COMPUTED, "[].indexOf.call(computed, 1)", "works on lists");
        check(COMPUTED, "Array.from(computed).length", "works on lists");
        check(
            LONG,
            "long.indexOf('x'.repeat(30000) + 'y')",
            "ran for too long",
        );
        check(
            "const list = new Array(1e5).fill(0);",
            "(() => { while (true) list.indexOf(1); })()",
            "ran for too long",
        );
        check(
            "const value = new Array(1e5).fill('abc');",
            "(() => { while (true) JSON.parse(JSON.stringify(value)); })()",
            "ran for too long",
        );
        check(
            "",
            "[[1, [2]], [3]].flat().length + [1, 2].flatMap(x => [x, x]).join('')",
            "31122",
        );
        check(
            "",
            "[...new Set([1, 2]).union(new Set([2, 3]))].join('')",
            "123",
        );
        check(
            "",
            "'a-b'.split('-').concat(['c', 'd'], 'e').reverse().join('')",
            "edcba",
        );
        check(
            "",
            "'abc'.replace(/b/g, x => x.toUpperCase()) + 'x'.padEnd(3, '-')",
            "aBcx--",
        );
    }

    #[test]
    fn nothing_makes_code_of_text_and_there_are_no_big_ints() {
        let check = |text: &str, expected: &str| {
            let error = evaluate(text, Value::Null).expect_err(text).to_string();
            assert!(error.contains(expected), "{text}: {error}");
        };
        for text in [
            "eval('1')",
            "(0, eval)('1')",
            "Function('return 1')()",
            "new Function('return 1')",
            "(() => 1).constructor('return 1')()",
            "(function* () {}).constructor('yield 1')()",
        ] {
            check(text, "text cannot be turned into code");
        }
        check("(async () => 1).constructor('return 1')()", "text cannot");
        check(
            "(async function* () {}).constructor('yield 1')()",
            "text cannot",
        );
        check("(async () => 1)()", "a promise, which cannot be");
        check("2n ** 100n", "no BigInts");
        check("BigInt(2)", "not defined");
        check("import('x')", "promise");
        check("queueMicrotask(() => 1)", "not defined");
        for name in [
            "Proxy",
            "Promise",
            "SharedArrayBuffer",
            "Atomics",
            "WeakRef",
            "performance",
            "Uint8Array",
        ] {
            assert_eq!(
                evaluate(&format!("typeof {name}"), Value::Null),
                Ok(Value::from("undefined")),
                "{name}"
            );
        }
    }

    #[test]
    fn what_is_left_for_later_goes_and_is_not_blamed_on_others() {
        let sandbox = Sandbox::new(&Object::new()).expect("a sandbox");
        let run = |text: &str| {
            let expression = Expression::parse(text).expect("valid");
            let compiled = sandbox.compile(&expression, &[])?;
            compiled.value(&message(Value::Null))
        };
        for text in [
            "import('x') && 1",
            "(() => { const f = async () => { await 0; f(); }; f(); return 1; })()",
            "(() => { const f = async () => { await 0; f(); f(); }; f(); return 1; })()",
        ] {
            assert_eq!(run(text), Err(ScriptError::Later), "{text}");
            assert_eq!(run("1 + 1"), Ok(Value::Number(2.0)), "after {text}");
        }
    }

    #[test]
    fn what_comes_out_is_bounded_and_what_it_says() {
        let check = |text: &str, expected: &str| {
            let said = evaluate(text, Value::Null).map_or_else(|e| e.to_string(), |v| v.to_json());
            assert!(said.contains(expected), "{text}: {said}");
        };
        check("new Array(2 ** 32 - 1)", "more than 100000 values");
        check(
            "new Array(1e5).fill('x'.repeat(60000))",
            "more than 16 MiB of text",
        );
        check("({ a: undefined, b: [undefined] })", r#"{"b":[null]}"#);
        check("new Date(0)", "1970-01-01T00:00:00.000Z");
        check("new Date(NaN)", "null");
        check("({})", "{}");
        check("new Map([[1, 2]])", "a Map, which cannot be");
        check("/x/", "a RegExp, which cannot be");
        check("new Error('x')", "a Error, which cannot be");
        check("Symbol('x')", "a symbol, which cannot be");
        check("'\\ud800'", "half a character");
        check("({ ['\\ud800']: 1 })", "half a character");
        check("({ ['a\\0b']: 'c\\0d' })", r#"{"a\u0000b":"c\u0000d"}"#);
        check(
            "({ get a() { throw new Error('from the getter'); } })",
            "from the getter",
        );
        check("({ get a() { while (true); } })", "ran for too long");
        check("({ toJSON() { return 1; } })", "a function");
        check(
            "(() => { throw { toString() { while (true); } }; })()",
            "no Error was thrown",
        );
        check(
            "(() => { const e = new Error('x'); e.message = { toString() { while (true); } }; throw e; })()",
            "ran for too long",
        );
        check(
            "(() => { const e = new Error('x'.repeat(60000)); throw e; })()",
            "xxx...",
        );
        check("`${{ toString: null, valueOf: null }}`", "toPrimitive");
        check(
            "({ [Symbol.toPrimitive]() { while (true); } }) + 1",
            "ran for too long",
        );
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
        check("Error.prepareStackTrace = () => 'mine'");
        check("Object.getPrototypeOf(function* () {}).x = 1");
        check("Object.getPrototypeOf([].values()).next = null");
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
