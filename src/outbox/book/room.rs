//! What the books know when the outbox is full: which records are worth least, and which groups are carried over to where the
//! next commit goes. Decision 0018.
//!
//! Terms: a *batch* is what one commit carries over: *rows* of groups, each of one lane, one epoch and one generation.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::lane::Group;
use super::{Book, Commit, Place, Reason};
use crate::outbox::group::{GROUP_BYTES, size_of};
use crate::outbox::record::{Lane, Priority, Record, RecordId};
use crate::runtime::clock::Now;

/// Groups to be carried over, which follow each other in their lane.
#[derive(Debug)]
pub(in crate::outbox) struct Row {
    pub(in crate::outbox) places: Vec<Place>,
    /// Nobody has been shown them, and nobody will be until they are carried over: they may be merged.
    pub(in crate::outbox) may_thin: bool,
}

impl Row {
    pub(in crate::outbox) fn lane(&self) -> Lane {
        self.places.first().map_or(Lane::default(), |it| it.lane)
    }
}

/// What a commit says of groups that it carries over.
#[derive(Debug)]
pub(in crate::outbox) struct Moved {
    places: Vec<Place>,
    /// How many records there are less, as they were merged.
    absorbed: u64,
    /// Next to nothing of it can be merged.
    is_tried: bool,
}

/// What of a generation would have to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::outbox) struct Victim {
    pub(in crate::outbox) generation: u32,
    /// What goes, with lower ones; the rest is carried over, if there is any.
    pub(in crate::outbox) priority: Priority,
    pub(in crate::outbox) has_rest: bool,
}

/// Of the groups of a generation.
#[derive(Default)]
struct Share {
    least: usize,
    all: usize,
    /// The first id of those that could go.
    oldest: Option<RecordId>,
}

/// Whether the records of a group may be merged: alarms are not, nor what may be on its way.
fn may_merge(lane: Lane, group: &Group) -> bool {
    lane.priority < Priority::High && !group.is_shown
}

impl Book {
    /// Gives up groups of which every record has expired. Returns how many records those were.
    pub(in crate::outbox) fn drop_expired_groups(&mut self, now: Now) -> u64 {
        let expired: Vec<Place> = self
            .groups()
            .filter(|(place, group)| {
                let at = self.group_expires_at(*place, group);
                at.is_some_and(|at| at <= now.wall) && !group.is_busy
            })
            .map(|(place, _)| place)
            .collect();
        let drop = |place| self.drop_live(place, Reason::Expired, now.mono);
        expired.into_iter().map(drop).sum()
    }

    /// The generation, not the one that is written to, whose groups take the least, and how many bytes that is.
    pub(in crate::outbox) fn emptiest(&self, writer: Option<u32>) -> Option<(u32, usize)> {
        let mut bytes: BTreeMap<u32, usize> = BTreeMap::new();
        for (place, group) in self.groups() {
            *bytes.entry(place.generation).or_default() += group.bytes;
        }
        let others = bytes.into_iter().filter(|(it, _)| Some(*it) != writer);
        others.min_by_key(|(_, bytes)| *bytes)
    }

    /// Whether not all that is stored is of one priority.
    pub(in crate::outbox) fn has_several_priorities(&self) -> bool {
        let mut priorities = Lane::ALL
            .into_iter()
            .filter(|lane| !self.lanes[lane.index()].groups.is_empty())
            .map(|lane| lane.priority);
        let first = priorities.next();
        priorities.any(|other| Some(other) != first)
    }

