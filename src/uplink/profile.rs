//! What well-known brokers take and what they do not: `profile` in `[uplink]`.
//!
//! A profile changes nothing on the wire. It lowers defaults that the broker would not bear, and lets `tidegate check` say which
//! settings and flows would break the broker's limits. Limits are those of the broker's documentation for its defaults; a broker
//! of your own may be set otherwise. Each number has its source in [`Profile::limits`]; docs/brokers.md has them as a table, and
//! says what could not be verified.
//!
//! Must not: read files or clocks, or connect.

use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;

use super::Settings;

/// A kind of broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    Mosquitto,
    Emqx,
    Hivemq,
    AwsIotCore,
    AzureEventGrid,
}

/// What a broker takes of one client. `None`: no limit of its own beside those of MQTT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The greatest PUBLISH, in bytes.
    pub packet_bytes: Option<usize>,
    /// The greatest PUBLISH that is to be retained, in bytes.
    pub retained_bytes: Option<usize>,
    /// Parts of a topic between slashes.
    pub topic_levels: Option<usize>,
    pub topic_bytes: usize,
    pub client_id_bytes: usize,
    pub publishes_per_second: Option<u32>,
    /// Publishes without an acknowledgement.
    pub inflight: Option<u16>,
    pub keep_alive_s_max: u64,
    /// What has to stand in `alpn` on port 443.
    pub port_443: Port443,
}

/// What there is on port 443.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port443 {
    /// MQTT, if it is asked for by this name.
    Alpn(&'static str),
    /// No MQTT over plain TLS.
    None,
    /// Whatever the broker's owner has put there.
    Own,
}

/// What MQTT itself allows of a text, in bytes (MQTT 3.1.1, 1.5.3).
const TEXT_MAX: usize = 65_535;
/// And of a keep-alive, in seconds (3.1.2.10).
const KEEP_ALIVE_MAX: u64 = 65_535;

/// A limit that would be broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    /// The key in `[uplink]` that breaks it; for a client id, `profile`.
    pub key: &'static str,
    /// The broker refuses it for certain; else it may, or slows down.
    pub is_fatal: bool,
    pub message: String,
    pub help: Option<String>,
}

/// What a node publishes, as far as it is known before it runs.
#[derive(Clone, Copy, Debug)]
pub struct Published<'a> {
    /// The topic, without what a message's own topic adds.
    pub topic: &'a str,
    pub retain: bool,
    /// The size of a typical packet.
    pub bytes: f64,
}

impl Profile {
    pub fn limits(self) -> Limits {
        let any = Limits {
            packet_bytes: None,
            retained_bytes: None,
            topic_levels: None,
            topic_bytes: TEXT_MAX,
            client_id_bytes: TEXT_MAX,
            publishes_per_second: None,
            inflight: None,
            keep_alive_s_max: KEEP_ALIVE_MAX,
            port_443: Port443::Own,
        };
        match self {
            // `TOPIC_HIERARCHY_LIMIT` in mosquitto's sources (lib/util_topic.c): more than 200 slashes are refused. Seen
            // 2026-11-23. mosquitto.conf(5) limits neither packets nor incoming publishes of an MQTT 3.1.1 client by default.
            Profile::Mosquitto => Limits {
                topic_levels: Some(201),
                ..any
            },
            // https://docs.emqx.com/en/emqx/latest/configuration/mqtt.html, `max_packet_size`, `max_topic_levels`,
            // `max_clientid_len` of EMQX 5. Seen 2026-11-23.
            Profile::Emqx => Limits {
                packet_bytes: Some(1024 * 1024),
                topic_levels: Some(128),
                ..any
            },
            // https://docs.hivemq.com/hivemq-edge/mqtt-specific-configuration.html, "Server Receive Maximum", and
            // https://docs.hivemq.com/hivemq/4.9/user-guide/configuration.html, restrictions. Seen 2026-11-23. Whether the
            // first holds for MQTT 3.1.1 is not said.
            Profile::Hivemq => Limits {
                inflight: Some(10),
                ..any
            },
            // Topic, client id and rate: "AwsIotCoreDefaults" of AWS's own client,
            // https://aws.github.io/aws-iot-device-sdk-js-v2/node/enums/mqtt5.ClientExtendedValidationAndFlowControl.html; port
            // 443: https://docs.aws.amazon.com/iot/latest/developerguide/protocols.html. Payload, publishes without
            // acknowledgement and keep-alive are of https://docs.aws.amazon.com/general/latest/gr/iot-core.html, read in a copy
            // of 2017 only. Seen 2026-11-23.
            Profile::AwsIotCore => Limits {
                packet_bytes: Some(128 * 1024),
                topic_levels: Some(8),
                topic_bytes: 256,
                client_id_bytes: 128,
                publishes_per_second: Some(100),
                inflight: Some(100),
                keep_alive_s_max: 1_200,
                port_443: Port443::Alpn("x-amzn-mqtt-ca"),
                ..any
            },
            // https://learn.microsoft.com/azure/event-grid/quotas-limits (MQTT limits in namespace), .../mqtt-support,
            // .../mqtt-retain. Seen 2026-11-23.
            Profile::AzureEventGrid => Limits {
                packet_bytes: Some(512 * 1024),
                retained_bytes: Some(64 * 1024),
                topic_levels: Some(8),
                topic_bytes: 256,
                publishes_per_second: Some(1_000),
                inflight: Some(1_000),
                keep_alive_s_max: 1_160,
                port_443: Port443::None,
                ..any
            },
        }
    }

