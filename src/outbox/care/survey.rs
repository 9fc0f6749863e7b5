//! All that is known about an outbox: what is in each generation, what the files beside them say, and whether that adds up.
//!
//! Must not: change anything.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::super::book::Book;
use super::super::files::{self, Marker};
use super::super::generations::{copied_group, generation_dir, generation_numbers};
use super::super::group::Snapshot;
use super::super::ledger::Ledger;
use super::super::opening::{EPOCH_MAX, latest};
use super::super::record::{Record, RecordId};
use super::super::store::{Found, FoundGroup};
use super::super::{OpenError, Settings};
use super::scratch::{Opened, Scratch, read_small, size_of};
use super::{Care, CareError, Watch, tell, unreadable};

/// A file that backs the store up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileState {
    Good,
    Missing,
    Damaged,
    /// It says less than what was found elsewhere.
    Behind,
}

/// One generation.
#[derive(Clone, Debug, Serialize)]
pub struct GenerationState {
    pub name: String,
    pub bytes: u64,
    pub groups: u64,
    pub records: u64,
    /// What is wrong with it; nothing if it is sound.
    pub problems: Vec<String>,
}

/// What lies in `damaged/`: it counts as lost already.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct SetAside {
    pub generations: u64,
    pub groups: u64,
    pub bytes: u64,
}

/// Whether an outbox is sound, and what is in it.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    pub path: PathBuf,
    pub is_sound: bool,
    /// All that is wrong, in words.
    pub problems: Vec<String>,
    pub generations: Vec<GenerationState>,
    /// Records that are still to be delivered.
    pub waiting: u64,
    /// Records that should be there and are not, nor were they counted as lost so far.
    pub missing: u64,
    /// Records that were delivered, and will be again, as what said so is lost.
    pub again: u64,
    /// The number of the last start.
    pub epoch: u64,
    pub marker: FileState,
    pub epoch_file: FileState,
    pub set_aside: SetAside,
    /// As the next start will find it.
    pub ledger: Ledger,
}

/// Where groups of records come from.
#[derive(Clone, Debug)]
pub(super) enum Source {
    Generation {
        dir: PathBuf,
        number: u32,
    },
    /// A single group that was copied aside.
    Group(PathBuf),
}

/// A group, and where it is.
pub(super) struct Spot {
    pub(super) source: usize,
    pub(super) first: RecordId,
    /// `None` for a group that was copied aside by itself.
    pub(super) group: Option<FoundGroup>,
}

impl Spot {
    fn of(source: usize, group: FoundGroup) -> Spot {
        Spot {
            source,
            first: group.place.first,
            group: Some(group),
        }
    }
}

pub(super) struct Survey {
    pub(super) verdict: Verdict,
    /// The numbers of the generations that are not sound.
    pub(super) unsound: Vec<u32>,
    /// The highest number of a generation there ever was, as far as is known.
    pub(super) highest: u32,
    pub(super) snapshot: Snapshot,
    /// The books as the next start will write them first, with all that is missing counted.
    pub(super) next: Snapshot,
    /// The last id that is known to have been given.
    pub(super) last: RecordId,
    /// Newest first.
    pub(super) sources: Vec<Source>,
    pub(super) spots: Vec<Spot>,
}

impl Care {
    /// Checks everything.
    pub fn verify(&self, watch: &mut Watch<'_>) -> Result<Verdict, CareError> {
        Ok(self.survey(watch)?.verdict)
    }

    pub(super) fn survey(&self, watch: &mut Watch<'_>) -> Result<Survey, CareError> {
        let numbers = numbers(&self.root)?;
        let mut found = Found::default();
        let mut survey = Collected::default();
        for (done, number) in numbers.iter().rev().enumerate() {
            tell(watch, "checking generations", done, numbers.len())?;
            let dir = generation_dir(&self.root, *number);
            let opened = self.scratch.open(&dir, *number)?;
            survey.take_in(&dir, *number, &opened);
            found.damaged += opened.found.damaged;
            if let Some(snapshot) = opened.found.snapshot {
                found.newer_snapshot(snapshot);
            }
            let source = survey.sources.len();
            let number = *number;
            survey.sources.push(Source::Generation { dir, number });
            let spots = opened.found.groups.into_iter();
            survey
                .spots
                .extend(spots.map(|group| Spot::of(source, group)));
        }
        let aside = set_aside(&self.root.join(files::DAMAGED))?;
        let highest = numbers.into_iter().chain(aside.1).max().unwrap_or(0);
        Ok(survey.judge(&self.root, &found, aside.0, highest))
    }
}

