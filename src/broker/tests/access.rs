//! Who is let in, and that whoever is not disturbs nobody.

use std::time::Duration;

use rumqttc::{ConnectReturnCode, ConnectionError, MqttOptions, TlsConfiguration, Transport};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Client, SOON, Site, client_tls, now, revoke, settings, until, valid};
use crate::broker::{Broker, PemSource, Settings};
use crate::certs::{DevelopmentCa, Validity};
use crate::message::Timestamp;

#[tokio::test]
async fn a_client_without_a_certificate_is_refused() {
    let site = Site::start();
    let mut options = site.options("press-7", &site.device("press-7"));
    options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(
        client_tls(&site.ca, None),
    )));
    assert!(Client::new(options).connect().await.is_err());
    site.refused("no_certificate", 1).await;
    site.serves().await;
}

#[tokio::test]
async fn a_certificate_of_another_ca_is_refused() {
    let site = Site::start();
    let other = DevelopmentCa::create(now()).unwrap();
    let stranger = other.issue_device("press-7", valid()).unwrap();
    let options = site.options("press-7", &stranger);
    assert!(Client::new(options).connect().await.is_err());
    site.refused("unknown_ca", 1).await;
    site.serves().await;
}

#[tokio::test]
async fn a_certificate_out_of_its_time_is_refused() {
    const DAY: i64 = 86_400_000_000_000;
    let at = |days: i64| Timestamp::from_nanos(now().as_nanos() + days * DAY);
    for (from, until, reason) in [
        (-2, -1, "certificate_expired"),
        (1, 2, "certificate_not_yet_valid"),
    ] {
        let site = Site::start();
        let validity = Validity {
            not_before: at(from),
            not_after: at(until),
        };
        let device = site.ca.issue_device("press-7", validity).unwrap();
        let options = site.options("press-7", &device);
        assert!(Client::new(options).connect().await.is_err());
        site.refused(reason, 1).await;
        site.serves().await;
    }
}

/// A broker with this revocation list.
fn with_list(ca: DevelopmentCa, list: PemSource) -> Site {
    let broker = Broker::start(Settings {
        crl: Some(list),
        ..settings(&ca, 10)
    });
    Site {
        broker: broker.unwrap(),
        ca,
    }
}

#[tokio::test]
async fn a_revoked_certificate_is_refused_and_others_are_let_in() {
    let ca = DevelopmentCa::create(now()).unwrap();
    let (thief, good) = (
        ca.issue_device("press-7", valid()).unwrap(),
        ca.issue_device("press-7", valid()).unwrap(),
    );
    let list = revoke(&ca, &[&thief], 7);
    let site = with_list(ca, PemSource::Text(list));
    let options = site.options("press-7", &thief);
    assert!(Client::new(options).connect().await.is_err());
    site.refused("certificate_revoked", 1).await;
    let options = site.options("press-7", &good);
    Client::new(options).connect().await.unwrap();
    site.serves().await;
}

#[tokio::test]
async fn a_certificate_that_no_list_covers_is_refused() {
    let other = DevelopmentCa::create(now()).unwrap();
    let ca = DevelopmentCa::create(now()).unwrap();
    let site = with_list(ca, PemSource::Text(revoke(&other, &[], 7)));
    assert!(site.client("press-7").connect().await.is_err());
    site.refused("revocation_unknown", 1).await;
}

