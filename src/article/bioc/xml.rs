//! BioC XML: `collection` of `document`s.

use super::{BiocDocument, BiocPassage};
use crate::article::ArticleEvent;
use crate::article::record::{Options, Reason};
use crate::article::xml::articles::Dialect;
use crate::article::xml::{Record, attribute, local_name};

pub(crate) const DIALECT: Dialect = Dialect {
    records: &["document"],
    wrappers: &["collection"],
    header: true,
    parse,
    id_pattern: r"<id>\s*([^<\s]+)\s*</id>",
};

fn parse(xml: &[u8], options: &Options, id: &mut Option<String>) -> Result<Vec<ArticleEvent>, Reason> {
    let mut record = Record::new(xml, options)?;
    record.root()?;
    let mut document = BiocDocument::default();
    while let Some(child) = record.next_child()? {
        match local_name(&child) {
            "id" => {
                document.id = record.value()?;
                *id = Some(document.id.clone());
            }
            "infon" => {
                let key = attribute(&child, "key").unwrap_or_default();
                document.infons.insert(key, record.value()?);
            }
            "passage" => document.passages.push(passage(&mut record)?),
            _ => record.skip(&child)?,
        }
    }
    if document.id.is_empty() {
        return Err(Reason::malformed("the document has no id"));
    }
    Ok(vec![document.into_event()])
}

fn passage(record: &mut Record<'_>) -> Result<BiocPassage, Reason> {
    let mut passage = BiocPassage::default();
    let mut sentences = Vec::new();
    while let Some(child) = record.next_child()? {
        match local_name(&child) {
            "infon" => {
                let key = attribute(&child, "key").unwrap_or_default();
                passage.infons.insert(key, record.value()?);
            }
            "text" => passage.text = record.verbatim()?,
            // A passage has its text itself or in its sentences.
            "sentence" => {
                while let Some(part) = record.next_child()? {
                    match local_name(&part) {
                        "text" => sentences.push(record.verbatim()?),
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
