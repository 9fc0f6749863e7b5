//! Lines of a file, in a buffer that does not grow beyond the longest line that is allowed.
//!
//! What is looked at stays in the buffer until it is taken, so that a row of several lines can be tried, and given up again.

use std::io::{self, ErrorKind, Read};

use memchr::memchr;

/// Bytes that are read at once.
const CHUNK: usize = 1 << 16;

pub(super) struct Lines<R> {
    source: R,
    buffer: Vec<u8>,
    /// What is in the buffer and not taken yet.
    start: usize,
    end: usize,
    is_at_end: bool,
    longest: usize,
    /// The line at `start`; the first is 1.
    line: u64,
    /// The bytes before `start`.
    position: u64,
}

/// What a look for the end of a line finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The line ends before this place, counted from what is not taken yet; its line feed belongs to it.
    End(usize),
    /// There is no further line.
    Nothing,
    /// It does not end within what is allowed.
    TooLong,
}

impl<R: Read> Lines<R> {
    pub(super) fn new(source: R, longest: usize) -> Lines<R> {
        Lines {
            source,
            buffer: vec![0; CHUNK],
            start: 0,
            end: 0,
            is_at_end: false,
            longest,
            line: 1,
            position: 0,
        }
    }

    /// Passes over a byte-order mark, and gives the beginning of the file.
    pub(super) fn begin(&mut self) -> io::Result<&[u8]> {
        while self.end < CHUNK && !self.is_at_end {
            self.fill()?;
        }
        if self.text(self.end).starts_with("\u{feff}".as_bytes()) {
            self.take(3, 0);
        }
        Ok(&self.buffer[self.start..self.end])
    }

    /// The number of the line that comes next.
    pub(super) fn line(&self) -> u64 {
        self.line
    }

    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Looks for the end of the line that begins `from` bytes after what has been taken.
    #[inline]
    pub(super) fn end_of_line(&mut self, from: usize) -> io::Result<Found> {
        let mut seen = from;
        loop {
            if let Some(place) = memchr(b'\n', &self.buffer[self.start + seen..self.end]) {
                return Ok(match seen + place + 1 {
                    length if length > self.longest => Found::TooLong,
                    length => Found::End(length),
                });
            }
            seen = self.end - self.start;
            if seen > self.longest {
                return Ok(Found::TooLong);
            }
            if self.is_at_end {
                return Ok(match seen {
                    length if length == from => Found::Nothing,
                    length => Found::End(length),
                });
            }
            self.fill()?;
        }
    }

    /// The first bytes of what has not been taken.
    #[inline]
    pub(super) fn text(&self, length: usize) -> &[u8] {
        &self.buffer[self.start..self.start + length]
    }

    /// Goes on behind so many bytes, which were so many lines.
    #[inline]
    pub(super) fn take(&mut self, length: usize, lines: u64) {
        self.start += length;
        self.position += length as u64;
        self.line += lines;
    }

    /// Goes on behind the end of the line, however long it is.
    pub(super) fn skip_line(&mut self) -> io::Result<()> {
        loop {
            let left = self.end - self.start;
            if let Some(place) = memchr(b'\n', self.text(left)) {
                self.take(place + 1, 1);
                return Ok(());
            }
            self.take(left, 0);
            if self.is_at_end {
                return Ok(());
            }
            self.fill()?;
        }
    }

    /// Reads more behind what is there.
    fn fill(&mut self) -> io::Result<()> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.end == self.buffer.len() {
            self.buffer.resize(2 * self.end, 0);
        }
        loop {
            match self.source.read(&mut self.buffer[self.end..]) {
                Ok(read) => {
                    self.end += read;
                    self.is_at_end = read == 0;
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// A line without its end.
#[inline]
pub(super) fn without_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives a few bytes at a time.
    struct Slowly<'a>(&'a [u8]);

    impl Read for Slowly<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = self.0.len().min(buffer.len()).min(3);
            buffer[..length].copy_from_slice(&self.0[..length]);
            self.0 = &self.0[length..];
            Ok(length)
        }
    }

    fn check(text: &str, longest: usize, expected: &[&str]) {
        let mut lines = Lines::new(Slowly(text.as_bytes()), longest);
        let mut found = Vec::new();
        loop {
            match lines.end_of_line(0).unwrap() {
                Found::Nothing => break,
                Found::TooLong => {
                    found.push(format!("{}: too long", lines.line()));
                    lines.skip_line().unwrap();
                }
                Found::End(length) => {
                    let line = without_end(lines.text(length));
                    found.push(format!("{}: {}", lines.line(), line.escape_ascii()));
                    lines.take(length, 1);
                }
            }
        }
        assert_eq!(found, expected, "{text:?}");
        assert_eq!(lines.position(), text.len() as u64);
    }

    #[test]
    fn lines_have_any_end_and_those_too_long_are_passed_over() {
        check("", 10, &[]);
        check("a", 10, &["1: a"]);
        check("a\nbcde\r\n\n", 10, &["1: a", "2: bcde", "3: "]);
        check("123456789\n0", 10, &["1: 123456789", "2: 0"]);
        check("1234567890\n0\n", 10, &["1: too long", "2: 0"]);
        check(&"x".repeat(1_000), 10, &["1: too long"]);
    }

    #[test]
    fn a_row_of_several_lines_can_be_given_up() {
        let mut lines = Lines::new(Slowly(b"one\ntwo\nthree"), 100);
        assert_eq!(lines.end_of_line(0).unwrap(), Found::End(4));
        assert_eq!(lines.end_of_line(4).unwrap(), Found::End(8));
        assert_eq!(lines.end_of_line(8).unwrap(), Found::End(13));
        assert_eq!(lines.end_of_line(13).unwrap(), Found::Nothing);
        lines.take(4, 1);
        assert_eq!(lines.end_of_line(0).unwrap(), Found::End(4));
        assert_eq!((lines.text(4), lines.line()), (&b"two\n"[..], 2));
    }

    #[test]
    fn the_buffer_stays_small() {
        let mut lines = Lines::new(io::repeat(b'x').take(50_000_000), 1_000_000);
        assert_eq!(lines.end_of_line(0).unwrap(), Found::TooLong);
        lines.skip_line().unwrap();
        assert!(lines.buffer.len() <= 2_097_152, "{}", lines.buffer.len());
    }
}
