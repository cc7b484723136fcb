//! `config.json`: the encoder's shape as Hugging Face writes it, the labels, and our `litflow` section.

use super::Error;
use super::labels::LabelSet;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// What `config.json` says. Missing fields have the defaults of Transformers' `BertConfig`; fields that are
/// not known here are kept and written back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// The architecture; only `bert` is built.
    pub model_type: String,
    /// V, rows of the word embedding.
    pub vocab_size: usize,
    /// H, the width of a hidden state.
    pub hidden_size: usize,
    /// Number of encoder layers.
    pub num_hidden_layers: usize,
    /// A, attention heads of H / A each.
    pub num_attention_heads: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// Activation of the feed-forward layer.
    pub hidden_act: Activation,
    /// Dropout on embeddings and layer outputs, in training.
    pub hidden_dropout_prob: f64,
    /// Dropout on attention probabilities, in training.
    pub attention_probs_dropout_prob: f64,
    /// Dropout before the classifier, in training; `hidden_dropout_prob` where it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classifier_dropout: Option<f64>,
    /// The longest sequence, `[CLS]` and `[SEP]` included.
    pub max_position_embeddings: usize,
    /// Rows of the token type embedding.
    pub type_vocab_size: usize,
    /// Epsilon of every layer norm.
    pub layer_norm_eps: f64,
    /// Id of `[PAD]`.
    pub pad_token_id: usize,
    /// How positions enter; only `absolute` is built.
    pub position_embedding_type: String,
    /// Class index to label, for a model with a token-classification head.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", with = "class_indices")]
    pub id2label: BTreeMap<usize, String>,
    /// What Transformers does not know about the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub litflow: Option<Section>,
    /// Everything else in the file.
    #[serde(flatten)]
    pub other: serde_json::Map<String, serde_json::Value>,
}

/// The `litflow` section of `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Section {
    /// The model's name, `biored-minilm`.
    pub name: String,
    /// Its version, `1.0.0`.
    pub version: String,
    /// What turns hidden states into label sequences.
    pub head: HeadKind,
    /// The tag scheme of the labels.
    #[serde(default)]
    pub tag_scheme: TagScheme,
    /// The longest window that the model is given, `[CLS]` and `[SEP]` included.
    pub max_length: usize,
    /// How to make scores honest probabilities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Calibration>,
}

/// The kind of head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HeadKind {
    /// Each token's label on its own (`BertForTokenClassification`).
    Softmax,
    /// A linear-chain CRF over the emissions.
    Crf,
}

/// The tag scheme of the labels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TagScheme {
    /// `B-X` begins an entity of type X, `I-X` goes on with it, `O` is outside.
    #[default]
    #[serde(rename = "BIO")]
    Bio,
}

/// Temperature scaling (Guo et al. 2017, <https://arxiv.org/abs/1706.04599>).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// Emissions and transitions are divided by this; 1 changes nothing. The best path never changes.
    pub temperature: f64,
}

/// The activation of the feed-forward layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Activation {
    /// x Φ(x), exact.
    #[serde(rename = "gelu")]
    Gelu,
    /// The tanh approximation.
    #[serde(rename = "gelu_new", alias = "gelu_pytorch_tanh")]
    GeluTanh,
    /// max(0, x).
    #[serde(rename = "relu")]
    Relu,
}

impl Activation {
    /// Applied element by element.
    pub fn apply(self, x: &tch::Tensor) -> Result<tch::Tensor, tch::TchError> {
        match self {
            Self::Gelu => x.f_gelu("none"),
            Self::GeluTanh => x.f_gelu("tanh"),
            Self::Relu => x.f_relu(),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            model_type: "bert".into(),
            vocab_size: 30522,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            hidden_act: Activation::Gelu,
            hidden_dropout_prob: 0.1,
            attention_probs_dropout_prob: 0.1,
            classifier_dropout: None,
            max_position_embeddings: 512,
            type_vocab_size: 2,
            layer_norm_eps: 1e-12,
            pad_token_id: 0,
            position_embedding_type: "absolute".into(),
            id2label: BTreeMap::new(),
            litflow: None,
            other: serde_json::Map::new(),
        }
    }
}

