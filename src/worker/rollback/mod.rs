//! Automatic rollback: a champion that does not do its work gives way to the one before it.
//!
//! [`Watch`] counts what comes of each article, by version. When a version takes the place of another one it is on
//! trial: over its next articles, the share that fails in tagging, and the share of sentences with a mention beside
//! the same share of the version before, must stay within bounds. Where they do not, a thread of its own rolls the
//! champion back in the registry, as anybody could, and the workers follow. It is rolled back from the version that
//! was on trial and from no other, so of many workers one does it.

mod trial;

use super::background::{Background, End};
use super::reload;
use crate::bus;
use crate::registry::{self, Occasion, Registry};
use crate::tagger::{ModelRef, Observer, Serving, Tag as _};
use serde::{Deserialize, Serialize};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use trial::{Counts, Trials, Verdict};

/// How often is looked which version is in force, and how it does.
const TICK: Duration = Duration::from_millis(250);
/// The pause after a rollback that did not succeed; it doubles each time …
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// … up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The section `rollback` of the configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// The articles over which a new version is on trial; 0: none is.
    pub articles: u64,
    /// The largest share of these articles that may fail in tagging.
    pub max_failed: f64,
    /// The least share of sentences with a mention, in times of that of the version before …
    pub min_ratio: f64,
    /// … and the largest.
    pub max_ratio: f64,
    /// Sentences of each version without which their shares are not compared.
    pub min_sentences: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { articles: 0, max_failed: 0.05, min_ratio: 0.5, max_ratio: 2.0, min_sentences: 1_000 }
    }
}

impl Options {
    /// Values that cannot be; the message names the key.
    pub fn check(&self) -> Result<(), String> {
        let Self { max_failed, min_ratio, max_ratio, .. } = *self;
        if !(0.0..=1.0).contains(&max_failed) {
            return Err("rollback.max_failed must be from 0 to 1".into());
        }
        if !(0.0..=1.0).contains(&min_ratio) {
            return Err("rollback.min_ratio must be from 0 to 1".into());
        }
        if !max_ratio.is_finite() || max_ratio < 1.0 {
            return Err("rollback.max_ratio must be at least 1".into());
        }
        if self.min_sentences == 0 {
            return Err("rollback.min_sentences must be at least 1".into());
        }
        Ok(())
    }
}

/// Counts, on the tasks that tag.
pub struct Watch(Mutex<Trials>);

impl Watch {
    /// Trusts the version in force, `serving`.
    pub fn new(options: &Options, serving: Arc<ModelRef>) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Trials::new(options, serving))))
    }

    /// What [`Serving`] is to tell of each article.
    pub fn observer(self: &Arc<Self>) -> Observer {
        let watch = self.clone();
        Box::new(move |model, result| {
            let counts = match result {
                Ok(tagged) => Counts::of(Some(tagged)),
                Err(crate::tagger::Error::Document(_)) => Counts::of(None),
                Err(crate::tagger::Error::Stopped(_)) => return, // the worker ends: no article is to blame
            };
            watch.lock().count(model, &counts);
        })
    }

    /// No state in it is half-done when whoever holds it panics.
    fn lock(&self) -> MutexGuard<'_, Trials> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Rolls the champion back from this version, for this reason; whether it did: nothing is to be done where the
/// version is not the champion any more, or somebody went back to it.
pub type Act = Box<dyn FnMut(&ModelRef, &str) -> Result<bool, registry::Error> + Send>;

/// Does so in the registry, in the name of `worker`.
pub fn in_registry(options: registry::Options, kafka: bus::Options, worker: String) -> Act {
    Box::new(move |model, reason| {
        let registry = Registry::open(&options, &kafka)?;
        let occasion = Occasion::now(&worker, &format!("automatic rollback: {reason}"));
        registry.rollback_from(&model.name, &model.digest, &occasion).map(|moved| moved.changed)
    })
}

/// The version on trial, for those who watch.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Snapshot {
    /// The version that is on trial, or was the last.
    pub version: ModelRef,
    /// Articles that it was given in its trial.
    pub articles: u64,
    /// Those that failed in tagging.
    pub failed: u64,
    /// What was found; none while it is on trial.
    pub verdict: Option<String>,
    /// Whether it has passed.
    pub passed: Option<bool>,
}

/// Asks for what is known.
#[derive(Clone)]
pub struct Handle(Arc<Mutex<Option<Snapshot>>>);

