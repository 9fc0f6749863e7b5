//! Who refuses whom: the log says why in words, records are kept, and once it is put right they are delivered, without a
//! restart.

use std::os::unix::fs::PermissionsExt;

use tidegate::broker::Broker;
use tidegate::certs::{DevelopmentCa, Overwrite};

use crate::support::plant::{DEVICE, expired, now, valid};
use crate::support::{Cable, Cloud, Plant};

/// Runs a device with something wrong until the log says so, then puts it right. What is wrong may be a broker, which is
/// then where the device is led to first.
fn check(
    wrong: impl FnOnce(&Plant) -> Option<Broker>,
    words: impl FnOnce(&Plant) -> Vec<String>,
    right: impl FnOnce(&Plant),
) {
    let plant = Plant::ticking();
    let cloud: Cloud = plant.cloud();
    let cable = Cable::lay(plant.address);
    let wrong_broker = wrong(&plant);
    let first = wrong_broker
        .as_ref()
        .map_or(cloud.address(), Broker::local_addr);
    cable.lead_to(first);

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
    kept.assert_balance();

    right(&plant);
    cable.lead_to(cloud.address());
    device.says(&["uplink up"]);
    cloud.witness.sees(1, 1..=kept.get("accepted"));
    device.assert_runs();
}

/// Puts a good certificate there, and its key.
fn renew(plant: &Plant) {
    let good = plant.ca.issue_device(DEVICE, valid()).unwrap();
    good.write(&plant.tls(), Overwrite::Force).unwrap();
}

fn foreign_ca() -> DevelopmentCa {
    DevelopmentCa::create(now()).unwrap()
}

#[test]
fn a_certificate_that_is_not_there() {
    check(
        |plant| {
            std::fs::remove_file(plant.tls_file("press-7.pem")).unwrap();
            None
        },
        |plant| vec![format!("{} does not exist", plant.tls_file("press-7.pem"))],
        renew,
    );
}

#[test]
fn a_key_of_another_certificate() {
    check(
        |plant| {
            let other = plant.ca.issue_device(DEVICE, valid()).unwrap();
            std::fs::write(plant.tls_file("press-7.key"), other.key_pem).unwrap();
            None
        },
        |plant| {
            vec![format!(
                "the key {} does not belong to the certificate {}",
                plant.tls_file("press-7.key"),
                plant.tls_file("press-7.pem")
            )]
        },
        renew,
    );
}

#[test]
fn a_key_that_others_may_read() {
    let chmod = |plant: &Plant, mode| {
        let key = plant.tls_file("press-7.key");
        std::fs::set_permissions(key, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    check(
        |plant| {
            chmod(plant, 0o640);
            None
        },
        |plant| {
            vec![format!(
                "the key {} is open to others than its owner (mode 0640)",
                plant.tls_file("press-7.key")
            )]
        },
        |plant| chmod(plant, 0o600),
    );
}

#[test]
fn an_own_certificate_that_has_expired() {
    check(
        |plant| {
            let old = plant.ca.issue_device(DEVICE, expired()).unwrap();
            old.write(&plant.tls(), Overwrite::Force).unwrap();
            None
        },
        |plant| {
            vec![
                format!(
                    "this device's certificate {} expired at",
                    plant.tls_file("press-7.pem")
                ),
                format!(
                    "at {}",
                    expired().not_after.to_string().split('T').next().unwrap()
                ),
            ]
        },
        renew,
    );
}

#[test]
fn a_broker_with_a_certificate_of_a_foreign_ca() {
    check(
        |plant| Some(plant.broker(&plant.server(&foreign_ca()))),
        |plant| {
            vec![
                format!("the certificate of mqtts://{} is not signed", plant.address),
                plant.tls_file("ca.pem"),
            ]
        },
        |_| {},
    );
}

#[test]
fn a_broker_under_another_name() {
    check(
        |plant| {
            let names = ["broker.example".to_owned()];
            Some(plant.broker(&plant.ca.issue_server(&names, valid()).unwrap()))
        },
        |plant| {
            vec![format!(
                "has a certificate that is not for `{}` but for broker.example",
                plant.address.ip()
            )]
        },
        |_| {},
    );
}

#[test]
fn a_broker_whose_certificate_has_expired() {
    check(
        |plant| {
            let names = [plant.address.ip().to_string()];
            Some(plant.broker(&plant.ca.issue_server(&names, expired()).unwrap()))
        },
        |plant| {
            vec![
                format!("the certificate of mqtts://{} expired at", plant.address),
                "the broker needs a new certificate".to_owned(),
            ]
        },
        |_| {},
    );
}

#[test]
fn a_broker_that_does_not_know_our_ca() {
    check(
        |plant| Some(plant.broker_for(&plant.server(&plant.ca), &foreign_ca())),
        |plant| {
            vec![
                "refused this device's certificate".to_owned(),
                plant.tls_file("press-7.pem"),
            ]
        },
        |_| {},
    );
}

#[test]
fn a_certificate_of_another_device() {
    check(
        |plant| {
            let other = plant.ca.issue_device("press-8", valid()).unwrap();
            std::fs::write(plant.tls_file("press-7.pem"), other.certificate_pem).unwrap();
            std::fs::write(plant.tls_file("press-7.key"), other.key_pem).unwrap();
            None
        },
        |_| vec!["client id `press-7`".to_owned()],
        renew,
    );
}
