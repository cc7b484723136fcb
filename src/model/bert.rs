//! The BERT encoder (Devlin et al. 2019, <https://arxiv.org/abs/1810.04805>) over padded batches.
//!
//! Plain libtorch operators, on any device, differentiable: training runs it, and the fast forward pass of
//! [`super::packed`] is tested against it. Names and semantics are those of Transformers' `BertModel`
//! (post-layer-norm, absolute positions, no pooler).

use super::config::{Activation, Config};
use super::{Error, Weights};
use tch::{Kind, TchError, Tensor};

/// The encoder. Shapes below: B sequences of L tokens, hidden size H, A heads of D = H / A.
pub struct Bert {
    word_embeddings: Tensor,       // [vocabulary, H]
    position_embeddings: Tensor,   // [positions, H]
    token_type_embeddings: Tensor, // [types, H]
    embedding_norm: LayerNorm,
    layers: Vec<Layer>,
    num_heads: i64,
    hidden_act: Activation,
    hidden_dropout: f64,
    attention_dropout: f64,
    linear_kind: Kind,
}

/// One trainable tensor of the encoder.
pub struct Parameter {
    /// Hugging Face's name without the `bert.` prefix, `encoder.layer.0.output.dense.weight`.
    pub name: String,
    /// The tensor itself, not a copy.
    pub tensor: Tensor,
    /// Its depth, for layer-wise learning rates: 0 for the embeddings, i + 1 for encoder layer i.
    pub depth: usize,
    /// Whether weight decay applies: to matrices, not to biases and layer norms.
    pub decays: bool,
}

struct Layer {
    query: Linear,
    key: Linear,
    value: Linear,
    attention_output: Linear,
    attention_norm: LayerNorm,
    intermediate: Linear,
    output: Linear,
    output_norm: LayerNorm,
}

/// A linear map with a bias, y = x Wᵀ + b.
pub(super) struct Linear {
    pub weight: Tensor, // [out, in]
    pub bias: Tensor,   // [out]
}

/// Layer normalisation over the last dimension.
pub(super) struct LayerNorm {
    pub weight: Tensor, // [H]
    pub bias: Tensor,   // [H]
    pub eps: f64,
}

impl Linear {
    pub fn load(weights: &Weights, module: &str, outputs: usize, inputs: usize) -> Result<Self, Error> {
        let (outputs, inputs) = (outputs as i64, inputs as i64);
        Ok(Self {
            weight: weights.float(&format!("{module}.weight"), &[outputs, inputs])?,
            bias: weights.float(&format!("{module}.bias"), &[outputs])?,
        })
    }

    pub fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        x.f_linear(&self.weight, Some(&self.bias))
    }

    /// [`Linear::forward`] computed in `kind`, which the result has.
    fn forward_in(&self, x: &Tensor, kind: Kind) -> Result<Tensor, TchError> {
        x.f_to_kind(kind)?.f_linear(&self.weight.f_to_kind(kind)?, Some(&self.bias.f_to_kind(kind)?))
    }
}

impl LayerNorm {
    pub fn load(weights: &Weights, module: &str, config: &Config) -> Result<Self, Error> {
        let size = [config.hidden_size as i64];
        Ok(Self {
            weight: weights.float(&format!("{module}.weight"), &size)?,
            bias: weights.float(&format!("{module}.bias"), &size)?,
            eps: config.layer_norm_eps,
        })
    }

    pub fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        x.f_layer_norm(self.weight.size(), Some(&self.weight), Some(&self.bias), self.eps, false)
    }
}

impl Layer {
    fn load(weights: &Weights, index: usize, config: &Config) -> Result<Self, Error> {
        let (hidden, intermediate) = (config.hidden_size, config.intermediate_size);
        let linear = |module: &str, outputs, inputs| {
            Linear::load(weights, &format!("encoder.layer.{index}.{module}"), outputs, inputs)
        };
        let norm = |module: &str| LayerNorm::load(weights, &format!("encoder.layer.{index}.{module}"), config);
        Ok(Self {
            query: linear("attention.self.query", hidden, hidden)?,
            key: linear("attention.self.key", hidden, hidden)?,
            value: linear("attention.self.value", hidden, hidden)?,
            attention_output: linear("attention.output.dense", hidden, hidden)?,
            attention_norm: norm("attention.output.LayerNorm")?,
            intermediate: linear("intermediate.dense", intermediate, hidden)?,
            output: linear("output.dense", hidden, intermediate)?,
            output_norm: norm("output.LayerNorm")?,
        })
    }

