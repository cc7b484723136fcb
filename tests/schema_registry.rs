//! Schemas by a real registry, Apicurio's, on a real Apache Kafka. Skips, with a note, where there is no Java, or where
//! `scripts/kafka/fetch` or `scripts/schema-registry/fetch` has not run.
//!
//! Faults that the registry cannot be brought to come from an edge before it.

#![allow(clippy::unwrap_used)] // a helper of a test may fail like the test

#[path = "support/certificates.rs"]
mod certificates;
#[path = "support/schema_registry.rs"]
mod schema_registry;
mod support;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value as Avro;
use apache_avro::writer::datum::GenericDatumWriter;
use certificates::{Certificate, Validity};
use litflow::ErrorClass;
use litflow::article::ArticleEvent;
use litflow::backfill::{self, Backfill};
use litflow::bus::codec::Record;
use litflow::bus::producer::Outgoing;
use litflow::bus::reader::{Entry, From, Reader, Value};
use litflow::bus::records::Annotations;
use litflow::bus::schema_registry::{Error, Known, Options, Registry, Subjects};
use litflow::bus::{self, topics};
use litflow::tagger::Dictionary;
use litflow::worker::{self, Outputs, State, Status, Stop, Summary, Worker, reload};
use rdkafka::Message as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use schema_registry::{Apicurio, Edge, Mode};
use serde_json::{Value as Json, json};
use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Output};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use support::{Cluster, DEADLINE, article, dictionary, wait_until};
use tokio::sync::watch;

/// Options of a worker of this name on the cluster, with the registry.
fn with(cluster: &Cluster, name: &str, registry: Options) -> bus::Options {
    bus::Options { schema_registry: registry, ..cluster.options(name) }
}

/// A worker at work.
struct Running {
    status: Arc<Status>,
    stop: watch::Sender<Stop>,
    thread: JoinHandle<Result<Summary, worker::Error>>,
}

impl Running {
    fn start(cluster: &Cluster, kafka: &bus::Options, until: Stop) -> Self {
        let options = worker::Options { drain_timeout_ms: 500, ..worker::Options::default() };
        let handle = cluster.runtime.handle().clone();
        let worker = Worker::build(&options, kafka, &Default::default(), Arc::new(dictionary()), handle).unwrap();
        let (stop, stopped) = watch::channel(until);
        let status = worker.status();
        Self { status, stop, thread: std::thread::spawn(move || worker.run(stopped)) }
    }

    fn end(self) -> Result<Summary, worker::Error> {
        self.thread.join().unwrap()
    }

    fn stop(self) -> Result<Summary, worker::Error> {
        self.stop.send_replace(Stop::Now);
        self.end()
    }
}

/// A schema of articles with what an older release did not have left out …
fn older(field: &str) -> Json {
    let mut schema: Json = serde_json::from_str(ArticleEvent::SCHEMA).unwrap();
    schema["fields"].as_array_mut().unwrap().retain(|known| known["name"] != field);
    schema
}

/// … and with what a newer one has.
fn newer() -> Json {
    let mut schema: Json = serde_json::from_str(ArticleEvent::SCHEMA).unwrap();
    let field = json!({"name": "funders", "type": {"type": "array", "items": "string"}, "default": []});
    schema["fields"].as_array_mut().unwrap().insert(0, field);
    schema
}

/// The value as a foreign writer with this schema sends it.
fn written_by(schema: &Json, id: u32, event: &ArticleEvent) -> Vec<u8> {
    let ours = Schema::parse_str(ArticleEvent::SCHEMA).unwrap();
    let bytes = event.encode().unwrap();
    let value = GenericDatumReader::builder(&ours).build().unwrap().read_value(&mut &bytes[10..]).unwrap();
    let Avro::Record(fields) = value else { panic!("{value:?}") };
    let mut fields: BTreeMap<String, Avro> = fields.into_iter().collect();
    fields.insert("funders".into(), Avro::Array(vec![Avro::String("Wellcome".into())]));
    let names = schema["fields"].as_array().unwrap().iter().map(|field| field["name"].as_str().unwrap().to_owned());
    let value = Avro::Record(names.map(|name| (name.clone(), fields.remove(&name).unwrap())).collect());
    let schema = Schema::parse(schema).unwrap();
    let mut bytes = confluent(id, &[]);
    GenericDatumWriter::builder(&schema).build().unwrap().write_value_ref(&mut bytes, &value).unwrap();
    bytes
}

