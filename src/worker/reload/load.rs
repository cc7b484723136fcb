//! From a version that is wanted to one that is ready to serve.

use super::{Place, Wanted, memory};
use crate::ErrorClass;
use crate::article::{Document, Passage, Section};
use crate::bus;
use crate::model::{self, Model, directory};
use crate::registry::{self, Store, golden};
use crate::tagger::{self, Engine, StartError, Tag};
use crate::worker::Outputs;
use futures::future::try_join_all;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use tokio::runtime::Handle;

/// Why a version does not serve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its files.
    #[error("{0}")]
    Model(#[from] model::Error),
    /// The engine around it.
    #[error("{0}")]
    Start(#[from] StartError),
    /// The registry that it should come from.
    #[error("{0}")]
    Registry(#[from] registry::Error),
    /// The topics that its mentions would go to.
    #[error("{0}")]
    Topics(#[source] bus::Error),
    /// Something else lies there than was announced.
    #[error("its digest is {found}, wanted is {wanted}")]
    #[allow(missing_docs)]
    Changed { found: String, wanted: String },
    /// It does not compute what it should.
    #[error("the self-test failed: {0}")]
    SelfTest(String),
    /// There is not enough memory for it beside the one in force.
    #[error("loading it may take {needed} MB of memory, {available} MB are free")]
    #[allow(missing_docs)]
    Memory { needed: u64, available: u64 },
    /// A bug, in this program or in libtorch.
    #[error("loading it panicked: {0}")]
    Panicked(String),
}

impl Error {
    /// Retriable: it may succeed later, with nobody doing anything about the version. Poison: it will not.
    pub fn class(&self) -> ErrorClass {
        let may_pass = match self {
            Self::Model(model::Error::Io { .. }) | Self::Memory { .. } | Self::Start(StartError::Thread(_)) => true,
            Self::Model(model::Error::Torch(error)) => is_out_of_memory(&error.to_string()),
            Self::Registry(error) => error.class() != ErrorClass::Poison, // rights are given, configurations mended
            Self::Topics(error) => !matches!(error, bus::Error::Options(_)), // a topic may be created
            Self::Model(_) | Self::Start(_) | Self::Changed { .. } | Self::SelfTest(_) | Self::Panicked(_) => false,
        };
        if may_pass { ErrorClass::Retriable } else { ErrorClass::Poison }
    }
}

fn is_out_of_memory(message: &str) -> bool {
    ["out of memory", "can't allocate memory", "not enough memory"].iter().any(|part| message.contains(part))
}

/// Loads versions with the worker's options.
pub struct Loader {
    /// Device and precision.
    pub model: model::Options,
    /// How the engine works.
    pub tagger: tagger::Options,
    /// Where announced versions are fetched from.
    pub registry: registry::Options,
    /// The topics that must be there for a model's types.
    pub outputs: Arc<Outputs>,
    /// To ask the cluster on.
    pub runtime: Handle,
}

impl Loader {
    /// Brings a version here, verifies every file, asks for the topics of its types, starts it, has it pass its
    /// self-test and warms it up. Blocks as long as that takes.
    pub fn load(&self, wanted: &Wanted) -> Result<Box<dyn Tag>, Error> {
        let (name, version) = match &wanted.place {
            Place::Directory(path) => return self.load_folder(path, wanted),
            Place::Registry { name, version } => (name, version),
        };
        let cache = self.registry.cache();
        if let Some(folder) = registry::cached(&wanted.digest, &cache) {
            match self.load_folder(&folder, wanted) {
                Err(Error::Model(error @ model::Error::File { .. })) => {
                    // What was whole when it was fetched is not any more.
                    tracing::warn!("the cached model is fetched again: {error}");
                    std::fs::remove_dir_all(&folder).map_err(|cause| model::Error::Io { file: folder, cause })?;
                }
                done => return done,
            }
        }
        let folder = Store::open(&self.registry)?.fetch(name, version, &wanted.digest, &cache)?;
        self.load_folder(&folder, wanted)
    }

    fn load_folder(&self, folder: &Path, wanted: &Wanted) -> Result<Box<dyn Tag>, Error> {
        let config_file = folder.join(directory::CONFIG);
        let labels = directory::read_config(folder)?.label_set(&config_file)?;
        self.runtime.block_on(self.outputs.admit(labels.entity_types())).map_err(Error::Topics)?;
        let engine = self.start(folder)?;
        let found = engine.model().digest.clone();
        if found != wanted.digest {
            return Err(Error::Changed { found, wanted: wanted.digest.clone() });
        }
        Ok(Box::new(engine))
    }

    /// The model in a directory, verified, started, tested and warm; the cluster is not asked for its topics.
    pub fn start(&self, folder: &Path) -> Result<Engine, Error> {
        memory::check(folder)?;
        let engine = Engine::start(Model::load(folder, &self.model)?, &self.tagger)?;
        warm_up(&engine).map_err(|error| Error::SelfTest(error.to_string()))?;
        if let Some(sentences) = golden::read(&folder.join(golden::GOLDEN))? {
            let report = golden::check(&engine, &sentences).map_err(|error| Error::SelfTest(error.to_string()))?;
            report.check(&golden::Tolerance::default()).map_err(Error::SelfTest)?;
        }
        Ok(engine)
    }
}

/// Articles of growing number at a time: batches of all sizes, on all threads. Whatever cannot be computed, or is
/// not finite, is an error.
fn warm_up(tagger: &dyn Tag) -> Result<(), tagger::Error> {
    const SENTENCES: &str = "Mutations in BRCA1 and TP53 were found in 12 of 34 patients with breast cancer (p < 0.01). \
        HeLa cells were treated with cisplatin. In mice, the c.76A>T variant of Scn1a causes seizures; rats and \
        zebrafish show none. We conclude that TNF-α inhibits the apoptosis of human hepatocytes.";
    for together in [1, 2, 4, 8, 16, 32] {
        let documents = (0..together).map(|number| {
            let passage = Passage { section: Section::Body, heading: None, language: None, text: SENTENCES.to_owned() };
            let article_id = format!("warm-up:{number}");
            tagger.tag(Document { article_id, article_version: 1, passages: vec![passage] })
        });
        futures::executor::block_on(try_join_all(documents))?;
    }
    Ok(())
}

/// Runs `load`; a panic in it is a failure of the version.
pub(super) fn guarded<T>(load: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(load)).unwrap_or_else(|panic| {
        let message = panic.downcast_ref::<String>().map(String::as_str);
        let message = message.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("unknown");
        Err(Error::Panicked(message.to_owned()))
    })
}
