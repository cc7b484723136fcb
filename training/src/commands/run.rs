//! `litflow-train run`: the monthly job.

use super::{Kafka, Signals, print};
use litflow::model;
use litflow::registry::aliases::{CHAMPION, REJECTED};
use litflow_training::Error;
use litflow_training::recipe::Recipe;
use litflow_training::run::{Conditions, Job, Outcome, run};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// There was no reason to train.
const NOTHING_NEW: u8 = 10;
/// The gate refused the version.
const NOT_BETTER: u8 = 11;

const HELP: &str = "\
Takes a snapshot of the topic labels, trains where there is a reason to, measures the version beside the champion on \
documents that no training ever saw, and publishes it: as the champion where the gate lets it through, else as \
rejected.
Killed at any moment, the same command goes on; what a run was begun with counts until it has ended.

Exit codes: 0 published; 10 nothing new; 11 not better; 1 failed; 2 wrong usage or configuration; 4 the broker is in a \
fatal state; 130, 143 ended by Ctrl-C, by SIGTERM.

Examples:
  litflow-train run --work runs/genes --encoder encoders/minilm-l6 --recipe genes.toml
  litflow-train run --work runs/genes --encoder encoders/minilm-l6 --recipe genes.toml \\
      --if-new-labels 200 --if-drift-over 1.0 --json
  litflow-train run --work runs/genes --encoder encoders/minilm-l6 --recipe genes.toml \\
      --always --alias candidate";

/// The monthly job: trains on the topic labels, and publishes what is not worse.
#[derive(clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// The work folder of this model, the same every month: what a run goes on from, and the ended runs
    #[arg(long, value_name = "DIR")]
    work: PathBuf,
    /// The pretrained encoder, in Hugging Face's layout
    #[arg(long, value_name = "DIR")]
    encoder: PathBuf,
    /// The model's name, how to train, the gate (TOML)
    #[arg(long, value_name = "FILE")]
    recipe: PathBuf,
    /// Start from the champion's weights, where there is a champion
    #[arg(long)]
    warm_start: bool,
    /// Documents that no training ever sees [default: hold-out.txt in --work, chosen by the first run]
    #[arg(long, value_name = "FILE")]
    hold_out: Option<PathBuf>,
    /// The share of the documents that the first run chooses
    #[arg(long, value_name = "SHARE", default_value_t = 0.1)]
    hold_out_share: f64,
    /// Train whatever there is
    #[arg(long)]
    always: bool,
    /// Train where so many documents are new, labelled anew or withdrawn [default: 1, where no condition is given]
    #[arg(long, value_name = "N")]
    if_new_labels: Option<u64>,
    /// Train where the champion's F1 on new documents is so many points lower than on the hold-out
    #[arg(long, value_name = "POINTS")]
    if_drift_over: Option<f64>,
    /// What a version becomes that the gate lets through: champion, or candidate, to be compared by workers first
    #[arg(long, default_value = CHAMPION)]
    alias: String,
    /// Seed, in the recipe's stead
    #[arg(long)]
    seed: Option<u32>,
    /// The longest time between two checkpoints, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    checkpoint_seconds: u64,
    /// `auto`, `cpu` or `cuda:N` [config: model.device]
    #[arg(long)]
    device: Option<model::device::DeviceChoice>,
    /// The folder or URI of the registry's store [config: registry.store]
    #[arg(long, value_name = "STORE")]
    store: Option<String>,
    /// Print the outcome as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    kafka: Kafka,
}

impl Args {
    /// Does the job and tells its outcome.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let signals = Signals::listen()?;
        let outcome = run(&self.job()?, &signals.asked)?;
        if self.json {
            print(serde_json::to_string(&outcome)?)?;
        }
        let (line, code) = match &outcome {
            Outcome::Published { model, alias, why, .. } => {
                (format!("published: {model} is the {alias}: {why}"), ExitCode::SUCCESS)
            }
            Outcome::NotBetter { model, why, .. } => {
                (format!("not better: {model} is rejected: {why}"), ExitCode::from(NOT_BETTER))
            }
            Outcome::NothingNew { why } => (format!("nothing new: {why}"), ExitCode::from(NOTHING_NEW)),
            Outcome::Interrupted => ("interrupted; the same command goes on".to_owned(), signals.exit_code()),
        };
        if !self.json {
            print(line)?;
            if let Outcome::Published { report, .. } | Outcome::NotBetter { report, .. } = &outcome {
                print(report.display())?;
            }
        }
        Ok(code)
    }

    fn job(&self) -> Result<Job, Error> {
        if !(self.hold_out_share > 0.0 && self.hold_out_share < 1.0) {
            return Err(Error::Usage(format!("--hold-out-share {} must lie between 0 and 1", self.hold_out_share)));
        }
        if self.if_drift_over.is_some_and(|points| !points.is_finite()) {
            return Err(Error::Usage("--if-drift-over must be a number of points".into()));
        }
        if self.alias == REJECTED {
            let reason = "that is what a version becomes that the gate does not let through";
            return Err(Error::Usage(format!("--alias {REJECTED}: {reason}; name another alias")));
        }
        let mut config = self.kafka.load()?;
        if let Some(store) = &self.store {
            config.registry.store.clone_from(store);
        }
        let mut recipe = Recipe::read(&self.recipe)?;
        recipe.seed = self.seed.map_or(recipe.seed, u64::from);
        let mut conditions =
            Conditions { always: self.always, new_labels: self.if_new_labels, drift_over: self.if_drift_over };
        if conditions == Conditions::default() {
            conditions.new_labels = Some(1);
        }
        let device = self.device.unwrap_or(config.model.device);
        Ok(Job {
            work: self.work.clone(),
            hold_out: self.hold_out.clone(),
            hold_out_share: self.hold_out_share,
            encoder: self.encoder.clone(),
            warm_start: self.warm_start,
            recipe,
            conditions,
            alias: self.alias.clone(),
            checkpoint_every: Duration::from_secs(self.checkpoint_seconds),
            model: model::Options { device, ..config.model.options() },
            kafka: config.kafka,
            registry: config.registry,
            mlflow: config.mlflow,
        })
    }
}
