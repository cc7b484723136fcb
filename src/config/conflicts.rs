//! What single values cannot tell: combinations that cannot work, and properties of librdkafka that
//! would break a promise.

use super::Config;
use crate::bus::kafka::refused_property;
use std::collections::BTreeMap;

/// Keys that do not go together.
pub(super) struct Conflict {
    pub keys: Vec<String>,
    pub message: String,
    pub way_out: String,
}

impl Conflict {
    fn new(key: impl Into<String>, message: impl Into<String>, way_out: impl Into<String>) -> Self {
        Self { keys: vec![key.into()], message: message.into(), way_out: way_out.into() }
    }
}

pub(super) fn conflicts(config: &Config) -> Vec<Conflict> {
    let mut conflicts = Vec::new();
    if let Err(reason) = config.log.check() {
        conflicts.push(Conflict::new("log.level", reason, ""));
    }
    let components = [
        config.articles.check(),
        config.claims.check(),
        config.kafka.schema_registry.check(),
        config.model.check(),
        config.registry.check(),
        config.tagger.check(),
        config.worker.check(),
        config.shadow.check(),
        config.rollback.check(),
    ];
    for checked in components {
        if let Err(reason) = checked {
            let key = reason.split(' ').next().unwrap_or_default().to_owned();
            conflicts.push(Conflict::new(key, reason, ""));
        }
    }
    if config.shadow.sample > 0.0 && config.model.name.is_none() {
        let message = "has no effect without model.name: candidates are versions that the registry announces";
        conflicts.push(Conflict::new("shadow.sample", message, "set model.name, or leave it at 0"));
    }
    http(config, &mut conflicts);
    kafka(config, &mut conflicts);
    conflicts
}

/// The admin listener changes what a worker does, so there is none without a token.
fn http(config: &Config, conflicts: &mut Vec<Conflict>) {
    let (listen, token) = (&config.http.admin_listen, &config.http.admin_token);
    let way_out = "set both, the token best by LITFLOW_HTTP__ADMIN_TOKEN_FILE, or neither";
    match (listen, token) {
        (Some(_), None) => {
            let message = "is refused without http.admin_token, which those who may ask must show";
            conflicts.push(Conflict::new("http.admin_listen", message, way_out));
        }
        (None, Some(_)) => {
            conflicts.push(Conflict::new("http.admin_token", "has no effect without http.admin_listen", way_out));
        }
        _ => {}
    }
    if token.as_ref().is_some_and(|token| token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic())) {
        let message = "is empty, or holds what a header cannot carry";
        let way_out = "use visible ASCII characters without spaces: openssl rand -hex 32";
        conflicts.push(Conflict::new("http.admin_token", message, way_out));
    }
}

/// Properties with the only values that keep exactly-once.
const PROMISED: [(&str, &[&str], &str); 3] = [
    ("isolation.level", &["read_committed"], "aborted records must not be read"),
    ("acks", &["all", "-1"], "transactions need all replicas"),
    ("request.required.acks", &["all", "-1"], "transactions need all replicas"),
];

fn kafka(config: &Config, conflicts: &mut Vec<Conflict>) {
    let kafka = &config.kafka;
    for (key, value) in [
        ("kafka.bootstrap_servers", Some(&kafka.bootstrap_servers)),
        ("kafka.group_id", Some(&kafka.group_id)),
        ("kafka.transactional_id", kafka.transactional_id.as_ref()),
    ] {
        if value.is_some_and(|value| value.trim().is_empty()) {
            conflicts.push(Conflict::new(key, "is empty", "set it, or leave it out for the default"));
        }
    }
    for (table, properties) in
        [("properties", &kafka.properties), ("consumer", &kafka.consumer), ("producer", &kafka.producer)]
    {
        for (name, value) in properties {
            let key = format!("kafka.{table}.{name}");
            if name.trim().is_empty() {
                conflicts.push(Conflict::new(key, "has no name", "give librdkafka's name of the property"));
                continue;
            }
            if let Some(way_out) = refused_property(name) {
                conflicts.push(Conflict::new(key, "cannot be passed through", way_out));
                continue;
            }
            let promised = PROMISED.iter().find(|(property, ..)| property == name);
            if let Some((_, allowed, why)) = promised.filter(|(_, allowed, _)| !allowed.contains(&value.as_str())) {
                let message = format!("{value:?} is refused: {why}");
                conflicts.push(Conflict::new(key, message, format!("leave it out, or at {:?}", allowed[0])));
            }
        }
    }
    unused_sasl(&kafka.properties, conflicts);
}

/// librdkafka ignores credentials without a word unless the protocol is one with SASL.
fn unused_sasl(properties: &BTreeMap<String, String>, conflicts: &mut Vec<Conflict>) {
    let protocol = properties.get("security.protocol").map_or("plaintext", String::as_str);
    let credentials = ["sasl.username", "sasl.password", "sasl.mechanism", "sasl.mechanisms"];
    let given = credentials.into_iter().filter(|name| properties.contains_key(*name));
    let keys: Vec<String> = given.map(|name| format!("kafka.properties.{name}")).collect();
    if !keys.is_empty() && !protocol.to_lowercase().starts_with("sasl_") {
        conflicts.push(Conflict {
            keys,
            message: format!("would not be used, because security.protocol is {protocol}"),
            way_out: "set security.protocol to SASL_SSL (or SASL_PLAINTEXT on a network that you trust)".into(),
        });
    }
}
