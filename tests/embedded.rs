//! The worker on librdkafka's mock cluster: needs no Java, and lets errors be injected.

#![allow(clippy::unwrap_used)] // a helper of a test may fail like the test

mod support;

use litflow::ErrorClass;
use litflow::bus::broker::{Broker, Choice, LocalOptions};
use litflow::bus::producer::{Delivery, Outgoing};
use litflow::bus::publisher::{PublishError, Publisher};
use litflow::bus::reader::{From, Reader};
use litflow::bus::{self, topics};
use litflow::tagger::Tag as _;
use litflow::worker::{self, Stop, Summary, Worker};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::{DEADLINE, article, dictionary, options, wait_until};
use tokio::runtime::Runtime;
use tokio::sync::watch;

fn work(kafka: &bus::Options, options: &worker::Options, runtime: &Runtime) -> Result<Summary, worker::Error> {
    let (_stop, stopped) = watch::channel(Stop::AtEnd);
    let handle = runtime.handle().clone();
    Worker::build(options, kafka, &Default::default(), Arc::new(dictionary()), handle)?.run(stopped)
}

fn publish(kafka: &bus::Options, articles: std::ops::Range<usize>) {
    let mut publisher = Publisher::new(kafka, None).unwrap();
    for number in articles {
        publisher.article(&article(number)).unwrap();
    }
    publisher.finish().unwrap();
}

/// How often each key stands on a topic.
fn keys(kafka: &bus::Options, topic: &str) -> BTreeMap<String, usize> {
    let mut reader = Reader::new(kafka, &[topic], From::Beginning).unwrap();
    let mut keys = BTreeMap::new();
    while !reader.at_end() {
        if let Some(entry) = reader.next(Duration::from_secs(1)).unwrap() {
            *keys.entry(entry.key.unwrap()).or_default() += 1;
        }
    }
    keys
}

#[test]
fn the_embedded_broker_carries_a_demo() {
    let runtime = Runtime::new().unwrap();
    let broker = Broker::start(&Choice::Embedded, &LocalOptions::default()).unwrap();
    let kafka = options(broker.bootstrap_servers(), "a");
    runtime.block_on(broker.create_topics(&topics::all(&dictionary().entity_types()).unwrap(), &kafka)).unwrap();
    publish(&kafka, 0..300);
    let mut publisher = Publisher::new(&kafka, broker.budget()).unwrap();
    let poison = Outgoing {
        topic: topics::ARTICLES.into(),
        key: Some(b"pmid:9".to_vec()),
        value: Some(b"no Avro".to_vec()),
        ..Outgoing::default()
    };
    publisher.send(&poison).unwrap();
    let too_much = Outgoing { value: Some(vec![0; broker.budget().unwrap()]), ..poison };
    assert!(matches!(publisher.send(&too_much), Err(PublishError::Full { .. })));
    publisher.finish().unwrap();

    assert_eq!(broker.delivery(), Delivery::AtLeastOnce);
    let options = worker::Options { delivery: broker.delivery(), ..Default::default() };
    let summary = work(&kafka, &options, &runtime).unwrap();
    assert_eq!((summary.tagged, summary.dead_letters), (300, 1));
    assert_eq!(keys(&kafka, topics::ANNOTATIONS).len(), 300);
    assert!(keys(&kafka, "entities.Gene").values().all(|&count| count == 2));
    assert_eq!(keys(&kafka, topics::DEAD_LETTERS).len(), 1);
    assert_eq!(work(&kafka, &options, &runtime).unwrap().articles, 0);
}

#[test]
fn a_failed_transaction_is_done_again() {
    let runtime = Runtime::new().unwrap();
    let cluster = MockCluster::new(1).unwrap();
    for topic in topics::all(&dictionary().entity_types()).unwrap() {
        cluster.create_topic(&topic.name, 3, 1).unwrap();
    }
    let kafka = options(&cluster.bootstrap_servers(), "a");
    publish(&kafka, 0..200);
    // The second commit of offsets meets a group that has moved on: abort and rewind.
    cluster.request_errors(
        RDKafkaApiKey::TxnOffsetCommit,
        &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR, RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID],
    );
    let options = worker::Options { transaction_articles: 50, ..Default::default() };
    let summary = work(&kafka, &options, &runtime).unwrap();
    assert_eq!(summary.articles, 200, "each article is committed once");
    // The mock cluster shows aborted records: some stand there twice, none is missing.
    let annotations = keys(&kafka, topics::ANNOTATIONS);
    assert_eq!(annotations.len(), 200);
    let twice = annotations.values().filter(|&&count| count == 2).count();
    assert!((1..=100).contains(&twice), "{twice} were published again");
}

