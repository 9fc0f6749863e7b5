//! New certificate files beside a connection that stands: they come into use when they work, and cost nothing when they do not.

use std::fs;

use super::*;
use crate::uplink::Uplink;
use crate::uplink::test_backlog::TestBacklog;
use crate::uplink::test_broker::{Acks, GOOD, Script, TestBroker};
use crate::uplink::test_pki::{Authority, Identity, VALID, write_files};
use crate::uplink::test_world::{World, assert_said, soon, start, up};

/// An uplink that is up.
struct Standing {
    world: World,
    broker: TestBroker,
    backlog: TestBacklog,
    uplink: Uplink,
}

impl Standing {
    async fn with(scripts: &[Script]) -> Standing {
        let world = World::new();
        let broker = TestBroker::start(&world.tls(), scripts).await;
        let backlog = TestBacklog::new(|_| {});
        let uplink = start(world.settings(broker.port), &backlog);
        soon(up(&uplink)).await;
        Standing {
            world,
            broker,
            backlog,
            uplink,
        }
    }

    fn put(&self, device: &Identity) {
        write_files(self.world.dir.path(), &self.world.ca, device);
    }

    /// Until when the certificate in use is good.
    fn until(&self) -> String {
        let status = self.uplink.status();
        let status = status.borrow();
        status.certificate.as_ref().unwrap().until.to_string()
    }

    async fn in_use_until(&self, until: &str) {
        let mut status = self.uplink.status();
        let is_in_use = |status: &crate::uplink::Status| {
            let certificate = status.certificate.as_ref();
            certificate.is_some_and(|certificate| certificate.until.to_string().starts_with(until))
        };
        soon(status.wait_for(is_in_use)).await.unwrap();
    }

    /// Why the newer files are not used.
    async fn not_used(&self) -> crate::uplink::Reason {
        let mut status = self.uplink.status();
        let status = soon(status.wait_for(|status| status.newer_files.is_some()));
        let status = status.await.unwrap();
        status.newer_files.clone().unwrap()
    }

    /// The connection from the start is still the one that delivers.
    async fn assert_kept(&self) {
        assert_eq!(self.connects(), 1);
        self.backlog.push(1_000, "plant", "1");
        soon(self.backlog.emptied()).await;
        assert_eq!(self.connects(), 1);
        assert!(self.uplink.status().borrow().is_up());
        assert_eq!(self.until(), "2100-01-01T00:00:00Z");
    }

    /// How long the link was not up, while it is.
    fn outage(&self) -> Duration {
        let status = self.uplink.status();
        status.borrow().outage(status.borrow().since)
    }

