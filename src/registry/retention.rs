//! Which versions of the store may go.

use super::Stored;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// A publication without a manifest that is older than this was broken off.
const BROKEN_OFF_MS: i64 = 24 * 3_600_000;

/// What is kept though nobody needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// The newest versions of each model.
    pub newest: usize,
    /// Versions younger than this, in milliseconds.
    pub younger_than_ms: i64,
}

/// What is to become of a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// The version.
    #[serde(flatten)]
    pub stored: Stored,
    /// Whether it may go.
    pub remove: bool,
    /// Why.
    pub why: &'static str,
}

/// Decides about every version. `needed` are the versions that an alias or a rollback needs, by model
/// ([`crate::bus::records::ModelVersion::needed_versions`]); a model that is not in it is not announced, or what is
/// announced cannot be read, and all of its versions are kept. `now` is in milliseconds since the epoch.
pub fn plan(
    stored: Vec<Stored>,
    needed: &BTreeMap<String, BTreeSet<String>>,
    retention: Retention,
    now: i64,
) -> Vec<Verdict> {
    let mut newest_first: Vec<&Stored> = stored.iter().filter(|stored| stored.whole).collect();
    newest_first.sort_by_key(|stored| std::cmp::Reverse(stored.modified_at));
    let mut newest: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for stored in newest_first {
        let of_model = newest.entry(&stored.name).or_default();
        if of_model.len() < retention.newest {
            of_model.insert(&stored.version);
        }
    }
    let decide = |stored: &Stored| {
        let age = now.saturating_sub(stored.modified_at);
        let is_new = newest.get(stored.name.as_str()).is_some_and(|newest| newest.contains(stored.version.as_str()));
        if !stored.whole {
            return if age > BROKEN_OFF_MS { (true, "was broken off") } else { (false, "is being published") };
        }
        match needed.get(&stored.name) {
            None => (false, "its model is not announced"),
            Some(needed) if needed.contains(&stored.version) => (false, "an alias or a rollback needs it"),
            Some(_) if is_new => (false, "is among the newest"),
            Some(_) if age < retention.younger_than_ms => (false, "is young"),
            Some(_) => (true, "nobody needs it"),
        }
    };
    let verdicts: Vec<(bool, &'static str)> = stored.iter().map(decide).collect();
    stored.into_iter().zip(verdicts).map(|(stored, (remove, why))| Verdict { stored, remove, why }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(name: &str, version: &str, modified_at: i64, whole: bool) -> Stored {
        let (name, version, location) = (name.into(), version.into(), String::new());
        Stored { name, version, location, files: 1, bytes: 1, modified_at, whole }
    }

    #[test]
    fn only_what_nobody_needs_goes() {
        const NOW: i64 = 1_000_000_000_000;
        const DAY: i64 = 24 * 3_600_000;
        let all = vec![
            stored("a", "1", NOW - 90 * DAY, true),
            stored("a", "2", NOW - 80 * DAY, true),
            stored("a", "3", NOW - 70 * DAY, true),
            stored("a", "4", NOW - 5 * DAY, true),
            stored("a", "5", NOW - 4 * DAY, true),
            stored("a", "6", NOW - 3 * DAY, false),
            stored("a", "7", NOW, false),
            stored("b", "1", NOW - 90 * DAY, true),
        ];
        let needed = BTreeMap::from([("a".to_owned(), BTreeSet::from(["2".to_owned()]))]);
        let plan = |newest, days| {
            let retention = Retention { newest, younger_than_ms: days * DAY };
            let verdicts = plan(all.clone(), &needed, retention, NOW);
            verdicts.into_iter().filter(|verdict| verdict.remove).map(|v| v.stored.version).collect::<Vec<_>>()
        };
        assert_eq!(plan(1, 30), ["1", "3", "6"]);
        assert_eq!(plan(1, 0), ["1", "3", "4", "6"]);
        assert_eq!(plan(0, 0), ["1", "3", "4", "5", "6"]);
        assert_eq!(plan(9, 0), ["6"]);
    }
}
