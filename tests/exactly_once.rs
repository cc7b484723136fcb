//! Exactly-once under faults, in the shape of Apache Kafka's own `transactions_test.py`: three brokers, two workers,
//! articles in transactions, a reader of committed records beside them, and a fault each time that so many more articles
//! are committed: a broker or a worker, killed or stopped in order, in turns.
//!
//! The workers tag by a dictionary, so that the cluster is what they wait for. What is read in the end must be what a run
//! without faults gives: nothing missing, nothing twice, each key's records in the order of its articles.
//!
//! `cargo test` runs the short form; `make torture` the long one, which is ignored here.

#![allow(clippy::unwrap_used)] // a helper of a test may fail like the test

mod support;

use litflow::article::{ArticleEvent, Op};
use litflow::bus::publisher::Publisher;
use litflow::bus::reader::{Entry, From, Reader, Value};
use litflow::bus::topics;
use litflow::model::Model;
use litflow::tagger::Tag as _;
use litflow::worker;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use support::child::{self, Told};
use support::disturb::{Fault, Workers};
use support::nodes::Nodes;
use support::{article, dictionary, options};

/// Versions of each article, which share its key.
const VERSIONS: usize = 4;
/// How long nothing may be committed.
const PATIENCE: Duration = Duration::from_secs(180);

#[test]
fn in_short() {
    torture(12_000, 4, None);
}

#[test]
#[ignore = "half an hour: make torture"]
fn at_length() {
    torture(100_000, 40, None);
}

#[test]
#[ignore = "minutes of tagging: make torture"]
fn with_the_shipped_model() {
    torture(4_000, 8, Some(concat!(env!("CARGO_MANIFEST_DIR"), "/models/biored-minilm").into()));
}

#[test]
#[ignore = "a worker that the other tests start as a process"]
fn worker_process() {
    child::run();
}

/// Event `number` of `count`: the versions of an article follow one another at some distance. The last of every
/// hundredth article is its deletion; every thousandth event, about, is poison.
fn event(number: usize, count: usize) -> ArticleEvent {
    let articles = count / VERSIONS;
    let (id, version) = (number % articles, number / articles);
    let mut event = ArticleEvent { version: version as i64 + 1, ..article(id) };
    if id % 100 == 99 && version + 1 == VERSIONS {
        event.op = Op::Delete;
    }
    if number % 997 == 500 {
        event.title = None;
        event.passages.clear(); // no text at all
    }
    event
}

/// What an annotations record says: the version, or that the article is gone, and the ids of the mentions.
type State = (Option<i64>, Vec<String>);

/// What a run of the dictionary without faults leaves: the records of each key in their order, and the keys of the dead
/// letters.
fn expected(count: usize) -> (BTreeMap<String, Vec<State>>, BTreeMap<String, usize>) {
    let (mut states, mut letters): (BTreeMap<_, Vec<State>>, BTreeMap<_, usize>) = Default::default();
    let dictionary = dictionary();
    for event in (0..count).map(|number| event(number, count)) {
        if event.op == Op::Delete {
            states.entry(event.id).or_default().push((None, Vec::new()));
        } else if event.passages.is_empty() {
            *letters.entry(event.id).or_default() += 1;
        } else {
            let (id, version) = (event.id.clone(), event.version);
            let tagged = futures::executor::block_on(dictionary.tag(event.into_document())).unwrap();
            states
                .entry(id)
                .or_default()
                .push((Some(version), tagged.mentions.into_iter().map(|mention| mention.id).collect()));
        }
    }
    (states, letters)
}

