//! The loop: hand out, collect in order, look for newer events, commit, look again.
//!
//! Everything here happens on one thread; articles are tagged elsewhere. No article is ever left with annotations of
//! an older event than another writer's before it: a newer event can have been annotated before our record was
//! written only if it stood on `articles` before our commit, so looking there after the commit finds it.

use super::diff::{Span, pairs};
use super::plan::{Due, Key, Standing, Survey};
use super::report::{Example, Named, Report};
use super::spool::Place;
use super::way::Way;
use super::{
    ANOTHER_TEXT, Backfill, DELETED, EXPIRED, Error, Event, Halt, NOT_ANNOTATED, OVERTAKEN, Options, Phase, Progress,
    Source, UNREADABLE_ANNOTATIONS, UNREADABLE_RECORD,
};
use crate::ErrorClass;
use crate::article::{ArticleEvent, Articles, Document, Op, parse_raw};
use crate::bus::codec::Record as _;
use crate::bus::exclusive::Exclusive;
use crate::bus::records::Annotations;
use crate::bus::scan::Scan;
use crate::bus::wire::Wire;
use crate::bus::{self, schema_registry, topics};
use crate::claims::Claims;
use crate::tagger::Tag;
use crate::text::CodePoints;
use crate::worker::Stop;
use crate::worker::process::{Failure, Limits, Output, process};
use rdkafka::Timestamp;
use rdkafka::message::{Message as _, OwnedMessage};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long the loop sleeps at a time, so that a stop is heard.
const NAP: Duration = Duration::from_millis(100);
/// The longest pause after a transaction that failed again and again.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

pub(super) struct Run<'t> {
    options: Options,
    tagger: Arc<dyn Tag>,
    limits: Arc<Limits>,
    runtime: Handle,
    stop: &'t watch::Receiver<Stop>,
    tell: &'t mut dyn FnMut(Event<'_>),
    /// None in a dry run.
    writer: Option<Exclusive>,
    survey: Survey,
    way: Option<Way>,

    /// On `articles`, behind the events of the survey.
    follower: Scan,
    /// Articles of which there was an event since, and whether the newest deletes it.
    newer: HashMap<Key, bool>,
    /// In the order in which they were handed out.
    in_flight: VecDeque<Working>,
    in_flight_bytes: usize,
    /// What is tagged and not committed.
    batch: Vec<Done>,
    batch_bytes: usize,
    report: Report,
    progress: Progress,
}

/// An event that is to be tagged.
#[derive(Clone)]
struct Item {
    key: Key,
    message: Arc<OwnedMessage>,
    older: Option<Place>,
    version: u32,
}

/// An event whose output waits for its commit.
struct Done {
    item: Item,
    output: Output,
}

struct Working {
    item: Item,
    bytes: usize,
    task: JoinHandle<Result<Output, Failure>>,
}

impl Drop for Working {
    /// Work that nobody waits for is given up.
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<'t> Run<'t> {
    pub fn new(
        job: Backfill,
        stop: &'t watch::Receiver<Stop>,
        tell: &'t mut dyn FnMut(Event<'_>),
        writer: Option<Exclusive>,
        survey: Survey,
        follower: Scan,
    ) -> Result<Self, Error> {
        let Backfill { options, tagger, outputs, runtime } = job;
        let limits = Arc::new(Limits {
            article: options.worker.article_max_bytes,
            output: options.worker.output_max_bytes,
            outputs,
            raw: options.articles.clone(),
            claims: Arc::new(Claims::new(&options.claims).map_err(Error::Options)?),
        });
        let way = options.yield_to.as_ref().map(|yield_to| Way::new(&options.kafka, yield_to)).transpose()?;
        Ok(Self {
            limits,
            runtime,
            stop,
            tell,
            writer,
            survey,
            way,
            follower,
            newer: HashMap::new(),
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            batch: Vec::new(),
            batch_bytes: 0,
            report: Report { dry_run: options.dry_run, ..Report::new((*tagger.model()).clone()) },
            progress: Progress { phase: Phase::Tagging, ..Progress::default() },
            options,
            tagger,
        })
    }

