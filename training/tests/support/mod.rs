//! What unit and integration tests share: a tokenizer, an encoder and a corpus too small to be of other use.

// The lint knows test functions, not what they share.
#![allow(clippy::unwrap_used)]

use litflow::model::Config;
use litflow::model::weights::write_safetensors;
use std::fmt::Write as _;
use std::path::Path;
use tch::{Device, Kind, Tensor};
use tokenizers::Tokenizer;

/// Words that the tokenizer knows whole; others are spelled in lower-case letters and digits.
const WORDS: [&str; 10] = ["the", "in", "of", "and", "causes", "cancer", "mice", "gene", "fever", "."];

/// An uncased BERT tokenizer.
pub fn tokenizer() -> Tokenizer {
    vocabulary_json().to_string().parse().unwrap()
}

fn vocabulary_json() -> serde_json::Value {
    let characters = (33u8..127).map(|byte| (byte as char).to_ascii_lowercase().to_string());
    let spelled = characters.flat_map(|character| [format!("##{character}"), character]);
    let mut vocabulary = serde_json::Map::new();
    for token in ["[PAD]", "[UNK]", "[CLS]", "[SEP]"].into_iter().chain(WORDS).map(String::from).chain(spelled) {
        let id = vocabulary.len();
        vocabulary.entry(token).or_insert(id.into());
    }
    serde_json::json!({
        "version": "1.0",
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                       "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100, "vocab": vocabulary},
    })
}

/// Writes a random BERT of two layers, hidden size 32.
pub fn write_encoder(folder: &Path) {
    write_deep_encoder(folder, 2);
}

/// The same with so many layers: a slow one.
pub fn write_deep_encoder(folder: &Path, layers: usize) {
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("tokenizer.json"), vocabulary_json().to_string()).unwrap();
    let config = Config {
        vocab_size: tokenizer().get_vocab_size(true),
        hidden_size: 32,
        num_hidden_layers: layers,
        num_attention_heads: 2,
        intermediate_size: 64,
        max_position_embeddings: 64,
        ..Config::default()
    };
    std::fs::write(folder.join("config.json"), serde_json::to_string(&config).unwrap()).unwrap();

    // Not libtorch's generator: there is one for all threads, and tests run side by side.
    let noise = |place: usize, shape: &[i64]| {
        let elements = Tensor::arange(shape.iter().product::<i64>(), (Kind::Double, Device::Cpu)) + place as f64 * 0.1;
        (((elements * 12.9898).sin() * 43_758.545_3).frac() * 0.2).to_kind(Kind::Float).view(shape)
    };
    let mut tensors: Vec<(String, Tensor)> = Vec::new();
    let mut add = |name: &str, shape: &[i64]| {
        let tensor = match name {
            name if name.ends_with("LayerNorm.weight") => Tensor::ones(shape, (Kind::Float, Device::Cpu)),
            name if name.ends_with("bias") => Tensor::zeros(shape, (Kind::Float, Device::Cpu)),
            _ => noise(tensors.len(), shape),
        };
        tensors.push((name.to_owned(), tensor));
    };
    add("embeddings.word_embeddings.weight", &[config.vocab_size as i64, 32]);
    add("embeddings.position_embeddings.weight", &[64, 32]);
    add("embeddings.token_type_embeddings.weight", &[2, 32]);
    add("embeddings.LayerNorm.weight", &[32]);
    add("embeddings.LayerNorm.bias", &[32]);
    for layer in 0..layers {
        for (module, outputs, inputs) in [
            ("attention.self.query", 32, 32),
            ("attention.self.key", 32, 32),
            ("attention.self.value", 32, 32),
            ("attention.output.dense", 32, 32),
            ("intermediate.dense", 64, 32),
            ("output.dense", 32, 64),
        ] {
            add(&format!("encoder.layer.{layer}.{module}.weight"), &[outputs, inputs]);
            add(&format!("encoder.layer.{layer}.{module}.bias"), &[outputs]);
        }
        for module in ["attention.output.LayerNorm", "output.LayerNorm"] {
            add(&format!("encoder.layer.{layer}.{module}.weight"), &[32]);
            add(&format!("encoder.layer.{layer}.{module}.bias"), &[32]);
        }
    }
    write_safetensors(&folder.join("model.safetensors"), &tensors, Kind::Float).unwrap();
}

/// Writes a corpus that can be learned by heart, 40 documents of 3 mentions: genes are `xq0` to `xq3`,
/// diseases fever and cancer.
pub fn write_corpus(file: &Path) {
    let mut corpus = String::new();
    for id in 0..40 {
        let (gene, disease) = (format!("xq{}", id % 4), if id % 3 == 0 { "fever" } else { "cancer" });
        let (title, text) = (format!("The gene {gene}"), format!("{gene} causes {disease} in mice."));
        let begin = title.len() + 1;
        let end = begin + gene.len();
        writeln!(corpus, "{id}|t|{title}\n{id}|a|{text}").unwrap();
        writeln!(corpus, "{id}\t9\t{}\t{gene}\tGene\t", title.len()).unwrap();
        writeln!(corpus, "{id}\t{begin}\t{end}\t{gene}\tGene\t").unwrap();
        writeln!(corpus, "{id}\t{}\t{}\t{disease}\tDisease\t\n", end + 8, end + 8 + disease.len()).unwrap();
    }
    std::fs::write(file, corpus).unwrap();
}
