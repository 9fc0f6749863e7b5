//! Every way in which the files can be wrong, and what is said about it.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::UnixTime;
use rustls::{ClientConnection, ServerConfig, ServerConnection};
use tempfile::TempDir;

use super::{Files, LoadError, load};
use crate::uplink::reason::Kind;
use crate::uplink::test_pki::{Authority, VALID, Years, set_mode, write_files};

/// The middle of 2026.
const NOW: UnixTime = UnixTime::since_unix_epoch(Duration::from_secs(1_782_000_000));

fn files(years: Years) -> (TempDir, Files) {
    let dir = tempfile::tempdir().unwrap();
    let ca = Authority::new("test CA");
    let device = ca.issue(&["press-7"], years);
    let files = write_files(dir.path(), &ca, &device);
    (dir, files)
}

fn refusal(files: &Files) -> LoadError {
    load(files, NOW).expect_err("these files are no good")
}

/// Good files, one of them spoiled: what is said names the file and the remedy.
fn check(spoil: impl Fn(&Files), kind: Kind, expected: &[&str]) {
    let (_dir, files) = files(VALID);
    spoil(&files);
    let error = refusal(&files);
    let said = error.to_string();
    assert_eq!(error.kind(), kind, "{said}");
    for part in expected {
        assert!(said.contains(part), "`{part}` is not in: {said}");
    }
}

#[test]
fn good_files_give_a_configuration_that_offers_the_certificate() {
    let (_dir, files) = files(VALID);
    let config = load(&files, NOW).unwrap();
    assert!(config.client_auth_cert_resolver.has_certs());
}

#[test]
fn the_certificate_need_not_be_of_the_brokers_ca() {
    let (_dir, files) = files(VALID);
    fs::write(files.ca.path(), Authority::new("another CA").pem).unwrap();
    load(&files, NOW).unwrap();
}

#[test]
fn missing_and_unreadable_files() {
    let gone = |path: fn(&Files) -> &std::path::Path| {
        move |files: &Files| fs::remove_file(path(files)).unwrap()
    };
    check(
        gone(|f| f.ca.path()),
        Kind::FileMissing,
        &["the CA file", "ca.pem does not exist", "`ca`"],
    );
    check(
        gone(|f| &f.cert),
        Kind::FileMissing,
        &["the certificate", "device.pem does not exist", "`cert`"],
    );
    check(
        gone(|f| &f.key),
        Kind::FileMissing,
        &["the key", "device.key does not exist", "`key`"],
    );
    check(
        |files| {
            fs::remove_file(&files.key).unwrap();
            fs::create_dir(&files.key).unwrap();
        },
        Kind::FileUnreadable,
        &["device.key cannot be read"],
    );
}

/// root may read everything, so the words are tested without a file.
#[test]
fn a_file_without_permission() {
    let error = LoadError::Forbidden {
        role: super::Role::Key,
        path: "tls/device.key".into(),
    };
    assert_eq!(error.kind(), Kind::FileUnreadable);
    let said = error.to_string();
    assert!(
        said.contains("tls/device.key may not be read") && said.contains("chmod"),
        "{said}"
    );
}

