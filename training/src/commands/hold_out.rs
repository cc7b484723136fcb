//! `litflow-train hold-out`: chooses, once, the documents that no training may ever see.

use super::{counted, print, told_left_out};
use litflow_training::Error;
use litflow_training::dataset::Dataset;
use litflow_training::recipe::Recipe;
use litflow_training::split;
use std::path::PathBuf;
use std::process::ExitCode;

const HELP: &str = "\
The list holds the share of each type, rare ones first. It is written once and never again: keep it, and give it to \
every `fit --hold-out` and `run --hold-out`, so that versions can be compared over the months.

Examples:
  litflow-train hold-out --data runs/2026-11/snapshot --share 0.1 --out hold-out.txt";

/// Chooses the documents that no training may ever see.
#[derive(clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// Snapshots, or files in any format of labels
    #[arg(long, required = true, num_args = 1.., value_name = "PATH")]
    data: Vec<PathBuf>,
    /// The share, 0 to 1
    #[arg(long, value_name = "SHARE", default_value = "0.1")]
    share: f64,
    /// How the data is read (TOML)
    #[arg(long, value_name = "FILE")]
    recipe: Option<PathBuf>,
    /// The list, new
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

impl Args {
    /// Chooses and writes.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        if !(self.share > 0.0 && self.share < 1.0) {
            return Err(Error::Usage(format!("--share {} must lie between 0 and 1", self.share)).into());
        }
        let recipe = self.recipe.as_deref().map_or_else(|| Ok(Recipe::default()), Recipe::read)?;
        let mut data = Dataset::read(&self.data, &recipe.data)?;
        let all = data.summary()?;
        let ids = split::choose(&data, self.share)?;
        let header = format!(
            "held out of training for ever: {} of {}, of {}",
            counted(ids.len() as u64, "document"),
            all.documents,
            all.digest
        );
        split::write(&self.out, &ids, &header)?;
        let held = data.hold_out(&split::HoldOut::Frozen(ids.into_iter().collect()))?.summary()?;
        for ((name, held), all) in data.types.iter().zip(held.mentions).zip(all.mentions) {
            eprintln!("{name}: {held} of {all} mentions held out");
        }
        print(self.out.display())?;
        Ok(told_left_out(&data.left_out))
    }
}
