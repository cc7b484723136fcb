//! A worker with a dictionary as a process of its own, which can be killed: the test program starts itself again.

use super::{dictionary, options};
use litflow::bus;
use litflow::model::Model;
use litflow::tagger::{Engine, Tag};
use litflow::worker::{self, Stop, Summary, Worker};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// The ignored test of each program that calls [`run`].
const TEST: &str = "worker_process";
const VARIABLE: &str = "LITFLOW_TEST_WORKER";

/// The exit code of `litflow worker` where it was fenced or the broker's state is fatal: it is to be started again.
pub const FENCED: i32 = 4;

/// What a worker process is told.
#[derive(Serialize, Deserialize)]
pub struct Told {
    pub servers: String,
    pub name: String,
    pub options: worker::Options,
    /// Properties of its consumer, where they are not those of all.
    pub consumer: BTreeMap<String, String>,
    /// Properties of its producer.
    pub producer: BTreeMap<String, String>,
    pub until_end: bool,
    /// The model directory that it tags with; none: the dictionary.
    pub model: Option<PathBuf>,
}

impl Told {
    pub fn new(servers: &str, name: &str, options: worker::Options) -> Self {
        let (servers, name) = (servers.to_owned(), name.to_owned());
        Self {
            servers,
            name,
            options,
            consumer: BTreeMap::new(),
            producer: BTreeMap::new(),
            until_end: false,
            model: None,
        }
    }

    pub fn until_end(self) -> Self {
        Self { until_end: true, ..self }
    }

    /// The command that starts the worker.
    pub fn command(&self) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", TEST, "--ignored", "--nocapture"]);
        command.env(VARIABLE, serde_json::to_string(self).unwrap());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        command
    }

    pub fn spawn(&self) -> Child {
        self.command().spawn().unwrap()
    }

    /// Runs it until it ends by itself.
    pub fn run(&self) -> Summary {
        let output = self.command().output().unwrap();
        assert!(output.status.success(), "the worker ended with {}", output.status);
        let printed = String::from_utf8(output.stdout).unwrap();
        let summary = printed.lines().find_map(|line| Some(line.split_once("summary: ")?.1)).unwrap();
        serde_json::from_str(summary).unwrap()
    }
}

/// The body of the ignored test `worker_process`: nothing where it was started by hand.
pub fn run() {
    let Ok(told) = std::env::var(VARIABLE) else { return };
    super::log();
    let told: Told = serde_json::from_str(&told).unwrap();
    let mut kafka = options(&told.servers, &told.name);
    if !told.consumer.is_empty() {
        kafka.consumer = told.consumer;
    }
    kafka.producer = told.producer;
    let runtime = Runtime::new().unwrap();
    let (stop, stopped) = watch::channel(if told.until_end { Stop::AtEnd } else { Stop::Never });
    runtime.spawn(async move {
        signal(SignalKind::terminate()).unwrap().recv().await;
        stop.send(Stop::Now).unwrap();
        std::future::pending::<()>().await; // the sender is kept
    });
    let tagger: Arc<dyn Tag> = match told.model {
        Some(model) => {
            let model = Model::load(&model, &Default::default()).unwrap();
            Arc::new(Engine::start(model, &Default::default()).unwrap())
        }
        None => Arc::new(dictionary()),
    };
    let handle = runtime.handle().clone();
    let worker = Worker::build(&told.options, &kafka, &Default::default(), tagger, handle).unwrap();
    match worker.run(stopped) {
        Ok(summary) => println!("summary: {}", serde_json::to_string(&summary).unwrap()),
        Err(worker::Error::Bus(error @ (bus::Error::Fenced { .. } | bus::Error::Kafka { .. }))) => {
            eprintln!("worker {}: {error}", told.name);
            std::process::exit(FENCED);
        }
        Err(error) => panic!("worker {}: {error}", told.name),
    }
}
