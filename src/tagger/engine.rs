//! The engine: many documents at a time through one model.
//!
//! ```text
//! tag() ──byte budget──▶ jobs ──▶ tokenising threads ──▶ queue of windows ──▶ model threads ──▶ mentions
//!                                 split, tokenise        sort, batch          encode, decode
//! ```
//!
//! Everything is bounded: the documents in the engine by the byte budget, which is fair (first come, first
//! served; a document larger than all of it takes all of it and passes alone), and what is made of the text
//! by the queue, which holds tokenisation back. Model threads run one intra-op thread each over shared
//! weights, which beats one model on many threads by 13 to 40 %; see `docs/tagging.md`.
//!
//! When a batch fails, its documents are tried again one by one, so one document never takes others with
//! it. When the model fails even at an empty sentence, the engine stops: then it is the device or the model,
//! not the documents, and none of them is to blame.

use super::clock::Clock;
use super::decode::Decoder;
use super::document::Work;
use super::encode::{self, SentenceTokenizer};
use super::queue::{Batch, Queue};
use super::{Error, ModelRef, Tag, TaggedDocument};
use crate::article::{Document, Passage};
use crate::model::{Emissions, Model, PackedBatch};
use crossbeam_channel::{Receiver, Sender};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Instant;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// What a document takes in the engine, however little is in it.
const DOCUMENT_BYTES: usize = 1024;
/// What a passage takes beside its text: its own fields, its sentences' bounds, and each allocation's overhead.
/// Measured with three million of one word each.
const PASSAGE_BYTES: usize = 256;

/// A passage's part of the byte budget.
fn passage_bytes(passage: &Passage) -> usize {
    PASSAGE_BYTES + passage.text.len() + passage.heading.as_ref().map_or(0, String::len)
}

/// How the engine works. Nothing here changes what is found, but for rounding and `max_length`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Model threads, each with a core of its own; 0: one for each core, or 2 where the model is on a GPU.
    pub threads: usize,
    /// Threads that split and tokenise; 0: one for every four cores, at least 2.
    pub tokenizer_threads: usize,
    /// Word pieces that fill a batch; 0: 1,024 on the CPU, 16,384 on a GPU.
    pub batch_tokens: usize,
    /// The longest window in word pieces, special tokens included; 0: what the model was trained for.
    pub max_length: usize,
    /// Word pieces that neighbouring windows of a long sentence share.
    pub window_overlap: usize,
    /// Bytes of documents that may be in the engine, text and 256 for each passage; more wait their turn.
    pub queue_bytes: usize,
    /// A document with more mentions than this is refused.
    pub max_mentions: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            threads: 0,
            tokenizer_threads: 0,
            batch_tokens: 0,
            max_length: 0,
            window_overlap: 128,
            queue_bytes: 32 << 20,
            max_mentions: 1_000_000,
        }
    }
}

impl Options {
    /// Values that cannot be, with any model; the message names the key.
    pub fn check(&self) -> Result<(), String> {
        /// More than any machine has cores; a typing error must not exhaust the system's threads.
        const MOST_THREADS: usize = 1024;
        /// As for [`crate::model::Config::max_length`]: special tokens and a few of text.
        const SHORTEST: usize = 8;
        for (key, threads) in [("threads", self.threads), ("tokenizer_threads", self.tokenizer_threads)] {
            if threads > MOST_THREADS {
                return Err(format!("tagger.{key} must be at most {MOST_THREADS}"));
            }
        }
        if (1..SHORTEST).contains(&self.max_length) {
            return Err(format!("tagger.max_length must be at least {SHORTEST}, or 0 for the model's own"));
        }
        Ok(())
    }
}

