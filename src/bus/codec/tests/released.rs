//! Every release can read what every other wrote: the schemas in `schemas/` are checked against all released ones in
//! both directions (FULL_TRANSITIVE), and values that releases wrote are read.
//!
//! `schemas/released/<release>/` keeps the schemas of a release, `tests/fixtures/released/<release>/` some of its
//! values. Both are written by its own code, as a step of the release:
//! `cargo test --lib keep_this_release -- --ignored`.

use super::*;
use apache_avro::schema_compatibility::{Compatibility, SchemaCompatibility};
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn schemas() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas")
}

fn values() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/released")
}

/// The entries of a folder by their names, sorted.
fn list(folder: &Path) -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let named = entries.map(|entry| entry.unwrap().path());
    let mut named: Vec<_> = named.map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), path)).collect();
    named.sort();
    named
}

/// The released versions of one schema file, with their releases.
fn released(file: &str) -> Vec<(String, Json)> {
    let releases = list(&schemas().join("released")).into_iter();
    let of_file = releases.map(|(release, folder)| (release, folder.join(file))).filter(|(_, path)| path.is_file());
    of_file.map(|(release, path)| (release, read(&path))).collect()
}

fn read(path: &Path) -> Json {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Why a reader with one of the schemas could not read all that is written with the other, or would misread it.
fn incompatibility(released: &Json, current: &Json) -> Option<String> {
    let (old, new) = (Schema::parse(released).unwrap(), Schema::parse(current).unwrap());
    if old.name() != new.name() {
        return Some(format!("{:?} was renamed to {:?}", old.name(), new.name()));
    }
    for (reader_is, writer, reader) in [("the current", &old, &new), ("the released", &new, &old)] {
        let reason = match SchemaCompatibility::can_read(writer, reader) {
            Ok(Compatibility::Full) => continue,
            Ok(Compatibility::Partial) => "some values have no counterpart".to_owned(),
            Err(error) => error.to_string(),
        };
        return Some(format!("{reader_is} schema cannot read the other's values: {reason}"));
    }
    // Avro's resolution ignores logical types: seconds would be read as milliseconds.
    let (old, new) = (logical_types(released), logical_types(current));
    let changed = old.iter().find(|(field, types)| new.get(*field).is_some_and(|new| new != *types));
    changed.map(|(field, types)| format!("the logical type of {field} was {types:?}"))
}

/// The logical types of each field, by its record's name and its own.
fn logical_types(schema: &Json) -> BTreeMap<String, Vec<String>> {
    fn collect(node: &Json, field: &str, found: &mut BTreeMap<String, Vec<String>>) {
        match node {
            Json::Array(branches) => branches.iter().for_each(|branch| collect(branch, field, found)),
            Json::Object(schema) => {
                if let Some(Json::String(logical)) = schema.get("logicalType") {
                    found.entry(field.to_owned()).or_default().push(logical.clone());
                }
                for inner in ["type", "items", "values"] {
                    schema.get(inner).into_iter().for_each(|inner| collect(inner, field, found));
                }
                for inner in schema.get("fields").and_then(Json::as_array).into_iter().flatten() {
                    let name = |json: &Json| json["name"].as_str().unwrap_or_default().to_owned();
                    let field = format!("{}.{}", name(node), name(inner));
                    found.entry(field.clone()).or_default();
                    collect(&inner["type"], &field, found);
                }
            }
            _ => {}
        }
    }
    let mut found = BTreeMap::new();
    collect(schema, "", &mut found);
    found
}

#[test]
fn no_schema_breaks_with_a_release() {
    let mut breaks = Vec::new();
    let mut checked = 0;
    for (file, path) in list(&schemas()).iter().filter(|(file, _)| file.ends_with(".avsc")) {
        for (release, schema) in released(file) {
            checked += 1;
            let reason = incompatibility(&schema, &read(path));
            breaks.extend(reason.map(|reason| format!("schemas/{file} against release {release}: {reason}")));
        }
    }
    assert!(checked >= 6, "only {checked} released schemas were found");
    assert!(breaks.is_empty(), "incompatible changes; give new fields defaults, keep the old:\n{}", breaks.join("\n"));
}

#[test]
fn what_a_release_had_is_not_dropped() {
    for (release, folder) in list(&schemas().join("released")) {
        for (file, _) in list(&folder) {
            assert!(schemas().join(&file).is_file(), "schemas/{file} is gone, which release {release} has");
        }
    }
}

/// A change that must not pass unseen, and what is said of it.
struct Break {
    what: &'static str,
    file: &'static str,
    change: fn(&mut Json),
    reason: &'static str,
}

fn field<'a>(record: &'a mut Json, name: &str) -> &'a mut Json {
    let fields = record["fields"].as_array_mut().unwrap();
    fields.iter_mut().find(|field| field["name"] == name).unwrap_or_else(|| panic!("no field {name}"))
}

