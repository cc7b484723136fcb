//! Logs and metrics: how they are switched on, and the one table of metric names.

mod metrics;

pub use self::metrics::{Kind, METRICS, Metric, init_metrics};

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// `auto`, a level (`error`, `warn`, `info`, `debug`, `trace`, `off`), or directives such as
    /// `info,litflow::bus=debug`. `auto` is `info` for the worker and `warn` for the other commands.
    pub level: String,
    /// How a line looks.
    pub format: Format,
}

/// How log lines are written to stderr.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// For people; coloured on a terminal.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl Default for Options {
    fn default() -> Self {
        Self { level: "auto".to_owned(), format: Format::Text }
    }
}

impl Options {
    /// Whether `level` can be understood; the error says what it may be.
    pub fn check(&self) -> Result<(), String> {
        match self.level.as_str() {
            "auto" => Ok(()),
            level => EnvFilter::builder().parse(level).map(|_| ()).map_err(|error| {
                format!("{level:?} is no log filter ({error}); use auto, error, warn, info, debug, trace, off or directives such as info,litflow::bus=debug")
            }),
        }
    }
}

/// Starts logging to `writer`. `default_level` is what `auto` means for this command.
pub fn init_logs<W>(options: &Options, default_level: &str, colour: bool, writer: W)
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let level = if options.level == "auto" { default_level } else { &options.level };
    let logs = tracing_subscriber::fmt().with_env_filter(EnvFilter::new(level)).with_writer(writer);
    match options.format {
        Format::Text => logs.with_ansi(colour).init(),
        Format::Json => logs.with_ansi(false).json().flatten_event(true).init(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels() {
        for level in ["auto", "off", "info", "info,litflow::bus=debug"] {
            let options = Options { level: level.into(), ..Options::default() };
            assert_eq!(options.check(), Ok(()), "{level}");
        }
        let options = Options { level: "litflow=loud".into(), ..Options::default() };
        assert!(options.check().unwrap_err().contains("loud"));
    }
}
