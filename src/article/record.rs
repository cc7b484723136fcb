//! What goes wrong with one record of an input, and how much of a record is taken.

use super::event::MOST_PASSAGES;
use super::{ArticleEvent, Op};
use crate::error::ErrorClass;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::{fmt, io};

/// How much is taken from an input before it is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Longest record (one citation, one article, one line, one text file) in bytes as it stands in
    /// the decompressed input. A longer one is skipped and reported; memory stays bounded by it.
    pub max_record_bytes: usize,
    /// Deepest nesting of XML elements inside a record.
    pub max_xml_depth: usize,
    /// Most passages of an article. Each takes memory of its own, however short it is.
    pub max_passages: usize,
}

impl Default for Options {
    fn default() -> Self {
        // The longest real articles (PMC theses and conference supplements) have a few MB of XML; their
        // deepest elements (MathML in tables in boxed text) lie some 40 levels down. The longest have some
        // thousands of paragraphs.
        Self { max_record_bytes: 64 << 20, max_xml_depth: 256, max_passages: 100_000 }
    }
}

impl Options {
    /// Values that cannot be; the message names the key.
    pub fn check(&self) -> Result<(), String> {
        // Readers recurse with the elements, on a thread's stack.
        const DEEPEST: usize = 1024;
        if self.max_record_bytes == 0 {
            return Err("articles.max_record_bytes must be at least 1".into());
        }
        if !(1..=DEEPEST).contains(&self.max_xml_depth) {
            return Err(format!("articles.max_xml_depth must be 1 to {DEEPEST}"));
        }
        if !(1..=MOST_PASSAGES).contains(&self.max_passages) {
            return Err(format!("articles.max_passages must be 1 to {MOST_PASSAGES}"));
        }
        Ok(())
    }
}

/// One record that could not be read. Its neighbours are not affected.
#[derive(Debug, thiserror::Error)]
pub struct RecordError {
    /// The input: a path, or `stdin`.
    pub file: String,
    /// Where the record is, or the exact place in it where that is known.
    pub position: Option<Position>,
    /// The record's id as far as it was read.
    pub id: Option<String>,
    /// What is wrong.
    #[source]
    pub reason: Reason,
}

/// Where a record stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The input: a path, or `stdin`.
    pub file: Arc<str>,
    /// Where in it.
    pub position: Option<Position>,
}

/// A place in an input, decompressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// Lines, from 1.
    Line(u64),
    /// Bytes from the input's start, from 0.
    Byte(u64),
}

/// Why a record could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Reason {
    /// It breaks the rules of its format.
    #[error("{0}")]
    Malformed(String),
    /// It is longer than [`Options::max_record_bytes`].
    #[error("longer than {limit} bytes (max_record_bytes); raise the limit if this is a real article")]
    TooLong {
        /// The limit in force.
        limit: usize,
    },
    /// Its elements nest deeper than [`Options::max_xml_depth`].
    #[error("nested deeper than {limit} elements (max_xml_depth)")]
    TooDeep {
        /// The limit in force.
        limit: usize,
    },
    /// It has more passages than [`Options::max_passages`].
    #[error("{passages} passages, more than {limit} (max_passages); raise the limit if this is a real article")]
    TooManyPassages {
        /// How many it has.
        passages: usize,
        /// The limit in force.
        limit: usize,
    },
    /// Its bytes are no text.
    #[error("{0}")]
    Encoding(String),
    /// The input is not in the format that it was read as, or in none that is known.
    #[error("{0}")]
    Format(String),
    /// The input could not be read further.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
}

impl Reason {
    /// What this means for the stream: a record that cannot be parsed never will be; a file that
    /// cannot be read ends.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Io(_) => ErrorClass::Fatal,
            _ => ErrorClass::Poison,
        }
    }

    pub(crate) fn malformed(what: impl Into<String>) -> Self {
        Self::Malformed(what.into())
    }

    /// The reason for bytes that are not UTF-8, with the place of the first bad one.
    pub(crate) fn not_utf8(error: std::str::Utf8Error) -> Self {
        Self::Encoding(format!("invalid UTF-8 at byte {} of the record", error.valid_up_to()))
    }
}

impl RecordError {
    /// See [`Reason::class`].
    pub fn class(&self) -> ErrorClass {
        self.reason.class()
    }
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_place(f, &self.file, self.position)?;
        if let Some(id) = &self.id {
            write!(f, ", record {id}")?;
        }
        write!(f, ": {}", self.reason)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_place(f, &self.file, self.position)
    }
}

fn write_place(f: &mut fmt::Formatter<'_>, file: &str, position: Option<Position>) -> fmt::Result {
    f.write_str(file)?;
    match position {
        Some(Position::Line(line)) => write!(f, ", line {line}"),
        Some(Position::Byte(byte)) => write!(f, ", byte {byte}"),
        None => Ok(()),
    }
}

/// The event, unless there is nothing to read in the article.
pub(crate) fn with_content(event: ArticleEvent) -> Result<ArticleEvent, Reason> {
    let mut texts = event.title.iter().chain(event.passages.iter().map(|passage| &passage.text));
    if event.op == Op::Upsert && texts.all(|text| text.trim().is_empty()) {
        return Err(Reason::malformed("the article has neither title nor text"));
    }
    Ok(event)
}

/// The event, unless it has too many passages.
pub(crate) fn within_limits(event: ArticleEvent, options: &Options) -> Result<ArticleEvent, Reason> {
    let (passages, limit) = (event.passages.len(), options.max_passages);
    if passages > limit { Err(Reason::TooManyPassages { passages, limit }) } else { Ok(event) }
}

/// A record's events, unless there is nothing to read in one of them.
pub(crate) fn all_with_content(events: Vec<ArticleEvent>) -> Result<Vec<ArticleEvent>, Reason> {
    events.into_iter().map(with_content).collect()
}

/// The article id for what a source calls its record: the id itself where it is a CURIE already
/// (`pmid:12345`), else `<source>:<id>`. What it makes of an id, odd ones with spaces too, stays the same when it is
/// given back to it: an export that is read again must not be another article.
pub fn article_id(source: &str, id: &str) -> String {
    let is_curie = id.split_once(':').is_some_and(|(prefix, local)| {
        let mut prefix = prefix.chars();
        prefix.next().is_some_and(|first| first.is_ascii_alphabetic())
            && prefix.all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
            && !local.is_empty()
    });
    if is_curie { id.to_owned() } else { format!("{source}:{id}") }
}

/// The article id for a record's id in a source whose ids are PMIDs and PMCIDs, bare or with their prefix, and
/// others: `pmid:…`, `pmc:…`, else as [`article_id`] makes it.
pub fn curie(source: &str, id: &str) -> String {
    if is_pmid(id) {
        format!("pmid:{id}")
    } else if is_pmcid(id) {
        format!("pmc:{id}")
    } else {
        article_id(source, id)
    }
}

/// Whether a bare id is a PubMed id. They have eight digits by now; longer numbers are other sources' ids.
pub(crate) fn is_pmid(id: &str) -> bool {
    (1..=8).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_digit())
}

/// Whether a bare id is a PubMed Central id with its prefix.
pub(crate) fn is_pmcid(id: &str) -> bool {
    id.strip_prefix("PMC").is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// What is written under its id and read again is the same article.
        #[test]
        fn an_id_that_was_made_is_kept(source in "[a-z][a-z-]{0,8}", id in ".{1,20}") {
            for make in [article_id, curie] {
                let made = make(&source, &id);
                prop_assert_eq!(make(&source, &made), made.clone());
                prop_assert_eq!(make("jsonl", &made), made);
            }
        }
    }
}
