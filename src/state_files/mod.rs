//! The state directory: what flows remembered, and their last good copies, on disk.
//!
//! ```text
//! FLOW.state           the last checkpoint of a flow
//! FLOW.state.damaged   one that could not be read, set aside
//! FLOW.toml            the flow file as it ran last
//! lock                 held by the process that uses the directory
//! ```
//! A file is written beside its place, synced and renamed, and then the directory is synced: after a power cut there is the old one or
//! the new one. All of it may be deleted at any time while no tidegate runs; flows then begin anew.
//!
//! Must not: be called by an engine thread, for it waits for the disk; keep a device from running, whatever is wrong with it.

mod checkpoint;
pub mod keeper;
#[cfg(test)]
mod tests;

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::runtime::Now;
use crate::runtime::driver::chain;
use crate::runtime::state::Checkpoint;

/// Larger files are neither read nor written.
const LARGEST: u64 = 64 * 1024 * 1024;
const LOCK: &str = "lock";

/// The state directory of this process. What is wrong with it shows when it is used.
#[derive(Debug)]
pub struct StateDirectory {
    path: PathBuf,
    lock: Option<File>,
    /// Makes a file that is not there yet.
    create: fn(&Path) -> io::Result<File>,
}

/// Why something is not kept.
#[derive(Debug, thiserror::Error)]
pub enum StateFileError {
    #[error(
        "the state directory {} is in use by another tidegate; give this one its own: `path` of [state] in tidegate.toml",
        path.display()
    )]
    InUse { path: PathBuf },
    #[error(
        "cannot use the state directory {}; check that its disk is there, that this user may write to it, and `path` of [state] in \
         tidegate.toml",
        path.display()
    )]
    Directory { path: PathBuf, source: io::Error },
    #[error("cannot write {}; is the disk full, or mounted read-only?", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} would take {bytes} bytes, and at most {LARGEST} are kept; make windows smaller, or `max_keys`", path.display())]
    TooLarge { path: PathBuf, bytes: u64 },
    #[error(
        "{} was written by a newer version of tidegate ({version}), which remembers in another way: it is left alone, and nothing \
         is kept for its flow; delete it, or go back to that version",
        path.display()
    )]
    Newer { path: PathBuf, version: u32 },
}

