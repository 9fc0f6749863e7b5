//! The uplink against a broker of flesh and blood: sockets, TLS, and answers that are wrong or missing.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::version::{TLS12, TLS13};
use tempfile::TempDir;
use tokio::time::timeout;

use super::test_backlog::TestBacklog;
use super::test_broker::{Acks, GOOD, Script, Seen, TestBroker, Tls};
use super::test_pki::{Authority, Identity, VALID, write_files};
use super::timing::Timing;
use super::{Kind, LinkState, Reason, Settings, Uplink, parse_url, wire};
use crate::outbox::RecordId;
use crate::runtime::clock::Clock;

/// A CA, a broker's certificate and a device's, and the files of the device.
struct World {
    ca: Authority,
    broker: Identity,
    device: Identity,
    dir: TempDir,
}

impl World {
    fn new() -> World {
        let ca = Authority::new("test CA");
        World {
            broker: ca.issue(&["localhost"], VALID),
            device: ca.issue(&["press-7"], VALID),
            ca,
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn tls(&self) -> Tls<'_> {
        Tls {
            identity: &self.broker,
            clients: &self.ca,
            version: &TLS13,
        }
    }

    fn settings(&self, port: u16) -> Settings {
        let files = write_files(self.dir.path(), &self.ca, &self.device);
        let address = parse_url(&format!("mqtts://localhost:{port}")).unwrap();
        Settings::new(address, files, "press-7".to_owned())
    }

    /// Why an uplink does not get through to such a broker.
    async fn refusal(&self, tls: &Tls<'_>, script: Script) -> Reason {
        let broker = TestBroker::start(tls, &[script]).await;
        let uplink = start(self.settings(broker.port), &TestBacklog::new(|_| {}));
        let reason = soon(down(&uplink)).await;
        soon(uplink.stop()).await;
        reason
    }
}

fn start(settings: Settings, backlog: &TestBacklog) -> Uplink {
    let timing = Timing {
        connect_timeout: Duration::from_secs(5),
        backoff_min: Duration::from_millis(2),
        backoff_max: Duration::from_millis(20),
        look: Duration::from_millis(20),
        farewell: Duration::from_millis(200),
        ..Timing::default()
    };
    Uplink::start_with(settings, backlog.clone(), Clock::start(), timing)
}

/// Nothing here takes long; what does is a failure.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    let limit = Duration::from_secs(30);
    timeout(limit, future).await.expect("it takes too long")
}

async fn down(uplink: &Uplink) -> Reason {
    let mut status = uplink.status();
    let is_down = |status: &super::Status| matches!(status.link, LinkState::Down { .. });
    match &status.wait_for(is_down).await.unwrap().link {
        LinkState::Down { reason } => reason.clone(),
        other => unreachable!("{other:?}"),
    }
}

async fn up(uplink: &Uplink) {
    uplink
        .status()
        .wait_for(super::Status::is_up)
        .await
        .unwrap();
}

