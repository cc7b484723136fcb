//! The older annotations of the articles that are to be done, on disk until their turn comes.
//!
//! The report compares them with the newer ones; in memory they would take hundreds of bytes an article. The file has
//! no name and goes with the process. An article takes [`HEADER`] bytes, and [`MENTION`] for each mention.

use super::diff::Span;
use std::fs::File;
use std::io::{self, Write as _};
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt as _;

/// Bytes of an article without mentions.
pub const HEADER: usize = 24;
/// Bytes of a mention.
pub const MENTION: usize = 20;
/// What is collected before it is written.
const BUFFER: usize = 1 << 20;

/// Where an article's annotations stand in the file.
pub type Place = NonZeroU64;

/// What the older version said about an article.
#[derive(Debug, Clone, PartialEq)]
pub struct Older {
    /// Partition on `articles` of the event that was annotated.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Of the text, see [`Survey`](super::plan::Survey).
    pub fingerprint: u64,
    /// The mentions.
    pub spans: Vec<Span>,
}

/// The file.
pub struct Spool {
    file: File,
    /// What is not written yet; it begins at `written`.
    buffer: Vec<u8>,
    written: u64,
}

impl Spool {
    /// In the folder for temporary files (`TMPDIR`).
    pub fn new() -> io::Result<Self> {
        // One byte, so that no article stands at 0.
        Ok(Self { file: tempfile::tempfile()?, buffer: vec![0], written: 0 })
    }

    /// Keeps what was said about an article.
    pub fn put(&mut self, older: &Older) -> io::Result<Place> {
        let place = self.written + self.buffer.len() as u64;
        let place = NonZeroU64::new(place).expect("the file begins with a byte of no article");
        self.buffer.extend(older.partition.to_le_bytes());
        self.buffer.extend(older.offset.to_le_bytes());
        self.buffer.extend(older.fingerprint.to_le_bytes());
        self.buffer.extend((older.spans.len() as u32).to_le_bytes());
        for span in &older.spans {
            for number in [span.passage, span.begin, span.end, span.entity_type, span.score.to_bits()] {
                self.buffer.extend(number.to_le_bytes());
            }
        }
        if self.buffer.len() >= BUFFER {
            self.flush()?;
        }
        Ok(place)
    }

    /// What was said about the article at `place`.
    pub fn get(&mut self, place: Place) -> io::Result<Older> {
        self.flush()?;
        let mut header = [0; HEADER];
        self.file.read_exact_at(&mut header, place.get())?;
        let (partition, rest) = take(&header);
        let (offset, rest) = take(rest);
        let (fingerprint, rest) = take(rest);
        let (mentions, _) = take(rest);
        let mut body = vec![0; u32::from_le_bytes(mentions) as usize * MENTION];
        self.file.read_exact_at(&mut body, place.get() + HEADER as u64)?;
        let span = |mention: &[u8]| {
            let (passage, rest) = take(mention);
            let (begin, rest) = take(rest);
            let (end, rest) = take(rest);
            let (entity_type, rest) = take(rest);
            let (score, _) = take(rest);
            let [passage, begin, end, entity_type] = [passage, begin, end, entity_type].map(u32::from_le_bytes);
            Span { passage, begin, end, entity_type, score: f32::from_le_bytes(score) }
        };
        Ok(Older {
            partition: i32::from_le_bytes(partition),
            offset: i64::from_le_bytes(offset),
            fingerprint: u64::from_le_bytes(fingerprint),
            spans: body.chunks_exact(MENTION).map(span).collect(),
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all(&self.buffer)?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

/// The first `N` bytes, and the rest.
fn take<const N: usize>(bytes: &[u8]) -> ([u8; N], &[u8]) {
    let (first, rest) = bytes.split_first_chunk().expect("the fields fill HEADER and MENTION");
    (*first, rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_put_is_got_in_any_order(articles in prop::collection::vec((any::<i32>(), any::<i64>(), 0..60u32), 1..60)) {
            let mut spool = Spool::new().unwrap();
            let older = |&(partition, offset, mentions): &(i32, i64, u32)| Older {
                partition,
                offset,
                fingerprint: offset as u64 ^ 7,
                spans: (0..mentions)
                    .map(|n| Span { passage: n, begin: n, end: u32::MAX - n, entity_type: n % 3, score: 1.0 / n as f32 })
                    .collect(),
            };
            let places: Vec<Place> = articles.iter().map(|article| spool.put(&older(article)).unwrap()).collect();
            for (article, &place) in articles.iter().zip(&places).rev() {
                prop_assert_eq!(spool.get(place).unwrap(), older(article));
            }
        }
    }

    #[test]
    fn articles_larger_than_the_buffer_go_through() {
        let span = Span { passage: 0, begin: 1, end: 2, entity_type: 3, score: 0.5 };
        let older = Older { partition: 1, offset: 2, fingerprint: 3, spans: vec![span; 2 * BUFFER / MENTION] };
        let mut spool = Spool::new().unwrap();
        let places = [spool.put(&older).unwrap(), spool.put(&older).unwrap()];
        assert_eq!(spool.get(places[1]).unwrap(), older);
        let behind = spool.put(&older).unwrap();
        assert_eq!(spool.get(behind).unwrap(), spool.get(places[0]).unwrap());
    }
}
