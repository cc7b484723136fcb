//! What happens to versions: published, made champion, rolled back. Each step is first done in the store, then
//! announced on Kafka.

use super::aliases::{CHAMPION, Occasion};
use super::announcements::{Announcements, change};
use super::{Error, Options, Published, Store};
use crate::bus;
use crate::bus::records::{AliasAction, AliasChange, ModelVersion};
use std::path::Path;

/// A store and the topic `models` that announces what is in it.
pub struct Registry {
    store: Store,
    kafka: bus::Options,
}

/// What became of a step.
#[derive(Debug, Clone, PartialEq)]
pub struct Moved {
    /// The state that is announced now.
    pub state: ModelVersion,
    /// Whether the step changed it.
    pub changed: bool,
}

impl Registry {
    /// Opens the store, which must be there. Kafka is asked only by the other calls.
    pub fn open(options: &Options, kafka: &bus::Options) -> Result<Self, Error> {
        Ok(Self { store: Store::open(options)?, kafka: kafka.clone() })
    }

    /// As [`Registry::open`]; a local folder that is missing is made.
    pub fn create(options: &Options, kafka: &bus::Options) -> Result<Self, Error> {
        Ok(Self { store: Store::create(options)?, kafka: kafka.clone() })
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Everything that is announced.
    pub fn announcements(&self) -> Result<Announcements, Error> {
        Announcements::read(&self.kafka)
    }

    /// Publishes the model directory and announces it, with `alias` if one is given. Safe to do again.
    pub fn publish(
        &self,
        folder: &Path,
        alias: Option<&str>,
        occasion: &Occasion,
    ) -> Result<(Published, Moved), Error> {
        let published = self.store.publish(folder)?;
        let moved = self.announce(&published.version, alias, occasion)?;
        Ok((published, moved))
    }

    /// Gives `alias` to a version that is in the store.
    pub fn assign(&self, name: &str, version: &str, alias: &str, occasion: &Occasion) -> Result<Moved, Error> {
        self.announce(&self.store.describe(name, version)?, Some(alias), occasion)
    }

    /// Makes the version before the champion the champion again. It must still be in the store as it was announced.
    pub fn rollback(&self, name: &str, occasion: &Occasion) -> Result<Moved, Error> {
        self.roll_back(name, occasion, |_| true)
    }

    /// The same where the champion is the version with this digest and was made so by a promotion. Else nothing is
    /// changed: of many who find that version failing one rolls it back, and nobody undoes what was gone back to.
    pub fn rollback_from(&self, name: &str, digest: &str, occasion: &Occasion) -> Result<Moved, Error> {
        let is_it = |champion: &AliasChange| champion.digest == digest && champion.action == AliasAction::Assigned;
        self.roll_back(name, occasion, is_it)
    }

    fn roll_back(
        &self,
        name: &str,
        occasion: &Occasion,
        is_wanted: impl Fn(&AliasChange) -> bool,
    ) -> Result<Moved, Error> {
        self.change(name, occasion, |before| {
            let state = before.ok_or_else(|| Error::NotAnnounced { name: name.to_owned() })?;
            if state.champions().first().is_some_and(|champion| !is_wanted(champion)) {
                return Ok(None);
            }
            let (version, _) = state.rollback_target().ok_or_else(|| Error::NoEarlier {
                name: name.to_owned(),
                champion: state.alias(CHAMPION).map_or_else(|| "none".to_owned(), |target| target.version.clone()),
            })?;
            let mut next = self.store.describe(name, version)?.following(Some(state))?;
            next.roll_back(occasion);
            Ok(Some(next))
        })
    }

    /// Makes a version that is in the store the champion, as long as the champion is the one with the digest `over`:
    /// what was found by comparing the two says nothing about another. Else nothing is changed.
    pub fn promote_over(&self, name: &str, version: &str, over: &str, occasion: &Occasion) -> Result<Moved, Error> {
        let version = self.store.describe(name, version)?;
        self.change(name, occasion, |before| {
            if before.and_then(|state| state.alias(CHAMPION)).is_none_or(|champion| champion.digest != over) {
                return Ok(None);
            }
            let mut next = version.clone().following(before)?;
            Ok(next.assign(CHAMPION, occasion)?.then_some(next))
        })
    }

    fn announce(&self, version: &ModelVersion, alias: Option<&str>, occasion: &Occasion) -> Result<Moved, Error> {
        self.change(&version.name, occasion, |before| {
            let mut next = version.clone().following(before)?;
            let changed = match alias {
                Some(alias) => next.assign(alias, occasion)?,
                None => before.is_none_or(|state| state.version != version.version),
            };
            Ok(changed.then_some(next))
        })
    }

    fn change(
        &self,
        name: &str,
        occasion: &Occasion,
        update: impl FnMut(Option<&ModelVersion>) -> Result<Option<ModelVersion>, Error>,
    ) -> Result<Moved, Error> {
        let (state, changed) = change(&self.kafka, name, occasion, update)?;
        let state = state.ok_or_else(|| Error::NotAnnounced { name: name.to_owned() })?;
        Ok(Moved { state, changed })
    }
}
