//! New certificate files beside a standing connection: tried on a connection of their own, and given to the worker when they work.
//!
//! Only TLS is tried: a second CONNECT with the same client id would end the connection that stands. See
//! docs/decisions/0021-certificates.md.
//!
//! Terms: the files *in use* are those the standing connection was made with; a *trial* is one attempt with newer ones.
//!
//! Must not: speak MQTT, or touch the standing connection.

use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::{ServerName, UnixTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;

use super::expiry::{self, Expiry};
use super::explain::{Context, explain};
use super::mqtt::{io_failure, judged_at};
use super::reason::{Failure, Kind};
use super::status::Reporter;
use super::timing::{Backoff, Timing};
use super::tls::{self, Stamps};
use super::{Address, Settings};

/// Files that can make a connection, as they were read.
#[derive(Clone)]
pub(super) struct Loaded {
    pub(super) config: ClientConfig,
    /// The device's certificate, and until when it is good.
    pub(super) certificate: Option<Expiry>,
    /// What the files looked like before they were read.
    pub(super) stamps: Stamps,
}

/// Reads and checks the files, off the threads that must not wait for a disk.
pub(super) async fn read(settings: &Settings, now: UnixTime) -> Result<Loaded, Failure> {
    let files = settings.files.clone();
    let stamps = files.stamps();
    let read = move || {
        let (config, leaf) = tls::load_own(&files, now)?;
        let certificate = expiry::of_own(&files, &leaf);
        Ok(Loaded {
            config,
            certificate,
            stamps,
        })
    };
    spawn_blocking(read)
        .await
        .map_err(|error| Failure::Protocol(error.to_string()))?
}

/// Looks for files newer than those in use, for as long as a connection stands.
pub(super) struct Renewal {
    pub(super) settings: Settings,
    /// Where the connection stands.
    pub(super) address: Address,
    pub(super) timing: Timing,
    pub(super) reporter: Reporter,
}

impl Renewal {
    /// Returns with the first newer files that work. Until then failures are said, once per change of the files and kind of
    /// reason, and tried again with a back-off.
    pub(super) async fn newer_files(self, in_use: Stamps) -> Loaded {
        let mut seen = in_use.clone();
        let mut backoff = Backoff::new(self.timing.backoff_min, self.timing.backoff_max);
        // How long until the files are tried; none while they are those in use.
        let mut wait: Option<Duration> = None;
        let mut said: Option<Kind> = None;
        loop {
            sleep(self.timing.look).await;
            let stamps = self.settings.files.stamps();
            if stamps != seen {
                wait = (stamps != in_use).then_some(Duration::ZERO);
                seen = stamps;
                said = None;
                backoff.reset();
                self.reporter.newer_files(None);
                // They may be half written: the next look tells.
                continue;
            }
            match wait {
                None => continue,
                Some(Duration::ZERO) => {}
                Some(rest) => {
                    wait = Some(rest.saturating_sub(self.timing.look));
                    continue;
                }
            }
            match self.trial().await {
                Ok(loaded) => return loaded,
                Err(failure) => self.say(&failure, &mut said),
            }
            wait = Some(backoff.next());
        }
    }

    /// Reads the files, and makes a TLS connection with them that the broker does not end.
    async fn trial(&self) -> Result<Loaded, Failure> {
        let loaded = read(&self.settings, judged_at()).await?;
        let handshake = handshake(
            loaded.config.clone(),
            &self.address,
            self.timing.trial_silence,
        );
        let limit = self.timing.connect_timeout + self.timing.trial_silence;
        timeout(limit, handshake)
            .await
            .map_err(|_| Failure::ConnectTimeout)??;
        Ok(loaded)
    }

    /// Puts the reason into the status, and into the log if it is news.
    fn say(&self, failure: &Failure, said: &mut Option<Kind>) {
        let reason = explain(
            failure,
            &Context {
                address: &self.address,
                client_id: &self.settings.client_id,
                files: &self.settings.files,
                now: judged_at(),
                connected: false,
                connect_timeout: self.timing.connect_timeout,
                // Nothing is published in a trial.
                ack_timeout: Duration::ZERO,
            },
        );
        if said.replace(reason.kind) != Some(reason.kind) {
            let longest = self.timing.backoff_max;
            tracing::error!(
                "the changed certificate files of the uplink are not used: {reason}; the connection stays up with \
                 those from before, and the new ones are tried again when they change, and every {longest:?}"
            );
        }
        self.reporter.newer_files(Some(reason));
    }
}

/// A TLS connection that is closed again without a word of MQTT. In TLS 1.3 the broker judges our certificate when we are done
/// already, so what it has to say is waited for: silence is consent.
async fn handshake(
    config: ClientConfig,
    address: &Address,
    silence: Duration,
) -> Result<(), Failure> {
    let name = ServerName::try_from(address.host.clone())
        .map_err(|error| Failure::Protocol(error.to_string()))?;
    let tcp = TcpStream::connect((address.host.as_str(), address.port))
        .await
        .map_err(io_failure)?;
    let connector = TlsConnector::from(Arc::new(config));
    let mut stream = connector.connect(name, tcp).await.map_err(io_failure)?;
    match timeout(silence, stream.read(&mut [0])).await {
        Ok(Ok(0)) => return Err(Failure::Closed),
        Ok(Err(error)) => return Err(io_failure(error)),
        // A byte nobody asked for is no refusal.
        Ok(Ok(_)) | Err(_) => {}
    }
    // The broker needs no goodbye to believe that we are gone.
    let _ = stream.shutdown().await;
    Ok(())
}

#[cfg(test)]
#[path = "renewal_test.rs"]
mod tests;
