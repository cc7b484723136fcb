//! What befalls partitions and members of the group, on a real Apache Kafka: slow batches, dead letters that cannot be
//! written, static members, events that come twice or out of order.

#![allow(clippy::unwrap_used)] // a helper of a test may fail like the test

mod support;

use futures::future::BoxFuture;
use litflow::article::{ArticleEvent, Document, Op};
use litflow::bus::topics;
use litflow::tagger::{self, Dictionary, ModelRef, Tag, TaggedDocument};
use litflow::worker::{self, State, Stop, Worker};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use support::child::{self, Told};
use support::nodes::signal;
use support::{Cluster, article, dictionary, impatient, wait_until};
use tokio::sync::watch;

#[test]
#[ignore = "a worker that the other tests start as a process"]
fn worker_process() {
    child::run();
}

/// A tagger that takes long over its first document.
struct Slow(Dictionary, Duration, AtomicBool);

impl Tag for Slow {
    fn model(&self) -> Arc<ModelRef> {
        self.0.model()
    }

    fn entity_types(&self) -> Arc<[String]> {
        self.0.entity_types()
    }

    fn tag(&self, document: Document) -> BoxFuture<'_, Result<TaggedDocument, tagger::Error>> {
        Box::pin(async move {
            if !self.2.swap(true, Ordering::Relaxed) {
                tokio::time::sleep(self.1).await;
            }
            self.0.tag(document).await
        })
    }
}

#[test]
fn a_batch_slower_than_the_poll_interval_keeps_its_partitions() {
    let Some(cluster) = Cluster::start() else { return };
    cluster.publish((0..200).map(article));
    let mut kafka = cluster.options("slow");
    kafka.consumer = impatient("cooperative-sticky");
    let slow = Arc::new(Slow(dictionary(), Duration::from_secs(9), AtomicBool::new(false)));
    // The window is full long before: nothing is taken, and polling goes on.
    let options = worker::Options { transaction_articles: 10, in_flight_articles: 20, ..Default::default() };
    let runtime = cluster.runtime.handle().clone();
    let worker = Worker::build(&options, &kafka, &Default::default(), slow, runtime).unwrap();
    let (_stop, stopped) = watch::channel(Stop::AtEnd);
    let summary = worker.run(stopped).unwrap();
    assert_eq!((summary.articles, summary.aborted), (200, 0));
    assert!(summary.seconds > 9.0, "it was not slow");
    cluster.assert_each_once(200);
}

#[test]
fn a_dead_letter_that_cannot_be_written_halts_its_partition_and_no_other() {
    let Some(cluster) = Cluster::start() else { return };
    const ARTICLES: usize = 200;
    let mut kafka = cluster.options("halts");
    // How long librdkafka waits for a topic that it does not find.
    kafka.producer.insert("topic.metadata.propagation.max.ms".into(), "500".into());
    let worker = cluster.worker_at(&kafka, &worker::Options { transaction_articles: 20, ..Default::default() });
    let (status, (stop, stopped)) = (worker.status(), watch::channel(Stop::Never));
    let running = std::thread::spawn(move || worker.run(stopped));
    wait_until("the worker is ready", || status.ready());

    cluster.delete_topic(topics::DEAD_LETTERS);
    let poison = ArticleEvent { title: None, passages: Vec::new(), ..article(ARTICLES) };
    cluster.publish((0..ARTICLES / 2).map(article));
    cluster.publish([poison.clone()]);
    cluster.publish((ARTICLES / 2..ARTICLES).map(article));
    let read = cluster.read(topics::ARTICLES);
    let guilty = read.iter().find(|entry| entry.key.as_deref() == Some(&poison.id)).unwrap();
    let (partition, offset) = (guilty.partition, guilty.offset);
    let behind = read.iter().filter(|entry| entry.partition == partition && entry.offset > offset).count();
    assert!(behind > 0);
    wait_until("all other partitions are done", || status.snapshot().articles >= (ARTICLES - behind) as u64);
    wait_until("the halt is told", || !status.snapshot().halted.is_empty());
    let halted = status.snapshot().halted;
    assert_eq!((halted[0].partition, halted[0].offset, halted.len()), (partition, offset, 1), "{halted:?}");
    assert!(halted[0].error.contains(topics::DEAD_LETTERS), "{halted:?}");
    assert!(!status.ready() && status.live(), "a restart would not help");

    cluster.runtime.block_on(cluster.admin().create(&cluster.topics(), None)).unwrap();
    wait_until("the partition goes on", || status.snapshot().articles == ARTICLES as u64 + 1);
    wait_until("the worker is ready", || status.ready());
    stop.send(Stop::Now).unwrap();
    running.join().unwrap().unwrap();
    cluster.assert_each_once(ARTICLES);
    assert_eq!(cluster.read(topics::DEAD_LETTERS).len(), 1);
}

