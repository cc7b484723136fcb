//! What became of an article's mentions from one version to the next.
//!
//! Each mention of either version stands in exactly one [`Pair`], so the counts of both sides add up:
//! what there was = unchanged + boundary + retyped + removed, what there is = unchanged + boundary + retyped + added.

use serde::Serialize;
use std::cmp::Ordering;

/// A mention as far as it is compared. Offsets are code points of the passage, half-open.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Span {
    /// Index of the passage.
    pub passage: u32,
    /// Begin in the passage.
    pub begin: u32,
    /// End in the passage.
    pub end: u32,
    /// The entity type, by its number in [`Names`](super::names::Names).
    pub entity_type: u32,
    /// The model's probability for the span.
    pub score: f32,
}

/// What became of a mention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// The same span, the same type.
    Unchanged,
    /// An overlapping span of the same type.
    Boundary,
    /// The same span, another type.
    Retyped,
    /// New.
    Added,
    /// Gone.
    Removed,
}

/// A mention of the older version, the one of the newer that took its place, or both: indices into what was compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair {
    /// What happened.
    pub change: Change,
    /// None where it was added.
    pub before: Option<usize>,
    /// None where it was removed.
    pub after: Option<usize>,
}

/// Pairs the mentions of two versions, one to one: the same first, then those with the same span, then, from left to
/// right, those of the same type that overlap. Takes O(n log n).
pub fn pairs(before: &[Span], after: &[Span]) -> Vec<Pair> {
    let place = |span: &Span| (span.passage, span.begin, span.end);
    let same = |a: &Span, b: &Span| (place(a), a.entity_type).cmp(&(place(b), b.entity_type));
    let same_span = |a: &Span, b: &Span| place(a).cmp(&place(b));
    let overlapping = |a: &Span, b: &Span| {
        let track = (a.entity_type, a.passage).cmp(&(b.entity_type, b.passage));
        track.then_with(|| match () {
            () if a.end <= b.begin => Ordering::Less,
            () if b.end <= a.begin => Ordering::Greater,
            () => Ordering::Equal,
        })
    };
    let mut left = Left { before: (0..before.len()).collect(), after: (0..after.len()).collect() };
    let mut pairs = Vec::with_capacity(before.len().max(after.len()));
    let mut join =
        |change, order: &dyn Fn(&Span) -> (u32, u32, u32, u32), compare: &dyn Fn(&Span, &Span) -> Ordering| {
            left.before.sort_by_key(|&index| order(&before[index]));
            left.after.sort_by_key(|&index| order(&after[index]));
            let matched = left.join(|b, a| compare(&before[b], &after[a]));
            pairs.extend(matched.into_iter().map(|(b, a)| Pair { change, before: Some(b), after: Some(a) }));
        };
    let by_place = |span: &Span| (span.passage, span.begin, span.end, span.entity_type);
    let by_type = |span: &Span| (span.entity_type, span.passage, span.begin, span.end);
    join(Change::Unchanged, &by_place, &same);
    join(Change::Retyped, &by_place, &same_span);
    join(Change::Boundary, &by_type, &overlapping);
    pairs.extend(left.before.iter().map(|&b| Pair { change: Change::Removed, before: Some(b), after: None }));
    pairs.extend(left.after.iter().map(|&a| Pair { change: Change::Added, before: None, after: Some(a) }));
    pairs
}

/// The mentions that have no counterpart yet.
struct Left {
    before: Vec<usize>,
    after: Vec<usize>,
}

