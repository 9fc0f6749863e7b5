//! The uplink against a broker over sockets and TLS whose answers are wrong or missing: what arrives, and what is deleted.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::test_backlog::TestBacklog;
use super::test_broker::{Acks, GOOD, Script, Seen, TestBroker};
use super::test_world::{World, assert_said, down, soon, start, start_with_farewell, up};
use super::{Kind, Settings, wire};
use crate::outbox::RecordId;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_records_arrive_in_order_and_are_deleted_only_on_their_own_puback() {
    const RECORDS: u64 = 2_000;
    const WINDOW: u16 = 40;
    // With a session claimed, rumqttc would send what it kept from the last connection, beside the session's back.
    let script = |acks, drop_at| Script {
        acks,
        drop_at,
        claims_session: true,
        ..GOOD
    };
    let scripts = [
        script(Acks::All, 150),
        script(Acks::Withhold(7), 120),
        script(Acks::Bogus(100), usize::MAX),
        script(Acks::Reverse(5), 300),
        script(Acks::Never, 20),
        script(Acks::Twice(50), usize::MAX),
        script(Acks::Silent, 30),
        script(Acks::All, 1),
        script(Acks::Reverse(9), 200),
        GOOD,
    ];
    let world = World::new();
    let broker = TestBroker::start(&world.tls(), &scripts).await;
    let early = Arc::new(Mutex::new(Vec::new()));
    let backlog = {
        let (seen, early) = (Arc::clone(&broker.seen), Arc::clone(&early));
        TestBacklog::new(move |id: RecordId| {
            if !seen.lock().unwrap().acknowledged.contains(&id) {
                early.lock().unwrap().push(id);
            }
        })
    };
    let topic = |seq: u64| format!("plant/{}", seq % 3);
    for seq in 1..=RECORDS / 2 {
        backlog.push(seq, &topic(seq), &seq.to_string());
    }
    let uplink = start(
        Settings {
            inflight: WINDOW,
            ..world.settings(broker.port)
        },
        &backlog,
    );
    soon(up(&uplink)).await;
    for seq in RECORDS / 2 + 1..=RECORDS {
        backlog.push(seq, &topic(seq), &seq.to_string());
        if seq % 10 == 0 {
            tokio::task::yield_now().await;
        }
    }
    soon(backlog.emptied()).await;
    let counts = uplink.status().borrow().counts();
    soon(uplink.stop()).await;

    assert_eq!(
        *early.lock().unwrap(),
        [],
        "deleted before the broker sent a PUBACK"
    );
    let seen = broker.seen.lock().unwrap();
    check_arrivals(&seen, RECORDS);
    let duplicates = seen.received.len() as u64 - RECORDS;
    let reconnects = counts.connects - 1;
    assert_eq!(
        reconnects,
        scripts.len() as u64 - 1,
        "every script was played"
    );
    assert!(
        duplicates <= u64::from(WINDOW) * reconnects,
        "{duplicates} duplicates"
    );
    assert!(
        duplicates <= counts.resent,
        "{duplicates} duplicates, {counts:?}"
    );
    assert_eq!(counts.acknowledged, RECORDS);
    assert_eq!(
        counts.unexpected_acks, 2,
        "the unknown id and the repeated one"
    );
    assert!(counts.published >= seen.received.len() as u64);
    assert!(counts.publish_bytes >= seen.publish_bytes);
    assert_eq!(backlog.acknowledged().len() as u64, RECORDS);
    assert!(
        seen.client_ids.iter().all(|id| id == "press-7"),
        "{:?}",
        seen.client_ids
    );
}

/// Everything is there, as it was pushed, and in order per topic once the duplicates are gone.
fn check_arrivals(seen: &Seen, records: u64) {
    let mut known = HashSet::new();
    let mut last: HashMap<&str, u64> = HashMap::new();
    for publish in seen
        .received
        .iter()
        .filter(|publish| known.insert(publish.id))
    {
        let seq = publish.id.seq;
        assert_eq!(publish.body["device"], "press-7");
        assert_eq!(publish.body["payload"], seq);
        assert_eq!(publish.topic, format!("plant/{}", seq % 3));
        let before = last.insert(&publish.topic, seq);
        assert!(
            before < Some(seq),
            "{seq} after {before:?} on {}",
            publish.topic
        );
    }
    assert_eq!(known.len() as u64, records, "all have arrived");
}

#[tokio::test]
async fn a_quiet_connection_sends_each_record_once_and_counts_its_bytes() {
    let world = World::new();
    let broker = TestBroker::start(&world.tls(), &[GOOD]).await;
    let backlog = TestBacklog::new(|_| {});
    let uplink = start(world.settings(broker.port), &backlog);
    soon(up(&uplink)).await;
    for seq in 1..=500 {
        backlog.push(seq, "plant", "{}");
    }
    soon(backlog.emptied()).await;
    let counts = uplink.status().borrow().counts();
    soon(uplink.stop()).await;
    let seen = broker.seen.lock().unwrap();
    assert_eq!(
        (counts.published, counts.resent, counts.unexpected_acks),
        (500, 0, 0)
    );
    assert_eq!(counts.publish_bytes, seen.publish_bytes);
    assert_eq!(seen.received.len(), 500);
}

