//! Dead letters on a real Apache Kafka, as `litflow dlq` shows them, sends them again and puts them away. Skips, with
//! a note, where there is none. One broker and one worker serve all steps, each of which leaves nothing to deal with.

#![allow(clippy::unwrap_used)] // a helper of a test may fail like the test

mod support;

use litflow::bus::codec::Record as _;
use litflow::bus::producer::Outgoing;
use litflow::bus::reader::{Entry, Value};
use litflow::bus::topics::{self, ANNOTATIONS, ARTICLES, DEAD_LETTERS};
use litflow::dlq::{self, DeadLetters, Event, Filter, Keeper, Letter};
use litflow::worker::{self, Stop};
use rdkafka::message::{Header, OwnedHeaders};
use serde_json::Value as Json;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{ControlFlow, Range};
use std::process::{Command, Output, Stdio};
use support::{Cluster, article, wait_until};
use tokio::sync::watch;

#[test]
fn dead_letters_are_shown_replayed_and_purged() {
    let Some(cluster) = Cluster::start() else { return };
    // A worker that takes no article, and then one that takes all.
    cluster.publish((100..110).map(article));
    let options = worker::Options { article_max_bytes: 10, ..worker::Options::default() };
    assert_eq!(cluster.work_with("a", &options).dead_letters, 10);
    let (stop, stopped) = watch::channel(Stop::Never);
    let worker = cluster.worker("a", &worker::Options::default());
    let worker = std::thread::spawn(move || worker.run(stopped).unwrap());

    what_was_poison_for_a_reason_that_is_gone_is_tagged_once(&cluster);
    letters_are_listed_and_shown(&cluster);
    poison_dies_again_and_is_counted(&cluster);
    a_replay_that_is_killed_is_gone_on_with(&cluster);
    an_abort_in_between_sends_nothing_twice(&cluster);
    of_two_replays_only_one_sends(&cluster);
    what_is_no_letter_of_a_worker_is_left_out(&cluster);
    purged_letters_are_gone(&cluster);

    stop.send_replace(Stop::Now);
    worker.join().unwrap();
}

#[test]
fn the_commands_of_the_document_are_commands() {
    let document = include_str!("../docs/dead-letters.md");
    let commands: Vec<&str> = document.lines().filter_map(|line| line.strip_prefix("$ litflow ")).collect();
    assert!(commands.len() >= 8, "{commands:?}");
    for command in commands {
        let arguments = command.split(" > ").next().unwrap().split(' ');
        // Arguments are read up to the call for help.
        let help = Command::new(env!("CARGO_BIN_EXE_litflow")).args(arguments).arg("--help").output().unwrap();
        assert!(help.status.success(), "{command}: {}", String::from_utf8_lossy(&help.stderr));
    }
}

fn dlq(cluster: &Cluster, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_litflow"));
    command.arg("dlq").args(arguments).args(["--bootstrap-servers", cluster.broker.bootstrap_servers()]);
    command.stdin(Stdio::null());
    command
}

