//! What a running worker says about itself to those who watch it.

use serde::Serialize;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A worker that has not come round its loop for so long hangs.
const STALLED: Duration = Duration::from_secs(60);

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
    /// Why no broker can be reached at the moment.
    pub brokers_down: Option<String>,
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
    last_round: Option<Instant>,
}

impl Status {
    /// What is known now.
    pub fn snapshot(&self) -> Snapshot {
        self.lock().snapshot.clone()
    }

    /// Whether the worker works at all: where not, it should be restarted.
    pub fn live(&self) -> bool {
        let inner = self.lock();
        inner.snapshot.state != State::Failed && inner.last_round.is_none_or(|round| round.elapsed() < STALLED)
    }

    /// Whether it does its work: it has joined the group and reaches the brokers.
    pub fn ready(&self) -> bool {
        let inner = self.lock();
        inner.snapshot.state == State::Consuming && inner.snapshot.joined && inner.snapshot.brokers_down.is_none()
    }

    /// The worker has come round its loop.
    pub(super) fn round(&self, update: impl FnOnce(&mut Snapshot)) {
        let mut inner = self.lock();
        inner.last_round = Some(Instant::now());
        update(&mut inner.snapshot);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
