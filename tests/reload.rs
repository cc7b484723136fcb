//! Hot reload on a real Apache Kafka: versions are announced, swapped in under load, refused and rolled back.
//! Skips, with a note, where there is no Kafka.

#![allow(clippy::unwrap_used)] // a helper of a test may fail like the test

mod support;

use litflow::bus::reader::Value;
use litflow::bus::topics;
use litflow::model::{self, directory::Manifest};
use litflow::registry::aliases::CHAMPION;
use litflow::registry::{self, Occasion, Registry};
use litflow::tagger::{self, Serving};
use litflow::worker::reload::{Chooser, End, Loader, Reload, announced, tell_cluster};
use litflow::worker::{self, Outputs, Stop, Worker};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use support::http::{free_port, request, request_with};
use support::{Cluster, DEADLINE, article, versions, wait_until};
use tokio::sync::watch;

const NAME: &str = "tiny";

/// A registry in a folder, announced on a cluster.
struct Versions<'c> {
    cluster: &'c Cluster,
    folder: tempfile::TempDir,
    registry: Registry,
}

impl<'c> Versions<'c> {
    fn new(cluster: &'c Cluster) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let registry = Registry::create(&options(folder.path()), &cluster.options("registry")).unwrap();
        Self { cluster, folder, registry }
    }

    /// Publishes a version as champion, after `change` was made to its directory.
    fn publish(&self, version: &str, change: impl FnOnce(&Path)) {
        let model = versions::model(self.folder.path(), version, "a card");
        change(&model);
        self.registry.publish(&model, Some(CHAMPION), &occasion()).unwrap();
    }

    fn chooser(&self, outputs: &Arc<Outputs>) -> Chooser {
        let loader = Loader {
            model: model::Options { device: "cpu".parse().unwrap(), precision: "fp32".parse().unwrap() },
            tagger: tagger::Options { threads: 1, tokenizer_threads: 1, ..tagger::Options::default() },
            registry: options(self.folder.path()),
            outputs: outputs.clone(),
            runtime: self.cluster.runtime.handle().clone(),
        };
        let load = Box::new(move |wanted: &_| loader.load(wanted));
        let kafka = self.cluster.options("follower");
        Chooser::new(announced(kafka.clone(), NAME.into()), load).telling(tell_cluster(kafka))
    }

    /// A worker that serves the champion, and what replaces it.
    fn worker(&self) -> (Worker, Reload) {
        let outputs = Arc::new(Outputs::new(&self.cluster.options("outputs")).unwrap());
        let mut chooser = self.chooser(&outputs);
        let serving = Arc::new(Serving::new(chooser.first().unwrap().unwrap()).unwrap());
        // Small transactions, so that many articles are on their way when a version is swapped in.
        let options = worker::Options { transaction_articles: 20, in_flight_articles: 200, ..Default::default() };
        let (kafka, handle) = (self.cluster.options("a"), self.cluster.runtime.handle().clone());
        let worker = Worker::build(&options, &kafka, &Default::default(), serving.clone(), handle).unwrap();
        (worker.with_outputs(outputs), Reload::start(serving, chooser, true).unwrap())
    }
}

fn options(folder: &Path) -> registry::Options {
    let store = folder.join("store").to_str().unwrap().to_owned();
    registry::Options { store, cache: Some(folder.join("cache")), ..registry::Options::default() }
}

fn occasion() -> Occasion {
    Occasion::now("a test", "a test")
}

