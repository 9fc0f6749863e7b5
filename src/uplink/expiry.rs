//! How long the uplink's certificates are good for: warned of while there is time to renew them, not when the link is down.
//!
//! A warning comes from [`WARN_DAYS`] before the end on, once a day. Revocation lists live for days rather than years, so for
//! them it is [`WARN_DAYS_LIST`]. What is past its end is not for here: then nothing connects, and `tls` and `explain` say why.
//!
//! Must not: read a clock, but for `watch`, which reads the one that certificates are judged by.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls::pki_types::UnixTime;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::pem::{Role, read_any_revocation_lists, read_certificates};
use super::reason::Date;
use super::status::Status;
use super::tls::{Ca, Files};
use crate::certs;

/// How many days before the end of a certificate warnings begin.
pub const WARN_DAYS: i64 = 30;
/// The same for a revocation list.
pub const WARN_DAYS_LIST: i64 = 2;

const DAY: i64 = 86_400;
/// How often `watch` looks. The clock may be set, and files replaced, at any time.
const LOOK: Duration = Duration::from_secs(600);

/// When something in the uplink's files ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiry {
    pub role: Role,
    pub path: PathBuf,
    /// Whose certificate or list it is.
    pub name: String,
    pub until: Date,
    pub standing: Standing,
}

/// Whether the connection that stands was made with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// There is no connection, or none to compare with, or it is the one in use and in the file.
    #[default]
    Plain,
    /// In use, and no longer in the file.
    InUse,
    /// In the file, and not in use yet.
    NotYet,
}

impl Expiry {
    /// Whole days until its end; negative when it has ended.
    pub fn days_left(&self, now: UnixTime) -> i64 {
        (self.until.0 - Date::from(now).0).div_euclid(DAY)
    }

    pub fn has_ended(&self, now: UnixTime) -> bool {
        Date::from(now) > self.until
    }

    /// What to say about it while it has not ended, if that is near.
    pub fn warning(&self, now: UnixTime) -> Option<String> {
        let days = self.days_left(now);
        let (limit, remedy) = match self.role {
            Role::Crl => (
                WARN_DAYS_LIST,
                "fetch the authority's current list and put it there",
            ),
            Role::Ca => (
                WARN_DAYS,
                "put the authority's new certificate beside it in that file, and have the broker's renewed",
            ),
            Role::Cert | Role::Key => (
                WARN_DAYS,
                match self.standing {
                    Standing::Plain => {
                        "put a new certificate and its key there; they are taken up without a restart"
                    }
                    Standing::InUse => {
                        "what is in the file now could not be taken up yet; the log says why"
                    }
                    Standing::NotYet => {
                        "it is not in use yet, and ends soon already: was the right file put there?"
                    }
                },
            ),
        };
        (!self.has_ended(now) && days < limit).then(|| {
            let Expiry {
                role, path, name, ..
            } = self;
            let which = match self.standing {
                Standing::InUse => " in use, once from",
                Standing::Plain | Standing::NotYet => "",
            };
            format!(
                "{role}{which} {} (`{name}`) ends at {}, in {days} day{}: {remedy}",
                path.display(),
                self.until,
                if days == 1 { "" } else { "s" }
            )
        })
    }
}

/// When what is in the files ends. A file that cannot be read has nothing to say here. Of the operating system's authorities
/// none is looked at: nobody here renews them.
pub fn expiries(files: &Files) -> Vec<Expiry> {
    let mut all = certificates(Role::Cert, &files.cert);
    if let Ca::File(path) = &files.ca {
        all.extend(certificates(Role::Ca, path));
    }
    let lists = files.crl.as_deref().map(|path| {
        let lists = read_any_revocation_lists(path).unwrap_or_default();
        lists.into_iter().filter_map(|list| {
            Some(Expiry {
                role: Role::Crl,
                path: path.to_owned(),
                name: list.issuer,
                until: Date(list.next_update?.as_nanos().div_euclid(1_000_000_000)),
                standing: Standing::Plain,
            })
        })
    });
    all.extend(lists.into_iter().flatten());
    all
}

/// Whole days until this device's certificate ends; negative when it has ended, none when it cannot be read.
pub fn cert_days_left(files: &Files, now: UnixTime) -> Option<i64> {
    let own = certificates(Role::Cert, &files.cert);
    Some(own.first()?.days_left(now))
}

fn certificates(role: Role, path: &Path) -> Vec<Expiry> {
    let certificates = read_certificates(role, path).unwrap_or_default();
    let described = certificates
        .iter()
        .filter_map(|der| described(role, path, der));
    described.collect()
}

fn described(role: Role, path: &Path, der: &[u8]) -> Option<Expiry> {
    let certificate = certs::describe_der(der).ok()?;
    Some(Expiry {
        role,
        path: path.to_owned(),
        until: Date(certificate.not_after.as_nanos().div_euclid(1_000_000_000)),
        name: certificate.common_name.unwrap_or(certificate.subject),
        standing: Standing::Plain,
    })
}

/// When this certificate of the device's own ends.
pub(super) fn of_own(files: &Files, der: &[u8]) -> Option<Expiry> {
    described(Role::Cert, &files.cert, der)
}

/// Puts the certificate in use beside what the files hold, where the two differ.
fn beside_in_use(mut found: Vec<Expiry>, in_use: Option<&Expiry>) -> Vec<Expiry> {
    let Some(in_use) = in_use else { return found };
    // The device's own comes first in its file, which comes first.
    let in_file = found.first_mut().filter(|first| first.role == Role::Cert);
    match in_file {
        Some(own) if own == in_use => return found,
        Some(own) => own.standing = Standing::NotYet,
        None => {}
    }
    let mut in_use = in_use.clone();
    in_use.standing = Standing::InUse;
    found.insert(0, in_use);
    found
}

/// Remembers what was said, so that each warning comes once a day.
#[derive(Debug, Default)]
pub struct Reminder {
    /// The day, counted from 1970, on which the last warnings were given, and of which ends.
    said: Option<(i64, Vec<Expiry>)>,
}

impl Reminder {
    /// What is to be said now of these ends. New files are news, also on the same day.
    pub fn due(&mut self, expiries: Vec<Expiry>, now: UnixTime) -> Vec<String> {
        let near: Vec<Expiry> = expiries
            .into_iter()
            .filter(|expiry| expiry.warning(now).is_some())
            .collect();
        let today = Date::from(now).0.div_euclid(DAY);
        let is_said = |(day, said): &(i64, Vec<Expiry>)| *day == today && *said == near;
        if self.said.as_ref().is_some_and(is_said) {
            return Vec::new();
        }
        let warnings = near.iter().filter_map(|expiry| expiry.warning(now));
        let warnings = warnings.collect();
        self.said = Some((today, near));
        warnings
    }
}

/// Looks at the files from time to time and writes the warnings that are due into the log, until it is dropped.
pub(super) async fn watch(
    files: Files,
    status: watch::Receiver<Status>,
    now: impl Fn() -> UnixTime,
) -> Infallible {
    let mut reminder = Reminder::default();
    loop {
        let read = files.clone();
        // A read that panics or is cancelled has nothing to say; the next one may have.
        let found = spawn_blocking(move || expiries(&read)).await;
        let found = {
            let status = status.borrow();
            let in_use = status.certificate.as_ref().filter(|_| status.is_up());
            beside_in_use(found.unwrap_or_default(), in_use)
        };
        for warning in reminder.due(found, now()) {
            tracing::warn!("{warning}");
        }
        sleep(LOOK).await;
    }
}

#[cfg(test)]
#[path = "expiry_test.rs"]
mod tests;
