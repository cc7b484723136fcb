//! The broker that a demo or a test talks to: a real Apache Kafka of its own, librdkafka's mock cluster in
//! this process, or one that is running already.

mod embedded;
mod local;

pub use embedded::Embedded;
pub use local::{Local, LocalOptions};

use super::admin::Admin;
use super::producer::Delivery;
use super::topics::Topic;
use super::{Error, Options, schema_registry};
use std::str::FromStr;

/// Which broker is wanted, as the command line says it: `auto`, `local`, `embedded` or `HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Choice {
    /// The first of local and embedded that can be had.
    #[default]
    Auto,
    /// A real Apache Kafka as a child process.
    Local,
    /// The mock cluster in this process.
    Embedded,
    /// A cluster that is running.
    At(String),
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "local" => Ok(Self::Local),
            "embedded" => Ok(Self::Embedded),
            servers if servers.contains(':') => Ok(Self::At(servers.to_owned())),
            other => Err(format!("{other:?} is none of auto, local, embedded, HOST:PORT")),
        }
    }
}

impl std::fmt::Display for Choice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Local => "local",
            Self::Embedded => "embedded",
            Self::At(servers) => servers,
        })
    }
}

/// A broker; one that was started here stops when this is dropped.
pub enum Broker {
    /// A real Apache Kafka, a child of this process.
    Local(Local),
    /// The mock cluster in this process.
    Embedded(Embedded),
    /// Somebody else's.
    External(String),
}

impl Broker {
    /// Starts or finds the broker; returns when it answers. Blocks for a few seconds.
    pub fn start(choice: &Choice, local: &LocalOptions) -> Result<Self, Error> {
        match choice {
            Choice::Local => Ok(Self::Local(Local::start(local)?)),
            Choice::Embedded => Ok(Self::Embedded(Embedded::start()?)),
            Choice::At(servers) => Ok(Self::External(servers.clone())),
            Choice::Auto => match Local::start(local) {
                Ok(local) => Ok(Self::Local(local)),
                Err(reason) => {
                    tracing::info!("no local Apache Kafka, the embedded broker takes its place: {reason}");
                    Ok(Self::Embedded(Embedded::start()?))
                }
            },
        }
    }

    /// Where clients connect.
    pub fn bootstrap_servers(&self) -> &str {
        match self {
            Self::Local(local) => local.bootstrap_servers(),
            Self::Embedded(embedded) => embedded.bootstrap_servers(),
            Self::External(servers) => servers,
        }
    }

    /// `options`, connected to this broker. One that was started here has no schema registry beside it.
    pub fn options(&self, options: &Options) -> Options {
        let schema_registry = match self {
            Self::Local(_) | Self::Embedded(_) => schema_registry::Options::default(),
            Self::External(_) => options.schema_registry.clone(),
        };
        Options { bootstrap_servers: self.bootstrap_servers().to_owned(), schema_registry, ..options.clone() }
    }

    /// Creates the topics that are missing, with the cluster's default replication.
    pub async fn create_topics(&self, topics: &[Topic], options: &Options) -> Result<(), Error> {
        match self {
            Self::Embedded(embedded) => embedded.create_topics(topics),
            Self::Local(_) | Self::External(_) => {
                Admin::new(&self.options(options))?.create(topics, None).await.map(|_| ())
            }
        }
    }

    /// The best delivery that the broker is capable of.
    pub fn delivery(&self) -> Delivery {
        match self {
            Self::Embedded(_) => Delivery::AtLeastOnce,
            Self::Local(_) | Self::External(_) => Delivery::ExactlyOnce,
        }
    }

    /// The most bytes of articles that may be published to it, where it would forget more.
    pub fn budget(&self) -> Option<usize> {
        match self {
            Self::Embedded(_) => Some(embedded::BUDGET),
            Self::Local(_) | Self::External(_) => None,
        }
    }

    /// What it is and what it is not, for the user.
    pub fn describe(&self) -> String {
        match self {
            Self::Local(local) => format!("a local Apache Kafka on {}", local.bootstrap_servers()),
            Self::Embedded(embedded) => format!(
                "the embedded broker on {} (librdkafka's mock cluster: at-least-once, one worker, {} MiB of articles)",
                embedded.bootstrap_servers(),
                embedded::BUDGET >> 20
            ),
            Self::External(servers) => format!("the cluster at {servers}"),
        }
    }
}
