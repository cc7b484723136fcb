//! Labels on a real Apache Kafka: import, export, and snapshots that can be taken again. Skips, with a note, where
//! there is no Kafka.

#![allow(clippy::unwrap_used)] // a helper of a test may fail like the test

#[path = "../../tests/support/mod.rs"]
mod support;

use litflow::article::{Passage, Section};
use litflow::bus::codec::Record as _;
use litflow::bus::producer::Outgoing;
use litflow::bus::records::{GoldSpan, LabeledDocument};
use litflow::bus::topics;
use litflow_training::dataset::{DataOptions, Dataset};
use litflow_training::labels::{Cause, Scheme};
use litflow_training::snapshot::Snapshot;
use std::path::Path;
use std::process::{Command, Output};
use support::Cluster;
use tempfile::TempDir;

fn command(cluster: &Cluster, arguments: &[&str]) -> Output {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/labels");
    let mut command = Command::new(env!("CARGO_BIN_EXE_litflow-train"));
    command.current_dir(folder).args(arguments).args(["--bootstrap-servers", cluster.broker.bootstrap_servers()]);
    command.output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A document with one gene.
fn document(number: usize, annotator: &str) -> LabeledDocument {
    let span = GoldSpan {
        entity_type: "Gene".into(),
        passage: 0,
        begin: 0,
        end: 5,
        text: "BRCA1".into(),
        identifiers: Vec::new(),
    };
    LabeledDocument {
        document_id: format!("pmid:{number}"),
        passages: vec![Passage::new(Section::Title, format!("BRCA1 in mouse {number}"))],
        spans: vec![span],
        entity_types: vec!["Gene".into(), "Species".into()],
        annotator: annotator.into(),
        guideline: None,
        annotated_at: None,
        open: Vec::new(),
    }
}

fn publish(cluster: &Cluster, documents: impl IntoIterator<Item = LabeledDocument>) {
    let mut publisher = cluster.publisher();
    for document in documents {
        publisher.publish(topics::LABELS, &document.document_id, &document).unwrap();
    }
    publisher.finish().unwrap();
}

fn send(cluster: &Cluster, key: &str, value: Option<Vec<u8>>) {
    let mut publisher = cluster.publisher();
    let key = Some(key.as_bytes().to_vec());
    publisher.send(&Outgoing { topic: topics::LABELS.into(), key, value, ..Outgoing::default() }).unwrap();
    publisher.finish().unwrap();
}

fn take(cluster: &Cluster) -> (Snapshot, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let snapshot = Snapshot::take(&cluster.options("labels"), None, &Scheme::default(), folder.path(), |_| {}).unwrap();
    (snapshot, folder)
}

#[test]
fn what_is_imported_is_exported_until_it_is_withdrawn() {
    let Some(cluster) = Cluster::start() else { return };
    let imported = command(&cluster, &["import", "gold.pubtator", "brat", "marked.conll"]);
    assert_eq!(imported.status.code(), Some(3), "{}", stderr(&imported));
    assert!(stderr(&imported).contains("5 records published"), "{}", stderr(&imported));

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("labels.jsonl");
    let file = file.to_str().unwrap();
    let exported = command(&cluster, &["export", "--to", "jsonl", "--out", file]);
    assert_eq!(exported.status.code(), Some(0), "{}", stderr(&exported));
    let lines = |text: &str| {
        let mut lines: Vec<String> =
            text.lines().filter(|line| line.contains("\"passages\":")).map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let golden = ["gold.pubtator", "brat", "marked.conll"].map(|name| {
        let expected = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/labels/expected/{name}.jsonl"));
        std::fs::read_to_string(expected).unwrap()
    });
    assert_eq!(lines(&std::fs::read_to_string(file).unwrap()), lines(&golden.concat()));

    // What was exported says the same when it is imported again.
    let (before, _folder) = take(&cluster);
    let again = command(&cluster, &["import", file]);
    assert_eq!(again.status.code(), Some(0), "{}", stderr(&again));
    let (after, _after) = take(&cluster);
    assert_eq!(after.summary.digest, before.summary.digest);
    assert_eq!((after.summary.superseded, after.summary.documents), (5, 5));

    let withdrawn = command(&cluster, &["import", "--tombstone", "pmid:12345", "--tombstone", "pmid:7"]);
    assert_eq!(withdrawn.status.code(), Some(0), "{}", stderr(&withdrawn));
    let ids: Vec<String> =
        take(&cluster).0.documents().unwrap().map(|document| document.unwrap().document_id).collect();
    assert_eq!(ids.len(), 3);
    assert!(!ids.iter().any(|id| id == "pmid:12345" || id == "pmid:7"), "{ids:?}");
}

#[test]
fn a_snapshot_depends_on_its_offsets_alone() {
    let Some(cluster) = Cluster::start() else { return };
    const DOCUMENTS: usize = 200;
    publish(&cluster, (0..DOCUMENTS).map(|number| document(number, "ada")));
    let (first, first_folder) = take(&cluster);
    assert_eq!((first.summary.documents, first.summary.mentions["Gene"]), (DOCUMENTS as u64, DOCUMENTS as u64));
    assert!(first.summary.left_out.is_empty());

    // The same labels in another order are the same labels; garbage between them costs itself.
    send(&cluster, "pmid:3", Some(b"no Avro".to_vec()));
    publish(&cluster, (0..DOCUMENTS).rev().map(|number| document(number, "ada")));
    send(&cluster, "pmid:900", Some(document(901, "ada").encode().unwrap()));
    let (second, second_folder) = take(&cluster);
    assert_eq!(second.summary.digest, first.summary.digest);
    assert_ne!(second.ends(), first.ends());
    assert_eq!(second.summary.left_out.count(Cause::Unreadable), 1);
    assert_eq!(second.summary.left_out.count(Cause::KeyMismatch), 1);
    let listed = std::fs::read_to_string(second_folder.path().join("quarantine.jsonl")).unwrap();
    assert!(listed.lines().count() == 2 && listed.contains("\"document_id\":\"pmid:3\""), "{listed}");

    // Another annotator's newer record counts, and what the two do not agree on is said; a bad span is left out.
    let mut corrected = document(1, "bob");
    corrected.spans.clear();
    let mut wrong = document(2, "ada");
    wrong.spans[0].text = "TP53".into();
    publish(&cluster, [corrected, wrong]);
    send(&cluster, "pmid:5", None);
    let (third, third_folder) = take(&cluster);
    assert_eq!((third.summary.documents, third.summary.withdrawn), (DOCUMENTS as u64 - 1, 1));
    assert_eq!(third.summary.left_out.count(Cause::Conflict), 1);
    assert_eq!(third.summary.left_out.count(Cause::TextDiffers), 1);
    assert_ne!(third.summary.digest, first.summary.digest);

    // At the first one's offsets the topic still says what it said.
    let again = tempfile::tempdir().unwrap();
    let again =
        Snapshot::take(&cluster.options("labels"), Some(&first.ends()), &Scheme::default(), again.path(), |_| {});
    assert_eq!(again.unwrap().summary, first.summary);
    let beyond = first.ends().into_iter().map(|(partition, end)| (partition, end + 10_000)).collect();
    let nowhere = tempfile::tempdir().unwrap();
    let error = Snapshot::take(&cluster.options("labels"), Some(&beyond), &Scheme::default(), nowhere.path(), |_| {});
    assert!(error.unwrap_err().to_string().contains("it is another topic"));
    assert!(!Snapshot::is_at(nowhere.path()));

    // Training reads it; a snapshot that was touched is refused.
    let data = Dataset::read(&[third_folder.path().to_owned()], &DataOptions::default()).unwrap();
    assert_eq!((data.types.as_slice(), data.len()), (&["Gene".to_owned()][..], DOCUMENTS - 1));
    let bad = data.documents().map(Result::unwrap).find(|document| document.id == "pmid:2").unwrap();
    assert_eq!((bad.passages[0].spans.len(), bad.passages[0].open.as_slice()), (0, &[(0, 5)][..]));
    let file = first_folder.path().join("documents.jsonl");
    let touched = std::fs::read_to_string(&file).unwrap().replacen("mouse 7", "house 7", 1);
    std::fs::write(&file, touched).unwrap();
    let error = Snapshot::open(first_folder.path()).unwrap_err();
    assert!(error.to_string().contains("was written with sha256:"), "{error}");
    let error = Dataset::read(&[first_folder.path().to_owned()], &DataOptions::default()).unwrap_err();
    assert!(error.to_string().contains("take another snapshot"), "{error}");
}

#[test]
fn a_cluster_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_litflow-train"));
    command.args(["snapshot", "--bootstrap-servers", "localhost:1", "--out"]).arg(folder.path().join("s"));
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(!folder.path().join("s/snapshot.json").exists());
}
