//! The formats of labels: golden files, round trips, and the commands that need no Kafka.

#![allow(clippy::unwrap_used)] // a helper of a test may fail like the test

use litflow::article::{Passage, Section};
use litflow::bus::records::{GoldSpan, LabeledDocument, OpenSpan};
use litflow_training::Error;
use litflow_training::labels::writer::Writer;
use litflow_training::labels::{Cause, Corpus, Entry, Format, LeftOut, Quarantine, ReadOptions, Scheme};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/labels")
}

struct Found {
    documents: Vec<LabeledDocument>,
    entries: Vec<Entry>,
    left_out: LeftOut,
}

fn read(path: &Path, format: Option<Format>, scheme: Scheme) -> Found {
    let mut entries = Vec::new();
    let mut list = |entry: &Entry| entries.push(entry.clone());
    let mut quarantine = Quarantine::listing(&mut list);
    let mut corpus = Corpus::new(scheme);
    corpus.add(path, format, &ReadOptions::default(), &mut quarantine).unwrap();
    let mut documents = Vec::new();
    let keep = |document, _: &mut Quarantine| {
        documents.push(document);
        Ok::<_, Error>(())
    };
    corpus.finish(&mut quarantine, keep).unwrap();
    let left_out = quarantine.counts().clone();
    Found { documents, entries, left_out }
}

/// Each file under `tests/labels` is read, its format told by itself, and compared with what is written beside it:
/// the documents, then what was left out. `UPDATE_GOLDEN=1` writes that anew.
#[test]
fn every_format_is_read_as_its_golden_file_says() {
    let inputs = [
        "gold.pubtator",
        "gold.bioc.xml",
        "gold.bioc.json",
        "gold.tsv",
        "marked.conll",
        "brat",
        "craft/CHEBI",
        "label-studio.json",
        "prodigy.jsonl",
        "labels.jsonl",
    ];
    for input in inputs {
        let found = read(&fixtures().join(input), None, Scheme::default());
        let mut text = String::new();
        for document in &found.documents {
            text += &(serde_json::to_string(document).unwrap() + "\n");
        }
        for entry in &found.entries {
            let place = entry.place.replace(&format!("{}/", fixtures().display()), "");
            let entry = Entry { place, ..entry.clone() };
            text += &(serde_json::to_string(&entry).unwrap() + "\n");
        }
        let expected = fixtures().join("expected").join(format!("{}.jsonl", input.replace('/', "-")));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&expected, &text).unwrap();
        }
        let expected = std::fs::read_to_string(&expected).unwrap();
        assert_eq!(text, expected, "{input}");
    }
}

#[test]
fn a_named_format_is_taken_over_what_the_file_looks_like() {
    let found = read(&fixtures().join("gold.pubtator"), Some(Format::Jsonl), Scheme::default());
    assert_eq!((found.documents.len(), found.left_out.count(Cause::Unreadable)), (0, 7));
    let nowhere = read(Path::new("nowhere.pubtator"), None, Scheme::default());
    assert!(nowhere.entries[0].place == "nowhere.pubtator", "{:?}", nowhere.entries);
}

