//! The state of the topic `labels` at one moment, as files: what a model was trained on, to be kept beside it.
//!
//! A snapshot is defined by the end offsets of the topic's partitions. Up to them the newest record of each key
//! counts, a tombstone removes it, and what is no sound label is quarantined. The documents are normalised (their
//! order, that of spans and types) and written to `documents.jsonl`, whose SHA-256 is the snapshot's digest: it
//! depends on the labels alone, not on the order in which they came or on the partitions they lie in.
//! `quarantine.jsonl` lists what was left out; `snapshot.json` is written last, and without it a folder is no
//! snapshot. It can be taken again at the same offsets, until compaction has removed what was newest then.
//!
//! Memory holds the ids; the documents wait on the disk.

use crate::dataset::hex;
use crate::error::Error;
use crate::files::write_whole;
use crate::labels::{Cause, Entry, LeftOut, Quarantine, Scheme, Tally, normalised};
use crate::spool::Spool;
use litflow::bus::reader::{Covered, Value, read_until};
use litflow::bus::records::LabeledDocument;
use litflow::bus::{self, topics};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

/// The file that says what a snapshot is.
pub const SUMMARY: &str = "snapshot.json";
const DOCUMENTS: &str = "documents.jsonl";
/// What was left out, an entry a line.
pub const QUARANTINE: &str = "quarantine.jsonl";

/// A snapshot on the disk.
#[derive(Debug, Clone)]
pub struct Snapshot {
    folder: PathBuf,
    /// What it is and what it holds.
    pub summary: Summary,
}

/// `snapshot.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The topic.
    pub topic: String,
    /// The offsets that were read, by partition.
    pub offsets: BTreeMap<i32, Covered>,
    /// `sha256:` and the digest of the normalised documents.
    pub digest: String,
    /// Documents.
    pub documents: u64,
    /// Mentions of each type.
    pub mentions: BTreeMap<String, u64>,
    /// Records read.
    pub records: u64,
    /// Records that a newer one with the same key replaced or withdrew.
    pub superseded: u64,
    /// Documents that were withdrawn and are not there.
    pub withdrawn: u64,
    /// What was left out; `quarantine.jsonl` lists it.
    pub left_out: LeftOut,
}

impl Snapshot {
    /// Takes a snapshot of the topic as it is now, or as it was at these end offsets, into `folder`, which must be
    /// new or empty. `list` is told of each thing that is left out.
    ///
    /// # Errors
    /// A folder that holds something, a cluster that does not answer, a disk that is full. Then there is no snapshot.
    pub fn take(
        kafka: &bus::Options,
        ends: Option<&BTreeMap<i32, i64>>,
        scheme: &Scheme,
        folder: &Path,
        mut list: impl FnMut(&Entry),
    ) -> Result<Self, Error> {
        let at = |name: &str| folder.join(name);
        std::fs::create_dir_all(folder).map_err(|error| Error::io(folder, error))?;
        if std::fs::read_dir(folder).map_err(|error| Error::io(folder, error))?.next().is_some() {
            return Err(Error::Usage(format!("{} is not empty: name another folder", folder.display())));
        }
        let mut listed = create(&at(QUARANTINE))?;
        let mut unlisted: io::Result<()> = Ok(());
        let mut list = |entry: &Entry| {
            list(entry);
            let line = serde_json::to_string(entry).expect("an entry is plain data");
            if unlisted.is_ok() {
                unlisted = writeln!(listed, "{line}");
            }
        };
        let mut quarantine = Quarantine::listing(&mut list);

        let mut table = Table::default();
        let offsets = read_until(kafka, topics::LABELS, ends, |entry| table.add(entry, &mut quarantine))?;
        let (digest, mentions) = table.write(scheme, &at(DOCUMENTS), &mut quarantine)?;
        let summary = Summary {
            topic: topics::LABELS.to_owned(),
            offsets,
            digest,
            documents: table.documents,
            mentions,
            records: table.records,
            superseded: table.superseded,
            withdrawn: table.withdrawn,
            left_out: quarantine.counts().clone(),
        };
        unlisted.map_err(|error| Error::io(&at(QUARANTINE), error))?;
        synced(listed, &at(QUARANTINE))?;
        let json = serde_json::to_string_pretty(&summary).expect("a summary is plain data");
        write_whole(&at(SUMMARY), format!("{json}\n").as_bytes())?;
        Ok(Self { folder: folder.to_owned(), summary })
    }

    /// Whether there is a snapshot in this folder.
    pub fn is_at(folder: &Path) -> bool {
        folder.join(SUMMARY).is_file()
    }

    /// Opens a snapshot.
    ///
    /// # Errors
    /// A folder that holds none, or one whose documents are not those that it was taken with.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let file = folder.join(SUMMARY);
        let damaged = |reason: String| Error::Snapshot { folder: folder.to_owned(), reason };
        let json = std::fs::read(&file).map_err(|error| Error::io(&file, error))?;
        let summary: Summary =
            serde_json::from_slice(&json).map_err(|error| damaged(format!("{SUMMARY} is damaged: {error}")))?;
        let file = folder.join(DOCUMENTS);
        let found = File::open(&file).and_then(digest_of).map_err(|error| Error::io(&file, error))?;
        if found != summary.digest {
            return Err(damaged(format!(
                "{DOCUMENTS} has the digest {found}, and was written with {}",
                summary.digest
            )));
        }
        Ok(Self { folder: folder.to_owned(), summary })
    }

    /// The end offsets, by which the same snapshot can be taken again.
    pub fn ends(&self) -> BTreeMap<i32, i64> {
        self.summary.offsets.iter().map(|(&partition, covered)| (partition, covered.end)).collect()
    }

    /// The documents, by ascending id.
    pub fn documents(&self) -> Result<impl Iterator<Item = Result<LabeledDocument, Error>> + use<>, Error> {
        let file = self.folder.join(DOCUMENTS);
        let lines = BufReader::new(File::open(&file).map_err(|error| Error::io(&file, error))?).lines();
        let folder = self.folder.clone();
        Ok(lines.map(move |line| {
            let line = line.map_err(|error| Error::io(&file, error))?;
            serde_json::from_str(&line).map_err(|error| {
                let reason = format!("{DOCUMENTS} is not of this version: {error}");
                Error::Snapshot { folder: folder.clone(), reason }
            })
        }))
    }
}

