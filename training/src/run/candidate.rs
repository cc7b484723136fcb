//! The candidate: measured, judged, and sealed as the version that is published.

use super::champion::Champion;
use super::work::{Plan, Work};
use super::{Job, documents, speed};
use crate::analysis::Training;
use crate::analysis::bootstrap::Interval;
use crate::dataset::{DataOptions, Dataset};
use crate::error::Error;
use crate::evaluate::measure;
use crate::files::{move_whole, remove, write_whole};
use crate::gate::{self, Checks};
use crate::golden;
use crate::publish::{self, RECIPE};
use crate::recipe::Recipe;
use crate::report::{METRICS, Report};
use crate::snapshot::Snapshot;
use crate::split::HoldOut;
use litflow::model::directory::{self, MANIFEST, Manifest};
use litflow::registry::aliases::REJECTED;
use litflow::registry::golden::GOLDEN;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};

/// The gate's word, in the version's directory.
pub const DECISION: &str = "decision.json";

/// What was found about a candidate, and what the gate said to it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Decision {
    /// Why it was trained.
    pub trained_because: String,
    /// The champion that it was measured beside; none where there was none.
    pub champion: Option<String>,
    /// Documents of the hold-out.
    pub documents: usize,
    /// Its strict micro F1 on them.
    pub f1: Interval,
    /// Candidate − champion in strict micro F1.
    pub difference: Option<Interval>,
    /// Its speed as a share of the champion's.
    pub speed_ratio: Option<f64>,
    /// What the gate said.
    pub gate: gate::Decision,
    /// The alias that it gets.
    pub alias: String,
}

impl Decision {
    /// The word and its reason, in a line.
    pub fn why(&self) -> String {
        if !self.gate.is_passed() {
            return self.gate.reasons.join("; ");
        }
        let percent = |interval: &Interval| {
            format!("{:.2} ({:.2} to {:.2})", 100.0 * interval.value, 100.0 * interval.low, 100.0 * interval.high)
        };
        let own = format!("strict micro F1 {} on {} held-out documents", percent(&self.f1), self.documents);
        match &self.difference {
            None => format!("{own}; there was no champion"),
            Some(difference) => {
                let speed = self.speed_ratio.map_or_else(String::new, |ratio| format!(", {ratio:.2} × its speed"));
                format!("{own}, {} points beside the champion{speed}", percent(difference))
            }
        }
    }
}

/// A candidate that is ready to be published.
#[derive(Debug, Clone)]
pub struct Sealed {
    /// The version's directory.
    pub folder: PathBuf,
    /// What was found about it.
    pub decision: Decision,
}

impl Sealed {
    /// The candidate of the run under way; none where it is not sealed yet.
    pub fn read(work: &Work) -> Result<Option<Self>, Error> {
        Self::read_in(&work.current())
    }

    /// The candidate of the run in this folder.
    pub fn read_in(folder: &Path) -> Result<Option<Self>, Error> {
        let folder = folder.join("candidate");
        let file = folder.join(DECISION);
        let json = match fs::read(&file) {
            Ok(json) => json,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io(&file, error)),
        };
        let decision = serde_json::from_slice(&json)
            .map_err(|error| Error::Job(format!("{}: not of this version: {error}", file.display())))?;
        Ok(Some(Self { folder, decision }))
    }

    /// Removes the candidate, so that it is measured again.
    pub fn discard(work: &Work) -> Result<(), Error> {
        remove(&work.current().join("candidate"))
    }

    /// Its digest.
    pub fn digest(&self) -> Result<String, Error> {
        Ok(directory::manifest_digest(&self.folder)?.unwrap_or_default())
    }
}

