//! A body is looked through before a tree of generic values is made of it.
//!
//! Avro's library resolves such trees only. A tree takes a hundred bytes for a value that takes one, and the library
//! reads a text that is cut off as a null. Here nothing is kept, and every byte must be there.

use apache_avro::reader::datum::GenericDatumReader;
use serde::Deserialize;
use serde::de::{Deserializer, EnumAccess, MapAccess, SeqAccess, VariantAccess as _, Visitor};
use std::fmt;

/// The most values (fields, items, entries) in a body: several times what the longest articles have. A tree of as
/// many takes some hundred megabytes.
const MOST_VALUES: usize = 1 << 20;

/// Refuses a body that is cut off, or from which more than [`MOST_VALUES`] values would come.
///
/// `writer` reads as it was written: it has no reader's schema.
pub(super) fn check(writer: &GenericDatumReader<'_>, mut body: &[u8]) -> Result<(), apache_avro::Error> {
    writer.read_deser::<Values>(&mut body).map(drop)
}

/// How many values there are in a value, itself counted.
struct Values(usize);

impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Counter).map(Self)
    }
}

/// A field's name, an entry's key, an enum's symbol: not counted.
struct Name;

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_identifier(Counter).map(|_| Self)
    }
}

struct Counter;

/// What a leaf counts; its own value is of no interest.
macro_rules! leaves {
    ($($visit:ident: $type:ty,)*) => {$(
        fn $visit<E>(self, _: $type) -> Result<usize, E> {
            Ok(1)
        }
    )*};
}

impl<'de> Visitor<'de> for Counter {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    leaves! {
        visit_bool: bool,
        visit_i32: i32,
        visit_i64: i64,
        visit_u64: u64,
        visit_f32: f32,
        visit_f64: f64,
        visit_str: &str,
        visit_bytes: &[u8],
    }

    fn visit_unit<E>(self) -> Result<usize, E> {
        Ok(1)
    }

    fn visit_none<E>(self) -> Result<usize, E> {
        Ok(1)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<usize, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<usize, A::Error> {
        let mut count = 1;
        while let Some(Values(inside)) = items.next_element()? {
            count = add(count, inside)?;
        }
        Ok(count)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<usize, A::Error> {
        let mut count = 1;
        while let Some((Name, Values(inside))) = entries.next_entry()? {
            count = add(count, inside)?;
        }
        Ok(count)
    }

    fn visit_enum<A: EnumAccess<'de>>(self, symbol: A) -> Result<usize, A::Error> {
        let (Name, variant) = symbol.variant()?;
        variant.unit_variant().map(|()| 1)
    }
}

fn add<E: serde::de::Error>(count: usize, inside: usize) -> Result<usize, E> {
    let count = count + inside;
    if count > MOST_VALUES { Err(E::custom(format!("more than {MOST_VALUES} values in one"))) } else { Ok(count) }
}
