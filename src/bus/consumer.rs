//! A member of the consumer group: messages, and rebalances as events to be answered in one's own time.
//!
//! librdkafka waits for the answer to a revocation, not for its callback. So the callback only notes the
//! revocation; the worker sees it as [`Event::Revoked`], drains and commits at its own pace while it goes on
//! polling, and then lets go. Heartbeats continue in librdkafka's own thread.
//!
//! All three ways of a group are spoken, by librdkafka's own properties: `cooperative-sticky` (the default) and the eager
//! `partition.assignment.strategy`s, `group.protocol=consumer` (KIP-848), and with each a static member by
//! `group.instance.id`.

use super::access::Access;
use super::kafka::{self, Context};
use super::lease::{Lease, Leases};
use super::{Error, Options};
use crate::{ErrorClass, failpoint};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{
    BaseConsumer, CommitMode, Consumer as _, ConsumerContext, ConsumerGroupMetadata, RebalanceProtocol,
};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Message as _, OwnedMessage};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a question to the cluster outside the stream may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How much may come during a wait before the partitions are paused.
const SET_ASIDE_BYTES: usize = 8 << 20;

/// What a poll brings.
#[derive(Debug)]
pub enum Event {
    /// A record, and the right to publish what it becomes.
    Message(Box<OwnedMessage>, Lease),
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
    options: Options,
    topic: String,
    /// Partitions that are not to flow, whatever [`Consumer::resume`] says.
    held: BTreeSet<i32>,
    /// Events that arrived during [`Consumer::keep_alive`], and the error that ended them.
    set_aside: VecDeque<Event>,
    set_aside_bytes: usize,
    /// Partitions that were stopped because too much was set aside.
    stopped: BTreeSet<i32>,
    failed: Option<Error>,
    /// The place in the group is gone.
    expelled: bool,
    /// Partitions that were revoked and not let go yet: the group waits for them.
    owed: Vec<i32>,
    last_probe: Option<Instant>,
}

