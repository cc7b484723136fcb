//! The documents that a model is trained on or measured on: of files in any of the formats of [`labels`](crate::labels),
//! or of a [`snapshot`](crate::snapshot) of the topic `labels`.
//!
//! A document annotates only *its* types: those that it says were looked for, or those that occur in its file. Text
//! outside its mentions is unlabelled for all other types, not negative; see [`LabeledDocument::annotated`] and
//! `loss.rs`. The same article in several files becomes one document: for each type the first file (in the
//! order given) that annotates it has the say. Because merging goes by article id over all files, a split by
//! document cannot leak.
//!
//! Documents wait on the disk ([`Spool`]): whoever goes through them has one in memory at a time.

mod options;

pub use options::{DataOptions, OTHER, Rare};

use crate::error::Error;
use crate::labels::{Corpus, Entry, LeftOut, Quarantine, ReadOptions};
use crate::scorer::Span;
use crate::snapshot::Snapshot;
use crate::split::HoldOut;
use crate::spool::Spool;
use litflow::bus::records;
use options::{rename_to_other, settle_types};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A document with its gold mentions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabeledDocument {
    /// Its id, a CURIE.
    pub id: String,
    /// In order, a title first; none is empty.
    pub passages: Vec<LabeledPassage>,
    /// For each type whether all its mentions are marked. Of the others nothing is known.
    pub annotated: Vec<bool>,
}

/// A passage with its gold mentions, offsets in code points into its text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabeledPassage {
    /// The text, unaltered.
    pub text: String,
    /// Where it starts in the document.
    pub offset: u32,
    /// Disjoint, ascending.
    pub spans: Vec<Span>,
    /// Stretches whose labels are unknown for every type.
    pub open: Vec<(u32, u32)>,
}

/// Documents and what was left out on the way to them.
#[derive(Debug, Clone, Default)]
pub struct Dataset {
    /// The entity types; spans index them.
    pub types: Vec<String>,
    /// The documents of this set and of those that were taken out of it.
    spool: Arc<Spool<LabeledDocument>>,
    /// Where in the spool this set's lie, in the order of first appearance.
    members: Vec<usize>,
    /// What was left out.
    pub left_out: LeftOut,
    /// The options as they turned out: the types, and what the rare ones became. With these, other files are read
    /// alike.
    pub options: DataOptions,
}

/// What a set of documents comes to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Documents.
    pub documents: usize,
    /// Those of them that are annotated for every type.
    pub complete: usize,
    /// Gold mentions of each type.
    pub mentions: Vec<u64>,
    /// SHA-256 over ids, texts, spans and annotated types: what a model has learned from.
    pub digest: String,
}

impl LabeledDocument {
    /// The gold mentions of all passages.
    pub fn spans(&self) -> impl Iterator<Item = &Span> {
        self.passages.iter().flat_map(|passage| &passage.spans)
    }

    /// Whether every type is annotated.
    pub fn is_complete(&self) -> bool {
        self.annotated.iter().all(|annotated| *annotated)
    }
}

impl Dataset {
    /// Reads and merges files, directories of files, and snapshots.
    ///
    /// # Errors
    /// A path that cannot be read or holds no document, a snapshot that is not what it was, or no type to learn in
    /// all of them. Single broken records and annotations are counted in [`Dataset::left_out`] and reported as
    /// warnings.
    pub fn read(paths: &[PathBuf], options: &DataOptions) -> Result<Self, Error> {
        let mut first_refused = None;
        let mut list = |entry: &Entry| {
            tracing::warn!("{entry}");
            first_refused.get_or_insert_with(|| entry.to_string());
        };
        let mut quarantine = Quarantine::listing(&mut list);
        let mut corpus = Corpus::new(options.scheme());
        let mut empty = None;
        for path in paths {
            path.metadata().map_err(|error| Error::io(path, error))?;
            let found = if Snapshot::is_at(path) {
                add_snapshot(&mut corpus, path, &mut quarantine)?
            } else {
                corpus.add(path, None, &ReadOptions::default(), &mut quarantine)?
            };
            if found == 0 {
                empty = Some(path);
                break;
            }
        }
        let (mut read, mut counts) = (Spool::default(), BTreeMap::new());
        corpus.finish(&mut quarantine, |document, _| {
            for span in &document.spans {
                *counts.entry(span.entity_type.clone()).or_default() += 1;
            }
            read.push(&document).map(|_| ())
        })?;
        let left_out = quarantine.counts().clone();
        if let Some(path) = empty {
            let why = first_refused.map(|reason| format!(" ({reason})")).unwrap_or_default();
            return Err(Error::Usage(format!("{} holds no labelled document{why}", path.display())));
        }
        let mut options = options.clone();
        let rare = settle_types(&counts, &mut options);
        if options.types.is_empty() {
            let names: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
            return Err(Error::Usage(format!(
                "no entity type is annotated in {}: give files with annotations, or fewer `min_mentions`",
                names.join(", ")
            )));
        }
        let documents = read.iter().map(|document| {
            let mut document = document?;
            rename_to_other(&mut document, &rare);
            Ok(indexed(document, &options.types))
        });
        let data = Self::of(options.types.clone(), documents)?;
        Ok(Self { left_out, options, ..data })
    }

