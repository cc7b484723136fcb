//! litflow: a streaming text-mining worker over Kafka for biomedical literature.
//!
//! The modules follow the way of the data: [`article`] reads what comes in, [`text`] splits it into
//! sentences, [`model`] holds encoders and heads, [`tagger`] batches sentences and turns label
//! sequences into mentions, [`bus`] speaks Kafka, [`claims`] brings what is too large for it, [`worker`] joins them
//! into the exactly-once loop. [`registry`] keeps and announces the models' versions; [`backfill`] tags again what
//! older ones have tagged; [`dlq`] looks after what could not be tagged.

pub mod article;
pub mod backfill;
pub mod bus;
pub mod claims;
pub mod config;
pub mod dlq;
pub mod error;
mod failpoint;
pub mod model;
pub mod registry;
pub mod serve;
pub mod tagger;
pub mod telemetry;
pub mod text;
pub mod worker;

pub use error::ErrorClass;
