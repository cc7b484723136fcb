//! Labelled documents from PubTator files that annotate different types of the same literature.
//!
//! Each file annotates only *its* types: those that occur in it (after renaming). Text outside its
//! mentions is unlabelled for all other types, not negative; see [`LabeledDocument::annotated`] and
//! `loss.rs`. The same article in several files becomes one document: for each type the first file (in
//! the order given) that annotates it has the say. Because merging goes by article id over all files,
//! a split by document cannot leak.

use crate::error::Error;
use crate::scorer::Span;
use litflow::article::pubtator::{PubtatorAnnotation, PubtatorDocument, Reader};
use litflow::article::{Options as ReadOptions, Reason};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

/// How files become labelled documents.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataOptions {
    /// The entity types to learn, in the order of the label set; all that occur where it is empty.
    pub types: Vec<String>,
    /// The type that a file's type stands for. The empty string leaves the mention's words open: they may
    /// be of any type or none (a corpus's protein domains, where others call them genes or nothing).
    pub rename: BTreeMap<String, String>,
    /// Words that files treat differently from the first one.
    pub open: Vec<OpenWords>,
}

/// Words whose labels in some files say nothing, because the annotation guidelines differ.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenWords {
    /// File names without their extension.
    pub files: Vec<String>,
    /// Whole words, lower case. Where one stands outside a mention it is left open.
    pub words: Vec<String>,
}

/// A document with its gold mentions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabeledDocument {
    /// The id in its file, a PMID.
    pub id: String,
    /// Title and abstract.
    pub passages: Vec<LabeledPassage>,
    /// For each type whether all its mentions are marked. Of the others nothing is known.
    pub annotated: Vec<bool>,
}

/// A passage with its gold mentions, offsets in code points into its text.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// In the order of first appearance.
    pub documents: Vec<LabeledDocument>,
    /// What was left out.
    pub left_out: LeftOut,
}

/// Counts of what could not be used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// Records that are no PubTator document.
    pub broken_records: u64,
    /// Annotations whose offsets do not select their text.
    pub misplaced_annotations: u64,
    /// Annotations that overlap a longer one.
    pub overlapped_annotations: u64,
    /// Copies of a document whose text differs from the first copy's.
    pub differing_copies: u64,
}

impl LeftOut {
    /// Whether nothing was left out that the user would want to know of.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl std::fmt::Display for LeftOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts: Vec<String> = [
            (self.broken_records, "broken records"),
            (self.misplaced_annotations, "annotations whose offsets do not select their text"),
            (self.overlapped_annotations, "annotations that overlap a longer one"),
            (self.differing_copies, "copies of a document with a differing text"),
        ]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
        f.write_str(&parts.join(", "))
    }
}

impl LabeledDocument {
    /// Whether every type is annotated.
    pub fn is_complete(&self) -> bool {
        self.annotated.iter().all(|annotated| *annotated)
    }
}

impl Dataset {
    /// Reads and merges PubTator files.
    ///
    /// # Errors
    /// A file that cannot be read or holds no document, or no type to learn in all of them. Single broken
    /// records and annotations are counted in [`Dataset::left_out`] and reported as warnings.
    pub fn read(files: &[PathBuf], options: &DataOptions) -> Result<Self, Error> {
        let mut left_out = LeftOut::default();
        let mut read = Vec::with_capacity(files.len());
        for file in files {
            read.push((file, read_documents(file, &mut left_out)?));
        }
        let renamed = |name: &str| options.rename.get(name).cloned().unwrap_or_else(|| name.to_owned());
        let types = match options.types.as_slice() {
            [] => types_by_frequency(read.iter().flat_map(|(_, documents)| documents), &renamed),
            types => types.to_vec(),
        };
        if types.is_empty() {
            return Err(Error::Usage(format!(
                "no entity type is annotated in {}: give PubTator files with annotations",
                files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ")
            )));
        }
        let index_of = |annotation: &PubtatorAnnotation| {
            let name = renamed(&annotation.entity_type);
            types.iter().position(|entity_type| *entity_type == name)
        };

        let mut merged = Merged::default();
        for (file, documents) in read {
            let mut annotated = vec![false; types.len()];
            for annotation in documents.iter().flat_map(|document| &document.annotations) {
                if let Some(index) = index_of(annotation) {
                    annotated[index] = true;
                }
            }
            let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let open_words: BTreeSet<&str> = options
                .open
                .iter()
                .filter(|open| open.files.contains(&stem))
                .flat_map(|open| open.words.iter().map(String::as_str))
                .collect();
            for document in documents {
                let wrong: Vec<PubtatorAnnotation> = document.mismatches().cloned().collect();
                left_out.misplaced_annotations += wrong.len() as u64;
                let mut reading = Reading {
                    text: document.text().chars().collect(),
                    title_length: document.title.chars().count() as u32,
                    annotated: annotated.clone(),
                    spans: Vec::new(),
                    // What a misplaced annotation was meant to mark is not known: its place is left open.
                    open: wrong.iter().map(|a| (a.begin as u32, a.end as u32)).collect(),
                };
                for annotation in document.annotations.iter().filter(|annotation| !wrong.contains(annotation)) {
                    let (begin, end) = (annotation.begin as u32, annotation.end as u32);
                    match index_of(annotation) {
                        Some(entity_type) => reading.spans.push(Span { begin, end, entity_type }),
                        None if renamed(&annotation.entity_type).is_empty() => reading.open.push((begin, end)),
                        None => {}
                    }
                }
                reading.open_words(&open_words);
                left_out.differing_copies += u64::from(!merged.add(document.id, reading));
            }
        }
        let documents = merged.into_documents(&mut left_out);
        Ok(Self { types, documents, left_out })
    }

