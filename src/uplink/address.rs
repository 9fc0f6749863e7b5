//! Where the broker is: what `url` in `[uplink]` says.
//!
//! Must not: look names up or open sockets.

use std::fmt;
use std::str::FromStr;

use rustls::pki_types::ServerName;

/// The port of MQTT over TLS (IANA: secure-mqtt).
const DEFAULT_PORT: u16 = 8883;

/// The cloud broker's host and port. The host is also the name its certificate must carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// A DNS name or an IP address; IPv6 without brackets.
    pub host: String,
    pub port: u16,
}

/// Why a URL is none for the uplink.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    #[error("`{0}` is no URL: write it as mqtts://broker.example:8883")]
    NoScheme(String),
    #[error(
        "`{0}` is without TLS, and the uplink is only over TLS: write mqtts://, and give `ca`, `cert` and `key`"
    )]
    Plain(String),
    #[error("`{url}` has the scheme `{scheme}`: the uplink speaks MQTT over TLS, written mqtts://")]
    Scheme { url: String, scheme: String },
    #[error(
        "`{0}` carries a user or a password: the uplink signs in with its certificate, so leave them out"
    )]
    Credentials(String),
    #[error("`{0}` has something after the host and port, where MQTT has nothing: leave it out")]
    Trailing(String),
    #[error("`{url}`: `{host}` is neither a DNS name nor an IP address (IPv6 goes in brackets)")]
    Host { url: String, host: String },
    #[error("`{url}`: `{port}` is no port; ports go from 1 to 65535, and without one it is 8883")]
    Port { url: String, port: String },
}

/// Reads `mqtts://host[:port]`; IPv6 in brackets.
pub fn parse_url(url: &str) -> Result<Address, UrlError> {
    let text = || without_userinfo(url);
    let (scheme, rest) = url
        .split_once("://")
        .filter(|(scheme, _)| is_scheme(scheme))
        .ok_or_else(|| UrlError::NoScheme(text()))?;
    match scheme.to_ascii_lowercase().as_str() {
        "mqtts" => {}
        "mqtt" | "tcp" => return Err(UrlError::Plain(text())),
        _ => {
            return Err(UrlError::Scheme {
                url: text(),
                scheme: scheme.to_owned(),
            });
        }
    }
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains('@') {
        return Err(UrlError::Credentials(text()));
    }
    if rest.contains(['/', '?', '#']) {
        return Err(UrlError::Trailing(text()));
    }
    let bad_host = |host: &str| UrlError::Host {
        url: text(),
        host: host.to_owned(),
    };
    let (host, port) = match rest.strip_prefix('[') {
        Some(bracketed) => {
            let (host, after) = bracketed.split_once(']').ok_or_else(|| bad_host(rest))?;
            if host.parse::<std::net::Ipv6Addr>().is_err() {
                return Err(bad_host(host));
            }
            match after.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if after.is_empty() => (host, None),
                None => return Err(bad_host(rest)),
            }
        }
        None => match rest.split_once(':') {
            Some((_, port)) if port.contains(':') => return Err(bad_host(rest)),
            Some((host, port)) => (host, Some(port)),
            None => (rest, None),
        },
    };
    if ServerName::try_from(host).is_err() {
        return Err(bad_host(host));
    }
    let port = match port {
        None => DEFAULT_PORT,
        Some(digits) => digits
            .parse()
            .ok()
            .filter(|port| *port != 0)
            .ok_or_else(|| UrlError::Port {
                url: text(),
                port: digits.to_owned(),
            })?,
    };
    Ok(Address {
        host: host.to_owned(),
        port,
    })
}

/// The text with `***` for a user and a password: messages end up in logs. What is no URL is taken to be all userinfo up
/// to its last `@`.
fn without_userinfo(url: &str) -> String {
    let Some((before, host)) = url.rsplit_once('@') else {
        return url.to_owned();
    };
    match before.split_once("://") {
        Some((scheme, _)) if is_scheme(scheme) => format!("{scheme}://***@{host}"),
        _ => format!("***@{host}"),
    }
}

/// RFC 3986, 3.1, but for the first character.
fn is_scheme(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    !text.is_empty() && text.bytes().all(is_plain)
}

impl FromStr for Address {
    type Err = UrlError;

    fn from_str(url: &str) -> Result<Address, UrlError> {
        parse_url(url)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "mqtts://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "mqtts://{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_urls_give_host_and_port() {
        let check = |url: &str, host: &str, port: u16| {
            let address = parse_url(url).unwrap_or_else(|error| panic!("{url}: {error}"));
            assert_eq!((address.host.as_str(), address.port), (host, port), "{url}");
        };
        check("mqtts://broker.example:8884", "broker.example", 8884);
        check("mqtts://broker.example", "broker.example", 8883);
        check("mqtts://broker.example/", "broker.example", 8883);
        check("MQTTS://192.0.2.1:1", "192.0.2.1", 1);
        check("mqtts://[2001:db8::1]:65535", "2001:db8::1", 65535);
        check("mqtts://[::1]", "::1", 8883);
    }

    #[test]
    fn an_address_is_printed_as_the_url_that_gives_it() {
        for url in ["mqtts://broker.example:8883", "mqtts://[::1]:8884"] {
            assert_eq!(parse_url(url).unwrap().to_string(), url);
        }
    }

    #[test]
    fn bad_urls_are_refused_with_what_is_wrong_and_what_to_write() {
        let check = |url: &str, expected: &str| {
            let said = parse_url(url).unwrap_err().to_string();
            assert!(
                said.contains(url) && said.contains(expected),
                "{url}: {said}"
            );
        };
        check("broker.example:8883", "is no URL");
        check("mqtt://broker.example", "only over TLS: write mqtts://");
        check("tcp://broker.example", "only over TLS");
        check("https://broker.example", "scheme `https`");
        check("mqtts://broker.example/topic", "after the host");
        check("mqtts://broker.example?x=1", "after the host");
        check("mqtts://", "neither a DNS name");
        check("mqtts://::1", "IPv6 goes in brackets");
        check("mqtts://[::1", "IPv6 goes in brackets");
        check("mqtts://[broker]:1", "neither a DNS name");
        check("mqtts://[::1]x", "neither a DNS name");
        check("mqtts://bro ker", "neither a DNS name");
        check("mqtts://broker.example:0", "`0` is no port");
        check("mqtts://broker.example:", "`` is no port");
        check("mqtts://broker.example:65536", "`65536` is no port");
    }

    /// The password used to be in the message, and so in the log.
    #[test]
    fn no_message_repeats_a_user_or_a_password() {
        let check = |url: &str, shown: &str, expected: &str| {
            let said = parse_url(url).unwrap_err().to_string();
            assert!(
                said.contains(shown) && said.contains(expected),
                "{url}: {said}"
            );
            for secret in ["alice", "s3cret"] {
                assert!(!said.contains(secret), "{url}: {said}");
            }
        };
        let shown = "`mqtts://***@host`";
        check("mqtts://alice:s3cret@host", shown, "user or a password");
        check("mqtts://alice@host", shown, "user or a password");
        check("mqtts://alice:s3cret/@#?s3cret@host", shown, "user");
        check("mqtt://alice:s3cret@host", "`mqtt://***@host`", "over TLS");
        check("https://alice:s3cret@host", "`https://***@host`", "scheme");
        check("alice:s3cret@host:8883", "`***@host:8883`", "is no URL");
        check("alice:s3cret@mqtts://host", "`***@mqtts://host`", "no URL");
        check("alice:s3cret://s3cret@host", "`***@host`", "is no URL");
    }
}
