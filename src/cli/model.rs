//! Finding and starting the model that a command tags with.

use litflow::config::Config;
use litflow::model::{Model, directory};
use litflow::tagger::{Engine, Tag as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The model that is shipped, relative to the working directory or the repository.
const SHIPPED: &str = "models/biored-minilm";

/// No model was named, and the shipped one is not there.
#[derive(Debug, thiserror::Error)]
#[error(
    "no model: there is no {SHIPPED} in the working directory, nor in the repository that this program was built in; \
     name a model directory with --model DIR (or model.path, LITFLOW_MODEL__PATH)"
)]
pub struct NoModel;

/// The entity types of the configured model, from its `config.json` alone.
pub fn entity_types(config: &Config) -> anyhow::Result<Vec<String>> {
    let file = path(config)?.join(directory::CONFIG);
    let bytes = std::fs::read(&file).map_err(|source| litflow::model::Error::Io { file: file.clone(), source })?;
    let labels = litflow::model::Config::parse(&bytes, &file)?.label_set(&file)?;
    Ok(labels.entity_types().to_vec())
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
