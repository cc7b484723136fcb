//! The encoder's forward pass as inference on the CPU runs it: no padding, no gradients.
//!
//! The tokens of all windows lie one after the other, [T, H], so that every linear layer is one product over
//! real tokens; only attention looks at windows. Query, key and value are one product of three times the
//! width, weights lie in oneDNN's own layout, and what libtorch is slow at is done by [`Kernels`] where the
//! CPU has AVX-512. [`super::bert`] computes the same in plain operators.

use super::bert::{LayerNorm, Linear};
use super::config::Activation;
use super::kernels::{Element, Kernels, Scratch};
use super::onednn::PrepackedLinear;
use super::{Config, Error, PackedBatch, Weights};
use tch::{Device, Kind, TchError, Tensor};

/// The encoder and the token classifier, read-only.
pub struct PackedEncoder {
    kind: Kind,
    word_embeddings: Tensor,     // [vocabulary, H]
    position_embeddings: Tensor, // [positions, H], the token type's added
    embedding_norm: LayerNorm,
    layers: Vec<Layer>,
    classifier: Linear, // fp32
    heads: usize,
    head_size: usize,
    activation: Activation,
    kernels: Option<Kernels>,
}

struct Layer {
    query_key_value: PrepackedLinear, // [H] to [3 · H]
    attention_output: PrepackedLinear,
    attention_norm: LayerNorm,
    intermediate: PrepackedLinear,
    output: PrepackedLinear,
    output_norm: LayerNorm,
}

/// Neighbouring windows of one length.
struct Group {
    first_token: usize,
    windows: usize,
    length: usize,
}

impl PackedEncoder {
    /// Takes the encoder out of `weights`, to compute in `kind` (fp32 or bf16). `classifier` is fp32.
    pub fn load(weights: &Weights, config: &Config, classifier: Linear, kind: Kind) -> Result<Self, Error> {
        let hidden = config.hidden_size as i64;
        let embedding =
            |name: &str, rows: usize| weights.float(&format!("embeddings.{name}.weight"), &[rows as i64, hidden]);
        let token_types = embedding("token_type_embeddings", config.type_vocab_size)?;
        let positions =
            embedding("position_embeddings", config.max_position_embeddings)?.f_add(&token_types.f_get(0)?)?;
        let layers = (0..config.num_hidden_layers).map(|index| Layer::load(weights, index, config, kind));
        Ok(Self {
            kind,
            word_embeddings: embedding("word_embeddings", config.vocab_size)?.f_to_kind(kind)?,
            position_embeddings: positions.f_to_kind(kind)?,
            embedding_norm: LayerNorm::load(weights, "embeddings.LayerNorm", config)?,
            layers: layers.collect::<Result<_, _>>()?,
            classifier,
            heads: config.num_attention_heads,
            head_size: config.head_size(),
            activation: config.hidden_act,
            kernels: Kernels::detect(),
        })
    }

    /// The same encoder on libtorch's operators alone.
    #[cfg(test)]
    fn without_kernels(mut self) -> Self {
        self.kernels = None;
        self
    }

    /// Logits [T, K], fp32, of a batch that keeps its contract, T > 0.
    pub fn logits(&self, batch: &PackedBatch) -> Result<Tensor, TchError> {
        let hidden = match self.kind {
            Kind::BFloat16 => self.hidden_states::<half::bf16>(batch)?,
            _ => self.hidden_states::<f32>(batch)?,
        };
        self.classifier.forward(&hidden.f_narrow(0, 0, batch.ids.len() as i64)?.f_to_kind(Kind::Float)?)
    }

    /// Hidden states [R, H]: the first T rows are the batch's tokens, the rest means nothing.
    fn hidden_states<E: Element>(&self, batch: &PackedBatch) -> Result<Tensor, TchError> {
        let rows = padded_rows(batch.ids.len());
        let mut ids: Vec<i64> = batch.ids.iter().map(|&id| id.into()).collect();
        let mut positions: Vec<i64> = batch.lengths.iter().flat_map(|&length| 0..i64::from(length)).collect();
        ids.resize(rows, 0);
        positions.resize(rows, 0);
        let words = self.word_embeddings.f_index_select(0, &Tensor::f_from_slice(&ids)?)?; // [R, H]
        let places = self.position_embeddings.f_index_select(0, &Tensor::f_from_slice(&positions)?)?; // [R, H]
        let mut hidden = self.add_norm::<E>(&words, &places, &self.embedding_norm)?;

        let groups = groups(&batch.lengths);
        let mut scratch = Scratch::default();
        for layer in &self.layers {
            let query_key_value = layer.query_key_value.forward(&hidden)?; // [R, 3 · H]
            let context = self.attention::<E>(&query_key_value, &groups, &mut scratch)?; // [R, H]
            let attended = layer.attention_output.forward(&context)?;
            hidden = self.add_norm::<E>(&attended, &hidden, &layer.attention_norm)?;
            let inner = self.activate::<E>(layer.intermediate.forward(&hidden)?)?; // [R, intermediate]
            let outer = layer.output.forward(&inner)?;
            hidden = self.add_norm::<E>(&outer, &hidden, &layer.output_norm)?;
        }
        Ok(hidden)
    }

