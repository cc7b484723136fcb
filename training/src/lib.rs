//! Fine-tuning and evaluation of litflow's models.
//!
//! The modules follow the way of the data: [`labels`] reads, checks and writes labelled documents, [`snapshot`]
//! takes them from their topic, [`dataset`] makes training data of them, [`split`] holds some of it out, [`examples`]
//! makes sentences and batches of them, [`network`] is the model in training, [`loss`] and [`optimizer`]
//! teach it, [`fit`] is the loop, [`checkpoint`] what it can go on from, [`publish`] the model directory
//! that comes out. [`evaluate`] runs a finished model as the worker does, [`scorer`] and [`analysis`] tell what
//! it is worth. [`run`] does all of it by itself.

pub mod analysis;
pub mod calibrate;
pub mod checkpoint;
pub mod dataset;
pub mod error;
pub mod evaluate;
pub mod examples;
mod files;
pub mod fit;
mod fused;
pub mod gate;
pub mod golden;
pub mod labels;
pub mod loss;
pub mod mlflow;
pub mod network;
pub mod optimizer;
pub mod plots;
pub mod progress;
pub mod publish;
pub mod random;
pub mod recipe;
pub mod report;
pub mod run;
pub mod scorer;
pub mod snapshot;
pub mod split;
pub mod spool;
#[cfg(test)]
#[path = "../tests/support/mod.rs"]
mod testing;

pub use error::Error;