    /// Documents whose spans index `types`.
    ///
    /// # Errors
    /// Those of the documents, or of the disk.
    pub fn of(
        types: Vec<String>,
        documents: impl IntoIterator<Item = Result<LabeledDocument, Error>>,
    ) -> Result<Self, Error> {
        let mut spool = Spool::default();
        for document in documents {
            spool.push(&document?)?;
        }
        let members = (0..spool.len()).collect();
        Ok(Self { types, members, spool: Arc::new(spool), ..Self::default() })
    }

    /// How many documents there are.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The documents, in the order of first appearance, read from the disk one by one.
    pub fn documents(&self) -> impl Iterator<Item = Result<LabeledDocument, Error>> {
        self.members.iter().map(|&at| self.spool.get(at))
    }

    /// The document at a place in that order, read from the disk.
    pub fn get(&self, place: usize) -> Result<LabeledDocument, Error> {
        self.spool.get(self.members[place])
    }

    /// Takes out the documents that `rule` holds out of training.
    pub fn hold_out(&mut self, rule: &HoldOut) -> Result<Self, Error> {
        let taken = self.take(|document| rule.holds(document))?;
        let (types, options) = (self.types.clone(), self.options.clone());
        Ok(Self { types, members: taken, spool: self.spool.clone(), left_out: LeftOut::default(), options })
    }

    /// Removes the documents with these ids.
    pub fn remove(&mut self, ids: &BTreeSet<String>) -> Result<(), Error> {
        self.take(|document| ids.contains(&document.id)).map(|_| ())
    }

    fn take(&mut self, is_taken: impl Fn(&LabeledDocument) -> bool) -> Result<Vec<usize>, Error> {
        let (mut taken, mut kept) = (Vec::new(), Vec::new());
        for &at in &self.members {
            let to = if is_taken(&self.spool.get(at)?) { &mut taken } else { &mut kept };
            to.push(at);
        }
        self.members = kept;
        Ok(taken)
    }

    /// The documents' ids.
    pub fn ids(&self) -> Result<BTreeSet<String>, Error> {
        self.documents().map(|document| Ok(document?.id)).collect()
    }

