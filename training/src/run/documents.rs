//! `documents.jsonl` of a model directory: which documents the version was made with, so that the next run can tell what
//! is new, and anybody later what it learned from. A line a document:
//! ```json
//! {"id": "pmid:1", "sha256": "…", "part": "training"}
//! ```

use crate::error::Error;
use crate::files::write_whole;
use crate::snapshot::Snapshot;
use litflow::bus::records::LabeledDocument;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;

/// The file.
pub const FILE: &str = "documents.jsonl";

/// A document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Known {
    /// Its id.
    pub id: String,
    /// Digest of its text and labels, whoever annotated it when.
    pub sha256: String,
    /// What it was for.
    pub part: Part,
}

/// What a document was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// The model was trained, or developed, on it.
    Training,
    /// It was kept for measuring.
    HeldOut,
}

/// The ids of a snapshot's documents, and the digest of each.
pub fn digests(snapshot: &Snapshot) -> Result<BTreeMap<String, String>, Error> {
    let digest = |document: Result<LabeledDocument, Error>| {
        let mut document = document?;
        document.annotator.clear();
        document.annotated_at = None;
        let json = serde_json::to_vec(&document).expect("a labelled document is plain data");
        Ok((document.document_id, crate::dataset::hex(&Sha256::digest(json))))
    };
    snapshot.documents()?.map(digest).collect()
}

/// Writes the file into `folder`.
pub fn write(
    folder: &Path,
    digests: &BTreeMap<String, String>,
    is_held_out: impl Fn(&str) -> bool,
) -> Result<(), Error> {
    let mut lines = String::new();
    for (id, sha256) in digests {
        let part = if is_held_out(id) { Part::HeldOut } else { Part::Training };
        let known = Known { id: id.clone(), sha256: sha256.clone(), part };
        lines += &serde_json::to_string(&known).expect("strings can be written as JSON");
        lines.push('\n');
    }
    write_whole(&folder.join(FILE), lines.as_bytes())
}

/// Reads the file of a model directory, by id; none where the version was not made by a run.
pub fn read(folder: &Path) -> Result<Option<BTreeMap<String, Known>>, Error> {
    let file = folder.join(FILE);
    let text = match std::fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io(&file, error)),
    };
    let parse = |line: &str| {
        let known: Known = serde_json::from_str(line)
            .map_err(|error| Error::Job(format!("{}: not of this version: {error}", file.display())))?;
        Ok((known.id.clone(), known))
    };
    text.lines().map(parse).collect::<Result<_, _>>().map(Some)
}
