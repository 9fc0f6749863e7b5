//! `[brokers.NAME]`: brokers that a plant already has.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;
use toml::de::DeTable;

use super::Config;
use crate::flow::diagnostic::Report;
use crate::flow::{file, options};
use crate::{subscriptions, uplink};

/// Another broker, of the plant's own network.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct BrokerSection {
    /// `mqtt://HOST:PORT`, without a port 1883; or `mqtts://HOST:PORT`, without a port 8883.
    pub url: BrokerUrl,
    /// For `mqtts://`: the certificates (PEM) of the authorities that the broker's certificate must chain to.
    pub ca: Option<PathBuf>,
    /// For `mqtts://`: this device's certificate (PEM).
    pub cert: Option<PathBuf>,
    /// For `mqtts://`: the key (PEM) of this device's certificate.
    pub key: Option<PathBuf>,
    /// The user to be, if the broker asks for one.
    pub user: Option<String>,
    /// A file with that user's password.
    pub password_file: Option<PathBuf>,
    /// The MQTT client id. Default: the device's id and `-flows`, so that it is not the uplink's.
    pub client_id: Option<String>,
}

/// The address of a broker, and whether it is reached over TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerUrl {
    address: uplink::Address,
    is_tls: bool,
}

/// The port of MQTT without TLS (IANA: mqtt).
const PLAIN_PORT: u16 = 1883;

impl BrokerUrl {
    pub(super) fn parse(text: &str) -> Result<BrokerUrl, String> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
        let is_tls = match scheme {
            "mqtt" => false,
            "mqtts" => true,
            _ => {
                return Err(
                    "it must begin with mqtt:// or mqtts://, such as mqtt://192.0.2.10:1883".into(),
                );
            }
        };
        if rest.contains('@') {
            return Err(
                "leave user and password out of it, and give `user` and `password_file`".into(),
            );
        }
        let has_port = rest
            .trim_end_matches('/')
            .rsplit_once(':')
            .is_some_and(|(_, port)| {
                !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())
            });
        let mut address =
            uplink::parse_url(&format!("mqtts://{rest}")).map_err(|error| error.to_string())?;
        if !is_tls && !has_port {
            address.port = PLAIN_PORT;
        }
        Ok(BrokerUrl { address, is_tls })
    }
}

/// Reads `[brokers]`: a section per broker.
pub(super) fn read(config: &mut Config, table: &DeTable<'_>, report: &mut Report) {
    for (key, value) in table {
        let name: &str = key.get_ref();
        let toml::de::DeValue::Table(section) = value.get_ref() else {
            let message = format!("`{name}` must be a section: [brokers.{name}] with a `url`");
            report.error(key.span(), message, None);
            continue;
        };
        if !file::is_node_name(name) {
            let help = "lower-case letters, digits, `_` and `-`";
            report.error(
                key.span(),
                format!("`{name}` is no name for a broker"),
                Some(help.into()),
            );
            continue;
        }
        let header = format!("[brokers.{name}]");
        let read: Option<BrokerSection> = options::read(section, key.span(), &header, report).read;
        let Some(broker) = read else { continue };
        let files = [&broker.ca, &broker.cert, &broker.key];
        let given = files.iter().filter(|file| file.is_some()).count();
        if broker.url.is_tls && given < files.len() {
            let message = format!("{header} is reached over TLS and needs `ca`, `cert` and `key`");
            report.error(key.span(), message, None);
            continue;
        }
        if !broker.url.is_tls && given > 0 {
            let message =
                format!("{header} is reached without TLS, so `ca`, `cert` and `key` are not used");
            report.warning(key.span(), message, Some("is it mqtts://?".into()));
        }
        config.brokers.insert(name.to_owned(), broker);
    }
}

impl BrokerSection {
    pub(super) fn paths_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let files = [
            &mut self.ca,
            &mut self.cert,
            &mut self.key,
            &mut self.password_file,
        ];
        files.into_iter().flatten()
    }

    pub(super) fn settings(&self, device: &str) -> subscriptions::Settings {
        let files = match (&self.ca, &self.cert, &self.key) {
            (Some(ca), Some(cert), Some(key)) if self.url.is_tls => {
                Some(uplink::Files::new(ca, cert, key))
            }
            _ => None,
        };
        let user = self.user.as_ref().map(|name| subscriptions::User {
            name: name.clone(),
            password_file: self.password_file.clone(),
        });
        let client_id = self.client_id.clone();
        subscriptions::Settings {
            address: self.url.address.clone(),
            files,
            client_id: client_id.unwrap_or_else(|| format!("{device}-flows")),
            user,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_with_and_without_tls() {
        let check = |text: &str, host: &str, port, is_tls| {
            let address = uplink::Address {
                host: host.into(),
                port,
            };
            assert_eq!(BrokerUrl::parse(text), Ok(BrokerUrl { address, is_tls }));
        };
        check("mqtt://hall", "hall", 1883, false);
        check("mqtt://192.0.2.10:1884/", "192.0.2.10", 1884, false);
        check("mqtt://[2001:db8::1]", "2001:db8::1", 1883, false);
        check("mqtt://[2001:db8::1]:7", "2001:db8::1", 7, false);
        check("mqtts://hall", "hall", 8883, true);
        for bad in [
            "hall",
            "http://hall",
            "mqtt://me:secret@hall",
            "mqtt://hall:0",
        ] {
            let error = BrokerUrl::parse(bad).expect_err(bad);
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
