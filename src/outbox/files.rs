//! The small files beside the store: the lock, the marker, the epoch, the reserve and the dead letters.
//!
//! What must survive a power cut is written to a new file, synced, renamed over the old one, and the directory synced.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::book::DeadLetter;
use super::ledger::Ledger;
use super::record::RecordId;

pub(super) const DAMAGED: &str = "damaged";
const RESERVE_BYTES: usize = 1024 * 1024;
/// The file of dead letters is put aside at this size, in the place of the one before.
const DEAD_LETTERS_BYTES: u64 = 1024 * 1024;
const DEAD_LETTER_PAYLOAD_BYTES: usize = 16 * 1024;

/// What is known about the store without sled.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Marker {
    pub(super) epoch: u64,
    pub(super) last: RecordId,
    pub(super) ledger: Ledger,
}

impl Marker {
    /// `None` if there is none, or none that can be read.
    pub(super) fn read(root: &Path) -> Option<Marker> {
        read_if_usable(&root.join("marker.json"), Marker::from_text)
    }

    pub(super) fn write(&self, root: &Path) -> io::Result<()> {
        replace(&root.join("marker.json"), self.to_text().as_bytes())
    }

    /// A line of JSON, and one with its CRC-32: without that a flipped bit would be a wrong number, or one that is missing.
    pub(super) fn to_text(&self) -> String {
        let json = serde_json::to_string(self).expect("numbers always have a JSON form");
        let crc = crc32fast::hash(json.as_bytes());
        format!("{json}\n{crc:08x}\n")
    }

    /// `None` if it is damaged. Before version 0.2 there was no second line; then its numbers have to add up at least.
    pub(super) fn from_text(text: &str) -> Option<Marker> {
        let (json, crc) = text.split_once('\n').unwrap_or((text, ""));
        let marker: Marker = serde_json::from_str(json).ok()?;
        let is_intact = match crc.trim_end() {
            "" => !text.contains('\n') && marker.ledger.balances(),
            crc => u32::from_str_radix(crc, 16) == Ok(crc32fast::hash(json.as_bytes())),
        };
        is_intact.then_some(marker)
    }
}

/// The file beside the outbox that keeps the epoch when the outbox is deleted. A path that ends without a name, such as
/// `.`, is resolved first; only for the root of the file system does the file lie inside.
pub(super) fn epoch_path(root: &Path) -> PathBuf {
    let beside = |path: &Path| {
        let mut name = path.file_name()?.to_owned();
        name.push(".epoch");
        Some(path.with_file_name(name))
    };
    beside(root)
        .or_else(|| beside(&root.canonicalize().ok()?))
        .unwrap_or_else(|| root.join("outbox.epoch"))
}

/// The last epoch, or 0 if there is none that can be read.
pub(super) fn read_epoch(root: &Path) -> u64 {
    read_if_usable(&epoch_path(root), |text| text.trim().parse().ok()).unwrap_or(0)
}

pub(super) fn write_epoch(root: &Path, epoch: u64) -> io::Result<()> {
    replace(&epoch_path(root), format!("{epoch}\n").as_bytes())
}

/// What cannot be read or used counts as absent: these files only back each other and the store up.
fn read_if_usable<T>(path: &Path, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
    match fs::read_to_string(path) {
        Ok(text) => {
            let parsed = parse(&text);
            if parsed.is_none() {
                tracing::warn!("outbox: {} is damaged; going on without it", path.display());
            }
            parsed
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            tracing::warn!(
                "outbox: cannot read {}: {error}; going on without it",
                path.display()
            );
            None
        }
    }
}

fn replace(path: &Path, contents: &[u8]) -> io::Result<()> {
    let new = suffixed(path, ".new");
    let mut file = File::create(&new)?;
    file.write_all(contents)?;
    file.sync_all()?;
    if path.is_dir() {
        // A file cannot be renamed over it.
        fs::rename(path, suffixed(path, ".damaged"))?;
    }
    fs::rename(&new, path)?;
    sync_dir(parent(path))
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// The directory that a path lies in; for a plain name that is the current one.
pub(super) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) => Path::new("."),
        None => path,
    }
}

/// Why the lock was not to be had.
pub(super) enum LockError {
    /// Another process has it; its pid if it left one.
    Held(Option<u32>),
    Io(io::Error),
}

/// Takes the lock of an outbox, and makes its file if `is_new_too`. It is released when the file is closed.
pub(super) fn lock(root: &Path, is_new_too: bool) -> Result<File, LockError> {
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(is_new_too)
        .truncate(false)
        .open(root.join("lock"))
        .map_err(LockError::Io)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let _ = file.read_to_string(&mut pid);
            return Err(LockError::Held(pid.trim().parse().ok()));
        }
        Err(TryLockError::Error(error)) => return Err(LockError::Io(error)),
    }
    // The pid only helps whoever finds the outbox in use. On a full disk it may be missing.
    let _ = file
        .set_len(0)
        .and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(file)
}

/// Makes sure that there is a file to give up when the disk is full. Holes would reserve nothing, so it is written.
pub(super) fn make_reserve(root: &Path) -> io::Result<()> {
    let path = root.join("reserve");
    if fs::metadata(&path).is_ok_and(|data| data.len() == RESERVE_BYTES as u64) {
        return Ok(());
    }
    let written = File::create(&path).and_then(|mut file| {
        file.write_all(&vec![0xa5; RESERVE_BYTES])?;
        file.sync_all()
    });
    if written.is_err() {
        let _ = fs::remove_file(&path);
    }
    written
}

