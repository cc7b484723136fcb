//! A linear-chain conditional random field over word tags.
//!
//! For emissions `e[t, k]` (the encoder's score of tag `k` at word `t`), transitions `T[j, k]` (from `j`
//! to `k`), start scores `s[k]` and end scores `f[k]`, a tag sequence `y` of length `n` has the score
//!
//! ```text
//! score(y) = s[y_1] + e[1, y_1] + Σ_{t=2..n} (T[y_{t-1}, y_t] + e[t, y_t]) + f[y_n]
//! p(y | e) = exp(score(y)) / Z        Z = Σ_y exp(score(y))
//! ```
//!
//! (Lafferty, McCallum & Pereira 2001, "Conditional Random Fields"; the recursions as in Sutton &
//! McCallum 2012, "An Introduction to Conditional Random Fields", section 4.1.) Everything here is batched
//! and runs on the device of the emissions; a batch is `[B, L, K]` with a mask `[B, L]` that is true on
//! the first `n_b ≥ 1` words of each row. What stands in the padding has no influence.
//!
//! Impossible transitions (an `I-Gene` after `O`) are given by [`Constraints`] and count as
//! [`FORBIDDEN`] whatever was learned, in training and in decoding alike.

mod lattice;
#[cfg(test)]
mod tests;

pub use lattice::Lattice;

use super::{LabelSet, Tag};
use tch::{Device, Kind, Tensor};

/// The score of what cannot be. Finite, so that gradients stay finite; `exp` of it is 0 in fp32, and sums
/// of a few hundred of them still do not overflow.
pub const FORBIDDEN: f64 = -1e4;

/// Which tag may follow which, and which may begin a sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Constraints {
    /// `transitions[j][k]`: whether tag `k` may follow tag `j`.
    pub transitions: Vec<Vec<bool>>,
    /// `start[k]`: whether a sequence may begin with tag `k`.
    pub start: Vec<bool>,
}

impl Constraints {
    /// No constraint at all over `tags` tags.
    pub fn none(tags: usize) -> Self {
        Self { transitions: vec![vec![true; tags]; tags], start: vec![true; tags] }
    }

    /// The BIO scheme: `I-X` only after `B-X` or `I-X`, never first. Any other label may stand anywhere.
    pub fn bio(labels: &LabelSet) -> Self {
        let may_follow = |from: &Tag, to: &Tag| match (from, to) {
            (Tag::Begin(before) | Tag::Inside(before), Tag::Inside(after)) => before == after,
            (Tag::Outside, Tag::Inside(_)) => false,
            _ => true,
        };
        let tags = labels.tags();
        Self {
            transitions: tags.iter().map(|from| tags.iter().map(|to| may_follow(from, to)).collect()).collect(),
            start: tags.iter().map(|tag| !matches!(tag, Tag::Inside(_))).collect(),
        }
    }

    fn tags(&self) -> usize {
        self.start.len()
    }
}

/// The field's parameters, fp32, and its constraints.
#[derive(Debug)]
pub struct Crf {
    /// `T`, `[K, K]`, from row to column.
    pub transitions: Tensor,
    /// `s`, `[K]`.
    pub start: Tensor,
    /// `f`, `[K]`.
    pub end: Tensor,
    transition_allowed: Tensor, // [K, K] bool
    start_allowed: Tensor,      // [K] bool
}

impl Crf {
    /// A field over given parameters: `transitions` `[K, K]`, `start` and `end` `[K]`, on one device. They
    /// may be variables of an optimiser.
    ///
    /// # Errors
    /// The shape that does not fit the constraints' number of tags.
    pub fn new(transitions: Tensor, start: Tensor, end: Tensor, constraints: &Constraints) -> Result<Self, Error> {
        let tags = constraints.tags() as i64;
        for (name, tensor, expected) in
            [("transitions", &transitions, vec![tags, tags]), ("start", &start, vec![tags]), ("end", &end, vec![tags])]
        {
            if tensor.size() != expected {
                return Err(Error { name, found: tensor.size(), expected });
            }
        }
        let device = transitions.device();
        let allowed: Vec<bool> = constraints.transitions.concat();
        let transition_allowed = Tensor::from_slice(&allowed).view([tags, tags]).to_device(device);
        let start_allowed = Tensor::from_slice(&constraints.start).to_device(device);
        Ok(Self { transitions, start, end, transition_allowed, start_allowed })
    }