    /// Lowers what the broker would not bear. The window is left alone if somebody has chosen it.
    pub fn apply(self, settings: &mut Settings, is_inflight_chosen: bool) {
        let limits = self.limits();
        if let Some(bytes) = limits.packet_bytes {
            settings.max_packet = settings.max_packet.min(bytes);
        }
        if let Some(inflight) = limits.inflight.filter(|_| !is_inflight_chosen) {
            settings.inflight = settings.inflight.min(inflight);
        }
    }

    /// What of the settings breaks its limits.
    pub fn breaches_of(self, settings: &Settings) -> Vec<Breach> {
        let limits = self.limits();
        let mut breaches = Vec::new();
        if let Some(inflight) = limits.inflight.filter(|limit| settings.inflight > *limit) {
            breaches.push(Breach {
                key: "inflight",
                is_fatal: false,
                message: format!(
                    "{self} takes {inflight} publishes without an acknowledgement, and `inflight` is {}",
                    settings.inflight
                ),
                help: Some(format!("write {inflight}, or leave it out")),
            });
        }
        if settings.keep_alive.as_secs() > limits.keep_alive_s_max {
            breaches.push(Breach {
                key: "keep_alive",
                is_fatal: true,
                message: format!(
                    "{self} allows a keep-alive of {} s at most",
                    limits.keep_alive_s_max
                ),
                help: Some("leave it out for 15 s".to_owned()),
            });
        }
        let id = settings.client_id.len();
        if id > limits.client_id_bytes {
            breaches.push(Breach {
                key: "profile",
                is_fatal: true,
                message: format!(
                    "{self} takes client ids of {} bytes at most, and this device's has {id}",
                    limits.client_id_bytes
                ),
                help: Some("give it a shorter `id` in [device]".to_owned()),
            });
        }
        let alpn = &settings.files.options.alpn;
        let is_at_443 = settings.addresses().any(|address| address.port == 443);
        match limits.port_443 {
            Port443::Alpn(name) if is_at_443 && !alpn.iter().any(|it| it == name) => {
                breaches.push(Breach {
                    key: "url",
                    is_fatal: true,
                    message: format!("{self} speaks MQTT on port 443 only if it is asked for `{name}`"),
                    help: Some(format!("add alpn = [\"{name}\"], or use port 8883")),
                });
            }
            Port443::None if is_at_443 => breaches.push(Breach {
                key: "url",
                is_fatal: true,
                message: format!("{self} speaks MQTT on port 8883; on 443 there are WebSockets, which the uplink does not speak"),
                help: Some("leave the port out".to_owned()),
            }),
            _ => {}
        }
        breaches
    }

    /// What of a node's publishes breaks its limits: whether that is fatal, the sentence, and what to do.
    pub fn breaches_by(self, published: Published<'_>) -> Vec<(bool, String, &'static str)> {
        let limits = self.limits();
        let mut breaches = Vec::new();
        let Published {
            topic,
            retain,
            bytes,
        } = published;
        let levels = topic.split('/').count();
        if let Some(limit) = limits.topic_levels.filter(|limit| levels > *limit) {
            breaches.push((
                true,
                format!(
                    "{self} takes topics of {limit} levels at most, and `{topic}` has {levels}"
                ),
                "shorten the topic: the broker would close the connection at each such record",
            ));
        }
        if topic.len() > limits.topic_bytes {
            breaches.push((
                true,
                format!(
                    "{self} takes topics of {} bytes at most, and this one has {}",
                    limits.topic_bytes,
                    topic.len()
                ),
                "shorten the topic: the broker would close the connection at each such record",
            ));
        }
        let limit = limits.retained_bytes.filter(|_| retain);
        if let Some(limit) = limit.filter(|limit| bytes > *limit as f64) {
            breaches.push((
                false,
                format!("{self} retains messages of {limit} bytes at most, and these have about {bytes:.0}"),
                "leave `retain` out, or send less at a time",
            ));
        }
        if let Some(limit) = limits.packet_bytes.filter(|limit| bytes > *limit as f64) {
            breaches.push((
                false,
                format!("{self} takes messages of {limit} bytes at most, and these have about {bytes:.0}"),
                "send less at a time: what is larger becomes a dead letter",
            ));
        }
        breaches
    }

    /// What is wrong with so many publishes a second from all flows together.
    pub fn breach_of_rate(self, per_second: f64) -> Option<Breach> {
        let limit = self.limits().publishes_per_second?;
        (per_second > f64::from(limit)).then(|| Breach {
            key: "profile",
            is_fatal: false,
            message: format!(
                "{self} takes {limit} publishes a second from one client, and the flows may give it {per_second:.0}"
            ),
            help: Some("send less often (a `window`, `throttle` or `filter` before the `uplink`); else the outbox fills".to_owned()),
        })
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Profile::Mosquitto => "mosquitto",
            Profile::Emqx => "EMQX",
            Profile::Hivemq => "HiveMQ",
            Profile::AwsIotCore => "AWS IoT Core",
            Profile::AzureEventGrid => "Azure Event Grid",
        })
    }
}

#[cfg(test)]
#[path = "profile_test.rs"]
mod tests;
