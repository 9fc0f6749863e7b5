//! The thread `edges`: it waits for all armed inputs at once, reads what came, and hands it over.
//!
//! It owns its inputs. They come and go by commands, one at a time, each announced by a byte in a pipe that it polls as well.
//! It ends on a command, when `poll` fails, or by a panic in a sink; its inputs are let go with it.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::stamps::Stamps;
use super::watch::Watch;
use super::{Line, Seen, Source, Troubles};
use crate::board::{BoardError, Edge, EdgeSink, Level, Pin};
use crate::runtime::realtime::Realtime;

/// How often levels are read again.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// An input in the thread's hands.
pub(super) struct Watched<L> {
    pub(super) pin: Pin,
    pub(super) line: L,
    pub(super) watch: Watch,
    pub(super) sink: EdgeSink,
}

enum Command<L> {
    Add(Watched<L>),
    /// The answer comes when the line has been let go.
    Remove(Pin, Sender<()>),
    Stop,
}

/// The thread, from outside. Dropping it ends the thread and waits for it.
pub(super) struct Reader<L> {
    commands: Sender<Command<L>>,
    bell: PipeWriter,
    thread: Option<JoinHandle<()>>,
}

impl<L: Line> Reader<L> {
    pub(super) fn start(
        stamps: &Stamps,
        troubles: &Arc<Troubles>,
        realtime: Realtime,
    ) -> Result<Reader<L>, BoardError> {
        const THREAD: &str = "edges";
        let failed = |source| BoardError::Thread {
            name: THREAD,
            source,
        };
        let (heard, bell) = io::pipe().map_err(failed)?;
        // Each command is waited for or followed by nothing in a hurry; a full queue makes the board's thread wait for one turn.
        let (commands, inbox) = crossbeam_channel::bounded(1);
        let reading = Reading {
            watched: Vec::new(),
            inbox,
            heard,
            stamps: stamps.clone(),
            troubles: troubles.clone(),
            next_look: stamps.mono(),
            seen: Vec::new(),
            due: Vec::new(),
        };
        let thread = thread::Builder::new()
            .name(THREAD.to_owned())
            .spawn(move || {
                if let Err(error) = realtime.raise_this_thread() {
                    tracing::warn!("{error}");
                }
                reading.run()
            })
            .map_err(failed)?;
        Ok(Reader {
            commands,
            bell,
            thread: Some(thread),
        })
    }

    pub(super) fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    pub(super) fn add(&mut self, watched: Watched<L>) {
        self.command(Command::Add(watched));
    }

    /// Takes an input away and waits until its line is free.
    pub(super) fn remove(&mut self, pin: Pin) {
        let (done, wait) = crossbeam_channel::bounded(1);
        self.command(Command::Remove(pin, done));
        // No answer means that the thread has ended, and the line was let go with it.
        let _ = wait.recv();
    }

    fn command(&mut self, command: Command<L>) {
        // Both fail when the thread has ended, which is found by `has_ended`.
        if self.commands.send(command).is_ok() {
            let _ = self.bell.write_all(&[0]);
        }
    }
}

impl<L> Drop for Reader<L> {
    fn drop(&mut self) {
        if self.commands.send(Command::Stop).is_ok() {
            let _ = self.bell.write_all(&[0]);
        }
        if let Some(thread) = self.thread.take() {
            // One that panicked has said so, and there is nobody to tell here.
            let _ = thread.join();
        }
    }
}

/// The thread, from inside.
struct Reading<L> {
    watched: Vec<Watched<L>>,
    inbox: Receiver<Command<L>>,
    heard: PipeReader,
    stamps: Stamps,
    troubles: Arc<Troubles>,
    /// When levels are read again, as monotonic time.
    next_look: Duration,
    /// Kept for their memory.
    seen: Vec<Seen>,
    due: Vec<(usize, Seen)>,
}

/// Why an input is among the ready ones.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ready {
    No,
    Edges,
    Failed,
}

impl<L: Line> Reading<L> {
    fn run(mut self) {
        loop {
            let (ready, is_called) = match self.wait() {
                Ok(what) => what,
                Err(error) => {
                    tracing::error!("cannot wait for edges: {error}; all inputs are armed anew");
                    return;
                }
            };
            let mut failed = self.read(&ready);
            if self.stamps.mono() >= self.next_look {
                failed.extend(self.look(&ready));
                self.next_look = self.stamps.mono() + LOOK_EVERY;
            }
            self.let_go(failed);
            if is_called && !self.obey() {
                return;
            }
        }
    }

