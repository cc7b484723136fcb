//! `litflow config`: what is in force, and where it came from.

use super::exit::Exit;
use clap::Subcommand;
use litflow::config::{DEFAULT_TOML, Loaded, Shown};
use std::io::Write as _;

/// Show the configuration in force
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  litflow config show
  LITFLOW_KAFKA__GROUP_ID=trial litflow config show --json | jq .origins
  litflow config default > litflow.toml")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Print every key with its value and, where it is no default, its origin; secrets are masked
    #[command(after_help = "\
Examples:
  litflow config show
  litflow config show --config litflow.toml --json | jq .origins")]
    Show {
        /// Print {"config": …, "origins": …} as JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the defaults with a comment on every key, to start a file of one's own
    #[command(after_help = "\
Example:
  litflow config default > litflow.toml")]
    Default,
}

impl Args {
    /// Whether the command must work while the configuration is broken.
    pub fn needs_no_configuration(&self) -> bool {
        matches!(self.what, What::Default)
    }

    pub fn run(&self, loaded: &Loaded) -> anyhow::Result<Exit> {
        let mut out = anstream::stdout().lock();
        match self.what {
            What::Show { json: true } => writeln!(out, "{:#}", Shown(loaded).json())?,
            What::Show { json: false } => write!(out, "{}", Shown(loaded).toml())?,
            What::Default => return print_defaults(),
        }
        out.flush()?;
        Ok(Exit::Done)
    }
}

pub fn print_defaults() -> anyhow::Result<Exit> {
    std::io::stdout().write_all(DEFAULT_TOML.as_bytes())?;
    Ok(Exit::Done)
}
