//! Backfill: what other versions have tagged is tagged again by this one, beside the live stream and behind it.
//!
//! A run first surveys `articles` and `annotations` ([`plan`]): what is to be done stands on the topics, so nothing
//! else has to be remembered between runs. Then ([`run`]) it reads the newest event of each article that is due, tags
//! many at a time, and publishes what the worker would, hundreds of articles a transaction, unless a newer event has
//! come meanwhile. After each commit it looks once more, and puts right what was overtaken in between.
//! [`diff`] and [`report`] tell what the versions see differently; the older mentions wait on disk ([`spool`]).

pub mod diff;
pub mod names;
pub mod plan;
pub mod report;
mod run;
pub mod spool;
mod way;

pub use report::Report;

use crate::ErrorClass;
use crate::article::{self, Articles};
use crate::bus::exclusive::Exclusive;
use crate::bus::scan::Scan;
use crate::bus::wire::Wire;
use crate::bus::{self, topics};
use crate::claims;
use crate::tagger::{self, Tag};
use crate::worker::{self, Outputs, Stop};
use plan::Survey;
use rdkafka::message::Message as _;
use run::Run;
use std::io;
use std::sync::Arc;
use std::time::Instant;
use tokio::runtime::Handle;
use tokio::sync::watch;

/// Left: its newest event is not on `articles` any more; a file may have it.
pub const EXPIRED: &str = "expired";
/// Left: a newer event came meanwhile, which is the worker's.
pub const OVERTAKEN: &str = "overtaken";
/// Left: it was deleted meanwhile.
pub const DELETED: &str = "deleted";
/// Left: its newest annotations cannot be decoded.
pub const UNREADABLE_ANNOTATIONS: &str = "unreadable_annotations";
/// Left: a file has an article that was never annotated; `litflow ingest` publishes it.
pub const NOT_ANNOTATED: &str = "not_annotated";
/// Left: a file has another text than the one that was annotated.
pub const ANOTHER_TEXT: &str = "another_text";
/// Left: a record of a file cannot be read.
pub const UNREADABLE_RECORD: &str = "unreadable_record";

/// How to go about it.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The cluster.
    pub kafka: bus::Options,
    /// Sizes: of a transaction, of what is under way, of an article and its output.
    pub worker: worker::Options,
    /// How much is taken from raw documents.
    pub articles: article::Options,
    /// Where documents may be fetched from that are not in their events.
    pub claims: claims::Options,
    /// Who goes first.
    pub yield_to: Option<YieldTo>,
    /// Tag nothing; the report says what is to be done.
    pub dry_run: bool,
}

/// A consumer group of `articles` that goes first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct YieldTo {
    /// Its name.
    pub group: String,
    /// Nothing new is tagged from this lag on, until it has fallen to half of it.
    pub above: u64,
}

/// Where the articles' texts are taken from.
pub enum Source {
    /// The topic `articles`, as far as it keeps them.
    Topic,
    /// Files, for what the topic does not keep any more.
    Files(Box<Articles>),
}

/// What is told during a run.
pub enum Event<'a> {
    /// How far it is.
    Progress(&'a Progress),
    /// An article was left as it is: which one and why.
    LeftOut(&'a str),
}

/// How far a run is.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    /// What it does now.
    pub phase: Phase,
    /// Articles to be done; none where that is not known, as with files.
    pub due: Option<u64>,
    /// Articles dealt with: tagged or left.
    pub done: u64,
    /// Mentions found.
    pub mentions: u64,
    /// Articles tagged again and committed.
    pub retagged: u64,
}

/// What a run does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Phase {
    /// It takes its place.
    #[default]
    Starting,
    /// It reads what there is: so many records so far.
    Surveying(u64),
    /// It tags.
    Tagging,
    /// A batch is about to be committed.
    Committing,
    /// It waits for the group that goes first, which is so far behind.
    Yielding(u64),
}

/// Why a run ended early.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Options that cannot work.
    #[error("{0}")]
    Options(String),
    /// The cluster.
    #[error(transparent)]
    Bus(#[from] bus::Error),
    /// Another run for a model of this name has begun.
    #[error("another backfill by {model} has begun; what this one has committed stays")]
    Replaced {
        /// The model's name.
        model: String,
    },
    /// The file that keeps the older annotations.
    #[error("the temporary file with the older annotations: {0}; TMPDIR names another folder for it")]
    Spool(#[source] io::Error),
    /// The tagger has stopped.
    #[error(transparent)]
    Tagger(tagger::Error),
}

impl Error {
    /// Fatal: it must be started again, and then goes on where it was.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Bus(error) => error.class(),
            Self::Options(_) | Self::Replaced { .. } | Self::Spool(_) | Self::Tagger(_) => ErrorClass::Fatal,
        }
    }
}

