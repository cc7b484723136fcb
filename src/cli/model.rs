//! Finding and starting the model that a command tags with.

use litflow::ErrorClass;
use litflow::config::Config;
use litflow::model::{Model, directory};
use litflow::tagger::{self, Engine, Serving, Tag as _};
use litflow::worker::reload::{Chooser, Loader, announced, candidate, directory as watched, tell_cluster};
use litflow::worker::{Outputs, Stop};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::watch;

/// The model that is shipped, relative to the working directory or the repository.
const SHIPPED: &str = "models/biored-minilm";

/// No model was named, and the shipped one is not there.
#[derive(Debug, thiserror::Error)]
#[error(
    "no model: there is no {SHIPPED} in the working directory, nor in the repository that this program was built in; \
     name a model directory with --model DIR (or model.path, LITFLOW_MODEL__PATH)"
)]
pub struct NoModel;

/// No champion was announced, and there is nothing to be served meanwhile.
#[derive(Debug, thiserror::Error)]
#[error(
    "no champion of the model {0:?} is announced on the topic models: `litflow models promote` announces one; or name \
     a model directory to be served meanwhile (model.path)"
)]
pub struct NoChampion(String);

/// How long a cluster or a registry that does not answer is waited for at the start.
const START_TIMEOUT: Duration = Duration::from_secs(60);
const START_PAUSE: Duration = Duration::from_secs(1);

/// The entity types of the configured model, from its `config.json` alone.
pub fn entity_types(config: &Config) -> anyhow::Result<Vec<String>> {
    let path = path(config)?;
    let labels = directory::read_config(&path)?.label_set(&path.join(directory::CONFIG))?;
    Ok(labels.entity_types().to_vec())
}

/// Starts the model that a worker begins with, and what chooses those that take its place. Blocks.
pub fn serve(
    config: &Config,
    outputs: Arc<Outputs>,
    runtime: Handle,
    stop: &watch::Receiver<Stop>,
) -> anyhow::Result<(Serving, Chooser)> {
    let loader = Arc::new(Loader {
        model: config.model.options(),
        tagger: config.tagger.clone(),
        registry: config.registry.clone(),
        outputs,
        runtime,
    });
    let again = loader.clone();
    let load = Box::new(move |wanted: &_| again.load(wanted));
    let Some(name) = &config.model.name else {
        let path = path(config)?;
        let serving = Serving::new(Box::new(loader.start(&path)?))?;
        return Ok((serving, Chooser::new(watched(path), load)));
    };
    let chooser = Chooser::new(announced(config.kafka.clone(), name.clone()), load);
    let mut chooser = chooser.telling(tell_cluster(config.kafka.clone()));
    let began = Instant::now();
    loop {
        let error = match chooser.first() {
            Ok(Some(tagger)) => return Ok((Serving::new(tagger)?, chooser)),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        if let Some(path) = &config.model.path {
            let reason = error.map_or_else(|| NoChampion(name.clone()).to_string(), |error| error.to_string());
            tracing::warn!(path = %path.display(), "the model at model.path is served until there is a champion: {reason}");
            return Ok((Serving::new(Box::new(loader.start(path)?))?, chooser));
        }
        let is_over = began.elapsed() > START_TIMEOUT || *stop.borrow() == Stop::Now;
        match error {
            Some(error) if error.class() == ErrorClass::Retriable && !is_over => {
                tracing::warn!("no champion can be served yet: {error}");
                std::thread::sleep(START_PAUSE);
            }
            Some(error) => return Err(error.into()),
            None => return Err(NoChampion(name.clone()).into()),
        }
    }
}

/// What loads the candidate of the model `name`, for a worker that compares it with the model in force.
pub fn candidates(config: &Config, name: &str, outputs: Arc<Outputs>, runtime: Handle) -> Chooser {
    let loader = Loader {
        model: config.model.options(),
        tagger: tagger::Options { threads: config.shadow.threads, tokenizer_threads: 1, ..config.tagger.clone() },
        registry: config.registry.clone(),
        outputs,
        runtime,
    };
    let load = Box::new(move |wanted: &_| loader.load(wanted));
    let look = candidate(config.kafka.clone(), name.to_owned());
    Chooser::new(look, load).telling(tell_cluster(config.kafka.clone()))
}

/// Loads the configured model and starts the engine around it.
pub fn start(config: &Config) -> anyhow::Result<Engine> {
    let path = path(config)?;
    let started = Instant::now();
    let model = Model::load(&path, &config.model.options())?;
    let device = model.device();
    let engine = Engine::start(model, &config.tagger)?;
    let reference = engine.model();
    tracing::info!(
        model = %path.display(), name = reference.name, version = reference.version, digest = reference.digest,
        ?device, seconds = started.elapsed().as_secs_f32(), "the model is loaded"
    );
    Ok(engine)
}

fn path(config: &Config) -> Result<PathBuf, NoModel> {
    config.model.path.clone().or_else(shipped).ok_or(NoModel)
}

/// The shipped model: in the working directory, or in a folder above the program (`target/release` lies
/// in the repository).
fn shipped() -> Option<PathBuf> {
    let program = std::env::current_exe().and_then(|path| path.canonicalize()).unwrap_or_default();
    let places = std::iter::once(Path::new("")).chain(program.ancestors().skip(1));
    places.map(|place| place.join(SHIPPED)).find(|path| path.join(directory::CONFIG).is_file())
}