/// Files that are in all shapes but the right one: each is a reason, none stops the others.
#[test]
fn hostile_files_are_refused_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let deep = format!("{{\"text\": {}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let bomb =
        "<!DOCTYPE a [<!ENTITY a \"x\"><!ENTITY b \"&a;&a;\">]><annotations textSource=\"a.txt\">&b;</annotations>";
    let outside = "<annotations textSource=\"../../../../etc/passwd\"></annotations>";
    let files: [(&str, &[u8]); 9] = [
        ("empty.jsonl", b""),
        ("prose.txt", b"no labels at all"),
        ("binary.tsv", b"\0\x01\x02"),
        ("utf8.tsv", b"token\tO\nbad\xFF\tO\n\nnext\tB-Gene\n"),
        ("deep.json", deep.as_bytes()),
        ("bomb.xml", bomb.as_bytes()),
        ("outside.xml", outside.as_bytes()),
        ("alone.ann", b"T1\tGene 0 1\tx"),
        ("numbers.jsonl", b"{\"document_id\": \"a\", \"passages\": [{\"text\": \"x\"}], \"spans\": [{\"type\": \"A\", \"begin\": -1, \"end\": 99999999999}]}"),
    ];
    for (name, bytes) in files {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    let found = read(folder.path(), None, Scheme::default());
    let texts: Vec<&str> = found.documents.iter().map(|document| document.passages[0].text.as_str()).collect();
    assert_eq!(texts, ["next"]);
    for name in files.map(|(name, _)| name) {
        let entry = found.entries.iter().find(|entry| entry.place.contains(name)).unwrap();
        assert_eq!(entry.cause, Cause::Unreadable, "{entry}");
    }
}

/// The text in which the round trips' spans lie: letters of all widths, punctuation, no line breaks.
fn passage_text() -> impl Strategy<Value = String> {
    prop::collection::vec(
        prop::sample::select(vec!["BRCA1", "α", "🧬", "mice", "(", ").", "-", "p53", "E. coli"]),
        1..9,
    )
    .prop_map(|words| words.join(" "))
}

/// Disjoint spans at word borders of a passage.
fn spans_of(passage: u32, text: &str, picks: &[(bool, bool)]) -> (Vec<GoldSpan>, Vec<OpenSpan>) {
    let (mut spans, mut open, mut begin) = (Vec::new(), Vec::new(), 0);
    for (word, &(is_span, is_gene)) in text.split(' ').zip(picks) {
        let end = begin + word.chars().count() as u32;
        if is_span && word.chars().all(char::is_alphanumeric) {
            let identifiers = if is_gene { vec!["NCBIGene:672".to_owned()] } else { Vec::new() };
            let entity_type = if is_gene { "Gene" } else { "Cell line" }.to_owned();
            spans.push(GoldSpan { entity_type, passage, begin, end, text: word.into(), identifiers });
        } else if is_gene {
            open.push(OpenSpan { passage, begin, end });
        }
        begin = end + 1;
    }
    (spans, open)
}

/// Documents that a format of these limits can hold.
#[derive(Clone, Copy)]
struct Limits {
    /// Title, abstract, nothing else; or one text; or anything.
    passages: Passages,
    /// Sections, open stretches, guideline, types that do not occur.
    everything: bool,
    identifiers: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Passages {
    TitleAndAbstract,
    One,
    Any,
}

fn documents(limits: Limits) -> impl Strategy<Value = Vec<LabeledDocument>> {
    let picks = prop::collection::vec((any::<bool>(), any::<bool>()), 9);
    let sections = vec![Section::Title, Section::Abstract, Section::Methods, Section::Table, Section::CaseReport];
    let named = (prop::sample::select(sections), prop::option::of("[A-Z][a-z]{1,8}"), prop::option::of("fr|de"));
    let passage = (passage_text(), picks, named);
    let count = match limits.passages {
        Passages::TitleAndAbstract => 2..3,
        Passages::One => 1..2,
        Passages::Any => 1..4,
    };
    let extra = (prop::option::of("[A-Z]{1,4} 1"), prop::option::of(0i64..1 << 40), any::<bool>());
    let document = (prop::collection::vec(passage, count), extra);
    prop::collection::vec(document, 1..5).prop_map(move |documents| {
        let made = documents.into_iter().enumerate().map(|(index, (passages, (guideline, annotated_at, wide)))| {
            let id = ["pmid:12", "pmc:PMC3", "doi:10.1/x", "text:a_b", "pmid:123456789"][index].to_owned();
            let mut document = LabeledDocument {
                document_id: id,
                passages: Vec::new(),
                spans: Vec::new(),
                entity_types: Vec::new(),
                annotator: "me".into(),
                guideline: guideline.filter(|_| limits.everything),
                annotated_at: annotated_at.filter(|_| limits.everything),
                open: Vec::new(),
            };
            for (at, (text, picks, (section, heading, language))) in passages.into_iter().enumerate() {
                let (mut spans, open) = spans_of(at as u32, &text, &picks);
                if !limits.identifiers {
                    spans.iter_mut().for_each(|span| span.identifiers.clear());
                }
                document.spans.extend(spans);
                document.open.extend(open.into_iter().filter(|_| limits.everything));
                document.passages.push(match (limits.passages, at) {
                    (Passages::TitleAndAbstract, 0) => Passage::new(Section::Title, text),
                    (Passages::TitleAndAbstract, _) => Passage::new(Section::Abstract, text),
                    (Passages::One, _) => Passage::new(Section::Body, text),
                    (Passages::Any, _) => Passage { section, heading, language, text },
                });
            }
            let mut types: Vec<String> = document.spans.iter().map(|span| span.entity_type.clone()).collect();
            if limits.everything && wide {
                types.extend(["Cell line".into(), "Disease, or disorder".into(), "Gene".into()]);
            }
            types.sort();
            types.dedup();
            document.entity_types = types;
            document
        });
        let mut documents: Vec<LabeledDocument> = made.collect();
        if !limits.everything {
            // What was looked for is known by what occurs in the file.
            let mut types: Vec<String> = documents.iter().flat_map(|document| document.entity_types.clone()).collect();
            types.sort();
            types.dedup();
            documents.iter_mut().for_each(|document| document.entity_types.clone_from(&types));
        }
        documents
    })
}

/// Writes documents into a folder, and reads them again.
fn round_trip(documents: &[LabeledDocument], format: Format) -> (Found, TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    // The name is the annotator where the format has none.
    let path = folder.path().join("me.out");
    let mut writer = match format {
        Format::Brat | Format::Knowtator => Writer::to_folder(format, &path).unwrap(),
        _ => Writer::to_stream(format, Box::new(std::fs::File::create(&path).unwrap())).unwrap(),
    };
    for document in documents {
        assert_eq!(writer.write(document).unwrap(), Ok(()));
    }
    writer.finish().unwrap();
    let found = read(&path, Some(format), Scheme::default());
    (found, folder, path)
}

fn by_id(documents: &[LabeledDocument]) -> BTreeMap<&str, &LabeledDocument> {
    documents.iter().map(|document| (document.document_id.as_str(), document)).collect()
}

const EVERYTHING: Limits = Limits { passages: Passages::Any, everything: true, identifiers: true };
const ABSTRACT: Limits = Limits { passages: Passages::TitleAndAbstract, everything: false, identifiers: true };
const TEXT: Limits = Limits { passages: Passages::One, everything: false, identifiers: false };

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn formats_that_hold_everything_give_it_back(
        documents in documents(EVERYTHING),
        format in prop::sample::select(vec![Format::Jsonl, Format::BiocJson, Format::BiocXml]),
    ) {
        let (found, _folder, _) = round_trip(&documents, format);
        prop_assert!(found.entries.is_empty(), "{:?}", found.entries);
        prop_assert_eq!(&found.documents, &documents);
    }

    #[test]
    fn pubtator_gives_back_titles_and_abstracts(documents in documents(ABSTRACT)) {
        let (found, _folder, _) = round_trip(&documents, Format::Pubtator);
        prop_assert!(found.entries.is_empty(), "{:?}", found.entries);
        prop_assert_eq!(&found.documents, &documents);
    }

    #[test]
    fn tools_of_annotation_give_back_one_text(
        documents in documents(TEXT),
        format in prop::sample::select(vec![Format::LabelStudio, Format::Prodigy]),
    ) {
        let (found, _folder, _) = round_trip(&documents, format);
        prop_assert!(found.entries.is_empty(), "{:?}", found.entries);
        prop_assert_eq!(by_id(&found.documents), by_id(&documents));
    }

    /// BRAT's type names have no spaces, its documents no annotator.
    #[test]
    fn brat_gives_back_one_text(documents in documents(Limits { identifiers: true, ..TEXT })) {
        let mut expected = documents.clone();
        for document in &mut expected {
            document.annotator = String::new();
            let names = document.spans.iter_mut().map(|span| &mut span.entity_type).chain(&mut document.entity_types);
            names.for_each(|name| *name = name.replace(' ', "_"));
        }
        let (mut found, _folder, _) = round_trip(&documents, Format::Brat);
        found.documents.iter_mut().for_each(|document| document.annotator.clear());
        prop_assert!(found.entries.is_empty(), "{:?}", found.entries);
        prop_assert_eq!(by_id(&found.documents), by_id(&expected));
    }

    /// Knowtator's mentions have one class, their annotator stands with each, and its files are by type.
    #[test]
    fn knowtator_gives_back_one_text(documents in documents(Limits { identifiers: true, ..TEXT })) {
        let mut expected = documents.clone();
        expected.retain(|document| !document.entity_types.is_empty());
        for document in &mut expected {
            document.annotator = String::new();
            document.spans.iter_mut().for_each(|span| span.identifiers.truncate(1));
        }
        let (mut found, _folder, _) = round_trip(&documents, Format::Knowtator);
        found.documents.iter_mut().for_each(|document| document.annotator.clear());
        prop_assert!(found.entries.is_empty(), "{:?}", found.entries);
        prop_assert_eq!(by_id(&found.documents), by_id(&expected));
    }

    /// CoNLL holds words and tags. Its text is made anew, but written again it is the same file.
    #[test]
    fn conll_gives_back_words_and_mentions(documents in documents(TEXT)) {
        let (found, _folder, path) = round_trip(&documents, Format::Conll);
        prop_assert!(found.entries.is_empty(), "{:?}", found.entries);
        let mentions = |document: &LabeledDocument| -> Vec<(String, String)> {
            document.spans.iter().map(|span| (span.entity_type.replace(' ', "_"), span.text.clone())).collect()
        };
        let found_by_id = by_id(&found.documents);
        for document in &documents {
            let again = found_by_id[document.document_id.as_str()];
            prop_assert_eq!(mentions(again), mentions(document));
            let letters = |document: &LabeledDocument| -> String {
                document.passages[0].text.chars().filter(|c| !c.is_whitespace()).collect()
            };
            prop_assert_eq!(letters(again), letters(document));
        }
        let (_, _folder, second) = round_trip(&found.documents, Format::Conll);
        let lines = |path: &Path| -> Vec<String> {
            let text = std::fs::read_to_string(path).unwrap();
            text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
        };
        prop_assert_eq!(lines(&second), lines(&path));
    }

    /// Whatever stands in a file, no reader panics, and what it makes is sound.
    #[test]
    fn any_bytes_are_a_reason_or_a_document(
        bytes in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(b"T1\t|a|0 5;{}[]\":,\n<>/".to_vec())], 0..200),
        begin in prop::sample::select(vec!["", "1|t|x\n1|a|y\n", "{\"id\":1,\"text\":\"x\"", "<annotations", "x\tB-A\n", "T1\tA 0 1\tx\n"]),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.ann");
        let mut file = std::fs::File::create(&path).unwrap();
        file.write_all(begin.as_bytes()).unwrap();
        file.write_all(&bytes).unwrap();
        std::fs::write(folder.path().join("x.txt"), "x y").unwrap();
        for format in [Format::Jsonl, Format::Pubtator, Format::BiocJson, Format::BiocXml, Format::Conll, Format::Brat,
                       Format::Knowtator, Format::LabelStudio, Format::Prodigy] {
            for document in read(&path, Some(format), Scheme::default()).documents {
                for span in &document.spans {
                    let text = &document.passages[span.passage as usize].text;
                    let words: String = text.chars().skip(span.begin as usize).take((span.end - span.begin) as usize).collect();
                    prop_assert_eq!(&words, &span.text);
                }
            }
        }
    }
}

