//! How this process reaches a cluster: the options, and the context that hears what the clients report.

use super::access::Access;
use super::{Error, schema_registry};
use crate::config::secrets::{MASK, is_secret};
use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How to reach a cluster; the section `kafka` of the configuration.
///
/// The three maps take any property of librdkafka by its own name; a more special map wins over
/// `properties`, and all win over what litflow sets by default, except for what exactly-once rests on.
/// Secrets can be given by environment: `LITFLOW_KAFKA__PROPERTIES__SASL_PASSWORD` is `sasl.password`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// `host:port`, several with commas.
    pub bootstrap_servers: String,
    /// The consumer group of the workers.
    pub group_id: String,
    /// The producer's transactional id; each worker needs its own, the same after a restart. Without one it
    /// is `<group_id>-<host name>`, which suits one worker a host and a StatefulSet.
    pub transactional_id: Option<String>,
    /// Who gives the schemas their ids; without one values carry a fingerprint.
    pub schema_registry: schema_registry::Options,
    /// Properties of all clients.
    pub properties: BTreeMap<String, String>,
    /// Properties of consumers.
    pub consumer: BTreeMap<String, String>,
    /// Properties of producers.
    pub producer: BTreeMap<String, String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            bootstrap_servers: "localhost:9092".into(),
            group_id: "litflow".into(),
            transactional_id: None,
            schema_registry: schema_registry::Options::default(),
            properties: BTreeMap::new(),
            consumer: BTreeMap::new(),
            producer: BTreeMap::new(),
        }
    }
}

impl Options {
    /// The transactional id in force.
    pub fn transactional_id(&self) -> String {
        self.transactional_id.clone().unwrap_or_else(|| format!("{}-{}", self.group_id, host_name()))
    }

    /// What consumers are told of a property by the user.
    pub(crate) fn consumer_property(&self, name: &str) -> Option<&str> {
        self.consumer.get(name).or_else(|| self.properties.get(name)).map(String::as_str)
    }

    /// Refuses what [`refused_property`] refuses.
    pub fn check(&self) -> Result<(), Error> {
        let mut keys = self.properties.keys().chain(self.consumer.keys()).chain(self.producer.keys());
        match keys.find_map(|key| Some((key, refused_property(key)?))) {
            Some((key, way_out)) => {
                Err(Error::Options(format!("the Kafka property {key} cannot be passed through: {way_out}")))
            }
            None => Ok(()),
        }
    }

    /// A client's properties: `defaults`, then the user's for all clients, then those in `special`.
    pub(crate) fn client(&self, defaults: &[(&str, &str)], special: &BTreeMap<String, String>) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap_servers);
        config.set("client.id", "litflow");
        config.set_log_level(RDKafkaLogLevel::Info);
        for (key, value) in defaults {
            config.set(*key, *value);
        }
        for (key, value) in self.properties.iter().chain(special) {
            config.set(key, value);
        }
        config
    }
}

/// Why a property of librdkafka cannot be passed through: it has a key of its own, or would break a promise.
pub fn refused_property(name: &str) -> Option<&'static str> {
    Some(match name {
        "bootstrap.servers" | "metadata.broker.list" => "set kafka.bootstrap_servers",
        "group.id" => "set kafka.group_id",
        "transactional.id" => "set kafka.transactional_id",
        "enable.auto.commit" | "enable.auto.offset.store" => "offsets are committed with the outputs",
        "enable.partition.eof" => "the worker relies on it",
        "enable.idempotence" => "the order of a key's records rests on it",
        "partitioner" => "producers of any language agree on murmur2_random",
        _ => return None,
    })
}

/// This machine's name.
pub fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() { "localhost".into() } else { name.trim().to_owned() }
}

/// How long brokers that hang up, and have never answered, are tried.
const HUNG_UP_TIMEOUT: Duration = Duration::from_secs(5);

/// How librdkafka ends the line of its log about a partition that may not be added to a transaction.
const TOPIC_DENIED: &str = "Topic authorization failed";