#[derive(Default)]
struct GroupContext {
    client: Context,
    leases: Leases,
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
                self.leases.grant(&partitions(list));
                let assigned = assign(consumer, list);
                if assigned.is_ok() && self.paused.load(Ordering::Relaxed) {
                    // Back-pressure holds for new partitions too.
                    let _ = consumer.pause(list);
                }
                self.note(Event::Assigned(partitions(list)));
                assigned
            }
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS if !self.closing.load(Ordering::Relaxed) => {
                let lost = consumer.assignment_lost();
                if lost {
                    self.leases.end(&partitions(list)); // before anybody has heard of it
                }
                self.note(Event::Revoked { partitions: partitions(list), lost });
                Ok(())
            }
            _ => {
                self.leases.end(&partitions(list));
                unassign(consumer, list)
            }
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
        Ok(Self {
            client: join(options, topic)?,
            options: options.clone(),
            topic: topic.to_owned(),
            held: BTreeSet::new(),
            set_aside: VecDeque::new(),
            set_aside_bytes: 0,
            stopped: BTreeSet::new(),
            failed: None,
            expelled: false,
            owed: Vec::new(),
            last_probe: None,
        })
    }

    /// Joins the group anew after [`Error::Membership`]. Everything assigned is gone, and what was read of it with it.
    pub fn rejoin(&mut self) -> Result<(), Error> {
        self.abandon();
        let next = join(&self.options, &self.topic)?;
        let paused = self.client.context().paused.load(Ordering::Relaxed);
        next.context().paused.store(paused, Ordering::Relaxed);
        self.client = next;
        self.expelled = false;
        Ok(())
    }

    /// Forgets all partitions: whoever has them next begins at the last commit.
    fn abandon(&mut self) {
        self.client.context().leases.end_all();
        self.client.context().closing.store(true, Ordering::Relaxed);
        // A revocation that nobody has answered would keep the group, and the end of this client, waiting.
        while self.next_rebalance().is_some() {}
        let owed = std::mem::take(&mut self.owed);
        if !owed.is_empty()
            && let Err(error) = self.let_go(&owed)
        {
            tracing::warn!("{error}");
        }
        self.set_aside.clear();
        self.failed = None;
        self.held.clear();
        self.stopped.clear();
    }

    /// The next event, waiting for it at most `timeout`.
    pub fn poll(&mut self, timeout: Duration) -> Result<Option<Event>, Error> {
        while let Some(event) = self.set_aside.pop_front() {
            match event {
                Event::Message(_, lease) if lease.has_ended() => {}
                event => return Ok(Some(event)),
            }
        }
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        self.set_aside_bytes = 0;
        for partition in std::mem::take(&mut self.stopped) {
            self.release_unless_held(partition)?;
        }
        self.fetch(timeout)
    }

    /// Stays a live member of the group during a wait. What arrives, an error too, is kept for the next
    /// [`Consumer::poll`]; where that becomes much, the partition that it comes from is paused.
    pub fn keep_alive(&mut self) {
        while self.failed.is_none() {
            match self.fetch(Duration::ZERO) {
                Ok(Some(event)) => {
                    self.failed = self.set_aside(event).err();
                }
                Ok(None) => return,
                Err(error) => self.failed = Some(error),
            }
        }
    }

    fn set_aside(&mut self, event: Event) -> Result<(), Error> {
        if let Event::Message(message, _) = &event {
            self.set_aside_bytes += message.payload().map_or(0, <[u8]>::len) + message.key().map_or(0, <[u8]>::len);
            if self.set_aside_bytes > SET_ASIDE_BYTES && self.stopped.insert(message.partition()) {
                let partition = self.alone(message.partition());
                self.client.pause(&partition).map_err(|e| Error::kafka("pausing", &e))?;
            }
        }
        self.set_aside.push_back(event);
        Ok(())
    }

    /// Whether the place in the group is gone: nothing but [`Consumer::rejoin`] helps then.
    pub fn is_expelled(&self) -> bool {
        self.expelled
    }

    fn fetch(&mut self, timeout: Duration) -> Result<Option<Event>, Error> {
        self.client.context().client.check()?;
        if let Some(event) = self.next_rebalance() {
            return Ok(Some(event));
        }
        if failpoint::value("consumer_stalls").is_some() {
            std::thread::sleep(timeout);
            return Ok(None);
        }
        match self.client.poll(timeout) {
            None => Ok(self.next_rebalance()),
            Some(Ok(message)) => {
                let context = self.client.context();
                context.client.alive();
                // What was fetched before its partition went is somebody else's.
                let lease = context.leases.of(message.partition());
                Ok(lease.map(|lease| Event::Message(Box::new(message.detach()), lease)))
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                self.client.context().client.alive();
                Ok(Some(Event::EndOfPartition(partition)))
            }
            Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => {
                self.client.context().client.check()?;
                Err(self.fatal(&error))
            }
            // Any other error is of the moment: librdkafka goes on by itself.
            Some(Err(error)) => {
                self.client.context().client.note_consumption(&error);
                Ok(self.next_rebalance())
            }
        }
    }

    /// What ends this client. A place in the group that is gone can be had again by another client.
    fn fatal(&mut self, error: &KafkaError) -> Error {
        use RDKafkaErrorCode::{FencedInstanceId, InvalidRequest, UnknownMemberId, UnreleasedInstanceId};
        let (code, reason) = match self.client.client().fatal_error() {
            Some((code, reason)) => (Some(code), reason),
            None => (error.rdkafka_error_code(), error.to_string()),
        };
        match code {
            // KIP-848: `max.poll.interval.ms` was exceeded; a static member came back before its time-out.
            Some(InvalidRequest | UnknownMemberId | UnreleasedInstanceId) => {
                self.expelled = true;
                Error::Membership { reason }
            }
            Some(FencedInstanceId) => {
                let instance_id = self.options.consumer_property("group.instance.id").unwrap_or_default().to_owned();
                Error::FencedInstance { instance_id, reason }
            }
            _ => Error::Kafka { step: "consuming", reason, class: ErrorClass::Fatal },
        }
    }

    fn next_rebalance(&mut self) -> Option<Event> {
        let event = self.client.context().next_event();
        if let Some(Event::Revoked { partitions, .. }) = &event {
            self.owed.extend(partitions);
        }
        event
    }

    /// Why the topic cannot be consumed at the moment, if that is so: it is not there.
    pub fn missing(&self) -> Option<String> {
        self.client.context().client.missing()
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
        let mut flowing = TopicPartitionList::new();
        for partition in partitions(&self.assignment()?).into_iter().filter(|partition| !self.held.contains(partition))
        {
            flowing.add_partition(&self.topic, partition);
        }
        self.client.resume(&flowing).map_err(|e| Error::kafka("resuming", &e))
    }

    /// Stops the flow of one partition until it is to be [`Consumer::release`]d, or is given up.
    pub fn hold(&mut self, partition: i32) -> Result<(), Error> {
        self.held.insert(partition);
        self.set_aside.retain(|event| !matches!(event, Event::Message(message, _) if message.partition() == partition));
        self.client.pause(&self.alone(partition)).map_err(|e| Error::kafka("pausing", &e))
    }

    /// Lets it flow with the others again.
    pub fn release(&mut self, partition: i32) -> Result<(), Error> {
        self.held.remove(&partition);
        self.release_unless_held(partition)
    }

    fn release_unless_held(&self, partition: i32) -> Result<(), Error> {
        let context = self.client.context();
        let is_ours = context.leases.of(partition).is_some();
        if !is_ours || self.held.contains(&partition) || context.paused.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.client.resume(&self.alone(partition)).map_err(|e| Error::kafka("resuming", &e))
    }

    fn alone(&self, partition: i32) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.topic, partition);
        list
    }

    /// Gives partitions up after [`Event::Revoked`].
    pub fn let_go(&mut self, partitions: &[i32]) -> Result<(), Error> {
        self.client.context().leases.end(partitions);
        self.set_aside
            .retain(|event| !matches!(event, Event::Message(message, _) if partitions.contains(&message.partition())));
        self.held.retain(|partition| !partitions.contains(partition));
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
            .retain(|event| !matches!(event, Event::Message(message, _) if offsets.contains_key(&message.partition())));
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
        self.abandon();
    }
}

