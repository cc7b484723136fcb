//! The worker: articles in, annotations and entities out, exactly once.
//!
//! [`Worker::run`] consumes `articles`, has many of them tagged at a time, and publishes what they become
//! together with the offsets, hundreds of articles a transaction. What cannot be processed goes to the dead
//! letters in the same transaction; if those cannot be written, the partition stands still rather than skip.
//! `process` turns one record into records, `order` has the oldest tagged first, `window` holds what is being worked
//! on, `transaction` what is on its way to one commit, `halts` what stands still, `stream` is the loop.

mod background;
mod claim;
pub mod dead_letter;
mod ends;
mod halts;
mod order;
mod outputs;
pub(crate) mod process;
pub mod reload;
pub mod rollback;
pub mod shadow;
mod shutdown;
mod status;
mod stream;
mod transaction;
mod watchdog;
mod window;

pub use halts::Halt;
pub use outputs::Outputs;
pub use status::{Snapshot, State, Status};

use crate::ErrorClass;
use crate::article;
use crate::bus::consumer::Consumer;
use crate::bus::producer::{Delivery, Patience, Producer};
use crate::bus::{self, topics};
use crate::claims::Claims;
use crate::tagger::{self, Tag};
use process::Limits;
use serde::{Deserialize, Serialize};
use shutdown::Shutdown;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::watch;
use watchdog::Watchdog;

/// The section `worker` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// `exactly_once`, or `at_least_once` for a cluster without transactions.
    pub delivery: Delivery,
    /// A transaction is committed after so many articles …
    pub transaction_articles: usize,
    /// … or so many bytes of output …
    pub transaction_bytes: usize,
    /// … or so many milliseconds after its first article.
    pub transaction_interval_ms: u64,
    /// The most articles that are worked on at a time; it should outlast a commit.
    pub in_flight_articles: usize,
    /// The most bytes of articles that are worked on at a time. A single larger article passes alone.
    pub in_flight_bytes: usize,
    /// A larger article event is refused.
    pub article_max_bytes: usize,
    /// An article that becomes more than this is refused.
    pub output_max_bytes: usize,
    /// How long articles on their way may take when the worker ends or loses partitions; what is not done by
    /// then is left to the next owner.
    pub drain_timeout_ms: u64,
    /// A worker that commits nothing for so long though articles wait is told of as stalled; 0: never.
    pub stall_timeout_ms: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            delivery: Delivery::ExactlyOnce,
            transaction_articles: 500,
            transaction_bytes: 16 << 20,
            transaction_interval_ms: 500,
            in_flight_articles: 1_000,
            in_flight_bytes: 64 << 20,
            article_max_bytes: 16 << 20,
            output_max_bytes: 64 << 20,
            drain_timeout_ms: 10_000,
            stall_timeout_ms: 300_000,
        }
    }
}

impl Options {
    /// Refuses what cannot work, naming the key.
    pub fn check(&self) -> Result<(), String> {
        let too_small = |key: &str| Err(format!("worker.{key} must be at least 1"));
        match self {
            Self { transaction_articles: 0, .. } => too_small("transaction_articles"),
            Self { transaction_bytes: 0, .. } => too_small("transaction_bytes"),
            Self { in_flight_articles: 0, .. } => too_small("in_flight_articles"),
            Self { in_flight_bytes: 0, .. } => too_small("in_flight_bytes"),
            Self { article_max_bytes: 0, .. } => too_small("article_max_bytes"),
            Self { output_max_bytes: 0, .. } => too_small("output_max_bytes"),
            Self { transaction_interval_ms: 10_001.., .. } => {
                Err("worker.transaction_interval_ms must be at most 10000: a transaction times out after 15 s".into())
            }
            _ => Ok(()),
        }
    }

    fn transaction_interval(&self) -> Duration {
        Duration::from_millis(self.transaction_interval_ms)
    }

    fn drain_timeout(&self) -> Duration {
        Duration::from_millis(self.drain_timeout_ms)
    }

    fn stall_timeout(&self) -> Option<Duration> {
        (self.stall_timeout_ms > 0).then(|| Duration::from_millis(self.stall_timeout_ms))
    }
}

/// When a worker is to end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Stop {
    /// Not yet.
    #[default]
    Never,
    /// When all that its partitions hold at the moment this is said has been worked up and committed. A
    /// worker without a partition waits for one.
    AtEnd,
    /// Now: drain, commit and leave.
    Now,
}

/// What a worker did, as far as it was committed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Articles worked up: tagged, deleted or refused.
    pub articles: u64,
    /// Articles that were tagged.
    pub tagged: u64,
    /// Articles deleted or retracted.
    pub tombstones: u64,
    /// Articles refused.
    pub dead_letters: u64,
    /// Sentences of the tagged articles.
    pub sentences: u64,
    /// Word pieces that went through the encoder.
    pub tokens: u64,
    /// Mentions by entity type.
    pub mentions: BTreeMap<String, u64>,
    /// Articles that were on their way when the time to drain was over: the next worker does them.
    pub left: u64,
    /// Transactions committed.
    pub transactions: u64,
    /// Transactions that failed and were done again.
    pub aborted: u64,
    /// From the first article to the last commit.
    pub seconds: f64,
}