#[tokio::test]
async fn a_list_that_was_replaced_is_taken_up_and_a_bad_one_is_not() {
    let ca = DevelopmentCa::create(now()).unwrap();
    let thief = ca.issue_device("press-7", valid()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("revoked.pem");
    std::fs::write(&path, revoke(&ca, &[], 7)).unwrap();
    let site = with_list(ca, PemSource::File(path.clone()));
    let connect = async || {
        let options = site.options("press-7", &thief);
        Client::new(options).connect().await.map(drop)
    };
    connect().await.unwrap();
    std::fs::write(&path, revoke(&site.ca, &[&thief], 7)).unwrap();
    let refused = async {
        while connect().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    timeout(SOON, refused)
        .await
        .expect("the new list is taken up");
    site.refused("certificate_revoked", 1).await;
    std::fs::write(&path, "nothing").unwrap();
    // Longer than it is between two looks.
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert!(connect().await.is_err());
    site.refused("certificate_revoked", 2).await;
    site.serves().await;
}

#[tokio::test]
async fn a_server_certificate_does_not_make_a_client() {
    let site = Site::start();
    let server = site.ca.issue_server(&["press-7".to_owned()], valid());
    let options = site.options("press-7", &server.unwrap());
    assert!(Client::new(options).connect().await.is_err());
    site.refused("bad_certificate", 1).await;
}

#[tokio::test]
async fn a_certificate_of_another_client_id_is_refused() {
    let site = Site::start();
    let mut impostor = Client::new(site.options("press-8", &site.device("press-7")));
    let refused = impostor.connect().await.unwrap_err();
    assert!(
        matches!(
            refused,
            ConnectionError::ConnectionRefused(ConnectReturnCode::BadClientId)
        ),
        "{refused:?}"
    );
    site.refused("client_id", 1).await;
    site.serves().await;
}

#[tokio::test]
async fn a_client_does_not_connect_to_a_broker_of_another_name() {
    let site = Site::start();
    let ca = &site.ca;
    let server = ca.issue_server(&["elsewhere.example".to_owned()], valid());
    let server = server.unwrap();
    let broker = Broker::start(Settings {
        cert: PemSource::Text(server.certificate_pem),
        key: PemSource::Text(server.key_pem),
        ..settings(ca, 10)
    });
    let site = Site {
        broker: broker.unwrap(),
        ca: site.ca,
    };
    assert!(site.client("press-7").connect().await.is_err());
    site.refused("refused_by_client", 1).await;
}

#[tokio::test]
async fn idle_connections_block_nobody() {
    let site = Site::start();
    let mut idle = Vec::new();
    for _ in 0..30 {
        idle.push(TcpStream::connect(site.broker.local_addr()).await.unwrap());
    }
    // Well before the 5 s after which the idle ones are closed.
    timeout(Duration::from_secs(4), site.serves())
        .await
        .expect("a client is served while others idle");
    assert!(site.broker.counters().refused.is_empty());
    for mut tcp in idle {
        let closed = timeout(SOON, tcp.read(&mut [0; 1])).await;
        assert!(!matches!(closed, Ok(Ok(1..)) | Err(_)), "{closed:?}");
    }
    site.refused("handshake_timeout", 30).await;
}

#[tokio::test]
async fn one_address_may_have_64_handshakes_under_way_and_no_more() {
    let site = Site::start();
    let mut idle = Vec::new();
    for _ in 0..64 {
        idle.push(TcpStream::connect(site.broker.local_addr()).await.unwrap());
    }
    let mut one_more = TcpStream::connect(site.broker.local_addr()).await.unwrap();
    let closed = timeout(Duration::from_secs(4), one_more.read(&mut [0; 1])).await;
    assert!(matches!(closed, Ok(Ok(0) | Err(_))), "{closed:?}");
    site.refused("crowded", 1).await;
    drop(idle);
}

#[tokio::test]
async fn more_clients_than_allowed_are_refused_and_counted() {
    let site = Site::with_max_connections(2);
    let first = site.connected("one").await;
    let _second = site.connected("two").await;
    for attempt in 1..=3 {
        // The same id again and again, which rumqttd does not survive when it is full.
        let refused = site.client("three").connect().await.unwrap_err();
        assert!(
            matches!(
                refused,
                ConnectionError::ConnectionRefused(ConnectReturnCode::ServiceUnavailable)
            ),
            "{refused:?}"
        );
        site.refused("full", attempt).await;
    }
    // A client that is there already may come again.
    let _again = site.connected("two").await;
    drop(first);
    until(
        || site.broker.counters().connected == 1,
        || "the first is still there".to_owned(),
    )
    .await;
    site.connected("three").await;
}

#[tokio::test]
async fn the_inner_port_refuses_who_has_not_its_password() {
    let site = Site::start();
    let inner = site.broker.inner_addr;
    assert!(inner.ip().is_loopback());
    for password in [None, Some("tidegate"), Some("")] {
        let mut options = MqttOptions::new("press-7", inner.ip().to_string(), inner.port());
        if let Some(password) = password {
            options.set_credentials("tidegate", password);
        }
        assert!(Client::new(options).connect().await.is_err());
    }
    site.serves().await;
}
