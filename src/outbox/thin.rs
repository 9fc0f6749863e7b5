//! Merges records that wait: several readings of a topic become one, with their number, minimum, mean and maximum. Resolution
//! fades, coverage stays.
//!
//! What can be merged: a number, and an object with `count`, `min`, `mean` and `max`, such as a window's result, or a record
//! that was merged before. Further statistics (`p95`, `stddev`, ...) are lost; what is no number (`key`, `unit`, ...) has to be
//! the same in all that are merged, and stays.
//!
//! Must not: know where the records lie, or what else is done with them.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, Number, Value, json};

use super::record::{Envelope, Merged, Record, RecordId};
use crate::message::Timestamp;

/// How many records become one at most.
pub(super) const MERGED_AT_ONCE: usize = 16;

/// What a record says, as far as it can be merged.
#[derive(Clone, Debug, PartialEq)]
struct Summary {
    count: u64,
    min: f64,
    mean: f64,
    max: f64,
    start: Timestamp,
    end: Timestamp,
    /// What all that are merged must have in common.
    rest: Map<String, Value>,
}

impl Summary {
    fn of(record: &Record) -> Option<Summary> {
        let draft = &record.draft;
        if draft.retain || draft.envelope == Envelope::None {
            return None;
        }
        match serde_json::from_slice(&draft.payload).ok()? {
            Value::Number(number) => {
                let value = number.as_f64().filter(|it| it.is_finite())?;
                Some(Summary {
                    count: 1,
                    min: value,
                    mean: value,
                    max: value,
                    start: draft.time,
                    end: draft.time,
                    rest: Map::new(),
                })
            }
            Value::Object(mut fields) => {
                let mut number = |name: &str| fields.remove(name)?.as_f64();
                let (count, min) = (number("count")?, number("min")?);
                let (mean, max) = (number("mean")?, number("max")?);
                if count < 1.0 || count.fract() != 0.0 {
                    return None;
                }
                let mut time = |name: &str| match fields.remove(name) {
                    None => Some(draft.time),
                    Some(Value::String(text)) => text.parse().ok(),
                    Some(_) => None,
                };
                let (start, end) = (time("start")?, time("end")?);
                fields.retain(|_, value| !value.is_number() && !value.is_null());
                Some(Summary {
                    count: count as u64,
                    min,
                    mean,
                    max,
                    start,
                    end,
                    rest: fields,
                })
            }
            _ => None,
        }
    }

    fn add(&mut self, other: &Summary) {
        let (mine, theirs) = (self.count as f64, other.count as f64);
        self.mean += (other.mean - self.mean) * (theirs / (mine + theirs));
        self.count = self.count.saturating_add(other.count);
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.start = self.start.min(other.start);
        self.end = self.end.max(other.end);
    }

    fn payload(self) -> Bytes {
        let number = |value: f64| Number::from_f64(value).map_or(Value::Null, Value::Number);
        let mut fields = self.rest;
        fields.insert("count".to_owned(), json!(self.count));
        fields.insert("min".to_owned(), number(self.min));
        fields.insert("mean".to_owned(), number(self.mean));
        fields.insert("max".to_owned(), number(self.max));
        fields.insert("start".to_owned(), json!(self.start.to_string()));
        fields.insert("end".to_owned(), json!(self.end.to_string()));
        Value::Object(fields).to_string().into()
    }
}

/// A record that takes in those that follow it.
struct Open {
    /// The last one, whose id and time the merged one has.
    last: Arc<Record>,
    summary: Summary,
    from: RecordId,
    /// How many of those that were given became this one.
    merged: usize,
    /// How many records of flows that stands for.
    stands_for: u64,
}

impl Open {
    fn new(record: Arc<Record>, summary: Summary) -> Open {
        let merged = record.merged.unwrap_or(Merged {
            from: record.id,
            count: 1,
        });
        Open {
            from: merged.from,
            stands_for: merged.count,
            merged: 1,
            summary,
            last: record,
        }
    }

    fn add(&mut self, record: Arc<Record>, summary: &Summary) {
        self.stands_for += record.merged.map_or(1, |merged| merged.count);
        self.summary.add(summary);
        self.merged += 1;
        self.last = record;
    }

    fn close(self) -> Arc<Record> {
        if self.merged == 1 {
            return self.last;
        }
        let mut draft = self.last.draft.clone();
        draft.payload = self.summary.payload();
        Arc::new(Record {
            id: self.last.id,
            draft,
            merged: Some(Merged {
                from: self.from,
                count: self.stands_for,
            }),
        })
    }
}