fn confluent(id: u32, body: &[u8]) -> Vec<u8> {
    [&[0], id.to_be_bytes().as_slice(), body].concat()
}

fn send(cluster: &Cluster, key: &str, value: Vec<u8>) {
    let mut publisher = cluster.publisher();
    let (topic, key) = (topics::ARTICLES.to_owned(), Some(key.as_bytes().to_vec()));
    publisher.send(&Outgoing { topic, key, value: Some(value), ..Outgoing::default() }).unwrap();
    publisher.finish().unwrap();
}

/// All records of a topic, decoded with the registry.
fn read(kafka: &bus::Options, topic: &str) -> Vec<Entry> {
    let mut reader = Reader::new(kafka, &[topic], From::Beginning).unwrap();
    let deadline = Instant::now() + DEADLINE;
    let mut entries = Vec::new();
    while !reader.at_end() {
        assert!(Instant::now() < deadline, "{topic} has no end");
        entries.extend(reader.next(Duration::from_secs(1)).unwrap());
    }
    entries
}

/// The values of a topic as a client that is not ours sees them.
fn bytes_on(cluster: &Cluster, topic: &str, count: usize) -> Vec<Vec<u8>> {
    let consumer: BaseConsumer = rdkafka::ClientConfig::new()
        .set("bootstrap.servers", cluster.broker.bootstrap_servers())
        .set("group.id", "somebody")
        .set("auto.offset.reset", "earliest")
        .create()
        .unwrap();
    consumer.subscribe(&[topic]).unwrap();
    let deadline = Instant::now() + DEADLINE;
    let mut values = Vec::new();
    while values.len() < count {
        assert!(Instant::now() < deadline, "{} of {count} on {topic}", values.len());
        let Some(message) = consumer.poll(Duration::from_millis(500)) else { continue };
        values.push(message.unwrap().payload().unwrap().to_vec());
    }
    values
}

/// Keys of `annotations`; none stands there twice, and within a partition the articles' order is kept.
fn annotated(kafka: &bus::Options) -> BTreeSet<String> {
    let (mut keys, mut last) = (BTreeSet::new(), BTreeMap::new());
    for entry in read(kafka, topics::ANNOTATIONS) {
        let Value::Annotations(annotations) = entry.value else { panic!("{entry:?}") };
        let source = annotations.source;
        let before = last.insert(source.partition, source.offset);
        assert!(before < Some(source.offset), "{before:?}, then {} in {}", source.offset, source.partition);
        assert!(keys.insert(annotations.article_id.clone()), "{} twice", annotations.article_id);
    }
    keys
}

