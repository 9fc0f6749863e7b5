//! What a person does with an outbox that no process uses: look whether it is sound, take its records out, put it right, and
//! give records up. For `tidegate outbox`.
//!
//! sled writes when it opens a store, and repairs it in its own way. So no generation is ever opened where it lies: a copy of
//! it is opened in a *scratch* directory, one generation at a time, by the code that opens it when Tidegate starts. What that
//! finds, a start would find. What is changed is made in the scratch directory, too, and moved to its place by renaming,
//! so that whatever interrupts it leaves the outbox as it was, or as it is to be.
//!
//! Terms: a *survey* is all that is known about an outbox once every generation was opened in this way. A record that is to be
//! delivered yet is *waiting*.
//!
//! Must not: change anything without the outbox's lock; know the command line.

mod drop;
mod export;
mod repair;
mod scratch;
mod survey;
#[cfg(test)]
mod tests;

use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

pub use drop::{Dropped, Selection};
pub use export::Exported;
pub use repair::Repaired;
pub use survey::{FileState, GenerationState, SetAside, Verdict};

use super::OpenError;
use super::files::{self, LockError};
use scratch::Scratch;

/// How far a long work has come.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    pub doing: &'static str,
    pub done: u64,
    pub of: u64,
}

/// Is told each step, and may end the work there.
pub type Watch<'a> = dyn FnMut(Step) -> ControlFlow<()> + 'a;

/// Why nothing, or no more, was done.
#[derive(Debug, thiserror::Error)]
pub enum CareError {
    #[error(transparent)]
    Outbox(#[from] OpenError),
    #[error(
        "the outbox {} is in use by {by}; stop it first (as a service: `systemctl stop tidegate`). Beside a running one there \
         is `tidegate outbox show`",
        path.display()
    )]
    InUse { path: PathBuf, by: String },
    #[error(
        "there is no outbox in {}: neither a generation (gen-...) nor a marker.json; see `path` under [outbox], or name \
         the settings file with --config",
        path.display()
    )]
    NotThere { path: PathBuf },
    #[error(
        "cannot {doing} {}; generations are copied to {} before they are opened. Name a directory with {bytes} bytes of room \
         with --scratch",
        path.display(), scratch.display()
    )]
    NoScratch {
        doing: &'static str,
        path: PathBuf,
        scratch: PathBuf,
        bytes: u64,
        source: io::Error,
    },
    #[error(
        "cannot {doing} {}; {bytes} bytes of room are needed on this disk, and it must not be read-only. What was there is as it was",
        path.display()
    )]
    NoRoom {
        doing: &'static str,
        path: PathBuf,
        bytes: u64,
        source: io::Error,
    },
    #[error(
        "cannot read {}; see that this user may read it (the user that runs Tidegate, or root)",
        path.display()
    )]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("the outbox {} is damaged; `tidegate outbox verify` says how, and `tidegate outbox repair` comes first", path.display())]
    Damaged { path: PathBuf },
    #[error(
        "these records lie among others that stay, in too many pieces to remember; choose a whole span of time with --before, \
         or a wider --topic"
    )]
    TooManyPieces,
    #[error("cannot write the records out, after {records}; what is in the outbox is as it was")]
    Write { records: u64, source: io::Error },
    #[error("stopped; the outbox is as it was, or as it is to be, and the same command goes on")]
    Interrupted,
}

/// The sole right to an outbox at rest.
#[derive(Debug)]
pub struct Care {
    root: PathBuf,
    scratch: Scratch,
    /// `None` if nobody ever used this directory: it is a copy.
    _lock: Option<File>,
}

impl Care {
    /// To look only: not a byte in the outbox is changed, but for the scratch directory, which goes again. It lies in the outbox
    /// unless another place is given for it.
    pub fn to_read(root: &Path, scratch: Option<&Path>) -> Result<Care, CareError> {
        is_there(root)?;
        let lock = match File::open(root.join("lock")) {
            Ok(mut file) => {
                match file.try_lock() {
                    Ok(()) => {}
                    Err(TryLockError::WouldBlock) => {
                        let mut pid = String::new();
                        let _ = file.read_to_string(&mut pid);
                        return Err(in_use(root, pid.trim().parse().ok()));
                    }
                    Err(TryLockError::Error(source)) => {
                        return Err(OpenError::io("lock", root)(source).into());
                    }
                }
                Some(file)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(unreadable(&root.join("lock"), source)),
        };
        Ok(Care {
            scratch: Scratch::new(root, scratch),
            root: root.to_owned(),
            _lock: lock,
        })
    }

    /// To change it.
    pub fn to_write(root: &Path) -> Result<Care, CareError> {
        is_there(root)?;
        let lock = files::lock(root, true).map_err(|error| match error {
            LockError::Held(pid) => in_use(root, pid),
            LockError::Io(source) => OpenError::io("lock", root)(source).into(),
        })?;
        Ok(Care {
            scratch: Scratch::new(root, None),
            root: root.to_owned(),
            _lock: Some(lock),
        })
    }
}

/// An outbox without a single file of its own is a wrong path rather than one that lost everything.
fn is_there(root: &Path) -> Result<(), CareError> {
    let not_there = || CareError::NotThere {
        path: root.to_owned(),
    };
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Err(not_there());
        }
        Err(source) => return Err(unreadable(root, source)),
    };
    let mut names = entries.flatten().map(|entry| entry.file_name());
    let is_ours = |name: std::ffi::OsString| {
        name == "marker.json" || name == "lock" || name.to_string_lossy().starts_with("gen-")
    };
    if names.any(is_ours) {
        Ok(())
    } else {
        Err(not_there())
    }
}

fn in_use(root: &Path, pid: Option<u32>) -> CareError {
    let by = match pid {
        None => "another process".to_owned(),
        Some(pid) => match fs::read_to_string(format!("/proc/{pid}/comm")) {
            Ok(name) => format!("process {pid} ({})", name.trim()),
            Err(_) => format!("process {pid}"),
        },
    };
    CareError::InUse {
        path: root.to_owned(),
        by,
    }
}

fn unreadable(path: &Path, source: io::Error) -> CareError {
    CareError::Unreadable {
        path: path.to_owned(),
        source,
    }
}

fn tell(
    watch: &mut Watch<'_>,
    doing: &'static str,
    done: usize,
    of: usize,
) -> Result<(), CareError> {
    let step = Step {
        doing,
        done: done as u64,
        of: of as u64,
    };
    match watch(step) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(CareError::Interrupted),
    }
}
