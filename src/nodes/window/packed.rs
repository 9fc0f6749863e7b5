//! Many numbers in few bytes: what windows remember goes to flash every few minutes.
//!
//! Each number is written by what it differs in from the one before. Whole numbers and times by their difference, seven bits in a
//! byte (LEB128). Values too, where they are decimal numbers of few places, as most sensors give them; others by the bytes that
//! differ (after Pelkonen and others: Gorilla, Proceedings of the VLDB Endowment 8, 2015; here in whole bytes).
//!
//! For `serde(with)`. Every bit comes back. What cannot be read is an error, whatever it is.

use std::collections::{HashMap, VecDeque};

use serde::de::{Error as _, Visitor};
use serde::ser::Error as _;
use serde::{Deserializer, Serializer};
use sketches_ddsketch::DDSketch;

use crate::message::Timestamp;

/// What has a form in few bytes.
pub(super) trait Packed: Sized {
    /// None if it has no form.
    fn pack(&self, to: &mut Packer) -> Option<()>;
    fn unpack(from: &mut Unpacker<'_>) -> Option<Self>;
}

pub(super) fn serialize<T: Packed, S: Serializer>(it: &T, to: S) -> Result<S::Ok, S::Error> {
    let mut packer = Packer::default();
    it.pack(&mut packer)
        .ok_or_else(|| S::Error::custom("numbers that have no form"))?;
    to.serialize_bytes(&packer.bytes)
}

pub(super) fn deserialize<'de, T: Packed, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    struct Bytes<T>(std::marker::PhantomData<T>);
    impl<T: Packed> Visitor<'_> for Bytes<T> {
        type Value = T;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("numbers as bytes")
        }
        fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<T, E> {
            let mut unpacker = Unpacker::new(bytes);
            T::unpack(&mut unpacker)
                .filter(|_| unpacker.bytes.is_empty())
                .ok_or_else(|| E::custom("the bytes are no numbers"))
        }
    }
    from.deserialize_bytes(Bytes(std::marker::PhantomData))
        .map_err(D::Error::custom)
}

/// Decimal numbers have at most so many places: the powers of ten for them.
const TENS: [f64; 5] = [1.0, 10.0, 100.0, 1_000.0, 10_000.0];
/// The head of a decimal number with no places. Those of other values are less: at most 8 equal bytes at the front.
const DECIMAL: u8 = 0x90;

#[derive(Default)]
pub(super) struct Packer {
    bytes: Vec<u8>,
    /// The bits of the value before.
    value: u64,
    whole: i64,
    /// The decimal number before, without its point, and its places.
    decimal: i64,
    places: usize,
}

impl Packer {
    fn count(&mut self, mut count: u64) {
        while count >= 0x80 {
            self.bytes.push(count as u8 | 0x80);
            count >>= 7;
        }
        self.bytes.push(count as u8);
    }

    fn whole(&mut self, whole: i64) {
        let before = std::mem::replace(&mut self.whole, whole);
        self.difference(before, whole);
    }

    fn difference(&mut self, before: i64, whole: i64) {
        let difference = whole.wrapping_sub(before);
        // The sign goes last, so that small ones are short.
        self.count(((difference << 1) ^ (difference >> 63)) as u64);
    }

    fn value(&mut self, bits: u64) {
        let before = std::mem::replace(&mut self.value, bits);
        let places = std::iter::once(self.places).chain(0..TENS.len());
        let mut decimals = places.filter_map(|places| Some((places, decimal(bits, places)?)));
        match decimals.next() {
            Some((places, whole)) if bits != before => {
                self.bytes.push(DECIMAL + places as u8);
                self.places = places;
                let before = std::mem::replace(&mut self.decimal, whole);
                self.difference(before, whole);
            }
            _ => self.bytes_that_differ(bits ^ before),
        }
    }

    /// How many bytes are equal at the front and how many differ, then those.
    fn bytes_that_differ(&mut self, difference: u64) {
        let front = difference.leading_zeros() / 8;
        let back = match difference {
            0 => 0,
            _ => difference.trailing_zeros() / 8,
        };
        let (front, end) = (front as usize, 8 - back as usize);
        self.bytes.push((front << 4 | (end - front)) as u8);
        self.bytes.extend(&difference.to_be_bytes()[front..end]);
    }

    /// Where most are zero: each zero with how many more follow it.
    fn sparse(&mut self, bytes: &[u8]) {
        self.count(bytes.len() as u64);
        let mut rest = bytes;
        while let Some((first, after)) = rest.split_first() {
            rest = after;
            self.bytes.push(*first);
            if *first == 0 {
                let more = rest.iter().take_while(|byte| **byte == 0).count();
                self.count(more as u64);
                rest = &rest[more..];
            }
        }
    }
}

