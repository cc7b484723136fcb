//! What is on its way to one commit.

use super::Options;
use super::process::Counts;
use crate::bus::lease::Lease;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What was published since the last commit.
#[derive(Default)]
pub(super) struct Transaction {
    /// When it was opened; none: it is not.
    pub since: Option<Instant>,
    /// Articles in it, dead letters included.
    pub articles: usize,
    /// Bytes of its records.
    pub bytes: usize,
    /// Where to begin again if it fails: partition to offset, as long as the lease holds.
    pub first: BTreeMap<i32, (i64, Lease)>,
    /// What it commits: partition to the next offset.
    pub next: BTreeMap<i32, i64>,
    /// What the articles have become.
    pub counts: Counts,
    /// Dead letters, by reason.
    pub refused: BTreeMap<&'static str, u64>,
    /// The first dead letter of each partition: offset and reason.
    pub letters: BTreeMap<i32, (i64, &'static str)>,
}

impl Transaction {
    /// Whether it is large enough to be committed.
    pub fn is_full(&self, options: &Options) -> bool {
        self.articles >= options.transaction_articles || self.bytes >= options.transaction_bytes
    }

    /// Whether it is to be committed now: it is large enough, or has been open for long enough.
    pub fn is_due(&self, options: &Options) -> bool {
        self.is_full(options) || self.since.is_some_and(|since| since.elapsed() >= options.transaction_interval())
    }

    /// One emit a commit, of what is visible to readers from now on.
    pub fn emit(&self, took: Duration) {
        let refused: u64 = self.refused.values().sum();
        metrics::counter!("litflow_worker_transactions_total", "result" => "committed").increment(1);
        metrics::histogram!("litflow_worker_commit_duration_seconds").record(took.as_secs_f64());
        for (outcome, count) in
            [("tagged", self.counts.tagged), ("tombstone", self.counts.tombstones), ("dead_letter", refused)]
        {
            metrics::counter!("litflow_worker_articles_total", "outcome" => outcome).increment(count);
        }
        for (reason, count) in &self.refused {
            metrics::counter!("litflow_worker_dead_letters_total", "reason" => *reason).increment(*count);
        }
        for (entity_type, count) in &self.counts.mentions {
            metrics::counter!("litflow_worker_mentions_total", "type" => entity_type.clone()).increment(*count);
        }
        metrics::counter!("litflow_worker_sentences_total").increment(self.counts.sentences);
        metrics::counter!("litflow_worker_tokens_total").increment(self.counts.tokens);
        metrics::counter!("litflow_worker_output_bytes_total").increment(self.bytes as u64);
        tracing::debug!(articles = self.articles, refused, bytes = self.bytes, ?took, "committed");
    }
}