    /// A field whose scores are all zero. Without constraints it is the softmax over each word's tags on
    /// its own, with them the same under valid sequences only.
    pub fn zeros(constraints: &Constraints, device: Device) -> Self {
        let tags = constraints.tags() as i64;
        let zeros = |size: &[i64]| Tensor::zeros(size, (Kind::Float, device));
        Self::new(zeros(&[tags, tags]), zeros(&[tags]), zeros(&[tags]), constraints)
            .expect("the shapes are made from the constraints")
    }

    /// The same field with its scores multiplied by `sharpness`. With the emissions multiplied too, it gives
    /// `p(y | e)^sharpness`, normalised.
    #[must_use]
    pub fn sharpened(&self, sharpness: f64) -> Self {
        Self {
            transitions: &self.transitions * sharpness,
            start: &self.start * sharpness,
            end: &self.end * sharpness,
            transition_allowed: self.transition_allowed.shallow_clone(),
            start_allowed: self.start_allowed.shallow_clone(),
        }
    }

    /// The number of tags, `K`.
    pub fn tags(&self) -> i64 {
        self.start.size()[0]
    }

    /// `log p(y | e)` of each row, `[B]`: emissions `[B, L, K]`, tags `[B, L]` int64 (any value in the
    /// padding), mask `[B, L]` bool.
    pub fn log_likelihood(&self, emissions: &Tensor, tags: &Tensor, mask: &Tensor) -> Tensor {
        self.path_score(emissions, tags, mask) - self.log_partition(emissions, mask)
    }

    /// `log Σ_{y allowed} p(y | e)` of each row, `[B]`: the likelihood of a *partial* annotation, where
    /// `allowed` `[B, L, K]` bool names the tags that agree with it at each word (Tsuboi et al. 2008,
    /// "Training Conditional Random Fields Using Incomplete Annotations"). With one tag a word it is
    /// [`Crf::log_likelihood`]; with all of them it is zero.
    pub fn marginal_log_likelihood(&self, emissions: &Tensor, allowed: &Tensor, mask: &Tensor) -> Tensor {
        let constrained = emissions.to_kind(Kind::Float).masked_fill(&allowed.logical_not(), FORBIDDEN);
        // Both sums are the same recursion: once over a batch of 2 B.
        let both = Tensor::cat(&[constrained, emissions.to_kind(Kind::Float)], 0);
        let log_z = self.log_partition(&both, &Tensor::cat(&[mask, mask], 0)).chunk(2, 0);
        &log_z[0] - &log_z[1]
    }

    /// `log Z` of each row, `[B]`, by the forward algorithm in log space.
    pub fn log_partition(&self, emissions: &Tensor, mask: &Tensor) -> Tensor {
        let (start, transitions) = (self.start_scores(), self.transition_scores());
        let emissions = emissions.to_kind(Kind::Float).unbind(1); // L × [B, K]
        let mask = mask.unsqueeze(2).unbind(1); // L × [B, 1]
        let mut forward = &start + &emissions[0];
        for (emission, mask) in emissions.iter().zip(&mask).skip(1) {
            // [B, K, 1] + [K, K] → over the previous tag → [B, K]
            let next = (forward.unsqueeze(2) + &transitions).logsumexp(1, false) + emission;
            forward = next.where_self(mask, &forward);
        }
        (forward + &self.end).logsumexp(1, false)
    }

