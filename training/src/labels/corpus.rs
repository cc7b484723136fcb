//! Files of labelled documents, read, checked, and merged by document.
//!
//! Most sources do not say which types were looked for. Then they are those that occur: in the file, or for BRAT,
//! which has a file a document, in the whole path that was given. Text outside the mentions is unlabelled for all
//! other types, not negative.
//!
//! A document may stand in several files, annotated for different types in each, so none is done until all are read.
//! Until then they wait on the disk; memory holds their ids.

use super::policy::{self, Discontinuous, OpenWords, Overlap};
use super::quarantine::{Cause, Entry, Quarantine};
use super::{Documents, Format, ReadOptions, SourceDocument};
use super::{bioc, brat, conll, jsonl, knowtator, label_studio, prodigy, pubtator};
use crate::error::Error;
use crate::spool::Spool;
use litflow::article::{Reason, RecordError, input};
use litflow::bus::records::LabeledDocument;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What the labels are to be.
#[derive(Debug, Clone, Default)]
pub struct Scheme {
    /// The types that every document was searched for, in the stead of what the sources say; a span of another
    /// type is quarantined.
    pub types: Option<Vec<String>>,
    /// The type that a source's type stands for. The empty string leaves the mention's words open.
    pub rename: BTreeMap<String, String>,
    /// The types to keep; of others nothing is said. All where it is empty.
    pub only: Vec<String>,
    /// Spans that overlap.
    pub overlap: Overlap,
    /// Mentions in several fragments.
    pub discontinuous: Discontinuous,
    /// Words to leave open wherever they stand outside a mention.
    pub open: Vec<OpenWords>,
}

impl Scheme {
    /// The type that a source's type stands for.
    pub fn renamed<'a>(&'a self, name: &'a str) -> &'a str {
        self.rename.get(name).map_or(name, String::as_str)
    }

    pub(super) fn is_learned(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == name)
    }

    /// The types that a document was searched for, of what its source says or of those that occur.
    fn looked_for<'a>(&self, source: impl IntoIterator<Item = &'a String>) -> Vec<String> {
        let names: BTreeSet<&str> = match &self.types {
            Some(types) => types.iter().map(String::as_str).collect(),
            None => source.into_iter().map(|name| self.renamed(name)).collect(),
        };
        names.into_iter().filter(|name| !name.is_empty() && self.is_learned(name)).map(str::to_owned).collect()
    }
}

/// What was made of the sources, beside what was left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Documents read.
    pub read: u64,
    /// Copies of a document among them, of which the first was added to.
    pub copies: u64,
    /// Annotations that say what another one says.
    pub repeated_spans: u64,
    /// Mentions in several fragments, which the policy made one span or more of.
    pub discontinuous: u64,
    /// Documents made.
    pub documents: u64,
    /// Spans in them.
    pub spans: u64,
}

/// Labelled documents by id, in the order of first appearance.
#[derive(Default)]
pub struct Corpus {
    scheme: Scheme,
    tally: Tally,
    /// Each with the place that it came from first; a copy that adds to one follows as another.
    spool: Spool<(String, LabeledDocument)>,
    /// Where in the spool each document lies whole.
    documents: Vec<usize>,
    index: HashMap<String, usize>,
}

/// Documents that were annotated alike: each is taken to have been searched for every type that occurs in any of
/// them, unless it says itself what it was searched for.
#[derive(Default)]
struct Group {
    /// Each with its place.
    documents: Spool<(String, SourceDocument)>,
    /// The types in those that do not say.
    occurring: BTreeSet<String>,
}

impl Group {
    fn push(&mut self, place: String, document: SourceDocument) -> Result<(), Error> {
        if document.entity_types.is_none() {
            self.occurring.extend(document.annotations.iter().map(|annotation| annotation.entity_type.clone()));
        }
        self.documents.push(&(place, document)).map(|_| ())
    }
}

impl Corpus {
    /// An empty one.
    pub fn new(scheme: Scheme) -> Self {
        Self { scheme, ..Self::default() }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.documents.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.documents.is_empty()
    }

    /// Reads a file, or all files under a directory. Returns how many documents were found. Whatever cannot be
    /// read is quarantined.
    ///
    /// # Errors
    /// A disk that has no room for what waits.
    pub fn add(
        &mut self,
        path: &Path,
        format: Option<Format>,
        options: &ReadOptions,
        quarantine: &mut Quarantine,
    ) -> Result<usize, Error> {
        let unlisted = |error: std::io::Error| {
            let file = path.display().to_string();
            unreadable(RecordError { file, position: None, id: None, reason: error.into() })
        };
        let files = match files(path, format) {
            Ok(files) => files,
            Err(error) => {
                quarantine.add(unlisted(error));
                return Ok(0);
            }
        };
        let mut found = 0;
        let mut group = Group::default();
        for file in files {
            let (format, documents) = match open(&file, format, options) {
                Ok(opened) => opened,
                Err(error) => {
                    quarantine.add(unreadable(error));
                    continue;
                }
            };
            let name = file.display().to_string();
            for document in documents {
                match document {
                    Ok(document) => group.push(name.clone(), document)?,
                    Err(error) => quarantine.add(unreadable(error)),
                }
            }
            if format != Format::Brat {
                found += self.add_group(std::mem::take(&mut group), quarantine)?;
            }
        }
        Ok(found + self.add_group(group, quarantine)?)
    }

    /// Adds a document that was annotated by itself.
    pub fn add_document(
        &mut self,
        place: String,
        document: SourceDocument,
        quarantine: &mut Quarantine,
    ) -> Result<(), Error> {
        let mut group = Group::default();
        group.push(place, document)?;
        self.add_group(group, quarantine).map(|_| ())
    }