#[test]
fn what_a_format_cannot_hold_is_named() {
    let everything = read(&fixtures().join("labels.jsonl"), None, Scheme::default()).documents;
    let losses = |format: Format| {
        let mut out = Vec::new();
        let mut writer = Writer::to_stream(format, Box::new(&mut out)).unwrap();
        everything.iter().for_each(|document| assert_eq!(writer.write(document).unwrap(), Ok(())));
        writer.finish().unwrap().to_string()
    };
    for format in [Format::Jsonl, Format::BiocJson, Format::BiocXml] {
        assert_eq!(losses(format), "");
    }
    assert!(losses(Format::Pubtator).contains("stretches left open (1 documents)"), "{}", losses(Format::Pubtator));
    assert!(losses(Format::Conll).contains("white space"), "{}", losses(Format::Conll));
    let brat = Writer::to_stream(Format::Brat, Box::new(Vec::new())).err().unwrap();
    assert!(brat.exit_code() == 2 && brat.to_string().contains("--out"), "{brat}");
}

#[test]
fn a_text_that_xml_cannot_hold_is_left_out() {
    let mut document = read(&fixtures().join("labels.jsonl"), None, Scheme::default()).documents.remove(0);
    document.passages[1].text.push('\u{1}');
    let mut out = Vec::new();
    let mut writer = Writer::to_stream(Format::BiocXml, Box::new(&mut out)).unwrap();
    assert!(writer.write(&document).unwrap().unwrap_err().contains("control characters"));
    writer.finish().unwrap();
}

