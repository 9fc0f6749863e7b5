//! What a record looks like on the wire: an MQTT 3.1.1 PUBLISH packet with QoS 1, its payload in the record's envelope.
//!
//! A record that MQTT or the packet limit cannot carry is told apart here, before it is sent: sent, it would end every
//! connection for ever.
//!
//! Must not: know sockets, rumqttc or the session.

use std::io::Write;

use crate::message::Timestamp;
use crate::outbox::{Envelope, Merged, Record, RecordId};

/// The greatest packet of MQTT, in bytes: its remaining length has at most four bytes of seven bits (MQTT 3.1.1, section
/// 2.2.3).
pub const MQTT_MAX_PACKET: usize = 1 + 4 + 268_435_455;

/// A record, ready to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    pub topic: String,
    pub payload: Vec<u8>,
    pub retain: bool,
    /// The size of the whole PUBLISH packet in bytes.
    pub size: usize,
}

/// Why a record can never be published, as it is written beside the dead letter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsendable {
    #[error("its topic is empty")]
    EmptyTopic,
    #[error(
        "its topic `{topic}` contains {character:?}, which MQTT allows in subscriptions only, or nowhere"
    )]
    BadTopic { topic: String, character: char },
    #[error("its topic has {0} bytes, and MQTT allows 65535")]
    LongTopic(usize),
    #[error("its packet has {size} bytes, and the limit `max_packet` of the uplink is {limit}")]
    TooLarge { size: usize, limit: usize },
}

impl Packet {
    /// Dresses a record for the wire. `max_packet` limits the whole packet, in bytes; a `replayed` record says so.
    pub fn new(
        record: &Record,
        device: &str,
        max_packet: usize,
        replayed: bool,
    ) -> Result<Packet, Unsendable> {
        let topic = match &record.draft.replay_topic {
            Some(topic) if replayed => topic,
            _ => &record.draft.topic,
        };
        check_topic(topic)?;
        let payload = payload(record, device, replayed);
        let size = publish_size(topic.len(), payload.len());
        if size > max_packet {
            return Err(Unsendable::TooLarge {
                size,
                limit: max_packet,
            });
        }
        Ok(Packet {
            topic: topic.clone(),
            payload,
            retain: record.draft.retain,
            size,
        })
    }
}

/// MQTT 3.1.1, sections 1.5.3 and 4.7: at least one character, no wildcards, no U+0000, at most 65535 bytes.
fn check_topic(topic: &str) -> Result<(), Unsendable> {
    if topic.is_empty() {
        return Err(Unsendable::EmptyTopic);
    }
    if topic.len() > usize::from(u16::MAX) {
        return Err(Unsendable::LongTopic(topic.len()));
    }
    match topic.chars().find(|c| matches!(c, '+' | '#' | '\0')) {
        Some(character) => Err(Unsendable::BadTopic {
            topic: topic.to_owned(),
            character,
        }),
        None => Ok(()),
    }
}

