//! Packets that clients send after CONNECT: where each ends, and whether rumqttd may see it.
//!
//! Section numbers are those of OASIS MQTT 3.1.1. Must not: keep state, or look at payloads.

/// The largest packet a client may send, in bytes without the fixed header.
pub(super) const PACKET_MAX: usize = 256 * 1024;

/// What is wrong with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Malformed(pub(super) &'static str);

/// What stands at the beginning of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Not yet a whole packet.
    Incomplete,
    /// A packet of so many bytes for rumqttd.
    Packet(usize),
    /// The client says good-bye.
    Disconnect,
}

/// Looks at the packet that these bytes begin with.
pub(super) fn next(bytes: &[u8]) -> Result<Next, Malformed> {
    let Some((&first, rest)) = bytes.split_first() else {
        return Ok(Next::Incomplete);
    };
    let (mut length, mut header, mut shift) = (0, 1, 0);
    loop {
        let Some(&byte) = rest.get(header - 1) else {
            return Ok(Next::Incomplete);
        };
        header += 1;
        length |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
        shift += 7;
        if shift > 21 {
            return Err(Malformed("a packet's length has more than four bytes"));
        }
    }
    if length > PACKET_MAX {
        return Err(Malformed("a packet is larger than 256 KiB"));
    }
    let Some(body) = bytes.get(header..header + length) else {
        return Ok(Next::Incomplete);
    };
    check(first, body)?;
    match first {
        0xe0 => Ok(Next::Disconnect),
        _ => Ok(Next::Packet(header + length)),
    }
}

fn check(first: u8, body: &[u8]) -> Result<(), Malformed> {
    let mut body = Reader(body);
    match (first >> 4, first & 0x0f) {
        // PUBLISH (3.3)
        (3, flags) => {
            is_topic(body.text()?)?;
            match flags >> 1 & 3 {
                0 => return Ok(()),
                3 => return Err(Malformed("a PUBLISH asks for QoS 3")),
                _ => packet_id(&mut body)?,
            }
            return Ok(());
        }
        // PUBACK, PUBREC, PUBREL, PUBCOMP (3.4 to 3.7)
        (4 | 5 | 7, 0) | (6, 2) => packet_id(&mut body)?,
        // SUBSCRIBE (3.8)
        (8, 2) => {
            packet_id(&mut body)?;
            loop {
                is_filter(body.text()?)?;
                if body.u8()? > 2 {
                    return Err(Malformed("a SUBSCRIBE asks for a QoS above 2"));
                }
                if body.0.is_empty() {
                    break;
                }
            }
        }
        // UNSUBSCRIBE (3.10)
        (10, 2) => {
            packet_id(&mut body)?;
            loop {
                is_filter(body.text()?)?;
                if body.0.is_empty() {
                    break;
                }
            }
        }
        // PINGREQ, DISCONNECT (3.12, 3.14)
        (12 | 14, 0) => {}
        (1, _) => return Err(Malformed("a second CONNECT")),
        _ => return Err(Malformed("a packet that no client may send")),
    }
    match body.0 {
        [] => Ok(()),
        _ => Err(Malformed("bytes follow a packet's last field")),
    }
}

fn packet_id(body: &mut Reader<'_>) -> Result<(), Malformed> {
    match body.u16()? {
        0 => Err(Malformed("a packet's identifier is 0")),
        _ => Ok(()),
    }
}

/// Whether this can be published to: 4.7, and what rumqttd bears.
pub(super) fn is_topic(topic: &str) -> Result<(), Malformed> {
    if topic.is_empty() {
        Err(Malformed("a topic is empty"))
    } else if topic.contains(['#', '+']) {
        Err(Malformed("a topic to publish to contains a wildcard"))
    } else if topic.starts_with('$') {
        Err(Malformed(
            "a topic begins with $; those are the broker's own",
        ))
    } else if !topic.as_bytes()[0].is_ascii() {
        // rumqttd 0.20 slices the first byte off (`protocol::matches`), and its router panics.
        Err(Malformed(
            "a topic's first character is not ASCII; put an ASCII level in front",
        ))
    } else {
        Ok(())
    }
}

/// Whether this can be subscribed to: 4.7, and what rumqttd bears.
fn is_filter(filter: &str) -> Result<(), Malformed> {
    if filter.is_empty() {
        return Err(Malformed("a topic filter is empty"));
    }
    if filter.starts_with('$') {
        return Err(Malformed(
            "a topic filter begins with $; shared subscriptions are not served",
        ));
    }
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        let wildcard = level.contains(['#', '+']);
        if wildcard && level.len() > 1 || level == "#" && levels.peek().is_some() {
            return Err(Malformed(
                "a wildcard of a topic filter stands in a wrong place",
            ));
        }
    }
    Ok(())
}

