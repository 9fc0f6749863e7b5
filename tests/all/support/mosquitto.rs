//! Debian's mosquitto as the cloud broker, and its `mosquitto_sub` as the witness: nothing in them is ours.
//!
//! mosquitto writes a message to the socket of a subscriber with QoS 0 before it acknowledges it to the publisher, so a kill
//! loses nothing of what it has acknowledged; without persistence it keeps nothing itself.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tidegate::certs::{Credentials, DevelopmentCa};

use super::cable::own_address;
use super::plant::{Plant, valid};
use super::process::{Output, Running, as_root};
use super::until;
use super::witness::{Received, WITNESS, id_in};

/// Where and how mosquitto is to listen; it can be started several times.
pub(crate) struct Mosquitto {
    pub(crate) address: SocketAddr,
    config: PathBuf,
    /// The network namespace that it runs in, if not ours.
    namespace: Option<String>,
}

impl Mosquitto {
    /// With a certificate for its own address and for that of the plant's broker; it lets in who has a certificate of the
    /// plant's CA.
    pub(crate) fn of(plant: &Plant) -> Mosquitto {
        let address = own_address();
        let names = [plant.address.ip().to_string(), address.ip().to_string()];
        let server = plant.ca.issue_server(&names, valid()).unwrap();
        Mosquitto::with(plant, address, &server, &plant.ca)
    }

    pub(crate) fn with(
        plant: &Plant,
        address: SocketAddr,
        server: &Credentials,
        clients: &DevelopmentCa,
    ) -> Mosquitto {
        let name = |what: &str| format!("mosquitto-{}-{what}", address.ip());
        plant.write(&name("ca.pem"), &clients.credentials().certificate_pem);
        plant.write(&name("server.pem"), &server.certificate_pem);
        plant.write(&name("server.key"), &server.key_pem);
        let path = |what: &str| plant.path(&name(what)).display().to_string();
        // As root it would become another user, who may not read the key.
        let config = format!(
            "user root\nlistener {port} {ip}\nallow_anonymous false\n\
             cafile {ca}\ncertfile {cert}\nkeyfile {key}\n\
             require_certificate true\nuse_identity_as_username true\n\
             persistence false\nmax_inflight_messages 0\nmax_queued_messages 0\n",
            port = address.port(),
            ip = address.ip(),
            ca = path("ca.pem"),
            cert = path("server.pem"),
            key = path("server.key"),
        );
        plant.write(&name("conf"), &config);
        Mosquitto {
            address,
            config: plant.path(&name("conf")),
            namespace: None,
        }
    }

    /// The same, in a network namespace, to which `address` belongs.
    pub(crate) fn in_namespace(plant: &Plant, address: SocketAddr, namespace: &str) -> Mosquitto {
        let names = [address.ip().to_string()];
        let server = plant.ca.issue_server(&names, valid()).unwrap();
        Mosquitto {
            namespace: Some(namespace.to_owned()),
            ..Mosquitto::with(plant, address, &server, &plant.ca)
        }
    }

    /// A program that sees the network as this broker does.
    fn beside(&self, program: &str) -> Command {
        let mut command = found(program);
        if let Some(namespace) = &self.namespace {
            let (path, name) = (
                command.get_envs().next().unwrap().1.unwrap().to_owned(),
                program,
            );
            // Not `ip netns exec`, which copies the table of mounts: the disks of other tests would stay mounted in the copy.
            command = as_root("nsenter");
            command
                .arg(format!("--net=/run/netns/{namespace}"))
                .arg(name)
                .env("PATH", path)
                .stdin(Stdio::null());
        }
        command
    }

    /// Connects `mosquitto_sub`, with the certificate `witness`, subscribed to everything; returns once that is confirmed.
    #[track_caller]
    pub(crate) fn subscriber(&self, plant: &Plant) -> Subscriber {
        Subscriber::with(
            self.beside("stdbuf"),
            self.address,
            plant,
            &["-t", "#", "-q", "0"],
        )
    }

    /// Starts it; it accepts connections then.
    #[track_caller]
    pub(crate) fn start(&self) -> Running {
        let mut command = self.beside("mosquitto");
        command.arg("-v").arg("-c").arg(&self.config);
        let mut running = Running::start(command, Output::Stderr);
        running.says(&["mosquitto version", "running"]);
        running
    }
}

/// `mosquitto_sub`, subscribed to everything.
pub(crate) struct Subscriber(Running);

/// What each line with a record starts with.
const RECORD: &str = "record ";

impl Subscriber {
    /// Connects with the certificate `witness`; returns once the broker has confirmed its subscription.
    #[track_caller]
    pub(crate) fn at(broker: SocketAddr, plant: &Plant) -> Subscriber {
        Subscriber::with(found("stdbuf"), broker, plant, &["-t", "#", "-q", "0"])
    }

    /// The same with QoS 1 and a session that the broker keeps, for brokers that pass on later what they acknowledge.
    #[track_caller]
    pub(crate) fn with_session(broker: SocketAddr, plant: &Plant, topics: &str) -> Subscriber {
        let options = ["-t", topics, "-q", "1", "-c"];
        Subscriber::with(found("stdbuf"), broker, plant, &options)
    }

