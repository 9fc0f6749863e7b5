//! A small MQTT 3.1.1 broker over mutual TLS that misbehaves as a script says.

use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::test_pki::{Authority, Identity};
use crate::outbox::RecordId;

/// What the broker does on one connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Script {
    /// The return code of its CONNACK.
    pub(super) connack: u8,
    /// Its CONNACK claims a session from before, which there cannot be.
    pub(super) claims_session: bool,
    pub(super) acks: Acks,
    /// It breaks the connection at this PUBLISH, without a word.
    pub(super) drop_at: usize,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Acks {
    All,
    /// Pings are answered, publishes are not.
    Never,
    /// Nothing is answered.
    Silent,
    /// One in so many is withheld.
    Withhold(usize),
    /// Groups of so many are acknowledged last first.
    Reverse(usize),
    /// At this publish, an id that was never used is acknowledged too.
    Bogus(usize),
    /// This publish is acknowledged twice.
    Twice(usize),
}

pub(super) const GOOD: Script = Script {
    connack: 0,
    claims_session: false,
    acks: Acks::All,
    drop_at: usize::MAX,
};

/// What the broker saw, over all connections.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) received: Vec<Publish>,
    /// The records it has sent a PUBACK for.
    pub(super) acknowledged: HashSet<RecordId>,
    pub(super) client_ids: Vec<String>,
    pub(super) disconnects: usize,
    /// The size of all PUBLISH packets.
    pub(super) publish_bytes: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Publish {
    pub(super) topic: String,
    pub(super) id: RecordId,
    pub(super) body: Value,
}

pub(super) struct TestBroker {
    pub(super) port: u16,
    pub(super) seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

/// Its certificate, and the CA it demands of clients.
pub(super) struct Tls<'a> {
    pub(super) identity: &'a Identity,
    pub(super) clients: &'a Authority,
    pub(super) version: &'static SupportedProtocolVersion,
}

impl Tls<'_> {
    fn acceptor(&self) -> TlsAcceptor {
        let provider = Arc::new(ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(self.clients.der()).unwrap();
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        let (chain, key) = self.identity.der();
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[self.version])
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(chain, key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

impl TestBroker {
    /// `scripts` are followed one per connection; the last one stays.
    pub(super) async fn start(tls: &Tls<'_>, scripts: &[Script]) -> TestBroker {
        let acceptor = tls.acceptor();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (scripts, shared) = (scripts.to_vec(), Arc::clone(&seen));
        let task = tokio::spawn(async move {
            let mut connection = 0;
            while let Ok((stream, _)) = listener.accept().await {
                let script = scripts[connection.min(scripts.len() - 1)];
                connection += 1;
                tokio::spawn(connect(
                    acceptor.clone(),
                    stream,
                    script,
                    Arc::clone(&shared),
                ));
            }
        });
        TestBroker { port, seen, task }
    }

    /// Returns when nobody listens any more.
    pub(super) async fn stop(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

impl Drop for TestBroker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn connect(acceptor: TlsAcceptor, stream: TcpStream, script: Script, seen: Arc<Mutex<Seen>>) {
    match acceptor.accept(stream).into_fallible().await {
        // Broken connections are the point of these tests.
        Ok(stream) => drop(serve(stream, script, &seen).await),
        // Closed with the CONNECT unread, the socket would be reset, and our alert with it.
        Err((_, mut stream)) => {
            let _ = stream.shutdown().await;
            let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
        }
    }
}

async fn serve(
    mut stream: TlsStream<TcpStream>,
    script: Script,
    seen: &Mutex<Seen>,
) -> io::Result<()> {
    // A moment without packets: a group of acknowledgements that stays incomplete goes out as it is.
    const LULL: Duration = Duration::from_millis(20);
    let mut publishes = 0;
    let mut group: Vec<(u16, RecordId)> = Vec::new();
    loop {
        let first = match timeout(LULL, stream.read_u8()).await {
            Ok(byte) => byte?,
            Err(_) => {
                acknowledge(&mut stream, &mut group, seen).await?;
                continue;
            }
        };
        let (header_len, body) = read_body(&mut stream).await?;
        match first >> 4 {
            1 => {
                let client_id = text(&body[10..]);
                seen.lock().unwrap().client_ids.push(client_id.to_owned());
                assert_eq!(body[7], 2, "a clean session, no will, no password");
                let session = u8::from(script.claims_session);
                stream
                    .write_all(&[0x20, 2, session, script.connack])
                    .await?;
            }
            3 => {
                assert_eq!(first & 0b0110, 0b0010, "QoS 1");
                publishes += 1;
                if publishes >= script.drop_at {
                    return Ok(());
                }
                let (packet_id, publish) = parse_publish(&body);
                let id = publish.id;
                {
                    let mut seen = seen.lock().unwrap();
                    seen.publish_bytes += (header_len + body.len()) as u64;
                    seen.received.push(publish);
                }
                match script.acks {
                    Acks::Never | Acks::Silent => continue,
                    Acks::Withhold(n) if publishes % n == 0 => continue,
                    Acks::Reverse(n) => {
                        group.insert(0, (packet_id, id));
                        if group.len() < n {
                            continue;
                        }
                    }
                    _ => group.push((packet_id, id)),
                }
                acknowledge(&mut stream, &mut group, seen).await?;
                match script.acks {
                    Acks::Bogus(at) if at == publishes => puback(&mut stream, 60_000).await?,
                    Acks::Twice(at) if at == publishes => puback(&mut stream, packet_id).await?,
                    _ => {}
                }
            }
            12 if !matches!(script.acks, Acks::Silent) => stream.write_all(&[0xd0, 0]).await?,
            14 => {
                seen.lock().unwrap().disconnects += 1;
                return Ok(());
            }
            _ => {}
        }
        stream.flush().await?;
    }
}

async fn acknowledge(
    stream: &mut TlsStream<TcpStream>,
    group: &mut Vec<(u16, RecordId)>,
    seen: &Mutex<Seen>,
) -> io::Result<()> {
    for (packet_id, id) in group.drain(..) {
        seen.lock().unwrap().acknowledged.insert(id);
        puback(stream, packet_id).await?;
    }
    stream.flush().await
}

async fn puback(stream: &mut TlsStream<TcpStream>, packet_id: u16) -> io::Result<()> {
    let [high, low] = packet_id.to_be_bytes();
    stream.write_all(&[0x40, 2, high, low]).await
}

/// The length of the fixed header, and what comes after it.
async fn read_body(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<(usize, Vec<u8>)> {
    let (mut len, mut shift) = (0, 0);
    loop {
        let byte = stream.read_u8().await?;
        len |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let mut body = vec![0; len];
    stream.read_exact(&mut body).await?;
    Ok((1 + shift / 7, body))
}

fn text(bytes: &[u8]) -> &str {
    let len = usize::from(u16::from_be_bytes([bytes[0], bytes[1]]));
    std::str::from_utf8(&bytes[2..2 + len]).unwrap()
}

fn parse_publish(body: &[u8]) -> (u16, Publish) {
    let topic = text(body);
    let rest = &body[2 + topic.len()..];
    let packet_id = u16::from_be_bytes([rest[0], rest[1]]);
    let body: Value = serde_json::from_slice(&rest[2..]).expect("the envelope is JSON");
    let number = |field: &str| {
        body[field]
            .as_u64()
            .expect("the envelope numbers the record")
    };
    let id = RecordId {
        epoch: number("epoch"),
        seq: number("seq"),
    };
    let topic = topic.to_owned();
    (packet_id, Publish { topic, id, body })
}
