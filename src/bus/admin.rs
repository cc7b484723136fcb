//! Applies the topics to a cluster and compares them with it.

use super::kafka::{self, Context};
use super::producer::message_max_bytes;
use super::reader::{connect, metadata};
use super::topics::Topic;
use super::{Error, Options};
use crate::ErrorClass;
use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;
use rdkafka::{Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long one request to the cluster may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a topic may take from its creation until every broker asked knows it.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the cluster may take to tell the topics' limits.
const LIMITS_TIMEOUT: Duration = Duration::from_secs(2);
/// Space that a record's header and framing take of a topic's `max.message.bytes`.
const RECORD_OVERHEAD: usize = 1_024;

/// Looks after the topics of one cluster.
pub struct Admin {
    client: AdminClient<Context>,
    options: Options,
}

/// What `create` did for one topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// It is new.
    New,
    /// It was there already; nothing about it was changed.
    Existed,
}

/// A topic as the cluster has it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Found {
    /// Its name.
    pub name: String,
    /// Number of partitions.
    pub partitions: i32,
    /// Replicas of the partition that has fewest.
    pub replication: i32,
    /// The configuration in force, defaults included.
    pub config: BTreeMap<String, String>,
}

/// One way in which a cluster differs from a [`Topic`].
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Difference {
    /// The topic's name.
    pub topic: String,
    /// What differs: `topic`, `partitions`, the name of a configuration entry, or what of the values' subject.
    pub what: String,
    /// What should be.
    pub wanted: String,
    /// What is.
    pub found: String,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} is {}, should be {}", self.topic, self.what, self.found, self.wanted)
    }
}

impl Admin {
    /// Makes the client. The cluster is asked only by the other calls.
    pub fn new(options: &Options) -> Result<Self, Error> {
        let config = options.client(&[], &options.producer);
        let client = kafka::create(config.create_with_context(Context::new(options)))?;
        Ok(Self { client, options: options.clone() })
    }

    /// Creates the topics that are missing, and returns when the cluster knows all of them. Safe to run again.
    ///
    /// `replication` is the number of replicas; without one the cluster's default holds.
    pub async fn create(&self, topics: &[Topic], replication: Option<i32>) -> Result<Vec<(String, Created)>, Error> {
        const CLUSTER_DEFAULT: i32 = -1;
        let replication = replication.unwrap_or(CLUSTER_DEFAULT);
        let new_topics: Vec<NewTopic<'_>> = topics
            .iter()
            .map(|topic| NewTopic {
                config: topic.config.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect(),
                ..NewTopic::new(&topic.name, topic.partitions, TopicReplication::Fixed(replication))
            })
            .collect();
        let results = self.client.create_topics(&new_topics, &admin_options()).await;
        let mut created = Vec::new();
        for result in results.map_err(|e| self.failed("creating topics", &e))? {
            match result {
                Ok(name) => created.push((name, Created::New)),
                Err((name, RDKafkaErrorCode::TopicAlreadyExists)) => created.push((name, Created::Existed)),
                Err((name, code)) => {
                    return Err(Error::Broker(format!("the topic {name} cannot be created: {code}")));
                }
            }
        }
        self.wait_until_known(topics).await?;
        Ok(created)
    }

