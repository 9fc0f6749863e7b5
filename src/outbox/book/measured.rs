//! What the books take of memory, for who checks that it is bounded.

use super::{Book, GROUP_BYTES, READ_AHEAD_BYTES};

/// The group that was read last is kept, whatever its size.
pub(in crate::outbox) const LOADED_MAX: usize = READ_AHEAD_BYTES + 2 * GROUP_BYTES;

/// Bytes of records, and numbers of other things.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::outbox) struct Memory {
    pub(in crate::outbox) pending_bytes: usize,
    pub(in crate::outbox) loaded_bytes: usize,
    pub(in crate::outbox) dead_letters: usize,
}

impl Book {
    pub(in crate::outbox) fn memory(&self) -> Memory {
        Memory {
            pending_bytes: self.pending_bytes,
            loaded_bytes: self.loaded_bytes,
            dead_letters: self.dead_letters.len(),
        }
    }
}
