//! What stands in front of rumqttd: TLS with client certificates, CONNECT, one connection per client, checked packets.
//!
//! Each connection has a task of its own from the first byte, so a client that dawdles holds up nobody. A connection goes
//! through these steps, each with a time-out: handshake, CONNECT, seat, rumqttd's CONNACK, then packets both ways.
//!
//! Must not: know rumqttd beyond [`Inner`]; hand rumqttd a client id, a packet or a farewell that it does not bear.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::server::TlsStream;
use tracing::{error, warn};

use super::client::{Admitted, Client, FAREWELL_TIMEOUT, LEAVE_TIMEOUT};
use super::connect::Connect;
use super::handshakes::Handshakes;
use super::inner::Inner;
use super::quiet::Quiet;
use super::refusal::{Counting, Refusal};
use super::seats::Seats;
use super::tls::Renewed;
use crate::certs;

/// For the TLS handshake, and again for CONNECT.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// For rumqttd's CONNACK. It answers at once or is broken.
const CONNACK_TIMEOUT: Duration = Duration::from_secs(10);
/// How often rumqttd's router, and the certificates' files, are looked at.
const LOOK: Duration = Duration::from_secs(5);
/// How long to wait when the system has no socket to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

pub(super) struct Acceptor {
    tls: Arc<Renewed>,
    inner: Inner,
    counting: Arc<Counting>,
    handshakes: Arc<Handshakes>,
    quiet: Mutex<Quiet>,
    clients: Arc<Semaphore>,
    seats: Arc<Seats>,
}

impl Acceptor {
    pub(super) fn new(
        tls: Renewed,
        inner: Inner,
        counting: Arc<Counting>,
        max_connections: usize,
    ) -> Acceptor {
        Acceptor {
            tls: Arc::new(tls),
            inner,
            counting,
            handshakes: Arc::default(),
            quiet: Mutex::default(),
            clients: Arc::new(Semaphore::new(max_connections)),
            seats: Arc::default(),
        }
    }

    /// Accepts connections until it is dropped.
    pub(super) async fn run(self: Arc<Acceptor>, listener: TcpListener) {
        tokio::join!(self.accept(listener), self.watch());
    }

    /// Takes up files that have changed, and says it, once, when rumqttd can serve nobody any more.
    async fn watch(&self) {
        while !self.inner.is_dead() {
            sleep(LOOK).await;
            let tls = self.tls.clone();
            // It panics for no file; and if it did, what is in use stays in use.
            let _ = spawn_blocking(move || tls.look()).await;
        }
        error!(
            "the broker inside has broken down and serves no client any more: restart tidegate, and report the panic above \
             in this log"
        );
    }

    async fn accept(self: &Arc<Acceptor>, listener: TcpListener) {
        loop {
            let (tcp, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    if let Some(left_out) = self.admit_line("accept") {
                        warn!(%error, left_out, "the broker cannot accept a connection; are there too many open files?");
                    }
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let handshake = match self.handshakes.enter(peer.ip()) {
                Ok(handshake) => handshake,
                Err(crowd) => {
                    self.refuse(peer, &crowd.into());
                    continue;
                }
            };
            let acceptor = self.clone();
            tokio::spawn(async move {
                let welcomed = acceptor.welcome(tcp, peer).await;
                drop(handshake);
                match welcomed {
                    Ok(client) => client.serve(&acceptor.inner, &acceptor.counting).await,
                    Err(refusal) => acceptor.refuse(peer, &refusal),
                }
            });
        }
    }

    fn refuse(&self, peer: SocketAddr, refusal: &Refusal) {
        self.counting.refuse(refusal);
        if let Some(left_out) = self.admit_line(refusal.name()) {
            warn!(%peer, left_out, "the broker refused a client: {refusal}");
        }
    }

    /// Whether such a line is to be written, and if so, how many of its kind were left out before it.
    fn admit_line(&self, kind: &'static str) -> Option<u64> {
        let quiet = self.quiet.lock();
        let mut quiet = quiet.expect("nothing panics while it is locked");
        quiet.admit(kind, Instant::now())
    }

    /// Takes a connection up to the point where rumqttd has taken the client on, or tells the client why not.
    async fn welcome(&self, tcp: TcpStream, peer: SocketAddr) -> Result<Client, Refusal> {
        // Without it small packets wait for acknowledgements. That it fails only costs time.
        let _ = tcp.set_nodelay(true);
        let mut tls = timeout(HANDSHAKE_TIMEOUT, self.tls.acceptor().accept(tcp))
            .await
            .map_err(|_| Refusal::HandshakeTimeout)?
            .map_err(|error| Refusal::of_handshake(&error))?;
        match self.admit(&mut tls).await {
            Ok(admitted) => Ok(Client {
                tls,
                peer,
                admitted,
            }),
            Err(refusal) => {
                let farewell = async {
                    if let Some(code) = refusal.return_code() {
                        tls.write_all(&[0x20, 2, 0, code]).await?;
                    }
                    tls.shutdown().await
                };
                // A client that does not take its farewell has gone, or will find out.
                let _ = timeout(FAREWELL_TIMEOUT, farewell).await;
                Err(refusal)
            }
        }
    }

    async fn admit(&self, tls: &mut TlsStream<TcpStream>) -> Result<Admitted, Refusal> {
        let common_name = common_name(tls)?;
        let connect = timeout(HANDSHAKE_TIMEOUT, Connect::read(tls))
            .await
            .map_err(|_| Refusal::ConnectTimeout)??;
        if connect.client_id != common_name || !certs::is_plain_id(&common_name) {
            return Err(Refusal::ClientId {
                id: connect.client_id,
                common_name,
            });
        }
        let seat = timeout(LEAVE_TIMEOUT, self.seats.take(&connect.client_id))
            .await
            .map_err(|_| unavailable("its earlier connection does not end"))?;
        let permit = self.clients.clone().try_acquire_owned();
        let permit = permit.map_err(|_| Refusal::Full)?;

        // From here on the client may go, but rumqttd is heard out: see the decision.
        let mut inner = self.inner.connect(&connect).await.map_err(unavailable)?;
        let mut connack = [0; 4];
        timeout(CONNACK_TIMEOUT, inner.read_exact(&mut connack))
            .await
            .map_err(unavailable)?
            .map_err(unavailable)?;
        if connack[..2] != [0x20, 2] || connack[3] != 0 {
            return Err(unavailable(format!("it was answered {connack:02x?}")));
        }
        Ok(Admitted {
            client_id: connect.client_id,
            keep_alive: connect.keep_alive,
            will: connect.will,
            connack,
            inner,
            permit,
            seat,
        })
    }
}

fn unavailable(problem: impl ToString) -> Refusal {
    Refusal::Unavailable(problem.to_string())
}

/// The common name of the client's certificate, which the handshake has verified.
fn common_name(tls: &TlsStream<TcpStream>) -> Result<String, Refusal> {
    let certificates = tls.get_ref().1.peer_certificates().unwrap_or_default();
    let certificate = certificates.first().ok_or(Refusal::NoCertificate)?;
    certs::describe_der(certificate)
        .map_err(|error| Refusal::BadCertificate(error.to_string()))?
        .common_name
        .ok_or_else(|| Refusal::BadCertificate("it has not exactly one common name".to_owned()))
}
