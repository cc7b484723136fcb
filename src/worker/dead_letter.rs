//! What could not be processed, with its original bytes and the reason in the headers.

use crate::ErrorClass;
use crate::bus::producer::Outgoing;
use crate::bus::topics;
use rdkafka::message::{Header, Headers as _, Message as _, OwnedHeaders, OwnedMessage};

/// Headers of litflow's own on a dead letter begin with this; those of an earlier death are replaced.
pub const HEADER_PREFIX: &str = "dlq.";
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
        let mut headers = OwnedHeaders::new();
        for header in message.headers().into_iter().flat_map(|headers| headers.iter()) {
            if !header.key.starts_with(HEADER_PREFIX) {
                headers = headers.insert(header);
            }
        }
        let timestamp = message.timestamp().to_millis().map(|millis| millis.to_string()).unwrap_or_default();
        let error: String = self.error.chars().take(ERROR_MAX).collect();
        for (name, value) in [
            ("dlq.reason", self.reason),
            ("dlq.stage", self.stage.name()),
            ("dlq.class", ErrorClass::Poison.name()),
            ("dlq.error", &error),
            ("dlq.topic", message.topic()),
            ("dlq.partition", &message.partition().to_string()),
            ("dlq.offset", &message.offset().to_string()),
            ("dlq.timestamp", &timestamp),
            ("dlq.worker", concat!("litflow ", env!("CARGO_PKG_VERSION"))),
        ] {
            headers = headers.insert(Header { key: name, value: Some(value) });
        }
        Outgoing {
            topic: topics::DEAD_LETTERS.into(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers: Some(headers),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::Timestamp;

    #[test]
    fn keeps_what_came_and_replaces_an_earlier_reason() {
        let headers = OwnedHeaders::new()
            .insert(Header { key: "trace", value: Some("7") })
            .insert(Header { key: "dlq.reason", value: Some("an older one") });
        let message = OwnedMessage::new(
            Some(vec![0xFF, 0x00]),
            Some(b"key".to_vec()),
            "articles".into(),
            Timestamp::CreateTime(1_700_000_000_000),
            3,
            42,
            Some(headers),
        );
        let letter = Refusal::new(Stage::Decode, "not_avro", "é".repeat(2_000)).dead_letter(&message);
        assert_eq!(letter.value.as_deref(), Some(&[0xFF, 0x00][..]));
        assert_eq!(letter.key.as_deref(), Some(&b"key"[..]));
        let headers = letter.headers.unwrap();
        let values = |name: &str| -> Vec<String> {
            let named = headers.iter().filter(|header| header.key == name);
            named.map(|header| String::from_utf8(header.value.unwrap().to_vec()).unwrap()).collect()
        };
        assert_eq!(values("trace"), ["7"]);
        assert_eq!(values("dlq.reason"), ["not_avro"]);
        assert_eq!((values("dlq.partition"), values("dlq.offset")), (vec!["3".into()], vec!["42".into()]));
        assert_eq!(values("dlq.timestamp"), ["1700000000000"]);
        assert_eq!(values("dlq.error")[0].chars().count(), ERROR_MAX);
    }
}
