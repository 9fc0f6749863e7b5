//! The durable store-and-forward buffer between the flows and the uplink.
//!
//! Flows append; the uplink peeks, sends, and acknowledges what its broker has acknowledged. A record leaves the outbox
//! when it is acknowledged, or by a stated policy that counts it in the [`Ledger`]; never in silence.
//!
//! Nothing that a caller does here waits for the disk: a thread of its own writes groups of records, reads what is
//! wanted, and copes with a disk that fails.
//!
//! # Layout
//! ```text
//! record       the words: Draft, Record, RecordId
//! ledger       the numbers that must add up
//! settled      which records are done with
//! book         all of the bookkeeping, pure
//! emptied      what was carried over from where
//! group        the bytes of a group and of a snapshot
//! store        what is needed of a disk
//! generations  the disk that there is; the only file that names sled
//! read_only    reads from a disk that takes no writes
//! files        lock, marker, epoch, reserve, dead letters
//! beside       what is needed of those files
//! opening      from what was found to the books
//! keeper       the storage thread; keeper/room makes room in a full outbox
//! thin         merges records that wait
//! restamp      the time of what was stamped before the clock was set
//! pressure     whether sources that can wait should
//! flash        what is written to the card, and how much that may be
//! care         an outbox at rest, in the hands of a person
//! ```
//! The format on disk, and why: `docs/decisions/0002-outbox-format.md`.
//!
//! Must not: know flows, nodes or MQTT.

mod beside;
mod book;
pub mod care;
mod emptied;
mod files;
mod flash;
#[cfg(test)]
mod full_test;
mod generations;
mod group;
mod keeper;
mod ledger;
mod opening;
mod pressure;
mod read_only;
mod record;
mod restamp;
mod settled;
#[cfg(test)]
pub(crate) mod simulated;
#[cfg(test)]
pub(crate) mod simulated_disk;
mod store;
#[cfg(test)]
mod tests;
mod thin;
pub mod virtual_time;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

pub use book::WhenFull;
pub use ledger::Ledger;
pub use pressure::Pressure;
pub use record::{Draft, Envelope, Key, Lane, Merged, Priority, Record, RecordId};

use book::Limits;
use files::{LockError, Marker};
use flash::Flash;
use generations::Generations;
use keeper::{Keeper, Shared, Stop};
use opening::{latest, open_books};
use store::{Store, StoreError};

use crate::runtime::clock::Clock;

/// Smaller than this an outbox would be nothing but the fixed costs of its generations.
pub const MIN_SIZE: u64 = 8 * 1024 * 1024;

/// How an outbox is to behave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The directory. It is made if it is not there. A file `PATH.epoch` beside it belongs to it.
    pub path: PathBuf,
    /// The interval of group commits: a power cut takes at most the records of one. With zero, records are shown to the
    /// uplink only once they are durable.
    pub commit: Duration,
    /// What all records may take on disk, in bytes; at least [`MIN_SIZE`].
    pub max_size: u64,
    /// What goes when there is no room.
    pub when_full: WhenFull,
    /// What records that are not durable yet may take in memory, in bytes.
    pub max_pending: usize,
    /// What may be written to disk in a day, in bytes: commits wait for it, by at most a minute.
    pub flash_budget: Option<u64>,
}

impl Settings {
    /// The defaults, with this directory.
    pub fn new(path: impl Into<PathBuf>) -> Settings {
        Settings {
            path: path.into(),
            commit: Duration::from_secs(1),
            max_size: 256 * 1024 * 1024,
            when_full: WhenFull::default(),
            max_pending: 8 * 1024 * 1024,
            flash_budget: None,
        }
    }

    /// When a generation is large enough: an eighth of the whole, as it is also what goes at once.
    fn generation_size(&self) -> u64 {
        const LARGEST: u64 = 16 * 1024 * 1024;
        (self.max_size.max(MIN_SIZE) / 8).min(LARGEST)
    }

    fn limits(&self) -> Limits {
        Limits {
            commit: self.commit,
            // Commits are small against a generation, so that it does not outgrow its size by much.
            commit_bytes: usize::try_from(self.generation_size() / 16).unwrap_or(usize::MAX),
            max_pending: self.max_pending,
            when_full: self.when_full,
        }
    }
}

/// What was found when the outbox was opened, for the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Opening {
    pub epoch: u64,
    /// Records that are still to be delivered.
    pub stored: u64,
    /// Damaged groups and generations that were set aside just now.
    pub damaged: u64,
    /// Records that should have been there and were not; counted as dropped.
    pub missing: u64,
    /// Nothing was found although records were stored: the files are gone, or sled lost them without an error.
    pub is_unexpectedly_empty: bool,
}

