//! Shadow mode: the candidate tags a sample of the live articles, too, and publishes nothing.
//!
//! A thread of its own, at lower priority, follows the alias `candidate` as [`super::reload`] follows the champion,
//! and loads it in the same way. What the champion has found in a sampled article waits for it in [`Waiting`], which
//! takes no more than fits: the stream neither waits for the candidate nor fails with it. How far the two agree is
//! counted in a [`ShadowTally`], which is published now and then and when it ends; another champion or candidate
//! begins another one. [`Comparison`] adds up what all workers have counted.

mod agreement;
mod report;
mod sample;
#[cfg(test)]
mod tests;

pub use agreement::Bounds;
pub use report::{Comparison, Report, to_cluster};
pub use sample::Waiting;

use super::background::{Background, End};
use super::reload::{Choice, Chooser, Place, Refusal, Wanted};
use crate::bus::records::{Agreement, ShadowTally};
use crate::tagger::{ModelRef, Serving, Tag, TaggedDocument};
use futures::executor::block_on;
use futures::future::join_all;
use sample::Sample;
use serde::{Deserialize, Serialize};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long samples gather, and how often is looked for another candidate.
const TICK: Duration = Duration::from_millis(500);
/// Added to the niceness of the candidate's threads: they run when the champion's leave something.
const NICENESS: libc::c_int = 10;

/// The section `shadow` of the configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// The share of the live articles, 0 to 1, that the candidate tags, too; 0: none, and no candidate is loaded.
    pub sample: f64,
    /// The candidate's model threads.
    pub threads: usize,
    /// Bytes of sampled articles that may wait for it; what does not fit is not compared.
    pub queue_bytes: usize,
    /// How often what was counted is published, in milliseconds.
    pub publish_interval_ms: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { sample: 0.0, threads: 1, queue_bytes: 16 << 20, publish_interval_ms: 10_000 }
    }
}

impl Options {
    /// Values that cannot be; the message names the key.
    pub fn check(&self) -> Result<(), String> {
        match self {
            Self { sample, .. } if !(0.0..=1.0).contains(sample) => Err("shadow.sample must be from 0 to 1".into()),
            Self { threads: 0 | 65.., .. } => Err("shadow.threads must be from 1 to 64".into()),
            Self { queue_bytes: 0, .. } => Err("shadow.queue_bytes must be at least 1".into()),
            Self { publish_interval_ms: 0..100, .. } => Err("shadow.publish_interval_ms must be at least 100".into()),
            _ => Ok(()),
        }
    }
}

/// The running thread.
pub struct Shadow {
    handle: Handle,
    background: Background,
}

/// Asks for what is known.
#[derive(Clone)]
pub struct Handle(Arc<Mutex<Snapshot>>);

/// The candidate, and how far it agrees with the champion in force.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Snapshot {
    /// The candidate; none where there is none.
    pub candidate: Option<ModelRef>,
    /// Why it is not compared; none where it is.
    pub refused: Option<Refusal>,
    /// Articles that both have tagged.
    pub articles: i64,
    /// Articles that only the candidate failed at.
    pub failed: i64,
    /// Sampled articles that were not compared, because too many were waiting.
    pub dropped: i64,
    /// Strict F1 against the champion.
    pub f1: Option<f64>,
    /// What an article costs, in times of what it costs the champion.
    pub latency_ratio: Option<f64>,
}

impl Shadow {
    /// Starts the thread, which compares the candidate that `chooser` chooses with what `serving` made of the
    /// articles in `waiting`, and has `report` tell of it in the name of `worker`.
    ///
    /// # Errors
    /// Where no thread can be started.
    pub fn start(
        options: &Options,
        waiting: Arc<Waiting>,
        serving: Arc<Serving>,
        chooser: Chooser,
        report: Report,
        worker: String,
    ) -> std::io::Result<Self> {
        let handle = Handle(Arc::default());
        let interval = Duration::from_millis(options.publish_interval_ms);
        let mut comparer = Comparer {
            serving,
            chooser,
            waiting,
            report,
            worker,
            interval,
            snapshot: handle.clone(),
            candidate: None,
            tally: None,
            due: None,
        };
        let background = Background::start("shadow", move |stopped| {
            step_back();
            tch::set_num_threads(1); // the cores belong to the articles
            while !stopped.load(Ordering::Relaxed) {
                comparer.round(TICK, Instant::now());
            }
            comparer.publish();
        })?;
        Ok(Self { handle, background })
    }

