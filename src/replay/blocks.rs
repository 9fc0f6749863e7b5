//! Files are read by threads of their own, which hand over rows in blocks.
//!
//! Between a file's thread and the flow is a queue of [`QUEUED`] blocks; when it is full, reading waits. A block has at most
//! [`ROWS`] rows, or what [`BYTES`] of the file give, and one row more.
//!
//! Rows that come too late can be put into order within a *span* of time, as far as [`MOST_HELD`] rows and [`MOST_HELD_BYTES`] go;
//! beyond that the earliest goes on.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::rows::{FileError, Row, RowProblem, Rows};
use crate::message::{NodeId, Timestamp};

const QUEUED: usize = 8;
const ROWS: usize = 1024;
const BYTES: u64 = 1 << 18;
const MOST_HELD: usize = 1_000_000;
const MOST_HELD_BYTES: u64 = 1 << 27;

/// Some rows of a file.
#[derive(Default)]
struct Block {
    rows: Vec<Row>,
    problems: Vec<RowProblem>,
    /// Bytes of the file up to its end.
    position: u64,
    /// Rows that went on before all that were to come before them, for lack of room.
    hurried: u64,
}

/// A file that is being read: what the flow sees of it.
pub(super) struct Source {
    pub(super) to: NodeId,
    reader: Option<JoinHandle<()>>,
    blocks: Receiver<Result<Block, FileError>>,
    rows: std::vec::IntoIter<Row>,
    next: Option<Row>,
    pub(super) position: u64,
    pub(super) hurried: u64,
    /// Those that were left out, and are not told yet.
    pub(super) problems: Vec<RowProblem>,
    /// Rows that were handed on.
    pub(super) taken: u64,
}

impl Source {
    /// Begins to read. The thread ends with the file, or with the first block that nobody wants.
    pub(super) fn start(to: NodeId, rows: Rows, reorder: Option<Duration>) -> io::Result<Source> {
        let (sender, blocks) = sync_channel(QUEUED);
        let filler = Filler {
            blocks: sender,
            block: Block::default(),
            position: 0,
        };
        let reader = std::thread::Builder::new()
            .name("rows".into())
            .spawn(move || {
                // That nobody wants more is no problem.
                let _ = filler.fill(rows, reorder);
            })?;
        Ok(Source {
            to,
            reader: Some(reader),
            blocks,
            rows: Vec::new().into_iter(),
            next: None,
            position: 0,
            hurried: 0,
            problems: Vec::new(),
            taken: 0,
        })
    }

    /// Waits until the next row is there, or the end of the file, or rows that are wrong.
    #[inline]
    pub(super) fn fill(&mut self) -> Result<(), FileError> {
        while self.next.is_none() {
            self.next = self.rows.next();
            if self.next.is_none() && !self.next_block()? {
                break;
            }
        }
        Ok(())
    }

    /// The time of the next row, after [`Source::fill`]; none at the end.
    #[inline]
    pub(super) fn time(&self) -> Option<Timestamp> {
        self.next.as_ref().map(|row| row.time)
    }

    /// Takes the next row.
    #[inline]
    pub(super) fn take(&mut self) -> Option<Row> {
        self.taken += u64::from(self.next.is_some());
        self.next.take()
    }

    /// Whether there is one more.
    fn next_block(&mut self) -> Result<bool, FileError> {
        let Ok(block) = self.blocks.recv() else {
            let ended = self.reader.take().map(JoinHandle::join);
            if let Some(Err(panic)) = ended {
                std::panic::resume_unwind(panic);
            }
            return Ok(false);
        };
        let block = block?;
        self.rows = block.rows.into_iter();
        self.position = block.position;
        self.hurried += block.hurried;
        self.problems.extend(block.problems);
        Ok(true)
    }
}

/// Makes blocks, and sends them.
struct Filler {
    blocks: SyncSender<Result<Block, FileError>>,
    block: Block,
    /// Of the file, up to the row that was read last.
    position: u64,
}

