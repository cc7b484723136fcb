//! A member of the consumer group: messages, and rebalances as events to be answered in one's own time.
//!
//! librdkafka waits for the answer to a revocation, not for its callback. So the callback only notes the
//! revocation; the worker sees it as [`Event::Revoked`], drains and commits at its own pace while it goes on
//! polling, and then lets go. Heartbeats continue in librdkafka's own thread.

use super::kafka::{self, Context};
use super::{Error, Options};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{
    BaseConsumer, CommitMode, Consumer as _, ConsumerContext, ConsumerGroupMetadata, RebalanceProtocol,
};
use rdkafka::error::KafkaError;
use rdkafka::message::{Message as _, OwnedMessage};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a question to the cluster outside the stream may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// What a poll brings.
#[derive(Debug)]
pub enum Event {
    /// A record.
    Message(Box<OwnedMessage>),
    /// All there is of this partition was delivered.
    EndOfPartition(i32),
    /// These partitions were added; they are being fetched already.
    Assigned(Vec<i32>),
    /// These partitions are to be given up: call [`Consumer::let_go`] when their work is committed. Where
    /// they are `lost`, somebody else may have them already and nothing of them may be committed.
    #[allow(missing_docs)]
    Revoked { partitions: Vec<i32>, lost: bool },
}

/// A member of a group that consumes one topic.
pub struct Consumer {
    client: BaseConsumer<GroupContext>,
    topic: String,
    /// Events that arrived during [`Consumer::keep_alive`].
    set_aside: VecDeque<Event>,
    /// Partitions that were revoked and not let go yet: the group waits for them.
    owed: Vec<i32>,
    last_probe: Option<Instant>,
}

#[derive(Default)]
struct GroupContext {
    client: Context,
    events: Mutex<VecDeque<Event>>,
    paused: AtomicBool,
    closing: AtomicBool,
}

impl GroupContext {
    fn note(&self, event: Event) {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).push_back(event);
    }

    fn next_event(&self) -> Option<Event> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

impl ClientContext for GroupContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.client.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.client.error(error, reason);
    }
}

impl ConsumerContext for GroupContext {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, event: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let answered = match event {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                let assigned = assign(consumer, list);
                if assigned.is_ok() && self.paused.load(Ordering::Relaxed) {
                    // Back-pressure holds for new partitions too.
                    let _ = consumer.pause(list);
                }
                self.note(Event::Assigned(partitions(list)));
                assigned
            }
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS if !self.closing.load(Ordering::Relaxed) => {
                self.note(Event::Revoked { partitions: partitions(list), lost: consumer.assignment_lost() });
                Ok(())
            }
            _ => unassign(consumer, list),
        };
        if let Err(error) = answered {
            tracing::error!("a rebalance could not be answered: {error}");
        }
    }
}

fn assign(consumer: &BaseConsumer<GroupContext>, list: &TopicPartitionList) -> Result<(), KafkaError> {
    match consumer.rebalance_protocol() {
        RebalanceProtocol::Cooperative => consumer.incremental_assign(list),
        RebalanceProtocol::Eager | RebalanceProtocol::None => consumer.assign(list),
    }
}

fn unassign(consumer: &BaseConsumer<GroupContext>, list: &TopicPartitionList) -> Result<(), KafkaError> {
    match consumer.rebalance_protocol() {
        RebalanceProtocol::Cooperative => consumer.incremental_unassign(list),
        RebalanceProtocol::Eager | RebalanceProtocol::None => consumer.unassign(),
    }
}

fn partitions(list: &TopicPartitionList) -> Vec<i32> {
    list.elements().iter().map(|element| element.partition()).collect()
}

impl Consumer {
    /// Joins the group.
    pub fn new(options: &Options, topic: &str) -> Result<Self, Error> {
        options.check()?;
        let defaults = [
            ("auto.offset.reset", "earliest"),
            ("isolation.level", "read_committed"),
            ("partition.assignment.strategy", "cooperative-sticky"),
            ("session.timeout.ms", "10000"),
            // What librdkafka fetches ahead of the worker, beside the worker's own window.
            ("queued.max.messages.kbytes", "16384"),
            ("fetch.message.max.bytes", "1048576"),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("enable.partition.eof", "true"),
            ("group.id", &options.group_id),
        ];
        let context = GroupContext { client: Context::new(options), ..GroupContext::default() };
        let config = options.client(&defaults, &options.consumer);
        let client: BaseConsumer<GroupContext> = kafka::create(config.create_with_context(context))?;
        client.subscribe(&[topic]).map_err(|e| Error::kafka("subscribing", &e))?;
        Ok(Self { client, topic: topic.to_owned(), set_aside: VecDeque::new(), owed: Vec::new(), last_probe: None })
    }

    /// The next event, waiting for it at most `timeout`.
    pub fn poll(&mut self, timeout: Duration) -> Result<Option<Event>, Error> {
        match self.set_aside.pop_front() {
            Some(event) => Ok(Some(event)),
            None => self.fetch(timeout),
        }
    }

    /// Stays a live member of the group during a wait. What arrives is kept for the next [`Consumer::poll`].
    pub fn keep_alive(&mut self) -> Result<(), Error> {
        while let Some(event) = self.fetch(Duration::ZERO)? {
            self.set_aside.push_back(event);
        }
        Ok(())
    }

    fn fetch(&mut self, timeout: Duration) -> Result<Option<Event>, Error> {
        self.client.context().client.check()?;
        if let Some(event) = self.next_rebalance() {
            return Ok(Some(event));
        }
        match self.client.poll(timeout) {
            None => Ok(self.next_rebalance()),
            Some(Ok(message)) => {
                self.client.context().client.alive();
                Ok(Some(Event::Message(Box::new(message.detach()))))
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                self.client.context().client.alive();
                Ok(Some(Event::EndOfPartition(partition)))
            }
            Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => Err(Error::kafka("consuming", &error)),
            // Any other error is of the moment: librdkafka goes on by itself, the context has logged it.
            Some(Err(_)) => Ok(self.next_rebalance()),
        }
    }

