//! The session against a network and a broker that misbehave at random, under no runtime.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};

use super::{Acknowledged, Mispaired, Part, Sent, Session};
use crate::outbox::{Key, Priority, RecordId};
use crate::simulation::Random;

/// The record that is acknowledged, if it is one.
fn record(acknowledged: Acknowledged) -> Option<RecordId> {
    match acknowledged {
        Acknowledged::Record(key) => Some(key.id),
        _ => None,
    }
}

fn id(seq: u64) -> RecordId {
    RecordId { epoch: 1, seq }
}

/// The part without a boundary.
fn part() -> Part {
    Part::new(Priority::Normal, false, false)
}

fn connected(window: u16) -> Session {
    let mut session = Session::new(window);
    session.connected(RecordId::default());
    session
}

#[test]
fn records_are_paired_in_the_order_of_the_hand_over() {
    let mut session = connected(3);
    for seq in 1..=3 {
        session.hand_over(part(), id(seq), 10 * seq as usize);
    }
    assert_eq!((session.room(), session.cursor(part())), (0, Some(id(3))));
    for packet_id in [7, 8] {
        let sent = session.published(packet_id).unwrap();
        assert_eq!(sent.bytes, 10 * (usize::from(packet_id) - 6));
        assert!(!sent.again);
    }
    assert_eq!(record(session.acknowledged(8)), Some(id(2)));
    assert_eq!((session.room(), session.oldest()), (1, Some(0)));
}

#[test]
fn an_acknowledgement_deletes_its_own_record_only_and_only_once() {
    let mut session = connected(3);
    session.hand_over(part(), id(1), 1);
    assert_eq!(
        record(session.acknowledged(1)),
        None,
        "handed over, but not sent"
    );
    session.published(1).unwrap();
    assert_eq!(record(session.acknowledged(2)), None, "never sent");
    assert_eq!(record(session.acknowledged(1)), Some(id(1)));
    assert_eq!(
        record(session.acknowledged(1)),
        None,
        "acknowledged already"
    );
}

#[test]
fn a_connection_inherits_no_packet_id() {
    let mut session = connected(3);
    session.hand_over(part(), id(1), 1);
    session.hand_over(part(), id(2), 1);
    session.published(1).unwrap();
    session.disconnected();
    assert_eq!((session.room(), session.cursor(part())), (0, None));
    session.connected(RecordId::default());
    assert_eq!(
        record(session.acknowledged(1)),
        None,
        "a PUBACK of the last connection"
    );

    session.hand_over(part(), id(1), 1);
    session.hand_over(part(), id(2), 1);
    let again = |again| Ok(Sent { bytes: 1, again });
    assert_eq!(session.published(1), again(true));
    assert_eq!(
        session.published(2),
        again(false),
        "it was handed over, never sent"
    );
}

#[test]
fn a_packet_id_without_a_record_or_in_use_is_refused() {
    let mut session = connected(3);
    assert_eq!(session.published(5), Err(Mispaired(5)));
    session.hand_over(part(), id(1), 1);
    session.hand_over(part(), id(2), 1);
    session.published(5).unwrap();
    assert_eq!(session.published(5), Err(Mispaired(5)));
}

#[test]
fn a_record_that_cannot_be_sent_is_passed_over() {
    let mut session = connected(1);
    session.pass_over(part(), id(1));
    assert_eq!((session.room(), session.cursor(part())), (1, Some(id(1))));
}

/// Records wait in `backlog`; the client sends them under cyclic packet ids; the broker takes them and acknowledges them
/// late, out of order, twice or not at all; the connection breaks at any time.
struct World {
    random: Random,
    session: Session,
    window: usize,
    backlog: BTreeSet<RecordId>,
    /// Handed over to the client and not sent.
    client: VecDeque<RecordId>,
    /// Sent on this connection; lost with it unless it has arrived.
    sent: VecDeque<(u16, RecordId)>,
    /// Packet ids the broker has taken on this connection, and not acknowledged.
    taken: BTreeMap<u16, RecordId>,
    /// PUBACKs under way.
    acks: VecDeque<(u16, Option<RecordId>)>,
    next_packet_id: u16,
    received: Vec<RecordId>,
    received_on_connection: Vec<RecordId>,
    connections: usize,
    resent: usize,
    unexpected: usize,
    bogus: usize,
}