impl Config {
    /// Reads and checks the bytes of `file`.
    pub fn parse(bytes: &[u8], file: &Path) -> Result<Self, Error> {
        if bytes.trim_ascii_start().first() != Some(&b'{') {
            return Err(Error::file(file, "not a model configuration: not a JSON object"));
        }
        let config: Self =
            serde_json::from_slice(bytes).map_err(|e| Error::file(file, format!("not a model configuration: {e}")))?;
        config.check().map_err(|reason| Error::file(file, reason))?;
        Ok(config)
    }

    /// Width of one attention head.
    pub fn head_size(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }

    /// The longest window that the model is given, `[CLS]` and `[SEP]` included.
    pub fn max_length(&self) -> usize {
        self.litflow.as_ref().map_or(self.max_position_embeddings, |section| section.max_length)
    }

    /// The labels in the order of the classifier's outputs; `file` is named in the error.
    pub fn label_set(&self, file: &Path) -> Result<LabelSet, Error> {
        if self.id2label.is_empty() {
            let reason = "`id2label` is missing: this is an encoder without labels, not a tagging model; \
                          train one with `litflow-train fit --encoder`";
            return Err(Error::file(file, reason));
        }
        if self.id2label.keys().copied().ne(0..self.id2label.len()) {
            return Err(Error::file(file, "the keys of `id2label` are not 0, 1, 2, … without a gap"));
        }
        LabelSet::parse(self.id2label.values().cloned().collect())
            .map_err(|reason| Error::file(file, format!("`id2label`: {reason}")))
    }

    /// Makes this the configuration of a tagging model with these labels, as Transformers writes it.
    pub fn set_labels(&mut self, labels: &LabelSet) {
        self.id2label = labels.labels().iter().cloned().enumerate().collect();
        let label2id: serde_json::Map<_, _> =
            labels.labels().iter().enumerate().map(|(index, label)| (label.clone(), index.into())).collect();
        self.other.insert("label2id".into(), label2id.into());
        self.other.insert("architectures".into(), serde_json::json!(["BertForTokenClassification"]));
    }

    fn check(&self) -> Result<(), String> {
        if self.model_type != "bert" {
            return Err(format!("`model_type` is `{}`: only `bert` encoders are supported", self.model_type));
        }
        if self.position_embedding_type != "absolute" {
            return Err(format!(
                "`position_embedding_type` is `{}`: only `absolute` is supported",
                self.position_embedding_type
            ));
        }
        if self.other.get("is_decoder").is_some_and(|v| v == true) {
            return Err("`is_decoder` is true: only encoders are supported".into());
        }
        // Far above every published BERT, far below what makes size arithmetic overflow.
        for (name, value, limit) in [
            ("vocab_size", self.vocab_size, 10_000_000),
            ("hidden_size", self.hidden_size, 65_536),
            ("num_hidden_layers", self.num_hidden_layers, 1_000),
            ("num_attention_heads", self.num_attention_heads, 1_024),
            ("intermediate_size", self.intermediate_size, 1_000_000),
            ("max_position_embeddings", self.max_position_embeddings, 1_000_000),
            ("type_vocab_size", self.type_vocab_size, 1_000),
        ] {
            if value == 0 || value > limit {
                return Err(format!("`{name}` is {value}, must be 1 to {limit}"));
            }
        }
        if !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            return Err(format!(
                "`hidden_size` {} is not a multiple of `num_attention_heads` {}",
                self.hidden_size, self.num_attention_heads
            ));
        }
        if !(self.layer_norm_eps > 0.0 && self.layer_norm_eps < 1.0) {
            return Err(format!("`layer_norm_eps` is {}, must be between 0 and 1", self.layer_norm_eps));
        }
        for (name, p) in [
            ("hidden_dropout_prob", Some(self.hidden_dropout_prob)),
            ("attention_probs_dropout_prob", Some(self.attention_probs_dropout_prob)),
            ("classifier_dropout", self.classifier_dropout),
        ] {
            if p.is_some_and(|p| !(0.0..1.0).contains(&p)) {
                return Err(format!("`{name}` must be at least 0 and less than 1"));
            }
        }
        let Some(section) = &self.litflow else { return Ok(()) };
        // `[CLS]`, one word piece, `[SEP]`, and room for a stride.
        if section.max_length < 8 || section.max_length > self.max_position_embeddings {
            return Err(format!(
                "`litflow.max_length` is {}, must be 8 to `max_position_embeddings` ({})",
                section.max_length, self.max_position_embeddings
            ));
        }
        if section.calibration.is_some_and(|c| !(c.temperature.is_finite() && c.temperature > 0.0)) {
            return Err("`litflow.calibration.temperature` must be a positive number".into());
        }
        Ok(())
    }
}

