//! The model's own tokenizer: read from `tokenizer.json`, or built from a vocabulary as Transformers'
//! `BertTokenizer` does (<https://arxiv.org/abs/1810.04805>, WordPiece).

use super::{Config, Error};
use serde::Deserialize;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::{AddedToken, Tokenizer};

/// What of `tokenizer_config.json` matters for a tokenizer that is built from a vocabulary.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Whether text is lower-cased. Where nothing says so, a vocabulary without capitals is taken for an
    /// uncased one (Transformers would lower-case always, which spoils cased models such as BioBERT).
    pub do_lower_case: Option<bool>,
    /// Whether accents are removed; as `do_lower_case` where not given.
    pub strip_accents: Option<bool>,
    /// Whether each CJK character is a word; true where not given.
    pub tokenize_chinese_chars: Option<bool>,
}

impl Settings {
    /// Reads the bytes of `file`.
    pub fn parse(json: &[u8], file: &Path) -> Result<Self, Error> {
        serde_json::from_slice(json).map_err(|e| Error::file(file, format!("not a tokenizer's settings: {e}")))
    }
}

/// The tokenizer in the bytes of `file`, with truncation and padding switched off.
pub fn from_json(json: &[u8], config: &Config, file: &Path) -> Result<Tokenizer, Error> {
    let read = guarded(|| Tokenizer::from_bytes(json)).map_err(|e| Error::file(file, e))?;
    let mut tokenizer = read.map_err(|e| Error::file(file, format!("not a tokenizer: {e}")))?;
    tokenizer.with_padding(None);
    tokenizer.with_truncation(None).map_err(|e| Error::file(file, e.to_string()))?;
    check(tokenizer, config, file)
}

/// A BERT tokenizer over `vocabulary`, one token a line, its id the line's number.
pub fn from_vocabulary(
    vocabulary: &[u8],
    settings: &Settings,
    config: &Config,
    file: &Path,
) -> Result<Tokenizer, Error> {
    let text = std::str::from_utf8(vocabulary).map_err(|e| Error::file(file, format!("not UTF-8: {e}")))?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    let tokens: Vec<&str> = text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)).collect();
    let ids: HashMap<&str, usize> = tokens.iter().enumerate().map(|(id, token)| (*token, id)).collect();
    let special = |token: &str| -> Result<(String, u32), Error> {
        let id = ids.get(token).ok_or_else(|| Error::file(file, format!("there is no token `{token}`")))?;
        Ok((token.to_owned(), *id as u32))
    };
    let (cls, sep) = (special("[CLS]")?, special("[SEP]")?);
    special("[UNK]")?;

    let said = settings.do_lower_case.or_else(|| config.other.get("do_lower_case").and_then(|v| v.as_bool()));
    let lowercase = said.unwrap_or_else(|| {
        let is_word = |token: &&&str| !(token.starts_with('[') && token.ends_with(']'));
        let cased = tokens.iter().filter(is_word).any(|token| token.chars().any(char::is_uppercase));
        tracing::info!(file = %file.display(), cased, "whether to lower-case is not said: decided by the vocabulary");
        !cased
    });

    let model = serde_json::json!({
        "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100, "vocab": ids,
    });
    let model: WordPiece =
        serde_json::from_str(&model.to_string()).map_err(|e| Error::file(file, format!("not a vocabulary: {e}")))?;
    let mut tokenizer = Tokenizer::new(model);
    tokenizer
        .with_normalizer(Some(BertNormalizer::new(
            true,
            settings.tokenize_chinese_chars.unwrap_or(true),
            settings.strip_accents,
            lowercase,
        )))
        .with_pre_tokenizer(Some(BertPreTokenizer))
        .with_post_processor(Some(BertProcessing::new(sep, cls)));
    let specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].into_iter().filter(|token| ids.contains_key(token));
    tokenizer.add_special_tokens(&specials.map(|token| AddedToken::from(token, true)).collect::<Vec<_>>());
    check(tokenizer, config, file)
}

/// What the tokenizers library gives. It is written for files of its own making, and panics over some others: over a
/// template with a token that is not there, only when the first text comes.
///
/// # Errors
/// A panic; its place and message go to stderr, as any panic's.
pub(crate) fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    std::panic::catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let message = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        format!("the tokenizers library panicked: {}", message.unwrap_or("it does not say why"))
    })
}

/// No id may lie outside the word embedding.
fn check(tokenizer: Tokenizer, config: &Config, file: &Path) -> Result<Tokenizer, Error> {
    match tokenizer.get_vocab(true).values().max() {
        Some(&largest) if (largest as usize) < config.vocab_size => Ok(tokenizer),
        Some(largest) => {
            let reason = format!(
                "the token id {largest} lies outside the model's {} embeddings: it belongs to another model",
                config.vocab_size
            );
            Err(Error::file(file, reason))
        }
        None => Err(Error::file(file, "the vocabulary is empty")),
    }
}
