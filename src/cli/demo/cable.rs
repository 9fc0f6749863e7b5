//! A cable between device and broker that can be cut: a TCP relay on loopback.

use std::net::SocketAddr;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Relays TCP connections until it is cut, and again once it is mended.
pub(super) struct Cable {
    address: SocketAddr,
    is_whole: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Cable {
    pub(super) async fn lay(to: SocketAddr) -> std::io::Result<Cable> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (is_whole, watched) = watch::channel(true);
        let task = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                // A connection made while the cable is cut is dropped at once, as by a router without a route.
                if *watched.borrow() {
                    tokio::spawn(relay(near, to, watched.clone()));
                }
            }
        });
        Ok(Cable {
            address,
            is_whole,
            task,
        })
    }

    /// Where the device's end is.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts the cable: what is on its way is lost, connections end.
    pub(super) fn cut(&self) {
        self.is_whole.send_replace(false);
    }

    pub(super) fn mend(&self) {
        self.is_whole.send_replace(true);
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn relay(mut near: TcpStream, to: SocketAddr, mut is_whole: watch::Receiver<bool>) {
    let Ok(mut far) = TcpStream::connect(to).await else {
        return;
    };
    tokio::select! {
        // How a connection ends is for its two ends to know.
        _ = copy_bidirectional(&mut near, &mut far) => {}
        _ = is_whole.wait_for(|is_whole| !is_whole) => {}
    }
}