/// JSON has the class indices as strings.
mod class_indices {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
    use std::collections::BTreeMap;

    pub fn serialize<S: Serializer>(labels: &BTreeMap<usize, String>, serializer: S) -> Result<S::Ok, S::Error> {
        // In numeric order, which the strings' own order is not.
        labels.serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<usize, String>, D::Error> {
        BTreeMap::<String, String>::deserialize(deserializer)?
            .into_iter()
            .map(|(index, label)| match index.parse() {
                Ok(index) => Ok((index, label)),
                Err(_) => Err(D::Error::custom(format!("`id2label` has the key `{index}`, not a number"))),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Config, String> {
        Config::parse(json.as_bytes(), Path::new("config.json")).map_err(|e| e.to_string())
    }

    #[test]
    fn reads_what_transformers_writes_and_keeps_what_it_does_not_know() {
        let json = r#"{"architectures": ["BertForTokenClassification"], "hidden_size": 64, "num_attention_heads": 2,
            "hidden_act": "gelu_new", "id2label": {"0": "O", "1": "B-Gene", "2": "I-Gene"}, "use_cache": true,
            "litflow": {"name": "m", "version": "1.0.0", "head": "crf", "max_length": 256}}"#;
        let config = parse(json).unwrap();
        assert_eq!((config.hidden_size, config.head_size(), config.max_length()), (64, 32, 256));
        assert_eq!(config.hidden_act, Activation::GeluTanh);
        let written = serde_json::to_value(&config).unwrap();
        assert_eq!(written["use_cache"], true);
        assert_eq!(written["id2label"]["2"], "I-Gene");
        assert_eq!(written["litflow"]["tag_scheme"], "BIO");
        assert_eq!(serde_json::from_value::<Config>(written).unwrap(), config);
    }

    #[test]
    fn the_order_of_labels_is_numeric() {
        let labels = (0..12).map(|i| format!(r#""{i}": "{}""#, if i == 0 { "O".into() } else { format!("B-T{i}") }));
        let json = format!(r#"{{"id2label": {{{}}}}}"#, labels.collect::<Vec<_>>().join(","));
        let set = parse(&json).unwrap().label_set(Path::new("config.json")).unwrap();
        assert_eq!(set.labels()[11], "B-T11");
    }

    #[test]
    fn refuses_what_it_cannot_build() {
        for (json, said) in [
            (r#"{"model_type": "roberta"}"#, "roberta"),
            (r#"{"hidden_size": 0}"#, "hidden_size"),
            (r#"{"hidden_size": 100, "num_attention_heads": 3}"#, "multiple"),
            (r#"{"vocab_size": 18446744073709551615}"#, "vocab_size"),
            (r#"{"hidden_act": "swish"}"#, "swish"),
            (r#"{"position_embedding_type": "relative_key"}"#, "relative_key"),
            (r#"{"hidden_dropout_prob": 1.5}"#, "hidden_dropout_prob"),
            (r#"{"layer_norm_eps": 0}"#, "layer_norm_eps"),
            (r#"{"id2label": {"zero": "O"}}"#, "zero"),
            (r#"{"litflow": {"name": "m", "version": "1", "head": "crf", "max_length": 4096}}"#, "max_length"),
            (r#"{"litflow": {"name": "m", "version": "1", "head": "tree", "max_length": 64}}"#, "tree"),
            (r#"{"litflow": {"name": "m", "version": "1", "head": "crf", "max_length": 64, "heads": 1}}"#, "heads"),
            ("[1, 2", "not a model configuration"),
        ] {
            let message = parse(json).unwrap_err();
            assert!(message.contains(said) && message.contains("config.json"), "{json}: {message}");
        }
    }
}
