//! The worker on a real Apache Kafka, started from its Maven artifacts. Skips, with a note, where there is
//! no Java or `scripts/kafka/fetch` has not run.

#![allow(clippy::unwrap_used)] // a helper of a test may fail like the test

mod support;

use litflow::ErrorClass;
use litflow::article::{ArticleEvent, Op, RawDocument};
use litflow::bus::admin::Created;
use litflow::bus::broker::{Local, LocalOptions};
use litflow::bus::codec::Record as _;
use litflow::bus::producer::{Delivery, Outgoing, Patience, Producer};
use litflow::bus::reader::{Reader, Value};
use litflow::bus::{self, topics};
use litflow::worker::{self, State, Stop};
use rdkafka::message::{Header, OwnedHeaders};
use std::collections::BTreeMap;
use std::net::TcpStream;
use std::process::Command;
use support::{Cluster, DEADLINE, article, wait_until};
use tokio::sync::watch;

#[test]
fn articles_become_annotations_and_entities() {
    let Some(cluster) = Cluster::start() else { return };
    const ARTICLES: usize = 1_200;
    cluster.publish((0..ARTICLES).map(article));

    let summary = cluster.work("a");
    assert_eq!((summary.articles, summary.tagged, summary.dead_letters), (ARTICLES as u64, ARTICLES as u64, 0));
    assert_eq!(summary.mentions["Gene"], 2 * ARTICLES as u64);
    assert_eq!(summary.mentions["Disease"], ARTICLES as u64);
    assert!(summary.transactions < 50, "{} transactions", summary.transactions);

    // A client that is not ours sees the same records, each once.
    let annotations = cluster.foreign_keys(topics::ANNOTATIONS);
    assert_eq!(annotations.len(), ARTICLES);
    assert!(annotations.values().all(|&count| count == 1));
    let genes = cluster.foreign_keys("entities.Gene");
    assert_eq!(genes.len(), ARTICLES);
    assert!(genes.values().all(|&count| count == 2));

    for entry in cluster.read("entities.Gene") {
        let Value::Mention(mention) = entry.value else { panic!("{entry:?}") };
        assert_eq!(entry.key.as_deref(), Some(mention.article_id.as_str()));
        let sentence: Vec<char> = mention.sentence_text.unwrap().chars().collect();
        let begin = (mention.begin - mention.sentence_begin) as usize;
        let end = (mention.end - mention.sentence_begin) as usize;
        assert_eq!(sentence[begin..end].iter().collect::<String>(), mention.text);
        assert_eq!(mention.model.name, "dictionary");
        assert_eq!(mention.source.topic, topics::ARTICLES);
    }

    // Nothing is left to do, and doing nothing publishes nothing.
    assert_eq!(cluster.work("a").articles, 0);
}

/// What `docs/topics.md` tells those who read with a client that is not ours.
#[test]
fn the_python_example_reads_the_topics_back() {
    let example = include_str!("../examples/read_topics.py");
    let shown = include_str!("../docs/topics.md").split("```python\n").nth(1).unwrap().split("```").next().unwrap();
    assert!(example.contains(shown), "docs/topics.md shows another program than examples/read_topics.py:\n{shown}");

    let packages = Command::new("python3").args(["-c", "import confluent_kafka, fastavro"]).output();
    if !packages.is_ok_and(|output| output.status.success()) {
        return eprintln!("skipped: no python3 with the packages confluent-kafka and fastavro");
    }
    let Some(cluster) = Cluster::start() else { return };
    const ARTICLES: usize = 100;
    cluster.publish((0..ARTICLES).map(article));
    cluster.publish([ArticleEvent { op: Op::Delete, ..article(0) }]);
    cluster.work("a");
    let read = |topics: &[&str]| {
        let mut python = Command::new("python3");
        python.current_dir(env!("CARGO_MANIFEST_DIR")).arg("examples/read_topics.py");
        python.arg(cluster.broker.bootstrap_servers()).args(topics);
        let output = python.output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{told}");
        (String::from_utf8(output.stdout).unwrap(), told)
    };
    let (printed, told) = read(&[]);
    // Three mentions an article, in `annotations` and in `entities.<type>`.
    assert!(told.contains("600 mentions, 0 of them not what their offsets select"), "{told}");
    assert_eq!(printed.lines().filter(|line| line.starts_with("entities.Disease\t")).count(), ARTICLES);
    assert!(printed.lines().any(|line| line == "annotations\tpmid:0\tdeleted"), "{printed}");
    assert!(read(&["entities.Gene"]).1.starts_with("200 mentions, 0 of them"));
}

