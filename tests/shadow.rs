//! Shadow mode and automatic rollback on a real Apache Kafka: a candidate is compared and promoted or refused, a
//! champion that fails is rolled back. Skips, with a note, where there is no Kafka.

#![allow(clippy::unwrap_used)] // a helper of a test may fail like the test

mod support;

use assert_cmd::Command;
use futures::future::BoxFuture;
use litflow::article::Document;
use litflow::bus::reader::Value;
use litflow::bus::records::AliasAction;
use litflow::bus::topics;
use litflow::registry::aliases::{CANDIDATE, CHAMPION};
use litflow::registry::{self, Occasion, Registry};
use litflow::tagger::{Dictionary, Error, ModelRef, Serving, Tag, TaggedDocument};
use litflow::worker::reload::{self, Chooser, End, Look, Place, Reload, Wanted, announced, candidate};
use litflow::worker::rollback::{self, Rollback, Watch};
use litflow::worker::shadow::{self, Shadow, Waiting};
use litflow::worker::{self, Outputs, Status, Stop, Summary, Worker};
use std::collections::BTreeSet;
use std::process::Stdio;
use std::sync::Arc;
use std::thread::JoinHandle;
use support::{Cluster, DEADLINE, article, http, versions, wait_until};
use tokio::sync::watch;

const NAME: &str = "tiny";

/// A dictionary in the place of an announced version: the third finds other things, the fourth nothing.
struct Version(Dictionary, Arc<ModelRef>);

impl Version {
    fn load(wanted: &Wanted) -> Box<dyn Tag> {
        let Place::Registry { name, version } = &wanted.place else { panic!("{wanted:?}") };
        let terms = match version.as_str() {
            "3.0.0" => vec![("article", "Gene"), ("breast", "Disease"), ("length", "CellLine")],
            "4.0.0" => vec![],
            _ => vec![("BRCA1", "Gene"), ("p53", "Gene"), ("breast cancer", "Disease")],
        };
        let model = ModelRef { name: name.clone(), version: version.clone(), digest: wanted.digest.clone() };
        Box::new(Self(Dictionary::new(terms).unwrap(), Arc::new(model)))
    }
}

impl Tag for Version {
    fn model(&self) -> Arc<ModelRef> {
        self.1.clone()
    }

    fn entity_types(&self) -> Arc<[String]> {
        self.0.entity_types()
    }

    fn tag(&self, document: Document) -> BoxFuture<'_, Result<TaggedDocument, Error>> {
        Box::pin(async move { Ok(TaggedDocument { model: (*self.1).clone(), ..self.0.tag(document).await? }) })
    }
}

/// A registry in a folder, announced on a cluster.
struct Registered<'c> {
    cluster: &'c Cluster,
    folder: tempfile::TempDir,
    registry: Registry,
}

/// A worker at work, with all that stands beside it.
struct Running {
    stop: watch::Sender<Stop>,
    work: JoinHandle<Result<Summary, worker::Error>>,
    status: Arc<Status>,
    handle: reload::Handle,
    reload: Reload,
    shadow: Shadow,
    rollback: Rollback,
}

