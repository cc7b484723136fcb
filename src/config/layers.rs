//! The layers as sources of the `config` crate, each value carrying its origin.

use super::check::{FREE_FORM, Problem, schema};
use super::files::read_secrets;
use super::{DEFAULT_TOML, Error};
use config::{Map, Value, ValueKind};
use std::ffi::OsString;
use std::path::Path;
use toml::de::{DeTable, DeValue};

/// The prefix of this program's environment variables.
const PREFIX: &str = "LITFLOW_";

/// Variables that are read elsewhere: the configuration file's path, where CUDA's libraries are, and where
/// Apache Kafka's jars are.
const NOT_KEYS: [&str; 4] =
    ["LITFLOW_CONFIG", crate::model::device::CUDA_FOLDER_VARIABLE, "LITFLOW_KAFKA_HOME", "LITFLOW_REGISTRY_HOME"];

/// A value given on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flag {
    /// As the user writes it, `--model`.
    pub name: &'static str,
    /// The key that it sets, `model.path`.
    pub key: &'static str,
    /// The value as written.
    pub value: String,
}

/// One layer, read and ready to be merged.
#[derive(Debug, Clone)]
pub(super) struct Layer(Map<String, Value>);

impl config::Source for Layer {
    fn clone_into_box(&self) -> Box<dyn config::Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, config::ConfigError> {
        Ok(self.0.clone())
    }
}

impl Layer {
    /// The embedded defaults: values without an origin.
    pub fn defaults() -> Self {
        let table = DeTable::parse(DEFAULT_TOML).expect("the embedded defaults are valid TOML, a test parses them");
        Self(table_values(table.get_ref(), &|_| None))
    }

    /// A file; origins are `<path>:<line>`.
    pub fn file(path: &Path, problems: &mut Vec<Problem>) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|reason| Error::File { path: path.to_owned(), reason })?;
        let table = DeTable::parse(&text).map_err(|error| Error::Syntax {
            path: path.to_owned(),
            reason: error.to_string().trim_end().to_owned(),
        })?;
        let origin = |begin: usize| Some(format!("{}:{}", path.display(), line_of(&text, begin)));
        let mut layer = table_values(table.get_ref(), &origin);
        read_secrets("", &mut layer, problems);
        Ok(Self(layer))
    }

    /// The environment; origins are the variables' names. Variables that begin like ours but name no
    /// section are problems, but for those that Kubernetes makes up for a service called `litflow`.
    pub fn environment(variables: impl IntoIterator<Item = (OsString, OsString)>, problems: &mut Vec<Problem>) -> Self {
        let mut ours: Vec<(String, OsString)> = variables
            .into_iter()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .filter(|(name, _)| name.starts_with(PREFIX) && !is_foreign(name))
            .collect();
        ours.sort();
        let mut layer = Map::new();
        for (name, value) in ours {
            let Some(value) = value.to_str() else {
                problems.push(Problem::new(&name, &name, "the value is not valid UTF-8", "set it to readable text"));
                continue;
            };
            let path = name[PREFIX.len()..].to_lowercase();
            let Some((section, key)) = path.split_once("__") else {
                let way_out = format!(
                    "variables are named LITFLOW_<SECTION>__<KEY>, with two underscores between; {}",
                    suggest_variable(&path)
                );
                problems.push(Problem::new(&path, &name, "names no key", &way_out));
                continue;
            };
            let full = format!("{section}.{}", key.replace("__", "."));
            let steps = steps(&full);
            set(&mut layer, &steps, Value::new(Some(&name), ValueKind::String(value.to_owned())));
        }
        read_secrets("", &mut layer, problems);
        Self(layer)
    }

    /// Flags; origins are their names.
    pub fn flags(flags: &[Flag]) -> Self {
        let mut layer = Map::new();
        for flag in flags {
            let value = Value::new(Some(&flag.name.to_owned()), ValueKind::String(flag.value.clone()));
            set(&mut layer, &steps(flag.key), value);
        }
        Self(layer)
    }
}