/// Twice the window and more: ids come round late.
const PACKET_IDS: u16 = 40;

impl World {
    fn new(seed: u64, records: u64) -> World {
        let mut random = Random::new(seed);
        let window = 1 + random.below(12);
        World {
            random,
            session: Session::new(window as u16),
            window,
            backlog: (1..=records).map(id).collect(),
            client: VecDeque::new(),
            sent: VecDeque::new(),
            taken: BTreeMap::new(),
            acks: VecDeque::new(),
            next_packet_id: 0,
            received: Vec::new(),
            received_on_connection: Vec::new(),
            connections: 0,
            resent: 0,
            unexpected: 0,
            bogus: 0,
        }
    }

    fn connect(&mut self) {
        self.session.connected(RecordId::default());
        self.connections += 1;
        self.next_packet_id = 0;
        self.received_on_connection.clear();
    }

    fn disconnect(&mut self) {
        self.session.disconnected();
        self.client.clear();
        self.sent.clear();
        self.taken.clear();
        self.acks.clear();
    }

    fn hand_over(&mut self) {
        let (room, cursor) = (self.session.room(), self.session.cursor(part()));
        // Fewer than there is room for, as a backlog may give.
        let limit = self.random.below(room + 1);
        let after = |record: &&RecordId| cursor < Some(**record);
        let offered: Vec<RecordId> = self
            .backlog
            .iter()
            .filter(after)
            .take(limit)
            .copied()
            .collect();
        for record in offered {
            self.session.hand_over(part(), record, 1);
            self.client.push_back(record);
        }
        assert!(self.session.outstanding() <= self.window);
    }

    fn send(&mut self) {
        let Some(record) = self.client.pop_front() else {
            return;
        };
        self.next_packet_id = self.next_packet_id % PACKET_IDS + 1;
        let packet_id = self.next_packet_id;
        let in_use = self.taken.contains_key(&packet_id)
            || self.sent.iter().any(|sent| sent.0 == packet_id)
            || self.acks.iter().any(|ack| ack.0 == packet_id);
        if in_use {
            // rumqttc holds a publish back while its packet id is in use. A repeated PUBACK that comes after its id is
            // in use again cannot be told from the right one, by nobody: MQTT forbids it, and so does this broker.
            self.next_packet_id -= 1;
            return self.client.push_front(record);
        }
        let sent = self
            .session
            .published(packet_id)
            .expect("ids in use are not sent again");
        self.resent += usize::from(sent.again);
        self.sent.push_back((packet_id, record));
    }

    fn arrive(&mut self) {
        let Some((packet_id, record)) = self.sent.pop_front() else {
            return;
        };
        self.taken.insert(packet_id, record);
        self.received.push(record);
        let last = self.received_on_connection.last();
        assert!(
            last < Some(&record),
            "{record:?} after {last:?} on one connection"
        );
        self.received_on_connection.push(record);
    }

    fn acknowledge(&mut self) {
        if self.taken.is_empty() {
            return;
        }
        let any = self.random.below(self.taken.len());
        let (&packet_id, &record) = self.taken.iter().nth(any).expect("it is not empty");
        self.taken.remove(&packet_id);
        self.acks.push_back((packet_id, Some(record)));
        if self.random.one_in(8) {
            self.acks.push_back((packet_id, None));
            self.bogus += 1;
        }
        if self.random.one_in(8) {
            self.acks
                .push_back((PACKET_IDS + 1 + self.random.below(1_000) as u16, None));
            self.bogus += 1;
        }
    }

    fn ack_arrives(&mut self) {
        let Some((packet_id, owner)) = self.acks.pop_front() else {
            return;
        };
        let deleted = record(self.session.acknowledged(packet_id));
        assert_eq!(
            deleted, owner,
            "a PUBACK deletes the record it stands for and no other"
        );
        match deleted {
            Some(record) => assert!(self.backlog.remove(&record), "{record:?} was deleted twice"),
            None => self.unexpected += 1,
        }
    }