/// Merges records of one lane and epoch, given in the order of their ids; the result is in that order, too.
pub(super) fn thin(records: Vec<Arc<Record>>) -> Vec<Arc<Record>> {
    let mut open: HashMap<(String, String), Open> = HashMap::new();
    let mut thinned = Vec::new();
    for record in records {
        let Some(summary) = Summary::of(&record) else {
            thinned.push(record);
            continue;
        };
        let rest = serde_json::to_string(&summary.rest).unwrap_or_default();
        let key = (record.draft.topic.clone(), rest);
        match open.get_mut(&key) {
            Some(it) => it.add(record, &summary),
            None => {
                open.insert(key.clone(), Open::new(record, summary));
            }
        }
        if let Some(full) =
            open.remove_entry(&key)
                .and_then(|(key, it)| match it.merged < MERGED_AT_ONCE {
                    true => {
                        open.insert(key, it);
                        None
                    }
                    false => Some(it),
                })
        {
            thinned.push(full.close());
        }
    }
    thinned.extend(open.into_values().map(Open::close));
    thinned.sort_by_key(|record| record.id);
    thinned
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::record::Draft;

    fn record(seq: u64, topic: &str, payload: &str) -> Arc<Record> {
        let time = Timestamp::from_millis(1_000 * seq as i64);
        let payload = Bytes::copy_from_slice(payload.as_bytes());
        Arc::new(Record::new(
            RecordId { epoch: 1, seq },
            Draft::new(topic.to_owned(), payload, time),
        ))
    }

    /// Records as `seq from count payload`.
    fn told(records: &[Arc<Record>]) -> Vec<String> {
        let tell = |record: &Arc<Record>| {
            let (from, count) = record
                .merged
                .map_or((record.id.seq, 1), |it| (it.from.seq, it.count));
            let payload = String::from_utf8_lossy(&record.draft.payload);
            format!("{} {from} {count} {payload}", record.id.seq)
        };
        records.iter().map(tell).collect()
    }

    #[track_caller]
    fn check(records: &[(&str, &str)], expected: &[&str]) {
        let records = (1..).zip(records);
        let records = records.map(|(seq, (topic, payload))| record(seq, topic, payload));
        assert_eq!(told(&thin(records.collect())), expected);
    }

    #[test]
    fn numbers_of_a_topic_become_one() {
        check(
            &[("a", "1"), ("b", "5"), ("a", "-3.5"), ("a", "4")],
            &[
                "2 2 1 5",
                r#"4 1 3 {"count":3,"end":"1970-01-01T00:00:04.000Z","max":4.0,"mean":0.5,"min":-3.5,"start":"1970-01-01T00:00:01.000Z"}"#,
            ],
        );
    }

    #[test]
    fn results_of_windows_are_weighed_by_their_counts() {
        let window = |count: u64, mean: f64, key: &str| {
            format!(
                r#"{{"count":{count},"min":1,"mean":{mean},"max":9,"p95":8,"stddev":null,"key":"{key}","start":"2026-01-01T00:0{count}:00Z","end":"2026-01-01T00:09:00Z"}}"#
            )
        };
        let (three, one, other) = (
            window(3, 2.0, "x"),
            window(1, 6.0, "x"),
            window(1, 6.0, "y"),
        );
        check(
            &[("a", &three), ("a", &other), ("a", &one)],
            &[
                &format!("2 2 1 {other}"),
                r#"3 1 2 {"count":4,"end":"2026-01-01T00:09:00.000Z","key":"x","max":9.0,"mean":3.0,"min":1.0,"start":"2026-01-01T00:01:00.000Z"}"#,
            ],
        );
    }

    #[test]
    fn what_cannot_be_merged_stays_as_it_is() {
        let payloads = [
            r#""on""#,
            "true",
            "[1,2]",
            "null",
            r#"{"mean":1}"#,
            r#"{"count":0,"min":null,"mean":null,"max":null}"#,
            r#"{"count":1.5,"min":1,"mean":1,"max":1}"#,
            r#"{"count":2,"min":1,"mean":1,"max":1,"start":7}"#,
            "1e999",
            "",
        ];
        let records: Vec<_> = payloads
            .iter()
            .flat_map(|it| [("a", *it), ("a", *it)])
            .collect();
        let expected = (1..).zip(&records);
        let expected: Vec<String> = expected
            .map(|(seq, (_, payload))| format!("{seq} {seq} 1 {payload}"))
            .collect();
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        check(&records, &expected);
        for change in [
            |draft: &mut Draft| draft.retain = true,
            |draft: &mut Draft| draft.envelope = Envelope::None,
        ] {
            let records = (1..=2).map(|seq| {
                let mut record = record(seq, "a", "1");
                change(&mut Arc::make_mut(&mut record).draft);
                record
            });
            assert_eq!(thin(records.collect()).len(), 2);
        }
    }

    #[test]
    fn merged_ones_are_merged_again_and_stand_for_all() {
        let of = |seqs: std::ops::RangeInclusive<u64>| -> Vec<Arc<Record>> {
            seqs.map(|seq| record(seq, "a", &seq.to_string())).collect()
        };
        let once = thin(of(1..=40));
        let heads: Vec<String> = told(&once).iter().map(|it| it[..7].to_owned()).collect();
        assert_eq!(heads, ["16 1 16", "32 17 1", "40 33 8"]);
        let again = told(&thin(once));
        assert_eq!(again.len(), 1);
        assert!(again[0].starts_with(r#"40 1 40 {"count":40,"#), "{again:?}");
        assert!(again[0].contains(r#""mean":20.5,"#), "{again:?}");
    }
}