    fn next_rebalance(&mut self) -> Option<Event> {
        let event = self.client.context().next_event();
        if let Some(Event::Revoked { partitions, .. }) = &event {
            self.owed.extend(partitions);
        }
        event
    }

    /// Why no broker can be reached at the moment, if that is so.
    pub fn brokers_down(&mut self) -> Option<String> {
        const PROBE_INTERVAL: Duration = Duration::from_secs(2);
        const PROBE_TIMEOUT: Duration = Duration::from_millis(200);
        let down = self.client.context().client.brokers_down()?;
        if self.last_probe.is_none_or(|last| last.elapsed() > PROBE_INTERVAL) {
            // librdkafka tells when all are gone, not when one is back.
            self.last_probe = Some(Instant::now());
            if self.client.fetch_metadata(Some(&self.topic), PROBE_TIMEOUT).is_ok() {
                self.client.context().client.alive();
                return None;
            }
        }
        Some(down)
    }

    /// Stops the flow of messages; polling goes on.
    pub fn pause(&self) -> Result<(), Error> {
        self.client.context().paused.store(true, Ordering::Relaxed);
        let assignment = self.assignment()?;
        self.client.pause(&assignment).map_err(|e| Error::kafka("pausing", &e))
    }

    /// Lets the messages flow again.
    pub fn resume(&self) -> Result<(), Error> {
        self.client.context().paused.store(false, Ordering::Relaxed);
        let assignment = self.assignment()?;
        self.client.resume(&assignment).map_err(|e| Error::kafka("resuming", &e))
    }

    /// Gives partitions up after [`Event::Revoked`].
    pub fn let_go(&mut self, partitions: &[i32]) -> Result<(), Error> {
        self.set_aside
            .retain(|event| !matches!(event, Event::Message(message) if partitions.contains(&message.partition())));
        self.owed.retain(|partition| !partitions.contains(partition));
        let mut list = TopicPartitionList::new();
        for &partition in partitions {
            list.add_partition(&self.topic, partition);
        }
        unassign(&self.client, &list).map_err(|e| Error::kafka("giving partitions up", &e))
    }

    /// Goes back (or on) to these offsets, as far as the partitions are still assigned. Messages fetched
    /// before are dropped.
    pub fn seek(&mut self, offsets: &BTreeMap<i32, i64>) -> Result<(), Error> {
        self.set_aside
            .retain(|event| !matches!(event, Event::Message(message) if offsets.contains_key(&message.partition())));
        let assigned: BTreeSet<i32> = partitions(&self.assignment()?).into_iter().collect();
        let list = self.list(offsets.iter().filter(|(partition, _)| assigned.contains(partition)))?;
        if list.count() == 0 {
            return Ok(());
        }
        let sought = self.client.seek_partitions(list, REQUEST_TIMEOUT).map_err(|e| Error::kafka("seeking", &e))?;
        for element in sought.elements() {
            element.error().map_err(|e| Error::kafka("seeking", &e))?;
        }
        Ok(())
    }

    /// Commits offsets outside a transaction, for at-least-once delivery.
    pub fn commit(&self, offsets: &BTreeMap<i32, i64>) -> Result<(), Error> {
        let list = self.list(offsets)?;
        self.client.commit(&list, CommitMode::Sync).map_err(|e| Error::kafka("committing offsets", &e))
    }

    /// What the brokers need to fence a member that lost its partitions.
    pub fn group_metadata(&self) -> Result<ConsumerGroupMetadata, Error> {
        self.client.group_metadata().ok_or_else(|| Error::Options("this consumer is in no group".into()))
    }

    /// Offsets as librdkafka takes them.
    pub fn list<'a>(&self, offsets: impl IntoIterator<Item = (&'a i32, &'a i64)>) -> Result<TopicPartitionList, Error> {
        let mut list = TopicPartitionList::new();
        for (&partition, &offset) in offsets {
            list.add_partition_offset(&self.topic, partition, Offset::Offset(offset))
                .map_err(|e| Error::kafka("listing offsets", &e))?;
        }
        Ok(list)
    }

    /// The first offset and the one after the last, at this moment.
    pub fn watermarks(&self, partition: i32) -> Result<(i64, i64), Error> {
        self.client
            .fetch_watermarks(&self.topic, partition, REQUEST_TIMEOUT)
            .map_err(|e| Error::kafka("asking for a partition's end", &e))
    }

    /// The offset that the group has committed for a partition.
    pub fn committed(&self, partition: i32) -> Result<Option<i64>, Error> {
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.topic, partition);
        let committed = self
            .client
            .committed_offsets(list, REQUEST_TIMEOUT)
            .map_err(|e| Error::kafka("asking for the committed offset", &e))?;
        Ok(committed.elements().iter().find_map(|element| match element.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        }))
    }

    fn assignment(&self) -> Result<TopicPartitionList, Error> {
        self.client.assignment().map_err(|e| Error::kafka("asking for the assignment", &e))
    }

    /// Leaves the group.
    pub fn close(mut self) {
        self.client.context().closing.store(true, Ordering::Relaxed);
        // A revocation that nobody has answered would keep the group, and the end of this client, waiting.
        while self.next_rebalance().is_some() {}
        let owed = std::mem::take(&mut self.owed);
        if !owed.is_empty()
            && let Err(error) = self.let_go(&owed)
        {
            tracing::warn!("{error}");
        }
    }
}
