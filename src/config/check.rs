//! Unknown keys, values of the wrong type, impossible combinations: all of them found in one pass.

use super::conflicts::conflicts;
use super::{Config, Loaded, secrets};
use config::{ConfigError, Map, Value, ValueKind};
use serde_json::Value as Json;
use std::fmt::Write as _;

/// Tables whose keys are not ours to know: librdkafka's own properties, an object store's settings.
pub(super) const FREE_FORM: &[&str] =
    &["claims.options", "kafka.properties", "kafka.consumer", "kafka.producer", "registry.options"];

/// One thing that is wrong, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key, `worker.max_articles`.
    pub key: String,
    /// Where the value came from: `litflow.toml:4`, a variable's or a flag's name.
    pub origin: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub way_out: String,
}

impl Problem {
    pub(super) fn new(key: &str, origin: &str, message: &str, way_out: &str) -> Self {
        Self { key: key.into(), origin: origin.into(), message: message.into(), way_out: way_out.into() }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (from {}): {}", self.key, self.origin, self.message)?;
        if self.way_out.is_empty() { Ok(()) } else { write!(f, "; {}", self.way_out) }
    }
}

/// The message of [`super::Error::Problems`].
pub(super) fn list(problems: &[Problem]) -> String {
    let mut text = match problems.len() {
        1 => "the configuration has a problem:".to_owned(),
        count => format!("the configuration has {count} problems:"),
    };
    for problem in problems {
        let _ = write!(text, "\n  {problem}"); // writing to a String cannot fail
    }
    text.push_str("\n`litflow config default` prints every key, explained");
    text
}

/// All keys with their defaults; `null` is an optional key that is not set.
pub(super) fn schema() -> Json {
    serde_json::to_value(Config::default()).expect("options are plain data, which JSON can hold")
}

/// Checks the merged layers. What is wrong is added to `problems` and left out of the result.
pub(super) fn check(merged: Map<String, Value>, problems: &mut Vec<Problem>) -> Loaded {
    let schema = schema();
    let mut loaded = Loaded::default();
    let mut sound = Map::new();
    for (name, section) in sorted(merged) {
        let section_problems = &mut *problems;
        let mut walk = Walk { schema: &schema, origins: &mut loaded.origins, problems: section_problems };
        if let Some(value) = walk.visit(&name, &name, section, &schema) {
            sound.insert(name, value);
        }
    }
    match Value::new(None, ValueKind::Table(sound)).try_deserialize() {
        Ok(config) => loaded.config = config,
        // Each value was accepted alone, so only a rule between values of one section is left.
        Err(error) => problems.push(Problem::new("configuration", "all layers", &error.to_string(), "")),
    }
    for conflict in conflicts(&loaded.config) {
        if conflict.keys.iter().any(|key| problems.iter().any(|problem| problem.key == *key)) {
            continue; // told already
        }
        let origin = |key: &String| loaded.origins.get(key).map_or("the defaults", String::as_str);
        let mut origins: Vec<&str> = conflict.keys.iter().map(origin).collect();
        origins.dedup();
        problems.push(Problem::new(
            &conflict.keys.join(", "),
            &origins.join(", "),
            &conflict.message,
            &conflict.way_out,
        ));
    }
    loaded
}

struct Walk<'a> {
    schema: &'a Json,
    origins: &'a mut std::collections::BTreeMap<String, String>,
    problems: &'a mut Vec<Problem>,
}

impl Walk<'_> {
    /// Returns the value, cleaned, where it may stand at `path`; `parent` are the known keys beside it.
    fn visit(&mut self, path: &str, key: &str, value: Value, parent: &Json) -> Option<Value> {
        let origin = value.origin().map(str::to_owned).unwrap_or_else(|| first_origin(&value));
        let Some(default) = parent.get(key) else {
            self.problems.push(Problem::new(path, &origin, "unknown key", &self.suggest(path, key, parent)));
            return None;
        };
        if FREE_FORM.contains(&path) {
            return Some(self.free_form(path, value));
        }
        if !default.is_object() {
            return self.leaf(path, value, default, origin);
        }
        let ValueKind::Table(table) = value.kind else {
            let keys = default.as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect::<Vec<_>>();
            let way_out = format!("set its keys instead: {}", keys.join(", "));
            self.problems.push(Problem::new(path, &origin, "this is a section, not a value", &way_out));
            return None;
        };
        let mut kept = Map::new();
        for (key, value) in sorted(table) {
            if let Some(value) = self.visit(&format!("{path}.{key}"), &key, value, default) {
                kept.insert(key, value);
            }
        }
        Some(Value::new(None, ValueKind::Table(kept)))
    }

    fn leaf(&mut self, path: &str, value: Value, default: &Json, origin: String) -> Option<Value> {
        let given = value.origin().map(str::to_owned);
        let value = normalise(value, default);
        let from_file =
            given.as_deref().is_some_and(|origin| !origin.starts_with("LITFLOW_") && !origin.starts_with("--"));
        let refusal = if from_file { wrong_kind(&value.kind, default) } else { None };
        if let Some(reason) = refusal.or_else(|| refused(path, &value)) {
            let shown = display(path, &value.kind);
            let way_out = match default {
                Json::Null => "leave it out for none".to_owned(),
                default => format!("the default is {default}"),
            };
            self.problems.push(Problem::new(path, &origin, &format!("{shown} is refused: {reason}"), &way_out));
            return None;
        }
        if let Some(origin) = given {
            self.origins.insert(path.to_owned(), origin);
        }
        Some(value)
    }

    /// `security.protocol` unquoted is a nested table in TOML; here both spellings mean the property.
    fn free_form(&mut self, path: &str, value: Value) -> Value {
        let mut flat = Map::new();
        self.flatten(path, "", value, &mut flat);
        Value::new(None, ValueKind::Table(flat))
    }

    fn flatten(&mut self, path: &str, name: &str, value: Value, flat: &mut Map<String, Value>) {
        let origin = value.origin().map(str::to_owned);
        let full = format!("{path}.{name}");
        match value.kind {
            ValueKind::Table(table) => {
                for (key, value) in sorted(table) {
                    let name = if name.is_empty() { key } else { format!("{name}.{key}") };
                    self.flatten(path, &name, value, flat);
                }
            }
            ValueKind::Array(_) | ValueKind::Nil => {
                let message = "what stands here is a single value";
                let way_out = "write a list as one string, separated by commas";
                self.problems.push(Problem::new(&full, &origin.unwrap_or_default(), message, way_out));
            }
            scalar => {
                if let Some(origin) = &origin {
                    self.origins.insert(full, origin.clone());
                }
                flat.insert(name.to_owned(), Value::new(origin.as_ref(), ValueKind::String(scalar.to_string())));
            }
        }
    }

    fn suggest(&self, path: &str, key: &str, parent: &Json) -> String {
        let known: Vec<&str> = parent.as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect();
        if let Some(near) = nearest(key, &known) {
            return format!("did you mean `{near}`?");
        }
        let elsewhere = self.schema.as_object().into_iter().flatten().find(|(_, keys)| keys.get(key).is_some());
        if let Some((section, _)) = elsewhere
            && path.contains('.')
        {
            return format!("there is `{section}.{key}`");
        }
        format!("known here: {}", known.join(", "))
    }
}

