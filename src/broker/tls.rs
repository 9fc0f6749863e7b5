//! The acceptor's TLS: a client certificate of the given CA, or no connection.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};

use super::{BrokerError, Settings};
use crate::certs;

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

/// TLS 1.2 and 1.3 with ring. No session is resumed: a resumed one would skip looking at the client's certificate again,
/// which may have expired since.
pub(super) fn server_config(settings: &Settings) -> Result<ServerConfig, BrokerError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in settings.ca.certificates("broker.ca")? {
        roots.add(certificate).map_err(|error| BrokerError::Pem {
            key: "broker.ca",
            place: settings.ca.place(),
            problem: error.to_string(),
        })?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|error| BrokerError::Pem {
            key: "broker.ca",
            place: settings.ca.place(),
            problem: error.to_string(),
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