    /// What goes next, but for the generation that is written to: of the lowest priority of which some generation has enough, the
    /// oldest. What is of a still lower one goes with it: by itself it would free less than carrying over the rest takes.
    pub(in crate::outbox) fn victim(&self, writer: Option<u32>) -> Option<Victim> {
        const ENOUGH: usize = 8;
        let mut by_priority = [Priority::Low, Priority::Normal, Priority::High].into_iter();
        by_priority.find_map(|priority| {
            let mut shares: BTreeMap<u32, Share> = BTreeMap::new();
            for (place, _) in self.groups() {
                let share = shares.entry(place.generation).or_default();
                share.all += 1;
                if place.lane.priority <= priority {
                    share.least += 1;
                    let oldest = share.oldest.get_or_insert(place.first);
                    *oldest = place.first.min(*oldest);
                }
            }
            let others = shares.iter().filter(|(it, _)| Some(**it) != writer);
            let (generation, share) = others
                .filter(|(_, it)| it.oldest.is_some() && it.least * ENOUGH >= it.all)
                .min_by_key(|(_, it)| it.oldest)?;
            Some(Victim {
                generation: *generation,
                priority,
                has_rest: share.least < share.all,
            })
        })
    }

    /// Gives up what is live of this priority, and lower ones, in a generation. Returns how many records those were.
    pub(in crate::outbox) fn drop_priority(&mut self, victim: Victim, now: Duration) -> u64 {
        let groups = self.groups().map(|(place, _)| place);
        let groups: Vec<Place> = groups
            .filter(|it| it.generation == victim.generation && it.lane.priority <= victim.priority)
            .collect();
        let drop = |place| self.drop_live(place, Reason::OverflowDisk, now);
        groups.into_iter().map(drop).sum()
    }

    /// The generation with the lowest number of which a quarter may be merged, but for the one that is written to.
    pub(in crate::outbox) fn to_thin(&self, writer: Option<u32>) -> Option<u32> {
        let mut shares: BTreeMap<u32, (usize, usize)> = BTreeMap::new();
        for (place, group) in self.groups() {
            let (candidates, all) = shares.entry(place.generation).or_default();
            *all += 1;
            *candidates += usize::from(may_merge(place.lane, group) && !group.is_tried);
        }
        let mut others = shares.into_iter().filter(|(it, _)| Some(*it) != writer);
        let found = others.find(|(_, (candidates, all))| candidates * 4 >= *all);
        found.map(|(generation, _)| generation)
    }