#[derive(Default)]
struct Collected {
    generations: Vec<GenerationState>,
    unsound: Vec<u32>,
    sources: Vec<Source>,
    spots: Vec<Spot>,
}

impl Collected {
    fn take_in(&mut self, dir: &Path, number: u32, opened: &Opened) {
        let records = |group: &FoundGroup| group.runs.iter().map(|(a, b)| b - a + 1).sum::<u64>();
        if !opened.problems.is_empty() {
            self.unsound.push(number);
        }
        self.generations.push(GenerationState {
            name: name_of(dir),
            bytes: size_of(dir),
            groups: opened.found.groups.len() as u64,
            records: opened.found.groups.iter().map(records).sum(),
            problems: opened.problems.clone(),
        });
    }

    /// Does with what was found as a start does.
    fn judge(mut self, root: &Path, found: &Found, set_aside: SetAside, highest: u32) -> Survey {
        let marker = Marker::read(root);
        let kept = files::read_epoch(root);
        let found_commits = found
            .snapshot
            .as_ref()
            .map_or(0, |snapshot| snapshot.ledger.commits);
        let snapshot = latest(found.snapshot.clone(), &marker);
        let groups = || self.spots.iter().filter_map(|spot| spot.group.as_ref());
        let ids = groups().flat_map(|group| {
            let last = group.runs.last().map(|(_, last)| *last);
            last.map(|seq| RecordId {
                seq,
                ..group.place.first
            })
        });
        let last = ids
            .chain(marker.iter().map(|marker| marker.last))
            .filter(|id| id.epoch < EPOCH_MAX)
            .max()
            .unwrap_or_default();
        let seen = [
            last.epoch,
            snapshot.ledger.epoch,
            marker.as_ref().map_or(0, |marker| marker.epoch),
        ];
        let seen = seen.into_iter().filter(|epoch| *epoch < EPOCH_MAX).max();
        let seen = seen.unwrap_or(0);
        let epoch = if kept < EPOCH_MAX {
            seen.max(kept)
        } else {
            seen
        };

        let mut book = Book::open(Settings::new(root).limits(), epoch, snapshot.clone());
        let mut is_hidden = HashSet::new();
        for group in groups() {
            if book.found(group).is_none() {
                is_hidden.insert((group.place.generation, group.place.first));
            }
        }
        let missing = book.reconcile(found.damaged, Duration::ZERO);
        let ledger = book.ledger();
        let waiting = ledger.stored;
        let again = waiting.saturating_sub(snapshot.ledger.stored);
        let next = book.begin_without_records(Vec::new()).snapshot;

        let marker_state = state_of(&root.join("marker.json"), marker.is_some());
        let epoch_path = files::epoch_path(root);
        let epoch_file = match state_of(&epoch_path, (1..EPOCH_MAX).contains(&kept)) {
            FileState::Good if kept < seen => FileState::Behind,
            state => state,
        };
        let mut problems: Vec<String> = self
            .generations
            .iter()
            .flat_map(|generation| {
                let name = &generation.name;
                generation
                    .problems
                    .iter()
                    .map(move |problem| format!("{name}: {problem}"))
            })
            .collect();
        problems.extend(problem_of("marker.json", marker_state));
        problems.extend(problem_of(&epoch_path.display().to_string(), epoch_file));
        let known_commits = marker.as_ref().map_or(0, |marker| marker.ledger.commits);
        if known_commits > found_commits {
            problems.push(format!(
                "the last commit is gone: marker.json knows of {known_commits}, the newest that was found is {found_commits}"
            ));
        }
        if !snapshot.ledger.balances() {
            problems.push("the ledger does not add up".to_owned());
        }
        if missing > 0 {
            problems.push(format!(
                "of {} records to be delivered {missing} are missing",
                snapshot.ledger.stored
            ));
        }
        if again > 0 {
            problems.push(format!(
                "what said that {again} records are delivered is lost: they will be sent again"
            ));
        }
        // What was carried over to a newer generation before a crash is there once more.
        self.spots.retain(|spot| {
            let place = spot.group.as_ref().map(|group| group.place);
            place.is_none_or(|it| !is_hidden.contains(&(it.generation, it.first)))
        });
        let verdict = Verdict {
            path: root.to_owned(),
            is_sound: problems.is_empty(),
            problems,
            generations: self.generations,
            waiting,
            missing,
            again,
            epoch,
            marker: marker_state,
            epoch_file,
            set_aside,
            ledger,
        };
        Survey {
            verdict,
            unsound: self.unsound,
            highest,
            snapshot,
            next,
            last,
            sources: self.sources,
            spots: self.spots,
        }
    }
}

