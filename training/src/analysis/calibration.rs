//! Whether a mention's score is the probability that it is right.

use super::PassageOutcome;
use serde::{Deserialize, Serialize};

/// Bins of equal width, as is usual for the measure.
const BINS: usize = 10;

/// The expected calibration error (Naeini et al. 2015, "Obtaining Well Calibrated Probabilities Using Bayesian
/// Binning") of the predicted mentions' scores, and the reliability diagram's points.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Σ share of the bin · |share correct − mean score|.
    pub expected_error: f64,
    /// From score 0 to 1.
    pub bins: Vec<Bin>,
}

/// Predictions with scores in one interval.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Bin {
    /// How many.
    pub predictions: u64,
    /// Their mean score, 0 where there is none.
    pub mean_score: f64,
    /// The share of them that is right, exactly; 0 where there is none.
    pub share_correct: f64,
}

impl Calibration {
    /// The calibration over all passages.
    pub fn of<'a>(passages: impl Iterator<Item = &'a PassageOutcome>) -> Self {
        let mut bins = vec![Bin::default(); BINS]; // sums at first
        for passage in passages {
            for predicted in &passage.predicted {
                let bin = &mut bins[((predicted.score * BINS as f64) as usize).min(BINS - 1)];
                bin.predictions += 1;
                bin.mean_score += predicted.score;
                bin.share_correct += f64::from(u8::from(passage.gold.contains(&predicted.span)));
            }
        }
        let total: u64 = bins.iter().map(|bin| bin.predictions).sum();
        let mut expected_error = 0.0;
        for bin in bins.iter_mut().filter(|bin| bin.predictions > 0) {
            let count = bin.predictions as f64;
            bin.mean_score /= count;
            bin.share_correct /= count;
            expected_error += count / total as f64 * (bin.share_correct - bin.mean_score).abs();
        }
        Self { expected_error, bins }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::testing::passage;

    #[test]
    fn the_error_is_the_mean_gap_between_score_and_share() {
        let gold = [(0, 1, 0), (1, 2, 0), (2, 3, 0)];
        let predicted = [(0, 1, 0, 0.95), (1, 2, 0, 0.95), (2, 3, 0, 0.55), (3, 4, 0, 0.55), (4, 5, 0, 1.0)];
        let calibration = Calibration::of([&passage(6, &gold, &predicted)].into_iter());
        assert_eq!((calibration.bins[9].predictions, calibration.bins[5].predictions), (3, 2));
        // Bin 9: mean score 2.9 / 3, two of three right; bin 5: 0.55 and one of two.
        let expected = 0.6 * (2.9f64 / 3.0 - 2.0 / 3.0) + 0.4 * 0.05;
        assert!((calibration.expected_error - expected).abs() < 1e-12);
    }
}
