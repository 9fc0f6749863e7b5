//! The sections of `tidegate.toml`: what there is to set, with its documentation and its default.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::values::{Amount, Ca, DeviceId, ServerName, Size, Urls};
use crate::board::{self, Simulation};
use crate::flow::options::Span;
use crate::flow::template::TopicTemplate;
use crate::outbox::WhenFull;
use crate::uplink::profile::Profile;
use crate::uplink::tls::TlsVersion;

/// This device.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub struct Device {
    /// The device's name: the MQTT client id, and `{device}` in topics. Letters, digits, `_`, `.` and `-`. Default: the
    /// host's name.
    #[serde(default)]
    pub id: DeviceId,
}

/// Where the flows are.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Flows {
    /// A directory of flow files, or one flow file. Default: `flows`.
    #[serde(default = "flows_path")]
    pub path: PathBuf,
}

impl Default for Flows {
    fn default() -> Flows {
        Flows { path: flows_path() }
    }
}

fn flows_path() -> PathBuf {
    "flows".into()
}

/// The connection to the cloud broker.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Uplink {
    /// The cloud broker: `mqtts://HOST:PORT`; without a port, 8883. Or a list of them, nodes of one cluster: when one fails, the next is
    /// tried.
    pub url: Urls,
    /// The certificates (PEM) of the authorities that the broker's certificate must chain to; no others are trusted. `system`:
    /// those that the operating system trusts, for a broker with a public certificate.
    pub ca: Ca,
    /// This device's certificate (PEM), with those between it and the broker's authority, if any.
    pub cert: PathBuf,
    /// The key (PEM) of this device's certificate. Its file must be its owner's alone (`chmod 600`).
    pub key: PathBuf,
    /// Revocation lists (PEM) of the authorities in the chain of the broker's certificate, one of each, and all of them
    /// current: what they have revoked, or do not cover, is refused. Default: none is looked at.
    pub crl: Option<PathBuf>,
    /// The oldest version of TLS that will do: `1.3`, or `1.2` for a broker that cannot do better. Default: `1.3`.
    #[serde(default)]
    pub tls_min: TlsVersion,
    /// The protocols offered in the TLS handshake (ALPN), for a broker that shares its port with other services. Default: none.
    #[serde(default)]
    pub alpn: Vec<String>,
    /// The name that the broker's certificate must have. Default: the host in `url`.
    pub server_name: Option<ServerName>,
    /// What kind of broker it is: `mosquitto`, `emqx`, `hivemq`, `aws-iot-core` or `azure-event-grid`. It lowers defaults that
    /// such a broker would not bear, and lets `tidegate check` hold settings and flows against its limits. Default: none.
    pub profile: Option<Profile>,
    /// How many records may be on their way without an acknowledgement; from 1 to 10,000. Default: 100.
    #[serde(default = "inflight")]
    pub inflight: u16,
    /// How often an idle connection is tried; from `1s` to `1h`, whole seconds. Default: `15s`.
    #[serde(default = "keep_alive")]
    pub keep_alive: Span,
    /// The longest wait between two attempts to connect; from `200ms` to `1h`. Default: `30s`.
    #[serde(default = "retry_max")]
    pub retry_max: Span,
    /// How many records a second go of those that waited when the connection came up, so that a backlog leaves room on a shared
    /// link; from 1 to 100,000. What is new is not held back, but in a lane without `live_first` it waits its turn. Default: no limit.
    pub drain_messages: Option<u32>,
    /// The same in bytes a second; from `1KiB`. Default: no limit.
    pub drain_bytes: Option<Amount>,
    /// The topic of a retained message that says whether this device is online, as in `sites/{device}/status`. Default: nothing is
    /// said.
    pub status_topic: Option<TopicTemplate>,
}

pub(super) fn inflight() -> u16 {
    100
}

pub(super) fn keep_alive() -> Span {
    Span(std::time::Duration::from_secs(15))
}

pub(super) fn retry_max() -> Span {
    Span(std::time::Duration::from_secs(30))
}

/// The durable buffer for what must be delivered.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Outbox {
    /// Its directory. Default: `outbox`.
    #[serde(default = "outbox_path")]
    pub path: PathBuf,
    /// A power cut takes at most the records of this interval; `0s` makes every record durable before it is sent. Default:
    /// `1s`.
    #[serde(default = "commit")]
    pub commit: Span,
    /// What it may take on disk, from `8MiB`. Default: `256MiB`.
    #[serde(default = "max_size")]
    pub max_size: Size,
    /// What goes when it is full: `drop-oldest`, `drop-newest`, or `thin`, which merges old numbers and results of windows before it drops
    /// anything. Of what is dropped the lowest `priority` goes first. Default: `drop-oldest`.
    #[serde(default)]
    pub when_full: WhenFull,
    /// What may be written to the card in a day, from `10MB`: commits wait for it, by up to a minute more than `commit`, and a power
    /// cut takes so much more. Default: no limit.
    pub flash_budget: Option<Amount>,
}

impl Default for Outbox {
    fn default() -> Outbox {
        Outbox {
            path: outbox_path(),
            commit: commit(),
            max_size: max_size(),
            when_full: WhenFull::default(),
            flash_budget: None,
        }
    }
}

fn outbox_path() -> PathBuf {
    "outbox".into()
}

fn commit() -> Span {
    Span(std::time::Duration::from_secs(1))
}

fn max_size() -> Size {
    Size(256 * 1024 * 1024)
}

/// What flows remember over a restart.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct State {
    /// Its directory. Default: `state`.
    #[serde(default = "state_path")]
    pub path: PathBuf,
    /// How often it is written, if it has changed; from `1s` to `1d`. A power cut takes back at most so much of it. Default: `5m`.
    #[serde(default = "state_every")]
    pub every: Span,
}

impl Default for State {
    fn default() -> State {
        State {
            path: state_path(),
            every: state_every(),
        }
    }
}

fn state_path() -> PathBuf {
    "state".into()
}

pub(super) fn state_every() -> Span {
    Span(std::time::Duration::from_secs(5 * 60))
}

/// The hardware.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub struct Board {
    /// `auto`: the Pi's own pins, and an error where there is no Pi; `rppal`: the same, with the Pi's registers or not at all;
    /// `chardev`: the lines of a GPIO chip of any Linux board; `simulated`: simulated hardware. Default: `auto`.
    #[serde(default)]
    pub kind: board::Kind,
    /// With `chardev`, the chip by its name or its label: `gpiochip0`, `pinctrl-rp1`. Pin 17 is its line 17; lines past 27 cannot be named.
    /// Default: the chip of a Pi's header, elsewhere the only one.
    #[serde(default)]
    pub chip: Option<String>,
    /// What a simulated board simulates.
    #[serde(default)]
    pub simulation: Simulation,
}

/// The thread that runs flows which drive pins.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub struct Control {
    /// Its real-time priority (SCHED_FIFO), 1 to 99, and that of the thread which takes edges; the service needs `LimitRTPRIO=`. A flow that
    /// never rests then takes a core from everything else. Default: none, the normal priority.
    pub realtime: Option<u8>,
    /// Whether memory that has been used stays where it is, and is not swapped out; the service needs `LimitMEMLOCK=`. Default:
    /// false.
    #[serde(default)]
    pub lock_memory: bool,
}

/// The log, on stderr.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub struct Log {
    /// `text` for people, `json` for machines: one object a line. Default: `text`.
    #[serde(default)]
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug` or `trace`. Default: `info`.
    #[serde(default)]
    pub level: LogLevel,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}
