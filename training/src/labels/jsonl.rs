//! JSON lines of the values of the topic `labels`: the only format that holds all of them as they are.
//!
//! ```json
//! {"document_id": "pmid:1", "passages": [{"section": "title", "text": "BRCA1"}],
//!  "spans": [{"type": "Gene", "passage": 0, "begin": 0, "end": 5}], "entity_types": ["Gene"], "annotator": "me"}
//! ```
//!
//! Only `document_id`, the passages' `text`, and the spans' `type`, `begin` and `end` are needed.

use super::{Annotation, Documents, SourceDocument, joined_offsets};
use litflow::article::input::Input;
use litflow::article::lines::Lines;
use litflow::article::{Options, Passage, Position, Reason, RecordError, Section, article_id};
use litflow::bus::records::LabeledDocument;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::io::BufRead;

#[derive(Deserialize)]
struct Line {
    document_id: String,
    passages: Vec<LinePassage>,
    #[serde(default)]
    spans: Vec<LineSpan>,
    entity_types: Option<Vec<String>>,
    annotator: Option<String>,
    guideline: Option<String>,
    annotated_at: Option<i64>,
    #[serde(default)]
    open: Vec<LineOpen>,
}

#[derive(Deserialize)]
struct LinePassage {
    #[serde(default = "body")]
    section: Section,
    heading: Option<String>,
    language: Option<String>,
    text: String,
}

fn body() -> Section {
    Section::Body
}

#[derive(Deserialize)]
struct LineSpan {
    #[serde(rename = "type")]
    entity_type: String,
    #[serde(default)]
    passage: usize,
    begin: u32,
    end: u32,
    text: Option<String>,
    #[serde(default)]
    identifiers: Vec<String>,
}

#[derive(Deserialize)]
struct LineOpen {
    #[serde(default)]
    passage: usize,
    begin: u32,
    end: u32,
}

/// Reads documents; a broken line is reported, and reading goes on at the next.
pub(super) fn read(input: Input, file: String, limits: &Options) -> Documents {
    parsed_lines(input, file, limits, |line, id| {
        let line: Line = json(line)?;
        *id = Some(line.document_id.clone());
        Ok(vec![line.into_document()])
    })
}

/// A line as JSON. serde would take an array's items for the fields of an object.
pub(super) fn json<T: serde::de::DeserializeOwned>(line: &[u8]) -> Result<T, Reason> {
    if line.trim_ascii_start().first() != Some(&b'{') {
        return Err(Reason::Malformed("not a JSON object".into()));
    }
    // serde_json counts lines in what it was given, which is one.
    let reason = |error: serde_json::Error| error.to_string().replace(" at line 1 column", " at column");
    serde_json::from_slice(line).map_err(|error| Reason::Malformed(reason(error)))
}

/// Where tools of annotation keep a document's id.
pub(super) const ID_KEYS: [&str; 3] = ["document_id", "id", "pmid"];

/// The id that one of the maps names; an `id` that is no CURIE is the source's own, not a PMID.
pub(super) fn document_id<'a>(source: &str, maps: impl IntoIterator<Item = &'a Map<String, Value>>) -> Option<String> {
    let id = |key: &str, value: &Value| {
        let source = if key == "pmid" { "pmid" } else { source };
        name(value).map(|name| article_id(source, &name))
    };
    let of_map = |map: &'a Map<String, Value>| ID_KEYS.iter().find_map(|key| id(key, map.get(*key)?));
    maps.into_iter().find_map(of_map)
}

/// A string or number as text.
pub(super) fn name(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// The documents of each line by `parse`; blank lines are passed over.
pub(super) fn parsed_lines(
    input: Input,
    file: String,
    limits: &Options,
    parse: litflow::article::json::Parse<Vec<SourceDocument>>,
) -> Documents {
    let lines = JsonLines { lines: Lines::new(input.reader, limits.max_record_bytes), file, parse, ended: false };
    Box::new(lines.flat_map(|line| match line {
        Ok(documents) => documents.into_iter().map(Ok).collect(),
        Err(error) => vec![Err(error)],
    }))
}

struct JsonLines<R> {
    lines: Lines<R>,
    file: String,
    parse: litflow::article::json::Parse<Vec<SourceDocument>>,
    ended: bool,
}

impl<R: BufRead> Iterator for JsonLines<R> {
    type Item = Result<Vec<SourceDocument>, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.ended {
            let mut id = None;
            let parsed = match self.lines.next_line()? {
                Ok(line) if line.trim().is_empty() => continue,
                Ok(line) => (self.parse)(line.as_bytes(), &mut id),
                Err(reason) => Err(reason),
            };
            let position = Some(Position::Line(self.lines.number()));
            return Some(parsed.map_err(|reason| {
                self.ended = matches!(reason, Reason::Io(_));
                RecordError { file: self.file.clone(), position, id, reason }
            }));
        }
        None
    }
}

impl Line {
    fn into_document(self) -> SourceDocument {
        let passage = |LinePassage { section, heading, language, text }| Passage { section, heading, language, text };
        let passages = self.passages.into_iter().map(passage).collect();
        let span = |span: LineSpan| (span.passage, span.begin, span.end, span.entity_type, span.text, span.identifiers);
        let open = self.open.iter().map(|open| (open.passage, open.begin, open.end));
        SourceDocument {
            annotator: self.annotator,
            guideline: self.guideline,
            annotated_at: self.annotated_at,
            entity_types: self.entity_types,
            ..by_passage(article_id("jsonl", &self.document_id), passages, self.spans.into_iter().map(span), open)
        }
    }
}

type Span = (usize, u32, u32, String, Option<String>, Vec<String>);

/// A document whose offsets count within its passages. What names a passage that is not there has no place.
fn by_passage(
    id: String,
    passages: Vec<Passage>,
    spans: impl Iterator<Item = Span>,
    open: impl Iterator<Item = (usize, u32, u32)>,
) -> SourceDocument {
    let offsets = joined_offsets(&passages);
    let stretch = |passage: usize, begin: u32, end: u32| {
        offsets.get(passage).map(|offset| offset.saturating_add(begin)..offset.saturating_add(end))
    };
    let annotation = |(passage, begin, end, entity_type, text, identifiers): Span| Annotation {
        entity_type,
        fragments: stretch(passage, begin, end).into_iter().collect(),
        text,
        joint: "".into(),
        identifiers,
    };
    SourceDocument {
        id,
        annotations: spans.map(annotation).collect(),
        open: open.filter_map(|(passage, begin, end)| stretch(passage, begin, end)).collect(),
        offsets,
        passages,
        ..SourceDocument::default()
    }
}

impl From<LabeledDocument> for SourceDocument {
    /// A value of the topic as a source, for it may come from any producer.
    fn from(document: LabeledDocument) -> Self {
        let spans = document.spans.into_iter().map(|span| {
            (span.passage as usize, span.begin, span.end, span.entity_type, Some(span.text), span.identifiers)
        });
        let open = document.open.iter().map(|open| (open.passage as usize, open.begin, open.end));
        SourceDocument {
            entity_types: Some(document.entity_types),
            annotator: Some(document.annotator),
            guideline: document.guideline,
            annotated_at: document.annotated_at,
            ..by_passage(document.document_id, document.passages, spans, open)
        }
    }
}
