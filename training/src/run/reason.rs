//! Whether there is a reason to train.

use super::champion::Champion;
use super::documents::{Known, Part};
use super::work::Work;
use super::{Job, documents};
use crate::analysis::{Training, bootstrap::Interval};
use crate::dataset::{DataOptions, Dataset};
use crate::error::Error;
use crate::evaluate::measure;
use crate::snapshot::Snapshot;
use crate::split::HoldOut;
use litflow::model::directory;
use std::collections::{BTreeMap, BTreeSet};

/// When there is a reason to train. One that holds is enough. Without a champion any label is one.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Conditions {
    /// Whatever there is.
    pub always: bool,
    /// At least so many documents are new, labelled in another way, or withdrawn.
    pub new_labels: Option<u64>,
    /// The champion's strict micro F1 on new documents is more than so many points lower than on the hold-out.
    pub drift_over: Option<f64>,
}

/// The reason to train; the inner error says why there is none.
///
/// What is new is told from the newest version that was made in this work folder, whatever became of it: a version that was
/// refused, or rolled back, is not made again of the same labels. Where there is none, from the champion.
pub fn to_train(
    job: &Job,
    work: &Work,
    snapshot: &Snapshot,
    hold_out: &HoldOut,
    champion: Option<&Champion>,
) -> Result<Result<String, String>, Error> {
    let no_champion = || format!("{} has no champion yet", job.recipe.model.name);
    if job.conditions.always {
        return Ok(Ok("asked for (--always)".into()));
    }
    let digests = documents::digests(snapshot)?;
    let learnable: BTreeMap<&str, &str> =
        digests.iter().filter(|(id, _)| !hold_out.names(id)).map(|(id, digest)| (&**id, &**digest)).collect();
    let newest = work.ended()?.pop().map(|(folder, plan)| (plan.recipe.model.version, folder.join("candidate")));
    let newest = newest.or_else(|| champion.map(|champion| (champion.version.clone(), champion.folder.clone())));
    let Some((made, folder)) = newest else { return Ok(Ok(no_champion())) };
    let known = documents::read(&folder)?.unwrap_or_default();
    let changes = Changes::between(&known, &learnable);
    if changes.count() == 0 && !known.is_empty() {
        return Ok(Err(format!(
            "no document is new, labelled anew or withdrawn since {made}; --always trains all the same"
        )));
    }
    let Some(champion) = champion else { return Ok(Ok(no_champion())) };

    let (mut found, mut found_not) = (Vec::new(), Vec::new());
    if let Some(least) = job.conditions.new_labels {
        let told = format!("{changes} since {made}; {least} are a reason");
        if changes.count() >= least { found.push(told) } else { found_not.push(told) }
    }
    if let Some(limit) = job.conditions.drift_over {
        let of_champion = documents::read(&champion.folder)?.unwrap_or_default();
        let unseen: BTreeSet<String> =
            learnable.keys().filter(|id| !of_champion.contains_key(**id)).map(|id| (*id).to_owned()).collect();
        if unseen.is_empty() {
            found_not.push(format!("no document is new since {}: its drift cannot be told", champion.version));
        } else {
            let drift = Drift::measure(job, champion, hold_out, unseen)?;
            let told = format!("{drift}; more than {limit:.2} are a reason");
            if drift.points() > limit { found.push(told) } else { found_not.push(told) }
        }
    }
    Ok(if found.is_empty() { Err(found_not.join("; ")) } else { Ok(found.join("; ")) })
}

/// How the documents that may be learned from differ from those that a version was made with.
#[derive(Debug, PartialEq)]
struct Changes {
    new: u64,
    relabelled: u64,
    withdrawn: u64,
}

impl Changes {
    /// `known` is by id, `learnable` the digest by id.
    fn between(known: &BTreeMap<String, Known>, learnable: &BTreeMap<&str, &str>) -> Self {
        let mut changes = Self { new: 0, relabelled: 0, withdrawn: 0 };
        for (id, digest) in learnable {
            match known.get(*id) {
                None => changes.new += 1,
                Some(known) => changes.relabelled += u64::from(known.sha256 != *digest),
            }
        }
        let learned = known.values().filter(|known| known.part == Part::Training);
        changes.withdrawn = learned.filter(|known| !learnable.contains_key(&*known.id)).count() as u64;
        changes
    }

    fn count(&self) -> u64 {
        self.new + self.relabelled + self.withdrawn
    }
}

impl std::fmt::Display for Changes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { new, relabelled, withdrawn } = self;
        write!(f, "{new} documents are new, {relabelled} labelled anew and {withdrawn} withdrawn")
    }
}

/// The champion's strict micro F1 where it was measured, and on documents that it has not seen.
struct Drift {
    version: String,
    hold_out: Interval,
    new: Interval,
    new_documents: usize,
}

impl Drift {
    fn measure(job: &Job, champion: &Champion, hold_out: &HoldOut, unseen: BTreeSet<String>) -> Result<Self, Error> {
        let config = directory::read_config(&champion.folder)?;
        let types = config.label_set(&champion.folder)?.entity_types().to_vec();
        let options = DataOptions { types, ..job.recipe.data.clone() };
        let snapshot = job.work.join("current").join("snapshot");
        let mut data = Dataset::read(&[snapshot], &options)?;
        let held_out = data.hold_out(hold_out)?;
        let new = data.hold_out(&HoldOut::Frozen(unseen))?;
        let f1 = |data: &Dataset| -> Result<Interval, Error> {
            let evaluation = measure(&champion.folder, data, &job.model)?;
            Ok(evaluation.report(None, &Training::default())?.metrics.strict_micro_f1_interval)
        };
        let (hold_out, new_documents) = (f1(&held_out)?, new.len());
        Ok(Self { version: champion.version.clone(), hold_out, new: f1(&new)?, new_documents })
    }

    /// By how many points it fell.
    fn points(&self) -> f64 {
        100.0 * (self.hold_out.value - self.new.value)
    }
}

impl std::fmt::Display for Drift {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { version, hold_out, new, new_documents } = self;
        write!(
            f,
            "the F1 of {version} is {:.2} on {new_documents} new documents (95 % interval {:.2} to {:.2}) and {:.2} on the \
             hold-out: {:.2} points lower",
            100.0 * new.value,
            100.0 * new.low,
            100.0 * new.high,
            100.0 * hold_out.value,
            self.points()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_relabelled_and_withdrawn_documents_are_changes_and_those_held_out_are_none() {
        let known = |(id, sha256, part): (&str, &str, Part)| {
            (id.to_owned(), Known { id: id.into(), sha256: sha256.into(), part })
        };
        let known = BTreeMap::from(
            [
                ("same", "1", Part::Training),
                ("relabelled", "2", Part::Training),
                ("withdrawn", "3", Part::Training),
                ("held out", "4", Part::HeldOut),
                ("held out and withdrawn", "5", Part::HeldOut),
            ]
            .map(known),
        );
        let learnable = BTreeMap::from([("same", "1"), ("relabelled", "other"), ("new", "6")]);
        let changes = Changes::between(&known, &learnable);
        assert_eq!(changes, Changes { new: 1, relabelled: 1, withdrawn: 1 });
        assert_eq!(changes.to_string(), "1 documents are new, 1 labelled anew and 1 withdrawn");

        let learnable = BTreeMap::from([("same", "1"), ("relabelled", "2")]);
        assert_eq!(Changes::between(&known, &learnable).count(), 1, "a withdrawal alone");
    }
}
