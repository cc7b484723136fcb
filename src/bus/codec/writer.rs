//! The schema of a writer elsewhere, as a registry keeps it.
//!
//! It comes from outside, so it is bounded: what is read by it can neither nest without end nor become more than a
//! constant times its bytes. Recursive types are refused, because a value of one nests as deep as its writer likes.

use super::{MAX_ALLOCATION, brief, count};
use apache_avro::Schema;
use apache_avro::rabin::Rabin;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::schema::{FixedSchema, InnerDecimalSchema, NamesRef, ResolvedSchema, UuidSchema};
use apache_avro::types::Value;

/// The longest schema in bytes.
const MAX_BYTES: usize = 1 << 20;
/// The deepest nesting of types, names replaced by what they stand for.
const MAX_DEPTH: usize = 64;
/// The most types in a value, names replaced by what they stand for.
const MAX_TYPES: usize = 10_000;

/// A writer's schema, known to be within bounds.
#[derive(Debug)]
pub struct Writer {
    schema: Schema,
    fingerprint: [u8; 8],
}

impl Writer {
    /// Reads a schema. The error says, for a person, why values are not read by it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MAX_BYTES {
            return Err(format!("{} bytes of schema are more than {MAX_BYTES}", text.len()));
        }
        let schema = Schema::parse_str(text).map_err(|e| format!("no Avro schema: {}", brief(&e)))?;
        let resolved = ResolvedSchema::try_from(&schema).map_err(|e| format!("no whole schema: {}", brief(&e)))?;
        Bounds { names: resolved.get_names(), types: 0 }.least_bytes(&schema, 0)?;
        let mut fingerprint = [0; 8];
        fingerprint.copy_from_slice(&schema.fingerprint::<Rabin>().bytes);
        Ok(Self { schema, fingerprint })
    }

    /// CRC-64-AVRO of its canonical form: schemas with the same one write the same bytes.
    pub(super) fn fingerprint(&self) -> &[u8; 8] {
        &self.fingerprint
    }

    /// Reads a value as it was written.
    pub(super) fn read(&self, body: &mut &[u8]) -> Result<Value, apache_avro::Error> {
        let reader = GenericDatumReader::builder(&self.schema).build()?;
        count::check(&reader, body)?;
        reader.read_value(body)
    }
}

/// Walks a schema as its values are read.
struct Bounds<'s> {
    names: &'s NamesRef<'s>,
    types: usize,
}

impl Bounds<'_> {
    /// The least bytes that a value takes.
    fn least_bytes(&mut self, schema: &Schema, depth: usize) -> Result<usize, String> {
        self.types += 1;
        if self.types > MAX_TYPES {
            return Err(format!("more than {MAX_TYPES} types are in one value"));
        }
        if depth > MAX_DEPTH {
            return Err(format!("recursive, or nested deeper than {MAX_DEPTH}"));
        }
        match schema {
            Schema::Null => Ok(0),
            Schema::Ref { name } => match self.names.get(name) {
                Some(named) => self.least_bytes(named, depth + 1),
                None => Err(format!("{name:?} is not defined in it")),
            },
            Schema::Array(array) => match self.least_bytes(&array.items, depth + 1)? {
                0 => Err("an array of what takes no bytes has no bounds".to_owned()),
                _ => Ok(1),
            },
            Schema::Map(map) => self.least_bytes(&map.types, depth + 1).map(|_| 1),
            Schema::Union(union) => {
                for variant in union.variants() {
                    self.least_bytes(variant, depth + 1)?;
                }
                Ok(1)
            }
            Schema::Record(record) => {
                let mut bytes = 0;
                for field in &record.fields {
                    bytes += self.least_bytes(&field.schema, depth + 1)?;
                }
                Ok(bytes)
            }
            Schema::Fixed(fixed) | Schema::Duration(fixed) | Schema::Uuid(UuidSchema::Fixed(fixed)) => size(fixed),
            Schema::Decimal(decimal) => match &decimal.inner {
                InnerDecimalSchema::Fixed(fixed) => size(fixed),
                InnerDecimalSchema::Bytes => Ok(1),
            },
            _ => Ok(1),
        }
    }
}

fn size(fixed: &FixedSchema) -> Result<usize, String> {
    match fixed.size {
        0..=MAX_ALLOCATION => Ok(fixed.size),
        bytes => Err(format!("a fixed of {bytes} bytes is larger than {MAX_ALLOCATION}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::article::ArticleEvent;
    use crate::bus::codec::Record;
    use crate::bus::records::{Annotations, EntityMention, LabeledDocument, ModelVersion, ShadowTally};

    #[test]
    fn schemas_of_our_own_are_within_bounds() {
        let ours = [
            ArticleEvent::SCHEMA,
            Annotations::SCHEMA,
            EntityMention::SCHEMA,
            LabeledDocument::SCHEMA,
            ModelVersion::SCHEMA,
            ShadowTally::SCHEMA,
        ];
        for text in ours {
            Writer::parse(text).unwrap();
        }
    }

    #[test]
    fn what_would_have_no_bounds_is_refused() {
        let record = |fields: &str| format!(r#"{{"type":"record","name":"R","namespace":"n","fields":[{fields}]}}"#);
        let doubling = (1..40).fold(r#"{"name":"f0","type":{"type":"record","name":"T0","fields":[]}}"#.to_owned(), |fields, n| {
            let below = n - 1;
            format!(r#"{fields},{{"name":"f{n}","type":{{"type":"record","name":"T{n}","fields":[{{"name":"a","type":"T{below}"}},{{"name":"b","type":"T{below}"}}]}}}}"#)
        });
        let nested = "{\"type\":\"array\",\"items\":".repeat(70) + "\"int\"" + &"}".repeat(70);
        for (schema, why) in [
            (record(r#"{"name":"next","type":["null","R"]}"#), "recursive"),
            (record(r#"{"name":"next","type":["null","n.R"]}"#), "recursive"),
            (record(r#"{"name":"all","type":{"type":"array","items":"null"}}"#), "takes no bytes"),
            (
                record(r#"{"name":"all","type":{"type":"array","items":{"type":"record","name":"E","fields":[]}}}"#),
                "takes no bytes",
            ),
            (record(r#"{"name":"f","type":{"type":"fixed","name":"F","size":1099511627776}}"#), "larger than"),
            (record(&doubling), "more than 10000 types"),
            (nested, "nested deeper"),
            ("[".repeat(100_000), "no Avro schema"),
            (" ".repeat(MAX_BYTES + 1), "more than 1048576"),
            (r#"{"syntax":"proto3"}"#.to_owned(), "no Avro schema"),
        ] {
            let refused = Writer::parse(&schema).unwrap_err();
            assert!(refused.contains(why), "{refused}");
        }
    }
}
