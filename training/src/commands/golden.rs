//! `litflow-train golden`: what a trained model says of some sentences, so that whoever loads it can tell that it is
//! the same.

use super::{LEFT_OUT, counted, print};
use litflow::article::{self, Articles, Op, parse_raw};
use litflow_training::golden::{self, Choice};
use std::path::PathBuf;
use std::process::ExitCode;

const HELP: &str = "\
The sentences become a part of the model: take articles whose licence lets you pass them on. The manifest names them, \
so the model's digest changes: do this before `litflow models import`. `run` does it by itself.

Examples:
  litflow-train golden --model my-model articles.jsonl
  litflow models verify my-model";

/// Adds golden sentences to a trained model: workers refuse it where it does not repeat them.
#[derive(clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// The model directory, without golden sentences
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Files, directories or - for stdin, as `litflow tag` reads them; some hundred sentences are enough
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
}

impl Args {
    /// Reads, tags and writes.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let options = article::Options::default();
        let (mut choice, mut left_out) = (Choice::default(), 0);
        for article in Articles::new(&self.paths, None, &options) {
            match article.and_then(|event| parse_raw(event, &options)) {
                Ok(event) if event.op == Op::Upsert => {
                    if !choice.take(&event.into_document()) {
                        break;
                    }
                }
                Ok(_) => {}
                Err(error) => {
                    eprintln!("left out: {error}");
                    left_out += 1;
                }
            }
        }
        let report = golden::add(&self.model, &choice)?;
        eprintln!(
            "{} with {}; as served here {} missing, {} new, scores within {:.4}",
            counted(report.sentences as u64, "sentence"),
            counted(report.mentions as u64, "mention"),
            report.missing.len(),
            report.unexpected.len(),
            report.largest_shift
        );
        print(self.model.display())?;
        Ok(if left_out == 0 { ExitCode::SUCCESS } else { ExitCode::from(LEFT_OUT) })
    }
}
