//! What is minimised: the CRF's negative log-likelihood of what the annotators said, and no more.
//!
//! For a completely annotated sentence that is the gold sequence's. Where only some types are annotated,
//! a word outside their mentions may be `O` or belong to a mention of any *other* type, so the likelihood
//! sums over all sequences that agree (`Crf::marginal_log_likelihood`): unlabelled is not negative.
//! A batch's loss is the sum over its sentences divided by its words.

use crate::examples::Batch;
use litflow::model::crf::Crf;
use litflow::model::{LabelSet, Tag};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

/// How rare types are made to count more: by *logit adjustment* (Menon et al. 2021, "Long-tail learning via logit
/// adjustment", <https://arxiv.org/abs/2007.07314>, eq. 10).
///
/// While training, and only then, the emission of each `B-X` is lowered by `ln(w_X / w_min)` with the weights
/// below, so that the network must raise it by as much: it learns to score as if the types were equally frequent.
/// With the recipe's `class_weighting_strength` τ below 1 it is lowered by τ times as much (their eq. 9), so that rare
/// types stay rarer than others, but less so.
/// It is lowered at the `B` alone, once a mention however long, and not for the most frequent type, whose balance
/// against `O` stays as it is. It is a property of the label and not of the sentence, so it fits a CRF and partial
/// annotation alike, where weights on the loss would have to know which path is the right one.
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
    /// What is taken from the emission of each type's `B` in training, from the type's number of mentions: 0 for the
    /// type that weighs least, and for types without mentions.
    pub fn adjustments(self, mentions: &[u64]) -> Vec<f64> {
        let weight = |n: u64| match self {
            Self::Off => 1.0,
            Self::InverseFrequency => 1.0 / n as f64,
            Self::EffectiveNumber => (1.0 - BETA) / (1.0 - BETA.powf(n as f64)),
        };
        let least = mentions.iter().filter(|&&n| n > 0).map(|&n| weight(n)).fold(f64::INFINITY, f64::min);
        mentions.iter().map(|&n| if n == 0 { 0.0 } else { (weight(n) / least).ln() }).collect()
    }
}

/// The adjustments of all labels, `[K]`, from those of the types.
pub fn label_adjustments(labels: &LabelSet, of_types: &[f64], device: Device) -> Tensor {
    let of_label = |tag: &Tag| match tag {
        Tag::Begin(of) => of_types[*of] as f32,
        _ => 0.0,
    };
    Tensor::from_slice(&labels.tags().iter().map(of_label).collect::<Vec<_>>()).to_device(device)
}

/// The loss of a batch, a scalar: emissions `[B, W, K]` less `adjustments` `[K]` against the tags that its annotation
/// allows.
pub fn loss(crf: &Crf, emissions: &Tensor, batch: &Batch, adjustments: &Tensor) -> Tensor {
    let adjusted = emissions - adjustments;
    let log_likelihood = crf.marginal_log_likelihood(&adjusted, &batch.allowed, &batch.word_mask); // [B]
    -log_likelihood.sum(Kind::Float) / batch.word_mask.sum(Kind::Float)
}

#[cfg(test)]
mod tests {
    use super::*;
    use litflow::model::crf::Constraints;

    #[test]
    fn rare_types_are_adjusted_and_the_most_frequent_is_not() {
        let mentions = [5000, 100, 20, 0];
        assert_eq!(ClassWeighting::Off.adjustments(&mentions), [0.0; 4]);
        let inverse = ClassWeighting::InverseFrequency.adjustments(&mentions);
        let expected = [0.0, 50f64.ln(), 250f64.ln(), 0.0];
        assert!(inverse.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-9), "{inverse:?}");
        // (1 - 0.999^100) / (1 - 0.999^20) by hand: 0.095208 / 0.019811
        let effective = ClassWeighting::EffectiveNumber.adjustments(&mentions);
        assert!((effective[2] - effective[1] - 4.8058f64.ln()).abs() < 1e-3, "{effective:?}");
        assert_eq!(ClassWeighting::InverseFrequency.adjustments(&[0, 0]), [0.0, 0.0]);
    }

    /// A network that sees nothing but the labels' frequencies: without adjustment it learns their logarithms, with
    /// it that all types are alike, and the frequent type's balance against `O` is the same in both.
    #[test]
    fn what_is_learned_is_as_if_the_types_were_equally_frequent() {
        let labels = LabelSet::bio(&["Gene", "Drug"]); // O, B-Gene, I-Gene, B-Drug, I-Drug
        let counts = [60i64, 30, 3]; // of O, B-Gene, B-Drug, each a sentence of one word
        let allowed: Vec<bool> = counts
            .iter()
            .zip([0, 1, 3])
            .flat_map(|(&count, label)| (0..count * 5).map(move |at| at % 5 == label))
            .collect();
        let sentences: i64 = counts.iter().sum();
        let ones = |kind| Tensor::ones([sentences, 1], (kind, Device::Cpu));
        let batch = Batch {
            ids: ones(Kind::Int64),
            mask: ones(Kind::Bool),
            first_pieces: ones(Kind::Int64),
            word_mask: ones(Kind::Bool),
            allowed: Tensor::from_slice(&allowed).view([sentences, 1, 5]),
        };
        let crf = Crf::zeros(&Constraints::bio(&labels), Device::Cpu);
        let learn = |weighting: ClassWeighting| {
            let adjustments = label_adjustments(&labels, &weighting.adjustments(&[30, 3]), Device::Cpu);
            let mut bias = Tensor::zeros([5], (Kind::Float, Device::Cpu)).set_requires_grad(true);
            for _ in 0..400 {
                let loss = loss(&crf, &bias.expand([sentences, 1, 5], false), &batch, &adjustments);
                let gradient = Tensor::run_backward(&[loss], &[&bias], false, false);
                tch::no_grad(|| bias -= &gradient[0] * 2.0);
            }
            let of = |label: i64| bias.double_value(&[label]);
            [of(1) - of(0), of(3) - of(1)]
        };
        let near = |found: [f64; 2], expected: [f64; 2]| {
            assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 0.02), "{found:?} {expected:?}");
        };
        near(learn(ClassWeighting::Off), [0.5f64.ln(), 0.1f64.ln()]);
        near(learn(ClassWeighting::InverseFrequency), [0.5f64.ln(), 0.0]);
    }
}
