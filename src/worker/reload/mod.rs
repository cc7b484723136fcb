//! Hot reload: another model version takes the place of the one in force while articles are tagged.
//!
//! A thread of its own looks which version is to be served: the champion that is [`announced`] on the topic
//! `models`, or what lies in a model [`directory`]. Where that is another one it is loaded beside the one in force
//! ([`Loader`]: fetched, verified, tested, warmed up) and swapped in ([`Serving::swap`]): articles under way end
//! with the old version, those that come begin with the new one, and the stream does not wait.
//!
//! Whatever goes wrong leaves the version in force where it is, and is told in the log, in metrics and in the
//! [`Snapshot`]. What may pass (a store that is down) is tried again with a back-off; a broken version is not,
//! until it is announced or asked for again ([`Chooser`]).

mod choose;
mod load;
mod memory;
mod refusals;
mod source;
#[cfg(test)]
mod tests;

pub(in crate::worker) use choose::Choice;
pub use choose::{Chooser, Load, Look, Tell};
pub use load::{Error, Loader};
pub use refusals::tell_cluster;
pub use source::{announced, candidate, directory};

use crate::bus::records::ModelVersion;
use crate::tagger::{ModelRef, Serving, Tag as _};
use crate::worker::background::Background;
pub use crate::worker::background::End;
use crate::worker::{rollback, shadow};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use serde::Serialize;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How often is looked which version is to be served.
const TICK: Duration = Duration::from_millis(250);
/// How many may wait for the answer to a request at a time.
const WAITING: usize = 16;

/// A version that is to be served.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// Where it is.
    pub place: Place,
    /// `sha256:` and the digest of its manifest.
    pub digest: String,
    /// Tells announcements of the same version apart: a broken version is tried again on another occasion.
    pub occasion: i64,
    /// The announcement, where there was one.
    pub announced: Option<Arc<ModelVersion>>,
}

/// Where a version is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Place {
    Directory(PathBuf),
    Registry { name: String, version: String },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => path.display().fmt(f),
            Self::Registry { name, version } => write!(f, "{name} {version}"),
        }
    }
}

/// The model in force, and why it is not the one that is to be.
#[derive(Debug, Clone, Serialize)]
pub struct Snapshot {
    /// The version in force.
    pub serving: ModelRef,
    /// Versions swapped in since the start.
    pub swaps: u64,
    /// Why the version that is to be served is not; none where it is.
    pub refused: Option<Refusal>,
    /// The candidate that is compared with it; none without shadow mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shadow: Option<shadow::Snapshot>,
    /// The last version on trial; none without automatic rollback, or before the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trial: Option<rollback::Snapshot>,
}

/// Why a version does not serve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// Its directory, or its name and version; none where it is not known which version is to be served.
    pub version: Option<String>,
    /// Its digest.
    pub digest: Option<String>,
    /// What is wrong.
    pub reason: String,
    /// How often it was tried.
    pub attempts: u32,
    /// Whether it is tried again by itself.
    pub will_retry: bool,
}

/// The running thread.
pub struct Reload {
    handle: Handle,
    background: Background,
}

/// Asks for a look, and for what is known.
#[derive(Clone)]
pub struct Handle {
    requests: Sender<oneshot::Sender<Snapshot>>,
    snapshot: Arc<Mutex<Snapshot>>,
    shadow: Option<shadow::Handle>,
    rollback: Option<rollback::Handle>,
}

