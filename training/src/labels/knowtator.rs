//! Knowtator XML, as CRAFT has it: annotations of a text file by classes of an ontology.
//!
//! The text lies elsewhere: where `--texts` says, beside the file, or where CRAFT has it (`articles/txt` in a folder
//! above). The whole text is one passage. The entity type is the name of the folder above one called `knowtator`
//! (`CHEBI`, `GO_BP`, …), which holds one ontology; elsewhere it is the prefix of the class (`CHEBI:37586`). The
//! class is the mention's id. What a file was searched for is its one type, even where it holds no mention of it.

use super::bioc::escaped;
use super::brat::{decoded, encoded};
use super::writer::Losses;
use super::{Annotation, Documents, ReadOptions, SourceDocument, bare_id, joined_offsets};
use litflow::article::input::{self, Input};
use litflow::article::xml::{Record, attribute, local_name};
use litflow::article::{Reason, RecordError, curie};
use litflow::bus::records::{GoldSpan, LabeledDocument};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Reads the document that `file` annotates.
pub(super) fn read(input: Input, file: &Path, options: &ReadOptions) -> Documents {
    let mut id = None;
    let document = document(input, file, options, &mut id).map_err(|reason| RecordError {
        file: file.display().to_string(),
        position: None,
        id,
        reason,
    });
    Box::new(std::iter::once(document))
}

fn document(
    input: Input,
    file: &Path,
    options: &ReadOptions,
    id: &mut Option<String>,
) -> Result<SourceDocument, Reason> {
    let xml = bounded(input, options.limits.max_record_bytes)?;
    let mut record = Record::new(&xml, &options.limits)?;
    let root = record.root()?;
    let source = attribute(&root, "textSource").unwrap_or_default();
    // A path would lead out of the corpus.
    let source = Path::new(&source).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let stem = source.strip_suffix(".txt").unwrap_or(&source);
    if local_name(&root) != "annotations" || stem.is_empty() {
        return Err(Reason::Format("is not Knowtator XML: it begins with no <annotations textSource=…>".into()));
    }
    let document_id = curie("knowtator", &decoded(stem));
    *id = Some(document_id.clone());
    let text = text(&source, file, options)?;

    let mut mentions: Vec<(String, Annotation)> = Vec::new();
    let mut classes: HashMap<String, String> = HashMap::new();
    let mut annotator = None;
    while let Some(child) = record.next_child()? {
        match local_name(&child) {
            "annotation" => mentions.push(annotation(&mut record, &mut annotator)?),
            "classMention" => {
                let mention = attribute(&child, "id").unwrap_or_default();
                while let Some(part) = record.next_child()? {
                    if local_name(&part) == "mentionClass" {
                        classes.insert(mention.clone(), attribute(&part, "id").unwrap_or_default());
                    }
                    record.skip(&part)?;
                }
            }
            _ => record.skip(&child)?,
        }
    }

    let ontology = ontology_of(file);
    let classified = |(mention, mut annotation): (String, Annotation)| {
        let class = classes.get(&mention).cloned().unwrap_or_default();
        let prefix = class.split_once(':').map_or(class.as_str(), |(prefix, _)| prefix);
        annotation.entity_type = ontology.clone().unwrap_or_else(|| prefix.to_owned());
        annotation.identifiers = Some(class).filter(|class| !class.is_empty()).into_iter().collect();
        annotation
    };
    let annotations = mentions.into_iter().map(classified).collect();
    let entity_types = ontology.clone().map(|ontology| vec![ontology]);
    Ok(SourceDocument { annotations, annotator, entity_types, ..SourceDocument::of_text(document_id, text) })
}

/// An annotation and the id of its mention, by which its class is known.
fn annotation(record: &mut Record<'_>, annotator: &mut Option<String>) -> Result<(String, Annotation), Reason> {
    let mut mention = String::new();
    let mut annotation = Annotation { joint: " ... ".into(), ..Annotation::default() };
    while let Some(child) = record.next_child()? {
        match local_name(&child) {
            "mention" => {
                mention = attribute(&child, "id").unwrap_or_default();
                record.skip(&child)?;
            }
            "annotator" => {
                let name = record.value()?;
                annotator.get_or_insert(name);
            }
            "span" => {
                let number = |name: &str| attribute(&child, name).and_then(|value| value.trim().parse::<u32>().ok());
                let (Some(start), Some(end)) = (number("start"), number("end")) else {
                    return Err(Reason::Malformed("a <span> needs `start` and `end`".into()));
                };
                annotation.fragments.push(start..end);
                record.skip(&child)?;
            }
            "spannedText" => annotation.text = Some(record.verbatim()?),
            _ => record.skip(&child)?,
        }
    }
    Ok((mention, annotation))
}

