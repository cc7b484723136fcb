//! Tagged documents as text: JSON lines, PubTator, tab-separated values.

mod jsonl;
mod pubtator;
mod tsv;

use clap::ValueEnum;
use litflow::tagger::TaggedDocument;
use std::io::{self, Write};

/// What `litflow tag` writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// One JSON object per article: passages, sentences, mentions
    Jsonl,
    /// Title and abstract lines, then one line per mention
    Pubtator,
    /// A header, then one line per mention
    Tsv,
}

impl Format {
    /// What stands before the first document.
    pub fn write_header(self, out: &mut dyn Write) -> io::Result<()> {
        match self {
            Self::Tsv => tsv::write_header(out),
            Self::Jsonl | Self::Pubtator => Ok(()),
        }
    }

    /// One document.
    pub fn write(self, tagged: &TaggedDocument, out: &mut dyn Write) -> io::Result<()> {
        match self {
            Self::Jsonl => jsonl::write(tagged, out),
            Self::Pubtator => pubtator::write(tagged, out),
            Self::Tsv => tsv::write(tagged, out),
        }
    }
}

/// A score to four decimals: what lies beyond is noise of the arithmetic.
fn rounded(score: f32) -> f64 {
    (f64::from(score) * 1e4).round() / 1e4
}

#[cfg(test)]
mod tests;
