//! The version that is served now: where it lies, and which documents it knows.

use crate::error::Error;
use crate::snapshot::Snapshot;
use litflow::registry::aliases::CHAMPION;
use litflow::registry::{self, Registry};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// The file of a model directory that names the documents of its snapshot, a line each: the id, the SHA-256 of the
/// labelled document, and [`TRAINING`] or [`HELD_OUT`]. The development documents are those of training.
pub const DOCUMENTS: &str = "documents.tsv";
/// The model was trained, or developed, on it.
pub const TRAINING: &str = "training";
/// It was kept for measuring.
pub const HELD_OUT: &str = "held-out";

/// The champion.
#[derive(Debug, Clone)]
pub struct Champion {
    /// Its version.
    pub version: String,
    /// Its digest.
    pub digest: String,
    /// Its directory, in the cache.
    pub folder: PathBuf,
}

impl Champion {
    /// The champion of the model, fetched and verified; none where none is announced.
    pub fn find(registry: &Registry, options: &registry::Options, name: &str) -> Result<Option<Self>, Error> {
        let announcements = registry.announcements()?;
        let Some(target) = announcements.get(name)?.and_then(|state| state.alias(CHAMPION)).cloned() else {
            return Ok(None);
        };
        let folder = registry.store().fetch(name, &target.version, &target.digest, &options.cache())?;
        Ok(Some(Self { version: target.version, digest: target.digest, folder }))
    }

    /// The documents that it was made with, and their digests; none where it does not say.
    pub fn documents(&self) -> Result<Option<BTreeMap<String, String>>, Error> {
        let file = self.folder.join(DOCUMENTS);
        let text = match std::fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io(&file, error)),
        };
        let line = |line: &str| {
            let mut columns = line.split('\t').map(str::to_owned);
            Some((columns.next()?, columns.next()?))
        };
        Ok(Some(text.lines().filter_map(line).collect()))
    }
}

/// The ids of a snapshot's documents, with the digest of each: of its text and labels, whoever annotated it when.
pub fn digests(snapshot: &Snapshot) -> Result<BTreeMap<String, String>, Error> {
    let digest = |document: Result<litflow::bus::records::LabeledDocument, Error>| {
        let mut document = document?;
        document.annotator.clear();
        document.annotated_at = None;
        let json = serde_json::to_vec(&document).expect("a labelled document is plain data");
        Ok((document.document_id, crate::dataset::hex(&Sha256::digest(json))))
    };
    snapshot.documents()?.map(digest).collect()
}

/// Writes [`DOCUMENTS`].
pub fn write(file: &Path, digests: &BTreeMap<String, String>, is_held_out: impl Fn(&str) -> bool) -> Result<(), Error> {
    let mut text = String::new();
    for (id, digest) in digests {
        let part = if is_held_out(id) { HELD_OUT } else { TRAINING };
        let _ = writeln!(text, "{id}\t{digest}\t{part}"); // writing to a String cannot fail
    }
    std::fs::write(file, text).map_err(|error| Error::io(file, error))
}