    /// To ask with.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Has the thread publish what it has counted and end, and waits for that at most `grace`. Blocks.
    pub fn end(self, grace: Duration) -> End {
        self.background.end(grace)
    }
}

impl Handle {
    /// What is known now.
    pub fn snapshot(&self) -> Snapshot {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, snapshot: Snapshot) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = snapshot;
    }
}

/// Loads the candidate, compares and counts.
struct Comparer {
    serving: Arc<Serving>,
    chooser: Chooser,
    waiting: Arc<Waiting>,
    report: Report,
    worker: String,
    interval: Duration,
    snapshot: Handle,
    candidate: Option<Box<dyn Tag>>,
    /// Of the champion in force and the version that is to be the candidate, where there is one.
    tally: Option<ShadowTally>,
    /// When the tally is to be published; none while nothing has come to it since it was.
    due: Option<Instant>,
}

impl Comparer {
    fn round(&mut self, wait: Duration, now: Instant) {
        self.follow(now);
        let (samples, dropped) = self.waiting.take(wait);
        if !samples.is_empty() || dropped > 0 {
            self.compare(samples, dropped);
            self.due.get_or_insert(now + self.interval);
        }
        if self.due.is_some_and(|due| due <= now) {
            self.publish();
        }
        self.tell();
    }

    /// Looks which versions are to be compared, and loads the candidate where it is another one.
    fn follow(&mut self, now: Instant) {
        let loaded = |candidate: &Option<Box<dyn Tag>>| candidate.as_ref().map(|tagger| tagger.model().digest.clone());
        let before = loaded(&self.candidate);
        match self.chooser.next(before.as_deref().unwrap_or_default(), false, now) {
            Choice::Take(tagger) => self.candidate = Some(tagger),
            // It was withdrawn, or another one takes its place that cannot be loaded.
            Choice::Stay if self.chooser.newest().map(|wanted| &wanted.digest) != before.as_ref() => {
                self.candidate = None;
            }
            Choice::Stay => {}
        }
        let champion = self.serving.model();
        let wanted = self.chooser.newest().filter(|wanted| wanted.digest != champion.digest).map(model_ref);
        let pair = |tally: &ShadowTally| (tally.champion.digest.clone(), tally.candidate.digest.clone());
        let wanted_pair = wanted.as_ref().map(|wanted| (champion.digest.clone(), wanted.digest.clone()));
        if self.tally.as_ref().map(pair) != wanted_pair {
            self.publish();
            self.tally = wanted.map(|candidate| self.begin(candidate, &champion));
            self.due = self.tally.as_ref().map(|_| now); // so that people see who compares
        }
        let refused = self.refusal().filter(|refusal| !refusal.will_retry).map(|refusal| refusal.reason);
        if let Some(tally) = self.tally.as_mut().filter(|tally| tally.refused != refused) {
            tally.refused = refused;
            self.due = Some(now);
        }
        let compared = self.tally.is_some() && self.candidate.is_some();
        self.waiting.take_only(compared.then_some(champion.digest.as_str()));
    }

    fn begin(&self, candidate: ModelRef, champion: &ModelRef) -> ShadowTally {
        tracing::info!(candidate = candidate.version, champion = champion.version, "the candidate is compared");
        let (since, champion) = (milliseconds(), champion.clone());
        let (worker, agreement) = (self.worker.clone(), Agreement::default());
        ShadowTally { candidate, champion, worker, since, updated_at: since, refused: None, agreement }
    }

    /// Why the version that is to be the candidate is not loaded.
    fn refusal(&self) -> Option<Refusal> {
        if self.candidate.is_some() { None } else { self.chooser.refusal("") }
    }

