//! Prodigy: JSON lines with `text` and `spans`.
//!
//! ```json
//! {"text": "BRCA1 was found.", "spans": [{"start": 0, "end": 5, "label": "Gene"}], "answer": "accept", "meta": {"id": 7}}
//! ```
//!
//! The id is `document_id`, `id` or `pmid`, of the line or of its `meta`, else a digest of the text. Lines with
//! another `answer` than `accept` are left out. Offsets are code points, and each line is one text.
//!
//! It holds what Label Studio's format holds, see [`label_studio`](super::label_studio).

use super::jsonl::{document_id, json, parsed_lines};
use super::writer::Losses;
use super::{Annotation, Documents, SourceDocument, joined_offsets};
use litflow::article::input::Input;
use litflow::article::{Options, Reason};
use litflow::bus::records::LabeledDocument;
use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

#[derive(Deserialize)]
struct Line {
    text: String,
    #[serde(default)]
    spans: Vec<LineSpan>,
    answer: Option<String>,
    #[serde(default)]
    meta: Map<String, Value>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Deserialize)]
struct LineSpan {
    start: u32,
    end: u32,
    label: String,
    text: Option<String>,
}

/// Reads documents; a broken line is reported, and reading goes on at the next.
pub(super) fn read(input: Input, file: String, limits: &Options) -> Documents {
    parsed_lines(input, file, limits, |bytes, id| {
        let line: Line = json(bytes)?;
        let digest = || format!("prodigy:{}", &crate::dataset::hex(&Sha256::digest(&line.text))[..16]);
        let document_id = document_id("prodigy", [&line.rest, &line.meta]).unwrap_or_else(digest);
        *id = Some(document_id.clone());
        if let Some(answer) = line.answer.filter(|answer| answer != "accept") {
            return Err(Reason::Malformed(format!("the annotator's answer is {answer:?}, not \"accept\"")));
        }
        let annotators = ["_annotator_id", "_session_id"].into_iter().filter_map(|key| line.rest.get(key));
        let annotator = annotators.filter_map(Value::as_str).next().map(str::to_owned);
        let annotation = |span: LineSpan| Annotation {
            entity_type: span.label,
            fragments: vec![span.start..span.end],
            text: span.text,
            ..Annotation::default()
        };
        Ok(vec![SourceDocument {
            annotations: line.spans.into_iter().map(annotation).collect(),
            annotator,
            ..SourceDocument::of_text(document_id, line.text)
        }])
    })
}

/// The document as a line.
pub(super) fn line(document: &LabeledDocument, losses: &mut Losses) -> Value {
    losses.count(document.passages.len() > 1, "passages became lines of one text");
    losses.count(document.spans.iter().any(|span| !span.identifiers.is_empty()), "normalised ids");
    losses.count_names(document);
    let texts: Vec<&str> = document.passages.iter().map(|passage| passage.text.as_str()).collect();
    let offsets = joined_offsets(&document.passages);
    let span = |span: &litflow::bus::records::GoldSpan| {
        let offset = offsets[span.passage as usize];
        serde_json::json!({"start": offset + span.begin, "end": offset + span.end, "label": span.entity_type,
                           "text": span.text})
    };
    let spans: Vec<Value> = document.spans.iter().map(span).collect();
    serde_json::json!({
        "text": texts.join("\n"), "spans": spans, "answer": "accept", "_annotator_id": document.annotator,
        "meta": {"document_id": document.document_id},
    })
}
