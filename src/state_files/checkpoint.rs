//! A checkpoint as the bytes of a file, and back.
//!
//! | bytes | what |
//! | --- | --- |
//! | 8 | `TIDEGATE` |
//! | 4 | version, 1 |
//! | 8 | length of the checkpoint in bytes |
//! | 4 | CRC-32 of version, length and checkpoint |
//! | ... | the checkpoint, in MessagePack |
//!
//! Numbers are little-endian. The first 24 bytes stay so in all versions, so that an older one knows that a file is sound, and not
//! its own.
//!
//! Must not: do I/O.

use crate::runtime::driver::chain;
use crate::runtime::state::Checkpoint;

const MAGIC: &[u8; 8] = b"TIDEGATE";
const VERSION: u32 = 1;
pub(super) const HEADER_BYTES: usize = 24;

/// Why bytes are no checkpoint for this version.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unusable {
    Newer(u32),
    Damaged(String),
}

pub(super) fn encode(checkpoint: &Checkpoint) -> Vec<u8> {
    encode_as(VERSION, &checkpoint.to_bytes())
}

pub(super) fn encode_as(version: u32, body: &[u8]) -> Vec<u8> {
    let (version, length) = (version.to_le_bytes(), (body.len() as u64).to_le_bytes());
    let crc = crc(&version, &length, body).to_le_bytes();
    [MAGIC, &version[..], &length, &crc, body].concat()
}

/// By its first bytes, sound or not.
pub(super) fn is_of_this_version(header: &[u8]) -> bool {
    header.starts_with(&[MAGIC, &VERSION.to_le_bytes()[..]].concat())
}

pub(super) fn decode(bytes: &[u8]) -> Result<Checkpoint, Unusable> {
    let damaged = |reason: &str| Unusable::Damaged(reason.to_owned());
    let (header, body) = bytes
        .split_at_checked(HEADER_BYTES)
        .ok_or_else(|| damaged("it is cut off"))?;
    let (magic, rest) = header.split_at(MAGIC.len());
    let (version, rest) = rest.split_at(4);
    let (length, stored_crc) = rest.split_at(8);
    if magic != MAGIC {
        return Err(damaged("it is no state file"));
    }
    if length != (body.len() as u64).to_le_bytes() {
        return Err(damaged("it has not its length"));
    }
    if stored_crc != crc(version, length, body).to_le_bytes() {
        return Err(damaged("its check sum is wrong"));
    }
    let version = u32::from_le_bytes([version[0], version[1], version[2], version[3]]);
    if version != VERSION {
        return Err(Unusable::Newer(version));
    }
    Checkpoint::from_bytes(body).map_err(|error| Unusable::Damaged(chain(&error)))
}

fn crc(version: &[u8], length: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for part in [version, length, body] {
        hasher.update(part);
    }
    hasher.finalize()
}