    /// Does what is due, and says what became of it.
    pub fn work(mut self, source: Source) -> Result<Report, Error> {
        let done = match source {
            Source::Topic => self.topic(),
            Source::Files(articles) => self.files(*articles),
        };
        match done.and_then(|()| self.collect_all()) {
            Ok(()) => {}
            Err(Halt::Asked) => {
                self.report.interrupted = true;
                self.in_flight.clear();
            }
            Err(Halt::Failed(error)) => return Err(error),
        }
        self.publish()?;
        Ok(self.report)
    }

    /// What is due, from where `articles` still has it.
    fn topic(&mut self) -> Result<(), Halt> {
        let counts = self.survey.counts();
        self.report.up_to_date = counts.up_to_date;
        let left =
            [(EXPIRED, counts.expired), (OVERTAKEN, counts.overtaken), (UNREADABLE_ANNOTATIONS, counts.unreadable)];
        left.into_iter().for_each(|(reason, articles)| self.report.leave(reason, articles));
        if self.options.dry_run {
            for (version, articles) in counts.due {
                self.report.came_from(self.survey.versions.name(version), articles);
            }
            return Ok(());
        }
        let due = self.survey.due();
        self.survey.forget_articles();
        self.progress.due = Some(counts.due.values().sum());
        self.show(Phase::Tagging);

        let begin = due.iter().filter_map(|(&partition, due)| Some((partition, due.first()?.offset))).collect();
        let ends = due.iter().filter_map(|(&partition, due)| Some((partition, due.last()?.offset + 1))).collect();
        let mut due: BTreeMap<i32, _> =
            due.into_iter().map(|(partition, due)| (partition, due.into_iter().peekable())).collect();
        let mut scan = Scan::new(&self.options.kafka, topics::ARTICLES)?;
        scan.seek(begin);
        scan.read_to(&ends, |message| {
            let Some(due) = due.get_mut(&message.partition()) else { return Ok(()) };
            while due.next_if(|due| due.offset < message.offset()).is_some() {
                self.leave(EXPIRED, None); // while the run went on
            }
            let Some(Due { older, version, .. }) = due.next_if(|due| due.offset == message.offset()) else {
                return Ok(());
            };
            let key = self.survey.keys.of(message.key().unwrap_or_default());
            self.hand_out(Item { key, message: Arc::new(message), older, version })
        })?;
        due.into_values().flatten().for_each(|_| self.leave(EXPIRED, None));
        Ok(())
    }

    /// What is due of the articles of files.
    fn files(&mut self, articles: Articles) -> Result<(), Halt> {
        self.show(Phase::Tagging);
        for article in articles {
            self.check_stop()?;
            match article {
                Ok(event) if event.op == Op::Delete || event.retracted => {} // the stream's to say
                Ok(event) => self.file(event)?,
                Err(error) => self.leave(UNREADABLE_RECORD, Some(error.to_string())),
            }
        }
        Ok(())
    }

    /// An article of a file: it is tagged as if it stood on `articles` where the event stood that was annotated.
    fn file(&mut self, event: ArticleEvent) -> Result<(), Halt> {
        let id = event.id.clone();
        let known = self.survey.get(&id).copied();
        let (older, version) = match known.map(|article| (article.standing, article.older, article.version)) {
            Some((Standing::Outdated, Some(older), version)) => (older, version),
            Some((Standing::Done, ..)) => {
                self.report.up_to_date += 1;
                return Ok(());
            }
            other => {
                let (reason, why) = match other.map(|(standing, ..)| standing) {
                    Some(Standing::Deleted) => (DELETED, "it was deleted"),
                    Some(Standing::Unreadable) => (UNREADABLE_ANNOTATIONS, "its annotations cannot be decoded"),
                    Some(Standing::Ahead | Standing::Superseded) => (OVERTAKEN, "the topic has a newer event of it"),
                    _ => (NOT_ANNOTATED, "it was never annotated; `litflow ingest` publishes it"),
                };
                self.leave(reason, Some(format!("{id}: {why}")));
                return Ok(());
            }
        };
        let annotated = self.survey.spool.get(older).map_err(Error::Spool)?;
        if !self.survey.is_text_of(&event.clone().into_document(), &annotated) {
            let why = "its text is not the one that was annotated; `litflow ingest` publishes it as a new event";
            self.leave(ANOTHER_TEXT, Some(format!("{id}: {why}")));
            return Ok(());
        }
        self.survey.set_done(&id);
        if self.options.dry_run {
            self.report.came_from(self.survey.versions.name(version), 1);
            return Ok(());
        }
        let value = match event.encode() {
            Ok(value) => value,
            Err(error) => {
                self.leave(error.reason(), Some(format!("{id}: {error}")));
                return Ok(());
            }
        };
        let (key, bytes) = (self.survey.keys.of(id.as_bytes()), Some(id.into_bytes()));
        let (topic, place) = (topics::ARTICLES.to_owned(), (annotated.partition, annotated.offset));
        let message = OwnedMessage::new(Some(value), bytes, topic, Timestamp::NotAvailable, place.0, place.1, None);
        self.hand_out(Item { key, message: Arc::new(message), older: Some(older), version })
    }

