//! What the books take of memory, for who checks that it is bounded.

use super::Book;

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
