//! The worker's producer: records and consumed offsets in one transaction, or, where a cluster has no
//! transactions, first the records and then the offsets.
//!
//! Each record is sent under the [`Lease`] of the partition that it comes from. When one of them has ended, nothing
//! more is sent under it, and the open transaction can only be aborted.

use super::consumer::Consumer;
use super::delivery::{DeliveryContext, enqueue};
use super::kafka;
use super::lease::Lease;
use super::{Error, Options};
use crate::{ErrorClass, failpoint};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::OwnedHeaders;
use rdkafka::metadata::Metadata;
use rdkafka::producer::{Producer as _, ThreadedProducer};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// One blocking call of the transaction protocol; after it the consumer is polled, and the call made again.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// The same at the start, so that an end is heard soon, and when there is little time left.
const SHORT_CALL_TIMEOUT: Duration = Duration::from_millis(500);
/// How long a cluster is waited for at the start.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How often a call that fails again and again is told of.
const TELL_INTERVAL: Duration = Duration::from_secs(5);
/// How often the consumer is polled during a wait.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_millis(100);
/// The largest record that any of litflow's topics takes by default.
const MESSAGE_MAX_BYTES: (usize, &str) = (16 << 20, "16777216");

/// What a crash may do to the outputs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// Outputs and offsets commit together.
    #[default]
    ExactlyOnce,
    /// Outputs may be repeated; their ids are the same each time.
    AtLeastOnce,
}

/// A record to be sent.
#[derive(Debug, Clone, Default)]
pub struct Outgoing {
    /// Topic.
    pub topic: String,
    /// Key.
    pub key: Option<Vec<u8>>,
    /// Value; none is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Headers.
    pub headers: Option<OwnedHeaders>,
    /// Partition; without one the key decides.
    pub partition: Option<i32>,
}

impl Outgoing {
    /// Bytes of key and value.
    pub fn bytes(&self) -> usize {
        self.key.as_ref().map_or(0, Vec::len) + self.value.as_ref().map_or(0, Vec::len)
    }
}

/// What the producer's defaults are for every producer of litflow.
pub(super) const DEFAULTS: [(&str, &str); 8] = [
    ("enable.idempotence", "true"),
    // As Java clients do it, so that producers of any language agree on a key's partition.
    ("partitioner", "murmur2_random"),
    ("compression.type", "lz4"),
    ("linger.ms", "5"),
    // Half of the client's own default: records take nearly twice their bytes there, and `litflow ingest`
    // promises to stay below 200 MB. It must hold the largest record.
    ("queue.buffering.max.kbytes", "32768"),
    ("queue.buffering.max.messages", "200000"),
    ("message.max.bytes", MESSAGE_MAX_BYTES.1),
    // Each transaction meets CONCURRENT_TRANSACTIONS once and then waits this long.
    ("retry.backoff.ms", "5"),
];

/// What is asked and told again and again while the cluster is waited for.
pub struct Patience {
    /// By when a worker that is to end has to be over; none as long as it is to go on.
    pub over_by: Box<dyn Fn() -> Option<Instant> + Send>,
    /// Is told what is waited for.
    pub tell: Box<dyn Fn(&'static str) + Send>,
}

impl Default for Patience {
    /// Without end and without a word.
    fn default() -> Self {
        Self { over_by: Box::new(|| None), tell: Box::new(|_| {}) }
    }
}

/// The producer of one worker. A call that fails for the moment is made again until it succeeds, or until the
/// worker's deadline: then it fails with [`Error::GaveUp`].
pub struct Producer {
    client: ThreadedProducer<DeliveryContext>,
    /// None is at-least-once.
    transactional_id: Option<String>,
    message_max_bytes: usize,
    patience: Patience,
    open: bool,
    /// Of all that was sent since the last commit, by partition.
    leases: BTreeMap<i32, Lease>,
}

impl Producer {
    /// Makes the client. With exactly-once delivery this fences an earlier producer of the same
    /// transactional id and clears what it left hanging, which takes a cluster that answers within a minute.
    /// Where there is a deadline already, nothing is waited for: nothing has been consumed yet.
    pub fn new(options: &Options, delivery: Delivery, patience: Patience) -> Result<Self, Error> {
        options.check()?;
        let transactional_id = (delivery == Delivery::ExactlyOnce).then(|| options.transactional_id());
        let mut defaults = DEFAULTS.to_vec();
        if let Some(id) = &transactional_id {
            defaults.push(("transactional.id", id));
            // Readers wait this long after a crash; it must outlast the longest transaction.
            defaults.push(("transaction.timeout.ms", "15000"));
        }
        let config = options.client(&defaults, &options.producer);
        let client = kafka::create(config.create_with_context(DeliveryContext::new(options)))?;
        let message_max_bytes = message_max_bytes(options);
        let producer =
            Self { client, transactional_id, message_max_bytes, patience, open: false, leases: BTreeMap::new() };
        if producer.transactional_id.is_some() {
            producer.init_transactions()?;
        }
        Ok(producer)
    }

