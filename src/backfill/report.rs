//! What a run has done, and what the versions see differently.

use super::diff::{Change, Pair, Span};
use crate::tagger::ModelRef;
use serde::Serialize;
use std::collections::BTreeMap;

/// The most examples of each change.
const EXAMPLES: usize = 3;

/// The end report. Articles are counted when they are committed.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The version that tagged.
    pub model: ModelRef,
    /// The versions that the articles were tagged by before, in the order of the number of articles.
    pub from: Vec<From>,
    /// Nothing was tagged: `from` counts what is to be.
    pub dry_run: bool,
    /// A signal ended it before all was done.
    pub interrupted: bool,
    /// Articles tagged again.
    pub retagged: u64,
    /// Those among them whose mentions are compared; the others have another text than the one annotated before.
    pub compared: u64,
    /// Articles that this version had tagged before.
    pub up_to_date: u64,
    /// Articles that are deleted, whose annotations were not.
    pub deleted: u64,
    /// Articles that were left as they are, by reason.
    pub left: BTreeMap<&'static str, u64>,
    /// Articles put right, because an event came while they were committed; they count once above.
    pub repaired: u64,
    /// What changed, by entity type.
    pub types: BTreeMap<String, Changes>,
    /// The same over all types; a retyped mention counts once on either side.
    pub all: Changes,
    /// A few of each change.
    pub examples: Vec<Example>,
    /// How long it took.
    pub seconds: f64,
}

/// A version that was replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct From {
    /// The version.
    pub model: ModelRef,
    /// Articles that it had tagged.
    pub articles: u64,
}

/// Mentions of a type in the articles compared. What there was is `unchanged + boundary + removed + retyped_from`,
/// what there is now `unchanged + boundary + added + retyped_to`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Changes {
    /// Mentions of the older versions.
    pub before: u64,
    /// Mentions of this version.
    pub after: u64,
    /// The same span and type.
    pub unchanged: u64,
    /// New.
    pub added: u64,
    /// Gone.
    pub removed: u64,
    /// The same span, which was of this type and is of another.
    pub retyped_from: u64,
    /// The same span, which was of another type.
    pub retyped_to: u64,
    /// An overlapping span of the same type.
    pub boundary: u64,
    /// How much higher the score of an unchanged mention is, on average; none where there is none.
    pub score_shift: Option<f64>,
    /// The sum of these differences.
    #[serde(skip)]
    pub score_sum: f64,
}

/// One change, for people.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Example {
    /// What happened.
    pub change: Change,
    /// The article.
    pub article_id: String,
    /// Type and text before.
    pub before: Option<Named>,
    /// Type and text now.
    pub after: Option<Named>,
}

/// A mention in an example.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Named {
    /// Entity type.
    #[serde(rename = "type")]
    pub entity_type: String,
    /// The exact text.
    pub text: String,
}

impl Report {
    /// Of a run by this version that has done nothing yet.
    pub fn new(model: ModelRef) -> Self {
        Self {
            model,
            from: Vec::new(),
            dry_run: false,
            interrupted: false,
            retagged: 0,
            compared: 0,
            up_to_date: 0,
            deleted: 0,
            left: BTreeMap::new(),
            repaired: 0,
            types: BTreeMap::new(),
            all: Changes::default(),
            examples: Vec::new(),
            seconds: 0.0,
        }
    }

    /// Articles that somebody should look after: neither of this version nor deleted.
    pub fn left_out(&self) -> u64 {
        self.left.iter().filter(|(reason, _)| **reason != super::DELETED).map(|(_, count)| count).sum()
    }

    pub(super) fn leave(&mut self, reason: &'static str, articles: u64) {
        if articles > 0 {
            *self.left.entry(reason).or_default() += articles;
        }
    }

    pub(super) fn came_from(&mut self, model: &ModelRef, articles: u64) {
        match self.from.iter_mut().find(|from| from.model == *model) {
            Some(from) => from.articles += articles,
            None => self.from.push(From { model: model.clone(), articles }),
        }
        self.from.sort_by_key(|from| std::cmp::Reverse(from.articles));
    }