/// Why work stops before its end.
enum Halt {
    /// Somebody asked for it.
    Asked,
    Failed(Error),
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<bus::Error> for Halt {
    fn from(error: bus::Error) -> Self {
        Self::Failed(error.into())
    }
}

/// A run that has not started.
pub struct Backfill {
    options: Options,
    tagger: Arc<dyn Tag>,
    outputs: Arc<Outputs>,
    runtime: Handle,
}

impl Backfill {
    /// Checks the options. Articles are tagged by tasks on `runtime`.
    pub fn build(options: Options, tagger: Arc<dyn Tag>, runtime: Handle) -> Result<Self, Error> {
        options.worker.check().map_err(Error::Options)?;
        options.kafka.check()?;
        if options.yield_to.as_ref().is_some_and(|yield_to| yield_to.group.trim().is_empty()) {
            return Err(Error::Options("the group to yield to has no name".into()));
        }
        let outputs = Arc::new(Outputs::new(&options.kafka)?);
        Ok(Self { options, tagger, outputs, runtime })
    }

    /// Works until everything is done, `stop` says [`Stop::Now`] or an error ends it. What was committed stays, and
    /// the next run goes on from there. Blocks, as [`Worker::run`](crate::worker::Worker::run) does.
    pub fn run(
        self,
        source: Source,
        stop: &watch::Receiver<Stop>,
        tell: &mut dyn FnMut(Event<'_>),
    ) -> Result<Report, Error> {
        let began = Instant::now();
        let model = self.tagger.model();
        self.runtime.block_on(self.outputs.admit(&self.tagger.entity_types()))?;
        // First of all: whatever an earlier run has committed can be read from here on, and it commits no more.
        let writer = match self.options.dry_run {
            true => None,
            false => Some(Exclusive::take(&self.options.kafka, &transactional_id(&model.name))?),
        };
        let mut report = match survey(&self.options.kafka, self.outputs.wire(), &model.digest, stop, tell) {
            Ok((survey, follower)) => Run::new(self, stop, tell, writer, survey, follower)?.work(source)?,
            Err(Halt::Failed(error)) => return Err(error),
            Err(Halt::Asked) => Report { interrupted: true, ..Report::new((*model).clone()) },
        };
        report.seconds = began.elapsed().as_secs_f64();
        Ok(report)
    }
}

/// Of all runs for a model of this name: a second one takes the place of the first.
fn transactional_id(model: &str) -> String {
    format!("litflow-backfill-{model}")
}

/// Reads both topics; the scan goes on with the events that come later.
fn survey(
    kafka: &bus::Options,
    wire: &Wire,
    digest: &str,
    stop: &watch::Receiver<Stop>,
    tell: &mut dyn FnMut(Event<'_>),
) -> Result<(Survey, Scan), Halt> {
    const TELL_EVERY: u64 = 1_000;
    let mut survey = Survey::new(digest).map_err(Error::Spool)?;
    let mut records = 0;
    let mut count = || {
        records += 1;
        if records % TELL_EVERY == 1 {
            tell(Event::Progress(&Progress { phase: Phase::Surveying(records), ..Progress::default() }));
        }
        if *stop.borrow() == Stop::Now { Err(Halt::Asked) } else { Ok(()) }
    };
    let mut articles = Scan::new(kafka, topics::ARTICLES)?;
    articles.catch_up(|message| {
        survey.event(message.key().unwrap_or_default(), message.partition(), message.offset());
        count()
    })?;
    survey.end_of_events(articles.position().clone());
    Scan::new(kafka, topics::ANNOTATIONS)?.catch_up_with_all(|message| {
        let annotations = message.payload().map(|value| wire.decode_blocking(value)).transpose();
        let annotations = annotations.map_err(bus::Error::from)?;
        survey.annotations(message.key().unwrap_or_default(), annotations).map_err(Error::Spool)?;
        count()
    })?;
    Ok((survey, articles))
}
