//! The same against Debian's mosquitto: a broker and a subscriber in which nothing is ours.

use std::collections::BTreeSet;
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::AlertDescription;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tidegate::certs::{Credentials, DevelopmentCa, Overwrite};
use tidegate::examples::FLOWS;

use crate::SOON;
use crate::support::cable::own_address;
use crate::support::mosquitto::{Mosquitto, Subscriber};
use crate::support::plant::{DEVICE, expired, now, valid};
use crate::support::{Cable, Plant, until};

/// The default of `inflight`: what may come twice after a reconnect.
const INFLIGHT: u64 = 100;

/// What the example flows report on within seconds, below `sites/DEVICE/`.
const TOPICS: [&str; 8] = [
    "climate/humidity",
    "climate/temperature",
    "cold-store/compressor",
    "cold-store/temperature",
    "door/open",
    "machine/knock",
    "machine/vibration",
    "water/litres",
];

fn in_full(topic: &str) -> String {
    format!("sites/{DEVICE}/{topic}")
}

#[test]
#[ignore = "needs mosquitto: scripts/test.sh runs it"]
fn a_broker_killed_in_the_middle_gets_every_record_of_the_example_flows() {
    let plant = Plant::new();
    for (name, text) in FLOWS {
        plant.flow(name, text);
    }
    // So that nearly every one of a hundred readings a second is a knock.
    plant.settings(
        "[vars]\nwindow = '1s'\nknock = 0.1\n[vars.cold-store]\npace = '100ms'\nwarm = 4.0\nrest = '1ms'\n[vars.climate]\npace = '200ms'\n",
    );
    let mosquitto = Mosquitto::of(&plant);
    let broker = mosquitto.start();
    let first = Subscriber::at(mosquitto.address, &plant);
    let cable = Cable::lay(plant.address);
    cable.lead_to(mosquitto.address);
    let device = plant.run();
    until("every flow has reported", || {
        let topics = first.heard().topics;
        TOPICS
            .iter()
            .all(|topic| topics.contains_key(&in_full(topic)))
            .then_some(())
    });

    // What is in flight when the broker is killed has arrived, and the device does not know.
    cable.hold_answers();
    plant.totals_with("the window is full", |totals| totals.get("stored") > 0);
    broker.kill();
    // Until there is a subscriber again, nothing may arrive that none would see.
    cable.cut();
    let first = first.after_its_broker();
    let waiting = plant.totals_with("some are stored", |totals| totals.get("stored") > 50);

    let _broker = mosquitto.start();
    let second = Subscriber::at(mosquitto.address, &plant);
    cable.lead_to(mosquitto.address);
    plant.totals_with("they are delivered", |totals| {
        totals.get("acknowledged") > waiting.get("accepted") && totals.get("stored") == 0
    });
    device.signal("TERM");
    assert!(device.end().0.success());
    drain(&plant);

    let totals = plant.totals();
    totals.assert_balance();
    let accepted = totals.get("accepted");
    assert_eq!(totals.get("acknowledged"), accepted, "{totals:?}");
    let expected: BTreeSet<(u64, u64)> = (1..=accepted).map(|seq| (1, seq)).collect();
    let has_come = |second: &Subscriber| {
        let mut ids: BTreeSet<_> = first.records.keys().copied().collect();
        ids.extend(second.heard().records.keys());
        ids
    };
    until("as many records as were accepted have come", || {
        (has_come(&second).len() >= expected.len()).then_some(())
    });
    let ids = has_come(&second);
    let missing: Vec<_> = expected.difference(&ids).collect();
    let foreign: Vec<_> = ids.difference(&expected).collect();
    assert!(
        missing.is_empty() && foreign.is_empty(),
        "missing {missing:?}, foreign {foreign:?}"
    );

    let heard = first.and(second.heard());
    println!(
        "{accepted} records, {} of them again, {:?}",
        heard.duplicates(),
        heard.topics
    );
    assert!(
        (1..=INFLIGHT).contains(&heard.duplicates()),
        "{} duplicates",
        heard.duplicates()
    );
    let of_device = in_full("");
    let foreign: Vec<&String> = heard
        .topics
        .keys()
        .filter(|topic| !topic.starts_with(&of_device))
        .collect();
    assert!(foreign.is_empty(), "{foreign:?} are of no flow");
}

