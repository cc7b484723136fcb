//! What became of the records that a producer sent.

use super::error::{delivery_is_hopeless, record_is_refused};
use super::kafka::Context;
use super::producer::Outgoing;
use super::{Error, Options};
use crate::ErrorClass;
use crate::article::Place;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{BaseRecord, ProducerContext, ThreadedProducer};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A record that a broker refused, though it takes others.
#[derive(Debug)]
pub struct Refused {
    /// Where it was read.
    pub place: Place,
    /// Its key.
    pub key: String,
    /// Bytes of key and value.
    pub bytes: usize,
    /// Why it was refused.
    pub error: Error,
}

/// Hears what became of each record. Those that were sent with the place they were read at may be refused one by
/// one; any other refusal is a failure of all.
#[derive(Default)]
pub(super) struct DeliveryContext {
    pub(super) client: Context,
    failures: Mutex<Failures>,
}

#[derive(Default)]
struct Failures {
    passing: Option<String>,
    hopeless: Option<(String, RDKafkaErrorCode)>,
    refused: Vec<Refused>,
}

impl DeliveryContext {
    pub(super) fn new(options: &Options) -> Self {
        Self { client: Context::new(options), failures: Mutex::default() }
    }

    /// The first failure, for a producer whose every record must arrive.
    pub(super) fn check(&self) -> Result<(), Error> {
        self.client.check()?;
        match self.take_failures()? {
            Some(reason) => Err(Error::Kafka { step: "delivering a record", reason, class: ErrorClass::Fatal }),
            None => Ok(()),
        }
    }

    /// The failures since the last call: the hopeless one as an error that ends the worker.
    pub(super) fn take_failures(&self) -> Result<Option<String>, Error> {
        let mut failures = self.failures();
        let (hopeless, passing) = (failures.hopeless.take(), failures.passing.take());
        if let Some(unwritable) = self.client.take_unwritable() {
            return Err(unwritable);
        }
        match hopeless {
            Some((topic, RDKafkaErrorCode::TopicAuthorizationFailed)) => Err(self.client.unwritable(topic)),
            Some((topic, RDKafkaErrorCode::UnknownTopic | RDKafkaErrorCode::UnknownTopicOrPartition)) => {
                Err(Error::NoTopic { topic, servers: self.client.servers().to_owned() })
            }
            Some((topic, code)) => Err(Error::Unwritable { topic, reason: code.to_string() }),
            None => Ok(passing),
        }
    }

    /// The right that is missing, where a call of the transaction protocol failed for that.
    pub(super) fn denied(&self, error: &KafkaError) -> Option<Error> {
        // The line of the log that names the topic comes by another way.
        const LOG_DELAY: Duration = Duration::from_secs(1);
        let code = error.rdkafka_error_code()?;
        if code != RDKafkaErrorCode::TopicAuthorizationFailed {
            return self.client.access().missing(code);
        }
        let deadline = Instant::now() + LOG_DELAY;
        loop {
            if let Some(unwritable) = self.client.take_unwritable() {
                return Some(unwritable);
            }
            if Instant::now() > deadline {
                return Some(self.client.access().missing_somewhere());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The records that were refused one by one since the last call.
    pub(super) fn take_refused(&self) -> Vec<Refused> {
        std::mem::take(&mut self.failures().refused)
    }

    fn failures(&self) -> MutexGuard<'_, Failures> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for DeliveryContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.client.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.client.error(error, reason);
    }
}

impl ProducerContext for DeliveryContext {
    /// Where the record was read.
    type DeliveryOpaque = Box<Option<Place>>;

    fn delivery(&self, result: &DeliveryResult<'_>, place: Box<Option<Place>>) {
        let Err((error, message)) = result else { return };
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
        if matches!(code, RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight) {
            return; // its transaction was aborted
        }
        let topic = message.topic().to_owned();
        let mut failures = self.failures();
        match *place {
            Some(place) if record_is_refused(code) => {
                let key = message.key().unwrap_or_default();
                let bytes = key.len() + message.payload().map_or(0, <[u8]>::len);
                let reason = format!("{code}; it has {bytes} bytes");
                let (key, error) = (String::from_utf8_lossy(key).into_owned(), Error::Unwritable { topic, reason });
                failures.refused.push(Refused { place, key, bytes, error });
            }
            _ if delivery_is_hopeless(code) => {
                failures.hopeless.get_or_insert((topic, code));
            }
            _ => {
                failures.passing.get_or_insert(format!("{topic}: {code}"));
            }
        }
    }
}

/// Puts a record into the client's buffer, with the place that it was read at.
pub(super) fn enqueue(
    client: &ThreadedProducer<DeliveryContext>,
    record: &Outgoing,
    place: Option<&Place>,
) -> Result<(), RDKafkaErrorCode> {
    let mut base: BaseRecord<'_, [u8], [u8], _> = BaseRecord::with_opaque_to(&record.topic, Box::new(place.cloned()));
    base.key = record.key.as_deref();
    base.payload = record.value.as_deref();
    base.headers = record.headers.clone();
    base.partition = record.partition;
    client.send(base).map_err(|(error, _)| error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown))
}
