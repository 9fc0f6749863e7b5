//! What a seed stands for: the settings of a device, how long it lives, and what goes wrong with it.

use std::fmt;
use std::time::Duration;

use super::Random;
use crate::outbox::WhenFull;
use crate::outbox::simulated::Sizes;
use crate::uplink::DrainLimits;
use crate::uplink::simulated::LinkSettings;

/// A life. What else happens in it follows from the seed.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) sizes: Sizes,
    pub(super) generation_size: u64,
    pub(super) link: LinkSettings,
    /// Between messages, on average.
    pub(super) pace: Duration,
    pub(super) payload_max: usize,
    /// Whether all messages are numbers, but for a few, and not half of them only.
    pub(super) is_of_numbers: bool,
    /// How long faults begin and messages come. Then all is healed.
    pub(super) length: Duration,
    pub(super) faults: Vec<Fault>,
}

/// Something that goes wrong.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fault {
    pub(super) at: Duration,
    pub(super) lasts: Duration,
    pub(super) kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Kill,
    PowerCut,
    /// SIGTERM, and a start.
    Restart,
    /// The device stops in the midst of one of its next writes.
    KillInWrite,
    PowerCutInWrite,
    DiskFull,
    WriteError,
    FailedSync,
    SlowSync,
    /// Reads fail a few times.
    ReadError,
    /// Reads fail more often than anybody tries.
    BadMedium,
    FlippedByte,
    /// The connection ends.
    Dropped,
    /// What is sent vanishes, in both directions.
    HalfOpen,
    SlowNetwork,
    /// The old connection's packets come to the broker after the new one's.
    LatePackets,
    BrokerAway,
    /// Nothing answers, not even with a refusal.
    Unreachable,
    SlowBroker,
    /// It answers pings, and acknowledges nothing.
    SilentBroker,
    /// It receives, and dies before it acknowledges.
    BrokerDies,
    RepeatedAcks,
    WrongAcks,
    ShuffledAcks,
    ClockForward,
    ClockBack,
    /// Many messages at once.
    Burst,
}

impl Kind {
    pub(super) const ALL: [Kind; 27] = [
        Kind::Kill,
        Kind::PowerCut,
        Kind::Restart,
        Kind::KillInWrite,
        Kind::PowerCutInWrite,
        Kind::DiskFull,
        Kind::WriteError,
        Kind::FailedSync,
        Kind::SlowSync,
        Kind::ReadError,
        Kind::BadMedium,
        Kind::FlippedByte,
        Kind::Dropped,
        Kind::HalfOpen,
        Kind::SlowNetwork,
        Kind::LatePackets,
        Kind::BrokerAway,
        Kind::Unreachable,
        Kind::SlowBroker,
        Kind::SilentBroker,
        Kind::BrokerDies,
        Kind::RepeatedAcks,
        Kind::WrongAcks,
        Kind::ShuffledAcks,
        Kind::ClockForward,
        Kind::ClockBack,
        Kind::Burst,
    ];

    /// Whether the disk is part of it.
    pub(super) fn is_of_disk(self) -> bool {
        use Kind::{BadMedium, DiskFull, FailedSync, FlippedByte, ReadError, SlowSync, WriteError};
        matches!(
            self,
            DiskFull | WriteError | FailedSync | SlowSync | ReadError | BadMedium | FlippedByte
        )
    }
}

impl Plan {
    pub(super) fn of(seed: u64) -> Plan {
        let random = &mut Random::of(seed, 1);
        let millis =
            |random: &mut Random, low, high| Duration::from_millis(random.between(low, high));
        let commit = match random.below(6) {
            0 => Duration::ZERO,
            _ => millis(random, 200, 2_000),
        };
        let max_size = random.between(300, 900) * 1024;
        let window = random.between(1, 12) as u16;
        let length = millis(random, 5_000, 25_000);
        // Some lives have one kind of trouble only, which shows what it does by itself; some have crashes and a bad disk.
        let kinds: Vec<Kind> = match random.below(5) {
            0 => vec![random.pick(&Kind::ALL)],
            1 => Kind::ALL.into_iter().filter(|_| random.one_in(4)).collect(),
            2 => Kind::ALL
                .into_iter()
                .filter(|kind| kind.is_of_device())
                .collect(),
            _ => Kind::ALL
                .into_iter()
                .filter(|kind| !kind.is_damage() || random.one_in(4))
                .collect(),
        };
        let count = if kinds.is_empty() {
            0
        } else {
            random.between(1, 12)
        };
        let mut faults: Vec<Fault> = (0..count)
            .map(|_| Fault {
                at: millis(random, 500, length.as_millis() as u64),
                lasts: millis(random, 100, 8_000),
                kind: random.pick(&kinds),
            })
            .collect();
        faults.sort_by_key(|fault| fault.at);
        Plan {
            seed,
            sizes: Sizes {
                commit,
                commit_bytes: random.between(1, 8) as usize * 1024,
                max_pending: random.between(4, 48) as usize * 1024,
                max_size,
                when_full: random.pick(&[
                    WhenFull::DropOldest,
                    WhenFull::DropNewest,
                    WhenFull::Thin,
                    WhenFull::Thin,
                    WhenFull::Block,
                ]),
            },
            generation_size: max_size / random.between(4, 8),
            link: LinkSettings {
                window,
                packet_ids: (window * 8).max(64),
                keep_alive: Duration::from_secs(random.between(1, 6)),
                retry_max: Duration::from_secs(random.between(1, 15)),
                max_packet: 1_400,
                drain: match random.below(4) {
                    0 => DrainLimits {
                        messages: Some(random.between(5, 60) as u32),
                        bytes: Some(random.between(2, 40) * 1024),
                    },
                    _ => DrainLimits::default(),
                },
            },
            pace: millis(random, 40, 400),
            payload_max: random.between(8, 500) as usize,
            is_of_numbers: random.one_in(3),
            length,
            faults,
        }
    }
}

impl Kind {
    /// Whether it is of the device, and not of the network.
    fn is_of_device(self) -> bool {
        use Kind::{BrokerAway, Burst, Kill, KillInWrite, PowerCut, PowerCutInWrite};
        let others = [
            Kill,
            PowerCut,
            KillInWrite,
            PowerCutInWrite,
            BrokerAway,
            Burst,
        ];
        (self.is_of_disk() && !self.is_damage()) || others.contains(&self)
    }

    /// Whether it may destroy what was durable.
    pub(super) fn is_damage(self) -> bool {
        matches!(self, Kind::BadMedium | Kind::FlippedByte)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fault { at, lasts, kind } = self;
        write!(f, "at {at:>9.3?}  {kind:?} ({lasts:.3?})")
    }
}