    /// Counts how the mentions of an article changed.
    pub(super) fn compare(&mut self, before: &[Span], after: &[Span], pairs: &[Pair], name: impl Fn(u32) -> String) {
        self.compared += 1;
        for pair in pairs {
            let (b, a) = (pair.before.map(|b| before[b]), pair.after.map(|a| after[a]));
            let names = (b.map(|b| name(b.entity_type)), a.map(|a| name(a.entity_type)));
            let shift = b.zip(a).map_or(0.0, |(b, a)| f64::from(a.score) - f64::from(b.score));
            self.all.count(pair.change, b.is_some(), a.is_some(), shift);
            match names {
                (Some(old), Some(new)) if old != new => {
                    self.types.entry(old).or_default().count(pair.change, true, false, shift);
                    self.types.entry(new).or_default().count(pair.change, false, true, shift);
                }
                (Some(name), _) => self.types.entry(name).or_default().count(pair.change, true, a.is_some(), shift),
                (None, Some(name)) => self.types.entry(name).or_default().count(pair.change, false, true, shift),
                (None, None) => {}
            }
        }
    }

    /// Whether another example of this change is wanted.
    pub(super) fn wants_example(&self, change: Change) -> bool {
        let known = self.examples.iter().filter(|example| example.change == change).count();
        change != Change::Unchanged && known < EXAMPLES
    }
}

impl Changes {
    fn count(&mut self, change: Change, was: bool, is: bool, shift: f64) {
        self.before += u64::from(was);
        self.after += u64::from(is);
        match change {
            Change::Unchanged => {
                self.unchanged += 1;
                self.score_sum += shift;
                self.score_shift = Some(self.score_sum / self.unchanged as f64);
            }
            Change::Boundary => self.boundary += 1,
            Change::Added => self.added += 1,
            Change::Removed => self.removed += 1,
            Change::Retyped => {
                self.retyped_from += u64::from(was);
                self.retyped_to += u64::from(is);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::diff::pairs;
    use super::*;
    use proptest::prelude::*;

    fn spans() -> impl Strategy<Value = Vec<Span>> {
        let one = (0..20u32, 1..6u32, 0..3u32, 0..100u32).prop_map(|(begin, length, entity_type, score)| Span {
            passage: 0,
            begin,
            end: begin + length,
            entity_type,
            score: score as f32 / 100.0,
        });
        prop::collection::vec(one, 0..20)
    }

    proptest! {
        #[test]
        fn the_sums_fit_both_sides(articles in prop::collection::vec((spans(), spans()), 1..8)) {
            let mut report = Report::new(ModelRef { name: "m".into(), version: "2".into(), digest: "d".into() });
            for (before, after) in &articles {
                report.compare(before, after, &pairs(before, after), |number| format!("type {number}"));
            }
            let (before, after): (Vec<_>, Vec<_>) = articles.iter().cloned().unzip();
            let count = |side: &[Vec<Span>], number: Option<u32>| {
                let spans = side.iter().flatten();
                spans.filter(|span| number.is_none_or(|number| span.entity_type == number)).count() as u64
            };
            let types = (0..3).map(|number| (report.types.get(&format!("type {number}")).cloned(), Some(number)));
            for (changes, number) in types.chain([(Some(report.all.clone()), None)]) {
                let changes = changes.unwrap_or_default();
                let Changes { unchanged, boundary, added, removed, retyped_from, retyped_to, .. } = changes;
                prop_assert_eq!(changes.before, count(&before, number));
                prop_assert_eq!(changes.after, count(&after, number));
                prop_assert_eq!(changes.before, unchanged + boundary + removed + retyped_from);
                prop_assert_eq!(changes.after, unchanged + boundary + added + retyped_to);
                prop_assert_eq!(changes.score_shift.is_some(), unchanged > 0);
                prop_assert!(changes.score_shift.is_none_or(|shift| shift.abs() <= 1.0));
            }
            prop_assert_eq!(report.all.retyped_from, report.all.retyped_to);
        }
    }
}
