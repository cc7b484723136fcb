//! Whether there is a reason to train.

use super::champion::Champion;
use super::work::Work;
use super::{Job, documents};
use crate::analysis::{Training, bootstrap::Interval};
use crate::dataset::{DataOptions, Dataset};
use crate::error::Error;
use crate::evaluate::measure;
use crate::snapshot::Snapshot;
use crate::split::HoldOut;
use litflow::model::directory;
use std::collections::BTreeSet;

/// When there is a reason to train. One that holds is enough. Without a champion there always is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Conditions {
    /// Whatever there is.
    pub always: bool,
    /// At least so many documents are new, or labelled in another way than those that the champion was made with.
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
    let Some(champion) = champion else {
        return Ok(Ok(format!("{} has no champion yet", job.recipe.model.name)));
    };
    if job.conditions.always {
        return Ok(Ok("asked for (--always)".into()));
    }
    let newest = work.ended()?.pop();
    let (made, folder) = match &newest {
        Some((folder, plan)) => (&plan.recipe.model.version, folder.join("candidate")),
        None => (&champion.version, champion.folder.clone()),
    };
    let known = documents::read(&folder)?.unwrap_or_default();
    let of_champion = documents::read(&champion.folder)?.unwrap_or_default();
    let HoldOut::Frozen(held_out) = hold_out else {
        return Err(Error::Usage("the hold-out of a run must be a list of documents".into()));
    };
    let digests = documents::digests(snapshot)?;
    let learnable = || digests.iter().filter(|(id, _)| !held_out.contains(*id));
    let new = learnable().filter(|(id, _)| !known.contains_key(*id)).count();
    let relabelled = learnable().filter(|(id, digest)| known.get(*id).is_some_and(|it| it.sha256 != **digest)).count();
    let withdrawn = known.keys().filter(|id| !digests.contains_key(*id)).count();
    if new + relabelled + withdrawn == 0 && !known.is_empty() {
        return Ok(Err(format!("no document is new, labelled anew or withdrawn since {made}")));
    }
    let unseen: BTreeSet<String> =
        learnable().filter(|(id, _)| !of_champion.contains_key(*id)).map(|(id, _)| id.clone()).collect();

    let (mut found, mut found_not) = (Vec::new(), Vec::new());
    if let Some(least) = job.conditions.new_labels {
        let changed = (new + relabelled) as u64;
        let told = format!(
            "{new} documents are new and {relabelled} labelled anew since {made} ({withdrawn} withdrawn); {least} are a reason"
        );
        if changed >= least { found.push(told) } else { found_not.push(told) }
    }
    if let Some(limit) = job.conditions.drift_over {
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
