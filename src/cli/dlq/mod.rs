//! `litflow dlq`: what could not be processed, shown, sent again, or put away.

mod select;
mod show;

use super::exit::Exit;
use super::paint::sanitized;
use super::{flags, input, progress};
use clap::{ArgGroup, Subcommand};
use litflow::bus::admin::Admin;
use litflow::bus::topics;
use litflow::bus::wire::Wire;
use litflow::config::{Config, Flag};
use litflow::dlq::{DeadLetters, Event, Keeper, Place, Range, Replayed, find};
use select::Select;
use serde_json::json;
use std::io::{IsTerminal as _, Write as _};
use tokio::runtime::Runtime;

/// Show dead letters, send them again, put them away
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  litflow dlq list --summary
  litflow dlq show 0@42
  litflow dlq replay --reason article_too_large --since 3d --dry-run
  litflow dlq purge --until 90d

A letter that was replayed or purged carries a mark on the topic: lists pass over it, and it is not replayed again
unless --again says so.")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Args)]
struct Common {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    kafka: flags::Kafka,
}

/// How a change is made.
#[derive(clap::Args)]
struct Change {
    /// Show what is meant, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Who; it stands in the marks [default: user@host]
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    /// The most letters in one transaction
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=10_000), hide_short_help = true)]
    batch: u32,
}

#[derive(Subcommand)]
enum What {
    /// List the letters that nobody has dealt with, the oldest of each partition first
    #[command(after_help = "\
Examples:
  litflow dlq list
  litflow dlq list --reason not_avro,unknown_schema --since 2h
  litflow dlq list --all --json | jq -r 'select(.state == \"replayed\") | .place'
  litflow dlq list --summary --stage parse

With --json one object a line; with --summary and --json one list.")]
    List {
        #[command(flatten)]
        select: Select,
        /// Those that were replayed or purged, too
        #[arg(long)]
        all: bool,
        /// Count by reason and stage
        #[arg(long, conflicts_with = "count")]
        summary: bool,
        /// At most so many
        #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        count: Option<u64>,
        #[command(flatten)]
        common: Common,
    },
    /// Show one letter: all its headers and its value
    #[command(after_help = "\
Examples:
  litflow dlq show 0@42
  litflow dlq show 0@42 --raw > article.avro
  litflow dlq show 0@42 --json | jq .headers")]
    Show {
        /// Where it stands, as `list` tells it
        #[arg(value_name = "PARTITION@OFFSET")]
        place: Place,
        /// Write the original value to stdout, and nothing else
        #[arg(long, conflicts_with = "json")]
        raw: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Send letters to the topic that they came from, each once, and mark them
    #[command(
        group = ArgGroup::new("meant").args(Select::MEANT).arg("all_letters").required(true).multiple(true),
        after_help = "\
Examples:
  litflow dlq replay --reason article_too_large --dry-run
  litflow dlq replay --reason article_too_large --yes
  litflow dlq replay --partition 0 --offset 42
  litflow dlq replay --all-letters --by oncall

The record and the mark of its letter are in one transaction: ended by whatever means and run again, it sends the
rest. Of two at a time the later one goes on. The event becomes the newest of its article: where a newer version has
been published since, leave the older letter out.
Ends with 3 where letters were left out; each is told on stderr."
    )]
    Replay {
        #[command(flatten)]
        select: Select,
        /// All that nobody has dealt with
        #[arg(long)]
        all_letters: bool,
        /// Those that were replayed or purged, too
        #[arg(long)]
        again: bool,
        #[command(flatten)]
        change: Change,
        #[command(flatten)]
        common: Common,
    },
    /// Mark letters as done with, and delete the beginning of each partition as far as all were dealt with
    #[command(
        group = ArgGroup::new("meant").args(Select::MEANT).args(["all_letters", "replayed"]).required(true).multiple(true),
        after_help = "\
Examples:
  litflow dlq purge --until 90d --dry-run
  litflow dlq purge --reason malformed_avro --before 2026-11-01T00:00:00Z
  litflow dlq purge --replayed --yes

Kafka deletes only from the beginning of a partition: a purged letter behind one that nobody has dealt with stays
there, marked, until that one is replayed or purged, or the topic's retention takes it."
    )]
    Purge {
        #[command(flatten)]
        select: Select,
        /// All that nobody has dealt with
        #[arg(long)]
        all_letters: bool,
        /// Mark nothing: delete what has been replayed or purged already
        #[arg(long, conflicts_with_all = Select::MEANT, conflicts_with = "dry_run")]
        replayed: bool,
        #[command(flatten)]
        change: Change,
        #[command(flatten)]
        common: Common,
    },
}

/// A change that nobody has agreed to.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotConfirmed(&'static str);

impl Args {
    pub fn flags(&self) -> Vec<Flag> {
        match &self.what {
            What::List { common, .. }
            | What::Show { common, .. }
            | What::Replay { common, .. }
            | What::Purge { common, .. } => common.kafka.flags(),
        }
    }

