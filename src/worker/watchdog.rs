//! Notices a worker that gets nothing though there is something to get.
//!
//! A consumer of librdkafka can stall in silence: a live member of its group to which no message comes. So a thread with
//! a connection of its own asks now and then how far the worker's partitions are committed and whether there is more.
//! Where there is, and nothing is committed for `worker.stall_timeout_ms`, `/healthz` fails with the reason, so that
//! whoever runs the worker restarts it.

use super::Options;
use super::status::{State, Status};
use crate::bus::lag::Group;
use crate::bus::{self, topics};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// How often it is looked within the timeout.
const LOOKS: u32 = 5;

/// Looks until it is dropped. Its thread ends by itself soon after: a look that waits for a broker holds nobody up.
pub(super) struct Watchdog {
    _stop: Sender<()>,
}

impl Watchdog {
    /// Starts it; none where `worker.stall_timeout_ms` is 0.
    pub fn start(options: &Options, kafka: &bus::Options, status: Arc<Status>) -> std::io::Result<Option<Self>> {
        let Some(timeout) = options.stall_timeout() else { return Ok(None) };
        let (stop, stopped) = channel();
        let kafka = kafka.clone();
        let look = move || {
            let mut watch = Watch { kafka, timeout, group: None, waits: None };
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(timeout / LOOKS) {
                let stalled = watch.look(&status).unwrap_or_else(|error| {
                    tracing::debug!("the watchdog cannot look: {error}");
                    None
                });
                if let Some(reason) = &stalled {
                    tracing::error!("{reason}");
                }
                status.stalled(stalled);
            }
        };
        std::thread::Builder::new().name("watchdog".into()).spawn(look)?;
        Ok(Some(Self { _stop: stop }))
    }
}

struct Watch {
    kafka: bus::Options,
    timeout: Duration,
    group: Option<Group>,
    /// Since when something waits, and how far the worker was then.
    waits: Option<(Instant, u64)>,
}

impl Watch {
    /// Why the worker seems to be stalled, if it does.
    fn look(&mut self, status: &Status) -> Result<Option<String>, bus::Error> {
        let snapshot = status.snapshot();
        let halted = |partition: &i32| snapshot.halted.iter().any(|halt| halt.partition == *partition);
        let partitions: Vec<i32> = status.assigned().into_iter().filter(|partition| !halted(partition)).collect();
        let waits_for_others = snapshot.brokers_down.is_some() || snapshot.schema_registry.is_some();
        if snapshot.state != State::Consuming || partitions.is_empty() || waits_for_others {
            self.waits = None; // what is wrong, if anything, is told by others
            return Ok(None);
        }
        let group = match &mut self.group {
            Some(group) => group,
            none => none.insert(Group::new(&self.kafka, &self.kafka.group_id, topics::ARTICLES)?),
        };
        let lag = group.lag_of(&partitions)?.unwrap_or(0);
        let progress = status.progress();
        let since = match self.waits {
            Some((since, before)) if before == progress && lag > 0 => since,
            _ => Instant::now(),
        };
        self.waits = (lag > 0).then_some((since, progress));
        if lag == 0 || since.elapsed() < self.timeout {
            return Ok(None);
        }
        // Offsets may be taken by nothing but the marks of transactions.
        Ok(group.first_waiting(&partitions)?.map(|(partition, offset)| {
            let seconds = since.elapsed().as_secs();
            format!(
                "{}-{partition}@{offset} waits and nothing was committed for {seconds} s (worker.stall_timeout_ms): the \
                 consumer or the tagger is stalled",
                topics::ARTICLES
            )
        }))
    }
}
