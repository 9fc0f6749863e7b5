//! One JavaScript runtime with its limits.

use std::cell::Cell;
use std::rc::Rc;

use rquickjs::context::{EvalOptions, intrinsic};
use rquickjs::{
    Array, CatchResultExt, CaughtError, Ctx, Exception, FromJs, Function, Object as JsObject,
    Persistent, Value as JsValue,
};

use super::values::object_to_js;
use super::{Place, ScriptError};
use crate::message::Object;

/// Bytes that the scripts of one flow may use together.
pub(super) const MEMORY_LIMIT: usize = 16 * 1024 * 1024;
/// Bytes of stack for one evaluation.
const STACK_LIMIT: usize = 256 * 1024;
/// How often QuickJS may ask whether to go on, in one evaluation. It asks every 10,000 jumps and calls, so that this is
/// some five million of them: about a tenth of a second on a desktop machine.
const WORK_LIMIT: u32 = 500;
/// Characters of an exception's message that are told.
const LONGEST_MESSAGE: usize = 300;
/// Jobs (what follows an `await`) that are done away with at once.
const MOST_JOBS: usize = 10_000;
/// What makes a new runtime safe to use.
const PRELUDE: &str = include_str!("sandbox.js");
/// What stack traces call the text of a flow's author.
const AUTHORED: &str = "code";

type Intrinsics = (
    intrinsic::Eval,
    intrinsic::RegExpCompiler,
    intrinsic::RegExp,
    intrinsic::Json,
    intrinsic::MapSet,
    intrinsic::Date,
    // Nothing waits here, but QuickJS loses memory for each async function that it makes without.
    intrinsic::Promise,
);

/// One JavaScript runtime with its limits. Not for use from several threads.
///
/// What lives in the runtime must be dropped before the runtime: so `shared` stands before `context`.
#[derive(Clone)]
pub struct Sandbox {
    shared: Rc<Shared>,
    context: rquickjs::Context,
    /// How often QuickJS may still ask whether to go on.
    work: Rc<Cell<u32>>,
    /// What scripts see as the time, in milliseconds since 1970; NaN where there is none.
    now: Rc<Cell<f64>>,
}

struct Shared {
    vars: Persistent<JsValue<'static>>,
    /// The functions that `sandbox.js` gives back.
    from_parts: Persistent<Function<'static>>,
    plain: Persistent<Function<'static>>,
}

impl Shared {
    fn new(ctx: &Ctx<'_>, variables: &Object, clock: Rc<Cell<f64>>) -> rquickjs::Result<Shared> {
        let vars = frozen(ctx, variables)?;
        let prelude: Function<'_> = ctx.eval(PRELUDE)?;
        let clock = Function::new(ctx.clone(), move || clock.get())?;
        let made: Array<'_> = prelude.call((clock,))?;
        let (from_parts, plain): (Function<'_>, Function<'_>) = (made.get(0)?, made.get(1)?);
        Ok(Shared {
            vars,
            from_parts: Persistent::save(ctx, from_parts),
            plain: Persistent::save(ctx, plain),
        })
    }
}