#[test]
fn files_that_are_something_else() {
    check(
        |files| fs::write(files.ca.path(), [0x30, 0x82, 1, 2]).unwrap(),
        Kind::NotPem,
        &["ca.pem is not PEM", "openssl x509 -inform der"],
    );
    check(
        |files| fs::write(&files.key, "").unwrap(),
        Kind::NotPem,
        &["device.key is not PEM", "openssl pkey"],
    );
    check(
        |files| assert!(fs::copy(&files.key, &files.cert).is_ok()),
        Kind::NoCertificate,
        &["the certificate", "device.pem has no certificate in it"],
    );
    check(
        |files| {
            fs::copy(&files.cert, &files.key).unwrap();
            set_mode(&files.key, 0o600);
        },
        Kind::NoKey,
        &["device.key has no private key in it"],
    );
    check(
        |files| {
            let text = fs::read_to_string(&files.cert).unwrap();
            fs::write(&files.cert, &text[..text.len() / 2]).unwrap();
        },
        Kind::NotPem,
        &["device.pem is damaged PEM (it ends before its END line)"],
    );
    let pem = |label: &str, body: &str| {
        format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
    };
    check(
        |files| fs::write(files.ca.path(), pem("CERTIFICATE", "!!!!")).unwrap(),
        Kind::NotPem,
        &["ca.pem is damaged PEM", "no base64"],
    );
    check(
        |files| fs::write(files.ca.path(), pem("CERTIFICATE", "AAAA")).unwrap(),
        Kind::BadCertificate,
        &["the CA file", "cannot be understood"],
    );
    check(
        |files| fs::write(&files.cert, pem("CERTIFICATE", "AAAA")).unwrap(),
        Kind::BadCertificate,
        &["device.pem", "cannot be understood"],
    );
    check(
        |files| fs::write(&files.key, pem("PRIVATE KEY", "AAAA")).unwrap(),
        Kind::BadKey,
        &["device.key is of a kind that is not supported"],
    );
}

#[test]
fn a_key_that_others_may_read_or_change_is_not_used() {
    for mode in [0o640, 0o604, 0o620, 0o601, 0o777] {
        let spoil = |files: &Files| set_mode(&files.key, mode);
        let shown = format!("(mode {mode:04o})");
        check(
            spoil,
            Kind::KeyExposed,
            &[
                "the key",
                "device.key is open to others",
                &shown,
                "chmod 600",
            ],
        );
    }
    for mode in [0o600, 0o400, 0o700] {
        let (_dir, files) = files(VALID);
        set_mode(&files.key, mode);
        load(&files, NOW).unwrap();
    }
}

/// What counts is the file, not the link to it, whose mode is 0777 always.
#[test]
fn the_mode_of_a_key_behind_a_link_is_that_of_the_key() {
    let link = |files: &Files, mode: u32| {
        let real = files.key.with_extension("real");
        fs::rename(&files.key, &real).unwrap();
        set_mode(&real, mode);
        std::os::unix::fs::symlink(&real, &files.key).unwrap();
    };
    check(|files| link(files, 0o644), Kind::KeyExposed, &["0644"]);
    let (_dir, files) = files(VALID);
    link(&files, 0o600);
    load(&files, NOW).unwrap();
}

#[test]
fn a_file_that_never_ends_is_not_read_for_ever() {
    check(
        |files| {
            fs::remove_file(files.ca.path()).unwrap();
            std::os::unix::fs::symlink("/dev/zero", files.ca.path()).unwrap();
        },
        Kind::FileUnreadable,
        &["ca.pem cannot be read", "longer than 16 MiB"],
    );
}

#[test]
fn a_key_behind_a_passphrase() {
    for locked in [
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
        "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n-----END EC PRIVATE KEY-----\n",
    ] {
        check(
            |files| fs::write(&files.key, locked).unwrap(),
            Kind::BadKey,
            &["device.key is locked with a passphrase", "openssl pkey"],
        );
    }
}

#[test]
fn a_key_of_another_certificate() {
    check(
        |files| {
            let other = Authority::new("test CA").issue(&["press-8"], VALID);
            fs::write(&files.key, other.key).unwrap();
        },
        Kind::KeyMismatch,
        &[
            "device.key does not belong to the certificate",
            "device.pem",
        ],
    );
}

#[test]
fn a_certificate_out_of_its_time() {
    let check = |years: Years, kind: Kind, date: &str, remedy: &str| {
        let (_dir, files) = files(years);
        let error = refusal(&files);
        let said = error.to_string();
        assert_eq!(error.kind(), kind, "{said}");
        for part in ["device.pem", date, "clock says 2026-06-21T", remedy] {
            assert!(said.contains(part), "`{part}` is not in: {said}");
        }
    };
    check(
        (2020, 2021),
        Kind::OwnCertificateExpired,
        "expired at 2021-01-01T00:00:00Z",
        "put a new certificate",
    );
    check(
        (2030, 2031),
        Kind::OwnCertificateNotYetValid,
        "valid from 2030-01-01T00:00:00Z only",
        "is the clock right?",
    );
}