    /// The next groups of a generation to carry over, of about so many bytes of records; none if nothing is left. Those that may be merged are shown to nobody from now on, until they are
    /// carried over or [`Book::release`]d.
    pub(in crate::outbox) fn next_batch(
        &mut self,
        generation: u32,
        bytes_max: usize,
        thins: bool,
    ) -> Vec<Row> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        let mut lanes = Lane::ALL;
        if thins {
            // First what may be merged: whether that is worth it shows before anything else is carried over.
            lanes.sort_by_key(|lane| lane.priority);
        }
        for lane in lanes {
            let queue = &mut self.lanes[lane.index()];
            let mut groups = queue
                .groups
                .iter_mut()
                .skip_while(|(_, group)| group.generation != generation);
            let Some((first, group)) = groups.next() else {
                continue;
            };
            if bytes > 0 && bytes + group.bytes > bytes_max {
                break;
            }
            bytes += group.bytes;
            let is_shown = group.is_shown;
            let may_thin = thins && may_merge(lane, group);
            let of = |first: &RecordId| Place {
                generation,
                lane,
                first: *first,
            };
            let mut places = vec![of(first)];
            group.is_busy = may_thin;
            for (other, group) in groups {
                let is_alike = other.epoch == first.epoch && group.is_shown == is_shown;
                let has_room = bytes + group.bytes <= bytes_max;
                if group.generation != generation || !is_alike || !has_room {
                    break;
                }
                bytes += group.bytes;
                group.is_busy = may_thin;
                places.push(of(other));
            }
            batch.push(Row { places, may_thin });
        }
        batch
    }

    /// Next to nothing of what is in this generation now can be merged.
    pub(in crate::outbox) fn mark_tried(&mut self, generation: u32) {
        let groups = self
            .lanes
            .iter_mut()
            .flat_map(|queue| queue.groups.values_mut());
        for group in groups.filter(|group| group.generation == generation) {
            group.is_tried = true;
        }
    }

    /// Nothing is being merged any more, after a panic.
    pub(in crate::outbox) fn release_all(&mut self) {
        let queues = self.lanes.iter_mut();
        for group in queues.flat_map(|queue| queue.groups.values_mut()) {
            group.is_busy = false;
        }
    }

    /// These groups are not carried over after all.
    pub(in crate::outbox) fn release(&mut self, row: &Row) {
        for place in &row.places {
            if let Some(group) = self.lanes[place.lane.index()].groups.get_mut(&place.first) {
                group.is_busy = false;
            }
        }
    }

    /// Those of a lane's records that are not settled.
    pub(in crate::outbox) fn live_of(
        &self,
        lane: Lane,
        records: &[Arc<Record>],
    ) -> Vec<Arc<Record>> {
        let settled = &self.lanes[lane.index()].settled;
        let live = records.iter().filter(|it| !settled.contains(it.id));
        live.cloned().collect()
    }

    /// A commit that carries over these, with so many absorbed if they were to be merged: `rows` are the records that are live in each row, merged or not, in the order of their ids.
    pub(in crate::outbox) fn begin_moving(
        &mut self,
        places: Vec<Place>,
        rows: Vec<Vec<Arc<Record>>>,
        absorbed: Option<u64>,
        generations: Vec<u32>,
    ) -> Commit {
        let mut groups: Vec<Vec<Arc<Record>>> = Vec::new();
        for records in rows {
            let mut in_group = usize::MAX;
            for record in records {
                let size = size_of(&record.draft);
                if in_group.saturating_add(size) > GROUP_BYTES {
                    groups.push(Vec::new());
                    in_group = 0;
                }
                in_group += size;
                if let Some(group) = groups.last_mut() {
                    group.push(record);
                }
            }
        }
        let mut commit = self.begin_without_records(Vec::new());
        for place in &places {
            commit.snapshot.emptied.insert(*place);
        }
        let is_tried = absorbed == Some(0);
        let absorbed = absorbed.unwrap_or(0);
        let ledger = &mut commit.snapshot.ledger;
        ledger.stored -= absorbed;
        ledger.drop_accepted(absorbed, Reason::Thinned);
        let moves: HashSet<Place> = places.iter().copied().collect();
        let stays = |place: &Place| !moves.contains(place);
        commit.settled = generations;
        for (place, _) in self.groups().filter(|(place, _)| stays(place)) {
            commit.settled.retain(|it| *it != place.generation);
        }
        commit.groups = groups;
        commit.moved = Some(Moved {
            places,
            absorbed,
            is_tried,
        });
        commit
    }

    /// The commit is durable: the groups are where it went.
    pub(super) fn moved(
        &mut self,
        moved: Moved,
        groups: Vec<Vec<Arc<Record>>>,
        generation: u32,
        now: Duration,
    ) {
        let mut is_shown = [false; Lane::ALL.len()];
        let mut is_tried = [true; Lane::ALL.len()];
        for place in &moved.places {
            let lane = place.lane.index();
            let group = self.lanes[lane].groups.get(&place.first);
            is_shown[lane] |= group.is_some_and(|group| group.is_shown);
            is_tried[lane] &= group.is_none_or(|group| group.is_tried);
            self.forget_group(place.lane, place.first);
            self.emptied.insert(*place);
        }
        self.ledger.stored -= moved.absorbed;
        self.ledger.drop_accepted(moved.absorbed, Reason::Thinned);
        for records in groups {
            let Some(first) = records.first() else {
                continue;
            };
            let place = Place {
                generation,
                lane: first.draft.lane(),
                first: first.id,
            };
            let live = self.live_of(place.lane, &records).len();
            if live < records.len() {
                // What was settled while it was written: the disk does not know that yet.
                self.mark_dirty(now);
            }
            let lane = place.lane.index();
            let mut group = Group::new(generation, &records, live as u64, is_shown[lane]);
            group.is_tried = moved.is_tried || is_tried[lane];
            self.insert_group(place, group);
        }
        for lane in Lane::ALL {
            self.raise_cursor(lane);
        }
    }
}