fn litflow(registry: &Options, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_litflow"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("LITFLOW_")) {
        command.env_remove(name);
    }
    command.env("LITFLOW_KAFKA__SCHEMA_REGISTRY__URL", registry.url.as_ref().unwrap());
    command.args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn values_travel_by_the_registrys_ids() {
    let Some(apicurio) = Apicurio::get() else { return };
    let Some(cluster) = Cluster::start() else { return };
    let kafka = with(&cluster, "a", apicurio.options());
    let subjects = Subjects::new(&kafka.schema_registry).unwrap().unwrap();
    cluster.runtime.block_on(subjects.create(&cluster.topics())).unwrap();

    // The program registers each schema, and asks for compatibility with all versions; doing it again changes nothing.
    let servers = cluster.broker.bootstrap_servers();
    let topics_command = |what: &str| {
        let arguments = ["topics", what, "--types", "Unheard", "--bootstrap-servers", servers];
        let output = litflow(&kafka.schema_registry, &arguments);
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, created, stderr) = topics_command("create");
    assert_eq!(code, Some(0), "{stderr}");
    let line = |of: &str| created.lines().find(|line| line.starts_with(of)).unwrap().to_owned();
    assert!(
        line("entities.Unheard").contains("created") && line("entities.Unheard").ends_with("registered"),
        "{created}"
    );
    assert!(line("annotations").contains("was there") && line("articles.dlq").ends_with("was there"), "{created}");
    assert!(!topics_command("create").1.contains("registered"));
    let (_, config) = apicurio.call("GET", "/config/entities.Unheard-value", None);
    assert_eq!(config["compatibilityLevel"], "FULL_TRANSITIVE");
    assert_eq!(topics_command("check").0, Some(0));
    apicurio.call("PUT", "/config/entities.Unheard-value", Some(json!({"compatibility": "NONE"})));
    let (code, differences, _) = topics_command("check");
    let difference = "compatibility of the subject entities.Unheard-value is NONE, should be FULL_TRANSITIVE";
    assert!(code == Some(1) && differences.contains(difference), "{differences}");

    // Foreign writers: of an older release, of a newer one, and without a registry.
    let (old, new) = (older("mesh"), newer());
    let (old_id, new_id) = (apicurio.register("articles-value", &old), apicurio.register("articles-value", &new));
    send(&cluster, "pmid:1", written_by(&old, old_id, &article(1)));
    send(&cluster, "pmid:2", written_by(&new, new_id, &article(2)));
    cluster.publish([article(3)]);
    // What the registry says itself cannot be read.
    let other = json!({"type": "record", "name": "Other", "fields": [{"name": "x", "type": "string"}]});
    let recursive = json!({"type": "record", "name": "List", "fields": [{"name": "next", "type": ["null", "List"]}]});
    let other_id = apicurio.register("somebody-value", &other);
    let recursive_id = apicurio.register("somebody-else-value", &recursive);
    let poison = [
        ("pmid:4", confluent(999_999, b"?"), "unknown_schema"),
        ("pmid:5", confluent(u32::MAX, b"?"), "unknown_schema"),
        ("pmid:6", confluent(other_id, b"\x02x"), "incompatible_schema"),
        ("pmid:7", confluent(recursive_id, &[2; 100]), "incompatible_schema"),
        ("pmid:8", confluent(old_id, b"\x02x"), "malformed_avro"),
        ("pmid:9", [written_by(&new, new_id, &article(9)), vec![0]].concat(), "malformed_avro"),
    ];
    for (key, value, _) in &poison {
        send(&cluster, key, value.clone());
    }
    let summary = Running::start(&cluster, &kafka, Stop::AtEnd).end().unwrap();
    assert_eq!((summary.tagged, summary.dead_letters), (3, poison.len() as u64));
    for letter in read(&kafka, topics::DEAD_LETTERS) {
        let (_, _, reason) = poison.iter().find(|(key, ..)| letter.key.as_deref() == Some(key)).unwrap();
        assert_eq!(letter.headers["dlq.reason"], *reason, "{letter:?}");
    }

    // Our own reader and the program's see values; others see ids that the registry has schemas for.
    let wanted: BTreeSet<String> = ["pmid:1", "pmid:2", "pmid:3"].map(str::to_owned).into();
    assert_eq!(annotated(&kafka), wanted);
    let Value::Article(event) =
        &read(&kafka, topics::ARTICLES).iter().find(|e| e.key.as_deref() == Some("pmid:2")).unwrap().value.clone()
    else {
        panic!("not decoded")
    };
    assert_eq!(**event, article(2));
    let tail = ["tail", "annotations", "--json", "--bootstrap-servers", servers];
    let tail = litflow(&kafka.schema_registry, &tail);
    assert_eq!(text(&tail.stdout).matches("\"article_id\":\"pmid:").count(), 3, "{}", text(&tail.stderr));
    read_in_python(&cluster, apicurio);
    for value in bytes_on(&cluster, topics::ANNOTATIONS, 3) {
        assert_eq!(value[0], 0);
        let id = u32::from_be_bytes(value[1..5].try_into().unwrap());
        let (_, answer) = apicurio.call("GET", &format!("/schemas/ids/{id}"), None);
        let schema = Schema::parse_str(answer["schema"].as_str().unwrap()).unwrap();
        assert_eq!(schema, Schema::parse_str(Annotations::SCHEMA).unwrap());
        let mut body = &value[5..];
        let read = GenericDatumReader::builder(&schema).build().unwrap().read_value(&mut body).unwrap();
        assert!(body.is_empty() && matches!(read, Avro::Record(_)));
    }
    assert_eq!(tag_again(&cluster, &kafka), 3);
}

