//! One writer at a time: read, decide and write as if nobody else did.
//!
//! Kafka has no conditional write, but it fences: of all producers with one transactional id only the newest can
//! commit. So the id is taken first, then the topic is read, then the answer is written in a transaction. Whatever
//! an earlier holder committed was readable when the id was taken; whatever he had open is aborted; and where
//! somebody else takes the id before the commit, the commit fails with [`Error::Fenced`] and nothing was written.

use super::delivery::{DeliveryContext, enqueue};
use super::kafka;
use super::producer::{DEFAULTS, Outgoing};
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
        let client = kafka::create(config.create_with_context(DeliveryContext::new(options)))?;
        let exclusive = Self { client, transactional_id: transactional_id.to_owned() };
        exclusive.again("taking the place of other writers", |client| client.init_transactions(CALL_TIMEOUT))?;
        Ok(exclusive)
    }

    /// Writes the records, all or none.
    pub fn commit(self, records: &[Outgoing]) -> Result<(), Error> {
        const SENDING: &str = "sending a record";
        self.client.begin_transaction().map_err(|e| self.error("opening a transaction", &e))?;
        for record in records {
            enqueue(&self.client, record, None).map_err(|code| match code {
                RDKafkaErrorCode::MessageSizeTooLarge => Error::Unwritable {
                    topic: record.topic.clone(),
                    reason: format!("{} bytes are more than message.max.bytes", record.bytes()),
                },
                code => self.error(SENDING, &KafkaError::MessageProduction(code)),
            })?;
        }
        // This waits for the deliveries; a record that was not delivered makes it fail.
        self.again("committing the transaction", |client| client.commit_transaction(CALL_TIMEOUT)).map_err(|error| {
            // Why a record was refused says more than that its transaction was.
            match error {
                Error::Fenced { .. } => error,
                error => self.client.context().check().err().unwrap_or(error),
            }
        })
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
        self.client.context().client.check().err().unwrap_or_else(|| Error::kafka(step, error))
    }
}
