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
mod mirror;
pub mod reason;
pub mod speed;
pub mod work;

use crate::dataset::Dataset;
use crate::error::Error;
use crate::fit::{self, fit};
use crate::labels::Scheme;
use crate::recipe::{ModelOptions, Recipe};
use crate::snapshot::Snapshot;
use crate::split::{self, HoldOut};
use candidate::Sealed;
use champion::Champion;
use documents::Part;
use litflow::model::{self, directory};
use litflow::registry::aliases::{CANDIDATE, CHAMPION};
use litflow::registry::{self, Occasion, Registry};
use litflow::{ErrorClass, bus, config};
pub use reason::Conditions;
use serde::Serialize;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use work::{Plan, Start, Work};

/// Who moves aliases, in the registry's history.
const BY: &str = "litflow-train run";
/// Fewer documents than this to measure on are worth a warning.
const FEW_HELD_OUT: usize = 30;
/// How often a candidate is made ready again because somebody else publishes meanwhile.
const TURNS: u32 = 5;

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
    if numbers(&job.recipe.model.version).is_none() {
        return Err(Error::Usage(format!(
            "`model.version` of the recipe: {:?} is no number such as 1.0.0 that later versions can be counted on from",
            job.recipe.model.version
        )));
    }
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
    };
    mirror::mirror(job, &work, &registry);
    outcome
}

/// A run from its start: up to the decision whether to train.
fn begin(job: &Job, work: &Work, registry: &Registry, interrupted: &AtomicBool) -> Result<Outcome, Error> {
    let name = job.recipe.model.name.as_str();
    work.clear()?;
    let scheme = Scheme { overlap: job.recipe.data.overlap, ..Scheme::default() };
    let snapshot = Snapshot::take(&job.kafka, None, &scheme, &work.snapshot(), |_| {})?;
    let summary = &snapshot.summary;
    eprintln!("snapshot: {} documents of {} records, {}", summary.documents, summary.records, summary.digest);
    work.keep_quarantine()?;
    if !summary.left_out.is_empty() {
        eprintln!("left out: {} (listed in {})", summary.left_out, work.quarantine().display());
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
fn go_on(
    job: &Job,
    work: &Work,
    registry: &Registry,
    mut plan: Plan,
    interrupted: &AtomicBool,
) -> Result<Outcome, Error> {
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
            Err(Error::Model(error)) => {
                let current = work.current();
                return Err(Error::Job(format!(
                    "{error}; where the checkpoint is at fault, remove {} to train anew",
                    current.display()
                )));
            }
            Err(error) => return Err(error),
        }
    }
    for _ in 0..TURNS {
        let sealed = sealed(job, work, registry, &mut plan)?;
        if interrupted.load(Ordering::Relaxed) {
            return Ok(Outcome::Interrupted);
        }
        match publish(work, registry, &plan, &sealed) {
            Err(Error::Registry(taken @ (registry::Error::Taken { .. } | registry::Error::Claimed { .. }))) => {
                eprintln!("{taken}");
                Sealed::discard(work)?;
            }
            ended => return ended,
        }
    }
    Err(Error::Job("others publish versions faster than a candidate can be given a number".into()))
}

/// The candidate, measured beside the champion that is in force when it is done, under a number that is free then.
fn sealed(job: &Job, work: &Work, registry: &Registry, plan: &mut Plan) -> Result<Sealed, Error> {
    for _ in 0..TURNS {
        let model = plan.recipe.model.clone();
        let champion = Champion::find(registry, &job.registry, &model.name)?;
        if let Some(sealed) = Sealed::read(work)? {
            let champion = champion.as_ref().map(|champion| &champion.digest);
            if sealed.decision.champion.as_ref() == champion || is_in_store(registry, &model, &sealed.digest()?)? {
                return Ok(sealed);
            }
            eprintln!("another champion was made meanwhile: the candidate is measured beside it");
            Sealed::discard(work)?;
        }
        let version = next_version(registry, &model.name, &model.version)?;
        if version != model.version {
            eprintln!("{0} {1} is taken by now: this becomes {0} {version}", model.name, model.version);
            plan.recipe.model.version = version;
            work.begin(plan)?;
        }
        candidate::seal(job, work, plan, champion.as_ref())?;
    }
    Err(Error::Job("the champion changes faster than a candidate can be measured beside it".into()))
}

/// Whether the store has this candidate, rather than nothing or what somebody else published under its number.
fn is_in_store(registry: &Registry, model: &ModelOptions, digest: &str) -> Result<bool, Error> {
    match registry.store().manifest(&model.name, &model.version) {
        Ok((_, there)) => Ok(there == digest),
        Err(error) if error.class() == ErrorClass::Poison => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Publishes and announces. What a killed run had announced already is left as it is: somebody may have moved the
/// aliases since.
///
/// # Errors
/// [`registry::Error::Taken`] or [`registry::Error::Claimed`] where somebody else has the candidate's number.
fn publish(work: &Work, registry: &Registry, plan: &Plan, sealed: &Sealed) -> Result<Outcome, Error> {
    let decision = &sealed.decision;
    let (mut alias, mut why) = (decision.alias.clone(), decision.why());
    let (name, version) = (&plan.recipe.model.name, &plan.recipe.model.version);
    let digest = sealed.digest()?;
    let announcements = registry.announcements()?;
    let state = announcements.get(name)?;
    match state.and_then(|state| state.known_digest(version)) {
        Some(announced) if announced == digest => {}
        Some(announced) => {
            let (location, there) = (registry.store().location(name, version), announced.to_owned());
            return Err(registry::Error::Taken { location, there, here: digest }.into());
        }
        None => {
            registry.store().publish(&sealed.folder)?;
            let champion = state.and_then(|state| state.alias(CHAMPION)).map(|target| &target.digest);
            let is_champion = alias == CHAMPION
                && champion == decision.champion.as_ref()
                && match &decision.champion {
                    Some(over) => registry.promote_over(name, version, over, &Occasion::now(BY, &why))?.changed,
                    None => registry.assign(name, version, CHAMPION, &Occasion::now(BY, &why))?.changed,
                };
            if alias == CHAMPION && !is_champion {
                // It is in the store already, so it cannot be measured again under this version.
                why += "; another champion was made meanwhile, beside which it was not measured";
                CANDIDATE.clone_into(&mut alias);
            }
            if !is_champion {
                registry.assign(name, version, &alias, &Occasion::now(BY, &why))?;
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
        if ids.len() < FEW_HELD_OUT {
            eprintln!(
                "warning: {} documents are held out, for ever: on so few a difference between versions is chance; end \
                 this run, and begin when there are more, or with a larger --hold-out-share",
                ids.len()
            );
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

/// The wanted version, or the one after the newest that there is: a minor version more.
fn next_version(registry: &Registry, name: &str, wanted: &str) -> Result<String, Error> {
    let stored = registry.store().list(Some(name))?;
    let announcements = registry.announcements()?;
    // What was announced once keeps its number, though it may be gone from the store.
    let state = announcements.get(name)?;
    let aliased = state.into_iter().flat_map(|state| state.aliases.values()).map(|target| &target.version);
    let announced = state.into_iter().flat_map(|state| &state.history).map(|change| &change.version).chain(aliased);
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
