//! BioC JSON: a collection, a list of collections, PubTator 3's export, or documents one after the other.

use super::{BiocAnnotation, BiocDocument, BiocPassage, Infons};
use crate::article::ArticleEvent;
use crate::article::record::{Reason, with_content};
use serde::Deserialize;
use serde_json::Value;
use std::collections::HashMap;

pub(crate) fn event(bytes: &[u8], id: &mut Option<String>) -> Result<ArticleEvent, Reason> {
    with_content(document(bytes, id)?.into_event())
}

#[derive(Deserialize)]
struct JsonDocument {
    id: Option<Value>,
    #[serde(default)]
    infons: JsonInfons,
    passages: Vec<JsonPassage>,
}

type JsonInfons = HashMap<String, Value>;

#[derive(Deserialize)]
struct JsonPassage {
    #[serde(default)]
    infons: JsonInfons,
    offset: Option<u32>,
    text: Option<String>,
    #[serde(default)]
    sentences: Vec<JsonSentence>,
    #[serde(default)]
    annotations: Vec<JsonAnnotation>,
}

#[derive(Deserialize)]
struct JsonSentence {
    #[serde(default)]
    text: String,
    #[serde(default)]
    annotations: Vec<JsonAnnotation>,
}

#[derive(Deserialize)]
struct JsonAnnotation {
    #[serde(default)]
    infons: JsonInfons,
    #[serde(default)]
    text: String,
    #[serde(default)]
    locations: Vec<JsonLocation>,
}

#[derive(Deserialize)]
struct JsonLocation {
    offset: u32,
    length: u32,
}

impl From<JsonAnnotation> for BiocAnnotation {
    fn from(annotation: JsonAnnotation) -> Self {
        let JsonAnnotation { infons, text, locations } = annotation;
        let locations = locations.iter().map(|location| (location.offset, location.length)).collect();
        Self { infons: texts(infons), text, locations }
    }
}

impl From<JsonPassage> for BiocPassage {
    fn from(passage: JsonPassage) -> Self {
        let in_sentences: Vec<_> = passage.sentences.iter().map(|sentence| sentence.text.as_str()).collect();
        let text = passage.text.filter(|text| !text.is_empty()).unwrap_or_else(|| in_sentences.join(" "));
        let of_sentences = passage.sentences.into_iter().flat_map(|sentence| sentence.annotations);
        Self {
            infons: texts(passage.infons),
            offset: passage.offset,
            text,
            annotations: passage.annotations.into_iter().chain(of_sentences).map(BiocAnnotation::from).collect(),
        }
    }
}

pub(super) fn document(bytes: &[u8], id: &mut Option<String>) -> Result<BiocDocument, Reason> {
    let document: JsonDocument = serde_json::from_slice(bytes).map_err(|error| Reason::malformed(error.to_string()))?;
    let document_id = document.id.map(scalar).unwrap_or_default();
    if document_id.is_empty() {
        return Err(Reason::malformed("the document has no id"));
    }
    *id = Some(document_id.clone());
    let passages = document.passages.into_iter().map(BiocPassage::from).collect();
    Ok(BiocDocument { id: document_id, infons: texts(document.infons), passages })
}

fn texts(infons: JsonInfons) -> Infons {
    infons.into_iter().map(|(key, value)| (key, scalar(value))).collect()
}

/// A string or number as text; anything else is none.
fn scalar(value: Value) -> String {
    match value {
        Value::String(text) => text,
        Value::Number(number) => number.to_string(),
        _ => String::new(),
    }
}
