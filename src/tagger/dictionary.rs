//! A tagger without a model: exact matches of a dictionary's terms.
//!
//! For trying the stream alone, and for tests in which the bus is to be the bottleneck.

use super::clock::Clock;
use super::{Error, Mention, ModelRef, Tag, TaggedDocument};
use crate::article::Document;
use crate::text::{CodePoints, sentences};
use futures::future::BoxFuture;
use regex::Regex;
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// Terms and their types. The longest term at a place wins; a term is found only as whole words.
pub struct Dictionary {
    model: Arc<ModelRef>,
    entity_types: Arc<[String]>,
    types: HashMap<String, String>,
    pattern: Regex,
}

impl Dictionary {
    /// A dictionary of `(term, entity type)`. Its version's digest is taken over the terms.
    ///
    /// # Errors
    /// Where the terms are too many for one pattern.
    pub fn new<'a>(terms: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, Error> {
        let mut terms: Vec<(&str, &str)> = terms.into_iter().filter(|(term, _)| !term.is_empty()).collect();
        terms.sort_unstable();
        terms.dedup_by_key(|(term, _)| *term);
        let mut entity_types: Vec<String> = terms.iter().map(|(_, entity_type)| (*entity_type).to_owned()).collect();
        entity_types.sort_unstable();
        entity_types.dedup();
        let digest = Sha256::digest(terms.iter().map(|(term, of)| format!("{term}\t{of}\n")).collect::<String>());
        let types = terms.iter().map(|(term, of)| ((*term).to_owned(), (*of).to_owned())).collect();
        terms.sort_by_key(|(term, _)| std::cmp::Reverse(term.len()));
        let alternatives: Vec<String> = terms.iter().map(|(term, _)| regex::escape(term)).collect();
        let pattern = match alternatives.is_empty() {
            true => "[^\\s\\S]".to_owned(), // an empty alternation would match everywhere
            false => alternatives.join("|"),
        };
        Ok(Self {
            model: Arc::new(ModelRef {
                name: "dictionary".into(),
                version: "1".into(),
                digest: format!("sha256:{}", hex::encode(digest)),
            }),
            entity_types: entity_types.into(),
            types,
            pattern: Regex::new(&pattern).map_err(|e| Error::Stopped(format!("the dictionary: {e}")))?,
        })
    }

    fn find(&self, document: Document) -> TaggedDocument {
        let clock = Clock::of_thread();
        let mut found = Vec::new();
        let mut bounds = Vec::new();
        let mut tokens = 0;
        for ((index, passage), offset) in document.passages.iter().enumerate().zip(document.passage_offsets()) {
            let text = passage.text.as_str();
            let code_points = CodePoints::new(text);
            let ends: Vec<(u32, u32)> = sentences(text).iter().map(|bytes| code_points.span(bytes)).collect();
            tokens += text.split_whitespace().count() as u64;
            for found_at in self.pattern.find_iter(text).filter(|found_at| is_whole_word(text, &found_at.range())) {
                let (begin, end) = code_points.span(&found_at.range());
                let entity_type = &self.types[found_at.as_str()];
                found.push(Mention {
                    id: Mention::id_of(&document, index as u32, begin, end, entity_type),
                    entity_type: entity_type.clone(),
                    text: found_at.as_str().to_owned(),
                    passage: index as u32,
                    begin,
                    end,
                    document_begin: offset + begin,
                    document_end: offset + end,
                    sentence: ends.partition_point(|&(_, sentence_end)| sentence_end <= begin) as u32,
                    score: 1.0,
                });
            }
            bounds.push(ends);
        }
        let (model, compute_seconds) = ((*self.model).clone(), clock.seconds());
        TaggedDocument { document, sentences: bounds, mentions: found, model, tokens, compute_seconds }
    }
}

fn is_whole_word(text: &str, bytes: &Range<usize>) -> bool {
    let glued = |neighbour: Option<char>| neighbour.is_some_and(char::is_alphanumeric);
    !glued(text[..bytes.start].chars().next_back()) && !glued(text[bytes.end..].chars().next())
}

impl Tag for Dictionary {
    fn model(&self) -> Arc<ModelRef> {
        self.model.clone()
    }

    fn entity_types(&self) -> Arc<[String]> {
        self.entity_types.clone()
    }

    fn tag(&self, document: Document) -> BoxFuture<'_, Result<TaggedDocument, Error>> {
        Box::pin(async move { Ok(self.find(document)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::article::{Passage, Section};

    #[test]
    fn finds_whole_words_longest_first_at_code_points() {
        let dictionary = Dictionary::new([("BRCA1", "Gene"), ("TNF-α", "Gene"), ("TNF", "Gene")]).unwrap();
        let passage = |text| Passage { section: Section::Abstract, heading: None, language: None, text };
        let document = Document {
            article_id: "pmid:1".into(),
            article_version: 1,
            passages: vec![passage("Über BRCA1X.".into()), passage("Höhe. TNF-α und BRCA1.".into())],
        };
        let tagged = futures::executor::block_on(dictionary.tag(document)).unwrap();
        let found: Vec<_> = tagged.mentions.iter().map(|m| (m.text.as_str(), m.passage, m.begin, m.sentence)).collect();
        assert_eq!(found, [("TNF-α", 1, 6, 1), ("BRCA1", 1, 16, 1)]);
        assert_eq!(tagged.mentions[0].document_begin, 13 + 6);
        assert!(Dictionary::new([]).unwrap().find(tagged.document).mentions.is_empty());
    }
}