/// `section.key` as steps; below a free-form table the rest is one step, for librdkafka with `_` for the dots
/// that variables cannot have (`kafka.properties.security_protocol` is its `security.protocol`).
fn steps(key: &str) -> Vec<String> {
    for table in FREE_FORM {
        if let Some(property) = key.strip_prefix(table).and_then(|rest| rest.strip_prefix('.')) {
            let property = if table.starts_with("kafka.") { property.replace('_', ".") } else { property.to_owned() };
            return table.split('.').map(str::to_owned).chain([property]).collect();
        }
    }
    key.split('.').map(str::to_owned).collect()
}

fn set(map: &mut Map<String, Value>, steps: &[String], value: Value) {
    let Some((first, rest)) = steps.split_first() else { return };
    if rest.is_empty() {
        map.insert(first.clone(), value);
        return;
    }
    let slot = map.entry(first.clone()).or_insert_with(|| Value::new(None, ValueKind::Table(Map::new())));
    if !matches!(slot.kind, ValueKind::Table(_)) {
        slot.kind = ValueKind::Table(Map::new());
    }
    if let ValueKind::Table(inner) = &mut slot.kind {
        set(inner, rest, value);
    }
}

fn table_values(table: &DeTable<'_>, origin: &dyn Fn(usize) -> Option<String>) -> Map<String, Value> {
    table
        .iter()
        .map(|(key, value)| {
            let place = origin(key.span().start);
            (key.get_ref().to_string(), Value::new(place.as_ref(), value_kind(value.get_ref(), origin, &place)))
        })
        .collect()
}

fn value_kind(value: &DeValue<'_>, origin: &dyn Fn(usize) -> Option<String>, place: &Option<String>) -> ValueKind {
    match value {
        DeValue::String(text) => ValueKind::String(text.to_string()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => ValueKind::I64(number),
            Err(_) => ValueKind::String(number.as_str().to_owned()), // refused below as no integer
        },
        DeValue::Float(number) => match number.as_str().parse() {
            Ok(number) => ValueKind::Float(number),
            Err(_) => ValueKind::String(number.as_str().to_owned()),
        },
        DeValue::Boolean(truth) => ValueKind::Boolean(*truth),
        DeValue::Datetime(date) => ValueKind::String(date.to_string()),
        DeValue::Array(items) => ValueKind::Array(
            items.iter().map(|item| Value::new(place.as_ref(), value_kind(item.get_ref(), origin, place))).collect(),
        ),
        DeValue::Table(table) => ValueKind::Table(table_values(table, origin)),
    }
}

fn line_of(text: &str, begin: usize) -> usize {
    text.as_bytes()[..begin.min(text.len())].iter().filter(|&&byte| byte == b'\n').count() + 1
}

/// Variables with our prefix that are not configuration: those of [`NOT_KEYS`], and the service links that Kubernetes puts into every container beside a service named `litflow`.
fn is_foreign(name: &str) -> bool {
    let rest = &name[PREFIX.len()..];
    let service_link = |rest: &str| {
        rest.contains("SERVICE_HOST")
            || rest.contains("SERVICE_PORT")
            || rest == "PORT"
            || rest.ends_with("_PORT")
            || rest
                .split_once("PORT_")
                .is_some_and(|(_, after)| after.starts_with(|first: char| first.is_ascii_digit()))
    };
    NOT_KEYS.contains(&name) || (!rest.contains("__") && service_link(rest))
}

/// `kafka_group_id` → "did you mean LITFLOW_KAFKA__GROUP_ID?"
fn suggest_variable(path: &str) -> String {
    let sections = schema();
    let meant = sections.as_object().into_iter().flatten().find_map(|(section, keys)| {
        let key = path.strip_prefix(section.as_str())?.strip_prefix('_')?;
        keys.get(key).map(|_| format!("{PREFIX}{}__{}", section.to_uppercase(), key.to_uppercase()))
    });
    match meant {
        Some(name) => format!("did you mean {name}?"),
        None => "`litflow config default` lists all keys".to_owned(),
    }
}
