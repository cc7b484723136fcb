//! Flags that stand for keys of the configuration, shared by the commands that need them.

use litflow::config::Flag;

/// Logs, for every command.
#[derive(clap::Args)]
pub struct Log {
    /// Log filter: error, warn, info, debug, trace, off, or directives [config: log.level]
    #[arg(long, value_name = "LEVEL", global = true, hide_short_help = true)]
    log_level: Option<String>,
    /// Log lines as text or json [config: log.format]
    #[arg(long, value_name = "FORMAT", global = true, hide_short_help = true)]
    log_format: Option<String>,
}

impl Log {
    pub fn flags(&self) -> Vec<Flag> {
        collect([("--log-level", "log.level", &self.log_level), ("--log-format", "log.format", &self.log_format)])
    }
}

fn collect<const N: usize>(given: [(&'static str, &'static str, &Option<String>); N]) -> Vec<Flag> {
    given.into_iter().filter_map(|(name, key, value)| value.clone().map(|value| Flag { name, key, value })).collect()
}
