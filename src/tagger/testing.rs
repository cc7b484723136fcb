//! What the tagger's unit tests share.

use super::decode::Decoder;
use super::encode::SentenceTokenizer;
use super::engine::{Engine, Forward, LoadedModel, Options};
use super::{Error, ModelRef, Tag, TaggedDocument};
use crate::article::{Document, Passage, Section};
use crate::model::{Emissions, Head, LabelSet, PackedBatch};
use std::sync::{Arc, LazyLock};
use tokenizers::Tokenizer;

/// An uncased BERT tokenizer whose pieces are single characters: any word of printable ASCII is spelled.
pub fn tokenizer() -> Tokenizer {
    let specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"].map(String::from);
    let characters = (33u8..127).map(|byte| (byte as char).to_ascii_lowercase().to_string());
    let spelled = characters.flat_map(|character| [format!("##{character}"), character]);
    let mut vocabulary = serde_json::Map::new();
    for token in specials.into_iter().chain(spelled) {
        let id = vocabulary.len();
        vocabulary.entry(token).or_insert(id.into());
    }
    let json = serde_json::json!({
        "version": "1.0",
        "added_tokens": [{"id": 3, "content": "[SEP]", "single_word": false, "lstrip": false, "rstrip": false,
                          "normalized": false, "special": true}],
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                       "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100, "vocab": vocabulary},
    });
    json.to_string().parse().unwrap()
}

/// A model made of a function from a window's ids to the label of each.
pub struct Labeller<F>(pub F);

impl<F: Fn(&[u32]) -> Result<Vec<usize>, String> + Send + Sync> Forward for Labeller<F> {
    fn emissions(&self, batch: &PackedBatch) -> Result<Emissions, String> {
        let (mut values, mut rest) = (Vec::new(), batch.ids.as_slice());
        for &length in &batch.lengths {
            let (window, after) = rest.split_at(length as usize);
            rest = after;
            for label in self.0(window)? {
                values.extend((0..LABELS).map(|k| if k == label { 9.0 } else { 0.0 }));
            }
        }
        Ok(Emissions { values, labels: LABELS })
    }
}

/// `O`, `B-Gene`, `I-Gene`.
pub const LABELS: usize = 3;

/// The id of a piece of [`tokenizer`].
pub fn id(piece: &str) -> u32 {
    static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(tokenizer);
    TOKENIZER.token_to_id(piece).unwrap()
}

/// Words that begin with `x` begin a gene, those with `y` go on with it.
pub fn spelled_genes(window: &[u32]) -> Vec<usize> {
    let (begin, inside) = (id("x"), id("y"));
    let label = |&piece: &u32| {
        if piece == begin {
            1
        } else if piece == inside {
            2
        } else {
            0
        }
    };
    window.iter().map(label).collect()
}

/// An engine with this model and windows of up to `max_length` pieces.
pub fn engine(forward: impl Forward + 'static, max_length: usize, options: Options) -> Engine {
    let labels = LabelSet::bio(&["Gene"]);
    let model = LoadedModel {
        reference: Arc::new(ModelRef { name: "fake".into(), version: "1".into(), digest: "sha256:0".into() }),
        entity_types: labels.entity_types().into(),
        tokenizer: SentenceTokenizer::new(tokenizer(), max_length, options.window_overlap).unwrap(),
        decoder: Decoder::new(&labels, &Head::Softmax),
        forward: Box::new(forward),
    };
    Engine::run(model, &options, false).unwrap()
}

/// A document of these passages.
pub fn document<S: Into<String>>(id: &str, texts: impl IntoIterator<Item = S>) -> Document {
    let passage = |text: S| Passage { section: Section::Body, heading: None, language: None, text: text.into() };
    Document { article_id: id.into(), article_version: 1, passages: texts.into_iter().map(passage).collect() }
}

/// Tags one document and waits for it.
pub fn tag(engine: &Engine, document: Document) -> Result<TaggedDocument, Error> {
    futures::executor::block_on(engine.tag(document))
}