#[test]
fn versions_are_swapped_under_load_and_every_record_names_its_own() {
    let Some(cluster) = Cluster::start() else { return };
    let versions = Versions::new(&cluster);
    versions.publish("1.0.0", |_| ());
    let (worker, reload) = versions.worker();
    let (status, handle) = (worker.status(), reload.handle());
    let (stop, stopped) = watch::channel(Stop::Never);
    let running = std::thread::spawn(move || worker.run(stopped));
    let serves = |version: &str| handle.snapshot().serving.version == version;

    let next = cluster.publish_until(article, 0, "the first version is at work", || status.snapshot().articles > 0);
    versions.publish("2.0.0", |_| ());
    let next = cluster.publish_until(article, next, "the second is swapped in", || serves("2.0.0"));
    let done = status.snapshot().articles;
    let next =
        cluster.publish_until(article, next, "the second is at work", || status.snapshot().articles > done + 300);
    versions.registry.rollback(NAME, &occasion()).unwrap();
    let next = cluster.publish_until(article, next, "the first is back", || serves("1.0.0"));
    cluster.publish((next..next + 100).map(article));
    let articles = next + 100;
    stop.send(Stop::AtEnd).unwrap();
    let summary = running.join().unwrap().unwrap();
    assert_eq!(reload.end(DEADLINE), End::Done);
    assert_eq!((summary.articles, summary.tagged), (articles as u64, articles as u64), "none lost, none double");

    let digest = |version: &str| versions.registry.store().manifest(NAME, version).unwrap().1;
    let digests = BTreeMap::from(["1.0.0", "2.0.0"].map(|version| (version.to_owned(), digest(version))));
    let version_of = cluster.version_of_each(&digests);
    assert_eq!(version_of.len(), articles);
    let by = |version: &str| version_of.values().filter(|of| *of == version).count();
    assert!(by("2.0.0") > 300 && by("1.0.0") > 100, "{} and {}", by("1.0.0"), by("2.0.0"));
}

#[test]
fn a_version_without_topics_waits_for_them_and_a_broken_one_never_serves() {
    let Some(cluster) = Cluster::start() else { return };
    let versions = Versions::new(&cluster);
    versions.publish("1.0.0", |_| ());
    let (_worker, reload) = versions.worker();
    let handle = reload.handle();
    let look = || cluster.runtime.block_on(handle.look_now()).unwrap();

    // A type of its own, for which the cluster has no topic.
    versions.publish("2.0.0", |model| {
        let config = model.join("config.json");
        let renamed = fs::read_to_string(&config).unwrap().replace("-Disease", "-Variant");
        fs::write(&config, renamed).unwrap();
        Manifest::default().write(model).unwrap();
    });
    let refused = look().refused.unwrap();
    assert!(refused.reason.contains("entities.Variant") && refused.will_retry, "{refused:?}");
    let told = cluster.read(topics::REFUSED_MODELS);
    assert_eq!(told.len(), 1);
    assert_eq!(
        (told[0].headers["dlq.model"].as_str(), told[0].headers["dlq.class"].as_str()),
        ("tiny 2.0.0", "retriable")
    );
    assert!(told[0].headers["dlq.error"].contains("entities.Variant"), "{told:?}");
    assert!(matches!(&told[0].value, Value::Model(announced) if announced.version == "2.0.0"));
    let topic = topics::all(&["Variant".to_owned()]).unwrap();
    cluster.runtime.block_on(cluster.admin().create(&topic, None)).unwrap();
    wait_until("it is tried again", || handle.snapshot().serving.version == "2.0.0");

    // Damaged in the store after it was announced.
    versions.publish("3.0.0", |_| ());
    let damaged = versions.folder.path().join("store").join(NAME).join("3.0.0").join("model.safetensors");
    let from_cache = |version: &str| versions.registry.store().manifest(NAME, version).unwrap().1;
    let _ = fs::remove_dir_all(versions.folder.path().join("cache").join(&from_cache("3.0.0")["sha256:".len()..]));
    versions::flip_a_bit(&damaged);
    let outputs = Arc::new(Outputs::new(&cluster.options("outputs")).unwrap());
    let first = versions.chooser(&outputs).first().unwrap().unwrap();
    assert_eq!(first.model().version, "2.0.0", "a start takes the champion before the broken one");

    // Without the store the cache is enough.
    fs::rename(versions.folder.path().join("store"), versions.folder.path().join("away")).unwrap();
    let first = versions.chooser(&outputs).first().unwrap().unwrap();
    assert_eq!(first.model().version, "2.0.0");
    assert_eq!(reload.end(DEADLINE), End::Done);
}

/// A small file system at `folder`; goes with its handle.
struct Small<'f>(&'f Path);

impl<'f> Small<'f> {
    /// None, with a note, where file systems cannot be mounted.
    fn mount(folder: &'f Path) -> Option<Self> {
        fs::create_dir_all(folder).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(folder).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(folder));
        }
        eprintln!("skipped: only root can mount a small file system");
        None
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0).status();
    }
}

