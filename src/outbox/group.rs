//! The bytes of a group and of a snapshot: a version, a CRC-32 and a body. See decision 0002.
//!
//! Must not: know where the bytes are kept.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize, Serializer};

use super::emptied::Emptied;
use super::ledger::Ledger;
use super::record::{Draft, Envelope, Key, Lane, Merged, Priority, Record, RecordId};
use super::restamp::Restamps;
use super::settled::Settled;
use crate::message::Timestamp;

/// A group is closed when its records reach this size. sled keeps up to 17 values in a leaf and puts leaves of more than
/// 128 KiB into files of their own, which it does not sync: 17 x 7 KiB stays below that.
pub(super) const GROUP_BYTES: usize = 7 * 1024;

/// Before there were lanes a record had neither priority nor expiry.
const WITHOUT_LANES: u8 = 1;
const VERSION: u8 = 2;
const HEADER: usize = 5;

/// What a commit says about all records: written together with its groups.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Snapshot {
    pub(super) ledger: Ledger,
    pub(super) settled: Settlement,
    #[serde(default)]
    pub(super) emptied: Emptied,
    #[serde(default, skip_serializing_if = "Restamps::is_empty")]
    pub(super) restamps: Restamps,
}

/// What is settled in each lane, in the order of [`Lane::ALL`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "WrittenSettlement")]
pub(super) struct Settlement(pub(super) [Settled; Lane::ALL.len()]);

impl Settlement {
    pub(super) fn contains(&self, Key { lane, id }: Key) -> bool {
        self.0[lane.index()].contains(id)
    }

    pub(super) fn insert(&mut self, Key { lane, id }: Key) {
        self.0[lane.index()].insert(id);
    }

    /// Adds the ids from `first` to the seq `last` of the same epoch.
    pub(super) fn insert_range(&mut self, Key { lane, id: first }: Key, last: u64) {
        self.0[lane.index()].insert_range(first, last);
    }

    /// As [`Settled::remove`].
    pub(super) fn remove(&mut self, Key { lane, id }: Key) -> bool {
        self.0[lane.index()].remove(id)
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum WrittenSettlement {
    /// Before there were lanes: all records were in the default one.
    Before(Settled),
    Lanes([Settled; Lane::ALL.len()]),
}

impl From<WrittenSettlement> for Settlement {
    fn from(written: WrittenSettlement) -> Settlement {
        match written {
            WrittenSettlement::Lanes(lanes) => Settlement(lanes),
            WrittenSettlement::Before(settled) => {
                let mut lanes = <[Settled; Lane::ALL.len()]>::default();
                lanes[Lane::default().index()] = settled;
                Settlement(lanes)
            }
        }
    }
}

/// Why bytes from the store are not what was written.
#[derive(Debug, thiserror::Error)]
pub(super) enum DecodeError {
    #[error("is too short to be a group")]
    Short,
    /// It is intact, but of a format that is not known here.
    #[error("has version {0}, which this version of Tidegate does not know")]
    Version(u8),
    #[error("has the wrong checksum")]
    Checksum,
    #[error("has the right checksum, but not the right fields")]
    Fields,
}

/// A record of version 1; of version 2 it is the first half.
#[derive(Serialize, Deserialize)]
struct Entry<'a> {
    seq: u64,
    time_ns: i64,
    topic: &'a str,
    #[serde(serialize_with = "as_bytes")]
    payload: &'a [u8],
    retain: bool,
    envelope: Envelope,
}

/// A record of version 2.
#[derive(Serialize, Deserialize)]
struct LaneEntry<'a> {
    #[serde(borrow)]
    entry: Entry<'a>,
    priority: Priority,
    live_first: bool,
    expires: Option<Duration>,
    replay_topic: Option<&'a str>,
    merged: Option<Merged>,
}

impl<'a> From<Entry<'a>> for LaneEntry<'a> {
    fn from(entry: Entry<'a>) -> LaneEntry<'a> {
        LaneEntry {
            entry,
            priority: Priority::default(),
            live_first: false,
            expires: None,
            replay_topic: None,
            merged: None,
        }
    }
}

/// Without this serde would write the payload number by number.
fn as_bytes<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

/// What a record takes in a group, about; and in memory, with a fixed allowance for what holds it.
pub(super) fn size_of(draft: &Draft) -> usize {
    const OVERHEAD: usize = 160;
    let replay_topic = draft.replay_topic.as_ref().map_or(0, String::len);
    draft.topic.len() + draft.payload.len() + replay_topic + OVERHEAD
}

pub(super) fn encode_records(records: &[Arc<Record>]) -> Vec<u8> {
    let entries: Vec<LaneEntry<'_>> = records
        .iter()
        .map(|record| LaneEntry {
            entry: Entry {
                seq: record.id.seq,
                time_ns: record.draft.time.as_nanos(),
                topic: &record.draft.topic,
                payload: &record.draft.payload,
                retain: record.draft.retain,
                envelope: record.draft.envelope,
            },
            priority: record.draft.priority,
            live_first: record.draft.live_first,
            expires: record.draft.expires,
            replay_topic: record.draft.replay_topic.as_deref(),
            merged: record.merged,
        })
        .collect();
    seal(postcard::to_extend(&entries, vec![0; HEADER]).expect("plain fields always have a form"))
}

