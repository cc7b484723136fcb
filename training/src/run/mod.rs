//! The monthly job: one process that starts, works and ends.
//!
//! ```text
//! snapshot of `labels` → reason to train? → fit → evaluation on the frozen hold-out → gate → publication → MLflow
//!                             │ no                                                        │ refused
//!                             ▼                                                           ▼
//!                        nothing new                                          published as `rejected`
//! ```
//! Each step leaves its result in the work folder ([`work`]), whole or not at all. Whatever kills the job, the next one
//! goes on where it was, with the recipe and the labels of the run that was begun, and makes the same model.

pub mod candidate;
pub mod champion;
pub mod documents;
pub mod reason;
pub mod speed;
pub mod work;

use crate::dataset::Dataset;
use crate::error::Error;
use crate::fit::{self, fit};
use crate::labels::Scheme;
use crate::mlflow;
use crate::recipe::Recipe;
use crate::snapshot::Snapshot;
use crate::split::{self, HoldOut};
use candidate::Sealed;
use champion::Champion;
use documents::Part;
use litflow::model::{self, directory};
use litflow::registry::aliases::{CANDIDATE, CHAMPION};
use litflow::registry::{self, Occasion, Registry};
use litflow::{bus, config};
pub use reason::Conditions;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use work::{Plan, Start, Work};

/// Who moves aliases, in the registry's history.
const BY: &str = "litflow-train run";
/// How often a candidate is measured again because another champion was made meanwhile.
const CHAMPIONS: u32 = 5;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Job {
    /// The work folder; made where it is missing.
    pub work: PathBuf,
    /// The list of documents that no training sees; none: `hold-out.txt` in the work folder, which the first run
    /// chooses.
    pub hold_out: Option<PathBuf>,
    /// The share of the documents that is chosen, 0 to 1.
    pub hold_out_share: f64,
    /// The encoder to start from: always, or while there is no champion.
    pub encoder: PathBuf,
    /// Whether to start from the champion where there is one.
    pub warm_start: bool,
    /// How to train, and the model's name.
    pub recipe: Recipe,
    /// When there is a reason to train.
    pub conditions: Conditions,
    /// The alias that a version gets that the gate lets through.
    pub alias: String,
    /// Longest time between two checkpoints.
    pub checkpoint_every: Duration,
    /// The cluster.
    pub kafka: bus::Options,
    /// Where versions are kept.
    pub registry: registry::Options,
    /// Where they are mirrored to.
    pub mlflow: config::Mlflow,
    /// What models are measured on.
    pub model: model::Options,
}

/// How the job ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// A version was published.
    Published {
        /// Its name and version.
        model: String,
        /// Its digest.
        digest: String,
        /// The alias that it has now.
        alias: String,
        /// What speaks for it.
        why: String,
        /// Its report.
        report: PathBuf,
    },
    /// A version was made, and refused by the gate.
    NotBetter {
        /// Its name and version.
        model: String,
        /// Its digest.
        digest: String,
        /// What speaks against it.
        why: String,
        /// Its report.
        report: PathBuf,
    },
    /// There was no reason to train.
    NothingNew {
        /// Why not.
        why: String,
    },
    /// It was told to stop; the next run goes on.
    Interrupted,
}

/// Does the job. When `interrupted` becomes true it stops after its current step of the optimiser.
///
/// # Errors
/// Whatever keeps it from ending: labels that nothing can be learned from, a cluster or a store that does not answer, a
/// disk that is full. The next run goes on from what was done.
pub fn run(job: &Job, interrupted: &AtomicBool) -> Result<Outcome, Error> {
    let name = job.recipe.model.name.as_str();
    registry::names::check_name(name).map_err(|error| Error::Usage(format!("`model.name` of the recipe: {error}")))?;
    registry::names::check_alias(&job.alias).map_err(|error| Error::Usage(format!("--alias: {error}")))?;
    registry::names::check_version(&job.recipe.model.version)
        .map_err(|error| Error::Usage(format!("`model.version` of the recipe: {error}")))?;
    let work = Work::open(&job.work)?;
    if let Some((folder, plan)) = work.ended()?.pop().filter(|(_, plan)| plan.recipe.model.name != *name) {
        let other = plan.recipe.model.name;
        return Err(Error::Usage(format!(
            "{} is of {other}: give each model a work folder of its own",
            folder.display()
        )));
    }
    let registry = Registry::create(&job.registry, &job.kafka)?;
    let outcome = match work.plan()? {
        Some(plan) => go_on(job, &work, &registry, plan, interrupted),
        None => begin(job, &work, &registry, interrupted),
    }?;
    mirror(job, &work);
    Ok(outcome)
}

