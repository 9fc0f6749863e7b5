//! The broker: a local MQTT broker for the sensors and machines around this device, over mutual TLS.
//!
//! Terms: a *client* is what connects, known by its certificate; a *refusal* is a connection that never became a client.
//!
//! Must not: trust rumqttd with a network, or a client with rumqttd. `acceptor` is all that clients reach; `inner`, the only
//! file that names rumqttd, is reached from there alone. The reasons are in `docs/decisions/0004-broker-acceptor.md`.
//!
//! # Layout
//! `acceptor` (handshake, who may come in: `handshakes`, `tls`, `connect`, `seats`, `refusal`, `quiet`) -> `client` (packets
//! both ways: `packet`) -> `inner` (rumqttd).

mod acceptor;
mod client;
mod connect;
mod handshakes;
mod inner;
mod packet;
mod quiet;
mod refusal;
mod seats;
#[cfg(test)]
mod tests;
mod tls;

use std::io;
use std::net::SocketAddr;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;

pub use refusal::Counters;
pub use tls::PemSource;

use acceptor::Acceptor;
use inner::Inner;
use refusal::Counting;

use crate::revocation::RevocationError;

/// How long each of the broker's two runtimes may take to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// Reads bytes as a client's: a CONNECT packet, and what follows.
#[cfg(any(test, fuzzing))]
pub(crate) fn read_anything(mut bytes: &[u8]) {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    let all = bytes;
    let read =
        pin!(connect::Connect::read(&mut bytes)).poll(&mut Context::from_waker(Waker::noop()));
    match read {
        Poll::Ready(Ok(connect)) => {
            let rewritten = connect.for_rumqttd("user", "password");
            let again = pin!(connect::Connect::read(&mut rewritten.as_slice()))
                .poll(&mut Context::from_waker(Waker::noop()));
            assert!(matches!(again, Poll::Ready(Ok(_))), "{connect:?}");
        }
        Poll::Ready(Err(error)) => assert!(!error.to_string().is_empty()),
        Poll::Pending => panic!("bytes are there, or they are not"),
    }
    for mut rest in [all, bytes] {
        while let Ok(packet::Next::Packet(length)) = packet::next(rest) {
            assert!(length >= 2, "a packet has a header");
            assert_eq!(
                packet::next(&rest[..length]),
                Ok(packet::Next::Packet(length))
            );
            rest = &rest[length..];
        }
    }
}

/// How the broker is to be run.
#[derive(Clone)]
pub struct Settings {
    /// Where clients connect; port 0 takes a free one.
    pub listen: SocketAddr,
    /// What clients' certificates must chain to: all of its certificates count, and no others.
    pub ca: PemSource,
    /// The broker's own certificate, followed by those between it and the clients' CA, if any.
    pub cert: PemSource,
    pub key: PemSource,
    /// Revocation lists of the authorities in the chains of clients' certificates, one of each, and all of them current. What
    /// they have revoked, or do not cover, is not let in, and neither is anybody once they have expired. Files are looked at
    /// every few seconds; a client that is connected already stays.
    pub crl: Option<PemSource>,
    /// Clients at a time. Each takes three file descriptors.
    pub max_connections: usize,
}

impl Settings {
    pub const DEFAULT_MAX_CONNECTIONS: usize = 500;
}

/// Why the broker does not start.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    #[error("cannot read {} ({key}); check the path and that this user may read it", .path.display())]
    Read {
        key: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{place} ({key}) cannot be used: {problem}; give a file in PEM form")]
    Pem {
        key: &'static str,
        place: String,
        problem: String,
    },
    #[error(
        "{} ({key}) is open to others than its owner (mode {mode:04o}), and is not used: `chmod 600 {0}`", .path.display()
    )]
    ExposedKey {
        key: &'static str,
        path: PathBuf,
        mode: u32,
    },
    #[error("{place} (broker.crl) cannot be used: {error}")]
    Crl {
        place: String,
        error: RevocationError,
    },
    #[error(
        "the certificate in {cert} and the key in {key} do not go together; give the pair that was issued together"
    )]
    KeyMismatch {
        cert: String,
        key: String,
        source: rustls::Error,
    },
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
    #[error(
        "the broker cannot listen on {address} (broker.listen); is another program using it, or is it another device's?"
    )]
    Listen {
        address: SocketAddr,
        source: io::Error,
    },
    #[error("the broker got no thread to run on; is the device out of memory?")]
    Runtime(#[source] io::Error),
    #[error("the system gave no random numbers for the broker's inner password; try again")]
    Random,
    #[error("the broker inside does not start ({0}); is the loopback interface up?")]
    Inner(String),
}

