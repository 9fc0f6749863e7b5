//! Modbus over a serial line: frames of a unit's number, a PDU and a check sum ("MODBUS over Serial Line" V1.02, section 2.5.1).

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use serialport::{Parity, StopBits};

use super::Line;
use crate::sensors::serial::{SerialLink, SerialMode};
use crate::sensors::trouble::Trouble;

/// A serial port, which is opened when it is first needed, and anew after it failed: an adapter may be pulled out and put in.
pub(super) struct SerialLine {
    path: PathBuf,
    mode: SerialMode,
    open: Option<SerialLink>,
    /// When the line was last used.
    used: Option<Instant>,
}

impl SerialLine {
    pub(super) fn new(path: PathBuf, mode: SerialMode) -> SerialLine {
        SerialLine {
            path,
            mode,
            open: None,
            used: None,
        }
    }

    /// The silence between frames (section 2.5.1.1): 3.5 characters, or 1.75 ms where the line is faster than 19200 bits a second.
    fn silence(&self) -> Duration {
        if self.mode.baud > 19_200 {
            return Duration::from_micros(1_750);
        }
        let parity = u32::from(self.mode.parity != Parity::None);
        let stop_bits = if self.mode.stop_bits == StopBits::Two {
            2
        } else {
            1
        };
        let bits = 1 + 8 + parity + stop_bits;
        Duration::from_secs_f64(3.5 * f64::from(bits) / f64::from(self.mode.baud))
    }
}

impl Line for SerialLine {
    fn exchange(
        &mut self,
        unit_id: u8,
        request: &[u8],
        timeout: Duration,
    ) -> Result<Vec<u8>, Trouble> {
        if let Some(used) = self.used {
            thread::sleep(self.silence().saturating_sub(used.elapsed()));
        }
        let mut link = match self.open.take() {
            Some(link) => link,
            None => {
                let mut link = SerialLink::at(self.path.clone())?;
                link.set(self.mode)?;
                link
            }
        };
        let outcome = exchange(&mut link, unit_id, request, timeout);
        self.used = Some(Instant::now());
        if !matches!(outcome, Err(Trouble::Io { .. })) {
            self.open = Some(link);
        }
        outcome
    }
}

fn exchange(
    link: &mut SerialLink,
    unit_id: u8,
    request: &[u8],
    timeout: Duration,
) -> Result<Vec<u8>, Trouble> {
    // A late answer to an earlier question is nobody's.
    link.forget()?;
    link.send(&frame(unit_id, request))?;
    let deadline = Instant::now() + timeout;
    let mut answer = vec![0; 3];
    let mut more = |answer: &mut [u8]| {
        let left = deadline.saturating_duration_since(Instant::now());
        link.fill(answer, left).map_err(|trouble| match trouble {
            Trouble::TimedOut { .. } => silent(unit_id, timeout),
            other => other,
        })
    };
    more(&mut answer)?;
    // The third byte is an exception's code, or says how many follow; then the check sum.
    let is_exception = answer[1] & 0x80 != 0;
    let length = if is_exception {
        0
    } else {
        usize::from(answer[2])
    };
    answer.resize(3 + length + 2, 0);
    more(&mut answer[3..])?;
    let pdu = unframed(unit_id, &answer)?;
    Ok(pdu.to_vec())
}

fn silent(unit_id: u8, timeout: Duration) -> Trouble {
    Trouble::NotReady(format!(
        "unit {unit_id} does not answer, or not in full, within {timeout:?}: look at its number (`unit_id`), `baud` and `parity`, its supply, \
         and whether A and B are the right way round"
    ))
}

fn frame(unit_id: u8, pdu: &[u8]) -> Vec<u8> {
    let mut frame = vec![unit_id];
    frame.extend(pdu);
    frame.extend(crc(&frame).to_le_bytes());
    frame
}

/// The PDU of a unit's answer.
fn unframed(unit_id: u8, frame: &[u8]) -> Result<&[u8], Trouble> {
    let [answering, pdu @ .., low, high] = frame else {
        return Err(Trouble::Checksum);
    };
    let sum = crc(&frame[..frame.len() - 2]);
    if sum.to_le_bytes() != [*low, *high] {
        return Err(Trouble::Checksum);
    }
    if *answering != unit_id {
        return Err(Trouble::NotReady(format!(
            "unit {answering} answers instead of {unit_id}: does something else ask on this line?"
        )));
    }
    Ok(pdu)
}

/// CRC-16 (section 6.2.2): polynomial 0xa001 from the lowest bit on, begun with all ones, sent low byte first.
pub(super) fn crc(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0xffff, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte), |crc, _| {
            (crc >> 1) ^ (if crc & 1 == 1 { 0xa001 } else { 0 })
        })
    })
}