/// The folder above `knowtator`.
fn ontology_of(file: &Path) -> Option<String> {
    let folder = file.parent().filter(|folder| folder.file_name().is_some_and(|name| name == "knowtator"))?;
    Some(decoded(&folder.parent()?.file_name()?.to_string_lossy()))
}

fn text(name: &str, file: &Path, options: &ReadOptions) -> Result<String, Reason> {
    const LEVELS: usize = 8;
    let nearby = file
        .ancestors()
        .skip(1)
        .take(LEVELS)
        .flat_map(|folder| [folder.join(name), folder.join("articles/txt").join(name)]);
    let candidates: Vec<PathBuf> = match &options.texts {
        Some(folder) => vec![folder.join(name)],
        None => nearby.collect(),
    };
    let Some(path) = candidates.into_iter().find(|path| path.is_file()) else {
        return Err(Reason::Format(format!("its text {name} is not to be found; name its folder by --texts")));
    };
    let bytes = bounded(input::open(&path, Arc::default())?, options.limits.max_record_bytes)?;
    String::from_utf8(bytes).map_err(|error| {
        Reason::Encoding(format!("{}: invalid UTF-8 at byte {}", path.display(), error.utf8_error().valid_up_to()))
    })
}

fn bounded(input: Input, limit: usize) -> Result<Vec<u8>, Reason> {
    let mut bytes = Vec::new();
    input.reader.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > limit { Err(Reason::TooLong { limit }) } else { Ok(bytes) }
}

/// Writes a document as CRAFT has it: its text into `articles/txt`, and for each type that was looked for a file of
/// annotations into `TYPE/knowtator`.
pub(super) fn write(document: &LabeledDocument, folder: &Path, losses: &mut Losses) -> io::Result<()> {
    losses.count(document.passages.len() > 1, "passages became lines of one text");
    losses.count(document.spans.iter().any(|span| span.identifiers.len() > 1), "all ids of a mention but the first");
    losses.count(document.guideline.is_some() || document.annotated_at.is_some(), "guideline and time");
    losses.count(document.entity_types.is_empty(), "what was searched for nothing, of which there is only the text");
    let source = format!("{}.txt", encoded(bare_id("knowtator", &document.document_id)));
    let texts: Vec<&str> = document.passages.iter().map(|passage| passage.text.as_str()).collect();
    let write = |folder: PathBuf, name: &str, content: &str| {
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join(name), content)
    };
    write(folder.join("articles/txt"), &source, &texts.join("\n"))?;
    for entity_type in &document.entity_types {
        let xml = annotations(document, entity_type, &source);
        write(folder.join(encoded(entity_type)).join("knowtator"), &format!("{source}.knowtator.xml"), &xml)?;
    }
    Ok(())
}

/// The file of one type.
fn annotations(document: &LabeledDocument, entity_type: &str, source: &str) -> String {
    let offsets = joined_offsets(&document.passages);
    let spans: Vec<&GoldSpan> = document.spans.iter().filter(|span| span.entity_type == entity_type).collect();
    let mut xml = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<annotations textSource=\"{source}\">\n");
    for (number, span) in (1..).zip(&spans) {
        let (offset, annotator) = (offsets[span.passage as usize], escaped(&document.annotator));
        let (begin, end) = (offset + span.begin, offset + span.end);
        let _ = writeln!(
            xml,
            "  <annotation>\n    <mention id=\"M_{number}\" />\n    <annotator id=\"A_1\">{annotator}</annotator>\n    \
             <span start=\"{begin}\" end=\"{end}\" />\n    <spannedText>{}</spannedText>\n  </annotation>",
            escaped(&span.text)
        );
    }
    for (number, span) in (1..).zip(&spans) {
        let class = escaped(span.identifiers.first().map_or("", String::as_str));
        let _ = writeln!(
            xml,
            "  <classMention id=\"M_{number}\">\n    <mentionClass id=\"{class}\">{}</mentionClass>\n  </classMention>",
            escaped(entity_type)
        );
    }
    xml + "</annotations>\n"
}
