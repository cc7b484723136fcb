//! PubTator, read by litflow's own reader of articles; written with offsets over `title + " " + abstract`.
//!
//! It holds a title and one more passage, single lines without tabs, and one field of ids a mention. It does not
//! hold sections, types that were looked for and not found, annotators, or stretches left open.

use super::writer::{Losses, one_line};
use super::{Annotation, Documents, SourceDocument, bare_id, identifiers, joined_offsets};
use litflow::article::input::Input;
use litflow::article::pubtator::{PubtatorDocument, Reader};
use litflow::article::{Options, Passage, Section, curie};
use litflow::bus::records::LabeledDocument;
use std::io::{self, Write};

/// Reads documents; a broken one is reported, and reading goes on at the next.
pub(super) fn read(input: Input, file: String, limits: &Options) -> Documents {
    Box::new(Reader::new(input.reader, file, limits).map(|document| document.map(source_document)))
}

fn source_document(document: PubtatorDocument) -> SourceDocument {
    let annotation = |annotation: litflow::article::pubtator::PubtatorAnnotation| Annotation {
        entity_type: annotation.entity_type,
        fragments: vec![saturated(annotation.begin)..saturated(annotation.end)],
        text: Some(annotation.text),
        identifiers: identifiers(annotation.identifier.as_deref()),
        ..Annotation::default()
    };
    let abstract_text = Some(document.abstract_text).filter(|text| !text.is_empty());
    let title = Passage::new(Section::Title, document.title);
    let rest = abstract_text.map(|text| Passage::new(Section::Abstract, text));
    let passages: Vec<Passage> = [title].into_iter().chain(rest).collect();
    SourceDocument {
        id: curie("pubtator", &document.id),
        offsets: joined_offsets(&passages),
        passages,
        annotations: document.annotations.into_iter().map(annotation).collect(),
        ..SourceDocument::default()
    }
}

fn saturated(offset: usize) -> u32 {
    u32::try_from(offset).unwrap_or(u32::MAX)
}

/// Writes a document and the blank line after it. Line breaks and tabs become spaces, so that offsets hold; what
/// stands after the title becomes one line.
pub(super) fn write(document: &LabeledDocument, out: &mut dyn Write, losses: &mut Losses) -> io::Result<()> {
    let id = bare_id("pubtator", &document.document_id).replace(['|', '\t', '\n', '\r'], "_");
    let has_title = document.passages.first().is_some_and(|passage| passage.section == Section::Title);
    let (title, rest) = document.passages.split_at(usize::from(has_title));
    let texts: Vec<&str> = rest.iter().map(|passage| passage.text.as_str()).collect();
    losses.count(rest.len() > 1, "passages after the title became one");
    losses.count_names(document);
    let title = title.first().map_or("", |passage| &passage.text);
    writeln!(out, "{id}|t|{}\n{id}|a|{}", one_line(title, losses), one_line(&texts.join(" "), losses))?;
    let offsets = joined_offsets(&document.passages);
    for span in &document.spans {
        // A document without a title has an empty one here, and the character that joins it.
        let begin = offsets[span.passage as usize] + span.begin + u32::from(!has_title);
        let end = begin + (span.end - span.begin);
        let ids = span.identifiers.join(";");
        let [text, name, ids] = [&span.text, &span.entity_type, &ids].map(|field| one_line(field, losses));
        writeln!(out, "{id}\t{begin}\t{end}\t{text}\t{name}\t{ids}")?;
    }
    writeln!(out)
}
