//! Scores word by word, whatever the type: the three classes B, I and O, and words in a mention (B or I) against O.
//!
//! Means are given with and without O: O is nine words in ten, and easy.

use super::PassageOutcome;
use crate::scorer::{Counts, Scores, Span};
use serde::{Deserialize, Serialize};

/// Word by word. Means are plain means of F1 over classes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TokenScores {
    /// First words of mentions.
    pub b: Scores,
    /// Other words of mentions.
    pub i: Scores,
    /// Words outside.
    pub o: Scores,
    /// Words of mentions, first or not.
    pub ib: Scores,
    /// Mean F1 of B, I and O.
    pub mean_b_i_o: f64,
    /// Mean F1 of B and I.
    pub mean_b_i: f64,
    /// Mean F1 of IB and O.
    pub mean_ib_o: f64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    B,
    I,
    O,
}

impl TokenScores {
    /// The scores of all passages' words.
    pub fn of<'a>(passages: impl Iterator<Item = &'a PassageOutcome>) -> Self {
        let (mut b, mut i, mut o, mut ib) = Default::default();
        for passage in passages {
            let gold = classes(&passage.words, &passage.gold);
            let predicted = classes(&passage.words, &passage.predicted_spans());
            for (gold, predicted) in gold.into_iter().zip(predicted) {
                let count = |counts: &mut Counts, belongs: fn(Class) -> bool| {
                    let (gold, predicted) = (belongs(gold), belongs(predicted));
                    counts.gold += u64::from(gold);
                    counts.predicted += u64::from(predicted);
                    counts.correct += u64::from(gold && predicted);
                };
                count(&mut b, |class| class == Class::B);
                count(&mut i, |class| class == Class::I);
                count(&mut o, |class| class == Class::O);
                count(&mut ib, |class| class != Class::O);
            }
        }
        let [b, i, o, ib] = [b, i, o, ib].map(|counts: Counts| counts.scores());
        Self {
            mean_b_i_o: (b.f1 + i.f1 + o.f1) / 3.0,
            mean_b_i: f64::midpoint(b.f1, i.f1),
            mean_ib_o: f64::midpoint(ib.f1, o.f1),
            b,
            i,
            o,
            ib,
        }
    }
}

/// A mention's words are all that it touches, as in training.
fn classes(words: &[(u32, u32)], spans: &[Span]) -> Vec<Class> {
    let mut previous = None;
    let class = |&(begin, end): &(u32, u32)| {
        let of = spans.iter().position(|span| span.begin < end && begin < span.end);
        let class = match of {
            None => Class::O,
            Some(_) if of == previous => Class::I,
            Some(_) => Class::B,
        };
        previous = of;
        class
    };
    words.iter().map(class).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::testing::passage;

    #[test]
    fn words_are_counted_by_class_whatever_the_type() {
        // gold      B I I O O B B O O O
        // predicted B I O O O B I O O B
        let passage =
            passage(10, &[(0, 3, 0), (5, 6, 0), (6, 7, 0)], &[(0, 2, 1, 1.0), (5, 7, 0, 1.0), (9, 10, 0, 1.0)]);
        let scores = TokenScores::of([&passage].into_iter());
        let counts = |scores: Scores| (scores.precision, scores.recall, scores.support);
        assert_eq!(counts(scores.b), (2.0 / 3.0, 2.0 / 3.0, 3));
        assert_eq!(counts(scores.i), (0.5, 0.5, 2));
        assert_eq!(counts(scores.o), (4.0 / 5.0, 4.0 / 5.0, 5));
        assert_eq!(counts(scores.ib), (4.0 / 5.0, 4.0 / 5.0, 5));
        assert!((scores.mean_b_i - (2.0 / 3.0 + 0.5) / 2.0).abs() < 1e-12);
    }
}
