//! Puts an outbox right: what can be read of damaged generations goes to new ones, what is lost is counted, and the files beside
//! them say again what they should.
//!
//! A damaged generation is not changed. It is moved to `damaged/` as it is, once what could be read of a copy is in its place.

use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;

use super::super::files::{self, Marker};
use super::super::generations::generation_dir;
use super::super::group::{Settlement, Snapshot, encode_snapshot};
use super::super::record::{Key, RecordId};
use super::drop::SNAPSHOT_BYTES_MAX;
use super::scratch::{Opened, size_of};
use super::survey::{self, FileState, Survey};
use super::{Care, CareError, Verdict, Watch, tell};

/// What was put right, or would be.
#[derive(Clone, Debug, Serialize)]
pub struct Repaired {
    /// How it was found.
    pub before: Verdict,
    /// Records that are lost, and now counted so.
    pub lost: u64,
    /// The bytes of what is, or would be, in `damaged/` afterwards and was not.
    pub kept_aside: u64,
    /// The room that this needs at most while it works.
    pub room: u64,
    /// Whether there was anything to do.
    pub is_changed: bool,
}

impl Care {
    /// Puts it right; or says only, with `dry_run`, what there is to do.
    pub fn repair(&self, dry_run: bool, watch: &mut Watch<'_>) -> Result<Repaired, CareError> {
        let survey = self.survey(watch)?;
        let sizes = survey
            .unsound
            .iter()
            .map(|number| size_of(&generation_dir(&self.root, *number)));
        let sizes: Vec<u64> = sizes.collect();
        let repaired = Repaired {
            lost: survey.verdict.missing,
            kept_aside: sizes.iter().sum(),
            room: 2 * sizes.iter().sum::<u64>() + 4 * 1024 * 1024,
            is_changed: !survey.verdict.is_sound,
            before: survey.verdict.clone(),
        };
        if dry_run || !repaired.is_changed {
            return Ok(repaired);
        }
        let failed = |doing, path: &Path| {
            let (path, bytes) = (path.to_owned(), repaired.room);
            move |source| CareError::NoRoom {
                doing,
                path,
                bytes,
                source,
            }
        };
        let mut number = survey.highest;
        for (done, unsound) in survey.unsound.iter().enumerate() {
            tell(watch, "repairing generations", done, survey.unsound.len())?;
            let dir = generation_dir(&self.root, *unsound);
            number += 1;
            let opened = self.scratch.open(&dir, *unsound)?;
            // At every moment all that can be read is in the outbox, if need be twice. The number stays: of a record that is in
            // two generations the one in the newer counts.
            let sound = opened.close().map_err(failed("write a copy of", &dir))?;
            if let Some(sound) = &sound {
                self.put_in_place(sound, number)?;
            }
            self.move_aside(&dir, number)
                .map_err(failed("move aside", &dir))?;
            if sound.is_some() {
                self.put_in_place(&generation_dir(&self.root, number), *unsound)?;
            }
        }
        self.write_books(&survey, &survey.next, number + 1)?;
        Ok(repaired)
    }

