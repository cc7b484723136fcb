//! Secrets in files of their own, as Docker and Kubernetes mount them: `LITFLOW_…_PASSWORD_FILE` in the environment, or
//! `…_file` beside the key's own name in a configuration file, names the file that holds the value.

use super::check::Problem;
use super::secrets::is_secret;
use config::{Map, Value, ValueKind};
use std::fs::File;
use std::io::Read as _;

/// No secret is longer; a certificate's key in PEM has some kilobytes.
const MAX_BYTES: u64 = 64 << 10;

/// Settings of object stores that are files by their own names, and are read there again and again.
const THEIR_OWN: [&str; 3] = ["container_authorization_token_file", "web_identity_token_file", "federated_token_file"];

/// Puts the contents of the files in the place of their names, below `path`. What is wrong is added to `problems`.
pub(super) fn read_secrets(path: &str, table: &mut Map<String, Value>, problems: &mut Vec<Problem>) {
    let mut keys: Vec<String> = table.keys().cloned().collect();
    keys.sort();
    for key in keys {
        let full = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        if let Some(Value { kind: ValueKind::Table(inner), .. }) = table.get_mut(&key) {
            read_secrets(&full, inner, problems);
            continue;
        }
        let Some(secret) = secret_in_file(path, &key) else { continue };
        let Some(named) = table.remove(&key) else { continue };
        let origin = named.origin().unwrap_or_default().to_owned();
        let mut problem = |message: &str, way_out: &str| problems.push(Problem::new(&full, &origin, message, way_out));
        let ValueKind::String(file) = named.kind else {
            problem("the name of a file is expected", "write it as a string");
            continue;
        };
        if file.is_empty() {
            continue; // as elsewhere, an empty variable says "not set"
        }
        if table.contains_key(secret) {
            problem(&format!("{secret} is set, too"), "set one of the two");
            continue;
        }
        match read(&file) {
            Ok(text) => {
                let origin = format!("{file}, named by {origin}");
                table.insert(secret.to_owned(), Value::new(Some(&origin), ValueKind::String(text)));
            }
            Err(reason) => problem(&format!("the file {file} cannot be used: {reason}"), "it holds the secret alone"),
        }
    }
}

/// The key whose value stands in a file, if `key` names one. Variables have no dots, so for librdkafka's properties
/// both spellings are the same.
fn secret_in_file<'k>(path: &str, key: &'k str) -> Option<&'k str> {
    let secret = key.strip_suffix("_file").or_else(|| key.strip_suffix(".file"))?;
    let is_theirs = path == "registry.options" && THEIR_OWN.iter().any(|name| key.ends_with(name));
    (is_secret(&format!("{path}.{secret}")) && !is_theirs).then_some(secret)
}

/// The text without the line end that editors add.
fn read(file: &str) -> Result<String, String> {
    let mut bytes = Vec::new();
    let read = File::open(file).and_then(|opened| opened.take(MAX_BYTES + 1).read_to_end(&mut bytes));
    read.map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format!("it has more than {MAX_BYTES} bytes"));
    }
    let text = String::from_utf8(bytes).map_err(|_| "it is not valid UTF-8")?;
    let text = text.trim_end_matches(['\r', '\n']);
    match text {
        "" => Err("it is empty".into()),
        text if text.contains('\0') => Err("it holds a zero byte".into()),
        text => Ok(text.to_owned()),
    }
}
