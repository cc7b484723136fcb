//! What could not be processed, with its original bytes and the reason in the headers.

use crate::ErrorClass;
use crate::bus::producer::Outgoing;
use crate::bus::topics;
use rdkafka::message::{Header, Headers as _, Message as _, OwnedHeaders, OwnedMessage};

/// The headers of litflow's own on dead letters; what they hold is told in `docs/topics.md`.
#[allow(missing_docs)]
pub mod headers {
    /// All of them begin with this; those of an earlier death are replaced.
    pub const PREFIX: &str = "dlq.";
    pub const REASON: &str = "dlq.reason";
    pub const STAGE: &str = "dlq.stage";
    pub const CLASS: &str = "dlq.class";
    pub const ERROR: &str = "dlq.error";
    pub const TOPIC: &str = "dlq.topic";
    pub const PARTITION: &str = "dlq.partition";
    pub const OFFSET: &str = "dlq.offset";
    pub const TIMESTAMP: &str = "dlq.timestamp";
    pub const WORKER: &str = "dlq.worker";
    /// The one that a replayed record carries, too, so that its next death is told from the first.
    pub const ATTEMPT: &str = "dlq.attempt";
    /// On a mark: what became of a letter …
    pub const MARK: &str = "dlq.mark";
    /// … of which …
    pub const OF: &str = "dlq.of";
    /// … and by whom.
    pub const BY: &str = "dlq.by";
}

/// The longest error text in a header, in characters.
const ERROR_MAX: usize = 1_000;

/// Where in the pipeline an article was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Reading the record.
    Decode,
    /// Bringing a document that lies elsewhere.
    Fetch,
    /// Reading the document in it.
    Parse,
    /// Finding mentions.
    Tag,
    /// Writing the result.
    Encode,
}

impl Stage {
    /// The name in headers and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::Fetch => "fetch",
            Self::Parse => "parse",
            Self::Tag => "tag",
            Self::Encode => "encode",
        }
    }
}

/// Why an article was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Where.
    pub stage: Stage,
    /// A short name, one of a fixed list (`docs/topics.md`).
    pub reason: &'static str,
    /// What happened, for a person.
    pub error: String,
}

impl Refusal {
    pub(crate) fn new(stage: Stage, reason: &'static str, error: impl ToString) -> Self {
        Self { stage, reason, error: error.to_string() }
    }

    /// The dead letter for `message`: key, value and headers as they came, and why it is here.
    pub fn dead_letter(&self, message: &OwnedMessage) -> Outgoing {
        let timestamp = message.timestamp().to_millis().map(|millis| millis.to_string()).unwrap_or_default();
        let error: String = self.error.chars().take(ERROR_MAX).collect();
        let mut headers = foreign_headers(message);
        for (name, value) in [
            (headers::REASON, self.reason),
            (headers::STAGE, self.stage.name()),
            (headers::CLASS, ErrorClass::Poison.name()),
            (headers::ERROR, &error),
            (headers::TOPIC, message.topic()),
            (headers::PARTITION, &message.partition().to_string()),
            (headers::OFFSET, &message.offset().to_string()),
            (headers::TIMESTAMP, &timestamp),
            (headers::ATTEMPT, &attempts(message).saturating_add(1).to_string()),
            (headers::WORKER, concat!("litflow ", env!("CARGO_PKG_VERSION"))),
        ] {
            headers = headers.insert(Header { key: name, value: Some(value) });
        }
        Outgoing {
            topic: topics::DEAD_LETTERS.into(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers: Some(headers),
            partition: None,
        }
    }
}

/// The headers that are not litflow's own, in their order.
pub(crate) fn foreign_headers(message: &OwnedMessage) -> OwnedHeaders {
    let all = message.headers().into_iter().flat_map(|headers| headers.iter());
    let foreign = all.filter(|header| !header.key.starts_with(headers::PREFIX));
    foreign.fold(OwnedHeaders::new(), |headers, header| headers.insert(header))
}

/// How often a record, or the one that it is a replay of, has died.
pub(crate) fn attempts(message: &OwnedMessage) -> u32 {
    header(message, headers::ATTEMPT).and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// The value of a header of litflow's own, where it is text: these stand behind all others.
pub(crate) fn header<'m>(message: &'m OwnedMessage, name: &str) -> Option<&'m str> {
    let found = message.headers()?.iter().filter(|header| header.key == name).last()?;
    std::str::from_utf8(found.value?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::Timestamp;

    fn message(headers: &[(&str, &str)]) -> OwnedMessage {
        let headers = headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(Header { key, value: Some(value.as_bytes()) })
        });
        OwnedMessage::new(
            Some(vec![0xFF, 0x00]),
            Some(b"key".to_vec()),
            "articles".into(),
            Timestamp::CreateTime(1_700_000_000_000),
            3,
            42,
            Some(headers),
        )
    }

    fn values(letter: &Outgoing, name: &str) -> Vec<String> {
        let named = letter.headers.iter().flat_map(|headers| headers.iter()).filter(|header| header.key == name);
        named.map(|header| String::from_utf8(header.value.unwrap().to_vec()).unwrap()).collect()
    }

    #[test]
    fn keeps_what_came_and_replaces_an_earlier_reason() {
        let message = message(&[("trace", "7"), ("dlq.reason", "an older one")]);
        let letter = Refusal::new(Stage::Decode, "not_avro", "é".repeat(2_000)).dead_letter(&message);
        assert_eq!(letter.value.as_deref(), Some(&[0xFF, 0x00][..]));
        assert_eq!(letter.key.as_deref(), Some(&b"key"[..]));
        let values = |name| values(&letter, name);
        assert_eq!(values("trace"), ["7"]);
        assert_eq!(values("dlq.reason"), ["not_avro"]);
        assert_eq!((values("dlq.partition"), values("dlq.offset")), (vec!["3".into()], vec!["42".into()]));
        assert_eq!(values("dlq.timestamp"), ["1700000000000"]);
        assert_eq!(values("dlq.error")[0].chars().count(), ERROR_MAX);
    }

    #[test]
    fn the_documentation_has_every_header() {
        let documented = include_str!("../../docs/topics.md");
        let letter = Refusal::new(Stage::Decode, "not_avro", "").dead_letter(&message(&[]));
        let written = letter.headers.iter().flat_map(|headers| headers.iter()).map(|header| header.key);
        for name in written.chain([headers::MARK, headers::OF, headers::BY]) {
            assert!(documented.contains(&format!("`{name}`")), "docs/topics.md does not explain {name}");
        }
    }

    #[test]
    fn deaths_are_counted_over_replays() {
        let died = |headers: &[(&str, &str)]| {
            let letter = Refusal::new(Stage::Tag, "untaggable", "").dead_letter(&message(headers));
            values(&letter, "dlq.attempt")
        };
        assert_eq!(died(&[]), ["1"]);
        assert_eq!(died(&[("dlq.attempt", "1")]), ["2"]);
        // Whoever may write to the input may write this, too.
        assert_eq!(died(&[("dlq.attempt", "many")]), ["1"]);
        assert_eq!(died(&[("dlq.attempt", "4294967295")]), ["4294967295"]);
    }
}