fn run(cluster: &Cluster, arguments: &[&str], code: i32) -> Output {
    let output = dlq(cluster, arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

fn stdout(cluster: &Cluster, arguments: &[&str]) -> String {
    String::from_utf8(run(cluster, arguments, 0).stdout).unwrap()
}

/// The objects of `dlq list --json`.
fn list(cluster: &Cluster, arguments: &[&str]) -> Vec<Json> {
    let printed = stdout(cluster, &[&["list", "--json"], arguments].concat());
    printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn json(cluster: &Cluster, arguments: &[&str]) -> Json {
    serde_json::from_str(&stdout(cluster, &[arguments, &["--json"]].concat())).unwrap()
}

fn send(cluster: &Cluster, records: impl IntoIterator<Item = Outgoing>) {
    let mut publisher = cluster.publisher();
    for record in records {
        publisher.send(&record).unwrap();
    }
    publisher.finish().unwrap();
}

/// No Avro.
fn garbage(key: &str) -> Outgoing {
    let header = Header { key: "trace", value: Some("kept") };
    Outgoing {
        topic: ARTICLES.into(),
        key: Some(key.into()),
        value: Some(vec![0xFF, b'n', b'o', 0]),
        headers: Some(OwnedHeaders::new().insert(header)),
        ..Outgoing::default()
    }
}

/// Waits until so many letters with these keys are open.
fn wait_for_letters(cluster: &Cluster, name: &str, count: usize) {
    wait_until(&format!("{count} letters of {name} are open"), || {
        let filter = Filter { reasons: vec!["not_avro".into()], ..Filter::default() };
        let mut open = 0;
        let mut letters =
            DeadLetters::read(&cluster.options("dlq"), filter, dlq::Range::Whole, &mut |_, _| {}).unwrap();
        let count_one = |letter: &Letter, _| {
            open += usize::from(letter.key().is_some_and(|key| key.starts_with(name.as_bytes())));
            Ok::<_, dlq::Error>(ControlFlow::Continue(()))
        };
        letters.for_each(false, &mut |_, _| {}, count_one).unwrap();
        open == count
    });
}

fn letters_are_listed_and_shown(cluster: &Cluster) {
    let key_mismatch = Outgoing { key: None, ..garbage("") };
    let tombstone = Outgoing { value: None, ..key_mismatch };
    cluster.publish([article(1)]);
    send(cluster, [garbage("pmid:2"), garbage("pmid:3\u{1b}[2J"), tombstone]);
    wait_until("three have died", || list(cluster, &[]).len() == 3);

    let all = list(cluster, &[]);
    let second = all.iter().find(|letter| letter["key"] == "pmid:2").unwrap();
    let expected = serde_json::json!({"reason": "not_avro", "stage": "decode", "class": "poison", "attempt": 1,
        "state": "open", "bytes": 4});
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&second[name], value, "{name}");
    }
    assert_eq!(second["origin"]["topic"], ARTICLES);

    let count = |arguments: &[&str]| list(cluster, arguments).len();
    assert_eq!(count(&["--reason", "not_avro"]), 2);
    assert_eq!(count(&["--reason", "not_avro,key_mismatch"]), 3);
    assert_eq!(count(&["--reason", "key_mismatch", "--stage", "decode"]), 1);
    assert_eq!(count(&["--stage", "tag"]), 0);
    assert_eq!(count(&["--key", "pmid:2", "--since", "2h"]), 1);
    assert_eq!(count(&["--until", "2h"]), 0);
    assert_eq!(count(&["--since", "2999-01-01T00:00:00Z"]), 0);
    assert_eq!(count(&["-n", "2"]), 2);
    let (partition, offset) = (second["partition"].to_string(), second["offset"].to_string());
    assert_eq!(count(&["--partition", &partition, "--offset", &offset]), 1);
    run(cluster, &["list", "--partition", "99"], 2);

    let table = stdout(cluster, &["list"]);
    let place = second["place"].as_str().unwrap();
    let row = table.lines().find(|line| line.contains("pmid:2")).unwrap();
    assert!(row.starts_with(place) && row.contains("not_avro") && row.contains("C301"), "{table}");
    assert!(!table.contains('\u{1b}'), "foreign text drives the terminal");
    let summary = json(cluster, &["list", "--summary"]);
    assert_eq!(summary[0], serde_json::json!({"reason": "not_avro", "stage": "decode", "letters": 2}), "{summary}");

    let shown = stdout(cluster, &["show", place]);
    assert!(shown.contains("trace kept") && shown.contains("dlq.error not an Avro"), "{shown}");
    assert!(shown.contains("ff 6e 6f 00") && shown.contains("|.no.|"), "{shown}");
    assert_eq!(run(cluster, &["show", place, "--raw"], 0).stdout, [0xFF, b'n', b'o', 0]);
    let shown = json(cluster, &["show", place]);
    assert_eq!((&shown["headers"][0][0], &shown["mark"]), (&"trace".into(), &Json::Null), "{shown}");
    let told = String::from_utf8(run(cluster, &["show", &format!("{partition}@999999")], 1).stderr).unwrap();
    assert!(told.contains("no dead letter"), "{told}");

    run(cluster, &["replay"], 2);
    run(cluster, &["purge", "--all-letters"], 2); // nobody can be asked
    assert_eq!(json(cluster, &["purge", "--all-letters", "--yes"])["purged"], 3);
    assert_eq!(count(&[]), 0);
}

fn what_was_poison_for_a_reason_that_is_gone_is_tagged_once(cluster: &Cluster) {
    let replay = &["replay", "--reason", "article_too_large"][..];
    assert_eq!(stdout(cluster, &[replay, &["--dry-run", "--json"]].concat()).lines().count(), 10);
    assert_eq!(json(cluster, replay), serde_json::json!({"replayed": 10, "left_out": 0}));
    assert_eq!(json(cluster, replay)["replayed"], 0, "they are marked");
    wait_until("all are tagged", || cluster.read(ANNOTATIONS).len() >= 10);
    assert_eq!(list(cluster, &["--reason", "article_too_large"]).len(), 0);
    let replayed = list(cluster, &["--reason", "article_too_large", "--all"]);
    assert_eq!(replayed.iter().filter(|letter| letter["state"] == "replayed").count(), 10, "{replayed:?}");
    let shown = json(cluster, &["show", replayed[0]["place"].as_str().unwrap()]);
    assert_eq!(shown["mark"]["mark"], "replayed", "{shown}");
    assert!(shown["mark"]["by"].as_str().unwrap().contains('@'), "{shown}");
    // The letter is an article that can be read.
    assert!(shown["value"]["title"].is_string() && shown["headers"].is_array(), "{shown}");

    // Behind these stands what a second replay would have sent.
    assert_eq!(json(cluster, &["replay", "--key", "pmid:100", "--again"])["replayed"], 1);
    wait_until("one is tagged again", || cluster.read(ANNOTATIONS).len() > 10);
    let mut keys = BTreeMap::new();
    for entry in cluster.read(ANNOTATIONS) {
        assert!(matches!(entry.value, Value::Annotations(_)), "{entry:?}");
        *keys.entry(entry.key.unwrap()).or_insert(0) += 1;
    }
    let expected = (100..110).map(|number| (format!("pmid:{number}"), if number == 100 { 2 } else { 1 }));
    assert_eq!(keys, expected.collect());
}

fn poison_dies_again_and_is_counted(cluster: &Cluster) {
    send(cluster, [garbage("pmid:200")]);
    for attempt in 1..=3 {
        wait_for_letters(cluster, "pmid:200", 1);
        let letters = list(cluster, &["--key", "pmid:200"]);
        assert_eq!(letters.len(), 1, "the earlier deaths are marked: {letters:?}");
        assert_eq!(letters[0]["attempt"], attempt);
        let place = letters[0]["place"].as_str().unwrap();
        assert_eq!(run(cluster, &["show", place, "--raw"], 0).stdout, [0xFF, b'n', b'o', 0]);
        let shown = json(cluster, &["show", place]);
        let foreign: Vec<&Json> = shown["headers"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|h| !h[0].as_str().unwrap().starts_with("dlq."))
            .collect();
        assert_eq!(foreign, [&serde_json::json!(["trace", "kept"])]);
        if attempt < 3 {
            assert_eq!(json(cluster, &["replay", "--key", "pmid:200"])["replayed"], 1);
        }
    }
    assert_eq!(json(cluster, &["purge", "--key", "pmid:200", "--yes"])["purged"], 1);
}

/// Letters of articles that can be tagged by now, as a worker would have written them.
fn lay(cluster: &Cluster, articles: Range<usize>) {
    let letter = |number| {
        let article = article(number);
        let (key, value) = (Some(article.id.clone().into_bytes()), Some(article.encode().unwrap()));
        Outgoing {
            topic: DEAD_LETTERS.into(),
            headers: Some(letter_headers("laid", ARTICLES)),
            key,
            value,
            partition: None,
        }
    };
    send(cluster, articles.map(letter));
}

fn letter_headers(reason: &str, topic: &str) -> OwnedHeaders {
    let headers = [("dlq.reason", reason), ("dlq.topic", topic), ("dlq.partition", "0"), ("dlq.offset", "0")];
    headers
        .into_iter()
        .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: Some(value) }))
}

