//! What `docs/monthly.md` promises beside the loop itself, on a real Apache Kafka: label sets that grow and shrink, others
//! who publish at the same time, each way to be refused, a store in S3. Skips, with a note, where there is no Kafka.

// The lint knows test functions, not what they share.
#![allow(clippy::unwrap_used)]

#[path = "../../tests/support/mod.rs"]
mod cluster;
#[path = "../../tests/support/moto.rs"]
mod moto;
#[path = "support/place.rs"]
mod place;
mod support;

use litflow::bus::producer::Outgoing;
use litflow::bus::topics;
use litflow::model::directory::Manifest;
use litflow::registry::aliases::{CANDIDATE, CHAMPION, REJECTED};
use litflow::registry::{Occasion, Store};
use litflow_training::publish::renumber;
use moto::Moto;
use place::{NAME, Place, stderr};
use std::fs;
use std::path::{Path, PathBuf};

/// The documents of the corpus, in order.
fn documents(place: &Place) -> Vec<String> {
    let corpus = fs::read_to_string(place.path("corpus.pubtator")).unwrap();
    corpus.trim_end().split("\n\n").map(str::to_owned).collect()
}

/// Publishes documents as labels: their types are those that occur in them all.
fn import(place: &Place, documents: &[String]) {
    fs::write(place.path("some.pubtator"), documents.join("\n\n") + "\n").unwrap();
    place.import("some.pubtator");
}

/// The document with its mice as mentions of a third type.
fn with_species(document: &String) -> String {
    let mut lines = document.lines().map(|line| line.split_once("|t|").or(line.split_once("|a|")));
    let (id, title) = lines.next().unwrap().unwrap();
    let (_, text) = lines.next().unwrap().unwrap();
    let begin = title.len() + 1 + text.find("mice").unwrap();
    format!("{document}\n{id}\t{begin}\t{}\tmice\tSpecies\t", begin + 4)
}

/// Withdraws documents.
fn withdraw(place: &Place, documents: &[String]) {
    let mut publisher = place.cluster.publisher();
    for document in documents {
        let key = Some(format!("pmid:{}", document.split('|').next().unwrap()).into_bytes());
        publisher
            .send(&Outgoing { topic: topics::LABELS.to_owned(), key, value: None, ..Outgoing::default() })
            .unwrap();
    }
    publisher.finish().unwrap();
}

fn weights(folder: &Path) -> Vec<u8> {
    fs::read(folder.join("model.safetensors")).unwrap()
}

#[test]
fn a_warm_start_keeps_what_the_champion_knows_while_types_come_and_go() {
    let Some(place) = Place::new() else { return };
    let half: Vec<String> = documents(&place).into_iter().step_by(2).collect();
    place.import("corpus.pubtator");
    assert_eq!(place.run(NAME, &[]).0, Some(0));
    let f1 = |version: &str, entity_type: &str| place.hold_out_f1(version, &format!("/types/{entity_type}"));
    let run = |more: &[&str], version: &str| {
        let parent = place.state(NAME).alias(CHAMPION).unwrap().digest.clone();
        let (code, outcome, log) = place.run(NAME, &[&["--warm-start"], more].concat());
        assert_eq!((code, outcome["model"].as_str()), (Some(0), Some(&*format!("tiny {version}"))), "{log}");
        let (manifest, _) = place.registry().store().manifest(NAME, version).unwrap();
        assert_eq!(manifest.parent, Some(parent));
    };

    // A type is new. A recipe that learns nothing shows that the old weights are kept, another that it is learned.
    import(&place, &half.iter().map(with_species).collect::<Vec<_>>());
    place.recipe(NAME, 1e-9, 1);
    run(&[], "1.1.0");
    assert_eq!(place.state(NAME).entity_types, ["Gene", "Disease", "Species"]);
    for entity_type in ["Gene", "Disease"] {
        assert_eq!(f1("1.1.0", entity_type), f1("1.0.0", entity_type), "{entity_type}");
    }
    let before = f1("1.1.0", "Species");
    place.recipe(NAME, 3e-3, 7);
    run(&["--always"], "1.2.0");
    assert!(before < 0.5 && f1("1.2.0", "Species") > 0.9, "{before} and {}", f1("1.2.0", "Species"));

    // Its documents are withdrawn, and with them the type.
    withdraw(&place, &half);
    let (code, outcome, _) = place.run(NAME, &["--if-new-labels", "21"]);
    assert!(code == Some(10) && outcome["why"].as_str().unwrap().contains("withdrawn since 1.2.0"), "{outcome}");
    place.recipe(NAME, 1e-9, 1);
    run(&["--if-new-labels", "10"], "1.3.0");
    assert_eq!(place.state(NAME).entity_types, ["Gene", "Disease"]);
    for entity_type in ["Gene", "Disease"] {
        assert!(f1("1.3.0", entity_type) > 0.9, "{entity_type}: {}", f1("1.3.0", entity_type));
    }
}

