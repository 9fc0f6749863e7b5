//! Turns the uplink's PEM files into a TLS client configuration, or says in words why that does not go.
//!
//! What the broker's certificate must chain to is the given CA and nothing else, unless the settings say that the authorities
//! of the operating system count (`ca = "system"`). TLS 1.3, and 1.2 only where the settings allow it. The device's own
//! certificate need not be signed by that CA: it is the broker who judges it.
//!
//! The one exception to `runtime/clock.rs`: the broker's certificate is judged by the system's clock, which rustls reads
//! itself (`DefaultTimeProvider`). So the `now` that comes in here for the device's own certificate is read from there too,
//! and both are judged alike; docs/decisions/0003-uplink-session.md has the reason.
//!
//! Must not: open sockets, or read a clock beyond that.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme, SupportedProtocolVersion,
};
use schemars::JsonSchema;
use serde::Deserialize;
use x509_parser::parse_x509_certificate;

use super::pem::{bad_certificate, read_certificates, read_key, read_revocation_lists};
use super::reason::Date;

pub use super::pem::{LoadError, Role};

/// Where operating systems keep the authorities they trust, in one PEM file: Debian and Raspberry Pi OS (and most others),
/// Fedora, Alpine.
const SYSTEM_BUNDLES: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];

/// Where the certificates are, in PEM, and how they are to be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// What the broker's certificate must chain to.
    pub ca: Ca,
    /// This device's certificate, followed by its intermediates, if any.
    pub cert: PathBuf,
    /// The private key of `cert`, without a passphrase, and its owner's alone.
    pub key: PathBuf,
    /// What the broker's authorities have revoked: one list for each authority in the chain of its certificate.
    pub crl: Option<PathBuf>,
    pub options: Options,
}

/// The authorities whom the broker's certificate must come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ca {
    /// One or several CA certificates in a file.
    File(PathBuf),
    /// Those that the operating system trusts, for brokers with a public certificate.
    System,
}

/// How TLS is spoken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    pub min_version: TlsVersion,
    /// The protocols that are offered in the handshake (ALPN, RFC 7301), the first one preferred. None: nothing is offered.
    pub alpn: Vec<String>,
    /// The name that the broker's certificate must have, if it is not the host of the URL.
    pub server_name: Option<ServerName<'static>>,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum TlsVersion {
    #[serde(rename = "1.2")]
    V1_2,
    #[default]
    #[serde(rename = "1.3")]
    V1_3,
}

impl Files {
    /// With a private CA, without revocation lists, and TLS as it is by default.
    pub fn new(ca: impl Into<PathBuf>, cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Files {
        Files {
            ca: Ca::File(ca.into()),
            cert: cert.into(),
            key: key.into(),
            crl: None,
            options: Options::default(),
        }
    }
}

impl Ca {
    /// The file the authorities are in.
    pub fn path(&self) -> &Path {
        match self {
            Ca::File(path) => path,
            Ca::System => {
                let there = SYSTEM_BUNDLES.iter().find(|path| Path::new(path).exists());
                Path::new(there.unwrap_or(&SYSTEM_BUNDLES[0]))
            }
        }
    }
}

impl fmt::Display for Ca {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ca::File(path) => write!(f, "the CA in {}", path.display()),
            Ca::System => write!(
                f,
                "an authority that the system trusts ({})",
                self.path().display()
            ),
        }
    }
}

impl TlsVersion {
    /// This version and those after it.
    fn and_later(self) -> &'static [&'static SupportedProtocolVersion] {
        static FROM_1_2: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
        static FROM_1_3: [&SupportedProtocolVersion; 1] = [&TLS13];
        match self {
            TlsVersion::V1_2 => &FROM_1_2,
            TlsVersion::V1_3 => &FROM_1_3,
        }
    }
}

/// Reads and checks the files. `now` is the time by which the device's own certificate is judged.
pub fn load(files: &Files, now: UnixTime) -> Result<ClientConfig, LoadError> {
    load_own(files, now).map(|(config, _)| config)
}

/// The same, and the device's certificate that is in it.
pub(super) fn load_own(
    files: &Files,
    now: UnixTime,
) -> Result<(ClientConfig, CertificateDer<'static>), LoadError> {
    let provider = Arc::new(ring::default_provider());
    let verifier = verifier(files, now, &provider)?;
    let chain = read_certificates(Role::Cert, &files.cert)?;
    let key = read_key(&files.key)?;
    check_validity(&chain[0], &files.cert, now)?;
    let own = chain[0].clone();
    let certified = certified_key(files, chain, key, &provider)?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(files.options.min_version.and_later())
        .expect("ring has cipher suites for TLS 1.3 and 1.2");
    let builder = match files.options.server_name.clone() {
        None => builder.with_webpki_verifier(verifier),
        Some(name) => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Named { name, verifier })),
    };
    let mut config = builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    let protocols = files.options.alpn.iter();
    config.alpn_protocols = protocols.map(|name| name.as_bytes().to_vec()).collect();
    // A resumed session skips the check of the certificates, in both directions.
    config.resumption = Resumption::disabled();
    Ok((config, own))
}