    /// Creation is answered by the controller; the brokers learn of it a moment later.
    async fn wait_until_known(&self, topics: &[Topic]) -> Result<(), Error> {
        let deadline = Instant::now() + SETTLE_TIMEOUT;
        loop {
            let found = partition_counts(&self.metadata()?);
            let Some(missing) = topics.iter().find(|topic| !found.contains_key(&topic.name)) else { return Ok(()) };
            if Instant::now() > deadline {
                return Err(self.no_topic(&missing.name));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Refuses where the cluster does not have all of `topics`, or does not show one to whoever is to do `operation`
    /// on it, `Read` or `Write`.
    pub fn require(&self, topics: &[Topic], operation: &'static str) -> Result<(), Error> {
        let found = partition_counts(&self.metadata()?);
        let Some(missing) = topics.iter().find(|topic| !found.contains_key(&topic.name)) else { return Ok(()) };
        // Among all topics those that one may not see are left out; asked for by name, they are refused.
        let asked = self.metadata_of(Some(&missing.name))?;
        let mut codes = asked.topics().iter().filter_map(|found| Some(RDKafkaErrorCode::from(found.error()?)));
        match codes.any(|code| code == RDKafkaErrorCode::TopicAuthorizationFailed) {
            true => Err(self.client.inner().context().access().missing_on_topic(operation, &missing.name)),
            false => Err(self.no_topic(&missing.name)),
        }
    }

    /// The named topics as the cluster has them, in this order; those that it does not have are left out.
    pub async fn find(&self, names: &[&str]) -> Result<Vec<Found>, Error> {
        let counts = partition_counts(&self.metadata()?);
        let present: Vec<&str> = names.iter().copied().filter(|name| counts.contains_key(*name)).collect();
        if present.is_empty() {
            return Ok(Vec::new());
        }
        let specifiers: Vec<_> = present.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
        let configs = self.client.describe_configs(&specifiers, &admin_options()).await;
        let configs = configs.map_err(|e| self.failed("reading topic configurations", &e))?;
        let mut found = Vec::new();
        for (name, config) in present.into_iter().zip(configs) {
            let config = config.map_err(|code| {
                Error::Broker(format!("the configuration of the topic {name} cannot be read: {code}"))
            })?;
            let (partitions, replication) = counts[name];
            found.push(Found { name: name.to_owned(), partitions, replication, config: entries(config) });
        }
        Ok(found)
    }

    /// The largest record, key and value together in bytes, that a producer with these options gets onto each
    /// topic: as the cluster says, or, where it does not, as the topic files say.
    pub async fn record_limits(&self, topics: &[Topic]) -> BTreeMap<String, usize> {
        let names: Vec<&str> = topics.iter().map(|topic| topic.name.as_str()).collect();
        // A mock cluster never answers this; a real one that is slow has its limits in our files, too.
        let asked = tokio::time::timeout(LIMITS_TIMEOUT, self.find(&names)).await;
        let found = asked.map_err(|_| "no answer".to_owned()).and_then(|found| found.map_err(|e| e.to_string()));
        let found = found.unwrap_or_else(|reason| {
            tracing::info!("the topics' limits are taken from litflow's own files: {reason}");
            Vec::new()
        });
        let limit_on_cluster = |name: &str| {
            let found = found.iter().find(|found| found.name == name)?;
            found.config.get("max.message.bytes")?.parse::<usize>().ok()
        };
        let limit = |topic: &Topic| {
            let of_topic = limit_on_cluster(&topic.name).unwrap_or(topic.max_message_bytes());
            of_topic.min(message_max_bytes(&self.options)).saturating_sub(RECORD_OVERHEAD)
        };
        topics.iter().map(|topic| (topic.name.clone(), limit(topic))).collect()
    }

    /// The first of these topics that anything was ever written to; none where all are empty or missing.
    pub fn written_to<'t>(&self, topics: &'t [Topic]) -> Result<Option<&'t str>, Error> {
        let counts = partition_counts(&self.metadata()?);
        for topic in topics {
            let (partitions, _) = counts.get(&topic.name).copied().unwrap_or_default();
            for partition in 0..partitions {
                if self.end_of(&topic.name, partition)? > 0 {
                    return Ok(Some(&topic.name));
                }
            }
        }
        Ok(None)
    }

    /// The offset after the last record. A partition that is new, or is moving, has no leader for a moment.
    fn end_of(&self, topic: &str, partition: i32) -> Result<i64, Error> {
        let deadline = Instant::now() + SETTLE_TIMEOUT;
        loop {
            let bounds = self.client.inner().fetch_watermarks(topic, partition, REQUEST_TIMEOUT);
            match bounds.map_err(|e| self.failed("asking for a partition's end", &e)) {
                Ok((_, end)) => return Ok(end),
                Err(error) if error.class() == ErrorClass::Retriable && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Deletes the records of each partition before these offsets. The topic's cleanup policy must be `delete`.
    pub async fn delete_before(&self, topic: &str, offsets: &BTreeMap<i32, i64>) -> Result<(), Error> {
        let failed = |error: KafkaError| match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::TopicAuthorizationFailed) => {
                self.client.inner().context().access().missing_on_topic("Delete", topic)
            }
            _ => self.failed("deleting records", &error),
        };
        let mut list = TopicPartitionList::new();
        for (&partition, &offset) in offsets {
            list.add_partition_offset(topic, partition, Offset::Offset(offset)).map_err(failed)?;
        }
        let deleted = self.client.delete_records(&list, &admin_options()).await.map_err(failed)?;
        for element in deleted.elements() {
            element.error().map_err(failed)?;
        }
        Ok(())
    }

    /// Every way in which the cluster differs from `topics`; empty where it does not.
    pub async fn check(&self, topics: &[Topic]) -> Result<Vec<Difference>, Error> {
        let names: Vec<&str> = topics.iter().map(|topic| topic.name.as_str()).collect();
        let found = self.find(&names).await?;
        Ok(topics.iter().flat_map(|topic| differences(topic, found.iter().find(|f| f.name == topic.name))).collect())
    }

    fn metadata(&self) -> Result<Metadata, Error> {
        self.metadata_of(None)
    }

    /// An admin client does not hear why nobody answers it, so then a consumer asks.
    fn metadata_of(&self, topic: Option<&str>) -> Result<Metadata, Error> {
        const PATIENCE: Duration = Duration::from_secs(2);
        match self.client.inner().fetch_metadata(topic, PATIENCE) {
            Ok(metadata) => Ok(metadata),
            Err(_) => {
                let group = &self.options.group_id;
                metadata(&connect(&self.options, group, topic.unwrap_or_default(), &[])?, topic)
            }
        }
    }

    /// The error with its likeliest cause: where the client was refused, that says more than a time-out.
    fn failed(&self, step: &'static str, error: &KafkaError) -> Error {
        if let Err(refused) = self.client.inner().context().check() {
            return refused;
        }
        match Error::kafka(step, error) {
            Error::Kafka { step, reason, class } => {
                Error::Kafka { step, reason: format!("{reason} (brokers {})", self.options.bootstrap_servers), class }
            }
            other => other,
        }
    }

    fn no_topic(&self, topic: &str) -> Error {
        Error::NoTopic { topic: topic.to_owned(), servers: self.options.bootstrap_servers.clone() }
    }
}

fn admin_options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT)).operation_timeout(Some(REQUEST_TIMEOUT))
}

