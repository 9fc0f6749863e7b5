//! Finds and reads flow files: `NAME.toml` in a directory, without the tests (`NAME.test.toml`) that stand beside them.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Larger files are no flows.
const LARGEST: u64 = 4 * 1024 * 1024;

/// A flow file.
#[derive(Debug)]
pub struct FlowText {
    pub path: PathBuf,
    /// The flow's name.
    pub name: String,
    pub text: io::Result<String>,
}

/// Reads a flow file.
pub fn read(path: PathBuf) -> FlowText {
    FlowText {
        name: flow_name(&path),
        text: read_text(&path),
        path,
    }
}

fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?
        .take(LARGEST + 1)
        .read_to_string(&mut text)?;
    if text.len() as u64 > LARGEST {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(text)
}

/// The flow files in a directory, by name; or the file itself, if the path is one. What has a flow's name and cannot be looked at, such
/// as a link that leads nowhere, is one too: reading it tells why.
pub fn find(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let file = entry?.path();
        if is_flow_file(&file) && file.metadata().map_or(true, |data| data.is_file()) {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

/// The name of the flow in a file: the file's name without `.toml`.
pub fn flow_name(path: &Path) -> String {
    path.file_stem()
        .map(|stem| stem.to_string_lossy().into_owned())
        .unwrap_or_default()
}

fn is_flow_file(path: &Path) -> bool {
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    // An editor's own links (`.#a.toml`) lead nowhere.
    name.ends_with(".toml") && !name.ends_with(".test.toml") && !name.starts_with('.')
}
