//! The bytes of a group and of a snapshot: a version, a CRC-32 and a body. See decision 0002.
//!
//! Must not: know where the bytes are kept.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize, Serializer};

use super::ledger::Ledger;
use super::record::{Draft, Envelope, Record, RecordId};
use super::settled::Settled;
use crate::message::Timestamp;

/// A group is closed when its records reach this size. sled keeps up to 17 values in a leaf and puts leaves of more than
/// 128 KiB into files of their own, which it does not sync: 17 x 7 KiB stays below that.
pub(super) const GROUP_BYTES: usize = 7 * 1024;

const VERSION: u8 = 1;
const HEADER: usize = 5;

/// What a commit says about all records: written together with its groups.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Snapshot {
    pub(super) ledger: Ledger,
    pub(super) settled: Settled,
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

/// Without this serde would write the payload number by number.
fn as_bytes<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

/// What a record takes in a group, about; and in memory, with a fixed allowance for what holds it.
pub(super) fn size_of(draft: &Draft) -> usize {
    const OVERHEAD: usize = 160;
    draft.topic.len() + draft.payload.len() + OVERHEAD
}

pub(super) fn encode_records(records: &[Arc<Record>]) -> Vec<u8> {
    let entries: Vec<Entry<'_>> = records
        .iter()
        .map(|record| Entry {
            seq: record.id.seq,
            time_ns: record.draft.time.as_nanos(),
            topic: &record.draft.topic,
            payload: &record.draft.payload,
            retain: record.draft.retain,
            envelope: record.draft.envelope,
        })
        .collect();
    seal(postcard::to_extend(&entries, vec![0; HEADER]).expect("plain fields always have a form"))
}

pub(super) fn decode_records(epoch: u64, value: &[u8]) -> Result<Vec<Arc<Record>>, DecodeError> {
    let entries: Vec<Entry<'_>> =
        postcard::from_bytes(unseal(value)?).map_err(|_| DecodeError::Fields)?;
    Ok(entries
        .into_iter()
        .map(|entry| {
            let id = RecordId {
                epoch,
                seq: entry.seq,
            };
            let payload = Bytes::copy_from_slice(entry.payload);
            let time = Timestamp::from_nanos(entry.time_ns);
            let draft = Draft {
                retain: entry.retain,
                envelope: entry.envelope,
                ..Draft::new(entry.topic.to_owned(), payload, time)
            };
            Arc::new(Record::new(id, draft))
        })
        .collect())
}

pub(super) fn encode_snapshot(snapshot: &Snapshot) -> Vec<u8> {
    let mut value = vec![0; HEADER];
    serde_json::to_writer(&mut value, snapshot).expect("numbers always have a JSON form");
    seal(value)
}

pub(super) fn decode_snapshot(value: &[u8]) -> Result<Snapshot, DecodeError> {
    serde_json::from_slice(unseal(value)?).map_err(|_| DecodeError::Fields)
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

fn unseal(value: &[u8]) -> Result<&[u8], DecodeError> {
    let (header, body) = value
        .split_first_chunk::<HEADER>()
        .ok_or(DecodeError::Short)?;
    let [version, crc @ ..] = *header;
    if u32::from_be_bytes(crc) != crc32fast::hash(body) {
        Err(DecodeError::Checksum)
    } else if version != VERSION {
        // The header stays as it is in every version, so this is no damage.
        Err(DecodeError::Version(version))
    } else {
        Ok(body)
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
}
