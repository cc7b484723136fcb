//! Avro values on the wire.
//!
//! A value is written in Avro single-object encoding: `C3 01`, the CRC-64-AVRO fingerprint of the
//! writer's schema (8 bytes, little-endian), then the body. When it is read, the fingerprint picks the
//! writer's schema: the current one, or a released older one, whose values are resolved to the current
//! schema by Avro's rules. An unknown fingerprint is an error that names it.
//!
//! The Confluent wire format (`00`, 4-byte big-endian schema id, body) is the other one. Which schema an id stands for
//! a registry knows: [`wire`](super::wire) asks it, and has the value read by the [`Writer`] that it named. Without a
//! registry the body must be one of the current schema, and must fill the value to its last byte.
//!
//! Decoding never panics, and never allocates more than [`MAX_ALLOCATION`] bytes for one string or array.

mod count;
mod writer;

pub use writer::Writer;

use super::records::{Annotations, EntityMention, LabeledDocument, ModelVersion, ShadowTally};
use crate::ErrorClass;
use crate::article::ArticleEvent;
use apache_avro::rabin::Rabin;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::writer::datum::GenericDatumWriter;
use apache_avro::{Schema, from_value};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::LazyLock;

/// The most bytes that a length field in a value can make the decoder allocate at once.
pub const MAX_ALLOCATION: usize = 64 << 20;

const SINGLE_OBJECT_MARKER: [u8; 2] = [0xC3, 0x01];
const SINGLE_OBJECT_HEADER: usize = 10;
const CONFLUENT_MAGIC: u8 = 0x00;
const CONFLUENT_HEADER: usize = 5;

/// A value that travels on a topic: a type with a schema of the same name in `schemas/`.
pub trait Record: Serialize + DeserializeOwned + 'static {
    /// The schema's name without its namespace.
    const NAME: &'static str;

    /// The schema, as its file has it.
    const SCHEMA: &'static str;

    /// The codec of the type.
    fn codec() -> &'static Codec;

    /// The value in single-object encoding.
    fn encode(&self) -> Result<Vec<u8>, Error> {
        Self::codec().encode(self)
    }

    /// Reads a value in single-object encoding, or in Confluent's wire format with a body of the current schema.
    fn decode(bytes: &[u8]) -> Result<Self, Error> {
        Self::codec().decode(bytes)
    }
}

macro_rules! record {
    ($type:ty, $file:literal $(, $release:literal)*) => {
        impl Record for $type {
            const NAME: &'static str = $file;
            const SCHEMA: &'static str = include_str!(concat!("../../schemas/", $file, ".avsc"));

            fn codec() -> &'static Codec {
                static SCHEMA: LazyLock<Schema> = LazyLock::new(|| parse(<$type>::SCHEMA));
                static OLDER: LazyLock<Vec<Schema>> = LazyLock::new(|| {
                    vec![$(parse(include_str!(concat!("../../schemas/released/", $release, "/", $file, ".avsc")))),*]
                });
                static CODEC: LazyLock<Codec> = LazyLock::new(|| Codec::new(&SCHEMA, &OLDER));
                &CODEC
            }
        }
    };
}

// After the name come the releases that wrote with another schema than today's.
record!(ArticleEvent, "ArticleEvent", "0.1.0");
record!(Annotations, "Annotations");
record!(EntityMention, "EntityMention");
record!(LabeledDocument, "LabeledDocument");
record!(ModelVersion, "ModelVersion");
record!(ShadowTally, "ShadowTally");

fn parse(text: &str) -> Schema {
    Schema::parse_str(text).expect("the schema files are compiled in, and the tests parse each of them")
}

/// Writes and reads the values of one schema.
pub struct Codec {
    schema: &'static Schema,
    header: [u8; SINGLE_OBJECT_HEADER],
    writer: GenericDatumWriter<'static>,
    reader: GenericDatumReader<'static>,
    older: Vec<Older>,
}

/// Reads the values of a released older schema.
struct Older {
    header: [u8; SINGLE_OBJECT_HEADER],
    /// As they were written.
    writer: GenericDatumReader<'static>,
    /// Resolved to the current schema.
    resolving: GenericDatumReader<'static>,
}

