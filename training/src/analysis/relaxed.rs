//! Relaxed entity scores: a mention counts as found where a prediction of its type overlaps it.
//!
//! Each prediction finds one mention and each mention is found by one prediction (as in the partial matching of
//! SemEval 2013, task 9, with the type required), so that one long prediction over three genes is right once.

use super::PassageOutcome;
use crate::scorer::{Report, Scorer, Span};

/// The scores of all passages.
pub fn report<'a>(passages: impl Iterator<Item = &'a PassageOutcome>, types: &[String]) -> Report {
    let mut scorer = Scorer::new(types);
    for passage in passages {
        let mut gold: Vec<Option<Span>> = passage.gold.iter().copied().map(Some).collect();
        // A prediction that overlaps a mention stands for it: to the strict scorer it is exact.
        let matched: Vec<Span> = passage
            .predicted_spans()
            .into_iter()
            .map(|predicted| {
                let overlapped = gold.iter_mut().find(|gold| gold.is_some_and(|gold| overlaps(gold, predicted)));
                overlapped.and_then(Option::take).unwrap_or(predicted)
            })
            .collect();
        scorer.add(&passage.gold, &matched);
    }
    scorer.report()
}

/// Predictions and mentions ascend and are disjoint, so that taking the first match from the left finds the most.
fn overlaps(gold: Span, predicted: Span) -> bool {
    gold.entity_type == predicted.entity_type && gold.begin < predicted.end && predicted.begin < gold.end
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::testing::passage;

    fn counts(gold: &[(u32, u32, usize)], predicted: &[(u32, u32, usize, f64)]) -> (f64, f64) {
        let types = ["Gene".to_owned(), "Disease".to_owned()];
        let report = report([&passage(20, gold, predicted)].into_iter(), &types);
        (report.micro.precision, report.micro.recall)
    }

    #[test]
    fn an_overlap_of_the_type_is_enough_and_counts_once() {
        assert_eq!(counts(&[(3, 6, 0)], &[(5, 9, 0, 1.0)]), (1.0, 1.0));
        assert_eq!(counts(&[(3, 6, 0)], &[(5, 9, 1, 1.0)]), (0.0, 0.0));
        assert_eq!(counts(&[(3, 6, 0)], &[(6, 9, 0, 1.0)]), (0.0, 0.0));
        assert_eq!(counts(&[(0, 2, 0), (3, 5, 0), (6, 8, 0)], &[(0, 8, 0, 1.0)]), (1.0, 1.0 / 3.0));
        assert_eq!(counts(&[(0, 8, 0)], &[(0, 2, 0, 1.0), (3, 5, 0, 1.0)]), (0.5, 1.0));
        // The first takes the left mention, so that the second finds one too.
        assert_eq!(counts(&[(0, 2, 0), (3, 6, 0)], &[(1, 4, 0, 1.0), (5, 7, 0, 1.0)]), (1.0, 1.0));
    }
}