impl StateDirectory {
    /// The directory at `path`. It is made when it is needed.
    pub fn at(path: impl Into<PathBuf>) -> StateDirectory {
        StateDirectory {
            path: path.into(),
            lock: None,
            create,
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the directory for this process; makes it if it is not there.
    pub fn claim(&mut self) -> Result<(), StateFileError> {
        if self.lock.is_some() && self.path.is_dir() {
            return Ok(());
        }
        let error = |source| StateFileError::Directory {
            path: self.path.clone(),
            source,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.path)
            .map_err(error)?;
        let lock = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(self.path.join(LOCK))
            .map_err(error)?;
        match lock.try_lock() {
            Ok(()) => self.lock = Some(lock),
            Err(TryLockError::WouldBlock) => {
                return Err(StateFileError::InUse {
                    path: self.path.clone(),
                });
            }
            Err(TryLockError::Error(source)) => return Err(error(source)),
        }
        Ok(())
    }

    /// What a flow remembered; none if there is nothing, or nothing that can be read: then the log says why, and what is damaged is set
    /// aside.
    pub fn read(&self, flow: &str) -> Option<Checkpoint> {
        let path = self.state_path(flow);
        let bytes = match read_bounded(&path) {
            Ok(bytes) => bytes?,
            Err(error) => {
                tracing::error!(
                    "{}; flow `{flow}` begins anew",
                    chain(&StateFileError::Read {
                        path,
                        source: error
                    })
                );
                return None;
            }
        };
        match checkpoint::decode(&bytes) {
            Ok(mut checkpoint) => {
                // One that was copied from another flow's is this one's from now on.
                flow.clone_into(&mut checkpoint.flow);
                Some(checkpoint)
            }
            Err(checkpoint::Unusable::Newer(version)) => {
                tracing::error!(
                    "{}; flow `{flow}` begins anew",
                    StateFileError::Newer { path, version }
                );
                None
            }
            Err(checkpoint::Unusable::Damaged(reason)) => {
                let aside = suffixed(&path, ".damaged");
                let done = match fs::rename(&path, &aside) {
                    Ok(()) => format!("it is set aside as {}", aside.display()),
                    Err(error) => format!("it cannot be set aside: {error}"),
                };
                tracing::error!(
                    "{} is damaged ({reason}); {done}; flow `{flow}` begins anew; check the SD card",
                    path.display()
                );
                None
            }
        }
    }

    /// When the checkpoints were taken that are here, also those of flows that do not run. What cannot be read has no moment.
    pub fn moments(&self) -> Vec<Now> {
        let flows = self.names(".state").into_iter();
        let checkpoints = flows.filter_map(|flow| {
            let bytes = read_bounded(&self.state_path(&flow)).ok()??;
            checkpoint::decode(&bytes).ok()
        });
        checkpoints.map(|checkpoint| checkpoint.now()).collect()
    }

    /// Whether there is something that a flow remembered.
    fn has(&self, flow: &str) -> bool {
        self.state_path(flow).exists()
    }

    /// Writes what a flow remembers; gives the length of the file.
    pub fn write(&mut self, checkpoint: &Checkpoint) -> Result<u64, StateFileError> {
        let path = self.state_path(&checkpoint.flow);
        let bytes = checkpoint::encode(checkpoint);
        self.claim()?;
        if let Some(version) = newer_version_at(&path) {
            return Err(StateFileError::Newer { path, version });
        }
        self.replace(path, &bytes)
    }

    /// The flow file as it ran last, with its path.
    pub fn copy_of(&self, flow: &str) -> Result<Option<(PathBuf, String)>, StateFileError> {
        let path = self.copy_path(flow);
        let error = |source| StateFileError::Read {
            path: path.clone(),
            source,
        };
        let Some(bytes) = read_bounded(&path).map_err(error)? else {
            return Ok(None);
        };
        let text =
            String::from_utf8(bytes).map_err(|_| error(io::ErrorKind::InvalidData.into()))?;
        Ok(Some((path, text)))
    }

    /// Keeps a flow file as it runs; gives how many bytes were written, none if it is there already.
    pub fn keep_copy(&mut self, flow: &str, text: &str) -> Result<u64, StateFileError> {
        if matches!(self.copy_of(flow), Ok(Some((_, kept))) if kept == text) {
            return Ok(0);
        }
        self.claim()?;
        self.replace(self.copy_path(flow), text.as_bytes())
    }

    /// The flows of which there are copies.
    pub fn copies(&self) -> Vec<String> {
        self.names(".toml")
    }

    /// The flows of which there is a file that ends so.
    fn names(&self, ending: &str) -> Vec<String> {
        let Ok(files) = fs::read_dir(&self.path) else {
            return Vec::new();
        };
        let names = files.filter_map(|file| file.ok()?.file_name().into_string().ok());
        let mut flows: Vec<String> = names
            .filter_map(|name| name.strip_suffix(ending).map(str::to_owned))
            .collect();
        flows.sort();
        flows
    }

    /// Forgets the copy of a flow that has no file any more. If it cannot be deleted, so be it.
    pub fn forget_copy(&mut self, flow: &str) {
        if self.claim().is_ok() {
            let _ = fs::remove_file(self.copy_path(flow));
        }
    }

    fn state_path(&self, flow: &str) -> PathBuf {
        self.path.join(format!("{flow}.state"))
    }

    fn copy_path(&self, flow: &str) -> PathBuf {
        self.path.join(format!("{flow}.toml"))
    }

    fn replace(&self, path: PathBuf, bytes: &[u8]) -> Result<u64, StateFileError> {
        let length = bytes.len() as u64;
        if length > LARGEST {
            return Err(StateFileError::TooLarge {
                path,
                bytes: length,
            });
        }
        let new = suffixed(&path, ".new");
        let replaced = self.write_new(&new, bytes).and_then(|()| {
            fs::rename(&new, &path)?;
            File::open(&self.path)?.sync_all()
        });
        if let Err(source) = replaced {
            // On a full disk its place is needed.
            let _ = fs::remove_file(&new);
            return Err(StateFileError::Write { path, source });
        }
        Ok(length)
    }

    fn write_new(&self, new: &Path, bytes: &[u8]) -> io::Result<()> {
        // Left behind by a process that was killed meanwhile.
        match fs::remove_file(new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = (self.create)(new)?;
        file.write_all(bytes)?;
        file.sync_all()
    }
}

fn create(path: &Path) -> io::Result<File> {
    File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

/// The contents of a file; none if it is not there.
fn read_bounded(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(Some(bytes))
}

/// The version of a state file, if this one does not know it and must not overwrite it.
fn newer_version_at(path: &Path) -> Option<u32> {
    let mut head = Vec::new();
    File::open(path)
        .and_then(|file| {
            file.take(checkpoint::HEADER_BYTES as u64)
                .read_to_end(&mut head)
        })
        .ok()?;
    if checkpoint::is_of_this_version(&head) {
        return None;
    }
    let bytes = read_bounded(path).ok()??;
    match checkpoint::decode(&bytes) {
        Err(checkpoint::Unusable::Newer(version)) => Some(version),
        _ => None,
    }
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