/// Hears the logs and errors of one client. Most errors are librdkafka's own business: it reconnects by
/// itself. Those that no waiting heals are kept until somebody asks.
#[derive(Default)]
pub struct Context {
    access: Access,
    created: Option<Instant>,
    trouble: Mutex<Trouble>,
}

#[derive(Default)]
struct Trouble {
    refused: Option<String>,
    /// A right that is missing.
    denied: Option<RDKafkaErrorCode>,
    /// A topic that a transaction may not write.
    unwritable: Option<String>,
    /// Whether a broker has ever answered.
    has_answered: bool,
    /// When, and with what words, a connection ended that had been accepted, as it does where the other side speaks
    /// another protocol.
    hung_up: Option<(Instant, String)>,
    brokers_down: Option<String>,
    missing: Option<String>,
    /// Told again only when a minute is over.
    consumption: Option<Instant>,
}

impl Context {
    pub(crate) fn new(options: &Options) -> Self {
        Self::of(Access::new(options))
    }

    /// The same for a client that does not write.
    pub(crate) fn of(access: Access) -> Self {
        Self { access, created: Some(Instant::now()), trouble: Mutex::default() }
    }

    /// The brokers that the client was given.
    pub(crate) fn servers(&self) -> &str {
        self.access.servers()
    }

    /// Who the client is.
    pub(crate) fn access(&self) -> &Access {
        &self.access
    }

    /// The error that ends the client, if there is one.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let trouble = self.trouble();
        if let Some(denied) = trouble.denied.and_then(|code| self.access.missing(code)) {
            return Err(denied);
        }
        // A broker that starts or ends hangs up, too, but not for long.
        let hung_up =
            trouble.hung_up.as_ref().filter(|(at, _)| !trouble.has_answered && at.elapsed() > HUNG_UP_TIMEOUT);
        match trouble.refused.as_ref().or(hung_up.map(|(_, reason)| reason)) {
            Some(reason) => Err(Error::Refused { servers: self.servers().to_owned(), reason: reason.clone() }),
            None => Ok(()),
        }
    }

    /// The topic that the transaction could not be extended to, since the last call, as an error.
    pub(crate) fn take_unwritable(&self) -> Option<Error> {
        let topic = self.trouble().unwritable.take()?;
        Some(self.access.missing_on_topic("Write", &topic))
    }

    /// A topic that this client may not write.
    pub(crate) fn unwritable(&self, topic: String) -> Error {
        let reason = self.access.missing_on_topic("Write", &topic).to_string();
        Error::Unwritable { topic, reason }
    }

    /// Why no broker can be reached at the moment, if that is so. Clears when [`Context::alive`] is told.
    pub(crate) fn brokers_down(&self) -> Option<String> {
        self.trouble().brokers_down.clone()
    }

    /// Why there is nothing to consume at the moment, if that is so: the topic is not there. Clears like the other.
    pub(crate) fn missing(&self) -> Option<String> {
        self.trouble().missing.clone()
    }

    /// A broker has answered with what was asked for.
    pub(crate) fn alive(&self) {
        let mut trouble = self.trouble();
        (trouble.brokers_down, trouble.missing) = (None, None);
        trouble.has_answered = true;
    }

    /// A partition cannot be consumed for the moment; told once a minute.
    pub(crate) fn note_consumption(&self, error: &KafkaError) {
        const TELL_INTERVAL: Duration = Duration::from_secs(60);
        let told = &mut self.trouble().consumption;
        if told.is_none_or(|told| told.elapsed() > TELL_INTERVAL) {
            *told = Some(Instant::now());
            tracing::warn!(target: "litflow::bus", "{error}; it is tried until it succeeds");
        }
    }

    /// A client that has been there for some time knows its brokers: then they are being restarted.
    fn note_hang_up(&self, reason: &str) {
        if self.created.is_some_and(|created| created.elapsed() > HUNG_UP_TIMEOUT) {
            return;
        }
        self.trouble().hung_up.get_or_insert_with(|| (Instant::now(), reason.to_owned()));
    }

    fn trouble(&self) -> MutexGuard<'_, Trouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // A listener with TLS that hears none, or one without that hears it; to librdkafka that is no error.
        let states = ["in state APIVERSION_QUERY", "in state SSL_HANDSHAKE"];
        if message.contains("Disconnected") && states.into_iter().any(|state| message.contains(state)) {
            self.note_hang_up(message);
        }
        match level {
            // Which topic it is about stands nowhere else.
            RDKafkaLogLevel::Error if facility == "ADDPARTS" && message.ends_with(TOPIC_DENIED) => {
                self.trouble().unwritable = message.split('"').nth(1).map(str::to_owned);
            }
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
                tracing::error!(target: "librdkafka", facility, "{message}");
            }
            // What librdkafka does again by itself is no warning to anyone.
            RDKafkaLogLevel::Warning if !message.ends_with(": retrying") => {
                tracing::warn!(target: "librdkafka", facility, "{message}");
            }
            RDKafkaLogLevel::Warning | RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
                tracing::info!(target: "librdkafka", facility, "{message}");
            }
            RDKafkaLogLevel::Debug => tracing::debug!(target: "librdkafka", facility, "{message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        use RDKafkaErrorCode::{
            AllBrokersDown, Authentication, BrokerTransportFailure, ClusterAuthorizationFailed,
            GroupAuthorizationFailed, SSL, SaslAuthenticationFailed, TopicAuthorizationFailed,
            TransactionalIdAuthorizationFailed, UnknownTopic, UnknownTopicOrPartition,
        };
        match error.rdkafka_error_code() {
            Some(Authentication | SSL | SaslAuthenticationFailed) => {
                self.trouble().refused.get_or_insert_with(|| reason.to_owned());
            }
            Some(TopicAuthorizationFailed) if self.access.reads().is_none() => {} // the records tell of it, one by one
            Some(
                code @ (ClusterAuthorizationFailed
                | GroupAuthorizationFailed
                | TopicAuthorizationFailed
                | TransactionalIdAuthorizationFailed),
            ) => {
                self.trouble().denied.get_or_insert(code);
            }
            Some(BrokerTransportFailure) if !reason.contains("Connect to") && !reason.contains("resolve") => {
                tracing::warn!(target: "litflow::bus", "{reason}");
                self.note_hang_up(reason);
            }
            Some(AllBrokersDown) => {
                tracing::warn!(target: "litflow::bus", "no broker of {} answers: {reason}", self.servers());
                self.trouble().brokers_down = Some(reason.to_owned());
            }
            Some(UnknownTopic | UnknownTopicOrPartition) => {
                tracing::warn!(target: "litflow::bus", "{error}: {reason}");
                self.trouble().missing = Some(reason.to_owned());
            }
            // A reader asks to be told; it is no error.
            Some(RDKafkaErrorCode::PartitionEOF) => {}
            _ => tracing::warn!(target: "litflow::bus", "{error}: {reason}"),
        }
    }
}