/// Why an engine could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The window is longer than the model's position embeddings.
    #[error("tagger.max_length is {asked}, the model has {limit} positions: lower it, or leave it at 0")]
    MaxLength {
        /// What the options ask for.
        asked: usize,
        /// What the model can do.
        limit: usize,
    },
    /// The tokenizer cannot be used.
    #[error(transparent)]
    Tokenizer(#[from] encode::Error),
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// What runs on the model threads. [`Model`] is the one that counts; tests have others that fail or wait.
pub trait Forward: Send + Sync {
    /// Emissions of each token of the batch, or why there are none.
    fn emissions(&self, batch: &PackedBatch) -> Result<Emissions, String>;
}

impl Forward for Model {
    fn emissions(&self, batch: &PackedBatch) -> Result<Emissions, String> {
        Model::emissions(self, batch).map_err(|error| error.to_string())
    }
}

/// A model and what tagging derives from it. A document keeps the one that it began with.
pub(super) struct LoadedModel {
    pub reference: Arc<ModelRef>,
    pub entity_types: Arc<[String]>,
    pub tokenizer: SentenceTokenizer,
    pub decoder: Decoder,
    pub forward: Box<dyn Forward>,
}

/// Tags documents; see the module's documentation. Dropping it stops and joins its threads.
pub struct Engine {
    model: Arc<LoadedModel>,
    shared: Arc<Shared>,
    /// `None` once the engine is being dropped.
    jobs: Option<Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
    queue_bytes: u32,
}

struct Shared {
    queue: Queue,
    budget: Arc<Semaphore>,
    stopped: OnceLock<String>,
    max_mentions: usize,
    on_gpu: bool,
}

/// A document that waits to be split.
struct Job {
    document: Document,
    model: Arc<LoadedModel>,
    permit: OwnedSemaphorePermit,
    sender: oneshot::Sender<Result<TaggedDocument, Error>>,
}

impl Engine {
    /// Starts the engine's threads around a model.
    pub fn start(model: Model, options: &Options) -> Result<Self, StartError> {
        let limit = model.config().max_position_embeddings;
        let max_length = if options.max_length == 0 { model.config().max_length() } else { options.max_length };
        if max_length > limit {
            return Err(StartError::MaxLength { asked: max_length, limit });
        }
        let on_gpu = model.device().is_cuda();
        let model = LoadedModel {
            reference: Arc::new(model.model_ref().clone()),
            entity_types: model.label_set().entity_types().into(),
            tokenizer: SentenceTokenizer::new(model.tokenizer().clone(), max_length, options.window_overlap)?,
            decoder: Decoder::new(model.label_set(), model.head()),
            forward: Box::new(model),
        };
        Self::run(model, options, on_gpu)
    }

    pub(super) fn run(model: LoadedModel, options: &Options, on_gpu: bool) -> Result<Self, StartError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let or = |asked: usize, automatic: usize| if asked == 0 { automatic } else { asked };
        let model_threads = or(options.threads, if on_gpu { 2 } else { cores });
        let tokenizer_threads = or(options.tokenizer_threads, cores.div_ceil(4).max(2));
        let batch_tokens = or(options.batch_tokens, if on_gpu { 16_384 } else { 1_024 });
        let queue_bytes = u32::try_from(options.queue_bytes).unwrap_or(u32::MAX).max(1);

        let shared = Arc::new(Shared {
            queue: Queue::new(batch_tokens, model_threads),
            budget: Arc::new(Semaphore::new(queue_bytes as usize)),
            stopped: OnceLock::new(),
            max_mentions: options.max_mentions,
            on_gpu,
        });
        let (jobs, waiting) = crossbeam_channel::unbounded(); // bounded by the byte budget
        let mut engine = Self { model: Arc::new(model), shared, jobs: Some(jobs), threads: Vec::new(), queue_bytes };
        for index in 0..tokenizer_threads {
            let waiting = waiting.clone();
            engine.spawn(format!("tokenise-{index}"), move |shared| shared.split_documents(&waiting))?;
        }
        for index in 0..model_threads {
            let model = engine.model.clone();
            engine.spawn(format!("model-{index}"), move |shared| shared.run_model(&model))?;
        }
        Ok(engine)
    }

    /// What of the byte budget is free.
    #[cfg(test)]
    pub(super) fn free_bytes(&self) -> usize {
        self.shared.budget.available_permits()
    }

    /// Starts a thread. Should it ever panic, the engine stops rather than wait for what it held.
    fn spawn(&mut self, name: String, body: impl FnOnce(&Shared) + Send + 'static) -> Result<(), StartError> {
        let shared = self.shared.clone();
        let guarded_body = move || {
            if let Err(panic) = guarded(|| body(&shared)) {
                tracing::error!(panic, "a thread of the tagging engine panicked: the engine stops");
                shared.stop(panic);
            }
        };
        self.threads.push(std::thread::Builder::new().name(name).spawn(guarded_body)?);
        Ok(())
    }

    /// Waits for a part of the byte budget, then hands the document in.
    async fn submit(&self, document: Document) -> Result<TaggedDocument, Error> {
        let text: usize = document.passages.iter().map(|passage| passage.text.len() + 1).sum();
        if u32::try_from(text).is_err() {
            return Err(Error::Document(format!("{text} bytes of text: offsets hold less than 4 GiB")));
        }
        let share = DOCUMENT_BYTES + document.passages.iter().map(passage_bytes).sum::<usize>();
        let share = u32::try_from(share).unwrap_or(u32::MAX).min(self.queue_bytes);
        let budget = self.shared.budget.clone();
        let permit = budget.acquire_many_owned(share).await.map_err(|_| self.shared.error())?;
        let (sender, answer) = oneshot::channel();
        let job = Job { document, model: self.model.clone(), permit, sender };
        let _counted = self.shared.count_bytes(share);
        let jobs = self.jobs.as_ref().ok_or_else(|| self.shared.error())?;
        jobs.send(job).map_err(|_| self.shared.error())?;
        // An engine that stops drops what it has not answered.
        answer.await.unwrap_or_else(|_| Err(self.shared.error()))
    }
}

