//! How much time a worker has left once it is to end.

use super::Stop;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// What a commit may take after the drain: as long as a broker's place is being taken by another. The brokers
/// themselves abort a transaction after 15 s.
const COMMIT_GRACE: Duration = Duration::from_secs(10);

/// What was said about the end, and since when. Clones share the moment.
#[derive(Clone)]
pub(super) struct Shutdown {
    stop: watch::Receiver<Stop>,
    drain_timeout: Duration,
    since: Arc<OnceLock<Instant>>,
}

impl Shutdown {
    pub fn new(stop: watch::Receiver<Stop>, drain_timeout: Duration) -> Self {
        Self { stop, drain_timeout, since: Arc::default() }
    }

    /// What was said last.
    pub fn asked(&self) -> Stop {
        *self.stop.borrow() // let go of it: whoever says stop waits for the lock
    }

    /// Begins it, whoever said so or not: an error ends the worker.
    pub fn begin(&self) {
        self.since.get_or_init(Instant::now);
    }

    /// Whether the worker is to end now.
    pub fn has_begun(&self) -> bool {
        self.since().is_some()
    }

    /// Until when articles on their way are waited for.
    pub fn drained_by(&self) -> Option<Instant> {
        Some(self.since()? + self.drain_timeout)
    }

    /// Until when the cluster is waited for.
    pub fn over_by(&self) -> Option<Instant> {
        Some(self.drained_by()? + COMMIT_GRACE)
    }

    /// When it began: the first time that anybody looks after [`Stop::Now`] was said.
    fn since(&self) -> Option<Instant> {
        if self.asked() == Stop::Now {
            self.begin();
        }
        self.since.get().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_runs_from_the_moment_of_the_first_stop() {
        let (stop, stopped) = watch::channel(Stop::Never);
        let shutdown = Shutdown::new(stopped, Duration::from_secs(3));
        stop.send_replace(Stop::AtEnd);
        assert_eq!((shutdown.has_begun(), shutdown.over_by()), (false, None));
        let elsewhere = shutdown.clone();
        stop.send_replace(Stop::Now);
        let drained_by = shutdown.drained_by().unwrap();
        assert!(drained_by <= Instant::now() + Duration::from_secs(3));
        assert_eq!(elsewhere.over_by(), Some(drained_by + COMMIT_GRACE));
    }

    #[test]
    fn an_error_begins_it_too() {
        let (_stop, stopped) = watch::channel(Stop::AtEnd);
        let shutdown = Shutdown::new(stopped, Duration::ZERO);
        shutdown.begin();
        assert!(shutdown.over_by().is_some_and(|over| over > Instant::now()));
    }
}
