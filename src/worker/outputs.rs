//! The topics that a worker publishes to: whether the cluster has them, the largest record each takes, and how values
//! are written for them.

use super::shutdown::Shutdown;
use super::status::Status;
use crate::ErrorClass;
use crate::bus::admin::Admin;
use crate::bus::wire::Wire;
use crate::bus::{self, topics};
use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

/// How long a schema registry that does not answer is waited for at the start, as the brokers are.
const START_TIMEOUT: Duration = Duration::from_secs(60);
const START_PAUSE: Duration = Duration::from_millis(200);
/// How often that is told in the log.
const TELL_INTERVAL: Duration = Duration::from_secs(5);

/// The output topics that were found on the cluster. A model may serve when its types have theirs.
#[derive(Debug, Default)]
pub struct Outputs {
    kafka: bus::Options,
    wire: Wire,
    /// Largest record by topic, key and value together, in bytes.
    limits: RwLock<BTreeMap<String, usize>>,
}

impl Outputs {
    /// On this cluster. Nothing is asked yet.
    pub fn new(kafka: &bus::Options) -> Result<Self, bus::Error> {
        Ok(Self { kafka: kafka.clone(), wire: Wire::new(kafka)?, limits: RwLock::default() })
    }

    /// Asks the cluster for the topics of a model with these entity types, and the schema registry, where there is
    /// one, for the ids that their values are written with.
    ///
    /// # Errors
    /// [`bus::Error::NoTopic`] where a topic is missing; [`bus::Error::Options`] where a type cannot name one;
    /// [`bus::Error::SchemaRegistry`] where an id cannot be had.
    pub async fn admit(&self, entity_types: &[String]) -> Result<(), bus::Error> {
        let unused = [topics::LABELS, topics::MODELS, topics::REFUSED_MODELS, topics::SHADOW];
        let mut needed = topics::all(entity_types)?;
        needed.retain(|topic| !unused.contains(&topic.name.as_str()));
        let admin = Admin::new(&self.kafka)?;
        let (inputs, outputs): (Vec<_>, Vec<_>) =
            needed.iter().cloned().partition(|topic| topic.name == topics::ARTICLES);
        admin.require(&inputs, "Read")?;
        admin.require(&outputs, "Write")?;
        self.wire.admit(&needed).await?;
        let found = admin.record_limits(&needed).await;
        self.limits.write().unwrap_or_else(PoisonError::into_inner).extend(found);
        Ok(())
    }

    /// The same before anything is consumed: brokers and a schema registry that do not answer are waited for, up to a
    /// minute, or until the worker is to end.
    pub(super) async fn admit_at_start(
        &self,
        entity_types: &[String],
        shutdown: &Shutdown,
        status: &Status,
    ) -> Result<(), bus::Error> {
        let began = Instant::now();
        let mut told: Option<Instant> = None;
        loop {
            let admitted = tokio::select! {
                admitted = self.admit(entity_types) => admitted,
                () = begun(shutdown) => {
                    let (step, servers) = ("asking for the topics", self.kafka.bootstrap_servers.clone());
                    return Err(bus::Error::GaveUp { step, servers, reason: "the worker is to end".to_owned() });
                }
            };
            let (reason, of_registry) = match &admitted {
                Err(error) if error.class() == ErrorClass::Retriable => {
                    (error.to_string(), matches!(error, bus::Error::SchemaRegistry(_)))
                }
                _ => return admitted,
            };
            if began.elapsed() > START_TIMEOUT {
                return admitted;
            }
            if told.is_none_or(|told| told.elapsed() > TELL_INTERVAL) {
                told = Some(Instant::now());
                tracing::warn!("nothing is consumed yet: {reason}");
            }
            status.round(|snapshot| snapshot.schema_registry = of_registry.then_some(reason));
            tokio::time::sleep(START_PAUSE).await;
        }
    }

    /// How values are written and read.
    pub(crate) fn wire(&self) -> &Wire {
        &self.wire
    }

    /// The largest record that a topic takes; no limit where it was not asked for.
    pub(super) fn limit(&self, topic: &str) -> usize {
        let limits = self.limits.read().unwrap_or_else(PoisonError::into_inner);
        limits.get(topic).copied().unwrap_or(usize::MAX)
    }

    #[cfg(test)]
    pub(super) fn with_limits<const N: usize>(limits: [(&str, usize); N]) -> Self {
        let limits = limits.map(|(topic, bytes)| (topic.to_owned(), bytes)).into();
        Self { limits: RwLock::new(limits), ..Self::default() }
    }
}

/// Done when the worker is to end.
async fn begun(shutdown: &Shutdown) {
    while !shutdown.has_begun() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
