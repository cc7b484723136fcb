//! Backfill on a real Apache Kafka. Skips, with a note, where there is none.

#![allow(clippy::unwrap_used)] // a helper of a test may fail like the test

mod support;

use litflow::ErrorClass;
use litflow::article::{ArticleEvent, Op, RawDocument};
use litflow::backfill::{self, Backfill, Error, Event, Options, Phase, Report, Source, YieldTo};
use litflow::bus::broker::LocalOptions;
use litflow::bus::codec::Record as _;
use litflow::bus::exclusive::Exclusive;
use litflow::bus::producer::Outgoing;
use litflow::bus::reader::{From, Reader, Value};
use litflow::bus::records::Annotations;
use litflow::bus::topics;
use litflow::tagger::{Dictionary, Tag};
use litflow::worker::{self, Stop};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::{Cluster, DEADLINE, article, dictionary, versions, wait_until};
use tempfile::TempDir;
use tokio::sync::watch;

/// Another version than [`dictionary`]: BRCA1 is a disease now, p53 is unknown, "breast" and articles are found.
fn second() -> Dictionary {
    let terms = [("BRCA1", "Disease"), ("breast", "Disease"), ("length", "CellLine"), ("HeLa", "Gene")];
    Dictionary::new(terms).unwrap()
}

/// Small transactions, so that there is something between the first and the last.
fn options(cluster: &Cluster) -> Options {
    let worker = worker::Options { transaction_articles: 20, in_flight_articles: 40, ..Default::default() };
    Options { kafka: cluster.options("backfill"), worker, ..Options::default() }
}

fn build(cluster: &Cluster, options: Options) -> Backfill {
    Backfill::build(options, Arc::new(second()), cluster.runtime.handle().clone()).unwrap()
}