    fn init_transactions(&self) -> Result<(), Error> {
        let latest = Instant::now() + START_TIMEOUT;
        let mut told = None;
        while let Err(error) = self.client.init_transactions(SHORT_CALL_TIMEOUT) {
            let error = self.transaction_error("preparing transactions", &error);
            let is_over = (self.patience.over_by)().is_some() || Instant::now() > latest;
            self.before_another_try(error, is_over, &mut told)?;
        }
        self.client.context().client.alive();
        Ok(())
    }

    /// The cluster's topics.
    pub fn metadata(&self) -> Result<Metadata, Error> {
        let metadata = self.client.client().fetch_metadata(None, CALL_TIMEOUT);
        metadata.map_err(|e| self.refused_or(Error::kafka("asking for the topics", &e)))
    }

    /// Opens a transaction, where none is open.
    pub fn begin(&mut self) -> Result<(), Error> {
        if !self.open && self.transactional_id.is_some() {
            self.client.begin_transaction().map_err(|e| self.transaction_error("opening a transaction", &e))?;
        }
        self.open = true;
        Ok(())
    }

    /// Hands a record over that comes from the lease's partition. While the buffer is full the consumer is kept alive.
    pub fn send(&mut self, record: &Outgoing, lease: &Lease, consumer: &mut Consumer) -> Result<(), Error> {
        // One that has ended stays, though its partition be ours again: the transaction is spoilt.
        self.leases.entry(lease.partition()).or_insert_with(|| lease.clone());
        let mut last_poll = Instant::now();
        loop {
            if lease.has_ended() {
                return Err(Error::Lost { step: "sending a record", partitions: vec![lease.partition()] });
            }
            let Err(code) = enqueue(&self.client, record, None) else { return Ok(()) };
            if code == RDKafkaErrorCode::QueueFull {
                self.check_deadline("waiting for space in the producer's buffer")?;
                std::thread::sleep(Duration::from_millis(1));
                poll_now_and_then(&mut last_poll, consumer);
                continue;
            }
            let error = KafkaError::MessageProduction(code);
            return Err(match code {
                RDKafkaErrorCode::MessageSizeTooLarge => Error::TooLarge {
                    topic: record.topic.clone(),
                    bytes: record.bytes(),
                    limit: self.message_max_bytes,
                },
                RDKafkaErrorCode::Fatal | RDKafkaErrorCode::Fenced => self.fatal("sending a record", &error),
                _ => match Error::kafka("sending a record", &error) {
                    // The transaction is in an error state: its abort clears it.
                    Error::Kafka { step, reason, .. } if self.transactional_id.is_some() => {
                        Error::Kafka { step, reason, class: ErrorClass::Abort }
                    }
                    other => other,
                },
            });
        }
    }

    /// Commits the records sent and `offsets` (the next ones to be read, by partition). The consumer is kept
    /// alive meanwhile. An error of class abort asks for [`Producer::abort`] and a rewind.
    pub fn commit(&mut self, offsets: &BTreeMap<i32, i64>, consumer: &mut Consumer) -> Result<(), Error> {
        self.wait_for_deliveries(consumer)?;
        let failed = self.client.context().take_failures()?;
        failpoint::reach("before_offsets");
        if self.transactional_id.is_none() {
            if let Some(reason) = failed {
                return Err(Error::Kafka { step: "delivering records", reason, class: ErrorClass::Abort });
            }
            self.again(consumer, |consumer, _| match self.check_leases().and_then(|()| consumer.commit(offsets)) {
                Err(Error::Kafka { step, reason, class: ErrorClass::Fatal }) => {
                    Err(Error::Kafka { step, reason, class: ErrorClass::Abort })
                }
                other => other,
            })?;
            self.close();
            return Ok(());
        }
        let list = consumer.list(offsets)?;
        let metadata = consumer.group_metadata()?;
        self.again(consumer, |_, timeout| {
            self.check_leases()?;
            let added = self.client.send_offsets_to_transaction(&list, &metadata, timeout);
            added.map_err(|e| self.transaction_error("adding offsets to the transaction", &e))
        })?;
        self.check_leases()?;
        failpoint::reach("before_commit");
        // From here on the brokers decide: they have the offsets with the member's generation.
        self.again(consumer, |_, timeout| {
            let committed = self.client.commit_transaction(timeout);
            committed.map_err(|e| self.transaction_error("committing the transaction", &e))
        })?;
        self.close();
        failpoint::reach("after_commit");
        Ok(())
    }

    /// The transaction is over.
    fn close(&mut self) {
        self.open = false;
        self.leases.clear();
    }

    fn check_leases(&self) -> Result<(), Error> {
        let ended = self.leases.values().filter(|lease| lease.has_ended());
        let partitions: Vec<i32> = ended.map(Lease::partition).collect();
        if partitions.is_empty() { Ok(()) } else { Err(Error::Lost { step: "committing", partitions }) }
    }

