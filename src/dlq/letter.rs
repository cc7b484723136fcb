//! One record of the dead-letter topic: a letter, or a mark on one.

use crate::bus::producer::Outgoing;
use crate::bus::topics;
use crate::worker::dead_letter::{attempts, foreign_headers, header, headers};
use rdkafka::message::{Header, Headers as _, Message as _, OwnedHeaders, OwnedMessage};
use std::fmt;
use std::str::FromStr;

/// Where a letter stands on its topic: `PARTITION@OFFSET`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.partition, self.offset)
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let place = text.split_once('@').and_then(|(partition, offset)| {
            let (partition, offset) = (partition.parse().ok()?, offset.parse().ok()?);
            (partition >= 0 && offset >= 0).then_some(Self { partition, offset })
        });
        place.ok_or_else(|| format!("{text:?} is no PARTITION@OFFSET, such as 0@42"))
    }
}

/// What became of a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// It was sent again.
    Replayed,
    /// Nobody needs it any more.
    Purged,
}

impl Mark {
    /// The name in headers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Replayed => "replayed",
            Self::Purged => "purged",
        }
    }
}

/// A mark as it stands on the topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marked {
    /// The letter.
    pub of: Place,
    /// What became of it.
    pub mark: Mark,
    /// By whom.
    pub by: String,
    /// When, in milliseconds since the epoch.
    pub at: Option<i64>,
}

/// Where a letter's record was consumed, as the worker has noted it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // a record's coordinates
pub struct Origin {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    /// Milliseconds since the epoch.
    pub timestamp: Option<i64>,
}

/// A dead letter. Its texts were written by others: any of them may be missing, or hold anything.
#[derive(Debug, Clone)]
pub struct Letter {
    message: OwnedMessage,
}

/// What a record of the topic is; none where it is a mark that marks nothing.
pub(super) enum Found {
    Letter(Letter),
    Mark(Marked),
}

pub(super) fn read(message: OwnedMessage) -> Option<Found> {
    let Some(mark) = header(&message, headers::MARK) else { return Some(Found::Letter(Letter { message })) };
    let mark = [Mark::Replayed, Mark::Purged].into_iter().find(|known| known.name() == mark)?;
    let of: Place = header(&message, headers::OF)?.parse().ok()?;
    // Only what stands before it in its own partition is known to whoever reads up to it.
    let marks_something = of.partition == message.partition() && of.offset < message.offset();
    let by = header(&message, headers::BY).unwrap_or_default().to_owned();
    let at = message.timestamp().to_millis();
    marks_something.then_some(Found::Mark(Marked { of, mark, by, at }))
}

impl Letter {
    /// Where it stands.
    pub fn place(&self) -> Place {
        Place { partition: self.message.partition(), offset: self.message.offset() }
    }

    /// When it died, in milliseconds since the epoch.
    pub fn timestamp(&self) -> Option<i64> {
        self.message.timestamp().to_millis()
    }

    /// The short name of the reason.
    pub fn reason(&self) -> Option<&str> {
        header(&self.message, headers::REASON)
    }

    /// Where in the pipeline it died.
    pub fn stage(&self) -> Option<&str> {
        header(&self.message, headers::STAGE)
    }

    /// The class of the error.
    pub fn class(&self) -> Option<&str> {
        header(&self.message, headers::CLASS)
    }

    /// What happened.
    pub fn error(&self) -> Option<&str> {
        header(&self.message, headers::ERROR)
    }

    /// The worker that wrote it.
    pub fn worker(&self) -> Option<&str> {
        header(&self.message, headers::WORKER)
    }

    /// The how manieth death this is, from 1.
    pub fn attempt(&self) -> u32 {
        attempts(&self.message).max(1) // letters of older versions do not say so
    }

    /// Where it was consumed.
    pub fn origin(&self) -> Option<Origin> {
        Some(Origin {
            topic: header(&self.message, headers::TOPIC)?.to_owned(),
            partition: header(&self.message, headers::PARTITION)?.parse().ok()?,
            offset: header(&self.message, headers::OFFSET)?.parse().ok()?,
            timestamp: header(&self.message, headers::TIMESTAMP).and_then(|millis| millis.parse().ok()),
        })
    }

    /// The original key.
    pub fn key(&self) -> Option<&[u8]> {
        self.message.key()
    }

    /// The original value.
    pub fn value(&self) -> Option<&[u8]> {
        self.message.payload()
    }