#[test]
fn the_last_records_are_found_among_the_marks_of_transactions() {
    let Some(cluster) = Cluster::start() else { return };
    // A transaction an article leaves as many marks as records, or more.
    let one_by_one = worker::Options { transaction_articles: 1, in_flight_articles: 2, ..Default::default() };
    cluster.publish((0..40).map(article));
    cluster.work_with("a", &one_by_one);
    let all = cluster.read(topics::ANNOTATIONS);
    assert_eq!(all.len(), 40);
    let newest = all.iter().map(|entry| entry.timestamp).max().unwrap();

    let last = |topics: &[&str], count| Reader::last(&cluster.options("reader"), topics, count).unwrap();
    for (count, expected) in [(1, 1), (7, 7), (39, 39), (100, 40)] {
        let (entries, _) = last(&[topics::ANNOTATIONS], count);
        assert_eq!(entries.len(), expected, "the last {count}");
        assert!(entries.is_sorted_by_key(|entry| entry.timestamp));
        assert_eq!(entries.last().unwrap().timestamp, newest);
    }
    assert_eq!(last(&[topics::ANNOTATIONS, "entities.Gene"], 3).0.len(), 3);
    assert_eq!(last(&[topics::LABELS], 3).0.len(), 0);

    // The reader goes on behind them.
    let (_, mut reader) = last(&[topics::ANNOTATIONS], 1);
    cluster.publish([article(40)]);
    cluster.work_with("a", &one_by_one);
    let next = std::iter::repeat_with(|| reader.next(DEADLINE).unwrap()).flatten().next().unwrap();
    assert_eq!(next.key.as_deref(), Some("pmid:40"));
}

#[test]
fn an_article_that_its_topic_refuses_is_left_out_by_name() {
    let Some(cluster) = Cluster::start() else { return };
    let line = |id: &str, text: &str| format!("{{\"id\": \"pmid:{id}\", \"text\": \"{text}\"}}\n");
    let lines = line("1", "BRCA1") + &line("2", &"p53 ".repeat(9 << 18)) + &line("3", "HeLa");
    let mut ingest = assert_cmd::Command::cargo_bin("litflow").unwrap();
    ingest.args(["ingest", "-", "--from", "jsonl", "--bootstrap-servers", cluster.broker.bootstrap_servers()]);
    let ended = ingest.write_stdin(lines).assert().code(3);
    let told = String::from_utf8_lossy(&ended.get_output().stderr).into_owned();
    assert!(told.contains("pmid:2: a record of 94") && told.contains("for articles, which takes 83"), "{told}");
    let keys: Vec<_> = cluster.read(topics::ARTICLES).into_iter().filter_map(|entry| entry.key).collect();
    assert!(keys.len() == 2 && !keys.contains(&"pmid:2".to_owned()), "{keys:?}");
}

#[test]
fn the_demo_keeps_away_from_a_cluster_in_use() {
    let Some(cluster) = Cluster::start() else { return };
    let demo = || {
        let mut demo = assert_cmd::Command::cargo_bin("litflow").unwrap();
        demo.args(["demo", "-", "--from", "jsonl", "--json", "--broker", cluster.broker.bootstrap_servers()]);
        demo.args(["--model", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/bert/ner"), "--precision", "fp32"]);
        demo.write_stdin("{\"id\": \"pmid:1\", \"text\": \"BRCA1\"}\n").assert()
    };
    let ended = demo().success();
    let summary: serde_json::Value = serde_json::from_slice(&ended.get_output().stdout).unwrap();
    assert_eq!(summary["tagged"], 1);
    let ended = demo().code(2);
    let told = String::from_utf8_lossy(&ended.get_output().stderr).into_owned();
    assert!(told.contains("articles at 127.0.0.1:") && told.contains("has been written to"), "{told}");
    assert_eq!(cluster.read(topics::ARTICLES).len(), 1);
    assert_eq!(cluster.read(topics::ANNOTATIONS).len(), 1);
}

#[test]
fn a_broker_goes_with_its_handle_and_leaves_nothing() {
    let Some(cluster) = Cluster::start() else { return };
    let (folder, servers) = (cluster.broker.folder().to_owned(), cluster.broker.bootstrap_servers().to_owned());
    assert!(folder.is_dir() && TcpStream::connect(&servers).is_ok());
    drop(cluster);
    assert!(!folder.exists());
    assert!(TcpStream::connect(&servers).is_err());

    let nowhere = LocalOptions { home: Some("/nonexistent".into()), ..LocalOptions::default() };
    let error = Local::start(&nowhere).err().unwrap().to_string();
    assert!(error.contains("/nonexistent") && error.contains("scripts/kafka/fetch"), "{error}");
}

#[test]
fn topics_are_created_once_and_every_difference_is_found() {
    let Some(cluster) = Cluster::start() else { return };
    let admin = cluster.admin();
    let mut topics = cluster.topics();
    assert_eq!(cluster.runtime.block_on(admin.check(&topics)).unwrap(), []);
    let again = cluster.runtime.block_on(admin.create(&topics, None)).unwrap();
    assert!(again.iter().all(|(_, created)| *created == Created::Existed));

    topics[0].partitions += 1;
    topics[1].config.insert("cleanup.policy".into(), "delete".into());
    topics[2].name = "entities.Species".into();
    let differences = cluster.runtime.block_on(admin.check(&topics)).unwrap();
    let found: Vec<String> = differences.iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "articles: partitions is 12, should be 13",
            "annotations: cleanup.policy is compact, should be delete",
            "entities.Species: topic is missing, should be there",
        ]
    );
}

