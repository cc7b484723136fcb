//! The command line: one file a command, results on stdout, everything else on stderr.

mod backfill;
mod beside;
mod config;
mod demo;
mod dlq;
mod exit;
mod flags;
mod ingest;
mod input;
mod model;
mod models;
mod output;
mod paint;
mod priority;
mod progress;
mod publish;
mod signals;
mod tag;
mod tail;
mod topics;
mod worker;

use clap::{Parser, Subcommand};
use exit::Exit;
use litflow::config::{Config, Flag};
use litflow::telemetry;
use std::path::PathBuf;
use std::process::ExitCode;

const AFTER_HELP: &str = "\
Results go to stdout, progress and logs to stderr; `-` is stdin.
Configuration: --config FILE, then LITFLOW_<SECTION>__<KEY>, then flags; see `litflow config show`.

Exit codes:
  0  done
  1  failed
  2  wrong usage or configuration
  3  done, but some input was left out (counted on stderr)
  4  fenced, or the broker is in a fatal state
  5  the model was refused
  130, 143  ended by a signal";

/// Tag biomedical entities in articles that stream through Kafka
#[derive(Parser)]
#[command(name = "litflow", version, max_term_width = 100, after_help = AFTER_HELP)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Args)]
#[command(next_help_heading = "Global options")]
struct Global {
    /// Configuration file, TOML
    #[arg(long, value_name = "FILE", global = true, env = "LITFLOW_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,
    /// When to colour: auto is for a terminal, unless NO_COLOR is set
    #[arg(long, value_name = "WHEN", global = true, default_value = "auto")]
    color: clap::ColorChoice,
    #[command(flatten)]
    log: flags::Log,
}

#[derive(Subcommand)]
enum Command {
    Demo(demo::Args),
    Ingest(ingest::Args),
    Worker(worker::Args),
    Backfill(backfill::Args),
    Tag(tag::Args),
    Tail(tail::Args),
    Dlq(dlq::Args),
    Models(models::Args),
    Topics(topics::Args),
    Config(config::Args),
}

/// Parses the arguments, runs the command and reports what went wrong.
pub fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(exit) => exit.into(),
        Err(error) => exit::report(&error),
    }
}

fn run(cli: &Cli) -> anyhow::Result<Exit> {
    match cli.global.color {
        clap::ColorChoice::Auto => {}
        clap::ColorChoice::Always => anstream::ColorChoice::Always.write_global(),
        clap::ColorChoice::Never => anstream::ColorChoice::Never.write_global(),
    }
    if let Command::Config(args) = &cli.command
        && args.needs_no_configuration()
    {
        return config::print_defaults();
    }
    let flags = [cli.global.log.flags(), cli.command.flags()].concat();
    let loaded = Config::load(cli.global.config.as_deref(), std::env::vars_os(), &flags)?;
    let colour = anstream::AutoStream::choice(&std::io::stderr()) != anstream::ColorChoice::Never;
    telemetry::init_logs(&loaded.config.log, cli.command.log_level(), colour, || progress::LogWriter);
    let config = &loaded.config;
    let runtime = tokio::runtime::Runtime::new()?;
    let done = match &cli.command {
        Command::Demo(args) => runtime.block_on(args.run(config)),
        Command::Ingest(args) => args.run(config, &runtime),
        Command::Worker(args) => runtime.block_on(args.run(config)),
        Command::Backfill(args) => runtime.block_on(args.run(config)),
        Command::Tag(args) => runtime.block_on(args.run(config)),
        Command::Tail(args) => args.run(config),
        Command::Dlq(args) => args.run(config, &runtime),
        Command::Models(args) => args.run(config),
        Command::Topics(args) => runtime.block_on(args.run(config)),
        Command::Config(args) => args.run(&loaded),
    };
    runtime.shutdown_background(); // a thread may still be waiting for stdin
    done
}

impl Command {
    /// The keys that the command's own flags set.
    fn flags(&self) -> Vec<Flag> {
        match self {
            Self::Demo(args) => args.flags(),
            Self::Ingest(args) => args.flags(),
            Self::Worker(args) => args.flags(),
            Self::Backfill(args) => args.flags(),
            Self::Tag(args) => args.flags(),
            Self::Tail(args) => args.flags(),
            Self::Dlq(args) => args.flags(),
            Self::Models(args) => args.flags(),
            Self::Topics(args) => args.flags(),
            Self::Config(_) => Vec::new(),
        }
    }

    /// What `log.level = "auto"` means.
    fn log_level(&self) -> &'static str {
        match self {
            Self::Worker(_) => "info",
            _ => "warn",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_tree_is_sound() {
        Cli::command().debug_assert();
    }
}
