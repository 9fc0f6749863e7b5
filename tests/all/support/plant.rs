//! A plant: a directory of its own with certificates, settings and flows for one device, and what is run in it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use tidegate::broker::{Broker, PemSource, Settings};
use tidegate::certs::{Credentials, DevelopmentCa, Overwrite, Validity};
use tidegate::message::Timestamp;
use tidegate::runtime::Clock;

use super::cable::own_address;
use super::process::{Ended, Output, Running, tidegate};
use super::until;
use super::witness::{WITNESS, Witness};

/// The device's id.
pub(crate) const DEVICE: &str = "press-7";

/// Fifty records a second, if the settings say nothing else.
pub(crate) const TICK: &str = r#"
[vars]
pace = "20ms"

[nodes.tick]
type = "inject"
every = "${pace}"

[nodes.report]
type = "uplink"
from = "tick"
topic = "sites/{device}/tick"
"#;

pub(crate) struct Plant {
    directory: TempDir,
    pub(crate) ca: DevelopmentCa,
    /// Where the device looks for its broker. Nobody listens there yet.
    pub(crate) address: SocketAddr,
}

impl Plant {
    /// With everything right, and no flow yet.
    pub(crate) fn new() -> Plant {
        let plant = Plant {
            directory: tempfile::tempdir().unwrap(),
            ca: DevelopmentCa::create(now()).unwrap(),
            address: own_address(),
        };
        for credentials in [
            plant.ca.credentials().clone(),
            plant.server(&plant.ca),
            plant.ca.issue_device(DEVICE, valid()).unwrap(),
            plant.ca.issue_device(WITNESS, valid()).unwrap(),
        ] {
            credentials.write(&plant.tls(), Overwrite::Never).unwrap();
        }
        std::fs::create_dir(plant.path("flows")).unwrap();
        plant.settings("");
        plant
    }

