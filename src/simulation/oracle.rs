//! Knows what must hold, and judges while things happen.
//!
//! It hears what went in, what the disk was told to keep, what was sent, delivered and acknowledged; of the books it sees the
//! ledger only. Terms: a record is *promised* when the storage thread was told that it is durable, or the uplink that it is
//! acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::outbox::simulated_disk::Harm;
use crate::outbox::{Draft, Lane, Ledger, RecordId};

/// An acknowledged record is known on disk to be that after the commit interval, or after this if it is longer.
const SETTLE_EVERY: Duration = Duration::from_secs(1);

/// What is known of a record.
#[derive(Clone, Debug)]
struct Fact {
    id: RecordId,
    told: Told,
    text: String,
    appended: Duration,
    /// It is larger than a packet may be.
    is_unsendable: bool,
    is_durable: bool,
    /// The connections on which the broker has acknowledged it.
    acknowledged_on: BTreeSet<u32>,
    /// The outbox was told, in the life of that number.
    settled_in: Option<u32>,
    settled_at: Duration,
    /// And that was synced.
    is_settled_for_good: bool,
    /// The last connection on which it was sent.
    sent_on: Option<u32>,
    delivered_on: BTreeSet<u32>,
    /// The connections on which it was marked as replayed.
    replayed_on: BTreeSet<u32>,
    /// One that stands for it, maybe, was delivered.
    is_covered: bool,
    /// It was not durable yet, as far as anybody was told, when the power went.
    was_unsure: bool,
}

/// How a record is to be delivered.
#[derive(Clone, Debug)]
pub(super) struct Told {
    lane: Lane,
    pub(super) topic: String,
    replay_topic: Option<String>,
    may_expire: bool,
}

impl Told {
    pub(super) fn of(draft: &Draft) -> Told {
        Told {
            lane: draft.lane(),
            topic: draft.topic.clone(),
            replay_topic: draft.replay_topic.clone(),
            may_expire: draft.expires.is_some(),
        }
    }
}

#[derive(Default)]
pub(super) struct Oracle {
    window: usize,
    facts: Vec<Fact>,
    by_id: BTreeMap<RecordId, usize>,
    epochs: BTreeSet<u64>,
    /// The number of the process.
    life: u32,
    /// In the order in which the outbox was told.
    settled: Vec<usize>,
    /// By a record that was sent for several: those that it may stand for.
    covered_by: BTreeMap<usize, Vec<usize>>,
    settled_for_good: usize,
    /// The last first delivery in each lane and topic, of what was replayed and of what was not.
    latest: BTreeMap<(Lane, bool, String), RecordId>,
    /// Of those that deliver; and of those on which something was sent.
    newest_connection: u32,
    last_connection: u32,
    /// Records that were dropped for lack of room, by what the disk knows.
    overflow_on_disk: u64,
    /// Duplicates that there may be by now, and that there were.
    duplicates_allowed: usize,
    pub(super) duplicates: usize,
    pub(super) deliveries: usize,
    pub(super) lost_with_crashes: usize,
    /// What was durable and may be gone, or wrong.
    harm: Option<Harm>,
    has_crashed: bool,
    /// The first thing that must not be.
    verdict: Option<String>,
}

/// The identity of a message, which its payload carries: its number, and as many letters as it is long.
pub(super) fn text_of(number: usize, length: usize) -> String {
    let mut text = number.to_string();
    let letter = char::from(b'a' + (number % 26) as u8);
    while text.len() < length {
        text.push(letter);
    }
    text
}

fn number_of(text: &str) -> Option<usize> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    text[..digits].parse().ok()
}

/// A payload: one of the flow's, or one that stands for several.
#[derive(serde::Deserialize)]
#[serde(untagged)]
pub(super) enum Payload {
    Text(String),
    Number(f64),
    Merged { count: u64, min: f64, max: f64 },
}

impl Default for Payload {
    fn default() -> Payload {
        Payload::Text(String::new())
    }
}