    /// What the set comes to.
    pub fn summary(&self) -> Result<Summary, Error> {
        let mut summary = Summary { documents: self.len(), mentions: vec![0; self.types.len()], ..Summary::default() };
        let mut digest = Sha256::new();
        digest.update(self.types.join("\t"));
        for document in self.documents() {
            let document = document?;
            summary.complete += usize::from(document.is_complete());
            document.spans().for_each(|span| summary.mentions[span.entity_type] += 1);
            digest.update(format!("\n{}\t{:?}", document.id, document.annotated));
            for passage in &document.passages {
                digest.update(format!("\n{}\n{:?}\n{:?}", passage.text, passage.spans, passage.open));
            }
        }
        summary.digest = format!("sha256:{}", hex(&digest.finalize()));
        Ok(summary)
    }
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn add_snapshot(corpus: &mut Corpus, folder: &Path, quarantine: &mut Quarantine) -> Result<usize, Error> {
    let snapshot = Snapshot::open(folder)?;
    let place = folder.display().to_string();
    let mut found = 0;
    for document in snapshot.documents()? {
        corpus.add_document(place.clone(), document?.into(), quarantine)?;
        found += 1;
    }
    Ok(found)
}

/// The document with its types as indices. Passages without text have nothing to learn from.
fn indexed(document: records::LabeledDocument, types: &[String]) -> LabeledDocument {
    let annotated = types.iter().map(|name| document.entity_types.contains(name)).collect();
    let mut passages: Vec<LabeledPassage> = document
        .passages
        .iter()
        .zip(crate::labels::joined_offsets(&document.passages))
        .map(|(passage, offset)| LabeledPassage {
            text: passage.text.clone(),
            offset,
            spans: Vec::new(),
            open: Vec::new(),
        })
        .collect();
    for span in &document.spans {
        if let Some(entity_type) = types.iter().position(|name| *name == span.entity_type) {
            let span_of_type = Span { begin: span.begin, end: span.end, entity_type };
            passages[span.passage as usize].spans.push(span_of_type);
        }
    }
    for open in &document.open {
        passages[open.passage as usize].open.push((open.begin, open.end));
    }
    passages.retain(|passage| !passage.text.is_empty());
    LabeledDocument { id: document.document_id, passages, annotated }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels::OpenWords;
    use std::fs::File;
    use std::io::Write;

    /// Reads files given as (name, content).
    fn read(files: &[(&str, &str)], options: &DataOptions) -> Result<Dataset, Error> {
        let folder = tempfile::tempdir().unwrap();
        let paths = files.iter().map(|(name, content)| {
            let path = folder.path().join(name);
            File::create(&path).unwrap().write_all(content.as_bytes()).unwrap();
            path
        });
        Dataset::read(&paths.collect::<Vec<_>>(), options)
    }

    fn documents(data: &Dataset) -> Vec<LabeledDocument> {
        data.documents().map(Result::unwrap).collect()
    }

    fn span(begin: u32, end: u32, entity_type: usize) -> Span {
        Span { begin, end, entity_type }
    }

    const GENES: &str = "1|t|BRCA1 in mice\n1|a|TP53 too.\n1\t0\t5\tBRCA1\tGene\t672\n1\t14\t18\tTP53\tGene\t7157\n";
    const SPECIES: &str = "1|t|BRCA1 in mice\n1|a|TP53 too.\n1\t9\t13\tmice\tSpecies\t10090\n";

    #[test]
    fn a_file_annotates_the_types_that_occur_in_it_and_copies_merge() {
        let other = "2|t|Mice\n2|a|Patients.\n2\t0\t4\tMice\tSpecies\t10090\n";
        let data =
            read(&[("a.pubtator", GENES), ("b.pubtator", &format!("{SPECIES}\n{other}"))], &DataOptions::default());
        let data = data.unwrap();
        assert_eq!(data.types, ["Gene", "Species"]);
        assert_eq!(data.len(), 2);
        assert!(documents(&data)[0].is_complete());
        assert_eq!(documents(&data)[0].passages[0].spans, [span(0, 5, 0), span(9, 13, 1)]);
        assert_eq!(documents(&data)[0].passages[1].spans, [span(0, 4, 0)]);
        assert_eq!(documents(&data)[1].annotated, [false, true]);
    }

    #[test]
    fn the_first_file_has_the_say_on_a_type() {
        let second = "1|t|BRCA1 in mice\n1|a|TP53 too.\n1\t9\t13\tmice\tSpecies\t1\n1\t0\t13\tBRCA1 in mice\tGene\t1\n";
        let data = read(&[("a", GENES), ("b", second)], &DataOptions::default()).unwrap();
        assert_eq!(documents(&data)[0].passages[0].spans, [span(0, 5, 0), span(9, 13, 1)]);
    }

    #[test]
    fn renamed_dropped_and_open_types() {
        let text = "1|t|ab cd ef gh\n1|a|\n1\t0\t2\tab\tProtein\t\n1\t3\t5\tcd\tDomain\t\n1\t6\t8\tef\tCell\t\n";
        let options = DataOptions {
            types: vec!["Gene".into()],
            rename: [("Protein".into(), "Gene".into()), ("Domain".into(), String::new())].into(),
            open: vec![OpenWords { files: vec!["a".into()], words: vec!["gh".into()] }],
            ..DataOptions::default()
        };
        let data = read(&[("a.txt", text)], &options).unwrap();
        assert_eq!(documents(&data)[0].passages.len(), 1);
        assert_eq!(documents(&data)[0].passages[0].spans, [span(0, 2, 0)]);
        assert_eq!(documents(&data)[0].passages[0].open, [(3, 5), (9, 11)]);
    }

    #[test]
    fn what_is_wrong_is_left_out_and_counted() {
        let text = "x\n\n1|t|αβ BRCA1 gene\n1|a|\n1\t3\t8\tBRCA1\tGene\t\n1\t3\t13\tBRCA1 gene\tGene\t\n1\t0\t5\tBRCA1\tGene\t\n\n\
                    1|t|Another text\n1|a|\n";
        let data = read(&[("a", text)], &DataOptions::default()).unwrap();
        assert_eq!(documents(&data)[0].passages[0].spans, [span(3, 13, 0)]);
        assert_eq!(documents(&data)[0].passages[0].open, [(0, 5)]);
        assert_eq!(
            data.left_out.to_string(),
            "1 unreadable records, 1 copies of a document with a differing text, \
             1 annotations whose offsets do not select their text, 1 annotations that overlap another one"
        );
    }

    #[test]
    fn files_without_documents_or_types_are_refused() {
        for (content, said) in [("", "is empty"), ("hello\n", "in no format"), ("1|t|a\n1|a|b\n", "no entity type")] {
            let error = read(&[("a", content)], &DataOptions::default()).unwrap_err();
            assert!(error.to_string().contains(said), "{error}");
            assert_eq!(error.exit_code(), 2);
        }
        let error = Dataset::read(&["nowhere.pubtator".into()], &DataOptions::default()).unwrap_err();
        assert!(error.to_string().starts_with("nowhere.pubtator: "), "{error}");
    }

    /// Three genes, two diseases, a cell and a domain.
    const INVENTORY: &str = "1|t|ga gb gc da db ca pa\n1|a|\n1\t0\t2\tga\tT116\t\n1\t3\t5\tgb\tT028\t\n1\t6\t8\tgc\tT028\t\n\
                             1\t9\t11\tda\tT047\t\n1\t12\t14\tdb\tT191\t\n1\t15\t17\tca\tT025\t\n1\t18\t20\tpa\tT087\t\n";

    #[test]
    fn a_type_map_consolidates_and_rare_types_become_other() {
        let folder = tempfile::tempdir().unwrap();
        let map = "T116 = \"Gene\"\nT028 = \"Gene\"\nT047 = \"Disease\"\nT191 = \"Disease\"\nT087 = \"\"\n";
        std::fs::write(folder.path().join("map.toml"), map).unwrap();
        let mut options = DataOptions { type_map: Some("map.toml".into()), min_mentions: 3, ..DataOptions::default() };
        options.rename.insert("T025".into(), "Cell".into());
        options.read_type_map(folder.path()).unwrap();
        let data = read(&[("a", INVENTORY)], &options).unwrap();
        assert_eq!(data.types, ["Gene", OTHER]);
        assert_eq!(data.summary().unwrap().mentions, [3, 3]);
        assert!(documents(&data)[0].is_complete());
        assert_eq!(documents(&data)[0].passages[0].open, [(18, 20)]);
        // Other data is read alike, whatever its own counts are.
        let few = "2|t|da gb ca\n2|a|\n2\t0\t2\tda\tT047\t\n2\t3\t5\tgb\tT028\t\n2\t6\t8\tca\tT025\t\n";
        let same = read(&[("b", few)], &data.options).unwrap();
        assert_eq!(same.types, data.types);
        assert_eq!(documents(&same)[0].passages[0].spans, [span(0, 2, 1), span(3, 5, 0), span(6, 8, 1)]);

        let left_out = DataOptions { rare: Rare::LeaveOut, ..options.clone() };
        let data = read(&[("a", INVENTORY)], &left_out).unwrap();
        assert_eq!((data.types.as_slice(), data.summary().unwrap().mentions), (&["Gene".to_owned()][..], vec![3]));
        assert_eq!(documents(&data)[0].passages[0].open, [(18, 20)]);
        let none = read(&[("a", INVENTORY)], &DataOptions { min_mentions: 100, ..options }).unwrap_err();
        assert!(none.to_string().contains("min_mentions"), "{none}");

        std::fs::write(folder.path().join("map.toml"), "T116 = 5\n").unwrap();
        let mut options = DataOptions { type_map: Some("map.toml".into()), ..DataOptions::default() };
        let error = options.read_type_map(folder.path()).unwrap_err();
        assert!(error.to_string().contains("map.toml") && error.exit_code() == 2, "{error}");
    }

    #[test]
    fn files_of_any_format_make_one_dataset() {
        let line = "{\"document_id\": \"pmid:1\", \"passages\": [{\"section\": \"title\", \"text\": \"BRCA1 in mice\"}, \
                    {\"text\": \"TP53 too.\"}], \"spans\": [], \"entity_types\": [\"Disease\"], \
                    \"open\": [{\"passage\": 1, \"begin\": 5, \"end\": 8}]}\n";
        let options = DataOptions { types: vec!["Gene".into(), "Disease".into()], ..DataOptions::default() };
        let data = read(&[("a.pubtator", GENES), ("b.jsonl", line)], &options).unwrap();
        assert_eq!((data.len(), documents(&data)[0].id.as_str()), (1, "pmid:1"));
        assert!(documents(&data)[0].is_complete() && data.left_out.is_empty());
        assert_eq!(documents(&data)[0].passages[1].open, [(5, 8)]);
    }
}
