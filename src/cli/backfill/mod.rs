//! `litflow backfill`: what other versions have tagged is tagged again, behind the live stream.

mod show;

use super::exit::Exit;
use super::{flags, input, model, priority, progress, signals};
use litflow::article::{Articles, Format};
use litflow::backfill::{Backfill, Options, Source, YieldTo};
use litflow::config::{Config, Flag};
use litflow::worker::{Outputs, Stop};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::spawn_blocking;

/// Tag again what other model versions have tagged, behind the live stream
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  LITFLOW_MODEL__NAME=biored-minilm litflow backfill
  litflow backfill --model models/biored-minilm --dry-run
  litflow backfill pubmed26n*.xml.gz --json > report.json

Articles come from the topic articles; with paths, from files, for what the topic has lost to its retention.
A run that was ended, by whatever means, is gone on with by the next one.
Ends with 3 where articles were left as they are; the report says how many and why.")]
pub struct Args {
    /// Files or directories to take the texts from, or - for stdin [default: the topic articles]
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// The files' format, where neither name nor content tells
    #[arg(long, value_name = "FORMAT", value_parser = input::format_parser())]
    from: Option<Format>,
    /// Say what is to be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    /// The consumer group that goes first [default: kafka.group_id]
    #[arg(long, value_name = "GROUP")]
    yield_to: Option<String>,
    /// Wait while that group is more than so many articles behind
    #[arg(long, value_name = "ARTICLES", default_value_t = 1_000)]
    yield_above: u64,
    #[command(flatten)]
    kafka: flags::Kafka,
    #[command(flatten)]
    model: flags::Model,
}

impl Args {
    pub fn flags(&self) -> Vec<Flag> {
        [self.kafka.flags(), self.model.flags()].concat()
    }

    pub async fn run(&self, config: &Config) -> anyhow::Result<Exit> {
        input::check(&self.paths)?;
        let (stop, stopped) = watch::channel(Stop::Never);
        let signal = signals::stop_on_signals(stop, "ending: what is tagged already is committed")?;
        if let Err(error) = priority::lower() {
            tracing::warn!("the priority of this process cannot be lowered: {error}");
        }
        let config = self.with_one_model(config);
        let group = self.yield_to.clone().unwrap_or_else(|| config.kafka.group_id.clone());
        let options = Options {
            kafka: config.kafka.clone(),
            worker: config.worker.clone(),
            articles: config.articles.clone(),
            claims: config.claims.clone(),
            yield_to: Some(YieldTo { group: group.clone(), above: self.yield_above }),
            dry_run: self.dry_run,
        };
        let (source, read) = if self.paths.is_empty() {
            (Source::Topic, None)
        } else {
            let articles = Articles::new(&self.paths, self.from, &config.articles);
            let read = articles.progress();
            (Source::Files(Box::new(articles)), Some(read))
        };
        let mut display = show::Display::new(group, read);
        let handle = Handle::current();
        let report = spawn_blocking(move || {
            let outputs = Arc::new(Outputs::new(&config.kafka)?);
            // The version stays as it is until the end: nobody asks the chooser for another.
            let (tagger, _chooser) = model::serve(&config, outputs, handle.clone(), &stopped)?;
            let backfill = Backfill::build(options, Arc::new(tagger), handle)?;
            let report = backfill.run(source, &stopped, &mut |event| display.tell(event));
            display.finish(report.is_err());
            anyhow::Ok(report?)
        });
        let report = report.await??;
        progress::clear();
        show::report(&report, self.json)?;
        Ok(match signal.get() {
            Some(&number) if report.interrupted => Exit::Signal(number),
            _ if report.left_out() > 0 => Exit::LeftOut,
            _ => Exit::Done,
        })
    }

    /// With `--model` it is that directory; else the champion by `model.name`, and then no other model stands in for
    /// it, because everything would be tagged by that; else the directory at `model.path`.
    fn with_one_model(&self, config: &Config) -> Config {
        let mut config = config.clone();
        if self.model.flags().iter().any(|flag| flag.key == "model.path") {
            config.model.name = None;
        } else if config.model.name.is_some() {
            config.model.path = None;
        }
        config
    }
}
