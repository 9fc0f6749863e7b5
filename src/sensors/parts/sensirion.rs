//! What Sensirion's parts share: 16-bit words, each followed by a check sum.
//!
//! Terms: a *word* is sent high byte first, and its check sum is a CRC-8 of polynomial 0x31 that starts at 0xff (SHT3x-DIS data sheet,
//! section 4.12, table 20; SHT4x, section 4.4; SCD4x, section 3.11: all three the same).

use crate::sensors::Trouble;
use crate::sensors::i2c::I2cLink;

/// Sends a command of 16 bits.
pub(super) fn command(link: &mut I2cLink, command: u16) -> Result<(), Trouble> {
    link.send(&command.to_be_bytes())
}

/// The words of an answer, which are as many as `W` says.
pub(super) fn words<const W: usize>(answer: &[u8]) -> Result<[u16; W], Trouble> {
    assert_eq!(answer.len(), 3 * W, "a word has three bytes");
    let mut words = [0; W];
    for (word, bytes) in words.iter_mut().zip(answer.chunks_exact(3)) {
        let value = [bytes[0], bytes[1]];
        if crc(value) != bytes[2] {
            return Err(Trouble::Checksum);
        }
        *word = u16::from_be_bytes(value);
    }
    Ok(words)
}

/// A word with its check sum, as it is sent.
pub(super) fn sealed(word: u16) -> [u8; 3] {
    let [high, low] = word.to_be_bytes();
    [high, low, crc([high, low])]
}

fn crc(word: [u8; 2]) -> u8 {
    const POLYNOMIAL: u8 = 0x31;
    word.into_iter().fold(0xff, |crc, byte| {
        (0..8).fold(crc ^ byte, |crc: u8, _| {
            let shifted = crc << 1;
            if crc & 0x80 == 0 {
                shifted
            } else {
                shifted ^ POLYNOMIAL
            }
        })
    })
}

/// Degrees Celsius: the same formula in all three (SHT3x-DIS, section 4.13; SHT4x, section 4.6; SCD4x, section 3.5.2).
pub(super) fn degc(raw: u16) -> f64 {
    175.0 * f64::from(raw) / FULL - 45.0
}

/// The reverse of [`degc`], for twins.
pub(super) fn raw_of_degc(degc: f64) -> u16 {
    // Casts keep within the ends.
    ((degc + 45.0) / 175.0 * FULL).round() as u16
}

/// 2^16 - 1.
pub(super) const FULL: f64 = 65_535.0;

/// What a twin answers to what was last asked. Asked for nothing, it leaves the line high, and the check sum of that is wrong.
#[derive(Default)]
pub(super) struct Answer(Vec<u8>);

impl Answer {
    pub(super) fn set(&mut self, words: &[u16]) {
        self.0 = words.iter().flat_map(|&word| sealed(word)).collect();
    }

    pub(super) fn take(&mut self, into: &mut [u8]) {
        let answer = std::mem::take(&mut self.0);
        let silence = std::iter::repeat(0xff);
        for (byte, value) in into.iter_mut().zip(answer.into_iter().chain(silence)) {
            *byte = value;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SHT3x-DIS data sheet, table 20: the check sum of 0xbeef is 0x92. The others are of the SCD4x's example, section 3.5.2.
    #[test]
    fn check_sums_are_those_of_the_data_sheets() {
        let check = |word: u16, expected: u8| assert_eq!(sealed(word)[2], expected, "{word:#06x}");
        check(0xbeef, 0x92);
        check(0x01f4, 0x33);
        check(0x6667, 0xa2);
        check(0x5eb9, 0x3c);
    }

    #[test]
    fn one_wrong_bit_anywhere_is_seen() {
        let good = [0xbe, 0xef, 0x92, 0x66, 0x67, 0xa2];
        assert_eq!(words::<2>(&good).unwrap(), [0xbeef, 0x6667]);
        for bit in 0..48 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            let outcome = words::<2>(&bad);
            assert!(matches!(outcome, Err(Trouble::Checksum)), "bit {bit}");
        }
        let mut line = [0; 3];
        Answer::default().take(&mut line);
        assert!(words::<1>(&line).is_err(), "a line that stays high");
    }

    #[test]
    fn temperatures_go_there_and_back() {
        // Computed by hand: 0, 1/5, 2/5 and the whole of 65535.
        for (raw, expected) in [(0, -45.0), (13_107, -10.0), (26_214, 25.0), (65_535, 130.0)] {
            assert!((degc(raw) - expected).abs() < 1e-9, "{raw}: {}", degc(raw));
            assert_eq!(raw_of_degc(expected), raw);
        }
        assert_eq!((raw_of_degc(-300.0), raw_of_degc(300.0)), (0, u16::MAX));
    }
}
