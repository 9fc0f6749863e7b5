//! Rows of files on their way into a running test.

use std::cmp::Reverse;
use std::time::Duration;

use super::{MOST_EVENTS, Run, Turn, broken};
use crate::flow_test::feeding::{FileRows, TimedRow};
use crate::flow_test::options::{EventTime, Shift};
use crate::flow_test::test::{Fed, FedPayload, Feed};
use crate::message::Value;
use crate::runtime::driver::chain;

/// A file that is being fed, and its next row.
pub(super) struct FedFile<'t> {
    pub(super) feed: &'t Feed,
    pub(super) rows: FileRows,
    pub(super) next: Option<TimedRow>,
    /// The time of its first row, and that after which rows are left out.
    pub(super) from: Duration,
    pub(super) until: Option<Duration>,
}

impl Run<'_> {
    /// Reads the next row of a file, and says when it comes.
    pub(super) fn next_row(&mut self, place: usize) {
        let file = &mut self.files[place];
        match file.rows.next() {
            Ok(Some(row)) => {
                let at = file.from + row.after;
                file.next = Some(row);
                if file.until.is_none_or(|until| at <= until) {
                    let turn = Turn::Row { file: place };
                    self.turns.push(Reverse((at, turn)));
                }
            }
            Ok(None) => {}
            Err(error) => {
                let headline = format!("the file cannot be fed any further: {}", chain(&error));
                self.broken = Some(broken(file.feed.span.clone(), headline));
            }
        }
    }

    pub(super) fn feed_row(&mut self, place: usize) {
        self.events += 1;
        let file = &mut self.files[place];
        if let Some(TimedRow { late, row, .. }) = file.next.take() {
            let late = i64::try_from(late.as_nanos()).unwrap_or(i64::MAX);
            let feed = Feed {
                span: file.feed.span.clone(),
                to: file.feed.to,
                what: Fed::Message {
                    payload: FedPayload::Plain(Value::Null),
                    topic: row.topic,
                    headers: None,
                    time: Some(EventTime::Relative(Shift(-late))),
                },
            };
            self.world.feed(&feed, row.payload);
            self.observe();
        }
        if self.events > MOST_EVENTS {
            self.break_off();
        } else {
            self.next_row(place);
        }
    }
}
