//! What the tagger says about a document: sentences and mentions, in code points.

use crate::article::Document;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

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
    /// What it cost: seconds of processor time of the threads that worked on it, of batches shared with other
    /// documents its part by rows. On a GPU the time that the batches took.
    pub compute_seconds: f64,
}

impl Mention {
    /// The id of the mention at `begin..end` of a passage of an article: the first 128 bits, as 32
    /// hexadecimal digits, of SHA-256 over these six, joined by line feeds, numbers in decimal:
    /// article id, article version, passage, begin, end, entity type.
    ///
    /// The model is no part of it: the same mention found by two models has the same id.
    pub fn id_of(document: &Document, passage: u32, begin: u32, end: u32, entity_type: &str) -> String {
        let Document { article_id, article_version, .. } = document;
        let identity = format!("{article_id}\n{article_version}\n{passage}\n{begin}\n{end}\n{entity_type}");
        hex::encode(&Sha256::digest(identity)[..16])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Consumers join on these ids: they must never change.
    #[test]
    fn ids_are_golden() {
        let document = Document { article_id: "pmid:12345".into(), article_version: 1, passages: vec![] };
        // printf 'pmid:12345\n1\n0\n4\n9\nGene' | sha256sum | cut -c-32
        assert_eq!(Mention::id_of(&document, 0, 4, 9, "Gene"), "6fcb9b2173325da23abfc3ac529d5f8e");
        assert_ne!(Mention::id_of(&document, 0, 4, 9, "Disease"), Mention::id_of(&document, 0, 4, 9, "Gene"));
    }
}