/// The value as a whole number of units in the last of so many decimal places, if that is exact.
fn decimal(bits: u64, places: usize) -> Option<i64> {
    // All below are numbers of their own.
    const MOST: f64 = 9_007_199_254_740_992.0;
    let whole = (f64::from_bits(bits) * TENS[places]).round();
    let is_exact = whole.abs() < MOST && (whole as i64 as f64 / TENS[places]).to_bits() == bits;
    is_exact.then_some(whole as i64)
}

pub(super) struct Unpacker<'a> {
    bytes: &'a [u8],
    value: u64,
    whole: i64,
    decimal: i64,
}

impl<'a> Unpacker<'a> {
    fn new(bytes: &'a [u8]) -> Unpacker<'a> {
        Unpacker {
            bytes,
            value: 0,
            whole: 0,
            decimal: 0,
        }
    }

    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        Some(*first)
    }

    fn count(&mut self) -> Option<u64> {
        let mut count = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            count |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(count);
            }
        }
        None
    }

    /// How many follow, each of at least one byte.
    fn length(&mut self) -> Option<usize> {
        let length = usize::try_from(self.count()?).ok()?;
        (length <= self.bytes.len()).then_some(length)
    }

    fn whole(&mut self) -> Option<i64> {
        self.whole = self.whole.wrapping_add(self.difference()?);
        Some(self.whole)
    }

    fn difference(&mut self) -> Option<i64> {
        let folded = self.count()?;
        Some((folded >> 1) as i64 ^ -((folded & 1) as i64))
    }

    fn value(&mut self) -> Option<u64> {
        let head = self.byte()?;
        if let Some(places) = head.checked_sub(DECIMAL) {
            let ten = TENS.get(usize::from(places))?;
            self.decimal = self.decimal.wrapping_add(self.difference()?);
            self.value = (self.decimal as f64 / ten).to_bits();
            return Some(self.value);
        }
        let head = usize::from(head);
        let (front, end) = (head >> 4, (head >> 4) + (head & 0xf));
        let mut difference = [0; 8];
        for byte in difference.get_mut(front..end)? {
            *byte = self.byte()?;
        }
        self.value ^= u64::from_be_bytes(difference);
        Some(self.value)
    }

    fn sparse(&mut self, most: usize) -> Option<Vec<u8>> {
        let length = usize::try_from(self.count()?).ok()?;
        if length > most {
            return None;
        }
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            let byte = self.byte()?;
            bytes.push(byte);
            if byte == 0 {
                let more = usize::try_from(self.count()?).ok()?;
                if more > length - bytes.len() {
                    return None;
                }
                bytes.resize(bytes.len() + more, 0);
            }
        }
        Some(bytes)
    }
}

impl Packed for Vec<f64> {
    fn pack(&self, to: &mut Packer) -> Option<()> {
        to.count(self.len() as u64);
        self.iter().for_each(|value| to.value(value.to_bits()));
        Some(())
    }

    fn unpack(from: &mut Unpacker<'_>) -> Option<Vec<f64>> {
        let length = from.length()?;
        (0..length)
            .map(|_| from.value().map(f64::from_bits))
            .collect()
    }
}

/// Readings in the order of time.
impl Packed for VecDeque<(Timestamp, f64)> {
    fn pack(&self, to: &mut Packer) -> Option<()> {
        to.count(self.len() as u64);
        for (time, value) in self {
            to.whole(time.as_nanos());
            to.value(value.to_bits());
        }
        Some(())
    }

    fn unpack(from: &mut Unpacker<'_>) -> Option<Self> {
        let length = from.length()?;
        let mut reading = || {
            let time = Timestamp::from_nanos(from.whole()?);
            Some((time, f64::from_bits(from.value()?)))
        };
        (0..length).map(|_| reading()).collect()
    }
}

/// Counts by the bits of values. In order, so that what is equal has equal bytes.
impl Packed for HashMap<u64, u32> {
    fn pack(&self, to: &mut Packer) -> Option<()> {
        let mut entries: Vec<(u64, u32)> =
            self.iter().map(|(bits, count)| (*bits, *count)).collect();
        entries.sort_unstable();
        to.count(entries.len() as u64);
        for (bits, count) in entries {
            to.value(bits);
            to.count(count.into());
        }
        Some(())
    }

    fn unpack(from: &mut Unpacker<'_>) -> Option<Self> {
        let length = from.length()?;
        let mut entry = || Some((from.value()?, u32::try_from(from.count()?).ok()?));
        (0..length).map(|_| entry()).collect()
    }
}

/// All that it is made of, but for bins of which nothing is in; there are few others.
impl Packed for Box<DDSketch> {
    fn pack(&self, to: &mut Packer) -> Option<()> {
        to.sparse(&postcard::to_allocvec(&**self).ok()?);
        Some(())
    }

