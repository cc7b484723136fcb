//! Signing in, certificates and rights on a real Apache Kafka that asks for all of them; row 27 of the fault matrix.
//! Skips, with a note, where there is none. One broker serves all steps.
//!
//! The rights are those of `docs/security.md`: its lines are read and granted, and nothing else is.

#![allow(clippy::unwrap_used)] // a helper of a test may fail like the test

#[path = "support/secured.rs"]
mod secured;
mod support;

use litflow::backfill::{self, Backfill, Source, YieldTo};
use litflow::bus::Options;
use litflow::bus::producer::Outgoing;
use litflow::bus::publisher::Publisher;
use litflow::bus::reader::{From, Reader};
use litflow::bus::topics::{ANNOTATIONS, ARTICLES, DEAD_LETTERS};
use litflow::worker::{self, Stop, Worker};
use secured::{PASSWORD, Secured};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};
use support::acls::{Acls, Resource, Right, documented, parse};
use support::{DEADLINE, article, dictionary, wait_until};
use tokio::sync::watch;

const DOCUMENT: &str = include_str!("../docs/security.md");
const USERS: [&str; 6] = ["worker", "ingest", "backfill", "operator", "reader", "nobody"];
const WRONG: &str = "guessed-by-somebody";
/// What cannot succeed is told within this time, on a busy machine, too.
const SOON: Duration = Duration::from_secs(30);

#[test]
fn a_cluster_that_asks_who_one_is() {
    let Some(secured) = Secured::start(&USERS) else { return };
    let acls = Acls::new(secured.cluster.broker.bootstrap_servers());
    who_is_not_let_in_is_told_why(&secured);
    whoever_ingests_needs_what_is_documented(&secured, &acls);
    each_way_to_sign_in_works(&secured, &acls);
    the_worker_needs_what_is_documented(&secured, &acls);
    a_dead_letter_that_may_not_be_written_ends_the_worker(&secured, &acls);
    the_operator_needs_what_is_documented(&secured, &acls);
    a_backfill_needs_what_is_documented(&secured, &acls);
}

/// `litflow` with these options, its exit code and what it tells; it ends soon.
fn litflow(kafka: &Options, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_litflow"));
    command.args(arguments).env("LITFLOW_KAFKA__BOOTSTRAP_SERVERS", &kafka.bootstrap_servers);
    for (key, value) in &kafka.properties {
        command.env(format!("LITFLOW_KAFKA__PROPERTIES__{}", key.replace('.', "_").to_uppercase()), value);
    }
    let began = Instant::now();
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(began.elapsed() < SOON, "{arguments:?} took {:?}", began.elapsed());
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!told.contains(PASSWORD), "the password is told: {told}");
    (output.status.code(), told)
}

/// The one line that begins with `error:`.
fn error_line(told: &str) -> &str {
    let lines: Vec<&str> = told.lines().filter(|line| line.starts_with("error:")).collect();
    assert_eq!(lines.len(), 1, "{told}");
    lines[0]
}

