//! What the tests over sockets share: a CA, a broker, a device, and patience with a limit.

use std::future::Future;
use std::time::Duration;

use rustls::version::TLS13;
use tempfile::TempDir;
use tokio::time::timeout;

use super::test_backlog::TestBacklog;
use super::test_broker::{GOOD, Script, TestBroker, Tls};
use super::test_pki::{Authority, Identity, VALID, write_files};
use super::timing::Timing;
use super::{Kind, LinkState, Reason, Settings, Status, Uplink, parse_url};
use crate::runtime::clock::Clock;

/// A CA, a broker's certificate and a device's, and the files of the device.
pub(super) struct World {
    pub(super) ca: Authority,
    broker: Identity,
    pub(super) device: Identity,
    pub(super) dir: TempDir,
}

impl World {
    pub(super) fn new() -> World {
        let ca = Authority::new("test CA");
        World {
            broker: ca.issue(&["localhost"], VALID),
            device: ca.issue(&["press-7"], VALID),
            ca,
            dir: tempfile::tempdir().unwrap(),
        }
    }

    pub(super) fn tls(&self) -> Tls<'_> {
        Tls {
            identity: &self.broker,
            clients: &self.ca,
            version: &TLS13,
        }
    }

    pub(super) fn settings(&self, port: u16) -> Settings {
        let files = write_files(self.dir.path(), &self.ca, &self.device);
        let address = parse_url(&format!("mqtts://localhost:{port}")).unwrap();
        Settings::new(address, files, "press-7".to_owned())
    }

    /// Why an uplink does not get through to such a broker.
    pub(super) async fn refusal(&self, tls: &Tls<'_>, script: Script) -> Reason {
        self.refusal_with(tls, script, |_| {}).await
    }

    /// The same, with settings that are changed.
    pub(super) async fn refusal_with(
        &self,
        tls: &Tls<'_>,
        script: Script,
        change: impl Fn(&mut Settings),
    ) -> Reason {
        let broker = TestBroker::start(tls, &[script]).await;
        let mut settings = self.settings(broker.port);
        change(&mut settings);
        let uplink = start(settings, &TestBacklog::new(|_| {}));
        let reason = soon(down(&uplink)).await;
        soon(uplink.stop()).await;
        reason
    }
}

/// An uplink with these settings gets through to such a broker.
pub(super) async fn gets_through(world: &World, tls: &Tls<'_>, change: impl Fn(&mut Settings)) {
    let broker = TestBroker::start(tls, &[GOOD]).await;
    let mut settings = world.settings(broker.port);
    change(&mut settings);
    let uplink = start(settings, &TestBacklog::new(|_| {}));
    soon(up(&uplink)).await;
    soon(uplink.stop()).await;
}

pub(super) fn start(settings: Settings, backlog: &TestBacklog) -> Uplink {
    start_with_farewell(settings, backlog, Duration::from_millis(200))
}

pub(super) fn start_with_farewell(
    settings: Settings,
    backlog: &TestBacklog,
    farewell: Duration,
) -> Uplink {
    let timing = Timing {
        connect_timeout: Duration::from_secs(5),
        backoff_min: Duration::from_millis(2),
        backoff_max: Duration::from_millis(20),
        look: Duration::from_millis(20),
        farewell,
        trial_silence: Duration::from_millis(200),
        ..Timing::default()
    };
    Uplink::start_with(settings, backlog.clone(), Clock::start(), timing)
}

/// Nothing here takes long; what does is a failure.
pub(super) async fn soon<T>(future: impl Future<Output = T>) -> T {
    let limit = Duration::from_secs(30);
    timeout(limit, future).await.expect("it takes too long")
}

pub(super) async fn down(uplink: &Uplink) -> Reason {
    let mut status = uplink.status();
    let is_down = |status: &Status| matches!(status.link, LinkState::Down { .. });
    match &status.wait_for(is_down).await.unwrap().link {
        LinkState::Down { reason } => reason.clone(),
        other => unreachable!("{other:?}"),
    }
}

pub(super) async fn up(uplink: &Uplink) {
    uplink.status().wait_for(Status::is_up).await.unwrap();
}

pub(super) fn assert_said(reason: &Reason, kind: Kind, expected: &[&str]) {
    assert_eq!(reason.kind, kind, "{reason}");
    for part in expected {
        assert!(
            reason.to_string().contains(part),
            "`{part}` is not in: {reason}"
        );
    }
}
