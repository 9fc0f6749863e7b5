//! JavaScript (QuickJS), with limits on memory, stack and work.
//!
//! An [`Expression`] and a [`FunctionBody`] are texts that are known to be valid JavaScript; a [`Sandbox`] is one runtime,
//! shared by the scripts of one flow; a [`Compiled`] expression can be evaluated, a [`Function`] called. There is no I/O in
//! the sandbox, no chance, and no clock but the engine's. The limit on work counts steps, not time, so that a flow does the
//! same under virtual time and on a slow device; `sandbox.js` limits the built-in functions that would take long in one
//! step, and freezes all that scripts share, so that none of them leaves anything behind for the next. There are no
//! BigInts, for arithmetic on large ones takes seconds in one step, and nothing makes code of text.
//!
//! What is not limited that way: joining, comparing and listing what has megabytes, over and over. One step of that takes
//! a millisecond, not some nanoseconds, and only the limit on memory keeps it from taking more.

mod body;
mod expression;
mod function;
mod literals;
mod returned;
mod sandbox;
mod values;

use std::fmt;

pub use body::FunctionBody;
pub use expression::{Compiled, Expression};
pub use function::Function;
pub use sandbox::Sandbox;

use crate::message::Object;

/// What went wrong in a script, in words for the author of the flow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScriptError {
    #[error("JavaScript{place}: {text}")]
    Thrown { place: Place, text: String },
    #[error("JavaScript ran for too long (a limit of about five million steps) and was stopped")]
    TooLong,
    #[error(
        "JavaScript used more than its {} MiB of memory, which the scripts of a flow share, and was stopped",
        sandbox::MEMORY_LIMIT / 1024 / 1024
    )]
    TooMuchMemory,
    #[error(
        "JavaScript left something for later (by `async`, `await` or `import`), which is not done: there is nothing to wait for"
    )]
    Later,
    #[error("{0}; what is in `state` took most of it, so `state` is as at the start again")]
    StateTooLarge(Box<ScriptError>),
    #[error("JavaScript gave back {0}, which cannot be a payload")]
    NotAValue(String),
    #[error("`state` has {0}, which cannot be kept")]
    NotAState(String),
    #[error("JavaScript returned {0}")]
    NotAMessage(String),
    #[error("the JavaScript engine could not start: {0}")]
    NoEngine(String),
}

/// Where in a text by the flow's author something is, from 1; zeros: nowhere in particular.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    pub line: u32,
    pub column: u32,
}

/// To be read after "JavaScript".
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => Ok(()),
            line => write!(f, ", line {line}, column {}", self.column),
        }
    }
}

thread_local! {
    /// Where texts are checked.
    static SCRATCH: Result<Sandbox, ScriptError> = Sandbox::new(&Object::new());
}

fn in_scratch<T>(check: impl FnOnce(&Sandbox) -> Result<T, ScriptError>) -> Result<T, ScriptError> {
    SCRATCH.with(|sandbox| check(sandbox.as_ref().map_err(Clone::clone)?))
}

/// `"format": "javascript"` tells the checker not to insert variables into it.
fn javascript_schema() -> schemars::Schema {
    schemars::json_schema!({ "type": "string", "format": "javascript" })
}

/// Whether a name occurs in a text; if not, what it stands for need not be there.
fn mentions(text: &str, name: &str) -> bool {
    text.contains(name)
}
