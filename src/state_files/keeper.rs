//! The state thread: writes checkpoints that come from the engine threads, if something in them has changed.
//!
//! What cannot be written is said and counted, and tried again when the flow's next checkpoint comes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::{StateDirectory, StateFileError};
use crate::runtime::Counters;
use crate::runtime::driver::chain;
use crate::runtime::driver::states::StateQueue;
use crate::runtime::state::Checkpoint;

/// Starts the thread. It ends when the queue is closed and what was in it is written.
pub fn start(
    directory: Arc<Mutex<StateDirectory>>,
    queue: StateQueue,
    written: impl IntoIterator<Item = Arc<Checkpoint>>,
    counters: Arc<Counters>,
) -> std::io::Result<JoinHandle<()>> {
    let mut keeper = Keeper::new(directory, written, counters);
    std::thread::Builder::new()
        .name("states".to_owned())
        .spawn(move || {
            while let Some(checkpoints) = queue.take() {
                for checkpoint in checkpoints {
                    keeper.keep(checkpoint);
                }
            }
        })
}

pub(super) struct Keeper {
    directory: Arc<Mutex<StateDirectory>>,
    /// What is in the files, by flow.
    written: HashMap<String, Arc<Checkpoint>>,
    /// What was said last about a flow that is not kept.
    problems: HashMap<String, String>,
    counters: Arc<Counters>,
}

impl Keeper {
    /// `written` is what is in the files already.
    pub(super) fn new(
        directory: Arc<Mutex<StateDirectory>>,
        written: impl IntoIterator<Item = Arc<Checkpoint>>,
        counters: Arc<Counters>,
    ) -> Keeper {
        let written = written.into_iter().map(|it| (it.flow.clone(), it));
        Keeper {
            directory,
            written: written.collect(),
            problems: HashMap::new(),
            counters,
        }
    }

    pub(super) fn keep(&mut self, checkpoint: Arc<Checkpoint>) {
        let flow = checkpoint.flow.clone();
        let written = {
            let mut directory = self
                .directory
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let is_known = match self.written.get(&flow) {
                Some(written) => written.remembers_the_same(&checkpoint) && directory.has(&flow),
                None => checkpoint.is_empty(),
            };
            if is_known {
                return;
            }
            directory.write(&checkpoint)
        };
        match written {
            Ok(bytes) => {
                self.counters.state_bytes.add(bytes);
                if self.problems.remove(&flow).is_some() {
                    tracing::info!("what flow `{flow}` remembers is kept again");
                }
                self.written.insert(flow, checkpoint);
            }
            Err(error) => self.failed(flow, &error),
        }
    }

    fn failed(&mut self, flow: String, error: &StateFileError) {
        self.counters.state_errors.add(1);
        let problem = chain(error);
        if self.problems.get(&flow) != Some(&problem) {
            tracing::error!(
                "what flow `{flow}` remembers is not kept: {problem}; the flow runs on, and it is tried again at each interval"
            );
            self.problems.insert(flow, problem);
        }
    }
}
