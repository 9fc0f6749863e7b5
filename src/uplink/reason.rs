//! Why the link is down, in a sentence for whoever is called at 3 a.m., and in a word for programs.
//!
//! Terms: a `Failure` is what ended or prevented a connection, as the machine knows it; a [`Reason`] is what a person is
//! told of it, made by `explain`.
//!
//! Must not: name the MQTT library, open files or sockets, or read a clock.

use std::fmt;
use std::io;

use rustls::pki_types::UnixTime;
use serde::Serialize;

use super::session::Mispaired;
use super::tls::LoadError;

/// The kind of a [`Reason`]; these words are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    // The device's own files.
    FileMissing,
    FileUnreadable,
    NotPem,
    NoCertificate,
    BadCertificate,
    NoKey,
    KeyExposed,
    BadKey,
    KeyMismatch,
    BadRevocationList,
    OwnCertificateExpired,
    OwnCertificateNotYetValid,
    // The way to the broker.
    NameLookup,
    Unreachable,
    ConnectionRefused,
    Timeout,
    // The broker's certificate.
    BrokerUnknownCa,
    BrokerCertificateExpired,
    BrokerCertificateNotYetValid,
    BrokerWrongName,
    BrokerCertificateRevoked,
    BrokerRevocationUnknown,
    BrokerBadCertificate,
    // The broker's opinion of us.
    OurCertificateRefused,
    ClientIdRefused,
    NotAuthorized,
    BrokerUnavailable,
    ProtocolRefused,
    // An answer that makes no sense.
    TlsVersion,
    TlsFailed,
    ProtocolError,
    // A connection that ended.
    Closed,
    Silent,
    NotAcknowledged,
    NetworkError,
}

/// Why the link is down. Its `Display` is the sentence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    pub kind: Kind,
    text: String,
}

impl Reason {
    pub(super) fn new(kind: Kind, text: String) -> Reason {
        Reason { kind, text }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What the broker's CONNACK said (MQTT 3.1.1, table 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    ProtocolVersion,
    ClientId,
    Unavailable,
    Credentials,
    NotAuthorized,
}

/// What ended or prevented a connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("the certificate files cannot be used")]
    Files(#[from] LoadError),
    #[error("TLS failed")]
    Tls(#[source] rustls::Error),
    #[error("the network failed")]
    Io(#[source] io::Error),
    #[error("no connection in time")]
    ConnectTimeout,
    #[error("the broker refused the connection: {0:?}")]
    Refused(Refusal),
    #[error("the broker closed the connection")]
    Closed,
    #[error("a ping was not answered, or nothing could be sent for a while")]
    Silent,
    #[error("a record was not acknowledged in time")]
    NotAcknowledged,
    #[error("packet id {0} was acknowledged without being in flight")]
    UnexpectedAck(u16),
    #[error("packet ids do not fit the records")]
    Mispaired(#[from] Mispaired),
    #[error("{0}")]
    Protocol(String),
}

/// A date as certificates have it: seconds since the Unix epoch. Printed in UTC, as RFC 3339.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Date(pub i64);

impl From<UnixTime> for Date {
    fn from(time: UnixTime) -> Date {
        Date(i64::try_from(time.as_secs()).unwrap_or(i64::MAX))
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_second(self.0) {
            Ok(time) => write!(f, "{time}"),
            Err(_) => f.write_str("the end of time"),
        }
    }
}