/// Partitions and least replicas by topic.
fn partition_counts(metadata: &Metadata) -> BTreeMap<String, (i32, i32)> {
    let known = metadata.topics().iter().filter(|topic| topic.error().is_none());
    known
        .map(|topic| {
            let replicas = topic.partitions().iter().map(|partition| partition.replicas().len() as i32).min();
            (topic.name().to_owned(), (topic.partitions().len() as i32, replicas.unwrap_or(0)))
        })
        .collect()
}

fn entries(config: ConfigResource) -> BTreeMap<String, String> {
    config.entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?))).collect()
}

fn differences(topic: &Topic, found: Option<&Found>) -> Vec<Difference> {
    let differs = |what: &str, wanted: String, found: String| Difference {
        topic: topic.name.clone(),
        what: what.to_owned(),
        wanted,
        found,
    };
    let Some(found) = found else {
        return vec![differs("topic", "there".into(), "missing".into())];
    };
    let mut differences = Vec::new();
    if found.partitions != topic.partitions {
        differences.push(differs("partitions", topic.partitions.to_string(), found.partitions.to_string()));
    }
    for (key, wanted) in &topic.config {
        let value = found.config.get(key).map_or("unset", String::as_str);
        if value != wanted {
            differences.push(differs(key, wanted.clone(), value.to_owned()));
        }
    }
    differences
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::topics;

    #[test]
    fn every_difference_is_named() {
        let topic = topics::all(&[]).unwrap().swap_remove(1);
        let found = Found {
            name: topic.name.clone(),
            partitions: topic.partitions,
            replication: 1,
            config: topic.config.clone(),
        };
        assert_eq!(differences(&topic, Some(&found)), []);
        assert_eq!(differences(&topic, None)[0].to_string(), "annotations: topic is missing, should be there");

        let mut config = topic.config.clone();
        config.insert("cleanup.policy".into(), "delete".into());
        config.remove("max.message.bytes");
        let found = Found { partitions: 1, config, ..found };
        let named: Vec<_> = differences(&topic, Some(&found)).iter().map(Difference::to_string).collect();
        assert_eq!(
            named,
            [
                "annotations: partitions is 1, should be 12",
                "annotations: cleanup.policy is delete, should be compact",
                "annotations: max.message.bytes is unset, should be 16777216",
            ]
        );
    }
}