    /// Takes the documents out that are held out for development: a fixed share of the completely
    /// annotated ones, chosen by a hash of their id, so that the choice is the same in every run and does
    /// not change when other files are added.
    pub fn hold_out(&mut self, share: f64) -> Self {
        let held_out = |document: &LabeledDocument| document.is_complete() && unit_hash(&document.id) < share;
        self.take(held_out)
    }

    /// Removes the documents that stand in `other` too.
    pub fn remove_documents_of(&mut self, other: &Self) {
        let ids: BTreeSet<&str> = other.documents.iter().map(|document| document.id.as_str()).collect();
        self.documents.retain(|document| !ids.contains(document.id.as_str()));
    }

    fn take(&mut self, taken: impl Fn(&LabeledDocument) -> bool) -> Self {
        let (taken, kept) = std::mem::take(&mut self.documents).into_iter().partition(taken);
        self.documents = kept;
        Self { types: self.types.clone(), documents: taken, left_out: LeftOut::default() }
    }

    /// SHA-256 over ids, texts, spans and annotated types: what the model has learned from.
    pub fn digest(&self) -> String {
        let mut digest = Sha256::new();
        digest.update(self.types.join("\t"));
        for document in &self.documents {
            digest.update(format!("\n{}\t{:?}", document.id, document.annotated));
            for passage in &document.passages {
                digest.update(format!("\n{}\n{:?}\n{:?}", passage.text, passage.spans, passage.open));
            }
        }
        format!("sha256:{}", hex(&digest.finalize()))
    }

    /// Gold mentions of each type.
    pub fn mentions_by_type(&self) -> Vec<u64> {
        let mut counts = vec![0; self.types.len()];
        for passage in self.documents.iter().flat_map(|document| &document.passages) {
            for span in &passage.spans {
                counts[span.entity_type] += 1;
            }
        }
        counts
    }
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A number in [0, 1) that depends on the id alone.
pub(crate) fn unit_hash(id: &str) -> f64 {
    let digest = Sha256::digest(id.as_bytes());
    let first = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
    f64::from(first) / (f64::from(u32::MAX) + 1.0)
}

/// The document as one file has it. Offsets are code points into the document's text.
struct Reading {
    text: Vec<char>,
    title_length: u32,
    annotated: Vec<bool>,
    spans: Vec<Span>,
    open: Vec<(u32, u32)>,
}

impl Reading {
    /// Leaves the given words open wherever they stand outside a mention.
    fn open_words(&mut self, words: &BTreeSet<&str>) {
        if words.is_empty() {
            return;
        }
        let mut begin = 0;
        for end in 0..=self.text.len() {
            if self.text.get(end).is_some_and(|c| c.is_alphanumeric()) {
                continue;
            }
            let word: String = self.text[begin..end].iter().flat_map(|c| c.to_lowercase()).collect();
            if words.contains(word.as_str()) {
                self.open.push((begin as u32, end as u32));
            }
            begin = end + 1;
        }
    }
}

/// Documents by id, in the order of first appearance.
#[derive(Default)]
struct Merged {
    readings: Vec<(String, Reading)>,
    index: HashMap<String, usize>,
}

impl Merged {
    /// Adds a copy of a document; false where its text is not that of the first copy.
    fn add(&mut self, id: String, copy: Reading) -> bool {
        let Some(&index) = self.index.get(&id) else {
            self.index.insert(id.clone(), self.readings.len());
            self.readings.push((id, copy));
            return true;
        };
        let first = &mut self.readings[index].1;
        if first.text != copy.text || first.title_length != copy.title_length {
            return false;
        }
        let adds = |entity_type: usize| copy.annotated[entity_type] && !first.annotated[entity_type];
        let new_types: Vec<bool> = (0..first.annotated.len()).map(adds).collect();
        if new_types.contains(&true) {
            first.spans.extend(copy.spans.iter().filter(|span| new_types[span.entity_type]));
            first.open.extend(&copy.open);
            for (annotated, new) in first.annotated.iter_mut().zip(new_types) {
                *annotated |= new;
            }
        }
        true
    }