/// Measures what training left, under the plan's version, beside the champion, has the gate judge it, and seals it with
/// everything that tells later what it is: golden sentences, its documents, the snapshot's summary, the report, the
/// decision.
pub fn seal(job: &Job, work: &Work, plan: &Plan, champion: Option<&Champion>) -> Result<(), Error> {
    let new = &work.current().join("candidate.new");
    remove(new)?;
    fs::create_dir_all(new).map_err(|error| Error::io(new, error))?;
    copy(&work.model(), new, |_| true)?;
    publish::renumber(new, &plan.recipe.model.version)?;

    let hold_out = HoldOut::read(&work.chosen())?;
    let (data, held_out) = read(work, new, champion, &hold_out)?;
    eprintln!("measuring on {} held-out documents", held_out.len());
    let candidate = measure(new, &held_out, &job.model).map_err(|error| {
        let current = work.current();
        Error::Job(format!("{error}; where the trained model is at fault, remove {} to train anew", current.display()))
    })?;
    let beside = champion.map(|champion| measure(&champion.folder, &held_out, &job.model)).transpose()?;
    let report = candidate.report(beside.as_ref(), &Training::of(&data)?)?;
    let speed_ratio = match champion {
        Some(champion) => speed::ratio(new, &champion.folder, &held_out, &job.model)?,
        None => None,
    };
    let (sentences, self_test) = match golden::record(new, &golden::texts(&held_out)?, &job.model) {
        Ok(sentences) => {
            let self_test = golden::repeats(new, &sentences, &job.model)?;
            (sentences, self_test)
        }
        // A score that is no number, say: it is the model's fault.
        Err(Error::Tag(error)) => (Vec::new(), Err(error.to_string())),
        Err(error) => return Err(error),
    };
    let gate = gate::decide(&plan.recipe.gate, &report, &Checks { speed_ratio, self_test });
    let decision = Decision {
        trained_because: plan.why.clone(),
        champion: champion.map(|champion| champion.digest.clone()),
        documents: report.documents,
        f1: report.metrics.strict_micro_f1_interval,
        difference: report.champion.as_ref().map(|champion| champion.difference),
        speed_ratio,
        alias: if gate.is_passed() { job.alias.clone() } else { REJECTED.to_owned() },
        gate,
    };

    let reports = work.current().join("report");
    remove(&reports)?;
    report.write(&reports, &candidate.epochs)?;
    copy(&reports, new, |name| name != METRICS)?;
    write_whole(&new.join(METRICS), &metrics(new, &report)?)?;
    litflow::registry::golden::write(&new.join(GOLDEN), &sentences)?;
    let snapshot = Snapshot::open(&work.snapshot())?;
    documents::write(new, &documents::digests(&snapshot)?, |id| hold_out.names(id))?;
    write_whole(&new.join(crate::snapshot::SUMMARY), &json(&snapshot.summary))?;
    write_whole(&new.join(DECISION), &json(&decision))?;
    let trained = Manifest::parse(&read_file(&new.join(MANIFEST))?, &new.join(MANIFEST))?;
    let manifest = Manifest { data: Some(snapshot.summary.digest.clone()), offsets: snapshot.ends(), ..trained };
    manifest.write(new)?;
    let sealed = work.current().join("candidate");
    move_whole(new, &sealed)
}

/// The documents of the snapshot that are not held out, and those that are, by the types that either model knows: what a
/// model does
/// not know is missed.
fn read(
    work: &Work,
    model: &Path,
    champion: Option<&Champion>,
    hold_out: &HoldOut,
) -> Result<(Dataset, Dataset), Error> {
    let recipe = Recipe::read(&model.join(RECIPE))?;
    let mut types = Vec::new();
    for folder in [Some(model), champion.map(|champion| champion.folder.as_path())].into_iter().flatten() {
        for name in directory::read_config(folder)?.label_set(folder)?.entity_types() {
            if !types.contains(name) {
                types.push(name.clone());
            }
        }
    }
    let options = DataOptions { types, ..recipe.data };
    let mut data = Dataset::read(&[work.snapshot()], &options)?;
    let held_out = data.hold_out(hold_out)?;
    Ok((data, held_out))
}

/// What training wrote about the model, and the scores on the hold-out.
fn metrics(model: &Path, report: &Report) -> Result<Vec<u8>, Error> {
    let file = model.join(METRICS);
    let mut metrics: serde_json::Value = serde_json::from_slice(&read_file(&file)?)
        .map_err(|error| Error::Job(format!("{}: {error}", file.display())))?;
    metrics["hold_out"] = serde_json::json!({
        "documents": report.documents,
        "strict": report.metrics.strict,
        "strict_micro_f1_interval": report.metrics.strict_micro_f1_interval,
        "expected_calibration_error": report.metrics.calibration.expected_error,
    });
    Ok(json(&metrics))
}

fn json(value: &impl Serialize) -> Vec<u8> {
    let mut json = serde_json::to_vec_pretty(value).expect("it is plain data");
    json.push(b'\n');
    json
}

fn read_file(file: &Path) -> Result<Vec<u8>, Error> {
    fs::read(file).map_err(|error| Error::io(file, error))
}

fn copy(from: &Path, to: &Path, is_wanted: impl Fn(&str) -> bool) -> Result<(), Error> {
    for entry in fs::read_dir(from).map_err(|error| Error::io(from, error))? {
        let file = entry.map_err(|error| Error::io(from, error))?.path();
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if file.is_file() && is_wanted(&name) {
            let copy = to.join(&name);
            fs::copy(&file, &copy).map_err(|error| Error::io(&copy, error))?;
        }
    }
    Ok(())
}
