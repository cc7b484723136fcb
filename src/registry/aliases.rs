//! The aliases of a model, and the rules by which they move. Pure state: [`super::Announcements`] reads it from
//! Kafka, [`super::Registry`] writes it there.
//!
//! The champion's moves are a stack: assigning pushes a version, rolling back pops it. So two rollbacks in a row go
//! back two versions, and never forward to the one that was rolled back.

use super::{Error, names};
use crate::bus::records::{AliasAction, AliasChange, AliasTarget, ModelVersion};
use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

/// The version that workers serve.
pub const CHAMPION: &str = "champion";
/// The newest version that is to be compared with the champion.
pub const CANDIDATE: &str = "candidate";
/// The newest version that was refused.
pub const REJECTED: &str = "rejected";

/// Changes that are kept of the champion, and of all other aliases together.
const HISTORY: usize = 100;
/// The longest reason, and the longest name of who gives it, in characters.
const LONGEST_REASON: usize = 1_000;

/// When, by whom and why something is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Occasion {
    at: i64,
    by: String,
    reason: String,
}

impl Occasion {
    /// Now. What is longer than 1,000 characters is cut.
    pub fn now(by: &str, reason: &str) -> Self {
        let cut = |text: &str| text.chars().take(LONGEST_REASON).collect();
        let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
        Self { at, by: cut(by), reason: cut(reason) }
    }

    /// Whether it has changed `state` already: a commit may succeed though its answer is lost.
    pub(super) fn is_in(&self, state: &ModelVersion) -> bool {
        state.history.iter().any(|change| (change.at, &change.by, &change.reason) == (self.at, &self.by, &self.reason))
    }
}

impl ModelVersion {
    /// The version that an alias stands for.
    pub fn alias(&self, alias: &str) -> Option<&AliasTarget> {
        self.aliases.get(alias)
    }

    /// The stack of [`CHAMPION`]s, as each was made champion: the present one first, then those that rollbacks go
    /// back to, one after the other.
    pub fn champions(&self) -> Vec<&AliasChange> {
        let mut stack: Vec<&AliasChange> = Vec::new();
        for change in self.history.iter().filter(|change| change.alias == CHAMPION) {
            let same = |below: &&AliasChange| below.version == change.version && below.digest == change.digest;
            match change.action {
                AliasAction::RolledBack => {
                    let below = stack.iter().rposition(same);
                    stack.truncate(below.unwrap_or(0));
                }
                // It comes back to the top; what it stood on before does not count any more.
                AliasAction::Assigned => stack.retain(|below| !same(below)),
                AliasAction::Removed => continue,
            }
            stack.push(change);
        }
        stack.reverse();
        stack
    }

    /// The version that [`CHAMPION`] goes back to by a rollback: version and digest.
    pub fn rollback_target(&self) -> Option<(&str, &str)> {
        self.champions().get(1).map(|change| (change.version.as_str(), change.digest.as_str()))
    }

    /// The versions that must stay in the store: those that an alias stands for, and the one that a rollback needs.
    pub fn needed_versions(&self) -> BTreeSet<&str> {
        let aliased = self.aliases.values().map(|target| target.version.as_str());
        aliased.chain(self.rollback_target().map(|(version, _)| version)).collect()
    }

    /// The digest that was announced for a version, as far back as the history goes.
    pub fn known_digest(&self, version: &str) -> Option<&str> {
        let targets = self.aliases.values().map(|target| (&target.version, &target.digest));
        let changes = self.history.iter().rev().map(|change| (&change.version, &change.digest));
        let newest = std::iter::once((&self.version, &self.digest));
        targets.chain(changes).chain(newest).find(|(known, _)| *known == version).map(|(_, digest)| digest.as_str())
    }

    /// Refuses a version, found at `location` with this digest, that was announced with another one.
    pub fn check_digest(&self, version: &str, digest: &str, location: &str) -> Result<(), Error> {
        match self.known_digest(version).filter(|announced| *announced != digest) {
            Some(announced) => {
                let reason = format!("its digest is {digest}, announced was {announced}: a version never changes");
                Err(Error::damaged(location, reason))
            }
            None => Ok(()),
        }
    }

