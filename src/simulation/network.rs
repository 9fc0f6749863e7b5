//! The network between the uplink and a broker, and that broker: each with its faults.
//!
//! A connection keeps the order of what goes through it. What it loses, it loses from some packet on.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Random;
use super::plan::Kind;
use crate::uplink::simulated::Signal;

/// What travels, or happens, on a connection.
#[derive(Clone, Copy, Debug)]
pub(super) enum Travel {
    /// To the broker: message `number` under a packet id.
    Publish {
        packet_id: u16,
        number: usize,
    },
    /// The same, long after the client gave the connection up.
    LatePublish {
        packet_id: u16,
        number: usize,
    },
    Ping,
    /// The client is gone.
    Bye,
    /// The broker has had a publish for a while.
    BrokerActs,
    /// To the client.
    Answer(Signal),
}

/// What the world has to do about it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Outcome {
    At(Duration, u32, Travel),
    Delivered(u32, usize),
    Acknowledges(u32, usize),
    Signal(Signal),
    /// The broker is away from now on, for so long.
    BrokerDied(Duration),
    Hit(&'static str),
}

#[derive(Debug, Default)]
struct Connection {
    client_is_there: bool,
    broker_is_there: bool,
    /// What is sent on it vanishes.
    is_half_open: bool,
    /// What is under way takes this much longer, and arrives although there is a newer connection.
    is_late: Option<Duration>,
    /// The broker dies when it has received as many more.
    dies_after: Option<u32>,
    /// Nothing arrives earlier than what was sent before it.
    up_at: Duration,
    down_at: Duration,
    /// Received, not acknowledged.
    taken: Vec<(u16, usize)>,
}

pub(super) struct Network {
    connections: BTreeMap<u32, Connection>,
    /// How many faults of a kind there are now.
    active: BTreeMap<Kind, u32>,
    random: Random,
    /// Ids beyond this are never used.
    packet_ids: u16,
    pub(super) outcomes: Vec<Outcome>,
}

impl Network {
    pub(super) fn new(random: Random, packet_ids: u16) -> Network {
        Network {
            connections: BTreeMap::new(),
            active: BTreeMap::new(),
            random,
            packet_ids,
            outcomes: Vec::new(),
        }
    }

    pub(super) fn begin(&mut self, kind: Kind) {
        *self.active.entry(kind).or_default() += 1;
    }

    pub(super) fn end(&mut self, kind: Kind) {
        if let Some(active) = self.active.get_mut(&kind) {
            *active = active.saturating_sub(1);
        }
    }

    fn is(&self, kind: Kind) -> bool {
        self.active.get(&kind).is_some_and(|active| *active > 0)
    }

    /// Everything works from now on. What has vanished does not come back.
    pub(super) fn heal(&mut self) {
        self.active.clear();
        for connection in self.connections.values_mut() {
            connection.dies_after = None;
        }
    }

    fn latency(&mut self) -> Duration {
        let slowest = if self.is(Kind::SlowNetwork) {
            4_000
        } else {
            40
        };
        Duration::from_millis(self.random.between(1, slowest))
    }

    fn hit(&mut self, what: &'static str) {
        self.outcomes.push(Outcome::Hit(what));
    }

    fn newest(&mut self) -> Option<&mut Connection> {
        let (_, newest) = self.connections.last_key_value()?;
        if !newest.client_is_there || newest.is_half_open {
            return None;
        }
        self.connections.values_mut().next_back()
    }

    /// The client wants a connection.
    pub(super) fn connect(&mut self, number: u32, now: Duration) {
        if self.is(Kind::Unreachable) {
            return self.hit("no answer to a connect");
        }
        let there = now + self.latency();
        let back = there + self.latency();
        if self.is(Kind::BrokerAway) {
            self.hit("refused");
            let answer = Travel::Answer(Signal::Refused(number));
            return self.outcomes.push(Outcome::At(back, number, answer));
        }
        // The broker lets an old connection of the same client go.
        for old in self.connections.values_mut() {
            old.broker_is_there &= old.is_late.is_some();
        }
        while self.connections.len() > 4 {
            self.connections.pop_first();
        }
        let connection = Connection {
            client_is_there: true,
            broker_is_there: true,
            up_at: there,
            down_at: back,
            ..Connection::default()
        };
        self.connections.insert(number, connection);
        let answer = Travel::Answer(Signal::Connected(number));
        self.outcomes.push(Outcome::At(back, number, answer));
    }

    /// Sends something to the broker.
    pub(super) fn send(&mut self, number: u32, travel: Travel, now: Duration) {
        let latency = self.latency();
        let Some(connection) = self.connections.get_mut(&number) else {
            return;
        };
        if connection.is_half_open {
            return self.hit("sent into a half-open connection");
        }
        connection.up_at = connection.up_at.max(now + latency);
        let at = connection.up_at;
        self.outcomes.push(Outcome::At(at, number, travel));
    }

    fn answer(&mut self, number: u32, signal: Signal, now: Duration) {
        let latency = self.latency();
        let Some(connection) = self.connections.get_mut(&number) else {
            return;
        };
        if connection.is_half_open {
            return;
        }
        connection.down_at = connection.down_at.max(now + latency);
        let at = connection.down_at;
        self.outcomes
            .push(Outcome::At(at, number, Travel::Answer(signal)));
    }

    /// The client has given a connection up.
    pub(super) fn client_closes(&mut self, number: u32, now: Duration) {
        self.send(number, Travel::Bye, now);
        if let Some(connection) = self.connections.get_mut(&number) {
            connection.client_is_there = false;
        }
    }

