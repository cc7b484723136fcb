//! The subjects of the topics' values: registered, and compared with what they should be.

use super::client::Client;
use super::{Error, Options, subject};
use crate::bus::admin::Difference;
use crate::bus::topics::{self, Topic};
use crate::bus::{self, codec};
use serde::Serialize;

/// What a subject asks of its versions: each reads, and is read by, all before it.
pub const COMPATIBILITY: &str = "FULL_TRANSITIVE";

/// A schema that a subject has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Registered {
    /// The topic whose values follow it.
    pub topic: String,
    /// Its id.
    pub id: u32,
    /// Whether it was registered just now.
    pub is_new: bool,
}

/// Looks after the subjects of one registry.
pub struct Subjects {
    client: Client,
}

impl Subjects {
    /// None where no registry is set. Nothing is asked yet.
    pub fn new(options: &Options) -> Result<Option<Self>, bus::Error> {
        Ok(Client::new(options)?.map(|client| Self { client }))
    }

    /// Sets the subjects' compatibility and registers the schemas that they do not have. Topics that carry bytes as
    /// consumed have none. Safe to run again.
    pub async fn create(&self, topics: &[Topic]) -> Result<Vec<Registered>, Error> {
        let mut registered = Vec::new();
        for (topic, _, schema) in with_schema(topics) {
            // Before the schema, so that not even the second version escapes it.
            if self.client.compatibility(topic).await?.as_deref() != Some(COMPATIBILITY) {
                self.client.set_compatibility(topic, COMPATIBILITY).await?;
            }
            let (id, is_new) = match self.client.id_of(topic, &schema).await? {
                Some(id) => (id, false),
                None => (self.client.register(topic, &schema).await?, true),
            };
            registered.push(Registered { topic: topic.to_owned(), id, is_new });
        }
        Ok(registered)
    }

    /// Every way in which the subjects differ from what they should be.
    pub async fn check(&self, topics: &[Topic]) -> Result<Vec<Difference>, Error> {
        let mut differences = Vec::new();
        for (topic, name, schema) in with_schema(topics) {
            let mut differs = |what: &str, wanted: &str, found: String| {
                let what = format!("{what} of the subject {}", subject(topic));
                differences.push(Difference { topic: topic.to_owned(), what, wanted: wanted.to_owned(), found });
            };
            if self.client.id_of(topic, &schema).await?.is_none() {
                differs("schema", &format!("this version's {name}"), "not registered".to_owned());
            }
            let found = self.client.compatibility(topic).await?;
            if found.as_deref() != Some(COMPATIBILITY) {
                differs("compatibility", COMPATIBILITY, found.unwrap_or_else(|| "not set".to_owned()));
            }
        }
        Ok(differences)
    }
}

/// Each topic whose values have a schema, with the schema's name and text.
fn with_schema(topics: &[Topic]) -> impl Iterator<Item = (&str, &'static str, String)> {
    topics.iter().filter_map(|topic| {
        let name = topics::value_schema(&topic.name)?;
        Some((topic.name.as_str(), name, codec::schema_text(name)?))
    })
}
