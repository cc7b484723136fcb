//! The topics that a worker publishes to: whether the cluster has them, and the largest record each takes.

use crate::bus::admin::Admin;
use crate::bus::{self, topics};
use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

/// The output topics that were found on the cluster. A model may serve when its types have theirs.
#[derive(Debug, Default)]
pub struct Outputs {
    kafka: bus::Options,
    /// Largest record by topic, key and value together, in bytes.
    limits: RwLock<BTreeMap<String, usize>>,
}

impl Outputs {
    /// On this cluster. Nothing is asked yet.
    pub fn new(kafka: &bus::Options) -> Self {
        Self { kafka: kafka.clone(), limits: RwLock::default() }
    }

    /// Asks the cluster for the topics of a model with these entity types.
    ///
    /// # Errors
    /// [`bus::Error::NoTopic`] where one is missing; [`bus::Error::Options`] where a type cannot name one.
    pub async fn admit(&self, entity_types: &[String]) -> Result<(), bus::Error> {
        let unused = [topics::LABELS, topics::MODELS, topics::REFUSED_MODELS, topics::SHADOW];
        let mut needed = topics::all(entity_types)?;
        needed.retain(|topic| !unused.contains(&topic.name.as_str()));
        let admin = Admin::new(&self.kafka)?;
        let (inputs, outputs): (Vec<_>, Vec<_>) =
            needed.iter().cloned().partition(|topic| topic.name == topics::ARTICLES);
        admin.require(&inputs, "Read")?;
        admin.require(&outputs, "Write")?;
        let found = admin.record_limits(&needed).await;
        self.limits.write().unwrap_or_else(PoisonError::into_inner).extend(found);
        Ok(())
    }

    /// The largest record that a topic takes; no limit where it was not asked for.
    pub(super) fn limit(&self, topic: &str) -> usize {
        let limits = self.limits.read().unwrap_or_else(PoisonError::into_inner);
        limits.get(topic).copied().unwrap_or(usize::MAX)
    }

    #[cfg(test)]
    pub(super) fn with_limits<const N: usize>(limits: [(&str, usize); N]) -> Self {
        let limits = limits.map(|(topic, bytes)| (topic.to_owned(), bytes)).into();
        Self { kafka: bus::Options::default(), limits: RwLock::new(limits) }
    }
}
