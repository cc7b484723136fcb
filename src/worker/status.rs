//! What a running worker says about itself to those who watch it.

use super::halts::Halt;
use serde::Serialize;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A worker that has not come round its loop for so long hangs.
const STALLED: Duration = Duration::from_secs(60);
/// A worker that waits for the cluster for longer is not doing its work.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where a worker is on its way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Connecting; nothing is consumed yet.
    #[default]
    Starting,
    /// At work.
    Consuming,
    /// Finishing what it has, taking nothing new.
    Draining,
    /// Everything is committed; it has left the group.
    Complete,
    /// It ended with an error.
    Failed,
}

/// A snapshot.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Snapshot {
    /// Where it is on its way.
    pub state: State,
    /// Whether it has a place in the group (which may be one without partitions).
    pub joined: bool,
    /// Partitions that it works on.
    pub partitions: usize,
    /// Articles consumed and not committed yet.
    pub in_flight: usize,
    /// Articles committed since it started.
    pub articles: u64,
    /// Dead letters among them.
    pub dead_letters: u64,
    /// Partitions that stand still because their dead letters cannot be written.
    pub halted: Vec<Halt>,
    /// Why it seems to get nothing though there is something to get.
    pub stalled: Option<String>,
    /// Why there is nothing to consume: the input topic is not there.
    pub input_missing: Option<String>,
    /// What it waits for the brokers to do, where that takes long.
    pub waits_for: Option<&'static str>,
    /// Why no broker can be reached at the moment.
    pub brokers_down: Option<String>,
    /// Why articles wait for the schema registry at the moment.
    pub schema_registry: Option<String>,
    /// The error that it ended with.
    pub error: Option<String>,
}

/// Shared between the worker and those who ask. Asking never blocks for long.
#[derive(Debug, Default)]
pub struct Status {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    snapshot: Snapshot,
    assigned: Vec<i32>,
    /// Grows with each commit, and with each change of the assignment.
    progress: u64,
    last_round: Option<Instant>,
    waits_since: Option<Instant>,
}

impl Status {
    /// What is known now.
    pub fn snapshot(&self) -> Snapshot {
        self.lock().snapshot.clone()
    }

    /// Whether the worker works at all: where not, it should be restarted.
    pub fn live(&self) -> bool {
        let inner = self.lock();
        let comes_round = inner.last_round.is_none_or(|round| round.elapsed() < STALLED);
        inner.snapshot.state != State::Failed && comes_round && inner.snapshot.stalled.is_none()
    }

    /// Whether it does its work: it has joined the group, reaches the brokers, no partition stands still, and no
    /// article waits for its schema.
    pub fn ready(&self) -> bool {
        let Snapshot { state, joined, input_missing, brokers_down, waits_for, halted, schema_registry, .. } =
            &self.lock().snapshot;
        let reaches_brokers = brokers_down.is_none() && waits_for.is_none() && input_missing.is_none();
        *state == State::Consuming && *joined && reaches_brokers && halted.is_empty() && schema_registry.is_none()
    }

    /// The worker has come round its loop.
    pub(super) fn round(&self, update: impl FnOnce(&mut Snapshot)) {
        let mut inner = self.lock();
        inner.last_round = Some(Instant::now());
        inner.waits_since = None;
        inner.snapshot.waits_for = None;
        update(&mut inner.snapshot);
    }

    /// The worker is within its loop, and waits for the brokers.
    pub(super) fn waits(&self, step: &'static str) {
        let mut inner = self.lock();
        inner.last_round = Some(Instant::now());
        let since = *inner.waits_since.get_or_insert_with(Instant::now);
        if since.elapsed() > PATIENCE {
            inner.snapshot.waits_for = Some(step);
        }
    }

    /// What was assigned has changed.
    pub(super) fn assign(&self, partitions: impl IntoIterator<Item = i32>) {
        let mut inner = self.lock();
        inner.assigned = partitions.into_iter().collect();
        inner.snapshot.partitions = inner.assigned.len();
        inner.progress += 1;
    }

    /// Something was committed.
    pub(super) fn advance(&self) {
        self.lock().progress += 1;
    }

    pub(super) fn assigned(&self) -> Vec<i32> {
        self.lock().assigned.clone()
    }

    pub(super) fn progress(&self) -> u64 {
        self.lock().progress
    }

    pub(super) fn stalled(&self, reason: Option<String>) {
        self.lock().snapshot.stalled = reason;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
