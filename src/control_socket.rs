//! The socket in the outbox's directory through which other `tidegate` commands ask a running one.
//!
//! A client sends one line, the question, and gets one line of JSON:
//!
//! * `totals`: what the device has counted;
//! * `tap NODE`: `{"tapping": {"flow", "node", "ports"}}`, and then a line for each message that the node sends, until the client
//!   goes away: `{"time", "flow", "node", "port", "topic", "payload"}`, or `{"dropped": NUMBER}` where some are missing.
//!
//! What cannot be answered is `{"error": "..."}`. The socket's mode is 0600: only the user that runs Tidegate, and root, may
//! ask.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, BufRead, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::device::Meter;
use crate::message::{Text, Value};
use crate::runtime::driver::taps::{Seen, Tap, Taps};

const NAME: &str = "tidegate.sock";
/// Where the socket is made, before it goes to its place.
const WORKSHOP: &str = "tidegate.sock.new";
/// A client that says nothing is let go after this.
const PATIENCE: Duration = Duration::from_secs(2);
/// Longer questions there are not.
const LONGEST_QUESTION: u64 = 4_096;

/// A listening socket; it goes when this is dropped.
pub struct ControlSocket {
    path: PathBuf,
    task: JoinHandle<()>,
}

impl ControlSocket {
    /// Listens in `directory`. What another process left there is replaced: the caller holds the outbox's lock.
    pub fn listen(directory: &Path, meter: Meter, taps: Taps) -> io::Result<ControlSocket> {
        let path = directory.join(NAME);
        let listener = bind(directory, &path)?;
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
                let (meter, taps) = (meter.clone(), taps.clone());
                tokio::spawn(async move {
                    // A client that goes away is none of our business.
                    let _ = serve(stream, &meter, &taps).await;
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
        let _ = fs::remove_file(&self.path);
    }
}

/// Binds a socket that never has a mode other than 0600 where others could reach it: it gets its mode in a directory that is
/// closed to them, and is moved to its place then.
fn bind(directory: &Path, path: &Path) -> io::Result<UnixListener> {
    let workshop = directory.join(WORKSHOP);
    // Left behind by a process that was killed meanwhile.
    match fs::remove_dir_all(&workshop) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    DirBuilder::new().mode(0o700).create(&workshop)?;
    let new = workshop.join(NAME);
    let listener = UnixListener::bind(short_path(&File::open(&workshop)?))?;
    fs::set_permissions(&new, Permissions::from_mode(0o600))?;
    fs::rename(&new, path)?;
    fs::remove_dir(&workshop)?;
    Ok(listener)
}

/// A socket's path must be shorter than 108 bytes; through the open directory it always is.
fn short_path(folder: &File) -> PathBuf {
    format!("/proc/self/fd/{}/{NAME}", folder.as_raw_fd()).into()
}

/// The first line of the answer to `tap`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TapAnswer {
    Tapping {
        flow: Text,
        node: Text,
        ports: Vec<String>,
    },
    Error(String),
}

/// A further line of it.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
pub enum TapLine {
    Message {
        time: String,
        flow: Text,
        node: Text,
        port: String,
        topic: Text,
        payload: Value,
    },
    Dropped {
        dropped: u64,
    },
}

async fn serve(mut stream: UnixStream, meter: &Meter, taps: &Taps) -> io::Result<()> {
    let (mut reader, mut writer) = stream.split();
    let question = timeout(PATIENCE, read_question(&mut reader)).await??;
    match question.trim().split_once(' ') {
        None if question.trim() == "totals" => say_soon(&mut writer, &meter.read()).await,
        Some(("tap", node)) => match taps.watch(node.trim()) {
            Ok(tap) => {
                let answer = TapAnswer::Tapping {
                    flow: tap.flow.clone(),
                    node: tap.node.clone(),
                    ports: tap.ports.clone(),
                };
                say_soon(&mut writer, &answer).await?;
                show(tap, &mut reader, &mut writer).await
            }
            Err(error) => say_soon(&mut writer, &TapAnswer::Error(error.to_string())).await,
        },
        _ => {
            let problem = format!("unknown question `{}`", question.trim());
            say_soon(&mut writer, &json!({ "error": problem })).await
        }
    }
}

async fn read_question(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<String> {
    let mut question = String::new();
    BufReader::new(reader.take(LONGEST_QUESTION))
        .read_line(&mut question)
        .await?;
    Ok(question)
}

async fn say(writer: &mut (impl AsyncWrite + Unpin), line: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_string(line)?;
    line.push('\n');
    writer.write_all(line.as_bytes()).await
}

async fn say_soon(writer: &mut (impl AsyncWrite + Unpin), line: &impl Serialize) -> io::Result<()> {
    timeout(PATIENCE, say(writer, line)).await?
}

/// Shows what a tap sees until the flows stop or the client goes away. One that does not read is waited for here; meanwhile the
/// tap queue fills, and nobody else notices.
async fn show(
    mut tap: Tap,
    reader: &mut (impl AsyncRead + Unpin),
    writer: &mut (impl AsyncWrite + Unpin),
) -> io::Result<()> {
    let mut ignored = [0; 64];
    loop {
        tokio::select! {
            seen = tap.next() => match seen {
                Some(seen) => say(writer, &in_line(&tap, seen)).await?,
                None => return Ok(()),
            },
            read = reader.read(&mut ignored) => {
                if read? == 0 {
                    return Ok(());
                }
            }
        }
    }
}

fn in_line(tap: &Tap, seen: Seen) -> TapLine {
    match seen {
        Seen::Message { port, message } => TapLine::Message {
            time: message.time.to_string(),
            flow: tap.flow.clone(),
            node: tap.node.clone(),
            port: tap.ports[port].clone(),
            topic: message.topic,
            payload: message.payload,
        },
        Seen::Dropped(dropped) => TapLine::Dropped { dropped },
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
    answered(directory, ask_at(directory, question))
}

fn ask_at(directory: &Path, question: &str) -> io::Result<String> {
    let folder = File::open(directory)?;
    let mut stream = BlockingStream::connect(short_path(&folder))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    writeln!(stream, "{question}")?;
    let mut line = String::new();
    io::BufReader::new(stream).read_line(&mut line)?;
    if line.ends_with('\n') {
        Ok(line)
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

/// What a running process goes on to say, line by line.
pub type Lines = tokio::io::Lines<BufReader<UnixStream>>;

/// The same for a question with an answer that goes on: its first line, and those that come. The process notices when they are
/// dropped.
pub async fn follow(directory: &Path, question: &str) -> Result<Option<(String, Lines)>, AskError> {
    let asked = timeout(PATIENCE, follow_at(directory, question)).await;
    answered(directory, asked.unwrap_or_else(|late| Err(late.into())))
}

async fn follow_at(directory: &Path, question: &str) -> io::Result<(String, Lines)> {
    let folder = File::open(directory)?;
    let mut stream = UnixStream::connect(short_path(&folder)).await?;
    stream.write_all(format!("{question}\n").as_bytes()).await?;
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next_line().await?;
    Ok((first.ok_or(io::ErrorKind::UnexpectedEof)?, lines))
}

fn answered<T>(directory: &Path, answer: io::Result<T>) -> Result<Option<T>, AskError> {
    let path = directory.to_path_buf();
    match answer {
        Ok(answer) => Ok(Some(answer)),
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileTypeExt;

    use super::*;

    #[tokio::test]
    async fn the_socket_is_closed_to_others_and_takes_the_place_of_an_old_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(NAME);
        fs::write(&path, "left behind").unwrap();
        // As if killed in between.
        fs::create_dir(directory.path().join(WORKSHOP)).unwrap();
        fs::write(directory.path().join(WORKSHOP).join(NAME), "").unwrap();
        let _listener = bind(directory.path(), &path).unwrap();
        let socket = path.metadata().unwrap();
        assert!(socket.file_type().is_socket());
        assert_eq!(socket.permissions().mode() & 0o777, 0o600);
        BlockingStream::connect(&path).unwrap();
        assert!(!directory.path().join(WORKSHOP).exists());
    }

    #[tokio::test]
    async fn without_a_process_there_is_no_answer() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        assert!(ask(path, "totals").unwrap().is_none());
        assert!(follow(path, "tap x").await.unwrap().is_none());
        // A socket that nobody listens at.
        drop(bind(path, &path.join(NAME)).unwrap());
        assert!(ask(path, "totals").unwrap().is_none());
        assert!(follow(path, "tap x").await.unwrap().is_none());
    }
}
