//! The files of a model directory that another party wrote.

use crate::memory::{FIXED, bounded};
use litflow::model::directory::Manifest;
use litflow::model::pickle::{Pickle, Value};
use litflow::model::{Config, checkpoint, tokenizer};
use litflow::tagger::encode::SentenceTokenizer;
use std::path::Path;
use std::sync::Once;

/// What errors name.
fn file() -> &'static Path {
    Path::new("fuzz")
}

/// `config.json`: what is accepted can be computed with, and is the same when it is written and read again.
pub fn config(bytes: &[u8]) {
    let Ok(config) = bounded(bytes.len(), FIXED, || Config::parse(bytes, file())) else { return };
    assert_eq!(config.head_size() * config.num_attention_heads, config.hidden_size);
    assert!(config.max_length() <= config.max_position_embeddings);
    if let Ok(labels) = config.label_set(file()) {
        assert_eq!(labels.labels().len(), config.id2label.len());
        assert_eq!(labels.tags().len(), labels.labels().len());
    }
    let written = serde_json::to_vec(&config).expect("what was read can be written");
    assert_eq!(Config::parse(&written, file()).expect("what was written can be read"), config);
}

/// `manifest.json`: no name leaves the directory, and what was read is the same when it is written and read again.
pub fn manifest(bytes: &[u8]) {
    let Ok(manifest) = bounded(bytes.len(), FIXED, || Manifest::parse(bytes, file())) else { return };
    for name in manifest.files.keys() {
        let parts: Vec<_> = Path::new(name).components().collect();
        assert!(matches!(parts[..], [std::path::Component::Normal(part)] if part == name.as_str()), "{name:?}");
    }
    assert_eq!(Manifest::parse(&manifest.to_json(), file()).expect("what was written can be read"), manifest);
}

/// `tokenizer.json`: what is accepted tokenises any text, and every piece lies in it and in the word embedding.
///
/// Panics of the tokenizers library are caught where they are met, so that the hook must not end the process.
pub fn tokenizer(bytes: &[u8]) {
    static CATCH: Once = Once::new();
    CATCH.call_once(|| drop(std::panic::take_hook()));
    let config = Config { vocab_size: 4_000, ..Config::default() };
    let Ok(tokenizer) = bounded(bytes.len(), FIXED, || tokenizer::from_json(bytes, &config, file())) else { return };
    let Ok(tokenizer) = SentenceTokenizer::new(tokenizer, 128, 16) else { return };
    for text in ["", "BRCA1 in breast cancer.", "β-catenin [SEP] Ca²⁺ …ﬁ 漢字 e\u{301} \u{200D}\u{FEFF}\u{10FFFF}"]
    {
        let Ok(sentence) = tokenizer.encode(text, 0) else { continue };
        let length = text.chars().count() as u32;
        assert!(sentence.ids.iter().all(|&id| (id as usize) < config.vocab_size), "{:?}", sentence.ids);
        for word in &sentence.words {
            assert!(word.begin <= word.end && word.end <= length, "{}..{} of {length}", word.begin, word.end);
        }
        for window in tokenizer.windows(&sentence) {
            assert!(window.pieces.start < window.pieces.end && window.pieces.end <= sentence.ids.len());
        }
    }
}

/// The pickle reader: every tensor lies within its storage.
pub fn pickle(bytes: &[u8]) {
    let Ok(pickle) = bounded(bytes.len(), FIXED, || Pickle::read(bytes)) else { return };
    assert!(pickle.consumed <= bytes.len());
    let Value::Dict(pairs) = pickle.root() else { return };
    for &(_, value) in pairs {
        let Value::Tensor(view) = pickle.value(value) else { continue };
        let Value::Storage(storage) = pickle.value(view.storage) else { panic!("a tensor of no storage") };
        let last: i128 =
            view.size.iter().zip(&view.stride).map(|(&n, &step)| (n.max(1) - 1) as i128 * step as i128).sum();
        assert!(view.size.contains(&0) || view.offset as i128 + last < storage.elements as i128, "{view:?}");
    }
}

/// `pytorch_model.bin`, both layouts.
pub fn checkpoint(bytes: &[u8]) {
    // A zip archive may say that it has 65,535 entries, for which room is made.
    const DIRECTORY: usize = 16 << 20;
    let _ = bounded(bytes.len(), FIXED + DIRECTORY, || checkpoint::read_weights(bytes, file()));
}
