//! BioC XML: `collection` of `document`s.

use super::{BiocAnnotation, BiocDocument, BiocPassage, Infons};
use crate::article::ArticleEvent;
use crate::article::record::{Options, Reason, with_content};
use crate::article::xml::records::{Dialect, Parse};
use crate::article::xml::{Record, attribute, local_name};

pub(super) const fn dialect<T>(parse: Parse<T>) -> Dialect<T> {
    Dialect {
        records: &["document"],
        wrappers: &["collection"],
        header: true,
        parse,
        id_pattern: r"<id>\s*([^<\s]+)\s*</id>",
    }
}

pub(super) fn events(xml: &[u8], options: &Options, id: &mut Option<String>) -> Result<Vec<ArticleEvent>, Reason> {
    Ok(vec![with_content(document(xml, options, id)?.into_event())?])
}

pub(super) fn documents(xml: &[u8], options: &Options, id: &mut Option<String>) -> Result<Vec<BiocDocument>, Reason> {
    Ok(vec![document(xml, options, id)?])
}

fn document(xml: &[u8], options: &Options, id: &mut Option<String>) -> Result<BiocDocument, Reason> {
    let mut record = Record::new(xml, options)?;
    record.root()?;
    let mut document = BiocDocument::default();
    while let Some(child) = record.next_child()? {
        match local_name(&child) {
            "id" => {
                document.id = record.value()?;
                *id = Some(document.id.clone());
            }
            "infon" => infon(&mut record, attribute(&child, "key"), &mut document.infons)?,
            "passage" => document.passages.push(passage(&mut record)?),
            _ => record.skip(&child)?,
        }
    }
    if document.id.is_empty() {
        return Err(Reason::malformed("the document has no id"));
    }
    Ok(document)
}

fn passage(record: &mut Record<'_>) -> Result<BiocPassage, Reason> {
    let mut passage = BiocPassage::default();
    let mut sentences = Vec::new();
    while let Some(child) = record.next_child()? {
        match local_name(&child) {
            "infon" => infon(record, attribute(&child, "key"), &mut passage.infons)?,
            "offset" => {
                let offset = record.value()?;
                let offset = offset.parse().map_err(|_| record.at_place("an `offset` that is no number"))?;
                passage.offset = Some(offset);
            }
            "text" => passage.text = record.verbatim()?,
            "annotation" => passage.annotations.push(annotation(record)?),
            // A passage has its text itself or in its sentences.
            "sentence" => {
                while let Some(part) = record.next_child()? {
                    match local_name(&part) {
                        "text" => sentences.push(record.verbatim()?),
                        "annotation" => passage.annotations.push(annotation(record)?),
                        _ => record.skip(&part)?,
                    }
                }
            }
            _ => record.skip(&child)?,
        }
    }
    if passage.text.is_empty() {
        passage.text = sentences.join(" ");
    }
    Ok(passage)
}

fn annotation(record: &mut Record<'_>) -> Result<BiocAnnotation, Reason> {
    let mut annotation = BiocAnnotation::default();
    while let Some(child) = record.next_child()? {
        match local_name(&child) {
            "infon" => infon(record, attribute(&child, "key"), &mut annotation.infons)?,
            "text" => annotation.text = record.verbatim()?,
            "location" => {
                let number = |name: &str| attribute(&child, name).and_then(|value| value.trim().parse().ok());
                let (Some(offset), Some(length)) = (number("offset"), number("length")) else {
                    return Err(record.at_place("a location needs `offset` and `length`"));
                };
                annotation.locations.push((offset, length));
                record.skip(&child)?;
            }
            _ => record.skip(&child)?,
        }
    }
    Ok(annotation)
}

fn infon(record: &mut Record<'_>, key: Option<String>, infons: &mut Infons) -> Result<(), Reason> {
    infons.insert(key.unwrap_or_default(), record.value()?);
    Ok(())
}