/// Nobody wants more.
struct Unwanted;

impl Filler {
    fn fill(mut self, mut rows: Rows, reorder: Option<Duration>) -> Result<(), Unwanted> {
        let mut order = reorder.map(Order::new);
        loop {
            let begin = self.position;
            let read = rows.read();
            self.position = rows.position();
            match read {
                Ok(Some(Ok(row))) => match &mut order {
                    None => self.add(row)?,
                    Some(order) => {
                        order.add(row, self.position - begin);
                        while let Some(due) = order.take_due() {
                            self.block.hurried += u64::from(due.is_hurried);
                            self.add(due.row)?;
                        }
                    }
                },
                Ok(Some(Err(problem))) => {
                    self.block.problems.push(problem);
                    self.send_if_full()?;
                }
                Ok(None) => break,
                Err(error) => {
                    self.send()?;
                    return self.blocks.send(Err(error)).map_err(|_| Unwanted);
                }
            }
        }
        while let Some(row) = order.as_mut().and_then(Order::take) {
            self.add(row)?;
        }
        self.send()
    }

    #[inline]
    fn add(&mut self, row: Row) -> Result<(), Unwanted> {
        self.block.rows.push(row);
        self.send_if_full()
    }

    #[inline]
    fn send_if_full(&mut self) -> Result<(), Unwanted> {
        let block = &self.block;
        let count = block.rows.len() + block.problems.len();
        if count < ROWS && self.position - block.position < BYTES {
            return Ok(());
        }
        self.send()
    }

    fn send(&mut self) -> Result<(), Unwanted> {
        self.block.position = self.position;
        let next = Block {
            rows: Vec::with_capacity(ROWS),
            position: self.position,
            ..Block::default()
        };
        let block = std::mem::replace(&mut self.block, next);
        self.blocks.send(Ok(block)).map_err(|_| Unwanted)
    }
}

/// Rows that wait for earlier ones.
struct Order {
    span: Duration,
    held: BinaryHeap<Reverse<Held>>,
    bytes: u64,
    latest: Timestamp,
    count: u64,
}

/// A row that need not wait any more, or cannot.
struct Due {
    row: Row,
    is_hurried: bool,
}

impl Order {
    fn new(span: Duration) -> Order {
        Order {
            span,
            held: BinaryHeap::new(),
            bytes: 0,
            latest: Timestamp::from_nanos(i64::MIN),
            count: 0,
        }
    }

    fn add(&mut self, row: Row, bytes: u64) {
        self.latest = self.latest.max(row.time);
        let place = self.count;
        self.count += 1;
        self.bytes += bytes;
        self.held.push(Reverse(Held { row, place, bytes }));
    }

    fn take_due(&mut self) -> Option<Due> {
        let Reverse(first) = self.held.peek()?;
        let is_due = self.latest.saturating_since(first.row.time) >= self.span;
        let is_full = self.held.len() > MOST_HELD || self.bytes > MOST_HELD_BYTES;
        if !is_due && !is_full {
            return None;
        }
        let row = self.take()?;
        Some(Due {
            row,
            is_hurried: !is_due,
        })
    }

    /// The earliest.
    fn take(&mut self) -> Option<Row> {
        let Reverse(held) = self.held.pop()?;
        self.bytes -= held.bytes;
        Some(held.row)
    }
}

struct Held {
    row: Row,
    /// Its place in the file: rows of one time stay as they were.
    place: u64,
    bytes: u64,
}

impl Held {
    fn key(&self) -> (Timestamp, u64) {
        (self.row.time, self.place)
    }
}

impl PartialEq for Held {
    fn eq(&self, other: &Held) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Held {}

impl PartialOrd for Held {
    fn partial_cmp(&self, other: &Held) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Held {
    fn cmp(&self, other: &Held) -> Ordering {
        self.key().cmp(&other.key())
    }
}
