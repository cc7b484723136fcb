//! What the integration tests on a real Apache Kafka share.

#![allow(dead_code)] // each test binary uses its part

pub mod acls;
pub mod child;
pub mod disturb;
pub mod http;
pub mod nodes;
pub mod versions;

use litflow::article::{ArticleEvent, ArticleIds, Op, Passage, Section};
use litflow::bus::admin::Admin;
use litflow::bus::broker::{Local, LocalOptions};
use litflow::bus::publisher::Publisher;
pub use litflow::bus::reader::Value;
use litflow::bus::reader::{Entry, From, Reader};
use litflow::bus::{Options, topics};
use litflow::tagger::{Dictionary, Tag};
use litflow::worker::{self, Stop, Summary, Worker};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// No step of any test takes this long on the slowest machine.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// A cluster of its own for one test, with all topics.
pub struct Cluster {
    pub broker: Local,
    pub runtime: Runtime,
}

impl Cluster {
    /// Starts one; none, with a note, where there is no Java or no Kafka.
    pub fn start() -> Option<Self> {
        Self::start_with(&LocalOptions::default())
    }

    /// The same, with these options.
    pub fn start_with(options: &LocalOptions) -> Option<Self> {
        log();
        let broker = match Local::start(options) {
            Ok(broker) => broker,
            Err(reason) => {
                eprintln!("skipped: {reason}");
                return None;
            }
        };
        let cluster = Self { broker, runtime: Runtime::new().unwrap() };
        let created = cluster.runtime.block_on(cluster.admin().create(&cluster.topics(), None)).unwrap();
        assert_eq!(created.len(), cluster.topics().len());
        Some(cluster)
    }

    /// Ends the broker, that of [`Cluster::start_with`], and starts it again with its data and at its address.
    /// `meanwhile` there is none.
    pub fn restart(self, options: LocalOptions, meanwhile: impl FnOnce()) -> Self {
        let Self { broker, runtime } = self;
        let port = broker.bootstrap_servers().rsplit(':').next().and_then(|port| port.parse().ok());
        drop(broker);
        meanwhile();
        Self { broker: Local::start(&LocalOptions { port, ..options }).unwrap(), runtime }
    }

    pub fn topics(&self) -> Vec<topics::Topic> {
        topics::all(&dictionary().entity_types()).unwrap()
    }

    pub fn admin(&self) -> Admin {
        Admin::new(&self.options("admin")).unwrap()
    }

    /// Options for a worker of this name; group and transactional id are quick to time out.
    pub fn options(&self, name: &str) -> Options {
        options(self.broker.bootstrap_servers(), name)
    }

    pub fn publisher(&self) -> Publisher {
        Publisher::new(&self.options("publisher"), None).unwrap()
    }

    /// Publishes articles and waits until they are delivered.
    pub fn publish(&self, events: impl IntoIterator<Item = ArticleEvent>) {
        let mut publisher = self.publisher();
        for event in events {
            publisher.article(&event).unwrap();
        }
        publisher.finish().unwrap();
    }

    /// Runs a worker until it has worked up what is there.
    pub fn work(&self, name: &str) -> Summary {
        self.work_with(name, &worker::Options::default())
    }

    pub fn work_with(&self, name: &str, options: &worker::Options) -> Summary {
        let (_stop, stopped) = watch::channel(Stop::AtEnd);
        self.worker(name, options).run(stopped).unwrap()
    }

    pub fn worker(&self, name: &str, options: &worker::Options) -> Worker {
        self.worker_at(&self.options(name), options)
    }

    /// One that reaches the cluster in its own way.
    pub fn worker_at(&self, kafka: &Options, options: &worker::Options) -> Worker {
        let handle = self.runtime.handle().clone();
        Worker::build(options, kafka, &Default::default(), Arc::new(dictionary()), handle).unwrap()
    }

