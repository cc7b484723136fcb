//! `litflow models`: the versions of the store, what is announced about them, and the moves between them.

mod gc;
mod promote;
mod shadow;
mod show;
mod verify;

pub use promote::Refused;
pub use show::date;

use super::exit::Exit;
use super::flags;
use clap::Subcommand;
use litflow::bus::records::ModelVersion;
use litflow::config::{Config, Flag};
use litflow::registry::aliases::{CHAMPION, Occasion};
use litflow::registry::{Announcements, Error, Moved, Registry, Store};
use serde_json::json;
use std::io::Write as _;
use std::path::PathBuf;

/// Publish, list, check, promote and roll back model versions
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  litflow models import models/biored-minilm --alias champion
  litflow models list
  litflow models promote biored-minilm 1.1.0 --reason 'better on rare types'
  litflow models rollback biored-minilm --reason 'misses cell lines'")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Args)]
struct Common {
    /// The folder or URI of the store [config: registry.store]
    #[arg(long, value_name = "STORE")]
    store: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    kafka: flags::Kafka,
}

#[derive(clap::Args)]
struct Signed {
    /// Why; it is kept in the history
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// Who; it is kept in the history [default: user@host]
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
}

#[derive(Subcommand)]
enum What {
    /// List the versions in the store with their aliases
    #[command(after_help = "\
Examples:
  litflow models list
  litflow models list biored-minilm --json
  litflow models list --offline --store s3://bucket/models")]
    List {
        /// The model [default: all]
        name: Option<String>,
        /// Ask the store only; aliases stay unknown
        #[arg(long)]
        offline: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Show a version: its files, figures and aliases
    #[command(after_help = "\
Examples:
  litflow models show biored-minilm
  litflow models show biored-minilm 1.1.0 --json | jq .metrics")]
    Show {
        /// The model
        name: String,
        /// A version, or an alias
        #[arg(default_value = CHAMPION)]
        version: String,
        #[command(flatten)]
        common: Common,
    },
    /// List who moved the aliases when, and why
    #[command(after_help = "\
Examples:
  litflow models history biored-minilm
  litflow models history biored-minilm --json | jq '.[] | select(.alias == \"champion\")'")]
    History {
        /// The model
        name: String,
        #[command(flatten)]
        common: Common,
    },
    /// Check a model against its manifest and what was announced, load it, and tag its golden sentences again
    #[command(after_help = "\
Examples:
  litflow models verify models/biored-minilm
  litflow models verify biored-minilm 1.1.0 --json
  litflow models verify biored-minilm champion --device cpu --precision fp32

A directory needs neither store nor Kafka. A version is fetched from the store, past the cache, and must be
the one that was announced.")]
    Verify(verify::Args),
    /// Publish a model directory into the store and announce it; its config.json says name and version
    #[command(after_help = "\
Examples:
  litflow models import models/biored-minilm --alias champion
  litflow models import runs/november --alias candidate --reason 'trained in November'")]
    Import {
        /// The model directory
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        /// The alias that the version gets, such as candidate or champion [default: none]
        #[arg(long, value_name = "ALIAS")]
        alias: Option<String>,
        #[command(flatten)]
        signed: Signed,
        #[command(flatten)]
        common: Common,
    },
    /// Make a version of the store the champion, which workers serve
    #[command(after_help = "\
Examples:
  litflow models promote biored-minilm 1.1.0 --reason 'better on rare types'
  litflow models promote biored-minilm candidate --by monthly-review
  litflow models promote biored-minilm 1.1.0 --alias trial
  litflow models promote biored-minilm candidate --after-shadow --shadow-articles 1000 --timeout 86400

With --after-shadow it ends with 5 and every reason where the candidate does not keep to the bounds.")]
    Promote(promote::Args),
    /// Show how far a candidate agrees with the champion on the articles that workers see
    #[command(after_help = "\
Examples:
  litflow models shadow biored-minilm
  litflow models shadow biored-minilm 1.1.0 --json | jq .micro

Workers with model.name and a shadow.sample above 0 compare the two. The champion is the reference: agreement says
how much would change, not what is better.")]
    Shadow(shadow::Args),
    /// Make the version before the champion the champion again
    #[command(after_help = "\
Examples:
  litflow models rollback biored-minilm --reason 'misses cell lines'
  litflow models rollback biored-minilm --json")]
    Rollback {
        /// The model
        name: String,
        #[command(flatten)]
        signed: Signed,
        #[command(flatten)]
        common: Common,
    },
    /// Remove versions that nobody needs from the store; shows them only, without --yes
    #[command(after_help = "\
Examples:
  litflow models gc
  litflow models gc biored-minilm --keep 5 --older-than 90
  litflow models gc --yes")]
    Gc(gc::Args),
}

impl Args {
    pub fn flags(&self) -> Vec<Flag> {
        let common = self.common();
        let store = flags::collect([("--store", "registry.store", &common.store)]);
        let model = if let What::Verify(args) = &self.what { args.flags() } else { Vec::new() };
        [store, common.kafka.flags(), model].concat()
    }