/// Tags all articles again, by another version; how many there were.
fn tag_again(cluster: &Cluster, kafka: &bus::Options) -> u64 {
    let options = backfill::Options { kafka: kafka.clone(), ..backfill::Options::default() };
    let tagger = Arc::new(Dictionary::new([("BRCA1", "Disease")]).unwrap());
    let backfill = Backfill::build(options, tagger, cluster.runtime.handle().clone()).unwrap();
    let (_stop, stopped) = watch::channel(Stop::Never);
    let report = backfill.run(backfill::Source::Topic, &stopped, &mut |_| {}).unwrap();
    assert_eq!(report.compared, report.retagged, "{report:?}");
    report.retagged
}

/// What `docs/topics.md` tells those who read with a client that is not ours.
fn read_in_python(cluster: &Cluster, apicurio: &Apicurio) {
    let packages = Command::new("python3").args(["-c", "import confluent_kafka, fastavro"]).output();
    if !packages.is_ok_and(|output| output.status.success()) {
        return eprintln!("left out: no python3 with the packages confluent-kafka and fastavro");
    }
    let mut python = Command::new("python3");
    python.current_dir(env!("CARGO_MANIFEST_DIR")).env("SCHEMA_REGISTRY_URL", apicurio.url());
    // Not `articles`, where poison stands.
    let script = "import sys; sys.path.insert(0, 'examples'); import read_topics as r; \
                  print(len([r.decode(m.value())['mentions'] for m in r.read(sys.argv[1], 'annotations')]))";
    let output = python.args(["-c", script, cluster.broker.bootstrap_servers()]).output().unwrap();
    assert_eq!(text(&output.stdout).trim(), "3", "{}", text(&output.stderr));
}

/// The keys on a partition of `articles` from the given key on.
fn behind(kafka: &bus::Options, key: &str) -> BTreeSet<String> {
    let entries = read(kafka, topics::ARTICLES);
    let first = entries.iter().find(|entry| entry.key.as_deref() == Some(key)).unwrap();
    let (partition, offset) = (first.partition, first.offset);
    let behind = entries.iter().filter(|entry| entry.partition == partition && entry.offset >= offset);
    behind.map(|entry| entry.key.clone().unwrap()).collect()
}