    /// Deletes a topic, and returns when the cluster has forgotten it.
    pub fn delete_topic(&self, topic: &str) {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.broker.bootstrap_servers());
        let admin: AdminClient<DefaultClientContext> = config.create().unwrap();
        self.runtime.block_on(admin.delete_topics(&[topic], &AdminOptions::new())).unwrap()[0].as_ref().unwrap();
        wait_until("the topic is gone", || {
            let metadata = admin.inner().fetch_metadata(None, DEADLINE).unwrap();
            metadata.topics().iter().all(|found| found.name() != topic)
        });
    }

    /// All committed records of a topic.
    pub fn read(&self, topic: &str) -> Vec<Entry> {
        let mut reader = Reader::new(&self.options("reader"), &[topic], From::Beginning).unwrap();
        let deadline = Instant::now() + DEADLINE;
        let mut entries = Vec::new();
        while !reader.at_end() {
            assert!(Instant::now() < deadline, "{topic} has no end");
            entries.extend(reader.next(Duration::from_secs(1)).unwrap());
        }
        entries
    }

    /// Publishes the articles of numbers from `next` on without a pause until `condition` holds; the number of the next
    /// one.
    pub fn publish_until(
        &self,
        article: impl Fn(usize) -> ArticleEvent,
        mut next: usize,
        what: &str,
        mut condition: impl FnMut() -> bool,
    ) -> usize {
        wait_until(what, || {
            self.publish((next..next + 100).map(&article));
            next += 100;
            condition()
        });
        next
    }

    /// The version that each article was tagged by. Each is annotated once, by one of the versions whose digests are
    /// given, and every mention of it is of the same.
    pub fn version_of_each(&self, digests: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let mut version_of = BTreeMap::new();
        for entry in self.read(topics::ANNOTATIONS) {
            let Value::Annotations(annotations) = entry.value else { panic!("{entry:?}") };
            assert_eq!(digests[&annotations.model.version], annotations.model.digest);
            let earlier = version_of.insert(annotations.article_id.clone(), annotations.model.version.clone());
            assert_eq!(earlier, None, "{} twice", annotations.article_id);
        }
        let mut ids = BTreeSet::new();
        for entry in ["entities.Gene", "entities.Disease"].into_iter().flat_map(|topic| self.read(topic)) {
            let Value::Mention(mention) = entry.value else { panic!("{entry:?}") };
            assert_eq!(mention.model.version, version_of[&mention.article_id], "one article, two versions");
            assert!(ids.insert(mention.id.clone()), "{} twice", mention.id);
        }
        version_of
    }

    /// The articles of these numbers, and no others, are annotated once each, and their mentions stand once each.
    pub fn assert_each_once(&self, articles: usize) {
        let (mut keys, mut expected) = (BTreeSet::new(), BTreeSet::new());
        for entry in self.read(topics::ANNOTATIONS) {
            let Value::Annotations(annotations) = entry.value else { panic!("{entry:?}") };
            assert!(keys.insert(annotations.article_id.clone()), "{} twice", annotations.article_id);
            expected.extend(annotations.mentions.into_iter().map(|mention| mention.id));
        }
        assert_eq!(keys, (0..articles).map(|number| article(number).id).collect());
        for entry in ["entities.Gene", "entities.Disease"].into_iter().flat_map(|topic| self.read(topic)) {
            let Value::Mention(mention) = entry.value else { panic!("{entry:?}") };
            assert!(expected.remove(&mention.id), "{mention:?} stands twice, or in no annotations");
        }
        assert!(expected.is_empty(), "{} mentions are missing", expected.len());
    }

    /// Keys of all committed records of a topic, with how often each stands there, as Apache Kafka's own
    /// console consumer reads them. It knows no end of a topic, so our own reader tells how many there are.
    pub fn foreign_keys(&self, topic: &str) -> BTreeMap<String, usize> {
        let count = self.read(topic).len().to_string();
        let mut tool = self.kafka_command("org.apache.kafka.tools.consumer.ConsoleConsumer");
        tool.args(["--topic", topic, "--from-beginning", "--isolation-level", "read_committed"]);
        tool.args(["--property", "print.key=true", "--property", "print.value=false"]);
        tool.args(["--max-messages", &count, "--timeout-ms", "60000"]);
        let output = tool.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut keys = BTreeMap::new();
        // The tool's own log, on the same stream, has no ids.
        for key in String::from_utf8(output.stdout).unwrap().lines().filter(|line| line.starts_with("pmid:")) {
            *keys.entry(key.to_owned()).or_default() += 1;
        }
        keys
    }

    /// Produces `key<TAB>value` lines with Apache Kafka's own console producer.
    pub fn produce_with_java(&self, topic: &str, lines: &str) {
        let mut tool = self.kafka_command("org.apache.kafka.tools.ConsoleProducer");
        tool.args(["--topic", topic, "--property", "parse.key=true"]).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut tool = tool.spawn().unwrap();
        tool.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
        assert!(tool.wait().unwrap().success());
    }

    /// One of Apache Kafka's own tools, connected to the cluster.
    pub fn kafka_command(&self, class: &str) -> Command {
        let jars = self.broker.home().join("libs").join("*");
        let log_config = self.broker.folder().join("log4j2.xml");
        let mut command = Command::new("java");
        command
            .arg(format!("-Dlog4j2.configurationFile={}", log_config.display()))
            .args(["-Xmx128m", "-cp"])
            .arg(jars)
            .args([class, "--bootstrap-server", self.broker.bootstrap_servers()]);
        command
    }
}

