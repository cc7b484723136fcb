//! Labelled documents: read from the formats of corpora and annotation tools, checked, and written back.
//!
//! One file a format. Each reads [`SourceDocument`]s, which say no more than the source does, in the source's own
//! offsets, errors included. [`policy`] decides what of them becomes a
//! [`LabeledDocument`](litflow::bus::records::LabeledDocument), the value of the topic `labels`, and [`quarantine`]
//! keeps what does not. [`corpus`] does both for whole files, and merges the copies of a document.
//! `docs/labels.md` tells what each format can hold.

#![allow(clippy::single_range_in_vec_init)] // most annotations have one fragment

pub mod bioc;
pub mod brat;
pub mod conll;
pub mod corpus;
pub mod format;
pub mod jsonl;
pub mod knowtator;
pub mod label_studio;
pub mod policy;
pub mod prodigy;
pub mod pubtator;
pub mod quarantine;
pub mod writer;

pub(crate) use corpus::normalised;
pub use corpus::{Corpus, Scheme, Tally};
pub use format::Format;
pub use policy::{Discontinuous, OpenWords, Overlap};
pub use quarantine::{Cause, Entry, LeftOut, Quarantine};

use litflow::article::{Passage, RecordError, curie};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::ops::Range;
use std::path::PathBuf;

/// A document as its source has it, nothing checked. All offsets are code points of the document: of its
/// passages, each starting where [`SourceDocument::offsets`] says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceDocument {
    /// The document's id, a CURIE.
    pub id: String,
    /// The passages in order, a title first.
    pub passages: Vec<Passage>,
    /// Where each passage starts in the source's own count, ascending.
    pub offsets: Vec<u32>,
    /// The annotations in the source's order.
    pub annotations: Vec<Annotation>,
    /// Stretches whose labels the source says to be unknown, for every type.
    pub open: Vec<Range<u32>>,
    /// Every type that was looked for; `None` where the source does not say.
    pub entity_types: Option<Vec<String>>,
    /// Who annotated; `None` where the source does not say.
    pub annotator: Option<String>,
    /// The guideline that was followed.
    pub guideline: Option<String>,
    /// When, milliseconds since the epoch, UTC.
    pub annotated_at: Option<i64>,
}

/// An annotated mention as its source has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Annotation {
    /// The entity type as the source names it.
    pub entity_type: String,
    /// Where it stands; more than one stretch where it is discontinuous.
    pub fragments: Vec<Range<u32>>,
    /// The words as the source quotes them, fragments joined by `joint`; `None` where it does not quote.
    pub text: Option<String>,
    /// What joins the fragments in `text`.
    pub joint: Cow<'static, str>,
    /// Normalised ids as the source has them.
    pub identifiers: Vec<String>,
}

/// The documents of one input; a record that cannot be read is an error, and the next item the next record.
pub type Documents = Box<dyn Iterator<Item = Result<SourceDocument, RecordError>>>;

/// How inputs are read.
#[derive(Debug, Clone, Default)]
pub struct ReadOptions {
    /// How much of a record is taken.
    pub limits: litflow::article::Options,
    /// Where the texts lie that Knowtator's files speak of; they are looked for nearby where this is `None`.
    pub texts: Option<PathBuf>,
}

impl SourceDocument {
    /// A document of one passage, so that offsets are those of its text.
    pub fn of_text(id: String, text: String) -> Self {
        let passage = Passage::new(litflow::article::Section::Body, text);
        Self { id, passages: vec![passage], offsets: vec![0], ..Self::default() }
    }
}

/// Where passages start that are joined by one character, as everywhere in litflow.
pub fn joined_offsets(passages: &[Passage]) -> Vec<u32> {
    let mut next = 0u32;
    let lengths = passages.iter().map(|passage| u32::try_from(passage.text.chars().count()).unwrap_or(u32::MAX));
    lengths
        .map(|length| {
            let offset = next;
            next = next.saturating_add(length).saturating_add(1);
            offset
        })
        .collect()
}

/// An id as a source of this name would have it: without the prefix that reading it adds again.
pub(crate) fn bare_id<'a>(source: &str, id: &'a str) -> &'a str {
    let bare = id.split_once(':').map_or(id, |(_, local)| local);
    if curie(source, bare) == id { bare } else { id }
}

/// The ids in a field of a source, without those that stand for none (`-`, `-1`).
pub(crate) fn identifiers(field: Option<&str>) -> Vec<String> {
    let field = field.map(str::trim).filter(|field| !matches!(*field, "" | "-" | "-1" | "None"));
    field.map(str::to_owned).into_iter().collect()
}
