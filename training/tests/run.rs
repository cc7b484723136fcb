//! The whole loop on a real Apache Kafka: labels in, versions out, served without a pause, and taken back. Skips, with a
//! note, where there is no Kafka.

// The lint knows test functions, not what they share.
#![allow(clippy::unwrap_used)]

#[path = "../../tests/support/mod.rs"]
mod cluster;
#[path = "support/place.rs"]
mod place;
mod support;

use cluster::DEADLINE;
use litflow::article::{ArticleEvent, ArticleIds, Op, Passage, Section};
use litflow::bus::topics;
use litflow::model;
use litflow::registry::Occasion;
use litflow::registry::aliases::{CHAMPION, REJECTED};
use litflow::tagger::{self, Serving};
use litflow::worker::reload::{Chooser, End, Loader, Reload, announced};
use litflow::worker::{self, Outputs, Stop, Worker};
use place::{NAME, Place, end_when, kill_when, stderr};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use tokio::sync::watch;

/// A worker that serves the champion, and what replaces it.
fn worker(place: &Place) -> (Worker, Reload) {
    let outputs = Arc::new(Outputs::new(&place.cluster.options("outputs")).unwrap());
    let loader = Loader {
        model: model::Options { device: "cpu".parse().unwrap(), precision: "fp32".parse().unwrap() },
        tagger: tagger::Options { threads: 1, tokenizer_threads: 1, ..tagger::Options::default() },
        registry: place.registry_options(),
        outputs: outputs.clone(),
        runtime: place.cluster.runtime.handle().clone(),
    };
    let load = Box::new(move |wanted: &_| loader.load(wanted));
    let mut chooser = Chooser::new(announced(place.cluster.options("follower"), NAME.into()), load);
    let serving = Arc::new(Serving::new(chooser.first().unwrap().unwrap()).unwrap());
    let options = worker::Options { transaction_articles: 20, in_flight_articles: 200, ..Default::default() };
    let (kafka, handle) = (place.cluster.options("a"), place.cluster.runtime.handle().clone());
    let worker = Worker::build(&options, &kafka, &Default::default(), serving.clone(), handle).unwrap();
    (worker.with_outputs(outputs), Reload::start(serving, chooser, true).unwrap())
}

/// An article with a gene and a disease, as the corpus has them.
fn article(number: usize) -> ArticleEvent {
    let id = number.to_string();
    let text =
        format!("xq{} causes {} in mice.", number % 4, if number.is_multiple_of(3) { "fever" } else { "cancer" });
    ArticleEvent {
        id: format!("pmid:{id}"),
        version: 1,
        op: Op::Upsert,
        ids: ArticleIds { pmid: Some(id), ..ArticleIds::default() },
        source: "pubmed".into(),
        published: None,
        revised: None,
        language: None,
        journal: None,
        publication_types: Vec::new(),
        retracted: false,
        mesh: Vec::new(),
        title: Some(format!("The gene xq{}", number % 4)),
        passages: vec![Passage::new(Section::Abstract, text)],
        raw: None,
    }
}

/// A labelled document in other words than those of the corpus.
fn other_document(id: usize) -> String {
    let (disease, gene) = (if id.is_multiple_of(2) { "stroke" } else { "asthma" }, format!("zw{}", id % 4));
    format!(
        "{id}|t|Mice\n{id}|a|{disease} of mice and {gene}.\n{id}\t5\t11\t{disease}\tDisease\t\n{id}\t24\t27\t{gene}\tGene\t\n\n"
    )
}

