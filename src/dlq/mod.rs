//! Dead letters for those who look after them: which there are, which are sent again, which may go.
//!
//! [`DeadLetters`] is the topic `articles.dlq` up to a state of it, filtered. What becomes of a letter is told by a
//! *mark*: a record behind it in its own partition, with its key, no value, and headers that name the letter. So a
//! letter is never changed, retention takes it before its mark, and who reads a partition up to an end knows what
//! became of every letter before that. [`Keeper`] writes the marks, one keeper at a time: a replayed record and the
//! mark of its letter are in one transaction, so that it is replayed once, whatever is killed in between.

mod filter;
mod keeper;
mod letter;
mod letters;
mod places;

pub use filter::Filter;
pub use keeper::{Event, Keeper, Replayed, TRANSACTIONAL_ID};
pub use letter::{Letter, Mark, Marked, Origin, Place};
pub use letters::{DeadLetters, Progress, Range, find};

use crate::{ErrorClass, bus};

/// Why dead letters cannot be read or marked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cluster.
    #[error(transparent)]
    Bus(bus::Error),
    /// Another keeper has begun.
    #[error(
        "another replay or purge of dead letters has begun and goes on alone; what this one had not committed was not \
         done: run it again when the other has ended"
    )]
    Replaced,
    /// A letter that is asked for.
    #[error("there is no dead letter at {0}: it was deleted, or something else stands there")]
    NoLetter(Place),
    /// A partition that is asked for.
    #[error("the topic {topic} has no partition {partition}; it has {count}")]
    #[allow(missing_docs)]
    NoPartition { topic: &'static str, partition: i32, count: usize },
}

impl Error {
    /// What it means for whoever asked.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Bus(error) => error.class(),
            Self::Replaced | Self::NoLetter(_) | Self::NoPartition { .. } => ErrorClass::Fatal,
        }
    }
}

impl From<bus::Error> for Error {
    fn from(error: bus::Error) -> Self {
        match error {
            bus::Error::Fenced { .. } => Self::Replaced,
            other => Self::Bus(other),
        }
    }
}
