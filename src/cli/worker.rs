//! `litflow worker`: the stream, until a signal or a fatal error ends it.

use super::exit::Exit;
use super::{flags, input, model, signals};
use indicatif::HumanCount;
use litflow::config::{Config, Flag};
use litflow::serve::{self, Health};
use litflow::telemetry;
use litflow::worker::{Status, Stop, Summary, Worker};
use serde_json::json;
use std::sync::{Arc, OnceLock};
use tokio::sync::watch;
use tokio::task::spawn_blocking;

/// Tag the articles topic: entities and annotations out, exactly once
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  litflow worker --bootstrap-servers broker-1:9092 --listen 0.0.0.0:9464
  litflow worker --config /etc/litflow.toml --log-format json
  litflow worker --until-end --json

SIGTERM and Ctrl-C drain and commit what is on its way and end with 0; a second one ends at once.")]
pub struct Args {
    /// End when everything that is on the topic has been worked up
    #[arg(long)]
    until_end: bool,
    /// Print what was done as JSON on stdout when it ends
    #[arg(long)]
    json: bool,
    /// Address of /metrics, /healthz and /readyz [config: http.listen]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// The consumer group [config: kafka.group_id]
    #[arg(long, value_name = "GROUP", help_heading = "Kafka")]
    group_id: Option<String>,
    #[command(flatten)]
    kafka: flags::Kafka,
    #[command(flatten)]
    model: flags::Model,
}

/// The status of the worker, once there is one.
type Started = Arc<OnceLock<Arc<Status>>>;

impl Args {
    pub fn flags(&self) -> Vec<Flag> {
        let own = flags::collect([
            ("--listen", "http.listen", &self.listen),
            ("--group-id", "kafka.group_id", &self.group_id),
        ]);
        [own, self.kafka.flags(), self.model.flags()].concat()
    }

    pub async fn run(&self, config: &Config) -> anyhow::Result<Exit> {
        let (stop, stopped) = watch::channel(if self.until_end { Stop::AtEnd } else { Stop::Never });
        signals::stop_on_signals(stop, "draining: what is on its way is finished and committed")?;
        let started = Started::default();
        let (served, end_serving) = serve(config, started.clone()).await?;

        let configuration = config.clone();
        let engine = spawn_blocking(move || model::start(&configuration)).await??;
        let runtime = tokio::runtime::Handle::current();
        let worker = Worker::build(&config.worker, &config.kafka, &config.articles, Arc::new(engine), runtime)?;
        started.get_or_init(|| worker.status());
        let result = spawn_blocking(move || worker.run(stopped)).await?;

        drop(end_serving);
        if let Some(served) = served {
            served.await??;
        }
        self.tell(&result?)?;
        Ok(Exit::Done)
    }

    fn tell(&self, summary: &Summary) -> anyhow::Result<()> {
        if self.json {
            anstream::println!("{}", serde_json::to_string(summary)?);
        }
        anstream::eprintln!(
            "{} worked up in {:.1} s: {} tagged, {} deleted, {}",
            input::counted(summary.articles, "article", "articles"),
            summary.seconds,
            HumanCount(summary.tagged),
            HumanCount(summary.tombstones),
            input::counted(summary.dead_letters, "dead letter", "dead letters"),
        );
        Ok(())
    }
}

type Served = tokio::task::JoinHandle<std::io::Result<()>>;

/// Starts the listener where one is configured, before anything else can fail; it ends when the sender
/// is dropped.
async fn serve(config: &Config, started: Started) -> anyhow::Result<(Option<Served>, watch::Sender<()>)> {
    let (end, mut ended) = watch::channel(());
    let Some(address) = config.http.listen else { return Ok((None, end)) };
    let metrics = telemetry::init_metrics()?;
    let listener = serve::bind(address).await?;
    tracing::info!(address = %listener.local_addr()?, "serving /metrics, /healthz and /readyz");
    let health = Arc::new(move || health(&started));
    let stop = async move { while ended.changed().await.is_ok() {} };
    Ok((Some(tokio::spawn(serve::run(listener, metrics, health, stop))), end))
}

fn health(started: &Started) -> Health {
    match started.get() {
        None => Health { live: true, ready: false, details: json!({"state": "loading_model"}) },
        Some(status) => Health { live: status.live(), ready: status.ready(), details: json!(status.snapshot()) },
    }
}
