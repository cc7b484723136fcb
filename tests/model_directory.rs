//! A model directory that is not whole, or not what it says, is refused with one clear error; nothing panics.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use litflow::model::directory::Manifest;
use litflow::model::{Directory, Model, Options, device};
use std::path::{Path, PathBuf};
use tch::{Kind, Tensor};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/bert").join(name)
}

/// A copy of a fixture that a test may damage.
fn copy(name: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixture(name)).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    folder
}

fn load(folder: &Path) -> Result<Model, String> {
    let options = Options { device: device::DeviceChoice::Cpu, precision: device::Precision::Fp32 };
    Model::load(folder, &options).map_err(|e| e.to_string())
}

/// The one error of loading, which names `file` and says `reason`.
fn refused(folder: &Path, file: &str, reason: &str) {
    let message = load(folder).err().unwrap_or_else(|| panic!("loaded, should have said: {file}: {reason}"));
    assert!(message.contains(file) && message.contains(reason), "should name {file} and {reason}: {message}");
    assert!(message.lines().count() == 1, "more than one line: {message}");
}

/// Rewrites the weights with one tensor changed, or dropped where `change` gives none.
fn change_tensor(folder: &Path, name: &str, change: impl Fn(&Tensor) -> Option<Tensor>) {
    let file = folder.join("model.safetensors");
    let tensors = Tensor::read_safetensors(&file).unwrap().into_iter().filter_map(|(stored, tensor)| {
        let tensor = if stored == name { change(&tensor)? } else { tensor };
        Some((stored, tensor))
    });
    litflow::model::weights::write_safetensors(&file, &tensors.collect::<Vec<_>>(), Kind::Float).unwrap();
}

fn edit_config(folder: &Path, edit: impl Fn(&mut serde_json::Map<String, serde_json::Value>)) {
    let file = folder.join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    edit(config.as_object_mut().unwrap());
    std::fs::write(file, config.to_string()).unwrap();
}

#[test]
fn a_whole_directory_loads_and_names_itself() {
    let folder = copy("ner");
    let model = load(folder.path()).unwrap();
    assert_eq!(model.model_ref().version, "0");
    assert!(model.model_ref().digest.starts_with("sha256:"));
    edit_config(folder.path(), |config| {
        let section = serde_json::json!({"name": "tiny", "version": "1.2.0", "head": "softmax", "max_length": 32});
        config.insert("litflow".into(), section);
    });
    let digest = Manifest::default().write(folder.path()).unwrap();
    let model = load(folder.path()).unwrap();
    let reference = model.model_ref();
    assert_eq!((&*reference.name, &*reference.version, &reference.digest), ("tiny", "1.2.0", &digest));
    assert_eq!(model.config().max_length(), 32);
}

#[test]
fn a_missing_file_is_named() {
    refused(Path::new("/nowhere/at/all"), "/nowhere/at/all", "No such file");
    refused(&fixture("ner").join("config.json"), "config.json", "not a directory");
    for (file, reason) in [
        ("config.json", "there is no `config.json`"),
        ("model.safetensors", "neither `model.safetensors` nor `pytorch_model.bin`"),
        ("tokenizer.json", "neither `tokenizer.json` nor `vocab.txt`"),
    ] {
        let folder = copy("ner");
        std::fs::remove_file(folder.path().join(file)).unwrap();
        refused(folder.path(), folder.path().to_str().unwrap(), reason);
    }
}

#[test]
fn a_truncated_or_foreign_file_is_named() {
    for (file, reason) in [
        ("model.safetensors", "not a whole safetensors file"),
        ("config.json", "not a model configuration"),
        ("tokenizer.json", "not a tokenizer"),
    ] {
        let folder = copy("ner");
        let bytes = std::fs::read(folder.path().join(file)).unwrap();
        for kept in [0, bytes.len() / 2, bytes.len() - 2] {
            std::fs::write(folder.path().join(file), &bytes[..kept]).unwrap();
            refused(folder.path(), file, reason);
        }
        std::fs::write(folder.path().join(file), b"<html>404 Not Found</html>").unwrap();
        refused(folder.path(), file, reason);
    }
}