#[test]
fn labels_become_versions_that_are_served_without_a_pause_and_taken_back() {
    let Some(place) = Place::new() else { return };
    let cluster = &place.cluster;

    // Half of the labels: the first version. The hold-out is of both halves, each of which has its own words.
    fs::create_dir(place.path("work-tiny")).unwrap();
    let held_out: String = (0..40).step_by(5).map(|id| format!("pmid:{id}\n")).collect();
    fs::write(place.path("work-tiny/hold-out.txt"), held_out).unwrap();
    fs::write(place.path("rest.pubtator"), (20..40).map(other_document).collect::<String>()).unwrap();
    place.import("first.pubtator");
    let (code, outcome, log) = place.run(NAME, &[]);
    assert_eq!(code, Some(0), "{log}");
    assert_eq!((outcome["outcome"].as_str(), outcome["model"].as_str()), (Some("published"), Some("tiny 1.0.0")));
    let (code, outcome, _) = place.run(NAME, &[]);
    assert_eq!((code, outcome["outcome"].as_str()), (Some(10), Some("nothing_new")), "the same labels again");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let unread = place.job(NAME, &[]).stdout(writer).output().unwrap();
    assert_eq!(unread.status.code(), Some(10), "it is the outcome's where nobody reads it: {}", stderr(&unread));
    assert!(!place.path("work-tiny/current").exists());

    // It is at work.
    let (worker, reload) = worker(&place);
    let (status, handle) = (worker.status(), reload.handle());
    let (stop, stopped) = watch::channel(Stop::Never);
    let running = std::thread::spawn(move || worker.run(stopped));
    let serves = |version: &str| handle.snapshot().serving.version == version;
    let mut next = cluster.publish_until(article, 0, "the first version is at work", || status.snapshot().articles > 0);

    // All labels: the second version, while articles come.
    place.import("rest.pubtator");
    let mut job =
        place.job(NAME, &["--if-new-labels", "10"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    next = cluster.publish_until(article, next, "the job has ended", || job.try_wait().unwrap().is_some());
    let output = job.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let outcome: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(outcome["model"], "tiny 1.1.0");
    next = cluster.publish_until(article, next, "the second version is swapped in", || serves("1.1.0"));
    let done = status.snapshot().articles;
    next = cluster.publish_until(article, next, "it is at work", || status.snapshot().articles > done + 300);

    // Back.
    let state = place.state(NAME);
    place.registry().rollback(NAME, &Occasion::now("a test", "a test")).unwrap();
    next = cluster.publish_until(article, next, "the first version is back", || serves("1.0.0"));
    cluster.publish((next..next + 100).map(article));
    let articles = next + 100;
    stop.send(Stop::AtEnd).unwrap();
    let summary = running.join().unwrap().unwrap();
    assert_eq!(reload.end(DEADLINE), End::Done);
    assert_eq!((summary.articles, summary.tagged), (articles as u64, articles as u64), "none lost, none double");

    // What was rolled back is not made again.
    assert_eq!(place.run(NAME, &[]).0, Some(10));
    assert_eq!(place.state(NAME).alias(CHAMPION).unwrap().version, "1.0.0");

    // Every record names the version that its article was tagged by.
    let registry = place.registry();
    let digests = BTreeMap::from(
        ["1.0.0", "1.1.0"].map(|version| (version.to_owned(), registry.store().manifest(NAME, version).unwrap().1)),
    );
    let version_of = cluster.version_of_each(&digests);
    assert_eq!(version_of.len(), articles);
    let by = |version: &str| version_of.values().filter(|of| *of == version).count();
    assert!(by("1.1.0") > 300 && by("1.0.0") > 100, "{} and {}", by("1.1.0"), by("1.0.0"));
    assert!(cluster.read("entities.Gene").len() >= by("1.1.0"), "the second version knows the genes");

    // What each version is can be told from its directory and the history.
    let (manifest, _) = registry.store().manifest(NAME, "1.1.0").unwrap();
    let snapshot: serde_json::Value =
        serde_json::from_slice(&fs::read(place.path("work-tiny/1.1.0/snapshot/snapshot.json")).unwrap()).unwrap();
    assert_eq!(manifest.data.as_deref(), snapshot["digest"].as_str());
    assert_eq!(manifest.offsets.values().sum::<i64>(), 40);
    for file in ["golden.jsonl", "documents.jsonl", "decision.json", "report.md", "snapshot.json", "recipe.toml"] {
        assert!(manifest.files.contains_key(file), "{file} of {:?}", manifest.files.keys());
    }
    // It is better, and not only let through: both were measured on the same documents.
    let decision = place.decision("1.1.0");
    assert_eq!((&decision["champion"], decision["documents"].as_u64()), (&digests["1.0.0"].clone().into(), Some(8)));
    let [second, better_by] = ["f1", "difference"].map(|of| decision[of]["value"].as_f64().unwrap());
    assert!(second > 0.9 && better_by > 0.1, "{second}, {better_by} better");
    assert_eq!(state.metrics["hold_out.strict.micro.f1"], second);
    assert!(state.history.last().unwrap().reason.contains("points beside the champion"), "{:?}", state.history);
}

#[test]
fn a_job_that_is_killed_again_and_again_makes_the_same_model() {
    let Some(place) = Place::new() else { return };
    place.import("corpus.pubtator");
    place.recipe("whole", 3e-3, 4);
    place.recipe("killed", 3e-3, 4);
    let (code, _, log) = place.run("whole", &[]);
    assert_eq!(code, Some(0), "{log}");

    let current = place.path("work-killed/current");
    let steps = || {
        let state = fs::read(current.join("model/checkpoint/state.json")).unwrap_or_default();
        serde_json::from_slice(&state).map_or(0, |state: serde_json::Value| state["steps"].as_u64().unwrap_or(0))
    };
    let job = || place.job("killed", &["--checkpoint-seconds", "0"]);
    assert!(kill_when(&mut job(), || current.join("snapshot").exists()), "at the snapshot");
    assert!(kill_when(&mut job(), || current.join("run.json").exists()), "before training");
    let mut seen = 0;
    for _ in 0..3 {
        assert!(kill_when(&mut job(), || steps() > seen + 2), "while it trains");
        seen = steps();
    }
    assert_eq!(end_when(&mut job(), "-TERM", || steps() > seen + 2), Some(143), "by a signal that it obeys");
    assert!(place.registry().announcements().unwrap().get("killed").unwrap().is_none(), "nothing is published yet");
    assert!(kill_when(&mut job(), || current.join("model/manifest.json").exists()), "when it has trained");
    assert!(place.registry().announcements().unwrap().get("killed").unwrap().is_none(), "nothing is published yet");
    // From here to the end takes no time at all: it may be published when it is killed.
    kill_when(&mut job(), || current.join("report").exists());
    let (code, _, log) = place.run("killed", &[]);
    assert!(matches!(code, Some(0 | 10)), "{log}");
    for file in ["model.safetensors", "documents.jsonl"] {
        let [whole, killed] =
            ["whole", "killed"].map(|name| fs::read(place.path("store").join(name).join("1.0.0").join(file)).unwrap());
        assert!(whole == killed, "{file} differs");
    }
    assert_eq!(place.state("killed").history.len(), 1);
}

#[test]
fn a_worse_version_is_kept_as_rejected_and_the_champion_stays() {
    let Some(place) = Place::new() else { return };
    place.import("first.pubtator");
    assert_eq!(place.run(NAME, &[]).0, Some(0));

    // The champion knows the words of what is new: no drift, and not enough of it.
    place.import("rest.pubtator");
    let (code, outcome, log) = place.run(NAME, &["--if-drift-over", "1.0", "--if-new-labels", "1000"]);
    assert_eq!(code, Some(10), "{log}");
    let why = outcome["why"].as_str().unwrap();
    assert!(why.contains("20 documents are new") && why.contains("points lower"), "{why}");

    // A recipe that learns nothing, and a mirror that is not there.
    place.recipe(NAME, 1e-9, 1);
    let mut job = place.job(NAME, &["--if-drift-over", "1.0", "--always"]);
    let output = job.env("LITFLOW_MLFLOW__TRACKING_URI", "http://127.0.0.1:1").output().unwrap();
    assert_eq!(output.status.code(), Some(11), "{}", stderr(&output));
    assert!(stderr(&output).contains("not mirrored"), "{}", stderr(&output));
    let outcome: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(outcome["why"].as_str().unwrap().contains("it may be worse than tiny 1.0.0"), "{outcome}");
    assert!(Path::new(outcome["report"].as_str().unwrap()).exists());
    let state = place.state(NAME);
    assert_eq!(state.alias(CHAMPION).unwrap().version, "1.0.0");
    assert_eq!(state.alias(REJECTED).unwrap().version, "1.1.0");
    assert!(place.path("store/tiny/1.1.0/report.md").exists(), "it is kept with its report");

    // Nor is it made again of the same labels.
    let (code, outcome, log) = place.run(NAME, &[]);
    assert_eq!(code, Some(10), "{log}");
    assert!(outcome["why"].as_str().unwrap().contains("since 1.1.0"), "{outcome}");

    // A work folder that was lost: the documents that were held out stay so.
    let list = fs::read_to_string(place.path("work-tiny/hold-out.txt")).unwrap();
    let ids = |list: &str| list.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>();
    fs::remove_dir_all(place.path("work-tiny")).unwrap();
    assert_eq!(place.run(NAME, &["--if-new-labels", "1000"]).0, Some(10));
    assert_eq!(ids(&fs::read_to_string(place.path("work-tiny/hold-out.txt")).unwrap()), ids(&list));
}

#[test]
fn labels_that_nothing_can_be_learned_from_are_a_clear_error() {
    let Some(place) = Place::new() else { return };
    let fails = |said: &str| {
        let (code, _, log) = place.run(NAME, &[]);
        assert!(matches!(code, Some(1 | 2)) && log.contains(said), "{code:?} {log}");
        let announcements = place.registry().announcements().unwrap();
        assert!(announcements.get(NAME).unwrap().is_none(), "nothing is visible to a worker");
    };
    fails("holds no sound label");

    let mut publisher = place.cluster.publisher();
    for (key, value) in [("pmid:1", b"garbage".to_vec()), ("pmid:2", Vec::new())] {
        let (key, value) = (Some(key.as_bytes().to_vec()), Some(value));
        let topic = topics::LABELS.to_owned();
        publisher.send(&litflow::bus::producer::Outgoing { topic, key, value, ..Default::default() }).unwrap();
    }
    publisher.finish().unwrap();
    fails("2 records");

    // A run that cannot begin leaves nothing behind that the next one would trip over.
    let mut job = place.job(NAME, &["--alias", "Champion"]);
    assert_eq!(job.output().unwrap().status.code(), Some(2));
    fs::write(place.path("one.pubtator"), "1|t|The gene xq1\n1|a|\n1\t9\t12\txq1\tGene\t\n").unwrap();
    place.import("one.pubtator");
    fails("document");

    // Another run at work in the folder.
    let lock = fs::File::create(place.path("work-tiny/.lock")).unwrap();
    lock.lock().unwrap();
    fails("another run is at work");
    drop(lock);

    // Between the garbage: one type only, and a document without text.
    let corpus = fs::read_to_string(place.path("corpus.pubtator")).unwrap();
    let genes: String =
        corpus.lines().filter(|line| !line.contains("Disease")).map(|line| format!("{line}\n")).collect();
    fs::write(place.path("genes.pubtator"), genes + "\n99|t|\n99|a|\n").unwrap();
    let imported = place.command(&["import", "genes.pubtator"]).output().unwrap();
    assert!(matches!(imported.status.code(), Some(0 | 3)), "{}", stderr(&imported));
    let (code, _, log) = place.run(NAME, &[]);
    assert_eq!(code, Some(0), "{log}");
    let list = place.path("work-tiny/quarantine.jsonl");
    let told = |log: &str| log.contains("left out: ") && log.contains(&format!("listed in {}", list.display()));
    assert!(told(&log), "{log}");
    assert_eq!(place.state(NAME).entity_types, ["Gene"]);

    // What is left out is told, and can be read, when there is nothing new too.
    fs::remove_file(&list).unwrap();
    let (code, _, log) = place.run(NAME, &[]);
    assert!(code == Some(10) && told(&log), "{code:?} {log}");
    assert!(fs::read_to_string(&list).unwrap().contains("pmid:1"));
}