    pub fn run(&self, config: &Config, runtime: &Runtime) -> anyhow::Result<Exit> {
        match &self.what {
            What::List { select, all, summary, count, common } => {
                let mut letters = read(config, select)?;
                match summary {
                    true => show::summary(&mut letters, *all, common.json),
                    false => show::list(&mut letters, *all, *count, common.json),
                }
            }
            What::Show { place, raw, common } => {
                let (letter, mark) = reading(|progress| find(&config.kafka, *place, progress))?;
                match raw {
                    true => show::raw(&letter),
                    false => show::letter(&letter, &Wire::new(&config.kafka)?, mark.as_ref(), common.json),
                }
            }
            What::Replay { select, again, change, common, .. } if change.dry_run => {
                show::list(&mut read(config, select)?, *again, None, common.json)
            }
            What::Replay { select, again, change, common, .. } => {
                replay(config, runtime, select, *again, change, common.json)
            }
            What::Purge { select, change, common, .. } if change.dry_run => {
                show::list(&mut read(config, select)?, false, None, common.json)
            }
            What::Purge { select, replayed, change, common, .. } => {
                purge(config, runtime, select, !replayed, change, common.json)
            }
        }
    }
}

fn read(config: &Config, select: &Select) -> anyhow::Result<DeadLetters> {
    Ok(reading(|progress| DeadLetters::read(&config.kafka, select.filter(), Range::Matching, progress))?)
}

/// Shows how far reading the topic has come.
fn reading<T>(read: impl FnOnce(&mut dyn FnMut(u64, u64)) -> T) -> T {
    with_bar("reading the dead letters", read)
}

fn with_bar<T>(message: &'static str, work: impl FnOnce(&mut dyn FnMut(u64, u64)) -> T) -> T {
    let bar = progress::spinner(message);
    let mut known = 0;
    let done = work(&mut |done, total| {
        if total != known {
            progress::set_total(&bar, total);
            known = total;
        }
        bar.set_position(done);
    });
    bar.finish_and_clear();
    done
}

fn take(config: &Config, select: &Select, range: Range, change: &Change) -> anyhow::Result<Keeper> {
    let by = change.by.clone().unwrap_or_else(flags::somebody);
    let batch = change.batch as usize;
    Ok(reading(|progress| Keeper::take(&config.kafka, select.filter(), range, &by, batch, progress))?)
}

fn replay(
    config: &Config,
    runtime: &Runtime,
    select: &Select,
    again: bool,
    change: &Change,
    json: bool,
) -> anyhow::Result<Exit> {
    let articles = topics::all(&[])?.into_iter().filter(|topic| topic.name == topics::ARTICLES).collect::<Vec<_>>();
    let admin = Admin::new(&config.kafka)?;
    admin.require(&articles, "Write")?;
    let limits = runtime.block_on(admin.record_limits(&articles));
    let largest = limits.get(topics::ARTICLES).copied().unwrap_or(usize::MAX);
    let mut keeper = take(config, select, Range::Matching, change)?;
    let count = keeper.letters().count(again);
    if count > 0 && !change.yes && std::io::stdin().is_terminal() {
        confirm(&format!("Send {} to {} again?", letters(count), topics::ARTICLES))?;
    }
    let done = with_bar("replaying", |progress| keeper.replay(again, largest, progress, &mut tell))?;
    let Replayed { replayed, left_out } = done;
    let mut out = anstream::stdout().lock();
    if json {
        writeln!(out, "{}", json!(done))?;
    } else {
        writeln!(out, "{} replayed", letters(replayed))?;
    }
    if left_out > 0 {
        anstream::eprintln!("{} left out", letters(left_out));
        return Ok(Exit::LeftOut);
    }
    Ok(Exit::Done)
}

fn purge(
    config: &Config,
    runtime: &Runtime,
    select: &Select,
    mark: bool,
    change: &Change,
    json: bool,
) -> anyhow::Result<Exit> {
    let admin = Admin::new(&config.kafka)?;
    if !change.yes && !std::io::stdin().is_terminal() {
        return Err(NotConfirmed("purge deletes for good: give --yes where nobody can be asked").into());
    }
    let mut keeper = take(config, select, Range::Whole, change)?;
    let count = if mark { keeper.letters().count(false) } else { 0 };
    if !change.yes {
        confirm(&format!("Purge {}, and delete for good what was dealt with?", letters(count)))?;
    }
    let purged = if mark { with_bar("purging", |progress| keeper.purge(progress, &mut tell))? } else { 0 };
    let deleted = runtime.block_on(keeper.delete(&admin))?;
    let mut out = anstream::stdout().lock();
    if json {
        writeln!(out, "{}", json!({"purged": purged, "deleted": deleted}))?;
    } else {
        writeln!(out, "{} purged, {} deleted from the topic", letters(purged), letters(deleted))?;
    }
    Ok(Exit::Done)
}

/// What was committed already is told when the work ends; what is left out, as it is met.
fn tell(event: Event<'_>) {
    match event {
        Event::LeftOut(letter, why) => {
            input::tell_left_out(&format!("{}: {}", letter.place(), sanitized(why)));
        }
        Event::Committed(letters) => tracing::info!(letters, "committed"),
    }
}

fn confirm(question: &str) -> anyhow::Result<()> {
    progress::suspended(|| anstream::eprint!("{question} [y/N] "));
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    match answer.trim().to_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => anyhow::bail!("not confirmed: nothing was changed"),
    }
}

fn letters(count: u64) -> String {
    input::counted(count, "letter", "letters")
}