fn assert_said(reason: &Reason, kind: Kind, expected: &[&str]) {
    assert_eq!(reason.kind, kind, "{reason}");
    for part in expected {
        assert!(
            reason.to_string().contains(part),
            "`{part}` is not in: {reason}"
        );
    }
}

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
    let world = World::new();
    let broker = TestBroker::start(&world.tls(), &[GOOD]).await;
    let backlog = TestBacklog::new(|_| {});
    let text = |len: usize| format!("\"{}\"", "x".repeat(len));
    // The envelope has 88 bytes, as have its like with two digits in the time.
    let fits = 4_096 - wire::publish_size("plant".len(), 0) - 90;
    backlog.push(1, "plant", &text(fits - 100));
    backlog.push(2, "plant", &text(5_000));
    backlog.push(3, "plant/+", "3");
    backlog.push(4, "", "4");
    backlog.push(5, "plant\0", "5");
    backlog.push(6, "plant", "6");
    let settings = Settings {
        max_packet: 4_096,
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
            .contains("the limit `max_packet` of the uplink is 4096"),
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
    soon(up(&uplink)).await;
    soon(uplink.stop()).await;
    soon(async {
        while broker.seen.lock().unwrap().disconnects == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(
        broker.seen.lock().unwrap().received.len() <= 4,
        "at most a window"
    );
    assert_eq!(backlog.acknowledged(), [], "nothing was acknowledged");
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

#[tokio::test]
async fn a_broker_that_falls_silent_is_noticed() {
    let world = World::new();
    let script = Script {
        acks: Acks::Silent,
        ..GOOD
    };
    let broker = TestBroker::start(&world.tls(), &[script]).await;
    let settings = Settings {
        keep_alive: Duration::from_secs(1),
        ..world.settings(broker.port)
    };
    let uplink = start(settings, &TestBacklog::new(|_| {}));
    soon(up(&uplink)).await;
    assert_said(
        &soon(down(&uplink)).await,
        Kind::Silent,
        &["did not answer a ping"],
    );
}

#[tokio::test]
async fn the_broker_must_prove_who_it_is() {
    let world = World::new();
    let check = async |identity: Identity, kind, expected: &[&str]| {
        let tls = Tls {
            identity: &identity,
            ..world.tls()
        };
        assert_said(&world.refusal(&tls, GOOD).await, kind, expected);
    };
    let foreign = Authority::new("foreign CA").issue(&["localhost"], VALID);
    let ca_path = world.dir.path().join("ca.pem");
    check(
        foreign,
        Kind::BrokerUnknownCa,
        &["not signed by the CA in", ca_path.to_str().unwrap()],
    )
    .await;
    // The same name, another key: an impostor, or a CA made anew.
    let impostor = Authority::new("test CA").issue(&["localhost"], VALID);
    check(
        impostor,
        Kind::BrokerUnknownCa,
        &["not signed by the CA in"],
    )
    .await;
    check(
        world.ca.issue(&["localhost"], (2020, 2021)),
        Kind::BrokerCertificateExpired,
        &["expired at 2021-01-01T00:00:00Z", "clock says"],
    )
    .await;
    check(
        world.ca.issue(&["localhost"], (2090, 2100)),
        Kind::BrokerCertificateNotYetValid,
        &[
            "not valid before 2090-01-01T00:00:00Z",
            "is the clock right?",
        ],
    )
    .await;
    check(
        world.ca.issue(&["broker.example", "192.0.2.1"], VALID),
        Kind::BrokerWrongName,
        &["not for `localhost` but for broker.example, 192.0.2.1:"],
    )
    .await;
    check(
        world.ca.issue(&[], VALID),
        Kind::BrokerWrongName,
        &["no subject alternative name"],
    )
    .await;
}

#[tokio::test]
async fn the_broker_may_refuse_us() {
    let world = World::new();
    let other = Authority::new("other CA");
    for version in [&TLS12, &TLS13] {
        let tls = Tls {
            clients: &other,
            version,
            ..world.tls()
        };
        let reason = world.refusal(&tls, GOOD).await;
        assert_said(
            &reason,
            Kind::OurCertificateRefused,
            &[
                "refused this device's certificate",
                "device.pem",
                "unknown_ca",
            ],
        );
    }
    let refused = |connack| Script { connack, ..GOOD };
    let reason = world.refusal(&world.tls(), refused(5)).await;
    assert_said(
        &reason,
        Kind::NotAuthorized,
        &["client `press-7`", "device.pem"],
    );
    let reason = world.refusal(&world.tls(), refused(2)).await;
    assert_said(&reason, Kind::ClientIdRefused, &["`press-7`"]);
    let reason = world.refusal(&world.tls(), refused(77)).await;
    assert_said(&reason, Kind::ProtocolError, &["77"]);
}

#[tokio::test]
async fn nobody_there_and_something_else_there() {
    let world = World::new();
    let broker = TestBroker::start(&world.tls(), &[GOOD]).await;
    let port = broker.port;
    broker.stop().await;
    let uplink = start(world.settings(port), &TestBacklog::new(|_| {}));
    let reason = soon(down(&uplink)).await;
    assert_said(&reason, Kind::ConnectionRefused, &["is the broker running"]);
    soon(uplink.stop()).await;

    // rumqttc takes an IPv6 address without its brackets; with them it would be looked up as a name.
    let mut settings = world.settings(port);
    settings.address = parse_url(&format!("mqtts://[::1]:{port}")).unwrap();
    let uplink = start(settings, &TestBacklog::new(|_| {}));
    let reason = soon(down(&uplink)).await;
    assert!(
        !matches!(reason.kind, Kind::NameLookup | Kind::NetworkError),
        "{reason}"
    );
    soon(uplink.stop()).await;

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let plain = tokio::spawn(async move {
        use tokio::io::AsyncWriteExt;
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"220 mail.example ESMTP ready\r\n").await;
        }
    });
    let uplink = start(world.settings(port), &TestBacklog::new(|_| {}));
    let reason = soon(down(&uplink)).await;
    assert_said(&reason, Kind::TlsFailed, &["not in TLS"]);
    soon(uplink.stop()).await;
    plain.abort();
}

#[tokio::test]
async fn files_put_right_bring_the_link_up_by_themselves() {
    let world = World::new();
    let broker = TestBroker::start(&world.tls(), &[GOOD]).await;
    let settings = world.settings(broker.port);
    std::fs::remove_file(&settings.files.cert).unwrap();
    let backlog = TestBacklog::new(|_| {});
    backlog.push(1, "plant", "1");
    let uplink = start(settings.clone(), &backlog);
    assert_said(
        &soon(down(&uplink)).await,
        Kind::FileMissing,
        &["device.pem does not exist"],
    );
    std::fs::write(&settings.files.cert, &world.device.cert).unwrap();
    soon(backlog.emptied()).await;
    let status = uplink.status().borrow().clone();
    assert!(status.is_up());
    assert!(status.outage(Clock::start().now()) > Duration::ZERO);
    soon(uplink.stop()).await;
}

/// The back-off may be half a minute; whoever has just put a new certificate there does not wait for it.
#[tokio::test]
async fn new_files_end_the_back_off() {
    let world = World::new();
    let broker = TestBroker::start(&world.tls(), &[GOOD]).await;
    let settings = world.settings(broker.port);
    let foreign = Authority::new("foreign CA");
    std::fs::write(&settings.files.ca, &foreign.pem).unwrap();
    let timing = Timing {
        backoff_min: Duration::from_secs(3_600),
        backoff_max: Duration::from_secs(3_600),
        look: Duration::from_millis(20),
        ..Timing::default()
    };
    let backlog = TestBacklog::new(|_| {});
    let uplink = Uplink::start_with(settings.clone(), backlog, Clock::start(), timing);
    assert_said(&soon(down(&uplink)).await, Kind::BrokerUnknownCa, &[]);
    std::fs::write(&settings.files.ca, &world.ca.pem).unwrap();
    soon(up(&uplink)).await;
    soon(uplink.stop()).await;
}
