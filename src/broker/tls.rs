//! The acceptor's TLS: a client certificate of the given CA that no revocation list takes back, or no connection.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;
use tracing::{error, info};

use super::{BrokerError, Settings};
use crate::certs;
use crate::message::Timestamp;
use crate::revocation::RevocationList;
use crate::runtime::driver::chain;

/// Certificates or a key in PEM form: a file, or the text itself.
#[derive(Clone)]
pub enum PemSource {
    File(PathBuf),
    Text(String),
}

impl PemSource {
    fn read(&self, key: &'static str) -> Result<Vec<u8>, BrokerError> {
        match self {
            PemSource::Text(text) => Ok(text.clone().into_bytes()),
            PemSource::File(path) => std::fs::read(path).map_err(|source| BrokerError::Read {
                key,
                path: path.clone(),
                source,
            }),
        }
    }

    /// Reads a key, which must be its owner's alone.
    fn read_key(&self, key: &'static str) -> Result<Vec<u8>, BrokerError> {
        let text = self.read(key)?;
        if let PemSource::File(path) = self
            && let Some(mode) = std::fs::metadata(path)
                .ok()
                .and_then(|metadata| certs::exposed_mode(&metadata))
        {
            let path = path.clone();
            return Err(BrokerError::ExposedKey { key, path, mode });
        }
        Ok(text)
    }

    fn lists(&self, now: Timestamp) -> Result<Vec<RevocationList>, BrokerError> {
        let text = self.read("broker.crl")?;
        RevocationList::read_current(&text, now).map_err(|error| BrokerError::Crl {
            place: self.place(),
            error,
        })
    }

    /// What tells one version of the file from the next: a text has one version only.
    fn stamp(&self) -> Option<Stamp> {
        let PemSource::File(path) = self else {
            return None;
        };
        let meta = std::fs::metadata(path).ok()?;
        Some(Stamp {
            inode: meta.ino(),
            len: meta.len(),
            changed: (meta.ctime(), meta.ctime_nsec()),
        })
    }

    fn place(&self) -> String {
        match self {
            PemSource::File(path) => path.display().to_string(),
            PemSource::Text(_) => "the given text".to_owned(),
        }
    }

    fn certificates(&self, key: &'static str) -> Result<Vec<CertificateDer<'static>>, BrokerError> {
        let bad = |problem: String| BrokerError::Pem {
            key,
            place: self.place(),
            problem,
        };
        let certificates = CertificateDer::pem_slice_iter(&self.read(key)?)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| bad(error.to_string()))?;
        match certificates.is_empty() {
            true => Err(bad("there is no certificate in it".to_owned())),
            false => Ok(certificates),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    len: u64,
    /// Seconds and nanoseconds of the last change.
    changed: (i64, i64),
}

/// The TLS that new connections get. When files have changed it is made anew; if what they hold now cannot be used, it stays
/// as it was.
pub(super) struct Renewed {
    settings: Settings,
    current: Mutex<Current>,
}

struct Current {
    acceptor: TlsAcceptor,
    stamps: [Option<Stamp>; 4],
}

impl Renewed {
    pub(super) fn new(settings: Settings) -> Result<Renewed, BrokerError> {
        let stamps = stamps(&settings);
        let acceptor = TlsAcceptor::from(Arc::new(server_config(&settings)?));
        Ok(Renewed {
            current: Mutex::new(Current { acceptor, stamps }),
            settings,
        })
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        self.lock().acceptor.clone()
    }

    /// Looks whether files have changed, and says so. It reads the disk.
    pub(super) fn look(&self) {
        let stamps = stamps(&self.settings);
        if self.lock().stamps == stamps {
            return;
        }
        let config = server_config(&self.settings);
        let mut current = self.lock();
        current.stamps = stamps;
        match config {
            Ok(config) => {
                current.acceptor = TlsAcceptor::from(Arc::new(config));
                info!(
                    "the broker's certificates or revocation lists have changed, and are in use for new connections"
                );
            }
            Err(error) => error!(
                "the broker's certificates or revocation lists have changed and cannot be used, so it keeps those it had: {}",
                chain(&error)
            ),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Current> {
        self.current
            .lock()
            .expect("nothing panics while it is locked")
    }
}

/// The time by which rustls judges certificates, and so do we: the system's.
fn judged_at() -> Timestamp {
    let seconds = i64::try_from(UnixTime::now().as_secs()).unwrap_or(i64::MAX);
    Timestamp::from_millis(seconds.saturating_mul(1000))
}

fn stamps(settings: &Settings) -> [Option<Stamp>; 4] {
    let sources = [
        Some(&settings.ca),
        Some(&settings.cert),
        Some(&settings.key),
        settings.crl.as_ref(),
    ];
    sources.map(|source| source?.stamp())
}

/// TLS 1.2 and 1.3 with ring. No session is resumed: a resumed one would skip looking at the client's certificate again,
/// which may have expired since.
fn server_config(settings: &Settings) -> Result<ServerConfig, BrokerError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in settings.ca.certificates("broker.ca")? {
        roots.add(certificate).map_err(|error| BrokerError::Pem {
            key: "broker.ca",
            place: settings.ca.place(),
            problem: error.to_string(),
        })?;
    }
    let mut verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    if let Some(crl) = &settings.crl {
        let lists = crl.lists(judged_at())?;
        verifier = verifier
            .with_crls(lists.into_iter().map(|list| list.der))
            .enforce_revocation_expiration();
    }
    let verifier = verifier.build().map_err(|error| {
        let (key, source) = match (&settings.crl, &error) {
            (Some(crl), VerifierBuilderError::InvalidCrl(_)) => ("broker.crl", crl),
            _ => ("broker.ca", &settings.ca),
        };
        BrokerError::Pem {
            key,
            place: source.place(),
            problem: error.to_string(),
        }
    })?;
    let chain = settings.cert.certificates("broker.cert")?;
    let key =
        PrivateKeyDer::from_pem_slice(&settings.key.read_key("broker.key")?).map_err(|error| {
            BrokerError::Pem {
                key: "broker.key",
                place: settings.key.place(),
                problem: error.to_string(),
            }
        })?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(BrokerError::Tls)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|source| BrokerError::KeyMismatch {
            cert: settings.cert.place(),
            key: settings.key.place(),
            source,
        })?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}
