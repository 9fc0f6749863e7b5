//! What the storage thread and the opening need of the small files beside the store: the trait [`Beside`].
//!
//! A real outbox has them in a directory; a simulated one on a disk of its own, so that the same lines meet its faults.

use std::io;
use std::path::{Path, PathBuf};

use super::book::DeadLetter;
use super::files::{self, Marker};

/// Epoch, marker, reserve and dead letters. What was written is durable when a call returns without an error.
pub(super) trait Beside: Send {
    /// Where they lie, for messages.
    fn place(&self) -> &Path;
    /// The last epoch, or 0 if there is none that can be read.
    fn read_epoch(&self) -> u64;
    fn write_epoch(&self, epoch: u64) -> io::Result<()>;
    /// `None` if there is none, or none that can be read.
    fn read_marker(&self) -> Option<Marker>;
    fn write_marker(&self, marker: &Marker) -> io::Result<()>;
    fn make_reserve(&self) -> io::Result<()>;
    /// Gives up the reserve; whether there was one.
    fn release_reserve(&self) -> bool;
    fn write_dead_letters(&self, letters: &mut dyn Iterator<Item = &DeadLetter>) -> io::Result<()>;
}

/// The directory of an outbox.
impl Beside for PathBuf {
    fn place(&self) -> &Path {
        self
    }

    fn read_epoch(&self) -> u64 {
        files::read_epoch(self)
    }

    fn write_epoch(&self, epoch: u64) -> io::Result<()> {
        files::write_epoch(self, epoch)
    }

    fn read_marker(&self) -> Option<Marker> {
        Marker::read(self)
    }

    fn write_marker(&self, marker: &Marker) -> io::Result<()> {
        marker.write(self)
    }

    fn make_reserve(&self) -> io::Result<()> {
        files::make_reserve(self)
    }

    fn release_reserve(&self) -> bool {
        files::release_reserve(self)
    }

    fn write_dead_letters(&self, letters: &mut dyn Iterator<Item = &DeadLetter>) -> io::Result<()> {
        files::write_dead_letters(self, letters)
    }
}