    /// Returns how many there were.
    fn add_group(&mut self, group: Group, quarantine: &mut Quarantine) -> Result<usize, Error> {
        let occurring = self.scheme.looked_for(&group.occurring);
        for entry in group.documents.iter() {
            let (place, document) = entry?;
            let looked_for = match &document.entity_types {
                Some(types) => self.scheme.looked_for(types),
                None => occurring.clone(),
            };
            self.tally.read += 1;
            let checked = policy::check(document, looked_for, &self.scheme, &place, &mut self.tally, quarantine);
            if let Some(document) = checked {
                self.merge(place, document, quarantine)?;
            }
        }
        Ok(group.documents.len())
    }

    fn merge(&mut self, place: String, document: LabeledDocument, quarantine: &mut Quarantine) -> Result<(), Error> {
        match self.index.get(&document.document_id) {
            Some(&at) => {
                self.tally.copies += 1;
                let mut whole = self.spool.get(self.documents[at])?;
                let before = whole.1.clone();
                policy::merge(&mut whole.1, document, &place, quarantine);
                // Many copies that add nothing must not fill the disk.
                if whole.1 != before {
                    self.documents[at] = self.spool.push(&whole)?;
                }
            }
            None => {
                self.index.insert(document.document_id.clone(), self.documents.len());
                self.documents.push(self.spool.push(&(place, document))?);
            }
        }
        Ok(())
    }

    /// Gives the documents, one by one, their spans disjoint.
    ///
    /// # Errors
    /// A disk that fails, or what `each` returns.
    pub fn finish<E: From<Error>>(
        self,
        quarantine: &mut Quarantine,
        mut each: impl FnMut(LabeledDocument, &mut Quarantine) -> Result<(), E>,
    ) -> Result<Tally, E> {
        let Self { scheme, mut tally, spool, documents, .. } = self;
        for at in documents {
            let (place, mut document) = spool.get(at)?;
            policy::settle_overlaps(&mut document, scheme.overlap, &place, &mut tally, quarantine);
            tally.documents += 1;
            tally.spans += document.spans.len() as u64;
            each(document, quarantine)?;
        }
        Ok(tally)
    }
}

fn unreadable(error: RecordError) -> Entry {
    let place = RecordError { id: None, reason: Reason::Malformed(String::new()), ..error };
    let place = place.to_string().trim_end_matches(": ").to_owned();
    Entry { cause: Cause::Unreadable, place, document_id: error.id, reason: error.reason.to_string() }
}

/// The files that a path stands for, sorted.
fn files(path: &Path, format: Option<Format>) -> std::io::Result<Vec<PathBuf>> {
    let mut files = input::expand(path, true)?;
    if path.is_dir() {
        files.retain(|file| Format::is_input(format, file));
    }
    Ok(files)
}

/// The documents of one file. A source that names no annotator has the file's name for one, or BRAT's folder's.
fn open(file: &Path, format: Option<Format>, options: &ReadOptions) -> Result<(Format, Documents), RecordError> {
    let name = if input::is_stdin(file) { "stdin".to_owned() } else { file.display().to_string() };
    let error = |reason| RecordError { file: name.clone(), position: None, id: None, reason };
    let input = input::open(file, Arc::default()).map_err(|reason| error(reason.into()))?;
    let format = match format {
        Some(format) => format,
        None => Format::detect(file, &input.head).map_err(error)?,
    };
    let limits = &options.limits;
    let documents: Documents = match format {
        Format::Jsonl => jsonl::read(input, name.clone(), limits),
        Format::Pubtator => pubtator::read(input, name.clone(), limits),
        Format::BiocJson | Format::BiocXml => bioc::read(input, name.clone(), limits),
        Format::Conll => conll::read(input, name.clone(), limits),
        Format::Brat => brat::read(input, file, limits),
        Format::Knowtator => knowtator::read(input, file, options),
        Format::LabelStudio => label_studio::read(input, name.clone(), limits),
        Format::Prodigy => prodigy::read(input, name.clone(), limits),
    };
    // BRAT's files are named by their documents.
    let named = if format == Format::Brat { file.parent().and_then(Path::file_name) } else { file.file_name() };
    let named = if input::is_stdin(file) { None } else { named };
    let stem = named.map_or("stdin".into(), |name| name.to_string_lossy()).into_owned();
    let stem = stem.split('.').next().unwrap_or_default().to_owned();
    let limit = limits.max_passages;
    let annotated = documents.map(move |document| {
        let mut document = document?;
        let passages = document.passages.len();
        if passages > limit {
            let reason = Reason::TooManyPassages { passages, limit };
            return Err(RecordError { file: name.clone(), position: None, id: Some(document.id), reason });
        }
        document.annotator.get_or_insert_with(|| stem.clone());
        Ok(document)
    });
    Ok((format, Box::new(annotated)))
}

/// A document from the topic as training may use it: checked and settled. `None` where it is quarantined.
pub(crate) fn normalised(
    document: LabeledDocument,
    scheme: &Scheme,
    place: &str,
    tally: &mut Tally,
    quarantine: &mut Quarantine,
) -> Option<LabeledDocument> {
    let looked_for = scheme.looked_for(&document.entity_types);
    let mut document = policy::check(document.into(), looked_for, scheme, place, tally, quarantine)?;
    policy::settle_overlaps(&mut document, scheme.overlap, place, tally, quarantine);
    tally.documents += 1;
    tally.spans += document.spans.len() as u64;
    Some(document)
}
