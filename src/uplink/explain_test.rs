//! What is said about failures that the loopback tests do not bring about.

use super::*;

fn said(failure: &Failure, connected: bool) -> Reason {
    let files = Files::new("tls/ca.pem", "tls/device.pem", "tls/device.key");
    explain(
        failure,
        &Context {
            address: &"mqtts://broker.example".parse().unwrap(),
            client_id: "press-7",
            files: &files,
            now: UnixTime::since_unix_epoch(Duration::from_secs(1_782_000_000)),
            connected,
            connect_timeout: Duration::from_secs(10),
            ack_timeout: Duration::from_secs(60),
        },
    )
}

fn check(failure: Failure, kind: Kind, expected: &[&str]) {
    let reason = said(&failure, false);
    assert_eq!(reason.kind, kind, "{reason}");
    for part in expected {
        assert!(
            reason.to_string().contains(part),
            "`{part}` is not in: {reason}"
        );
    }
}

#[test]
fn the_way_to_the_broker() {
    let os = |code| Failure::Io(io::Error::from_raw_os_error(code));
    check(
        os(111),
        Kind::ConnectionRefused,
        &["mqtts://broker.example:8883", "is the broker running"],
    );
    check(
        os(113),
        Kind::Unreachable,
        &["there is no way to", "network up"],
    );
    check(os(110), Kind::Timeout, &["does not answer"]);
    check(
        Failure::ConnectTimeout,
        Kind::Timeout,
        &["within 10s", "firewall"],
    );
    check(
        Failure::Io(io::Error::other(
            "failed to lookup address information: Name or service not known",
        )),
        Kind::NameLookup,
        &["`broker.example` cannot be looked up", "`url`"],
    );
}

#[test]
fn the_brokers_opinion_of_the_certificate() {
    let check = |alert, expected| {
        check(
            Failure::Tls(rustls::Error::AlertReceived(alert)),
            Kind::OurCertificateRefused,
            &["refused this device's certificate tls/device.pem", expected],
        );
    };
    check(AlertDescription::UnknownCA, "unknown_ca");
    check(AlertDescription::CertificateExpired, "certificate_expired");
    check(AlertDescription::CertificateRevoked, "certificate_revoked");
    check(
        AlertDescription::CertificateRequired,
        "certificate_required",
    );
    check(AlertDescription::AccessDenied, "access_denied");
    check(AlertDescription::BadCertificate, "the broker's log");
}

#[test]
fn no_common_ground_for_tls() {
    let alert = |alert| Failure::Tls(rustls::Error::AlertReceived(alert));
    check(
        alert(AlertDescription::ProtocolVersion),
        Kind::TlsVersion,
        &["does not speak TLS 1.3", "`tls_min = \"1.2\"`"],
    );
    check(
        alert(AlertDescription::NoApplicationProtocol),
        Kind::TlsFailed,
        &["`alpn`", "no_application_protocol"],
    );
    check(
        alert(AlertDescription::HandshakeFailure),
        Kind::TlsFailed,
        &["no common ground"],
    );
}

#[test]
fn refusals_in_the_connack() {
    check(
        Failure::Refused(Refusal::ClientId),
        Kind::ClientIdRefused,
        &["client id `press-7`", "[device]"],
    );
    check(
        Failure::Refused(Refusal::NotAuthorized),
        Kind::NotAuthorized,
        &["client `press-7`", "tls/device.pem", "common name"],
    );
    check(
        Failure::Refused(Refusal::Unavailable),
        Kind::BrokerUnavailable,
        &["unavailable"],
    );
    check(
        Failure::Refused(Refusal::ProtocolVersion),
        Kind::ProtocolRefused,
        &["MQTT 3.1.1"],
    );
}

#[test]
fn a_closed_connection_is_told_apart_by_when_it_happened() {
    let reset = Failure::Io(io::ErrorKind::ConnectionReset.into());
    let early = said(&reset, false).to_string();
    assert!(
        early.contains("before it answered") && early.contains("tls/device.pem"),
        "{early}"
    );
    let late = said(&Failure::Closed, true).to_string();
    assert!(
        late.contains("another client may use the id `press-7`"),
        "{late}"
    );
}

#[test]
fn the_kind_is_a_stable_word() {
    let reason = said(&Failure::ConnectTimeout, false);
    let json = serde_json::to_value(reason).unwrap();
    assert_eq!(json["kind"], "timeout");
}
