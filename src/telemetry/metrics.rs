//! The one table of metric names, and the recorder that `/metrics` reads.

use metrics::Unit;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

/// One metric that the program emits; `docs/metrics.md` is this table for people.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// `litflow_<stage>_<what>_<unit>[_total]`.
    pub name: &'static str,
    /// What it does over time.
    pub kind: Kind,
    /// Of its values.
    pub unit: Unit,
    /// Names of its labels.
    pub labels: &'static [&'static str],
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

/// Buckets of every histogram of seconds: from a small batch to a stalled commit.
const SECONDS: [f64; 15] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// Buckets of histograms of word pieces.
const TOKENS: [f64; 9] = [64.0, 128.0, 256.0, 512.0, 1_024.0, 2_048.0, 4_096.0, 8_192.0, 16_384.0];

/// Installs the Prometheus recorder for the process and describes every metric of [`METRICS`].
pub fn init_metrics() -> Result<PrometheusHandle, BuildError> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix("_tokens".into()), &TOKENS)?
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

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Counter, unit: Unit::Count, labels, help }
}

const fn gauge(name: &'static str, unit: Unit, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Gauge, unit, labels: &[], help }
}

const fn histogram(name: &'static str, unit: Unit, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Histogram, unit, labels, help }
}

/// Every metric of the program, in the order of `docs/metrics.md`.
pub const METRICS: &[Metric] = &[
    counter("litflow_worker_articles_total", &["outcome"], "Articles committed: tagged, tombstone or dead_letter."),
    counter("litflow_worker_dead_letters_total", &["reason"], "Dead letters committed, by the reason in their header."),
    counter("litflow_worker_mentions_total", &["type"], "Mentions committed, by entity type."),
    counter("litflow_worker_sentences_total", &[], "Sentences of the articles committed."),
    counter("litflow_worker_tokens_total", &[], "Word pieces of the articles committed."),
    Metric {
        name: "litflow_worker_output_bytes_total",
        kind: Kind::Counter,
        unit: Unit::Bytes,
        labels: &[],
        help: "Bytes of the records committed.",
    },
    counter("litflow_claims_fetched_total", &[], "Documents fetched that their events did not carry."),
    Metric {
        name: "litflow_claims_fetched_bytes_total",
        kind: Kind::Counter,
        unit: Unit::Bytes,
        labels: &[],
        help: "Their bytes.",
    },
    counter("litflow_claims_retries_total", &[], "Attempts to fetch a document that failed and are made again."),
    counter("litflow_worker_transactions_total", &["result"], "Transactions: committed or aborted."),
    histogram("litflow_worker_commit_duration_seconds", Unit::Seconds, &[], "From the last delivery to the commit."),
    gauge("litflow_worker_in_flight_articles", Unit::Count, "Articles consumed and not committed yet."),
    gauge("litflow_worker_in_flight_bytes", Unit::Bytes, "Their bytes."),
    gauge("litflow_worker_assigned_partitions", Unit::Count, "Partitions that the worker has."),
    gauge(
        "litflow_worker_halted_partitions",
        Unit::Count,
        "Partitions that stand still because a dead letter cannot be written.",
    ),
    counter(
        "litflow_schema_registry_requests_total",
        &["outcome"],
        "Questions to the schema registry: answered, refused (no access) or failed (no answer).",
    ),
    gauge(
        "litflow_schema_registry_waiting_ids",
        Unit::Count,
        "Schemas and ids that the schema registry was asked for and has not told; articles wait for them.",
    ),
    counter(
        "litflow_tagger_documents_total",
        &["outcome"],
        "Documents that left the engine: tagged, failed or abandoned.",
    ),
    counter("litflow_tagger_sentences_total", &[], "Sentences split."),
    counter("litflow_tagger_tokens_total", &[], "Word pieces through the encoder, windows as often as computed."),
    counter("litflow_tagger_batches_total", &[], "Batches through the encoder."),
    histogram("litflow_tagger_batch_tokens", Unit::Count, &[], "Rows of a batch: word pieces and special tokens."),
    histogram(
        "litflow_tagger_stage_seconds",
        Unit::Seconds,
        &["stage"],
        "Time of one step: tokenise (a document), encode and decode (a batch).",
    ),
    gauge("litflow_tagger_queue_bytes", Unit::Bytes, "Bytes of text in the engine."),
    Metric {
        name: "litflow_model_info",
        kind: Kind::Gauge,
        unit: Unit::Count,
        labels: &["name", "version", "digest"],
        help: "1 for the model version in force, 0 for those before it.",
    },
    counter(
        "litflow_model_loads_total",
        &["outcome"],
        "Versions loaded by a worker at work: swapped, refused (broken) or failed (tried again).",
    ),
    gauge("litflow_model_refused", Unit::Count, "1 while the version that is to be served is not."),
    histogram("litflow_model_load_seconds", Unit::Seconds, &[], "From fetching a version to its being warm."),
    counter(
        "litflow_shadow_articles_total",
        &["outcome"],
        "Sampled articles: compared, failed (at the candidate only) or dropped (too many were waiting).",
    ),
    counter(
        "litflow_shadow_mentions_total",
        &["outcome"],
        "Mentions in the articles compared: agreed, added (the candidate's only) or missing (the champion's only).",
    ),
    gauge(
        "litflow_shadow_f1",
        Unit::Count,
        "Strict F1 of the candidate against the champion; NaN while nothing is known.",
    ),
    gauge(
        "litflow_shadow_latency_ratio",
        Unit::Count,
        "What an article costs the candidate, in times of what it costs the champion; NaN while nothing is known.",
    ),
    gauge("litflow_shadow_waiting_bytes", Unit::Bytes, "Bytes of sampled articles that wait for the candidate."),
    counter("litflow_rollback_verdicts_total", &["outcome"], "New versions after their trial: passed or failed."),
    counter("litflow_rollback_done_total", &[], "Champions that this worker has rolled back by itself."),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::path::{Path, PathBuf};

    fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }

    /// What the code emits: name to kind and labels, read from the macros' calls.
    fn emitted() -> BTreeMap<String, (Kind, Vec<String>)> {
        let call =
            regex::Regex::new(r#"metrics::(counter|gauge|histogram)!\(\s*"(litflow_\w+)"((?:[^()]|\([^()]*\))*)\)"#)
                .unwrap();
        let label = regex::Regex::new(r#""(\w+)"\s*=>"#).unwrap();
        let mut files = Vec::new();
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
        let mut emitted = BTreeMap::new();
        for file in files {
            let text = std::fs::read_to_string(&file).unwrap();
            let calls = call.captures_iter(&text).filter(|call| !call[2].starts_with("litflow_test_"));
            for call in calls {
                let kind = match &call[1] {
                    "counter" => Kind::Counter,
                    "gauge" => Kind::Gauge,
                    _ => Kind::Histogram,
                };
                let labels = label.captures_iter(&call[3]).map(|label| label[1].to_owned()).collect();
                emitted.insert(call[2].to_owned(), (kind, labels));
            }
        }
        emitted
    }

    #[test]
    fn the_table_is_what_the_code_emits() {
        let table: BTreeMap<String, (Kind, Vec<String>)> = METRICS
            .iter()
            .map(|metric| {
                let labels = metric.labels.iter().map(|label| (*label).to_owned()).collect();
                (metric.name.to_owned(), (metric.kind, labels))
            })
            .collect();
        assert_eq!(table, emitted());
    }

    #[test]
    fn names_follow_the_rule() {
        for metric in METRICS {
            assert!(metric.name.starts_with("litflow_"), "{}", metric.name);
            assert_eq!(metric.name.ends_with("_total"), metric.kind == Kind::Counter, "{}", metric.name);
            let is_bytes = metric.name.trim_end_matches("_total").ends_with("_bytes");
            assert_eq!(is_bytes, metric.unit == Unit::Bytes, "{}", metric.name);
            assert_eq!(metric.name.ends_with("_seconds"), metric.unit == Unit::Seconds, "{}", metric.name);
        }
    }

    #[test]
    fn the_documentation_is_the_table() {
        let rows: Vec<String> = METRICS
            .iter()
            .map(|metric| {
                let kind = format!("{:?}", metric.kind).to_lowercase();
                format!("| `{}` | {kind} | {} | {} |", metric.name, metric.labels.join(", "), metric.help)
            })
            .collect();
        let table = format!("| metric | kind | labels | what |\n|---|---|---|---|\n{}\n", rows.join("\n"));
        crate::config::assert_documented("docs/metrics.md", &table);
    }
}
