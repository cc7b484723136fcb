//! Topics as data: `topics/*.toml`, compiled in, and the names that the rest of litflow uses.
//!
//! A file whose name holds `{type}` is a template: it stands for one topic an entity type.

use super::Error;
use super::codec::Record;
use super::records::{Annotations, EntityMention, LabeledDocument, ModelVersion, ShadowTally};
use crate::article::ArticleEvent;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What arrives.
pub const ARTICLES: &str = "articles";
/// The newest state of each article.
pub const ANNOTATIONS: &str = "annotations";
/// What could not be processed.
pub const DEAD_LETTERS: &str = "articles.dlq";
/// Documents with gold spans.
pub const LABELS: &str = "labels";
/// Model versions.
pub const MODELS: &str = "models";
/// Announcements of versions that a worker could not serve.
pub const REFUSED_MODELS: &str = "models.dlq";
/// How far candidates agree with champions, as workers count it.
pub const SHADOW: &str = "models.shadow";
const ENTITIES: &str = "entities.";
const TYPE: &str = "{type}";

const FILES: [&str; 8] = [
    include_str!("../../topics/articles.toml"),
    include_str!("../../topics/annotations.toml"),
    include_str!("../../topics/entities.toml"),
    include_str!("../../topics/articles.dlq.toml"),
    include_str!("../../topics/labels.toml"),
    include_str!("../../topics/models.toml"),
    include_str!("../../topics/models.dlq.toml"),
    include_str!("../../topics/models.shadow.toml"),
];

/// A topic as it should be on a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// What the records' keys are.
    pub key: String,
    /// The values' schema in `schemas/`, or `as consumed`.
    pub value: String,
    /// Number of partitions.
    pub partitions: i32,
    /// Why it is there and why its policy is what it is.
    pub why: String,
    /// Topic configuration by Kafka's names. What is not named stays as the cluster has it.
    pub config: BTreeMap<String, String>,
}

impl Topic {
    /// The largest record that the topic takes, in bytes; Kafka's default where its file does not say.
    pub fn max_message_bytes(&self) -> usize {
        const KAFKA_DEFAULT: usize = 1_048_588;
        self.config.get("max.message.bytes").and_then(|bytes| bytes.parse().ok()).unwrap_or(KAFKA_DEFAULT)
    }
}

/// The topic that mentions of one entity type go to: `entities.Gene`.
///
/// # Errors
/// Where the type's name cannot be part of a topic's name.
pub fn entities(entity_type: &str) -> Result<String, Error> {
    const LONGEST_NAME: usize = 249;
    let topic = format!("{ENTITIES}{entity_type}");
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if entity_type.is_empty() || topic.len() > LONGEST_NAME || !entity_type.chars().all(allowed) {
        return Err(Error::Options(format!(
            "the entity type {entity_type:?} cannot name a topic: only ASCII letters, digits, '.', '_' and '-' can, \
             {LONGEST_NAME} together with {ENTITIES:?}"
        )));
    }
    Ok(topic)
}

/// All topics for a model with these entity types, in the order of the way of the data.
pub fn all(entity_types: &[String]) -> Result<Vec<Topic>, Error> {
    let mut topics = Vec::new();
    for text in FILES {
        let topic: Topic = toml::from_str(text).expect("the topic files are compiled in, and a test parses each");
        if !topic.name.contains(TYPE) {
            topics.push(topic);
            continue;
        }
        for entity_type in entity_types {
            topics.push(Topic { name: entities(entity_type)?, ..topic.clone() });
        }
    }
    Ok(topics)
}

/// The schema that a topic's values follow, `None` for topics that are not litflow's or carry bytes as consumed.
pub fn value_schema(topic: &str) -> Option<&'static str> {
    match topic {
        ARTICLES => Some(ArticleEvent::NAME),
        ANNOTATIONS => Some(Annotations::NAME),
        LABELS => Some(LabeledDocument::NAME),
        MODELS | REFUSED_MODELS => Some(ModelVersion::NAME),
        SHADOW => Some(ShadowTally::NAME),
        _ if topic.starts_with(ENTITIES) => Some(EntityMention::NAME),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_say_what_the_code_says() {
        let topics = all(&["Gene".into(), "CellLine".into()]).unwrap();
        let names: Vec<_> = topics.iter().map(|topic| topic.name.as_str()).collect();
        assert_eq!(
            names,
            [
                ARTICLES,
                ANNOTATIONS,
                "entities.Gene",
                "entities.CellLine",
                DEAD_LETTERS,
                LABELS,
                MODELS,
                REFUSED_MODELS,
                SHADOW
            ]
        );
        for topic in &topics {
            assert_eq!(topic.value, value_schema(&topic.name).unwrap_or("as consumed"), "{}", topic.name);
            assert!(topic.partitions > 0 && !topic.why.trim().is_empty());
            assert!(topic.config.contains_key("cleanup.policy"));
        }
    }

    #[test]
    fn the_largest_article_fits_among_the_dead_letters() {
        let topics = all(&[]).unwrap();
        let limit = |name: &str| topics.iter().find(|topic| topic.name == name).unwrap().max_message_bytes();
        let headers = 64 << 10;
        assert!(limit(DEAD_LETTERS) >= limit(ARTICLES) + headers);
    }

    #[test]
    fn types_that_cannot_name_a_topic_are_refused() {
        for bad in ["", "Gen e", "Gène", "a/b", &"x".repeat(300)] {
            assert!(entities(bad).is_err(), "{bad}");
        }
        assert_eq!(entities("Gene").unwrap(), "entities.Gene");
    }
}
