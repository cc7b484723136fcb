//! Avro envelopes of every record: what is read can be written and is then the same; a value that was cut off is
//! none.

use crate::memory::{FIXED, bounded};
use litflow::article::ArticleEvent;
use litflow::bus::codec::{Error, MAX_ALLOCATION, Record};
use litflow::bus::records::{Annotations, EntityMention, LabeledDocument, ModelVersion, ShadowTally};

/// The bytes as a value of every topic: the fingerprint in front picks the schema, Confluent's header fits them all.
pub fn avro(bytes: &[u8]) {
    check::<ArticleEvent>(bytes);
    check::<Annotations>(bytes);
    check::<EntityMention>(bytes);
    check::<LabeledDocument>(bytes);
    check::<ModelVersion>(bytes);
    check::<ShadowTally>(bytes);
}

fn check<T: Record>(bytes: &[u8]) {
    let value = match bounded(bytes.len(), FIXED + MAX_ALLOCATION, || T::decode(bytes)) {
        Ok(value) => value,
        Err(error) => return check_message(&error),
    };
    // Compared as bytes: not-a-number is not equal to itself.
    let written = value.encode().expect("what was read fits its schema");
    let read = T::decode(&written).expect("what was written can be read");
    assert_eq!(read.encode().expect("as before"), written);
    if let Some(cut) = bytes.len().checked_sub(1) {
        assert!(T::decode(&bytes[..cut]).is_err(), "a {} without its last byte is read", T::NAME);
    }
}

fn check_message(error: &Error) {
    let message = error.to_string();
    assert!(message.len() < 4_000, "a message of {} bytes: {message}", message.len());
}