/// Consumers whose assignment is lost within seconds where their loop does not come round.
pub fn impatient(protocol: &str) -> BTreeMap<String, String> {
    let protocol = match protocol {
        "consumer" => vec![("group.protocol", "consumer")],
        strategy => vec![("partition.assignment.strategy", strategy), ("session.timeout.ms", "6000")],
    };
    let common = [("max.poll.interval.ms", "6000")];
    protocol.into_iter().chain(common).map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// What the workers of this process tell, where RUST_LOG asks for it.
pub fn log() {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init(); // once
}

/// A broker that misses a member of the new protocol after seconds, too.
pub fn short_sessions() -> LocalOptions {
    let properties = [("group.consumer.min.session.timeout.ms", "1000"), ("group.consumer.session.timeout.ms", "6000")];
    let properties = properties.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    LocalOptions { properties, ..LocalOptions::default() }
}

pub fn options(servers: &str, name: &str) -> Options {
    Options {
        bootstrap_servers: servers.to_owned(),
        group_id: "workers".into(),
        transactional_id: Some(format!("workers-{name}")),
        consumer: BTreeMap::from([("session.timeout.ms".into(), "6000".into())]),
        ..Options::default()
    }
}

pub fn dictionary() -> Dictionary {
    Dictionary::new([("BRCA1", "Gene"), ("p53", "Gene"), ("breast cancer", "Disease"), ("HeLa", "CellLine")]).unwrap()
}

/// An article with two genes and a disease.
pub fn article(number: usize) -> ArticleEvent {
    ArticleEvent {
        id: format!("pmid:{number}"),
        version: 1,
        op: Op::Upsert,
        ids: ArticleIds { pmid: Some(number.to_string()), ..ArticleIds::default() },
        source: "pubmed".into(),
        published: None,
        revised: None,
        language: Some("eng".into()),
        journal: None,
        publication_types: Vec::new(),
        retracted: false,
        mesh: Vec::new(),
        title: Some("BRCA1 in breast cancer.".into()),
        passages: vec![Passage {
            section: Section::Abstract,
            heading: None,
            language: None,
            text: format!("Über article {number}. We studied p53 at length."),
        }],
        raw: None,
    }
}

/// Waits until `condition` holds; the deadline is a failure.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited too long until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
