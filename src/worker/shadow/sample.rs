//! Which articles are compared, and where they wait: what does not fit is dropped, and nobody waits for it.

use super::Options;
use crate::article::Document;
use crate::tagger::{Mention, ModelRef, Observer, TaggedDocument};
use sha2::{Digest as _, Sha256};
use std::collections::VecDeque;
use std::mem::size_of;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Samples that are tagged together, so that the candidate's batches are as full as the champion's …
const TOGETHER: usize = 32;
/// … but no more than so many bytes, because the end waits for them.
const TOGETHER_BYTES: usize = 256 << 10;

/// Articles that the champion has tagged and the candidate is to tag.
pub struct Waiting {
    share: f64,
    /// In bytes; what is waiting and what is being compared.
    budget: Arc<Semaphore>,
    limit: u32,
    state: Mutex<State>,
    arrived: Condvar,
}

#[derive(Default)]
struct State {
    /// The digest of the champion whose articles are taken; none while there is nobody to compare it with.
    champion: Option<String>,
    samples: VecDeque<Sample>,
    dropped: i64,
}

/// An article and what the champion made of it.
pub(super) struct Sample {
    pub document: Document,
    pub mentions: Vec<Mention>,
    pub sentences: usize,
    pub compute_seconds: f64,
    /// Its part of the budget, given back when it is dropped.
    pub permit: OwnedSemaphorePermit,
}

impl Waiting {
    /// Takes articles only when a candidate is there to be compared.
    pub fn new(options: &Options) -> Arc<Self> {
        let limit = u32::try_from(options.queue_bytes).unwrap_or(u32::MAX);
        Arc::new(Self {
            share: options.sample,
            budget: Arc::new(Semaphore::new(limit as usize)),
            limit,
            state: Mutex::default(),
            arrived: Condvar::new(),
        })
    }

    /// What [`crate::tagger::Serving`] is to tell of each article.
    pub fn observer(self: &Arc<Self>) -> Observer {
        let waiting = self.clone();
        Box::new(move |champion, result| {
            if let Ok(tagged) = result {
                waiting.offer(champion, tagged);
            }
        })
    }

    fn offer(&self, champion: &ModelRef, tagged: &TaggedDocument) {
        if !is_sampled(&tagged.document.article_id, self.share) || !self.lock().takes(champion) {
            return;
        }
        let bytes = u32::try_from(bytes(tagged)).unwrap_or(u32::MAX);
        let permit = self.budget.clone().try_acquire_many_owned(bytes);
        let sample = permit.map(|permit| Sample {
            document: tagged.document.clone(),
            mentions: tagged.mentions.clone(),
            sentences: tagged.sentences.iter().map(Vec::len).sum(),
            compute_seconds: tagged.compute_seconds,
            permit,
        });
        let mut state = self.lock();
        if !state.takes(champion) {
            return; // it was replaced meanwhile
        }
        match sample {
            Ok(sample) => state.samples.push_back(sample),
            Err(_) => state.dropped += 1,
        }
        if state.samples.len() >= TOGETHER {
            self.arrived.notify_one();
        }
    }

    /// From now on only articles of this champion are taken; those of another one are given up.
    pub(super) fn take_only(&self, champion: Option<&str>) {
        let mut state = self.lock();
        if state.champion.as_deref() != champion {
            *state = State { champion: champion.map(str::to_owned), ..State::default() };
        }
    }

    /// The next samples, after waiting at most `wait` for as many as make full batches, and how many were dropped
    /// since the last call.
    pub(super) fn take(&self, wait: Duration) -> (Vec<Sample>, i64) {
        let too_few = |state: &mut State| state.samples.len() < TOGETHER;
        let waited = self.arrived.wait_timeout_while(self.lock(), wait, too_few);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let (mut samples, mut bytes) = (Vec::new(), 0);
        while samples.len() < TOGETHER && bytes < TOGETHER_BYTES {
            let Some(sample) = state.samples.pop_front() else { break };
            bytes += sample.permit.num_permits();
            samples.push(sample);
        }
        (samples, std::mem::take(&mut state.dropped))
    }

    /// Bytes that wait or are being compared.
    pub(super) fn bytes(&self) -> usize {
        self.limit as usize - self.budget.available_permits()
    }

    /// No state in it is half-done when whoever holds it panics.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn takes(&self, champion: &ModelRef) -> bool {
        self.champion.as_ref() == Some(&champion.digest)
    }
}

/// Whether an article is one of the sample: by its id alone, so that all workers, and a worker after its restart,
/// agree.
fn is_sampled(article_id: &str, share: f64) -> bool {
    let digest = Sha256::new().chain_update("litflow shadow\n").chain_update(article_id).finalize();
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    // The upper 53 bits, which a double holds exactly: 0 ≤ place < 1.
    let place = (u64::from_be_bytes(first) >> 11) as f64 / (1u64 << 53) as f64;
    place < share
}

/// What a sample takes in memory, about.
fn bytes(tagged: &TaggedDocument) -> usize {
    let passages = tagged.document.passages.iter();
    let text: usize = passages.map(|passage| size_of_val(passage) + passage.text.len()).sum();
    let strings = |mention: &Mention| mention.id.len() + mention.entity_type.len() + mention.text.len();
    let mentions: usize = tagged.mentions.iter().map(|mention| size_of::<Mention>() + strings(mention)).sum();
    size_of::<Sample>() + text + mentions
}

#[cfg(test)]
mod tests {
    use super::super::tests::{digest, tagged};
    use super::*;

    #[test]
    fn the_sample_is_the_same_everywhere_and_as_large_as_asked_for() {
        let sampled = |share: f64| {
            (0..10_000).map(|n| format!("pmid:{n}")).filter(|id| is_sampled(id, share)).collect::<Vec<_>>()
        };
        assert_eq!((sampled(0.0).len(), sampled(1.0).len()), (0, 10_000));
        let (few, more) = (sampled(0.1), sampled(0.3));
        assert!((900..1_100).contains(&few.len()) && (2_800..3_200).contains(&more.len()));
        assert!(few.iter().all(|id| more.contains(id)), "a larger sample holds the smaller");
        // printf 'litflow shadow\npmid:N' | sha256sum: releases must agree, too.
        assert_eq!(few[..4], ["pmid:5", "pmid:15", "pmid:16", "pmid:20"]);
    }

    #[test]
    fn what_does_not_fit_is_dropped_and_counted() {
        let article = tagged("1", "pmid:1", "BRCA1 and p53.");
        let room = bytes(&article) * 5 / 2;
        let waiting = Waiting::new(&Options { sample: 1.0, queue_bytes: room, ..Options::default() });
        let offer = |version: &str, times: usize| {
            let champion = ModelRef { name: "fake".into(), version: version.into(), digest: digest(version) };
            (0..times).for_each(|_| waiting.offer(&champion, &article));
        };
        offer("1", 1);
        assert_eq!(waiting.bytes(), 0, "nobody to compare it with");
        waiting.take_only(Some(&digest("1")));
        offer("1", 4);
        offer("2", 1);
        let (samples, dropped) = waiting.take(Duration::ZERO);
        assert_eq!((samples.len(), dropped), (2, 2));
        assert_eq!(samples[0].mentions, article.mentions);
        offer("1", 1);
        assert_eq!(waiting.take(Duration::ZERO).1, 1, "what is being compared counts, too");
        drop(samples);
        assert_eq!(waiting.bytes(), 0);
        offer("1", 1);
        waiting.take_only(Some(&digest("2")));
        assert_eq!((waiting.take(Duration::ZERO).0.len(), waiting.bytes()), (0, 0), "of another champion");
    }
}