fn who_is_not_let_in_is_told_why(secured: &Secured) {
    let user = secured.user("reader", "SCRAM-SHA-512");
    let other_ca = secured.file("other-ca.pem").display().to_string();
    let with = |key: &str, value: &str| {
        let mut options = user.clone();
        options.properties.insert(key.to_owned(), value.to_owned());
        options
    };
    let plaintext = |port: u16| Options { bootstrap_servers: format!("127.0.0.1:{port}"), ..Options::default() };
    let admin = Options { bootstrap_servers: secured.cluster.broker.bootstrap_servers().to_owned(), ..user.clone() };
    let cases = [
        ("a wrong password", with("sasl.password", WRONG), "uthentication failed"),
        (
            "a wrong password, in plain",
            secured.at(
                secured.sasl,
                &[
                    ("security.protocol", "SASL_SSL"),
                    ("sasl.mechanism", "PLAIN"),
                    ("sasl.username", "reader"),
                    ("sasl.password", WRONG),
                ],
            ),
            "uthentication failed",
        ),
        ("an unknown user", with("sasl.username", "stranger"), "uthentication failed"),
        ("another authority", with("ssl.ca.location", &other_ca), "certificate verify failed"),
        (
            "an expired certificate",
            secured.at(secured.expired, &[("security.protocol", "SSL")]),
            "certificate verify failed",
        ),
        ("no client certificate", secured.at(secured.tls, &[("security.protocol", "SSL")]), "security.protocol"),
        ("no TLS to a listener with it", plaintext(secured.tls), "security.protocol"),
        ("TLS to a listener without", admin, "security.protocol"),
    ];
    std::thread::scope(|scope| {
        for (what, options, expected) in &cases {
            scope.spawn(move || {
                let (code, told) = litflow(options, &["tail", ARTICLES, "--log-level", "off"]);
                assert_eq!(code, Some(1), "{what}: {told}");
                let line = error_line(&told);
                assert!(line.contains(expected) && line.contains(&options.bootstrap_servers), "{what}: {told}");
            });
        }
    });
    // Whatever librdkafka says when it says all it can.
    let mut loud = with("sasl.password", WRONG);
    loud.properties.insert("debug".into(), "all".into());
    loud.properties.insert("ssl.key.password".into(), PASSWORD.into());
    let (_, told) = litflow(&loud, &["tail", ARTICLES, "--log-level", "trace"]);
    assert!(told.contains("SASL") && !told.contains(WRONG), "{told}");
}

fn publish(kafka: &Options, numbers: std::ops::Range<usize>) -> Result<(), String> {
    let mut publisher = Publisher::new(kafka, None).unwrap();
    for number in numbers {
        publisher.article(&article(number)).map_err(|error| error.to_string())?;
    }
    publisher.finish().map(|_| ()).map_err(|error| error.to_string())
}

fn whoever_ingests_needs_what_is_documented(secured: &Secured, acls: &Acls) {
    let ingest = secured.user("ingest", "SCRAM-SHA-256");
    let refusal = publish(&ingest, 0..1).unwrap_err();
    assert!(refusal.contains("User:ingest may not Write"), "{refusal}");
    acls.grant(&documented(DOCUMENT, "Ingest"));
    wait_until("the right has arrived", || publish(&ingest, 0..1).is_ok());
}

/// Each of them may do what the reader may.
fn each_way_to_sign_in_works(secured: &Secured, acls: &Acls) {
    let rights = documented(DOCUMENT, "A reader");
    acls.grant(&rights);
    let subject = "User:CN=reader";
    acls.grant(&rights.iter().map(|right| Right { principal: subject.into(), ..right.clone() }).collect::<Vec<_>>());
    let certificate = secured.at(
        secured.tls,
        &[
            ("security.protocol", "SSL"),
            ("ssl.certificate.location", &secured.file("client.crt").display().to_string()),
            ("ssl.key.location", &secured.file("client.key").display().to_string()),
        ],
    );
    let ways = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"].map(|mechanism| secured.user("reader", mechanism));
    for options in ways.iter().chain([&certificate]) {
        let mut told = String::new();
        wait_until("the reader reads", || {
            let reader = Reader::new(options, &[ANNOTATIONS, "entities.Gene"], From::Beginning);
            told = reader
                .and_then(|mut reader| reader.next(Duration::from_secs(1)))
                .err()
                .map(|error| error.to_string())
                .unwrap_or_default();
            assert!(told.is_empty() || told.contains("may not"), "{told}");
            told.is_empty()
        });
    }
    // What it was not granted.
    let (code, told) = litflow(&ways[2], &["tail", ARTICLES]);
    assert_eq!(code, Some(1), "{told}");
    let line = error_line(&told);
    assert!(
        line.contains("User:reader may not Read the topic articles") && line.contains("--topic articles"),
        "{told}"
    );
    let (_, told) = litflow(&certificate, &["tail", ARTICLES]);
    assert!(error_line(&told).contains("<subject of the client certificate> may not Read"), "{told}");
}

