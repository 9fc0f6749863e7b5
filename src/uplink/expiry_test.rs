//! When warnings begin, what they name, and how often they come.

use super::*;
use crate::uplink::test_pki::{Authority, VALID, write_files};

/// The first of January 2100 in seconds, which is when `VALID` ends.
const END: i64 = 4_102_444_800;

fn before_end(seconds: i64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs((END - seconds).cast_unsigned()))
}

fn expiry(role: Role) -> Expiry {
    Expiry {
        role,
        path: "tls/file.pem".into(),
        name: "press-7".to_owned(),
        until: Date(END),
        standing: Standing::Plain,
    }
}

#[test]
fn warnings_begin_in_time_and_end_with_the_certificate() {
    let check = |role: Role, seconds: i64, expected: Option<&str>| {
        let said = expiry(role).warning(before_end(seconds));
        match expected {
            None => assert_eq!(said, None, "{role:?} {seconds}"),
            Some(part) => {
                let said = said.unwrap_or_else(|| panic!("nothing for {role:?} {seconds}"));
                for part in [part, "tls/file.pem (`press-7`) ends at 2100-01-01"] {
                    assert!(said.contains(part), "`{part}` is not in: {said}");
                }
            }
        }
    };
    for role in [Role::Cert, Role::Ca] {
        check(role, 30 * DAY, None);
        check(role, 30 * DAY - 1, Some("in 29 days"));
        check(role, DAY, Some("in 1 day:"));
        check(role, 0, Some("in 0 days"));
        check(role, -1, None);
    }
    check(Role::Crl, 2 * DAY, None);
    check(Role::Crl, 2 * DAY - 1, Some("in 1 day: fetch"));
}

#[test]
fn days_left_are_whole_days_and_negative_after_the_end() {
    let check = |seconds: i64, expected: i64| {
        assert_eq!(expiry(Role::Cert).days_left(before_end(seconds)), expected);
    };
    check(DAY, 1);
    check(DAY - 1, 0);
    check(0, 0);
    check(-1, -1);
    check(-DAY - 1, -2);
}

#[test]
fn what_ends_is_read_from_the_files() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Authority::new("test CA");
    let mut files = write_files(dir.path(), &ca, &ca.issue(&["press-7"], VALID));
    files.crl = Some(dir.path().join("revoked.pem"));
    let now = before_end(10 * DAY);
    assert_eq!(cert_days_left(&files, now), Some(10));
    std::fs::write(dir.path().join("revoked.pem"), ca.revoke(&[], 2099)).unwrap();
    let found: Vec<(Role, String, i64)> = expiries(&files)
        .into_iter()
        .map(|expiry| (expiry.role, expiry.name.clone(), expiry.days_left(now)))
        .collect();
    assert_eq!(found[0], (Role::Cert, "press-7".to_owned(), 10));
    assert_eq!((found[1].0, &*found[1].1), (Role::Ca, "test CA"));
    assert_eq!((found[2].0, found[2].2), (Role::Crl, 10 - 365));
    assert_eq!(found.len(), 3);

    std::fs::remove_file(&files.cert).unwrap();
    assert_eq!(cert_days_left(&files, now), None);
    files.ca = Ca::System;
    assert_eq!(expiries(&files).len(), 1, "the list is left");
}

#[test]
fn each_warning_comes_once_a_day_and_at_once_for_new_files() {
    let mut reminder = Reminder::default();
    let mut said = |seconds: i64, until: i64| {
        let expiry = Expiry {
            until: Date(until),
            ..expiry(Role::Cert)
        };
        reminder.due(vec![expiry], before_end(seconds)).len()
    };
    assert_eq!(said(40 * DAY, END), 0);
    assert_eq!(said(20 * DAY, END), 1);
    assert_eq!(said(20 * DAY - 600, END), 0, "the same day");
    assert_eq!(said(19 * DAY + 1, END), 0, "its last second");
    assert_eq!(said(19 * DAY, END), 1, "the next day");
    assert_eq!(said(19 * DAY - 1, END + 60), 1, "another certificate");
    assert_eq!(said(19 * DAY - 2, END + 365 * DAY), 0, "a renewed one");
    assert_eq!(said(19 * DAY - 3, END), 1, "and the old one again");
}

#[test]
fn a_certificate_in_use_and_a_newer_one_in_the_file_are_told_apart() {
    let own = expiry(Role::Cert);
    let newer = Expiry {
        until: Date(END + DAY),
        ..own.clone()
    };
    let ca = expiry(Role::Ca);
    let standings = |in_file: &[&Expiry], in_use: Option<&Expiry>| -> Vec<(Role, Standing)> {
        let found = in_file.iter().map(|expiry| (*expiry).clone()).collect();
        let all = beside_in_use(found, in_use);
        all.iter()
            .map(|expiry| (expiry.role, expiry.standing))
            .collect()
    };
    let plain = [(Role::Cert, Standing::Plain), (Role::Ca, Standing::Plain)];
    assert_eq!(standings(&[&own, &ca], None), plain);
    assert_eq!(standings(&[&own, &ca], Some(&own)), plain);
    assert_eq!(
        standings(&[&newer, &ca], Some(&own)),
        [
            (Role::Cert, Standing::InUse),
            (Role::Cert, Standing::NotYet),
            (Role::Ca, Standing::Plain)
        ]
    );
    // The file is gone.
    assert_eq!(
        standings(&[&ca], Some(&own)),
        [(Role::Cert, Standing::InUse), (Role::Ca, Standing::Plain)]
    );

    let said = |standing| {
        let expiry = Expiry {
            standing,
            ..own.clone()
        };
        expiry.warning(before_end(DAY)).unwrap()
    };
    assert_eq!(
        said(Standing::InUse),
        "the certificate in use, once from tls/file.pem (`press-7`) ends at 2100-01-01T00:00:00Z, in 1 day: what is in the \
         file now could not be taken up yet; the log says why"
    );
    assert_eq!(
        said(Standing::NotYet),
        "the certificate tls/file.pem (`press-7`) ends at 2100-01-01T00:00:00Z, in 1 day: it is not in use yet, and ends \
         soon already: was the right file put there?"
    );
}