#[test]
fn poison_goes_to_the_dead_letters_and_its_neighbours_go_on() {
    let Some(cluster) = Cluster::start() else { return };
    let mut unknown_schema = article(1_001).encode().unwrap();
    unknown_schema[2..10].copy_from_slice(&[0xAB; 8]);
    let mut bad_utf8 = article(1_002).encode().unwrap();
    let at = bad_utf8.windows(5).position(|window| window == b"BRCA1").unwrap();
    bad_utf8[at] = 0xFF;
    let hostile = r#"<!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><PubmedArticleSet><PubmedArticle>&b;"#;
    let raw = RawDocument::new("application/vnd.pubmed+xml", hostile);
    let raw = ArticleEvent { title: None, passages: Vec::new(), raw: Some(raw), ..article(1_003) };
    let empty = ArticleEvent { title: None, passages: Vec::new(), ..article(1_004) };
    let mut huge = article(1_005);
    huge.passages[0].text = "p53 ".repeat(400_000);
    let poison: [(&str, Vec<u8>, &str); 6] = [
        ("pmid:1000", b"{\"this\": \"is JSON\"}".to_vec(), "not_avro"),
        ("pmid:1001", unknown_schema, "unknown_schema"),
        ("pmid:1002", bad_utf8, "malformed_avro"),
        ("pmid:1003", raw.encode().unwrap(), "unreadable_document"),
        ("pmid:1004", empty.encode().unwrap(), "unreadable_document"),
        ("pmid:1005", huge.encode().unwrap(), "output_too_large"),
    ];

    let mut publisher = cluster.publisher();
    for (number, (key, value, _)) in poison.iter().enumerate() {
        publisher.article(&article(number)).unwrap();
        let header = Header { key: "trace", value: Some("kept") };
        let record = Outgoing {
            topic: topics::ARTICLES.into(),
            key: Some(key.as_bytes().to_vec()),
            value: Some(value.clone()),
            headers: Some(OwnedHeaders::new().insert(header)),
            ..Outgoing::default()
        };
        publisher.send(&record).unwrap();
    }
    publisher.article(&article(poison.len())).unwrap();
    publisher.finish().unwrap();

    let summary = cluster.work("a");
    assert_eq!((summary.tagged, summary.dead_letters), (poison.len() as u64 + 1, poison.len() as u64));
    let letters = cluster.read(topics::DEAD_LETTERS);
    assert_eq!(letters.len(), poison.len());
    for (key, value, reason) in &poison {
        let letter = letters.iter().find(|letter| letter.key.as_deref() == Some(*key)).unwrap();
        assert_eq!(letter.headers["dlq.reason"], *reason, "{key}: {:?}", letter.headers);
        assert_eq!(letter.headers["dlq.topic"], topics::ARTICLES);
        assert_eq!(letter.headers["trace"], "kept");
        assert!(letter.headers["dlq.offset"].parse::<i64>().is_ok());
        assert!(matches!(letter.value, Value::Bytes { bytes, .. } if bytes == value.len()), "{key}");
    }
    assert_eq!(cluster.foreign_keys(topics::ANNOTATIONS).len(), poison.len() + 1);
}

#[test]
fn deletions_and_retractions_leave_tombstones() {
    let Some(cluster) = Cluster::start() else { return };
    cluster.publish((0..3).map(article));
    cluster.publish([
        ArticleEvent { op: Op::Delete, ..article(0) },
        ArticleEvent { retracted: true, version: 2, ..article(1) },
    ]);
    let summary = cluster.work("a");
    assert_eq!((summary.tagged, summary.tombstones), (3, 2));
    let mut last = BTreeMap::new();
    for entry in cluster.read(topics::ANNOTATIONS) {
        last.insert(entry.key.unwrap(), matches!(entry.value, Value::Tombstone));
    }
    assert_eq!(last, BTreeMap::from([("pmid:0".into(), true), ("pmid:1".into(), true), ("pmid:2".into(), false)]));
}