/// How often each of these articles stands on a topic.
fn counts(cluster: &Cluster, topic: &str, articles: &Range<usize>) -> BTreeMap<usize, usize> {
    let mut counts = BTreeMap::new();
    for entry in cluster.read(topic) {
        let number = entry.key.as_deref().and_then(|key| key.strip_prefix("pmid:")).and_then(|key| key.parse().ok());
        if let Some(number) = number.filter(|number| articles.contains(number)) {
            *counts.entry(number).or_default() += 1;
        }
    }
    counts
}

fn assert_each_replayed_once(cluster: &Cluster, articles: Range<usize>) {
    let once: BTreeMap<usize, usize> = articles.clone().map(|number| (number, 1)).collect();
    assert_eq!(counts(cluster, ARTICLES, &articles), once);
    wait_until("all are tagged", || counts(cluster, ANNOTATIONS, &articles).len() == articles.len());
    assert_eq!(counts(cluster, ANNOTATIONS, &articles), once);
    let marks = cluster.read(DEAD_LETTERS).into_iter().filter(|entry| entry.headers.contains_key("dlq.mark"));
    let marked: BTreeSet<String> = marks.map(|mark| mark.headers["dlq.of"].clone()).collect();
    let laid = list(cluster, &["--reason", "laid", "--all"]);
    let laid = laid.iter().map(|letter| letter["place"].as_str().unwrap().to_owned());
    assert!(laid.collect::<BTreeSet<_>>().is_subset(&marked));
    assert_eq!(list(cluster, &["--reason", "laid"]).len(), 0);
}