fn torture(count: usize, faults: usize, model: Option<PathBuf>) {
    support::log();
    let entity_types = match &model {
        Some(model) => Model::load(model, &Default::default()).unwrap().label_set().entity_types().into(),
        None => dictionary().entity_types(),
    };
    let Some(mut nodes) = Nodes::start(&topics::all(&entity_types).unwrap()) else { return };
    let servers = nodes.servers().to_owned();
    let options_of = |name: &str| options(&servers, name);
    let mut publisher = Publisher::new(&options_of("publisher"), None).unwrap();
    for number in 0..count {
        publisher.article(&event(number, count)).unwrap();
    }
    publisher.finish().unwrap();

    let options = worker::Options { transaction_articles: 750, in_flight_articles: 1_500, ..Default::default() };
    let began = Instant::now();
    let mut workers = Workers::start(2, |worker| {
        let told = Told::new(&servers, &worker.to_string(), options.clone());
        Told { model: model.clone(), ..told }
    });
    let mut reader = Reader::new(&options_of("reader"), &[topics::ANNOTATIONS, topics::DEAD_LETTERS], From::Beginning);
    let reader = reader.as_mut().unwrap();
    let (mut read, mut turn, mut last) = (Vec::new(), 0, Instant::now());
    while read.len() < count {
        workers.tend();
        if let Some(entry) = reader.next(Duration::from_millis(200)).unwrap() {
            read.push(entry);
            last = Instant::now();
        }
        assert!(last.elapsed() < PATIENCE, "{} of {count} were committed, then nothing", read.len());
        if turn < faults && read.len() >= (turn + 1) * count / (faults + 1) {
            let which = turn / Fault::ALL.len();
            Fault::ALL[turn % Fault::ALL.len()].befall(which, &mut nodes, &mut workers);
            (turn, last) = (turn + 1, Instant::now());
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    let fenced = workers.tend();
    workers.stop_all();
    // Whatever came twice would stand behind.
    while !reader.at_end() {
        read.extend(reader.next(Duration::from_secs(1)).unwrap());
    }
    let states = check(&read, count, model.is_some());
    check_mentions(&options_of("reader"), &entity_types, states);
    eprintln!(
        "{count} articles, {turn} faults, {fenced} workers fenced, {seconds:.0} s: none missing, none twice, each key in order"
    );
}

/// Compares what was read with what a run without faults leaves; returns the states of each key. What a model finds is
/// not known before.
fn check(read: &[Entry], count: usize, is_model: bool) -> BTreeMap<String, Vec<State>> {
    let (mut expected_states, expected_letters) = expected(count);
    let (mut states, mut letters): (BTreeMap<_, Vec<State>>, BTreeMap<_, usize>) = Default::default();
    for entry in read {
        let key = entry.key.clone().unwrap();
        match (entry.topic.as_str(), &entry.value) {
            (topics::DEAD_LETTERS, _) => *letters.entry(key).or_default() += 1,
            (_, Value::Annotations(annotations)) => {
                let ids = annotations.mentions.iter().map(|mention| mention.id.clone()).collect();
                states.entry(key).or_default().push((Some(annotations.article_version), ids));
            }
            (_, Value::Tombstone) => states.entry(key).or_default().push((None, Vec::new())),
            _ => panic!("{entry:?}"),
        }
    }
    assert_eq!(letters, expected_letters);
    if is_model {
        let mentions_of =
            |key: &str, at: usize| states.get(key).and_then(|states| states.get(at)).map(|state| state.1.clone());
        for (key, expected) in &mut expected_states {
            for (at, state) in expected.iter_mut().enumerate() {
                state.1 = mentions_of(key, at).unwrap_or_default();
            }
        }
    }
    let wrong: Vec<_> = expected_states.iter().filter(|(key, expected)| states.get(*key) != Some(*expected)).collect();
    let found = wrong.first().and_then(|(key, _)| states.get(*key));
    assert!(wrong.is_empty(), "{} keys are not as they should be, as {:?}: {found:?}", wrong.len(), wrong[0]);
    assert_eq!(states.len(), expected_states.len());
    states
}

/// The entity topics hold the mentions of all the annotations, each once.
fn check_mentions(kafka: &litflow::bus::Options, entity_types: &[String], states: BTreeMap<String, Vec<State>>) {
    let mut expected: BTreeSet<String> = states.into_values().flatten().flat_map(|(_, mentions)| mentions).collect();
    for entity_type in entity_types {
        let topic = topics::entities(entity_type).unwrap();
        let mut reader = Reader::new(kafka, &[&topic], From::Beginning).unwrap();
        while !reader.at_end() {
            let Some(entry) = reader.next(Duration::from_secs(5)).unwrap() else { continue };
            let Value::Mention(mention) = entry.value else { panic!("{entry:?}") };
            assert!(expected.remove(&mention.id), "{mention:?} stands twice, or should not be there");
        }
    }
    assert!(expected.is_empty(), "{} mentions are missing", expected.len());
}
