//! The broker as its clients see it: real mutual TLS on loopback. `access`: who is let in; `service`: what those are served.

mod access;
mod service;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    CertificateRevocationListParams, Issuer, KeyIdMethod, KeyPair, RevokedCertParams, SerialNumber,
};
use rumqttc::{
    AsyncClient, ConnectionError, Event, EventLoop, MqttOptions, Packet, Publish, QoS,
    TlsConfiguration, Transport,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Broker, PemSource, Settings};
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
        crl: None,
        max_connections,
    }
}

/// The CA's revocation list with these in it, to be replaced so many days from now.
fn revoke(ca: &DevelopmentCa, revoked: &[&Credentials], days: i64) -> String {
    let ca = ca.credentials();
    let key = KeyPair::from_pem(&ca.key_pem).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&ca.certificate_pem, key).unwrap();
    let serial = |credentials: &&Credentials| {
        let der = CertificateDer::from_pem_slice(credentials.certificate_pem.as_bytes()).unwrap();
        let (_, parsed) = x509_parser::parse_x509_certificate(&der).unwrap();
        SerialNumber::from_slice(parsed.raw_serial())
    };
    let at = |days: i64| {
        let seconds = now().as_nanos() / 1_000_000_000 + days * 86_400;
        rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds.cast_unsigned())
    };
    let revoked = revoked.iter().map(|credentials| RevokedCertParams {
        serial_number: serial(credentials),
        revocation_time: at(-10),
        reason_code: None,
        invalidity_date: None,
    });
    let params = CertificateRevocationListParams {
        this_update: at(-10),
        next_update: at(days),
        crl_number: SerialNumber::from(1_u64),
        issuing_distribution_point: None,
        revoked_certs: revoked.collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(&issuer).unwrap().pem().unwrap()
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

    /// With QoS 1; it goes out with the next wait, `acknowledged` or `received`.
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

/// Connects with TLS alone, to send what rumqttc would not.
async fn raw(site: &Site, id: &str) -> tokio_rustls::client::TlsStream<TcpStream> {
    raw_with_keep_alive(site, id, 0).await
}

async fn raw_with_keep_alive(
    site: &Site,
    id: &str,
    seconds: u8,
) -> tokio_rustls::client::TlsStream<TcpStream> {
    let connector = tokio_rustls::TlsConnector::from(client_tls(&site.ca, Some(&site.device(id))));
    let tcp = TcpStream::connect(site.broker.local_addr()).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut tls = connector.connect(name, tcp).await.unwrap();
    let mut connect = b"\x10\x00\x00\x04MQTT\x04\x02\x00\x00\x00".to_vec();
    connect[11] = seconds;
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
