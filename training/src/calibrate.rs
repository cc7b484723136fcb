//! Makes scores honest: the temperature by which a trained network's emissions and transitions are divided.
//!
//! A fine-tuned network is surer than it is right. One number on top of it, chosen on documents that it was not
//! trained on, mends most of that and changes no best path (Guo et al. 2017, "On Calibration of Modern Neural
//! Networks", <https://arxiv.org/abs/1706.04599>; here for the CRF's sequence likelihood).

use crate::error::Error;
use crate::examples::{Batch, Example, sorted_batches};
use crate::network::Network;
use litflow::model::crf::Crf;
use tch::{Kind, TchError, Tensor};

/// The inverse temperatures between which the best one is looked for.
const SHARPNESS: (f64, f64) = (0.125, 2.0);
/// How closely.
const TOLERANCE: f64 = 0.002;

/// The temperature that makes the annotation of `examples` likeliest. In its inverse the likelihood of complete
/// annotations is concave, so that it has one maximum.
pub fn temperature(network: &Network, examples: &[Example], batch_tokens: usize) -> Result<f64, Error> {
    let _no_grad = tch::no_grad_guard();
    let batches = sorted_batches(examples, batch_tokens).into_iter().map(|indices| {
        let members: Vec<&Example> = indices.iter().map(|&index| &examples[index]).collect();
        let batch = network.batch(&members)?;
        Ok((network.emissions(&batch, false)?, batch))
    });
    let batches: Vec<(Tensor, Batch)> = batches.collect::<Result<_, TchError>>()?;
    let loss = |sharpness: f64| -> Result<f64, TchError> {
        let crf = network.crf().sharpened(sharpness);
        batches.iter().map(|(emissions, batch)| negative_log_likelihood(&crf, emissions, batch, sharpness)).sum()
    };
    Ok(1.0 / minimum(SHARPNESS, TOLERANCE, loss)?)
}

fn negative_log_likelihood(crf: &Crf, emissions: &Tensor, batch: &Batch, sharpness: f64) -> Result<f64, TchError> {
    let emissions = emissions.f_mul_scalar(sharpness)?;
    let likelihood = crf.marginal_log_likelihood(&emissions, &batch.allowed, &batch.word_mask);
    Ok(-likelihood.f_sum(Kind::Double)?.f_double_value(&[])?)
}

/// Where a function with one minimum in the interval has it, by golden section (Kiefer 1953).
fn minimum<E>(
    (mut low, mut high): (f64, f64),
    tolerance: f64,
    mut function: impl FnMut(f64) -> Result<f64, E>,
) -> Result<f64, E> {
    let ratio = f64::midpoint(5f64.sqrt(), -1.0); // 0.618…
    let (mut left, mut right) = (high - ratio * (high - low), low + ratio * (high - low));
    let (mut at_left, mut at_right) = (function(left)?, function(right)?);
    while high - low > tolerance {
        if at_left < at_right {
            (high, right, at_right) = (right, left, at_left);
            left = high - ratio * (high - low);
            at_left = function(left)?;
        } else {
            (low, left, at_left) = (left, right, at_right);
            right = low + ratio * (high - low);
            at_right = function(right)?;
        }
    }
    Ok(f64::midpoint(low, high))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_minimum_is_found_within_and_at_the_end() {
        let find = |target: f64| minimum((0.0, 2.0), 1e-4, |x| Ok::<_, ()>((x - target).powi(2))).unwrap();
        for (target, expected) in [(0.3, 0.3), (1.9, 1.9), (5.0, 2.0), (-1.0, 0.0)] {
            assert!((find(target) - expected).abs() < 1e-3, "{target}: {}", find(target));
        }
    }
}