#[tokio::test]
async fn what_can_never_be_sent_is_a_dead_letter_and_holds_up_nothing() {
    // More than the library's own least limit, so that ours is its limit too.
    const MAX_PACKET: usize = 100_000;
    let world = World::new();
    let broker = TestBroker::start(&world.tls(), &[GOOD]).await;
    let backlog = TestBacklog::new(|_| {});
    // The first fills its packet to the last byte, the second is one byte longer; rumqttc must see it as we do.
    let envelope =
        r#"{"device":"press-7","epoch":1,"seq":1,"time":"1970-01-01T00:00:00.001Z","payload":""}"#;
    let frame = wire::publish_size("plant".len(), MAX_PACKET) - MAX_PACKET;
    let fits = MAX_PACKET - frame - envelope.len();
    backlog.push(1, "plant", &format!("\"{}\"", "x".repeat(fits)));
    backlog.push(2, "plant", &format!("\"{}\"", "x".repeat(fits + 1)));
    backlog.push(3, "plant/+", "3");
    backlog.push(4, "", "4");
    backlog.push(5, "plant\0", "5");
    backlog.push(6, "plant", "6");
    let settings = Settings {
        max_packet: MAX_PACKET,
        ..world.settings(broker.port)
    };
    let uplink = start(settings, &backlog);
    soon(backlog.emptied()).await;
    let counts = uplink.status().borrow().counts();
    soon(uplink.stop()).await;
    let arrived: Vec<u64> = broker
        .seen
        .lock()
        .unwrap()
        .received
        .iter()
        .map(|p| p.id.seq)
        .collect();
    assert_eq!(arrived, [1, 6]);
    assert_eq!((counts.dead_lettered, counts.connects), (4, 1));
    let letters = backlog.dead_letters();
    let seqs: Vec<u64> = letters.iter().map(|letter| letter.0).collect();
    assert_eq!(seqs, [2, 3, 4, 5]);
    assert!(
        letters[0]
            .1
            .contains("100001 bytes, and the limit `max_packet` of the uplink is 100000"),
        "{letters:?}"
    );
}

#[tokio::test]
async fn a_stop_says_goodbye_also_when_the_window_is_full() {
    let world = World::new();
    let script = Script {
        acks: Acks::Never,
        ..GOOD
    };
    let broker = TestBroker::start(&world.tls(), &[script]).await;
    let backlog = TestBacklog::new(|_| {});
    for seq in 1..=10 {
        backlog.push(seq, "plant", "1");
    }
    let settings = Settings {
        inflight: 4,
        ..world.settings(broker.port)
    };
    let uplink = start(settings, &backlog);
    let saw = async |what: fn(&Seen) -> bool| {
        while !what(&broker.seen.lock().unwrap()) {
            tokio::task::yield_now().await;
        }
    };
    soon(saw(|seen| seen.received.len() == 4)).await;
    soon(uplink.stop()).await;
    soon(saw(|seen| seen.disconnects == 1)).await;
    let received = broker.seen.lock().unwrap().received.len();
    assert_eq!(received, 4, "a window and no more");
    assert_eq!(backlog.acknowledged(), [], "nothing was acknowledged");
}

/// The stall used to end the farewell as a failure, and the task panicked at its second look at `stop`.
#[tokio::test]
async fn a_stop_says_goodbye_also_when_the_broker_stalls_during_the_farewell() {
    let world = World::new();
    let script = Script {
        acks: Acks::Never,
        ..GOOD
    };
    let broker = TestBroker::start(&world.tls(), &[script]).await;
    let backlog = TestBacklog::new(|_| {});
    backlog.push(1, "plant", "1");
    let settings = Settings {
        keep_alive: Duration::from_secs(1),
        ..world.settings(broker.port)
    };
    // Longer than it takes to notice a stall: four keep-alives after the first look.
    let uplink = start_with_farewell(settings, &backlog, Duration::from_millis(5_500));
    let received = async {
        while broker.seen.lock().unwrap().received.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    soon(received).await;
    soon(uplink.stop()).await;
    let goodbye = async {
        while broker.seen.lock().unwrap().disconnects == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon(goodbye).await;
    assert_eq!(broker.seen.lock().unwrap().client_ids.len(), 1);
}

#[tokio::test]
async fn a_broker_that_does_not_acknowledge_is_left_and_all_is_sent_again() {
    let world = World::new();
    let script = Script {
        acks: Acks::Never,
        ..GOOD
    };
    let broker = TestBroker::start(&world.tls(), &[script, GOOD]).await;
    let backlog = TestBacklog::new(|_| {});
    backlog.push(1, "plant", "1");
    let settings = Settings {
        keep_alive: Duration::from_secs(1),
        ..world.settings(broker.port)
    };
    let uplink = start(settings, &backlog);
    let reason = soon(down(&uplink)).await;
    assert_said(&reason, Kind::NotAcknowledged, &["unacknowledged for 4s"]);
    soon(backlog.emptied()).await;
    let counts = uplink.status().borrow().counts();
    assert_eq!(
        (counts.published, counts.resent, counts.connects),
        (2, 1, 2)
    );
}
