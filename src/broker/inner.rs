//! rumqttd, without TLS, on a loopback port that only the acceptor can use. The only file that names it.
//!
//! Must not: be reachable from the network, or be handed anything that has not passed the acceptor. Why each of its edges
//! is padded is told in `docs/decisions/0004-broker-acceptor.md`.

use std::collections::HashMap;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use rumqttd::local::{LinkBuilder, LinkRx, LinkTx};
use rumqttd::protocol::v4::V4;
use rumqttd::protocol::{Packet, Publish};
use rumqttd::{ConnectionSettings, LinkType, Router, RouterConfig, Server, ServerSettings};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::sync::Mutex;

use super::BrokerError;
use super::connect::{CONNECT_MAX, Connect, Will};
use super::packet::PACKET_MAX;

/// rumqttd locks itself up when it is full, so it never is: our cap plus room for local links and for connections that
/// it has not quite let go.
const HEADROOM: usize = 64;
/// What each subscription's log keeps at most, for subscribers that lag: 4 segments of 512 KiB. Beyond it they miss messages.
const SEGMENT_SIZE: usize = 512 * 1024;
const SEGMENT_COUNT: usize = 4;
const USER: &str = "tidegate";
/// The id of our own link; the space keeps every client from having it.
const WILLS_ID: &str = "tidegate wills";

/// A running rumqttd.
pub(super) struct Inner {
    address: SocketAddr,
    password: String,
    /// Publishes wills. The receiving half is kept because the router sees a link without one as gone.
    wills: Mutex<LinkTx>,
    _wills_rx: LinkRx,
    /// rumqttd does not export the type of its router's channel, so this stands for it.
    router_is_gone: Box<dyn Fn() -> bool + Send + Sync>,
}

impl Inner {
    /// Starts it on the given runtime and returns once it listens. Its router thread outlives the runtime, asleep.
    pub(super) fn start(runtime: &Runtime, max_connections: usize) -> Result<Inner, BrokerError> {
        let password = random_password()?;
        let router = Router::new(
            0,
            RouterConfig {
                max_connections: max_connections + HEADROOM,
                max_outgoing_packet_count: 200,
                max_segment_size: SEGMENT_SIZE,
                max_segment_count: SEGMENT_COUNT,
                ..RouterConfig::default()
            },
        )
        .spawn();
        let (wills, wills_rx, _) = LinkBuilder::new(WILLS_ID, router.clone())
            .dynamic_filters(true)
            .build()
            .map_err(|error| BrokerError::Inner(error.to_string()))?;

        // The port is free when it is chosen, and rumqttd binds it itself a moment later: so it may take another try.
        let mut last_error = String::new();
        for _ in 0..16 {
            let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
                .and_then(|listener| listener.local_addr())
                .map_err(|error| BrokerError::Inner(error.to_string()))?;
            let mut server = Server::new(settings(address, &password), router.clone(), V4);
            let mut serve = Box::pin(async move {
                let ended = server.start(LinkType::Remote).await;
                ended.map_err(|error| error.to_string())
            });
            match first_poll(runtime, serve.as_mut()) {
                Poll::Pending => {
                    runtime.spawn(serve);
                    let router_is_gone = Box::new(move || router.is_disconnected());
                    return Ok(Inner {
                        address,
                        password,
                        wills: Mutex::new(wills),
                        _wills_rx: wills_rx,
                        router_is_gone,
                    });
                }
                Poll::Ready(Err(error)) => last_error = error,
                Poll::Ready(Ok(())) => {}
            }
        }
        Err(BrokerError::Inner(last_error))
    }

    /// Opens a connection for a client and sends its CONNECT.
    pub(super) async fn connect(&self, connect: &Connect) -> std::io::Result<TcpStream> {
        use tokio::io::AsyncWriteExt;
        let mut stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let packet = connect.for_rumqttd(USER, &self.password);
        stream.write_all(&packet).await?;
        Ok(stream)
    }

    /// Publishes the will of a client whose connection has ended.
    pub(super) async fn publish(&self, will: Will) -> Result<(), String> {
        // QoS 0: nothing gets lost between us and the router, and subscribers get it with the QoS they asked for.
        let publish = Publish::new(will.topic.into_bytes(), will.payload, will.retain);
        let mut wills = self.wills.lock().await;
        let sent = wills.send(Packet::Publish(publish, None)).await;
        sent.map(drop).map_err(|error| error.to_string())
    }

    /// Whether its router thread has panicked. Nobody is served any more then, and nothing starts it again.
    pub(super) fn is_dead(&self) -> bool {
        (self.router_is_gone)()
    }

    #[cfg(test)]
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Runs the server up to its first wait. It binds its port before that, so if it waits, it listens.
fn first_poll<F: Future>(runtime: &Runtime, serve: Pin<&mut F>) -> Poll<F::Output> {
    let _inside = runtime.enter();
    serve.poll(&mut Context::from_waker(Waker::noop()))
}

fn settings(listen: SocketAddr, password: &str) -> ServerSettings {
    const { assert!(CONNECT_MAX < PACKET_MAX) };
    ServerSettings {
        name: "tidegate".to_owned(),
        listen,
        tls: None,
        next_connection_delay_ms: 0,
        connections: ConnectionSettings {
            connection_timeout_ms: 5_000,
            max_payload_size: PACKET_MAX,
            max_inflight_count: 100,
            auth: Some(HashMap::from([(USER.to_owned(), password.to_owned())])),
            external_auth: None,
            dynamic_filters: true,
        },
    }
}

/// 256 random bits in hexadecimal.
fn random_password() -> Result<String, BrokerError> {
    let mut bytes = [0; 32];
    rustls::crypto::ring::default_provider()
        .secure_random
        .fill(&mut bytes)
        .map_err(|_| BrokerError::Random)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// The acceptor keeps clients from this, but not from everything that ends the router.
    #[test]
    fn a_router_that_has_panicked_is_dead() {
        let runtime = Runtime::new().unwrap();
        let inner = Inner::start(&runtime, 10).unwrap();
        assert!(!inner.is_dead());
        let will = |topic: &str| Will {
            topic: topic.to_owned(),
            payload: Vec::new(),
            retain: false,
        };
        runtime.block_on(async {
            inner.publish(will("a/b")).await.unwrap();
            assert!(!inner.is_dead());
            // It panics where it compares the topic with a filter.
            inner.wills.lock().await.subscribe("a/b").unwrap();
            inner.publish(will("\u{fc}ber")).await.unwrap();
            for _ in 0..2_000 {
                if inner.is_dead() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            panic!("not noticed");
        });
    }
}