/// For consumers outside a group, which see no rebalance.
impl ConsumerContext for Context {}

/// Makes a client; a property that is refused is named.
pub(crate) fn create<T>(made: Result<T, KafkaError>) -> Result<T, Error> {
    made.map_err(|error| match error {
        KafkaError::ClientConfig(_, reason, key, value) => {
            if is_secret(&key) && !value.is_empty() {
                // librdkafka quotes the value in its reason.
                return Error::Property { key, reason: reason.replace(&value, MASK), value: MASK.into() };
            }
            Error::Property { key, value, reason }
        }
        other => Error::Options(format!("the Kafka client cannot be made: {other}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::consumer::Consumer;

    #[test]
    fn a_refused_property_is_told_without_its_secret() {
        let refused = |key: &str, value: &str| {
            let properties = BTreeMap::from([(key.to_owned(), value.to_owned())]);
            let options = Options { properties, ..Options::default() };
            Consumer::new(&options, "articles").err().unwrap().to_string()
        };
        assert!(refused("fetch.min.bytes", "many").contains("\"many\""));
        let told = refused("sasl.oauthbearer.client.secret.ms", "hunter2");
        assert!(told.contains("sasl.oauthbearer.client.secret.ms") && !told.contains("hunter2"), "{told}");
    }
}
