//! Says a [`Failure`] in words: what was attempted, what came in the way, what to do.
//!
//! Must not: name the MQTT library, open files or sockets, or read a clock.

use std::io;
use std::time::Duration;

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, PeerIncompatible};

use super::address::Address;
use super::reason::{Date, Failure, Kind, Reason, Refusal};
use super::tls::{Files, TlsVersion};

/// What the sentence has to name.
pub(super) struct Context<'a> {
    pub(super) address: &'a Address,
    pub(super) client_id: &'a str,
    pub(super) files: &'a Files,
    /// The time by which certificates were judged.
    pub(super) now: UnixTime,
    /// The connection stood, and then failed.
    pub(super) connected: bool,
    pub(super) connect_timeout: Duration,
    pub(super) ack_timeout: Duration,
}

/// Says a failure in words.
pub(super) fn explain(failure: &Failure, context: &Context<'_>) -> Reason {
    let Context {
        address, client_id, ..
    } = context;
    let (kind, text) = match failure {
        Failure::Files(error) => (error.kind(), error.to_string()),
        Failure::Tls(error) => explain_tls(error, context),
        Failure::Io(error) => explain_io(error, context),
        Failure::ConnectTimeout => (
            Kind::Timeout,
            format!(
                "{address} did not answer within {:?}: is the network up, and does a firewall let this port through?",
                context.connect_timeout
            ),
        ),
        Failure::Refused(refusal) => explain_refusal(*refusal, context),
        Failure::Closed => explain_closed(context),
        Failure::Silent => (
            Kind::Silent,
            format!(
                "{address} fell silent: it did not answer a ping, or took no more data; the network between is \
                 broken, or slower than the records in flight (`inflight`)"
            ),
        ),
        Failure::NotAcknowledged => (
            Kind::NotAcknowledged,
            format!(
                "{address} left a record unacknowledged for {:?}: look at the broker's log, it may be overloaded",
                context.ack_timeout
            ),
        ),
        Failure::UnexpectedAck(id) => (
            Kind::ProtocolError,
            format!(
                "{address} acknowledged packet {id}, which was not in flight: nothing was deleted for it"
            ),
        ),
        Failure::Mispaired(error) => (
            Kind::ProtocolError,
            format!(
                "the connection to {address} was given up, as {error}: nothing was deleted for it"
            ),
        ),
        Failure::Protocol(what) => (
            Kind::ProtocolError,
            format!(
                "{address} answered client `{client_id}` with something that is not MQTT 3.1.1 ({what}): is it an MQTT broker?"
            ),
        ),
    };
    Reason::new(kind, text)
}

fn explain_tls(error: &rustls::Error, context: &Context<'_>) -> (Kind, String) {
    let address = context.address;
    match error {
        rustls::Error::InvalidCertificate(error) => explain_certificate(error, context),
        rustls::Error::AlertReceived(alert) => explain_alert(*alert, context),
        rustls::Error::PeerIncompatible(
            PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
            | PeerIncompatible::ServerDoesNotSupportTls12Or13,
        ) => no_common_version(context),
        rustls::Error::InvalidMessage(_) => (
            Kind::TlsFailed,
            format!(
                "{address} answers, but not in TLS: is this the broker's TLS port (mostly 8883)?"
            ),
        ),
        other => (
            Kind::TlsFailed,
            format!("TLS with {address} failed: {other}"),
        ),
    }
}

/// The broker speaks another version of TLS than we do.
fn no_common_version(context: &Context<'_>) -> (Kind, String) {
    let Context { address, files, .. } = context;
    let text = match files.options.min_version {
        TlsVersion::V1_3 => format!(
            "{address} does not speak TLS 1.3: allow it at the broker; or, if it cannot, write `tls_min = \"1.2\"` in [uplink]"
        ),
        TlsVersion::V1_2 => format!(
            "{address} speaks neither TLS 1.3 nor 1.2, and what is older is not safe: renew the broker"
        ),
    };
    (Kind::TlsVersion, text)
}

