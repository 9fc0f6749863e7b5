//! Turns the uplink's three PEM files into a TLS client configuration, or says in words why that does not go.
//!
//! Only the given CA is trusted, never the system's; TLS 1.2 and 1.3. The device's own certificate need not be signed
//! by that CA: it is the broker who judges it.
//!
//! The one exception to `runtime/clock.rs`: the broker's certificate is judged by the system's clock, which rustls reads
//! itself (`DefaultTimeProvider`). So the `now` that comes in here for the device's own certificate is read from there too,
//! and both are judged alike; docs/decisions/0003-uplink-session.md has the reason.
//!
//! Must not: open sockets, or read a clock beyond that.

use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore};
use x509_parser::parse_x509_certificate;

use super::reason::{Date, Kind};
use crate::certs;

/// The longest file that is read. Debian's bundle of all public authorities has a quarter of a megabyte.
const FILE_MAX: u64 = 16 * 1024 * 1024;

/// Where the certificates are, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// What the broker's certificate must chain to; one or several CA certificates.
    pub ca: PathBuf,
    /// This device's certificate, followed by its intermediates, if any.
    pub cert: PathBuf,
    /// The private key of `cert`, without a passphrase.
    pub key: PathBuf,
}

/// Which of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Ca,
    Cert,
    Key,
}

/// Why the files give no TLS configuration. Each message names the file and what to do; the files are looked at again
/// by themselves.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("{role} {} does not exist: put it there, or correct `{}` in [uplink]", .path.display(), .role.key())]
    Missing { role: Role, path: PathBuf },
    #[error(
        "{role} {} may not be read by the user Tidegate runs as: correct its owner or its mode (chown, chmod), \
         and those of its directories", .path.display()
    )]
    Forbidden { role: Role, path: PathBuf },
    #[error("{role} {} cannot be read ({error}): check the file and the disk", .path.display())]
    Unreadable {
        role: Role,
        path: PathBuf,
        error: io::Error,
    },
    #[error(
        "{role} {} is not PEM, the text form that starts with -----BEGIN: convert it, for DER with \
         `openssl {} -inform der -in .. -out ..`", .path.display(), .role.openssl()
    )]
    NotPem { role: Role, path: PathBuf },
    #[error("{role} {} is damaged PEM ({detail}): copy it here again", .path.display())]
    Damaged {
        role: Role,
        path: PathBuf,
        detail: String,
    },
    #[error("{role} {} has no certificate in it (no BEGIN CERTIFICATE): is it another file by mistake?", .path.display())]
    NoCertificate { role: Role, path: PathBuf },
    #[error("{role} {} has a certificate in it that cannot be understood: issue it again", .path.display())]
    BadCertificate { role: Role, path: PathBuf },
    #[error("the key {} has no private key in it (no BEGIN PRIVATE KEY): is it another file by mistake?", .path.display())]
    NoKey { path: PathBuf },
    #[error(
        "the key {} is open to others than its owner (mode {mode:04o}), and is not used: `chmod 600 {0}`, and `chown` it to \
         the user Tidegate runs as if it is not that user's; who has a copy of it can pass for this device, so have a new one \
         made if others were on this device", .path.display()
    )]
    ExposedKey { path: PathBuf, mode: u32 },
    #[error(
        "the key {} is locked with a passphrase, and nobody is here to type it: store it without one \
         (`openssl pkey -in .. -out ..`) and readable by Tidegate alone", .path.display()
    )]
    LockedKey { path: PathBuf },
    #[error(
        "the key {} is of a kind that is not supported: use ECDSA (P-256, P-384), Ed25519 or RSA from 2048 bits", 
        .path.display()
    )]
    BadKey { path: PathBuf },
    #[error(
        "the key {} does not belong to the certificate {}: one of them is from another device, or of another date", 
        .key.display(), .cert.display()
    )]
    Mismatch { cert: PathBuf, key: PathBuf },
    #[error(
        "this device's certificate {} expired at {not_after}, and the device's clock says {now}: put a new certificate \
         and its key there", .path.display()
    )]
    Expired {
        path: PathBuf,
        not_after: Date,
        now: Date,
    },
    #[error(
        "this device's certificate {} is valid from {not_before} only, and the device's clock says {now}: is the \
         clock right? A Pi has no battery for it and needs the network's time", .path.display()
    )]
    NotYetValid {
        path: PathBuf,
        not_before: Date,
        now: Date,
    },
}

impl Role {
    /// Its key in `[uplink]`.
    fn key(self) -> &'static str {
        match self {
            Role::Ca => "ca",
            Role::Cert => "cert",
            Role::Key => "key",
        }
    }

    /// The command of openssl that converts it.
    fn openssl(self) -> &'static str {
        match self {
            Role::Ca | Role::Cert => "x509",
            Role::Key => "pkey",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Ca => "the CA file",
            Role::Cert => "the certificate",
            Role::Key => "the key",
        })
    }
}

