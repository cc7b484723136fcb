//! What the tagger's unit tests share.

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
