//! What breaks inside a worker, on a real Apache Kafka, by failpoints: it is killed at each place of an article's way, its
//! engine fails, its loop hangs. `docs/guarantees.md` lists the faults.

#![allow(clippy::unwrap_used)] // a helper of a test may fail like the test

mod support;

use fail::FailScenario;
use litflow::ErrorClass;
use litflow::bus::topics;
use litflow::model::{self, Model};
use litflow::tagger::{Engine, Tag};
use litflow::worker::{self, Stop, Worker};
use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use support::child::{self, Told};
use support::nodes::signal;
use support::{Cluster, article, impatient, wait_until};
use tokio::sync::watch;

/// The tiny model with random weights that the model's own tests load: its mentions mean nothing.
const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/bert/ner");

#[test]
#[ignore = "a worker that the other tests start as a process"]
fn worker_process() {
    let _failpoints = FailScenario::setup(); // as FAILPOINTS says
    child::run();
}

#[test]
fn killed_at_each_place_of_an_articles_way() {
    let Some(cluster) = Cluster::start() else { return };
    let servers = cluster.broker.bootstrap_servers();
    let told = || {
        let options = worker::Options { transaction_articles: 10, in_flight_articles: 20, ..Default::default() };
        Told::new(servers, "killed", options)
    };
    // Some articles get through before: an article has one of the first three places, a transaction one of the others.
    let places = [
        ("after_poll", 15),
        ("after_inference", 15),
        ("after_produce", 15),
        ("before_offsets", 2),
        ("before_commit", 2),
        ("after_commit", 2),
    ];
    const EACH: usize = 60;
    for (number, (place, before)) in places.into_iter().enumerate() {
        cluster.publish((number * EACH..(number + 1) * EACH).map(article));
        let mut killed = told().command();
        killed.env("FAILPOINTS", format!("{place}={before}*off->return")).stdout(Stdio::null());
        let ended = killed.status().unwrap();
        assert_eq!(ended.signal(), Some(libc::SIGKILL), "{place}: {ended}");
    }
    let rest = told().until_end().run();
    assert!(rest.articles > 0);
    cluster.assert_each_once(places.len() * EACH);
}

#[test]
fn an_article_that_breaks_the_engine_goes_alone() {
    let _failpoints = FailScenario::setup();
    let Some(cluster) = Cluster::start() else { return };
    let runtime = cluster.runtime.handle().clone();
    const ARTICLES: usize = 30;
    for (number, fault) in ["panic", "memory", "nan"].into_iter().enumerate() {
        let model = Model::load(MODEL.as_ref(), &model::Options::default()).unwrap();
        let engine: Arc<dyn Tag> = Arc::new(Engine::start(model, &Default::default()).unwrap());
        let first = number * (ARTICLES + 1);
        let mut guilty = article(first + ARTICLES / 2);
        guilty.title = Some("The gene → cancer.".into());
        let events =
            (first..=first + ARTICLES).map(|n| if n == first + ARTICLES / 2 { guilty.clone() } else { article(n) });
        cluster.publish(events);
        fail::cfg("forward", &format!("return({fault} 40)")).unwrap(); // the piece of the arrow

        let (_stop, stopped) = watch::channel(Stop::AtEnd);
        let (kafka, raw) = (cluster.options("a"), Default::default());
        let worker = Worker::build(&Default::default(), &kafka, &raw, engine, runtime.clone()).unwrap();
        let summary = worker.run(stopped).unwrap();
        assert_eq!((summary.tagged, summary.dead_letters, summary.aborted), (ARTICLES as u64, 1, 0), "{fault}");
        let letters = cluster.read(topics::DEAD_LETTERS);
        let letter = letters.iter().find(|letter| letter.key.as_ref() == Some(&guilty.id)).unwrap();
        assert_eq!(letter.headers["dlq.reason"], "untaggable");
        assert_eq!(letter.headers["dlq.stage"], "tag");
        fail::remove("forward");
    }
    assert_eq!(cluster.read(topics::DEAD_LETTERS).len(), 3);
    assert_eq!(cluster.foreign_keys(topics::ANNOTATIONS).len(), 3 * ARTICLES);
}

