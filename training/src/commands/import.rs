//! `litflow-train import`: files of labelled documents onto the topic `labels`.

use super::{Kafka, Teller, counted, print};
use indicatif::{ProgressBar, ProgressStyle};
use litflow::ErrorClass;
use litflow::bus::admin::Admin;
use litflow::bus::producer::Outgoing;
use litflow::bus::publisher::Publisher;
use litflow::bus::{self, topics};
use litflow_training::Error;
use litflow_training::dataset::DataOptions;
use litflow_training::labels::{
    Cause, Corpus, Discontinuous, Entry, Format, Overlap, Quarantine, ReadOptions, Scheme, Tally,
};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const HELP: &str = "\
A document in several files is published once, with the types of all of them; of a type that two files annotate the \
first has the say. A document that is on the topic already is replaced: import together what belongs together.
What is wrong is left out, told on stderr and counted: then the exit code is 3.

Examples:
  litflow-train import corpora/*.PubTator --bootstrap-servers broker-1:9092
  litflow-train import CRAFT/concept-annotation --format knowtator --discontinuous first-fragment
  litflow-train import annotated.tsv --types GP,DS,OG,CD --dry-run --quarantine left-out.jsonl
  litflow-train import --tombstone pmid:12345 --tombstone pmid:67890";

/// Publishes labelled documents to the topic `labels`.
#[derive(clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// Files, directories, or - for stdin; .gz is read as it is
    #[arg(value_name = "PATH", required_unless_present = "tombstone")]
    paths: Vec<PathBuf>,
    /// The files' format, where their names and contents do not tell
    #[arg(long, value_name = "FORMAT")]
    format: Option<Format>,
    /// The types that all documents were searched for [default: those that occur in a document's file]
    #[arg(long, value_name = "TYPE", value_delimiter = ',')]
    types: Option<Vec<String>>,
    /// What each of the files' types stands for: TOML, lines of from = "to"
    #[arg(long, value_name = "FILE")]
    type_map: Option<PathBuf>,
    /// What becomes of spans that overlap
    #[arg(long, value_name = "POLICY", default_value = "longest")]
    overlap: Overlap,
    /// What becomes of mentions in several fragments
    #[arg(long, value_name = "POLICY", default_value = "fill-gap")]
    discontinuous: Discontinuous,
    /// Where the texts lie that Knowtator's files speak of
    #[arg(long, value_name = "DIR")]
    texts: Option<PathBuf>,
    /// List what is left out in this file, JSON lines
    #[arg(long, value_name = "FILE")]
    quarantine: Option<PathBuf>,
    /// Withdraw this document from the topic; for several it is repeated
    #[arg(long, value_name = "ID", value_parser = document_id)]
    tombstone: Vec<String>,
    /// Read and report, but publish nothing
    #[arg(long)]
    dry_run: bool,
    /// Print the counts as JSON on stdout
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    kafka: Kafka,
}

impl Args {
    /// Reads, publishes, reports.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        for path in self.paths.iter().filter(|path| *path != Path::new("-")) {
            path.metadata().map_err(|error| Error::Usage(format!("{}: {error}", path.display())))?;
        }
        let config = self.kafka.load()?;
        let mut teller = Teller::new(self.quarantine.as_deref())?;
        let mut list = |entry: &Entry| teller.tell(entry);
        let mut quarantine = Quarantine::listing(&mut list);
        let corpus = self.read(&mut quarantine)?;
        if corpus.is_empty() && self.tombstone.is_empty() {
            return Err(Error::Usage("there is no labelled document in what was given".into()).into());
        }
        let (tally, published) = if self.dry_run {
            (corpus.finish(&mut quarantine, |_, _| Ok::<_, Error>(()))?, 0)
        } else {
            self.publish(&config.kafka, corpus, &mut quarantine)?
        };
        let left_out = quarantine.counts().clone();
        if self.json {
            print(serde_json::json!({"tally": tally, "published": published, "left_out": left_out}))?;
        }
        self.report(&tally, published, &config.kafka.bootstrap_servers);
        teller.finish(&left_out)
    }

    fn read(&self, quarantine: &mut Quarantine) -> Result<Corpus, Error> {
        let mut options = DataOptions { type_map: self.type_map.clone(), ..DataOptions::default() };
        options.read_type_map(Path::new(""))?;
        let scheme = Scheme {
            types: self.types.clone(),
            rename: options.rename,
            overlap: self.overlap,
            discontinuous: self.discontinuous,
            ..Scheme::default()
        };
        let read_options = ReadOptions { texts: self.texts.clone(), ..ReadOptions::default() };
        let mut corpus = Corpus::new(scheme);
        let bar = ProgressBar::new(self.paths.len() as u64).with_style(style("files"));
        for path in &self.paths {
            corpus.add(path, self.format, &read_options, quarantine)?;
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(corpus)
    }

    /// Publishes documents and tombstones; also returns how many records. One that the topic cannot take is
    /// quarantined.
    fn publish(
        &self,
        kafka: &bus::Options,
        corpus: Corpus,
        quarantine: &mut Quarantine,
    ) -> anyhow::Result<(Tally, u64)> {
        let mut topic = topics::all(&[])?;
        topic.retain(|topic| topic.name == topics::LABELS);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let limits = runtime.block_on(Admin::new(kafka)?.record_limits(&topic));
        let mut publisher = Publisher::with_limits(kafka, limits)?;
        let bar = ProgressBar::new(corpus.len() as u64).with_style(style("documents"));
        let tally = corpus.finish(quarantine, |document, quarantine| {
            match publisher.publish(topics::LABELS, &document.document_id, &document) {
                Ok(()) => {}
                Err(error) if error.class() == ErrorClass::Poison => quarantine.add(Entry {
                    cause: Cause::Unpublishable,
                    place: document.annotator,
                    document_id: Some(document.document_id),
                    reason: error.to_string(),
                }),
                Err(error) => return Err(Error::from(error)),
            }
            bar.inc(1);
            Ok(())
        })?;
        for id in &self.tombstone {
            let key = Some(id.as_bytes().to_vec());
            let record = Outgoing { topic: topics::LABELS.into(), key, ..Outgoing::default() };
            publisher.send(&record).map_err(Error::from)?;
        }
        let published = publisher.finish().map_err(Error::from)?;
        bar.finish_and_clear();
        Ok((tally, published.records))
    }

    fn report(&self, tally: &Tally, published: u64, servers: &str) {
        let Tally { read, copies, repeated_spans, discontinuous, documents, spans } = *tally;
        eprintln!(
            "{} and {} of {} read ({} of a document already there, {} repeated, {} in fragments)",
            counted(documents, "document"),
            counted(spans, "span"),
            counted(read, "record"),
            counted(copies, "copy").replace("copys", "copies"),
            counted(repeated_spans, "span"),
            counted(discontinuous, "mention"),
        );
        if self.dry_run {
            eprintln!("nothing was published (--dry-run)");
        } else {
            let withdrawn = self.tombstone.len() as u64;
            eprintln!("{} published to {servers}, {withdrawn} of them withdrawals", counted(published, "record"));
        }
    }
}

/// A document's id as the topic has it: nothing else can be withdrawn.
fn document_id(text: &str) -> Result<String, String> {
    if Path::new(text).exists() {
        return Err("it is a file: name each document by a --tombstone of its own".into());
    }
    match text.split_once(':') {
        Some((prefix, local)) if !prefix.is_empty() && !local.is_empty() => Ok(text.to_owned()),
        _ => Err("it is no document id, PREFIX:LOCAL, such as pmid:12345".into()),
    }
}

fn style(unit: &str) -> ProgressStyle {
    let template = format!("{{bar:30.cyan/dim}} {{pos}}/{{len}} {unit}  {{eta}} left");
    ProgressStyle::with_template(&template).expect("the template is constant and valid").progress_chars("━╸─")
}