#[test]
fn stamps_tell_new_files_from_old_ones() {
    let (_dir, files) = files(VALID);
    let before = files.stamps();
    assert_eq!(files.stamps(), before);
    // Written beside it and renamed, as tools do: the length and even the time may be the same, the inode is not.
    let beside = files.key.with_extension("new");
    fs::copy(&files.key, &beside).unwrap();
    fs::rename(&beside, &files.key).unwrap();
    let renamed = files.stamps();
    assert_ne!(renamed, before);
    fs::remove_file(files.ca.path()).unwrap();
    assert_ne!(files.stamps(), renamed);
}

/// What the broker sees of a handshake with these files: the host that is asked for, and the protocol that was agreed on.
fn handshake(files: &Files, protocols: &[&str]) -> Result<(String, Option<String>), rustls::Error> {
    let broker = Authority::new("broker CA");
    fs::write(files.ca.path(), &broker.pem).unwrap();
    let (chain, key) = broker.issue(&["broker.example"], VALID).der();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    server.alpn_protocols = protocols
        .iter()
        .map(|name| name.as_bytes().to_vec())
        .collect();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    let client = Arc::new(load(files, NOW).unwrap());
    let mut client = ClientConnection::new(client, "broker.example".try_into().unwrap()).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        let mut there = Vec::new();
        client.write_tls(&mut there).unwrap();
        server.read_tls(&mut &there[..]).unwrap();
        let received = server.process_new_packets();
        let mut back = Vec::new();
        server.write_tls(&mut back).unwrap();
        client.read_tls(&mut &back[..]).unwrap();
        client.process_new_packets()?;
        received?;
    }
    let agreed = server.alpn_protocol();
    let agreed = agreed.map(|name| String::from_utf8(name.to_vec()).unwrap());
    Ok((server.server_name().unwrap().to_owned(), agreed))
}

#[test]
fn what_a_shared_port_is_asked_for() {
    let check = |offered: &[&str], spoken: &[&str], expected: Option<&str>| {
        let (_dir, mut files) = files(VALID);
        files.options.alpn = offered.iter().map(|name| (*name).to_owned()).collect();
        let (host, agreed) = handshake(&files, spoken).unwrap();
        assert_eq!(host, "broker.example");
        assert_eq!(agreed.as_deref(), expected, "{offered:?} {spoken:?}");
    };
    check(&[], &["h2", "mqtt"], None);
    check(&["mqtt"], &["h2", "mqtt"], Some("mqtt"));
    check(&["x-amzn-mqtt-ca", "mqtt"], &["mqtt"], Some("mqtt"));
    check(&["mqtt"], &[], None);
    let (_dir, mut files) = files(VALID);
    files.options.alpn = vec!["mqtt".to_owned()];
    let refused = handshake(&files, &["h2"]).unwrap_err();
    let alert = rustls::AlertDescription::NoApplicationProtocol;
    assert_eq!(refused, rustls::Error::AlertReceived(alert));
}

#[test]
fn revocation_lists_that_cannot_be_used() {
    let with = |text: &'static str, expected: &[&str]| {
        let (_dir, mut files) = files(VALID);
        let path = files.key.with_extension("crl");
        fs::write(&path, text).unwrap();
        files.crl = Some(path);
        let error = refusal(&files);
        let said = error.to_string();
        for part in expected {
            assert!(said.contains(part), "`{part}` is not in: {said}");
        }
    };
    with("none", &["device.crl is not PEM", "openssl crl"]);
    with(
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        &["device.crl cannot be used", "no revocation list in it"],
    );
    with(
        "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n",
        &["device.crl cannot be used", "damaged"],
    );
    let (_dir, mut files) = files(VALID);
    files.crl = Some("tls/none.crl".into());
    let said = refusal(&files).to_string();
    assert!(
        said.contains("tls/none.crl does not exist") && said.contains("`crl`"),
        "{said}"
    );
}
