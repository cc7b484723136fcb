//! `litflow worker` as a process: what operators see of it. What needs a real Apache Kafka skips, with a note,
//! where there is none.

#![allow(clippy::unwrap_used)] // a helper of a test may fail like the test

mod support;

use litflow::bus::producer::{Delivery, Patience, Producer};
use litflow::bus::reader::{From, Reader, Value};
use litflow::bus::topics;
use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use support::{Cluster, DEADLINE, article, wait_until};

/// The tiny model with random weights that the model's own tests load: its mentions mean nothing.
const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/bert/ner");

/// A worker of the group that the cluster's own clients use.
fn worker(servers: &str, name: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_litflow"));
    command.args(["worker", "--model", MODEL, "--precision", "fp32"]);
    command.args(["--bootstrap-servers", servers, "--group-id", "workers"]);
    command.env("LITFLOW_KAFKA__TRANSACTIONAL_ID", format!("workers-{name}"));
    command.env("LITFLOW_KAFKA__CONSUMER__SESSION_TIMEOUT_MS", "6000");
    // Small transactions, so that there is something between the first and the last.
    command.env("LITFLOW_WORKER__TRANSACTION_ARTICLES", "20").env("LITFLOW_WORKER__IN_FLIGHT_ARTICLES", "40");
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

fn terminate(process: &Child) {
    let status = Command::new("kill").args(["-TERM", &process.id().to_string()]).status().unwrap();
    assert!(status.success());
}

/// A port of this host that nobody listens on.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The status and body of a GET; nothing while nobody listens.
fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

#[test]
fn a_stopped_worker_drains_and_the_next_one_goes_on() {
    let Some(cluster) = Cluster::start() else { return };
    const ARTICLES: usize = 3_000;
    cluster.publish((0..ARTICLES).map(article));
    let port = free_port();

    let servers = cluster.broker.bootstrap_servers();
    let mut first = worker(servers, "a").args(["--listen", &format!("127.0.0.1:{port}")]).spawn().unwrap();
    wait_until("the worker is ready", || get(port, "/readyz").is_some_and(|answer| answer.contains(" 200 ")));
    wait_until("the worker has done something", || {
        let metrics = get(port, "/metrics").unwrap_or_default();
        metrics.lines().any(|line| line.starts_with("litflow_worker_articles_total") && !line.ends_with(" 0"))
    });
    terminate(&first);
    assert_eq!(first.wait().unwrap().code(), Some(0), "an orderly stop");
    let done = cluster.read(topics::ANNOTATIONS).len();
    assert!(0 < done && done < ARTICLES, "stopped after {done} articles, which proves nothing");

    let rest = worker(servers, "a").args(["--until-end", "--json"]).output().unwrap();
    assert!(rest.status.success());
    let summary: serde_json::Value = serde_json::from_slice(&rest.stdout).unwrap();
    assert_eq!(summary["articles"], ARTICLES - done, "{summary}");
    let annotations = cluster.foreign_keys(topics::ANNOTATIONS);
    assert_eq!(annotations.len(), ARTICLES);
    assert!(annotations.values().all(|&count| count == 1));
}

#[test]
fn a_killed_worker_loses_and_repeats_nothing() {
    let Some(cluster) = Cluster::start() else { return };
    const ARTICLES: usize = 3_000;
    cluster.publish((0..ARTICLES).map(article));
    let servers = cluster.broker.bootstrap_servers();
    let mut committed = Reader::new(&cluster.options("reader"), &[topics::ANNOTATIONS], From::Beginning).unwrap();
    for _ in 0..2 {
        let mut process = worker(servers, "killed").spawn().unwrap();
        for _ in 0..100 {
            let deadline = Instant::now() + DEADLINE;
            while committed.next(Duration::from_millis(100)).unwrap().is_none() {
                assert!(Instant::now() < deadline, "the worker commits nothing");
            }
        }
        process.kill().unwrap();
        process.wait().unwrap();
    }
    // The same transactional id: what the dead worker left open is cleared.
    let rest = worker(servers, "killed").args(["--until-end", "--json"]).output().unwrap();
    let summary: serde_json::Value = serde_json::from_slice(&rest.stdout).unwrap();
    assert!(summary["articles"].as_u64().unwrap() > 0, "the workers were killed too late to prove anything");
    let annotations = cluster.foreign_keys(topics::ANNOTATIONS);
    assert_eq!(annotations.len(), ARTICLES);
    assert!(annotations.values().all(|&count| count == 1));

    // The entities are those of the annotations, each once.
    let mut expected = BTreeSet::new();
    for entry in cluster.read(topics::ANNOTATIONS) {
        let Value::Annotations(annotations) = entry.value else { panic!("{entry:?}") };
        expected.extend(annotations.mentions.into_iter().map(|mention| mention.id));
    }
    assert!(expected.len() > ARTICLES / 10, "{} mentions prove nothing", expected.len());
    let topics = cluster.topics().into_iter().filter(|topic| topic.name.starts_with("entities."));
    let entities: Vec<_> = topics.flat_map(|topic| cluster.read(&topic.name)).collect();
    assert_eq!(entities.len(), expected.len());
    for entry in entities {
        let Value::Mention(mention) = entry.value else { panic!("{entry:?}") };
        assert!(expected.remove(&mention.id), "{mention:?} stands twice, or in no annotations");
    }
}

#[test]
fn a_worker_that_waits_for_its_broker_hears_a_signal() {
    let port = free_port();
    let nobody = format!("127.0.0.1:{}", free_port());
    let mut process = worker(&nobody, "a").args(["--listen", &format!("127.0.0.1:{port}")]).spawn().unwrap();
    wait_until("the worker waits", || get(port, "/healthz").is_some_and(|answer| answer.contains("\"starting\"")));
    terminate(&process);
    assert_eq!(process.wait().unwrap().code(), Some(0), "there was nothing to drain: an orderly stop");
}

#[test]
fn watchers_that_hang_hold_nobody_up() {
    let Some(cluster) = Cluster::start() else { return };
    let port = free_port();
    let mut command = worker(cluster.broker.bootstrap_servers(), "a");
    let mut process = command.args(["--listen", &format!("127.0.0.1:{port}")]).spawn().unwrap();
    wait_until("the worker is ready", || get(port, "/readyz").is_some_and(|answer| answer.contains(" 200 ")));
    // Some ask and never read, some never end their question.
    let hanging: Vec<TcpStream> = (0..200)
        .map(|number| {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            let request = if number % 2 == 0 { "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" } else { "GET /met" };
            stream.write_all(request.as_bytes()).unwrap();
            stream
        })
        .collect();
    cluster.publish((0..100).map(article));
    wait_until("all is done", || cluster.read(topics::ANNOTATIONS).len() == 100);
    assert!(get(port, "/healthz").unwrap().contains(" 200 "));
    terminate(&process);
    wait_until("the worker has ended", || process.try_wait().unwrap().is_some());
    assert_eq!(process.wait().unwrap().code(), Some(0));
    drop(hanging);
}

#[test]
fn a_fenced_worker_ends_with_4() {
    let Some(cluster) = Cluster::start() else { return };
    cluster.publish([article(1)]);
    let mut process = worker(cluster.broker.bootstrap_servers(), "a").spawn().unwrap();
    wait_until("the worker has committed", || !cluster.read(topics::ANNOTATIONS).is_empty());
    // A second producer of the same transactional id; then there is something to publish.
    let _usurper = Producer::new(&cluster.options("a"), Delivery::ExactlyOnce, Patience::default()).unwrap();
    cluster.publish([article(2)]);
    assert_eq!(process.wait().unwrap().code(), Some(4));
    assert_eq!(cluster.read(topics::ANNOTATIONS).len(), 1);
}