    #[track_caller]
    fn with(
        mut command: Command,
        broker: SocketAddr,
        plant: &Plant,
        options: &[&str],
    ) -> Subscriber {
        found("mosquitto_sub");
        // It flushes after messages only, and not after its own words.
        command
            .args(["-oL", "mosquitto_sub"])
            .args([
                "-h",
                &broker.ip().to_string(),
                "-p",
                &broker.port().to_string(),
            ])
            .args(["--cafile", &plant.tls_file("ca.pem")])
            .args(["--cert", &plant.tls_file(&format!("{WITNESS}.pem"))])
            .args(["--key", &plant.tls_file(&format!("{WITNESS}.key"))])
            .args(["-i", WITNESS, "-d", "-F", &format!("{RECORD}%t %p")])
            .args(options);
        let mut running = Running::start(command, Output::Stdout);
        running.says(&["Subscribed (mid: 1):"]);
        Subscriber(running)
    }

    /// The topic and the payload of whatever has come so far.
    pub(crate) fn messages(&self) -> Vec<(String, String)> {
        messages_in(&self.0.lines())
    }

    /// What has come so far.
    pub(crate) fn heard(&self) -> Heard {
        Heard::in_lines(&self.0.lines())
    }

    /// Waits until it has noticed that its broker has gone, and with that has all that had come from it; then ends it, as a
    /// newer one would connect again by itself.
    pub(crate) fn after_its_broker(self) -> Heard {
        Heard::in_lines(&self.lines_after_its_broker())
    }

    /// The same, and gives the messages.
    pub(crate) fn messages_after_its_broker(self) -> Vec<(String, String)> {
        messages_in(&self.lines_after_its_broker())
    }

    fn lines_after_its_broker(mut self) -> Vec<String> {
        until("mosquitto_sub has noticed that its broker has gone", || {
            let lines = self.0.lines();
            let attempts = lines.iter().filter(|line| line.contains("sending CONNECT"));
            (attempts.count() > 1 || self.0.has_ended()).then_some(())
        });
        self.0.kill()
    }
}

/// The topic and the payload of each message.
fn messages_in(lines: &[String]) -> Vec<(String, String)> {
    let messages = lines.iter().filter_map(|line| line.strip_prefix(RECORD));
    let pairs = messages.filter_map(|message| message.split_once(' '));
    pairs
        .map(|(topic, payload)| (topic.to_owned(), payload.to_owned()))
        .collect()
}

/// What a subscriber has heard.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    pub(crate) records: Received,
    /// Records per topic.
    pub(crate) topics: BTreeMap<String, u64>,
    /// Records that came for the first time after a later one of the same topic.
    pub(crate) late: u64,
}

impl Heard {
    fn in_lines(lines: &[String]) -> Heard {
        let mut heard = Heard::default();
        let mut latest = BTreeMap::new();
        for record in lines.iter().filter_map(|line| line.strip_prefix(RECORD)) {
            let (topic, payload) = record.split_once(' ').unwrap();
            *heard.topics.entry(topic.to_owned()).or_default() += 1;
            let id = id_in(payload.as_bytes());
            let times = heard.records.entry(id).or_default();
            *times += 1;
            let latest = latest.entry(topic).or_insert(id);
            heard.late += u64::from(*times == 1 && id < *latest);
            *latest = id.max(*latest);
        }
        heard
    }

    pub(crate) fn and(mut self, later: Heard) -> Heard {
        self.late += later.late;
        for (id, times) in later.records {
            *self.records.entry(id).or_default() += times;
        }
        for (topic, records) in later.topics {
            *self.topics.entry(topic).or_default() += records;
        }
        self
    }

    /// How many came more often than once, each time counted.
    pub(crate) fn duplicates(&self) -> u64 {
        self.records.values().map(|times| times - 1).sum()
    }
}

/// A mosquitto for everyone, without TLS, as many a plant has it. Of what it does it says who subscribes to what, and more with `-v`.
#[track_caller]
pub(crate) fn open_broker(plant: &Plant, address: SocketAddr, options: &[&str]) -> Running {
    let (ip, port) = (address.ip(), address.port());
    plant.write(
        "hall.conf",
        &format!(
            "user root\nlistener {port} {ip}\nallow_anonymous true\npersistence false\nmax_queued_messages 0\n\
             log_type error\nlog_type warning\nlog_type notice\nlog_type information\nlog_type subscribe\n"
        ),
    );
    let mut command = found("mosquitto");
    command.arg("-c").arg(plant.path("hall.conf")).args(options);
    let mut running = Running::start(command, Output::Stderr);
    running.says(&["mosquitto version", "running"]);
    running
}

/// A program of Debian's mosquitto packages.
pub(crate) fn found(name: &str) -> Command {
    let path = format!(
        "{}:/usr/sbin:/sbin",
        std::env::var("PATH").unwrap_or_default()
    );
    let is_there = path
        .split(':')
        .any(|directory| Path::new(directory).join(name).exists());
    assert!(
        is_there,
        "{name} is not installed: scripts/test.sh installs it and runs this test"
    );
    let mut command = Command::new(name);
    command.env("PATH", path).stdin(Stdio::null());
    command
}
