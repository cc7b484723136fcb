//! Articles given on the command line.

use super::progress;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use indicatif::HumanCount;
use litflow::article::{Articles, Format, Options};
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct Paths {
    /// Files, directories (all articles below), or - for stdin; .gz is read as it is
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
    /// The input's format, where neither its name nor its content tells
    #[arg(long, value_name = "FORMAT", value_parser = format_parser())]
    from: Option<Format>,
}

/// A path that was given is not there.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {reason}", path = path.display())]
pub struct NoInput {
    path: PathBuf,
    reason: std::io::Error,
}

impl Paths {
    pub fn check(&self) -> Result<(), NoInput> {
        check(&self.paths)
    }

    pub fn articles(&self, options: &Options) -> Articles {
        Articles::new(&self.paths, self.from, options)
    }
}

/// Told before any work begins: a path that is not there is a mistake in the command.
pub fn check(paths: &[PathBuf]) -> Result<(), NoInput> {
    for path in paths.iter().filter(|path| *path != Path::new("-")) {
        path.metadata().map_err(|reason| NoInput { path: path.clone(), reason })?;
    }
    Ok(())
}

pub fn format_parser() -> impl TypedValueParser<Value = Format> {
    PossibleValuesParser::new(Format::NAMES.map(|(name, _)| name)).try_map(|name| name.parse())
}

/// `1 article`, `2,000 articles`: a count with its unit.
pub fn counted(count: u64, one: &str, more: &str) -> String {
    format!("{} {}", HumanCount(count), if count == 1 { one } else { more })
}

/// Tells one record that was left out: where it stands, and why.
pub fn tell_left_out(reason: &str) {
    let style = anstyle::Style::new().fg_color(Some(anstyle::AnsiColor::Yellow.into()));
    progress::suspended(|| anstream::eprintln!("{style}left out:{style:#} {reason}"));
}

/// Tells how many were left out, where any were.
pub fn tell_count_left_out(count: u64) {
    if count > 0 {
        let records = if count == 1 { "record was" } else { "records were" };
        anstream::eprintln!("{} {records} left out", HumanCount(count));
    }
}