    /// This version, announced after `before`: aliases and history go on.
    pub(super) fn following(self, before: Option<&ModelVersion>) -> Result<Self, Error> {
        let Some(before) = before else { return Ok(self) };
        before.check_digest(&self.version, &self.digest, &self.location)?;
        Ok(Self { aliases: before.aliases.clone(), history: before.history.clone(), ..self })
    }

    /// Gives `alias` to this version; whether that changes anything. A version is one of champion, candidate and
    /// rejected at a time.
    pub(super) fn assign(&mut self, alias: &str, occasion: &Occasion) -> Result<bool, Error> {
        names::check_alias(alias)?;
        if self.is_target_of(alias) {
            return Ok(false);
        }
        if alias == REJECTED && self.is_target_of(CHAMPION) {
            return Err(Error::Champion { name: self.name.clone(), version: self.version.clone() });
        }
        if [CHAMPION, CANDIDATE, REJECTED].contains(&alias) {
            for other in [CANDIDATE, REJECTED] {
                if other != alias && self.is_target_of(other) {
                    self.aliases.remove(other);
                    self.note(other, AliasAction::Removed, None, occasion);
                }
            }
        }
        self.point(alias, AliasAction::Assigned, occasion);
        Ok(true)
    }

    /// Gives [`CHAMPION`] back to this version, which is the one before.
    pub(super) fn roll_back(&mut self, occasion: &Occasion) {
        self.point(CHAMPION, AliasAction::RolledBack, occasion);
    }

    fn is_target_of(&self, alias: &str) -> bool {
        self.alias(alias).is_some_and(|target| (&target.version, &target.digest) == (&self.version, &self.digest))
    }

    fn point(&mut self, alias: &str, action: AliasAction, occasion: &Occasion) {
        let target =
            AliasTarget { version: self.version.clone(), digest: self.digest.clone(), location: self.location.clone() };
        let previous = self.aliases.insert(alias.to_owned(), target);
        self.note(alias, action, previous.map(|target| target.version), occasion);
    }

