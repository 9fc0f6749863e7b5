//! What a flow will send and write, told from its text alone: upper bounds, before anything runs.
//!
//! Terms: a *load* is how often messages come and how large they are.

/// How many messages, and how large they are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// Messages in a second, at most; infinite if nothing bounds it, NaN never.
    pub per_second: f64,
    /// The size of one payload as JSON, in bytes: typical, not the largest.
    pub bytes: f64,
}

impl Load {
    /// No messages.
    pub const NONE: Load = Load {
        per_second: 0.0,
        bytes: 0.0,
    };
    /// Messages come, and nothing in the flow tells how many.
    pub const UNKNOWN: Load = Load {
        per_second: f64::INFINITY,
        bytes: NUMBER,
    };
    /// A number's typical size as JSON, in bytes.
    pub const NUMBER_BYTES: f64 = NUMBER;

    /// One message in each such stretch of time.
    pub fn every(span: std::time::Duration, bytes: f64) -> Load {
        Load {
            per_second: 1.0 / span.as_secs_f64().max(1e-9),
            bytes,
        }
    }

    /// The same messages, no more often than once in each stretch.
    pub fn at_most_every(self, span: std::time::Duration) -> Load {
        Load {
            per_second: self.per_second.min(1.0 / span.as_secs_f64().max(1e-9)),
            ..self
        }
    }

    /// The same number of messages of another size.
    pub fn sized(self, bytes: f64) -> Load {
        Load { bytes, ..self }
    }

    /// Both together, with their mean size.
    pub fn and(self, other: Load) -> Load {
        let per_second = self.per_second + other.per_second;
        let bytes = if per_second.is_infinite() {
            self.bytes.max(other.bytes)
        } else if per_second > 0.0 {
            (self.per_second * self.bytes + other.per_second * other.bytes) / per_second
        } else {
            0.0
        };
        Load { per_second, bytes }
    }
}

const NUMBER: f64 = 6.0;