/// A run from its start: up to the decision whether to train.
fn begin(job: &Job, work: &Work, registry: &Registry, interrupted: &AtomicBool) -> Result<Outcome, Error> {
    let name = job.recipe.model.name.as_str();
    work.clear()?;
    let scheme = Scheme { overlap: job.recipe.data.overlap, ..Scheme::default() };
    let snapshot = Snapshot::take(&job.kafka, None, &scheme, &work.snapshot(), |_| {})?;
    let summary = &snapshot.summary;
    eprintln!("snapshot: {} documents of {} records, {}", summary.documents, summary.records, summary.digest);
    if !summary.left_out.is_empty() {
        eprintln!("left out: {} (listed in {})", summary.left_out, work.snapshot().join("quarantine.jsonl").display());
    }
    if summary.documents == 0 {
        let reason = format!(
            "the topic {} at {} holds no sound label ({} records); `litflow-train import` publishes some",
            summary.topic, job.kafka.bootstrap_servers, summary.records
        );
        work.clear()?;
        return Err(Error::Job(reason));
    }
    let champion = Champion::find(registry, &job.registry, name)?;
    let list = hold_out_list(job, work, champion.as_ref())?;
    let hold_out = HoldOut::read(&list)?;
    let digests = documents::digests(&snapshot)?;
    let held_out = digests.keys().filter(|id| hold_out.names(id)).count();
    eprintln!("hold-out: {held_out} of {} documents, {}", digests.len(), list.display());
    if held_out == 0 {
        return Err(Error::Usage(format!("{} names no document of the snapshot", list.display())));
    }
    let why = reason::to_train(job, work, &snapshot, &hold_out, champion.as_ref())?;
    let why = match why {
        Ok(why) => why,
        Err(why) => {
            work.clear()?;
            return Ok(Outcome::NothingNew { why });
        }
    };
    eprintln!("training: {why}");
    let start = match champion {
        Some(champion) if job.warm_start => Start::Champion { version: champion.version, digest: champion.digest },
        _ => {
            directory::read_config(&job.encoder)?;
            Start::Encoder { path: std::path::absolute(&job.encoder).map_err(|e| Error::io(&job.encoder, e))? }
        }
    };
    let mut recipe = job.recipe.clone();
    recipe.model.version = next_version(registry, name, &recipe.model.version)?;
    let plan = Plan { begun_at: work::now(), why, start, recipe };
    std::fs::copy(&list, work.chosen()).map_err(|error| Error::io(&list, error))?;
    work.begin(&plan)?;
    go_on(job, work, registry, plan, interrupted)
}

/// A run that is decided on: what is not done yet of it.
fn go_on(job: &Job, work: &Work, registry: &Registry, plan: Plan, interrupted: &AtomicBool) -> Result<Outcome, Error> {
    let model = &plan.recipe.model;
    if model.name != job.recipe.model.name {
        return Err(Error::Usage(format!(
            "{} holds an unfinished run of {}: give each model a work folder of its own",
            work.folder().display(),
            model.name
        )));
    }
    if Sealed::read(work)?.is_none() && !work.is_fitted()? {
        let request = fit::Request {
            data: vec![work.snapshot()],
            dev: Vec::new(),
            hold_out: Some(work.chosen()),
            encoder: start(&plan.start, registry, job)?,
            out: work.model(),
            recipe: plan.recipe.clone(),
            resume: work.has_checkpoint()?,
            checkpoint_every: job.checkpoint_every,
            device: model::device::select(job.model.device)?,
        };
        if request.resume {
            eprintln!("going on with {} {}", model.name, model.version);
        }
        match fit(&request, interrupted) {
            Ok(outcome) if outcome.interrupted => return Ok(Outcome::Interrupted),
            Ok(_) => {}
            // It would fail in the same way again: the next run begins anew, with what is there then.
            Err(error) if matches!(error, Error::Usage(_) | Error::Diverged { .. }) || !work.has_checkpoint()? => {
                work.clear()?;
                return Err(error);
            }
            Err(error) => return Err(error),
        }
    }
    let sealed = sealed(job, work, registry, &plan)?;
    if interrupted.load(Ordering::Relaxed) {
        return Ok(Outcome::Interrupted);
    }
    publish(work, registry, &plan, &sealed)
}