impl Left {
    /// Takes out those that are equal, in one walk over both lists, which are sorted accordingly.
    fn join(&mut self, compare: impl Fn(usize, usize) -> Ordering) -> Vec<(usize, usize)> {
        let (mut matched, mut rest) = (Vec::new(), Self { before: Vec::new(), after: Vec::new() });
        let (mut b, mut a) = (0, 0);
        while let (Some(&before), Some(&after)) = (self.before.get(b), self.after.get(a)) {
            let order = compare(before, after);
            match order {
                Ordering::Equal => matched.push((before, after)),
                Ordering::Less => rest.before.push(before),
                Ordering::Greater => rest.after.push(after),
            }
            b += usize::from(order != Ordering::Greater);
            a += usize::from(order != Ordering::Less);
        }
        rest.before.extend(&self.before[b..]);
        rest.after.extend(&self.after[a..]);
        *self = rest;
        matched
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn span(begin: u32, end: u32, entity_type: u32) -> Span {
        Span { passage: 0, begin, end, entity_type, score: 1.0 }
    }

    #[test]
    fn each_change_is_told_by_its_name() {
        use Change::{Added, Boundary, Removed, Retyped, Unchanged};
        let before = [span(0, 5, 0), span(10, 15, 0), span(20, 25, 0), span(30, 35, 0), span(36, 40, 0)];
        let after = [span(0, 5, 0), span(10, 15, 1), span(22, 28, 0), span(30, 40, 0), span(50, 55, 1)];
        let told: Vec<_> = pairs(&before, &after).iter().map(|pair| (pair.change, pair.before, pair.after)).collect();
        assert_eq!(
            told,
            [
                (Unchanged, Some(0), Some(0)),
                (Retyped, Some(1), Some(1)),
                (Boundary, Some(2), Some(2)),
                (Boundary, Some(3), Some(3)), // of two that became one, the first
                (Removed, Some(4), None),
                (Added, None, Some(4)),
            ]
        );
    }

    #[test]
    fn spans_that_touch_or_stand_in_other_passages_do_not_overlap() {
        let other_passage = Span { passage: 1, ..span(0, 5, 0) };
        for after in [span(5, 9, 0), span(0, 4, 1), other_passage] {
            let changes: Vec<_> = pairs(&[span(0, 5, 0)], &[after]).iter().map(|pair| pair.change).collect();
            assert_eq!(changes, [Change::Removed, Change::Added], "{after:?}");
        }
    }

    fn spans() -> impl Strategy<Value = Vec<Span>> {
        let one = (0..3u32, 0..30u32, 1..8u32, 0..3u32).prop_map(|(passage, begin, length, entity_type)| Span {
            passage,
            begin,
            end: begin + length,
            entity_type,
            score: 0.5,
        });
        prop::collection::vec(one, 0..30)
    }

    proptest! {
        #[test]
        fn every_mention_stands_in_one_pair(before in spans(), after in spans()) {
            let pairs = pairs(&before, &after);
            let mut of_before: Vec<usize> = pairs.iter().filter_map(|pair| pair.before).collect();
            let mut of_after: Vec<usize> = pairs.iter().filter_map(|pair| pair.after).collect();
            of_before.sort_unstable();
            of_after.sort_unstable();
            prop_assert_eq!(of_before, (0..before.len()).collect::<Vec<_>>());
            prop_assert_eq!(of_after, (0..after.len()).collect::<Vec<_>>());
            for Pair { change, before: b, after: a } in pairs {
                let (b, a) = (b.map(|b| before[b]), a.map(|a| after[a]));
                let span = |of: Span| (of.passage, of.begin, of.end);
                match (change, b, a) {
                    (Change::Unchanged, Some(b), Some(a)) => prop_assert_eq!(b, a),
                    (Change::Retyped, Some(b), Some(a)) => {
                        prop_assert!(span(b) == span(a) && b.entity_type != a.entity_type);
                    }
                    (Change::Boundary, Some(b), Some(a)) => {
                        prop_assert!(b.passage == a.passage && b.entity_type == a.entity_type);
                        prop_assert!(b.begin < a.end && a.begin < b.end && span(b) != span(a));
                    }
                    (Change::Removed, Some(_), None) | (Change::Added, None, Some(_)) => {}
                    other => prop_assert!(false, "{:?}", other),
                }
            }
        }

        /// What is the same in both is never told as a change, whatever stands around it.
        #[test]
        fn nothing_changes_from_a_version_to_itself(spans in spans()) {
            prop_assert!(pairs(&spans, &spans).iter().all(|pair| pair.change == Change::Unchanged));
        }
    }
}