#[test]
fn a_full_disk_leaves_the_version_that_serves() {
    let Some(cluster) = Cluster::start() else { return };
    let versions = Versions::new(&cluster);
    let cache = versions.folder.path().join("cache");
    let Some(_small) = Small::mount(&cache) else { return };
    versions.publish("1.0.0", |_| ());
    let (worker, reload) = versions.worker();
    let (status, handle) = (worker.status(), reload.handle());
    let (stop, stopped) = watch::channel(Stop::Never);
    let running = std::thread::spawn(move || worker.run(stopped));

    let filler = cache.join("filler");
    let written = fs::write(&filler, vec![0; 2 << 20]).unwrap_err();
    assert_eq!(written.kind(), std::io::ErrorKind::StorageFull);
    versions.publish("2.0.0", |_| ());
    wait_until("the disk is full", || handle.snapshot().refused.is_some());
    let refused = handle.snapshot().refused.unwrap();
    assert!(refused.will_retry && refused.reason.contains("No space left"), "{refused:?}");
    cluster.publish((0..50).map(article));
    wait_until("the first version goes on", || status.snapshot().articles == 50);
    assert!(status.ready());
    fs::remove_file(&filler).unwrap();
    wait_until("the second is loaded when there is room", || handle.snapshot().serving.version == "2.0.0");
    stop.send(Stop::Now).unwrap();
    running.join().unwrap().unwrap();
    assert_eq!(reload.end(DEADLINE), End::Done);
    assert_eq!(cluster.foreign_keys(topics::ANNOTATIONS).len(), 50);
}

/// What an operator does to a worker whose model lies in a directory.
#[test]
fn a_directory_is_loaded_again_when_it_changes_and_when_somebody_asks() {
    let Some(cluster) = Cluster::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (model, next) = (folder.path().join("model"), folder.path().join("next"));
    let point = |version: &str| {
        let _ = fs::remove_file(&next);
        symlink(versions::model(folder.path(), version, "a card"), &next).unwrap();
        fs::rename(&next, &model).unwrap();
    };
    point("1.0.0");
    let (port, admin, token) = (free_port(), free_port(), folder.path().join("token"));
    fs::write(&token, "hunter2\n").unwrap();
    let mut process = Command::new(env!("CARGO_BIN_EXE_litflow"))
        .args(["worker", "--model"])
        .arg(&model)
        .args(["--precision", "fp32", "--listen", &format!("127.0.0.1:{port}")])
        .args(["--bootstrap-servers", cluster.broker.bootstrap_servers()])
        .env("LITFLOW_HTTP__ADMIN_LISTEN", format!("127.0.0.1:{admin}"))
        .env("LITFLOW_HTTP__ADMIN_TOKEN_FILE", &token)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let ready = || request(port, "GET", "/readyz").unwrap_or_default();
    wait_until("the worker is ready", || ready().contains(" 200 "));
    assert!(ready().contains(r#""version":"1.0.0""#), "{}", ready());

    point("2.0.0");
    wait_until("the change is noticed", || ready().contains(r#""version":"2.0.0""#));
    assert!(ready().contains(r#""refused":null"#), "{}", ready());

    point("3.0.0");
    versions::flip_a_bit(&model.join("model.safetensors"));
    assert!(request(admin, "POST", "/admin/model").unwrap().contains(" 401 "));
    let ask = |method: &str| request_with(admin, method, "/admin/model", "Authorization: Bearer hunter2\r\n").unwrap();
    let answer = ask("POST");
    assert!(answer.contains(" 409 ") && answer.contains("its SHA-256 is"), "{answer}");
    assert!(ready().contains(" 200 ") && ready().contains("its SHA-256 is"), "{}", ready());
    assert!(ask("GET").contains(r#""version":"2.0.0""#));
    let metrics = request(port, "GET", "/metrics").unwrap();
    assert!(metrics.contains("litflow_model_refused 1"), "{metrics}");
    assert!(metrics.contains(r#"litflow_model_loads_total{outcome="swapped"} 1"#), "{metrics}");

    point("4.0.0");
    assert!(Command::new("kill").args(["-HUP", &process.id().to_string()]).status().unwrap().success());
    wait_until("the signal is heard", || ready().contains(r#""version":"4.0.0""#));
    assert!(Command::new("kill").args(["-TERM", &process.id().to_string()]).status().unwrap().success());
    assert_eq!(process.wait().unwrap().code(), Some(0));
}