/// Takes fields off the front of a packet (1.5).
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self
            .0
            .split_at_checked(count)
            .ok_or(Malformed("a packet ends within a field"))?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.take(1)?[0])
    }

    pub(super) fn u16(&mut self) -> Result<u16, Malformed> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }

    pub(super) fn text(&mut self) -> Result<&'a str, Malformed> {
        let text =
            std::str::from_utf8(self.bytes()?).map_err(|_| Malformed("a text is not UTF-8"))?;
        match text.contains('\0') {
            true => Err(Malformed("a text contains U+0000")),
            false => Ok(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::connect::tests::Random;

    const SUBSCRIBE: &[u8] = b"\x82\x0d\x00\x01\x00\x03a/+\x01\x00\x02#\x00";

    #[test]
    fn packets_are_framed_and_checked() {
        let check = |bytes: &[u8], expected: Result<Next, &'static str>| {
            assert_eq!(next(bytes), expected.map_err(Malformed), "{bytes:02x?}");
        };
        check(b"", Ok(Next::Incomplete));
        check(b"\x30", Ok(Next::Incomplete));
        check(b"\x30\x05\x00\x03a/", Ok(Next::Incomplete));
        check(b"\x30\x05\x00\x03a/b", Ok(Next::Packet(7)));
        check(b"\x32\x08\x00\x03a/b\x00\x01x\xc0", Ok(Next::Packet(10)));
        check(b"\xc0\x00\xe0\x00", Ok(Next::Packet(2)));
        check(b"\xe0\x00", Ok(Next::Disconnect));
        check(b"\x40\x02\x00\x07", Ok(Next::Packet(4)));
        check(b"\x82\x08\x00\x01\x00\x03a/+\x01", Ok(Next::Packet(10)));
        check(b"\xa2\x05\x00\x01\x00\x01#", Ok(Next::Packet(7)));

        check(
            b"\x36\x07\x00\x03a/b\x00\x01",
            Err("a PUBLISH asks for QoS 3"),
        );
        check(
            b"\x32\x07\x00\x03a/b\x00\x00",
            Err("a packet's identifier is 0"),
        );
        check(
            b"\x30\x05\x00\x03a/#",
            Err("a topic to publish to contains a wildcard"),
        );
        check(b"\x30\x02\x00\x00", Err("a topic is empty"));
        check(b"\x30\x05\x00\x09a/b", Err("a packet ends within a field"));
        check(
            b"\x30\x80\x80\x80\x80\x01",
            Err("a packet's length has more than four bytes"),
        );
        check(b"\x30\x81\x80\x10", Err("a packet is larger than 256 KiB"));
        check(
            b"\x40\x03\x00\x07\x00",
            Err("bytes follow a packet's last field"),
        );
        check(
            b"\x80\x08\x00\x01\x00\x03a/+\x01",
            Err("a packet that no client may send"),
        );
        check(b"\x82\x02\x00\x01", Err("a packet ends within a field"));
        check(b"\x10\x00", Err("a second CONNECT"));
        check(b"\x20\x02\x00\x00", Err("a packet that no client may send"));
    }

    #[test]
    fn topics_and_filters_follow_the_standard() {
        for topic in ["a", "a/ü", "/", "a b//c"] {
            assert_eq!(is_topic(topic), Ok(()), "{topic}");
        }
        for topic in ["", "a/+", "#", "$SYS/x", "über/x"] {
            assert!(is_topic(topic).is_err(), "{topic}");
        }
        for filter in ["#", "+", "a/#", "+/b/+/#", "über/+", "/"] {
            assert_eq!(is_filter(filter), Ok(()), "{filter}");
        }
        for filter in ["", "a#", "#/a", "a+/b", "++", "$share/g/a"] {
            assert!(is_filter(filter).is_err(), "{filter}");
        }
    }

    #[test]
    fn no_bytes_make_the_check_panic() {
        for seed in 1..=20_000_u64 {
            let mut random = Random(seed);
            let mut bytes = SUBSCRIBE.to_vec();
            bytes.truncate(random.next() as usize % (SUBSCRIBE.len() + 1));
            for _ in 0..random.next() % 4 {
                let place = random.next() as usize;
                if let Some(length) = bytes.len().checked_sub(1) {
                    bytes[place % (length + 1)] = random.next() as u8;
                }
            }
            let outcome = std::panic::catch_unwind(|| next(&bytes).is_ok());
            assert!(outcome.is_ok(), "seed {seed}: {bytes:02x?}");
        }
    }
}
