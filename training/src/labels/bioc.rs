//! BioC XML and JSON, read by litflow's own reader of articles and written as it reads them.
//!
//! It holds everything: what BioC has no place for stands in infons of the document (`annotator`, `guideline`,
//! `annotated_at`, `entity_types`) and of its passages (`section`, `heading`, `language`); stretches left open are
//! annotations of the type [`OPEN`]. `type` and `identifier` are where NCBI's services have them.

use super::writer::{open_of, spans_of};
use super::{Annotation, Documents, SourceDocument, bare_id, identifiers, joined_offsets};
use litflow::article::bioc::{BiocAnnotation, BiocDocument, Infons, documents};
use litflow::article::input::Input;
use litflow::article::{Options, Passage, Section, curie};
use litflow::bus::records::LabeledDocument;
use serde_json::{Value, json};
use std::io::{self, Write};

/// The type of annotations that stand for stretches left open.
const OPEN: &str = "litflow:open";

/// Reads documents; a broken one is reported, and reading goes on at the next.
pub(super) fn read(input: Input, file: String, limits: &Options) -> Documents {
    Box::new(documents(input, file, limits).map(|document| document.map(source_document)))
}

fn source_document(document: BiocDocument) -> SourceDocument {
    let names = |infons: &Infons, key: &str| infons.get(key).filter(|value| !value.is_empty()).cloned();
    let mut source = SourceDocument {
        id: curie("bioc", &document.id),
        entity_types: document.infons.get("entity_types").map(|value| list(value)),
        annotator: document.infons.get("annotator").cloned(),
        guideline: names(&document.infons, "guideline"),
        annotated_at: document.infons.get("annotated_at").and_then(|value| value.parse().ok()),
        ..SourceDocument::default()
    };
    let mut next = 0u32;
    for passage in document.passages {
        let length = u32::try_from(passage.text.chars().count()).unwrap_or(u32::MAX);
        // A file whose offsets go backwards has none that mean anything.
        let offset = passage.offset.filter(|&offset| source.passages.is_empty() || offset >= next).unwrap_or(next);
        next = offset.saturating_add(length).saturating_add(1);
        let named = passage.infons.get("section").and_then(|name| serde_json::from_value(json!(name)).ok());
        let section = match named {
            Some(section) => section,
            None if passage.is_title() && source.passages.is_empty() => Section::Title,
            None => passage.section(),
        };
        for annotation in passage.annotations {
            let annotation = source_annotation(annotation);
            match annotation.entity_type.as_str() {
                OPEN => source.open.extend(annotation.fragments),
                _ => source.annotations.push(annotation),
            }
        }
        source.offsets.push(offset);
        source.passages.push(Passage {
            section,
            heading: names(&passage.infons, "heading"),
            language: names(&passage.infons, "language"),
            text: passage.text,
        });
    }
    source
}

fn source_annotation(annotation: BiocAnnotation) -> Annotation {
    let BiocAnnotation { mut infons, text, locations } = annotation;
    let identifiers = match infons.get("identifiers") {
        Some(several) => list(several),
        None => identifiers(infons.get("identifier").map(String::as_str)),
    };
    Annotation {
        entity_type: infons.remove("type").unwrap_or_default(),
        fragments: locations.iter().map(|&(offset, length)| offset..offset.saturating_add(length)).collect(),
        // NCBI's tools quote the words of fragments with a space between them.
        text: Some(text).filter(|text| !text.is_empty()),
        joint: " ".into(),
        identifiers,
    }
}

/// Several names in one infon: a JSON array, or what other tools may write, names between commas.
fn list(value: &str) -> Vec<String> {
    serde_json::from_str(value).unwrap_or_else(|_| {
        value.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
    })
}