/// The broker's certificate does not satisfy us.
fn explain_certificate(error: &CertificateError, context: &Context<'_>) -> (Kind, String) {
    let Context { address, files, .. } = context;
    let (ca, now) = (&files.ca, Date::from(context.now));
    match error {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => (
            Kind::BrokerUnknownCa,
            format!(
                "the certificate of {address} is not signed by {ca}: give the CA that signed it as `ca`, or give the \
                 broker a certificate of this one; if neither was changed, somebody else may be answering"
            ),
        ),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            let when = match error {
                CertificateError::ExpiredContext { not_after, .. } => {
                    format!(" at {}", Date::from(*not_after))
                }
                _ => String::new(),
            };
            (
                Kind::BrokerCertificateExpired,
                format!(
                    "the certificate of {address} expired{when}, and this device's clock says {now}: if the clock is \
                     right, the broker needs a new certificate"
                ),
            )
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            let when = match error {
                CertificateError::NotValidYetContext { not_before, .. } => {
                    format!(" before {}", Date::from(*not_before))
                }
                _ => " yet".to_owned(),
            };
            (
                Kind::BrokerCertificateNotYetValid,
                format!(
                    "the certificate of {address} is not valid{when}, and this device's clock says {now}: is the \
                     clock right? A Pi has no battery for it and needs the network's time"
                ),
            )
        }
        CertificateError::NotValidForName => (Kind::BrokerWrongName, wrong_name(context, &[])),
        CertificateError::NotValidForNameContext { presented, .. } => {
            (Kind::BrokerWrongName, wrong_name(context, presented))
        }
        CertificateError::Revoked => (
            Kind::BrokerCertificateRevoked,
            format!(
                "the certificate of {address} was revoked by the authority that issued it: somebody may have its key, and \
                 answer in the broker's name; the broker needs a new certificate"
            ),
        ),
        CertificateError::UnknownRevocationStatus => (
            Kind::BrokerRevocationUnknown,
            format!(
                "nothing in {} says whether the certificate of {address} was revoked: it must hold a list of each authority \
                 in the certificate's chain; add what is missing, or leave `crl` out",
                crl(files)
            ),
        ),
        CertificateError::ExpiredRevocationList
        | CertificateError::ExpiredRevocationListContext { .. } => (
            Kind::BadRevocationList,
            format!(
                "a list in {} was to be replaced by now, {now}, and may hide that the certificate of {address} was revoked: \
                 fetch the authority's current list and put it there",
                crl(files)
            ),
        ),
        other => (
            Kind::BrokerBadCertificate,
            format!(
                "the certificate of {address} is not acceptable ({other}): issue it again, for a TLS server"
            ),
        ),
    }
}

/// The file of revocation lists, of which there is one if anything was refused for it.
fn crl(files: &Files) -> String {
    files.crl.as_ref().map_or_else(
        || "no file (`crl`)".to_owned(),
        |path| path.display().to_string(),
    )
}

/// `presented` holds names as rustls prints them: `DnsName("a.example")`, `IpAddress(192.0.2.1)`.
fn wrong_name(context: &Context<'_>, presented: &[String]) -> String {
    let Context { address, files, .. } = context;
    let (name, key) = match &files.options.server_name {
        Some(name) => (name.to_str(), "server_name"),
        None => (address.host.as_str().into(), "url"),
    };
    let bare = |name: &String| match name.split_once('(') {
        Some((_, inside)) => inside.trim_end_matches(')').trim_matches('"').to_owned(),
        None => name.clone(),
    };
    let names: Vec<String> = presented.iter().map(bare).collect();
    if names.is_empty() {
        return format!(
            "the broker at {address} has a certificate that is not for `{name}`: it has no subject alternative name at \
             all (a common name does not count); issue it again with this name"
        );
    }
    format!(
        "the broker at {address} has a certificate that is not for `{name}` but for {}: use a name it has in `{key}`, or \
         issue it again with this one",
        names.join(", ")
    )
}

