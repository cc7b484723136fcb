//! `litflow demo`: the whole system in one process, with nothing to set up.

mod show;

use super::exit::Exit;
use super::publish::publish;
use super::{flags, input, model, progress, signals};
use indicatif::HumanCount;
use litflow::article::{Articles, Format};
use litflow::bus::admin::Admin;
use litflow::bus::broker::{Broker, Choice, LocalOptions};
use litflow::bus::publisher::{Published, Publisher};
use litflow::bus::topics::Topic;
use litflow::bus::{self, topics};
use litflow::config::{Config, Flag};
use litflow::tagger::{Engine, Tag};
use litflow::worker::{Stop, Summary, Worker};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::spawn_blocking;

/// Run the whole system on a few articles: broker, topics, ingest, worker
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  litflow demo
  litflow demo --keep pubmed26n0001.xml.gz
  litflow demo --broker embedded --json

Without PATH it takes the 34 articles that are shipped with the program (demo/ in the repository).

Brokers:
  auto       local, or else embedded
  local      a real Apache Kafka of its own, started from the jars that `make setup` fetches; exactly once
  embedded   librdkafka's mock cluster in this process; at least once, a few MiB, gone at the end
  HOST:PORT  a cluster that is running, without any record of litflow's; topics that are missing are created

On a cluster where anything was ever written to litflow's topics the demo ends with 2 and changes nothing: it
would tag what others have published, into topics that others read. For such a cluster there are `litflow
ingest` and `litflow worker`. Each run has a consumer group and a transactional id of its own, litflow-demo-….")]
pub struct Args {
    /// Files, directories or - for stdin, instead of the shipped articles
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// The input's format, where neither its name nor its content tells
    #[arg(long, value_name = "FORMAT", value_parser = input::format_parser())]
    from: Option<Format>,
    /// auto, local, embedded or HOST:PORT
    #[arg(long, value_name = "BROKER", default_value = "auto", value_parser = |text: &str| text.parse::<Choice>())]
    broker: Choice,
    /// Go on running when everything is done, for other clients to connect to
    #[arg(long)]
    keep: bool,
    /// Print the summary as JSON, and no entities
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    model: flags::Model,
}

/// The articles that are shipped, as they lie in `demo/`.
const SHIPPED: [(&str, &str); 2] = [
    ("articles.jsonl", include_str!("../../../demo/articles.jsonl")),
    ("pubmed.xml", include_str!("../../../demo/pubmed.xml")),
];

impl Args {
    pub fn flags(&self) -> Vec<Flag> {
        self.model.flags()
    }

    pub async fn run(&self, config: &Config) -> anyhow::Result<Exit> {
        input::check(&self.paths)?;
        let (stop, stopped) = watch::channel(Stop::Never);
        signals::stop_on_signals(stop.clone(), "ending")?;

        let (broker, engine) = self.start(config).await?;
        let engine: Arc<dyn Tag> = Arc::new(engine);
        let kafka = of_its_own(broker.options(&config.kafka));
        let wanted = topics::all(&engine.entity_types())?;
        if let Broker::External(_) = &broker {
            refuse_used(&kafka, &wanted)?;
        }
        broker.create_topics(&wanted, &kafka).await?;
        step("topics", &format!("{} topics from {} to {}", wanted.len(), topics::ARTICLES, topics::DEAD_LETTERS));

        let viewer = match self.json {
            true => None,
            false => Some(show::Viewer::start(&kafka, &engine.entity_types())?),
        };
        let left_out = self.ingest(config, &kafka, &broker)?;
        stop.send_if_modified(|stop| {
            let undisturbed = *stop == Stop::Never;
            if undisturbed {
                *stop = Stop::AtEnd;
            }
            undisturbed
        });
        let summary = work(config, &kafka, &broker, &engine, stopped.clone()).await?;
        if let Some(viewer) = viewer {
            viewer.finish(&summary)?;
        }
        self.tell(&summary, &broker, engine.as_ref(), left_out)?;
        if self.keep && *stopped.borrow() != Stop::Now {
            show::how_to_connect(broker.bootstrap_servers());
            stop.send_if_modified(|stop| std::mem::replace(stop, Stop::Never) == Stop::AtEnd);
            work(config, &kafka, &broker, &engine, stopped).await?;
        }
        Ok(if left_out == 0 { Exit::Done } else { Exit::LeftOut })
    }

