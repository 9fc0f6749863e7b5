//! MQTT 3.1.1's CONNECT packet: reads a client's, strictly, and writes the one that rumqttd gets in its place.
//!
//! Section numbers are those of OASIS MQTT 3.1.1. Must not: decide who may connect.

use tokio::io::{AsyncRead, AsyncReadExt};

use super::packet::{Malformed, Reader, is_topic};

/// The longest CONNECT that is read, in bytes after the fixed header. Ids are short; the rest is left to the will.
pub(super) const CONNECT_MAX: usize = 16 * 1024;

/// What a client asks for when it connects. Its user name and password are checked for form and dropped: the certificate
/// says who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Connect {
    pub(super) client_id: String,
    pub(super) clean_session: bool,
    /// Seconds; 0: the client promises nothing.
    pub(super) keep_alive: u16,
    pub(super) will: Option<Will>,
}

/// What is published in the client's name when it goes without a DISCONNECT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Will {
    pub(super) topic: String,
    pub(super) payload: Vec<u8>,
    pub(super) retain: bool,
}

/// Why there is no [`Connect`].
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("its CONNECT packet is not valid: {0}")]
    Malformed(#[from] Malformed),
    #[error("it speaks MQTT protocol level {0}; only 4 (MQTT 3.1.1) is served")]
    Version(u8),
    #[error("it closed the connection before its CONNECT packet was complete")]
    Closed(#[source] std::io::Error),
}

impl Connect {
    /// Reads exactly one CONNECT from a client; what it sent after that stays in the stream. It waits as long as the
    /// client does: the caller sets a time-out.
    pub(super) async fn read<R: AsyncRead + Unpin>(
        stream: &mut R,
    ) -> Result<Connect, ConnectError> {
        let first = stream.read_u8().await.map_err(ConnectError::Closed)?;
        if first != 0x10 {
            return Err(Malformed("the first packet is not a CONNECT").into());
        }
        let (mut length, mut shift) = (0, 0);
        loop {
            let byte = stream.read_u8().await.map_err(ConnectError::Closed)?;
            length |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
            shift += 7;
            if shift > 21 {
                return Err(Malformed("its length has more than four bytes").into());
            }
        }
        if length > CONNECT_MAX {
            return Err(Malformed("it is longer than 16 KiB").into());
        }
        let mut body = vec![0; length];
        let read = stream.read_exact(&mut body).await;
        read.map_err(ConnectError::Closed)?;
        Connect::parse(&body)
    }

    /// Parses what follows the fixed header (3.1.2, 3.1.3).
    fn parse(body: &[u8]) -> Result<Connect, ConnectError> {
        let mut body = Reader(body);
        let protocol = body.text()?;
        let level = body.u8()?;
        if protocol != "MQTT" || level != 4 {
            return match protocol {
                "MQTT" | "MQIsdp" => Err(ConnectError::Version(level)),
                _ => Err(Malformed("the protocol's name is not MQTT").into()),
            };
        }
        let flags = body.u8()?;
        let flag = |bit: u8| flags & 1 << bit != 0;
        let will_qos = flags >> 3 & 3;
        let (has_will, has_user, has_password) = (flag(2), flag(7), flag(6));
        if flag(0) {
            return Err(Malformed("a reserved flag is set").into());
        }
        if will_qos == 3 || !has_will && (will_qos != 0 || flag(5)) {
            return Err(Malformed("the flags of the will contradict each other").into());
        }
        if has_password && !has_user {
            return Err(Malformed("a password without a user name").into());
        }
        let keep_alive = body.u16()?;
        let client_id = body.text()?.to_owned();
        let will = if has_will {
            let topic = body.text()?.to_owned();
            is_topic(&topic)?;
            let payload = body.bytes()?.to_owned();
            let retain = flag(5);
            Some(Will {
                topic,
                payload,
                retain,
            })
        } else {
            None
        };
        if has_user {
            body.text()?;
        }
        if has_password {
            body.bytes()?;
        }
        if !body.0.is_empty() {
            return Err(Malformed("bytes follow its last field").into());
        }
        Ok(Connect {
            client_id,
            clean_session: flag(1),
            keep_alive,
            will,
        })
    }

    /// The CONNECT for rumqttd: with its password, without the will, and with the longest keep-alive for none.
    pub(super) fn for_rumqttd(&self, user: &str, password: &str) -> Vec<u8> {
        let keep_alive = match self.keep_alive {
            0 => u16::MAX,
            seconds => seconds,
        };
        let clean_session = u8::from(self.clean_session) << 1;
        let mut body = b"\x00\x04MQTT\x04".to_vec();
        body.push(0b1100_0000 | clean_session);
        body.extend(keep_alive.to_be_bytes());
        for text in [&self.client_id, user, password] {
            let length = u16::try_from(text.len()).expect("ids and our passwords are short");
            body.extend(length.to_be_bytes());
            body.extend(text.as_bytes());
        }
        let mut packet = vec![0x10];
        let mut rest = body.len();
        while rest > 0x7f {
            packet.push((rest & 0x7f) as u8 | 0x80);
            rest >>= 7;
        }
        packet.push(rest as u8);
        packet.extend(body);
        packet
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A generator of test bytes that gives the same ones for the same seed (xorshift64).
    pub(in crate::broker) struct Random(pub(in crate::broker) u64);

    impl Random {
        pub(in crate::broker) fn next(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0
        }
    }

    fn read(bytes: &[u8]) -> Result<Connect, String> {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.build().unwrap();
        let mut stream = bytes;
        runtime
            .block_on(Connect::read(&mut stream))
            .map_err(|error| error.to_string())
    }

    /// A CONNECT with everything: clean session, a retained will with QoS 1, user name and password.
    const FULL: &[u8] = b"\x10\x25\x00\x04MQTT\x04\xee\x00\x3c\x00\x07press-7\x00\x03a/b\x00\x04gone\x00\x01u\x00\x02pw";

    #[test]
    fn a_connect_with_everything_is_read() {
        let connect = read(FULL).unwrap();
        assert_eq!(connect.client_id, "press-7");
        assert!(connect.clean_session);
        assert_eq!(connect.keep_alive, 60);
        let will = connect.will.clone().unwrap();
        assert_eq!((will.topic.as_str(), will.retain), ("a/b", true));
        assert_eq!(will.payload, b"gone");
        let rewritten = read(&connect.for_rumqttd("user", &"p".repeat(64))).unwrap();
        let expected = Connect {
            will: None,
            ..connect
        };
        assert_eq!(rewritten, expected);
    }

    #[test]
    fn no_keep_alive_becomes_the_longest() {
        let mut bytes = FULL.to_vec();
        bytes[10..12].fill(0);
        let connect = read(&bytes).unwrap();
        assert_eq!(connect.keep_alive, 0);
        let rewritten = read(&connect.for_rumqttd("user", "password")).unwrap();
        assert_eq!(rewritten.keep_alive, u16::MAX);
    }

    #[test]
    fn what_the_standard_forbids_is_refused_in_words() {
        let check = |change: &dyn Fn(&mut Vec<u8>), expected: &str| {
            let mut bytes = FULL.to_vec();
            change(&mut bytes);
            let error = read(&bytes).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        check(&|b| b[0] = 0x30, "first packet is not a CONNECT");
        check(&|b| b[0] = 0x11, "first packet is not a CONNECT");
        check(&|b| b[4] = b'X', "name is not MQTT");
        check(&|b| b[8] = 5, "protocol level 5");
        check(&|b| b[9] |= 1, "reserved flag");
        check(&|b| b[9] |= 0x18, "flags of the will");
        check(&|b| b[9] &= !4, "flags of the will");
        check(&|b| b[9] &= !0x80, "without a user name");
        check(&|b| b[14] = 0, "U+0000");
        check(&|b| b[14] = 0xff, "not UTF-8");
        check(&|b| b[23] = b'#', "wildcard");
        check(&|b| b[9] &= 0x3f, "bytes follow");
        check(
            &|b| {
                b.splice(1..2, [0xff, 0xff, 0xff, 0xff, 0x7f]);
            },
            "four bytes",
        );
        check(
            &|b| {
                b.splice(1..2, [0x81, 0x80, 0x01]);
            },
            "16 KiB",
        );
    }

    #[test]
    fn every_truncation_is_an_error() {
        for length in 0..FULL.len() {
            assert!(read(&FULL[..length]).is_err(), "{length} bytes");
            // The same, with a length that claims the rest is all there is.
            if length >= 2 {
                let mut bytes = FULL[..length].to_vec();
                bytes[1] = (length - 2) as u8;
                assert!(read(&bytes).is_err(), "{length} bytes");
            }
        }
    }

    #[test]
    fn no_bytes_make_the_parser_panic() {
        for seed in 1..=20_000_u64 {
            let mut random = Random(seed);
            let length = random.next() % 80;
            let mut body: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
            let _ = Connect::parse(&body);
            // Valid but for a few bytes, which reaches deeper.
            body = FULL[2..].to_vec();
            for _ in 0..=random.next() % 4 {
                let place = random.next() as usize % body.len();
                body[place] = random.next() as u8;
            }
            let parsed = std::panic::catch_unwind(|| Connect::parse(&body).is_ok());
            assert!(parsed.is_ok(), "seed {seed}: {body:02x?}");
        }
    }
}
