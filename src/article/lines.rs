//! Lines of an input, numbered, with a cap on their length.

use super::record::Reason;
use std::io::{self, BufRead};

/// Reads one line at a time. A line longer than the cap is skipped to its end, in bounded memory.
pub struct Lines<R> {
    reader: R,
    number: u64,
    max_bytes: usize,
    buffer: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    /// Lines of at most `max_bytes`.
    pub fn new(reader: R, max_bytes: usize) -> Self {
        Self { reader, number: 0, max_bytes, buffer: Vec::new() }
    }

    /// The number of the line last read, from 1.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The next line without its `\n` or `\r\n` (and, on the first line, without a byte order mark);
    /// `None` at the end. After `Reason::Io` the input is not to be read further.
    pub fn next_line(&mut self) -> Option<Result<&str, Reason>> {
        self.buffer.clear();
        match self.fill_buffer() {
            Ok(Line::End) => return None,
            Ok(Line::TooLong) => {
                self.number += 1;
                return Some(Err(Reason::TooLong { limit: self.max_bytes }));
            }
            Ok(Line::Whole) => self.number += 1,
            Err(error) => return Some(Err(error.into())),
        }
        let mut line = self.buffer.as_slice();
        line = line.strip_suffix(b"\n").unwrap_or(line);
        line = line.strip_suffix(b"\r").unwrap_or(line);
        if self.number == 1 {
            line = line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line);
        }
        Some(std::str::from_utf8(line).map_err(Reason::not_utf8))
    }

    fn fill_buffer(&mut self) -> io::Result<Line> {
        let mut too_long = false;
        let mut began = false;
        loop {
            let available = match self.reader.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                available => available?,
            };
            if available.is_empty() {
                return Ok(match (began, too_long) {
                    (false, _) => Line::End,
                    (true, false) => Line::Whole,
                    (true, true) => Line::TooLong,
                });
            }
            began = true;
            let newline = memchr::memchr(b'\n', available);
            let length = newline.map_or(available.len(), |at| at + 1);
            too_long = too_long || self.buffer.len() + length > self.max_bytes;
            if too_long {
                self.buffer = Vec::new();
            } else {
                self.buffer.extend_from_slice(&available[..length]);
            }
            self.reader.consume(length);
            if newline.is_some() {
                return Ok(if too_long { Line::TooLong } else { Line::Whole });
            }
        }
    }
}

enum Line {
    Whole,
    TooLong,
    End,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_in_any_way_and_long_ones_are_skipped() {
        let input = b"\xEF\xBB\xBFone\r\n\nlonger than ten\nbad \xFF\nlast";
        let mut lines = Lines::new(io::BufReader::with_capacity(3, &input[..]), 10);
        assert_eq!(lines.next_line().unwrap().unwrap(), "one");
        assert_eq!(lines.next_line().unwrap().unwrap(), "");
        assert!(matches!(lines.next_line(), Some(Err(Reason::TooLong { limit: 10 }))));
        assert_eq!(lines.number(), 3);
        let Some(Err(reason)) = lines.next_line() else { panic!("bad UTF-8 was taken") };
        assert_eq!(reason.to_string(), "invalid UTF-8 at byte 4 of the record");
        assert_eq!(lines.next_line().unwrap().unwrap(), "last");
        assert!(lines.next_line().is_none());
        assert_eq!(lines.number(), 5);
    }
}