impl Tag for Engine {
    fn model(&self) -> Arc<ModelRef> {
        self.model.reference.clone()
    }

    fn entity_types(&self) -> Arc<[String]> {
        self.model.entity_types.clone()
    }

    fn tag(&self, document: Document) -> BoxFuture<'_, Result<TaggedDocument, Error>> {
        Box::pin(self.submit(document))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.shared.stop("it was shut down".into());
        self.jobs = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join(); // it cannot have panicked: `spawn` guards it
        }
    }
}

impl Shared {
    /// The first reason counts. Everything in the engine is dropped, and with it answered as stopped.
    fn stop(&self, reason: String) {
        let _ = self.stopped.set(reason);
        self.budget.close();
        self.queue.close();
    }

    fn error(&self) -> Error {
        Error::Stopped(self.stopped.get().cloned().unwrap_or_else(|| "its threads have ended".into()))
    }

    fn count_bytes(&self, bytes: u32) -> impl Drop {
        struct Counted(u32);
        impl Drop for Counted {
            fn drop(&mut self) {
                metrics::gauge!("litflow_tagger_queue_bytes").decrement(self.0);
            }
        }
        metrics::gauge!("litflow_tagger_queue_bytes").increment(bytes);
        Counted(bytes)
    }

    /// A tokenising thread.
    fn split_documents(&self, waiting: &Receiver<Job>) {
        for Job { document, model, permit, sender } in waiting {
            if self.stopped.get().is_some() {
                continue; // the job is dropped, its caller told
            }
            let work = Work::new(model, permit, sender, self.max_mentions);
            let article_id = document.article_id.clone();
            let split = guarded(|| self.split(&work, document)).unwrap_or_else(|panic| Err(Error::Document(panic)));
            if let Err(error) = split {
                tracing::warn!(article_id, %error, "the document cannot be split into words");
                work.fail(error);
            }
        }
    }

    /// Splits a document and queues its windows, enough for all model threads at a time.
    fn split(&self, work: &Arc<Work>, document: Document) -> Result<(), Error> {
        let (mut windows, mut rows) = (Vec::new(), 0);
        let mut started = Instant::now();
        work.split(document, |more| {
            rows += more.iter().map(|window| window.rows()).sum::<usize>();
            windows.extend(more);
            if rows < self.queue.chunk_rows() {
                return true;
            }
            rows = 0;
            record_stage("tokenise", started);
            let open = self.queue.push(std::mem::take(&mut windows));
            started = Instant::now(); // waiting for the queue is no work
            open
        })?;
        record_stage("tokenise", started);
        self.queue.push(windows);
        Ok(())
    }

