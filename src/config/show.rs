//! The configuration as it is in force, for people and for machines, secrets masked.

use super::{Loaded, secrets};
use serde_json::{Map, Value as Json, json};
use std::fmt::Write as _;

/// A configuration ready to be printed.
pub struct Shown<'a>(pub &'a Loaded);

impl Shown<'_> {
    /// `{"config": {section: {key: value}}, "origins": {key: origin}}`; what is not set is `null`.
    pub fn json(&self) -> Json {
        json!({ "config": self.masked(), "origins": self.0.origins })
    }

    /// TOML; each value that is not a default is followed by a comment that says where it came from,
    /// and optional keys that are not set are commented out.
    pub fn toml(&self) -> String {
        let mut text = String::new();
        if let Json::Object(sections) = self.masked() {
            for (name, section) in &sections {
                if let Json::Object(keys) = section {
                    self.section(&mut text, name, keys);
                }
            }
        }
        text
    }

    fn section(&self, text: &mut String, path: &str, keys: &Map<String, Json>) {
        let separator = if text.is_empty() { "" } else { "\n" };
        let _ = writeln!(text, "{separator}[{path}]"); // writing to a String cannot fail
        let lines: Vec<(String, Option<&String>)> = keys
            .iter()
            .filter(|(_, value)| !value.is_object())
            .map(|(key, value)| {
                let line = match value {
                    Json::Null => format!("# {} =", toml_key(key)),
                    value => format!("{} = {}", toml_key(key), toml_value(value)),
                };
                (line, self.0.origins.get(&format!("{path}.{key}")))
            })
            .collect();
        let width = lines.iter().filter(|(_, origin)| origin.is_some()).map(|(line, _)| line.chars().count()).max();
        for (line, origin) in lines {
            let _ = match origin {
                Some(origin) => writeln!(text, "{line:width$}  # from {origin}", width = width.unwrap_or(0)),
                None => writeln!(text, "{line}"),
            };
        }
        for (key, value) in keys {
            if let Json::Object(inner) = value {
                self.section(text, &format!("{path}.{key}"), inner);
            }
        }
    }

    fn masked(&self) -> Json {
        let values = serde_json::to_value(&self.0.config).expect("options are plain data, which JSON can hold");
        mask("", values)
    }
}

fn mask(path: &str, value: Json) -> Json {
    match value {
        Json::Object(keys) => keys
            .into_iter()
            .map(|(key, value)| {
                let path = format!("{path}.{key}");
                (key, mask(&path, value))
            })
            .collect(),
        Json::String(text) if !text.is_empty() && secrets::is_secret(path) => Json::from(secrets::MASK),
        Json::String(text) => Json::from(secrets::mask_url(&text)),
        Json::Array(items) => items.into_iter().map(|item| mask(path, item)).collect(),
        other => other,
    }
}

fn toml_key(key: &str) -> String {
    let bare = key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if bare { key.to_owned() } else { format!("{key:?}") }
}

fn toml_value(value: &Json) -> String {
    match toml::Value::try_from(value) {
        Ok(value) => value.to_string(),
        Err(_) => value.to_string(),
    }
}
