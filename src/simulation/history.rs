//! What happened in a life: its last part in words, and all of it as a hash.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

/// So much of it is kept in words.
const KEPT: usize = 120;

pub(super) struct History {
    hash: crc32fast::Hasher,
    lines: VecDeque<String>,
    kept: usize,
    /// How many lines there were.
    pub(super) length: u64,
}

impl History {
    /// One that keeps all of its words, or the last of them.
    pub(super) fn new(is_whole: bool) -> History {
        History {
            hash: crc32fast::Hasher::new(),
            lines: VecDeque::new(),
            kept: if is_whole { usize::MAX } else { KEPT },
            length: 0,
        }
    }

    pub(super) fn say(&mut self, now: Duration, what: fmt::Arguments<'_>) {
        let line = format!("{:>10.3} s  {what}", now.as_secs_f64());
        self.hash.update(line.as_bytes());
        self.hash.update(b"\n");
        self.length += 1;
        if self.lines.len() >= self.kept {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    pub(super) fn hash(&self) -> u32 {
        self.hash.clone().finalize()
    }

    pub(super) fn into_lines(self) -> Vec<String> {
        self.lines.into()
    }
}