pub(super) fn decode_records(epoch: u64, value: &[u8]) -> Result<Vec<Arc<Record>>, DecodeError> {
    let (version, body) = unseal(value)?;
    let entries: Vec<LaneEntry<'_>> = if version == WITHOUT_LANES {
        let entries: Vec<Entry<'_>> =
            postcard::from_bytes(body).map_err(|_| DecodeError::Fields)?;
        entries.into_iter().map(LaneEntry::from).collect()
    } else {
        postcard::from_bytes(body).map_err(|_| DecodeError::Fields)?
    };
    Ok(entries
        .into_iter()
        .map(|with_lane| {
            let entry = with_lane.entry;
            let id = RecordId {
                epoch,
                seq: entry.seq,
            };
            let payload = Bytes::copy_from_slice(entry.payload);
            let time = Timestamp::from_nanos(entry.time_ns);
            let draft = Draft {
                retain: entry.retain,
                envelope: entry.envelope,
                priority: with_lane.priority,
                live_first: with_lane.live_first,
                expires: with_lane.expires,
                replay_topic: with_lane.replay_topic.map(str::to_owned),
                ..Draft::new(entry.topic.to_owned(), payload, time)
            };
            Arc::new(Record {
                id,
                draft,
                merged: with_lane.merged,
            })
        })
        .collect())
}

pub(super) fn encode_snapshot(snapshot: &Snapshot) -> Vec<u8> {
    let mut value = vec![0; HEADER];
    serde_json::to_writer(&mut value, snapshot).expect("numbers always have a JSON form");
    seal(value)
}

pub(super) fn decode_snapshot(value: &[u8]) -> Result<Snapshot, DecodeError> {
    serde_json::from_slice(unseal(value)?.1).map_err(|_| DecodeError::Fields)
}

fn seal(mut value: Vec<u8>) -> Vec<u8> {
    let crc = crc32fast::hash(&value[HEADER..]);
    value[0] = VERSION;
    value[1..HEADER].copy_from_slice(&crc.to_be_bytes());
    value
}

/// Makes it look as if a newer Tidegate had written it.
#[cfg(test)]
pub(super) fn make_newer(value: &mut [u8]) {
    value[0] = VERSION + 1;
}

/// The version, and the body.
fn unseal(value: &[u8]) -> Result<(u8, &[u8]), DecodeError> {
    let (header, body) = value
        .split_first_chunk::<HEADER>()
        .ok_or(DecodeError::Short)?;
    let [version, crc @ ..] = *header;
    if u32::from_be_bytes(crc) != crc32fast::hash(body) {
        Err(DecodeError::Checksum)
    } else if !(WITHOUT_LANES..=VERSION).contains(&version) {
        // The header stays as it is in every version, so this is no damage.
        Err(DecodeError::Version(version))
    } else {
        Ok((version, body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records() -> Vec<Arc<Record>> {
        [b"{\"a\":1}".as_slice(), b"", b"\x00\xff"]
            .into_iter()
            .zip([3, 4, 9])
            .map(|(payload, seq)| {
                let (topic, payload) = ("sites/hall/ü".to_owned(), Bytes::from_static(payload));
                let draft = Draft {
                    priority: if seq == 4 {
                        Priority::High
                    } else {
                        Priority::Low
                    },
                    live_first: seq == 9,
                    expires: (seq == 3).then_some(Duration::from_millis(1_500)),
                    replay_topic: (seq == 9).then(|| "replayed/ü".to_owned()),
                    retain: seq == 4,
                    envelope: if seq == 9 {
                        Envelope::None
                    } else {
                        Envelope::Json
                    },
                    ..Draft::new(topic, payload, Timestamp::from_nanos(-5))
                };
                Arc::new(Record::new(RecordId { epoch: 7, seq }, draft))
            })
            .collect()
    }

    #[test]
    fn records_come_back_as_they_were() {
        let value = encode_records(&records());
        assert_eq!(decode_records(7, &value).expect("intact"), records());
    }

    #[test]
    fn any_changed_byte_is_noticed() {
        let value = encode_records(&records());
        for at in 0..value.len() {
            let mut damaged = value.clone();
            damaged[at] ^= 0x10;
            assert!(decode_records(7, &damaged).is_err(), "byte {at}");
            assert!(decode_records(7, &value[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_snapshot_with_unknown_and_missing_counters_still_opens() {
        let mut value = vec![0; HEADER];
        value.extend_from_slice(
            br#"{"ledger":{"accepted":3,"stored":3,"expired":0},"settled":{"below":{"epoch":1,"seq":2},"ranges":[]}}"#,
        );
        let snapshot = decode_snapshot(&seal(value)).expect("intact");
        assert_eq!(snapshot.ledger.stored, 3);
        assert_eq!(
            decode_snapshot(&encode_snapshot(&snapshot)).expect("intact"),
            snapshot
        );
    }

    #[test]
    fn what_was_written_before_there_were_lanes_is_in_the_default_one() {
        let entry = Entry {
            seq: 3,
            time_ns: 5,
            topic: "t",
            payload: b"1",
            retain: true,
            envelope: Envelope::None,
        };
        let body = postcard::to_extend(&vec![entry], vec![0; HEADER]).expect("plain fields");
        let mut value = seal(body);
        value[0] = WITHOUT_LANES;
        let records = decode_records(7, &value).expect("it is still read");
        let id = RecordId { epoch: 7, seq: 3 };
        assert_eq!((records.len(), records[0].id), (1, id));
        assert!(records[0].draft.retain && records[0].draft.lane() == Lane::default());

        let text = br#"{"ledger":{},"settled":{"below":{"epoch":1,"seq":2},"ranges":[]}}"#;
        let mut value = vec![0; HEADER];
        value.extend_from_slice(text);
        let settled = decode_snapshot(&seal(value)).expect("intact").settled;
        let first = RecordId { epoch: 1, seq: 1 };
        for lane in Lane::ALL {
            let is_settled = settled.contains(Key { lane, id: first });
            assert_eq!(is_settled, lane == Lane::default(), "{lane:?}");
        }
    }
}
