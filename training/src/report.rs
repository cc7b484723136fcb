//! An evaluation for people: the tables of `report.md`, beside `metrics.json` and the plots.

use crate::analysis::errors::{Found, NOTHING};
use crate::analysis::{Group, Metrics, bootstrap::Interval};
use crate::checkpoint::Epoch;
use crate::error::Error;
use crate::plots;
use litflow::tagger::ModelRef;
use serde::Serialize;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// The file of measures in a model directory and in a report.
pub const METRICS: &str = "metrics.json";
/// The report for people.
pub const REPORT: &str = "report.md";

/// A model's evaluation, and the champion's on the same documents where there is one.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The model.
    pub model: ModelRef,
    /// Documents it was measured on.
    pub documents: usize,
    /// Every measure.
    #[serde(flatten)]
    pub metrics: Metrics,
    /// The model that it is to replace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub champion: Option<Champion>,
}

/// The champion on the same documents.
#[derive(Debug, Clone, Serialize)]
pub struct Champion {
    /// The model.
    pub model: ModelRef,
    /// Every measure.
    #[serde(flatten)]
    pub metrics: Metrics,
    /// Model − champion in strict micro F1, with its 95 % interval over documents drawn in pairs.
    pub difference: Interval,
}

impl Champion {
    /// The difference in a sentence.
    pub fn verdict(&self) -> String {
        let Interval { value, low, high } = self.difference;
        let verdict = match (low > 0.0, high < 0.0) {
            (true, _) => "better",
            (_, true) => "worse",
            _ => "no sure difference",
        };
        format!(
            "Against the champion, {} {}: {:+.2} points of strict micro F1, 95 % interval {:+.2} to {:+.2} (bootstrap over \
             documents, in pairs): {verdict}.",
            self.model.name,
            self.model.version,
            100.0 * value,
            100.0 * low,
            100.0 * high
        )
    }
}

impl Report {
    /// Writes `metrics.json`, `report.md` and the plots into `folder`, which is made where it is missing. `epochs` are
    /// those of the training run, where they are known.
    pub fn write(&self, folder: &Path, epochs: &[Epoch]) -> Result<(), Error> {
        fs::create_dir_all(folder).map_err(|error| Error::io(folder, error))?;
        let write = |name: &str, content: &[u8]| {
            let file = folder.join(name);
            fs::write(&file, content).map_err(|error| Error::io(&file, error))
        };
        let mut json = serde_json::to_vec_pretty(self).expect("measures are plain data");
        json.push(b'\n');
        write(METRICS, &json)?;
        let mut plots = vec![
            ("types.svg", "F1 by type", plots::types(self)),
            ("confusion.svg", "What was taken for what", plots::confusion(&self.metrics.errors.confusion)),
            ("reliability.svg", "Reliability of the scores", plots::reliability(&self.metrics.calibration)),
        ];
        if epochs.len() > 1 {
            plots.push(("training.svg", "Loss and F1 by step", plots::training(epochs)));
        }
        let mut markdown = self.markdown();
        for (name, title, svg) in plots {
            write(name, svg.as_bytes())?;
            let _ = write!(markdown, "\n![{title}]({name})\n");
        }
        write(REPORT, markdown.as_bytes())
    }

    /// The report's text, without the plots.
    pub fn markdown(&self) -> String {
        let Self { model, documents, metrics, champion } = self;
        let mut text = format!("# {} {}: {documents} documents\n\n", model.name, model.version);
        if let Some(champion) = champion {
            let _ = writeln!(text, "{}\n", champion.verdict());
        }
        self.type_table(&mut text);
        let interval = metrics.strict_micro_f1_interval;
        let _ = writeln!(
            text,
            "\nStrict micro F1 {}, 95 % interval {} to {} (bootstrap over documents).\n",
            percent(interval.value),
            percent(interval.low),
            percent(interval.high)
        );
        for (name, group) in [("Rare", &metrics.rare), ("Common", &metrics.common)] {
            if let Some(Group { types, strict }) = group {
                let _ = writeln!(text, "{name} types ({}): strict F1 {}.\n", types.join(", "), percent(strict.f1));
            }
        }
        token_table(&mut text, metrics);
        error_tables(&mut text, metrics);
        let _ = writeln!(
            text,
            "\n## Scores as probabilities\n\nExpected calibration error {} points.",
            percent(metrics.calibration.expected_error)
        );
        text
    }

