//! Takes records out of an outbox, as JSON Lines.
//!
//! Must not: change anything.

use std::io::Write;

use serde::de::IgnoredAny;
use serde_json::json;

use super::super::record::{Envelope, Priority, Record};
use super::survey::Source;
use super::{Care, CareError, Verdict, Watch};
use crate::message::Timestamp;
use crate::outbox::files;

/// What was written.
#[derive(Clone, Debug)]
pub struct Exported {
    pub records: u64,
    pub verdict: Verdict,
}

impl Care {
    /// Writes the records that are waiting, or with `all` whatever can be read, in the order of their ids.
    pub fn export(
        &self,
        device: &str,
        all: bool,
        out: &mut dyn Write,
        watch: &mut Watch<'_>,
    ) -> Result<Exported, CareError> {
        let mut survey = self.survey(watch)?;
        if all {
            survey.add_set_aside(self, watch)?;
        }
        let damaged = self.root.join(files::DAMAGED);
        let mut records = 0;
        let failed = |records| move |source| CareError::Write { records, source };
        survey.each_record(self, watch, &mut |record, source| {
            let is_aside = match source {
                Source::Generation { dir: path, .. } | Source::Group(path) => {
                    path.starts_with(&damaged)
                }
            };
            let is_waiting = !survey.is_settled(record) && !is_aside;
            if !all && !is_waiting {
                return Ok(());
            }
            let state = all.then_some(if is_waiting {
                "waiting"
            } else if is_aside {
                "set-aside"
            } else {
                "settled"
            });
            let ahead = survey.snapshot.restamps.ahead(record.id);
            let time = record.draft.time.saturating_add(ahead);
            out.write_all(&line(device, record, time, state))
                .map_err(failed(records))?;
            records += 1;
            Ok(())
        })?;
        out.flush().map_err(failed(records))?;
        Ok(Exported {
            records,
            verdict: survey.verdict,
        })
    }
}

/// One record as a line of JSON: what the envelope has, and below it how the record was to be delivered, where that is not the
/// default.
fn line(device: &str, record: &Record, time: Timestamp, state: Option<&str>) -> Vec<u8> {
    let draft = &record.draft;
    let mut line = Vec::new();
    let mut member = |name: &str, value: &dyn Fn(&mut Vec<u8>)| {
        line.extend_from_slice(if line.is_empty() { b"{\"" } else { b",\"" });
        line.extend_from_slice(name.as_bytes());
        line.extend_from_slice(b"\":");
        value(&mut line);
    };
    let value = |value: serde_json::Value| {
        move |line: &mut Vec<u8>| line.extend_from_slice(value.to_string().as_bytes())
    };
    member("device", &value(json!(device)));
    member("epoch", &value(json!(record.id.epoch)));
    member("seq", &value(json!(record.id.seq)));
    member("time", &value(json!(time.to_string())));
    member("topic", &value(json!(draft.topic)));
    if serde_json::from_slice::<IgnoredAny>(&draft.payload).is_ok() {
        // As it is: numbers keep their digits. Between its parts there may be line ends, which in strings there are not.
        let one_line = |byte: &u8| {
            if matches!(byte, b'\n' | b'\r') {
                b' '
            } else {
                *byte
            }
        };
        member("payload", &|line| {
            line.extend(draft.payload.iter().map(one_line))
        });
    } else if let Ok(text) = std::str::from_utf8(&draft.payload) {
        member("payload_text", &value(json!(text)));
    } else {
        member("payload_base64", &value(json!(base64(&draft.payload))));
    }
    if draft.retain {
        member("retain", &value(json!(true)));
    }
    if draft.envelope != Envelope::default() {
        member("envelope", &value(json!(draft.envelope)));
    }
    if draft.priority != Priority::default() {
        member("priority", &value(json!(draft.priority)));
    }
    if draft.live_first {
        member("live_first", &value(json!(true)));
    }
    if let Some(topic) = &draft.replay_topic {
        member("replay_topic", &value(json!(topic)));
    }
    if let Some(at) = draft.expires_at() {
        member("expires", &value(json!(at.to_string())));
    }
    if let Some(merged) = &record.merged {
        let (epoch, seq, count) = (merged.from.epoch, merged.from.seq, merged.count);
        let merged = json!({"epoch": epoch, "seq": seq, "count": count});
        member("merged", &value(merged));
    }
    if let Some(state) = state {
        member("state", &value(json!(state)));
    }
    line.extend_from_slice(b"}\n");
    line
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let byte = |at: usize| u32::from(three.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            let value = (bits >> (18 - 6 * digit)) & 63;
            text.push(if digit > three.len() {
                '='
            } else {
                char::from(DIGITS[value as usize])
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::super::super::record::{Draft, Merged, RecordId};
    use super::*;

    fn check(change: impl FnOnce(&mut Record), payload: &'static [u8], expected: &str) {
        let id = RecordId { epoch: 3, seq: 41 };
        let payload = Bytes::from_static(payload);
        let draft = Draft::new("a/b".to_owned(), payload, Timestamp::from_millis(1_500));
        let mut record = Record::new(id, draft);
        change(&mut record);
        let start = r#"{"device":"d\"7","epoch":3,"seq":41,"time":"1970-01-01T00:00:01.500Z","topic":"a/b","#;
        let line = String::from_utf8(line("d\"7", &record, Timestamp::from_millis(1_500), None))
            .expect("text");
        assert_eq!(line, format!("{start}{expected}}}\n"));
        serde_json::from_str::<serde_json::Value>(&line).expect("JSON");
    }

    #[test]
    fn payloads_stay_what_they_are() {
        let plain = |_: &mut Record| {};
        check(plain, b"{\"a\":1.10}", r#""payload":{"a":1.10}"#);
        check(plain, b"[1,\r\n2]", r#""payload":[1,  2]"#);
        check(plain, b"on\n", r#""payload_text":"on\n""#);
        check(plain, b"", r#""payload_text":"""#);
        check(plain, b"\xff", r#""payload_base64":"/w==""#);
        check(plain, b"\xffab", r#""payload_base64":"/2Fi""#);
    }

    #[test]
    fn what_is_not_the_default_is_said() {
        let change = |record: &mut Record| {
            record.draft.retain = true;
            record.draft.envelope = Envelope::None;
            record.draft.priority = Priority::High;
            record.draft.live_first = true;
            record.draft.replay_topic = Some("late/a".to_owned());
            record.draft.expires = Some(Duration::from_secs(2));
            let from = RecordId { epoch: 2, seq: 9 };
            record.merged = Some(Merged { from, count: 16 });
        };
        let expected = r#""payload":1,"retain":true,"envelope":"none","priority":"high","live_first":true,"replay_topic":"late/a","expires":"1970-01-01T00:00:03.500Z","merged":{"count":16,"epoch":2,"seq":9}"#;
        check(change, b"1", expected);
    }
}
