//! Why a training or evaluation run ended, and with which exit code.

use std::path::{Path, PathBuf};

/// What went wrong. The message names the file and the way out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command, the configuration or the given files cannot mean anything.
    #[error("{0}")]
    Usage(String),
    /// A file cannot be read or written.
    #[error("{file}: {source}")]
    Io {
        /// The file.
        file: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
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
    pub fn io(file: &Path, source: std::io::Error) -> Self {
        Self::Io { file: file.to_owned(), source }
    }

    /// The process's exit code: 2 for a wrong command or configuration, 1 for everything else.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            _ => 1,
        }
    }
}