    /// A model thread.
    fn run_model(&self, model: &LoadedModel) {
        tch::set_num_threads(1);
        while let Some(batch) = self.queue.next_batch() {
            metrics::counter!("litflow_tagger_batches_total").increment(1);
            metrics::histogram!("litflow_tagger_batch_tokens").record(batch.rows() as f64);
            match self.run_batch(model, &batch) {
                Ok(computed) => deliver(batch, &computed),
                Err(reason) => {
                    tracing::error!(reason, "a batch failed; its documents are tried one by one");
                    // A model that cannot even do this is broken: no document is to blame.
                    if let Err(reason) = self_test(model) {
                        tracing::error!(reason, "the model fails at an empty sentence: the engine stops");
                        return self.stop(reason);
                    }
                    batch.into_documents().into_iter().for_each(|batch| self.run_alone(model, batch));
                }
            }
        }
    }

    /// Runs the windows of one document; where they fail, the document fails.
    fn run_alone(&self, model: &LoadedModel, batch: Batch) {
        match self.run_batch(model, &batch) {
            Ok(computed) => deliver(batch, &computed),
            Err(reason) => batch.0.iter().for_each(|window| window.segment.work.fail(Error::Document(reason.clone()))),
        }
    }

    fn run_batch(&self, model: &LoadedModel, batch: &Batch) -> Result<Computed, String> {
        let (started, clock) = (Instant::now(), Clock::of_device(self.on_gpu));
        let mut packed =
            PackedBatch { ids: Vec::with_capacity(batch.rows()), lengths: Vec::with_capacity(batch.0.len()) };
        for window in &batch.0 {
            packed.ids.extend(window.input());
            packed.lengths.push(window.rows() as u32);
        }
        let emissions = forward(model, &packed)?;
        let tokens: usize = batch.0.iter().map(|window| window.pieces()).sum();
        metrics::counter!("litflow_tagger_tokens_total").increment(tokens as u64);
        record_stage("encode", started);
        Ok(Computed { emissions, seconds_a_row: clock.seconds() / batch.rows() as f64 })
    }
}

/// What the model says about a batch, and what that cost.
struct Computed {
    emissions: Emissions,
    seconds_a_row: f64,
}

fn self_test(model: &LoadedModel) -> Result<(), String> {
    let ids: Vec<u32> = model.tokenizer.input(&[]).collect();
    forward(model, &PackedBatch { lengths: vec![ids.len() as u32], ids }).map(drop)
}

/// The model's emissions, finite and as many as they should be.
fn forward(model: &LoadedModel, packed: &PackedBatch) -> Result<Emissions, String> {
    let emissions = guarded(|| model.forward.emissions(packed)).and_then(|result| result)?;
    let (labels, expected) = (model.decoder.labels(), packed.ids.len() * model.decoder.labels());
    if emissions.labels != labels || emissions.values.len() != expected {
        return Err(format!("the model gave {} scores, not {expected}", emissions.values.len()));
    }
    Ok(emissions)
}

fn deliver(batch: Batch, Computed { emissions, seconds_a_row }: &Computed) {
    let started = Instant::now();
    let mut row = 0;
    for window in batch.0 {
        let rows = row * emissions.labels..(row + window.rows()) * emissions.labels;
        row += window.rows();
        let work = window.segment.work.clone();
        let seconds = seconds_a_row * window.rows() as f64;
        if let Err(panic) = guarded(|| window.deliver(&emissions.values[rows], seconds)) {
            work.fail(Error::Document(panic));
        }
    }
    record_stage("decode", started);
}

/// Runs `body`; a panic becomes its message. What a panic leaves half-done is one document's, which is
/// answered with the error and never looked at again.
fn guarded<T>(body: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(body)).map_err(|panic| {
        let message = panic.downcast_ref::<String>().map(String::as_str);
        let message = message.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("unknown");
        format!("internal: panicked: {message}")
    })
}

fn record_stage(stage: &'static str, started: Instant) {
    metrics::histogram!("litflow_tagger_stage_seconds", "stage" => stage).record(started.elapsed().as_secs_f64());
}