/// A variable or flag can say "none" by the empty string, and a list by commas.
fn normalise(value: Value, default: &Json) -> Value {
    let origin = value.origin().map(str::to_owned);
    let kind = match (value.kind, default) {
        (ValueKind::String(text), Json::Null) if text.is_empty() => ValueKind::Nil,
        (ValueKind::String(text), Json::Array(_)) => ValueKind::Array(
            text.split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty())
                .map(|item| Value::new(origin.as_ref(), ValueKind::String(item.to_owned())))
                .collect(),
        ),
        (kind, _) => kind,
    };
    Value::new(origin.as_ref(), kind)
}

/// The `config` crate turns `2.5` into `3` and `true` into `"true"`; in a file that is a mistake.
fn wrong_kind(kind: &ValueKind, default: &Json) -> Option<String> {
    let (expected, fits) = match default {
        Json::Bool(_) => ("true or false", matches!(kind, ValueKind::Boolean(_))),
        Json::Number(number) if number.is_f64() => {
            ("a number", matches!(kind, ValueKind::Float(_) | ValueKind::I64(_)))
        }
        Json::Number(_) => ("a whole number", matches!(kind, ValueKind::I64(_))),
        Json::String(_) => ("a string", matches!(kind, ValueKind::String(_))),
        Json::Array(_) => ("a list", matches!(kind, ValueKind::Array(_))),
        Json::Null | Json::Object(_) => ("", true),
    };
    (!fits).then(|| format!("{expected} is expected"))
}

/// Whether the component refuses the value: a configuration with this one key set is tried.
fn refused(path: &str, value: &Value) -> Option<String> {
    let nested = path.rsplit('.').fold(value.clone(), |inner, step| {
        Value::new(None, ValueKind::Table(Map::from_iter([(step.to_owned(), inner)])))
    });
    let error = nested.clone().try_deserialize::<Config>().err()?;
    Some(match innermost(&error) {
        ConfigError::Type { expected, .. } => format!("{expected} is expected"),
        // The `config` crate does not name an enum's variants, serde_json does.
        other => match serde_json::from_value::<Config>(json(&nested)) {
            Err(error) => error.to_string(),
            Ok(_) => other.to_string(),
        },
    })
}

fn innermost(error: &ConfigError) -> &ConfigError {
    match error {
        ConfigError::At { error, .. } => innermost(error),
        error => error,
    }
}

fn json(value: &Value) -> Json {
    match &value.kind {
        ValueKind::Nil => Json::Null,
        ValueKind::Boolean(truth) => Json::from(*truth),
        ValueKind::I64(number) => Json::from(*number),
        ValueKind::Float(number) => Json::from(*number),
        ValueKind::Array(items) => items.iter().map(json).collect(),
        ValueKind::Table(table) => table.iter().map(|(key, value)| (key.clone(), json(value))).collect(),
        other => Json::from(other.to_string()),
    }
}

/// The value in a message, masked where it is a secret.
fn display(path: &str, kind: &ValueKind) -> String {
    match kind {
        _ if secrets::is_secret(path) => secrets::MASK.to_owned(),
        ValueKind::String(text) => format!("{:?}", secrets::mask_url(text)),
        ValueKind::Table(_) => "a table".to_owned(),
        ValueKind::Array(_) => "the list".to_owned(),
        other => other.to_string(),
    }
}

/// A table without an origin of its own (made by a variable) has its first value's.
fn first_origin(value: &Value) -> String {
    match &value.kind {
        ValueKind::Table(table) => {
            table.values().find_map(|value| value.origin()).map(str::to_owned).unwrap_or_default()
        }
        _ => String::new(),
    }
}

fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    known
        .iter()
        .map(|candidate| (strsim::jaro_winkler(word, candidate), *candidate))
        .filter(|(similarity, _)| *similarity > 0.8)
        .max_by(|left, right| left.0.total_cmp(&right.0))
        .map(|(_, candidate)| candidate)
}

fn sorted(map: Map<String, Value>) -> Vec<(String, Value)> {
    let mut entries: Vec<_> = map.into_iter().collect();
    entries.sort_by(|left, right| left.0.cmp(&right.0));
    entries
}