/// Delivers what is left in the outbox, without making anything new.
fn drain(plant: &Plant) {
    std::fs::remove_dir_all(plant.path("flows")).unwrap();
    std::fs::create_dir(plant.path("flows")).unwrap();
    let device = plant.run();
    plant.totals_with("the outbox is empty", |totals| {
        totals.get("stored") + totals.get("pending") == 0
    });
    device.signal("TERM");
    assert!(device.end().0.success());
}

#[test]
#[ignore = "needs mosquitto: scripts/test.sh runs it"]
fn mosquitto_lets_nobody_in_without_a_good_certificate() {
    let plant = Plant::new();
    let mosquitto = Mosquitto::of(&plant);
    let _broker = mosquitto.start();
    let check = |credentials: Option<Credentials>, expected| {
        let alert = alert_from(mosquitto.address, &plant.ca, credentials.as_ref());
        assert_eq!(alert, expected);
    };
    let issue = |ca: &DevelopmentCa, validity| Some(ca.issue_device(DEVICE, validity).unwrap());
    check(None, AlertDescription::CertificateRequired);
    check(issue(&foreign_ca(), valid()), AlertDescription::UnknownCA);
    check(
        issue(&plant.ca, expired()),
        AlertDescription::CertificateExpired,
    );
    // With a good one it does.
    Subscriber::at(mosquitto.address, &plant);
}