/// The candidate, measured beside the champion that is in force when it is done.
fn sealed(job: &Job, work: &Work, registry: &Registry, plan: &Plan) -> Result<Sealed, Error> {
    for _ in 0..CHAMPIONS {
        let champion = Champion::find(registry, &job.registry, &plan.recipe.model.name)?;
        if let Some(sealed) = Sealed::read(work)? {
            if is_in_store(registry, plan)?
                || sealed.decision.champion.as_ref() == champion.as_ref().map(|champion| &champion.digest)
            {
                return Ok(sealed);
            }
            eprintln!("another champion was made meanwhile: the candidate is measured beside it");
            Sealed::discard(work)?;
        }
        candidate::seal(job, work, plan, champion.as_ref())?;
    }
    Err(Error::Job("the champion changes faster than a candidate can be measured beside it".into()))
}

fn is_in_store(registry: &Registry, plan: &Plan) -> Result<bool, Error> {
    match registry.store().manifest(&plan.recipe.model.name, &plan.recipe.model.version) {
        Ok(_) => Ok(true),
        Err(registry::Error::NotFound { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Publishes and announces. What a killed run had announced already is left as it is: somebody may have moved the
/// aliases since.
fn publish(work: &Work, registry: &Registry, plan: &Plan, sealed: &Sealed) -> Result<Outcome, Error> {
    let decision = &sealed.decision;
    let (mut alias, mut why) = (decision.alias.clone(), decision.why());
    let (name, version) = (&plan.recipe.model.name, &plan.recipe.model.version);
    let digest = directory::manifest_digest(&sealed.folder)?.unwrap_or_default();
    let announcements = registry.announcements()?;
    let announced = announcements.get(name)?.and_then(|state| state.known_digest(version));
    if announced != Some(&digest) {
        let champion = announcements.get(name)?.and_then(|state| state.alias(CHAMPION)).map(|target| &target.digest);
        if alias == CHAMPION && champion != decision.champion.as_ref() {
            // It is in the store already, so it cannot be measured again under this version.
            why += "; another champion was made meanwhile, beside which it was not measured";
            CANDIDATE.clone_into(&mut alias);
        }
        match &decision.champion {
            Some(over) if alias == CHAMPION => {
                registry.store().publish(&sealed.folder)?;
                if !registry.promote_over(name, version, over, &Occasion::now(BY, &why))?.changed {
                    return Err(Error::Job("another champion was made at this moment; run again".into()));
                }
            }
            _ => {
                registry.publish(&sealed.folder, Some(&alias), &Occasion::now(BY, &why))?;
            }
        }
    }
    let folder = work.end(version)?;
    let (model, report) = (format!("{name} {version}"), folder.join("report").join(crate::report::REPORT));
    Ok(if decision.gate.is_passed() {
        Outcome::Published { model, digest, alias, why, report }
    } else {
        Outcome::NotBetter { model, digest, why, report }
    })
}

/// The list of the hold-out; the first run of a work folder chooses it.
/// With another work folder than the champion was made in, it is the champion's: what was trained on must not measure.
fn hold_out_list(job: &Job, work: &Work, champion: Option<&Champion>) -> Result<PathBuf, Error> {
    if let Some(list) = &job.hold_out {
        return std::path::absolute(list).map_err(|error| Error::io(list, error));
    }
    let list = work.hold_out();
    let known = champion.map(|champion| documents::read(&champion.folder)).transpose()?.flatten();
    if let Some(known) = known.filter(|_| !list.exists()) {
        let held_out = known.into_values().filter(|known| known.part == Part::HeldOut);
        let ids: Vec<String> = held_out.map(|known| known.id).collect();
        split::write(&list, &ids, "held out of training for ever, as the champion has it")?;
    }
    if !list.exists() {
        let data = Dataset::read(&[work.snapshot()], &job.recipe.data)?;
        let ids = split::choose(&data, job.hold_out_share)?;
        if ids.is_empty() {
            return Err(Error::Job(format!(
                "{} documents are too few to hold some of them out for measuring (--hold-out-share {})",
                data.len(),
                job.hold_out_share
            )));
        }
        let header = format!("held out of training for ever: {} of {} documents", ids.len(), data.len());
        split::write(&list, &ids, &header)?;
    }
    Ok(list)
}

/// The folder that training starts from.
fn start(start: &Start, registry: &Registry, job: &Job) -> Result<PathBuf, Error> {
    match start {
        Start::Encoder { path } => Ok(path.clone()),
        Start::Champion { version, digest } => {
            let name = &job.recipe.model.name;
            Ok(registry.store().fetch(name, version, digest, &job.registry.cache())?)
        }
    }
}

/// The recipe's version, or the one after the newest that there is: a minor version more.
fn next_version(registry: &Registry, name: &str, wanted: &str) -> Result<String, Error> {
    let stored = registry.store().list(Some(name))?;
    let announcements = registry.announcements()?;
    // What was announced once keeps its number, though it may be gone from the store.
    let announced = announcements.get(name)?.into_iter().flat_map(|state| &state.history).map(|change| &change.version);
    let newest =
        stored.iter().map(|stored| &stored.version).chain(announced).filter_map(|version| numbers(version)).max();
    let next = match (newest, numbers(wanted)) {
        (Some(newest), Some(wanted)) if wanted > newest => wanted,
        (Some((major, minor, _)), _) => (major, minor + 1, 0),
        (None, _) => return Ok(wanted.to_owned()),
    };
    Ok(format!("{}.{}.{}", next.0, next.1, next.2))
}

/// Major, minor and patch; what follows a `-` or `+` does not count.
fn numbers(version: &str) -> Option<(u64, u64, u64)> {
    let core = version.split(['-', '+']).next()?;
    let mut parts = core.split('.').map(|part| part.parse().ok());
    Some((parts.next()??, parts.next().unwrap_or(Some(0))?, parts.next().unwrap_or(Some(0))?))
}

/// Mirrors every ended run that is not mirrored yet. A server that is down costs a line, and the next run tries again.
fn mirror(job: &Job, work: &Work) {
    let mirrored = mlflow::Mlflow::new(&job.mlflow).map_err(|error| error.to_string()).and_then(|mlflow| {
        let Some(mlflow) = mlflow else { return Ok(()) };
        let runs = work.ended().map_err(|error| error.to_string())?;
        let waiting = runs.iter().map(|(folder, _)| folder).filter(|folder| !work::is_mirrored(folder));
        // One that cannot be mirrored does not hold up the others.
        let failed: Vec<String> = waiting.filter_map(|folder| mirror_run(&mlflow, folder).err()).collect();
        if failed.is_empty() { Ok(()) } else { Err(failed.join("; ")) }
    });
    if let Err(reason) = mirrored {
        eprintln!("warning: not mirrored, the next run tries again: {reason}");
    }
}

fn mirror_run(mlflow: &mlflow::Mlflow, folder: &Path) -> Result<(), String> {
    let sealed = Sealed::read_in(folder).map_err(|error| error.to_string())?;
    let Some(sealed) = sealed else { return Ok(()) };
    let run = sealed.mirror(mlflow, folder)?;
    work::mark_mirrored(folder, &run).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_their_numbers() {
        assert_eq!(numbers("1.10.2-rc.1+x"), Some((1, 10, 2)));
        assert_eq!(numbers("2"), Some((2, 0, 0)));
        assert!(numbers("1.10.0") > numbers("1.9.9"));
        assert_eq!(numbers("1.x"), None);
    }
}
