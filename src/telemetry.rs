//! Logs and metrics: how they are switched on, and the one table of metric names.

use metrics::Unit;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
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

/// Installs the Prometheus recorder and describes every metric of [`METRICS`].
pub fn init_metrics() -> Result<PrometheusHandle, metrics_exporter_prometheus::BuildError> {
    let handle = PrometheusBuilder::new()
        .set_buckets(&[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0])?
        .install_recorder()?;
    for metric in METRICS {
        match metric.kind {
            Kind::Counter => metrics::describe_counter!(metric.name, metric.unit, metric.help),
            Kind::Gauge => metrics::describe_gauge!(metric.name, metric.unit, metric.help),
            Kind::Histogram => metrics::describe_histogram!(metric.name, metric.unit, metric.help),
        }
    }
    Ok(handle)
}

/// One metric that the program emits; `docs/metrics.md` is this table for people.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// `litflow_<stage>_<what>_<unit>[_total]`.
    pub name: &'static str,
    /// What it does over time.
    pub kind: Kind,
    /// Of its values.
    pub unit: Unit,
    /// Label names, separated by commas; empty for none.
    pub labels: &'static str,
    /// What it counts or measures.
    pub help: &'static str,
}

/// How a metric behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only goes up.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Observations in buckets.
    Histogram,
}

/// Every metric of the program.
pub const METRICS: &[Metric] = &[];

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