    fn common(&self) -> &Common {
        match &self.what {
            What::List { common, .. }
            | What::Show { common, .. }
            | What::History { common, .. }
            | What::Import { common, .. }
            | What::Rollback { common, .. } => common,
            What::Verify(args) => &args.common,
            What::Promote(args) => &args.common,
            What::Shadow(args) => &args.common,
            What::Gc(args) => &args.common,
        }
    }

    pub fn run(&self, config: &Config) -> anyhow::Result<Exit> {
        let json = self.common().json;
        match &self.what {
            What::List { name, offline, .. } => {
                let store = Store::open(&config.registry)?;
                let announced = if *offline { None } else { Some(Announcements::read(&config.kafka)?) };
                show::list(&store, announced.as_ref(), name.as_deref(), json)
            }
            What::Show { name, version, .. } => show::show(config, name, version, json),
            What::History { name, .. } => show::history(state(&Announcements::read(&config.kafka)?, name)?, json),
            What::Verify(args) => args.run(config),
            What::Import { folder, alias, signed, .. } => {
                let registry = Registry::create(&config.registry, &config.kafka)?;
                let (published, moved) = registry.publish(folder, alias.as_deref(), &signed.occasion())?;
                if !json {
                    let version = &published.version;
                    let what = if published.new { "published at" } else { "was there already, at" };
                    let mut out = anstream::stdout().lock();
                    writeln!(out, "{} {} {what} {}", version.name, version.version, version.location)?;
                }
                tell(&moved, &published.version.version, alias.as_deref(), json)
            }
            What::Promote(args) => args.run(config),
            What::Shadow(args) => args.run(config),
            What::Rollback { name, signed, .. } => {
                let registry = Registry::open(&config.registry, &config.kafka)?;
                let moved = registry.rollback(name, &signed.occasion())?;
                let version = moved.state.version.clone();
                tell(&moved, &version, Some(CHAMPION), json)
            }
            What::Gc(args) => args.run(config),
        }
    }
}

impl Signed {
    /// The same with what was found added to the reason.
    fn because(&self, found: &str) -> Self {
        let reasons = [self.reason.as_str(), found].into_iter().filter(|reason| !reason.is_empty());
        Self { reason: reasons.collect::<Vec<_>>().join("; "), by: self.by.clone() }
    }

    fn occasion(&self) -> Occasion {
        let by = self.by.clone().unwrap_or_else(flags::somebody);
        Occasion::now(&by, &self.reason)
    }
}

/// The version, where it is one, or that of an alias, which Kafka is asked for.
fn resolve(config: &Config, name: &str, version: &str) -> anyhow::Result<String> {
    if is_version(version) {
        return Ok(version.to_owned());
    }
    version_of(state(&Announcements::read(&config.kafka)?, name)?, version)
}

/// The version, where it is one, or that of an alias.
fn version_of(state: &ModelVersion, version: &str) -> anyhow::Result<String> {
    match state.alias(version) {
        _ if is_version(version) => Ok(version.to_owned()),
        Some(target) => Ok(target.version.clone()),
        None => {
            let aliases: Vec<&str> = state.aliases.keys().map(String::as_str).collect();
            let known = if aliases.is_empty() { "none".to_owned() } else { aliases.join(", ") };
            anyhow::bail!("{} has no alias {version:?}; its aliases are: {known}", state.name)
        }
    }
}

/// No alias begins with a digit, and every version does.
fn is_version(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_digit())
}

fn state<'a>(announcements: &'a Announcements, name: &str) -> Result<&'a ModelVersion, Error> {
    announcements.get(name)?.ok_or_else(|| Error::NotAnnounced { name: name.to_owned() })
}

/// Says what became of an alias.
fn tell(moved: &Moved, version: &str, alias: Option<&str>, json: bool) -> anyhow::Result<Exit> {
    let Moved { state, changed } = moved;
    let mut out = anstream::stdout().lock();
    if json {
        let value = json!({
            "name": state.name, "version": version, "alias": alias, "changed": changed,
            "aliases": state.aliases, "digest": state.known_digest(version),
        });
        writeln!(out, "{value:#}")?;
        return Ok(Exit::Done);
    }
    match alias {
        Some(alias) if !changed => writeln!(out, "{} {version} was {alias} already", state.name)?,
        Some(alias) => {
            let last = state.history.iter().rev().find(|change| change.alias == alias);
            let before = last.and_then(|change| change.previous.as_deref());
            let before = before.map(|version| format!(", before it was {version}")).unwrap_or_default();
            writeln!(out, "{} {version} is {alias} now{before}", state.name)?;
        }
        None => writeln!(out, "{} {version} is announced", state.name)?,
    }
    Ok(Exit::Done)
}