/// The broker has told us what it does not like. In TLS 1.3 it does so after our side of the handshake is done.
fn explain_alert(alert: AlertDescription, context: &Context<'_>) -> (Kind, String) {
    let Context { address, files, .. } = context;
    let cert = files.cert.display();
    let ours = |what: &str| {
        (
            Kind::OurCertificateRefused,
            format!("{address} refused this device's certificate {cert}: {what}"),
        )
    };
    match alert {
        AlertDescription::UnknownCA => ours(
            "it does not know the CA that signed it (TLS alert unknown_ca); have it signed by a CA the broker trusts, \
             or add that CA there",
        ),
        AlertDescription::CertificateExpired => ours(
            "it says that it has expired (TLS alert certificate_expired); renew it, or check the broker's clock",
        ),
        AlertDescription::CertificateRevoked => {
            ours("it was revoked (TLS alert certificate_revoked); issue a new one for this device")
        }
        AlertDescription::CertificateRequired | AlertDescription::NoCertificate => ours(
            "it got none that it could use (TLS alert certificate_required); it may accept other CAs or key types only",
        ),
        AlertDescription::AccessDenied => ours(
            "it is valid, but this device is not admitted (TLS alert access_denied); admit it at the broker",
        ),
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::DecryptError => ours(&format!(
            "it gives no closer reason (TLS alert {alert:?}); check its CA, its dates and its purpose (client \
             authentication), and the broker's log and clock"
        )),
        AlertDescription::ProtocolVersion => no_common_version(context),
        AlertDescription::NoApplicationProtocol => (
            Kind::TlsFailed,
            format!(
                "{address} speaks none of the protocols in `alpn` of [uplink] (TLS alert no_application_protocol): give what \
                 the broker's documentation asks for, or leave `alpn` out"
            ),
        ),
        AlertDescription::HandshakeFailure | AlertDescription::InsufficientSecurity => (
            Kind::TlsFailed,
            format!(
                "{address} found no common ground for TLS (TLS alert {alert:?}): it must offer TLS 1.3 \
                 (or 1.2, if `tls_min` in [uplink] is \"1.2\") with modern ciphers"
            ),
        ),
        AlertDescription::UnrecognisedName => (
            Kind::BrokerWrongName,
            format!(
                "{address} says that it is not `{}` (TLS alert unrecognized_name): correct `url`",
                address.host
            ),
        ),
        other => (
            Kind::TlsFailed,
            format!("{address} broke TLS off (TLS alert {other:?}): look at the broker's log"),
        ),
    }
}

fn explain_refusal(refusal: Refusal, context: &Context<'_>) -> (Kind, String) {
    let Context {
        address,
        client_id,
        files,
        ..
    } = context;
    let cert = files.cert.display();
    match refusal {
        Refusal::ProtocolVersion => (
            Kind::ProtocolRefused,
            format!("{address} does not speak MQTT 3.1.1: allow that version at the broker"),
        ),
        Refusal::ClientId => (
            Kind::ClientIdRefused,
            format!(
                "{address} refused the client id `{client_id}`: admit it at the broker, or correct `id` in [device]"
            ),
        ),
        Refusal::Unavailable => (
            Kind::BrokerUnavailable,
            format!(
                "{address} says that its MQTT service is unavailable: look at the broker's log"
            ),
        ),
        Refusal::Credentials | Refusal::NotAuthorized => (
            Kind::NotAuthorized,
            format!(
                "{address} does not admit client `{client_id}` with the certificate {cert} (not authorized): admit \
                 that client id or the certificate's common name at the broker"
            ),
        ),
    }
}

fn explain_closed(context: &Context<'_>) -> (Kind, String) {
    let Context {
        address, client_id, ..
    } = context;
    let text = if context.connected {
        format!(
            "{address} closed the connection: the broker was stopped, or the network broke; if it happens again and \
             again, another client may use the id `{client_id}`"
        )
    } else {
        format!(
            "{address} closed the connection before it answered: the broker's log says why; perhaps it does not \
             admit the certificate {} or the client id `{client_id}`, or the port is not for MQTT over TLS",
            context.files.cert.display()
        )
    };
    (Kind::Closed, text)
}

fn explain_io(error: &io::Error, context: &Context<'_>) -> (Kind, String) {
    let address = context.address;
    // The resolver's errors have no kind of their own in std.
    if error.to_string().starts_with("failed to lookup address") {
        return (
            Kind::NameLookup,
            format!(
                "the name `{}` cannot be looked up ({error}): is the network up, and is the name in `url` right?",
                address.host
            ),
        );
    }
    match error.kind() {
        io::ErrorKind::ConnectionRefused => (
            Kind::ConnectionRefused,
            format!(
                "nothing accepts connections at {address} (connection refused): is the broker running, and is the port right?"
            ),
        ),
        io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::NetworkDown => (
            Kind::Unreachable,
            format!("there is no way to {address} ({error}): is this device's network up?"),
        ),
        io::ErrorKind::TimedOut => (
            Kind::Timeout,
            format!("{address} does not answer any more ({error}): is the network up?"),
        ),
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe => explain_closed(context),
        _ => (
            Kind::NetworkError,
            format!("the connection to {address} failed: {error}"),
        ),
    }
}

#[cfg(test)]
#[path = "explain_test.rs"]
mod tests;
