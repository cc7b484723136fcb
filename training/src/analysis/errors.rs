//! What went wrong, mention by mention: its class, and for which mentions.

use super::{PassageOutcome, Training};
use crate::scorer::Span;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Gold mentions and predictions by what became of them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Errors {
    /// Gold mentions found exactly.
    pub correct: u64,
    /// Gold mentions that a prediction of their type overlaps, with other borders.
    pub boundary: u64,
    /// Gold mentions whose borders were found, with another type.
    pub wrong_type: u64,
    /// Gold mentions that only predictions with other borders and another type overlap.
    pub boundary_and_type: u64,
    /// Gold mentions that nothing overlaps.
    pub missed: u64,
    /// Predictions that overlap no gold mention.
    pub spurious: u64,
    /// Gold mentions of each length in words (`1`, `2`, `3`, `4+`) and how many were found.
    pub by_length: BTreeMap<String, Found>,
    /// Gold mentions whose text was a mention in training.
    pub seen: Found,
    /// The others.
    pub unseen: Found,
    /// Gold type → predicted type → count, over each gold mention and the prediction that overlaps it most;
    /// [`NOTHING`] stands for missed and for spurious.
    pub confusion: BTreeMap<String, BTreeMap<String, u64>>,
}

/// Of so many, so many were found exactly.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Gold mentions.
    pub gold: u64,
    /// Those found exactly.
    pub correct: u64,
}

/// The row of spurious predictions and the column of missed mentions.
pub const NOTHING: &str = "-";

impl Errors {
    /// The errors of all passages.
    pub fn of<'a>(passages: impl Iterator<Item = &'a PassageOutcome>, types: &[String], training: &Training) -> Self {
        let mut errors = Self::default();
        for passage in passages {
            let predicted = passage.predicted_spans();
            for &gold in &passage.gold {
                errors.count_gold(passage, gold, &predicted, types, training);
            }
            for span in predicted {
                if !passage.gold.iter().any(|&gold| overlap(gold, span) > 0) {
                    errors.spurious += 1;
                    errors.confuse(NOTHING, &types[span.entity_type]);
                }
            }
        }
        errors
    }

    fn count_gold(
        &mut self,
        passage: &PassageOutcome,
        gold: Span,
        predicted: &[Span],
        types: &[String],
        training: &Training,
    ) {
        let overlapping = || predicted.iter().copied().filter(|&span| overlap(gold, span) > 0);
        let same_borders = |span: Span| (span.begin, span.end) == (gold.begin, gold.end);
        let is_correct = overlapping().any(|span| span == gold);
        let class = if is_correct {
            &mut self.correct
        } else if overlapping().any(|span| span.entity_type == gold.entity_type) {
            &mut self.boundary
        } else if overlapping().any(same_borders) {
            &mut self.wrong_type
        } else if overlapping().next().is_some() {
            &mut self.boundary_and_type
        } else {
            &mut self.missed
        };
        *class += 1;

        let words = passage.words.iter().filter(|&&(begin, end)| gold.begin < end && begin < gold.end).count();
        let length = if words < 4 { words.to_string() } else { "4+".to_owned() };
        self.by_length.entry(length).or_default().count(is_correct);
        let is_seen = training.mentions.contains(&Training::normalised(&passage.slice(gold)));
        if is_seen { &mut self.seen } else { &mut self.unseen }.count(is_correct);

        // Of equals the first: `max_by_key` would take the last.
        let most = overlapping().rev().max_by_key(|&span| overlap(gold, span));
        self.confuse(&types[gold.entity_type], most.map_or(NOTHING, |span| &types[span.entity_type]));
    }

    fn confuse(&mut self, gold: &str, predicted: &str) {
        *self.confusion.entry(gold.to_owned()).or_default().entry(predicted.to_owned()).or_default() += 1;
    }
}

impl Found {
    fn count(&mut self, is_correct: bool) {
        self.gold += 1;
        self.correct += u64::from(is_correct);
    }

    /// The share that was found, 0 where there was nothing to find.
    pub fn recall(self) -> f64 {
        if self.gold == 0 { 0.0 } else { self.correct as f64 / self.gold as f64 }
    }
}

/// Code points in common.
fn overlap(a: Span, b: Span) -> u32 {
    a.end.min(b.end).saturating_sub(a.begin.max(b.begin))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::testing::passage;

    #[test]
    fn each_gold_mention_has_one_class_and_spurious_predictions_are_counted_beside_them() {
        let types = ["Gene".to_owned(), "Disease".to_owned()];
        let gold = [(0, 2, 0), (3, 6, 0), (7, 8, 0), (9, 12, 0), (14, 19, 1)];
        let predicted =
            [(0, 2, 0, 1.0), (4, 6, 0, 1.0), (7, 8, 1, 1.0), (10, 11, 1, 1.0), (20, 21, 1, 1.0), (22, 23, 0, 1.0)];
        let passage = passage(26, &gold, &predicted);
        let training = Training { mentions: ["ab".to_owned(), "opqrs".to_owned()].into(), mentions_by_type: vec![] };
        let errors = Errors::of([&passage].into_iter(), &types, &training);
        let classes = [errors.correct, errors.boundary, errors.wrong_type, errors.boundary_and_type, errors.missed];
        assert_eq!((classes, errors.spurious), ([1, 1, 1, 1, 1], 2));
        let found = |gold, correct| Found { gold, correct };
        assert_eq!((errors.seen, errors.unseen), (found(2, 1), found(3, 0)));
        let lengths: Vec<_> = errors.by_length.iter().map(|(length, found)| (length.as_str(), *found)).collect();
        assert_eq!(lengths, [("1", found(1, 0)), ("2", found(1, 1)), ("3", found(2, 0)), ("4+", found(1, 0))]);
        let confusion = |gold: &str, predicted: &str| errors.confusion[gold].get(predicted).copied().unwrap_or(0);
        assert_eq!((confusion("Gene", "Gene"), confusion("Gene", "Disease")), (2, 2));
        assert_eq!(
            (confusion("Disease", NOTHING), confusion(NOTHING, "Gene"), confusion(NOTHING, "Disease")),
            (1, 1, 1)
        );
    }
}
