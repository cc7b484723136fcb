//! Cuts records (`<PubmedArticle>…</PubmedArticle>`) out of a stream of bytes without parsing it.
//!
//! So a broken record cannot hurt its neighbours: whatever is in it, the next start tag begins the
//! next one. Memory is bounded by the longest record allowed, and each record is parsed on its own,
//! with its position known. Tags are found as bytes: a record's end tag inside a comment or a CDATA
//! section would end the record too early, and the record would be reported as broken.

use crate::article::record::{Options, Reason};
use regex::bytes::Regex;
use std::io::{self, Read};

/// How much is read at a time.
const CHUNK: usize = 256 << 10;
/// How much of what stands between two records is kept to be looked at.
const MAX_GAP: usize = 64 << 10;
/// No start tag of a record begins further back from the end of what was read than this; with it, a
/// tag that is only half there yet is found by the next search.
const MAX_TAG_NAME: usize = 64;

/// The records of a stream.
pub(crate) struct Splitter<R> {
    source: R,
    /// What was read and not yet handed out stands at `start..end`; what follows is room, zeroed once.
    buffer: Vec<u8>,
    end: usize,
    /// Where in the buffer what was not yet handed out begins, and where in the stream that is.
    start: usize,
    offset: u64,
    at_end: bool,
    max_record_bytes: usize,
    start_tag: Regex,
    any_tag: Regex,
}

/// A piece of the stream.
#[derive(Debug)]
pub(crate) enum Piece {
    /// What stands before, between and after the records, if anything (its first 64 KiB).
    Gap { position: u64, bytes: Vec<u8> },
    /// A record from its start tag to its end tag.
    Record { position: u64, bytes: Vec<u8> },
    /// A record that has no end, or too many bytes.
    Broken { position: u64, begin: Vec<u8>, reason: Reason },
}

impl<R: Read> Splitter<R> {
    /// `names` are the elements that are records. They must not nest.
    pub(crate) fn new(source: R, names: &[&str], options: &Options) -> Self {
        debug_assert!(names.iter().all(|name| name.len() + 4 < MAX_TAG_NAME));
        let names = names.join("|");
        let regex = |pattern: String| Regex::new(&pattern).expect("a list of names makes a valid pattern");
        Self {
            source,
            buffer: Vec::new(),
            end: 0,
            start: 0,
            offset: 0,
            at_end: false,
            max_record_bytes: options.max_record_bytes,
            start_tag: regex(format!(r"(?-u)<(?:{names})[\s/>]")),
            any_tag: regex(format!(r"(?-u)</?(?:{names})[\s/>]")),
        }
    }