    fn unpack(from: &mut Unpacker<'_>) -> Option<Self> {
        // Two times 2,048 bins of at most 10 bytes, and some more.
        const MOST_BYTES: usize = 50_000;
        let bytes = from.sparse(MOST_BYTES)?;
        postcard::from_bytes(&bytes).ok().map(Box::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sketches_ddsketch::Config;

    fn packed(it: &impl Packed) -> Vec<u8> {
        let mut packer = Packer::default();
        it.pack(&mut packer).expect("it has a form");
        packer.bytes
    }

    fn unpacked<T: Packed>(bytes: &[u8]) -> Option<T> {
        let mut unpacker = Unpacker::new(bytes);
        T::unpack(&mut unpacker).filter(|_| unpacker.bytes.is_empty())
    }

    /// Comes back to the last bit, from so many bytes; and no part of them can be read.
    fn check<T: Packed + std::fmt::Debug>(it: T, size: usize) {
        let bytes = packed(&it);
        let found = unpacked::<T>(&bytes).expect("as written");
        assert_eq!(format!("{found:?}"), format!("{it:?}"));
        assert_eq!(bytes.len(), size, "{it:?}");
        for cut in 0..bytes.len() {
            assert!(unpacked::<T>(&bytes[..cut]).is_none(), "{cut}: {it:?}");
        }
    }

    #[test]
    fn numbers_come_back_to_the_last_bit_from_few_bytes() {
        check(Vec::<f64>::new(), 1);
        let extremes = [-0.0, f64::INFINITY, f64::NAN, 5e-324, f64::MAX];
        check(extremes.to_vec(), 26);
        check(vec![21.5; 100], 1 + 3 + 99);
        check(vec![21.0, 21.0625, 21.125, 21.1], 1 + 2 + 4 + 3 + 3);
        check(vec![21.37, 21.38, 21.41], 1 + 3 + 2 + 2);
        check(vec![1e15, 1e15 + 1.0, -1e15, 1e16], 1 + 9 + 2 + 9 + 8);
        let third = 1.0 / 3.0;
        check(vec![third, third + 0.01, 0.01, third], 1 + 9 + 7 + 3 + 7);
    }

    #[test]
    fn readings_and_counts_come_back() {
        let at = |nanos| Timestamp::from_nanos(nanos);
        check(VecDeque::from([(at(5), 1.5), (at(1_000_000_005), 1.5)]), 10);
        check(
            VecDeque::from([(at(i64::MIN), 0.0), (at(i64::MAX), f64::MIN)]),
            22,
        );
        check(HashMap::from([(7, 1)]), 4);
        check(HashMap::from([(u64::MAX, u32::MAX)]), 15);
    }

    #[test]
    fn counts_have_the_same_bytes_in_whatever_order_they_came() {
        let counts = |order: &mut dyn Iterator<Item = u64>| -> HashMap<u64, u32> {
            order.map(|bits| (bits, 1)).collect()
        };
        let (there, back) = (counts(&mut (0..100)), counts(&mut (0..100).rev()));
        assert_eq!(packed(&there), packed(&back));
    }

    #[test]
    fn garbage_is_refused_and_reserves_no_memory() {
        assert!(unpacked::<Vec<f64>>(&[0xff; 20]).is_none(), "a huge count");
        assert!(unpacked::<Vec<f64>>(&[1, 0x95, 0]).is_none(), "no head");
        assert!(
            unpacked::<Vec<f64>>(&[1, 0x80, 0]).is_none(),
            "one too many"
        );
        let huge = [0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0];
        assert!(unpacked::<Box<DDSketch>>(&huge).is_none(), "a huge length");
        assert!(unpacked::<Box<DDSketch>>(&[4, 0, 5]).is_none(), "5 in 4");
    }

    #[test]
    fn a_sketch_goes_on_as_if_nothing_had_happened() {
        let mut sketch = Box::new(DDSketch::new(Config::new(0.01, 2048, f64::MIN_POSITIVE)));
        let value = |place: i32| match place % 7 {
            0 => 0.0,
            1 => -20.0 - f64::from(place % 50),
            _ => 20.0 + f64::from(place % 90) / 10.0,
        };
        (0..5_000).for_each(|place| sketch.add(value(place)));
        let bytes = packed(&sketch);
        assert!(bytes.len() < 600, "{}", bytes.len());
        let mut found = unpacked::<Box<DDSketch>>(&bytes).expect("as written");
        // On to where the least bins are merged.
        let more = (0..3_000).map(|place| value(place) * 1.02_f64.powi(place));
        for (place, value) in more.enumerate() {
            sketch.add(value);
            found.add(value);
            for quantile in [0.0, 0.01, 0.3, 0.5, 0.9, 1.0] {
                let of = |it: &DDSketch| format!("{:?}", it.quantile(quantile));
                assert_eq!(of(&found), of(&sketch), "{place}");
            }
        }
    }
}
