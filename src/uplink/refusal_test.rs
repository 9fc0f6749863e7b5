//! Who refuses whom, and why the link is down: what is said, and that it comes up when the cause is gone.

use std::time::Duration;

use rustls::version::{TLS12, TLS13};

use super::test_backlog::TestBacklog;
use super::test_broker::{Acks, GOOD, Script, TestBroker, Tls};
use super::test_pki::{Authority, Identity, VALID};
use super::test_world::{World, assert_said, down, soon, start, up};
use super::timing::Timing;
use super::{Kind, Settings, Uplink, parse_url};
use crate::runtime::clock::Clock;

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