    fn into_documents(self, left_out: &mut LeftOut) -> Vec<LabeledDocument> {
        let document = |(id, reading): (String, Reading)| {
            let spans = longest_disjoint(reading.spans, left_out);
            let (title, rest) = reading.text.split_at(reading.title_length as usize);
            let passages = [(0, title), (reading.title_length + 1, &rest[1..])];
            let passage = |(offset, text): (u32, &[char])| {
                let end = offset + text.len() as u32;
                let clipped = |(a, b): &(u32, u32)| (a.max(&offset) - offset, b.min(&end).saturating_sub(offset));
                LabeledPassage {
                    text: text.iter().collect(),
                    offset,
                    spans: spans
                        .iter()
                        .filter(|span| offset <= span.begin && span.end <= end)
                        .map(|span| Span { begin: span.begin - offset, end: span.end - offset, ..*span })
                        .collect(),
                    open: reading.open.iter().map(clipped).filter(|(a, b)| a < b).collect(),
                }
            };
            let passages = passages.into_iter().filter(|(_, text)| !text.is_empty()).map(passage).collect();
            LabeledDocument { id, passages, annotated: reading.annotated }
        };
        self.readings.into_iter().map(document).collect()
    }
}

/// Of spans that overlap the longest stays, of equally long ones the first.
fn longest_disjoint(mut spans: Vec<Span>, left_out: &mut LeftOut) -> Vec<Span> {
    spans.sort_by_key(|span| (std::cmp::Reverse(span.end - span.begin), span.begin));
    let mut kept: Vec<Span> = Vec::with_capacity(spans.len());
    for span in spans {
        if span.begin == span.end || kept.iter().any(|other| span.begin < other.end && other.begin < span.end) {
            left_out.overlapped_annotations += 1;
        } else {
            kept.push(span);
        }
    }
    kept.sort();
    kept
}

fn read_documents(file: &Path, left_out: &mut LeftOut) -> Result<Vec<PubtatorDocument>, Error> {
    let name = file.display().to_string();
    let input = BufReader::new(File::open(file).map_err(|error| Error::io(file, error))?);
    let mut documents = Vec::new();
    let mut first_error = None;
    for document in Reader::new(input, &name, &ReadOptions::default()) {
        match document {
            Ok(document) => documents.push(document),
            Err(error) => {
                if let Reason::Io(source) = error.reason {
                    return Err(Error::io(file, source));
                }
                tracing::warn!("{error}");
                left_out.broken_records += 1;
                first_error.get_or_insert(error);
            }
        }
    }
    match (documents.is_empty(), first_error) {
        (true, Some(error)) => Err(Error::Usage(format!("{name} holds no PubTator document ({error})"))),
        (true, None) => Err(Error::Usage(format!("{name} holds no PubTator document"))),
        (false, _) => Ok(documents),
    }
}

/// All types, the most frequent first.
fn types_by_frequency<'a>(
    documents: impl Iterator<Item = &'a PubtatorDocument>,
    renamed: &impl Fn(&str) -> String,
) -> Vec<String> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for annotation in documents.flat_map(|document| &document.annotations) {
        *counts.entry(renamed(&annotation.entity_type)).or_default() += 1;
    }
    counts.remove("");
    let mut types: Vec<(String, usize)> = counts.into_iter().collect();
    types.sort_by_key(|(name, count)| (std::cmp::Reverse(*count), name.clone()));
    types.into_iter().map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
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
        assert_eq!(data.documents.len(), 2);
        assert!(data.documents[0].is_complete());
        assert_eq!(data.documents[0].passages[0].spans, [span(0, 5, 0), span(9, 13, 1)]);
        assert_eq!(data.documents[0].passages[1].spans, [span(0, 4, 0)]);
        assert_eq!(data.documents[1].annotated, [false, true]);
    }

    #[test]
    fn the_first_file_has_the_say_on_a_type() {
        let second = "1|t|BRCA1 in mice\n1|a|TP53 too.\n1\t9\t13\tmice\tSpecies\t1\n1\t0\t13\tBRCA1 in mice\tGene\t1\n";
        let data = read(&[("a", GENES), ("b", second)], &DataOptions::default()).unwrap();
        assert_eq!(data.documents[0].passages[0].spans, [span(0, 5, 0), span(9, 13, 1)]);
    }

    #[test]
    fn renamed_dropped_and_open_types() {
        let text = "1|t|ab cd ef gh\n1|a|\n1\t0\t2\tab\tProtein\t\n1\t3\t5\tcd\tDomain\t\n1\t6\t8\tef\tCell\t\n";
        let options = DataOptions {
            types: vec!["Gene".into()],
            rename: [("Protein".into(), "Gene".into()), ("Domain".into(), String::new())].into(),
            open: vec![OpenWords { files: vec!["a".into()], words: vec!["gh".into()] }],
        };
        let data = read(&[("a.txt", text)], &options).unwrap();
        assert_eq!(data.documents[0].passages.len(), 1);
        assert_eq!(data.documents[0].passages[0].spans, [span(0, 2, 0)]);
        assert_eq!(data.documents[0].passages[0].open, [(3, 5), (9, 11)]);
    }

    #[test]
    fn what_is_wrong_is_left_out_and_counted() {
        let text = "x\n\n1|t|αβ BRCA1 gene\n1|a|\n1\t3\t8\tBRCA1\tGene\t\n1\t3\t13\tBRCA1 gene\tGene\t\n1\t0\t5\tBRCA1\tGene\t\n\n\
                    1|t|Another text\n1|a|\n";
        let data = read(&[("a", text)], &DataOptions::default()).unwrap();
        assert_eq!(data.documents[0].passages[0].spans, [span(3, 13, 0)]);
        assert_eq!(data.documents[0].passages[0].open, [(0, 5)]);
        let expected =
            LeftOut { broken_records: 1, misplaced_annotations: 1, overlapped_annotations: 1, differing_copies: 1 };
        assert_eq!(data.left_out, expected);
        assert!(data.left_out.to_string().starts_with("1 broken records, 1 annotations whose offsets"));
    }

    #[test]
    fn files_without_documents_or_types_are_refused() {
        for (content, said) in
            [("", "holds no PubTator document"), ("hello\n", "line 1"), ("1|t|a\n1|a|b\n", "no entity type")]
        {
            let error = read(&[("a", content)], &DataOptions::default()).unwrap_err();
            assert!(error.to_string().contains(said), "{error}");
            assert_eq!(error.exit_code(), 2);
        }
        let error = Dataset::read(&["nowhere.pubtator".into()], &DataOptions::default()).unwrap_err();
        assert!(error.to_string().starts_with("nowhere.pubtator: "), "{error}");
    }

    #[test]
    fn the_held_out_share_is_stable_and_disjoint() {
        let file = |ids: std::ops::Range<u32>| {
            ids.map(|id| format!("{id}|t|BRCA1\n{id}|a|\n{id}\t0\t5\tBRCA1\tGene\t\n\n")).collect::<String>()
        };
        let mut few = read(&[("a", &file(0..100))], &DataOptions::default()).unwrap();
        let mut many = read(&[("a", &file(0..400))], &DataOptions::default()).unwrap();
        let (few_held_out, many_held_out) = (few.hold_out(0.2), many.hold_out(0.2));
        let ids = |data: &Dataset| data.documents.iter().map(|document| document.id.clone()).collect::<BTreeSet<_>>();
        assert!(ids(&few_held_out).is_subset(&ids(&many_held_out)));
        assert!(ids(&many).is_disjoint(&ids(&many_held_out)));
        assert!((50..110).contains(&many_held_out.documents.len()), "{}", many_held_out.documents.len());
        assert_eq!(many.documents.len() + many_held_out.documents.len(), 400);
    }
}
