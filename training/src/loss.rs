//! What is minimised: the CRF's negative log-likelihood of what the annotators said, and no more.
//!
//! For a completely annotated sentence that is the gold sequence's. Where only some types are annotated,
//! a word outside their mentions may be `O` or belong to a mention of any *other* type, so the likelihood
//! sums over all sequences that agree (`Crf::marginal_log_likelihood`): unlabelled is not negative.
//! A batch's loss is the sum over its sentences, weighted, divided by its words.

use crate::examples::Batch;
use litflow::model::crf::Crf;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// How rare types are made to count more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClassWeighting {
    /// Every mention alike.
    Off,
    /// A type weighs 1 / n for n mentions.
    InverseFrequency,
    /// A type weighs (1 − β) / (1 − βⁿ), β = 0.999: the inverse of the *effective number* of its mentions
    /// (Cui et al. 2019, "Class-Balanced Loss Based on Effective Number of Samples", eq. 3).
    EffectiveNumber,
}

/// β of the effective number. Types with many more than 1 / (1 − β) mentions weigh the same.
const BETA: f64 = 0.999;

impl ClassWeighting {
    /// The weight of each type, from its number of mentions. They are scaled so that the mean over all
    /// mentions is 1, which leaves the learning rate's meaning alone; a type without mentions weighs 1.
    pub fn weights(self, mentions: &[u64]) -> Vec<f64> {
        let raw = |&n: &u64| match self {
            _ if n == 0 => 0.0,
            Self::Off => 1.0,
            Self::InverseFrequency => 1.0 / n as f64,
            Self::EffectiveNumber => (1.0 - BETA) / (1.0 - BETA.powf(n as f64)),
        };
        let weights: Vec<f64> = mentions.iter().map(raw).collect();
        let total: u64 = mentions.iter().sum();
        let weighted: f64 = weights.iter().zip(mentions).map(|(weight, &n)| weight * n as f64).sum();
        let scaled = |(weight, &n): (&f64, &u64)| if n == 0 { 1.0 } else { weight * total as f64 / weighted };
        weights.iter().zip(mentions).map(scaled).collect()
    }
}

/// The loss of a batch, a scalar: emissions `[B, W, K]` against the tags that its annotation allows. A
/// sentence weighs as the mean of its mentions' types, one without mentions 1.
pub fn loss(crf: &Crf, emissions: &Tensor, batch: &Batch) -> Tensor {
    let log_likelihood = crf.marginal_log_likelihood(emissions, &batch.allowed, &batch.word_mask); // [B]
    let words = batch.word_mask.sum(Kind::Float);
    -(log_likelihood * &batch.weights).sum(Kind::Float) / words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rare_types_weigh_more_and_the_mean_mention_weighs_one() {
        let mentions = [5000, 100, 20, 0];
        assert_eq!(ClassWeighting::Off.weights(&mentions), [1.0; 4]);
        for weighting in [ClassWeighting::InverseFrequency, ClassWeighting::EffectiveNumber] {
            let weights = weighting.weights(&mentions);
            assert!(weights[0] < weights[1] && weights[1] < weights[2] && weights[3] == 1.0, "{weights:?}");
            let mean = weights.iter().zip(mentions).map(|(w, n)| w * n as f64).sum::<f64>() / 5120.0;
            assert!((mean - 1.0).abs() < 1e-9);
        }
        let inverse = ClassWeighting::InverseFrequency.weights(&mentions);
        assert!((inverse[2] / inverse[1] - 5.0).abs() < 1e-9);
        // (1 - 0.999^100) / (1 - 0.999^20) by hand: 0.095208 / 0.019811
        let effective = ClassWeighting::EffectiveNumber.weights(&mentions);
        assert!((effective[2] / effective[1] - 4.8058).abs() < 1e-3, "{}", effective[2] / effective[1]);
    }
}
