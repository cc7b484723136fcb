//! Which letters are meant.

use super::letter::Letter;

/// Conditions that a letter must all meet; a list is met by any of its entries, an empty one by every letter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Reasons.
    pub reasons: Vec<String>,
    /// Stages.
    pub stages: Vec<String>,
    /// Keys.
    pub keys: Vec<String>,
    /// It died at this time or later, in milliseconds since the epoch …
    pub since: Option<i64>,
    /// … and before this one.
    pub until: Option<i64>,
    /// The letter's partition, not that of the record that it was.
    pub partition: Option<i32>,
    /// The letter's offset.
    pub offset: Option<i64>,
}

impl Filter {
    /// Whether the letter is meant.
    pub fn matches(&self, letter: &Letter) -> bool {
        let any = |wanted: &[String], found: Option<&[u8]>| {
            wanted.is_empty() || found.is_some_and(|found| wanted.iter().any(|wanted| wanted.as_bytes() == found))
        };
        let place = letter.place();
        any(&self.reasons, letter.reason().map(str::as_bytes))
            && any(&self.stages, letter.stage().map(str::as_bytes))
            && any(&self.keys, letter.key())
            && self.since.is_none_or(|since| letter.timestamp().is_some_and(|died| died >= since))
            && self.until.is_none_or(|until| letter.timestamp().is_some_and(|died| died < until))
            && self.partition.is_none_or(|partition| partition == place.partition)
            && self.offset.is_none_or(|offset| offset == place.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::super::letter::Place;
    use super::super::letter::tests::{letter, record};
    use super::*;

    #[test]
    fn every_condition_counts() {
        let headers = [("dlq.reason", "not_avro"), ("dlq.stage", "decode")];
        let letter = letter(record(Place { partition: 2, offset: 7 }, 1_000, "pmid:1", &headers));
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let met = [
            Filter::default(),
            Filter { reasons: list(&["panic", "not_avro"]), ..Filter::default() },
            Filter { stages: list(&["decode"]), keys: list(&["pmid:1"]), ..Filter::default() },
            Filter { since: Some(1_000), until: Some(1_001), ..Filter::default() },
            Filter { partition: Some(2), offset: Some(7), ..Filter::default() },
        ];
        for filter in met {
            assert!(filter.matches(&letter), "{filter:?}");
        }
        let not_met = [
            Filter { reasons: list(&["not_avro"]), stages: list(&["tag"]), ..Filter::default() },
            Filter { keys: list(&["pmid:11", "pmid:"]), ..Filter::default() },
            Filter { since: Some(1_001), ..Filter::default() },
            Filter { until: Some(1_000), ..Filter::default() },
            Filter { partition: Some(1), ..Filter::default() },
            Filter { offset: Some(6), ..Filter::default() },
        ];
        for filter in not_met {
            assert!(!filter.matches(&letter), "{filter:?}");
        }
    }
}