/// Gives up the reserve; whether there was one.
pub(super) fn release_reserve(root: &Path) -> bool {
    fs::remove_file(root.join("reserve")).is_ok()
}

/// Keeps `damaged/` within a size: the oldest go first, but the newest always stays.
pub(super) fn prune_damaged(damaged: &Path, bytes_max: u64) {
    let Ok(entries) = fs::read_dir(damaged) else {
        return;
    };
    let mut entries: Vec<_> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let changed = entry.metadata().ok()?.modified().ok()?;
            Some((changed, size_of(&entry.path()), entry.path()))
        })
        .collect();
    entries.sort();
    let mut total: u64 = entries.iter().map(|(_, size, _)| size).sum();
    let last = entries.len().saturating_sub(1);
    for (_, size, path) in &entries[..last] {
        if total <= bytes_max {
            return;
        }
        let removed = if path.is_dir() {
            fs::remove_dir_all(path)
        } else {
            fs::remove_file(path)
        };
        match removed {
            Ok(()) => total -= size,
            Err(error) => tracing::warn!("outbox: cannot remove {}: {error}", path.display()),
        }
    }
}

fn size_of(path: &Path) -> u64 {
    match fs::read_dir(path) {
        Ok(entries) => entries.flatten().map(|entry| size_of(&entry.path())).sum(),
        Err(_) => fs::metadata(path).map_or(0, |data| data.len()),
    }
}

#[derive(Serialize)]
struct LetterLine<'a> {
    epoch: u64,
    seq: u64,
    reason: &'a str,
    given_up: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_bytes: Option<usize>,
}

/// Appends letters to `dead-letters.jsonl` and syncs it. Long payloads are cut; `payload_bytes` is the true length.
pub(super) fn write_dead_letters<'a>(
    root: &Path,
    letters: impl IntoIterator<Item = &'a DeadLetter>,
) -> io::Result<()> {
    let path = root.join("dead-letters.jsonl");
    if fs::metadata(&path).is_ok_and(|data| data.len() >= DEAD_LETTERS_BYTES) {
        fs::rename(&path, root.join("dead-letters.1.jsonl"))?;
    }
    let mut lines = Vec::new();
    for letter in letters {
        let draft = letter.record.as_ref().map(|record| &record.draft);
        let line = LetterLine {
            epoch: letter.id.epoch,
            seq: letter.id.seq,
            reason: &letter.reason,
            given_up: letter.time.to_string(),
            time: draft.map(|draft| draft.time.to_string()),
            topic: draft.map(|draft| draft.topic.as_str()),
            payload: draft.map(|draft| {
                let shown = draft.payload.len().min(DEAD_LETTER_PAYLOAD_BYTES);
                String::from_utf8_lossy(&draft.payload[..shown]).into_owned()
            }),
            payload_bytes: draft.map(|draft| draft.payload.len()),
        };
        serde_json::to_writer(&mut lines, &line)?;
        lines.push(b'\n');
    }
    let mut file = File::options().append(true).create(true).open(&path)?;
    file.write_all(&lines)?;
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marker() -> Marker {
        Marker {
            epoch: 17,
            last: RecordId { epoch: 17, seq: 62 },
            ledger: Ledger {
                accepted: 63,
                acknowledged: 61,
                dead_lettered: 2,
                ..Ledger::default()
            },
        }
    }

    #[test]
    fn a_flipped_bit_in_the_marker_is_no_other_number() {
        let text = marker().to_text();
        assert_eq!(Marker::from_text(&text), Some(marker()));
        for (at, bit) in (0..text.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1 << bit;
            let read = String::from_utf8(bytes).ok();
            let read = read.and_then(|text| Marker::from_text(&text));
            // A hexadecimal digit may be written large, and the last line may lack its end.
            assert!(
                read.is_none_or(|read| read == marker()),
                "byte {at}, bit {bit}"
            );
        }
        for cut in 0..text.len() {
            let read = Marker::from_text(&text[..cut]);
            assert!(read.is_none_or(|read| read == marker()), "cut at {cut}");
        }
    }

    #[test]
    fn a_marker_of_an_older_version_is_read_if_it_adds_up() {
        let check = |accepted: u64, is_read: bool| {
            let mut marker = marker();
            marker.ledger.accepted = accepted;
            let text = serde_json::to_string(&marker).expect("it has a JSON form");
            assert_eq!(Marker::from_text(&text).is_some(), is_read, "{accepted}");
        };
        check(63, true);
        check(62, false);
    }

    #[test]
    fn the_epoch_lies_beside_the_outbox_however_its_path_is_written() {
        let check = |root: &str, expected: &str| {
            assert_eq!(epoch_path(Path::new(root)), Path::new(expected), "{root}");
        };
        check("outbox", "outbox.epoch");
        check("outbox/", "outbox.epoch");
        check("/var/lib/outbox/.", "/var/lib/outbox.epoch");
        check("/var/lib/out.box", "/var/lib/out.box.epoch");
        check("/", "/outbox.epoch");
        let here = std::env::current_dir().expect("there is one");
        let beside = format!("{}.epoch", here.display());
        check(".", &beside);
        check("src/..", &beside);
    }
}