/// Runs one from the topic to its end.
fn run(cluster: &Cluster, tell: &mut dyn FnMut(Event<'_>)) -> Report {
    let (_stop, stopped) = watch::channel(Stop::Never);
    build(cluster, options(cluster)).run(Source::Topic, &stopped, tell).unwrap()
}

/// The newest annotations of each article; none: a tombstone.
fn newest(cluster: &Cluster) -> BTreeMap<String, Option<Annotations>> {
    let entries = cluster.read(topics::ANNOTATIONS).into_iter().map(|entry| match entry.value {
        Value::Annotations(annotations) => (entry.key.unwrap(), Some(*annotations)),
        Value::Tombstone => (entry.key.unwrap(), None),
        other => panic!("{other:?}"),
    });
    entries.collect()
}

fn newer(number: usize) -> ArticleEvent {
    ArticleEvent { version: 2, title: Some("HeLa in breast cancer.".into()), ..article(number) }
}

fn deletion(number: usize) -> ArticleEvent {
    ArticleEvent { op: Op::Delete, ..article(number) }
}

#[test]
fn every_article_gets_the_new_version_and_the_report_says_what_changed() {
    let Some(cluster) = Cluster::start() else { return };
    const ARTICLES: usize = 200;
    cluster.publish((0..ARTICLES).map(article));
    cluster.publish([newer(0), deletion(1)]);
    cluster.work("a");
    // Never annotated, so the worker's; and one that the worker refuses and that keeps its older annotations.
    let raw = RawDocument::new("application/pdf", "%PDF");
    cluster.publish([ArticleEvent { title: None, passages: Vec::new(), raw: Some(raw), ..article(2) }]);
    cluster.work("a");
    cluster.publish([article(ARTICLES)]);

    let (_stop, stopped) = watch::channel(Stop::Never);
    let dry = Options { dry_run: true, ..options(&cluster) };
    let planned = build(&cluster, dry).run(Source::Topic, &stopped, &mut |_| ()).unwrap();
    assert_eq!((planned.from[0].articles, planned.retagged), (ARTICLES as u64 - 1, 0));
    assert_eq!(newest(&cluster)["pmid:0"].as_ref().unwrap().model.digest, dictionary().model().digest);

    let mut told = Vec::new();
    let report = run(&cluster, &mut |event| {
        if let Event::LeftOut(reason) = event {
            told.push(reason.to_owned());
        }
    });
    let tagged = ARTICLES as u64 - 2; // one is deleted, one refused
    assert_eq!((report.retagged, report.compared, report.up_to_date), (tagged, tagged, 0));
    assert_eq!(report.left, BTreeMap::from([("unreadable_document", 1)]));
    assert_eq!((report.left_out(), told.len()), (1, 1));
    assert!(told[0].starts_with("pmid:2: unreadable_document: "), "{told:?}");
    assert_eq!((report.from.len(), report.from[0].articles), (1, tagged));
    assert_eq!(report.from[0].model, *dictionary().model());

    // Article 0 has "HeLa in breast cancer." for a title, the others "BRCA1 in breast cancer.".
    let others = tagged - 1;
    let changes = |name: &str| {
        let of = &report.types[name];
        let retyped = (of.retyped_from, of.retyped_to);
        (of.before, of.after, of.unchanged, of.boundary, of.added, of.removed, retyped)
    };
    assert_eq!(changes("Gene"), (2 * others + 1, 1, 0, 0, 0, tagged, (others, 1)));
    assert_eq!(changes("Disease"), (tagged, tagged + others, 0, tagged, 0, 0, (0, others)));
    assert_eq!(changes("CellLine"), (1, tagged, 0, 0, tagged, 0, (1, 0)));
    let kinds: BTreeSet<_> = report.examples.iter().map(|example| example.change).collect();
    assert_eq!(kinds.len(), 4);
    let removed = report.examples.iter().find(|example| example.after.is_none()).unwrap();
    assert_eq!(removed.before.as_ref().map(|named| named.text.as_str()), Some("p53"));

    let newest = newest(&cluster);
    assert_eq!(newest.len(), ARTICLES, "what the worker has not seen is the worker's");
    for (id, annotations) in &newest {
        let Some(annotations) = annotations else { continue };
        let digest = if id == "pmid:2" { dictionary().model().digest.clone() } else { second().model().digest.clone() };
        assert_eq!(annotations.model.digest, digest, "{id}");
        let version = if id == "pmid:0" { 2 } else { 1 };
        assert_eq!((annotations.article_version, annotations.source.topic.as_str()), (version, topics::ARTICLES));
    }
    assert_eq!(newest["pmid:1"], None);
    let diseases = cluster.read("entities.Disease").into_iter().filter(|entry| match &entry.value {
        Value::Mention(mention) => mention.model.digest == second().model().digest,
        _ => false,
    });
    assert_eq!(diseases.count() as u64, tagged + others);

    // Nothing is left but what cannot be done, and doing nothing publishes nothing.
    let before = cluster.read(topics::ANNOTATIONS).len();
    let again = run(&cluster, &mut |_| ());
    assert_eq!((again.retagged, again.up_to_date, again.left_out()), (0, tagged, 1));
    assert_eq!(cluster.read(topics::ANNOTATIONS).len(), before);
}

/// Events that come at the worst moment: after the run has looked for them, before its commit.
#[test]
fn a_newer_event_and_a_deletion_win_whenever_they_come() {
    let Some(cluster) = Cluster::start() else { return };
    const ARTICLES: usize = 60;
    cluster.publish((0..ARTICLES).map(article));
    cluster.work("a");
    let mut commits = 0;
    let report = run(&cluster, &mut |event| {
        let Event::Progress(progress) = event else { return };
        match progress.phase {
            // Before their turn: they are left to the worker, whatever it has done by then.
            Phase::Tagging if progress.done == 0 => {
                cluster.publish([newer(1), deletion(2)]);
            }
            Phase::Committing => {
                // Each article is in one of the batches: here, its event comes too late for the look before.
                commits += 1;
                if commits == 1 {
                    let event = |number: usize| if number.is_multiple_of(2) { newer(number) } else { deletion(number) };
                    cluster.publish((10..ARTICLES).map(event));
                    cluster.work("a");
                }
            }
            _ => {}
        }
    });
    assert!(commits > 0);
    assert!(report.repaired > 0, "nothing was overtaken during a commit, which proves nothing: {report:?}");
    assert_eq!(report.left[backfill::OVERTAKEN] + report.left[backfill::DELETED] + report.retagged, ARTICLES as u64);

    cluster.work("a");
    for (id, annotations) in newest(&cluster) {
        let number: usize = id["pmid:".len()..].parse().unwrap();
        let version = annotations.as_ref().map(|annotations| annotations.article_version);
        let expected = match number {
            1 => Some(2),
            2 => None,
            0..10 => Some(1),
            _ => number.is_multiple_of(2).then_some(2),
        };
        assert_eq!(version, expected, "{id}: {annotations:?}");
    }
    // What the worker has tagged again is by its version; another run does that, too.
    let report = run(&cluster, &mut |_| ());
    assert_eq!(report.left_out(), 0);
    let by_second = |annotations: &Annotations| annotations.model.digest == second().model().digest;
    assert!(newest(&cluster).values().flatten().all(by_second));
}

/// What a run that was killed between its commit and its second look leaves behind.
#[test]
fn annotations_that_hide_newer_ones_are_put_right_by_the_next_run() {
    let Some(cluster) = Cluster::start() else { return };
    cluster.publish([article(1), article(2), article(3)]);
    cluster.work("a");
    assert_eq!(run(&cluster, &mut |_| ()).retagged, 3);
    let hidden = newest(&cluster);
    cluster.publish([newer(1), deletion(2)]);
    cluster.work("a");
    let mut publisher = cluster.publisher();
    for id in ["pmid:1", "pmid:2"] {
        publisher.publish(topics::ANNOTATIONS, id, hidden[id].as_ref().unwrap()).unwrap();
    }
    publisher.finish().unwrap();
    let report = run(&cluster, &mut |_| ());
    assert_eq!((report.retagged, report.deleted, report.up_to_date, report.compared), (1, 1, 1, 0));
    let newest = newest(&cluster);
    assert_eq!(newest["pmid:1"].as_ref().unwrap().article_version, 2);
    assert_eq!(newest["pmid:2"], None);
}

#[test]
fn a_second_run_takes_the_place_of_the_first() {
    let Some(cluster) = Cluster::start() else { return };
    cluster.publish((0..50).map(article));
    cluster.work("a");
    let (_stop, stopped) = watch::channel(Stop::Never);
    let mut second_run = None;
    let ended = build(&cluster, options(&cluster)).run(Source::Topic, &stopped, &mut |event| {
        if let Event::Progress(progress) = event
            && progress.phase == Phase::Committing
            && second_run.is_none()
        {
            second_run = Some(run(&cluster, &mut |_| ()));
        }
    });
    let error = ended.unwrap_err();
    assert!(matches!(error, Error::Replaced { .. }) && error.class() == ErrorClass::Fatal, "{error}");
    assert_eq!(second_run.unwrap().retagged, 50);
    let annotations = cluster.foreign_keys(topics::ANNOTATIONS);
    assert!(annotations.len() == 50 && annotations.values().all(|&count| count == 2), "{annotations:?}");
}

#[test]
fn the_live_stream_goes_first() {
    let Some(cluster) = Cluster::start() else { return };
    const ARTICLES: usize = 100;
    cluster.publish((0..ARTICLES).map(article));
    cluster.work("a");
    cluster.publish((ARTICLES..2 * ARTICLES).map(article));
    let yield_to = YieldTo { group: "workers".into(), above: 50 };
    let options = Options { yield_to: Some(yield_to), ..options(&cluster) };
    let (_stop, stopped) = watch::channel(Stop::Never);
    let mut lags = Vec::new();
    let report = build(&cluster, options).run(Source::Topic, &stopped, &mut |event| {
        let Event::Progress(progress) = event else { return };
        if let Phase::Yielding(lag) = progress.phase {
            assert_eq!(progress.retagged, 0);
            if lags.is_empty() {
                cluster.work("a");
            }
            lags.push(lag);
        }
    });
    assert_eq!(report.unwrap().retagged, ARTICLES as u64);
    assert!(lags.contains(&(ARTICLES as u64)), "{lags:?}");

    // A group that is not there is not waited for.
    let nobody = YieldTo { group: "nobody".into(), above: 0 };
    let options = Options { yield_to: Some(nobody), ..self::options(&cluster) };
    let report = build(&cluster, options).run(Source::Topic, &stopped, &mut |_| ()).unwrap();
    assert_eq!(report.retagged, ARTICLES as u64, "those that came later");
}

/// A command of the program on the tiny model in a directory.
fn litflow(cluster: &Cluster, command: &str, model: &Path) -> Command {
    let mut litflow = Command::new(env!("CARGO_BIN_EXE_litflow"));
    litflow.arg(command).arg("--model").arg(model).args(["--precision", "fp32", "--json"]);
    litflow.args(["--bootstrap-servers", cluster.broker.bootstrap_servers()]);
    litflow.env("LITFLOW_WORKER__TRANSACTION_ARTICLES", "20").env("LITFLOW_WORKER__IN_FLIGHT_ARTICLES", "40");
    litflow.env("LITFLOW_KAFKA__GROUP_ID", "workers");
    litflow.stdout(Stdio::piped()).stderr(Stdio::piped());
    litflow
}

fn json(stdout: &[u8]) -> serde_json::Value {
    serde_json::from_slice(stdout).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(stdout)))
}

