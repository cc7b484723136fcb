//! Reads any of litflow's topics for somebody to look at: decoded, committed records only, in no group.

use super::access::Access;
use super::codec::{self, Record};
use super::kafka::{self, Context};
use super::records::{Annotations, EntityMention, LabeledDocument, ModelVersion, ShadowTally};
use super::scan::Scan;
use super::wire::Wire;
use super::{Error, Options, schema_registry, topics};
use crate::article::ArticleEvent;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Headers as _, Message as _, OwnedMessage};
use rdkafka::metadata::Metadata;
use rdkafka::{Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one wait for a record takes where the end is awaited, too.
const WAIT: Duration = Duration::from_millis(500);
/// The most records that [`Reader::last`] keeps.
const LAST_MAX: usize = 10_000;

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// With the oldest record.
    Beginning,
    /// With what comes from now on.
    Now,
    /// So many offsets before the end of each partition. Not each holds a record: markers of transactions,
    /// and what was aborted or compacted away, have offsets, too.
    BeforeEnd(i64),
}

/// A record, decoded.
#[derive(Debug, Clone, Serialize)]
pub struct Entry {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// Milliseconds since the epoch.
    pub timestamp: Option<i64>,
    /// The key, where it is UTF-8 with what is not replaced.
    pub key: Option<String>,
    /// Headers, read like the key.
    pub headers: BTreeMap<String, String>,
    /// The value.
    pub value: Value,
}

/// A record's value.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
#[allow(missing_docs)] // the types say it
pub enum Value {
    Article(Box<ArticleEvent>),
    Annotations(Box<Annotations>),
    Mention(Box<EntityMention>),
    Labels(Box<LabeledDocument>),
    Model(Box<ModelVersion>),
    Shadow(Box<ShadowTally>),
    /// No value: what the key names is gone.
    Tombstone,
    /// A value that is not litflow's, or that cannot be decoded.
    Bytes {
        /// Its length.
        bytes: usize,
        /// Why it is not decoded; none on a topic that carries bytes as consumed.
        error: Option<String>,
    },
}

/// Reads topics record by record.
pub struct Reader {
    /// One client a topic: librdkafka reports the end of a partition without the topic's name.
    topics: Vec<TopicReader>,
    wire: Wire,
    /// Could not be decoded yet: the schema registry did not answer.
    undecoded: Option<OwnedMessage>,
    /// The topic whose turn it is.
    turn: usize,
}

struct TopicReader {
    client: BaseConsumer<Context>,
    /// Partitions that have not been read to their end.
    unread: BTreeSet<i32>,
    /// Partitions that have older offsets than those read.
    cut: BTreeSet<i32>,
}

impl Reader {
    /// Starts reading all partitions of `topics`.
    pub fn new(options: &Options, topics: &[&str], from: From) -> Result<Self, Error> {
        options.check()?;
        let topics = topics.iter().map(|topic| TopicReader::new(options, topic, from)).collect::<Result<_, _>>()?;
        Ok(Self { topics, wire: Wire::new(options)?, undecoded: None, turn: 0 })
    }

    /// The last `count` records of all `topics` together, oldest first by their time (fewer where there are
    /// no more), and the reader that goes on behind them. Goes back twice as far each time until every
    /// partition has shown `count` records or its beginning; keeps no more than `count` in memory.
    pub fn last(options: &Options, topics: &[&str], count: usize) -> Result<(Vec<Entry>, Self), Error> {
        if count > LAST_MAX {
            return Err(Error::Options(format!(
                "the last {count} records are more than are kept in memory ({LAST_MAX}); read from the beginning"
            )));
        }
        let mut span = count as i64;
        loop {
            let mut reader = Self::new(options, topics, From::BeforeEnd(span))?;
            let mut last = BTreeMap::new();
            let mut seen: BTreeMap<(String, i32), usize> = BTreeMap::new();
            while !reader.at_end() {
                let Some(entry) = reader.next(WAIT)? else { continue };
                *seen.entry((entry.topic.clone(), entry.partition)).or_default() += 1;
                last.insert((entry.timestamp, entry.offset, entry.partition, entry.topic.clone()), entry);
                if last.len() > count {
                    last.pop_first();
                }
            }
            let too_few = |topic: &str, partition: i32| {
                seen.get(&(topic.to_owned(), partition)).is_none_or(|&records| records < count)
            };
            let mut cut = reader
                .topics
                .iter()
                .zip(topics)
                .flat_map(|(reader, topic)| reader.cut.iter().map(move |&partition| (*topic, partition)));
            if !cut.any(|(topic, partition)| too_few(topic, partition)) {
                return Ok((last.into_values().collect(), reader));
            }
            span = span.saturating_mul(2);
        }
    }

