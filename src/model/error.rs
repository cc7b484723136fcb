//! Why a model was refused, or failed at work.

use crate::ErrorClass;
use std::path::{Path, PathBuf};

/// An error of loading or running a model. The message names the file, the tensor and the way out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is not there or cannot be read or written.
    #[error("{file}: {cause}")]
    Io {
        /// The file.
        file: PathBuf,
        /// What the operating system says.
        cause: std::io::Error,
    },
    /// The file is there and is not what it should be.
    #[error("{file}: {reason}")]
    File {
        /// The file.
        file: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// One tensor of a weights file is missing or is not what it should be.
    #[error("{file}: tensor `{tensor}` {reason}")]
    Tensor {
        /// The weights file.
        file: PathBuf,
        /// The tensor's name, as the model knows it.
        tensor: String,
        /// What is wrong.
        reason: String,
    },
    /// The device or precision asked for cannot be had here.
    #[error("{0}")]
    Device(String),
    /// A batch that breaks the contract of [`super::PackedBatch`].
    #[error("invalid batch: {0}")]
    Batch(String),
    /// libtorch failed.
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
}

impl Error {
    /// What the worker does about it: a batch that breaks its contract concerns that batch alone, everything
    /// else the whole model.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Batch(_) => ErrorClass::Poison,
            _ => ErrorClass::Fatal,
        }
    }

    pub(crate) fn io(file: &Path, cause: std::io::Error) -> Self {
        Self::Io { file: file.to_owned(), cause }
    }

    pub(crate) fn file(file: &Path, reason: impl Into<String>) -> Self {
        Self::File { file: file.to_owned(), reason: reason.into() }
    }

    pub(crate) fn tensor(file: &Path, tensor: &str, reason: impl Into<String>) -> Self {
        Self::Tensor { file: file.to_owned(), tensor: tensor.to_owned(), reason: reason.into() }
    }
}