    fn hand_out(&mut self, item: Item) -> Result<(), Halt> {
        self.give_way()?;
        self.check_stop()?;
        let bytes = item.message.payload().map_or(0, <[u8]>::len);
        let worker = &self.options.worker;
        let (most_articles, most_bytes) = (worker.in_flight_articles, worker.in_flight_bytes);
        while self.in_flight.len() >= most_articles || self.in_flight_bytes >= most_bytes {
            self.collect()?;
        }
        let (message, tagger, limits) = (item.message.clone(), self.tagger.clone(), self.limits.clone());
        let task = self.runtime.spawn(async move { process(&message, &*tagger, &limits).await });
        self.in_flight_bytes += bytes;
        self.in_flight.push_back(Working { item, bytes, task });
        Ok(())
    }

    /// Waits as long as the group that goes first is behind; what is under way is finished before.
    fn give_way(&mut self) -> Result<(), Halt> {
        while let Some(lag) = self.way.as_mut().map_or(Ok(None), Way::lag)? {
            self.collect_all()?;
            self.publish()?;
            self.show(Phase::Yielding(lag));
            self.check_stop()?;
            std::thread::sleep(NAP);
        }
        if matches!(self.progress.phase, Phase::Yielding(_)) {
            self.show(Phase::Tagging);
        }
        Ok(())
    }

    fn collect_all(&mut self) -> Result<(), Halt> {
        while !self.in_flight.is_empty() {
            self.collect()?;
        }
        Ok(())
    }

    /// Waits for the article that was handed out first; commits where there is enough for a transaction.
    fn collect(&mut self) -> Result<(), Halt> {
        let Some(mut working) = self.in_flight.pop_front() else { return Ok(()) };
        self.in_flight_bytes -= working.bytes;
        let result = loop {
            let task = &mut working.task;
            match self.runtime.block_on(async { tokio::time::timeout(NAP, task).await }) {
                Ok(result) => break result,
                // A document may be waited for that its store does not give.
                Err(_) => self.check_stop()?,
            }
        };
        let item = &working.item;
        let told = |reason: &str, error: &dyn std::fmt::Display| {
            let id = String::from_utf8_lossy(item.message.key().unwrap_or_default()).into_owned();
            format!("{id}: {reason}: {error}")
        };
        match result {
            Ok(Ok(output)) => {
                self.batch_bytes += output.records.iter().map(|record| record.bytes()).sum::<usize>();
                self.progress.done += 1;
                self.progress.mentions += output.counts.mentions.values().sum::<u64>();
                self.batch.push(Done { item: item.clone(), output });
                self.show(Phase::Tagging);
            }
            Ok(Err(Failure::Refused(refusal))) => {
                let told = told(refusal.reason, &refusal.error);
                self.leave(refusal.reason, Some(told));
            }
            Ok(Err(Failure::Stopped(error))) => return Err(Error::Tagger(error).into()),
            Ok(Err(Failure::SchemaRegistry(error))) => return Err(bus::Error::from(error).into()),
            Err(error) => {
                let told = told("panic", &error);
                self.leave("panic", Some(told));
            }
        }
        let worker = &self.options.worker;
        if self.batch.len() >= worker.transaction_articles || self.batch_bytes >= worker.transaction_bytes {
            self.publish()?;
        }
        Ok(())
    }

