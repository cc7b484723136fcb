//! Kafka: what travels on the topics, and how it gets there exactly once.
//!
//! [`codec`] turns values into bytes and back by the schemas in `schemas/`; [`records`] holds their Rust
//! types. [`topics`] reads the topics from `topics/`, [`admin`] applies them to a cluster. [`kafka`] holds the
//! connection's options.

pub mod admin;
pub mod codec;
mod error;
pub mod kafka;
pub mod records;
pub mod topics;

pub use error::Error;
pub use kafka::Options;
