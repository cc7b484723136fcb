//! Encoders, heads, weights and tokenizers: a model directory on disk becomes a model in memory.
//!
//! [`config`] and [`labels`] read `config.json`, [`weights`] the tensors; [`bert`] is the encoder in plain
//! libtorch operators, [`crf`] the head that joins neighbouring labels.

pub mod bert;
pub mod config;
pub mod crf;
mod error;
pub mod labels;
pub mod weights;

pub use bert::Bert;
pub use config::Config;
pub use error::Error;
pub use labels::{LabelSet, Tag};
pub use weights::Weights;
