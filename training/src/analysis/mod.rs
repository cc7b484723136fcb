//! What is known about a model from one evaluation: every measure is computed from the same [`Outcome`]s.
//!
//! | module | measure |
//! |---|---|
//! | [`crate::scorer`] | strict precision, recall, F1 |
//! | [`relaxed`] | the same, where an overlap is enough |
//! | [`tokens`] | B, I, O word by word; in a mention or not |
//! | [`errors`] | correct, boundary, type, missed, spurious; by length; by whether training had the text |
//! | [`calibration`] | whether a score of 0.9 is right nine times in ten |
//! | [`bootstrap`] | confidence intervals, and whether a difference between two models is one |

pub mod bootstrap;
pub mod calibration;
pub mod errors;
pub mod relaxed;
pub mod tokens;

use crate::dataset::Dataset;
use crate::error::Error;
use crate::scorer::{self, Scorer, Span};
use bootstrap::Interval;
use calibration::Calibration;
use errors::Errors;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use tokens::TokenScores;

/// What a model said about a document, beside what is right.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The document's id.
    pub id: String,
    /// Passage by passage.
    pub passages: Vec<PassageOutcome>,
}

/// What a model said about a passage.
#[derive(Debug, Clone, Default)]
pub struct PassageOutcome {
    /// Its text.
    pub text: String,
    /// The words that the model labels, code points, ascending.
    pub words: Vec<(u32, u32)>,
    /// Gold mentions: disjoint, ascending.
    pub gold: Vec<Span>,
    /// Predicted mentions: disjoint, ascending.
    pub predicted: Vec<Predicted>,
}

/// A predicted mention.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Predicted {
    /// Where and what.
    pub span: Span,
    /// The model's probability for it, 0 to 1.
    pub score: f64,
}

/// What training had, to tell seen from unseen and rare from common.
#[derive(Debug, Clone, Default)]
pub struct Training {
    /// The texts of its mentions, as [`Training::normalised`] has them.
    pub mentions: BTreeSet<String>,
    /// Its mentions of each type.
    pub mentions_by_type: Vec<u64>,
}

/// Every measure of one evaluation. Fractions, not per cent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Exact begin, end and type.
    pub strict: scorer::Report,
    /// Any overlap with a mention of the type.
    pub relaxed: scorer::Report,
    /// 95 % interval of the strict micro F1, by bootstrap over documents.
    pub strict_micro_f1_interval: Interval,
    /// Strict, pooled over the rare types; see [`rare_types`]. Left out where none is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rare: Option<Group>,
    /// Strict, pooled over the other types.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub common: Option<Group>,
    /// Word by word.
    pub tokens: TokenScores,
    /// What went wrong.
    pub errors: Errors,
    /// Whether scores are probabilities.
    pub calibration: Calibration,
}

/// Types that are scored together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// Their names.
    pub types: Vec<String>,
    /// Strict, over their pooled counts.
    pub strict: scorer::Scores,
}

impl Training {
    /// The mentions of a training set.
    pub fn of(data: &Dataset) -> Result<Self, Error> {
        let mut training = Self { mentions_by_type: vec![0; data.types.len()], ..Self::default() };
        for document in data.documents() {
            for passage in document?.passages {
                for span in passage.spans {
                    training.mentions.insert(Self::normalised(&slice(&passage.text, span)));
                    training.mentions_by_type[span.entity_type] += 1;
                }
            }
        }
        Ok(training)
    }

    /// Case and the kind of white space aside.
    pub fn normalised(mention: &str) -> String {
        mention.split_whitespace().map(str::to_lowercase).collect::<Vec<_>>().join(" ")
    }
}

impl PassageOutcome {
    /// The text of a span of this passage.
    pub fn slice(&self, span: Span) -> String {
        slice(&self.text, span)
    }

    /// The predicted mentions without their scores.
    pub fn predicted_spans(&self) -> Vec<Span> {
        self.predicted.iter().map(|predicted| predicted.span).collect()
    }
}

