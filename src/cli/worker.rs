//! `litflow worker`: the stream, until a signal or a fatal error ends it.

use super::beside::Observers;
use super::exit::Exit;
use super::{flags, input, model, signals};
use indicatif::HumanCount;
use litflow::claims::Claims;
use litflow::config::{Config, Flag};
use litflow::serve::{self, Health};
use litflow::telemetry;
use litflow::worker::reload::{self, Reload};
use litflow::worker::{self, Outputs, Status, Stop, Summary, Worker};
use serde_json::json;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::spawn_blocking;

/// Tag the articles topic: entities and annotations out, exactly once
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  litflow worker --bootstrap-servers broker-1:9092 --listen 0.0.0.0:9464
  litflow worker --config /etc/litflow.toml --log-format json
  litflow worker --until-end --json
  LITFLOW_MODEL__NAME=biored-minilm litflow worker

With model.name set it serves the champion that is announced on the topic models, and another one as soon as that
is announced; else the model at model.path, and that again when it changes. SIGHUP has it look at once.
SIGTERM and Ctrl-C commit what is finished within worker.drain_timeout_ms and end with 0; a second one ends at once.")]
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

/// How long the end waits for a model that is being loaded.
const LOAD_GRACE: Duration = Duration::from_secs(5);

/// The status of the worker and of its model, once there is one.
type Started = Arc<OnceLock<(Arc<Status>, reload::Handle)>>;

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
        signals::stop_on_signals(
            stop,
            "draining: what is on its way is finished and committed, as far as worker.drain_timeout_ms allows",
        )?;
        let hangups = signals::hangups()?;
        let started = Started::default();
        let (end_serving, ended) = watch::channel(());
        let metrics = serve_metrics(config, started.clone(), ended.clone()).await?;
        let admin = bind_admin(config).await?;

        let runtime = tokio::runtime::Handle::current();
        let outputs = Arc::new(Outputs::new(&config.kafka)?);
        let (configuration, of_model, handle, stop) =
            (config.clone(), outputs.clone(), runtime.clone(), stopped.clone());
        let first = spawn_blocking(move || model::serve(&configuration, of_model, handle, &stop));
        let (serving, chooser) = first.await??;
        let observers = Observers::new(config, &serving);
        let serving = Arc::new(serving.observed_by(observers.all()));
        let worker = Worker::build(&config.worker, &config.kafka, &config.articles, serving.clone(), runtime.clone())?;
        let claims = Claims::new(&config.claims).map_err(worker::Error::Options)?;
        let worker = worker.with_outputs(outputs.clone()).with_claims(claims);
        let reload = Reload::start(serving.clone(), chooser, config.model.follow)?;
        let beside = observers.start(config, &serving, &reload, outputs, runtime)?;
        drop(serving); // the worker and those beside it have theirs, and the last to end unloads the model
        let handle = beside.told_by(reload.handle());
        started.get_or_init(|| (worker.status(), handle.clone()));
        signals::look_on_hangups(hangups, handle.clone());
        let admin =
            admin.map(|(listener, token)| tokio::spawn(serve::admin::run(listener, token, handle, over(ended))));
        let result = spawn_blocking(move || worker.run(stopped)).await?;

        let ends = spawn_blocking(move || [beside.end(LOAD_GRACE), reload.end(LOAD_GRACE)]).await?;
        drop(end_serving);
        for served in [metrics, admin].into_iter().flatten() {
            served.await??;
        }
        self.tell(&result?)?;
        if ends.contains(&reload::End::Loading) {
            signals::end(0);
        }
        Ok(Exit::Done)
    }

    fn tell(&self, summary: &Summary) -> anyhow::Result<()> {
        if self.json {
            anstream::println!("{}", serde_json::to_string(summary)?);
        }
        anstream::eprintln!(
            "{} worked up in {:.1} s: {} tagged, {} deleted, {}{}",
            input::counted(summary.articles, "article", "articles"),
            summary.seconds,
            HumanCount(summary.tagged),
            HumanCount(summary.tombstones),
            input::counted(summary.dead_letters, "dead letter", "dead letters"),
            if summary.left > 0 {
                format!("; {} left to the next worker", input::counted(summary.left, "article", "articles"))
            } else {
                String::new()
            },
        );
        Ok(())
    }
}

type Served = tokio::task::JoinHandle<std::io::Result<()>>;

/// Starts the listener where one is configured, before anything else can fail.
async fn serve_metrics(
    config: &Config,
    started: Started,
    ended: watch::Receiver<()>,
) -> anyhow::Result<Option<Served>> {
    let Some(address) = config.http.listen else { return Ok(None) };
    let metrics = telemetry::init_metrics()?;
    let listener = serve::bind("http.listen", address).await?;
    tracing::info!(address = %listener.local_addr()?, "serving /metrics, /healthz and /readyz");
    let health = Arc::new(move || health(&started));
    Ok(Some(tokio::spawn(serve::run(listener, metrics, health, over(ended)))))
}

/// The admin listener where one is configured, and its token. It answers when there is a worker.
async fn bind_admin(config: &Config) -> anyhow::Result<Option<(TcpListener, String)>> {
    let (Some(address), Some(token)) = (config.http.admin_listen, &config.http.admin_token) else { return Ok(None) };
    let listener = serve::bind("http.admin_listen", address).await?;
    tracing::info!(address = %listener.local_addr()?, "serving /admin/model");
    Ok(Some((listener, token.clone())))
}

/// Done when the sender is dropped.
async fn over(mut ended: watch::Receiver<()>) {
    while ended.changed().await.is_ok() {}
}

fn health(started: &Started) -> Health {
    let Some((status, reload)) = started.get() else {
        return Health { live: true, ready: false, details: json!({"state": "loading_model"}) };
    };
    let mut details = json!(status.snapshot());
    details["model"] = json!(reload.snapshot());
    Health { live: status.live(), ready: status.ready(), details }
}
