//! A backlog in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::sync::{Notify, watch};

use super::Backlog;
use crate::message::Timestamp;
use crate::outbox::{Draft, Key, Lane, Record, RecordId};

#[derive(Clone)]
pub(super) struct TestBacklog(Arc<Inner>);

struct Inner {
    records: Mutex<BTreeMap<RecordId, Arc<Record>>>,
    changed: Notify,
    left: watch::Sender<usize>,
    acknowledged: Mutex<Vec<RecordId>>,
    dead_letters: Mutex<Vec<(RecordId, String)>>,
    /// Asked at each acknowledgement, before the record goes.
    on_acknowledge: Box<dyn Fn(RecordId) + Send + Sync>,
}

impl TestBacklog {
    pub(super) fn new(on_acknowledge: impl Fn(RecordId) + Send + Sync + 'static) -> TestBacklog {
        TestBacklog(Arc::new(Inner {
            records: Mutex::default(),
            changed: Notify::new(),
            left: watch::Sender::new(0),
            acknowledged: Mutex::default(),
            dead_letters: Mutex::default(),
            on_acknowledge: Box::new(on_acknowledge),
        }))
    }

    pub(super) fn push(&self, seq: u64, topic: &str, payload: &str) {
        let id = RecordId { epoch: 1, seq };
        let payload = Bytes::copy_from_slice(payload.as_bytes());
        let draft = Draft::new(
            topic.to_owned(),
            payload,
            Timestamp::from_millis(seq as i64),
        );
        let mut records = self.0.records.lock().unwrap();
        records.insert(id, Arc::new(Record::new(id, draft)));
        self.0.left.send_replace(records.len());
        drop(records);
        self.0.changed.notify_one();
    }

    /// Waits until all records are gone.
    pub(super) async fn emptied(&self) {
        let mut left = self.0.left.subscribe();
        left.wait_for(|left| *left == 0).await.unwrap();
    }

    pub(super) fn acknowledged(&self) -> Vec<RecordId> {
        self.0.acknowledged.lock().unwrap().clone()
    }

    pub(super) fn dead_letters(&self) -> Vec<(u64, String)> {
        let letters = self.0.dead_letters.lock().unwrap();
        letters
            .iter()
            .map(|(id, reason)| (id.seq, reason.clone()))
            .collect()
    }

    fn remove(&self, id: RecordId) {
        let mut records = self.0.records.lock().unwrap();
        assert!(records.remove(&id).is_some(), "{id:?} was removed already");
        self.0.left.send_replace(records.len());
    }
}

impl Backlog for TestBacklog {
    fn peek(&self, lane: Lane, after: Option<RecordId>, limit: usize) -> Vec<Arc<Record>> {
        use std::ops::Bound::{Excluded, Unbounded};
        let start = after.map_or(Unbounded, Excluded);
        let records = self.0.records.lock().unwrap();
        let range = records.range((start, Unbounded));
        range
            .filter(|(_, record)| record.draft.lane() == lane)
            .take(limit)
            .map(|(_, record)| Arc::clone(record))
            .collect()
    }

    fn last(&self) -> RecordId {
        let records = self.0.records.lock().unwrap();
        records
            .last_key_value()
            .map_or(RecordId::default(), |(id, _)| *id)
    }

    fn acknowledge(&self, Key { id, .. }: Key) {
        (self.0.on_acknowledge)(id);
        self.0.acknowledged.lock().unwrap().push(id);
        self.remove(id);
    }

    fn dead_letter(&self, Key { id, .. }: Key, reason: &str) {
        self.0
            .dead_letters
            .lock()
            .unwrap()
            .push((id, reason.to_owned()));
        self.remove(id);
    }

    async fn changed(&self) {
        self.0.changed.notified().await;
    }
}