impl Survey {
    pub(super) fn is_settled(&self, record: &Record) -> bool {
        self.snapshot.settled.contains(record.key())
    }

    /// Adds what can be read in `damaged/` to the sources.
    pub(super) fn add_set_aside(
        &mut self,
        care: &Care,
        watch: &mut Watch<'_>,
    ) -> Result<(), CareError> {
        let damaged = care.root.join(files::DAMAGED);
        if !damaged.is_dir() {
            return Ok(());
        }
        let numbers = numbers(&damaged)?;
        for (done, number) in numbers.iter().rev().enumerate() {
            tell(watch, "checking damaged/", done, numbers.len())?;
            let (dir, number) = (generation_dir(&damaged, *number), *number);
            let opened = care.scratch.open(&dir, number)?;
            let source = self.sources.len();
            self.sources.push(Source::Generation { dir, number });
            let groups = opened.found.groups.into_iter();
            self.spots
                .extend(groups.map(|group| Spot::of(source, group)));
        }
        for path in copied_groups(&damaged)? {
            let first = read_copied(&path).first().map(|record| record.id);
            let source = self.sources.len();
            self.sources.push(Source::Group(path));
            let group = None;
            self.spots.extend(first.map(|first| Spot {
                source,
                first,
                group,
            }));
        }
        Ok(())
    }

    /// Whether `more` records would wait if these groups were in a newer generation and these were the books. If groups were cut
    /// differently, those of an older generation would be hidden.
    pub(super) fn has_room_for(
        &self,
        groups: &[FoundGroup],
        books: &Snapshot,
        more: usize,
    ) -> bool {
        let limits = Settings::new(&self.verdict.path).limits();
        let mut book = Book::open(limits, self.verdict.epoch, books.clone());
        let present = self.spots.iter().filter_map(|spot| spot.group.as_ref());
        for group in groups.iter().chain(present) {
            book.found(group);
        }
        book.reconcile(0, Duration::ZERO);
        book.ledger().stored == self.verdict.waiting + more as u64
    }

    /// Calls `each` with every record there is, once, in the order of ids, and with its source. Of a record that is there twice
    /// the one in the newer generation counts. In memory are the records of a few groups.
    pub(super) fn each_record(
        &self,
        care: &Care,
        watch: &mut Watch<'_>,
        each: &mut Each<'_>,
    ) -> Result<(), CareError> {
        let mut spots: Vec<&Spot> = self.spots.iter().collect();
        spots.sort_by_key(|spot| (spot.first, spot.source));
        let mut reader = Reader {
            scratch: &care.scratch,
            open: None,
        };
        let mut held: BTreeMap<RecordId, (usize, Arc<Record>)> = BTreeMap::new();
        for (done, spot) in spots.iter().enumerate() {
            tell(watch, "reading records", done, spots.len())?;
            self.hand_over(&mut held, Some(spot.first), each)?;
            for record in reader.read(&self.sources[spot.source], spot)? {
                let newer = held.get(&record.id).map(|(source, _)| *source);
                if newer.is_none_or(|newer| spot.source < newer) {
                    held.insert(record.id, (spot.source, record));
                }
            }
        }
        self.hand_over(&mut held, None, each)
    }