#[test]
fn articles_wait_for_a_registry_that_is_away_and_none_is_refused() {
    let Some(apicurio) = Apicurio::get() else { return };
    let Some(cluster) = Cluster::start() else { return };
    let mut edge = Edge::new(apicurio);
    let kafka = with(&cluster, "a", edge.options());
    let everything = with(&cluster, "reader", apicurio.options());
    let subjects = Subjects::new(&apicurio.options()).unwrap().unwrap();
    cluster.runtime.block_on(subjects.create(&cluster.topics())).unwrap();
    cluster.publish((0..20).map(article));

    // Away at the start: nothing is consumed, an end is heard, and it begins when the registry is there.
    let waits_at_start = |running: &Running| {
        wait_until("the worker tells what it waits for", || running.status.snapshot().schema_registry.is_some());
        assert_eq!((running.status.snapshot().state, running.status.ready()), (State::Starting, false));
    };
    let stopped = Running::start(&cluster, &kafka, Stop::Never);
    waits_at_start(&stopped);
    let asked = Instant::now();
    assert_eq!(stopped.stop().unwrap(), Summary::default());
    assert!(asked.elapsed() < Duration::from_secs(20), "{:?}", asked.elapsed());
    let running = Running::start(&cluster, &kafka, Stop::Never);
    waits_at_start(&running);
    edge.up();
    wait_until("what was there is done", || running.status.snapshot().articles == 20);
    wait_until("it is ready", || running.status.ready());

    // Away later: what is known goes on, what is not waits with what comes behind it in its partition.
    let schemas = [older("mesh"), older("journal"), older("revised"), older("published")];
    let ids: Vec<u32> = schemas.iter().map(|schema| apicurio.register("articles-value", schema)).collect();
    let foreign = |number: usize, which: usize| {
        send(&cluster, &format!("pmid:{number}"), written_by(&schemas[which], ids[which], &article(number)));
    };
    foreign(100, 0);
    wait_until("its schema is known", || running.status.snapshot().articles == 21);
    edge.down();
    foreign(101, 1);
    foreign(102, 0);
    cluster.publish((110..150).map(article));
    let waiting = behind(&everything, "pmid:101");
    let goes_on = 21 + 42 - waiting.len() as u64;
    assert!(goes_on > 21 && !waiting.is_empty());
    wait_until("the others are done", || running.status.snapshot().articles == goes_on);
    wait_until("it says what it waits for", || running.status.snapshot().schema_registry.is_some());
    assert!(running.status.live() && !running.status.ready());
    edge.set(Mode::Instead(503, "overloaded".into()));
    edge.up();
    let before = edge.requests();
    wait_until("it asks again", || edge.requests() > before);
    assert!(annotated(&everything).is_disjoint(&waiting));
    edge.set(Mode::Pass);
    wait_until("what waited is done", || running.status.snapshot().articles == 63);
    wait_until("it is ready again", || running.status.ready());
    assert_eq!(running.status.snapshot().dead_letters, 0);

    // A model that is to be swapped in with types of its own is tried again.
    edge.down();
    let outputs = Outputs::new(&kafka).unwrap();
    let refused = cluster.runtime.block_on(outputs.admit(&["Gene".to_owned()])).unwrap_err();
    assert_eq!(reload::Error::Topics(refused).class(), ErrorClass::Retriable);

    // It can end while it waits, and its successor does what is left.
    foreign(200, 2);
    wait_until("it waits", || running.status.snapshot().schema_registry.is_some());
    let summary = running.stop().unwrap();
    assert_eq!((summary.articles, summary.left), (63, 1));
    edge.up();
    let summary = Running::start(&cluster, &kafka, Stop::AtEnd).end().unwrap();
    assert_eq!((summary.tagged, summary.dead_letters, summary.left), (1, 0, 0));

    // A registry that refuses to answer is another thing: that does not pass, and nothing is refused for it either.
    let running = Running::start(&cluster, &kafka, Stop::Never);
    wait_until("it has begun", || running.status.ready());
    edge.set(Mode::Instead(401, "who are you?".into()));
    foreign(201, 3);
    let error = running.end().unwrap_err();
    assert_eq!(error.class(), ErrorClass::Fatal);
    assert!(error.to_string().contains("kafka.schema_registry.username"), "{error}");
    edge.set(Mode::Pass);
    let summary = Running::start(&cluster, &kafka, Stop::AtEnd).end().unwrap();
    assert_eq!((summary.tagged, summary.dead_letters), (1, 0));

    let all = (0..20).chain([100, 101, 102]).chain(110..150).chain([200, 201]);
    assert_eq!(annotated(&everything), all.map(|number| format!("pmid:{number}")).collect());
    assert!(read(&everything, topics::DEAD_LETTERS).is_empty());
}

/// Asks for the id of the schema of `articles`, once.
fn ask(options: &Options) -> Result<(), Error> {
    let registry = Registry::new(options).unwrap().unwrap();
    futures::executor::block_on(registry.admit(topics::ARTICLES))
}

/// The message of a refusal, which no waiting changes.
fn refused(options: &Options) -> String {
    let error = ask(options).unwrap_err();
    assert!(matches!(error, Error::Refused { .. }) && error.class() == ErrorClass::Fatal, "{error}");
    error.to_string()
}

/// Why it is as if there were no registry.
fn absent(options: &Options) -> String {
    let error = ask(options).unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }) && error.class() == ErrorClass::Retriable, "{error}");
    error.to_string()
}

fn registered(apicurio: &Apicurio) {
    let subjects = Subjects::new(&apicurio.options()).unwrap().unwrap();
    futures::executor::block_on(tokio::runtime::Runtime::new().unwrap().spawn(async move {
        subjects.create(&topics::all(&[]).unwrap()).await.unwrap();
    }))
    .unwrap();
}