fn options_of_worker(secured: &Secured) -> Options {
    let consumer = [("session.timeout.ms".to_owned(), "6000".to_owned())].into();
    let transactional_id = Some("litflow-0".to_owned());
    Options { consumer, transactional_id, ..secured.user("worker", "SCRAM-SHA-512") }
}

/// Runs a worker until it has worked up `articles`, or has failed: why.
fn work(secured: &Secured, stop_after: u64) -> Result<(), String> {
    let (stop, stopped) = watch::channel(Stop::Never);
    let handle = secured.cluster.runtime.handle().clone();
    let (options, kafka) = (worker::Options::default(), options_of_worker(secured));
    let worker = Worker::build(&options, &kafka, &Default::default(), Arc::new(dictionary()), handle).unwrap();
    let status = worker.status();
    let (ended, end) = channel();
    let thread = std::thread::spawn(move || {
        let _ = ended.send(worker.run(stopped).map_err(|error| error.to_string()));
    });
    let deadline = Instant::now() + DEADLINE;
    let result = loop {
        if let Ok(result) = end.recv_timeout(Duration::from_millis(20)) {
            break result.map(|_| ());
        }
        if status.snapshot().articles >= stop_after {
            stop.send_replace(Stop::Now);
        }
        assert!(Instant::now() < deadline, "the worker neither works nor ends");
    };
    thread.join().unwrap();
    result
}

/// What is told of a right that is missing.
fn assert_names(told: &str, right: &Right) {
    let (resource, option) = match &right.resource {
        Resource::Topic(name) if right.prefixed => (format!("the topic {name}"), format!("--topic {name}")),
        Resource::Topic(name) => (format!("the topic {name} "), format!("--topic {name}")),
        Resource::Group(name) => (format!("the group {name} "), format!("--group {name}")),
        Resource::TransactionalId(name) => {
            (format!("the transactional id {name}"), format!("--transactional-id {name}"))
        }
    };
    let expected = format!("{} may not {} {resource}", right.principal, right.operation);
    assert!(told.contains(&expected) && told.contains(&option), "{expected:?} is expected: {told}");
    assert!(told.contains(&format!("--operation {}", right.operation)) && !told.contains('\n'), "{told}");
}

fn the_worker_needs_what_is_documented(secured: &Secured, acls: &Acls) {
    let rights = documented(DOCUMENT, "The worker");
    assert_eq!(rights.len(), 6, "{rights:?}");
    // The lines are such as the tool itself takes.
    let line = DOCUMENT.lines().find(|line| line.starts_with("kafka-acls ") && line.contains("User:worker")).unwrap();
    let by_tool = parse(line);
    let arguments: Vec<&str> = line.split_whitespace().skip(3).collect();
    let mut tool = secured.cluster.kafka_command("org.apache.kafka.tools.AclCommand");
    let granted = tool.args(arguments).output().unwrap();
    assert!(granted.status.success(), "{}", String::from_utf8_lossy(&granted.stderr));
    acls.grant(&rights[by_tool.len()..]);

    let ingest = secured.user("ingest", "SCRAM-SHA-512");
    let mut articles = 100;
    for right in &rights {
        if right.resource == Resource::Topic(DEAD_LETTERS.into()) {
            continue; // the next step
        }
        acls.revoke(right);
        publish(&ingest, articles..articles + 1).unwrap();
        articles += 1;
        let began = Instant::now();
        let told = work(secured, 1).unwrap_err();
        assert_names(&told, right);
        assert!(began.elapsed() < SOON, "{right:?} took {:?}", began.elapsed());
        acls.grant(std::slice::from_ref(right));
    }
    // What waits is done with all of them.
    work(secured, 1).unwrap();
    assert!(!secured.cluster.read(ANNOTATIONS).is_empty());
}

