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
            loop {
                let stream = match listener.accept().await {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        tracing::warn!("the control socket could not take a client in: {error}");
                        tokio::time::sleep(PATIENCE).await;
                        continue;
                    }
                };
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

/// Why a running process could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("no permission to look into {}; ask as the user that runs tidegate, or with sudo", path.display())]
    Permission { path: PathBuf },
    #[error("the tidegate that runs with {} does not answer; is it stopping, or stuck?", path.display())]
    NoAnswer { path: PathBuf, source: io::Error },
}

/// Asks the process that runs with this outbox directory; none if there is no such process.
pub fn ask(directory: &Path, question: &str) -> Result<Option<String>, AskError> {
    let path = directory.to_path_buf();
    match ask_at(directory, question) {
        Ok(line) if line.ends_with('\n') => Ok(Some(line)),
        Ok(_) => Err(AskError::NoAnswer {
            path,
            source: io::ErrorKind::UnexpectedEof.into(),
        }),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            Ok(None)
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(AskError::Permission { path })
        }
        Err(source) => Err(AskError::NoAnswer { path, source }),
    }
}

fn ask_at(directory: &Path, question: &str) -> io::Result<String> {
    let folder = File::open(directory)?;
    let mut stream = BlockingStream::connect(short_path(&folder))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    writeln!(stream, "{question}")?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(line)
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