    fn type_table(&self, text: &mut String) {
        let champion = self.champion.as_ref();
        text.push_str("| per cent | precision | recall | F1 | overlap F1 | mentions |");
        text.push_str(if champion.is_some() { " champion's F1 |\n|" } else { "\n|" });
        text.push_str(&"---|".repeat(if champion.is_some() { 7 } else { 6 }));
        text.push('\n');
        let Metrics { strict, relaxed, .. } = &self.metrics;
        let types = strict.types.keys();
        let rows = types.map(|name| (name.as_str(), &strict.types[name], relaxed.types.get(name))).chain([
            ("**micro**", &strict.micro, Some(&relaxed.micro)),
            ("**macro**", &strict.macro_average, Some(&relaxed.macro_average)),
        ]);
        for (name, strict, relaxed) in rows {
            let _ = write!(
                text,
                "| {name} | {} | {} | {} | {} | {} |",
                percent(strict.precision),
                percent(strict.recall),
                percent(strict.f1),
                relaxed.map_or_else(String::new, |relaxed| percent(relaxed.f1)),
                strict.support
            );
            if let Some(Champion { metrics, .. }) = champion {
                let scores = match name {
                    "**micro**" => Some(&metrics.strict.micro),
                    "**macro**" => Some(&metrics.strict.macro_average),
                    name => metrics.strict.types.get(name),
                };
                let _ = write!(text, " {} |", scores.map_or_else(String::new, |scores| percent(scores.f1)));
            }
            text.push('\n');
        }
    }
}

fn token_table(text: &mut String, metrics: &Metrics) {
    let tokens = &metrics.tokens;
    text.push_str("## Word by word\n\n| class | precision | recall | F1 | words |\n|---|---|---|---|---|\n");
    for (name, scores) in [("B", tokens.b), ("I", tokens.i), ("O", tokens.o), ("B or I", tokens.ib)] {
        let (precision, recall, f1) = (percent(scores.precision), percent(scores.recall), percent(scores.f1));
        let _ = writeln!(text, "| {name} | {precision} | {recall} | {f1} | {} |", scores.support);
    }
    let _ = writeln!(
        text,
        "\nMean F1 of B, I and O {}, of B and I {}, of B-or-I and O {}.\n",
        percent(tokens.mean_b_i_o),
        percent(tokens.mean_b_i),
        percent(tokens.mean_ib_o)
    );
}

fn error_tables(text: &mut String, metrics: &Metrics) {
    let errors = &metrics.errors;
    text.push_str("## Errors\n\n| correct | boundary | type | both | missed | spurious |\n|---|---|---|---|---|---|\n");
    let _ = writeln!(
        text,
        "| {} | {} | {} | {} | {} | {} |\n",
        errors.correct, errors.boundary, errors.wrong_type, errors.boundary_and_type, errors.missed, errors.spurious
    );
    text.push_str("| mentions | found | of |\n|---|---|---|\n");
    let lengths = errors.by_length.iter().map(|(length, found)| (format!("of {length} words"), *found));
    let seen = [("seen in training".to_owned(), errors.seen), ("unseen in training".to_owned(), errors.unseen)];
    // Where nothing is known of the training, every mention would be unseen.
    let seen = seen.into_iter().filter(|_| errors.seen.gold > 0);
    for (name, Found { gold, correct }) in lengths.chain(seen) {
        let _ = writeln!(text, "| {name} | {} % | {gold} |", percent(Found { gold, correct }.recall()));
    }
    text.push_str("\nRows: what it is; columns: what it was taken for.\n\n| |");
    let columns: Vec<&str> = columns(&errors.confusion);
    for column in &columns {
        let _ = write!(text, " {column} |");
    }
    let _ = write!(text, "\n|{}\n", "---|".repeat(columns.len() + 1));
    for (gold, row) in &errors.confusion {
        let _ = write!(text, "| **{gold}** |");
        for column in &columns {
            let _ = write!(text, " {} |", row.get(*column).copied().unwrap_or(0));
        }
        text.push('\n');
    }
}

/// Every type of a confusion, mentioned as a row or a column, [`NOTHING`] last.
pub fn columns(confusion: &std::collections::BTreeMap<String, std::collections::BTreeMap<String, u64>>) -> Vec<&str> {
    let names = confusion.iter().flat_map(|(gold, row)| row.keys().chain([gold])).map(String::as_str);
    let mut names: Vec<&str> = names.filter(|name| *name != NOTHING).collect();
    names.sort_unstable();
    names.dedup();
    names.push(NOTHING);
    names
}

/// Per cent with one decimal.
fn percent(share: f64) -> String {
    format!("{:.1}", 100.0 * share)
}