fn signal(process: &Child, name: &str) {
    assert!(Command::new("kill").args(["-s", name, &process.id().to_string()]).status().unwrap().success());
}

/// Waits for so many new annotations.
fn wait_for(committed: &mut Reader, records: usize) {
    for _ in 0..records {
        let deadline = Instant::now() + DEADLINE;
        while committed.next(Duration::from_millis(100)).unwrap().is_none() {
            assert!(Instant::now() < deadline, "nothing is committed");
        }
    }
}

/// Publishes articles and has a worker tag them by the version 1.0.0. Returns the directory of 2.0.0, and what it lies in.
fn tag_by_the_first(cluster: &Cluster, articles: usize) -> (TempDir, PathBuf) {
    cluster.publish((0..articles).map(article));
    let folder = tempfile::tempdir().unwrap();
    let (first, second) =
        (versions::model(folder.path(), "1.0.0", "one"), versions::model(folder.path(), "2.0.0", "two"));
    let worked = litflow(cluster, "worker", &first).arg("--until-end").output().unwrap();
    assert!(worked.status.success());
    (folder, second)
}

#[test]
fn a_run_that_is_ended_or_killed_is_gone_on_with_and_doubles_nothing() {
    let Some(cluster) = Cluster::start() else { return };
    const ARTICLES: usize = 3_000;
    let (_folder, second) = tag_by_the_first(&cluster, ARTICLES);

    let mut committed = Reader::new(&cluster.options("reader"), &[topics::ANNOTATIONS], From::Now).unwrap();
    let start = || -> Child { litflow(&cluster, "backfill", &second).spawn().unwrap() };
    // Ended by SIGINT: it says how far it came, and that was committed.
    let process = start();
    wait_for(&mut committed, 100);
    let niceness = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit(')').next().unwrap().split_whitespace().nth(16).unwrap().to_owned()
    };
    assert_eq!(niceness(process.id()), "10");
    signal(&process, "INT");
    let ended = process.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(130), "{}", String::from_utf8_lossy(&ended.stderr));
    let report = json(&ended.stdout);
    let by_first_run = report["retagged"].as_u64().unwrap();
    assert!(report["interrupted"] == true && by_first_run >= 100, "{report}");
    // Killed.
    let mut process = start();
    wait_for(&mut committed, by_first_run as usize);
    process.kill().unwrap();
    process.wait().unwrap();

    let done = litflow(&cluster, "backfill", &second).output().unwrap();
    let told = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(done.status.code(), Some(0), "{told}");
    let report = json(&done.stdout);
    let (retagged, up_to_date) = (report["retagged"].as_u64().unwrap(), report["up_to_date"].as_u64().unwrap());
    assert_eq!(retagged + up_to_date, ARTICLES as u64, "{report}");
    assert!(retagged > 0, "the runs were ended too late to prove anything: {report}");
    assert!(up_to_date >= by_first_run + 20, "{report}");
    assert_eq!(report["from"][0]["model"]["version"], "1.0.0");
    assert_eq!(
        (&report["all"]["unchanged"], &report["all"]["added"]),
        (&report["all"]["before"], &serde_json::json!(0))
    );

    assert_nothing_is_lost_or_doubled(&cluster, ARTICLES);
}

