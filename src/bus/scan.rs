//! Reads a topic's records as they came, from one state of the topic to the next: committed ones only, in no group.
//!
//! The difference to [`Reader`](super::reader::Reader), which shows records to people: a scan knows the end that it
//! reads to before it begins, so what it has read is a state of the topic that can be named by offsets.

use super::kafka::Context;
use super::reader::{connect, partitions};
use super::{Error, Options};
use crate::ErrorClass;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{Message as _, OwnedMessage};
use rdkafka::{Offset, TopicPartitionList};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// How long one wait for a record takes.
const WAIT: Duration = Duration::from_millis(500);
/// A cluster that says nothing for so long while something is asked of it is given up: it outlasts the restart of a
/// broker.
const SILENCE: Duration = Duration::from_secs(60);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How long transactions that others have open are waited for.
const OPEN_TIMEOUT: Duration = Duration::from_secs(60);

/// A reader that goes forward when it is asked to.
pub struct Scan {
    client: BaseConsumer<Context>,
    options: Options,
    topic: String,
    /// The next offset of each partition.
    position: BTreeMap<i32, i64>,
}

impl Scan {
    /// Before the first record that each partition still has. Partitions that are added later are not seen.
    pub fn new(options: &Options, topic: &str) -> Result<Self, Error> {
        options.check()?;
        // Memory, and an end that is noticed soon.
        let defaults = [("queued.max.messages.kbytes", "16384"), ("fetch.wait.max.ms", "100")];
        let client = connect(options, &options.group_id, topic, &defaults)?;
        let topic = topic.to_owned();
        let mut scan = Self { client, options: options.clone(), topic, position: BTreeMap::new() };
        for partition in partitions(&scan.client, &scan.topic, options)? {
            let (begin, _) = scan.bounds(&scan.client, partition)?;
            scan.position.insert(partition, begin);
        }
        Ok(scan)
    }

    /// The next offset of each partition.
    pub fn position(&self) -> &BTreeMap<i32, i64> {
        &self.position
    }

    /// Goes to these offsets. Partitions that are not named are not read any more.
    pub fn seek(&mut self, position: BTreeMap<i32, i64>) {
        self.position = position;
    }

    /// Goes to the first record of each partition that is not older than `timestamp`, in milliseconds since the epoch;
    /// where there is none, to its end.
    pub fn seek_to_time(&mut self, timestamp: i64) -> Result<(), Error> {
        let step = "asking for the offsets at a time";
        let mut times = TopicPartitionList::new();
        for &partition in self.position.keys() {
            times
                .add_partition_offset(&self.topic, partition, Offset::Offset(timestamp))
                .map_err(|e| Error::kafka(step, &e))?;
        }
        let found = self.client.offsets_for_times(times, REQUEST_TIMEOUT).map_err(|e| Error::kafka(step, &e))?;
        self.position = self.ends()?;
        for element in found.elements() {
            if let Offset::Offset(offset) = element.offset() {
                self.position.insert(element.partition(), offset);
            }
        }
        Ok(())
    }

    /// Where each partition ends now, committed records only.
    pub fn ends(&self) -> Result<BTreeMap<i32, i64>, Error> {
        self.ends_for(&self.client)
    }

    fn ends_for(&self, client: &BaseConsumer<Context>) -> Result<BTreeMap<i32, i64>, Error> {
        self.position.keys().map(|&partition| Ok((partition, self.bounds(client, partition)?.1))).collect()
    }

    /// Reads on to where the partitions end now, whatever comes meanwhile.
    ///
    /// # Errors
    /// Those of [`Scan::read_to`].
    pub fn catch_up<E: From<Error>>(&mut self, each: impl FnMut(OwnedMessage) -> Result<(), E>) -> Result<(), E> {
        let ends = self.ends()?;
        self.read_to(&ends, each)
    }