/// Runs the job up to a candidate that is sealed and not published: something lies where this version is to lie.
fn seal_only(place: &Place, version: &str, more: &[&str]) -> PathBuf {
    let obstacle = place.path("store/tiny").join(version);
    fs::write(&obstacle, "").unwrap();
    let (code, _, log) = place.run(NAME, more);
    assert!(code == Some(1) && log.contains(&format!("tiny/{version}")), "{code:?} {log}");
    fs::remove_file(&obstacle).unwrap();
    let candidate = place.path("work-tiny/current/candidate");
    assert!(candidate.join("decision.json").exists());
    candidate
}

#[test]
fn what_others_publish_during_a_run_is_measured_against_and_never_overridden() {
    let Some(place) = Place::new() else { return };
    place.import("first.pubtator");
    assert_eq!(place.run(NAME, &[]).0, Some(0));

    // Somebody else's 1.1.0 becomes the champion after the candidate for 1.1.0 was measured.
    place.import("rest.pubtator");
    let candidate = seal_only(&place, "1.1.0", &[]);
    let fitted = weights(&candidate);
    let theirs = place.path("theirs");
    fs::create_dir(&theirs).unwrap();
    for entry in fs::read_dir(place.path("store/tiny/1.0.0")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), theirs.join(entry.file_name())).unwrap();
    }
    renumber(&theirs, "1.1.0").unwrap();
    let imported = Occasion::now("somebody else", "an import");
    let (published, _) = place.registry().publish(&theirs, Some(CHAMPION), &imported).unwrap();
    let (code, outcome, log) = place.run(NAME, &[]);
    assert_eq!((code, outcome["model"].as_str()), (Some(0), Some("tiny 1.2.0")), "{outcome} {log}");
    assert!(log.contains("another champion was made meanwhile") && log.contains("tiny 1.1.0 is taken"), "{log}");
    assert_eq!(place.decision("1.2.0")["champion"], *published.version.digest);
    let ours = place.path("store/tiny/1.2.0");
    assert!(weights(&ours) == fitted, "what was fitted stays");
    assert!(fs::read_to_string(ours.join("README.md")).unwrap().starts_with("# tiny 1.2.0\n"));
    assert!(fs::read_to_string(ours.join("recipe.toml")).unwrap().contains("version = \"1.2.0\""));
    assert!(fs::read_to_string(ours.join("report.md")).unwrap().contains("tiny 1.2.0"));
    assert!(place.path("work-tiny/1.2.0/report/report.md").exists() && !place.path("work-tiny/current").exists());

    // Only the number is taken, at the last moment, and what took it was never announced.
    seal_only(&place, "1.3.0", &["--always"]);
    renumber(&theirs, "1.3.0").unwrap();
    place.registry().store().publish(&theirs).unwrap();
    let (code, outcome, log) = place.run(NAME, &[]);
    assert_eq!((code, outcome["model"].as_str()), (Some(0), Some("tiny 1.4.0")), "{outcome} {log}");
    assert!(log.contains("1.3.0 is published already"), "{log}");

    // Another champion is made while the version is on its way into the store.
    let candidate = seal_only(&place, "1.5.0", &["--always"]);
    place.registry().store().publish(&candidate).unwrap();
    place.registry().rollback(NAME, &Occasion::now("somebody else", "a rollback")).unwrap();
    let (code, outcome, log) = place.run(NAME, &[]);
    assert_eq!((code, outcome["model"].as_str()), (Some(0), Some("tiny 1.5.0")), "{outcome} {log}");
    assert!(outcome["why"].as_str().unwrap().contains("beside which it was not measured"), "{outcome}");
    let state = place.state(NAME);
    assert_eq!([CHAMPION, CANDIDATE].map(|alias| &*state.alias(alias).unwrap().version), ["1.2.0", "1.5.0"]);
}

