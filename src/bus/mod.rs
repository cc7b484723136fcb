//! Kafka: what travels on the topics, and how it gets there exactly once.
//!
//! [`codec`] turns values into bytes and back by the schemas in `schemas/`; [`records`] holds their Rust types.

pub mod codec;
pub mod records;