fn digest_of(file: File) -> io::Result<String> {
    let mut reader = BufReader::with_capacity(256 << 10, file);
    let mut digest = Sha256::new();
    loop {
        let bytes = reader.fill_buf()?;
        if bytes.is_empty() {
            return Ok(format!("sha256:{}", hex(&digest.finalize())));
        }
        digest.update(bytes);
        let read = bytes.len();
        reader.consume(read);
    }
}

/// What two annotators of a document do not agree on, of the types that both looked for.
fn conflict(older: &LabeledDocument, newer: &LabeledDocument) -> Option<String> {
    let differs = |name: &&String| {
        let places = |document: &LabeledDocument| {
            let of_type = document.spans.iter().filter(|span| span.entity_type == **name);
            let mut places: Vec<_> = of_type.map(|span| (span.passage, span.begin, span.end)).collect();
            places.sort_unstable();
            places
        };
        older.entity_types.contains(name) && places(older) != places(newer)
    };
    let types: Vec<&str> = newer.entity_types.iter().filter(differs).map(String::as_str).collect();
    let by = |document: &LabeledDocument| {
        if document.annotator.is_empty() { "?".to_owned() } else { document.annotator.clone() }
    };
    (!types.is_empty())
        .then(|| format!("{} differs from {} on {}; the newer record counts", by(newer), by(older), types.join(", ")))
}

/// The topic as a table: the newest record of each key.
#[derive(Default)]
struct Table {
    newest: BTreeMap<String, Waiting>,
    spool: Spool<LabeledDocument>,
    documents: u64,
    records: u64,
    superseded: u64,
    withdrawn: u64,
}

/// Where the newest record of a document waits.
struct Waiting {
    at: usize,
    place: String,
    annotator: String,
}

impl Table {
    /// Takes a record. One that is no label replaces nothing.
    fn add(&mut self, record: bus::reader::Entry, quarantine: &mut Quarantine) -> Result<(), Error> {
        self.records += 1;
        let place = format!("{}, partition {}, offset {}", record.topic, record.partition, record.offset);
        let mut refuse = |cause, reason| {
            let document_id = record.key.clone();
            quarantine.add(Entry { cause, place: place.clone(), document_id, reason });
        };
        let document = match (record.value, &record.key) {
            (Value::Labels(document), Some(key)) if document.document_id == *key => document,
            (Value::Labels(document), _) => {
                refuse(Cause::KeyMismatch, format!("the key is not the document's id, {:?}", document.document_id));
                return Ok(());
            }
            (Value::Tombstone, Some(key)) => {
                self.superseded += u64::from(self.newest.remove(key).is_some());
                self.withdrawn += 1;
                return Ok(());
            }
            (Value::Bytes { error, .. }, _) => {
                refuse(Cause::Unreadable, error.unwrap_or_else(|| "no labelled document".into()));
                return Ok(());
            }
            _ => {
                refuse(Cause::KeyMismatch, "a record without a key".into());
                return Ok(());
            }
        };
        if let Some(older) = self.newest.get(&document.document_id) {
            self.superseded += 1;
            if older.annotator != document.annotator
                && let Some(reason) = conflict(&self.spool.get(older.at)?, &document)
            {
                refuse(Cause::Conflict, reason);
            }
        }
        let waiting = Waiting { at: self.spool.push(&document)?, place, annotator: document.annotator };
        self.newest.insert(document.document_id, waiting);
        Ok(())
    }

    /// Writes the sound documents, normalised; returns their digest and the mentions of each type.
    fn write(
        &mut self,
        scheme: &Scheme,
        file: &Path,
        quarantine: &mut Quarantine,
    ) -> Result<(String, BTreeMap<String, u64>), Error> {
        let mut writer = create(file)?;
        let mut digest = Sha256::new();
        let mut tally = Tally::default();
        let mut mentions: BTreeMap<String, u64> = BTreeMap::new();
        for waiting in self.newest.values() {
            let document = self.spool.get(waiting.at)?;
            let document = normalised(document, scheme, &waiting.place, &mut tally, quarantine);
            let Some(document) = document else { continue };
            for span in &document.spans {
                *mentions.entry(span.entity_type.clone()).or_default() += 1;
            }
            let mut line = serde_json::to_vec(&document).expect("a document is plain data");
            line.push(b'\n');
            digest.update(&line);
            writer.write_all(&line).map_err(|error| Error::io(file, error))?;
        }
        self.documents = tally.documents;
        synced(writer, file)?;
        Ok((format!("sha256:{}", hex(&digest.finalize())), mentions))
    }
}

fn create(file: &Path) -> Result<BufWriter<File>, Error> {
    File::create(file).map(BufWriter::new).map_err(|error| Error::io(file, error))
}

/// Sees a file onto the disk: one that is cut off must not look whole.
fn synced(writer: BufWriter<File>, file: &Path) -> Result<(), Error> {
    let written = writer.into_inner().map_err(io::IntoInnerError::into_error).and_then(|written| written.sync_all());
    written.map_err(|error| Error::io(file, error))
}