    /// Takes records that count as lost back from generations in `damaged/`; or says only, with `dry_run`, how many there are.
    /// What is not in the ledger as lost is not looked for. The outbox is sound.
    pub fn recover(&self, dry_run: bool, watch: &mut Watch<'_>) -> Result<u64, CareError> {
        let damaged = self.root.join(files::DAMAGED);
        if !damaged.is_dir() {
            return Ok(0);
        }
        let (mut recovered, mut survey) = (0, self.survey(watch)?);
        for number in survey::numbers(&damaged)? {
            if survey.next.ledger.dropped_damaged == 0 {
                break;
            }
            let dir = generation_dir(&damaged, number);
            let mut opened = self.scratch.open(&dir, number)?;
            let lost = lost_in(&mut opened, &survey);
            let mut books = survey.next.clone();
            let (mut unsure, mut back): (Vec<Key>, Vec<Key>) = lost
                .into_iter()
                .partition(|key| books.settled.contains(*key));
            // What is not settled is lost for sure. Of the rest some may be delivered: the cursor has passed them. They are taken
            // only if more are lost than that; a receiver can tell those that it has.
            if (back.len() as u64) < books.ledger.dropped_damaged {
                unsure.retain(|key| books.settled.remove(*key));
                back.append(&mut unsure);
            }
            if back.is_empty() || !survey.has_room_for(&opened.found.groups, &books, back.len()) {
                continue;
            }
            recovered += back.len() as u64;
            books.ledger.take_back(back.len() as u64);
            survey.next = books;
            if encode_snapshot(&survey.next).len() > SNAPSHOT_BYTES_MAX {
                return Err(CareError::TooManyPieces);
            }
            if dry_run {
                continue;
            }
            // The books come first: if it ends in between, the records are missed, and this can be done again.
            let (books, place) = (survey.highest + 1, survey.highest + 2);
            let failed = |source| CareError::NoRoom {
                doing: "write a copy of",
                path: dir.clone(),
                bytes: 2 * size_of(&dir),
                source,
            };
            drop(opened);
            self.write_books(&survey, &survey.next, books)?;
            let sound = self.scratch.open(&dir, number)?.close().map_err(failed)?;
            if let Some(sound) = sound {
                self.put_in_place(&sound, place)?;
            }
            let taken = damaged.join(format!("taken-gen-{number:08x}"));
            fs::rename(&dir, taken)
                .and_then(|()| files::sync_dir(&damaged))
                .map_err(failed)?;
            survey = self.survey(watch)?;
        }
        Ok(recovered)
    }

    fn put_in_place(&self, made: &Path, number: u32) -> Result<(), CareError> {
        let dir = generation_dir(&self.root, number);
        fs::rename(made, &dir)
            .and_then(|()| files::sync_dir(&self.root))
            .map_err(|source| CareError::NoRoom {
                doing: "put in its place",
                path: dir,
                bytes: size_of(made),
                source,
            })
    }

    fn move_aside(&self, dir: &Path, number: u32) -> io::Result<()> {
        let damaged = self.root.join(files::DAMAGED);
        fs::create_dir_all(&damaged)?;
        fs::rename(dir, generation_dir(&damaged, number))?;
        files::sync_dir(&damaged)?;
        files::sync_dir(&self.root)
    }

    /// Makes these the books: in a generation of their own, in the marker, and in the epoch file if that says less.
    pub(super) fn write_books(
        &self,
        survey: &Survey,
        books: &Snapshot,
        number: u32,
    ) -> Result<(), CareError> {
        let mut books = books.clone();
        // It must count as newer than all there is.
        let newest = survey.snapshot.ledger.commits;
        books.ledger.commits = books.ledger.commits.max(newest + 1);
        let made = self.scratch.snapshot_only(&books)?;
        self.put_in_place(&made, number)?;
        let failed = |doing, path: &Path| {
            let path = path.to_owned();
            let bytes = 4096;
            move |source| CareError::NoRoom {
                doing,
                path,
                bytes,
                source,
            }
        };
        let verdict = &survey.verdict;
        if verdict.epoch_file != FileState::Good {
            let path = files::epoch_path(&self.root);
            files::write_epoch(&self.root, verdict.epoch).map_err(failed("write", &path))?;
        }
        let marker = Marker {
            epoch: verdict.epoch,
            last: survey.last,
            ledger: books.ledger,
        };
        marker
            .write(&self.root)
            .map_err(failed("write the marker in", &self.root))
    }
}

/// The records of a generation in `damaged/` that were never settled as far as it knows, and are in no other.
fn lost_in(opened: &mut Opened, survey: &Survey) -> Vec<Key> {
    let mut present = Settlement::default();
    for spot in &survey.spots {
        if let Some(group) = &spot.group {
            for (first, last) in &group.runs {
                let first = Key {
                    lane: group.place.lane,
                    id: RecordId {
                        seq: *first,
                        ..spot.first
                    },
                };
                present.insert_range(first, *last);
            }
        }
    }
    let known = opened.found.snapshot.clone().unwrap_or_default().settled;
    let groups = std::mem::take(&mut opened.found.groups);
    let records = groups.iter().flat_map(|group| opened.read(group));
    let lost: Vec<Key> = records
        .flatten()
        .map(|record| record.key())
        .filter(|key| !present.contains(*key) && !known.contains(*key))
        .collect();
    opened.found.groups = groups;
    lost
}