    fn note(&mut self, alias: &str, action: AliasAction, previous: Option<String>, occasion: &Occasion) {
        let Occasion { at, by, reason } = occasion.clone();
        let (alias, version, digest) = (alias.to_owned(), self.version.clone(), self.digest.clone());
        self.history.push(AliasChange { at, alias, action, version, digest, previous, by, reason });
        let is_champion = |change: &AliasChange| change.alias == CHAMPION;
        for of_champion in [true, false] {
            if self.history.iter().filter(|change| is_champion(change) == of_champion).count() > HISTORY
                && let Some(oldest) = self.history.iter().position(|change| is_champion(change) == of_champion)
            {
                self.history.remove(oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn described(version: &str) -> ModelVersion {
        ModelVersion {
            name: "tiny".into(),
            version: version.into(),
            digest: format!("sha256:{version}"),
            location: format!("file:///store/tiny/{version}"),
            ..ModelVersion::default()
        }
    }

    fn occasion(at: i64) -> Occasion {
        Occasion { at, by: "test".into(), reason: "a test".into() }
    }

    fn assigned(state: Option<&ModelVersion>, version: &str, alias: &str) -> ModelVersion {
        let mut next = described(version).following(state).unwrap();
        let at = next.history.len() as i64;
        next.assign(alias, &occasion(at)).unwrap();
        next
    }

    fn rolled_back(state: &ModelVersion) -> Option<ModelVersion> {
        let mut next = described(state.rollback_target()?.0).following(Some(state)).unwrap();
        next.roll_back(&occasion(next.history.len() as i64));
        Some(next)
    }

    fn champion(state: &ModelVersion) -> &str {
        &state.alias(CHAMPION).unwrap().version
    }

    #[test]
    fn rollbacks_go_back_one_by_one() {
        let one = assigned(None, "1", CHAMPION);
        assert_eq!(one.rollback_target(), None);
        let two = assigned(Some(&one), "2", CHAMPION);
        let three = assigned(Some(&two), "3", CHAMPION);
        let back = rolled_back(&three).unwrap();
        assert_eq!((champion(&back), back.version.as_str()), ("2", "2"));
        let back = rolled_back(&back).unwrap();
        assert_eq!(champion(&back), "1");
        assert_eq!(back.rollback_target(), None);
        let last = back.history.last().unwrap();
        assert_eq!((last.action, last.previous.as_deref()), (AliasAction::RolledBack, Some("2")));

        let again = assigned(Some(&back), "3", CHAMPION);
        assert_eq!(again.rollback_target(), Some(("1", "sha256:1")));
        let first_again = assigned(Some(&again), "1", CHAMPION);
        assert_eq!(first_again.rollback_target(), Some(("3", "sha256:3")));
    }

    #[test]
    fn a_version_is_one_thing_at_a_time() {
        let one = assigned(None, "1", CHAMPION);
        let two = assigned(Some(&one), "2", CANDIDATE);
        assert_eq!(two.needed_versions(), BTreeSet::from(["1", "2"]));
        let two = assigned(Some(&two), "2", CHAMPION);
        assert_eq!(two.aliases.keys().collect::<Vec<_>>(), [CHAMPION]);
        let actions: Vec<_> = two.history.iter().map(|change| (change.alias.as_str(), change.action)).collect();
        let expected = [
            (CHAMPION, AliasAction::Assigned),
            (CANDIDATE, AliasAction::Assigned),
            (CANDIDATE, AliasAction::Removed),
            (CHAMPION, AliasAction::Assigned),
        ];
        assert_eq!(actions, expected);
        assert_eq!(two.needed_versions(), BTreeSet::from(["1", "2"]));

        let mut rejected = described("2").following(Some(&two)).unwrap();
        assert!(matches!(rejected.assign(REJECTED, &occasion(9)), Err(Error::Champion { .. })));
        assert!(matches!(rejected.assign("Champion", &occasion(9)), Err(Error::Name { .. })));
        assert!(rejected.assign("month-11", &occasion(9)).unwrap());
        assert!(!rejected.assign("month-11", &occasion(10)).unwrap());
        assert_eq!(rejected.alias("month-11").unwrap().version, "2");
    }

    #[test]
    fn a_version_that_changed_is_refused() {
        let changed = ModelVersion { digest: "sha256:other".into(), ..described("1") };
        for state in [assigned(None, "1", CHAMPION), described("1")] {
            let error = changed.clone().following(Some(&state)).unwrap_err().to_string();
            assert!(error.contains("sha256:other, announced was sha256:1: a version never changes"), "{error}");
        }
    }

    #[test]
    fn refused_candidates_do_not_push_the_champions_out_of_the_history() {
        let mut state = assigned(Some(&assigned(None, "1", CHAMPION)), "2", CHAMPION);
        for number in 3..500 {
            state = assigned(Some(&state), &number.to_string(), REJECTED);
        }
        assert_eq!(state.history.len(), HISTORY + 2);
        assert_eq!(state.rollback_target(), Some(("1", "sha256:1")));
        assert_eq!(state.alias(REJECTED).unwrap().version, "499");
    }

    proptest! {
        /// Against the plain model of a stack in which no version stands twice.
        #[test]
        fn the_champion_is_the_top_of_a_stack(steps in prop::collection::vec(prop::option::of(0u8..6), 1..60)) {
            let mut state: Option<ModelVersion> = None;
            let mut stack: Vec<String> = Vec::new();
            for step in steps {
                match (step, &state) {
                    (Some(version), _) => {
                        let version = version.to_string();
                        state = Some(assigned(state.as_ref(), &version, CHAMPION));
                        stack.retain(|below| *below != version);
                        stack.push(version);
                    }
                    (None, Some(before)) => {
                        let next = rolled_back(before);
                        prop_assert_eq!(next.is_some(), stack.len() > 1);
                        if let Some(next) = next {
                            stack.pop();
                            state = Some(next);
                        }
                    }
                    (None, None) => {}
                }
                if let Some(state) = &state {
                    prop_assert_eq!(Some(champion(state)), stack.last().map(String::as_str));
                }
            }
        }
    }
}
