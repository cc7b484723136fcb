//! What can go wrong with model versions, and what whoever serves them does about it.

use crate::bus::codec;
use crate::{ErrorClass, bus, model};
use object_store::Error as Cause;
use std::path::{Path, PathBuf};

/// An error of the registry.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An option that cannot be; the message names it.
    #[error("{0}")]
    Options(String),
    /// A name that cannot be.
    #[error("{name:?} is no {what}: that is {rule}")]
    #[allow(missing_docs)]
    Name { what: &'static str, name: String, rule: &'static str },
    /// The local folder of the store is not there.
    #[error("there is no store at {folder}; `litflow models import DIR` makes it, or set registry.store", folder = folder.display())]
    #[allow(missing_docs)]
    NoStore { folder: PathBuf },
    /// The version is not in the store, or not whole.
    #[error("{location}: there is no such model version; `litflow models list` shows what there is")]
    #[allow(missing_docs)]
    NotFound { location: String },
    /// The version is there with other content.
    #[error(
        "{location} is published already, with other content ({there}, this is {here}): a version never changes; \
         raise the version in config.json"
    )]
    #[allow(missing_docs)]
    Taken { location: String, there: String, here: String },
    /// Another publication of the version was begun and not ended.
    #[error(
        "{location}: somebody else is publishing this version with other content ({there}, this is {here}); where \
         that was broken off, `litflow models gc` clears it away"
    )]
    #[allow(missing_docs)]
    Claimed { location: String, there: String, here: String },
    /// What lies there is not what it should be. It never gets better.
    #[error("{place}: {reason}")]
    #[allow(missing_docs)]
    Damaged { place: String, reason: String },
    /// The store did not do it.
    #[error("{place}: {cause}")]
    #[allow(missing_docs)]
    Store { place: String, cause: Cause },
    /// A local file could not be read or written.
    #[error("{path}: {cause}", path = path.display())]
    #[allow(missing_docs)]
    Io { path: PathBuf, cause: std::io::Error },
    /// Nothing is announced about the model.
    #[error("nothing is announced about {name:?}; `litflow models import DIR --alias champion` announces a version")]
    #[allow(missing_docs)]
    NotAnnounced { name: String },
    /// The newest announcement about the model cannot be read, and what it says must not be lost.
    #[error("the announcement of {name:?} at offset {offset} of the topic models cannot be read: {reason}")]
    #[allow(missing_docs)]
    Unreadable { name: String, offset: i64, reason: String },
    /// There is nothing to roll back to.
    #[error(
        "{name} has no earlier champion to go back to (the champion is {champion}); `litflow models promote` names one"
    )]
    #[allow(missing_docs)]
    NoEarlier { name: String, champion: String },
    /// The champion cannot be refused.
    #[error("{name} {version} is the champion and cannot be rejected: roll back first")]
    #[allow(missing_docs)]
    Champion { name: String, version: String },
    /// The announcements could not be read to their end.
    #[error("the brokers at {servers} do not answer, so the topic models cannot be read to its end")]
    #[allow(missing_docs)]
    Unanswered { servers: String },
    /// Kafka did not do it.
    #[error(transparent)]
    Bus(#[from] bus::Error),
    /// The announcement does not fit its schema.
    #[error(transparent)]
    Value(#[from] codec::Error),
    /// A model directory is refused.
    #[error(transparent)]
    Model(#[from] model::Error),
}

impl Error {
    /// What to do about it: retriable, try again later; poison, this version will never do, another may; fatal,
    /// somebody has to change the configuration.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Options(_) => ErrorClass::Fatal,
            Self::Name { .. }
            | Self::NotFound { .. }
            | Self::Taken { .. }
            | Self::Claimed { .. }
            | Self::Damaged { .. }
            | Self::NotAnnounced { .. }
            | Self::Unreadable { .. }
            | Self::NoEarlier { .. }
            | Self::Champion { .. }
            | Self::Value(_)
            | Self::Model(_) => ErrorClass::Poison,
            // A disk is emptied, a share mounted again.
            Self::NoStore { .. } | Self::Io { .. } | Self::Unanswered { .. } => ErrorClass::Retriable,
            Self::Bus(error) => error.class(),
            Self::Store { cause, .. } => match cause {
                Cause::Unauthenticated { .. }
                | Cause::PermissionDenied { .. }
                | Cause::NotSupported { .. }
                | Cause::NotImplemented { .. }
                | Cause::InvalidPath { .. }
                | Cause::UnknownConfigurationKey { .. } => ErrorClass::Fatal,
                _ => ErrorClass::Retriable,
            },
        }
    }

    pub(super) fn io(path: &Path, cause: std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), cause }
    }

    pub(super) fn damaged(place: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Damaged { place: place.into(), reason: reason.into() }
    }
}