/// Every article has been tagged once by each of the versions 1.0.0 and 2.0.0, and each mention of 2.0.0 stands once on
/// its topic.
fn assert_nothing_is_lost_or_doubled(cluster: &Cluster, articles: usize) {
    let mut expected = BTreeSet::new();
    let mut digests: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for entry in cluster.read(topics::ANNOTATIONS) {
        let Value::Annotations(annotations) = entry.value else { panic!("{entry:?}") };
        digests.entry(entry.key.unwrap()).or_default().push(annotations.model.version.clone());
        if annotations.model.version == "2.0.0" {
            expected.extend(annotations.mentions.into_iter().map(|mention| mention.id));
        }
    }
    assert_eq!(digests.len(), articles);
    assert!(digests.values().all(|of| of == &["1.0.0", "2.0.0"]), "lost or doubled");
    assert!(expected.len() > articles / 10, "{} mentions prove nothing", expected.len());
    let topics = cluster.topics().into_iter().filter(|topic| topic.name.starts_with("entities."));
    for entry in topics.flat_map(|topic| cluster.read(&topic.name)) {
        let Value::Mention(mention) = entry.value else { panic!("{entry:?}") };
        assert!(mention.model.version == "1.0.0" || expected.remove(&mention.id), "{mention:?} stands twice");
    }
    assert!(expected.is_empty(), "{} mentions are lost", expected.len());
}