/// Why a worker ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Options that cannot work.
    #[error("{0}")]
    Options(String),
    /// The cluster.
    #[error(transparent)]
    Bus(#[from] bus::Error),
    /// The tagger has stopped.
    #[error(transparent)]
    Tagger(tagger::Error),
    /// Dead letters cannot be written; to go on with their partitions would be to lose them.
    #[error("the dead letters of the partitions {partitions:?} cannot be written: {cause}")]
    #[allow(missing_docs)]
    DeadLetter { partitions: Vec<i32>, cause: bus::Error },
    /// All is done but for partitions that stand still.
    #[error("{topic}-{partition}@{offset} was refused ({reason}) and its dead letter cannot be written: {error}")]
    #[allow(missing_docs)]
    Halted { topic: &'static str, partition: i32, offset: i64, reason: &'static str, error: String },
}

impl Error {
    /// What it means; one of class fatal or retriable has ended the worker.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Bus(error) => error.class(),
            Self::DeadLetter { .. } => ErrorClass::Abort,
            Self::Options(_) | Self::Tagger(_) | Self::Halted { .. } => ErrorClass::Fatal,
        }
    }
}

/// A worker that has not started.
pub struct Worker {
    options: Options,
    kafka: bus::Options,
    raw: article::Options,
    tagger: Arc<dyn Tag>,
    outputs: Arc<Outputs>,
    claims: Arc<Claims>,
    runtime: Handle,
    status: Arc<Status>,
}

impl Worker {
    /// Checks the options. Articles are tagged by tasks on `runtime`.
    pub fn build(
        options: &Options,
        kafka: &bus::Options,
        raw: &article::Options,
        tagger: Arc<dyn Tag>,
        runtime: Handle,
    ) -> Result<Self, Error> {
        options.check().map_err(Error::Options)?;
        kafka.check()?;
        for entity_type in tagger.entity_types().iter() {
            topics::entities(entity_type)?;
        }
        Ok(Self {
            options: options.clone(),
            kafka: kafka.clone(),
            raw: raw.clone(),
            tagger,
            outputs: Arc::new(Outputs::new(kafka)?),
            claims: Arc::default(),
            runtime,
            status: Arc::default(),
        })
    }

    /// Shares the topics that were found with whoever replaces the tagger: a new model has types of its own.
    pub fn with_outputs(self, outputs: Arc<Outputs>) -> Self {
        Self { outputs, ..self }
    }

    /// Fetches documents that lie elsewhere by these; without, none is fetched.
    pub fn with_claims(self, claims: Claims) -> Self {
        Self { claims: Arc::new(claims), ..self }
    }

    /// What the worker says about itself while it runs.
    pub fn status(&self) -> Arc<Status> {
        self.status.clone()
    }

    /// Works until `stop` says so or an error ends it. Blocks: call it on a thread of its own or by
    /// `spawn_blocking`, not in an async task.
    pub fn run(self, stop: watch::Receiver<Stop>) -> Result<Summary, Error> {
        let status = self.status.clone();
        let shutdown = Shutdown::new(stop, self.options.drain_timeout());
        let watchdog = Watchdog::start(&self.options, &self.kafka, self.status.clone())
            .map_err(|e| Error::Options(format!("no thread can be started to watch the worker: {e}")))?;
        let result = match self.start(&shutdown) {
            Ok(stream) => stream.run(&shutdown),
            // Nothing has been consumed, so this end is an orderly one.
            Err(Error::Bus(bus::Error::GaveUp { .. })) if shutdown.has_begun() => Ok(Summary::default()),
            Err(error) => Err(error),
        };
        drop(watchdog);
        status.round(|snapshot| match &result {
            Ok(_) => snapshot.state = State::Complete,
            Err(error) => {
                snapshot.state = State::Failed;
                snapshot.error = Some(error.to_string());
            }
        });
        result
    }

    fn start(self, shutdown: &Shutdown) -> Result<stream::Stream, Error> {
        self.status.round(|_| {});
        let (deadline, status) = (shutdown.clone(), self.status.clone());
        let patience =
            Patience { over_by: Box::new(move || deadline.over_by()), tell: Box::new(move |step| status.waits(step)) };
        let producer = Producer::new(&self.kafka, self.options.delivery, patience)?;
        let entity_types = self.tagger.entity_types();
        self.runtime.block_on(self.outputs.admit_at_start(&entity_types, shutdown, &self.status))?;
        let limits = Limits {
            article: self.options.article_max_bytes,
            output: self.options.output_max_bytes,
            outputs: self.outputs,
            raw: self.raw,
            claims: self.claims,
        };
        let consumer = Consumer::new(&self.kafka, topics::ARTICLES)?;
        Ok(stream::Stream::new(self.options, consumer, producer, self.tagger, limits, self.runtime, self.status))
    }
}