fn join(options: &Options, topic: &str) -> Result<BaseConsumer<GroupContext>, Error> {
    let mut defaults = vec![
        ("auto.offset.reset", "earliest"),
        ("isolation.level", "read_committed"),
        // What librdkafka fetches ahead of the worker, beside the worker's own window.
        ("queued.max.messages.kbytes", "16384"),
        ("fetch.message.max.bytes", "1048576"),
        ("enable.auto.commit", "false"),
        ("enable.auto.offset.store", "false"),
        ("enable.partition.eof", "true"),
        ("group.id", &options.group_id),
    ];
    // With KIP-848 the brokers decide these, and librdkafka refuses to be told.
    if !options.consumer_property("group.protocol").is_some_and(|protocol| protocol.eq_ignore_ascii_case("consumer")) {
        defaults.extend([("partition.assignment.strategy", "cooperative-sticky"), ("session.timeout.ms", "10000")]);
    }
    let context = GroupContext { client: Context::of(Access::of_member(options, topic)), ..GroupContext::default() };
    let config = options.client(&defaults, &options.consumer);
    let client: BaseConsumer<GroupContext> = kafka::create(config.create_with_context(context))?;
    client.subscribe(&[topic]).map_err(|e| Error::kafka("subscribing", &e))?;
    Ok(client)
}