/// A cluster that does not show aborted records is not to be had here: what is shown is that each article is committed,
/// and that none is missing.
fn work_under(articles: usize, errors: impl FnOnce(&MockCluster<'_, DefaultProducerContext>)) -> Summary {
    let runtime = Runtime::new().unwrap();
    let cluster = MockCluster::new(1).unwrap();
    for topic in topics::all(&dictionary().entity_types()).unwrap() {
        cluster.create_topic(&topic.name, 3, 1).unwrap();
    }
    let kafka = options(&cluster.bootstrap_servers(), "a");
    publish(&kafka, 0..articles);
    errors(&cluster);
    let options = worker::Options { transaction_articles: 20, ..Default::default() };
    let summary = work(&kafka, &options, &runtime).unwrap();
    cluster.broker_round_trip_time(1, Duration::ZERO).unwrap(); // for the reader
    assert_eq!(summary.articles, articles as u64);
    assert_eq!(keys(&kafka, topics::ANNOTATIONS).len(), articles);
    summary
}

#[test]
fn coordinators_that_load_move_or_are_late_are_asked_again() {
    use RDKafkaRespErr::{
        RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS as LOADING, RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE as AWAY,
        RD_KAFKA_RESP_ERR_NOT_COORDINATOR as MOVED, RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT as LATE,
    };
    let requests = [
        RDKafkaApiKey::InitProducerId,
        RDKafkaApiKey::AddPartitionsToTxn,
        RDKafkaApiKey::AddOffsetsToTxn,
        RDKafkaApiKey::TxnOffsetCommit,
        RDKafkaApiKey::EndTxn,
    ];
    std::thread::scope(|scope| {
        for request in requests {
            scope.spawn(move || {
                work_under(100, |cluster| cluster.request_errors(request, &[LOADING, MOVED, AWAY, LATE]))
            });
        }
    });
}

#[test]
fn a_producer_that_the_brokers_forgot_begins_again() {
    use RDKafkaRespErr::{RD_KAFKA_RESP_ERR_NO_ERROR as FINE, RD_KAFKA_RESP_ERR_UNKNOWN_PRODUCER_ID as UNKNOWN};
    let summary =
        work_under(100, |cluster| cluster.request_errors(RDKafkaApiKey::Produce, &[FINE, FINE, FINE, UNKNOWN]));
    assert!(summary.aborted > 0, "the error was not met");
}

/// What librdkafka calls fatal ends the worker; the next one does what was not committed.
#[test]
fn a_sequence_out_of_order_ends_the_worker_and_the_next_goes_on() {
    use RDKafkaRespErr::{
        RD_KAFKA_RESP_ERR_NO_ERROR as FINE, RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER as OUT_OF_ORDER,
    };
    let runtime = Runtime::new().unwrap();
    let cluster = MockCluster::new(1).unwrap();
    for topic in topics::all(&dictionary().entity_types()).unwrap() {
        cluster.create_topic(&topic.name, 3, 1).unwrap();
    }
    let kafka = options(&cluster.bootstrap_servers(), "a");
    publish(&kafka, 0..100);
    cluster.request_errors(RDKafkaApiKey::Produce, &[FINE, FINE, FINE, OUT_OF_ORDER]);
    let options = worker::Options { transaction_articles: 20, ..Default::default() };
    let error = work(&kafka, &options, &runtime).unwrap_err();
    assert_eq!(error.class(), ErrorClass::Fatal, "{error}");
    let summary = work(&kafka, &options, &runtime).unwrap();
    assert!(summary.articles > 0);
    assert_eq!(keys(&kafka, topics::ANNOTATIONS).len(), 100);
}

#[test]
fn round_trips_of_two_seconds_only_take_their_time() {
    let summary = work_under(20, |cluster| cluster.broker_round_trip_time(1, Duration::from_secs(2)).unwrap());
    assert_eq!(summary.aborted, 0);
}

#[test]
fn a_drain_without_a_cluster_ends_by_itself() {
    let runtime = Runtime::new().unwrap();
    let cluster = MockCluster::new(1).unwrap();
    for topic in topics::all(&dictionary().entity_types()).unwrap() {
        cluster.create_topic(&topic.name, 3, 1).unwrap();
    }
    let kafka = options(&cluster.bootstrap_servers(), "a");
    publish(&kafka, 0..10);
    // The transaction stays open until the worker is told to end.
    let options =
        worker::Options { transaction_interval_ms: 10_000, drain_timeout_ms: 500, ..worker::Options::default() };
    let tagger = Arc::new(dictionary());
    let worker = Worker::build(&options, &kafka, &Default::default(), tagger, runtime.handle().clone()).unwrap();
    let (stop, stopped) = watch::channel(Stop::Never);
    let status = worker.status();
    let running = std::thread::spawn(move || worker.run(stopped));
    wait_until("all is tagged", || status.snapshot().in_flight == 10);
    cluster.broker_down(1).unwrap();
    let asked = Instant::now();
    stop.send(Stop::Now).unwrap();
    let error = running.join().unwrap().unwrap_err();
    assert!(matches!(error, worker::Error::Bus(bus::Error::GaveUp { .. })), "{error}");
    assert!(asked.elapsed() < DEADLINE / 2, "{:?}", asked.elapsed());
    assert_eq!(status.snapshot().articles, 0);
}

#[test]
fn an_article_that_the_broker_refuses_is_left_out_with_its_place() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic(topics::ARTICLES, 1, 1).unwrap();
    let ingest = |lines: &str| {
        let mut ingest = assert_cmd::Command::cargo_bin("litflow").unwrap();
        ingest.args(["ingest", "-", "--from", "jsonl", "--json"]).write_stdin(lines);
        ingest.args(["--bootstrap-servers", &cluster.bootstrap_servers()]);
        // One record a request, so that one request is one record.
        ingest.env("LITFLOW_KAFKA__PRODUCER__BATCH_NUM_MESSAGES", "1");
        ingest.env("LITFLOW_KAFKA__PRODUCER__MAX_IN_FLIGHT", "1");
        ingest.assert()
    };
    let lines = (1..=3).map(|number| format!("{{\"id\": \"pmid:{number}\", \"text\": \"BRCA1\"}}\n"));
    let lines: String = lines.collect();
    let none = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;
    cluster.request_errors(RDKafkaApiKey::Produce, &[none, RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE]);
    let ended = ingest(&lines).code(3);
    let told = String::from_utf8_lossy(&ended.get_output().stderr).into_owned();
    assert!(told.contains("stdin, line 2, record pmid:2: articles does not take a record"), "{told}");
    assert!(told.contains("1 record was left out"), "{told}");
    let counts: serde_json::Value = serde_json::from_slice(&ended.get_output().stdout).unwrap();
    assert_eq!((&counts["articles"], &counts["left_out"]), (&2.into(), &1.into()));
    let kafka = options(&cluster.bootstrap_servers(), "a");
    assert_eq!(keys(&kafka, topics::ARTICLES), BTreeMap::from([("pmid:1".into(), 1), ("pmid:3".into(), 1)]));

    let forbidden = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    cluster.request_errors(RDKafkaApiKey::Produce, &[forbidden]);
    ingest(&lines).code(1);
}

