//! The mirror in MLflow: every ended run that it does not have yet, and the aliases as the registry has them now, whoever
//! moved them. A server that is down costs a line, and the next run tries again.

use super::Job;
use super::candidate::{DECISION, Sealed};
use super::work::{self, Work};
use crate::mlflow::{Mlflow, Trained};
use crate::publish::RECIPE;
use crate::recipe::Recipe;
use crate::report::METRICS;
use litflow::model::directory::MANIFEST;
use litflow::registry::Registry;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Brings the mirror up to date, where there is one.
pub fn mirror(job: &Job, work: &Work, registry: &Registry) {
    let mirrored = Mlflow::new(&job.mlflow).map_err(|error| error.to_string()).and_then(|mlflow| {
        let Some(mlflow) = mlflow else { return Ok(()) };
        let runs = work.ended().map_err(|error| error.to_string())?;
        let waiting = runs.iter().map(|(folder, _)| folder).filter(|folder| !work::is_mirrored(folder));
        // One that cannot be mirrored does not hold up the others.
        let mut failed: Vec<String> = waiting.filter_map(|folder| mirror_run(&mlflow, folder).err()).collect();
        failed.extend(align(&mlflow, registry, &job.recipe.model.name).err());
        failed.dedup();
        if failed.is_empty() { Ok(()) } else { Err(failed.join("; ")) }
    });
    if let Err(reason) = mirrored {
        eprintln!("warning: not mirrored, the next run tries again: {reason}");
    }
}

/// Gives each version in MLflow the aliases that it has in the registry.
fn align(mlflow: &Mlflow, registry: &Registry, name: &str) -> Result<(), String> {
    let announcements = registry.announcements().map_err(|error| error.to_string())?;
    let Some(state) = announcements.get(name).map_err(|error| error.to_string())? else { return Ok(()) };
    let aliases = state.aliases.iter().map(|(alias, target)| (alias.as_str(), target.digest.as_str()));
    mlflow.align(name, &aliases.collect()).map_err(|error| error.to_string())
}

fn mirror_run(mlflow: &Mlflow, folder: &Path) -> Result<(), String> {
    let sealed = Sealed::read_in(folder).map_err(|error| error.to_string())?;
    let Some(sealed) = sealed else { return Ok(()) };
    let recipe = Recipe::read(&sealed.folder.join(RECIPE)).map_err(|error| error.to_string())?;
    let mut parameters = BTreeMap::new();
    let json = serde_json::to_value(&recipe).map_err(|error| error.to_string())?;
    flatten("", &json, &mut |name, value| {
        parameters.insert(key(name), value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    });
    let mut metrics = Vec::new();
    let mut last = 0;
    for epoch in crate::evaluate::epochs(&sealed.folder) {
        last = epoch.steps;
        metrics.push(("train.loss".to_owned(), epoch.steps, epoch.loss));
        metrics.push(("dev.strict.micro.f1".to_owned(), epoch.steps, epoch.dev.micro.f1));
    }
    let report = fs::read(folder.join("report").join(METRICS)).unwrap_or_default();
    let report: serde_json::Value = serde_json::from_slice(&report).unwrap_or_default();
    flatten("hold_out.strict", &report["strict"], &mut |name, value| {
        metrics.extend(value.as_f64().map(|value| (key(name), last, value)));
    });
    let artifacts: Vec<PathBuf> = fs::read_dir(folder.join("report"))
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .chain([DECISION, MANIFEST, RECIPE].map(|name| sealed.folder.join(name)))
        .collect();
    let trained = Trained {
        name: &recipe.model.name,
        version: &recipe.model.version,
        digest: &sealed.digest().map_err(|error| error.to_string())?,
        parameters,
        metrics,
        artifacts: &artifacts,
    };
    let run = mlflow.mirror(&trained).map_err(|error| error.to_string())?;
    work::mark_mirrored(folder, &run).map_err(|error| error.to_string())
}

/// A name as MLflow takes it: letters, digits, `_`, `-`, `.`, space and `/`.
fn key(name: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_-. /".contains(c);
    name.chars().map(|c| if allowed(c) { c } else { '_' }).collect()
}

/// Calls `each` with every value that is no object, by its path.
fn flatten(path: &str, value: &serde_json::Value, each: &mut impl FnMut(&str, &serde_json::Value)) {
    match value {
        serde_json::Value::Object(fields) => {
            for (key, value) in fields {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                flatten(&path, value, each);
            }
        }
        serde_json::Value::Null => {}
        value => each(path, value),
    }
}