    /// The next record of any topic, waiting for it at most `timeout`. Returns early, with none, when
    /// everything has been read to its end for the first time.
    ///
    /// # Errors
    /// Those of the cluster, and those of the schema registry: then the record comes with the next call.
    pub fn next(&mut self, timeout: Duration) -> Result<Option<Entry>, Error> {
        const SLICE: Duration = Duration::from_millis(5);
        let deadline = Instant::now() + timeout;
        let was_at_end = self.at_end();
        loop {
            if let Some(message) = self.undecoded.take() {
                let entry = entry(&message, &self.wire);
                self.undecoded = entry.is_err().then_some(message);
                return entry.map(Some);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let slice = if self.topics.len() == 1 { left } else { left.min(SLICE) };
            self.turn = (self.turn + 1) % self.topics.len().max(1);
            let Some(topic) = self.topics.get_mut(self.turn) else { return Ok(None) };
            self.undecoded = topic.poll(slice)?;
            if self.undecoded.is_some() {
                continue;
            }
            if Instant::now() >= deadline || self.at_end() != was_at_end {
                return Ok(None);
            }
        }
    }

    /// Whether every partition has been read to its end once.
    pub fn at_end(&self) -> bool {
        self.topics.iter().all(|topic| topic.unread.is_empty())
    }
}

impl TopicReader {
    fn new(options: &Options, topic: &str, from: From) -> Result<Self, Error> {
        let client = connect(options, &options.group_id, topic, &[])?;
        let mut cut = BTreeSet::new();
        let unread: BTreeSet<i32> = partitions(&client, topic, options)?.into_iter().collect();
        let mut assignment = TopicPartitionList::new();
        for &partition in &unread {
            let offset = match from {
                From::Beginning => Offset::Beginning,
                From::Now => Offset::End,
                From::BeforeEnd(span) => {
                    let (low, high) = client
                        .fetch_watermarks(topic, partition, REQUEST_TIMEOUT)
                        .map_err(|e| Error::kafka("asking for a partition's offsets", &e))?;
                    let begin = high.saturating_sub(span);
                    if begin > low {
                        cut.insert(partition);
                    }
                    Offset::Offset(begin.max(low))
                }
            };
            assignment
                .add_partition_offset(topic, partition, offset)
                .map_err(|e| Error::kafka("choosing where to begin", &e))?;
        }
        client.assign(&assignment).map_err(|e| Error::kafka("starting to read", &e))?;
        Ok(Self { client, unread, cut })
    }

    fn poll(&mut self, timeout: Duration) -> Result<Option<OwnedMessage>, Error> {
        self.client.context().check()?;
        match self.client.poll(timeout) {
            Some(Ok(message)) => Ok(Some(message.detach())),
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                self.unread.remove(&partition);
                Ok(None)
            }
            Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => Err(Error::kafka("reading", &error)),
            Some(Err(_)) | None => Ok(None),
        }
    }
}

/// The offsets of a partition that were read, half-open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Covered {
    /// The first one that the partition still had.
    pub begin: i64,
    /// Where it ended: the next offset when reading began, of committed records.
    pub end: i64,
}

/// Reads a topic from its beginning to `ends`, by partition; without them to where it ends now, whatever comes
/// meanwhile. So a compacted topic is read as a table, and the offsets that are returned say which state of it.
///
/// # Errors
/// Those of `each`, and those of the cluster; retriable where it has said nothing for a minute.
pub fn read_until<E: std::convert::From<Error>>(
    options: &Options,
    topic: &str,
    ends: Option<&BTreeMap<i32, i64>>,
    mut each: impl FnMut(Entry) -> Result<(), E>,
) -> Result<BTreeMap<i32, Covered>, E> {
    let mut scan = Scan::new(options, topic)?;
    let mut covered = BTreeMap::new();
    for (partition, now) in scan.ends()? {
        let begin = scan.position()[&partition];
        let end = match ends {
            // A partition that was added since then held nothing.
            Some(ends) => ends.get(&partition).copied().unwrap_or(begin),
            None => now,
        };
        if end > now {
            let reason = format!("partition {partition} of {topic} ends at {now}, before {end}: it is another topic");
            return Err(Error::Options(reason).into());
        }
        covered.insert(partition, Covered { begin: begin.min(end), end });
    }
    let ends = covered.iter().map(|(&partition, covered)| (partition, covered.end)).collect();
    let wire = Wire::new(options)?;
    scan.read_to(&ends, |message| each(entry(&message, &wire)?))?;
    Ok(covered)
}