#[test]
fn credentials_and_certificates_open_the_registry() {
    let Some(apicurio) = Apicurio::get() else { return };
    registered(apicurio);
    let some = |text: &str| Some(text.to_owned());

    let mut basic = Edge::with(apicurio, Some("Basic YWRhOmh1bnRlcjI="), None);
    basic.up();
    let user = |password| Options { username: some("ada"), password: some(password), ..basic.options() };
    ask(&user("hunter2")).unwrap();
    for told in [refused(&user("hunter3")), refused(&basic.options())] {
        assert!(told.contains("HTTP 401") && told.contains("kafka.schema_registry.username"), "{told}");
        assert!(!told.contains("hunter"), "{told}");
    }
    basic.set(Mode::Instead(403, r#"{"error_code":40301,"message":"no rights on articles-value"}"#.into()));
    let told = refused(&user("hunter2"));
    assert!(told.contains("articles-value") && told.contains("grant"), "{told}");

    let mut bearer = Edge::with(apicurio, Some("Bearer t0ken"), None);
    bearer.up();
    ask(&Options { token: some("t0ken"), ..bearer.options() }).unwrap();
    assert!(refused(&Options { token: some("t0k"), ..bearer.options() }).contains("kafka.schema_registry.token"));

    let folder = tempfile::tempdir().unwrap();
    let (authority, stranger) = (Certificate::authority(), Certificate::authority());
    let (ca_file, _) = authority.write(folder.path(), "ca");
    let (strange_ca, _) = stranger.write(folder.path(), "stranger");
    let tls = |certificate: &Certificate, clients: Option<&Certificate>| {
        let mut edge = Edge::with(apicurio, None, Some(certificate.acceptor(clients)));
        edge.up();
        edge
    };
    let trusting = |edge: &Edge| Options { ca_file: Some(ca_file.clone()), ..edge.options() };
    let good = tls(&authority.signed("localhost", Validity::Today), None);
    ask(&trusting(&good)).unwrap();
    for untrusted in [good.options(), Options { ca_file: Some(strange_ca), ..good.options() }] {
        let told = refused(&untrusted);
        assert!(told.contains("certificate") && told.contains("kafka.schema_registry.ca_file"), "{told}");
    }
    let expired = tls(&authority.signed("localhost", Validity::Expired), None);
    assert!(refused(&trusting(&expired)).contains("expired"));
    let elsewhere = tls(&authority.signed("elsewhere.example", Validity::Today), None);
    assert!(refused(&trusting(&elsewhere)).contains("host"));

    let mutual = tls(&authority.signed("localhost", Validity::Today), Some(&authority));
    let client = |name: &str, by: &Certificate| {
        let (certificate_file, key_file) = by.signed(name, Validity::Today).write(folder.path(), name);
        Options { certificate_file: Some(certificate_file), key_file: Some(key_file), ..trusting(&mutual) }
    };
    ask(&client("worker", &authority)).unwrap();
    assert!(refused(&trusting(&mutual)).contains("kafka.schema_registry.certificate_file"));
    ask(&client("imposter", &stranger)).unwrap_err();
    let missing = Options { ca_file: Some(folder.path().join("none.pem")), ..good.options() };
    let error = Registry::new(&missing).unwrap_err();
    assert!(matches!(&error, bus::Error::Options(told) if told.contains("none.pem")), "{error}");
}

#[test]
fn only_the_registrys_own_answer_counts() {
    let Some(apicurio) = Apicurio::get() else { return };
    registered(apicurio);
    let mut edge = Edge::new(apicurio);
    let options = edge.options();
    assert!(absent(&options).contains("refused"));
    edge.up();
    ask(&options).unwrap();
    edge.set(Mode::Slow(Duration::from_secs(10)));
    assert!(absent(&Options { timeout_ms: 100, ..options.clone() }).contains("timeout_ms"));
    let page = "<html><body>Not here</body></html>";
    let instead = [
        (500, r#"{"error_code":50001,"message":"its database is away"}"#, "its database is away"),
        (503, page, "HTTP 503"),
        (429, "", "HTTP 429"),
        (404, page, "where its API begins"),
        (404, r#"{"error_code":404,"message":"HTTP 404 Not Found"}"#, "where its API begins"),
        (302, "", "where its API begins"),
        (200, page, "where its API begins"),
        (200, r#"{"name":"another service"}"#, "cannot be understood"),
    ];
    let registry = Registry::new(&options).unwrap().unwrap();
    for (status, body, why) in instead {
        edge.set(Mode::Instead(status, body.into()));
        let told = absent(&options);
        assert!(told.contains(why), "{told}");
        // In particular, no id is unknown because of it.
        let error = registry.writer_within(999_998, Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.class(), ErrorClass::Retriable, "{error}");
    }

    edge.set(Mode::Pass);
    assert!(matches!(registry.writer_within(999_998, DEADLINE).unwrap(), Known::Nothing));
    let not_registered = futures::executor::block_on(registry.admit("entities.Unregistered")).unwrap_err();
    assert!(not_registered.to_string().contains("`litflow topics create` registers it"), "{not_registered}");

    // What it says of an id may be of no use; then the id is known for that.
    for (id, body, why) in [
        (70_001, r#"{"schema":"syntax = \"proto3\";","schemaType":"PROTOBUF"}"#.to_owned(), "PROTOBUF"),
        (70_002, r#"{"schema":"\"int\"","references":[{"name":"a","subject":"b","version":1}]}"#.to_owned(), "refers"),
        (70_003, r#"{"schema":"{"}"#.to_owned(), "no Avro schema"),
        (70_004, format!(r#"{{"schema":"{}"}}"#, "x".repeat(5 << 20)), "longer than"),
    ] {
        edge.set(Mode::Instead(200, body));
        let registry = Registry::new(&options).unwrap().unwrap();
        let known = registry.writer_within(id, DEADLINE).unwrap();
        assert!(matches!(&known, Known::Unusable(told) if told.contains(why)), "{known:?}");
    }

    // Of several addresses the first that answers does.
    let nobody = Edge::new(apicurio).options().url.unwrap();
    let several = Options { url: Some(format!("{nobody}, {}", apicurio.url())), ..options };
    ask(&several).unwrap();
}

#[test]
fn a_question_is_asked_once_for_all_who_wait() {
    let Some(apicurio) = Apicurio::get() else { return };
    let id = apicurio.register("asked-once-value", &older("language"));
    let mut edge = Edge::new(apicurio);
    let registry = Registry::new(&edge.options()).unwrap().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let tasks: Vec<_> = (0..500)
        .map(|_| {
            let registry = registry.clone();
            runtime.spawn(async move { registry.writer(id).await })
        })
        .collect();
    wait_until("they wait", || registry.trouble().is_some());
    edge.up();
    for task in tasks {
        assert!(matches!(runtime.block_on(task).unwrap().unwrap(), Known::Writer(_)));
    }
    assert_eq!((edge.requests(), registry.trouble()), (1, None));

    // A question that nobody waits for any more is not asked again.
    edge.down();
    let given_up = runtime.spawn({
        let registry = registry.clone();
        async move { registry.writer(id + 50_000).await }
    });
    wait_until("it waits", || registry.trouble().is_some());
    given_up.abort();
    wait_until("it is given up", || registry.trouble().is_none());
}

#[test]
fn an_incompatible_schema_is_refused_by_topics_create() {
    let Some(apicurio) = Apicurio::get() else { return };
    let subject = "entities.Odd-value";
    let other = json!({"type": "record", "name": "EntityMention", "namespace": "org.litflow", "fields": [
        {"name": "article_id", "type": "int"}
    ]});
    apicurio.register(subject, &other);
    let unreachable = "127.0.0.1:1"; // schemas come before topics
    let arguments = ["topics", "create", "--types", "Odd", "--bootstrap-servers", unreachable];
    let output = litflow(&apicurio.options(), &arguments);
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains(subject) && told.contains("not compatible") && told.contains("INT not compatible"), "{told}");
    let (_, versions) = apicurio.call("GET", &format!("/subjects/{subject}/versions"), None);
    assert_eq!(versions, json!([1]), "nothing was registered");
}