    /// Each window's self-attention: [R, 3 · H] to [R, H]. Rows beyond the windows are zero.
    fn attention<E: Element>(
        &self,
        query_key_value: &Tensor,
        groups: &[Group],
        scratch: &mut Scratch,
    ) -> Result<Tensor, TchError> {
        let hidden = self.heads * self.head_size;
        let rows = query_key_value.size2()?.0;
        let mut context = Tensor::f_zeros([rows, hidden as i64], (self.kind, Device::Cpu))?;
        if let Some(kernels) = self.kernels.filter(|kernels| kernels.can_attend(self.head_size)) {
            let input = elements::<E>(query_key_value)?;
            let output = elements_mut::<E>(&mut context)?;
            for group in groups {
                for window in 0..group.windows {
                    let begin = group.first_token + window * group.length;
                    let tokens = begin..begin + group.length;
                    let input = &input[tokens.start * 3 * hidden..tokens.end * 3 * hidden];
                    let output = &mut output[tokens.start * hidden..tokens.end * hidden];
                    kernels.attention(input, self.heads, self.head_size, output, scratch);
                }
            }
            return Ok(context);
        }
        for group in groups {
            let (first, tokens) = (group.first_token as i64, (group.windows * group.length) as i64);
            let split = query_key_value
                .f_narrow(0, first, tokens)?
                .f_view([group.windows as i64, group.length as i64, 3, self.heads as i64, self.head_size as i64])?
                .f_permute([2, 0, 3, 1, 4])?; // [3, windows, heads, length, D]
            let attended = Tensor::f_scaled_dot_product_attention(
                &split.f_get(0)?,
                &split.f_get(1)?,
                &split.f_get(2)?,
                None::<&Tensor>,
                0.0,
                false,
                None,
                false,
            )?; // [windows, heads, length, D]
            let attended = attended.f_transpose(1, 2)?.f_reshape([tokens, hidden as i64])?;
            context.f_narrow(0, first, tokens)?.f_copy_(&attended)?;
        }
        Ok(context)
    }

    /// `layer_norm(a + b)`, [R, H].
    fn add_norm<E: Element>(&self, a: &Tensor, b: &Tensor, norm: &LayerNorm) -> Result<Tensor, TchError> {
        let width = norm.weight.numel();
        let Some(kernels) = self.kernels.filter(|kernels| kernels.can_norm(width)) else {
            return norm.forward(&a.f_to_kind(Kind::Float)?.f_add(b)?)?.f_to_kind(self.kind);
        };
        let mut output = a.f_empty_like()?;
        let (gain, bias) = (elements::<f32>(&norm.weight)?, elements::<f32>(&norm.bias)?);
        let (a, b) = (elements::<E>(a)?, elements::<E>(b)?);
        kernels.add_norm(a, b, gain, bias, norm.eps as f32, elements_mut::<E>(&mut output)?);
        Ok(output)
    }

    fn activate<E: Element>(&self, mut inner: Tensor) -> Result<Tensor, TchError> {
        match self.kernels {
            Some(kernels) if self.activation == Activation::Gelu && inner.numel().is_multiple_of(16) => {
                kernels.gelu(elements_mut::<E>(&mut inner)?);
                Ok(inner)
            }
            _ => self.activation.apply(&inner),
        }
    }
}