    /// Weight and bias of each module under its Hugging Face name.
    fn modules(&self) -> [(&'static str, &Tensor, &Tensor); 8] {
        [
            ("attention.self.query", &self.query.weight, &self.query.bias),
            ("attention.self.key", &self.key.weight, &self.key.bias),
            ("attention.self.value", &self.value.weight, &self.value.bias),
            ("attention.output.dense", &self.attention_output.weight, &self.attention_output.bias),
            ("attention.output.LayerNorm", &self.attention_norm.weight, &self.attention_norm.bias),
            ("intermediate.dense", &self.intermediate.weight, &self.intermediate.bias),
            ("output.dense", &self.output.weight, &self.output.bias),
            ("output.LayerNorm", &self.output_norm.weight, &self.output_norm.bias),
        ]
    }
}

impl Bert {
    /// Takes the encoder's tensors out of `weights`, in the kind and on the device that they are handed out.
    pub fn load(weights: &Weights, config: &Config) -> Result<Self, Error> {
        let hidden = config.hidden_size as i64;
        let embedding =
            |name: &str, rows: usize| weights.float(&format!("embeddings.{name}.weight"), &[rows as i64, hidden]);
        let word_embeddings = embedding("word_embeddings", config.vocab_size)?;
        Ok(Self {
            linear_kind: word_embeddings.kind(),
            word_embeddings,
            position_embeddings: embedding("position_embeddings", config.max_position_embeddings)?,
            token_type_embeddings: embedding("token_type_embeddings", config.type_vocab_size)?,
            embedding_norm: LayerNorm::load(weights, "embeddings.LayerNorm", config)?,
            layers: (0..config.num_hidden_layers).map(|i| Layer::load(weights, i, config)).collect::<Result<_, _>>()?,
            num_heads: config.num_attention_heads as i64,
            hidden_act: config.hidden_act,
            hidden_dropout: config.hidden_dropout_prob,
            attention_dropout: config.attention_probs_dropout_prob,
        })
    }

    /// The same encoder with its linear layers and its attention in `kind`. Weights, sums and norms keep their
    /// own: with fp32 weights and bf16 here it is what is known as mixed precision.
    #[must_use]
    pub fn multiplying_in(mut self, kind: Kind) -> Self {
        self.linear_kind = kind;
        self
    }

    /// Hidden states [B, L, H] of `ids` [B, L] (int64). `mask` [B, L] (bool) is true where a token is real;
    /// `train` switches dropout on. L must not exceed the number of positions.
    pub fn forward_t(&self, ids: &Tensor, mask: &Tensor, train: bool) -> Result<Tensor, TchError> {
        let length = ids.size2()?.1;
        let words = Tensor::f_embedding(&self.word_embeddings, ids, -1, false, false)?; // [B, L, H]
        let positions = self.position_embeddings.f_narrow(0, 0, length)?; // [L, H]
        let first_type = self.token_type_embeddings.f_get(0)?; // [H]
        let embedded = words.f_add(&positions)?.f_add(&first_type)?;
        let mut hidden = self.embedding_norm.forward(&embedded)?.f_dropout(self.hidden_dropout, train)?;

        // 0 where a key is real, −∞ where it is padding: [B, 1, 1, L], added to the scores [B, A, L, L].
        let padding = mask.f_logical_not()?.f_unsqueeze(1)?.f_unsqueeze(1)?;
        let bias = Tensor::f_zeros(padding.size(), (self.linear_kind, hidden.device()))?
            .f_masked_fill(&padding, f64::NEG_INFINITY)?;
        for layer in &self.layers {
            hidden = self.layer_forward(layer, &hidden, &bias, train)?;
        }
        Ok(hidden)
    }

    fn layer_forward(&self, layer: &Layer, hidden: &Tensor, bias: &Tensor, train: bool) -> Result<Tensor, TchError> {
        let (batch, length, width) = hidden.size3()?;
        let linear = |linear: &Linear, x: &Tensor| linear.forward_in(x, self.linear_kind);
        let input = hidden.f_to_kind(self.linear_kind)?;
        let split = |module: &Linear| {
            linear(module, &input)?.f_view([batch, length, self.num_heads, -1])?.f_transpose(1, 2) // [B, A, L, D]
        };
        let dropout = if train { self.attention_dropout } else { 0.0 };
        let context = Tensor::f_scaled_dot_product_attention(
            &split(&layer.query)?,
            &split(&layer.key)?,
            &split(&layer.value)?,
            Some(bias),
            dropout,
            false,
            None,
            false,
        )?; // [B, A, L, D]
        let context = context.f_transpose(1, 2)?.f_reshape([batch, length, width])?; // [B, L, H]
        let attended = linear(&layer.attention_output, &context)?.f_dropout(self.hidden_dropout, train)?;
        let hidden = layer.attention_norm.forward(&attended.f_add(hidden)?)?;
        let inner = self.hidden_act.apply(&linear(&layer.intermediate, &hidden)?)?; // [B, L, intermediate]
        let outer = linear(&layer.output, &inner)?.f_dropout(self.hidden_dropout, train)?; // [B, L, H]
        layer.output_norm.forward(&outer.f_add(&hidden)?)
    }

    /// Every tensor that can be trained, embeddings first. They share storage and gradients with the encoder.
    pub fn parameters(&self) -> Vec<Parameter> {
        let mut parameters = Vec::new();
        let mut add = |name: String, tensor: &Tensor, depth: usize| {
            let decays = tensor.dim() > 1;
            parameters.push(Parameter { name, tensor: tensor.shallow_clone(), depth, decays });
        };
        add("embeddings.word_embeddings.weight".into(), &self.word_embeddings, 0);
        add("embeddings.position_embeddings.weight".into(), &self.position_embeddings, 0);
        add("embeddings.token_type_embeddings.weight".into(), &self.token_type_embeddings, 0);
        add("embeddings.LayerNorm.weight".into(), &self.embedding_norm.weight, 0);
        add("embeddings.LayerNorm.bias".into(), &self.embedding_norm.bias, 0);
        for (index, layer) in self.layers.iter().enumerate() {
            for (module, weight, bias) in layer.modules() {
                add(format!("encoder.layer.{index}.{module}.weight"), weight, index + 1);
                add(format!("encoder.layer.{index}.{module}.bias"), bias, index + 1);
            }
        }
        parameters
    }
}