/// The alert with which a broker ends a TLS 1.3 connection: there the client is done before its certificate is judged.
fn alert_from(
    broker: SocketAddr,
    ca: &DevelopmentCa,
    credentials: Option<&Credentials>,
) -> AlertDescription {
    let mut roots = rustls::RootCertStore::empty();
    let root = ca.credentials().certificate_pem.as_bytes();
    roots
        .add(CertificateDer::from_pem_slice(root).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let config = match credentials {
        None => builder.with_no_client_auth(),
        Some(credentials) => {
            let certificate = credentials.certificate_pem.as_bytes();
            let chain = vec![CertificateDer::from_pem_slice(certificate).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(credentials.key_pem.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    let name = ServerName::from(broker.ip());
    let mut tls = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut tcp = TcpStream::connect(broker).unwrap();
    tcp.set_read_timeout(Some(SOON)).unwrap();
    // Nothing is written: the broker closes, and what it has not read then would take its alert away.
    let error = rustls::Stream::new(&mut tls, &mut tcp)
        .read(&mut [0])
        .expect_err("the broker refuses");
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(rustls::Error::AlertReceived(alert)) => *alert,
        _ => panic!("{error}"),
    }
}

fn foreign_ca() -> DevelopmentCa {
    DevelopmentCa::create(now()).unwrap()
}

/// Runs a device with something wrong until the log says so, then puts it right: all that was kept arrives, without a
/// restart. What is wrong may be the credentials of the broker, which has others then.
fn check_refusal(
    wrong: impl FnOnce(&Plant) -> Option<Credentials>,
    words: impl FnOnce(&Plant) -> Vec<String>,
    right: impl FnOnce(&Plant),
) {
    let plant = Plant::ticking();
    let good = Mosquitto::of(&plant);
    let bad =
        wrong(&plant).map(|server| Mosquitto::with(&plant, own_address(), &server, &plant.ca));
    let mosquitto = bad.as_ref().unwrap_or(&good);
    let _broker = mosquitto.start();
    let cable = Cable::lay(plant.address);
    cable.lead_to(mosquitto.address);

    let mut device = plant.run();
    let words = words(&plant);
    let words: Vec<&str> = ["uplink down"]
        .into_iter()
        .chain(words.iter().map(String::as_str))
        .collect();
    device.says(&words);
    let kept = plant.totals_with("records are kept", |totals| totals.get("stored") > 0);
    assert_eq!(
        (kept.get("acknowledged"), kept.get("is_up")),
        (0, 0),
        "{kept:?}"
    );
    assert_eq!(
        kept.get("dropped") + kept.get("dead_lettered"),
        0,
        "{kept:?}"
    );

    let _good_broker = bad.is_some().then(|| good.start());
    let subscriber = Subscriber::at(good.address, &plant);
    right(&plant);
    cable.lead_to(good.address);
    device.says(&["uplink up"]);
    until("what was kept has arrived", || {
        let records = subscriber.heard().records;
        let mut kept = (1..=kept.get("accepted")).map(|seq| (1, seq));
        kept.all(|id| records.contains_key(&id)).then_some(())
    });
    device.assert_runs();
}

/// Puts a good certificate there, and its key.
fn renew(plant: &Plant) {
    let good = plant.ca.issue_device(DEVICE, valid()).unwrap();
    good.write(&plant.tls(), Overwrite::Force).unwrap();
}

/// A bad certificate first, which leaves the connection alone, then a good one, with which it is made anew: every record comes
/// once.
#[test]
#[ignore = "needs mosquitto: scripts/test.sh runs it"]
fn a_renewed_certificate_is_taken_up_and_every_record_comes_once() {
    let plant = Plant::ticking();
    let mosquitto = Mosquitto::of(&plant);
    let _broker = mosquitto.start();
    let subscriber = Subscriber::at(mosquitto.address, &plant);
    let cable = Cable::lay(plant.address);
    cable.lead_to(mosquitto.address);
    let mut device = plant.run();
    device.says(&["uplink up"]);

    let foreign = foreign_ca().issue_device(DEVICE, valid()).unwrap();
    foreign.write(&plant.tls(), Overwrite::Force).unwrap();
    device.says(&[
        "the changed certificate files of the uplink are not used",
        "it does not know the CA that signed it",
    ]);
    let before = plant.totals();
    plant.totals_with("the connection goes on", |totals| {
        totals.get("acknowledged") > before.get("acknowledged") + 10
    });

    renew(&plant);
    device.says(&["connects anew"]);
    device.says(&["uplink up"]);
    let after = plant.totals();
    plant.totals_with("the new connection delivers", |totals| {
        totals.get("acknowledged") > after.get("acknowledged") + 10
    });
    device.signal("TERM");
    assert!(device.end().0.success());
    drain(&plant);

    let accepted = plant.totals().get("accepted");
    until("every record has come", || {
        let heard = subscriber.heard();
        (heard.records.len() as u64 >= accepted).then_some(())
    });
    assert_eq!(subscriber.heard().duplicates(), 0);
}

#[test]
#[ignore = "needs mosquitto: scripts/test.sh runs it"]
fn mosquitto_refuses_a_device_of_a_foreign_ca() {
    check_refusal(
        |plant| {
            let foreign = foreign_ca().issue_device(DEVICE, valid()).unwrap();
            foreign.write(&plant.tls(), Overwrite::Force).unwrap();
            None
        },
        |plant| {
            vec![
                format!(
                    "refused this device's certificate {}",
                    plant.tls_file("press-7.pem")
                ),
                "it does not know the CA that signed it".to_owned(),
            ]
        },
        renew,
    );
}

#[test]
#[ignore = "needs mosquitto: scripts/test.sh runs it"]
fn an_expired_certificate_is_not_even_shown_to_mosquitto() {
    check_refusal(
        |plant| {
            let old = plant.ca.issue_device(DEVICE, expired()).unwrap();
            old.write(&plant.tls(), Overwrite::Force).unwrap();
            None
        },
        |plant| {
            vec![format!(
                "this device's certificate {} expired at",
                plant.tls_file("press-7.pem")
            )]
        },
        renew,
    );
}

#[test]
#[ignore = "needs mosquitto: scripts/test.sh runs it"]
fn a_mosquitto_under_another_name_is_refused() {
    check_refusal(
        |plant| {
            let names = ["broker.example".to_owned()];
            Some(plant.ca.issue_server(&names, valid()).unwrap())
        },
        |plant| {
            vec![format!(
                "not for `{}` but for broker.example",
                plant.address.ip()
            )]
        },
        |_| {},
    );
}

#[test]
#[ignore = "needs mosquitto: scripts/test.sh runs it"]
fn a_mosquitto_of_a_foreign_ca_is_refused() {
    check_refusal(
        |plant| Some(plant.server(&foreign_ca())),
        |plant| {
            vec![
                "is not signed by the CA in".to_owned(),
                plant.tls_file("ca.pem"),
            ]
        },
        |_| {},
    );
}
