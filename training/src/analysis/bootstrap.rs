//! Confidence intervals by bootstrap over documents (Efron 1979; percentile intervals).
//!
//! Documents, not mentions, are drawn: mentions of a document are not independent of one another. Two models are
//! compared on the same draws (paired), which takes the documents' own difficulty out of the difference
//! (Koehn 2004, "Statistical Significance Tests for Machine Translation Evaluation").

use super::Outcome;
use crate::random::SplitMix;
use crate::scorer::{Counts, Span};
use serde::{Deserialize, Serialize};

const DRAWS: usize = 2000;
const SEED: u64 = 20_040_725;

/// A figure with its 95 % confidence interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The figure itself.
    pub value: f64,
    /// 2.5 % of the draws are below this.
    pub low: f64,
    /// 2.5 % of the draws are above this.
    pub high: f64,
}

/// The interval of the strict micro F1. Repeatable: the draws have a fixed seed.
pub fn interval(outcomes: &[Outcome]) -> Interval {
    let counts: Vec<Counts> = outcomes.iter().map(counts).collect();
    over_draws(counts.len(), |draw| micro_f1(&counts, draw))
}

/// The interval of candidate − champion in strict micro F1.
///
/// # Errors
/// The documents are not the same, in the same order: the message says where.
pub fn difference(champion: &[Outcome], candidate: &[Outcome]) -> Result<Interval, String> {
    if champion.len() != candidate.len() {
        return Err(format!("{} documents and {} cannot be compared in pairs", champion.len(), candidate.len()));
    }
    if let Some((a, b)) = champion.iter().zip(candidate).find(|(a, b)| a.id != b.id) {
        return Err(format!("document {} stands where {} does: they cannot be compared in pairs", a.id, b.id));
    }
    let [champion, candidate] = [champion, candidate].map(|side| side.iter().map(counts).collect::<Vec<_>>());
    Ok(over_draws(champion.len(), |draw| micro_f1(&candidate, draw) - micro_f1(&champion, draw)))
}

/// What strict micro F1 needs of a document.
fn counts(outcome: &Outcome) -> Counts {
    let mut counts = Counts::default();
    for passage in &outcome.passages {
        let predicted: Vec<Span> = passage.predicted_spans();
        counts.gold += passage.gold.len() as u64;
        counts.predicted += predicted.len() as u64;
        counts.correct += predicted.iter().filter(|span| passage.gold.contains(span)).count() as u64;
    }
    counts
}

fn micro_f1(counts: &[Counts], draw: &[usize]) -> f64 {
    let sum = |of: fn(&Counts) -> u64| draw.iter().map(|&index| of(&counts[index])).sum();
    Counts { correct: sum(|c| c.correct), predicted: sum(|c| c.predicted), gold: sum(|c| c.gold) }.scores().f1
}

fn over_draws(documents: usize, figure: impl Fn(&[usize]) -> f64) -> Interval {
    let mut draw: Vec<usize> = (0..documents).collect();
    let value = figure(&draw);
    if documents == 0 {
        return Interval { value, low: value, high: value };
    }
    let mut random = SplitMix(SEED);
    let mut figures: Vec<f64> = (0..DRAWS)
        .map(|_| {
            draw.fill_with(|| random.below(documents));
            figure(&draw)
        })
        .collect();
    figures.sort_by(f64::total_cmp);
    Interval { value, low: figures[DRAWS / 40], high: figures[DRAWS - 1 - DRAWS / 40] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::testing::passage;

    /// `right` documents in which the one mention was found, and `wrong` ones in which it was not.
    fn outcomes(right: usize, wrong: usize) -> Vec<Outcome> {
        (0..right + wrong)
            .map(|index| {
                let predicted = if index < right { (0, 1, 0, 1.0) } else { (1, 2, 0, 1.0) };
                Outcome { id: index.to_string(), passages: vec![passage(3, &[(0, 1, 0)], &[predicted])] }
            })
            .collect()
    }

    /// F1 is then the share of right documents, whose interval is known: p ± 1.96 √(p (1 − p) / n).
    #[test]
    fn the_interval_of_a_share_is_the_binomial_one() {
        let interval = interval(&outcomes(320, 80));
        let half = 1.96 * (0.8f64 * 0.2 / 400.0).sqrt();
        assert_eq!(interval.value, 0.8);
        assert!((interval.low - (0.8 - half)).abs() < 0.006 && (interval.high - (0.8 + half)).abs() < 0.006);
    }

    #[test]
    fn pairing_takes_the_documents_difficulty_out() {
        // Ten of four hundred documents are gained and none is lost: small, but sure.
        let difference = difference(&outcomes(310, 90), &outcomes(320, 80)).unwrap();
        assert!((difference.value - 0.025).abs() < 1e-12);
        assert!(difference.low > 0.009 && difference.high < 0.042, "{difference:?}");
    }

    #[test]
    fn only_the_same_documents_are_compared() {
        assert!(difference(&outcomes(1, 1), &outcomes(1, 2)).is_err());
        let mut other = outcomes(1, 1);
        other[1].id = "another".into();
        assert!(difference(&outcomes(1, 1), &other).unwrap_err().contains("another"));
    }
}
