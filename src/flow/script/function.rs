//! Functions: JavaScript that makes messages of a message, and remembers.

use std::rc::Rc;

use rquickjs::{Array, CatchResultExt, Ctx, Function as JsFunction, Persistent, Value as JsValue};

use super::expression::headers_to_js;
use super::returned::messages;
use super::values::{Taker, text_to_js, to_js};
use super::{FunctionBody, Sandbox, ScriptError};
use crate::message::{Message, Text, Timestamp, Value};

/// What stands before the body, in one line, and behind it, where it is compiled.
const BEFORE: &str =
    "(function (state, vars) { \"use strict\"; return [() => state, function (msg) {";
const AFTER: &str = "}]; })";

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
        Ok(Function {
            parts: Some(self.make(body, state)?),
            sees: ["topic", "time", "source", "headers"].map(|field| body.sees(field)),
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
            call: Persistent::save(ctx, self.taking_parts(ctx, made.get(1)?)?),
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

/// When more of the memory than this is still in use after it ran out, what takes it are the states of functions.
const MUCH: f64 = 0.5;

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
            messages(&self.sandbox, &returned, message, self.outputs)
        });
        outcome.map_err(|error| match error {
            ScriptError::TooMuchMemory
                if self.sandbox.memory_share() > MUCH && self.has_large_state() =>
            {
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
        let state = self.take_state(parts, &mut Taker::new(&self.sandbox));
        state.map_err(|error| match error {
            ScriptError::NotAValue(what) => ScriptError::NotAState(what),
            other => other,
        })
    }

    /// Makes the function remember this in the place of what it does. If there is not enough memory for it, the state is as at
    /// the start.
    pub fn set_state(&mut self, state: &Value) -> Result<(), ScriptError> {
        // First, for the new one may need the room.
        self.parts = None;
        self.parts = Some(self.sandbox.make(&self.body, state)?);
        Ok(())
    }

    fn take_state(&self, parts: &Parts, taker: &mut Taker<'_>) -> Result<Value, ScriptError> {
        self.sandbox.run(f64::NAN, |ctx| {
            let state = parts.state.clone().restore(ctx);
            let state: JsValue<'_> = state
                .and_then(|state| state.call(()))
                .catch(ctx)
                .map_err(|error| self.sandbox.in_words(error))?;
            taker.value(&state)
        })
    }

    /// Whether the state may be what fills the memory: it is large, or so odd that nobody can tell.
    fn has_large_state(&self) -> bool {
        let mut taker = Taker::new(&self.sandbox);
        let parts = self.parts.as_ref();
        parts.is_some_and(|parts| self.take_state(parts, &mut taker).is_err() || taker.took_much())
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

    /// The error with what to do, where the function's text tells.
    fn in_its_words(&self, error: ScriptError) -> ScriptError {
        let ScriptError::Thrown { place, text } = error else {
            return error;
        };
        let name = text.strip_suffix(" is not defined").unwrap_or_default();
        let text = if let Some(remedy) = FunctionBody::remedy(name) {
            format!("there is no `{name}` here: {remedy}")
        } else {
            text
        };
        ScriptError::Thrown { place, text }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{NodeId, Object};

    fn message(payload: f64) -> Message {
        Message {
            topic: "t".into(),
            payload: payload.into(),
            time: Timestamp::default(),
            source: NodeId(0),
            headers: None,
        }
    }

    fn function(sandbox: &Sandbox, code: &str) -> Function {
        let body = FunctionBody::parse(code).expect("valid");
        let state = Value::object([("n", Value::from(1.0))]);
        sandbox
            .compile_function(&body, &state, 1, &[])
            .expect("it compiles")
    }

    #[test]
    fn the_state_can_be_read_at_any_time() {
        let sandbox = Sandbox::new(&Object::new()).expect("a sandbox");
        let check = |code: &str, expected: &str| {
            let mut function = function(&sandbox, code);
            let _ = function.call(&message(5.0), Timestamp::default());
            let state = function.state();
            let said = state.map_or_else(|error| error.to_string(), |state| state.to_json());
            assert_eq!(said, expected, "{code}");
        };
        check("", r#"{"n":1}"#);
        check(
            "state.n += msg.payload; state.last = undefined;",
            r#"{"n":6}"#,
        );
        check(
            "state = [msg.payload, new Date(0)];",
            r#"[5,"1970-01-01T00:00:00.000Z"]"#,
        );
        check(
            "state.n = 2; throw new Error('after the change');",
            r#"{"n":2}"#,
        );
        check(
            "state.f = () => 1;",
            "`state` has a function, which cannot be kept",
        );
    }

    #[test]
    fn the_state_can_be_set_as_often_as_it_is_read() {
        let sandbox = Sandbox::new(&Object::new()).expect("a sandbox");
        let mut function = function(&sandbox, "state.n += msg.payload;");
        for before in 1..100 {
            let state = function.state().expect("it is JSON");
            assert_eq!(state, Value::object([("n", f64::from(before).into())]));
            function.set_state(&state).expect("there is room");
            let sent = function.call(&message(1.0), Timestamp::default());
            assert_eq!(sent, Ok(vec![]));
        }
        assert!(sandbox.memory_share() < 0.1);
    }

    #[test]
    fn a_state_that_does_not_fit_is_refused_and_takes_no_memory() {
        let sandbox = Sandbox::new(&Object::new()).expect("a sandbox");
        let mut function = function(&sandbox, "state.n += 1;");
        // Shared here, but not there.
        let text = Value::from("x".repeat(1_000_000).as_str());
        let many = Value::List(vec![text; 20].into());
        let state = Value::object([("n", 5.0.into()), ("many", many)]);
        assert_eq!(function.set_state(&state), Err(ScriptError::TooMuchMemory));
        assert!(sandbox.memory_share() < MUCH);
        let sent = function.call(&message(1.0), Timestamp::default());
        assert_eq!(sent, Ok(vec![]));
        assert_eq!(function.state().expect("JSON").to_json(), r#"{"n":2}"#);
    }

    #[test]
    fn one_that_takes_all_the_memory_does_not_take_it_from_the_others_for_long() {
        let sandbox = Sandbox::new(&Object::new()).expect("a sandbox");
        let mut hog = function(
            &sandbox,
            "state.all ??= []; for (let i = 0; i < 1e4; i++) state.all.push([i, i]);",
        );
        let mut other = function(
            &sandbox,
            "state.n += 1; return { payload: 'x'.repeat(1e4).split('') };",
        );
        let mut calls = 0;
        let error = loop {
            calls += 1;
            // It must not be the other one whose state goes.
            let sent = other.call(&message(0.0), Timestamp::default());
            assert!(!matches!(sent, Err(ScriptError::StateTooLarge(_))));
            match hog.call(&message(0.0), Timestamp::default()) {
                Ok(_) => assert!(calls < 1000, "the memory is not limited"),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, ScriptError::StateTooLarge(_)), "{error}");
        assert!(sandbox.memory_share() < MUCH);
        let sent = other.call(&message(0.0), Timestamp::default());
        assert_eq!(sent.expect("there is room again").len(), 1);
        assert_eq!(
            hog.state().expect("as at the start").to_json(),
            r#"{"n":1}"#
        );
        assert_eq!(hog.call(&message(0.0), Timestamp::default()), Ok(vec![]));
    }
}
