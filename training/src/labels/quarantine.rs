//! What of the labels is left out: counted by cause, each listed with its place and the reason.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Why a label, or a whole document, was left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// A record that cannot be read: no document of its format, or no value of its topic.
    Unreadable,
    /// A record whose key is not the id of its document.
    KeyMismatch,
    /// A document that its topic does not take: too large, for example.
    Unpublishable,
    /// A document without any text.
    EmptyDocument,
    /// A copy of a document whose text is not that of the first copy.
    DifferingText,
    /// Two annotators who both looked for a type and do not agree; the first one's spans stay.
    Conflict,
    /// A span that does not lie in the text.
    OutsideText,
    /// A span too long to be a mention.
    TooLong,
    /// A span over more than one passage.
    AcrossPassages,
    /// A span whose quoted words are not those of the text.
    TextDiffers,
    /// A span of a type that was not looked for.
    UnknownType,
    /// A span that overlaps another one, as the policy has it.
    Overlap,
}

impl Cause {
    /// What it means, in the plural.
    fn title(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable records",
            Self::KeyMismatch => "records whose key is not the document's id",
            Self::Unpublishable => "documents that the topic does not take",
            Self::EmptyDocument => "documents without text",
            Self::DifferingText => "copies of a document with a differing text",
            Self::Conflict => "types of a document on which annotators differ",
            Self::OutsideText => "annotations outside the text",
            Self::TooLong => "annotations too long to be a mention",
            Self::AcrossPassages => "annotations over more than one passage",
            Self::TextDiffers => "annotations whose offsets do not select their text",
            Self::UnknownType => "annotations of a type that was not looked for",
            Self::Overlap => "annotations that overlap another one",
        }
    }
}

/// One thing that was left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Why.
    pub cause: Cause,
    /// Where it stood: file and line or byte, or partition and offset.
    pub place: String,
    /// The document's id, as far as it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub document_id: Option<String>,
    /// What is wrong, for a person.
    pub reason: String,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.document_id {
            Some(id) => write!(f, "{}, document {id}: {}", self.place, self.reason),
            None => write!(f, "{}: {}", self.place, self.reason),
        }
    }
}

/// How many things were left out, by cause.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LeftOut(BTreeMap<Cause, u64>);

impl LeftOut {
    /// Whether nothing was.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many for this cause.
    pub fn count(&self, cause: Cause) -> u64 {
        self.0.get(&cause).copied().unwrap_or_default()
    }

    /// Adds the counts of `other`.
    pub fn extend(&mut self, other: &Self) {
        for (&cause, &count) in &other.0 {
            *self.0.entry(cause).or_default() += count;
        }
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = self.0.iter().map(|(cause, count)| format!("{count} {}", cause.title())).collect();
        f.write_str(&parts.join(", "))
    }
}

/// Takes what is left out: counts it, and hands it to whoever lists it.
#[derive(Default)]
pub struct Quarantine<'a> {
    counts: LeftOut,
    list: Option<&'a mut dyn FnMut(&Entry)>,
}

impl<'a> Quarantine<'a> {
    /// One that calls `list` for each entry as it comes.
    pub fn listing(list: &'a mut dyn FnMut(&Entry)) -> Self {
        Self { counts: LeftOut::default(), list: Some(list) }
    }

    /// Takes one.
    pub fn add(&mut self, entry: Entry) {
        *self.counts.0.entry(entry.cause).or_default() += 1;
        if let Some(list) = &mut self.list {
            list(&entry);
        }
    }

    /// The counts so far.
    pub fn counts(&self) -> &LeftOut {
        &self.counts
    }
}