/// The document as BioC JSON has it; the XML is written from this, too.
pub(super) fn to_json(document: &LabeledDocument) -> Value {
    let offsets = joined_offsets(&document.passages);
    let joined = |names: &[String]| json!(names).to_string();
    let infons = |pairs: Vec<(&str, Option<String>)>| -> Value {
        pairs
            .into_iter()
            .filter_map(|(key, value)| Some((key.to_owned(), json!(value?))))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    let mut number = 0;
    let mut annotation = |infons: Value, text: &str, begin: u32, length: u32| {
        number += 1;
        let locations = json!([{"offset": begin, "length": length}]);
        json!({"id": number.to_string(), "infons": infons, "text": text, "locations": locations})
    };
    let passage = |(index, (passage, &offset)): (usize, (&Passage, &u32))| {
        let mut annotations = Vec::new();
        for span in spans_of(document, index) {
            let several = (span.identifiers.len() > 1).then(|| joined(&span.identifiers));
            let infons = infons(vec![
                ("type", Some(span.entity_type.clone())),
                ("identifier", span.identifiers.first().cloned()),
                ("identifiers", several),
            ]);
            annotations.push(annotation(infons, &span.text, offset + span.begin, span.end - span.begin));
        }
        for open in open_of(document, index) {
            let infons = infons(vec![("type", Some(OPEN.to_owned()))]);
            annotations.push(annotation(infons, "", offset + open.begin, open.end - open.begin));
        }
        let section = serde_json::to_value(passage.section).expect("a section is a name");
        let kind = if passage.section == Section::Title { "title" } else { "paragraph" };
        let infons = infons(vec![
            ("type", Some(kind.to_owned())),
            ("section", section.as_str().map(str::to_owned)),
            ("heading", passage.heading.clone()),
            ("language", passage.language.clone()),
        ]);
        json!({"offset": offset, "infons": infons, "text": passage.text, "annotations": annotations, "relations": []})
    };
    let passages: Vec<Value> = document.passages.iter().zip(&offsets).enumerate().map(passage).collect();
    let infons = infons(vec![
        ("annotator", Some(document.annotator.clone())),
        ("guideline", document.guideline.clone()),
        ("annotated_at", document.annotated_at.map(|at| at.to_string())),
        ("entity_types", Some(joined(&document.entity_types))),
    ]);
    let id = bare_id("bioc", &document.document_id);
    json!({"id": id, "infons": infons, "passages": passages, "relations": []})
}

/// What stands before the documents of a collection, and after them.
pub(super) const JSON_FRAME: (&str, &str) =
    ("{\"source\": \"litflow\", \"date\": \"\", \"key\": \"\", \"documents\": [\n", "\n]}\n");
/// The same in XML.
pub(super) const XML_FRAME: (&str, &str) = (
    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!DOCTYPE collection SYSTEM \"BioC.dtd\">\n<collection>\n\
     <source>litflow</source><date></date><key></key>\n",
    "</collection>\n",
);

/// Writes a document as XML.
pub(super) fn write_xml(document: &LabeledDocument, out: &mut dyn Write) -> io::Result<()> {
    let json = to_json(document);
    write!(out, "<document><id>{}</id>", escaped(text(&json["id"])))?;
    write_infons(&json["infons"], out)?;
    for passage in array(&json["passages"]) {
        write!(out, "<passage>")?;
        write_infons(&passage["infons"], out)?;
        write!(out, "<offset>{}</offset><text>{}</text>", passage["offset"], escaped(text(&passage["text"])))?;
        for annotation in array(&passage["annotations"]) {
            write!(out, "<annotation id=\"{}\">", escaped(text(&annotation["id"])))?;
            write_infons(&annotation["infons"], out)?;
            for location in array(&annotation["locations"]) {
                write!(out, "<location offset=\"{}\" length=\"{}\"/>", location["offset"], location["length"])?;
            }
            write!(out, "<text>{}</text></annotation>", escaped(text(&annotation["text"])))?;
        }
        write!(out, "</passage>")?;
    }
    writeln!(out, "</document>")
}

fn write_infons(infons: &Value, out: &mut dyn Write) -> io::Result<()> {
    for (key, value) in infons.as_object().into_iter().flatten() {
        write!(out, "<infon key=\"{}\">{}</infon>", escaped(key), escaped(text(value)))?;
    }
    Ok(())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Text as XML has it. Line ends and tabs are written as references, which no reader normalises.
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\t' | '\n' | '\r' => escaped.push_str(&format!("&#{};", u32::from(c))),
            c => escaped.push(c),
        }
    }
    escaped
}

/// Whether XML can hold the document: it has no place for most control characters.
pub(super) fn fits_xml(document: &LabeledDocument) -> bool {
    let is_text =
        |c: char| !matches!(c, '\0'..='\u{8}' | '\u{B}' | '\u{C}' | '\u{E}'..='\u{1F}' | '\u{FFFE}' | '\u{FFFF}');
    document.passages.iter().all(|passage| passage.text.chars().all(is_text))
}