fn remove(record: &mut Json, name: &str) {
    record["fields"].as_array_mut().unwrap().retain(|field| field["name"] != name);
}

fn add(record: &mut Json, field: Json) {
    record["fields"].as_array_mut().unwrap().insert(1, field);
}

fn passage(event: &mut Json) -> &mut Json {
    &mut field(event, "passages")["type"]["items"]
}

#[test]
fn incompatible_changes_are_found() {
    let breaks = [
        Break {
            what: "a field without default is removed",
            file: "ArticleEvent.avsc",
            change: |event| remove(event, "id"),
            reason: "the released schema cannot read the other's values",
        },
        Break {
            what: "a field without default is added",
            file: "ArticleEvent.avsc",
            change: |event| add(event, json!({"name": "title_length", "type": "int"})),
            reason: "the current schema cannot read the other's values",
        },
        Break {
            what: "the same in a nested record",
            file: "ArticleEvent.avsc",
            change: |event| add(passage(event), json!({"name": "length", "type": "int"})),
            reason: "the current schema cannot read the other's values",
        },
        Break {
            what: "a type is narrowed",
            file: "ArticleEvent.avsc",
            change: |event| field(event, "version")["type"] = json!("int"),
            reason: "the current schema cannot read the other's values",
        },
        Break {
            what: "a type is widened, which only new readers understand",
            file: "ArticleEvent.avsc",
            change: |event| field(event, "version")["type"] = json!("double"),
            reason: "the released schema cannot read the other's values",
        },
        Break {
            what: "a symbol is added to an enum without default",
            file: "ArticleEvent.avsc",
            change: |event| field(event, "op")["type"]["symbols"] = json!(["UPSERT", "DELETE", "MERGE"]),
            reason: "the released schema cannot read the other's values: some values have no counterpart",
        },
        Break {
            what: "what could be null no longer can",
            file: "ArticleEvent.avsc",
            change: |event| *field(event, "title") = json!({"name": "title", "type": "string", "default": ""}),
            reason: "the current schema cannot read the other's values",
        },
        Break {
            what: "a union gets another branch",
            file: "ArticleEvent.avsc",
            change: |event| field(event, "title")["type"] = json!(["null", "string", "long"]),
            reason: "the released schema cannot read the other's values",
        },
        Break {
            what: "a nested record is renamed",
            file: "ArticleEvent.avsc",
            change: |event| passage(event)["name"] = json!("Paragraph"),
            reason: "the current schema cannot read the other's values",
        },
        Break {
            what: "the record moves to another namespace",
            file: "ArticleEvent.avsc",
            change: |event| event["namespace"] = json!("com.example"),
            reason: "was renamed",
        },
        Break {
            what: "a time gets another unit",
            file: "ModelVersion.avsc",
            change: |version| field(version, "created_at")["type"][1]["logicalType"] = json!("timestamp-micros"),
            reason: "the logical type of ModelVersion.created_at was [\"timestamp-millis\"]",
        },
    ];
    for Break { what, file, change, reason } in breaks {
        let schema = read(&schemas().join(file));
        let mut changed = schema.clone();
        change(&mut changed);
        let found = incompatibility(&schema, &changed).unwrap_or_else(|| panic!("{what}: not found"));
        assert!(found.contains(reason), "{what}: {found}");
    }
}

#[test]
fn compatible_changes_pass() {
    let changes: [fn(&mut Json); 4] = [
        |event| remove(event, "journal"),
        |event| add(event, json!({"name": "publisher", "type": ["null", "string"], "default": null})),
        |event| add(passage(event), json!({"name": "page", "type": "int", "default": 0})),
        |event| {
            let symbols = &mut passage(event)["fields"][0]["type"]["symbols"];
            symbols.as_array_mut().unwrap().push(json!("dedication"));
        },
    ];
    let schema = read(&schemas().join("ArticleEvent.avsc"));
    for (index, change) in changes.into_iter().enumerate() {
        let mut changed = schema.clone();
        change(&mut changed);
        assert_eq!(incompatibility(&schema, &changed), None, "change {index}");
    }
}