/// Why an outbox could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(
        "the outbox {} is in use{}; stop what uses it, or set another path under [outbox]",
        path.display(),
        pid.map(|pid| format!(" by process {pid}")).unwrap_or_default()
    )]
    InUse { path: PathBuf, pid: Option<u32> },
    #[error(
        "there is no outbox in {}; it is made when Tidegate runs with this path under [outbox]",
        path.display()
    )]
    NotThere { path: PathBuf },
    #[error(
        "{} was written by a newer Tidegate, in version {version} of the format; it is left as it is. Install that \
         Tidegate again, or set another path under [outbox]",
        path.display()
    )]
    Newer { path: PathBuf, version: u8 },
    #[error(
        "cannot {doing} {}; see that the disk is neither full nor read-only and that this user may write there",
        path.display()
    )]
    Io {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

impl OpenError {
    fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
        let path = path.to_owned();
        move |source| OpenError::Io {
            doing,
            path,
            source,
        }
    }

    fn store(root: &Path, error: StoreError) -> OpenError {
        match error {
            StoreError::Io {
                doing,
                path,
                source,
            } => OpenError::Io {
                doing,
                path,
                source,
            },
            StoreError::Newer { path, version } => OpenError::Newer { path, version },
            other => OpenError::Io {
                doing: "use",
                path: root.to_owned(),
                source: io::Error::other(store::words(&other)),
            },
        }
    }
}

/// A handle on the outbox; clones share it. When the last one goes without [`Outbox::close`], what is pending is lost, as
/// in a crash.
#[derive(Clone)]
pub struct Outbox {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    clock: Clock,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// The sole right to an outbox, before it is opened. Taking it is quick; opening may take seconds.
#[derive(Debug)]
pub struct Claim {
    settings: Settings,
    lock: File,
}

impl Claim {
    /// Makes the directory, if need be, and takes its lock; an error if another process has it for longer than a second.
    pub fn take(settings: Settings) -> Result<Claim, OpenError> {
        make_dir(&settings.path)?;
        let lock = lock(&settings.path)?;
        Ok(Claim { settings, lock })
    }

    /// Opens the outbox, raises its epoch and starts its storage thread. Reads and checks all that is stored. Damage is no
    /// reason to fail: it is set aside and counted.
    pub fn open(self, clock: Clock, pressure: Pressure) -> Result<(Outbox, Opening), OpenError> {
        let Claim { settings, lock } = self;
        let root = settings.path.clone();
        let max_size = settings.max_size.max(MIN_SIZE);
        let reserve = files::make_reserve(&root);
        if let Err(error) = &reserve {
            tracing::warn!(
                "outbox: no room for a reserve in {}: {error}",
                root.display()
            );
        }
        let mut has_reserve = reserve.is_ok();
        let open = || Generations::open(&root, settings.generation_size());
        let (store, found) = match open() {
            // sled writes when it opens. The reserve is there for a disk that has become full.
            Err(error) if error.is_disk_full() && files::release_reserve(&root) => {
                has_reserve = false;
                open()
            }
            other => other,
        }
        .map_err(|error| OpenError::store(&root, error))?;

        let limits = settings.limits();
        let now = clock.now().mono;
        let (book, opening) = open_books(limits, found, store.disk_bytes(), &root, now)?;

        let shared = Arc::new(Shared::new(book, pressure));
        let mut keeper = Keeper::new(
            shared.clone(),
            store,
            Some(Box::new(root.clone())),
            max_size,
            settings.when_full,
            has_reserve,
        );
        keeper.set_flash(Flash::measured(settings.flash_budget));
        let thread = std::thread::Builder::new()
            .name("outbox".to_owned())
            .spawn({
                let clock = clock.clone();
                move || {
                    keeper.run(&clock);
                    drop::<File>(lock);
                }
            })
            .map_err(OpenError::io("start a thread for", &root))?;
        let inner = Inner {
            shared,
            clock,
            thread: Mutex::new(Some(thread)),
        };
        Ok((
            Outbox {
                inner: Arc::new(inner),
            },
            opening,
        ))
    }
}

impl Outbox {
    /// Claims and opens the outbox: see [`Claim`].
    pub fn open(settings: Settings, clock: Clock) -> Result<(Outbox, Opening), OpenError> {
        Claim::take(settings)?.open(clock, Pressure::default())
    }

    /// Takes records in, and numbers them. Never waits for the disk. What finds no room in memory goes by `when_full`.
    pub fn append(&self, drafts: impl IntoIterator<Item = Draft>) {
        let now = self.inner.clock.now().mono;
        self.inner.shared.update(|book| {
            for draft in drafts {
                book.append(draft, now);
            }
        });
        self.inner.shared.changed.notify_one();
    }