impl Codec {
    fn new(schema: &'static Schema, older: &'static [Schema]) -> Self {
        apache_avro::util::max_allocation_bytes(MAX_ALLOCATION);
        const COMPILED_IN: &str = "the schemas are compiled in, and the tests build each of them";
        let released = |writer: &'static Schema| Older {
            header: header(writer),
            writer: GenericDatumReader::builder(writer).build().expect(COMPILED_IN),
            resolving: GenericDatumReader::builder(writer).reader_schema(schema).build().expect(COMPILED_IN),
        };
        Self {
            schema,
            header: header(schema),
            writer: GenericDatumWriter::builder(schema).build().expect("a schema without outside references resolves"),
            reader: GenericDatumReader::builder(schema).build().expect("a schema without outside references resolves"),
            older: older.iter().map(released).collect(),
        }
    }

    /// The schema that values are written with.
    pub fn schema(&self) -> &'static Schema {
        self.schema
    }

    /// The schema's CRC-64-AVRO fingerprint as hex digits, in the order of the wire.
    pub fn fingerprint(&self) -> String {
        hex::encode(&self.header[2..])
    }

    fn encode<T: Record>(&self, value: &T) -> Result<Vec<u8>, Error> {
        self.encode_behind(&self.header, value)
    }

    /// The value in Confluent's wire format, with the id that a registry has given to the schema.
    pub(super) fn encode_with_id<T: Record>(&self, id: u32, value: &T) -> Result<Vec<u8>, Error> {
        let mut header = [CONFLUENT_MAGIC; CONFLUENT_HEADER];
        header[1..].copy_from_slice(&id.to_be_bytes());
        self.encode_behind(&header, value)
    }

    fn encode_behind<T: Record>(&self, header: &[u8], value: &T) -> Result<Vec<u8>, Error> {
        let mut bytes = header.to_vec();
        self.writer.write_ser(&mut bytes, value).map_err(|e| Error::Encode { schema: T::NAME, reason: brief(&e) })?;
        Ok(bytes)
    }

    /// Reads a body that was written with the schema of `id`, by Avro's rules of resolution.
    pub(super) fn decode_by<T: Record>(&self, id: u32, writer: &Writer, mut body: &[u8]) -> Result<T, Error> {
        let malformed = |e: apache_avro::Error| Error::Malformed { schema: T::NAME, reason: brief(&e) };
        if *writer.fingerprint() == self.header[2..] {
            let value = self.reader.read_deser(&mut body).map_err(malformed)?;
            return whole::<T, _>(value, body);
        }
        let value = whole::<T, _>(writer.read(&mut body).map_err(malformed)?, body)?;
        let incompatible = |e: apache_avro::Error| Error::Incompatible { schema: T::NAME, id, reason: brief(&e) };
        let resolved = value.resolve(self.schema).map_err(incompatible)?;
        from_value(&resolved).map_err(malformed)
    }

    fn decode<T: Record>(&self, bytes: &[u8]) -> Result<T, Error> {
        let malformed = |e: apache_avro::Error| Error::Malformed { schema: T::NAME, reason: brief(&e) };
        if bytes.starts_with(&SINGLE_OBJECT_MARKER) && bytes.len() >= SINGLE_OBJECT_HEADER {
            let (header, mut body) = bytes.split_at(SINGLE_OBJECT_HEADER);
            if header == self.header {
                let value = self.reader.read_deser(&mut body).map_err(malformed)?;
                return whole::<T, _>(value, body);
            }
            let Some(older) = self.older.iter().find(|older| header == older.header) else {
                return Err(Error::UnknownFingerprint { schema: T::NAME, fingerprint: hex::encode(&header[2..]) });
            };
            count::check(&older.writer, body).map_err(malformed)?;
            let value = older.resolving.read_value(&mut body).map_err(malformed)?;
            let value = from_value(&value).map_err(malformed)?;
            return whole::<T, _>(value, body);
        }
        if let Some((_, mut body)) = confluent(bytes) {
            let value = self.reader.read_deser(&mut body).map_err(malformed)?;
            return whole::<T, _>(value, body);
        }
        Err(Error::NotAvro { schema: T::NAME, bytes: bytes.len(), begin: hex::encode(&bytes[..bytes.len().min(8)]) })
    }
}