fn a_replay_that_is_killed_is_gone_on_with(cluster: &Cluster) {
    let articles = 1_000..4_000;
    lay(cluster, articles.clone());
    let mut first = dlq(cluster, &["replay", "--all-letters", "--batch", "10"]);
    let mut process = first.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_until("something was replayed", || !counts(cluster, ARTICLES, &articles).is_empty());
    process.kill().unwrap();
    process.wait().unwrap();
    let rest = json(cluster, &["replay", "--all-letters"])["replayed"].as_u64().unwrap() as usize;
    assert!(0 < rest && rest < articles.len(), "{rest} were left to the second replay, which proves nothing");
    assert_each_replayed_once(cluster, articles);
}

fn an_abort_in_between_sends_nothing_twice(cluster: &Cluster) {
    let articles = 4_000..4_050;
    lay(cluster, articles.clone());
    let take = || {
        let (kafka, filter) = (cluster.options("dlq"), Filter::default());
        Keeper::take(&kafka, filter, dlq::Range::Matching, "test", 7, &mut |_, _| {}).unwrap()
    };
    let (mut first, mut second) = (take(), None);
    // Another keeper comes when the first has committed two batches.
    let ended = first.replay(false, usize::MAX, &mut |_, _| {}, &mut |event| {
        if matches!(event, Event::Committed(14)) {
            second = Some(take());
        }
    });
    assert!(matches!(ended, Err(dlq::Error::Replaced)), "{ended:?}");
    let done = second.unwrap().replay(false, usize::MAX, &mut |_, _| {}, &mut |_| {}).unwrap();
    assert_eq!(done.replayed as usize, articles.len() - 14);
    assert_each_replayed_once(cluster, articles);
}

fn of_two_replays_only_one_sends(cluster: &Cluster) {
    let articles = 5_000..5_500;
    lay(cluster, articles.clone());
    let start = || {
        let mut replay = dlq(cluster, &["replay", "--all-letters", "--batch", "10"]);
        replay.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let replays = [start(), start()].map(|process| process.wait_with_output().unwrap());
    let codes = replays.each_ref().map(|replay| replay.status.code().unwrap());
    assert!(codes.contains(&0) && codes.iter().all(|code| [0, 4].contains(code)), "{codes:?}");
    for fenced in replays.iter().filter(|replay| replay.status.code() == Some(4)) {
        let told = String::from_utf8_lossy(&fenced.stderr);
        assert!(told.contains("another replay or purge of dead letters has begun"), "{told}");
    }
    assert_each_replayed_once(cluster, articles);
}

fn what_is_no_letter_of_a_worker_is_left_out(cluster: &Cluster) {
    let odd = |key: &str, headers| Outgoing { topic: DEAD_LETTERS.into(), headers, ..garbage(key) };
    send(
        cluster,
        [
            odd("foreign", Some(letter_headers("odd", topics::MODELS))),
            odd("fine", Some(letter_headers("odd", ARTICLES))),
            odd("bare", None),
        ],
    );
    let output = run(cluster, &["replay", "--all-letters", "--json"], 3);
    let done: Json = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(done, serde_json::json!({"replayed": 1, "left_out": 2}));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("\"models\"") && told.contains("do not say where it came from"), "{told}");
    assert!(cluster.read(topics::MODELS).is_empty());
    wait_for_letters(cluster, "fine", 1);
}

fn purged_letters_are_gone(cluster: &Cluster) {
    // Three letters are open; one of them is kept, and everything behind it in its partition with it.
    let open = list(cluster, &[]);
    assert_eq!(open.len(), 3, "{open:?}");
    let kept = open.iter().find(|letter| letter["key"] == "bare").unwrap();
    let purged = json(cluster, &["purge", "--key", "fine", "--key", "foreign", "--yes"]);
    assert_eq!(purged["purged"], 2, "{purged}");
    assert_eq!(list(cluster, &[]), std::slice::from_ref(kept));
    let in_partition = |entries: &[Entry], partition: &Json| {
        entries.iter().filter(|entry| partition == entry.partition).map(|entry| entry.offset).min()
    };
    let left = cluster.read(DEAD_LETTERS);
    assert_eq!(in_partition(&left, &kept["partition"]), kept["offset"].as_i64(), "what stood before it is gone");
    assert!(left.iter().all(|entry| kept["partition"] == entry.partition), "the other partitions are empty: {left:?}");

    let purged = json(cluster, &["purge", "--replayed", "--yes"]);
    assert_eq!(purged, serde_json::json!({"purged": 0, "deleted": 0}), "nothing more has been dealt with");
    // A replayed letter is deleted without a mark of a second kind.
    run(cluster, &["replay", "--key", "bare"], 3);
    assert_eq!(json(cluster, &["purge", "--all-letters", "--yes"])["purged"], 1);
    assert!(cluster.read(DEAD_LETTERS).is_empty());
}