    fn hand_over(
        &self,
        held: &mut BTreeMap<RecordId, (usize, Arc<Record>)>,
        before: Option<RecordId>,
        each: &mut Each<'_>,
    ) -> Result<(), CareError> {
        while let Some(entry) = held.first_entry()
            && before.is_none_or(|before| *entry.key() < before)
        {
            let (source, record) = entry.remove();
            each(&record, &self.sources[source])?;
        }
        Ok(())
    }
}

/// What is done with each record and its source.
pub(super) type Each<'a> = dyn FnMut(&Record, &Source) -> Result<(), CareError> + 'a;

/// Reads groups, with the generation of the last one still open.
struct Reader<'a> {
    scratch: &'a Scratch,
    open: Option<(PathBuf, Opened)>,
}

impl Reader<'_> {
    fn read(&mut self, source: &Source, spot: &Spot) -> Result<Vec<Arc<Record>>, CareError> {
        let (dir, number, group) = match (source, &spot.group) {
            (Source::Generation { dir, number }, Some(group)) => (dir, *number, group),
            (Source::Group(path), _) => return Ok(read_copied(path)),
            (Source::Generation { .. }, None) => return Ok(Vec::new()),
        };
        if self.open.as_ref().is_none_or(|(open, _)| open != dir) {
            // It is closed before its directory is cleared.
            self.open = None;
            self.open = Some((dir.clone(), self.scratch.open(dir, number)?));
        }
        let records = self.open.as_mut().and_then(|(_, open)| open.read(group));
        // It was read a moment ago, from the same bytes.
        records.ok_or_else(|| CareError::Damaged { path: dir.clone() })
    }
}

pub(super) fn numbers(dir: &Path) -> Result<Vec<u32>, CareError> {
    Ok(generation_numbers(dir).map_err(|error| OpenError::store(dir, error))?)
}

fn copied_groups(damaged: &Path) -> Result<Vec<PathBuf>, CareError> {
    let entries = std::fs::read_dir(damaged).map_err(|error| unreadable(damaged, error))?;
    let paths = entries.flatten().map(|entry| entry.path());
    let mut groups: Vec<PathBuf> = paths
        .filter(|path| name_of(path).starts_with("group-"))
        .collect();
    groups.sort();
    Ok(groups)
}

/// The records of a group that was copied aside; none if it is as damaged as it was taken for.
fn read_copied(path: &Path) -> Vec<Arc<Record>> {
    read_small(path)
        .and_then(|value| copied_group(&name_of(path), &value))
        .unwrap_or_default()
}

/// What lies in `damaged/`, and the numbers of the generations there.
fn set_aside(damaged: &Path) -> Result<(SetAside, Vec<u32>), CareError> {
    if !damaged.is_dir() {
        return Ok((SetAside::default(), Vec::new()));
    }
    let numbers = numbers(damaged)?;
    let set_aside = SetAside {
        generations: numbers.len() as u64,
        groups: copied_groups(damaged)?.len() as u64,
        bytes: size_of(damaged),
    };
    Ok((set_aside, numbers))
}

fn state_of(path: &Path, is_usable: bool) -> FileState {
    match (is_usable, path.symlink_metadata().is_ok()) {
        (true, _) => FileState::Good,
        (false, true) => FileState::Damaged,
        (false, false) => FileState::Missing,
    }
}

fn problem_of(name: &str, state: FileState) -> Option<String> {
    Some(match state {
        FileState::Good => return None,
        FileState::Missing => format!("{name} is missing"),
        FileState::Damaged => format!("{name} is damaged, or cannot be read"),
        FileState::Behind => format!("{name} holds a lower epoch than there was"),
    })
}

fn name_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}
