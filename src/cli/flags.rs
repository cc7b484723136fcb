//! Flags that stand for keys of the configuration, shared by the commands that need them.

use litflow::bus::kafka::host_name;
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

/// The model and what it runs on.
#[derive(clap::Args)]
#[command(next_help_heading = "Model")]
pub struct Model {
    /// The model directory [config: model.path; default: the shipped model]
    #[arg(long, value_name = "DIR")]
    model: Option<String>,
    /// auto, cpu or cuda:N [config: model.device]
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// auto, fp32 or bf16 [config: model.precision]
    #[arg(long, value_name = "PRECISION")]
    precision: Option<String>,
    /// Model threads; 0: one for each core [config: tagger.threads]
    #[arg(long, value_name = "N")]
    threads: Option<String>,
}

impl Model {
    pub fn flags(&self) -> Vec<Flag> {
        collect([
            ("--model", "model.path", &self.model),
            ("--device", "model.device", &self.device),
            ("--precision", "model.precision", &self.precision),
            ("--threads", "tagger.threads", &self.threads),
        ])
    }
}

/// The cluster.
#[derive(clap::Args)]
#[command(next_help_heading = "Kafka")]
pub struct Kafka {
    /// Brokers, host:port, several with commas [config: kafka.bootstrap_servers]
    #[arg(long, value_name = "SERVERS")]
    bootstrap_servers: Option<String>,
}

impl Kafka {
    pub fn flags(&self) -> Vec<Flag> {
        collect([("--bootstrap-servers", "kafka.bootstrap_servers", &self.bootstrap_servers)])
    }
}

/// Who runs the command, for those who do not say so: `user@host`.
pub fn somebody() -> String {
    let user = || std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).unwrap_or_else(|_| "somebody".into());
    format!("{}@{}", user(), host_name())
}

pub fn collect<const N: usize>(given: [(&'static str, &'static str, &Option<String>); N]) -> Vec<Flag> {
    given.into_iter().filter_map(|(name, key, value)| value.clone().map(|value| Flag { name, key, value })).collect()
}