impl Metrics {
    /// Computes all measures. `types` are the names that spans index. The intervals are repeatable: the
    /// bootstrap has a fixed seed.
    pub fn of(outcomes: &[Outcome], types: &[String], training: &Training) -> Self {
        let passages = || outcomes.iter().flat_map(|outcome| &outcome.passages);
        let mut strict = Scorer::new(types);
        for passage in passages() {
            strict.add(&passage.gold, &passage.predicted_spans());
        }
        let rare = rare_types(&training.mentions_by_type);
        let group = |members: Vec<usize>| {
            let strict = strict.pooled(&members);
            let types = members.iter().map(|&index| types[index].clone()).collect();
            (!members.is_empty()).then_some(Group { types, strict })
        };
        let common = (0..types.len()).filter(|index| !rare.contains(index)).collect();
        Self {
            strict: strict.report(),
            relaxed: relaxed::report(passages(), types),
            strict_micro_f1_interval: bootstrap::interval(outcomes),
            common: if rare.is_empty() { None } else { group(common) },
            rare: group(rare),
            tokens: TokenScores::of(passages()),
            errors: Errors::of(passages(), types, training),
            calibration: Calibration::of(passages()),
        }
    }

    /// The figures that a model's announcement carries, by name (`strict.micro.f1`).
    pub fn headline(&self) -> BTreeMap<String, f64> {
        let strict = self.strict.types.iter().map(|(name, scores)| (format!("strict.types.{name}.f1"), scores.f1));
        let others = [
            ("strict.micro.precision", self.strict.micro.precision),
            ("strict.micro.recall", self.strict.micro.recall),
            ("strict.micro.f1", self.strict.micro.f1),
            ("strict.macro.f1", self.strict.macro_average.f1),
            ("relaxed.micro.f1", self.relaxed.micro.f1),
            ("calibration.expected_error", self.calibration.expected_error),
        ];
        strict.chain(others.map(|(name, value)| (name.to_owned(), value))).collect()
    }
}

fn slice(text: &str, span: Span) -> String {
    text.chars().skip(span.begin as usize).take((span.end - span.begin) as usize).collect()
}

/// The types with less than a fifth of the mean type's mentions in training, as indices.
pub fn rare_types(mentions_by_type: &[u64]) -> Vec<usize> {
    let total: u64 = mentions_by_type.iter().sum();
    let types = mentions_by_type.len() as u64;
    (0..mentions_by_type.len()).filter(|&index| mentions_by_type[index] * types * 5 < total).collect()
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// A passage of words `0..words`, each one code point long, with mentions given as words and a type.
    pub fn passage(words: u32, gold: &[(u32, u32, usize)], predicted: &[(u32, u32, usize, f64)]) -> PassageOutcome {
        let span = |begin, end, entity_type| Span { begin, end, entity_type };
        PassageOutcome {
            text: ('a'..='z').cycle().take(words as usize).collect(),
            words: (0..words).map(|word| (word, word + 1)).collect(),
            gold: gold.iter().map(|&(begin, end, of)| span(begin, end, of)).collect(),
            predicted: predicted
                .iter()
                .map(|&(begin, end, of, score)| Predicted { span: span(begin, end, of), score })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::passage;
    use super::*;

    #[test]
    fn a_type_is_rare_beside_the_others() {
        assert_eq!(rare_types(&[500, 480, 520, 70]), [3]);
        assert_eq!(rare_types(&[500, 480, 520, 90]), [0usize; 0]);
        assert_eq!(rare_types(&[]), [0usize; 0]);
    }

    #[test]
    fn all_measures_look_at_the_same_outcomes() {
        let types = ["Gene".to_owned(), "Disease".to_owned()];
        let outcome = Outcome {
            id: "1".into(),
            passages: vec![passage(10, &[(0, 2, 0), (4, 5, 1)], &[(0, 2, 0, 0.9), (4, 6, 1, 0.6)])],
        };
        let training = Training { mentions: ["ab".to_owned()].into(), mentions_by_type: vec![100, 5] };
        let metrics = Metrics::of(&[outcome], &types, &training);
        assert_eq!((metrics.strict.micro.f1, metrics.relaxed.micro.f1), (0.5, 1.0));
        assert_eq!(metrics.rare.as_ref().unwrap().types, ["Disease"]);
        assert_eq!(metrics.rare.as_ref().unwrap().strict.f1, 0.0);
        assert_eq!(metrics.common.as_ref().unwrap().strict.f1, 1.0);
        assert_eq!(metrics.headline()["strict.types.Gene.f1"], 1.0);
        let written = serde_json::to_string(&metrics).unwrap();
        assert_eq!(serde_json::from_str::<Metrics>(&written).unwrap().strict, metrics.strict);
    }

    #[test]
    fn nothing_evaluated_is_zero_not_nan() {
        let metrics = Metrics::of(&[], &["Gene".to_owned()], &Training::default());
        assert!(!serde_json::to_string(&metrics).unwrap().contains("null"));
    }
}
