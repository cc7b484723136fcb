//! How files become labelled documents: which types are learned, what they are called, and what becomes of the rare.

use crate::error::Error;
use crate::labels::{Discontinuous, OpenWords, Overlap, Scheme};
use litflow::bus::records;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// How files become labelled documents.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataOptions {
    /// The entity types to learn, in the order of the label set; all that occur where it is empty.
    pub types: Vec<String>,
    /// Types with fewer mentions than this become `rare`, 0 for none.
    pub min_mentions: u64,
    /// What becomes of types with too few mentions.
    pub rare: Rare,
    /// What becomes of spans that overlap.
    pub overlap: Overlap,
    /// What becomes of mentions in several fragments.
    pub discontinuous: Discontinuous,
    /// A file of more lines of `rename`, relative to the recipe: a large inventory of types (UMLS's semantic types)
    /// and what each of them stands for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub type_map: Option<PathBuf>,
    /// The type that a file's type stands for. The empty string leaves the mention's words open: they may
    /// be of any type or none (a corpus's protein domains, where others call them genes or nothing).
    pub rename: BTreeMap<String, String>,
    /// Words that files treat differently from the first one.
    pub open: Vec<OpenWords>,
}

/// What becomes of types with too few mentions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rare {
    /// They become the type [`OTHER`].
    #[default]
    Other,
    /// The model does not learn them, and their words are no mention.
    LeaveOut,
}

/// The type that rare types become.
pub const OTHER: &str = "Other";

impl DataOptions {
    /// Adds what the type map says to `rename`, which goes before it. `folder` is where relative paths begin.
    ///
    /// # Errors
    /// A file that cannot be read, or is no TOML of `from = "to"` lines.
    pub fn read_type_map(&mut self, folder: &Path) -> Result<(), Error> {
        let Some(file) = self.type_map.take() else { return Ok(()) };
        let file = folder.join(file);
        let text = std::fs::read_to_string(&file).map_err(|error| Error::io(&file, error))?;
        let map: BTreeMap<String, String> =
            toml::from_str(&text).map_err(|error| Error::Usage(format!("{}: {error}", file.display())))?;
        for (from, to) in map {
            self.rename.entry(from).or_insert(to);
        }
        Ok(())
    }

    pub(super) fn scheme(&self) -> Scheme {
        Scheme {
            types: None,
            rename: self.rename.clone(),
            only: self.types.clone(),
            overlap: self.overlap,
            discontinuous: self.discontinuous,
            open: self.open.clone(),
        }
    }
}

/// Decides which types are learned. Returns those with too few mentions, which become [`OTHER`].
pub(super) fn settle_types(counts: &BTreeMap<String, u64>, options: &mut DataOptions) -> BTreeSet<String> {
    let count = |name: &String| counts.get(name).copied().unwrap_or_default();
    if options.types.is_empty() {
        options.types = counts.keys().cloned().collect();
        options.types.sort_by_key(|name| (std::cmp::Reverse(count(name)), name.clone()));
    }
    let is_rare = |name: &String| count(name) < options.min_mentions && name != OTHER;
    let rare: BTreeSet<String> = options.types.iter().filter(|name| is_rare(name)).cloned().collect();
    let others: u64 = rare.iter().chain([&OTHER.to_owned()]).map(count).sum();
    options.types.retain(|name| !rare.contains(name));
    let become_other = !rare.is_empty() && options.rare == Rare::Other && others >= options.min_mentions;
    options.min_mentions = 0;
    if !become_other {
        return BTreeSet::new();
    }
    if !options.types.iter().any(|name| name == OTHER) {
        options.types.push(OTHER.to_owned());
    }
    options.rename.values_mut().filter(|to| rare.contains(*to)).for_each(|to| *to = OTHER.to_owned());
    options.rename.extend(rare.iter().map(|name| (name.clone(), OTHER.to_owned())));
    rare
}

/// Gives the spans of rare types the type [`OTHER`].
pub(super) fn rename_to_other(document: &mut records::LabeledDocument, rare: &BTreeSet<String>) {
    let spans = document.spans.iter_mut().map(|span| &mut span.entity_type);
    spans.chain(&mut document.entity_types).filter(|name| rare.contains(*name)).for_each(|name| {
        OTHER.clone_into(name);
    });
}
