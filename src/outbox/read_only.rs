//! Reads a generation whose disk takes no writes: sled writes when it opens a store, also when it is only to be read. So a copy is
//! opened, in a file system that lies in memory where there is one.
//!
//! Must not: leave out what cannot be read. What is damaged stays as it is, for `care`.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::store::StoreError;

/// What Linux answers where nothing may be written (errno(3)).
const EROFS: i32 = 30;

/// Whether a copy may be opened where the generation itself could not.
pub(super) fn may_be_readable(error: &StoreError) -> bool {
    // A medium that fails may fail only what sled writes.
    error.is_bad_medium()
        || error.is_disk_full()
        || matches!(error, StoreError::Io { source, .. } if source.raw_os_error() == Some(EROFS))
}

/// Copies these files, and the files in these directories, to a directory that goes when it is dropped.
pub(super) fn copy(dir: &Path, names: &[&str]) -> io::Result<TempDir> {
    let runtime_dir = std::env::var_os("RUNTIME_DIRECTORY");
    copy_to(&places(runtime_dir), dir, names)
}

/// Where it may lie, best first: what systemd gives a service with `RuntimeDirectory=`, else what Linux has for shared memory.
fn places(runtime_dir: Option<OsString>) -> Vec<PathBuf> {
    // There may be several, with colons between them; systemd.exec(5).
    let own = runtime_dir.and_then(|dirs| std::env::split_paths(&dirs).next());
    own.into_iter()
        .chain([PathBuf::from("/dev/shm"), std::env::temp_dir()])
        .collect()
}

fn copy_to(places: &[PathBuf], dir: &Path, names: &[&str]) -> io::Result<TempDir> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "there is no place for a copy");
    for place in places {
        let copied = tempfile::Builder::new()
            .prefix("tidegate-copy-")
            .tempdir_in(place)
            .and_then(|copy| {
                for name in names {
                    copy_tree(&dir.join(name), &copy.path().join(name))?;
                }
                Ok(copy)
            });
        match copied {
            Ok(copy) => return Ok(copy),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    if !from.is_dir() {
        return fs::copy(from, to).map(drop);
    }
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let name = entry?.file_name();
        copy_tree(&from.join(&name), &to.join(&name))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(runtime_dir: Option<&str>, first: &str) {
        let places = places(runtime_dir.map(OsString::from));
        assert_eq!(places[0], Path::new(first), "{runtime_dir:?}");
        assert_eq!(places.last(), Some(&std::env::temp_dir()));
    }

    #[test]
    fn copies_lie_in_memory_where_there_is_a_place_for_them() {
        check(None, "/dev/shm");
        check(Some("/run/tidegate"), "/run/tidegate");
        check(Some("/run/tidegate:/run/more"), "/run/tidegate");
    }

    #[test]
    fn the_next_place_is_tried_and_nothing_stays_in_either() {
        let from = TempDir::new().expect("a directory");
        fs::write(from.path().join("db"), "data").expect("writable");
        fs::create_dir(from.path().join("blobs")).expect("writable");
        fs::write(from.path().join("blobs/7"), "more").expect("writable");
        fs::write(from.path().join("snap.1"), "left out").expect("writable");
        let to = TempDir::new().expect("a directory");
        let places = [to.path().join("missing"), to.path().to_owned()];
        let copy = copy_to(&places, from.path(), &["db", "blobs"]).expect("the second is there");
        let text = |name| fs::read_to_string(copy.path().join(name)).ok();
        assert_eq!(text("db").as_deref(), Some("data"));
        assert_eq!(text("blobs/7").as_deref(), Some("more"));
        assert_eq!(text("snap.1"), None);
        drop(copy);
        let part = copy_to(&places, from.path(), &["db", "not there"]);
        assert_eq!(part.expect_err("a part").kind(), io::ErrorKind::NotFound);
        assert_eq!(fs::read_dir(to.path()).expect("listed").count(), 0);
    }
}
