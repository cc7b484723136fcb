//! One writer at a time: read, decide and write as if nobody else did.
//!
//! Kafka has no conditional write, but it fences: of all producers with one transactional id only the newest can
//! commit. So the id is taken first, then the topic is read, then the answer is written in a transaction. Whatever
//! an earlier holder committed was readable when the id was taken; whatever he had open is aborted; and where
//! somebody else takes the id before the commit, the commit fails with [`Error::Fenced`] and nothing was written.

use super::delivery::{DeliveryContext, enqueue};
use super::kafka;
use super::producer::{DEFAULTS, Outgoing, message_max_bytes};
use super::{Error, Options};
use crate::ErrorClass;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{Producer as _, ThreadedProducer};
use std::time::{Duration, Instant};

/// One blocking call of the transaction protocol; a retriable error asks for the same call again.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the cluster is asked for.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The holder of a transactional id.
pub struct Exclusive {
    client: ThreadedProducer<DeliveryContext>,
    transactional_id: String,
    message_max_bytes: usize,
}

impl Exclusive {
    /// Takes the id from whoever holds it.
    pub fn take(options: &Options, transactional_id: &str) -> Result<Self, Error> {
        options.check()?;
        let mut defaults = DEFAULTS.to_vec();
        defaults.push(("transactional.id", transactional_id));
        // Readers wait this long for a holder that was killed, unless another takes the id before.
        defaults.push(("transaction.timeout.ms", "15000"));
        let config = options.client(&defaults, &options.producer);
        let transactional_id = transactional_id.to_owned();
        let access = Options { transactional_id: Some(transactional_id.clone()), ..options.clone() };
        let client = kafka::create(config.create_with_context(DeliveryContext::new(&access)))?;
        let exclusive = Self { client, transactional_id, message_max_bytes: message_max_bytes(options) };
        exclusive.again("taking the place of other writers", |client| client.init_transactions(CALL_TIMEOUT))?;
        exclusive.client.context().client.alive();
        Ok(exclusive)
    }

    /// Writes the records, all or none. After an error of class abort or poison nothing was written, and the holder
    /// may go on.
    pub fn commit<'r>(&self, records: impl IntoIterator<Item = &'r Outgoing>) -> Result<(), Error> {
        self.client.begin_transaction().map_err(|e| self.error("opening a transaction", &e))?;
        let written = self.send(records).and_then(|()| {
            self.wait_for_deliveries()?;
            self.again("committing the transaction", |client| client.commit_transaction(CALL_TIMEOUT))
        });
        let Err(error) = written else { return Ok(()) };
        // Why a record was refused says more than that its transaction was.
        let error = match (&error, self.client.context().take_failures()) {
            (Error::Fenced { .. }, _) => error,
            (_, Err(hopeless)) => hopeless,
            (_, Ok(Some(reason))) => Error::Kafka { step: "delivering a record", reason, class: error.class() },
            (_, Ok(None)) => self.client.context().client.check().err().unwrap_or(error),
        };
        if matches!(error.class(), ErrorClass::Abort | ErrorClass::Poison) {
            self.again("aborting the transaction", |client| client.abort_transaction(CALL_TIMEOUT))?;
            self.client.context().take_failures()?;
        }
        Err(error)
    }

    fn send<'r>(&self, records: impl IntoIterator<Item = &'r Outgoing>) -> Result<(), Error> {
        for record in records {
            let deadline = Instant::now() + TIMEOUT;
            while let Err(code) = enqueue(&self.client, record, None) {
                match code {
                    RDKafkaErrorCode::QueueFull if Instant::now() < deadline => {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    RDKafkaErrorCode::MessageSizeTooLarge => {
                        let (topic, bytes) = (record.topic.clone(), record.bytes());
                        return Err(Error::TooLarge { topic, bytes, limit: self.message_max_bytes });
                    }
                    code => {
                        return Err(match self.error("sending a record", &KafkaError::MessageProduction(code)) {
                            // The transaction is in an error state: its abort clears it.
                            Error::Kafka { step, reason, .. } if code != RDKafkaErrorCode::Fatal => {
                                Error::Kafka { step, reason, class: ErrorClass::Abort }
                            }
                            error => error,
                        });
                    }
                }
            }
        }
        Ok(())
    }

    /// `commit_transaction` itself waits in steps of 100 ms while anything is in flight, so the wait is done here.
    fn wait_for_deliveries(&self) -> Result<(), Error> {
        let deadline = Instant::now() + TIMEOUT;
        while self.client.in_flight_count() > 0 && Instant::now() < deadline {
            self.client.context().client.check()?;
            self.client.context().client.take_unwritable().map_or(Ok(()), Err)?;
            std::thread::sleep(Duration::from_micros(500));
        }
        Ok(())
    }

    fn again(
        &self,
        step: &'static str,
        call: impl Fn(&ThreadedProducer<DeliveryContext>) -> Result<(), KafkaError>,
    ) -> Result<(), Error> {
        let deadline = Instant::now() + TIMEOUT;
        while let Err(error) = call(&self.client) {
            let error = self.error(step, &error);
            if error.class() != ErrorClass::Retriable || Instant::now() > deadline {
                return Err(error);
            }
            self.client.context().client.check()?;
            std::thread::sleep(Duration::from_millis(20)); // some answers come at once
        }
        Ok(())
    }

    fn error(&self, step: &'static str, error: &KafkaError) -> Error {
        use RDKafkaErrorCode::{Fenced, InvalidProducerEpoch, ProducerFenced};
        let (code, reason) = match self.client.client().fatal_error() {
            Some((code, reason)) => (Some(code), reason),
            None => (error.rdkafka_error_code(), error.to_string()),
        };
        if let Some(Fenced | InvalidProducerEpoch | ProducerFenced) = code {
            return Error::Fenced { step, transactional_id: self.transactional_id.clone(), reason };
        }
        let context = self.client.context();
        context.denied(error).or(context.client.check().err()).unwrap_or_else(|| Error::kafka(step, error))
    }
}
