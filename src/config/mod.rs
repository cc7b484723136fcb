//! The configuration: what every part of the program is told, and where each value came from.
//!
//! Four layers, the later wins: the defaults embedded in the program (`default.toml`, one comment a
//! key), the file given by `--config`, the environment (`LITFLOW_<SECTION>__<KEY>`), and flags. The
//! sections are the components' own `Options`. A secret may stand in a file of its own, which its key with `_file`
//! behind it names. Whatever is wrong in any layer is collected and reported
//! at once, each problem with its key, its origin and the way out; nothing is ignored silently.

mod check;
mod conflicts;
mod files;
mod layers;
pub mod secrets;
mod show;

pub use check::Problem;
pub use layers::Flag;
pub use show::Shown;

use crate::model::device::{DeviceChoice, Precision};
use crate::{article, bus, claims, model, registry, serve, tagger, telemetry, worker};
use config::Source as _;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The embedded defaults; every key stands there with a comment.
pub const DEFAULT_TOML: &str = include_str!("default.toml");

/// What is in force.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How much is taken from article files.
    pub articles: article::Options,
    /// Where documents may be fetched from that are too large for their events.
    pub claims: claims::Options,
    /// The cluster.
    pub kafka: bus::Options,
    /// Which model tags, and on what.
    pub model: Model,
    /// Where model versions are kept.
    pub registry: registry::Options,
    /// Where trained versions are mirrored to.
    pub mlflow: Mlflow,
    /// How the model is kept busy.
    pub tagger: tagger::Options,
    /// Transactions and what is worked on at a time.
    pub worker: worker::Options,
    /// Whether a candidate is compared with the model in force.
    pub shadow: worker::shadow::Options,
    /// When a champion gives way to the one before it.
    pub rollback: worker::rollback::Options,
    /// The HTTP listener for metrics and health.
    pub http: serve::Options,
    /// Logs.
    pub log: telemetry::Options,
}

/// `[model]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Model {
    /// The model directory; none: the shipped model, where it is found.
    pub path: Option<PathBuf>,
    /// The model whose champion a worker serves, as it is announced; none: the one at `path`.
    pub name: Option<String>,
    /// Whether a worker loads another model without being asked to.
    pub follow: bool,
    /// See [`model::Options::device`].
    pub device: DeviceChoice,
    /// See [`model::Options::precision`].
    pub precision: Precision,
}

impl Default for Model {
    fn default() -> Self {
        Self { path: None, name: None, follow: true, device: DeviceChoice::default(), precision: Precision::default() }
    }
}

impl Model {
    /// Values that cannot be; the message names the key.
    pub fn check(&self) -> Result<(), String> {
        let checked = self.name.as_deref().map_or(Ok(()), registry::names::check_name);
        checked.map_err(|error| format!("model.name is refused: {error}"))
    }

    /// What the model is loaded with.
    pub fn options(&self) -> model::Options {
        model::Options { device: self.device, precision: self.precision }
    }
}

/// `[mlflow]`, which training heeds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mlflow {
    /// The server's address, `http://localhost:5000`; none is no mirror.
    pub tracking_uri: Option<String>,
    /// The experiment that runs belong to; made where it is missing.
    pub experiment: String,
    /// A bearer token for the server.
    pub token: Option<String>,
}

impl Default for Mlflow {
    fn default() -> Self {
        Self { tracking_uri: None, experiment: "litflow".into(), token: None }
    }
}

/// A configuration together with the origin of each value that is not a default.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    /// Key (`kafka.bootstrap_servers`) to origin (`litflow.toml:3`, `LITFLOW_…`, `--bootstrap-servers`).
    pub origins: BTreeMap<String, String>,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read the configuration file {path}: {reason}", path = path.display())]
    File {
        /// The file given.
        path: PathBuf,
        /// What the system says.
        reason: std::io::Error,
    },
    /// The file is no TOML.
    #[error("the configuration file {path} is not valid TOML: {reason}", path = path.display())]
    Syntax {
        /// The file given.
        path: PathBuf,
        /// Line, column and what was expected.
        reason: String,
    },
    /// All that is wrong in keys and values, over all layers.
    #[error("{}", check::list(.0))]
    Problems(Vec<Problem>),
}

impl Config {
    /// Reads all layers: defaults, `file`, `environment` (all variables; those of others are left
    /// alone), `flags`.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        flags: &[Flag],
    ) -> Result<Loaded, Error> {
        let mut problems = Vec::new();
        let mut builder = config::Config::builder().add_source(layers::Layer::defaults());
        if let Some(path) = file {
            builder = builder.add_source(layers::Layer::file(path, &mut problems)?);
        }
        let merged = builder
            .add_source(layers::Layer::environment(environment, &mut problems))
            .add_source(layers::Layer::flags(flags))
            .build()
            .and_then(|merged| merged.collect())
            .expect("layers are maps in memory, merging them cannot fail");

        let loaded = check::check(merged, &mut problems);
        if problems.is_empty() { Ok(loaded) } else { Err(Error::Problems(problems)) }
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use tests::assert_documented;