impl Reload {
    /// Starts the thread, which keeps `serving` at what `chooser` chooses. Without `follow` it does so only when
    /// it is asked to.
    ///
    /// # Errors
    /// Where no thread can be started.
    pub fn start(serving: Arc<Serving>, chooser: Chooser, follow: bool) -> std::io::Result<Self> {
        let (requests, requested) = bounded(WAITING);
        let mut keeper = Keeper::new(serving, chooser);
        let handle = Handle { requests, snapshot: keeper.snapshot.clone(), shadow: None, rollback: None };
        let background = Background::start("reload", move |stopped| {
            tch::set_num_threads(1); // the cores belong to the articles
            keeper.run(&requested, stopped, follow);
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

impl Handle {
    /// Has the thread look now, and try again what failed; answers when it has. `None`: too many are waiting, or
    /// the thread has ended.
    pub async fn look_now(&self) -> Option<Snapshot> {
        let (sender, answer) = oneshot::channel();
        self.requests.try_send(sender).ok()?;
        answer.await.ok().map(|snapshot| self.completed(snapshot))
    }

    /// What is known now.
    pub fn snapshot(&self) -> Snapshot {
        self.completed(lock(&self.snapshot).clone())
    }

    /// Tells of the candidate, and of the version on trial, too.
    pub fn beside(self, shadow: Option<shadow::Handle>, rollback: Option<rollback::Handle>) -> Self {
        Self { shadow, rollback, ..self }
    }

    fn completed(&self, snapshot: Snapshot) -> Snapshot {
        let shadow = self.shadow.as_ref().map(shadow::Handle::snapshot);
        let trial = self.rollback.as_ref().and_then(rollback::Handle::snapshot);
        Snapshot { shadow, trial, ..snapshot }
    }
}

/// Keeps the tagger in force at what is chosen.
struct Keeper {
    serving: Arc<Serving>,
    chooser: Chooser,
    snapshot: Arc<Mutex<Snapshot>>,
}

impl Keeper {
    fn new(serving: Arc<Serving>, chooser: Chooser) -> Self {
        let snapshot =
            Snapshot { serving: (*serving.model()).clone(), swaps: 0, refused: None, shadow: None, trial: None };
        let mut keeper = Self { serving, chooser, snapshot: Arc::new(Mutex::new(snapshot)) };
        tell_version(&keeper.serving.model(), 1.0);
        keeper.report();
        keeper
    }

    fn run(&mut self, requested: &Receiver<oneshot::Sender<Snapshot>>, stopped: &AtomicBool, follow: bool) {
        while !stopped.load(Ordering::Relaxed) {
            let request = match requested.recv_timeout(TICK) {
                Ok(request) => Some(request),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if request.is_some() || follow {
                let snapshot = self.round(request.is_some(), Instant::now());
                if let Some(request) = request {
                    drop(request.send(snapshot)); // whoever asked may have gone
                }
            }
        }
    }

    fn round(&mut self, asked: bool, now: Instant) -> Snapshot {
        let serving = self.serving.model();
        if let Choice::Take(tagger) = self.chooser.next(&serving.digest, asked, now) {
            let next = tagger.model();
            self.serving.swap(tagger);
            metrics::counter!("litflow_model_loads_total", "outcome" => "swapped").increment(1);
            tell_version(&serving, 0.0);
            tell_version(&next, 1.0);
            tracing::info!(
                name = next.name,
                version = next.version,
                digest = next.digest,
                previous = serving.version,
                "the model is swapped"
            );
            lock(&self.snapshot).swaps += 1;
        }
        self.report()
    }

    fn report(&mut self) -> Snapshot {
        let serving = self.serving.model();
        let refused = self.chooser.refusal(&serving.digest);
        metrics::gauge!("litflow_model_refused").set(if refused.is_some() { 1.0 } else { 0.0 });
        let mut snapshot = lock(&self.snapshot);
        snapshot.serving = (*serving).clone();
        snapshot.refused = refused;
        snapshot.clone()
    }
}

/// No state in it is half-done when whoever holds it panics.
fn lock(snapshot: &Mutex<Snapshot>) -> MutexGuard<'_, Snapshot> {
    snapshot.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One series a version, 1 for the one in force.
fn tell_version(model: &ModelRef, value: f64) {
    let (name, version, digest) = (model.name.clone(), model.version.clone(), model.digest.clone());
    metrics::gauge!("litflow_model_info", "name" => name, "version" => version, "digest" => digest).set(value);
}
