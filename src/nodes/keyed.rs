//! What a node remembers for each key, most often for each topic, within a bound.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::message::Text;
use crate::runtime::node::Context;

/// Keys that one node remembers.
pub(super) const MOST_KEYS: usize = 10_000;

/// State for each key. A key that is one too many fails, which is counted and said; it takes no memory.
#[derive(Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Keyed<T> {
    entries: IndexMap<Text, T>,
}

impl<T> Default for Keyed<T> {
    fn default() -> Keyed<T> {
        Keyed {
            entries: IndexMap::new(),
        }
    }
}

impl<T> Keyed<T> {
    /// The state of a key; `new` makes that of a key which has none yet. Without room for it the node fails.
    pub(super) fn get_or_fail(
        &mut self,
        key: &Text,
        cx: &mut Context<'_>,
        new: impl FnOnce() -> T,
    ) -> Option<&mut T> {
        if let Some(place) = self.entries.get_index_of(key) {
            return Some(&mut self.entries[place]);
        }
        if self.entries.len() < MOST_KEYS {
            return Some(self.entries.entry(key.clone()).or_insert_with(new));
        }
        cx.fail(format!(
            "remembers {MOST_KEYS} topics already, `{key}` is one too many"
        ));
        None
    }

    pub(super) fn get_mut(&mut self, key: &str) -> Option<&mut T> {
        self.entries.get_mut(key)
    }

    pub(super) fn remove(&mut self, key: &str) -> Option<T> {
        self.entries.swap_remove(key)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&Text, &mut T)> {
        self.entries.iter_mut()
    }
}
