//! What there is: versions, one version, the history of the aliases.

use super::super::exit::Exit;
use super::super::paint::{Painter, sanitized};
use super::{state, version_of};
use anstyle::{AnsiColor, Style};
use litflow::bus::records::{AliasAction, ModelVersion};
use litflow::config::Config;
use litflow::registry::aliases::{CANDIDATE, CHAMPION, REJECTED};
use litflow::registry::{Announcements, Store, Stored};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::Write as _;

const DIM: Style = Style::new().dimmed();
const BAD: Style = Style::new().bold().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Red)));

/// A version in the store, on the topic, or both.
struct Row {
    name: String,
    version: String,
    stored: Option<Stored>,
    aliases: Vec<String>,
}

/// The versions in the store, and those that an alias stands for and that are missing there.
pub fn list(store: &Store, announced: Option<&Announcements>, name: Option<&str>, json: bool) -> anyhow::Result<Exit> {
    let rows = rows(store.list(name)?, announced, name)?;
    let mut out = anstream::stdout().lock();
    if json {
        let value = |row: &Row| {
            let Row { name, version, stored, aliases } = row;
            json!({"name": name, "version": version, "stored": stored, "aliases": announced.map(|_| aliases)})
        };
        writeln!(out, "{:#}", json!(rows.iter().map(value).collect::<Vec<_>>()))?;
        return Ok(Exit::Done);
    }
    let painter = Painter::for_stdout();
    let names = rows.iter().map(|row| row.name.len()).max().unwrap_or(0).max("MODEL".len());
    let versions = rows.iter().map(|row| row.version.len()).max().unwrap_or(0).max("VERSION".len());
    writeln!(out, "{:names$}  {:versions$}  {:>9}  {:16}  ALIASES", "MODEL", "VERSION", "SIZE", "PUBLISHED")?;
    for Row { name, version, stored, aliases } in &rows {
        let (size, published) = match stored {
            Some(stored) => (size(stored.bytes), date(stored.modified_at)),
            None => (String::new(), String::new()),
        };
        let mut last: Vec<String> = aliases.iter().map(|alias| painter.styled(style_of(alias), alias)).collect();
        match stored {
            None => last.push(painter.styled(BAD, "(not in the store)")),
            Some(stored) if !stored.whole => last.push(painter.styled(DIM, "(not whole)")),
            Some(_) => {}
        }
        let line = format!("{name:names$}  {version:versions$}  {size:>9}  {published:16}  {}", last.join(" "));
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(Exit::Done)
}

fn rows(stored: Vec<Stored>, announced: Option<&Announcements>, name: Option<&str>) -> anyhow::Result<Vec<Row>> {
    let mut aliases: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    if let Some(announced) = announced {
        for model in announced.names().filter(|model| name.is_none_or(|name| name == *model)) {
            for (alias, target) in announced.get(model)?.iter().flat_map(|state| &state.aliases) {
                let key = (sanitized(model), sanitized(&target.version));
                aliases.entry(key).or_default().push(sanitized(alias));
            }
        }
    }
    let mut rows: Vec<Row> = Vec::new();
    for stored in stored {
        let (name, version) = (stored.name.clone(), stored.version.clone());
        let aliases = aliases.remove(&(name.clone(), version.clone())).unwrap_or_default();
        rows.push(Row { name, version, stored: Some(stored), aliases });
    }
    let missing = aliases.into_iter();
    rows.extend(missing.map(|((name, version), aliases)| Row { name, version, stored: None, aliases }));
    Ok(rows)
}

/// One version.
pub fn show(config: &Config, name: &str, version: &str, json: bool) -> anyhow::Result<Exit> {
    let store = Store::open(&config.registry)?;
    let announcements = Announcements::read(&config.kafka)?;
    let state = state(&announcements, name)?;
    let version = version_of(state, version)?;
    let (manifest, _) = store.manifest(name, &version)?;
    let described = store.describe(name, &version)?;
    let aliases: Vec<&str> = state
        .aliases
        .iter()
        .filter_map(|(alias, target)| (target.version == version).then_some(alias.as_str()))
        .collect();
    let mut out = anstream::stdout().lock();
    if json {
        let value = json!({
            "name": name, "version": version, "digest": described.digest, "location": described.location,
            "published_at": described.created_at, "aliases": aliases, "entity_types": described.entity_types,
            "metrics": described.metrics, "manifest": manifest,
        });
        writeln!(out, "{value:#}")?;
        return Ok(Exit::Done);
    }
    let painter = Painter::for_stdout();
    let mut field = |name: &str, value: &str| writeln!(out, "{} {}", painter.styled(DIM, &format!("{name:9}")), value);
    let painted: Vec<String> = aliases.iter().map(|alias| painter.styled(style_of(alias), alias)).collect();
    field("model", &format!("{name} {version}  {}", painted.join(" ")))?;
    field("digest", &described.digest)?;
    field("location", &sanitized(&described.location))?;
    field("published", &described.created_at.map(date).unwrap_or_default())?;
    let types: Vec<String> = described.entity_types.iter().map(|name| painter.entity_type(&sanitized(name))).collect();
    field("types", &types.join(" "))?;
    for (name, value) in [("parent", &manifest.parent), ("data", &manifest.data), ("code", &manifest.code)] {
        if let Some(value) = value {
            field(name, &sanitized(value))?;
        }
    }
    if !manifest.offsets.is_empty() {
        let offsets: Vec<String> = manifest.offsets.iter().map(|(part, end)| format!("{part}:{end}")).collect();
        field("offsets", &offsets.join(" "))?;
    }
    for (number, file) in described.files.iter().enumerate() {
        let label = if number == 0 { "files" } else { "" };
        field(label, &format!("{:>9}  {}  {}", size(file.bytes as u64), &file.sha256[..12], sanitized(&file.path)))?;
    }
    for (number, (figure, value)) in described.metrics.iter().enumerate() {
        field(if number == 0 { "metrics" } else { "" }, &format!("{value:>9.4}  {}", sanitized(figure)))?;
    }
    Ok(Exit::Done)
}

/// The changes of the aliases, oldest first.
pub fn history(state: &ModelVersion, json: bool) -> anyhow::Result<Exit> {
    let mut out = anstream::stdout().lock();
    if json {
        writeln!(out, "{:#}", json!(state.history))?;
        return Ok(Exit::Done);
    }
    let painter = Painter::for_stdout();
    let aliases = state.history.iter().map(|change| change.alias.len()).max().unwrap_or(0);
    for change in &state.history {
        let alias = format!("{:aliases$}", sanitized(&change.alias));
        let version = sanitized(&change.version);
        let previous = change.previous.as_deref().map(sanitized).unwrap_or_else(|| "none".into());
        let what = match change.action {
            AliasAction::Assigned => format!("{previous} → {version}"),
            AliasAction::RolledBack => format!("{previous} → {version} (rolled back)"),
            AliasAction::Removed => format!("{version} → none"),
        };
        let why = painter.styled(DIM, &format!("{}: {}", sanitized(&change.by), sanitized(&change.reason)));
        let alias = painter.styled(style_of(&change.alias), &alias);
        writeln!(out, "{}  {alias}  {what:32}  {why}", date(change.at))?;
    }
    Ok(Exit::Done)
}

fn style_of(alias: &str) -> Style {
    let colour = match alias {
        CHAMPION => AnsiColor::Green,
        CANDIDATE => AnsiColor::Yellow,
        REJECTED => AnsiColor::Red,
        _ => AnsiColor::Cyan,
    };
    Style::new().bold().fg_color(Some(colour.into()))
}

/// `2026-11-21 14:05`, UTC.
pub fn date(milliseconds: i64) -> String {
    let date = chrono::DateTime::from_timestamp_millis(milliseconds);
    date.map(|date| date.format("%Y-%m-%d %H:%M").to_string()).unwrap_or_default()
}

pub fn size(bytes: u64) -> String {
    indicatif::DecimalBytes(bytes).to_string()
}
