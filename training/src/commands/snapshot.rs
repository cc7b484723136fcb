//! `litflow-train snapshot`: the state of the topic `labels` as files.

use super::{Kafka, Teller, counted, print};
use litflow_training::labels::{Overlap, Scheme};
use litflow_training::snapshot::Snapshot;
use std::path::PathBuf;
use std::process::ExitCode;

const HELP: &str = "\
The folder can be given to `fit --data`. quarantine.jsonl in it lists what was left out.

Examples:
  litflow-train snapshot --out runs/2026-11/snapshot --bootstrap-servers broker-1:9092
  litflow-train snapshot --out again --at runs/2026-11/snapshot";

/// Takes a snapshot of the topic `labels`.
#[derive(clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// The folder, new or empty
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Take it at the end offsets of this snapshot; its digest is compared
    #[arg(long, value_name = "DIR")]
    at: Option<PathBuf>,
    /// What becomes of spans that overlap
    #[arg(long, value_name = "POLICY", default_value = "longest")]
    overlap: Overlap,
    #[command(flatten)]
    kafka: Kafka,
}

impl Args {
    /// Takes it and tells its digest.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let kafka = self.kafka.load()?.kafka;
        let before = self.at.as_deref().map(Snapshot::open).transpose()?;
        let ends = before.as_ref().map(Snapshot::ends);
        let scheme = Scheme { overlap: self.overlap, ..Scheme::default() };
        let mut teller = Teller::new(None)?;
        let snapshot = Snapshot::take(&kafka, ends.as_ref(), &scheme, &self.out, |entry| teller.tell(entry))?;
        let summary = &snapshot.summary;
        print(&summary.digest)?;
        eprintln!(
            "{} of {} in {}",
            counted(summary.documents, "document"),
            counted(summary.records, "record"),
            self.out.display()
        );
        if let Some(before) = before.filter(|before| before.summary.digest != summary.digest) {
            anyhow::bail!(
                "the topic no longer has what {} was taken from: its digest was {}",
                self.at.as_deref().unwrap_or(&self.out).display(),
                before.summary.digest
            );
        }
        teller.finish(&summary.left_out)
    }
}
