//! Publishes values that are not made from other records: article events, labels, model versions.
//!
//! Idempotent, so a retry neither repeats nor reorders; keyed, so that all events of an article keep their
//! order; bounded, so that a slow cluster slows the caller.

use super::codec::Record;
pub use super::delivery::Refused;
use super::delivery::{DeliveryContext, enqueue};
use super::producer::{DEFAULTS, Outgoing, message_max_bytes};
use super::wire::{PATIENCE, Wire};
use super::{Error, Options, codec, kafka, topics};
use crate::ErrorClass;
use crate::article::{ArticleEvent, Place};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{Producer as _, ThreadedProducer};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long the last records may take to be delivered.
const FINISH_TIMEOUT: Duration = Duration::from_secs(120);
/// librdkafka's own limit of a batch.
const BATCH_BYTES: usize = 1_000_000;

/// Sends values to topics and knows what became of them.
pub struct Publisher {
    client: ThreadedProducer<DeliveryContext>,
    options: Options,
    wire: Wire,
    /// How long a value waits for the id of its schema.
    patience: Duration,
    sent: Published,
    budget: Option<usize>,
    limits: BTreeMap<String, usize>,
}

/// What was published.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Published {
    /// Records.
    pub records: u64,
    /// Bytes of keys and values.
    pub bytes: usize,
}

/// Why a value was not published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The value does not fit its schema.
    #[error(transparent)]
    Value(#[from] codec::Error),
    /// The cluster did not take it.
    #[error(transparent)]
    Bus(#[from] Error),
    /// The broker cannot keep more.
    #[error("the embedded broker keeps no more than {budget} bytes of articles: use a real Apache Kafka for more")]
    #[allow(missing_docs)]
    Full { budget: usize },
}

impl PublishError {
    /// Poison: this value cannot be published, the next may. Fatal: none can.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Value(error) => error.class(),
            Self::Bus(error) => error.class(),
            Self::Full { .. } => ErrorClass::Fatal,
        }
    }
}

impl Publisher {
    /// Makes the client. `budget` is the most bytes that the broker can keep, for one that forgets
    /// ([`Broker::budget`](super::broker::Broker::budget)).
    pub fn new(options: &Options, budget: Option<usize>) -> Result<Self, Error> {
        Self::build(options, budget, BTreeMap::new())
    }

    /// One that refuses larger records than these, by topic
    /// ([`Admin::record_limits`](super::admin::Admin::record_limits)), before they are sent.
    pub fn with_limits(options: &Options, limits: BTreeMap<String, usize>) -> Result<Self, Error> {
        Self::build(options, None, limits)
    }

    fn build(options: &Options, budget: Option<usize>, limits: BTreeMap<String, usize>) -> Result<Self, Error> {
        options.check()?;
        // A broker takes or refuses a batch as a whole, so no batch may be larger than a record may be.
        let smallest = limits.values().copied().min().unwrap_or(BATCH_BYTES);
        let batch_bytes = smallest.clamp(1, BATCH_BYTES).to_string();
        let defaults = [DEFAULTS.as_slice(), &[("batch.size", &batch_bytes)]].concat();
        let config = options.client(&defaults, &options.producer);
        let client = kafka::create(config.create_with_context(DeliveryContext::new(options)))?;
        let wire = Wire::new(options)?;
        // Who does not wait long for a delivery does not wait long for what comes before it.
        let delivery = options.producer.get("message.timeout.ms").and_then(|timeout| timeout.parse().ok());
        let patience = delivery.map_or(PATIENCE, |timeout| Duration::from_millis(timeout).min(PATIENCE));
        Ok(Self { client, options: options.clone(), wire, patience, sent: Published::default(), budget, limits })
    }

    /// Publishes an article event under its id.
    pub fn article(&mut self, event: &ArticleEvent) -> Result<(), PublishError> {
        self.publish(topics::ARTICLES, &event.id, event)
    }

    /// The same for one that was read at `place`: where a broker refuses it, it is told by
    /// [`Publisher::refused`], and the others go on.
    pub fn article_from(&mut self, place: &Place, event: &ArticleEvent) -> Result<(), PublishError> {
        let record = self.outgoing(topics::ARTICLES, &event.id, event)?;
        self.hand_over(&record, Some(place))
    }

    /// Publishes a value. Returns when it is in the buffer; waits while that is full.
    ///
    /// # Errors
    /// Those of this value (class poison), and those of records sent before that ended the publisher.
    pub fn publish<T: Record>(&mut self, topic: &str, key: &str, value: &T) -> Result<(), PublishError> {
        let record = self.outgoing(topic, key, value)?;
        self.send(&record)
    }

    /// The record of a value under its key.
    pub fn outgoing<T: Record>(&self, topic: &str, key: &str, value: &T) -> Result<Outgoing, PublishError> {
        let value = self.wire.encode_within(self.patience, topic, value).map_err(Error::from)??;
        let key = Some(key.as_bytes().to_vec());
        Ok(Outgoing { topic: topic.to_owned(), key, value: Some(value), ..Outgoing::default() })
    }

    /// Publishes bytes as they are: a dead letter that is sent again, a tombstone.
    pub fn send(&mut self, record: &Outgoing) -> Result<(), PublishError> {
        self.hand_over(record, None)
    }

    fn hand_over(&mut self, record: &Outgoing, place: Option<&Place>) -> Result<(), PublishError> {
        let limit = self.limit(&record.topic);
        let too_large = || Error::TooLarge { topic: record.topic.clone(), bytes: record.bytes(), limit };
        if record.bytes() > limit {
            return Err(too_large().into());
        }
        if let Some(budget) = self.budget.filter(|budget| self.sent.bytes + record.bytes() > *budget) {
            return Err(PublishError::Full { budget });
        }
        loop {
            self.client.context().check()?;
            match enqueue(&self.client, record, place) {
                Ok(()) => break,
                Err(RDKafkaErrorCode::QueueFull) => std::thread::sleep(Duration::from_millis(1)),
                Err(RDKafkaErrorCode::MessageSizeTooLarge) => return Err(too_large().into()),
                Err(code) => {
                    return Err(PublishError::Bus(Error::kafka("publishing", &KafkaError::MessageProduction(code))));
                }
            }
        }
        self.sent.records += 1;
        self.sent.bytes += record.bytes();
        Ok(())
    }

    /// The largest record, in bytes of key and value, that a topic takes.
    pub fn limit(&self, topic: &str) -> usize {
        self.limits.get(topic).copied().unwrap_or(message_max_bytes(&self.options))
    }

    /// What the brokers refused since the last call, of the records that were sent with their place.
    pub fn refused(&mut self) -> Vec<Refused> {
        let refused = self.client.context().take_refused();
        self.sent.records -= refused.len() as u64;
        self.sent.bytes -= refused.iter().map(|refused| refused.bytes).sum::<usize>();
        refused
    }

    /// Waits until everything is delivered or refused.
    pub fn flush(&self) -> Result<(), Error> {
        let flushed = self.client.flush(FINISH_TIMEOUT);
        self.client.context().check()?;
        flushed.map_err(|e| Error::kafka("waiting for deliveries", &e))
    }

    /// Waits until everything is delivered. A refused record that nobody has asked for is an error here.
    pub fn finish(mut self) -> Result<Published, Error> {
        self.flush()?;
        match self.refused().pop() {
            Some(Refused { error, .. }) => Err(error),
            None => Ok(self.sent),
        }
    }
}
