//! Versions of a tiny model, for the tests of the registry.

#![allow(dead_code)] // each test binary uses its part

use litflow::model::directory::Manifest;
use std::fs;
use std::path::{Path, PathBuf};

/// The tiny model with random weights that the model's own tests load: its mentions mean nothing.
const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/bert/ner");

/// A model directory below `folder`: the tiny model as `tiny` of this version, with `card` as its README.
pub fn model(folder: &Path, version: &str, card: &str) -> PathBuf {
    let model = folder.join(format!("tiny-{version}"));
    let _ = fs::remove_dir_all(&model); // of an earlier call
    fs::create_dir_all(&model).unwrap();
    for entry in fs::read_dir(FIXTURE).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), model.join(entry.file_name())).unwrap();
    }
    let config = model.join("config.json");
    let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    json["litflow"] = serde_json::json!({"name": "tiny", "version": version, "head": "softmax", "max_length": 32});
    fs::write(&config, json.to_string()).unwrap();
    fs::write(model.join("README.md"), card).unwrap();
    Manifest { code: Some("test 1".into()), ..Manifest::default() }.write(&model).unwrap();
    model
}

/// Flips a bit in the middle of a file.
pub fn flip_a_bit(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(file, bytes).unwrap();
}