    /// With everything right, and the flow [`TICK`].
    pub(crate) fn ticking() -> Plant {
        let plant = Plant::new();
        plant.flow("tick", TICK);
        plant
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn tls(&self) -> PathBuf {
        self.path("tls")
    }

    /// A file in `tls`, as the log names it.
    pub(crate) fn tls_file(&self, name: &str) -> String {
        self.tls().join(name).display().to_string()
    }

    /// Writes the settings: the usual ones, and what is to be added.
    pub(crate) fn settings(&self, more: &str) {
        self.settings_for(&format!("\"mqtts://{}\"", self.address), more);
    }

    /// The same, with this as the `url`.
    pub(crate) fn settings_for(&self, url: &str, more: &str) {
        let settings = format!(
            r#"[device]
id = "{DEVICE}"

[uplink]
url = {url}
ca = "tls/ca.pem"
cert = "tls/{DEVICE}.pem"
key = "tls/{DEVICE}.key"
retry_max = "300ms"
keep_alive = "2s"

[board]
kind = "simulated"

[board.simulation]
seed = 7
cooling_pin = 17
inputs.27 = {{ kind = "pulses", hz = 12.0 }}
inputs.22 = {{ kind = "contact", closed_s = 2.0, open_s = 1.0 }}

{more}"#
        );
        self.write("tidegate.toml", &settings);
    }

    pub(crate) fn flow(&self, name: &str, text: &str) {
        self.write(&format!("flows/{name}.toml"), text);
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// A certificate for a server at the device's address, and at 127.0.0.1.
    pub(crate) fn server(&self, ca: &DevelopmentCa) -> Credentials {
        let names = [self.address.ip().to_string(), "127.0.0.1".to_owned()];
        ca.issue_server(&names, valid()).unwrap()
    }

    /// A broker with these credentials, which lets in who has a certificate of the plant's CA.
    pub(crate) fn broker(&self, server: &Credentials) -> Broker {
        self.broker_for(server, &self.ca)
    }

    pub(crate) fn broker_for(&self, server: &Credentials, clients: &DevelopmentCa) -> Broker {
        Broker::start(Settings {
            listen: ([127, 0, 0, 1], 0).into(),
            ca: PemSource::Text(clients.credentials().certificate_pem.clone()),
            cert: PemSource::Text(server.certificate_pem.clone()),
            key: PemSource::Text(server.key_pem.clone()),
            crl: None,
            max_connections: 10,
        })
        .unwrap()
    }

    /// The broker as it should be, and a witness who is subscribed to everything.
    pub(crate) fn cloud(&self) -> Cloud {
        let broker = self.broker(&self.server(&self.ca));
        let witness = Witness::at(broker.local_addr(), &self.tls());
        Cloud { broker, witness }
    }

    /// A command with this plant's settings file.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = tidegate(arguments);
        command.arg("--config").arg(self.path("tidegate.toml"));
        command
    }

    /// `tidegate run`, once it has opened its outbox: before that, a question about the outbox would hold it.
    #[track_caller]
    pub(crate) fn run(&self) -> Running {
        let mut device = self.run_unawaited();
        device.says(&["outbox: start"]);
        device
    }

    /// `tidegate run`, from its very start.
    pub(crate) fn run_unawaited(&self) -> Running {
        Running::start(self.command(&["run"]), Output::Stderr)
    }

    /// `tidegate outbox show --json`, of a running process or of none.
    pub(crate) fn totals(&self) -> Totals {
        let shown = Ended::of(self.command(&["outbox", "show", "--json"]));
        shown.assert_code(0);
        Totals::from_json(&shown.stdout)
    }

    /// Waits until the totals are as wished, and gives them.
    pub(crate) fn totals_with(&self, what: &str, wished: impl Fn(&Totals) -> bool) -> Totals {
        until(what, || {
            // While a process starts or stops it holds the outbox, and has no socket.
            let shown = Ended::of(self.command(&["outbox", "show", "--json"]));
            let totals = (shown.code == Some(0)).then(|| Totals::from_json(&shown.stdout))?;
            wished(&totals).then_some(totals)
        })
    }
}

/// A broker, and who sees what arrives there.
pub(crate) struct Cloud {
    pub(crate) broker: Broker,
    pub(crate) witness: Witness,
}

impl Cloud {
    pub(crate) fn address(&self) -> SocketAddr {
        self.broker.local_addr()
    }
}

/// One flat JSON object of integers.
#[derive(Debug)]
pub(crate) struct Totals(BTreeMap<String, u64>);

impl Totals {
    #[track_caller]
    pub(crate) fn from_json(text: &str) -> Totals {
        Totals(serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}")))
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    #[track_caller]
    pub(crate) fn get(&self, key: &str) -> u64 {
        *self
            .0
            .get(key)
            .unwrap_or_else(|| panic!("no {key} in {self:?}"))
    }

    /// Every accepted record is accounted for.
    #[track_caller]
    pub(crate) fn assert_balance(&self) {
        let parts = ["acknowledged", "stored", "dead_lettered", "dropped"];
        let sum: u64 = parts.iter().map(|key| self.get(key)).sum();
        assert_eq!(self.get("accepted"), sum, "{self:?}");
    }
}

pub(crate) fn now() -> Timestamp {
    Clock::start().now().wall
}

/// A day from now.
pub(crate) fn valid() -> Validity {
    Validity::days(now(), 90)
}

/// Until yesterday.
pub(crate) fn expired() -> Validity {
    let days_ago =
        |days: i64| Timestamp::from_nanos(now().as_nanos() - days * 86_400 * 1_000_000_000);
    Validity {
        not_before: days_ago(30),
        not_after: days_ago(1),
    }
}

/// The files of a directory and what is in them.
pub(crate) fn contents(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = std::fs::read_dir(directory).unwrap().map(Result::unwrap);
    files
        .map(|file| {
            let name = file.file_name().into_string().unwrap();
            (name, std::fs::read(file.path()).unwrap())
        })
        .collect()
}
