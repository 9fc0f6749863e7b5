//! What clients are served, and what ends a connection without ending the broker.

use std::sync::Arc;
use std::time::Duration;

use rumqttc::{LastWill, QoS};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{
    Client, SOON, Site, closed, now, raw, raw_with_keep_alive, revoke, settings, until, valid,
};
use crate::broker::{Broker, BrokerError, PemSource, Settings};
use crate::certs::DevelopmentCa;

#[tokio::test]
async fn clients_exchange_messages_with_qos_1() {
    let site = Site::start();
    let mut reader = site.connected("reader").await;
    reader.subscribe("hall/+/temperature").await;
    let mut press = site.connected("press-7").await;
    press.publish("hall/7/temperature", "21.5").await;
    press.acknowledged().await;
    let publish = reader.received().await;
    assert_eq!(publish.topic, "hall/7/temperature");
    assert_eq!(
        (&publish.payload[..], publish.qos),
        (&b"21.5"[..], QoS::AtLeastOnce)
    );
    let counters = site.broker.counters();
    assert_eq!((counters.accepted, counters.connected), (2, 2));
    assert!(counters.refused.is_empty(), "{counters:?}");
}

#[tokio::test]
async fn a_second_connection_of_a_client_takes_over() {
    let site = Site::start();
    let mut watcher = site.connected("watcher").await;
    watcher.subscribe("news").await;
    let mut first = site.connected("press-7").await;
    for round in 1..=5 {
        let mut second = site.connected("press-7").await;
        first.ended().await;
        second.publish("news", &round.to_string()).await;
        second.acknowledged().await;
        assert_eq!(watcher.received().await.payload, round.to_string());
        first = second;
    }
    assert_eq!(site.broker.counters().taken_over, 5);
    assert_eq!(site.broker.counters().connected, 2);
    site.serves().await;
}

/// rumqttd locked up when connections of one id raced each other, or went away before its CONNACK.
#[tokio::test]
async fn a_stampede_of_one_client_leaves_the_broker_whole() {
    let site = Site::start();
    let device = site.device("press-7");
    let mut racing = tokio::task::JoinSet::new();
    for round in 0..20 {
        let mut client = Client::new(site.options("press-7", &device));
        let impatience = Duration::from_millis(10 * round);
        // Each gives up at a different step of its connection.
        racing.spawn(async move {
            let _ = timeout(impatience, client.connect()).await;
        });
    }
    racing.join_all().await;
    site.connected("press-7").await;
    site.serves().await;
}

#[tokio::test]
async fn a_will_is_published_unless_the_client_says_good_bye() {
    let site = Site::start();
    let mut watcher = site.connected("watcher").await;
    watcher.subscribe("wills/#").await;
    let device = site.device("press-7");
    let with_will = |topic: &str| {
        let mut options = site.options("press-7", &device);
        options.set_last_will(LastWill::new(topic, "gone", QoS::AtLeastOnce, false));
        Client::new(options)
    };
    let mut first = with_will("wills/first");
    first.connect().await.unwrap();
    let mut second = with_will("wills/second");
    second.connect().await.unwrap();
    assert_eq!(watcher.received().await.topic, "wills/first", "taken over");
    second.client.try_disconnect().unwrap();
    second.ended().await;
    let mut third = with_will("wills/third");
    third.connect().await.unwrap();
    drop(third);
    assert_eq!(watcher.received().await.topic, "wills/third", "cut off");
}

#[tokio::test]
async fn what_rumqttd_does_not_bear_ends_that_connection_only() {
    let site = Site::start();
    let over = "über/x".as_bytes();
    let mut publish = vec![0x30, over.len() as u8 + 2, 0, over.len() as u8];
    publish.extend(over);
    let packets: [&[u8]; 4] = [
        &publish,
        b"\x82\x0f\x00\x01\x00\x0a$share/g/a\x01",
        b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00",
        &[0xff; 64],
    ];
    for (number, packet) in packets.into_iter().enumerate() {
        let mut tls = raw(&site, "press-7").await;
        tls.write_all(packet).await.unwrap();
        closed(&mut tls).await;
        assert_eq!(site.broker.counters().broken_off, number as u64 + 1);
        site.serves().await;
    }
}

/// rumqttd's router panics when a subscriber says good-bye while its link has yet to report that it has caught up.
#[tokio::test]
async fn a_subscriber_that_lags_may_say_good_bye() {
    let site = Site::start();
    let mut flood = Vec::new();
    for _ in 0..2_000 {
        flood.extend(b"\x30\x67\x00\x01a");
        flood.extend([b'x'; 100]);
    }
    let flood = Arc::new(flood);
    for round in 0..20 {
        let mut slow = raw(&site, "slow").await;
        slow.write_all(b"\x82\x06\x00\x01\x00\x01a\x00")
            .await
            .unwrap();
        let mut start = vec![0; 5 + 105 * 50 * round];
        let mut fast = raw(&site, "fast").await;
        let flooding = tokio::spawn({
            let flood = flood.clone();
            async move { fast.write_all(&flood).await }
        });
        timeout(SOON, slow.read_exact(&mut start))
            .await
            .expect("the messages")
            .unwrap();
        slow.write_all(b"\xe0\x00").await.unwrap();
        closed(&mut slow).await;
        flooding.await.unwrap().unwrap();
        site.serves().await;
    }
}