    /// The most probable tag sequence of each row (Viterbi), as long as the row has words.
    pub fn viterbi(&self, emissions: &Tensor, mask: &Tensor) -> Vec<Vec<usize>> {
        let _no_grad = tch::no_grad_guard();
        let (start, transitions) = (self.start_scores(), self.transition_scores());
        let emissions = emissions.to_kind(Kind::Float).unbind(1);
        let masks = mask.unsqueeze(2).unbind(1);
        let rows = mask.size()[0];
        let stay = Tensor::arange(self.tags(), (Kind::Int64, mask.device())).expand([rows, -1], false);

        let mut best = &start + &emissions[0]; // [B, K]: the best score of a path that ends in k
        let mut back = Vec::with_capacity(emissions.len()); // per word from the second: the tag before
        for (emission, mask) in emissions.iter().zip(&masks).skip(1) {
            let (score, previous) = (best.unsqueeze(2) + &transitions).max_dim(1, false);
            best = (score + emission).where_self(mask, &best);
            back.push(previous.where_self(mask, &stay)); // in the padding a path stays where it is
        }
        let mut tag = (best + &self.end).argmax(1, true); // [B, 1]
        let mut path = vec![tag.shallow_clone()];
        for previous in back.iter().rev() {
            tag = previous.gather(1, &tag, false);
            path.push(tag.shallow_clone());
        }
        path.reverse();
        let path = to_host::<i64>(&Tensor::cat(&path, 1));
        let lengths = to_host::<i64>(&mask.sum_dim_intlist(1, false, Kind::Int64));
        let words = mask.size()[1] as usize;
        let row = |(row, &length): (usize, &i64)| {
            let path = &path[row * words..row * words + length as usize];
            path.iter().map(|&tag| tag as usize).collect()
        };
        lengths.iter().enumerate().map(row).collect()
    }

    /// Forward and backward scores of a batch, from which come the marginals of tags and spans.
    pub fn lattice(&self, emissions: &Tensor, mask: &Tensor) -> Lattice {
        Lattice::new(self, emissions, mask)
    }

    /// `score(y)` of each row, `[B]`.
    fn path_score(&self, emissions: &Tensor, tags: &Tensor, mask: &Tensor) -> Tensor {
        let (start, transitions) = (self.start_scores(), self.transition_scores());
        let words = tags.size()[1];
        let tags = tags.masked_fill(&mask.logical_not(), 0);
        let weight = mask.to_kind(Kind::Float); // [B, L]
        let emitted = emissions.to_kind(Kind::Float).gather(2, &tags.unsqueeze(2), false).squeeze_dim(2);
        let (from, to) = (tags.narrow(1, 0, words - 1), tags.narrow(1, 1, words - 1));
        let passed = transitions.view([-1]).take(&(from * self.tags() + to)); // [B, L - 1]
        let last = tags.gather(1, &(mask.sum_dim_intlist(1, true, Kind::Int64) - 1), false).squeeze_dim(1);
        start.take(&tags.select(1, 0))
            + (emitted * &weight).sum_dim_intlist(1, false, Kind::Float)
            + (passed * weight.narrow(1, 1, words - 1)).sum_dim_intlist(1, false, Kind::Float)
            + self.end.take(&last)
    }

    fn transition_scores(&self) -> Tensor {
        self.transitions.masked_fill(&self.transition_allowed.logical_not(), FORBIDDEN)
    }

    fn start_scores(&self) -> Tensor {
        self.start.masked_fill(&self.start_allowed.logical_not(), FORBIDDEN)
    }
}

/// A parameter's shape does not fit the number of tags.
#[derive(Debug, thiserror::Error)]
#[error("the CRF's {name} have shape {found:?}, the tag set asks for {expected:?}")]
pub struct Error {
    name: &'static str,
    found: Vec<i64>,
    expected: Vec<i64>,
}

/// A tensor's values in row order.
fn to_host<T: tch::kind::Element + Copy + Default>(tensor: &Tensor) -> Vec<T> {
    let tensor = tensor.contiguous().to_device(Device::Cpu);
    let mut values = vec![T::default(); tensor.numel()];
    let length = values.len();
    tensor.copy_data(&mut values, length);
    values
}