#[test]
fn a_key_goes_where_java_clients_send_it() {
    let Some(cluster) = Cluster::start() else { return };
    let keys: Vec<String> = (0..40).map(|number| format!("pmid:{}", number * 7_919)).collect();
    let mut publisher = cluster.publisher();
    for key in &keys {
        let record = Outgoing { topic: topics::LABELS.into(), key: Some(key.clone().into()), ..Outgoing::default() };
        publisher.send(&record).unwrap();
    }
    publisher.finish().unwrap();
    let lines: String = keys.iter().map(|key| format!("{key}\tx\n")).collect();
    cluster.produce_with_java(topics::LABELS, &lines);

    let mut partitions: BTreeMap<String, Vec<i32>> = BTreeMap::new();
    for entry in cluster.read(topics::LABELS) {
        partitions.entry(entry.key.unwrap()).or_default().push(entry.partition);
    }
    assert_eq!(partitions.len(), keys.len());
    assert!(partitions.values().all(|found| found.len() == 2 && found[0] == found[1]), "{partitions:?}");
    assert!(partitions.values().any(|found| found[0] != partitions[&keys[0]][0]), "all in one partition");
}

#[test]
fn workers_share_and_hand_over_without_loss_or_repetition() {
    for protocol in ["cooperative-sticky", "range", "consumer"] {
        share_and_hand_over(protocol);
    }
}

/// `protocol`: a strategy of the classic protocol, or `consumer`, the new one of KIP-848.
fn share_and_hand_over(protocol: &str) {
    let Some(cluster) = Cluster::start() else { return };
    const ARTICLES: usize = 2_000;
    let consumer = match protocol {
        "consumer" => vec![("group.protocol", "consumer")],
        strategy => vec![("partition.assignment.strategy", strategy), ("session.timeout.ms", "6000")],
    };
    let consumer = consumer.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    let kafka_of = |name: &str| bus::Options { consumer: BTreeMap::clone(&consumer), ..cluster.options(name) };
    // Small transactions, so that the group changes while many are still to come.
    let options = worker::Options { transaction_articles: 20, in_flight_articles: 40, ..Default::default() };
    cluster.publish((0..ARTICLES).map(article));

    std::thread::scope(|scope| {
        let start = |name: &str| {
            let (stop, stopped) = watch::channel(Stop::Never);
            let worker = cluster.worker_at(&kafka_of(name), &options);
            let status = worker.status();
            (stop, status, scope.spawn(move || worker.run(stopped).unwrap()))
        };
        let (stop_a, status_a, a) = start("a");
        wait_until("the first worker is at work", || status_a.snapshot().articles > 0);
        let (stop_b, status_b, b) = start("b");
        wait_until("the second has its share", || status_b.snapshot().partitions > 0);
        assert!(status_a.snapshot().partitions < 12);
        assert!(status_a.ready() && status_a.live());
        wait_until("the second is at work, or nothing is left", || {
            status_b.snapshot().articles > 0 || status_a.snapshot().articles == ARTICLES as u64
        });
        stop_a.send(Stop::Now).unwrap();
        let a = a.join().unwrap();
        assert_eq!(status_a.snapshot().state, State::Complete);
        wait_until("the second has all partitions", || status_b.snapshot().partitions == 12);
        stop_b.send(Stop::AtEnd).unwrap();
        let b = b.join().unwrap();
        assert_eq!(a.articles + b.articles, ARTICLES as u64);
    });
    let annotations = cluster.foreign_keys(topics::ANNOTATIONS);
    assert_eq!(annotations.len(), ARTICLES);
    assert!(annotations.values().all(|&count| count == 1));
    assert_eq!(cluster.read("entities.Disease").len(), ARTICLES);
}

#[test]
fn a_worker_whose_place_is_taken_ends_fenced() {
    let Some(cluster) = Cluster::start() else { return };
    let (_stop, stopped) = watch::channel(Stop::Never);
    let worker = cluster.worker("a", &worker::Options::default());
    let status = worker.status();
    let running = std::thread::spawn(move || worker.run(stopped));
    wait_until("the worker has joined", || status.ready());
    // A second producer of the same transactional id; then there is something to publish.
    let _usurper = Producer::new(&cluster.options("a"), Delivery::ExactlyOnce, Patience::default()).unwrap();
    cluster.publish([article(1)]);
    let error = running.join().unwrap().unwrap_err();
    assert!(matches!(error, worker::Error::Bus(bus::Error::Fenced { .. })), "{error}");
    assert_eq!(error.class(), ErrorClass::Fatal);
    assert!(!status.live());
    assert_eq!(cluster.read(topics::ANNOTATIONS).len(), 0);
}