    fn compare(&mut self, samples: Vec<Sample>, dropped: i64) {
        let (Some(candidate), Some(tally)) = (&self.candidate, &mut self.tally) else { return };
        let (mut documents, mut of_champion) = (Vec::new(), Vec::new());
        for Sample { document, mentions, sentences, compute_seconds, permit } in samples {
            documents.push(document);
            of_champion.push((mentions, sentences, compute_seconds, permit));
        }
        let results = block_on(join_all(documents.into_iter().map(|document| candidate.tag(document))));
        let (before, mut last_error) = (tally.agreement.clone(), None);
        let agreement = &mut tally.agreement;
        agreement.dropped += dropped;
        for (result, (mentions, sentences, compute_seconds, _permit)) in results.into_iter().zip(of_champion) {
            match result {
                Ok(TaggedDocument { mentions: found, compute_seconds: seconds, .. }) => {
                    agreement.articles += 1;
                    agreement.sentences += sentences as i64;
                    agreement.champion_seconds += compute_seconds;
                    agreement.candidate_seconds += seconds;
                    agreement.compare(&mentions, &found);
                }
                Err(error) => {
                    agreement.failed += 1;
                    last_error = Some(error);
                }
            }
        }
        if let Some(error) = last_error {
            let (version, failed) = (&tally.candidate.version, agreement.failed - before.failed);
            tracing::warn!(version, failed, "the candidate fails at articles, at the last one because: {error}");
        }
        emit(&before, agreement);
    }

    fn publish(&mut self) {
        if let Some(tally) = self.tally.as_mut().filter(|_| self.due.is_some()) {
            tally.updated_at = milliseconds();
            (self.report)(tally);
            self.due = None;
        }
    }

    fn tell(&self) {
        metrics::gauge!("litflow_shadow_waiting_bytes").set(self.waiting.bytes() as f64);
        let mut snapshot = Snapshot { refused: self.refusal(), ..Snapshot::default() };
        if let Some(ShadowTally { candidate, agreement, .. }) = &self.tally {
            snapshot.candidate = Some(candidate.clone());
            (snapshot.articles, snapshot.failed, snapshot.dropped) =
                (agreement.articles, agreement.failed, agreement.dropped);
            (snapshot.f1, snapshot.latency_ratio) = (agreement.micro().f1(), agreement.latency_ratio());
        }
        metrics::gauge!("litflow_shadow_f1").set(snapshot.f1.unwrap_or(f64::NAN));
        metrics::gauge!("litflow_shadow_latency_ratio").set(snapshot.latency_ratio.unwrap_or(f64::NAN));
        self.snapshot.set(snapshot);
    }
}

/// One emit a round: what has come to the tally.
fn emit(before: &Agreement, after: &Agreement) {
    let grown = |of: fn(&Agreement) -> i64| (of(after) - of(before)) as u64;
    for (outcome, count) in [
        ("compared", grown(|agreement| agreement.articles)),
        ("failed", grown(|agreement| agreement.failed)),
        ("dropped", grown(|agreement| agreement.dropped)),
    ] {
        metrics::counter!("litflow_shadow_articles_total", "outcome" => outcome).increment(count);
    }
    for (outcome, count) in [
        ("agreed", grown(|agreement| agreement.micro().agreed)),
        ("added", grown(|agreement| agreement.micro().added)),
        ("missing", grown(|agreement| agreement.micro().missing)),
    ] {
        metrics::counter!("litflow_shadow_mentions_total", "outcome" => outcome).increment(count);
    }
}

/// The calling thread, and those that it starts from now on, let others go first.
fn step_back() {
    // SAFETY: the call takes plain numbers; on Linux 0 is the calling thread.
    let result = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS) };
    if result != 0 {
        tracing::warn!("the candidate's threads keep their priority: {}", std::io::Error::last_os_error());
    }
}

fn model_ref(wanted: &Wanted) -> ModelRef {
    let (name, version) = match &wanted.place {
        Place::Registry { name, version } => (name.clone(), version.clone()),
        Place::Directory(path) => (path.display().to_string(), String::new()),
    };
    ModelRef { name, version, digest: wanted.digest.clone() }
}

/// Since the epoch.
fn milliseconds() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}