    /// Commits the batch, but for what is overtaken, and puts right what was overtaken meanwhile.
    fn publish(&mut self) -> Result<(), Error> {
        let mut batch = std::mem::take(&mut self.batch);
        self.batch_bytes = 0;
        let mut setbacks = 0;
        loop {
            self.follow(&HashSet::new())?;
            batch.retain(|done| match self.newer.get(&done.item.key) {
                None => true,
                Some(deleted) => {
                    self.report.leave(if *deleted { DELETED } else { OVERTAKEN }, 1);
                    false
                }
            });
            if batch.is_empty() {
                return Ok(());
            }
            self.show(Phase::Committing);
            if self.commit(batch.iter().map(|done| &done.output), &mut setbacks)? {
                break;
            }
        }
        let keys = batch.iter().map(|done| done.item.key).collect();
        for done in batch {
            self.account(&done)?;
        }
        self.show(Phase::Tagging);
        self.put_right(keys)
    }

    /// True when it is committed; false when nothing was written and it may be tried again.
    fn commit<'o>(&self, outputs: impl Iterator<Item = &'o Output>, setbacks: &mut u32) -> Result<bool, Error> {
        let Some(writer) = &self.writer else { return Ok(true) };
        match writer.commit(outputs.flat_map(|output| &output.records)) {
            Ok(()) => Ok(true),
            Err(bus::Error::Fenced { .. }) => Err(Error::Replaced { model: self.report.model.name.clone() }),
            Err(error) if error.class() == ErrorClass::Abort && !self.is_stopped() => {
                tracing::warn!("the transaction failed and is done again: {error}");
                let resume = Instant::now() + Duration::from_millis(10 << (*setbacks).min(10)).min(LONGEST_PAUSE);
                *setbacks += 1;
                while let Some(left) = resume.checked_duration_since(Instant::now()).filter(|_| !self.is_stopped()) {
                    std::thread::sleep(left.min(NAP));
                }
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// An event that came until now may have been annotated before our record was written, which then hides it. So
    /// the newest event of each of these articles is tagged and published again, until no more have come.
    fn put_right(&mut self, mut keys: HashSet<Key>) -> Result<(), Error> {
        let mut events: HashMap<Key, OwnedMessage> = HashMap::new();
        let mut setbacks = 0;
        loop {
            let newer = self.follow(&keys)?;
            if newer.is_empty() && events.is_empty() {
                return Ok(());
            }
            events.extend(newer);
            let mut outputs = Vec::new();
            for message in events.values() {
                let processed = self.runtime.block_on(async {
                    tokio::select! {
                        processed = process(message, &*self.tagger, &self.limits) => Ok(processed),
                        reason = given_up(self.stop, self.limits.outputs.wire()) => Err(reason),
                    }
                });
                match processed.map_err(bus::Error::from)? {
                    Ok(output) => outputs.push(output),
                    // As the worker does it: what was annotated before stays, and the worker has its dead letter.
                    Err(Failure::Refused(refusal)) => tracing::warn!("a newer event is refused: {}", refusal.error),
                    Err(Failure::Stopped(error)) => return Err(Error::Tagger(error)),
                    Err(Failure::SchemaRegistry(error)) => return Err(bus::Error::from(error).into()),
                }
            }
            if self.commit(outputs.iter(), &mut setbacks)? {
                self.report.repaired += outputs.len() as u64;
                keys = events.drain().map(|(key, _)| key).collect();
            }
        }
    }

    /// Takes note of the events that have come, and returns the newest of each of these articles.
    fn follow(&mut self, watched: &HashSet<Key>) -> Result<HashMap<Key, OwnedMessage>, Error> {
        let Self { follower, newer, survey, limits, .. } = self;
        let mut found = HashMap::new();
        follower.catch_up(|message| {
            let key = survey.keys.of(message.key().unwrap_or_default());
            newer.insert(key, is_deletion(&message, limits.outputs.wire())?);
            if watched.contains(&key) {
                found.insert(key, message);
            }
            Ok::<(), Error>(())
        })?;
        Ok(found)
    }

    /// Counts what was committed.
    fn account(&mut self, Done { item, output }: &Done) -> Result<(), Error> {
        if output.counts.tombstones > 0 {
            self.report.deleted += 1;
            return Ok(());
        }
        self.report.retagged += 1;
        self.progress.retagged += 1;
        self.report.came_from(self.survey.versions.name(item.version), 1);
        let Some(place) = item.older else { return Ok(()) };
        let before = self.survey.spool.get(place).map_err(Error::Spool)?.spans;
        let annotations = output.records.iter().find(|record| record.topic == topics::ANNOTATIONS);
        let value = annotations.and_then(|record| record.value.as_deref()).unwrap_or_default();
        let annotations = Annotations::decode(value).expect("it was encoded a moment ago");
        let mut after = Vec::with_capacity(annotations.mentions.len());
        for mention in &annotations.mentions {
            let entity_type = self.survey.types.number(&mention.entity_type);
            let (passage, begin, end, score) = (mention.passage, mention.begin, mention.end, mention.score);
            after.push(Span { passage, begin, end, entity_type, score });
        }
        let pairs = pairs(&before, &after);
        self.report.compare(&before, &after, &pairs, |number| self.survey.types.name(number).clone());

        let mut document = None;
        for pair in pairs {
            if !self.report.wants_example(pair.change) {
                continue;
            }
            let document = document.get_or_insert_with(|| self.document(&item.message));
            let named = |span: Span| {
                let passage = document.as_ref()?.passages.get(span.passage as usize)?;
                let text = CodePoints::new(&passage.text).slice(span.begin, span.end)?.to_owned();
                Some(Named { entity_type: self.survey.types.name(span.entity_type).clone(), text })
            };
            let (before, after) = (pair.before.map(|b| before[b]), pair.after.map(|a| after[a]));
            let article_id = annotations.article_id.clone();
            let (before, after) = (before.and_then(named), after.and_then(named));
            self.report.examples.push(Example { change: pair.change, article_id, before, after });
        }
        Ok(())
    }

    /// The text of an event that was tagged.
    fn document(&self, message: &OwnedMessage) -> Option<Document> {
        let event = self.limits.outputs.wire().decode_blocking::<ArticleEvent>(message.payload()?).ok()?.ok()?;
        Some(parse_raw(event, &self.options.articles).ok()?.into_document())
    }

    fn leave(&mut self, reason: &'static str, told: Option<String>) {
        self.report.leave(reason, 1);
        self.progress.done += 1;
        if let Some(told) = told {
            (self.tell)(Event::LeftOut(&told));
        }
    }

    fn show(&mut self, phase: Phase) {
        self.progress.phase = phase;
        (self.tell)(Event::Progress(&self.progress));
    }

    fn is_stopped(&self) -> bool {
        *self.stop.borrow() == Stop::Now
    }

    fn check_stop(&self) -> Result<(), Halt> {
        if self.is_stopped() { Err(Halt::Asked) } else { Ok(()) }
    }
}

/// Done when the run is to end while an article waits for the schema registry, which may be for long; why it waits.
async fn given_up(stop: &watch::Receiver<Stop>, wire: &Wire) -> schema_registry::Error {
    loop {
        tokio::time::sleep(NAP).await;
        if let Some(reason) = wire.trouble()
            && *stop.borrow() == Stop::Now
        {
            return schema_registry::Error::Unavailable { reason };
        }
    }
}

/// Whether an event says that its article is gone, as far as the event itself tells.
fn is_deletion(message: &OwnedMessage, wire: &Wire) -> Result<bool, bus::Error> {
    let Some(value) = message.payload() else { return Ok(true) };
    let event = wire.decode_blocking::<ArticleEvent>(value)?;
    Ok(event.is_ok_and(|event| event.op == Op::Delete || event.retracted))
}