impl Handle {
    /// The last trial; none where there was none yet.
    pub fn snapshot(&self) -> Option<Snapshot> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The running thread.
pub struct Rollback {
    handle: Handle,
    background: Background,
}

impl Rollback {
    /// Starts the thread, which has `act` roll back a version that `watch` finds failing, and `reload` look for the
    /// one before it. Without `act` it only tells.
    ///
    /// # Errors
    /// Where no thread can be started.
    pub fn start(
        watch: Arc<Watch>,
        serving: Arc<Serving>,
        reload: reload::Handle,
        act: Option<Act>,
    ) -> std::io::Result<Self> {
        let handle = Handle(Arc::default());
        let mut judge = Judge { watch, serving, act, failed: None, snapshot: handle.clone() };
        let background = Background::start("rollback", move |stopped| {
            while !stopped.load(Ordering::Relaxed) {
                if judge.round(Instant::now()) {
                    // Also where model.follow is off: it was asked for by whoever switched this on.
                    futures::executor::block_on(reload.look_now());
                }
                std::thread::sleep(TICK);
            }
        })?;
        Ok(Self { handle, background })
    }

    /// To ask with.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Has the thread end, after what it is at, and waits for that at most `grace`. Blocks.
    pub fn end(self, grace: Duration) -> End {
        self.background.end(grace)
    }
}

/// Passes sentence.
struct Judge {
    watch: Arc<Watch>,
    serving: Arc<Serving>,
    act: Option<Act>,
    /// The version that is to be rolled back.
    failed: Option<Failed>,
    snapshot: Handle,
}

struct Failed {
    model: Arc<ModelRef>,
    reason: String,
    attempts: u32,
    retry_at: Instant,
}

impl Judge {
    /// Whether the champion was rolled back, by this worker or another one.
    fn round(&mut self, now: Instant) -> bool {
        let serving = self.serving.model();
        let (on_trial, verdict) = {
            let mut trials = self.watch.lock();
            trials.in_force(&serving);
            let on_trial = trials.on_trial().map(|(model, counts)| (model.clone(), counts));
            (on_trial, trials.verdict())
        };
        self.tell(on_trial, verdict.as_ref());
        match verdict {
            Some((model, Verdict::Failed(reason))) => {
                self.failed = Some(Failed { model, reason, attempts: 0, retry_at: now });
            }
            Some((_, Verdict::Passed(_))) | None => {}
        }
        // Whoever has replaced it meanwhile has done what was to be done.
        let failed = self.failed.take().filter(|failed| failed.model.digest == serving.digest);
        match failed {
            Some(failed) if failed.retry_at <= now => self.roll_back(failed, now),
            waiting => {
                self.failed = waiting;
                false
            }
        }
    }

    fn roll_back(&mut self, mut failed: Failed, now: Instant) -> bool {
        let Failed { model, reason, .. } = &failed;
        let Some(act) = &mut self.act else { return false }; // it was told, which is all that can be done
        match act(model, reason) {
            Ok(true) => {
                metrics::counter!("litflow_rollback_done_total").increment(1);
                tracing::error!(
                    version = model.version,
                    digest = model.digest,
                    "the champion is rolled back: {reason}"
                );
                true
            }
            Ok(false) => {
                tracing::info!(version = model.version, "the champion is another one already, or was gone back to");
                true
            }
            Err(error) if error.class() == crate::ErrorClass::Poison => {
                tracing::error!(version = model.version, "the champion cannot be rolled back: {error}");
                false
            }
            Err(error) => {
                let pause = FIRST_PAUSE.saturating_mul(1 << failed.attempts.min(10)).min(LONGEST_PAUSE);
                tracing::warn!(version = model.version, "the champion is not rolled back yet: {error}");
                failed.attempts += 1;
                failed.retry_at = now + pause;
                self.failed = Some(failed);
                false
            }
        }
    }

    fn tell(&self, on_trial: Option<(Arc<ModelRef>, Counts)>, verdict: Option<&(Arc<ModelRef>, Verdict)>) {
        let Some((model, counts)) = on_trial else { return };
        let found = verdict.map(|(_, verdict)| match verdict {
            Verdict::Passed(found) => {
                metrics::counter!("litflow_rollback_verdicts_total", "outcome" => "passed").increment(1);
                tracing::info!(version = model.version, "the new version has passed its trial: {found}");
                (found.clone(), true)
            }
            Verdict::Failed(reason) => {
                metrics::counter!("litflow_rollback_verdicts_total", "outcome" => "failed").increment(1);
                tracing::error!(
                    version = model.version,
                    digest = model.digest,
                    "the new version has failed its trial: {reason}"
                );
                (reason.clone(), false)
            }
        });
        let (verdict, passed) = found.unzip();
        let Counts { articles, failed, .. } = counts;
        let snapshot = Snapshot { version: (*model).clone(), articles, failed, verdict, passed };
        *self.snapshot.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(snapshot);
    }
}

#[cfg(test)]
mod tests;