    /// Waits for edges, a command, or the next look.
    fn wait(&self) -> io::Result<(Vec<Ready>, bool)> {
        let timeout = (!self.watched.is_empty()).then(|| {
            let span = self.next_look.saturating_sub(self.stamps.mono());
            Timespec::try_from(span).unwrap_or_default()
        });
        let mut polled: Vec<PollFd<'_>> = Vec::with_capacity(self.watched.len() + 1);
        polled.push(PollFd::new(&self.heard, PollFlags::IN));
        polled.extend(
            self.watched
                .iter()
                .map(|watched| PollFd::new(&watched.line, PollFlags::IN)),
        );
        match poll(&mut polled, timeout.as_ref()) {
            // A signal, such as SIGCONT, hit this thread: nothing is ready, and the next turn waits again.
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready = polled.iter().map(|polled| {
            let events = polled.revents();
            if events.contains(PollFlags::IN) {
                Ready::Edges
            } else if events.is_empty() {
                Ready::No
            } else {
                Ready::Failed
            }
        });
        let mut ready: Vec<Ready> = ready.collect();
        let is_called = ready.remove(0) != Ready::No;
        Ok((ready, is_called))
    }

    /// Reads what came and hands it over in the order of the kernel's stamps. Which inputs failed, and of what.
    fn read(&mut self, ready: &[Ready]) -> Vec<(usize, Source)> {
        let mut failed = Vec::new();
        for (index, watched) in self.watched.iter_mut().enumerate() {
            match ready[index] {
                Ready::No => continue,
                Ready::Failed => failed.push((index, "the kernel took the line away".into())),
                Ready::Edges => {
                    if let Err(source) = watched.line.read(&mut self.seen) {
                        failed.push((index, source));
                    }
                }
            }
            self.due
                .extend(self.seen.drain(..).map(|seen| (index, seen)));
        }
        self.due.sort_by_key(|(_, seen)| seen.stamp);
        for (index, seen) in self.due.drain(..) {
            let watched = &mut self.watched[index];
            let told = watched.watch.edge(seen);
            if told.lost > 0 {
                self.troubles
                    .note(watched.pin, |trouble| trouble.lost += u64::from(told.lost));
            }
            if told.is_news {
                (watched.sink)(Edge {
                    pin: watched.pin,
                    level: seen.level,
                    time: self.stamps.wall(seen.stamp),
                });
            }
        }
        failed
    }

    /// Reads the levels of the inputs that had nothing to say.
    fn look(&mut self, ready: &[Ready]) -> Vec<(usize, Source)> {
        let mut failed = Vec::new();
        for (index, watched) in self.watched.iter_mut().enumerate() {
            if ready[index] != Ready::No {
                continue;
            }
            match watched.line.level() {
                Ok(level) => {
                    if let Some(level) = watched.watch.look(level) {
                        tell_late(watched, level, &self.stamps, &self.troubles);
                    }
                }
                Err(source) => failed.push((index, source)),
            }
        }
        failed
    }

    fn let_go(&mut self, mut failed: Vec<(usize, Source)>) {
        // From the back, so that the places of the others stay.
        failed.sort_by_key(|(index, _)| std::cmp::Reverse(*index));
        for (index, source) in failed {
            let Watched { pin, line, .. } = self.watched.swap_remove(index);
            drop(line);
            self.troubles
                .note(pin, |trouble| trouble.died_of = Some(source));
        }
    }

    /// Does what was asked. Whether to go on.
    fn obey(&mut self) -> bool {
        // One byte for each command; what is left in the pipe calls again. No byte: nobody can call any more.
        if !matches!(self.heard.read(&mut [0]), Ok(1)) {
            return false;
        }
        let Ok(command) = self.inbox.try_recv() else {
            return true;
        };
        match command {
            Command::Add(watched) => self.watched.push(watched),
            Command::Remove(pin, done) => {
                self.watched.retain(|watched| watched.pin != pin);
                let _ = done.send(());
            }
            Command::Stop => return false,
        }
        true
    }
}

fn tell_late<L>(watched: &Watched<L>, level: Level, stamps: &Stamps, troubles: &Troubles) {
    let pin = watched.pin;
    troubles.note(pin, |trouble| trouble.found_late = true);
    let time = stamps.now();
    (watched.sink)(Edge { pin, level, time });
}