impl<'c> Registered<'c> {
    fn new(cluster: &'c Cluster) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = registry::Options {
            store: folder.path().join("store").display().to_string(),
            ..registry::Options::default()
        };
        let registry = Registry::create(&options, &cluster.options("registry")).unwrap();
        Self { cluster, folder, registry }
    }

    fn options(&self) -> registry::Options {
        registry::Options { store: self.store(), ..registry::Options::default() }
    }

    fn store(&self) -> String {
        self.folder.path().join("store").display().to_string()
    }

    fn publish(&self, version: &str, alias: &str) {
        let model = versions::model(self.folder.path(), version, "a card");
        self.registry.publish(&model, Some(alias), &Occasion::now("a test", version)).unwrap();
    }

    fn champion(&self) -> String {
        let announcements = self.registry.announcements().unwrap();
        announcements.get(NAME).unwrap().unwrap().alias(CHAMPION).unwrap().version.clone()
    }

    fn chooser(&self, look: Look) -> Chooser {
        Chooser::new(look, Box::new(|wanted: &Wanted| Ok(Version::load(wanted))))
    }

    fn worker(&self, name: &str) -> Running {
        let kafka = self.cluster.options(name);
        let mut chooser = self.chooser(announced(kafka.clone(), NAME.into()));
        let serving = Serving::new(chooser.first().unwrap().unwrap()).unwrap();
        let shadow = shadow::Options { sample: 1.0, publish_interval_ms: 200, ..shadow::Options::default() };
        let rollback = rollback::Options { articles: 50, min_sentences: 50, ..rollback::Options::default() };
        let (waiting, watched) = (Waiting::new(&shadow), Watch::new(&rollback, serving.model()));
        let serving = Arc::new(serving.observed_by([waiting.observer(), watched.observer()]));
        let options = worker::Options { transaction_articles: 50, ..worker::Options::default() };
        let runtime = self.cluster.runtime.handle().clone();
        let worker = Worker::build(&options, &kafka, &Default::default(), serving.clone(), runtime).unwrap();
        let worker = worker.with_outputs(Arc::new(Outputs::new(&kafka).unwrap()));
        let reload = Reload::start(serving.clone(), chooser, true).unwrap();
        let candidates = self.chooser(candidate(kafka.clone(), NAME.into()));
        let (report, id) = (shadow::to_cluster(kafka.clone()), kafka.transactional_id());
        let shadow = Shadow::start(&shadow, waiting, serving.clone(), candidates, report, id.clone()).unwrap();
        let act = rollback::in_registry(self.options(), kafka, id);
        let rollback = Rollback::start(watched, serving, reload.handle(), Some(act)).unwrap();
        let handle = reload.handle().beside(Some(shadow.handle()), Some(rollback.handle()));
        let (stop, stopped) = watch::channel(Stop::Never);
        let status = worker.status();
        let work = std::thread::spawn(move || worker.run(stopped));
        Running { stop, work, status, handle, reload, shadow, rollback }
    }

    /// `litflow models …` on the cluster and the store.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::cargo_bin("litflow").unwrap();
        command.arg("models").args(arguments).args(["--store", &self.store()]);
        command.args(["--bootstrap-servers", self.cluster.broker.bootstrap_servers()]);
        command
    }

    fn shown(&self) -> serde_json::Value {
        let assert = self.command(&["shadow", NAME, "--json"]).assert().success();
        serde_json::from_slice(&assert.get_output().stdout).unwrap()
    }

    /// Publishes articles without a pause until `condition` holds; the number of the next one.
    fn publish_until(&self, next: usize, what: &str, condition: impl FnMut() -> bool) -> usize {
        self.cluster.publish_until(article, next, what, condition)
    }

    /// Publishes articles until the command ends.
    fn publish_while(&self, next: usize, mut command: Command) -> (usize, assert_cmd::assert::Assert) {
        std::thread::scope(|scope| {
            let running = scope.spawn(move || command.timeout(DEADLINE).assert());
            let next = self.publish_until(next, "the command ends", || running.is_finished());
            (next, running.join().unwrap())
        })
    }
}

impl Running {
    fn serves(&self, version: &str) -> bool {
        self.handle.snapshot().serving.version == version
    }

    fn end(self) -> Summary {
        self.stop.send(Stop::AtEnd).unwrap();
        let summary = self.work.join().unwrap().unwrap();
        assert_eq!(self.rollback.end(DEADLINE), End::Done);
        assert_eq!(self.shadow.end(DEADLINE), End::Done);
        assert_eq!(self.reload.end(DEADLINE), End::Done);
        summary
    }
}

