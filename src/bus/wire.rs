//! How values travel: in single-object encoding, or, where a schema registry is set, in Confluent's wire format.
//!
//! With a registry, values are written with the id that it has given to the schema under the subject `<topic>-value`;
//! without one they carry the schema's fingerprint. Both are read, whichever is written.
//!
//! Each call has two ends: what is wrong with the value ([`codec::Error`], poison), and what is wrong with the registry
//! ([`schema_registry::Error`]), which is nobody's fault who stands on the topics.

use super::codec::{self, Record};
use super::schema_registry::{self, Known, Registry};
use super::topics::{self, Topic};
use super::{Error, Options};
use std::time::Duration;

/// How long a registry that does not answer is waited for by those who cannot wait for ever. It outlasts a restart.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Writes and reads values as the options say. Clones share what they know.
#[derive(Debug, Clone, Default)]
pub struct Wire {
    registry: Option<Registry>,
}

impl Wire {
    /// Nothing is asked yet.
    ///
    /// # Errors
    /// [`Error::Options`] where certificates cannot be read.
    pub fn new(options: &Options) -> Result<Self, Error> {
        Ok(Self { registry: Registry::new(&options.schema_registry)? })
    }

    /// Asks, once, for the ids that values on `topics` are written with.
    pub async fn admit(&self, topics: &[Topic]) -> Result<(), schema_registry::Error> {
        let Some(registry) = &self.registry else { return Ok(()) };
        for topic in topics.iter().filter(|topic| topics::value_schema(&topic.name).is_some()) {
            registry.admit(&topic.name).await?;
        }
        Ok(())
    }

    /// The bytes of a value for `topic`. Waits for its id where that is not known and the registry does not answer.
    pub async fn encode<T: Record>(
        &self,
        topic: &str,
        value: &T,
    ) -> Result<Result<Vec<u8>, codec::Error>, schema_registry::Error> {
        let Some(registry) = &self.registry else { return Ok(value.encode()) };
        let id = registry.id(topic).await?;
        Ok(T::codec().encode_with_id(id, value))
    }

    /// The value in these bytes. Waits for its schema where that is not known and the registry does not answer.
    pub async fn decode<T: Record>(&self, bytes: &[u8]) -> Result<Result<T, codec::Error>, schema_registry::Error> {
        let Some((registry, id, body)) = self.foreign(bytes) else { return Ok(T::decode(bytes)) };
        Ok(decode_by(id, registry.writer(id).await?, body))
    }

    /// [`Wire::encode`], on the caller's thread, waiting at most for `patience`.
    pub fn encode_within<T: Record>(
        &self,
        patience: Duration,
        topic: &str,
        value: &T,
    ) -> Result<Result<Vec<u8>, codec::Error>, schema_registry::Error> {
        let Some(registry) = &self.registry else { return Ok(value.encode()) };
        let id = registry.id_within(topic, patience)?;
        Ok(T::codec().encode_with_id(id, value))
    }

    /// [`Wire::decode`], on the caller's thread, waiting at most for [`PATIENCE`].
    pub fn decode_blocking<T: Record>(&self, bytes: &[u8]) -> Result<Result<T, codec::Error>, schema_registry::Error> {
        let Some((registry, id, body)) = self.foreign(bytes) else { return Ok(T::decode(bytes)) };
        Ok(decode_by(id, registry.writer_within(id, PATIENCE)?, body))
    }

    /// Why something waits for the registry at the moment, if that is so.
    pub fn trouble(&self) -> Option<String> {
        self.registry.as_ref().and_then(Registry::trouble)
    }

    /// Where the schema of a value has to be asked for.
    fn foreign<'v>(&self, bytes: &'v [u8]) -> Option<(&Registry, u32, &'v [u8])> {
        let registry = self.registry.as_ref()?;
        let (id, body) = codec::confluent(bytes)?;
        Some((registry, id, body))
    }
}

fn decode_by<T: Record>(id: u32, known: Known, body: &[u8]) -> Result<T, codec::Error> {
    match known {
        Known::Writer(writer) => T::codec().decode_by(id, &writer, body),
        Known::Unusable(reason) => Err(codec::Error::Incompatible { schema: T::NAME, id, reason: reason.to_string() }),
        Known::Nothing => Err(codec::Error::UnknownId { schema: T::NAME, id }),
    }
}
