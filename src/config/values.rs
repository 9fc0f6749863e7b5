//! Values in the settings that are written as text: names, addresses, sizes.

use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

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

/// Whom the broker's certificate must come from: a file, or `system`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ca(pub uplink::tls::Ca);

/// A name that a certificate can be for: of a host, or an IP address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerName(pub rustls::pki_types::ServerName<'static>);

/// A number of bytes as text: `"64MiB"`, `"1GB"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

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
from_text!(Size, "size", |text| {
    let size: bytesize::ByteSize = text
        .parse()
        .map_err(|_| format!("`{text}` is no size; a size is written like \"64MiB\" or \"1GB\""))?;
    if size.as_u64() < outbox::MIN_SIZE {
        return Err(format!(
            "must be at least {} MiB",
            outbox::MIN_SIZE / 1024 / 1024
        ));
    }
    Ok(Size(size.as_u64()))
});