#[test]
fn weights_that_do_not_fit_are_named_by_tensor() {
    let query = "bert.encoder.layer.1.attention.self.query.weight";
    let folder = copy("ner");
    change_tensor(folder.path(), query, |_| None);
    refused(folder.path(), "model.safetensors", "`encoder.layer.1.attention.self.query.weight` is missing");

    let folder = copy("ner");
    change_tensor(folder.path(), query, |tensor| Some(tensor.narrow(0, 0, 63)));
    refused(folder.path(), "model.safetensors", "has the shape [63, 64], config.json asks for [64, 64]");

    let folder = copy("ner");
    change_tensor(folder.path(), query, |tensor| Some(tensor * f64::NAN));
    refused(folder.path(), "query.weight", "NaN");

    let folder = copy("ner");
    change_tensor(folder.path(), "classifier.weight", |_| None);
    refused(folder.path(), "classifier.weight", "litflow-train fit");

    refused(&fixture("encoder"), "config.json", "`id2label` is missing");
}

#[test]
fn a_configuration_that_contradicts_the_weights_is_refused() {
    let folder = copy("ner");
    edit_config(folder.path(), |config| {
        config.insert("num_hidden_layers".into(), 3.into());
    });
    refused(folder.path(), "encoder.layer.2", "is missing");

    let folder = copy("ner");
    edit_config(folder.path(), |config| {
        config.insert("vocab_size".into(), 20.into());
    });
    refused(folder.path(), "tokenizer.json", "belongs to another model");

    let folder = copy("ner");
    edit_config(folder.path(), |config| {
        config.insert("id2label".into(), serde_json::json!({"0": "O", "1": "LABEL_1"}));
    });
    refused(folder.path(), "config.json", "`LABEL_1`");

    let folder = copy("ner");
    edit_config(folder.path(), |config| {
        let section = serde_json::json!({"name": "m", "version": "1", "head": "crf", "max_length": 32});
        config.insert("litflow".into(), section);
    });
    refused(folder.path(), "crf.transitions", "is missing");
}

#[test]
fn every_file_must_match_the_manifest() {
    let with_manifest = || {
        let folder = copy("ner");
        std::fs::write(folder.path().join("README.md"), "A model.\n").unwrap();
        Manifest { parent: Some("sha256:00".into()), ..Manifest::default() }.write(folder.path()).unwrap();
        load(folder.path()).unwrap();
        folder
    };
    // One bit of the weights, the model card, the configuration.
    for (file, at) in [("model.safetensors", 100_000), ("README.md", 0), ("config.json", 0)] {
        let folder = with_manifest();
        let mut bytes = std::fs::read(folder.path().join(file)).unwrap();
        bytes[at] ^= 1;
        std::fs::write(folder.path().join(file), bytes).unwrap();
        refused(folder.path(), file, "SHA-256");
    }
    let folder = with_manifest();
    std::fs::remove_file(folder.path().join("README.md")).unwrap();
    refused(folder.path(), "README.md", "No such file");

    let folder = with_manifest();
    let bytes = std::fs::read(folder.path().join("model.safetensors")).unwrap();
    std::fs::write(folder.path().join("model.safetensors"), &bytes[..1000]).unwrap();
    refused(folder.path(), "model.safetensors", "1000 bytes, the manifest says");

    // A file that would be used but that nobody vouches for.
    let folder = with_manifest();
    std::fs::write(folder.path().join("vocab.txt"), "[PAD]\n").unwrap();
    refused(folder.path(), "vocab.txt", "not named in manifest.json");

    // A manifest that points outside.
    for name in ["../secret", "/etc/passwd", "", ".."] {
        let folder = with_manifest();
        let manifest = serde_json::json!({"files": {name: {"sha256": "00", "bytes": 1}}});
        std::fs::write(folder.path().join("manifest.json"), manifest.to_string()).unwrap();
        refused(folder.path(), "manifest.json", "not the plain name of a file");
    }
}

