//! What is announced on the topic `models`: reading it, following it, and changing it without losing a change
//! of somebody else's.

use super::aliases::Occasion;
use super::{Error, names};
use crate::bus::exclusive::Exclusive;
use crate::bus::producer::Outgoing;
use crate::bus::reader::{Entry, From, Reader, Value};
use crate::bus::records::ModelVersion;
use crate::bus::wire::{PATIENCE, Wire};
use crate::bus::{self, topics};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::{Duration, Instant};

/// The transactional id of everybody who writes to `models`, whatever the model's name: taking it fences whoever
/// had it, and ends the transaction that he left open. One for the whole topic, because an open transaction of
/// another writer would hide what was committed behind it.
pub const TRANSACTIONAL_ID: &str = "litflow-models";

/// How long reading all announcements may take.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// How long one wait for a record takes meanwhile.
const WAIT: Duration = Duration::from_millis(500);
/// How often a change is tried while other writers take over.
const ATTEMPTS: u32 = 10;

/// The newest announcement of every model. A record that cannot be read hides those before it, because what it
/// says counts; it is an error when it is asked for.
pub struct Announcements {
    reader: Reader,
    newest: BTreeMap<String, Newest>,
}

enum Newest {
    Known(Box<ModelVersion>),
    Unreadable { offset: i64, reason: String },
}

impl Announcements {
    /// Reads the topic to its end; committed records only.
    pub fn read(kafka: &bus::Options) -> Result<Self, Error> {
        let reader = Reader::new(kafka, &[topics::MODELS], From::Beginning)?;
        let mut announcements = Self { reader, newest: BTreeMap::new() };
        let deadline = Instant::now() + READ_TIMEOUT;
        while !announcements.reader.at_end() {
            if let Some(entry) = announcements.reader.next(WAIT)? {
                announcements.take(entry);
            } else if Instant::now() > deadline {
                return Err(Error::Unanswered { servers: kafka.bootstrap_servers.clone() });
            }
        }
        Ok(announcements)
    }

    /// The newest state of a model; none where nothing is announced.
    pub fn get(&self, name: &str) -> Result<Option<&ModelVersion>, Error> {
        match self.newest.get(name) {
            None => Ok(None),
            Some(Newest::Known(state)) => Ok(Some(state)),
            Some(Newest::Unreadable { offset, reason }) => {
                Err(Error::Unreadable { name: name.to_owned(), offset: *offset, reason: reason.clone() })
            }
        }
    }

    /// The names of all models that something is announced about.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.newest.keys().map(String::as_str)
    }

    /// Waits for news, at most `timeout`, and takes in all there are: the names of the models whose state is
    /// newer now, each once, however many announcements came in a row.
    pub fn wait(&mut self, timeout: Duration) -> Result<BTreeSet<String>, Error> {
        let mut changed = BTreeSet::new();
        let mut next = self.reader.next(timeout)?;
        while let Some(entry) = next {
            changed.extend(self.take(entry));
            next = self.reader.next(Duration::ZERO)?;
        }
        Ok(changed)
    }

    /// Notes a record; the name that it is about.
    fn take(&mut self, entry: Entry) -> Option<String> {
        let Entry { key, value, offset, .. } = entry;
        let Some(name) = key else {
            tracing::warn!("offset {offset} of {} has no key, so it is about no model", topics::MODELS);
            return None;
        };
        let unreadable = |reason: String| {
            tracing::warn!("the announcement of {name:?} at offset {offset} cannot be read: {reason}");
            Newest::Unreadable { offset, reason }
        };
        let newest = match value {
            Value::Model(state) if state.name == name => Newest::Known(state),
            Value::Model(state) => unreadable(format!("it is about {:?}", state.name)),
            Value::Tombstone => {
                self.newest.remove(&name);
                return Some(name);
            }
            Value::Bytes { error, .. } => unreadable(error.unwrap_or_default()),
            other => unreadable(format!("it is no model version: {other:?}")),
        };
        self.newest.insert(name.clone(), newest);
        Some(name)
    }
}

/// Reads the state of a model, changes it by `update`, and writes it, as if nobody else did at that time. `update`
/// gets the state before and gives the one after, none to leave it as it is; it may be called several times.
/// Returns the state now in force, and whether it was changed.
///
/// Whoever else writes meanwhile by this function takes the [`TRANSACTIONAL_ID`] over, so that this change cannot
/// be committed any more; then all of it is done again. A commit that succeeded though its answer was lost is
/// found by its `occasion`, and not repeated.
pub(super) fn change(
    kafka: &bus::Options,
    name: &str,
    occasion: &Occasion,
    mut update: impl FnMut(Option<&ModelVersion>) -> Result<Option<ModelVersion>, Error>,
) -> Result<(Option<ModelVersion>, bool), Error> {
    names::check_name(name)?;
    let wire = Wire::new(kafka)?;
    let mut attempt = 0;
    loop {
        let writer = Exclusive::take(kafka, TRANSACTIONAL_ID)?;
        // Only now: what all writers before have committed can be read, and no other can commit any more.
        let announcements = Announcements::read(kafka)?;
        let before = announcements.get(name)?;
        if let Some(state) = before.filter(|state| occasion.is_in(state)) {
            return Ok((Some(state.clone()), true));
        }
        let Some(after) = update(before)? else { return Ok((before.cloned(), false)) };
        let value = wire.encode_within(PATIENCE, topics::MODELS, &after).map_err(bus::Error::from)?;
        let record = Outgoing {
            topic: topics::MODELS.into(),
            key: Some(name.as_bytes().to_vec()),
            value: Some(value.map_err(Error::Value)?),
            ..Outgoing::default()
        };
        match writer.commit(&[record]) {
            Ok(()) => return Ok((Some(after), true)),
            Err(bus::Error::Fenced { .. }) if attempt + 1 < ATTEMPTS => {
                attempt += 1;
                std::thread::sleep(backoff(attempt));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Random, so that two writers do not take over from each other in step, up to ten seconds.
fn backoff(attempt: u32) -> Duration {
    let longest_ms = (200u64 << attempt.min(10)).min(10_000);
    let random = RandomState::new().build_hasher().finish(); // each state has keys of its own
    Duration::from_millis(random % longest_ms)
}
