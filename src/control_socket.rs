//! The socket in the outbox's directory through which other `tidegate` commands ask a running one.
//!
//! A client sends one line, the question, and gets one line of JSON. There is one question so far: `totals`.
//! The socket's mode is 0600: only the user that runs Tidegate, and root, may ask.

use std::fs::{File, Permissions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

use crate::device::Meter;

const NAME: &str = "tidegate.sock";
/// A client that says nothing is let go after this.
const PATIENCE: Duration = Duration::from_secs(2);
/// Longer questions there are not.
const LONGEST_QUESTION: u64 = 256;

/// A listening socket; it goes when this is dropped.
pub struct ControlSocket {
    path: PathBuf,
    task: JoinHandle<()>,
}

impl ControlSocket {
    /// Listens in `directory`. What another process left there is replaced: the caller holds the outbox's lock.
    pub fn listen(directory: &Path, meter: Meter) -> io::Result<ControlSocket> {
        let path = directory.join(NAME);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let folder = File::open(directory)?;
        let listener = UnixListener::bind(short_path(&folder))?;
        std::fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let meter = meter.clone();
                tokio::spawn(async move {
                    // A client that goes away is none of our business.
                    let _ = tokio::time::timeout(PATIENCE, answer(stream, &meter)).await;
                });
            }
        });
        Ok(ControlSocket { path, task })
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        self.task.abort();
        // If it is gone already, all the better.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Asks the process that runs with this outbox directory; none if there is no such process.
pub fn ask(directory: &Path, question: &str) -> io::Result<Option<String>> {
    let folder = match File::open(directory) {
        Ok(folder) => folder,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut stream = match BlockingStream::connect(short_path(&folder)) {
        Ok(stream) => stream,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    stream.set_read_timeout(Some(PATIENCE))?;
    writeln!(stream, "{question}")?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(Some(line))
}

/// A socket's path must be shorter than 108 bytes; through the open directory it always is.
fn short_path(folder: &File) -> PathBuf {
    format!("/proc/self/fd/{}/{NAME}", folder.as_raw_fd()).into()
}

async fn answer(mut stream: UnixStream, meter: &Meter) -> io::Result<()> {
    let (reader, mut writer) = stream.split();
    let mut question = String::new();
    tokio::io::BufReader::new(reader.take(LONGEST_QUESTION))
        .read_line(&mut question)
        .await?;
    let answer = match question.trim() {
        "totals" => serde_json::to_string(&meter.read()).expect("totals always have a JSON form"),
        other => serde_json::json!({ "error": format!("unknown question `{other}`") }).to_string(),
    };
    writer.write_all(answer.as_bytes()).await?;
    writer.write_all(b"\n").await
}