/// Whether all that `written` holds stands in `read` too, which may have more: fields that came later.
fn holds(read: &Json, written: &Json) -> bool {
    match (read, written) {
        (Json::Object(read), Json::Object(written)) => {
            written.iter().all(|(key, value)| read.get(key).is_some_and(|found| holds(found, value)))
        }
        (Json::Array(read), Json::Array(written)) => {
            read.len() == written.len() && read.iter().zip(written).all(|(read, written)| holds(read, written))
        }
        _ => read == written,
    }
}

/// As text and back: a number as it is written, not as it is held.
fn as_json<T: Record>(value: &T) -> Json {
    serde_json::from_str(&serde_json::to_string(value).unwrap()).unwrap()
}

/// Reads what each release has written: one line a value, its bytes in hex, and what they said.
fn reads_all_releases<T: Record>() {
    let mut count = 0;
    for (release, _) in released(&format!("{}.avsc", T::NAME)) {
        let file = values().join(&release).join(format!("{}.jsonl", T::NAME));
        for line in fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display())).lines() {
            let line: Json = serde_json::from_str(line).unwrap();
            let bytes = hex::decode(line["bytes"].as_str().unwrap()).unwrap();
            let value = T::decode(&bytes).unwrap_or_else(|e| panic!("{} of release {release}: {e}", T::NAME));
            assert!(holds(&as_json(&value), &line["value"]), "{} of {release}: {line}", T::NAME);
            for end in 0..bytes.len() {
                assert!(T::decode(&bytes[..end]).is_err(), "{} of {release}, cut off at {end}: {line}", T::NAME);
            }
            count += 1;
        }
    }
    assert!(count > 0, "no released values of {}", T::NAME);
}

#[test]
fn values_of_every_release_are_read() {
    reads_all_releases::<ArticleEvent>();
    reads_all_releases::<Annotations>();
    reads_all_releases::<EntityMention>();
    reads_all_releases::<LabeledDocument>();
    reads_all_releases::<ModelVersion>();
    reads_all_releases::<ShadowTally>();
}

/// A tree of generic values takes a hundred times the bytes that the shortest of them have.
#[test]
fn a_value_of_a_release_cannot_fill_the_memory() {
    let schema = Schema::parse(&released("ArticleEvent.avsc")[0].1).unwrap();
    let id = b"\x0cfeed:1"; // a string of six bytes
    let fields_before_publication_types = [&id[..], &[2, 0, 0, 0, 0, 0, 0, 0, 0, 0]].concat();
    let two_million_empty_ones = [&[0x80, 0x92, 0xF4, 0x01][..], &vec![0; 2_000_000], &[0]].concat();
    let rest = [0, 0, 0, 0, 0];
    let mut bytes = header(&schema).to_vec();
    for part in [&fields_before_publication_types[..], &two_million_empty_ones, &rest] {
        bytes.extend_from_slice(part);
    }
    let error = ArticleEvent::decode(&bytes).unwrap_err().to_string();
    assert!(error.contains("more than 1048576 values"), "{error}");
}

fn keep_values<T: Record + std::fmt::Debug>(folder: &Path, strategy: impl Strategy<Value = T>) {
    let mut runner = TestRunner::deterministic();
    let line = |_| {
        let value = strategy.new_tree(&mut runner).unwrap().current();
        json!({"bytes": hex::encode(value.encode().unwrap()), "value": as_json(&value)}).to_string() + "\n"
    };
    fs::write(folder.join(format!("{}.jsonl", T::NAME)), (0..8).map(line).collect::<String>()).unwrap();
}

#[test]
#[ignore = "a step of a release: keeps its schemas and some of its values"]
fn keep_this_release() {
    let release = env!("CARGO_PKG_VERSION");
    let (kept, values) = (schemas().join("released").join(release), values().join(release));
    assert!(!values.exists(), "release {release} is kept already, and what it wrote does not change");
    fs::create_dir_all(&kept).unwrap();
    fs::create_dir_all(&values).unwrap();
    for (file, path) in list(&schemas()).iter().filter(|(file, _)| file.ends_with(".avsc")) {
        fs::copy(path, kept.join(file)).unwrap();
    }
    keep_values(&values, arbitrary::article_event());
    keep_values(&values, arbitrary::annotations());
    keep_values(&values, arbitrary::entity_mention());
    keep_values(&values, arbitrary::labeled_document());
    keep_values(&values, arbitrary::model_version());
    keep_values(&values, arbitrary::shadow_tally());
}
