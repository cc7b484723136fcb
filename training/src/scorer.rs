//! Strict entity scores: a mention counts as found only with its exact begin, end and type.
//!
//! The definitions are those of CoNLL 2003 and of seqeval's strict mode: precision = correct / predicted,
//! recall = correct / gold, F1 their harmonic mean, each 0 where its denominator is 0; *micro* pools the
//! counts of all types, *macro* is the plain mean over the types that occur in gold or prediction.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;

/// A typed stretch of a passage, code points, half-open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Span {
    /// First code point.
    pub begin: u32,
    /// One after the last code point.
    pub end: u32,
    /// Index of the entity type.
    pub entity_type: usize,
}

/// Counts mentions, type by type.
#[derive(Debug, Clone)]
pub struct Scorer {
    types: Vec<String>,
    counts: Vec<Counts>,
}

/// What scores are computed from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Predicted and right.
    pub correct: u64,
    /// Predicted.
    pub predicted: u64,
    /// In gold.
    pub gold: u64,
}

/// Precision, recall and F1 as fractions, and the number of gold mentions.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// correct / predicted.
    pub precision: f64,
    /// correct / gold.
    pub recall: f64,
    /// 2 · precision · recall / (precision + recall).
    pub f1: f64,
    /// Gold mentions.
    pub support: u64,
}

/// The scores of a whole evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Over the pooled counts of all types.
    pub micro: Scores,
    /// The mean over the types that occur.
    #[serde(rename = "macro")]
    pub macro_average: Scores,
    /// Type by type; a type that occurs neither in gold nor in prediction is left out.
    pub types: BTreeMap<String, Scores>,
}

impl Scorer {
    /// A scorer for these entity types, with nothing counted.
    pub fn new(types: &[String]) -> Self {
        Self { types: types.to_vec(), counts: vec![Counts::default(); types.len()] }
    }

    /// Counts one passage. The same span twice counts once.
    pub fn add(&mut self, gold: &[Span], predicted: &[Span]) {
        let gold: HashSet<Span> = gold.iter().copied().collect();
        let predicted: HashSet<Span> = predicted.iter().copied().collect();
        for span in &gold {
            self.counts[span.entity_type].gold += 1;
        }
        for span in &predicted {
            self.counts[span.entity_type].predicted += 1;
            self.counts[span.entity_type].correct += u64::from(gold.contains(span));
        }
    }

    /// The scores over the pooled counts of these types.
    pub fn pooled(&self, types: &[usize]) -> Scores {
        let sum = |of: fn(&Counts) -> u64| types.iter().map(|&index| of(&self.counts[index])).sum();
        Counts { correct: sum(|c| c.correct), predicted: sum(|c| c.predicted), gold: sum(|c| c.gold) }.scores()
    }

    /// The scores of everything counted so far.
    pub fn report(&self) -> Report {
        let occurring: Vec<(&String, Counts)> =
            self.types.iter().zip(self.counts.iter().copied()).filter(|(_, c)| c.gold + c.predicted > 0).collect();
        let pooled = self.pooled(&(0..self.types.len()).collect::<Vec<_>>());
        let types: BTreeMap<String, Scores> =
            occurring.iter().map(|(name, counts)| ((*name).clone(), counts.scores())).collect();
        let mean = |score: fn(&Scores) -> f64| match types.len() {
            0 => 0.0,
            count => types.values().map(score).sum::<f64>() / count as f64,
        };
        let macro_average = Scores {
            precision: mean(|s| s.precision),
            recall: mean(|s| s.recall),
            f1: mean(|s| s.f1),
            support: pooled.support,
        };
        Report { micro: pooled, macro_average, types }
    }
}

impl Counts {
    /// Their precision, recall and F1.
    pub fn scores(self) -> Scores {
        let ratio = |part: u64, whole: u64| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
        Scores {
            precision: ratio(self.correct, self.predicted),
            recall: ratio(self.correct, self.gold),
            // The harmonic mean of the two ratios, without their rounding.
            f1: ratio(2 * self.correct, self.predicted + self.gold),
            support: self.gold,
        }
    }
}

impl Report {
    /// A table for people, per cent with one decimal.
    pub fn table(&self) -> String {
        let width = self.types.keys().map(String::len).max().unwrap_or(0).max("micro".len());
        let mut table = format!("{:width$}  precision  recall     f1  support\n", "");
        let rows = self.types.iter().map(|(name, scores)| (name.as_str(), scores));
        for (name, s) in rows.chain([("micro", &self.micro), ("macro", &self.macro_average)]) {
            let (precision, recall, f1) = (100.0 * s.precision, 100.0 * s.recall, 100.0 * s.f1);
            writeln!(table, "{name:width$}  {precision:9.1}  {recall:6.1}  {f1:5.1}  {:7}", s.support)
                .expect("writing to a string cannot fail");
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::spans_of;
    use litflow::model::LabelSet;

    /// Random gold and predicted BIO sequences, scored by seqeval (strict, IOB2):
    /// `tests/seqeval/make_expected.py`.
    #[test]
    fn agrees_with_seqeval() {
        let cases: Vec<serde_json::Value> =
            serde_json::from_str(include_str!("../tests/seqeval/expected.json")).unwrap();
        assert!(cases.len() >= 20);
        for (index, case) in cases.iter().enumerate() {
            let types: Vec<String> = serde_json::from_value(case["types"].clone()).unwrap();
            let labels = LabelSet::bio(&types);
            let spans = |side: &str| -> Vec<Vec<Span>> {
                let sentences: Vec<Vec<String>> = serde_json::from_value(case[side].clone()).unwrap();
                let read = |sentence: Vec<String>| {
                    let index_of = |tag: &String| labels.labels().iter().position(|label| label == tag).unwrap();
                    let path: Vec<usize> = sentence.iter().map(index_of).collect();
                    let words: Vec<(u32, u32)> = (0..path.len() as u32).map(|word| (word, word + 1)).collect();
                    spans_of(&path, &words, &labels)
                };
                sentences.into_iter().map(read).collect()
            };
            let mut scorer = Scorer::new(&types);
            for (gold, predicted) in spans("gold").iter().zip(&spans("predicted")) {
                scorer.add(gold, predicted);
            }
            let found = serde_json::to_value(scorer.report()).unwrap();
            let expected = &case["report"];
            for (name, scores) in expected.as_object().unwrap() {
                let found = match name.as_str() {
                    "micro" | "macro" => &found[name.as_str()],
                    name => &found["types"][name],
                };
                for score in ["precision", "recall", "f1", "support"] {
                    let (found, expected) = (found[score].as_f64().unwrap(), scores[score].as_f64().unwrap());
                    assert!((found - expected).abs() < 1e-9, "case {index}, {name} {score}: {found} != {expected}");
                }
            }
            assert_eq!(found["types"].as_object().unwrap().len() + 2, expected.as_object().unwrap().len());
        }
    }

    #[test]
    fn nothing_to_find_and_nothing_found_is_zero_not_nan() {
        let report = Scorer::new(&["Gene".into()]).report();
        assert_eq!((report.micro.f1, report.macro_average.f1, report.types.len()), (0.0, 0.0, 0));
    }
}