    fn connects(&self) -> u64 {
        self.uplink.status().borrow().counts().connects
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewed_certificate_comes_into_use_and_no_record_comes_twice() {
    // Acknowledged late, so that some are in flight at any time.
    let slow = Script {
        acks: Acks::Reverse(7),
        ..GOOD
    };
    let it = Standing::with(&[slow]).await;
    let renewed = it.world.ca.issue(&["press-7"], (2020, 2090));
    let before = it.outage();
    const RECORDS: u64 = 1_000;
    for seq in 1..=RECORDS {
        if seq == 200 {
            it.put(&renewed);
        }
        it.backlog.push(seq, "plant", &seq.to_string());
        sleep(Duration::from_millis(1)).await;
    }
    it.in_use_until("2090-01-01").await;
    soon(it.backlog.emptied()).await;
    let counts = it.uplink.status().borrow().counts();
    assert_eq!((counts.connects, counts.resent), (2, 0));
    let after = it.outage();
    soon(it.uplink.stop()).await;
    // The goodbye is on its way when the uplink is gone.
    let both_ended = async {
        while it.broker.seen.lock().unwrap().disconnects < 2 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    soon(both_ended).await;
    let seen = it.broker.seen.lock().unwrap();
    let came: Vec<u64> = seen.received.iter().map(|publish| publish.id.seq).collect();
    assert_eq!(came, (1..=RECORDS).collect::<Vec<u64>>());
    assert_eq!(seen.client_ids.len(), 2, "the trial sends no CONNECT");
    assert_eq!(before, after, "the swap is no outage");
}

#[tokio::test]
async fn a_certificate_that_the_broker_refuses_leaves_the_connection_alone() {
    let it = Standing::with(&[GOOD]).await;
    it.put(&Authority::new("foreign CA").issue(&["press-7"], VALID));
    assert_said(
        &it.not_used().await,
        Kind::OurCertificateRefused,
        &["device.pem"],
    );
    it.assert_kept().await;
    // And what is put right after that comes into use.
    it.put(&it.world.ca.issue(&["press-7"], (2020, 2090)));
    it.in_use_until("2090-01-01").await;
    assert_eq!(it.uplink.status().borrow().newer_files, None);
}

#[tokio::test]
async fn files_that_are_bad_or_gone_leave_the_connection_alone() {
    let check = async |break_them: fn(&Standing), kind: Kind| {
        let it = Standing::with(&[GOOD]).await;
        break_them(&it);
        assert_said(&it.not_used().await, kind, &[]);
        it.assert_kept().await;
    };
    check(
        |it| fs::remove_file(it.world.dir.path().join("device.pem")).unwrap(),
        Kind::FileMissing,
    )
    .await;
    check(
        |it| fs::write(it.world.dir.path().join("device.pem"), "no").unwrap(),
        Kind::NotPem,
    )
    .await;
    check(
        |it| {
            let other = it.world.ca.issue(&["press-7"], VALID);
            fs::write(it.world.dir.path().join("device.key"), other.key).unwrap();
        },
        Kind::KeyMismatch,
    )
    .await;
    check(
        |it| it.put(&it.world.ca.issue(&["press-7"], (2020, 2021))),
        Kind::OwnCertificateExpired,
    )
    .await;
    check(
        |it| {
            let key = it.world.dir.path().join("device.key");
            crate::uplink::test_pki::set_mode(&key, 0o644);
        },
        Kind::KeyExposed,
    )
    .await;
    // The broker is not of this CA.
    check(
        |it| {
            let other = Authority::new("other CA").pem;
            fs::write(it.world.dir.path().join("ca.pem"), other).unwrap();
        },
        Kind::BrokerUnknownCa,
    )
    .await;
}

/// Tried again without a change of the files: time alone makes this one good.
#[tokio::test]
async fn a_certificate_that_becomes_valid_comes_into_use() {
    let it = Standing::with(&[GOOD]).await;
    it.put(&it.world.ca.issue_in(&["press-7"], 2));
    assert_said(&it.not_used().await, Kind::OwnCertificateNotYetValid, &[]);
    let swapped = async {
        while it.connects() < 2 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    soon(swapped).await;
}

#[tokio::test]
async fn a_broker_that_owes_acknowledgements_does_not_hold_up_the_swap_for_ever() {
    let never = Script {
        acks: Acks::Never,
        ..GOOD
    };
    // The second script is for the trial.
    let it = Standing::with(&[never, GOOD]).await;
    it.backlog.push(1, "plant", "1");
    while it.broker.seen.lock().unwrap().received.is_empty() {
        sleep(Duration::from_millis(5)).await;
    }
    it.put(&it.world.ca.issue(&["press-7"], (2020, 2090)));
    soon(it.backlog.emptied()).await;
    let counts = it.uplink.status().borrow().counts();
    assert_eq!((counts.connects, counts.resent), (2, 1));
}

#[tokio::test]
async fn where_the_broker_refuses_the_new_certificate_only_at_connect_the_old_one_goes_on() {
    // The connection from the start, the trial, the new one, and what follows.
    let refuses = Script { connack: 5, ..GOOD };
    let cuts = Script { drop_at: 2, ..GOOD };
    let it = Standing::with(&[GOOD, GOOD, refuses, cuts, GOOD]).await;
    it.put(&it.world.ca.issue(&["press-7"], (2020, 2090)));
    let both = async {
        while it.broker.seen.lock().unwrap().client_ids.len() < 3 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    soon(both).await;
    it.backlog.push(1, "plant", "1");
    soon(it.backlog.emptied()).await;
    assert_eq!(it.until(), "2100-01-01T00:00:00Z");
    assert_eq!(it.connects(), 2);
    // Also over a connection that breaks, without the refused ones being tried again.
    it.backlog.push(2, "plant", "2");
    soon(it.backlog.emptied()).await;
    assert_eq!(it.until(), "2100-01-01T00:00:00Z");
    assert_eq!(it.connects(), 3);
    assert_eq!(it.broker.seen.lock().unwrap().client_ids.len(), 4);
    // Only newer files are tried again.
    it.put(&it.world.ca.issue(&["press-7"], (2020, 2080)));
    it.in_use_until("2080-01-01").await;
    assert_eq!(it.connects(), 4);
}
