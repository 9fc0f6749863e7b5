//! Why a client is refused: words for the log, a code for the client, a counter for the status.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use rustls::{AlertDescription, CertificateError};

use super::connect::ConnectError;
use super::handshakes::Crowd;

/// Why a connection came to nothing. Each variant has a counter.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("too many connections are in their handshake; more clients than usual, or a scan?")]
    Busy,
    #[error("its address has too many connections in their handshake; does a client there loop?")]
    Crowded,
    #[error("it did not finish the TLS handshake in time")]
    HandshakeTimeout,
    #[error("it shows no certificate; give it one signed by the broker's ca")]
    NoCertificate,
    #[error("its certificate is not signed by the broker's ca; issue it one, or correct ca")]
    UnknownCa,
    #[error("its certificate has expired; issue it a new one, and check this device's clock")]
    Expired,
    #[error("its certificate is not valid yet; check this device's clock")]
    NotYetValid,
    #[error("its certificate was revoked; if it is to come in again, issue it a new one")]
    Revoked,
    #[error(
        "no list in the broker's crl says whether its certificate was revoked; add the list of each authority in its chain"
    )]
    RevocationUnknown,
    #[error(
        "the broker's crl was to be replaced by now, so nobody is let in; fetch the authority's current list, and check this \
         device's clock"
    )]
    ListExpired,
    #[error("its certificate is not accepted: {0}")]
    BadCertificate(String),
    #[error(
        "it does not accept the broker's certificate ({0:?}); check its ca and the name it connects to"
    )]
    RefusedByClient(AlertDescription),
    #[error("the TLS handshake failed: {0}")]
    Handshake(String),
    #[error("it sent no CONNECT in time")]
    ConnectTimeout,
    #[error(transparent)]
    BadConnect(#[from] ConnectError),
    #[error(
        "its client id {id:?} is not allowed: it must be its certificate's common name ({common_name:?}), 1 to 128 of the \
         characters A-Z a-z 0-9 _ . -"
    )]
    ClientId { id: String, common_name: String },
    #[error("the broker has as many clients as broker.max_connections allows")]
    Full,
    #[error("the broker cannot take it on: {0}; it may try again")]
    Unavailable(String),
}

impl Refusal {
    /// What a TLS handshake failed of.
    pub(super) fn of_handshake(error: &std::io::Error) -> Refusal {
        let tls = error
            .get_ref()
            .and_then(|source| source.downcast_ref::<rustls::Error>());
        match tls {
            Some(rustls::Error::NoCertificatesPresented) => Refusal::NoCertificate,
            Some(rustls::Error::InvalidCertificate(certificate)) => match certificate {
                CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                    Refusal::UnknownCa
                }
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    Refusal::Expired
                }
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                    Refusal::NotYetValid
                }
                CertificateError::Revoked => Refusal::Revoked,
                CertificateError::UnknownRevocationStatus => Refusal::RevocationUnknown,
                CertificateError::ExpiredRevocationList
                | CertificateError::ExpiredRevocationListContext { .. } => Refusal::ListExpired,
                other => Refusal::BadCertificate(other.to_string()),
            },
            Some(rustls::Error::AlertReceived(alert)) => Refusal::RefusedByClient(*alert),
            _ => Refusal::Handshake(error.to_string()),
        }
    }

    /// The return code of the CONNACK (MQTT 3.1.1, 3.2.2.3), where the standard has one.
    pub(super) fn return_code(&self) -> Option<u8> {
        match self {
            Refusal::BadConnect(ConnectError::Version(_)) => Some(1),
            Refusal::ClientId { .. } => Some(2),
            Refusal::Full | Refusal::Unavailable(_) => Some(3),
            _ => None,
        }
    }

    /// The counter's name.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Refusal::Busy => "busy",
            Refusal::Crowded => "crowded",
            Refusal::HandshakeTimeout => "handshake_timeout",
            Refusal::NoCertificate => "no_certificate",
            Refusal::UnknownCa => "unknown_ca",
            Refusal::Expired => "certificate_expired",
            Refusal::NotYetValid => "certificate_not_yet_valid",
            Refusal::Revoked => "certificate_revoked",
            Refusal::RevocationUnknown => "revocation_unknown",
            Refusal::ListExpired => "revocation_list_expired",
            Refusal::BadCertificate(_) => "bad_certificate",
            Refusal::RefusedByClient(_) => "refused_by_client",
            Refusal::Handshake(_) => "handshake_failed",
            Refusal::ConnectTimeout => "connect_timeout",
            Refusal::BadConnect(ConnectError::Version(_)) => "protocol_version",
            Refusal::BadConnect(_) => "bad_connect",
            Refusal::ClientId { .. } => "client_id",
            Refusal::Full => "full",
            Refusal::Unavailable(_) => "unavailable",
        }
    }
}

impl From<Crowd> for Refusal {
    fn from(crowd: Crowd) -> Refusal {
        match crowd {
            Crowd::All => Refusal::Busy,
            Crowd::Address => Refusal::Crowded,
        }
    }
}

/// What the broker has seen since its start.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counters {
    /// Clients connected now.
    pub connected: u64,
    /// Connections that got as far as a CONNACK that welcomed them.
    pub accepted: u64,
    /// Connections that ended because the same client id connected again.
    pub taken_over: u64,
    /// Connections closed because the client sent what it must not.
    pub broken_off: u64,
    /// Connections closed because the client did not take what it was sent.
    pub deaf: u64,
    /// Refused connections by reason; a reason that never came up is absent.
    pub refused: BTreeMap<&'static str, u64>,
}

/// The counters while they count.
#[derive(Debug, Default)]
pub(super) struct Counting {
    pub(super) connected: AtomicU64,
    pub(super) accepted: AtomicU64,
    pub(super) taken_over: AtomicU64,
    pub(super) broken_off: AtomicU64,
    pub(super) deaf: AtomicU64,
    refused: std::sync::Mutex<BTreeMap<&'static str, u64>>,
}

impl Counting {
    pub(super) fn refuse(&self, refusal: &Refusal) {
        let mut refused = self.refused.lock().expect("nothing panics while it counts");
        *refused.entry(refusal.name()).or_default() += 1;
    }

    pub(super) fn read(&self) -> Counters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let refused = self.refused.lock().expect("nothing panics while it counts");
        Counters {
            connected: read(&self.connected),
            accepted: read(&self.accepted),
            taken_over: read(&self.taken_over),
            broken_off: read(&self.broken_off),
            deaf: read(&self.deaf),
            refused: refused.clone(),
        }
    }
}
