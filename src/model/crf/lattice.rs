//! Marginal probabilities of tags and spans by forward-backward.

use super::{Crf, FORBIDDEN, to_host};
use tch::{Kind, Tensor};

/// Forward and backward scores of a batch, on the host.
///
/// `forward[t, k]` is the log-sum over all prefixes that end in tag `k` at word `t`, its emission included;
/// `backward[t, k]` the log-sum over all suffixes after it, end score included. So
/// `p(y_t = k | e) = exp(forward[t, k] + backward[t, k] - log Z)`.
#[derive(Debug)]
pub struct Lattice {
    words: usize,
    tags: usize,
    forward: Vec<f32>,     // [B, L, K]
    backward: Vec<f32>,    // [B, L, K]
    emissions: Vec<f32>,   // [B, L, K]
    transitions: Vec<f32>, // [K, K]
    end: Vec<f32>,         // [K]
    log_z: Vec<f32>,       // [B]
    lengths: Vec<i64>,     // [B]
}

impl Lattice {
    pub(super) fn new(crf: &Crf, emissions: &Tensor, mask: &Tensor) -> Self {
        let _no_grad = tch::no_grad_guard();
        let (start, transitions) = (crf.start_scores(), crf.transition_scores());
        let emissions = emissions.to_kind(Kind::Float);
        let (rows, words, tags) = emissions.size3().expect("emissions are [B, L, K]");
        let by_word = emissions.unbind(1); // L × [B, K]
        let masks = mask.unsqueeze(2).unbind(1); // L × [B, 1]

        let mut forward = vec![&start + &by_word[0]];
        for (emission, mask) in by_word.iter().zip(&masks).skip(1) {
            let previous = &forward[forward.len() - 1];
            let next = (previous.unsqueeze(2) + &transitions).logsumexp(1, false) + emission;
            forward.push(next.where_self(mask, previous));
        }
        let last = &forward[forward.len() - 1];
        let log_z = (last + &crf.end).logsumexp(1, false);

        // At a row's last word, and in its padding, the suffix is the end score alone.
        let mut backward = vec![crf.end.expand([rows, tags], false)];
        for (emission, mask) in by_word.iter().zip(&masks).skip(1).rev() {
            let next = &backward[backward.len() - 1];
            // [K, K] + [B, 1, K] → over the next tag → [B, K]
            let previous = (&transitions + (emission + next).unsqueeze(1)).logsumexp(2, false);
            backward.push(previous.where_self(mask, next));
        }
        backward.reverse();

        Self {
            words: words as usize,
            tags: tags as usize,
            forward: to_host(&Tensor::stack(&forward, 1)),
            backward: to_host(&Tensor::stack(&backward, 1)),
            emissions: to_host(&emissions),
            transitions: to_host(&transitions),
            end: to_host(&crf.end),
            log_z: to_host(&log_z),
            lengths: to_host(&mask.sum_dim_intlist(1, false, Kind::Int64)),
        }
    }

    /// `p(y_word = tag | e)` in one row of the batch.
    pub fn tag_probability(&self, row: usize, word: usize, tag: usize) -> f32 {
        let at = self.at(row, word) + tag;
        probability(self.forward[at] + self.backward[at] - self.log_z[row])
    }

    /// The probability that words `begin..end` of a row are exactly one mention: `first` at `begin`,
    /// `inside` at every further word, and not `inside` after `end`, summed over all that stands around it
    /// (Culotta & McCallum 2004, "Confidence Estimation for Information Extraction").
    pub fn span_probability(&self, row: usize, begin: usize, end: usize, first: usize, inside: usize) -> f32 {
        debug_assert!(begin < end && end <= self.lengths[row] as usize, "a span lies within its sequence");
        let mut score = self.forward[self.at(row, begin) + first];
        let mut tag = first;
        for word in begin + 1..end {
            score += self.transitions[tag * self.tags + inside] + self.emissions[self.at(row, word) + inside];
            tag = inside;
        }
        let suffix = if end == self.lengths[row] as usize {
            self.end[tag]
        } else {
            let after = self.at(row, end);
            let continued = |next: usize| {
                self.transitions[tag * self.tags + next] + self.emissions[after + next] + self.backward[after + next]
            };
            log_sum_exp((0..self.tags).filter(|&next| next != inside).map(continued))
        };
        probability(score + suffix - self.log_z[row])
    }

    fn at(&self, row: usize, word: usize) -> usize {
        (row * self.words + word) * self.tags
    }
}

fn log_sum_exp(scores: impl Iterator<Item = f32> + Clone) -> f32 {
    let largest = scores.clone().fold(FORBIDDEN as f32, f32::max);
    largest + scores.map(|score| (score - largest).exp()).sum::<f32>().ln()
}

/// Rounding can bring a log-probability a little above zero.
fn probability(log: f32) -> f32 {
    log.exp().min(1.0)
}
