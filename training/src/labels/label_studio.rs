//! Label Studio: its JSON export, whole or as JSON lines, and its "JSON-MIN".
//!
//! ```json
//! [{"id": 1, "data": {"text": "BRCA1 was found.", "document_id": "pmid:1"}, "annotations": [{"completed_by": 2,
//!   "result": [{"type": "labels", "value": {"start": 0, "end": 5, "text": "BRCA1", "labels": ["Gene"]}}]}]}]
//! ```
//!
//! The text is `data.text`, or the only string in `data` that is no id. The id is `data.document_id`, `data.id` or
//! `data.pmid`, else that of the task (`label-studio:1`). Each finished annotation of a task is a document of its own, the ground truth
//! first, then the newest; what they do not agree on is a conflict. Offsets are code points; versions before 1.5
//! wrote UTF-16 units, whose spans are quarantined behind the first character outside the Basic Multilingual
//! Plane. Relations and choices are passed over.
//!
//! It holds one text a task: passages become lines of it. It does not hold sections, ids of mentions, types that were
//! looked for and not found, or stretches left open.

use super::jsonl::{ID_KEYS, document_id, json, name, parsed_lines};
use super::writer::Losses;
use super::{Annotation, Documents, SourceDocument, joined_offsets};
use litflow::article::input::Input;
use litflow::article::json::JsonRecords;
use litflow::article::{Options, Reason, article_id};
use litflow::bus::records::LabeledDocument;
use serde::Deserialize;
use serde_json::{Map, Value};

#[derive(Deserialize)]
struct Task {
    id: Option<Value>,
    data: Option<Map<String, Value>>,
    #[serde(alias = "completions")]
    annotations: Option<Vec<TaskAnnotation>>,
    // JSON-MIN
    text: Option<String>,
    #[serde(default)]
    label: Vec<Region>,
    annotator: Option<Value>,
}

#[derive(Deserialize)]
struct TaskAnnotation {
    #[serde(default)]
    result: Vec<ResultItem>,
    completed_by: Option<Value>,
    #[serde(default)]
    was_cancelled: bool,
    #[serde(default)]
    ground_truth: bool,
    updated_at: Option<String>,
}

#[derive(Deserialize)]
struct ResultItem {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    value: Value,
}

#[derive(Deserialize)]
struct Region {
    start: u32,
    end: u32,
    text: Option<String>,
    #[serde(alias = "hypertextlabels", default)]
    labels: Vec<String>,
}

/// Reads documents; a broken task is reported, and reading goes on at the next.
pub(super) fn read(input: Input, file: String, limits: &Options) -> Documents {
    let head = input.head.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&input.head);
    if !head.trim_ascii_start().starts_with(b"[") {
        return parsed_lines(input, file, limits, documents);
    }
    let tasks = JsonRecords::new(input.reader, file, limits, documents);
    Box::new(tasks.flat_map(|task| match task {
        Ok(documents) => documents.into_iter().map(Ok).collect(),
        Err(error) => vec![Err(error)],
    }))
}

fn documents(bytes: &[u8], id: &mut Option<String>) -> Result<Vec<SourceDocument>, Reason> {
    let malformed = |what: &str| Reason::Malformed(what.to_owned());
    let task: Task = json(bytes)?;
    let mut data = task.data.unwrap_or_default();
    let of_task = || Some(article_id("label-studio", &name(task.id.as_ref()?)?));
    let named = document_id("label-studio", [&data]).or_else(of_task);
    let document_id = named.ok_or_else(|| malformed("a task without an id"))?;
    *id = Some(document_id.clone());
    for key in ID_KEYS {
        data.remove(key);
    }
    let text = task.text.or_else(|| match data.get("text") {
        Some(text) => text.as_str().map(str::to_owned),
        None => {
            let mut texts = data.values().filter_map(Value::as_str);
            texts.next().filter(|_| texts.next().is_none()).map(str::to_owned)
        }
    });
    let text = text.ok_or_else(|| malformed("a task without `data.text`"))?;
    let mut finished: Vec<TaskAnnotation> = match task.annotations {
        Some(annotations) => annotations.into_iter().filter(|annotation| !annotation.was_cancelled).collect(),
        None => {
            let annotations = task.label.iter().flat_map(annotations_of).collect();
            let annotator = task.annotator.as_ref().and_then(annotator);
            return Ok(vec![SourceDocument { annotations, annotator, ..SourceDocument::of_text(document_id, text) }]);
        }
    };
    if finished.is_empty() {
        return Err(malformed("a task without a finished annotation"));
    }
    // Times are ISO 8601 in UTC, which sorts as text.
    finished.sort_by(|a, b| (b.ground_truth, &b.updated_at).cmp(&(a.ground_truth, &a.updated_at)));
    let document = |annotation: TaskAnnotation| {
        let mut annotations = Vec::new();
        for item in
            annotation.result.into_iter().filter(|item| matches!(item.kind.as_str(), "labels" | "hypertextlabels"))
        {
            let region: Region =
                serde_json::from_value(item.value).map_err(|error| Reason::Malformed(format!("a region: {error}")))?;
            annotations.extend(annotations_of(&region));
        }
        let annotator = annotation.completed_by.as_ref().and_then(annotator);
        let text = SourceDocument::of_text(document_id.clone(), text.clone());
        Ok(SourceDocument { annotations, annotator, ..text })
    };
    finished.into_iter().map(document).collect()
}

/// One annotation a label.
fn annotations_of(region: &Region) -> Vec<Annotation> {
    let annotation = |label: &String| Annotation {
        entity_type: label.clone(),
        fragments: vec![region.start..region.end],
        text: region.text.clone(),
        ..Annotation::default()
    };
    region.labels.iter().map(annotation).collect()
}

/// An annotator: a number, or a user with an address.
fn annotator(value: &Value) -> Option<String> {
    value.get("email").and_then(name).or_else(|| name(value))
}

/// The document as a task with one finished annotation.
pub(super) fn task(document: &LabeledDocument, losses: &mut Losses) -> Value {
    losses.count(document.passages.len() > 1, "passages became lines of one text");
    losses.count(document.spans.iter().any(|span| !span.identifiers.is_empty()), "normalised ids");
    losses.count_names(document);
    let texts: Vec<&str> = document.passages.iter().map(|passage| passage.text.as_str()).collect();
    let offsets = joined_offsets(&document.passages);
    let region = |(number, span): (usize, &litflow::bus::records::GoldSpan)| {
        let offset = offsets[span.passage as usize];
        serde_json::json!({
            "id": number.to_string(), "from_name": "label", "to_name": "text", "type": "labels",
            "value": {"start": offset + span.begin, "end": offset + span.end, "text": span.text,
                      "labels": [span.entity_type]},
        })
    };
    let result: Vec<Value> = document.spans.iter().enumerate().map(region).collect();
    serde_json::json!({
        "data": {"text": texts.join("\n"), "document_id": document.document_id},
        "annotations": [{"completed_by": {"email": document.annotator}, "result": result}],
    })
}
