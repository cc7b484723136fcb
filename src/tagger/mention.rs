//! What the tagger says about a document: sentences and mentions, in code points.

use crate::article::Document;
use serde::{Deserialize, Serialize};

/// The one model version that produced a document's mentions.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ModelRef {
    /// The model's name, `biored-minilm`.
    pub name: String,
    /// Its version, `1.0.0`.
    pub version: String,
    /// `sha256:` and the digest of its manifest (of its weights where there is no manifest).
    pub digest: String,
}

/// An entity mention. All offsets are Unicode code points, half-open.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mention {
    /// Deterministic: a digest over article id, article version, passage, begin, end and type.
    pub id: String,
    /// Entity type, one of the model's label set.
    #[serde(rename = "type")]
    pub entity_type: String,
    /// The exact text, `passage.text[begin..end]`.
    pub text: String,
    /// Index of the passage in the document.
    pub passage: u32,
    /// Begin in the passage.
    pub begin: u32,
    /// End in the passage.
    pub end: u32,
    /// Begin in the document.
    pub document_begin: u32,
    /// End in the document.
    pub document_end: u32,
    /// Index of the sentence within the passage in which the mention begins.
    pub sentence: u32,
    /// The model's probability for the span, 0 to 1.
    pub score: f32,
}

/// A document with everything that one model version found in it.
#[derive(Debug, Clone, PartialEq)]
pub struct TaggedDocument {
    /// The document, its text unaltered.
    pub document: Document,
    /// Sentence bounds of each passage, code points into the passage's text, half-open, ascending.
    pub sentences: Vec<Vec<(u32, u32)>>,
    /// Ordered by passage, begin, end.
    pub mentions: Vec<Mention>,
    /// The model version that was at work, the same for the whole document.
    pub model: ModelRef,
    /// Real word pieces that went through the encoder (windows counted as often as they were computed).
    pub tokens: u64,
}