impl Layer {
    fn load(weights: &Weights, index: usize, config: &Config, kind: Kind) -> Result<Self, Error> {
        let (hidden, intermediate) = (config.hidden_size, config.intermediate_size);
        let linear = |module: &str, outputs, inputs| {
            Linear::load(weights, &format!("encoder.layer.{index}.{module}"), outputs, inputs)
        };
        let norm = |module: &str| LayerNorm::load(weights, &format!("encoder.layer.{index}.{module}"), config);
        let prepacked = |linear: &Linear| -> Result<PrepackedLinear, Error> {
            Ok(PrepackedLinear::new(&linear.weight.f_to_kind(kind)?, &linear.bias.f_to_kind(kind)?)?)
        };
        let three = [
            linear("attention.self.query", hidden, hidden)?,
            linear("attention.self.key", hidden, hidden)?,
            linear("attention.self.value", hidden, hidden)?,
        ];
        let query_key_value = Linear {
            weight: Tensor::f_cat(&three.each_ref().map(|linear| &linear.weight), 0)?, // [3 · H, H]
            bias: Tensor::f_cat(&three.each_ref().map(|linear| &linear.bias), 0)?,
        };
        Ok(Self {
            query_key_value: prepacked(&query_key_value)?,
            attention_output: prepacked(&linear("attention.output.dense", hidden, hidden)?)?,
            attention_norm: norm("attention.output.LayerNorm")?,
            intermediate: prepacked(&linear("intermediate.dense", intermediate, hidden)?)?,
            output: prepacked(&linear("output.dense", hidden, intermediate)?)?,
            output_norm: norm("output.LayerNorm")?,
        })
    }
}

/// oneDNN builds a primitive for every new number of rows, which costs milliseconds: few numbers are used.
fn padded_rows(tokens: usize) -> usize {
    tokens.next_multiple_of(if tokens <= 128 { 32 } else { 128 })
}

fn groups(lengths: &[u32]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let mut first_token = 0;
    for &length in lengths {
        let length = length as usize;
        match groups.last_mut() {
            Some(group) if group.length == length => group.windows += 1,
            _ => groups.push(Group { first_token, windows: 1, length }),
        }
        first_token += length;
    }
    groups
}

/// The elements of a contiguous tensor on the CPU.
fn elements<E: Element>(tensor: &Tensor) -> Result<&[E], TchError> {
    check_layout::<E>(tensor)?;
    // SAFETY: a contiguous tensor of this kind on the CPU is `numel` elements in a row from `data_ptr` on; they
    // live as long as the tensor, and nothing writes to them while it is borrowed: weights are never written,
    // and what a forward pass computes belongs to it alone.
    Ok(unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast(), tensor.numel()) })
}

/// The elements of a tensor that nothing else refers to.
fn elements_mut<E: Element>(tensor: &mut Tensor) -> Result<&mut [E], TchError> {
    check_layout::<E>(tensor)?;
    // SAFETY: as above; it was just computed by the caller, so the storage is not shared.
    Ok(unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast(), tensor.numel()) })
}

