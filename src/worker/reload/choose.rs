//! Which version is to be in force, and what became of those that cannot be.

use super::load::{Error, guarded};
use super::{Refusal, Wanted};
use crate::ErrorClass;
use crate::tagger::Tag;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The pause after a failure that may pass; it doubles each time …
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// … up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Finds the versions that may be served, the newest first: each stands in for those before it where they are
/// broken. Is told whether somebody asked for it.
pub type Look = Box<dyn FnMut(bool) -> Result<Vec<Wanted>, Error> + Send>;

/// Makes a version ready to serve.
pub type Load = Box<dyn FnMut(&Wanted) -> Result<Box<dyn Tag>, Error> + Send>;

/// Is told of each version that does not serve, when it fails for the first time on an occasion.
pub type Tell = Box<dyn FnMut(&Wanted, &Refusal) + Send>;

/// Looks, loads, and remembers what failed.
pub struct Chooser {
    look: Look,
    load: Load,
    tell: Tell,
    /// By digest, as long as the version is one of those to be served.
    failures: BTreeMap<String, Failure>,
    /// Looking failed: it is not known what is to be served.
    blind: Option<Failure>,
    /// The version that was to be served at the last look.
    newest: Option<Wanted>,
}

struct Failure {
    refusal: Refusal,
    /// Of the version, when it failed.
    occasion: i64,
    /// When it is tried again; none where that does not help.
    retry_at: Option<Instant>,
}

/// What is to be in force.
pub(in crate::worker) enum Choice {
    /// What is in force already; or nothing better can be had.
    Stay,
    /// This.
    Take(Box<dyn Tag>),
}

impl Chooser {
    /// Looks by `look` and loads by `load`.
    pub fn new(look: Look, load: Load) -> Self {
        let tell = Box::new(|_: &Wanted, _: &Refusal| ());
        Self { look, load, tell, failures: BTreeMap::new(), blind: None, newest: None }
    }

    /// Tells of refusals elsewhere than in the log.
    pub fn telling(self, tell: Tell) -> Self {
        Self { tell, ..self }
    }

    /// The newest version that can be served, when nothing is in force yet; none where there is none at all.
    ///
    /// # Errors
    /// Where no version can be served: why the newest cannot.
    pub fn first(&mut self) -> Result<Option<Box<dyn Tag>>, Error> {
        let mut error_of_newest = None;
        for wanted in (self.look)(true)? {
            self.newest.get_or_insert_with(|| wanted.clone());
            match self.try_load(&wanted, Instant::now()) {
                Ok(tagger) => return Ok(Some(tagger)),
                Err(error) => error_of_newest = error_of_newest.or(Some(error)),
            }
        }
        error_of_newest.map_or(Ok(None), Err)
    }

    /// What is to take the place of the version with the digest `serving`. What failed before is tried again where
    /// somebody `asked`, on another occasion, or when its pause is over.
    pub(in crate::worker) fn next(&mut self, serving: &str, asked: bool, now: Instant) -> Choice {
        if !asked && self.blind.as_ref().is_some_and(|blind| blind.is_pausing(now)) {
            return Choice::Stay;
        }
        let candidates = match (self.look)(asked) {
            Ok(candidates) => candidates,
            Err(error) => {
                self.note_blind(&error, now);
                return Choice::Stay;
            }
        };
        self.blind = None;
        self.newest = candidates.first().cloned();
        self.failures.retain(|digest, _| candidates.iter().any(|wanted| wanted.digest == *digest));
        for wanted in &candidates {
            if wanted.digest == serving {
                return Choice::Stay;
            }
            match self.failures.get(&wanted.digest).filter(|failure| failure.occasion == wanted.occasion && !asked) {
                Some(failure) if failure.is_pausing(now) => return Choice::Stay,
                Some(failure) if failure.retry_at.is_none() => continue,
                _ => {}
            }
            match self.try_load(wanted, now) {
                Ok(tagger) => return Choice::Take(tagger),
                // What is in force may well be better than what is older than this.
                Err(error) if error.class() == ErrorClass::Retriable => return Choice::Stay,
                Err(_) => {}
            }
        }
        Choice::Stay
    }

    /// The version that was to be served at the last look that succeeded.
    pub(in crate::worker) fn newest(&self) -> Option<&Wanted> {
        self.newest.as_ref()
    }

    /// Why the version that is to be served is not, if the one with the digest `serving` is in force.
    pub(in crate::worker) fn refusal(&self, serving: &str) -> Option<Refusal> {
        let newest = self.newest.as_ref().filter(|newest| newest.digest != serving);
        let failure = newest.and_then(|newest| self.failures.get(&newest.digest)).or(self.blind.as_ref());
        failure.map(|failure| failure.refusal.clone())
    }

    fn try_load(&mut self, wanted: &Wanted, now: Instant) -> Result<Box<dyn Tag>, Error> {
        let started = Instant::now();
        tracing::info!(model = %wanted.place, digest = wanted.digest, "loading a model");
        let loaded = guarded(|| (self.load)(wanted));
        match &loaded {
            Ok(_) => {
                metrics::histogram!("litflow_model_load_seconds").record(started.elapsed().as_secs_f64());
                self.failures.remove(&wanted.digest);
            }
            Err(error) => self.note_failure(wanted, error, now),
        }
        loaded
    }

    fn note_failure(&mut self, wanted: &Wanted, error: &Error, now: Instant) {
        let earlier = self.failures.remove(&wanted.digest).filter(|failure| failure.occasion == wanted.occasion);
        let mut failure = Failure::after(earlier, error, now);
        failure.occasion = wanted.occasion;
        failure.refusal.version = Some(wanted.place.to_string());
        failure.refusal.digest = Some(wanted.digest.clone());
        let Refusal { attempts, will_retry, .. } = failure.refusal;
        let outcome = if will_retry { "failed" } else { "refused" };
        metrics::counter!("litflow_model_loads_total", "outcome" => outcome).increment(1);
        tracing::error!(
            model = %wanted.place, digest = wanted.digest, attempts, will_retry,
            "the model does not serve: {error}"
        );
        if attempts == 1 {
            (self.tell)(wanted, &failure.refusal);
        }
        self.failures.insert(wanted.digest.clone(), failure);
    }

    fn note_blind(&mut self, error: &Error, now: Instant) {
        let earlier = self.blind.take();
        if earlier.as_ref().is_none_or(|earlier| earlier.refusal.reason != error.to_string()) {
            tracing::warn!("it cannot be told which model is to be served: {error}");
        }
        let mut failure = Failure::after(earlier, error, now);
        failure.refusal.will_retry = true; // whatever it is, somebody may put it right
        failure.retry_at.get_or_insert(now + LONGEST_PAUSE);
        self.blind = Some(failure);
    }
}

impl Failure {
    fn after(earlier: Option<Self>, error: &Error, now: Instant) -> Self {
        let attempts = earlier.map_or(0, |earlier| earlier.refusal.attempts) + 1;
        let pause = FIRST_PAUSE.saturating_mul(1 << (attempts - 1).min(10)).min(LONGEST_PAUSE);
        let will_retry = error.class() == ErrorClass::Retriable;
        let refusal = Refusal { version: None, digest: None, reason: error.to_string(), attempts, will_retry };
        Self { refusal, occasion: 0, retry_at: will_retry.then(|| now + pause) }
    }

    fn is_pausing(&self, now: Instant) -> bool {
        self.retry_at.is_some_and(|at| at > now)
    }
}