#[test]
fn a_folder_in_the_place_of_a_file_is_an_error() {
    let folder = copy("ner");
    std::fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
    std::fs::create_dir(folder.path().join("tokenizer.json")).unwrap();
    refused(folder.path(), "tokenizer.json", "not a regular file");
}

/// The weights of the pickled fixture, or why not.
fn read_checkpoint(bytes: &[u8]) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("pytorch_model.bin"), bytes).unwrap();
    let config = litflow::model::Config::parse(
        &std::fs::read(fixture("biobert").join("config.json")).unwrap(),
        Path::new("config.json"),
    );
    let directory = Directory::read(folder.path()).map_err(|e| e.to_string())?;
    let weights = directory.weights().map_err(|e| e.to_string())?;
    litflow::model::Bert::load(&weights, &config.unwrap()).map(drop).map_err(|e| e.to_string())
}

#[test]
fn damaged_checkpoints_are_errors() {
    for file in ["pytorch_model.bin", "legacy.bin"] {
        let bytes = std::fs::read(fixture("biobert").join(file)).unwrap();
        read_checkpoint(&bytes).unwrap();
        for kept in [1, 2, 10, 100, bytes.len() / 2, bytes.len() - 1] {
            let message = read_checkpoint(&bytes[..kept]).unwrap_err();
            assert!(message.contains("pytorch_model.bin"), "{kept}: {message}");
        }
        // A bit flipped anywhere: an error or another number, never a panic or an endless allocation.
        for at in (0..bytes.len()).step_by(bytes.len() / 400) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            let _ = read_checkpoint(&damaged);
        }
    }
    for foreign in [&b""[..], b"version https://git-lfs.github.com/spec/v1\n", b"PK\x05\x06aaaa"] {
        let message = read_checkpoint(foreign).unwrap_err();
        assert!(message.contains("pytorch_model.bin"), "{message}");
    }
}

/// A zip archive as torch.save lays it out, around any pickle.
fn archive(pickle: &[u8], method: zip::CompressionMethod, data: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().compression_method(method);
    for (name, contents) in [("archive/data.pkl", pickle), ("archive/data/0", data)] {
        writer.start_file(name, options).unwrap();
        writer.write_all(contents).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

#[test]
fn hostile_checkpoints_are_refused_unexecuted() {
    let stored = zip::CompressionMethod::Stored;
    let marker = tempfile::tempdir().unwrap().path().join("executed");
    let command = format!("touch {}", marker.display());
    let mut pickle = b"\x80\x02cposix\nsystem\nX".to_vec();
    pickle.extend((command.len() as u32).to_le_bytes());
    pickle.extend(command.as_bytes());
    pickle.extend(b"\x85R.");
    for bytes in [archive(&pickle, stored, b""), pickle.clone()] {
        let message = read_checkpoint(&bytes).unwrap_err();
        assert!(message.contains("posix.system") && message.contains("refused"), "{message}");
        assert!(!marker.exists());
    }

    // One tensor of 2²⁸ numbers, whose storage compresses to almost nothing, or is not there at all.
    let tensor = |elements: u32| {
        let mut pickle = b"\x80\x02}X\x01\x00\x00\x00xctorch._utils\n_rebuild_tensor_v2\n(\
            (X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuJ"
            .to_vec();
        pickle.extend(elements.to_le_bytes());
        pickle.extend(b"tQK\x00J");
        pickle.extend(elements.to_le_bytes());
        pickle.extend(b"\x85K\x01\x85\x89NtRs.");
        pickle
    };
    let message = read_checkpoint(&archive(&tensor(4), stored, &[0; 16])).unwrap_err();
    assert!(message.contains("embeddings.word_embeddings.weight"), "a good archive of another model: {message}");
    let bomb = archive(&tensor(1 << 20), zip::CompressionMethod::Deflated, &vec![0; 4 << 20]);
    assert!(bomb.len() < 100_000);
    assert!(read_checkpoint(&bomb).unwrap_err().contains("compressed"));
    let message = read_checkpoint(&archive(&tensor(1 << 28), stored, &[0; 16])).unwrap_err();
    assert!(message.contains("16 bytes"), "{message}");
}