fn frozen(ctx: &Ctx<'_>, variables: &Object) -> rquickjs::Result<Persistent<JsValue<'static>>> {
    let vars = object_to_js(ctx, variables)?;
    let freeze: Function<'_> = ctx.eval("Object.freeze")?;
    freeze.call::<_, ()>((vars.clone(),))?;
    Ok(Persistent::save(ctx, vars))
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
        let now = Rc::new(Cell::new(f64::NAN));
        let clock = now.clone();
        let context = rquickjs::Context::custom::<Intrinsics>(&runtime).map_err(no_engine)?;
        let shared = context.with(|ctx| {
            Shared::new(&ctx, variables, clock)
                .catch(&ctx)
                .map_err(|error| ScriptError::NoEngine(error.to_string()))
        })?;
        Ok(Sandbox {
            shared: Rc::new(shared),
            context,
            work,
            now,
        })
    }

    /// The same runtime for scripts that see other variables.
    pub fn with_vars(&self, variables: &Object) -> Result<Sandbox, ScriptError> {
        let vars = self.run(f64::NAN, |ctx| {
            frozen(ctx, variables)
                .catch(ctx)
                .map_err(|error| self.in_words(error))
        })?;
        let shared = Shared {
            vars,
            from_parts: self.shared.from_parts.clone(),
            plain: self.shared.plain.clone(),
        };
        Ok(Sandbox {
            shared: Rc::new(shared),
            ..self.clone()
        })
    }

    /// Runs something in the runtime, with all of the work and at this time.
    pub(super) fn run<T>(
        &self,
        now: f64,
        part: impl FnOnce(&Ctx<'_>) -> Result<T, ScriptError>,
    ) -> Result<T, ScriptError> {
        self.work.set(WORK_LIMIT);
        self.now.set(now);
        let had_jobs = self.context.runtime().is_job_pending();
        let outcome = self.context.with(|ctx| part(&ctx));
        let has_jobs = self.context.runtime().is_job_pending();
        if has_jobs || matches!(outcome, Err(ScriptError::TooMuchMemory)) {
            self.clear_away();
        }
        match outcome {
            Ok(_) if has_jobs && !had_jobs => Err(ScriptError::Later),
            outcome => outcome,
        }
    }

    /// Evaluates a source whose second line is the first one of a text by the flow's author.
    pub(super) fn evaluate<'js, T: FromJs<'js>>(
        &self,
        ctx: &Ctx<'js>,
        source: String,
    ) -> Result<T, ScriptError> {
        let mut options = EvalOptions::default();
        options.filename = Some(AUTHORED.to_owned());
        ctx.eval_with_options(source, options)
            .catch(ctx)
            .map_err(|error| self.in_words(error))
    }

    /// Whether a text between two others is JavaScript. The first must begin a function named `checked`, in one line.
    ///
    /// Nothing of it is evaluated, not even what an author puts behind the end of that function: QuickJS refuses a new
    /// global function, as the global object is frozen, before it begins.
    pub(super) fn check(&self, before: &str, text: &str, after: &str) -> Result<(), ScriptError> {
        debug_assert!(before.starts_with("function checked("));
        self.run(f64::NAN, |ctx| {
            match self.evaluate::<JsValue<'_>>(ctx, format!("{before}\n{text}\n{after}")) {
                Err(ScriptError::Thrown { text, .. })
                    if text == "cannot define variable 'checked'" =>
                {
                    Ok(())
                }
                Err(error) => Err(error),
                Ok(_) => Err(ScriptError::Thrown {
                    place: Place::default(),
                    text: "the text leaves its function".into(),
                }),
            }
        })
    }

    pub(super) fn vars<'js>(&self, ctx: &Ctx<'js>) -> rquickjs::Result<JsValue<'js>> {
        self.shared.vars.clone().restore(ctx)
    }

    /// A function of the parts of a message, out of one of a message.
    pub(super) fn taking_parts<'js>(
        &self,
        ctx: &Ctx<'js>,
        body: Function<'js>,
    ) -> rquickjs::Result<Function<'js>> {
        self.shared.from_parts.clone().restore(ctx)?.call((body,))
    }

    /// What an object without fields is in a message: a `Date` is text, a `Map` is refused.
    pub(super) fn plain<'js>(&self, object: &JsObject<'js>) -> Result<JsValue<'js>, ScriptError> {
        let ctx = object.ctx();
        let plain = self
            .shared
            .plain
            .clone()
            .restore(ctx)
            .and_then(|plain| plain.call((object.clone(),)));
        plain
            .catch(ctx)
            .map_err(|error| match self.in_words(error) {
                ScriptError::Thrown { text, .. } => ScriptError::NotAValue(format!("a {text}")),
                other => other,
            })
    }

    /// How much memory scripts hold at the moment, as a share of what they may.
    pub(super) fn memory_share(&self) -> f64 {
        let used = self.context.runtime().memory_usage().malloc_size;
        used as f64 / MEMORY_LIMIT as f64
    }

    /// Does away with jobs, and with what nobody can reach any more.
    pub(super) fn clear_away(&self) {
        // A job can only be got rid of by running it; so it is not to get far.
        self.work.set(1);
        self.context.with(|ctx| {
            let mut jobs = 0;
            while jobs < MOST_JOBS && ctx.execute_pending_job() {
                jobs += 1;
            }
        });
        self.context.runtime().run_gc();
    }

    pub(super) fn in_words(&self, error: CaughtError<'_>) -> ScriptError {
        if self.work.get() == 0 {
            return ScriptError::TooLong;
        }
        let mut place = Place::default();
        let text = match error {
            CaughtError::Exception(exception) => {
                let text = message(&exception);
                place = place_of(&exception);
                text
            }
            // With no memory left, QuickJS cannot even make the error. `throw null` is hardly written by anyone.
            CaughtError::Value(value) if value.is_null() => return ScriptError::TooMuchMemory,
            CaughtError::Value(value) => value
                .as_string()
                .and_then(|text| text.to_string().ok())
                .unwrap_or_else(|| "something that is no Error was thrown".into()),
            CaughtError::Error(error) => error.to_string(),
        };
        // What a getter of the exception did, or its message's length, may have used up what was left.
        if self.work.get() == 0 {
            return ScriptError::TooLong;
        }
        if text.contains("out of memory") {
            return ScriptError::TooMuchMemory;
        }
        let text = match text.char_indices().nth(LONGEST_MESSAGE) {
            Some((end, _)) => format!("{}...", &text[..end]),
            None => text,
        };
        ScriptError::Thrown { place, text }
    }
}

/// The exception's message. A script may have put anything in its place.
fn message(exception: &Exception<'_>) -> String {
    let text = exception.message();
    drop_pending(exception.ctx());
    text.unwrap_or_else(|| "an exception without a message".into())
}

/// The first place in the author's text that the exception's stack trace names.
fn place_of(exception: &Exception<'_>) -> Place {
    let stack = exception.stack().unwrap_or_default();
    drop_pending(exception.ctx());
    let numbers = stack.lines().find_map(|frame| {
        let (_, place) = frame.rsplit_once(AUTHORED)?;
        let mut numbers = place.strip_prefix(':')?.trim_end_matches(')').split(':');
        let line: u32 = numbers.next()?.parse().ok()?;
        let column = numbers.next()?.parse().ok()?;
        Some((line.checked_sub(1)?, column))
    });
    numbers.map_or_else(Place::default, |(line, column)| Place { line, column })
}

fn drop_pending(ctx: &Ctx<'_>) {
    if ctx.has_exception() {
        ctx.catch();
    }
}
