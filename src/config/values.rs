//! Values in the settings that are written as text: names, addresses, sizes.

use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

use super::brokers::BrokerUrl;
use crate::message::Value;
use crate::{certs, outbox, uplink};

/// The name of a device; valid as an MQTT client id, as a certificate's common name and as a level of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceId(String);

impl DeviceId {
    pub fn parse(text: &str) -> Result<DeviceId, String> {
        if !certs::is_plain_id(text) {
            return Err(format!(
                "`{text}` cannot be a device's id: use 1 to 128 letters, digits, `_`, `.` and `-`"
            ));
        }
        Ok(DeviceId(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The host's name, with what an id cannot have replaced by `-`.
impl Default for DeviceId {
    fn default() -> DeviceId {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let plain = |c: char| {
            if c.is_ascii_alphanumeric() || matches!(c, '_' | '.') {
                c
            } else {
                '-'
            }
        };
        let id: String = host.trim().chars().map(plain).take(128).collect();
        DeviceId(if id.is_empty() { "tidegate".into() } else { id })
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The address of a cloud broker, from `mqtts://HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url(pub uplink::Address);

/// The addresses of a cloud broker: one, or a list. There is at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Urls {
    first: Url,
    others: Vec<Url>,
}

impl Urls {
    pub fn first(&self) -> &uplink::Address {
        &self.first.0
    }

    /// Whether one of them is at this port.
    pub fn has_port(&self, port: u16) -> bool {
        self.first().port == port || self.others().any(|other| other.port == port)
    }

    pub fn others(&self) -> impl Iterator<Item = &uplink::Address> {
        self.others.iter().map(|url| &url.0)
    }
}

impl fmt::Display for Urls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.first())?;
        self.others().try_for_each(|other| write!(f, " or {other}"))
    }
}

impl<'de> Deserialize<'de> for Urls {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Urls, D::Error> {
        let url = |text: &str| uplink::parse_url(text).map(Url).map_err(D::Error::custom);
        match Value::deserialize(deserializer)? {
            Value::Text(text) => Ok(Urls {
                first: url(&text)?,
                others: Vec::new(),
            }),
            Value::List(list) => {
                let mut urls = Vec::new();
                for item in list.iter() {
                    let Value::Text(text) = item else {
                        return Err(D::Error::custom("must be a URL, or a list of URLs"));
                    };
                    let url = url(text)?;
                    if urls.contains(&url) {
                        return Err(D::Error::custom(format!("names {text} twice")));
                    }
                    urls.push(url);
                }
                let mut urls = urls.into_iter();
                let first = urls.next();
                Ok(Urls {
                    first: first.ok_or_else(|| D::Error::custom("names no broker"))?,
                    others: urls.collect(),
                })
            }
            _ => Err(D::Error::custom("must be a URL, or a list of URLs")),
        }
    }
}

impl JsonSchema for Urls {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Urls".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "anyOf": [
                { "type": "string", "format": "mqtts-url" },
                { "type": "array", "minItems": 1, "items": { "type": "string", "format": "mqtts-url" } },
            ]
        })
    }
}
/// Whom the broker's certificate must come from: a file, or `system`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ca(pub uplink::tls::Ca);

/// A name that a certificate can be for: of a host, or an IP address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerName(pub rustls::pki_types::ServerName<'static>);

/// What the outbox may take on disk, in bytes, as text: `"64MiB"`, `"1GB"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

/// A number of bytes as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amount(pub u64);

/// A settings value that is written as text.
macro_rules! from_text {
    ($type:ident, $format:literal, $parse:expr) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$type, D::Error> {
                let parse: fn(&str) -> Result<$type, String> = $parse;
                parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }
            fn inline_schema() -> bool {
                true
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "format": $format })
            }
        }
    };
}

from_text!(DeviceId, "device-id", DeviceId::parse);
from_text!(Url, "mqtts-url", |text| uplink::parse_url(text)
    .map(Url)
    .map_err(|error| error.to_string()));
from_text!(BrokerUrl, "mqtt-url", BrokerUrl::parse);
from_text!(Ca, "ca", |text| Ok(Ca(match text {
    "system" => uplink::tls::Ca::System,
    path => uplink::tls::Ca::File(path.into()),
})));
from_text!(ServerName, "server-name", |text| {
    match rustls::pki_types::ServerName::try_from(text) {
        Ok(name) => Ok(ServerName(name.to_owned())),
        Err(_) => Err(format!(
            "`{text}` is no name for a broker: write a host's name or an IP address, without mqtts:// and without a port"
        )),
    }
});
from_text!(Amount, "amount", |text| bytes(text).map(Amount));
from_text!(Size, "size", |text| {
    let size = bytes(text)?;
    if size < outbox::MIN_SIZE {
        return Err(format!(
            "must be at least {} MiB",
            outbox::MIN_SIZE / 1024 / 1024
        ));
    }
    Ok(Size(size))
});

fn bytes(text: &str) -> Result<u64, String> {
    let size: bytesize::ByteSize = text
        .parse()
        .map_err(|_| format!("`{text}` is no size; a size is written like \"64MiB\" or \"1GB\""))?;
    Ok(size.as_u64())
}