    fn run(&mut self, records: u64) {
        self.connect();
        let mut steps = 0;
        while !self.backlog.is_empty() {
            match self.random.below(if steps < 20_000 { 400 } else { 399 }) {
                0..100 => self.hand_over(),
                100..200 => self.send(),
                200..300 => self.arrive(),
                300..350 => self.acknowledge(),
                350..399 => self.ack_arrives(),
                _ => {
                    self.disconnect();
                    self.connect();
                }
            }
            steps += 1;
            assert!(
                steps < 200_000,
                "no progress, {} records left",
                self.backlog.len()
            );
        }
        let distinct: HashSet<RecordId> = self.received.iter().copied().collect();
        assert_eq!(distinct.len() as u64, records, "every record has arrived");
        let duplicates = self.received.len() - distinct.len();
        assert!(
            duplicates <= self.window * (self.connections - 1),
            "{duplicates} duplicates, {} connections, window {}",
            self.connections,
            self.window
        );
        assert!(
            duplicates <= self.resent,
            "a duplicate is a record sent again"
        );
        let mut first_seen = BTreeSet::new();
        let firsts: Vec<_> = self
            .received
            .iter()
            .filter(|r| first_seen.insert(**r))
            .collect();
        assert!(firsts.is_sorted(), "in order once the duplicates are gone");
        assert!(self.unexpected <= self.bogus);
    }
}

#[test]
fn nothing_is_lost_or_deleted_early_on_a_random_network() {
    let (mut connections, mut unexpected) = (0, 0);
    for seed in 0..200 {
        let outcome = std::panic::catch_unwind(|| {
            let mut world = World::new(seed, 300);
            world.run(300);
            (world.connections, world.unexpected)
        });
        let Ok(counts) = outcome else {
            panic!("seed {seed}")
        };
        connections += counts.0;
        unexpected += counts.1;
    }
    assert!(
        connections > 400 && unexpected > 400,
        "{connections} {unexpected}: too peaceful"
    );
}

#[test]
fn a_live_first_lane_is_divided_at_the_boundary_and_acknowledged_by_its_own_lane() {
    let mut session = Session::new(3);
    session.connected(id(5));
    let live = Part::new(Priority::High, true, false);
    let replayed = Part::new(Priority::High, true, true);
    assert_eq!(session.cursor(live), Some(id(5)));
    assert_eq!(session.cursor(replayed), None);
    for (seq, is_live) in [(5, false), (6, true)] {
        assert_eq!(session.takes(live, id(seq)), is_live, "{seq}");
        assert_eq!(session.takes(replayed, id(seq)), !is_live, "{seq}");
        assert!(session.takes(part(), id(seq)), "{seq}");
    }
    session.hand_over(live, id(6), 1);
    session.hand_over(replayed, id(2), 1);
    assert_eq!(session.cursor(live), Some(id(6)));
    assert_eq!(session.cursor(replayed), Some(id(2)));
    session.published(1).unwrap();
    let key = Key {
        lane: live.lane,
        id: id(6),
    };
    assert_eq!(session.acknowledged(1), Acknowledged::Record(key));
}

#[test]
fn what_is_no_record_takes_a_place_in_the_window_and_acknowledges_nothing() {
    let mut session = Session::new(2);
    session.connected(id(0));
    session.announce(9);
    session.hand_over(part(), id(1), 5);
    assert_eq!((session.room(), session.oldest()), (0, Some(0)));
    let sent = |bytes| {
        Ok(Sent {
            bytes,
            again: false,
        })
    };
    assert_eq!(session.published(1), sent(9));
    assert_eq!(session.published(2), sent(5));
    assert_eq!(session.acknowledged(1), Acknowledged::Announcement);
    assert_eq!(session.acknowledged(1), Acknowledged::Nothing);
    assert_eq!(record(session.acknowledged(2)), Some(id(1)));
}

#[test]
fn announcements_that_follow_each_other_are_not_one_that_is_never_acknowledged() {
    let mut session = connected(1);
    let mut seen = BTreeSet::new();
    for packet_id in 1..=4 {
        session.announce(1);
        session.published(packet_id).unwrap();
        assert!(seen.insert(session.oldest()), "{seen:?}");
        assert_eq!(session.acknowledged(packet_id), Acknowledged::Announcement);
    }
}
