//! The encoder, its weights and its tokenizer agree with Hugging Face Transformers.
//!
//! `tests/fixtures/bert/make.py` made the models and the expected values.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use litflow::model::{Bert, Directory, Model, Options, PackedBatch, device};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use tch::{Kind, Tensor};

/// fp32, between two orders of summation.
const TOLERANCE: f64 = 1e-4;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/bert").join(name)
}

fn tensors(file: PathBuf) -> HashMap<String, Tensor> {
    Tensor::read_safetensors(file).unwrap().into_iter().collect()
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    (a - b).abs().max().double_value(&[])
}

fn on_cpu(precision: device::Precision) -> Options {
    Options { device: device::DeviceChoice::Cpu, precision }
}

/// The hidden states of real tokens, [T, H].
fn hidden_states(directory: &Directory, ids: &Tensor, mask: &Tensor) -> Tensor {
    let bert = Bert::load(&directory.weights().unwrap(), &directory.config().unwrap()).unwrap();
    let _guard = tch::no_grad_guard();
    bert.forward_t(ids, mask, false).unwrap()
}

#[test]
fn hidden_states_equal_those_of_transformers() {
    for name in ["encoder", "ner", "biobert"] {
        let directory = Directory::read(&fixture(name)).unwrap();
        let expected = tensors(fixture(name).join("expected.safetensors"));
        let (ids, mask) = (&expected["ids"], &expected["mask"]);
        let real = |hidden: &Tensor| hidden * mask.unsqueeze(2).to_kind(Kind::Float);
        let difference = largest_difference(&real(&hidden_states(&directory, ids, mask)), &real(&expected["hidden"]));
        assert!(difference < TOLERANCE, "{name}: {difference:e}");
    }
}

#[test]
fn a_legacy_checkpoint_holds_the_same_weights() {
    let folder = tempfile::tempdir().unwrap();
    for (from, to) in [("legacy.bin", "pytorch_model.bin"), ("config.json", "config.json")] {
        std::fs::copy(fixture("biobert").join(from), folder.path().join(to)).unwrap();
    }
    let legacy = Directory::read(folder.path()).unwrap();
    let expected = tensors(fixture("biobert").join("expected.safetensors"));
    let (ids, mask) = (&expected["ids"], &expected["mask"]);
    let zip = Directory::read(&fixture("biobert")).unwrap();
    assert_eq!(hidden_states(&legacy, ids, mask), hidden_states(&zip, ids, mask));
}

/// The real tokens of a padded batch as the engine takes them.
fn packed(ids: &Tensor, mask: &Tensor) -> PackedBatch {
    let lengths: Vec<i64> = Vec::try_from(mask.sum_dim_intlist(1, false, Kind::Int64)).unwrap();
    let ids: Vec<i64> = Vec::try_from(ids.masked_select(mask)).unwrap();
    PackedBatch {
        ids: ids.into_iter().map(|id| id as u32).collect(),
        lengths: lengths.into_iter().map(|length| length as u32).collect(),
    }
}

#[test]
fn logits_equal_those_of_transformers() {
    let expected = tensors(fixture("ner").join("expected.safetensors"));
    let (ids, mask) = (&expected["ids"], &expected["mask"]);
    let logits: Vec<f32> = Vec::try_from(expected["logits"].masked_select(&mask.unsqueeze(2))).unwrap();
    let model = Model::load(&fixture("ner"), &on_cpu(device::Precision::Fp32)).unwrap();
    assert_eq!(model.label_set().entity_types(), ["Gene", "Disease"]);
    let emissions = model.emissions(&packed(ids, mask)).unwrap();
    assert_eq!(emissions.values.len(), logits.len());
    for (ours, theirs) in emissions.values.iter().zip(&logits) {
        assert!((ours - theirs).abs() < TOLERANCE as f32, "{ours} {theirs}");
    }
}

#[test]
fn a_tokenizer_from_a_vocabulary_gives_the_ids_of_bert_tokenizer() {
    // `biobert` is cased and has nothing but vocab.txt; `encoder` is uncased and has tokenizer.json.
    for name in ["biobert", "encoder"] {
        let directory = Directory::read(&fixture(name)).unwrap();
        let tokenizer = directory.tokenizer(&directory.config().unwrap()).unwrap();
        let text = std::fs::read_to_string(fixture(name).join("tokenization.json")).unwrap();
        let said: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
        assert!(said.len() > 10);
        for line in said {
            let text = line["text"].as_str().unwrap();
            let expected: Vec<u32> = serde_json::from_value(line["ids"].clone()).unwrap();
            assert_eq!(tokenizer.encode(text, true).unwrap().get_ids(), expected, "{name}: {text:?}");
        }
    }
}

#[test]
fn the_real_minilm_gives_the_hidden_states_of_transformers() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("encoders/minilm-l6");
    if !path.is_dir() {
        println!("skipped: {} is not installed (`make setup` fetches it)", path.display());
        return;
    }
    let directory = Directory::read(&path).unwrap();
    let tokenizer = directory.tokenizer(&directory.config().unwrap()).unwrap();
    let expected = tensors(fixture("minilm-l6.safetensors"));
    let texts = ["Mutations in BRCA1 cause breast cancer.", "IL-2Rβ (CD122) binds TNF-α; p<0.05, 37°C, 10µM."];
    for (index, text) in texts.iter().enumerate() {
        let ids: Vec<i64> = tokenizer.encode(*text, true).unwrap().get_ids().iter().map(|&id| id.into()).collect();
        let ids = Tensor::from_slice(&ids);
        assert_eq!(ids, expected[&format!("ids.{index}")]);
        let ids = ids.unsqueeze(0);
        let hidden = hidden_states(&directory, &ids, &ids.ones_like().to_kind(Kind::Bool)).get(0);
        let every_fourth = Tensor::arange_start_step(0, hidden.size()[0], 4, (Kind::Int64, tch::Device::Cpu));
        let difference =
            largest_difference(&hidden.index_select(0, &every_fourth), &expected[&format!("hidden.{index}")]);
        println!("MiniLM-L6, sentence {index}: largest difference {difference:e}");
        assert!(difference < TOLERANCE, "{difference:e}");
    }
}
