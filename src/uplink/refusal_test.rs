//! Who refuses whom, and why the link is down: what is said, and that it comes up when the cause is gone.

use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};

use super::test_backlog::TestBacklog;
use super::test_broker::{Acks, GOOD, Script, TestBroker, Tls};
use super::test_pki::{Authority, Identity, VALID};
use super::test_world::{World, assert_said, down, gets_through, soon, start, up};
use super::timing::Timing;
use super::tls::{Ca, TlsVersion};
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
        let old = |settings: &mut Settings| settings.files.options.min_version = TlsVersion::V1_2;
        let reason = world.refusal_with(&tls, GOOD, old).await;
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
async fn tls_1_2_is_spoken_only_where_the_settings_allow_it() {
    let world = World::new();
    let old = Tls {
        version: &TLS12,
        ..world.tls()
    };
    assert_said(
        &world.refusal(&old, GOOD).await,
        Kind::TlsVersion,
        &["does not speak TLS 1.3", "`tls_min = \"1.2\"` in [uplink]"],
    );
    let allow = |settings: &mut Settings| settings.files.options.min_version = TlsVersion::V1_2;
    gets_through(&world, &old, allow).await;
    gets_through(&world, &world.tls(), allow).await;
}

#[tokio::test]
async fn the_name_that_is_checked_can_be_another_than_that_of_the_host() {
    let world = World::new();
    let broker = world.ca.issue(&["broker.example"], VALID);
    let tls = Tls {
        identity: &broker,
        ..world.tls()
    };
    let named = |name: &'static str| {
        move |settings: &mut Settings| {
            settings.files.options.server_name = Some(ServerName::try_from(name).unwrap());
        }
    };
    gets_through(&world, &tls, named("broker.example")).await;
    let reason = world.refusal_with(&tls, GOOD, named("other.example")).await;
    assert_said(
        &reason,
        Kind::BrokerWrongName,
        &[
            "not for `other.example` but for broker.example:",
            "`server_name`",
        ],
    );
    // It takes the place of the host's name, and does not stand beside it.
    let reason = world
        .refusal_with(&world.tls(), GOOD, named("broker.example"))
        .await;
    assert_said(&reason, Kind::BrokerWrongName, &["but for localhost:"]);
}

#[tokio::test]
async fn a_private_ca_is_no_public_one() {
    let world = World::new();
    let system = |settings: &mut Settings| settings.files.ca = Ca::System;
    let reason = world.refusal_with(&world.tls(), GOOD, system).await;
    // A machine without any says that instead.
    let without_any = !Ca::System.path().exists();
    if without_any {
        assert_said(&reason, Kind::FileMissing, &["ca-certificates"]);
    } else {
        assert_said(
            &reason,
            Kind::BrokerUnknownCa,
            &["an authority that the system trusts"],
        );
    }
}

#[tokio::test]
async fn a_broker_whose_certificate_was_revoked() {
    let world = World::new();
    let (revoked, good) = (
        world.ca.issue(&["localhost"], VALID),
        world.ca.issue(&["localhost"], VALID),
    );
    let path = world.dir.path().join("revoked.pem");
    let with_list = |list: String| {
        let path = path.clone();
        move |settings: &mut Settings| {
            std::fs::write(&path, &list).unwrap();
            settings.files.crl = Some(path.clone());
        }
    };
    let broker = |identity| Tls {
        identity,
        ..world.tls()
    };
    let list = world.ca.revoke(&[&revoked], 2090);
    let reason = world
        .refusal_with(&broker(&revoked), GOOD, with_list(list.clone()))
        .await;
    assert_said(
        &reason,
        Kind::BrokerCertificateRevoked,
        &["was revoked by the authority"],
    );
    gets_through(&world, &broker(&good), with_list(list)).await;
    gets_through(&world, &broker(&revoked), |_| {}).await;

    let of_another = Authority::new("another CA").revoke(&[], 2090);
    let reason = world
        .refusal_with(&broker(&good), GOOD, with_list(of_another))
        .await;
    assert_said(
        &reason,
        Kind::BrokerRevocationUnknown,
        &["nothing in", "revoked.pem says whether"],
    );
    let old = world.ca.revoke(&[], 2021);
    let reason = world
        .refusal_with(&broker(&good), GOOD, with_list(old))
        .await;
    assert_said(
        &reason,
        Kind::BadRevocationList,
        &["was to be replaced by 2021-01-01T00:00:00", "CN=test CA"],
    );
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

/// As after a start without a clock: the certificates lie in the future until it is set. Here time comes to them instead.
#[tokio::test]
async fn certificates_that_become_valid_bring_the_link_up_by_themselves() {
    const SECONDS: u64 = 3;
    let check = async |is_ours: bool, kind: Kind| {
        let mut world = World::new();
        let name = if is_ours { "press-7" } else { "localhost" };
        let future = world.ca.issue_in(&[name], SECONDS);
        let broker_has = world.ca.issue(&["localhost"], VALID);
        let broker_has = if is_ours {
            world.device = future;
            broker_has
        } else {
            future
        };
        let tls = Tls {
            identity: &broker_has,
            ..world.tls()
        };
        let broker = TestBroker::start(&tls, &[GOOD]).await;
        let backlog = TestBacklog::new(|_| {});
        backlog.push(1, "plant", "1");
        let uplink = start(world.settings(broker.port), &backlog);
        assert_said(&soon(down(&uplink)).await, kind, &["is the clock right?"]);
        soon(backlog.emptied()).await;
        soon(uplink.stop()).await;
    };
    check(true, Kind::OwnCertificateNotYetValid).await;
    check(false, Kind::BrokerCertificateNotYetValid).await;
}

/// The back-off may be half a minute; whoever has just put a new certificate there does not wait for it.
#[tokio::test]
async fn new_files_end_the_back_off() {
    let world = World::new();
    let broker = TestBroker::start(&world.tls(), &[GOOD]).await;
    let settings = world.settings(broker.port);
    let foreign = Authority::new("foreign CA");
    std::fs::write(settings.files.ca.path(), &foreign.pem).unwrap();
    let timing = Timing {
        backoff_min: Duration::from_secs(3_600),
        backoff_max: Duration::from_secs(3_600),
        look: Duration::from_millis(20),
        ..Timing::default()
    };
    let backlog = TestBacklog::new(|_| {});
    let uplink = Uplink::start_with(settings.clone(), backlog, Clock::start(), timing);
    assert_said(&soon(down(&uplink)).await, Kind::BrokerUnknownCa, &[]);
    std::fs::write(settings.files.ca.path(), &world.ca.pem).unwrap();
    soon(up(&uplink)).await;
    soon(uplink.stop()).await;
}