    /// All headers in their order, the worker's among them.
    pub fn headers(&self) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
        self.message.headers().into_iter().flat_map(|headers| headers.iter()).map(|header| (header.key, header.value))
    }

    /// The record that it was, for the topic that it came from: key, value and headers as they were, and how often it
    /// has died.
    ///
    /// # Errors
    /// Why it cannot be sent again: only what a worker read from `articles` belongs there.
    pub(super) fn replay(&self) -> Result<Outgoing, String> {
        match self.origin() {
            Some(Origin { topic, .. }) if topic == topics::ARTICLES => {}
            Some(Origin { topic, .. }) => {
                return Err(format!("it came from {topic:?}, and workers read only {}", topics::ARTICLES));
            }
            None => return Err("its headers do not say where it came from".into()),
        }
        let attempt = self.attempt().to_string();
        let headers = foreign_headers(&self.message).insert(Header { key: headers::ATTEMPT, value: Some(&attempt) });
        Ok(Outgoing {
            topic: topics::ARTICLES.into(),
            key: self.key().map(<[u8]>::to_vec),
            value: self.value().map(<[u8]>::to_vec),
            headers: Some(headers),
            partition: None,
        })
    }

    /// The mark that says what became of it.
    pub(super) fn marked(&self, mark: Mark, by: &str) -> Outgoing {
        let place = self.place();
        let headers = [(headers::MARK, mark.name()), (headers::OF, &place.to_string()), (headers::BY, by)];
        let headers = headers
            .into_iter()
            .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: Some(value) }));
        Outgoing {
            topic: topics::DEAD_LETTERS.into(),
            key: self.key().map(<[u8]>::to_vec),
            value: None,
            headers: Some(headers),
            partition: Some(place.partition),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use rdkafka::Timestamp;

    /// A record of the topic with these headers.
    pub fn record(place: Place, timestamp: i64, key: &str, headers: &[(&str, &str)]) -> OwnedMessage {
        let headers = headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(Header { key, value: Some(value.as_bytes()) })
        });
        let (key, timestamp) = (Some(key.as_bytes().to_vec()), Timestamp::CreateTime(timestamp));
        let topic = topics::DEAD_LETTERS.to_owned();
        OwnedMessage::new(Some(vec![0, 255]), key, topic, timestamp, place.partition, place.offset, Some(headers))
    }

    pub fn letter(record: OwnedMessage) -> Letter {
        let Some(Found::Letter(letter)) = read(record) else { panic!("it is a mark") };
        letter
    }

    const PLACE: Place = Place { partition: 2, offset: 7 };
    const ORIGIN: [(&str, &str); 3] = [("dlq.topic", "articles"), ("dlq.partition", "3"), ("dlq.offset", "42")];

    #[test]
    fn places_are_read_as_they_are_written() {
        assert_eq!("2@7".parse(), Ok(PLACE));
        assert_eq!(PLACE.to_string(), "2@7");
        for wrong in ["", "7", "@", "a@1", "1@-1", "-1@1", "1@99999999999999999999"] {
            assert!(wrong.parse::<Place>().unwrap_err().contains("PARTITION@OFFSET"), "{wrong}");
        }
    }

    #[test]
    fn a_replay_is_the_original_and_how_often_it_died() {
        let headers = [&[("trace", "a"), ("trace", "b")][..], &ORIGIN, &[("dlq.attempt", "2")]].concat();
        let letter = letter(record(PLACE, 5, "pmid:1", &headers));
        assert_eq!((letter.attempt(), letter.origin().unwrap().offset), (2, 42));
        let replay = letter.replay().unwrap();
        assert_eq!((replay.topic.as_str(), replay.value.as_deref()), ("articles", Some(&[0, 255][..])));
        let sent: Vec<(String, &[u8])> =
            replay.headers.as_ref().unwrap().iter().map(|h| (h.key.to_owned(), h.value.unwrap())).collect();
        let expected = [("trace", "a"), ("trace", "b"), ("dlq.attempt", "2")];
        assert_eq!(sent, expected.map(|(key, value)| (key.to_owned(), value.as_bytes())));
    }

    #[test]
    fn a_letter_is_sent_to_no_topic_but_the_workers_input() {
        let elsewhere = letter(record(PLACE, 5, "k", &[&ORIGIN[1..], &[("dlq.topic", "models")]].concat()));
        assert!(elsewhere.replay().unwrap_err().contains("\"models\""));
        assert!(letter(record(PLACE, 5, "k", &[])).replay().unwrap_err().contains("where it came from"));
    }

    #[test]
    fn a_mark_is_read_back_and_stands_behind_its_letter() {
        let mark = letter(record(PLACE, 5, "pmid:1", &[])).marked(Mark::Replayed, "alice");
        assert_eq!((mark.partition, mark.value, mark.key.as_deref()), (Some(2), None, Some(&b"pmid:1"[..])));
        let as_read = |offset| {
            let headers = mark.headers.clone();
            let timestamp = Timestamp::CreateTime(9);
            read(OwnedMessage::new(None, None, topics::DEAD_LETTERS.into(), timestamp, 2, offset, headers))
        };
        let Some(Found::Mark(marked)) = as_read(8) else { panic!("it is no mark") };
        assert_eq!(marked, Marked { of: PLACE, mark: Mark::Replayed, by: "alice".into(), at: Some(9) });
        assert!(as_read(7).is_none(), "a mark on what comes after it");
        let foreign = [("dlq.mark", "lost"), ("dlq.of", "2@7")];
        assert!(read(record(Place { partition: 2, offset: 8 }, 5, "k", &foreign)).is_none(), "an unknown mark");
    }
}