#[test]
fn a_static_member_that_is_killed_comes_back_to_its_partitions() {
    for protocol in ["cooperative-sticky", "consumer"] {
        let Some(cluster) = Cluster::start_with(&support::short_sessions()) else { return };
        let consumer = |name: &str| {
            let mut consumer = impatient(protocol);
            consumer.insert("group.instance.id".into(), name.into());
            consumer
        };
        let mut kafka = cluster.options("stays");
        kafka.consumer = consumer("stays");
        let options = worker::Options { transaction_articles: 10, in_flight_articles: 20, ..Default::default() };
        let stays = cluster.worker_at(&kafka, &options);
        let (status, (stop, stopped)) = (stays.status(), watch::channel(Stop::Never));
        let staying = std::thread::spawn(move || stays.run(stopped));
        let comes_and_goes = || {
            let told = Told::new(cluster.broker.bootstrap_servers(), "goes", options.clone());
            Told { consumer: consumer("goes"), ..told }.spawn()
        };
        let mut goes = comes_and_goes();
        wait_until("they share", || status.snapshot().partitions == 6);
        let published = cluster.publish_until(article, 0, "both are at work", || status.snapshot().articles > 20);
        goes.kill().unwrap();
        goes.wait().unwrap();
        let mut goes = comes_and_goes();
        wait_until("all is done", || {
            assert_eq!(status.snapshot().partitions, 6, "{protocol}: the one that stayed was rebalanced");
            cluster.read(topics::ANNOTATIONS).len() == published
        });
        assert_eq!(status.snapshot().state, State::Consuming);
        stop.send(Stop::Now).unwrap();
        staying.join().unwrap().unwrap();
        signal(goes.id(), libc::SIGTERM);
        assert!(goes.wait().unwrap().success());
        cluster.assert_each_once(published);
    }
}

/// What an annotations record says: the article's version and the ids of its mentions; none: it is gone.
type Annotated = Option<(i64, Vec<String>)>;

#[test]
fn articles_that_come_twice_have_the_same_ids_and_an_older_version_says_so() {
    let Some(cluster) = Cluster::start() else { return };
    cluster.publish([article(1), article(1), ArticleEvent { version: 3, ..article(2) }, article(2)]);
    cluster.publish([article(3), ArticleEvent { op: Op::Delete, version: 2, ..article(3) }]);
    assert_eq!(cluster.work("a").articles, 6);
    let mut states: BTreeMap<String, Vec<Annotated>> = BTreeMap::new();
    for entry in cluster.read(topics::ANNOTATIONS) {
        let state = match entry.value {
            support::Value::Annotations(annotations) => {
                let ids = annotations.mentions.into_iter().map(|mention| mention.id).collect();
                Some((annotations.article_version, ids))
            }
            _ => None,
        };
        states.entry(entry.key.unwrap()).or_default().push(state);
    }
    let twice = &states["pmid:1"];
    assert!(twice.len() == 2 && twice[0] == twice[1] && twice[0].as_ref().unwrap().1.len() == 3);
    // The order of the partition decides; whoever wants the newest version compares.
    let versions = states["pmid:2"].iter().map(|state| state.as_ref().unwrap().0).collect::<Vec<_>>();
    assert_eq!(versions, [3, 1]);
    assert!(states["pmid:3"].last().unwrap().is_none(), "deleted");
}