/// A running broker. It stops when this is dropped, or at [`Broker::stop`], which waits for it.
pub struct Broker {
    local_addr: SocketAddr,
    counting: Arc<Counting>,
    runtimes: Runtimes,
    #[cfg(test)]
    inner_addr: SocketAddr,
}

impl Broker {
    /// Starts the broker and returns once clients can connect.
    pub fn start(settings: Settings) -> Result<Broker, BrokerError> {
        let tls = tls::Renewed::new(settings.clone())?;
        let listen = |source| BrokerError::Listen {
            address: settings.listen,
            source,
        };
        let listener = std::net::TcpListener::bind(settings.listen).map_err(listen)?;
        listener.set_nonblocking(true).map_err(listen)?;
        let local_addr = listener.local_addr().map_err(listen)?;

        let runtimes = Runtimes::start()?;
        let inner = Inner::start(&runtimes.inner, settings.max_connections)?;
        #[cfg(test)]
        let inner_addr = inner.address();

        let counting = Arc::<Counting>::default();
        let acceptor = Acceptor::new(tls, inner, counting.clone(), settings.max_connections);
        {
            let _inside = runtimes.outer.enter();
            let listener = tokio::net::TcpListener::from_std(listener).map_err(listen)?;
            tokio::spawn(Arc::new(acceptor).run(listener));
        }
        Ok(Broker {
            local_addr,
            counting,
            runtimes,
            #[cfg(test)]
            inner_addr,
        })
    }

    /// Where it listens, with the port it got.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// What it has seen since its start.
    pub fn counters(&self) -> Counters {
        self.counting.read()
    }

    /// Ends all connections, closes the port and waits for that, a few seconds at most. Sessions and retained messages are
    /// gone. May be called from asynchronous code, which it blocks.
    pub fn stop(self) {
        self.runtimes.stop();
    }
}

/// Two of them, because rumqttd blocks its thread while its router answers.
struct Runtimes {
    outer: OwnRuntime,
    inner: OwnRuntime,
}

impl Runtimes {
    fn start() -> Result<Runtimes, BrokerError> {
        Ok(Runtimes {
            outer: OwnRuntime::start("broker", 2)?,
            inner: OwnRuntime::start("broker-inner", 1)?,
        })
    }

    /// The outer one first, so that nobody is handed to an rumqttd that has gone.
    fn stop(self) {
        self.outer.stop();
        self.inner.stop();
    }
}

/// A runtime that may be dropped and stopped anywhere: tokio's own panics where asynchronous code does that.
struct OwnRuntime(Option<Runtime>);

impl OwnRuntime {
    fn start(name: &str, threads: usize) -> Result<OwnRuntime, BrokerError> {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name(name)
            .enable_all()
            .build()
            .map(|runtime| OwnRuntime(Some(runtime)))
            .map_err(BrokerError::Runtime)
    }

    fn stop(mut self) {
        if let Some(runtime) = self.0.take() {
            let stopping = std::thread::spawn(|| runtime.shutdown_timeout(STOP_TIMEOUT));
            if stopping.join().is_err() {
                tracing::error!("the broker did not stop as it should");
            }
        }
    }
}

impl Deref for OwnRuntime {
    type Target = Runtime;

    fn deref(&self) -> &Runtime {
        self.0.as_ref().expect("it is there until it is stopped")
    }
}

impl Drop for OwnRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