#[test]
fn an_article_of_50_mb_is_refused_and_the_next_goes_on() {
    let runtime = Runtime::new().unwrap();
    let broker = Broker::start(&Choice::Embedded, &LocalOptions::default()).unwrap();
    let kafka = options(broker.bootstrap_servers(), "a");
    let articles = topics::all(&[]).unwrap();
    runtime.block_on(broker.create_topics(&articles, &kafka)).unwrap();
    let mut publisher = Publisher::new(&kafka, None).unwrap();
    let mut huge = article(1);
    huge.passages[0].text = "word ".repeat(10 << 20);
    let error = publisher.article(&huge).unwrap_err();
    assert!(matches!(error, PublishError::Bus(bus::Error::TooLarge { .. })), "{error}");
    assert_eq!(error.class(), ErrorClass::Poison);
    publisher.article(&article(2)).unwrap();
    assert_eq!(publisher.finish().unwrap().records, 1);
}

#[test]
fn a_missing_topic_is_named() {
    let runtime = Runtime::new().unwrap();
    let broker = Broker::start(&Choice::Embedded, &LocalOptions::default()).unwrap();
    let kafka = options(broker.bootstrap_servers(), "a");
    let some: Vec<_> = topics::all(&[]).unwrap();
    runtime.block_on(broker.create_topics(&some, &kafka)).unwrap();
    let options = worker::Options { delivery: Delivery::AtLeastOnce, ..Default::default() };
    let error = work(&kafka, &options, &runtime).unwrap_err();
    assert!(
        matches!(&error, worker::Error::Bus(bus::Error::NoTopic { topic, .. }) if topic.starts_with("entities.")),
        "{error}"
    );
    assert!(error.to_string().contains("litflow topics create"));
}

#[test]
fn options_that_break_the_promises_are_refused() {
    let kafka = bus::Options {
        producer: BTreeMap::from([("enable.idempotence".into(), "false".into())]),
        ..bus::Options::default()
    };
    let runtime = Runtime::new().unwrap();
    let error = work(&kafka, &worker::Options::default(), &runtime).unwrap_err();
    assert!(error.to_string().contains("enable.idempotence"), "{error}");
    let options = worker::Options { transaction_articles: 0, ..Default::default() };
    let error = work(&bus::Options::default(), &options, &runtime).unwrap_err();
    assert!(error.to_string().contains("worker.transaction_articles"), "{error}");
}