    /// The same, but nothing is hidden by the transactions that are open now: they are waited for, so that all that
    /// was committed before this call is read.
    ///
    /// # Errors
    /// Those of [`Scan::read_to`]; retriable too where a transaction stays open for a minute.
    pub fn catch_up_with_all<E: From<Error>>(
        &mut self,
        mut each: impl FnMut(OwnedMessage) -> Result<(), E>,
    ) -> Result<(), E> {
        let uncommitted =
            connect(&self.options, &self.options.group_id, &self.topic, &[("isolation.level", "read_uncommitted")])?;
        let ends = self.ends_for(&uncommitted)?;
        let deadline = Instant::now() + OPEN_TIMEOUT;
        loop {
            self.catch_up(&mut each)?;
            let Some((partition, _)) = ends.iter().find(|&(partition, &end)| self.position[partition] < end) else {
                return Ok(());
            };
            if Instant::now() > deadline {
                let reason = format!("a transaction on partition {partition} of {} does not end", self.topic);
                let step = "reading all that was committed";
                return Err(Error::Kafka { step, reason, class: ErrorClass::Retriable }.into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Reads on to `ends`, which the partitions must have reached already; those that are behind them stay there.
    /// Records of a partition come in order.
    ///
    /// # Errors
    /// Those of `each`, and those of the cluster; retriable where it has said nothing for a minute.
    pub fn read_to<E: From<Error>>(
        &mut self,
        ends: &BTreeMap<i32, i64>,
        mut each: impl FnMut(OwnedMessage) -> Result<(), E>,
    ) -> Result<(), E> {
        let end_of = |partition: i32| ends.get(&partition).copied().unwrap_or(0);
        let before_end = self.position.iter().filter(|&(&partition, &position)| position < end_of(partition));
        let mut unread: BTreeSet<i32> = before_end.map(|(&partition, _)| partition).collect();
        if unread.is_empty() {
            return Ok(());
        }
        self.assign(&unread)?;
        let mut heard = Instant::now();
        while !unread.is_empty() {
            self.client.context().check()?;
            match self.client.poll(WAIT) {
                Some(Ok(message)) => {
                    let (partition, offset) = (message.partition(), message.offset());
                    if offset < end_of(partition) {
                        each(message.detach())?;
                        self.position.insert(partition, offset + 1);
                    }
                    if offset + 1 >= end_of(partition) && unread.remove(&partition) {
                        self.position.insert(partition, end_of(partition));
                    }
                    heard = Instant::now();
                }
                // The rest was no records: marks of transactions, and what was aborted or compacted away.
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    if unread.remove(&partition) {
                        self.position.insert(partition, end_of(partition));
                    }
                    heard = Instant::now();
                }
                Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => {
                    return Err(Error::kafka("reading", &error).into());
                }
                Some(Err(_)) | None if heard.elapsed() > SILENCE => {
                    let reason = self.client.context().brokers_down().unwrap_or_else(|| "no answer".to_owned());
                    let step = "reading a topic to its end";
                    return Err(Error::Kafka { step, reason, class: ErrorClass::Retriable }.into());
                }
                Some(Err(_)) | None => {}
            }
        }
        // Nothing more is fetched until somebody asks.
        self.assign(&BTreeSet::new())?;
        Ok(())
    }

    fn assign(&self, partitions: &BTreeSet<i32>) -> Result<(), Error> {
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            list.add_partition_offset(&self.topic, *partition, Offset::Offset(self.position[partition]))
                .map_err(|e| Error::kafka("choosing where to begin", &e))?;
        }
        self.client.assign(&list).map_err(|e| Error::kafka("starting to read", &e))
    }

    /// The first offset of a partition and the one after its last committed record. A partition that is moving has
    /// no leader for a moment, a broker that restarts does not answer for longer.
    fn bounds(&self, client: &BaseConsumer<Context>, partition: i32) -> Result<(i64, i64), Error> {
        let deadline = Instant::now() + SILENCE;
        loop {
            let bounds = client.fetch_watermarks(&self.topic, partition, REQUEST_TIMEOUT);
            match bounds.map_err(|e| Error::kafka("asking for a partition's offsets", &e)) {
                Ok(bounds) => return Ok(bounds),
                Err(error) if error.class() == ErrorClass::Retriable && Instant::now() < deadline => {
                    client.context().check()?;
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(error) => return Err(error),
            }
        }
    }
}
