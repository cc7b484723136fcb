//! `litflow models gc`: removes versions that nobody needs.

use super::super::exit::Exit;
use super::Common;
use super::show::{date, size};
use litflow::config::Config;
use litflow::registry::retention::{Retention, Verdict, plan};
use litflow::registry::{Announcements, Store};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

const DAY_MS: i64 = 24 * 3_600_000;

#[derive(clap::Args)]
pub struct Args {
    /// The model [default: all]
    name: Option<String>,
    /// Keep so many of the newest versions of each model
    #[arg(long, value_name = "N", default_value_t = 3)]
    keep: usize,
    /// Keep versions younger than so many days
    #[arg(long, value_name = "DAYS", default_value_t = 30, value_parser = clap::value_parser!(i64).range(0..=36_500))]
    older_than: i64,
    /// Remove them
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    pub common: Common,
}

impl Args {
    pub fn run(&self, config: &Config) -> anyhow::Result<Exit> {
        let store = Store::open(&config.registry)?;
        let stored = store.list(self.name.as_deref())?;
        let announcements = Announcements::read(&config.kafka)?;
        let mut needed = BTreeMap::new();
        for name in announcements.names() {
            // What cannot be read may need anything: its model is left out, and all of it kept.
            if let Ok(Some(state)) = announcements.get(name) {
                let versions = state.needed_versions().into_iter().map(str::to_owned).collect();
                needed.insert(name.to_owned(), versions);
            }
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
        let retention = Retention { newest: self.keep, younger_than_ms: self.older_than * DAY_MS };
        let verdicts = plan(stored, &needed, retention, now);
        if self.yes {
            for verdict in verdicts.iter().filter(|verdict| verdict.remove) {
                store.remove(&verdict.stored.name, &verdict.stored.version)?;
            }
        }
        self.tell(&verdicts)
    }

    fn tell(&self, verdicts: &[Verdict]) -> anyhow::Result<Exit> {
        let mut out = anstream::stdout().lock();
        if self.common.json {
            writeln!(out, "{:#}", json!({"removed": self.yes, "versions": verdicts}))?;
            return Ok(Exit::Done);
        }
        let verb = if self.yes { "removed" } else { "to be removed" };
        for Verdict { stored, remove, why } in verdicts {
            let what = if *remove { verb } else { "kept" };
            let (name, version, published) = (&stored.name, &stored.version, date(stored.modified_at));
            writeln!(out, "{what:13}  {name} {version}  {published}  {:>9}  {why}", size(stored.bytes))?;
        }
        let going: Vec<u64> = verdicts.iter().filter(|v| v.remove).map(|v| v.stored.bytes).collect();
        let total = size(going.iter().sum());
        let hint = if self.yes || going.is_empty() { "" } else { "; --yes removes them" };
        writeln!(out, "{} of {} versions {verb}, {total}{hint}", going.len(), verdicts.len())?;
        Ok(Exit::Done)
    }
}
