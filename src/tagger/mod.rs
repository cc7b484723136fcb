//! From a [`Document`] to verified mentions.
//!
//! [`Tag`] is the one interface between the stream and the model: the worker and the command line know
//! nothing else. A call may wait (that is the back-pressure); dropping the future gives the work up.

mod clock;
pub mod decode;
pub mod dictionary;
mod document;
pub mod encode;
pub mod engine;
pub mod mention;
mod queue;
mod serving;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use dictionary::Dictionary;
pub use engine::{Engine, Options, StartError};
pub use mention::{Mention, ModelRef, TaggedDocument};
pub use serving::{Observer, Serving};

use crate::article::Document;
use futures::future::BoxFuture;
use std::sync::Arc;

/// Something that finds mentions in documents.
pub trait Tag: Send + Sync {
    /// The model version that the next document will be tagged by.
    fn model(&self) -> Arc<ModelRef>;

    /// The entity types that may come out, in the order of the model's label set.
    fn entity_types(&self) -> Arc<[String]>;

    /// Tags one document, whole, by one model version. Many calls run at a time; they share batches.
    fn tag(&self, document: Document) -> BoxFuture<'_, Result<TaggedDocument, Error>>;
}

/// Why a document could not be tagged.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The engine has stopped; no document can be tagged any more.
    #[error("the tagging engine has stopped: {0}")]
    Stopped(String),
    /// This document makes the engine fail, others do not.
    #[error("the document cannot be tagged: {0}")]
    Document(String),
}

impl Error {
    /// What the worker does about it.
    pub fn class(&self) -> crate::ErrorClass {
        match self {
            Self::Stopped(_) => crate::ErrorClass::Fatal,
            Self::Document(_) => crate::ErrorClass::Poison,
        }
    }
}

/// Locks; a panic of another holder does not matter, as no state here is half-done between two locks.
fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
