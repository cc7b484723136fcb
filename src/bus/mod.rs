//! Kafka: what travels on the topics, and how it gets there exactly once.
//!
//! [`codec`] turns values into bytes and back by the schemas in `schemas/`; [`records`] holds their Rust
//! types. [`topics`] reads the topics from `topics/`, [`admin`] applies them to a cluster. [`consumer`] and
//! [`producer`] are the worker's two ends, with a [`lease`] for each partition between them; [`publisher`] and
//! [`reader`] those of everybody else, [`exclusive`] that of who changes what he has read. [`wire`] says which bytes a
//! value becomes, [`schema_registry`] what it asks for that. [`scan`] reads a topic from state to state, [`lag`] tells
//! how far a group is behind. [`broker`] starts a broker of one's own. [`kafka`] holds the connection's options.

mod access;
pub mod admin;
pub mod broker;
pub mod codec;
pub mod consumer;
mod delivery;
mod error;
pub mod exclusive;
pub mod kafka;
pub mod lag;
pub mod lease;
pub mod producer;
pub mod publisher;
pub mod reader;
pub mod records;
pub mod scan;
pub mod schema_registry;
pub mod topics;
pub mod wire;

pub use access::MissingRight;
pub use error::Error;
pub use kafka::Options;
