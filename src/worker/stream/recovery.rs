//! Going back to the last commit after a transaction that failed.

use super::super::Error;
use super::{IDLE_POLL, Stream};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The longest pause after a transaction that failed again and again.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

impl Stream {
    /// Aborts the transaction and goes back to the last commit. Where that fails, it can be called again.
    pub(super) fn start_over(&mut self, error: Error) -> Result<(), Error> {
        tracing::warn!(articles = self.transaction.articles, "the transaction failed and is done again: {error}");
        metrics::counter!("litflow_worker_transactions_total", "result" => "aborted").increment(1);
        self.summary.aborted += 1;
        self.producer.abort(&mut self.consumer)?;
        let transaction = std::mem::take(&mut self.transaction);
        // What the transaction began with stands before what is in the window.
        for (partition, first) in transaction.first.into_iter().chain(self.window.clear()) {
            self.rewind.entry(partition).or_insert(first);
        }
        self.go_back()?;
        if let Error::DeadLetter { partitions, cause } = error {
            for partition in partitions {
                let Some(&(offset, reason)) = transaction.letters.get(&partition) else { continue };
                tracing::error!(
                    partition,
                    offset,
                    "the partition stands still: its dead letter cannot be written: {cause}"
                );
                self.halts.halt(partition, offset, reason, &cause.to_string());
                self.consumer.hold(partition)?;
            }
            return Ok(()); // the others need not wait
        }
        let pause = Duration::from_millis(10 << self.setbacks.min(10)).min(LONGEST_PAUSE);
        self.setbacks += 1;
        let resume = Instant::now() + pause;
        while let Some(left) = resume.checked_duration_since(Instant::now()) {
            std::thread::sleep(left.min(IDLE_POLL));
            self.consumer.keep_alive();
        }
        Ok(())
    }

    /// Reads again from `rewind` on, of what is still ours; where the place in the group is gone, from the last commit.
    fn go_back(&mut self) -> Result<(), Error> {
        self.rewind.retain(|_, (_, lease)| !lease.has_ended());
        let offsets: BTreeMap<i32, i64> =
            self.rewind.iter().map(|(&partition, &(offset, _))| (partition, offset)).collect();
        let sought = if self.consumer.is_expelled() { Ok(()) } else { self.consumer.seek(&offsets) };
        if let Err(error) = &sought {
            tracing::warn!("{error}: the group is joined anew");
        }
        if sought.is_err() || self.consumer.is_expelled() {
            self.consumer.rejoin()?;
            self.forget(&self.assigned.iter().copied().collect::<Vec<_>>());
            self.revoking = None;
            self.status.round(|snapshot| snapshot.joined = false);
        } else {
            for (partition, offset) in offsets {
                self.ends.read_to(partition, offset);
            }
        }
        self.rewind.clear();
        Ok(())
    }
}