/// A client for one topic that is in no group: it is told what to read.
pub(super) fn connect(
    options: &Options,
    group: &str,
    topic: &str,
    special: &[(&str, &str)],
) -> Result<BaseConsumer<Context>, Error> {
    let defaults = [
        // Partitions are assigned by hand and nothing is committed, but librdkafka wants a name; this
        // is one that the cluster's access rules know.
        ("group.id", group),
        ("enable.auto.commit", "false"),
        ("enable.partition.eof", "true"),
        ("isolation.level", "read_committed"),
        ("auto.offset.reset", "earliest"),
    ];
    let config = options.client(&[&defaults, special].concat(), &options.consumer);
    kafka::create(config.create_with_context(Context::of(Access::of_reader(options, group, topic))))
}

/// What the cluster says of a topic, or of all. What the brokers say to a client is heard by polling it only.
pub(super) fn metadata(client: &BaseConsumer<Context>, topic: Option<&str>) -> Result<Metadata, Error> {
    const SLICE: Duration = Duration::from_secs(1);
    let deadline = Instant::now() + REQUEST_TIMEOUT;
    loop {
        // Short, to hear a refusal soon; the last time long, for brokers that are far away.
        let is_last = Instant::now() > deadline;
        let asked = client.fetch_metadata(topic, if is_last { REQUEST_TIMEOUT } else { SLICE });
        while client.poll(Duration::ZERO).is_some() {}
        client.context().check()?;
        match asked {
            Ok(metadata) => {
                client.context().alive();
                return Ok(metadata);
            }
            Err(error) if is_last => {
                let step = "asking for the topics";
                return Err(match Error::kafka(step, &error) {
                    Error::Kafka { step, reason, class } => {
                        let reason = format!("{reason} (brokers {})", client.context().servers());
                        Error::Kafka { step, reason, class }
                    }
                    other => other,
                });
            }
            Err(_) => {}
        }
    }
}

pub(super) fn partitions(client: &BaseConsumer<Context>, topic: &str, options: &Options) -> Result<Vec<i32>, Error> {
    let metadata = metadata(client, Some(topic))?;
    let mut codes = metadata.topics().iter().filter_map(|found| Some(RDKafkaErrorCode::from(found.error()?)));
    if let Some(denied) = codes.find_map(|code| client.context().access().missing(code)) {
        return Err(denied);
    }
    let partitions: Vec<i32> = metadata
        .topics()
        .iter()
        .filter(|found| found.name() == topic && found.error().is_none())
        .flat_map(|found| found.partitions().iter().map(|partition| partition.id()))
        .collect();
    if partitions.is_empty() {
        return Err(Error::NoTopic { topic: topic.to_owned(), servers: options.bootstrap_servers.clone() });
    }
    Ok(partitions)
}

fn entry(message: &OwnedMessage, wire: &Wire) -> Result<Entry, Error> {
    let headers = message.headers().map(|headers| {
        let text = |value: Option<&[u8]>| String::from_utf8_lossy(value.unwrap_or_default()).into_owned();
        headers.iter().map(|header| (header.key.to_owned(), text(header.value))).collect()
    });
    Ok(Entry {
        topic: message.topic().to_owned(),
        partition: message.partition(),
        offset: message.offset(),
        timestamp: message.timestamp().to_millis(),
        key: message.key().map(|key| String::from_utf8_lossy(key).into_owned()),
        headers: headers.unwrap_or_default(),
        value: decode(message.topic(), message.payload(), wire)?,
    })
}

/// The value of a record on `topic`. Blocks where a schema registry has to be asked.
pub fn decode(topic: &str, payload: Option<&[u8]>, wire: &Wire) -> Result<Value, schema_registry::Error> {
    fn typed<T: Record>(
        wire: &Wire,
        bytes: &[u8],
        wrap: impl Fn(Box<T>) -> Value,
    ) -> Result<Result<Value, codec::Error>, schema_registry::Error> {
        Ok(wire.decode_blocking::<T>(bytes)?.map(|value| wrap(Box::new(value))))
    }
    let Some(bytes) = payload else { return Ok(Value::Tombstone) };
    let decoded = match topics::value_schema(topic) {
        Some(ArticleEvent::NAME) => typed(wire, bytes, Value::Article),
        Some(Annotations::NAME) => typed(wire, bytes, Value::Annotations),
        Some(EntityMention::NAME) => typed(wire, bytes, Value::Mention),
        Some(LabeledDocument::NAME) => typed(wire, bytes, Value::Labels),
        Some(ModelVersion::NAME) => typed(wire, bytes, Value::Model),
        Some(ShadowTally::NAME) => typed(wire, bytes, Value::Shadow),
        _ => return Ok(Value::Bytes { bytes: bytes.len(), error: None }),
    }?;
    Ok(decoded.unwrap_or_else(|error| Value::Bytes { bytes: bytes.len(), error: Some(error.to_string()) }))
}
