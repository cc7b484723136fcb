//! The topic `models.shadow`: each worker's tally onto it, and the sum of all workers from it.

use super::Bounds;
use crate::bus::publisher::{PublishError, Publisher};
use crate::bus::reader::{Entry, Value, read_until};
use crate::bus::records::{Agreement, ShadowTally};
use crate::bus::{self, topics};
use std::collections::BTreeMap;

/// How long a record may take: articles wait to be compared meanwhile.
const DELIVERY_TIMEOUT_MS: &str = "5000";

/// Tells others of a tally; called again and again as it grows.
pub type Report = Box<dyn FnMut(&ShadowTally) + Send>;

/// Publishes tallies on `models.shadow`. Where that cannot be written, it is told in the log and tried again with the
/// next: the worker serves.
pub fn to_cluster(mut kafka: bus::Options) -> Report {
    kafka.producer.insert("message.timeout.ms".into(), DELIVERY_TIMEOUT_MS.into());
    let (mut publisher, mut told) = (None, String::new());
    Box::new(move |tally| match publish(&kafka, publisher.take(), tally) {
        Ok(kept) => {
            publisher = Some(kept);
            told.clear();
        }
        Err(error) if error.to_string() != told => {
            told = error.to_string();
            tracing::warn!("{} cannot be told how far the candidate agrees: {told}", topics::SHADOW);
        }
        Err(_) => {}
    })
}

fn publish(kafka: &bus::Options, publisher: Option<Publisher>, tally: &ShadowTally) -> Result<Publisher, PublishError> {
    let mut publisher = publisher.map_or_else(|| Publisher::new(kafka, None), Ok)?;
    publisher.publish(topics::SHADOW, &key(tally), tally)?;
    publisher.flush()?;
    Ok(publisher)
}

/// One a tally: a worker that was restarted goes on beside what it had counted before.
fn key(tally: &ShadowTally) -> String {
    let ShadowTally { candidate, worker, since, .. } = tally;
    format!("{} {} {worker} {since}", candidate.name, candidate.version)
}

/// What all workers have counted of one candidate against one champion.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Comparison {
    /// All of it together.
    pub agreement: Agreement,
    /// Workers that compare the two, or did.
    pub workers: usize,
    /// Why the candidate is not loaded, by worker that refuses to.
    pub refused: BTreeMap<String, String>,
    /// When the newest of it was published, milliseconds since the epoch, UTC.
    pub updated_at: Option<i64>,
}

impl Comparison {
    /// Reads what was counted of these two versions, by their digests.
    ///
    /// # Errors
    /// Where the topic is missing or the cluster does not answer. A record that cannot be read is left out, with a
    /// line in the log.
    pub fn read(kafka: &bus::Options, candidate: &str, champion: &str) -> Result<Self, bus::Error> {
        let mut newest: BTreeMap<String, ShadowTally> = BTreeMap::new();
        read_until(kafka, topics::SHADOW, None, |Entry { key, value, offset, .. }| {
            let key = key.unwrap_or_default();
            match value {
                Value::Shadow(tally) => drop(newest.insert(key, *tally)),
                Value::Tombstone => drop(newest.remove(&key)),
                _ => tracing::warn!("offset {offset} of {} cannot be read and does not count", topics::SHADOW),
            }
            Ok::<_, bus::Error>(())
        })?;
        let is_asked_for =
            |tally: &&ShadowTally| tally.candidate.digest == candidate && tally.champion.digest == champion;
        Ok(Self::of(newest.values().filter(is_asked_for)))
    }

    /// Every reason why the candidate should not become champion; none where it keeps to `bounds`.
    pub fn reasons_against(&self, bounds: &Bounds) -> Vec<String> {
        let refused = self.refused.iter().map(|(worker, reason)| format!("the worker {worker} refuses it: {reason}"));
        self.agreement.reasons_against(bounds).into_iter().chain(refused).collect()
    }

    fn of<'a>(tallies: impl Iterator<Item = &'a ShadowTally>) -> Self {
        let mut comparison = Self::default();
        let mut newest_of: BTreeMap<&str, &ShadowTally> = BTreeMap::new();
        for tally in tallies {
            comparison.agreement.add(&tally.agreement);
            comparison.updated_at = comparison.updated_at.max(Some(tally.updated_at));
            let newest = newest_of.entry(&tally.worker).or_insert(tally);
            if tally.since > newest.since {
                *newest = tally;
            }
        }
        comparison.workers = newest_of.len();
        for (worker, tally) in newest_of {
            if let Some(reason) = &tally.refused {
                comparison.refused.insert(worker.to_owned(), reason.clone());
            }
        }
        comparison
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tagger::ModelRef;

    fn tally(worker: &str, since: i64, articles: i64, refused: Option<&str>) -> ShadowTally {
        let model = |version: &str| ModelRef { name: "m".into(), version: version.into(), digest: version.into() };
        ShadowTally {
            candidate: model("2"),
            champion: model("1"),
            worker: worker.into(),
            since,
            updated_at: since + 1,
            refused: refused.map(str::to_owned),
            agreement: Agreement { articles, ..Agreement::default() },
        }
    }

    #[test]
    fn workers_and_their_restarts_add_up() {
        let tallies = [
            tally("a", 1, 10, Some("no memory")), // it could not load it then
            tally("a", 5, 20, None),
            tally("b", 3, 40, Some("no store")),
        ];
        assert_ne!(key(&tallies[0]), key(&tallies[1]), "the later one does not replace the earlier");
        let comparison = Comparison::of(tallies.iter());
        assert_eq!((comparison.agreement.articles, comparison.workers), (70, 2));
        assert_eq!(comparison.refused, BTreeMap::from([("b".into(), "no store".into())]));
        assert_eq!(comparison.updated_at, Some(6));
        assert_eq!(Comparison::of([].into_iter()), Comparison::default());
    }
}