    /// The broker and the model, both at a time.
    async fn start(&self, config: &Config) -> anyhow::Result<(Broker, Engine)> {
        let waiting = progress::spinner("starting the broker and loading the model");
        let started = Instant::now();
        let choice = self.broker.clone();
        let broker = spawn_blocking(move || (Broker::start(&choice, &LocalOptions::default()), started.elapsed()));
        let config = config.clone();
        let engine = spawn_blocking(move || (model::start(&config), started.elapsed()));
        let ((broker, broker_took), (engine, engine_took)) = tokio::try_join!(broker, engine)?;
        waiting.finish_and_clear();
        let (broker, engine) = (broker?, engine?);
        step("broker", &format!("{}, {:.1} s", broker.describe(), broker_took.as_secs_f32()));
        let model = engine.model();
        step("model", &format!("{} {}, {:.1} s", model.name, model.version, engine_took.as_secs_f32()));
        Ok((broker, engine))
    }

    /// Publishes the articles; returns how many records were left out.
    fn ingest(&self, config: &Config, kafka: &bus::Options, broker: &Broker) -> anyhow::Result<u64> {
        let shipped = tempfile::tempdir()?;
        let paths = if self.paths.is_empty() {
            for (name, text) in SHIPPED {
                std::fs::write(shipped.path().join(name), text)?;
            }
            vec![shipped.path().to_owned()]
        } else {
            self.paths.clone()
        };
        let publisher = Publisher::new(kafka, broker.budget())?;
        let articles = Articles::new(&paths, self.from, &config.articles);
        let (Published { records, .. }, left_out) = publish(articles, publisher, Ok, |_| ())?;
        step("articles", &format!("{} published", HumanCount(records)));
        Ok(left_out)
    }

    fn tell(&self, summary: &Summary, broker: &Broker, engine: &dyn Tag, left_out: u64) -> anyhow::Result<()> {
        if self.json {
            let mut json = serde_json::to_value(summary)?;
            json["tokens_per_second"] = show::tokens_per_second(summary).into();
            json["left_out"] = left_out.into();
            json["broker"] = broker.describe().into();
            json["model"] = serde_json::to_value(&*engine.model())?;
            anstream::println!("{json:#}");
        } else {
            show::summary(summary, broker)?;
        }
        input::tell_count_left_out(left_out);
        Ok(())
    }
}

/// The options with a group and a transactional id that no other run has, on any host: in a group of others
/// the demo would take their articles and wait for its own.
fn of_its_own(kafka: bus::Options) -> bus::Options {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let name = format!("litflow-demo-{}-{}", since_epoch.as_nanos(), std::process::id());
    bus::Options { group_id: name.clone(), transactional_id: Some(name), ..kafka }
}

/// The cluster is not the demo's to play with.
#[derive(Debug, thiserror::Error)]
#[error(
    "{topic} at {servers} has been written to: the demo takes a broker of its own, or a cluster without any record \
     of litflow's; for this one there are `litflow ingest` and `litflow worker`"
)]
pub struct InUse {
    topic: String,
    servers: String,
}

fn refuse_used(kafka: &bus::Options, topics: &[Topic]) -> anyhow::Result<()> {
    match Admin::new(kafka)?.written_to(topics)? {
        Some(topic) => Err(InUse { topic: topic.to_owned(), servers: kafka.bootstrap_servers.clone() }.into()),
        None => Ok(()),
    }
}

/// Runs a worker until `stopped` says so.
async fn work(
    config: &Config,
    kafka: &bus::Options,
    broker: &Broker,
    engine: &Arc<dyn Tag>,
    stopped: watch::Receiver<Stop>,
) -> anyhow::Result<Summary> {
    let options = litflow::worker::Options { delivery: broker.delivery(), ..config.worker.clone() };
    let worker = Worker::build(&options, kafka, &config.articles, engine.clone(), Handle::current())?;
    Ok(spawn_blocking(move || worker.run(stopped)).await??)
}

/// One line of what is being set up.
fn step(name: &str, what: &str) {
    let style = anstyle::Style::new().dimmed();
    progress::suspended(|| anstream::eprintln!("{style}{name:>10}{style:#}  {what}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_runs_share_no_group_and_no_transactional_id() {
        let user = bus::Options { transactional_id: Some("workers-0".into()), ..bus::Options::default() };
        let (one, two) = (of_its_own(user.clone()), of_its_own(user.clone()));
        assert_ne!(one.group_id, user.group_id);
        assert_ne!(one.transactional_id, user.transactional_id);
        assert_ne!(one.group_id, two.group_id);
        assert_ne!(one.transactional_id, two.transactional_id);
    }
}
