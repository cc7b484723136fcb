//! `litflow topics`: the topics as they are kept in `topics/`, and the schemas of their values, applied to a cluster and
//! its schema registry and compared with them.

use super::exit::Exit;
use super::{flags, model};
use clap::Subcommand;
use litflow::bus;
use litflow::bus::admin::{Admin, Created};
use litflow::bus::schema_registry::{Registered, Subjects};
use litflow::bus::topics::{self, Topic};
use litflow::config::{Config, Flag};
use serde_json::json;
use std::io::Write as _;

/// Create the topics, or compare them with the cluster's
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  litflow topics create --bootstrap-servers broker-1:9092 --replication 3
  litflow topics check --json
  litflow topics list --types Gene,Disease")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Args)]
struct Common {
    /// Entity types to have topics for [default: the model's]
    #[arg(long, value_name = "TYPE,…", value_delimiter = ',')]
    types: Vec<String>,
    /// The model directory whose label set names the types [config: model.path]
    #[arg(long, value_name = "DIR")]
    model: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    kafka: flags::Kafka,
}

#[derive(Subcommand)]
enum What {
    /// Create what is missing; what is there stays as it is. With a schema registry, register the schemas first
    #[command(after_help = "\
Examples:
  litflow topics create --bootstrap-servers localhost:9092
  litflow topics create --bootstrap-servers broker-1:9092 --replication 3")]
    Create {
        /// Replicas of each partition [default: the cluster's]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
        replication: Option<i32>,
        #[command(flatten)]
        common: Common,
    },
    /// Name every difference between the cluster and what should be; ends with 1 where there is one
    #[command(after_help = "\
Examples:
  litflow topics check --bootstrap-servers broker-1:9092
  litflow topics check --json")]
    Check {
        #[command(flatten)]
        common: Common,
    },
    /// List what should be, without asking the cluster
    #[command(after_help = "\
Examples:
  litflow topics list
  litflow topics list --types Gene,Disease --json")]
    List {
        #[command(flatten)]
        common: Common,
    },
}

impl Args {
    pub fn flags(&self) -> Vec<Flag> {
        let common = self.common();
        let model = common.model.clone().map(|value| Flag { name: "--model", key: "model.path", value });
        [common.kafka.flags(), model.into_iter().collect()].concat()
    }

    fn common(&self) -> &Common {
        match &self.what {
            What::Create { common, .. } | What::Check { common } | What::List { common } => common,
        }
    }

    pub async fn run(&self, config: &Config) -> anyhow::Result<Exit> {
        let common = self.common();
        let types = if common.types.is_empty() { model::entity_types(config)? } else { common.types.clone() };
        let wanted = topics::all(&types)?;
        match &self.what {
            What::Create { replication, .. } => create(config, &wanted, *replication, common.json).await,
            What::Check { .. } => check(config, &wanted, common.json).await,
            What::List { .. } => list(&wanted, common.json),
        }
    }
}

async fn create(config: &Config, wanted: &[Topic], replication: Option<i32>, json: bool) -> anyhow::Result<Exit> {
    // The schemas first: whoever finds a topic finds what its values follow.
    let registered = match Subjects::new(&config.kafka.schema_registry)? {
        Some(subjects) => subjects.create(wanted).await.map_err(bus::Error::from)?,
        None => Vec::new(),
    };
    let created = Admin::new(&config.kafka)?.create(wanted, replication).await?;
    let mut out = anstream::stdout().lock();
    let schema_of = |topic: &str| registered.iter().find(|registered| registered.topic == topic);
    let name = |is_new: bool, new: &'static str| if is_new { new } else { "was there" };
    if json {
        let row = |(topic, how): &(String, Created)| {
            let mut row = json!({"topic": topic, "result": name(*how == Created::New, "created")});
            if let Some(Registered { id, is_new, .. }) = schema_of(topic) {
                row["schema"] = json!({"id": id, "result": name(*is_new, "registered")});
            }
            row
        };
        writeln!(out, "{:#}", json!(created.iter().map(row).collect::<Vec<_>>()))?;
    } else {
        let width = created.iter().map(|(topic, _)| topic.len()).max().unwrap_or(0);
        for (topic, how) in &created {
            let schema = schema_of(topic).map_or_else(String::new, |Registered { id, is_new, .. }| {
                format!("  schema {id} {}", name(*is_new, "registered"))
            });
            let line = format!("{topic:width$}  {:9}{schema}", name(*how == Created::New, "created"));
            writeln!(out, "{}", line.trim_end())?;
        }
    }
    Ok(Exit::Done)
}

async fn check(config: &Config, wanted: &[Topic], json: bool) -> anyhow::Result<Exit> {
    let mut differences = Admin::new(&config.kafka)?.check(wanted).await?;
    if let Some(subjects) = Subjects::new(&config.kafka.schema_registry)? {
        differences.extend(subjects.check(wanted).await.map_err(bus::Error::from)?);
    }
    let mut out = anstream::stdout().lock();
    if json {
        writeln!(out, "{:#}", json!(differences))?;
    } else if differences.is_empty() {
        writeln!(out, "all {} topics are as they should be", wanted.len())?;
    } else {
        for difference in &differences {
            writeln!(out, "{difference}")?;
        }
    }
    Ok(if differences.is_empty() { Exit::Done } else { Exit::Differs })
}

fn list(wanted: &[Topic], json: bool) -> anyhow::Result<Exit> {
    let mut out = anstream::stdout().lock();
    if json {
        writeln!(out, "{:#}", json!(wanted))?;
        return Ok(Exit::Done);
    }
    let names = wanted.iter().map(|topic| topic.name.len()).max().unwrap_or(0).max("TOPIC".len());
    writeln!(out, "{:names$}  PARTITIONS  POLICY   VALUE            KEY", "TOPIC")?;
    for Topic { name, key, value, partitions, config, .. } in wanted {
        let policy = config.get("cleanup.policy").map_or("", String::as_str);
        writeln!(out, "{name:names$}  {partitions:10}  {policy:7}  {value:15}  {key}")?;
    }
    Ok(Exit::Done)
}
