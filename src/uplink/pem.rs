//! Reads the uplink's PEM files, and says in words what is wrong with one: what, which file, what to do.
//!
//! Must not: judge certificates (that is for `tls`), open sockets, or read a clock.

use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};

use super::reason::{Date, Kind};
use crate::certs;
use crate::message::Timestamp;
use crate::revocation::{RevocationError, RevocationList};

/// The longest file that is read. Debian's bundle of all public authorities has a quarter of a megabyte, and lists of
/// what was revoked can be long.
const FILE_MAX: u64 = 16 * 1024 * 1024;

/// Which of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Ca,
    Cert,
    Key,
    Crl,
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
    #[error(
        "there are no authorities in {}, though `ca` in [uplink] is \"system\": install them (on Debian the package \
         ca-certificates), or give the file of the broker's own CA as `ca`", .path.display()
    )]
    NoSystemCa { path: PathBuf },
    #[error("the revocation list {} cannot be used: {error}", .path.display())]
    Crl {
        path: PathBuf,
        error: RevocationError,
    },
    #[error("the revocation list {} is not one that can be used ({error}): fetch it again", .path.display())]
    BadCrl { path: PathBuf, error: String },
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
    pub fn key(self) -> &'static str {
        match self {
            Role::Ca => "ca",
            Role::Cert => "cert",
            Role::Key => "key",
            Role::Crl => "crl",
        }
    }

    /// The command of openssl that converts it.
    fn openssl(self) -> &'static str {
        match self {
            Role::Ca | Role::Cert => "x509",
            Role::Key => "pkey",
            Role::Crl => "crl",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Ca => "the CA file",
            Role::Cert => "the certificate",
            Role::Key => "the key",
            Role::Crl => "the revocation list",
        })
    }
}

impl LoadError {
    /// Which file it is about.
    pub fn role(&self) -> Role {
        match self {
            LoadError::Missing { role, .. }
            | LoadError::Forbidden { role, .. }
            | LoadError::Unreadable { role, .. }
            | LoadError::NotPem { role, .. }
            | LoadError::Damaged { role, .. }
            | LoadError::NoCertificate { role, .. }
            | LoadError::BadCertificate { role, .. } => *role,
            LoadError::NoSystemCa { .. } => Role::Ca,
            LoadError::Crl { .. } | LoadError::BadCrl { .. } => Role::Crl,
            LoadError::NoKey { .. }
            | LoadError::ExposedKey { .. }
            | LoadError::LockedKey { .. }
            | LoadError::BadKey { .. }
            | LoadError::Mismatch { .. } => Role::Key,
            LoadError::Expired { .. } | LoadError::NotYetValid { .. } => Role::Cert,
        }
    }

    /// Whether it may be so only where the files were looked at: they may be on the device alone.
    pub fn is_absence(&self) -> bool {
        use LoadError::{Forbidden, Missing, NoSystemCa};
        matches!(self, Missing { .. } | Forbidden { .. } | NoSystemCa { .. })
    }

    pub(super) fn kind(&self) -> Kind {
        match self {
            LoadError::Missing { .. } => Kind::FileMissing,
            LoadError::Forbidden { .. } | LoadError::Unreadable { .. } => Kind::FileUnreadable,
            LoadError::NotPem { .. } | LoadError::Damaged { .. } => Kind::NotPem,
            LoadError::NoSystemCa { .. } => Kind::FileMissing,
            LoadError::Crl { .. } | LoadError::BadCrl { .. } => Kind::BadRevocationList,
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

/// The certificates in a file, of which there is at least one.
pub(super) fn read_certificates(
    role: Role,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, LoadError> {
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

pub(super) fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, LoadError> {
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

/// The revocation lists in a file, all of them current.
pub(super) fn read_revocation_lists(
    path: &Path,
    now: UnixTime,
) -> Result<Vec<RevocationList>, LoadError> {
    let now = Timestamp::from_millis(Date::from(now).0.saturating_mul(1000));
    RevocationList::read_current(&read(Role::Crl, path)?, now).map_err(of_list(path))
}

/// The revocation lists in a file, current or not.
pub(super) fn read_any_revocation_lists(path: &Path) -> Result<Vec<RevocationList>, LoadError> {
    RevocationList::read(&read(Role::Crl, path)?).map_err(of_list(path))
}

fn of_list(path: &Path) -> impl FnOnce(RevocationError) -> LoadError {
    let path = path.to_owned();
    |error| LoadError::Crl { path, error }
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

/// This device's certificate makes no sense.
pub(super) fn bad_certificate(path: &Path) -> LoadError {
    LoadError::BadCertificate {
        role: Role::Cert,
        path: path.to_owned(),
    }
}