    /// Drops the open transaction.
    pub fn abort(&mut self, consumer: &mut Consumer) -> Result<(), Error> {
        if self.open && self.transactional_id.is_some() {
            self.again(consumer, |_, timeout| {
                let aborted = self.client.abort_transaction(timeout);
                aborted.map_err(|e| self.transaction_error("aborting the transaction", &e))
            })?;
        }
        self.close();
        self.client.context().client.take_unwritable(); // told once for each partition
        self.client.context().take_failures().map(|_| ())
    }

    /// `commit_transaction` itself waits in steps of 100 ms while anything is in flight, so the wait is done
    /// here, finely.
    fn wait_for_deliveries(&self, consumer: &mut Consumer) -> Result<(), Error> {
        let mut last_poll = Instant::now();
        while self.client.in_flight_count() > 0 {
            self.client.context().client.check()?;
            // Records for a topic that the transaction cannot be extended to are never sent.
            self.client.context().client.take_unwritable().map_or(Ok(()), Err)?;
            self.check_deadline("waiting for acknowledgements")?;
            std::thread::sleep(Duration::from_micros(500));
            poll_now_and_then(&mut last_poll, consumer);
        }
        Ok(())
    }

    /// librdkafka's rule: a retriable error asks for the same call again. `call` is told how long it may take.
    fn again(
        &self,
        consumer: &mut Consumer,
        call: impl Fn(&Consumer, Duration) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut told = None;
        loop {
            let left = (self.patience.over_by)().map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let timeout = left.map_or(CALL_TIMEOUT, |left| left.clamp(SHORT_CALL_TIMEOUT, CALL_TIMEOUT));
            let Err(error) = call(consumer, timeout) else { return Ok(()) };
            self.before_another_try(error, self.is_over(), &mut told)?;
            consumer.keep_alive();
        }
    }

    /// Passes on what no other try helps against, and gives up when it is too late for one.
    fn before_another_try(&self, error: Error, is_over: bool, told: &mut Option<Instant>) -> Result<(), Error> {
        let Error::Kafka { step, reason, class: ErrorClass::Retriable } = error else { return Err(error) };
        (self.patience.tell)(step);
        self.client.context().client.check()?;
        if is_over {
            return Err(self.gave_up(step, reason));
        }
        // The first tries of a broker that has just started often fail: nobody needs to know.
        if told.get_or_insert_with(Instant::now).elapsed() > TELL_INTERVAL {
            *told = Some(Instant::now());
            tracing::warn!("{step}: {reason}; it is tried until it succeeds or the worker is to end");
        }
        std::thread::sleep(Duration::from_millis(20));
        Ok(())
    }

    fn is_over(&self) -> bool {
        (self.patience.over_by)().is_some_and(|deadline| Instant::now() > deadline)
    }

    fn check_deadline(&self, step: &'static str) -> Result<(), Error> {
        (self.patience.tell)(step);
        let unacknowledged = || format!("{} records are not acknowledged", self.client.in_flight_count());
        if self.is_over() { Err(self.gave_up(step, unacknowledged())) } else { Ok(()) }
    }

    fn gave_up(&self, step: &'static str, reason: String) -> Error {
        Error::GaveUp { step, servers: self.client.context().client.servers().to_owned(), reason }
    }

    fn transaction_error(&self, step: &'static str, error: &KafkaError) -> Error {
        if let Some(denied) = self.client.context().denied(error) {
            return denied;
        }
        let known = Error::kafka(step, error);
        if known.class() == ErrorClass::Fatal { self.fatal(step, error) } else { known }
    }

    fn fatal(&self, step: &'static str, error: &KafkaError) -> Error {
        use RDKafkaErrorCode::{Fenced, FencedInstanceId, InvalidProducerEpoch, ProducerFenced};
        let (code, reason) = match self.client.client().fatal_error() {
            Some((code, reason)) => (Some(code), reason),
            None => (error.rdkafka_error_code(), error.to_string()),
        };
        if let Some(Fenced | FencedInstanceId | InvalidProducerEpoch | ProducerFenced) = code {
            let transactional_id = self.transactional_id.clone().unwrap_or_default();
            return Error::Fenced { step, transactional_id, reason };
        }
        self.refused_or(Error::Kafka { step, reason, class: ErrorClass::Fatal })
    }

    fn refused_or(&self, error: Error) -> Error {
        self.client.context().client.check().err().unwrap_or(error)
    }
}

/// The largest record that a producer with these options takes.
pub fn message_max_bytes(options: &Options) -> usize {
    let set = options.producer.get("message.max.bytes").or_else(|| options.properties.get("message.max.bytes"));
    set.and_then(|bytes| bytes.parse().ok()).unwrap_or(MESSAGE_MAX_BYTES.0)
}

fn poll_now_and_then(last_poll: &mut Instant, consumer: &mut Consumer) {
    if last_poll.elapsed() > KEEP_ALIVE_INTERVAL {
        *last_poll = Instant::now();
        consumer.keep_alive();
    }
}