impl Payload {
    /// What the flow sent.
    pub(super) fn text(&self) -> String {
        match self {
            Payload::Text(text) => text.clone(),
            Payload::Number(number) => number.to_string(),
            Payload::Merged { max, .. } => max.to_string(),
        }
    }
}

/// The first of those that a record stands for, and how many they are.
#[derive(serde::Deserialize)]
struct Stands {
    epoch: u64,
    seq: u64,
    count: u64,
}

/// What is in an envelope.
#[derive(serde::Deserialize)]
struct Opened {
    #[serde(default)]
    replayed: bool,
    epoch: u64,
    seq: u64,
    payload: Payload,
    merged: Option<Stands>,
}

impl Oracle {
    pub(super) fn new(window: u16) -> Oracle {
        Oracle {
            window: usize::from(window),
            ..Oracle::default()
        }
    }

    pub(super) fn settled_for_good(&self) -> usize {
        self.settled_for_good
    }

    pub(super) fn verdict(&self) -> Option<&str> {
        self.verdict.as_deref()
    }

    pub(super) fn fail(&mut self, what: String) {
        self.verdict.get_or_insert(what);
    }

    fn require(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.fail(what());
        }
    }

    pub(super) fn damage(&mut self, harm: Harm) {
        self.harm = self.harm.max(Some(harm));
    }

    /// Whether what the books count can be believed.
    fn has_good_books(&self) -> bool {
        self.harm != Some(Harm::Books)
    }

    /// The number of the message that comes next.
    pub(super) fn next_number(&self) -> usize {
        self.facts.len()
    }

    pub(super) fn opened(&mut self, epoch: u64) {
        self.life += 1;
        let is_new = self.epochs.insert(epoch);
        self.require(is_new, || format!("epoch {epoch} was used before"));
    }

    /// The outbox has taken a record in.
    pub(super) fn appended(
        &mut self,
        id: RecordId,
        told: Told,
        text: &str,
        is_unsendable: bool,
        now: Duration,
    ) {
        let number = self.facts.len();
        let expected = number_of(text);
        self.require(expected == Some(number), || {
            format!("the flow sent {text:?} in the place of message {number}")
        });
        let other = self.by_id.insert(id, number);
        self.require(other.is_none(), || {
            format!("{id:?} names two records: messages {other:?} and {number}")
        });
        self.facts.push(Fact {
            id,
            told,
            text: text.to_owned(),
            appended: now,
            is_unsendable,
            is_durable: false,
            acknowledged_on: BTreeSet::new(),
            settled_in: None,
            settled_at: Duration::ZERO,
            is_settled_for_good: false,
            sent_on: None,
            delivered_on: BTreeSet::new(),
            replayed_on: BTreeSet::new(),
            is_covered: false,
            was_unsure: false,
        });
    }

    /// The storage thread was told that these are durable, and that the outbox knows of so many acknowledgements.
    pub(super) fn durable(&mut self, ids: &[RecordId], settled: usize, overflow: u64) {
        self.overflow_on_disk = overflow;
        for id in ids {
            match self.by_id.get(id).copied() {
                Some(number) => self.facts[number].is_durable = true,
                None => self.fail(format!("{id:?} was written, and never taken in")),
            }
        }
        for number in self.settled_for_good..settled.min(self.settled.len()) {
            let number = self.settled[number];
            self.facts[number].is_settled_for_good = true;
        }
        self.settled_for_good = self.settled_for_good.max(settled.min(self.settled.len()));
    }

    /// A packet goes to the network. Gives the number of its message.
    pub(super) fn sent(&mut self, connection: u32, topic: &str, payload: &[u8]) -> Option<usize> {
        let Ok(opened) = serde_json::from_slice::<Opened>(payload) else {
            let text = String::from_utf8_lossy(payload).into_owned();
            self.fail(format!("what was sent is no envelope: {text:?}"));
            return None;
        };
        let id = RecordId {
            epoch: opened.epoch,
            seq: opened.seq,
        };
        let Some(number) = self.by_id.get(&id).copied() else {
            self.fail(format!("{id:?} was sent, and never taken in"));
            return None;
        };
        let life = self.life;
        self.last_connection = self.last_connection.max(connection);
        let fact = &mut self.facts[number];
        let is_twice = fact.sent_on.replace(connection) == Some(connection);
        if opened.replayed {
            fact.replayed_on.insert(connection);
        }
        let fact = fact.clone();
        let replay_topic = fact.told.replay_topic.as_ref();
        let wanted = replay_topic.filter(|_| opened.replayed);
        let is_wanted = wanted.unwrap_or(&fact.told.topic) == topic;
        self.require(fact.told.lane.live_first || !opened.replayed, || {
            format!("{id:?} was marked as replayed, and its lane knows no such thing")
        });
        if let Some(stands) = &opened.merged {
            self.check_merged(number, stands, &opened.payload);
        }
        let text = opened.payload.text();
        self.require(fact.text == text && is_wanted, || {
            format!(
                "{id:?} was taken in with {:?} and sent with {:?}",
                fact.text, text
            )
        });
        self.require(!is_twice, || {
            format!("{id:?} was sent twice on connection {connection}")
        });
        self.require(fact.settled_in != Some(life), || {
            format!("{id:?} was sent again, after its PUBACK")
        });
        let is_gone = fact.is_settled_for_good && self.has_good_books();
        self.require(!is_gone, || {
            format!("{id:?} was sent again, after its PUBACK was on disk")
        });
        Some(number)
    }

    /// What stands for several has to be of one lane and topic, and of no more records than there were.
    fn check_merged(&mut self, number: usize, stands: &Stands, payload: &Payload) {
        let fact = self.facts[number].clone();
        let from = RecordId {
            epoch: stands.epoch,
            seq: stands.seq,
        };
        let ids = self.by_id.range(from..=fact.id).map(|(_, number)| *number);
        let alike: Vec<usize> = ids
            .filter(|number| {
                let other = &self.facts[*number];
                let is_number = other.text.bytes().all(|byte| byte.is_ascii_digit());
                is_number
                    && other.told.lane == fact.told.lane
                    && other.told.topic == fact.told.topic
            })
            .collect();
        let first = alike.first().copied();
        let (count, bounds) = match payload {
            Payload::Merged { count, min, max } => (*count, Some((*min, *max))),
            _ => (0, None),
        };
        let expected = first.map(|first| (first as f64, number as f64));
        let is_right = count == stands.count
            && (2..=alike.len() as u64).contains(&count)
            && first.is_some_and(|first| self.facts[first].id == from)
            && bounds == expected;
        let id = fact.id;
        self.require(is_right, || {
            format!(
                "{id:?} stands for {count} from {from:?}, {bounds:?}, of {} there were",
                alike.len()
            )
        });
        self.covered_by.insert(number, alike);
    }

    /// The broker has received it.
    pub(super) fn delivered(&mut self, connection: u32, number: usize) {
        self.deliveries += 1;
        for number in self.covered_by.get(&number).into_iter().flatten() {
            self.facts[*number].is_covered = true;
        }
        let fact = &mut self.facts[number];
        let is_first = fact.delivered_on.is_empty();
        fact.delivered_on.insert(connection);
        let is_replayed = fact.replayed_on.contains(&connection);
        let told = &fact.told;
        let (id, place) = (fact.id, (told.lane, is_replayed, told.topic.clone()));
        // What an old connection still brings, while a newer one delivers, may have been dropped meanwhile.
        let is_late = connection < self.newest_connection;
        self.newest_connection = self.newest_connection.max(connection);
        if is_first {
            if is_late {
                return;
            }
            let before = self.latest.insert(place, id);
            self.require(before < Some(id), || {
                format!("{id:?} came after {before:?}, on the same topic")
            });
        } else {
            self.duplicates += 1;
            let (found, allowed) = (self.duplicates, self.duplicates_allowed);
            self.require(found <= allowed || !self.has_good_books(), || {
                format!("{found} duplicates, where reconnects and crashes allow {allowed}: {id:?}")
            });
        }
    }

    /// The broker sends a PUBACK for it.
    pub(super) fn acknowledges(&mut self, connection: u32, number: usize) {
        self.facts[number].acknowledged_on.insert(connection);
    }

    /// The uplink tells the outbox that it has been acknowledged.
    pub(super) fn settled(&mut self, id: RecordId, connection: u32, now: Duration) {
        let Some(number) = self.by_id.get(&id).copied() else {
            return self.fail(format!("{id:?} was acknowledged, and never taken in"));
        };
        let life = self.life;
        let fact = &mut self.facts[number];
        fact.settled_in = Some(life);
        fact.settled_at = now;
        let is_its_own = fact.acknowledged_on.contains(&connection);
        self.settled.push(number);
        self.require(is_its_own, || {
            format!("{id:?} was deleted on connection {connection} without its own PUBACK")
        });
    }

    /// The uplink gives it up.
    pub(super) fn dead_lettered(&mut self, id: RecordId) {
        let number = self.by_id.get(&id).copied();
        let may = number.is_some_and(|number| self.facts[number].is_unsendable);
        self.require(may, || format!("{id:?} was given up, and could be sent"));
    }

    /// A connection is gone, with so many records on their way.
    pub(super) fn disconnected(&mut self, outstanding: usize) {
        let window = self.window;
        self.require(outstanding <= window, || {
            format!("{outstanding} records on their way, and the window is {window}")
        });
        self.duplicates_allowed += outstanding;
    }

    /// The process is gone, after so many records had no room. `within` is how old a record may be that is lost with it; none while the disk has trouble.
    pub(super) fn crashed(
        &mut self,
        outstanding: usize,
        overflow: u64,
        now: Duration,
        within: Option<Duration>,
    ) {
        self.has_crashed = true;
        if overflow != self.overflow_on_disk {
            // What was dropped, and the disk does not know of it, is back: behind what was delivered meanwhile.
            self.latest.clear();
            self.newest_connection = self.last_connection + 1;
        }
        self.duplicates_allowed += outstanding + self.settled.len() - self.settled_for_good;
        if let Some(commit) = within {
            self.check_unsynced(now, 2 * commit.max(SETTLE_EVERY));
        }
        // What is behind the last sync may come again: it is no longer settled, as far as anybody knows.
        self.settled.truncate(self.settled_for_good);
        let epoch = self.epochs.last().copied().unwrap_or(0);
        let of_this_life = self.by_id.range(RecordId { epoch, seq: 0 }..);
        let lost: Vec<usize> = of_this_life
            .map(|(_, number)| *number)
            .filter(|number| {
                let fact = &self.facts[*number];
                let is_lost = !fact.is_durable && fact.settled_in.is_none();
                is_lost && !fact.is_unsendable && !fact.told.may_expire
            })
            .collect();
        self.lost_with_crashes += lost.len();
        for number in &lost {
            self.facts[*number].was_unsure = true;
        }
        let Some(within) = within else { return };
        for number in lost {
            let Fact { id, appended, .. } = self.facts[number];
            let age = now.saturating_sub(appended);
            self.require(age <= within, || {
                format!(
                    "{id:?} was {age:?} old when it was lost with the power, and the disk was well"
                )
            });
        }
    }

    /// What was stored and acknowledged, and is not known on disk to be that, may not be older.
    fn check_unsynced(&mut self, now: Duration, within: Duration) {
        let unsynced = self.settled[self.settled_for_good..].iter();
        let mut facts = unsynced.map(|number| &self.facts[*number]);
        let is_late =
            |fact: &&Fact| fact.is_durable && now.saturating_sub(fact.settled_at) > within;
        let late = facts.find(is_late).map(|fact| (fact.id, fact.settled_at));
        if let Some((id, at)) = late {
            let age = now.saturating_sub(at);
            self.fail(format!(
                "{id:?} was acknowledged {age:?} before the crash, and the disk did not know"
            ));
        }
    }

    /// All is healed, and nothing waits any more.
    pub(super) fn end(&mut self, ledger: &Ledger) {
        self.require(ledger.balances(), || {
            format!("the ledger does not add up: {ledger:?}")
        });
        let is_promised = |fact: &&Fact| fact.is_durable || fact.settled_in.is_some();
        let missing: Vec<&Fact> = self
            .facts
            .iter()
            .filter(|fact| is_promised(fact) && !fact.is_unsendable && fact.delivered_on.is_empty())
            .collect();
        let all_missing = missing.len() as u64;
        // What was merged into one that has arrived, and what may have expired: these are in the sum only.
        let plain = missing.into_iter();
        let plain = plain.filter(|fact| !fact.is_covered && !fact.told.may_expire);
        let missing: Vec<RecordId> = plain.map(|fact| fact.id).collect();
        let unsendable = self
            .facts
            .iter()
            .filter(|fact| fact.is_unsendable && is_promised(fact));
        let unsendable = unsendable.count() as u64;
        let overflow = ledger.dropped_overflow_disk + ledger.dropped_overflow_memory;
        let is_damaged = self.harm.is_some();
        // The part of a torn commit that is there makes up, in the count, for as many that are lost: there is a number only.
        let extra = self.facts.iter();
        let extra = extra.filter(|fact| fact.was_unsure && !fact.delivered_on.is_empty());
        let counted = overflow
            + if is_damaged {
                ledger.dropped_damaged + extra.count() as u64
            } else {
                0
            };
        let missed = missing.len() as u64;
        // One that was dropped may have stood for several, each of which is counted.
        let with_others = if counted + ledger.dropped_expired > 0 {
            ledger.dropped_thinned
        } else {
            0
        };
        let in_all = counted + ledger.dropped_thinned + ledger.dropped_expired;
        let is_in_bounds = missed <= counted + with_others && all_missing <= in_all;
        // A damaged one may have stood for several, and what said so may have been damaged with it.
        let may_be_many = is_damaged && ledger.dropped_thinned > 0;
        self.require(is_in_bounds || may_be_many || !self.has_good_books(), || {
            format!("{missed} promised records of {all_missing} never arrived and {counted} are counted as dropped: {missing:?}; {ledger:?}")
        });
        self.require(ledger.dropped_damaged == 0 || is_damaged, || {
            format!(
                "{} records count as damaged, and nothing was",
                ledger.dropped_damaged
            )
        });
        self.require(
            unsendable <= ledger.dead_lettered + ledger.dropped_expired + counted
                || !self.has_good_books(),
            || {
                format!(
                    "{unsendable} records could not be sent, and {} are dead letters",
                    ledger.dead_lettered
                )
            },
        );
        if !self.has_crashed && !is_damaged {
            self.end_without_crash(ledger, missed.saturating_sub(with_others), overflow);
        }
    }

    /// Then every number is known exactly.
    fn end_without_crash(&mut self, ledger: &Ledger, missed: u64, overflow: u64) {
        let taken = self.facts.len() as u64;
        let acknowledged = self.facts.iter().filter(|fact| fact.settled_in.is_some());
        let acknowledged = acknowledged.count() as u64;
        self.require(ledger.accepted == taken, || {
            format!(
                "{taken} records were taken in, and {} are accepted",
                ledger.accepted
            )
        });
        self.require(
            ledger.acknowledged <= acknowledged
                && acknowledged <= ledger.acknowledged + overflow + ledger.dropped_expired,
            || {
                format!(
                    "{acknowledged} records were acknowledged, and {} count as that",
                    ledger.acknowledged
                )
            },
        );
        self.require(missed <= overflow, || {
            format!("{missed} missing, {overflow} dropped")
        });
    }
}