/// What was under way is done again when the broker is back; the run itself goes on.
#[test]
fn a_broker_that_restarts_is_waited_for() {
    let data = tempfile::tempdir().unwrap();
    let broker = LocalOptions { data: Some(data.path().to_owned()), ..LocalOptions::default() };
    let Some(cluster) = Cluster::start_with(&broker) else { return };
    const ARTICLES: usize = 1_000;
    let (_folder, second) = tag_by_the_first(&cluster, ARTICLES);

    let mut committed = Reader::new(&cluster.options("reader"), &[topics::ANNOTATIONS], From::Now).unwrap();
    let run = litflow(&cluster, "backfill", &second).spawn().unwrap();
    wait_for(&mut committed, 100);
    // It is held while the broker ends, so that it cannot be done by then, and then meets none.
    signal(&run, "STOP");
    let cluster = cluster.restart(broker, || signal(&run, "CONT"));
    let done = run.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(done.status.code(), Some(0), "{told}");
    let report = json(&done.stdout);
    assert_eq!((&report["retagged"], &report["left"]), (&ARTICLES.into(), &serde_json::json!({})), "{told}");
    assert_nothing_is_lost_or_doubled(&cluster, ARTICLES);
}

#[test]
fn texts_can_come_from_files() {
    let Some(cluster) = Cluster::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (first, second) =
        (versions::model(folder.path(), "1.0.0", "one"), versions::model(folder.path(), "2.0.0", "two"));
    let line =
        |id: usize, text: &str| format!("{{\"id\": \"pmid:{id}\", \"title\": \"BRCA1\", \"text\": \"{text}\"}}\n");
    let text = "Mutations in BRCA1 cause breast cancer in mice.";
    let old = folder.path().join("old.jsonl");
    fs::write(&old, (1..=4).map(|id| line(id, text)).collect::<String>()).unwrap();
    let mut ingest = Command::new(env!("CARGO_BIN_EXE_litflow"));
    ingest.arg("ingest").arg(&old).args(["--bootstrap-servers", cluster.broker.bootstrap_servers()]);
    assert!(ingest.output().unwrap().status.success());
    let worked = litflow(&cluster, "worker", &first).arg("--until-end").output().unwrap();
    assert!(worked.status.success());
    cluster.publish([deletion(4)]);
    let worked = litflow(&cluster, "worker", &first).arg("--until-end").output().unwrap();
    assert!(worked.status.success());

    // As annotated, twice; another text; a deleted one; an unknown one; one that is none.
    let lines = [line(1, text), line(1, text), line(2, "A text."), line(4, text), line(5, text), "{}\n".to_owned()];
    let file = folder.path().join("new.jsonl");
    fs::write(&file, lines.concat()).unwrap();
    let done = litflow(&cluster, "backfill", &second).arg(&file).output().unwrap();
    let told = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(done.status.code(), Some(3), "{told}");
    let report = json(&done.stdout);
    assert_eq!((&report["retagged"], &report["compared"], &report["up_to_date"]), (&1.into(), &1.into(), &1.into()));
    let left = serde_json::json!({"another_text": 1, "deleted": 1, "not_annotated": 1, "unreadable_record": 1});
    assert_eq!(report["left"], left, "{told}");
    for place in ["pmid:2: its text is not", "pmid:5: it was never annotated", "new.jsonl, line 6"] {
        assert!(told.contains(place), "{told}");
    }
    let newest = newest(&cluster);
    let version = |id: &str| newest[id].as_ref().map(|annotations| annotations.model.version.as_str());
    assert_eq!(
        [1, 2, 3, 4].map(|id| version(&format!("pmid:{id}"))),
        [Some("2.0.0"), Some("1.0.0"), Some("1.0.0"), None]
    );
    assert!(!newest.contains_key("pmid:5"));
    // The source is still the event that was annotated, so that all that is done is known to be.
    let of_first =
        cluster.read(topics::ARTICLES).into_iter().find(|entry| entry.key.as_deref() == Some("pmid:1")).unwrap();
    let source = &newest["pmid:1"].as_ref().unwrap().source;
    assert_eq!((source.partition, source.offset), (of_first.partition, of_first.offset));

    // The report for people, from stdin and the topic alike.
    let mut rest = Command::new(env!("CARGO_BIN_EXE_litflow"));
    rest.arg("backfill").arg("--model").arg(&second).args(["--precision", "fp32"]);
    rest.args(["--bootstrap-servers", cluster.broker.bootstrap_servers(), "--yield-to", "workers"]);
    let done = rest.output().unwrap();
    let shown = String::from_utf8_lossy(&done.stdout).into_owned();
    assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(
        shown.starts_with("2 articles tagged again by tiny 2.0.0 (") && shown.contains("1  up to date already"),
        "{shown}"
    );
    wait_until("all is done", || newest_versions(&cluster) == BTreeSet::from(["2.0.0".to_owned()]));
}