#[test]
fn a_candidate_that_agrees_is_promoted_and_one_that_does_not_is_refused() {
    let Some(cluster) = Cluster::start() else { return };
    let place = Registered::new(&cluster);
    place.publish("1.0.0", CHAMPION);
    let workers = ["a", "b"].map(|name| place.worker(name));
    let next = place
        .publish_until(0, "both are at work", || workers.iter().all(|worker| worker.status.snapshot().articles > 0));
    let promote = ["promote", NAME, "candidate", "--after-shadow", "--shadow-articles", "300", "--json"];
    let bounds = ["--max-latency-ratio", "50", "--reason", "the monthly run"]; // what a dictionary costs is noise

    place.publish("2.0.0", CANDIDATE);
    let (next, assert) = place.publish_while(next, place.command(&[&promote[..], &bounds].concat()));
    let output = assert.success().get_output().clone();
    let moved: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((moved["version"].as_str(), moved["changed"].as_bool()), (Some("2.0.0"), Some(true)));
    assert!(String::from_utf8_lossy(&output.stderr).contains("of 300 articles compared with 1.0.0"), "{output:?}");
    let announcements = place.registry.announcements().unwrap();
    let reason = &announcements.get(NAME).unwrap().unwrap().history.last().unwrap().reason;
    assert!(reason.starts_with("the monthly run; shadow: F1 1.0000 against 1.0.0 over "), "{reason}");
    assert!(reason.contains("by 2 workers"), "{reason}");
    let next = place.publish_until(next, "both serve it", || workers.iter().all(|worker| worker.serves("2.0.0")));

    place.publish("3.0.0", CANDIDATE);
    let (next, assert) = place.publish_while(next, place.command(&[&promote[..], &bounds].concat()));
    let output = assert.code(5).get_output().clone();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("tiny 3.0.0 is not promoted: its F1 against the champion is 0.0000"), "{error}");
    assert_eq!(place.champion(), "2.0.0");
    let shown = place.shown();
    assert!(shown["articles"].as_i64() >= Some(300) && shown["workers"] == 2, "{shown}");
    assert_eq!((shown["champion"]["version"].as_str(), shown["micro"]["f1"].as_f64()), (Some("2.0.0"), Some(0.0)));
    assert!(shown["types"]["Disease"]["missing"].as_i64() >= Some(300), "{shown}");
    let table = place.command(&["shadow", NAME]).assert().success().get_output().stdout.clone();
    let table = String::from_utf8(table).unwrap();
    assert!(
        table.starts_with("tiny 3.0.0 against the champion 2.0.0\n") && table.contains("\nDisease   0.0000"),
        "{table}"
    );
    let snapshot = workers[0].handle.snapshot().shadow.unwrap();
    assert_eq!((snapshot.candidate.unwrap().version.as_str(), snapshot.failed), ("3.0.0", 0));
    // What is no candidate is not waited for; neither are too few articles, when the time is over.
    let older = place.command(&["promote", NAME, "1.0.0", "--after-shadow"]).assert().code(5);
    assert!(String::from_utf8_lossy(&older.get_output().stderr).contains("is not the candidate"));
    let many = ["--after-shadow", "--shadow-articles", "1000000", "--timeout", "1"];
    let late = place.command(&[&["promote", NAME, "3.0.0"], &many[..]].concat()).assert().code(5);
    let error = String::from_utf8_lossy(&late.get_output().stderr).into_owned();
    assert!(error.contains("of 1000000 articles were compared; its F1 against"), "{error}");

    let worked: u64 = workers.into_iter().map(|worker| worker.end().tagged).sum();
    assert_eq!(worked, next as u64);
    let mut by = BTreeSet::new();
    let annotations = cluster.read(topics::ANNOTATIONS);
    assert_eq!(annotations.len(), next, "nothing of a candidate is published");
    for entry in annotations {
        let Value::Annotations(annotations) = entry.value else { panic!("{entry:?}") };
        by.insert(annotations.model.version);
    }
    assert_eq!(by, BTreeSet::from(["1.0.0".into(), "2.0.0".into()]));
}

