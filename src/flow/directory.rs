//! Finds flow files: `NAME.toml` in a directory, without the tests (`NAME.test.toml`) that stand beside them.

use std::path::{Path, PathBuf};

/// The flow files in a directory, by name; or the file itself, if the path is one.
pub fn find(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let file = entry?.path();
        if file.is_file() && is_flow_file(&file) {
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
    name.ends_with(".toml") && !name.ends_with(".test.toml") && !name.starts_with('.')
}
