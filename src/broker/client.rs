//! A client that has been let in: its packets, checked, to rumqttd, and rumqttd's to it, until one of them ends it.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use tracing::{debug, info, warn};

use super::connect::Will;
use super::inner::Inner;
use super::packet::{self, Malformed, Next};
use super::refusal::Counting;
use super::seats::Seat;

/// For rumqttd to close a connection, and for a later connection of the same client to wait for that.
pub(super) const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest that a client may take nothing of what it is sent, whatever keep-alive it has asked for.
const WRITE_TIMEOUT_MAX: Duration = Duration::from_secs(300);
/// For a last word to a client.
pub(super) const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);

pub(super) struct Client {
    pub(super) tls: TlsStream<TcpStream>,
    pub(super) peer: SocketAddr,
    pub(super) admitted: Admitted,
}

/// What a client got when it was let in. The seat is given back last, so that whoever takes it finds the rest free.
pub(super) struct Admitted {
    pub(super) client_id: String,
    /// Seconds; 0: none.
    pub(super) keep_alive: u16,
    pub(super) will: Option<Will>,
    /// rumqttd's, not yet passed on.
    pub(super) connack: [u8; 4],
    pub(super) inner: TcpStream,
    pub(super) permit: OwnedSemaphorePermit,
    pub(super) seat: Seat,
}

/// How a connection ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// With a DISCONNECT: the will is void.
    Disconnect,
    /// The client closed it, or the network did.
    Closed,
    /// The same client connected again.
    TakenOver,
    /// rumqttd closed it: the keep-alive ran out, mostly.
    Inner,
    /// The client did not take what it was sent.
    Deaf,
    /// The client sent what it must not.
    Malformed(Malformed),
}

impl Client {
    /// Serves the client until its connection ends.
    pub(super) async fn serve(self, inner_broker: &Inner, counting: &Counting) {
        let Client {
            mut tls,
            peer,
            admitted,
        } = self;
        let Admitted {
            client_id,
            keep_alive,
            will,
            connack,
            mut inner,
            permit,
            seat,
        } = admitted;
        counting.accepted.fetch_add(1, Ordering::Relaxed);
        counting.connected.fetch_add(1, Ordering::Relaxed);
        debug!(client_id, %peer, "a client connected to the broker");

        let end = exchange(
            &mut tls,
            &mut inner,
            connack,
            write_timeout(keep_alive),
            &seat,
        )
        .await;
        match &end {
            End::Malformed(malformed) => {
                counting.broken_off.fetch_add(1, Ordering::Relaxed);
                warn!(client_id, %peer, "the broker disconnected a client that sent what it must not: {malformed}");
            }
            End::Deaf => {
                counting.deaf.fetch_add(1, Ordering::Relaxed);
                warn!(client_id, %peer, "the broker disconnected a client that does not take its messages; does it hang, or is its network too slow?");
            }
            End::TakenOver => {
                counting.taken_over.fetch_add(1, Ordering::Relaxed);
                info!(client_id, %peer, "the client connected again, so its earlier connection ends");
            }
            End::Disconnect | End::Closed | End::Inner => {
                debug!(client_id, %peer, ?end, "a client's connection to the broker ended");
            }
        }

        if timeout(LEAVE_TIMEOUT, close(&mut inner)).await.is_err() {
            warn!(
                client_id,
                "the broker does not let go of a connection that has ended"
            );
        }
        drop(inner);
        counting.connected.fetch_sub(1, Ordering::Relaxed);
        drop(permit);
        if end != End::Disconnect
            && let Some(will) = will
            && let Err(problem) = inner_broker.publish(will).await
        {
            warn!(
                client_id,
                problem, "the broker could not publish a client's will"
            );
        }
        drop(seat);
        // A client that does not take its farewell has gone.
        let _ = timeout(FAREWELL_TIMEOUT, tls.shutdown()).await;
    }
}

/// How long a client may take for a few kilobytes: as long as it may be silent (MQTT 3.1.1, 3.1.2.10), but no longer than the
/// maximum. Without it, one that keeps its window shut would keep its seat for ever.
fn write_timeout(keep_alive: u16) -> Duration {
    match keep_alive {
        0 => WRITE_TIMEOUT_MAX,
        seconds => (Duration::from_secs(seconds.into()) * 3 / 2).min(WRITE_TIMEOUT_MAX),
    }
}

/// Passes packets both ways until one side, or the next connection of this client, ends it.
async fn exchange(
    tls: &mut TlsStream<TcpStream>,
    inner: &mut TcpStream,
    connack: [u8; 4],
    write_timeout: Duration,
    seat: &Seat,
) -> End {
    let (mut from_client, mut to_client) = tokio::io::split(tls);
    let (mut from_inner, mut to_inner) = inner.split();
    let outwards = async {
        let mut buffer = vec![0; 8 * 1024];
        buffer[..connack.len()].copy_from_slice(&connack);
        let mut filled = connack.len();
        loop {
            let write = async {
                to_client.write_all(&buffer[..filled]).await?;
                to_client.flush().await
            };
            match timeout(write_timeout, write).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return End::Closed,
                Err(_) => return End::Deaf,
            }
            filled = match from_inner.read(&mut buffer).await {
                Ok(0) | Err(_) => return End::Inner,
                Ok(length) => length,
            };
        }
    };
    tokio::select! {
        end = pass_checked(&mut from_client, &mut to_inner) => end,
        end = outwards => end,
        () = seat.asked_to_leave() => End::TakenOver,
    }
}

/// Passes a client's packets on, each once it is whole and has been checked.
async fn pass_checked(
    from_client: &mut (impl AsyncRead + Unpin),
    to_inner: &mut (impl AsyncWrite + Unpin),
) -> End {
    let mut buffer = BytesMut::with_capacity(8 * 1024);
    loop {
        let mut checked = 0;
        let stop = loop {
            match packet::next(&buffer[checked..]) {
                Ok(Next::Packet(length)) => checked += length,
                Ok(Next::Incomplete) => break None,
                Ok(Next::Disconnect) => break Some(End::Disconnect),
                Err(malformed) => break Some(End::Malformed(malformed)),
            }
        };
        if checked > 0 && to_inner.write_all(&buffer.split_to(checked)).await.is_err() {
            return End::Inner;
        }
        if let Some(end) = stop {
            return end;
        }
        match from_client.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => return End::Closed,
            Ok(_) => {}
        }
    }
}

/// Says good-bye to rumqttd and waits until it has closed the connection, after which its router knows.
async fn close(inner: &mut TcpStream) {
    // If this fails, the connection is closed already, which the reading below finds out.
    let _ = inner.shutdown().await;
    let _ = tokio::io::copy(inner, &mut tokio::io::sink()).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_may_be_deaf_for_as_long_as_it_may_be_silent() {
        let check = |keep_alive: u16, expected_ms: u64| {
            let expected = Duration::from_millis(expected_ms);
            assert_eq!(write_timeout(keep_alive), expected, "{keep_alive}");
        };
        check(1, 1_500);
        check(60, 90_000);
        check(200, 300_000);
        check(u16::MAX, 300_000);
        check(0, 300_000);
    }
}
