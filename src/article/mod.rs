//! Articles: the events on the `articles` topic and the documents that are tagged.
//!
//! An [`ArticleEvent`] is what travels (`schemas/ArticleEvent.avsc` is its contract). Its content is
//! either parsed already (title and passages) or a raw document with its content type, parsed by the
//! worker. A [`Document`] is the tagger's view: the passages in order, title first.

pub mod bioc;
pub mod event;
mod format;
pub mod input;
mod jats;
pub mod json;
mod jsonl;
pub mod lines;
mod pubmed;
pub mod pubtator;
mod raw;
mod reader;
mod record;
mod section;
pub mod xml;

pub use event::{ArticleEvent, ArticleIds, Claim, MeshHeading, Op, Passage, RawDocument, Section};
pub use format::Format;
pub use raw::parse_raw;
pub use reader::{Articles, Progress, read_events};
pub use record::{Options, Place, Position, Reason, RecordError, article_id, curie};

/// The unit of tagging: one version of one article, its passages unaltered.
///
/// Passages are joined by one character, so passage `i + 1` starts in the document one code point
/// after the end of passage `i`.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// The article's id, a CURIE such as `pmid:12345`.
    pub article_id: String,
    /// The article's version.
    pub article_version: i64,
    /// The passages; a title comes first, with [`Section::Title`].
    pub passages: Vec<Passage>,
}

impl Document {
    /// Where each passage starts in the document, in code points.
    pub fn passage_offsets(&self) -> Vec<u32> {
        let mut offset = 0u32;
        self.passages
            .iter()
            .map(|passage| {
                let start = offset;
                offset += passage.text.chars().count() as u32 + 1;
                start
            })
            .collect()
    }
}
