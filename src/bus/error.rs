//! What can go wrong between this process and the cluster, and what it means for the worker.

use super::access::MissingRight;
use super::schema_registry;
use crate::ErrorClass;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// An error of the bus.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An option that cannot be; the message names it.
    #[error("{0}")]
    Options(String),
    /// librdkafka refused a property.
    #[error("the Kafka property {key} = {value:?} is refused: {reason}")]
    #[allow(missing_docs)]
    Property { key: String, value: String, reason: String },
    /// The cluster did not answer, or its answer was an error.
    #[error("{step}: {reason}")]
    #[allow(missing_docs)]
    Kafka { step: &'static str, reason: String, class: ErrorClass },
    /// The cluster did not answer as long as there was time for it.
    #[error("{step}: the brokers at {servers} did not answer in time: {reason}")]
    #[allow(missing_docs)]
    GaveUp { step: &'static str, servers: String, reason: String },
    /// Another producer with the same transactional id has taken over, or the transaction timed out.
    #[error(
        "{step}: fenced: another worker has taken over the transactional id {transactional_id:?}, or a transaction \
         outlived transaction.timeout.ms; give each worker a kafka.transactional_id of its own ({reason})"
    )]
    #[allow(missing_docs)]
    Fenced { step: &'static str, transactional_id: String, reason: String },
    /// Another consumer with the same static membership has taken over.
    #[error(
        "fenced: another worker has joined the group with the group.instance.id {instance_id:?}; give each worker one of \
         its own ({reason})"
    )]
    #[allow(missing_docs)]
    FencedInstance { instance_id: String, reason: String },
    /// The place in the group is gone; it can be had again by joining anew.
    #[error("the place in the group is gone: {reason}")]
    #[allow(missing_docs)]
    Membership { reason: String },
    /// What is about to be published comes from partitions that somebody else may have by now.
    #[error("{step}: the partitions {partitions:?} were lost")]
    #[allow(missing_docs)]
    Lost { step: &'static str, partitions: Vec<i32> },
    /// The client cannot prove who it is; waiting does not help.
    #[error("the brokers at {servers} refuse this client: {reason}; check security.protocol, sasl.* and ssl.*")]
    #[allow(missing_docs)]
    Refused { servers: String, reason: String },
    /// The cluster knows this client, and does not let it do something.
    #[error("{0}")]
    Denied(Box<MissingRight>),
    /// A record that no retry will get onto its topic.
    #[error("{topic} does not take a record: {reason}")]
    #[allow(missing_docs)]
    Unwritable { topic: String, reason: String },
    /// A record larger than its topic takes.
    #[error("a record of {bytes} bytes for {topic}, which takes {limit}")]
    #[allow(missing_docs)]
    TooLarge { topic: String, bytes: usize, limit: usize },
    /// A topic that is needed is not there.
    #[error("there is no topic {topic} at {servers}; `litflow topics create` makes it")]
    #[allow(missing_docs)]
    NoTopic { topic: String, servers: String },
    /// The schema registry.
    #[error(transparent)]
    SchemaRegistry(#[from] schema_registry::Error),
    /// A local broker could not be had.
    #[error("{0}")]
    Broker(String),
}

impl Error {
    /// What the worker does about it.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Kafka { class, .. } => *class,
            Self::TooLarge { .. } => ErrorClass::Poison,
            Self::Membership { .. } | Self::Lost { .. } => ErrorClass::Abort,
            Self::SchemaRegistry(error) => error.class(),
            Self::Options(_)
            | Self::Property { .. }
            | Self::GaveUp { .. }
            | Self::Fenced { .. }
            | Self::FencedInstance { .. }
            | Self::Refused { .. }
            | Self::Denied(_)
            | Self::Unwritable { .. }
            | Self::NoTopic { .. }
            | Self::Broker(_) => ErrorClass::Fatal,
        }
    }

    /// An error of a call outside any transaction.
    pub(crate) fn kafka(step: &'static str, error: &KafkaError) -> Self {
        Self::Kafka { step, reason: error.to_string(), class: class_of(error) }
    }
}

/// librdkafka's rule for transactions: fatal, else abort, else retriable. Errors of other calls are told
/// by their code.
fn class_of(error: &KafkaError) -> ErrorClass {
    use RDKafkaErrorCode::{
        AllBrokersDown, BrokerTransportFailure, CoordinatorLoadInProgress, CoordinatorNotAvailable, LeaderNotAvailable,
        NetworkException, NotCoordinator, NotEnoughReplicas, NotLeaderForPartition, OperationTimedOut, QueueFull,
        RequestTimedOut,
    };
    if let KafkaError::Transaction(error) = error {
        return if error.is_fatal() {
            ErrorClass::Fatal
        } else if error.txn_requires_abort() {
            ErrorClass::Abort
        } else if error.is_retriable() {
            ErrorClass::Retriable
        } else {
            ErrorClass::Fatal
        };
    }
    let code = match error {
        KafkaError::AdminOp(code) => Some(*code), // which the method below passes over
        error => error.rdkafka_error_code(),
    };
    match code {
        Some(
            AllBrokersDown
            | BrokerTransportFailure
            | CoordinatorLoadInProgress
            | CoordinatorNotAvailable
            | LeaderNotAvailable
            | NetworkException
            | NotCoordinator
            | NotEnoughReplicas
            | NotLeaderForPartition
            | OperationTimedOut
            | QueueFull
            | RequestTimedOut,
        ) => ErrorClass::Retriable,
        _ => ErrorClass::Fatal,
    }
}

/// Whether a delivery that failed with this code fails every time: then there is no use in another try.
pub(crate) fn delivery_is_hopeless(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode::{
        InvalidTopic, PolicyViolation, TopicAuthorizationFailed, UnknownPartition, UnknownTopic,
        UnknownTopicOrPartition,
    };
    let is_of_topic = matches!(
        code,
        InvalidTopic
            | PolicyViolation
            | TopicAuthorizationFailed
            | UnknownPartition
            | UnknownTopic
            | UnknownTopicOrPartition
    );
    is_of_topic || record_is_refused(code)
}

/// Whether a delivery that failed with this code fails because of the record, while its topic takes others.
pub(crate) fn record_is_refused(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode::{InvalidRecord, MessageBatchTooLarge, MessageSizeTooLarge};
    matches!(code, InvalidRecord | MessageBatchTooLarge | MessageSizeTooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_one_record_is_told_from_what_is_wrong_with_all() {
        use RDKafkaErrorCode::{MessageSizeTooLarge, TopicAuthorizationFailed, UnknownTopicOrPartition};
        assert!(record_is_refused(MessageSizeTooLarge) && delivery_is_hopeless(MessageSizeTooLarge));
        for code in [TopicAuthorizationFailed, UnknownTopicOrPartition] {
            assert!(!record_is_refused(code) && delivery_is_hopeless(code), "{code}");
        }
    }

    #[test]
    fn a_cluster_that_does_not_answer_is_the_same_to_every_call() {
        use RDKafkaErrorCode::{OperationTimedOut, TopicAuthorizationFailed};
        for error in [KafkaError::AdminOp, KafkaError::MetadataFetch, KafkaError::MessageProduction] {
            assert_eq!(class_of(&error(OperationTimedOut)), ErrorClass::Retriable);
            assert_eq!(class_of(&error(TopicAuthorizationFailed)), ErrorClass::Fatal);
        }
    }
}
