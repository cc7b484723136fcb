//! `litflow models shadow`: how far a candidate agrees with the champion on the articles that workers see.

use super::super::exit::Exit;
use super::super::paint::{Painter, sanitized};
use super::show::date;
use super::{Common, state, version_of};
use litflow::bus;
use litflow::bus::records::{AliasTarget, ModelVersion, TypeAgreement};
use litflow::config::Config;
use litflow::registry::aliases::{CANDIDATE, CHAMPION};
use litflow::registry::{Announcements, Error};
use litflow::worker::shadow::Comparison;
use serde_json::json;
use std::io::Write as _;

#[derive(clap::Args)]
pub struct Args {
    /// The model
    name: String,
    /// A version, or an alias
    #[arg(default_value = CANDIDATE)]
    version: String,
    #[command(flatten)]
    pub common: Common,
}

/// A version beside the champion in force.
pub struct Pair {
    pub name: String,
    pub version: String,
    pub digest: String,
    pub champion: AliasTarget,
}

/// There is no champion to compare with.
#[derive(Debug, thiserror::Error)]
#[error("{0} has no champion to compare with; `litflow models promote {0} VERSION` makes one")]
pub struct NoChampion(String);

impl Pair {
    /// What `version`, a version or an alias, is to be compared with now.
    pub fn of(state: &ModelVersion, version: &str) -> anyhow::Result<Self> {
        let name = state.name.clone();
        let version = version_of(state, version)?;
        let digest = state.known_digest(&version).map(str::to_owned);
        let digest = digest.ok_or_else(|| Error::NotFound { location: format!("{name} {version}") })?;
        let champion = state.alias(CHAMPION).cloned().ok_or_else(|| NoChampion(name.clone()))?;
        Ok(Self { name, version, digest, champion })
    }

    /// What workers have counted of the two.
    pub fn compared(&self, config: &Config) -> Result<Comparison, bus::Error> {
        Comparison::read(&config.kafka, &self.digest, &self.champion.digest)
    }
}

impl Args {
    pub fn run(&self, config: &Config) -> anyhow::Result<Exit> {
        let announcements = Announcements::read(&config.kafka)?;
        let pair = Pair::of(state(&announcements, &self.name)?, &self.version)?;
        let comparison = pair.compared(config)?;
        if self.common.json {
            writeln!(anstream::stdout().lock(), "{:#}", json(&pair, &comparison))?;
        } else {
            write(&pair, &comparison)?;
        }
        Ok(Exit::Done)
    }
}

fn json(pair: &Pair, comparison: &Comparison) -> serde_json::Value {
    let Comparison { agreement, workers, refused, updated_at } = comparison;
    let of_type = |of: &TypeAgreement| json!({"f1": of.f1(), "agreed": of.agreed, "added": of.added, "missing": of.missing, "mean_shift": of.mean_shift()});
    let types = agreement.types.iter().map(|(name, of)| (name.clone(), of_type(of)));
    json!({
        "name": pair.name,
        "candidate": {"version": pair.version, "digest": pair.digest},
        "champion": {"version": pair.champion.version, "digest": pair.champion.digest},
        "workers": workers, "updated_at": updated_at, "refused": refused,
        "articles": agreement.articles, "sentences": agreement.sentences,
        "failed": agreement.failed, "dropped": agreement.dropped,
        "champion_seconds": agreement.champion_seconds, "candidate_seconds": agreement.candidate_seconds,
        "latency_ratio": agreement.latency_ratio(),
        "micro": of_type(&agreement.micro()), "types": types.collect::<serde_json::Map<_, _>>(),
    })
}

fn write(pair: &Pair, comparison: &Comparison) -> anyhow::Result<()> {
    let Comparison { agreement, workers, refused, updated_at } = comparison;
    let mut out = anstream::stdout().lock();
    writeln!(out, "{} {} against the champion {}", pair.name, pair.version, pair.champion.version)?;
    for (worker, reason) in refused {
        writeln!(out, "{} refuses it: {}", sanitized(worker), sanitized(reason))?;
    }
    if *workers == 0 {
        writeln!(out, "no worker has compared them (shadow.sample above 0 has workers compare the candidate)")?;
        return Ok(());
    }
    let updated = updated_at.map(date).unwrap_or_default();
    let (articles, sentences) = (agreement.articles, agreement.sentences);
    writeln!(out, "{articles} articles, {sentences} sentences, workers: {workers}, until {updated}")?;
    let cost = agreement.latency_ratio().map_or_else(|| "unknown".to_owned(), |ratio| format!("{ratio:.2} times"));
    let (failed, dropped) = (agreement.failed, agreement.dropped);
    writeln!(
        out,
        "cost of an article {cost} the champion's, failed at {failed}, not compared for want of room {dropped}"
    )?;

    let painter = Painter::for_stdout();
    let width = agreement.types.keys().map(|name| name.chars().count()).max().unwrap_or(0).max("TYPE".len());
    writeln!(out, "\n{:width$}      F1    AGREED     ADDED   MISSING  SCORE SHIFT", "TYPE")?;
    let micro = agreement.micro();
    let rows =
        agreement.types.iter().map(|(name, of)| (painter.entity_type(&sanitized(name)), name.chars().count(), of));
    for (name, characters, of) in rows.chain([("all".to_owned(), 3, &micro)]) {
        let figure = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| format!("{value:.4}"));
        let (padding, f1, shift) = (" ".repeat(width - characters), figure(of.f1()), figure(of.mean_shift()));
        writeln!(out, "{name}{padding}  {f1:>6}  {:>8}  {:>8}  {:>8}  {shift:>11}", of.agreed, of.added, of.missing)?;
    }
    Ok(())
}