impl LoadError {
    pub(super) fn kind(&self) -> Kind {
        match self {
            LoadError::Missing { .. } => Kind::FileMissing,
            LoadError::Forbidden { .. } | LoadError::Unreadable { .. } => Kind::FileUnreadable,
            LoadError::NotPem { .. } | LoadError::Damaged { .. } => Kind::NotPem,
            LoadError::NoCertificate { .. } => Kind::NoCertificate,
            LoadError::BadCertificate { .. } => Kind::BadCertificate,
            LoadError::NoKey { .. } => Kind::NoKey,
            LoadError::ExposedKey { .. } => Kind::KeyExposed,
            LoadError::LockedKey { .. } | LoadError::BadKey { .. } => Kind::BadKey,
            LoadError::Mismatch { .. } => Kind::KeyMismatch,
            LoadError::Expired { .. } => Kind::OwnCertificateExpired,
            LoadError::NotYetValid { .. } => Kind::OwnCertificateNotYetValid,
        }
    }
}

/// Reads and checks the three files. `now` is the time by which the device's own certificate is judged.
pub fn load(files: &Files, now: UnixTime) -> Result<ClientConfig, LoadError> {
    let provider = Arc::new(ring::default_provider());
    let roots = read_roots(&files.ca)?;
    let chain = read_certificates(Role::Cert, &files.cert)?;
    let key = read_key(&files.key)?;
    check_validity(&chain[0], &files.cert, now)?;
    let certified = certified_key(files, chain, key, &provider)?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .expect("ring has cipher suites for TLS 1.3 and 1.2");
    let mut config = builder
        .with_root_certificates(roots)
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    // A resumed session skips the check of the certificates, in both directions.
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn read_roots(path: &Path) -> Result<RootCertStore, LoadError> {
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates(Role::Ca, path)? {
        roots
            .add(certificate)
            .map_err(|_| LoadError::BadCertificate {
                role: Role::Ca,
                path: path.to_owned(),
            })?;
    }
    Ok(roots)
}

/// The certificates in a file, of which there is at least one.
fn read_certificates(role: Role, path: &Path) -> Result<Vec<CertificateDer<'static>>, LoadError> {
    let text = read(role, path)?;
    let found: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(certificates) if certificates.is_empty() => Err(LoadError::NoCertificate {
            role,
            path: path.to_owned(),
        }),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(damaged(role, path, &error)),
    }
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, LoadError> {
    let text = read(Role::Key, path)?;
    let path = || path.to_owned();
    match PrivateKeyDer::from_pem_slice(&text) {
        Ok(key) => Ok(key),
        Err(pem::Error::NoItemsFound) if contains(&text, b"ENCRYPTED") => {
            Err(LoadError::LockedKey { path: path() })
        }
        Err(pem::Error::NoItemsFound) => Err(LoadError::NoKey { path: path() }),
        // An encrypted key of the old form carries headers, which are no base64.
        Err(_) if contains(&text, b"ENCRYPTED") => Err(LoadError::LockedKey { path: path() }),
        Err(error) => Err(damaged(Role::Key, &path(), &error)),
    }
}

fn read(role: Role, path: &Path) -> Result<Vec<u8>, LoadError> {
    let owned = || path.to_owned();
    let text = read_file(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => LoadError::Missing {
            role,
            path: owned(),
        },
        io::ErrorKind::PermissionDenied => LoadError::Forbidden {
            role,
            path: owned(),
        },
        _ => LoadError::Unreadable {
            role,
            path: owned(),
            error,
        },
    })?;
    let (text, metadata) = text;
    if role == Role::Key
        && let Some(mode) = certs::exposed_mode(&metadata)
    {
        let path = owned();
        return Err(LoadError::ExposedKey { path, mode });
    }
    if contains(&text, b"-----BEGIN ") {
        Ok(text)
    } else {
        Err(LoadError::NotPem {
            role,
            path: owned(),
        })
    }
}

/// A file's contents, and what it is; links are followed. It is not read further than any such file can be long.
fn read_file(path: &Path) -> io::Result<(Vec<u8>, fs::Metadata)> {
    let mut file = fs::File::open(path)?;
    let metadata = file.metadata()?;
    let mut text = Vec::new();
    file.by_ref().take(FILE_MAX + 1).read_to_end(&mut text)?;
    if text.len() as u64 > FILE_MAX {
        let problem = format!("it is longer than {} MiB", FILE_MAX / 1024 / 1024);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, problem));
    }
    Ok((text, metadata))
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

fn damaged(role: Role, path: &Path, error: &pem::Error) -> LoadError {
    let detail = match error {
        pem::Error::MissingSectionEnd { .. } => "it ends before its END line".to_owned(),
        pem::Error::Base64Decode(_) => "what stands between BEGIN and END is no base64".to_owned(),
        other => other.to_string(),
    };
    LoadError::Damaged {
        role,
        path: path.to_owned(),
        detail,
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

fn bad_certificate(path: &Path) -> LoadError {
    LoadError::BadCertificate {
        role: Role::Cert,
        path: path.to_owned(),
    }
}

/// What tells one version of the files from the next, without reading them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamps([Option<Stamp>; 3]);

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
        Stamps([&self.ca, &self.cert, &self.key].map(|path| {
            fs::metadata(path).ok().map(|meta| Stamp {
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