/// The payload in its envelope. The draft's payload is JSON text already and goes in as it is.
fn payload(record: &Record, device: &str, replayed: bool) -> Vec<u8> {
    let Record { id, draft, merged } = record;
    match draft.envelope {
        Envelope::None => draft.payload.to_vec(),
        Envelope::Json => {
            let mut json = Vec::with_capacity(draft.payload.len() + device.len() + 112);
            json.extend_from_slice(br#"{"device":"#);
            serde_json::to_writer(&mut json, device).expect("text always has a JSON form");
            write!(
                json,
                r#","epoch":{},"seq":{},"time":"{}""#,
                id.epoch, id.seq, draft.time
            )
            .expect("writing to memory does not fail");
            if replayed {
                json.extend_from_slice(br#","replayed":true"#);
            }
            if let Some(Merged { from, count }) = merged {
                write!(
                    json,
                    r#","merged":{{"epoch":{},"seq":{},"count":{count}}}"#,
                    from.epoch, from.seq
                )
                .expect("writing to memory does not fail");
            }
            json.extend_from_slice(br#","payload":"#);
            json.extend_from_slice(match draft.payload.as_ref() {
                b"" => b"null",
                payload => payload,
            });
            json.push(b'}');
            json
        }
    }
}

/// The bytes that the JSON envelope adds to a payload, for a device whose name needs no escapes.
pub fn json_envelope_len(device: &str, id: RecordId, time: Timestamp) -> usize {
    let empty = r#"{"device":"","epoch":,"seq":,"time":"","payload":}"#;
    let digits = |number: u64| number.checked_ilog10().map_or(1, |log| log as usize + 1);
    empty.len() + device.len() + digits(id.epoch) + digits(id.seq) + time.to_string().len()
}

/// The size of a QoS 1 PUBLISH packet in bytes: fixed header, topic with its length, packet id, payload (MQTT 3.1.1,
/// sections 2.2 and 3.3).
pub fn publish_size(topic_len: usize, payload_len: usize) -> usize {
    let remaining = 2 + topic_len + 2 + payload_len;
    let length_bytes = match remaining {
        0..=127 => 1,
        128..=16_383 => 2,
        16_384..=2_097_151 => 3,
        _ => 4,
    };
    1 + length_bytes + remaining
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::outbox::Draft;

    fn record(topic: &str, payload: &str, envelope: Envelope) -> Record {
        let payload = Bytes::copy_from_slice(payload.as_bytes());
        let time = Timestamp::from_millis(1_500);
        Record::new(
            RecordId { epoch: 3, seq: 41 },
            Draft {
                envelope,
                ..Draft::new(topic.to_owned(), payload, time)
            },
        )
    }

    #[test]
    fn envelopes() {
        let check = |payload: &str, envelope, expected: &str| {
            let packet =
                Packet::new(&record("t", payload, envelope), "press \"7\"", 1000, false).unwrap();
            assert_eq!(String::from_utf8(packet.payload).unwrap(), expected);
        };
        check(
            r#"{"mean":4.5}"#,
            Envelope::Json,
            r#"{"device":"press \"7\"","epoch":3,"seq":41,"time":"1970-01-01T00:00:01.500Z","payload":{"mean":4.5}}"#,
        );
        check(
            "",
            Envelope::Json,
            r#"{"device":"press \"7\"","epoch":3,"seq":41,"time":"1970-01-01T00:00:01.500Z","payload":null}"#,
        );
        check("4.5", Envelope::None, "4.5");
        check("", Envelope::None, "");
    }

    #[test]
    fn what_is_replayed_says_so_and_may_have_a_topic_of_its_own() {
        let mut record = record("t", "1", Envelope::Json);
        let check = |record: &Record, replayed, topic: &str, mark: bool| {
            let packet = Packet::new(record, "d", 1000, replayed).unwrap();
            let text = String::from_utf8(packet.payload).unwrap();
            assert_eq!(packet.topic, topic);
            assert_eq!(
                text.contains(r#""replayed":true,"payload""#),
                mark,
                "{text}"
            );
        };
        check(&record, true, "t", true);
        record.draft.replay_topic = Some("late".to_owned());
        check(&record, true, "late", true);
        check(&record, false, "t", false);
    }

    #[test]
    fn sizes_count_every_byte_of_the_packet() {
        // Each pair stands on both sides of a step in the length of the remaining length.
        let check =
            |payload: usize, expected: usize| assert_eq!(publish_size(3, payload), expected);
        check(0, 1 + 1 + 7);
        check(120, 1 + 1 + 127);
        check(121, 1 + 2 + 128);
        check(16_376, 1 + 2 + 16_383);
        check(16_377, 1 + 3 + 16_384);
        check(2_097_144, 1 + 3 + 2_097_151);
        check(2_097_145, 1 + 4 + 2_097_152);
    }

    #[test]
    fn what_cannot_be_sent_is_refused_with_the_reason() {
        let check = |topic: &str, limit: usize, expected: &str| {
            let said = Packet::new(
                &record(topic, "1234567890", Envelope::None),
                "d",
                limit,
                false,
            );
            match said {
                Ok(packet) => assert_eq!(expected, "", "{topic:?} went through: {packet:?}"),
                Err(reason) => assert_eq!(reason.to_string(), expected),
            }
        };
        check("a/b", 19, "");
        check(
            "a/b",
            18,
            "its packet has 19 bytes, and the limit `max_packet` of the uplink is 18",
        );
        check("", 100, "its topic is empty");
        for (topic, character) in [("a/+", '+'), ("#", '#'), ("a\0b", '\0')] {
            check(
                topic,
                100,
                &format!(
                    "its topic `{topic}` contains {character:?}, which MQTT allows in subscriptions only, or nowhere"
                ),
            );
        }
        check(&"t".repeat(65_535), 100_000, "");
        check(
            &"t".repeat(65_536),
            100_000,
            "its topic has 65536 bytes, and MQTT allows 65535",
        );
    }

    #[test]
    fn the_length_of_the_envelope_is_what_it_adds() {
        for (epoch, seq, nanos) in [
            (1, 9, 0),
            (10, 100, 1_500_000_001),
            (0, u64::MAX, 5_000_000),
        ] {
            let mut record = record("t", "21.5", Envelope::Json);
            record.id = RecordId { epoch, seq };
            record.draft.time = Timestamp::from_nanos(nanos);
            let length = json_envelope_len("press-7", record.id, record.draft.time);
            assert_eq!(
                payload(&record, "press-7", false).len(),
                length + "21.5".len()
            );
        }
    }
}