#[test]
fn names_too_long_for_files_leave_their_document_out() {
    let document = read(&fixtures().join("labels.jsonl"), None, Scheme::default()).documents.remove(0);
    let folder = tempfile::tempdir().unwrap();
    for (number, format) in [Format::Brat, Format::Knowtator].into_iter().enumerate() {
        let path = folder.path().join(number.to_string());
        let mut writer = Writer::to_folder(format, &path).unwrap();
        let long = LabeledDocument { document_id: format!("x:{}", "α".repeat(100)), ..document.clone() };
        assert!(writer.write(&long).unwrap().unwrap_err().contains("too long"));
        assert_eq!(writer.write(&document).unwrap(), Ok(()));
        writer.finish().unwrap();
        // Without a word about the format.
        let found = read(&path, None, Scheme::default());
        assert_eq!((found.documents.len(), found.entries.len()), (1, 0), "{:?}", found.entries);
    }
}

/// An id that grows when it is written and read again would be another document, trained on and held out at once.
#[test]
fn odd_ids_stay_the_same_in_every_format_that_holds_ids() {
    let plain = read(&fixtures().join("labels.jsonl"), None, Scheme::default()).documents.remove(0);
    let ids =
        ["jsonl:Report 3", "label-studio:Report 3 (final).txt", "brat:a.ann", "x:a b:c", "pmid:a.txt", "Note: this"];
    let document = |id: &&str| LabeledDocument { document_id: (*id).to_owned(), ..plain.clone() };
    let documents: Vec<LabeledDocument> = ids.iter().map(document).collect();
    for format in [Format::Jsonl, Format::BiocJson, Format::BiocXml, Format::Brat, Format::Knowtator] {
        let (found, _folder, _) = round_trip(&documents, format);
        assert_eq!(by_id(&found.documents).keys().copied().collect::<BTreeSet<_>>(), ids.into(), "{format:?}");
    }
}

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_litflow-train")).args(arguments).current_dir(fixtures()).output().unwrap()
}

