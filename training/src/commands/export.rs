//! `litflow-train export`: the labels on the topic, or in a snapshot, as files.

use super::{Kafka, Teller, counted};
use litflow_training::Error;
use litflow_training::labels::writer::Writer;
use litflow_training::labels::{Format, LeftOut, Scheme};
use litflow_training::snapshot::Snapshot;
use std::io::{BufWriter, ErrorKind};
use std::path::PathBuf;
use std::process::ExitCode;

const HELP: &str = "\
What a format has no place for is named on stderr; jsonl, bioc-json and bioc-xml hold everything.

Examples:
  litflow-train export --to bioc-xml --out labels.xml --bootstrap-servers broker-1:9092
  litflow-train export --to brat --out brat/
  litflow-train export --to conll --snapshot runs/2026-11/snapshot | head";

/// Writes the labelled documents of the topic `labels` as files.
#[derive(clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// The format
    #[arg(long, value_name = "FORMAT")]
    to: Format,
    /// The file, or for brat and knowtator the folder, which must be new or empty [default: stdout]
    #[arg(long, value_name = "PATH")]
    out: Option<PathBuf>,
    /// A snapshot, in the topic's stead
    #[arg(long, value_name = "DIR")]
    snapshot: Option<PathBuf>,
    #[command(flatten)]
    kafka: Kafka,
}

impl Args {
    /// Takes a snapshot, unless one is given, and writes it. Where nobody reads on, as with `| head`, that is its end.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        self.export().or_else(|error| match error.downcast_ref() {
            Some(Error::Io { cause, .. }) if cause.kind() == ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
            _ => Err(error),
        })
    }

    fn export(&self) -> anyhow::Result<ExitCode> {
        let mut writer = match (&self.out, self.to) {
            (Some(folder), format) if format.needs_folder() => Writer::to_folder(self.to, folder)?,
            (Some(file), _) => Writer::to_file(self.to, file)?,
            (None, _) => Writer::to_stream(self.to, Box::new(BufWriter::new(std::io::stdout().lock())))?,
        };
        let folder = tempfile::tempdir()?;
        let mut teller = Teller::new(None)?;
        let snapshot = match &self.snapshot {
            Some(folder) => Snapshot::open(folder)?,
            None => {
                let kafka = self.kafka.load()?.kafka;
                Snapshot::take(&kafka, None, &Scheme::default(), folder.path(), |entry| teller.tell(entry))?
            }
        };
        let (mut written, mut unheld) = (0, 0);
        for document in snapshot.documents()? {
            let document = document?;
            match writer.write(&document)? {
                Ok(()) => written += 1,
                Err(reason) => {
                    unheld += 1;
                    eprintln!("left out: {}: {reason}", document.document_id);
                }
            }
        }
        let losses = writer.finish()?;
        eprintln!("{} written", counted(written, "document"));
        if !losses.is_empty() {
            eprintln!("the format does not hold: {losses}");
        }
        // Of a snapshot that is given it was told when it was taken.
        let left_out = if self.snapshot.is_some() { LeftOut::default() } else { snapshot.summary.left_out };
        let code = teller.finish(&left_out)?;
        Ok(if unheld > 0 { ExitCode::from(super::LEFT_OUT) } else { code })
    }
}