#[test]
fn a_champion_that_finds_nothing_is_rolled_back_once_by_two_workers() {
    let Some(cluster) = Cluster::start() else { return };
    let place = Registered::new(&cluster);
    place.publish("1.0.0", CHAMPION);
    place.publish("2.0.0", CHAMPION);
    let workers = ["a", "b"].map(|name| place.worker(name));
    let next = place.publish_until(0, "both have something to compare with", || {
        workers.iter().all(|worker| worker.status.snapshot().articles > 100)
    });
    place.publish("4.0.0", CHAMPION);
    let next = place.publish_until(next, "it is rolled back", || place.champion() != "4.0.0");
    let next = place.publish_until(next, "both went back", || workers.iter().all(|worker| worker.serves("2.0.0")));
    let trials = workers.iter().filter_map(|worker| worker.handle.snapshot().trial);
    let failed: Vec<_> = trials.filter(|trial| trial.passed == Some(false)).collect();
    assert!(!failed.is_empty() && failed.iter().all(|trial| trial.version.version == "4.0.0"), "{failed:?}");

    // A third one that finds it failing is too late.
    let digest = &failed[0].version.digest;
    let late = place.registry.rollback_from(NAME, digest, &Occasion::now("late", "late")).unwrap();
    assert!(!late.changed);
    // Nor is undone what somebody went back to.
    let second = late.state.alias(CHAMPION).unwrap().digest.clone();
    assert!(!place.registry.rollback_from(NAME, &second, &Occasion::now("late", "late")).unwrap().changed);

    let worked: u64 = workers.into_iter().map(|worker| worker.end().tagged).sum();
    assert_eq!(worked, next as u64);
    let announcements = place.registry.announcements().unwrap();
    let state = announcements.get(NAME).unwrap().unwrap();
    assert_eq!(state.alias(CHAMPION).unwrap().version, "2.0.0");
    let back: Vec<_> = state.history.iter().filter(|change| change.action == AliasAction::RolledBack).collect();
    assert_eq!(back.len(), 1, "{back:?}");
    assert!(back[0].by.starts_with("workers-"), "{back:?}");
    assert!(back[0].reason.starts_with("automatic rollback: 0.00 % of "), "{back:?}");
}

/// The same by the program, with real models: the second is the first under another name.
#[test]
fn the_program_compares_what_is_announced() {
    let Some(cluster) = Cluster::start() else { return };
    let place = Registered::new(&cluster);
    place.publish("1.0.0", CHAMPION);
    place.publish("2.0.0", CANDIDATE);
    let port = http::free_port();
    let mut worker = std::process::Command::new(env!("CARGO_BIN_EXE_litflow"))
        .args(["worker", "--precision", "fp32", "--threads", "1", "--listen", &format!("127.0.0.1:{port}")])
        .args(["--bootstrap-servers", cluster.broker.bootstrap_servers()])
        .env("LITFLOW_MODEL__NAME", NAME)
        .env("LITFLOW_REGISTRY__STORE", place.store())
        .env("LITFLOW_REGISTRY__CACHE", place.folder.path().join("cache"))
        .env("LITFLOW_SHADOW__SAMPLE", "0.5")
        .env("LITFLOW_SHADOW__PUBLISH_INTERVAL_MS", "200")
        .env("LITFLOW_ROLLBACK__ARTICLES", "10000")
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let ready = || http::request(port, "GET", "/readyz").unwrap_or_default();
    wait_until("the candidate is loaded", || {
        ready().contains(r#""shadow":{"candidate":{"name":"tiny","version":"2.0.0""#)
    });
    place.publish_until(0, "articles are compared", || place.shown()["articles"].as_i64() >= Some(20));
    let shown = place.shown();
    assert_eq!((&shown["failed"], &shown["refused"]), (&0.into(), &serde_json::json!({})), "{shown}");
    assert!(shown["micro"]["f1"].as_f64().is_none_or(|f1| f1 == 1.0), "{shown}");
    assert!(shown["latency_ratio"].as_f64() > Some(0.0), "{shown}");
    let metrics = http::request(port, "GET", "/metrics").unwrap();
    assert!(metrics.contains(r#"litflow_shadow_articles_total{outcome="compared"}"#), "{metrics}");
    assert!(std::process::Command::new("kill").args(["-TERM", &worker.id().to_string()]).status().unwrap().success());
    assert_eq!(worker.wait().unwrap().code(), Some(0));
}