#[test]
fn a_dry_run_of_import_reports_and_lists() {
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("left-out.jsonl");
    let list = list.to_str().unwrap();
    let output = run(&["import", "--dry-run", "--json", "gold.tsv", "gold.bioc.xml", "--quarantine", list]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{told}");
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["tally"]["documents"], 4, "{json}");
    assert_eq!(json["left_out"], serde_json::json!({"unreadable": 1, "text_differs": 1}), "{json}");
    assert!(told.contains("gold.tsv, line 11: expected a token and its tag"), "{told}");
    let listed = std::fs::read_to_string(list).unwrap();
    assert_eq!(listed.lines().count(), 2, "{listed}");

    let fine = run(&["import", "--dry-run", "--format", "conll", "marked.conll"]);
    assert_eq!(fine.status.code(), Some(0), "{}", String::from_utf8_lossy(&fine.stderr));
    let nothing = run(&["import", "--dry-run", "expected/none"]);
    assert_eq!(nothing.status.code(), Some(2));
    let unlabelled = run(&["import", "--dry-run", "--format", "brat", "expected"]);
    assert_eq!(unlabelled.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&unlabelled.stderr).contains("no labelled document"));
}

#[test]
fn the_hold_out_is_chosen_once() {
    let folder = tempfile::tempdir().unwrap();
    let (data, out) = (folder.path().join("data.jsonl"), folder.path().join("hold-out.txt"));
    let line = |id: u32| {
        format!(
            "{{\"document_id\": \"pmid:{id}\", \"passages\": [{{\"text\": \"BRCA1\"}}], \"spans\": [{{\"type\": \"Gene\", \"begin\": 0, \"end\": 5}}], \"entity_types\": [\"Gene\"]}}\n"
        )
    };
    std::fs::write(&data, (0..50).map(line).collect::<String>()).unwrap();
    let arguments = ["hold-out", "--data", data.to_str().unwrap(), "--share", "0.2", "--out", out.to_str().unwrap()];
    // A disk that takes nothing: half a list would be one for ever.
    let limited = format!("trap '' XFSZ; ulimit -f 0; exec '{}' \"$@\"", env!("CARGO_BIN_EXE_litflow-train"));
    let full = Command::new("bash").args(["-c", &limited, "sh"]).args(arguments).output().unwrap();
    assert_eq!(full.status.code(), Some(1), "{}", String::from_utf8_lossy(&full.stderr));
    assert!(!out.exists());
    let chosen = run(&arguments);
    assert_eq!(chosen.status.code(), Some(0), "{}", String::from_utf8_lossy(&chosen.stderr));
    let ids = std::fs::read_to_string(&out).unwrap();
    assert_eq!(ids.lines().filter(|line| line.starts_with("pmid:")).count(), 10, "{ids}");
    let again = run(&arguments);
    assert_eq!(again.status.code(), Some(2));
    assert_eq!(std::fs::read_to_string(&out).unwrap(), ids);
}