    /// Reads another chunk; false at the end.
    fn fill(&mut self) -> io::Result<bool> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        let room = self.end..self.end + CHUNK;
        if self.buffer.len() < room.end {
            self.buffer.resize(room.end, 0);
        }
        let read = loop {
            match self.source.read(&mut self.buffer[room.clone()]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        self.end += *read.as_ref().unwrap_or(&0);
        self.at_end = !matches!(read, Ok(1..));
        read.map(|read| read > 0)
    }

    /// Where in the stream what was not yet handed out begins, in bytes.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether everything was handed out.
    pub(crate) fn is_at_end(&self) -> bool {
        self.at_end && self.pending().is_empty()
    }

    /// What was read and not yet handed out.
    fn pending(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Hands out the first `length` bytes of what is pending.
    fn consume(&mut self, length: usize) -> &[u8] {
        let begin = self.start;
        self.start += length;
        self.offset += length as u64;
        &self.buffer[begin..self.start]
    }

    /// The next piece; `None` at the end. After an error the stream is at its end.
    pub(crate) fn next_piece(&mut self) -> io::Result<Option<Piece>> {
        let (position, mut gap) = (self.offset, Vec::new());
        loop {
            let pending = self.pending();
            let (length, found) = match self.start_tag.find(pending) {
                Some(tag) => (tag.start(), true),
                None if self.at_end => (pending.len(), true),
                None => (pending.len().saturating_sub(MAX_TAG_NAME), false),
            };
            let kept = length.min(MAX_GAP.saturating_sub(gap.len()));
            gap.extend_from_slice(&self.consume(length)[..kept]);
            if found {
                break;
            }
            self.fill()?;
        }
        if !gap.trim_ascii().is_empty() {
            return Ok(Some(Piece::Gap { position, bytes: gap }));
        }
        if self.pending().is_empty() {
            return Ok(None);
        }
        self.next_record().map(Some)
    }

    /// The record whose start tag is pending.
    fn next_record(&mut self) -> io::Result<Piece> {
        let position = self.offset;
        let begin = self.pending()[..self.pending().len().min(1024)].to_vec();
        let mut searched = 1; // past the start tag's `<`
        let mut too_long = false;
        loop {
            let pending = self.pending();
            let tag = self.any_tag.find_at(pending, searched).map(|tag| tag.start());
            let is_end_tag = |at: usize| pending[at + 1] == b'/';
            let (length, unclosed) = match tag {
                Some(at) if is_end_tag(at) => match memchr::memchr(b'>', &pending[at..]) {
                    Some(close) => (at + close + 1, false),
                    None if self.at_end || pending.len() - at > MAX_GAP => (pending.len(), true),
                    // Its `>` is still to come.
                    None => {
                        searched = self.read_on(at, &mut too_long)?;
                        continue;
                    }
                },
                Some(at) => (at, true),
                None if self.at_end => (pending.len(), true),
                // A tag may begin in the last bytes: they are searched again.
                None => {
                    let at = pending.len().saturating_sub(MAX_TAG_NAME).max(searched);
                    searched = self.read_on(at, &mut too_long)?;
                    continue;
                }
            };
            if too_long || length > self.max_record_bytes {
                self.consume(length);
                return Ok(Piece::Broken { position, begin, reason: Reason::TooLong { limit: self.max_record_bytes } });
            }
            if unclosed {
                let what = if tag.is_some() { "the next record begins" } else { "the input ends" };
                let reason = Reason::malformed(format!("{what} before this one's end tag"));
                self.consume(length);
                return Ok(Piece::Broken { position, begin, reason });
            }
            return Ok(Piece::Record { position, bytes: self.consume(length).to_vec() });
        }
    }

    /// Reads another chunk of a record that was searched as far as `at`, and says where to search on.
    /// Of a record beyond the cap only what is still to be searched is kept.
    fn read_on(&mut self, at: usize, too_long: &mut bool) -> io::Result<usize> {
        *too_long |= self.pending().len() > self.max_record_bytes;
        let dropped = if *too_long { at } else { 0 };
        self.consume(dropped);
        self.fill()?;
        Ok(at - dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Reads a few bytes at a time.
    struct Trickle<'a>(&'a [u8], usize);

    impl Read for Trickle<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = self.1.min(self.0.len()).min(buffer.len());
            buffer[..length].copy_from_slice(&self.0[..length]);
            self.0 = &self.0[length..];
            Ok(length)
        }
    }

    fn pieces(input: &str, chunk: usize, max_record_bytes: usize) -> Vec<String> {
        let options = Options { max_record_bytes, ..Options::default() };
        let mut splitter = Splitter::new(Trickle(input.as_bytes(), chunk), &["rec", "record"], &options);
        let mut pieces = Vec::new();
        while let Some(piece) = splitter.next_piece().unwrap() {
            let text = |bytes| String::from_utf8(bytes).unwrap();
            pieces.push(match piece {
                Piece::Gap { position, bytes } => format!("gap {position} {}", text(bytes).trim()),
                Piece::Record { position, bytes } => format!("record {position} {}", text(bytes)),
                Piece::Broken { position, reason, .. } => format!("broken {position} {reason}"),
            });
        }
        pieces
    }

    #[test]
    fn records_are_cut_whatever_the_chunks() {
        let input = "<set> <rec>one</rec>\n<rec a='1'/>x</rec > <recs/> <record><rec-x/></record>\n</set>";
        for chunk in [1, 2, 7, 1000] {
            assert_eq!(
                pieces(input, chunk, 1000),
                [
                    "gap 0 <set>",
                    "record 6 <rec>one</rec>",
                    "record 21 <rec a='1'/>x</rec >",
                    "gap 41 <recs/>",
                    "record 50 <record><rec-x/></record>",
                    "gap 75 </set>",
                ]
            );
        }
    }

    #[test]
    fn a_broken_record_ends_where_the_next_begins() {
        let long = "x".repeat(100);
        let input = format!("<rec><!-- <rec>two</rec><rec>{long}</rec><rec>four</rec><rec>five");
        for chunk in [1, 3, 1000] {
            assert_eq!(
                pieces(&input, chunk, 50),
                [
                    "broken 0 the next record begins before this one's end tag",
                    "record 10 <rec>two</rec>",
                    "broken 24 longer than 50 bytes (max_record_bytes); raise the limit if this is a real article",
                    "record 135 <rec>four</rec>",
                    "broken 150 the input ends before this one's end tag",
                ]
            );
        }
    }

    #[test]
    fn memory_stays_bounded_by_the_cap() {
        let options = Options { max_record_bytes: 1000, ..Options::default() };
        let endless = io::Read::take(io::repeat(b'x'), 50 << 20);
        let mut splitter = Splitter::new((&b"<rec>"[..]).chain(endless), &["rec"], &options);
        assert!(matches!(splitter.next_piece(), Ok(Some(Piece::Broken { reason: Reason::TooLong { .. }, .. }))));
        assert!(splitter.buffer.capacity() < 4 * CHUNK);
    }

    proptest! {
        #[test]
        fn nothing_is_lost(input in "(</?rec(ord)?[ >]|[a-z<>/ ]){0,30}", chunk in 1usize..9) {
            let mut splitter = Splitter::new(Trickle(input.as_bytes(), chunk), &["rec", "record"], &Options::default());
            let mut expected = 0;
            while let Some(piece) = splitter.next_piece().unwrap() {
                let (Piece::Gap { position, .. } | Piece::Record { position, .. } | Piece::Broken { position, .. }) = piece;
                prop_assert!(input[expected as usize..position as usize].trim().is_empty());
                expected = splitter.offset;
            }
            prop_assert!(input[expected as usize..].trim().is_empty());
        }
    }
}
