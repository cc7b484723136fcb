//! Publishes values that are not made from other records: article events, labels, model versions.
//!
//! Idempotent, so a retry neither repeats nor reorders; keyed, so that all events of an article keep their
//! order; bounded, so that a slow cluster slows the caller.

use super::codec::Record;
use super::producer::{DEFAULTS, DeliveryContext, Outgoing, enqueue, message_max_bytes};
use super::{Error, Options, codec, kafka, topics};
use crate::ErrorClass;
use crate::article::ArticleEvent;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{Producer as _, ThreadedProducer};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long the last records may take to be delivered.
const FINISH_TIMEOUT: Duration = Duration::from_secs(120);

/// Sends values to topics and knows what became of them.
pub struct Publisher {
    client: ThreadedProducer<DeliveryContext>,
    options: Options,
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
        options.check()?;
        let config = options.client(&DEFAULTS, &options.producer);
        let client = kafka::create(config.create_with_context(DeliveryContext::new(options)))?;
        Ok(Self { client, options: options.clone(), sent: Published::default(), budget, limits: BTreeMap::new() })
    }

    /// Refuses larger records than these, by topic ([`Admin::record_limits`](super::admin::Admin::record_limits)),
    /// one by one: where the cluster refuses one, it is too late to go on.
    pub fn with_limits(self, limits: BTreeMap<String, usize>) -> Self {
        Self { limits, ..self }
    }

    /// Publishes an article event under its id.
    pub fn article(&mut self, event: &ArticleEvent) -> Result<(), PublishError> {
        self.publish(topics::ARTICLES, &event.id, event)
    }

    /// Publishes a value. Returns when it is in the buffer; waits while that is full.
    ///
    /// # Errors
    /// Those of this value (class poison), and those of records sent before that ended the publisher.
    pub fn publish<T: Record>(&mut self, topic: &str, key: &str, value: &T) -> Result<(), PublishError> {
        let value = value.encode()?;
        self.send(&Outgoing {
            topic: topic.to_owned(),
            key: Some(key.as_bytes().to_vec()),
            value: Some(value),
            headers: None,
        })
    }

    /// Publishes bytes as they are: a dead letter that is sent again, a tombstone.
    pub fn send(&mut self, record: &Outgoing) -> Result<(), PublishError> {
        let limit = self.limits.get(&record.topic).copied().unwrap_or(message_max_bytes(&self.options));
        let too_large = || Error::TooLarge { topic: record.topic.clone(), bytes: record.bytes(), limit };
        if record.bytes() > limit {
            return Err(too_large().into());
        }
        if let Some(budget) = self.budget.filter(|budget| self.sent.bytes + record.bytes() > *budget) {
            return Err(PublishError::Full { budget });
        }
        loop {
            self.client.context().check()?;
            match enqueue(&self.client, record) {
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

    /// Waits until everything is delivered.
    pub fn finish(self) -> Result<Published, Error> {
        let flushed = self.client.flush(FINISH_TIMEOUT);
        self.client.context().check()?;
        flushed.map_err(|e| Error::kafka("waiting for deliveries", &e))?;
        Ok(self.sent)
    }
}