    /// Up to `limit` records of a lane after `after`, in the order of their ids, that are neither acknowledged nor given up. What
    /// has expired is given up here.
    /// Never waits: it shows what is in memory, and has the rest read. [`Outbox::changed`] tells when to look again.
    pub fn peek(&self, lane: Lane, after: Option<RecordId>, limit: usize) -> Vec<Arc<Record>> {
        let now = self.inner.clock.now();
        let shared = &self.inner.shared;
        shared.update(|book| book.peek(lane, after, limit, now))
    }

    /// The record is delivered. Acknowledging it twice, or one that never was, does nothing.
    pub fn acknowledge(&self, key: Key) {
        let now = self.inner.clock.now().mono;
        self.inner.shared.update(|book| book.acknowledge(key, now));
    }

    /// The record cannot be delivered, ever. It is kept in `dead-letters.jsonl`, with the reason.
    pub fn dead_letter(&self, key: Key, reason: &str) {
        let now = self.inner.clock.now();
        self.inner
            .shared
            .update(|book| book.dead_letter(key, reason, now.mono, now.wall));
    }

    /// Returns when there may be more to peek at; at once if there may have been since it last returned. For one reader:
    /// of several that wait, one is woken.
    pub async fn changed(&self) {
        self.inner.shared.changed.notified().await;
    }

    /// The clock went ahead because it had not been set: what this start has stamped so far was made so much later.
    pub fn restamp(&self, ahead: Duration) {
        let now = self.inner.clock.now().mono;
        self.inner.shared.update(|book| book.restamp(ahead, now));
    }

    pub fn ledger(&self) -> Ledger {
        self.inner.shared.with(|book| book.ledger())
    }

    pub fn epoch(&self) -> u64 {
        self.inner.shared.with(|book| book.last()).epoch
    }

    /// The last id given to a record; of this epoch, with seq 0 if none was.
    pub fn last(&self) -> RecordId {
        self.inner.shared.with(|book| book.last())
    }

    /// Commits what is pending, and ends the storage thread. Waits for the disk. Other handles may still be used, but
    /// what they append is not written any more. Returns the ledger as it was left.
    pub fn close(self) -> Ledger {
        self.inner.end(Stop::Close);
        self.ledger()
    }
}

impl Inner {
    fn end(&self, stop: Stop) {
        self.shared.stop(stop);
        // Held until the thread has ended, so that of two that close at once neither returns before that.
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("outbox: the storage thread had panicked; what was pending is lost");
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.end(Stop::Abandon);
    }
}

/// The ledger of an outbox that no process uses, as its last commit left it. No record changes, but the store is opened,
/// which locks it and lets sled write its own summaries. Where there is no outbox nothing is made.
pub fn inspect(path: &Path) -> Result<Ledger, OpenError> {
    let _lock = match files::lock(path, false) {
        Err(LockError::Io(source)) if source.kind() == io::ErrorKind::NotFound => {
            return Err(OpenError::NotThere {
                path: path.to_owned(),
            });
        }
        lock => lock.map_err(|error| lock_error(path, error))?,
    };
    let marker = Marker::read(path);
    let snapshot = Generations::snapshot(path).map_err(|error| OpenError::store(path, error))?;
    Ok(latest(snapshot, &marker).ledger)
}

fn make_dir(root: &Path) -> Result<(), OpenError> {
    if root.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(root)
        .and_then(|()| files::sync_dir(root))
        .and_then(|()| files::sync_dir(files::parent(root)))
        .map_err(OpenError::io("make", root))
}

/// Takes the lock, and waits a little for it: [`inspect`] holds it for a moment.
fn lock(root: &Path) -> Result<File, OpenError> {
    const PATIENCE: Duration = Duration::from_secs(1);
    const PAUSE: Duration = Duration::from_millis(20);
    let mut waited = Duration::ZERO;
    loop {
        match files::lock(root, true) {
            Err(LockError::Held(_)) if waited < PATIENCE => {
                std::thread::sleep(PAUSE);
                waited += PAUSE;
            }
            lock => return lock.map_err(|error| lock_error(root, error)),
        }
    }
}

fn lock_error(root: &Path, error: LockError) -> OpenError {
    match error {
        LockError::Held(pid) => OpenError::InUse {
            path: root.to_owned(),
            pid,
        },
        LockError::Io(source) => OpenError::Io {
            doing: "lock",
            path: root.to_owned(),
            source,
        },
    }
}
