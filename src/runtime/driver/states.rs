//! Checkpoints on their way from the engine threads to who writes them.
//!
//! The *state queue* has a place for each flow: a newer checkpoint takes the place of one that was not taken out yet. So it is
//! bounded by the number of flows, and nobody waits for a disk.

use std::collections::BTreeMap;
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::runtime::state::Checkpoint;

/// What flows remember, to be written. Clones are ends of the same queue.
#[derive(Clone, Default)]
pub struct StateQueue(Arc<Shared>);

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    /// By the flow's name.
    checkpoints: BTreeMap<String, Arc<Checkpoint>>,
    is_closed: bool,
}

impl StateQueue {
    /// Hands one over; it takes the place of an older one of its flow.
    pub fn put(&self, checkpoint: Arc<Checkpoint>) {
        let mut waiting = self.waiting();
        waiting
            .checkpoints
            .insert(checkpoint.flow.clone(), checkpoint);
        drop(waiting);
        self.0.changed.notify_one();
    }

    /// Waits for what is there, and takes all of it; none when the queue is closed and empty.
    pub fn take(&self) -> Option<Vec<Arc<Checkpoint>>> {
        let is_idle = |waiting: &mut Waiting| waiting.checkpoints.is_empty() && !waiting.is_closed;
        let mut waiting = self
            .0
            .changed
            .wait_while(self.waiting(), is_idle)
            .unwrap_or_else(PoisonError::into_inner);
        let taken = mem::take(&mut waiting.checkpoints);
        (!taken.is_empty()).then(|| taken.into_values().collect())
    }

    /// Says that nothing more comes.
    pub fn close(&self) {
        self.waiting().is_closed = true;
        self.0.changed.notify_all();
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nodes::testing::graph;
    use crate::runtime::{Engine, Now};

    #[test]
    fn the_newest_checkpoint_of_each_flow_waits_and_the_end_comes_after_the_last() {
        let mut engine = Engine::new("d");
        let text = "[nodes.none]\ntype = 'catch'\n[nodes.show]\ntype = 'debug'\nfrom = 'none'";
        let mut checkpoint = |name: &str, seconds| {
            let mut flow = Arc::into_inner(graph(text)).expect("nobody else has it");
            flow.rename(name);
            let now = Now::default().later(std::time::Duration::from_secs(seconds));
            let place = engine.add(Arc::new(flow), now, &mut Vec::new());
            engine.checkpoint(place, now).expect("it runs")
        };
        let queue = StateQueue::default();
        for (name, seconds) in [("a", 1), ("b", 2), ("a", 3)] {
            queue.put(checkpoint(name, seconds));
        }
        queue.close();
        let taken = queue.take().expect("they are there");
        let found: Vec<_> = taken
            .iter()
            .map(|it| (it.flow.as_str(), it.mono.as_secs()))
            .collect();
        assert_eq!(found, [("a", 3), ("b", 2)]);
        assert_eq!(queue.take(), None);
    }
}