/// Id and body of a value in Confluent's wire format.
pub(super) fn confluent(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (header, body) = bytes.split_first_chunk::<CONFLUENT_HEADER>()?;
    let [CONFLUENT_MAGIC, id @ ..] = *header else { return None };
    Some((u32::from_be_bytes(id), body))
}

/// The schema file of the type with this name, without the white space that people read it by: a registry must not
/// take another layout for another version.
pub(super) fn schema_text(name: &str) -> Option<String> {
    let file = match name {
        ArticleEvent::NAME => ArticleEvent::SCHEMA,
        Annotations::NAME => Annotations::SCHEMA,
        EntityMention::NAME => EntityMention::SCHEMA,
        LabeledDocument::NAME => LabeledDocument::SCHEMA,
        ModelVersion::NAME => ModelVersion::SCHEMA,
        ShadowTally::NAME => ShadowTally::SCHEMA,
        _ => return None,
    };
    serde_json::from_str::<serde_json::Value>(file).ok().map(|schema| schema.to_string())
}

fn header(schema: &Schema) -> [u8; SINGLE_OBJECT_HEADER] {
    let mut header = [0; SINGLE_OBJECT_HEADER];
    header[..2].copy_from_slice(&SINGLE_OBJECT_MARKER);
    header[2..].copy_from_slice(&schema.fingerprint::<Rabin>().bytes);
    header
}

/// The library's message without the schema that it prints in full: what was expected, and what was found.
fn brief(error: &apache_avro::Error) -> String {
    let message: Vec<char> = error.to_string().chars().collect();
    if message.len() <= 400 {
        return message.into_iter().collect();
    }
    let (begin, end) = (&message[..120], &message[message.len() - 200..]);
    begin.iter().chain(&[' ', '…', ' ']).chain(end).collect()
}

/// The value, if nothing of its bytes is left over.
fn whole<T: Record, V>(value: V, rest: &[u8]) -> Result<V, Error> {
    if rest.is_empty() { Ok(value) } else { Err(Error::TrailingBytes { schema: T::NAME, bytes: rest.len() }) }
}

/// Why a value could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bytes begin with no header that is known.
    #[error(
        "not an Avro {schema}: {bytes} bytes beginning {begin:?} (hex) carry neither the single-object \
         marker C301 nor Confluent's magic byte 00"
    )]
    #[allow(missing_docs)]
    NotAvro { schema: &'static str, bytes: usize, begin: String },
    /// The value was written with a schema that this version does not know.
    #[error(
        "the schema fingerprint {fingerprint} is no version of {schema} known here: \
         a newer producer needs a newer reader"
    )]
    #[allow(missing_docs)]
    UnknownFingerprint { schema: &'static str, fingerprint: String },
    /// The registry knows no schema by the value's id.
    #[error("the schema registry has no schema with the id {id}, which the value names: not a readable {schema}")]
    #[allow(missing_docs)]
    UnknownId { schema: &'static str, id: u32 },
    /// The schema that the value was written with does not lead to the one that it is read by.
    #[error("the schema with the id {id}, which the value was written with, cannot be read as {schema}: {reason}")]
    #[allow(missing_docs)]
    Incompatible { schema: &'static str, id: u32, reason: String },
    /// The body does not follow its schema.
    #[error("a malformed {schema}: {reason}")]
    #[allow(missing_docs)]
    Malformed { schema: &'static str, reason: String },
    /// The body ends before the bytes do.
    #[error("a malformed {schema}: {bytes} bytes follow the value")]
    #[allow(missing_docs)]
    TrailingBytes { schema: &'static str, bytes: usize },
    /// The value cannot be written with its schema.
    #[error("a {schema} that does not fit its schema: {reason}")]
    #[allow(missing_docs)]
    Encode { schema: &'static str, reason: String },
}

impl Error {
    /// Always poison: the same bytes fail every time.
    pub fn class(&self) -> ErrorClass {
        ErrorClass::Poison
    }

    /// A short name for metrics and dead-letter headers.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotAvro { .. } => "not_avro",
            Self::UnknownFingerprint { .. } | Self::UnknownId { .. } => "unknown_schema",
            Self::Incompatible { .. } => "incompatible_schema",
            Self::Malformed { .. } | Self::TrailingBytes { .. } => "malformed_avro",
            Self::Encode { .. } => "unencodable",
        }
    }
}

#[cfg(test)]
mod tests;
