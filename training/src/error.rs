//! Why a training or evaluation run ended, and with which exit code.

use litflow::ErrorClass;
use std::path::{Path, PathBuf};

/// What went wrong. The message names the file and the way out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command, the configuration or the given files cannot mean anything.
    #[error("{0}")]
    Usage(String),
    /// A file cannot be read or written.
    #[error("{file}: {cause}")]
    Io {
        /// The file.
        file: PathBuf,
        /// What the operating system says.
        cause: std::io::Error,
    },
    /// A model or encoder directory was refused, or libtorch failed in it.
    #[error(transparent)]
    Model(#[from] litflow::model::Error),
    /// The tokenizer cannot be used, or failed.
    #[error(transparent)]
    Encode(#[from] litflow::tagger::encode::Error),
    /// The tagging engine could not be started, for an evaluation.
    #[error(transparent)]
    Start(#[from] litflow::tagger::engine::StartError),
    /// The tagging engine failed at a document.
    #[error(transparent)]
    Tag(#[from] litflow::tagger::Error),
    /// The cluster could not be reached, or refused.
    #[error(transparent)]
    Bus(#[from] litflow::bus::Error),
    /// What the cluster did not take.
    #[error(transparent)]
    Publish(#[from] litflow::bus::publisher::PublishError),
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] litflow::config::Error),
    /// A snapshot is not what it was when it was taken.
    #[error("{folder}: {reason}; take another snapshot")]
    Snapshot {
        /// The snapshot's folder.
        folder: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The registry of model versions did not do it.
    #[error(transparent)]
    Registry(#[from] litflow::registry::Error),
    /// A job cannot go on.
    #[error("{0}")]
    Job(String),
    /// libtorch failed.
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
    /// Training has left the numbers.
    #[error("the loss is {loss} at step {step}: lower `optimizer.learning_rate` or `optimizer.clip_norm`")]
    Diverged {
        /// The optimiser's step, from 0.
        step: u64,
        /// The loss, not finite.
        loss: f64,
    },
}

impl Error {
    /// Wraps what the operating system says about `file`.
    pub fn io(file: &Path, cause: std::io::Error) -> Self {
        Self::Io { file: file.to_owned(), cause }
    }

    /// The process's exit code: 2 for a wrong command or configuration, 4 where the broker is in a fatal state, 1 for
    /// everything else.
    pub fn exit_code(&self) -> u8 {
        use litflow::bus::Error as Bus;
        use litflow::bus::publisher::PublishError;
        match self {
            Self::Usage(_) | Self::Config(_) => 2,
            Self::Registry(litflow::registry::Error::Options(_)) => 2,
            Self::Registry(litflow::registry::Error::Bus(error))
            | Self::Bus(error)
            | Self::Publish(PublishError::Bus(error)) => match error {
                Bus::Options(_) | Bus::Property { .. } => 2,
                Bus::Fenced { .. } | Bus::Kafka { class: ErrorClass::Fatal, .. } => 4,
                _ => 1,
            },
            _ => 1,
        }
    }
}