#[test]
fn a_loop_that_hangs_loses_its_partitions_and_publishes_nothing_of_them() {
    for protocol in ["cooperative-sticky", "range", "consumer"] {
        let _failpoints = FailScenario::setup();
        let Some(cluster) = Cluster::start() else { return };
        const ARTICLES: usize = 300;
        cluster.publish((0..ARTICLES).map(article));
        let options = worker::Options { transaction_articles: 50, ..Default::default() };
        let mut kafka = cluster.options("hangs");
        kafka.consumer = impatient(protocol);
        // In the middle of a transaction, once, for longer than the group waits.
        fail::cfg("after_produce", "120*off->1*sleep(9000)->off").unwrap();
        let (_stop, stopped) = watch::channel(Stop::AtEnd);
        let summary = cluster.worker_at(&kafka, &options).run(stopped).unwrap();
        assert!(summary.aborted > 0, "{protocol}: nothing was lost");
        assert_eq!(summary.articles, ARTICLES as u64, "{protocol}");
        cluster.assert_each_once(ARTICLES);
    }
}

#[test]
fn a_transaction_that_times_out_ends_the_worker_and_is_done_by_the_next() {
    let _failpoints = FailScenario::setup();
    let Some(cluster) = Cluster::start() else { return };
    cluster.publish((0..100).map(article));
    let mut kafka = cluster.options("slow");
    kafka.producer = BTreeMap::from([("transaction.timeout.ms".into(), "2000".into())]);
    let options = worker::Options { transaction_articles: 40, ..Default::default() };
    // The brokers look for such transactions every 10 s.
    fail::cfg("after_produce", "60*off->1*sleep(14000)->off").unwrap();
    let (_stop, stopped) = watch::channel(Stop::AtEnd);
    match cluster.worker_at(&kafka, &options).run(stopped) {
        Ok(summary) => assert!(summary.aborted > 0, "the transaction did not time out: {summary:?}"),
        Err(error) => assert_eq!(error.class(), ErrorClass::Fatal, "{error}"),
    }
    cluster.work_with("slow", &options);
    cluster.assert_each_once(100);
}

#[test]
fn a_consumer_that_stalls_in_silence_is_noticed() {
    let _failpoints = FailScenario::setup();
    let Some(cluster) = Cluster::start() else { return };
    cluster.publish((0..10).map(article));
    let options = worker::Options { stall_timeout_ms: 2_000, ..Default::default() };
    let worker = cluster.worker("stalls", &options);
    let (status, (stop, stopped)) = (worker.status(), watch::channel(Stop::Never));
    let running = std::thread::spawn(move || worker.run(stopped));
    wait_until("the first are done", || status.snapshot().articles == 10);
    // Nothing is to be done: for as long as it takes to look several times, that is no stall.
    std::thread::sleep(Duration::from_secs(4));
    assert!(status.live(), "{:?}", status.snapshot().stalled);

    fail::cfg("consumer_stalls", "return").unwrap();
    cluster.publish((10..20).map(article));
    wait_until("the stall is told", || !status.live());
    let reason = status.snapshot().stalled.unwrap();
    assert!(reason.contains("articles-") && reason.contains("stall_timeout_ms"), "{reason}");
    fail::remove("consumer_stalls");
    wait_until("it goes on", || status.live() && status.snapshot().articles == 20);
    stop.send(Stop::Now).unwrap();
    running.join().unwrap().unwrap();
    cluster.assert_each_once(20);
}

#[test]
fn a_second_signal_ends_a_drain_at_once() {
    let Some(cluster) = Cluster::start() else { return };
    const ARTICLES: usize = 200;
    cluster.publish((0..ARTICLES).map(article));
    let worker = |name: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_litflow"));
        command.args(["worker", "--model", MODEL, "--precision", "fp32", "--group-id", "workers"]);
        command.args(["--bootstrap-servers", cluster.broker.bootstrap_servers()]);
        command.env("LITFLOW_KAFKA__TRANSACTIONAL_ID", name).env("LITFLOW_WORKER__TRANSACTION_ARTICLES", "20");
        command.stdout(Stdio::null());
        command
    };
    let mut first = worker("a").env("FAILPOINTS", "after_produce=30*off->sleep(500)").spawn().unwrap();
    wait_until("something is committed", || !cluster.read(topics::ANNOTATIONS).is_empty());
    signal(first.id(), libc::SIGTERM);
    // The drain would take longer than this.
    assert!(first.try_wait().unwrap().is_none());
    wait_until("the second signal is heard", || {
        signal(first.id(), libc::SIGTERM);
        first.try_wait().unwrap().is_some()
    });
    assert_eq!(first.wait().unwrap().code(), Some(143));
    assert!(worker("a").arg("--until-end").status().unwrap().success());
    let annotations = cluster.foreign_keys(topics::ANNOTATIONS);
    assert!(annotations.len() == ARTICLES && annotations.values().all(|&count| count == 1));
}