    /// The client's connections are gone without a word, as its process is.
    pub(super) fn client_dies(&mut self, number: u32, now: Duration, is_power_cut: bool) {
        if is_power_cut {
            if let Some(connection) = self.connections.get_mut(&number) {
                connection.client_is_there = false;
            }
        } else {
            self.client_closes(number, now);
        }
    }

    /// The connection breaks, and both ends notice.
    pub(super) fn drop_connection(&mut self, now: Duration) {
        let Some((number, _)) = self.connections.last_key_value() else {
            return;
        };
        let number = *number;
        self.answer(number, Signal::Closed(number), now);
        if let Some(connection) = self.newest() {
            connection.broker_is_there = false;
            self.hit("connection dropped");
        }
    }

    /// From now on what is sent on the connection vanishes.
    pub(super) fn half_open(&mut self) {
        if let Some(connection) = self.newest() {
            connection.is_half_open = true;
            self.hit("connection half open");
        }
    }

    /// The client believes the connection to be gone; what it has sent comes late all the same.
    pub(super) fn make_late(&mut self, now: Duration) {
        let by = Duration::from_millis(self.random.between(300, 4_000));
        let Some((number, _)) = self.connections.last_key_value() else {
            return;
        };
        let number = *number;
        if let Some(connection) = self.newest() {
            connection.is_late = Some(by);
            self.answer(number, Signal::Closed(number), now);
        }
    }

    /// The broker dies after a few more publishes.
    pub(super) fn let_broker_die(&mut self) {
        let after = self.random.between(1, 8) as u32;
        if let Some(connection) = self.newest() {
            connection.dies_after = Some(after);
        }
    }

    pub(super) fn broker_goes_away(&mut self, now: Duration) {
        let numbers: Vec<u32> = self.connections.keys().copied().collect();
        for number in numbers {
            self.answer(number, Signal::Closed(number), now);
        }
        for connection in self.connections.values_mut() {
            connection.broker_is_there = false;
        }
    }

    /// Something has arrived.
    pub(super) fn arrive(&mut self, number: u32, travel: Travel, now: Duration) {
        let Some(connection) = self.connections.get_mut(&number) else {
            // Refusals have none.
            if let Travel::Answer(signal) = travel {
                self.outcomes.push(Outcome::Signal(signal));
            }
            return;
        };
        match travel {
            Travel::Answer(signal) => {
                if connection.client_is_there && !connection.is_half_open {
                    self.outcomes.push(Outcome::Signal(signal));
                } else if matches!(signal, Signal::Acknowledged(..)) {
                    self.hit("PUBACK for a connection that is gone");
                }
            }
            _ if !connection.broker_is_there => {}
            Travel::Ping => self.answer(number, Signal::PingAnswered(number), now),
            Travel::Bye => connection.broker_is_there = connection.is_late.is_some(),
            Travel::Publish {
                packet_id,
                number: message,
            } => {
                let late = connection.is_late.filter(|_| !connection.client_is_there);
                let Some(by) = late else {
                    return self.receive(number, packet_id, message, now);
                };
                let travel = Travel::LatePublish {
                    packet_id,
                    number: message,
                };
                self.outcomes.push(Outcome::At(now + by, number, travel));
            }
            Travel::LatePublish {
                packet_id,
                number: message,
            } => {
                self.receive(number, packet_id, message, now);
            }
            Travel::BrokerActs => self.acknowledge(number, now),
        }
    }

    fn receive(&mut self, number: u32, packet_id: u16, message: usize, now: Duration) {
        self.outcomes.push(Outcome::Delivered(number, message));
        let takes = if self.is(Kind::SlowBroker) {
            self.hit("slow broker");
            self.random.between(300, 3_000)
        } else {
            self.random.between(0, 20)
        };
        let Some(connection) = self.connections.get_mut(&number) else {
            return;
        };
        if !connection.client_is_there && connection.is_late.is_some() {
            self.outcomes
                .push(Outcome::Hit("late packet of an old connection"));
        }
        connection.taken.push((packet_id, message));
        if let Some(left) = &mut connection.dies_after {
            *left -= 1;
            if *left == 0 {
                connection.dies_after = None;
                self.broker_goes_away(now);
                self.hit("broker dies before it acknowledges");
                let away = Duration::from_millis(self.random.between(100, 5_000));
                return self.outcomes.push(Outcome::BrokerDied(away));
            }
        }
        let acts = now + Duration::from_millis(takes);
        self.outcomes
            .push(Outcome::At(acts, number, Travel::BrokerActs));
    }

    fn acknowledge(&mut self, number: u32, now: Duration) {
        if self.is(Kind::SilentBroker) {
            return self.hit("broker does not acknowledge");
        }
        let is_shuffled = self.is(Kind::ShuffledAcks);
        let Some(connection) = self.connections.get_mut(&number) else {
            return;
        };
        if connection.taken.is_empty() {
            return;
        }
        let mut at = 0;
        if is_shuffled && connection.taken.len() > 1 {
            at = self.random.below(connection.taken.len());
        }
        let (packet_id, message) = connection.taken.remove(at);
        if at > 0 {
            self.hit("PUBACK out of order");
        }
        self.outcomes.push(Outcome::Acknowledges(number, message));
        let acknowledge = |network: &mut Network, packet_id| {
            network.answer(number, Signal::Acknowledged(number, packet_id), now);
        };
        acknowledge(self, packet_id);
        if self.is(Kind::RepeatedAcks) && self.random.one_in(6) {
            self.hit("PUBACK repeated");
            acknowledge(self, packet_id);
        }
        if self.is(Kind::WrongAcks) && self.random.one_in(6) {
            self.hit("PUBACK with a wrong id");
            let wrong = self.packet_ids + 1 + self.random.below(1_000) as u16;
            acknowledge(self, wrong);
        }
    }
}