fn newest_versions(cluster: &Cluster) -> BTreeSet<String> {
    newest(cluster).into_values().flatten().map(|annotations| annotations.model.version).collect()
}

/// A transaction with this record that is neither committed nor aborted.
fn open_transaction(cluster: &Cluster, record: &Outgoing) -> BaseProducer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", cluster.broker.bootstrap_servers()).set("transactional.id", "open");
    config.set("partitioner", "murmur2_random");
    let producer: BaseProducer = config.create().unwrap();
    producer.init_transactions(DEADLINE).unwrap();
    producer.begin_transaction().unwrap();
    let mut base: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(&record.topic);
    (base.key, base.payload) = (record.key.as_deref(), record.value.as_deref());
    producer.send(base).map_err(|(error, _)| error).unwrap();
    producer.flush(DEADLINE).unwrap();
    producer
}

/// A transaction that somebody has open hides what was committed behind it; the survey waits for its end.
#[test]
fn what_stands_behind_an_open_transaction_is_not_done_twice() {
    let Some(cluster) = Cluster::start() else { return };
    cluster.publish([article(1)]);
    cluster.work("a");
    let value = newest(&cluster)["pmid:1"].as_ref().unwrap().encode().unwrap();
    let record = Outgoing {
        topic: topics::ANNOTATIONS.into(),
        key: Some(b"pmid:1".to_vec()),
        value: Some(value),
        ..Outgoing::default()
    };
    // The same key, so the same partition: it is opened before the backfill commits.
    let mut open = None;
    let report = run(&cluster, &mut |event| {
        if matches!(event, Event::Progress(progress) if progress.phase == Phase::Committing) {
            open.get_or_insert_with(|| open_transaction(&cluster, &record));
        }
    });
    assert_eq!(report.retagged, 1);
    let abort = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(1)); // time for the next run to come across it
        open.unwrap().abort_transaction(DEADLINE).unwrap();
    });
    let again = run(&cluster, &mut |_| ());
    abort.join().unwrap();
    assert_eq!((again.retagged, again.up_to_date), (0, 1));
    // The same holder may go on after it has committed.
    let writer = Exclusive::take(&cluster.options("writer"), "a-writer").unwrap();
    writer.commit([&record]).unwrap();
    writer.commit([&record]).unwrap();
    assert_eq!(cluster.foreign_keys(topics::ANNOTATIONS)["pmid:1"], 4);
}