/// At the start, and when there is one to be written: it is never skipped.
fn a_dead_letter_that_may_not_be_written_ends_the_worker(secured: &Secured, acls: &Acls) {
    let line = format!("kafka-acls --allow-principal User:worker --operation Write --topic {DEAD_LETTERS}");
    let right = parse(&line).remove(0);
    acls.revoke(&right);
    assert_names(&work(secured, u64::MAX).unwrap_err(), &right);
    let see = [Right { operation: "Describe".into(), ..right.clone() }];
    acls.grant(&see);
    let (key, value) = (Some(b"poison".to_vec()), Some(vec![1]));
    let mut publisher = secured.cluster.publisher();
    publisher.send(&Outgoing { topic: ARTICLES.into(), key, value, ..Outgoing::default() }).unwrap();
    publisher.finish().unwrap();
    assert_names(&work(secured, u64::MAX).unwrap_err(), &right);
    acls.grant(std::slice::from_ref(&right));
    work(secured, 1).unwrap();
    assert_eq!(secured.cluster.read(DEAD_LETTERS).len(), 1);
}

fn the_operator_needs_what_is_documented(secured: &Secured, acls: &Acls) {
    let operator = secured.user("operator", "SCRAM-SHA-512");
    let rights = documented(DOCUMENT, "Dead letters");
    acls.grant(&rights);
    wait_until("the rights have arrived", || litflow(&operator, &["dlq", "list"]).0 == Some(0));
    let of = |operation: &str, topic: &str| {
        let topic = Resource::Topic(topic.into());
        rights.iter().find(|right| right.operation == operation && right.resource == topic).unwrap()
    };
    let transactional_id = rights.iter().find(|right| matches!(right.resource, Resource::TransactionalId(_))).unwrap();
    let group = rights.iter().find(|right| matches!(right.resource, Resource::Group(_))).unwrap();
    let replay = &["dlq", "replay", "--all-letters", "--yes"][..];
    let purge = &["dlq", "purge", "--all-letters", "--yes"][..];
    for (right, command) in [
        (of("Read", DEAD_LETTERS), replay),
        (of("Write", DEAD_LETTERS), replay),
        (of("Write", ARTICLES), replay),
        (transactional_id, replay),
        (of("Delete", DEAD_LETTERS), purge),
    ] {
        acls.revoke(right);
        let (code, told) = litflow(&operator, command);
        assert_eq!(code, Some(1), "{right:?}: {told}");
        assert_names(error_line(&told), right);
        acls.grant(std::slice::from_ref(right));
    }
    acls.revoke(group);
    let (code, told) = litflow(&operator, replay);
    assert!(code == Some(0) || told.contains("the group litflow"), "{told}");
    acls.grant(std::slice::from_ref(group));
    wait_until("everything is purged", || litflow(&operator, purge).0 == Some(0));
}

fn a_backfill_needs_what_is_documented(secured: &Secured, acls: &Acls) {
    let rights = documented(DOCUMENT, "Backfill");
    let run = || {
        let kafka = secured.user("backfill", "SCRAM-SHA-256");
        let yield_to = Some(YieldTo { group: kafka.group_id.clone(), above: 1_000_000 });
        let options = backfill::Options { kafka, yield_to, ..backfill::Options::default() };
        let handle = secured.cluster.runtime.handle().clone();
        let other = litflow::tagger::Dictionary::new([("BRCA1", "Disease")]).unwrap();
        let (_stop, stopped) = watch::channel(Stop::Never);
        let backfill = Backfill::build(options, Arc::new(other), handle).map_err(|error| error.to_string())?;
        backfill.run(Source::Topic, &stopped, &mut |_| {}).map_err(|error| error.to_string())
    };
    let told = run().unwrap_err();
    assert!(told.contains("User:backfill may not"), "{told}");
    acls.grant(&rights);
    wait_until("the backfill is done", || match run() {
        Ok(report) => report.left_out() == 0,
        Err(told) => {
            assert!(told.contains("may not"), "{told}");
            false
        }
    });
}
