//! Knowtator XML, as CRAFT has it: annotations of a text file by classes of an ontology.
//!
//! The text lies elsewhere: where `--texts` says, beside the file, or where CRAFT has it (`articles/txt` in a folder
//! above). The whole text is one passage. The entity type is the name of the folder above one called `knowtator`
//! (`CHEBI`, `GO_BP`, …), which holds one ontology; elsewhere it is the prefix of the class (`CHEBI:37586`). The
//! class is the mention's id. What a file was searched for is its one type, even where it holds no mention of it.

use super::{Annotation, Documents, ReadOptions, SourceDocument};
use litflow::article::input::{self, Input};
use litflow::article::xml::{Record, attribute, local_name};
use litflow::article::{Reason, RecordError, curie};
use std::collections::HashMap;
use std::io::Read;
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
    let stem = source.trim_end_matches(".txt");
    if local_name(&root) != "annotations" || stem.is_empty() {
        return Err(Reason::Format("is not Knowtator XML: it begins with no <annotations textSource=…>".into()));
    }
    let document_id = curie("knowtator", stem);
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
    Some(folder.parent()?.file_name()?.to_string_lossy().into_owned())
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