/// What judges the broker's certificate: the authorities, and their revocation lists where some are given. Then the whole chain
/// must be covered by lists, and by current ones.
fn verifier(
    files: &Files,
    now: UnixTime,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, LoadError> {
    let roots = Arc::new(read_roots(&files.ca)?);
    let mut builder = WebPkiServerVerifier::builder_with_provider(roots, provider.clone());
    if let Some(path) = &files.crl {
        let lists = read_revocation_lists(path, now)?;
        builder = builder
            .with_crls(lists.into_iter().map(|list| list.der))
            .enforce_revocation_expiration();
    }
    builder.build().map_err(|error| match &files.crl {
        Some(path) => LoadError::BadCrl {
            path: path.clone(),
            error: error.to_string(),
        },
        None => LoadError::BadCertificate {
            role: Role::Ca,
            path: files.ca.path().to_owned(),
        },
    })
}

fn read_roots(ca: &Ca) -> Result<RootCertStore, LoadError> {
    let mut roots = RootCertStore::empty();
    let path = ca.path();
    let certificates = read_certificates(Role::Ca, path).map_err(|error| match (ca, error) {
        (Ca::System, LoadError::Missing { path, .. }) => LoadError::NoSystemCa { path },
        (_, error) => error,
    })?;
    let bad = || LoadError::BadCertificate {
        role: Role::Ca,
        path: path.to_owned(),
    };
    match ca {
        Ca::File(_) => {
            for certificate in certificates {
                roots.add(certificate).map_err(|_| bad())?;
            }
        }
        // Nobody here has chosen them, so one that is odd does not spoil the others.
        Ca::System => {
            if roots.add_parsable_certificates(certificates).0 == 0 {
                return Err(bad());
            }
        }
    }
    Ok(roots)
}

/// Judges the broker's certificate by another name than that of the host it was reached at.
#[derive(Debug)]
struct Named {
    name: ServerName<'static>,
    verifier: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for Named {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let name = &self.name;
        self.verifier
            .verify_server_cert(end_entity, intermediates, name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

fn check_validity(
    certificate: &CertificateDer<'_>,
    path: &Path,
    now: UnixTime,
) -> Result<(), LoadError> {
    let (_, parsed) = parse_x509_certificate(certificate).map_err(|_| bad_certificate(path))?;
    let validity = parsed.validity();
    let (not_before, not_after) = (
        validity.not_before.timestamp(),
        validity.not_after.timestamp(),
    );
    let (path, now) = (path.to_owned(), Date::from(now));
    if now > Date(not_after) {
        return Err(LoadError::Expired {
            path,
            not_after: Date(not_after),
            now,
        });
    }
    if now < Date(not_before) {
        return Err(LoadError::NotYetValid {
            path,
            not_before: Date(not_before),
            now,
        });
    }
    Ok(())
}

/// Puts certificate and key together. rustls would do so too, but its check refuses X.509 version 1, which a broker may
/// well accept from a device.
fn certified_key(
    files: &Files,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, LoadError> {
    let key = provider
        .key_provider
        .load_private_key(key)
        .map_err(|_| LoadError::BadKey {
            path: files.key.clone(),
        })?;
    let (_, parsed) =
        parse_x509_certificate(&chain[0]).map_err(|_| bad_certificate(&files.cert))?;
    if let Some(public) = key.public_key()
        && public.as_ref() != parsed.tbs_certificate.subject_pki.raw
    {
        return Err(LoadError::Mismatch {
            cert: files.cert.clone(),
            key: files.key.clone(),
        });
    }
    Ok(CertifiedKey::new(chain, key))
}

/// What tells one version of the files from the next, without reading them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamps([Option<Stamp>; 4]);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    len: u64,
    /// Seconds and nanoseconds of the last change of the contents, and of owner or mode.
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Files {
    pub(super) fn stamps(&self) -> Stamps {
        let paths = [
            Some(self.ca.path()),
            Some(&self.cert),
            Some(&self.key),
            self.crl.as_deref(),
        ];
        Stamps(paths.map(|path| {
            fs::metadata(path?).ok().map(|meta| Stamp {
                inode: meta.ino(),
                len: meta.len(),
                modified: (meta.mtime(), meta.mtime_nsec()),
                changed: (meta.ctime(), meta.ctime_nsec()),
            })
        }))
    }
}

#[cfg(test)]
#[path = "tls_test.rs"]
mod tests;
