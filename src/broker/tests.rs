//! The broker as its clients see it: real mutual TLS on loopback.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rumqttc::{
    AsyncClient, ConnectReturnCode, ConnectionError, Event, EventLoop, LastWill, MqttOptions,
    Packet, Publish, QoS, TlsConfiguration, Transport,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Broker, BrokerError, PemSource, Settings};
use crate::certs::{Credentials, DevelopmentCa, LEAF_DAYS, Validity};
use crate::message::Timestamp;

/// For anything that should happen at once. Generous, since machines under test are slow.
const SOON: Duration = Duration::from_secs(20);

fn now() -> Timestamp {
    Timestamp::default().saturating_add(SystemTime::now().duration_since(UNIX_EPOCH).unwrap())
}

fn valid() -> Validity {
    Validity::days(now(), LEAF_DAYS)
}

/// A CA and a broker with a certificate of it.
struct Site {
    ca: DevelopmentCa,
    broker: Broker,
}

impl Site {
    fn start() -> Site {
        Site::with_max_connections(Settings::DEFAULT_MAX_CONNECTIONS)
    }

    fn with_max_connections(max_connections: usize) -> Site {
        let ca = DevelopmentCa::create(now()).unwrap();
        let settings = settings(&ca, max_connections);
        Site {
            broker: Broker::start(settings).unwrap(),
            ca,
        }
    }

    fn device(&self, id: &str) -> Credentials {
        self.ca.issue_device(id, valid()).unwrap()
    }

    /// A client of this id, not yet connected.
    fn client(&self, id: &str) -> Client {
        Client::new(self.options(id, &self.device(id)))
    }

    async fn connected(&self, id: &str) -> Client {
        let mut client = self.client(id);
        client.connect().await.unwrap();
        client
    }

    fn options(&self, id: &str, credentials: &Credentials) -> MqttOptions {
        let mut options = MqttOptions::new(id, "localhost", self.broker.local_addr().port());
        options.set_keep_alive(Duration::from_secs(30));
        options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(
            client_tls(&self.ca, Some(credentials)),
        )));
        options
    }

    /// That others are served whatever has happened.
    async fn serves(&self) {
        let mut client = self.connected("somebody-else").await;
        client.subscribe("still/alive").await;
        client.publish("still/alive", "yes").await;
        assert_eq!(client.received().await.payload, "yes");
    }

    /// Waits until so many were refused for this reason, and nobody for another.
    async fn refused(&self, reason: &'static str, count: u64) {
        let expected = BTreeMap::from([(reason, count)]);
        until(
            || self.broker.counters().refused == expected,
            || format!("{:?}", self.broker.counters()),
        )
        .await;
    }
}

/// Polls for something that has no event to wait for.
async fn until(reached: impl Fn() -> bool, state: impl Fn() -> String) {
    let polling = async {
        while !reached() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    if timeout(SOON, polling).await.is_err() {
        panic!("not reached: {}", state());
    }
}

fn settings(ca: &DevelopmentCa, max_connections: usize) -> Settings {
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let server = ca.issue_server(&names, valid()).unwrap();
    Settings {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        ca: PemSource::Text(ca.credentials().certificate_pem.clone()),
        cert: PemSource::Text(server.certificate_pem),
        key: PemSource::Text(server.key_pem),
        max_connections,
    }
}

fn client_tls(ca: &DevelopmentCa, credentials: Option<&Credentials>) -> Arc<rustls::ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    let root = ca.credentials().certificate_pem.as_bytes();
    roots
        .add(CertificateDer::from_pem_slice(root).unwrap())
        .unwrap();
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    Arc::new(match credentials {
        None => builder.with_no_client_auth(),
        Some(credentials) => {
            let certificate = credentials.certificate_pem.as_bytes();
            let chain = vec![CertificateDer::from_pem_slice(certificate).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(credentials.key_pem.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    })
}

struct Client {
    client: AsyncClient,
    events: EventLoop,
}

impl Client {
    fn new(options: MqttOptions) -> Client {
        let (client, events) = AsyncClient::new(options, 10);
        Client { client, events }
    }

    async fn connect(&mut self) -> Result<(), ConnectionError> {
        match timeout(SOON, self.events.poll())
            .await
            .expect("an answer")?
        {
            Event::Incoming(Packet::ConnAck(_)) => Ok(()),
            other => panic!("{other:?}"),
        }
    }

    async fn until<T>(&mut self, wanted: impl Fn(Packet) -> Option<T>) -> T {
        let polling = async {
            loop {
                if let Event::Incoming(packet) = self.events.poll().await.unwrap()
                    && let Some(found) = wanted(packet)
                {
                    return found;
                }
            }
        };
        timeout(SOON, polling).await.expect("the packet in time")
    }

    async fn subscribe(&mut self, filter: &str) {
        self.client.try_subscribe(filter, QoS::AtLeastOnce).unwrap();
        self.until(|packet| matches!(packet, Packet::SubAck(_)).then_some(()))
            .await;
    }

    /// With QoS 1, until it is acknowledged. What comes in meanwhile is acknowledged later and seen by `received`.
    async fn publish(&mut self, topic: &str, payload: &str) {
        self.client
            .try_publish(topic, QoS::AtLeastOnce, false, payload)
            .unwrap();
    }

    async fn received(&mut self) -> Publish {
        self.until(|packet| match packet {
            Packet::Publish(publish) => Some(publish),
            _ => None,
        })
        .await
    }

    async fn acknowledged(&mut self) {
        self.until(|packet| matches!(packet, Packet::PubAck(_)).then_some(()))
            .await;
    }

    /// Until the connection ends.
    async fn ended(&mut self) {
        let polling = async { while self.events.poll().await.is_ok() {} };
        timeout(SOON, polling).await.expect("the end in time");
    }
}

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

/// Connects with TLS alone, to send what rumqttc would not.
async fn raw(site: &Site, id: &str) -> tokio_rustls::client::TlsStream<TcpStream> {
    let connector = tokio_rustls::TlsConnector::from(client_tls(&site.ca, Some(&site.device(id))));
    let tcp = TcpStream::connect(site.broker.local_addr()).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut tls = connector.connect(name, tcp).await.unwrap();
    let mut connect = b"\x10\x00\x00\x04MQTT\x04\x02\x00\x00\x00".to_vec();
    connect.push(id.len() as u8);
    connect.extend(id.as_bytes());
    connect[1] = (connect.len() - 2) as u8;
    tls.write_all(&connect).await.unwrap();
    let mut connack = [0; 4];
    timeout(SOON, tls.read_exact(&mut connack))
        .await
        .expect("a CONNACK")
        .unwrap();
    assert_eq!(connack, [0x20, 2, 0, 0]);
    tls
}

async fn closed(tls: &mut tokio_rustls::client::TlsStream<TcpStream>) {
    let mut rest = Vec::new();
    let _ = timeout(SOON, tls.read_to_end(&mut rest))
        .await
        .expect("the broker closes the connection");
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
    let other = ca.issue_device("press-7", valid()).unwrap();
    let key = PemSource::Text(other.key_pem);
    check(
        &|s| s.key = key.clone(),
        ["do not go together", "issued together"],
    );
}