fn check_layout<E: Element>(tensor: &Tensor) -> Result<(), TchError> {
    if tensor.kind() == E::KIND && tensor.device() == Device::Cpu && tensor.is_contiguous() && tensor.numel() > 0 {
        return Ok(());
    }
    Err(TchError::Shape(format!("a kernel needs a contiguous tensor of {:?} on the CPU, this is {tensor:?}", E::KIND)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Bert;
    use proptest::prelude::*;
    use std::path::Path;

    const VOCABULARY: usize = 50;
    const LABELS: usize = 5;

    /// A random encoder in every form, with its classifier.
    struct Forms {
        plain: Bert,
        classifier: Linear,
        weights: Weights,
        config: Config,
    }

    fn forms(heads: usize, head_size: usize, hidden_act: Activation) -> Forms {
        let config = Config {
            vocab_size: VOCABULARY,
            hidden_size: heads * head_size,
            num_attention_heads: heads,
            num_hidden_layers: 2,
            intermediate_size: 3 * heads * head_size + 16,
            max_position_embeddings: 140,
            hidden_act,
            ..Config::default()
        };
        tch::manual_seed(17);
        let (hidden, intermediate) = (config.hidden_size as i64, config.intermediate_size as i64);
        let mut tensors = Vec::new();
        let mut add = |name: String, shape: &[i64], mean: f64| {
            tensors.push((name, Tensor::randn(shape, (Kind::Float, Device::Cpu)) * 0.15 + mean));
        };
        for (name, rows) in [("word", VOCABULARY as i64), ("position", 140), ("token_type", 2)] {
            add(format!("embeddings.{name}_embeddings.weight"), &[rows, hidden], 0.0);
        }
        let mut linear = |module: String, outputs: i64, inputs: i64| {
            add(format!("{module}.weight"), &[outputs, inputs], 0.0);
            add(format!("{module}.bias"), &[outputs], 0.0);
        };
        linear("classifier".into(), LABELS as i64, hidden);
        for layer in 0..2 {
            for module in
                ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"]
            {
                linear(format!("encoder.layer.{layer}.{module}"), hidden, hidden);
            }
            linear(format!("encoder.layer.{layer}.intermediate.dense"), intermediate, hidden);
            linear(format!("encoder.layer.{layer}.output.dense"), hidden, intermediate);
        }
        let norms = (0..2).flat_map(|layer| {
            ["attention.output", "output"].map(|module| format!("encoder.layer.{layer}.{module}.LayerNorm"))
        });
        for module in norms.chain(["embeddings.LayerNorm".to_owned()]) {
            add(format!("{module}.weight"), &[hidden], 1.0);
            add(format!("{module}.bias"), &[hidden], 0.0);
        }
        let weights = Weights::from_tensors(tensors, Path::new("random")).unwrap();
        let classifier = Linear::load(&weights, "classifier", LABELS, config.hidden_size).unwrap();
        Forms { plain: Bert::load(&weights, &config).unwrap(), classifier, weights, config }
    }

    impl Forms {
        fn packed(&self, kind: Kind) -> PackedEncoder {
            let classifier = Linear::load(&self.weights, "classifier", LABELS, self.config.hidden_size).unwrap();
            PackedEncoder::load(&self.weights, &self.config, classifier, kind).unwrap()
        }

        /// The oracle: each window on its own through the plain encoder.
        fn plain_logits(&self, batch: &PackedBatch) -> Tensor {
            let mut begin = 0;
            let windows = batch.lengths.iter().map(|&length| {
                let ids: Vec<i64> = batch.ids[begin..begin + length as usize].iter().map(|&id| id.into()).collect();
                begin += length as usize;
                let ids = Tensor::from_slice(&ids).unsqueeze(0);
                let hidden = self.plain.forward_t(&ids, &ids.ones_like().to_kind(Kind::Bool), false).unwrap();
                self.classifier.forward(&hidden.get(0)).unwrap()
            });
            Tensor::cat(&windows.collect::<Vec<_>>(), 0)
        }
    }

    fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
        assert_eq!(a.size(), b.size());
        (a - b).abs().max().double_value(&[])
    }

    fn batch_of(lengths: &[u32]) -> PackedBatch {
        let total: u32 = lengths.iter().sum();
        let ids = (0..total).map(|i| (i * 7 + i * i * 3) % VOCABULARY as u32).collect();
        PackedBatch { ids, lengths: lengths.to_vec() }
    }

    #[test]
    fn packed_is_plain_with_and_without_kernels() {
        let batch = batch_of(&[5, 5, 5, 1, 33, 16, 129, 3]);
        for (heads, head_size, act) in [
            (2, 32, Activation::Gelu),
            (2, 64, Activation::Gelu),
            (2, 16, Activation::Relu),    // attention of this head size is libtorch's
            (3, 8, Activation::GeluTanh), // and so is the norm of this width
        ] {
            let forms = forms(heads, head_size, act);
            let expected = forms.plain_logits(&batch);
            for encoder in [forms.packed(Kind::Float), forms.packed(Kind::Float).without_kernels()] {
                let difference = largest_difference(&encoder.logits(&batch).unwrap(), &expected);
                assert!(difference < 1e-4, "fp32, {heads} heads of {head_size}: {difference:e}");
            }
            let spread = expected.std(false).double_value(&[]);
            for encoder in [forms.packed(Kind::BFloat16), forms.packed(Kind::BFloat16).without_kernels()] {
                let difference = largest_difference(&encoder.logits(&batch).unwrap(), &expected);
                assert!(difference < 0.1 * spread, "bf16, {heads} heads of {head_size}: {difference:e} of {spread:e}");
            }
        }
    }

    /// As training runs it: fp32 weights and sums, products in bf16.
    #[test]
    fn mixed_precision_is_near_fp32_with_gradients_of_the_weights_own_kind() {
        let Forms { plain, .. } = forms(2, 32, Activation::Gelu);
        let parameters: Vec<Tensor> =
            plain.parameters().into_iter().map(|parameter| parameter.tensor.set_requires_grad(true)).collect();
        let ids = Tensor::from_slice(&[3i64, 1, 4, 1, 5, 9, 2, 6]).view([2, 4]);
        let mask = Tensor::from_slice(&[true, true, true, true, true, true, true, false]).view([2, 4]);
        let run = |bert: &Bert| {
            let hidden = bert.forward_t(&ids, &mask, false).unwrap();
            let loss = (hidden.narrow(1, 0, 3) * Tensor::arange(64, (Kind::Float, Device::Cpu)).sin()).sum(Kind::Float);
            (hidden.detach(), Tensor::run_backward(&[loss], &parameters.iter().collect::<Vec<_>>(), false, false))
        };
        let (exact, exact_gradients) = run(&plain);
        let (near, gradients) = run(&plain.multiplying_in(Kind::BFloat16));
        assert_eq!(near.kind(), Kind::Float);
        let difference = largest_difference(&near, &exact);
        assert!(0.0 < difference && difference < 0.05 * exact.std(false).double_value(&[]), "{difference:e}");
        assert!(gradients.iter().all(|gradient| gradient.kind() == Kind::Float));
        let flat = |gradients: &[Tensor]| Tensor::cat(&gradients.iter().map(|g| g.view([-1])).collect::<Vec<_>>(), 0);
        let (gradient, exact) = (flat(&gradients), flat(&exact_gradients));
        let difference = (&gradient - &exact).norm().double_value(&[]) / exact.norm().double_value(&[]);
        assert!(difference < 0.05, "{difference:e}");
    }

    /// Reads the fixture that `tests/fixtures/bert/make.py` wrote with Transformers.
    #[test]
    fn the_real_minilm_agrees_with_transformers_in_both_precisions() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let path = root.join("encoders/minilm-l6");
        if !path.is_dir() {
            println!("skipped: {} is not installed (`make setup` fetches it)", path.display());
            return;
        }
        let expected = Tensor::read_safetensors(root.join("tests/fixtures/bert/minilm-l6.safetensors")).unwrap();
        let expected: std::collections::HashMap<String, Tensor> = expected.into_iter().collect();
        let directory = crate::model::Directory::read(&path).unwrap();
        let (config, weights) = (directory.config().unwrap(), directory.weights().unwrap());
        let width = config.hidden_size as i64;
        let options = (Kind::Float, Device::Cpu);
        for (kind, largest, mean) in [(Kind::Float, 1e-4, 1e-5), (Kind::BFloat16, 0.1, 0.01)] {
            // A classifier that hands the hidden states through.
            let identity = Linear { weight: Tensor::eye(width, options), bias: Tensor::zeros([width], options) };
            let encoder = PackedEncoder::load(&weights, &config, identity, kind).unwrap();
            let sentences = [0, 1].map(|i| Vec::<i64>::try_from(&expected[&format!("ids.{i}")]).unwrap());
            let batch = PackedBatch {
                ids: sentences.iter().flatten().map(|&id| id as u32).collect(),
                lengths: sentences.iter().map(|ids| ids.len() as u32).collect(),
            };
            let hidden = encoder.logits(&batch).unwrap();
            let mut first = 0;
            for (index, ids) in sentences.iter().enumerate() {
                let every_fourth =
                    Tensor::arange_start_step(first, first + ids.len() as i64, 4, (Kind::Int64, Device::Cpu));
                let difference = (hidden.index_select(0, &every_fourth) - &expected[&format!("hidden.{index}")]).abs();
                let found = [difference.max(), difference.mean(Kind::Float)].map(|x| x.double_value(&[]));
                println!(
                    "MiniLM-L6, {kind:?}, sentence {index}: largest difference {:.1e}, mean {:.1e}",
                    found[0], found[1]
                );
                assert!(found[0] < largest && found[1] < mean, "{kind:?}: {found:?}");
                first += ids.len() as i64;
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        /// What a window gets does not depend on its neighbours.
        #[test]
        fn windows_are_independent_of_their_batch(
            before in proptest::collection::vec(1u32..60, 0..6),
            length in 1u32..60,
            after in proptest::collection::vec(1u32..60, 0..6),
        ) {
            thread_local! { static ENCODER: PackedEncoder = forms(2, 32, Activation::Gelu).packed(Kind::Float) }
            let lengths: Vec<u32> = before.iter().copied().chain([length]).chain(after).collect();
            let batch = batch_of(&lengths);
            let begin = before.iter().sum::<u32>() as usize;
            let ids = batch.ids[begin..begin + length as usize].to_vec();
            let alone = PackedBatch { ids, lengths: vec![length] };
            let (together, alone) = ENCODER.with(|encoder| (encoder.logits(&batch).unwrap(), encoder.logits(&alone).unwrap()));
            let difference = largest_difference(&together.narrow(0, begin as i64, length.into()), &alone);
            prop_assert!(difference < 1e-4, "{difference:e}");
        }
    }
}