/// It used to keep its seat for ever: nothing ended a write to a client whose window is shut.
#[tokio::test]
async fn a_client_that_takes_nothing_is_let_go_of_though_it_pings() {
    let site = Site::start();
    let mut deaf = raw_with_keep_alive(&site, "deaf", 1).await;
    deaf.write_all(b"\x82\x06\x00\x01\x00\x01a\x00")
        .await
        .unwrap();
    let pinging = tokio::spawn(async move {
        while deaf.write_all(b"\xc0\x00").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    });
    let mut fast = raw(&site, "fast").await;
    let mut publish = b"\x30\x83\x80\x04\x00\x01a".to_vec();
    publish.resize(publish.len() + 64 * 1024, b'x');
    let flooding = tokio::spawn(async move { while fast.write_all(&publish).await.is_ok() {} });
    until(
        || site.broker.counters().deaf == 1,
        || format!("{:?}", site.broker.counters()),
    )
    .await;
    flooding.abort();
    site.serves().await;
    timeout(SOON, pinging)
        .await
        .expect("its connection ends")
        .unwrap();
}

#[tokio::test]
async fn stop_frees_the_port_for_another_start() {
    let ca = DevelopmentCa::create(now()).unwrap();
    let mut settings = settings(&ca, 10);
    let mut site = Site {
        broker: Broker::start(settings.clone()).unwrap(),
        ca,
    };
    settings.listen = site.broker.local_addr();
    for _ in 0..2 {
        let mut client = site.connected("press-7").await;
        site.broker.stop();
        client.ended().await;
        let refused = TcpStream::connect(settings.listen).await;
        assert!(refused.is_err(), "{refused:?}");
        site.broker = Broker::start(settings.clone()).unwrap();
        site.serves().await;
    }
    let twice = Broker::start(settings).err().unwrap();
    assert!(matches!(twice, BrokerError::Listen { .. }), "{twice}");
}

#[test]
fn what_keeps_the_broker_from_starting_is_said_in_words() {
    let ca = DevelopmentCa::create(now()).unwrap();
    let check = |change: &dyn Fn(&mut Settings), expected: [&str; 2]| {
        let mut settings = settings(&ca, 10);
        change(&mut settings);
        let error = Broker::start(settings).err().unwrap().to_string();
        for part in expected {
            assert!(error.contains(part), "{error}");
        }
    };
    let missing = PemSource::File("tls/none.pem".into());
    check(
        &|s| s.ca = missing.clone(),
        ["tls/none.pem (broker.ca)", "check the path"],
    );
    let empty = PemSource::Text(String::new());
    check(&|s| s.ca = empty.clone(), ["broker.ca", "no certificate"]);
    check(
        &|s| s.cert = empty.clone(),
        ["broker.cert", "no certificate"],
    );
    check(&|s| s.key = empty.clone(), ["broker.key", "PEM"]);
    let list = |source: &PemSource| {
        let source = source.clone();
        move |s: &mut Settings| s.crl = Some(source.clone())
    };
    check(
        &list(&missing),
        ["tls/none.pem (broker.crl)", "check the path"],
    );
    check(&list(&empty), ["(broker.crl)", "no revocation list"]);
    let old = PemSource::Text(revoke(&ca, &[], -1));
    check(&list(&old), ["(broker.crl)", "was to be replaced by"]);
    let other = ca.issue_device("press-7", valid()).unwrap();
    let key = PemSource::Text(other.key_pem);
    check(
        &|s| s.key = key.clone(),
        ["do not go together", "issued together"],
    );
}

#[test]
fn a_key_that_others_may_read_keeps_the_broker_from_starting() {
    use std::os::unix::fs::PermissionsExt;
    let ca = DevelopmentCa::create(now()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("broker.key");
    let mut settings = settings(&ca, 10);
    let PemSource::Text(key) = &settings.key else {
        unreachable!("these settings are texts");
    };
    std::fs::write(&path, key).unwrap();
    settings.key = PemSource::File(path.clone());
    let with_mode = |mode| {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        Broker::start(settings.clone())
    };
    let said = with_mode(0o640).err().unwrap().to_string();
    for part in ["(broker.key)", "(mode 0640)", "chmod 600", "broker.key`"] {
        assert!(said.contains(part), "`{part}` is not in: {said}");
    }
    with_mode(0o600).unwrap();
}