#[test]
fn each_way_to_be_worse_is_refused_with_its_reason() {
    let Some(place) = Place::new() else { return };
    let rejected = |more: &[&str], version: &str, reason: &str| {
        let (code, outcome, log) = place.run(NAME, more);
        assert_eq!((code, outcome["model"].as_str()), (Some(11), Some(&*format!("tiny {version}"))), "{outcome} {log}");
        assert!(outcome["why"].as_str().unwrap().contains(reason), "{outcome}");
        assert_eq!(place.state(NAME).alias(REJECTED).unwrap().version, version);
        outcome["why"].as_str().unwrap().to_owned()
    };

    // A first version that is of no use, and is not made again of the same labels.
    place.import("corpus.pubtator");
    place.recipe_with_gate(NAME, 1e-9, 1, "first_min_f1 = 99.0");
    rejected(&[], "1.0.0", "reach 99.00");
    assert!(place.state(NAME).alias(CHAMPION).is_none());
    assert_eq!(place.run(NAME, &[]).0, Some(10));

    place.recipe(NAME, 3e-3, 7);
    assert_eq!(place.run(NAME, &["--always"]).0, Some(0));

    // A model with many layers, and nothing but its speed asked for.
    support::write_deep_encoder(&place.path("encoder"), 24);
    let gate = "margin_points = 100.0\ntype_drop_points = 100.0\nspeed_drop = 0.4";
    place.recipe_with_gate(NAME, 1e-9, 1, gate);
    let why = rejected(&["--always"], "1.2.0", "of the champion's speed");
    assert_eq!(why.matches("gate.").count(), 1, "{why}");
    support::write_encoder(&place.path("encoder"));

    // Weights that are no numbers, after training: nothing can be said about them but that.
    let gate = "margin_points = 100.0\ntype_drop_points = 100.0\nspeed_drop = 1.0";
    place.recipe_with_gate(NAME, 1e-9, 1, gate);
    let candidate = seal_only(&place, "1.3.0", &["--always"]);
    fs::remove_dir_all(candidate).unwrap();
    let model = place.path("work-tiny/current/model");
    let mut bytes = weights(&model);
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    bytes[header..].chunks_exact_mut(2).for_each(|bf16| bf16.copy_from_slice(&0x7fc0_u16.to_le_bytes()));
    fs::write(model.join("model.safetensors"), bytes).unwrap();
    Manifest::default().write(&model).unwrap();
    let (code, _, log) = place.run(NAME, &[]);
    assert!(code == Some(1) && log.contains("holds NaN") && log.contains("to train anew"), "{code:?} {log}");
    fs::remove_dir_all(place.path("work-tiny/current")).unwrap();

    // The annotators do not mark diseases any more but in what is held out: overall that would be let through.
    let list = fs::read_to_string(place.path("work-tiny/hold-out.txt")).unwrap();
    let held_out = |document: &String| list.lines().any(|id| id.strip_prefix("pmid:") == document.split('|').next());
    let (keep, change): (Vec<String>, Vec<String>) = documents(&place).into_iter().partition(held_out);
    let without = |(at, document): (usize, &String)| {
        let lines = document.lines().filter(|line| at == 0 || !line.ends_with("Disease\t"));
        lines.collect::<Vec<_>>().join("\n")
    };
    import(&place, &keep.into_iter().chain(change.iter().enumerate().map(without)).collect::<Vec<_>>());
    place.recipe_with_gate(NAME, 3e-3, 7, "margin_points = 100.0\ntype_min_mentions = 1\nspeed_drop = 0.9");
    let why = rejected(&[], "1.3.0", "Disease falls by");
    assert_eq!(why.matches("gate.").count(), 1, "{why}");
    assert_eq!(place.state(NAME).alias(CHAMPION).unwrap().version, "1.1.0");
}

#[test]
fn the_store_may_be_in_s3() {
    let Some(moto) = Moto::start() else { return };
    let Some(place) = Place::new() else { return };
    let run = |more: &[&str]| {
        let mut job = place.job(NAME, &[&["--store", &moto.options().store], more].concat());
        for (key, value) in moto.options().options {
            job.env(format!("LITFLOW_REGISTRY__OPTIONS__{}", key.to_uppercase()), value);
        }
        let output = job.output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    };
    place.import("first.pubtator");
    run(&[]);
    // The champion is fetched from there, to start from it and to measure beside it.
    place.import("rest.pubtator");
    run(&["--warm-start"]);
    let store = Store::open(&moto.options()).unwrap();
    let listed = store.list(Some(NAME)).unwrap();
    let versions: Vec<_> = listed.iter().map(|stored| (&*stored.version, stored.whole)).collect();
    assert_eq!(versions, [("1.0.0", true), ("1.1.0", true)]);
    assert!(!place.path("store").exists(), "nothing lies in a folder");
    let (state, (manifest, digest)) = (place.state(NAME), store.manifest(NAME, "1.1.0").unwrap());
    let champion = state.alias(CHAMPION).unwrap();
    assert_eq!((&champion.digest, &*champion.location), (&digest, "s3://models/litflow/tiny/1.1.0"));
    assert_eq!(manifest.parent, Some(store.manifest(NAME, "1.0.0").unwrap().1));
}
