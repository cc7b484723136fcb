//! A record for each announced version that a worker could not serve.

use super::Refusal;
use super::choose::Tell;
use crate::bus::producer::Outgoing;
use crate::bus::publisher::{PublishError, Publisher};
use crate::bus::records::ModelVersion;
use crate::bus::{Options, topics};
use rdkafka::message::{Header, OwnedHeaders};

/// How long a record may take: the next version must not wait for it.
const DELIVERY_TIMEOUT_MS: &str = "5000";
/// The longest reason in a header, in characters.
const REASON_MAX: usize = 1_000;

/// Sends the announcement to `models.dlq`, with the reason in its headers. Where that cannot be written, it is told
/// in the log and nothing else happens: the worker serves.
pub fn tell_cluster(mut kafka: Options) -> Tell {
    kafka.producer.insert("message.timeout.ms".into(), DELIVERY_TIMEOUT_MS.into());
    Box::new(move |wanted, refusal| {
        let Some(announced) = &wanted.announced else { return };
        if let Err(error) = publish(&kafka, announced, refusal) {
            tracing::warn!("{} cannot be told of the refusal: {error}", topics::REFUSED_MODELS);
        }
    })
}

fn publish(kafka: &Options, announced: &ModelVersion, refusal: &Refusal) -> Result<(), PublishError> {
    let mut publisher = Publisher::new(kafka, None)?;
    let record = publisher.outgoing(topics::REFUSED_MODELS, &announced.name, announced)?;
    publisher.send(&Outgoing { headers: Some(headers(refusal, &kafka.transactional_id())), ..record })?;
    publisher.finish()?;
    Ok(())
}

fn headers(refusal: &Refusal, worker: &str) -> OwnedHeaders {
    let reason: String = refusal.reason.chars().take(REASON_MAX).collect();
    let version = refusal.version.clone().unwrap_or_default();
    let digest = refusal.digest.clone().unwrap_or_default();
    let headers = [
        ("dlq.error", reason.as_str()),
        ("dlq.class", if refusal.will_retry { "retriable" } else { "poison" }),
        ("dlq.model", &version),
        ("dlq.digest", &digest),
        ("dlq.worker", worker),
    ];
    headers
        .into_iter()
        .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: Some(value) }))
}
