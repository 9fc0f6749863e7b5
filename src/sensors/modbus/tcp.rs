//! Modbus over TCP: a header of 7 bytes before each PDU ("MODBUS Messaging on TCP/IP Implementation Guide" V1.0b, section 3.1.3): the
//! transaction's number, the protocol (0), how many bytes follow, and the unit.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::Line;
use crate::sensors::trouble::Trouble;

/// The port that is reserved for it.
pub(super) const PORT: u16 = 502;

/// A name may have more addresses; more are not tried.
const MOST_ADDRESSES: usize = 3;

/// A connection, which is made when it is first needed, and anew after anything went wrong with it.
pub(super) struct Connection {
    /// With the port.
    host: String,
    open: Option<TcpStream>,
    transaction: u16,
}

/// `host:port` or `[v6]:port`, unlike a name, an address, or an IPv6 address.
pub(super) fn has_port(host: &str) -> bool {
    host.parse::<SocketAddr>().is_ok()
        || matches!(host.split_once(':'), Some((_, port)) if port.parse::<u16>().is_ok())
}

impl Connection {
    pub(super) fn new(host: String) -> Connection {
        Connection {
            host,
            open: None,
            transaction: 0,
        }
    }

    fn connect(&self, timeout: Duration) -> io::Result<TcpStream> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in self.host.to_socket_addrs()?.take(MOST_ADDRESSES) {
            match TcpStream::connect_timeout(&address, timeout) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    stream.set_write_timeout(Some(timeout))?;
                    return Ok(stream);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn failed(&self, error: io::Error, timeout: Duration, doing: &str) -> Trouble {
        match error.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Trouble::NotReady(
                doing.to_owned()
                    + &format!(
                        " within {timeout:?}; look at its supply, the cable, `host` and `unit_id`"
                    ),
            ),
            _ => Trouble::Io {
                path: PathBuf::from(&self.host),
                source: error,
            },
        }
    }
}

impl Line for Connection {
    fn exchange(
        &mut self,
        unit_id: u8,
        request: &[u8],
        timeout: Duration,
    ) -> Result<Vec<u8>, Trouble> {
        // Taken out, so that what failed is not used again: a peer that lost power without a word looks like one that is slow.
        let mut stream = match self.open.take() {
            Some(stream) => stream,
            None => self
                .connect(timeout)
                .map_err(|error| self.failed(error, timeout, "there is no connection"))?,
        };
        self.transaction = self.transaction.wrapping_add(1);
        let number = self.transaction;
        let answer = exchange(&mut stream, number, unit_id, request, timeout);
        let doing = format!("unit {unit_id} does not answer");
        let answer = answer.map_err(|error| self.failed(error, timeout, &doing))?;
        self.open = Some(stream);
        Ok(answer)
    }
}

fn exchange(
    stream: &mut TcpStream,
    transaction: u16,
    unit_id: u8,
    request: &[u8],
    timeout: Duration,
) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + timeout;
    stream.write_all(&frame(transaction, unit_id, request))?;
    loop {
        let mut header = [0; 7];
        fill(stream, &mut header, deadline)?;
        let [number_high, number_low, p1, p0, length_high, length_low, _] = header;
        let length = u16::from_be_bytes([length_high, length_low]);
        // The unit and a PDU of 2 to 253 bytes.
        if (p1, p0) != (0, 0) || !(3..=254).contains(&length) {
            let said = "what answers there does not speak Modbus";
            return Err(io::Error::new(io::ErrorKind::InvalidData, said));
        }
        let mut pdu = vec![0; usize::from(length) - 1];
        fill(stream, &mut pdu, deadline)?;
        // Another number is an answer to another question; that it is this unit's, the number says.
        if u16::from_be_bytes([number_high, number_low]) == transaction {
            return Ok(pdu);
        }
    }
}

fn frame(transaction: u16, unit_id: u8, pdu: &[u8]) -> Vec<u8> {
    let length = u16::try_from(pdu.len() + 1).expect("a PDU has at most 253 bytes");
    let mut frame = transaction.to_be_bytes().to_vec();
    frame.extend([0, 0]);
    frame.extend(length.to_be_bytes());
    frame.push(unit_id);
    frame.extend(pdu);
    frame
}

fn fill(stream: &mut TcpStream, mut into: &mut [u8], deadline: Instant) -> io::Result<()> {
    while !into.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(into) {
            Ok(0) => {
                let said = "the device closed the connection";
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, said));
            }
            Ok(read) => into = &mut into[read..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The guide's example, section 3.1.3: register 5 of a device, transaction 0x1501.
    #[test]
    fn a_frame_is_that_of_the_guide() {
        let frame = frame(0x1501, 0xff, &[0x03, 0x00, 0x04, 0x00, 0x01]);
        assert_eq!(frame, b"\x15\x01\0\0\0\x06\xff\x03\0\x04\0\x01");
    }

    #[test]
    fn a_port_is_told_from_an_address() {
        let check = |host: &str, expected: bool| assert_eq!(has_port(host), expected, "{host}");
        check("192.0.2.20", false);
        check("192.0.2.20:1502", true);
        check("meter.lan", false);
        check("meter.lan:502", true);
        check("[2001:db8::5]:502", true);
        check("[2001:db8::5]", false);
    }
}
