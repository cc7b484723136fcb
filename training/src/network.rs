//! The model in training: encoder, dropout, classifier, CRF, with gradients. Weights are fp32 always; the
//! encoder may multiply in bf16.

use crate::error::Error;
use crate::examples::{Batch, Example, sorted_batches};
use crate::optimizer::Trainable;
use crate::recipe::{ModelOptions, OptimizerOptions};
use crate::scorer::Span;
use litflow::model::config::{Calibration, HeadKind, Section, TagScheme};
use litflow::model::crf::{Constraints, Crf};
use litflow::model::directory::CONFIG;
use litflow::model::{Bert, Config, Directory, LabelSet, Tag, Weights};
use std::borrow::Borrow;
use tch::{Device, Kind, TchError, Tensor};

/// A tagging network over K labels.
pub struct Network {
    bert: Bert,
    classifier_weight: Tensor, // [K, H]
    classifier_bias: Tensor,   // [K]
    crf: Crf,
    config: Config,
    labels: LabelSet,
    dropout: f64,
    device: Device,
    kind: Kind,
}

impl Network {
    /// A network over a pretrained encoder. Its head is new: the classifier as BERT initialises it, normal
    /// with the configuration's spread, the CRF at zero. Where `encoder` is a model with a CRF of its own, a warm
    /// start, the labels that it knows keep what it has learned of them. The encoder multiplies in `kind`, fp32 or
    /// bf16.
    pub fn new(
        encoder: &Directory,
        labels: LabelSet,
        options: &ModelOptions,
        seed: u64,
        device: Device,
        kind: Kind,
    ) -> Result<Self, Error> {
        let mut config = encoder.config()?;
        let known = known_labels(encoder, &config)?;
        if options.max_length > config.max_position_embeddings {
            return Err(Error::Usage(format!(
                "`model.max_length` is {}, the encoder has only {} positions",
                options.max_length, config.max_position_embeddings
            )));
        }
        config.set_labels(&labels);
        config.litflow = Some(Section {
            name: options.name.clone(),
            version: options.version.clone(),
            head: HeadKind::Crf,
            tag_scheme: TagScheme::Bio,
            max_length: options.max_length,
            calibration: None,
        });
        let weights = encoder.weights()?.on(device, Kind::Float);
        let bert = Bert::load(&weights, &config)?;
        let (tags, hidden) = (labels.labels().len() as i64, config.hidden_size as i64);
        tch::manual_seed(seed as i64);
        let spread = config.other.get("initializer_range").and_then(|range| range.as_f64()).unwrap_or(0.02);
        let normal = Tensor::f_randn([tags, hidden], (Kind::Float, device))?.f_mul_scalar(spread)?;
        let zeros = |size: &[i64]| Tensor::f_zeros(size, (Kind::Float, device));
        let mut head = [normal, zeros(&[tags])?, zeros(&[tags, tags])?, zeros(&[tags])?, zeros(&[tags])?];
        if let Some(known) = known {
            inherit(&mut head, &labels, &head_of(&weights, known.labels().len() as i64, hidden)?, &known)?;
        }
        Self::assemble(bert, head, config, labels, options.dropout, device, kind)
    }

    /// Replaces all weights by those of a checkpoint of the same network.
    pub fn restore(self, weights: Weights) -> Result<Self, Error> {
        let weights = weights.on(self.device, Kind::Float);
        let (tags, hidden) = (self.labels.labels().len() as i64, self.config.hidden_size as i64);
        let head = head_of(&weights, tags, hidden)?;
        let bert = Bert::load(&weights, &self.config)?;
        Self::assemble(bert, head, self.config, self.labels, self.dropout, self.device, self.kind)
    }

    fn assemble(
        bert: Bert,
        head: [Tensor; 5],
        config: Config,
        labels: LabelSet,
        dropout: f64,
        device: Device,
        kind: Kind,
    ) -> Result<Self, Error> {
        let bert = bert.multiplying_in(kind);
        for parameter in bert.parameters() {
            let _ = parameter.tensor.f_set_requires_grad(true)?;
        }
        for tensor in &head {
            let _ = tensor.f_set_requires_grad(true)?;
        }
        let [classifier_weight, classifier_bias, transitions, start, end] = head;
        let crf = Crf::new(transitions, start, end, &Constraints::bio(&labels))
            .expect("the parameters are shaped by the same label set");
        Ok(Self { bert, classifier_weight, classifier_bias, crf, config, labels, dropout, device, kind })
    }

    /// Takes over the values of [`Network::named_tensors`] of the same network.
    pub fn assign(&mut self, tensors: &[(String, Tensor)]) -> Result<(), TchError> {
        let _no_grad = tch::no_grad_guard();
        for ((name, mut own), (other_name, other)) in self.named_tensors().into_iter().zip(tensors) {
            debug_assert_eq!(&name, other_name);
            own.f_copy_(other)?;
        }
        Ok(())
    }

    /// The model directory's configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Says by which temperature the model is to divide its emissions and transitions.
    pub fn set_temperature(&mut self, temperature: f64) {
        if let Some(section) = &mut self.config.litflow {
            section.calibration = Some(Calibration { temperature });
        }
    }

    /// The CRF.
    pub fn crf(&self) -> &Crf {
        &self.crf
    }

    /// Pads examples into a batch on the network's device.
    pub fn batch<E: Borrow<Example>>(&self, examples: &[E]) -> Result<Batch, TchError> {
        Batch::new(examples, self.labels.labels().len(), self.config.pad_token_id as i64, self.device)
    }

    /// Emissions `[B, W, K]` of a batch's words; `train` switches dropout on.
    pub fn emissions(&self, batch: &Batch, train: bool) -> Result<Tensor, TchError> {
        let hidden = self.bert.forward_t(&batch.ids, &batch.mask, train)?; // [B, L, H]
        let width = hidden.size3()?.2;
        let index = batch.first_pieces.f_unsqueeze(2)?.f_expand([-1, -1, width], false)?; // [B, W, H]
        let words = hidden.f_gather(1, &index, false)?.f_dropout(self.dropout, train)?;
        words.f_linear(&self.classifier_weight, Some(&self.classifier_bias))
    }

    /// The mentions in each example, offsets of its passage.
    pub fn predict(&self, examples: &[Example], batch_tokens: usize) -> Result<Vec<Vec<Span>>, Error> {
        let _no_grad = tch::no_grad_guard();
        let mut predicted = vec![Vec::new(); examples.len()];
        for indices in sorted_batches(examples, batch_tokens) {
            let members: Vec<&Example> = indices.iter().map(|&index| &examples[index]).collect();
            let batch = self.batch(&members)?;
            let paths = self.crf.viterbi(&self.emissions(&batch, false)?, &batch.word_mask);
            for (index, path) in indices.into_iter().zip(paths) {
                predicted[index] = spans_of(&path, &examples[index].words, &self.labels);
            }
        }
        Ok(predicted)
    }

    /// Everything that is trained. An encoder layer learns `layer_decay` times as fast as the layer above
    /// it, the head `head_factor` times as fast as the top layer.
    pub fn trainables(&self, options: &OptimizerOptions) -> Vec<Trainable> {
        let layers = self.config.num_hidden_layers;
        let encoder = self.bert.parameters().into_iter().map(|parameter| Trainable {
            rate: options.layer_decay.powi((layers - parameter.depth) as i32),
            sparse: parameter.name == "embeddings.word_embeddings.weight",
            name: parameter.name,
            tensor: parameter.tensor,
            decays: parameter.decays,
        });
        let head = self.head().into_iter().map(|(name, tensor)| Trainable {
            rate: options.head_factor,
            decays: name == "classifier.weight",
            sparse: false,
            name: name.to_owned(),
            tensor,
        });
        encoder.chain(head).collect()
    }

    /// All tensors under the names that Transformers and litflow read.
    pub fn named_tensors(&self) -> Vec<(String, Tensor)> {
        let encoder =
            self.bert.parameters().into_iter().map(|parameter| (format!("bert.{}", parameter.name), parameter.tensor));
        encoder.chain(self.head().map(|(name, tensor)| (name.to_owned(), tensor))).collect()
    }

    fn head(&self) -> [(&'static str, Tensor); 5] {
        [
            ("classifier.weight", self.classifier_weight.shallow_clone()),
            ("classifier.bias", self.classifier_bias.shallow_clone()),
            ("crf.transitions", self.crf.transitions.shallow_clone()),
            ("crf.start_transitions", self.crf.start.shallow_clone()),
            ("crf.end_transitions", self.crf.end.shallow_clone()),
        ]
    }
}

/// The labels of a model with a CRF; none of a bare encoder, or of one with another head.
fn known_labels(encoder: &Directory, config: &Config) -> Result<Option<LabelSet>, Error> {
    if config.litflow.as_ref().is_none_or(|section| section.head != HeadKind::Crf) {
        return Ok(None);
    }
    Ok(Some(config.label_set(&encoder.path().join(CONFIG))?))
}

/// Classifier `[K, H]` and `[K]`, transitions `[K, K]`, start and end `[K]`.
fn head_of(weights: &Weights, tags: i64, hidden: i64) -> Result<[Tensor; 5], Error> {
    Ok([
        weights.float("classifier.weight", &[tags, hidden])?,
        weights.float("classifier.bias", &[tags])?,
        weights.float("crf.transitions", &[tags, tags])?,
        weights.float("crf.start_transitions", &[tags])?,
        weights.float("crf.end_transitions", &[tags])?,
    ])
}

/// Copies what `known` has of the labels that both have: rows of each tensor, and of the transitions the columns too.
fn inherit(
    head: &mut [Tensor; 5],
    labels: &LabelSet,
    known: &[Tensor; 5],
    known_labels: &LabelSet,
) -> Result<(), Error> {
    let index_in = |label: &String| known_labels.labels().iter().position(|known| known == label);
    let pairs =
        labels.labels().iter().enumerate().filter_map(|(index, label)| Some((index as i64, index_in(label)? as i64)));
    let (new, old): (Vec<i64>, Vec<i64>) = pairs.unzip();
    let device = head[0].device();
    let [new, old] = [new, old].map(|indices| Tensor::from_slice(&indices).to_device(device));
    const TRANSITIONS: usize = 2;
    for (at, (tensor, known)) in head.iter_mut().zip(known).enumerate() {
        let rows = known.f_index_select(0, &old)?;
        if at == TRANSITIONS {
            let square = tensor.f_index_select(0, &new)?.f_index_copy(1, &new, &rows.f_index_select(1, &old)?)?;
            let _ = tensor.f_index_copy_(0, &new, &square)?;
        } else {
            let _ = tensor.f_index_copy_(0, &new, &rows)?;
        }
    }
    Ok(())
}

/// Reads a label sequence as strict BIO: a mention begins at `B-X` and goes on over `I-X`; an `I-X` that
/// continues no `X` is outside.
pub fn spans_of(path: &[usize], words: &[(u32, u32)], labels: &LabelSet) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    let mut open = None; // the type of the mention that the next word may continue
    for (&label, &(begin, end)) in path.iter().zip(words) {
        match (labels.tags()[label], spans.last_mut()) {
            (Tag::Begin(entity_type), _) => {
                spans.push(Span { begin, end, entity_type });
                open = Some(entity_type);
            }
            (Tag::Inside(entity_type), Some(span)) if open == Some(entity_type) => span.end = end,
            _ => open = None,
        }
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each value names its old row and column.
    #[test]
    fn a_grown_label_set_keeps_what_was_learned_of_the_old_labels() {
        let old = LabelSet::bio(&["Gene", "Disease"]);
        let grown = LabelSet::bio(&["Chemical", "Disease", "Gene"]);
        let numbered = |rows: i64, columns: i64| {
            (Tensor::arange(rows, (Kind::Float, Device::Cpu)).view([rows, 1]) * 10.0)
                + Tensor::arange(columns, (Kind::Float, Device::Cpu))
                + 1.0
        };
        let vector = || numbered(5, 1).view([5]);
        let known = [numbered(5, 3), vector(), numbered(5, 5), vector(), vector()];
        let zeros = |size: &[i64]| Tensor::zeros(size, (Kind::Float, Device::Cpu));
        let mut head = [zeros(&[7, 3]), zeros(&[7]), zeros(&[7, 7]), zeros(&[7]), zeros(&[7])];
        inherit(&mut head, &grown, &known, &old).unwrap();
        let index = |labels: &LabelSet, label: &str| labels.labels().iter().position(|known| known == label);
        for (row, label) in grown.labels().iter().enumerate() {
            let from = index(&old, label).map(|index| index as f64);
            let classifier = head[0].double_value(&[row as i64, 2]);
            assert_eq!(classifier, from.map_or(0.0, |from| 10.0 * from + 3.0), "{label}");
            for (column, to) in grown.labels().iter().enumerate() {
                let expected = from.zip(index(&old, to)).map_or(0.0, |(from, to)| 10.0 * from + to as f64 + 1.0);
                assert_eq!(head[2].double_value(&[row as i64, column as i64]), expected, "{label} to {to}");
            }
        }
    }

    #[test]
    fn label_sequences_become_spans() {
        let labels = LabelSet::bio(&["Gene", "Disease"]); // O 0, B-Gene 1, I-Gene 2, B-Disease 3, I-Disease 4
        let words = [(0, 2), (3, 4), (4, 6), (7, 9), (9, 12)];
        let spans = |path: &[usize]| -> Vec<(u32, u32, usize)> {
            spans_of(path, &words, &labels).iter().map(|span| (span.begin, span.end, span.entity_type)).collect()
        };
        assert_eq!(spans(&[1, 2, 2, 0, 3]), [(0, 6, 0), (9, 12, 1)]);
        assert_eq!(spans(&[1, 1, 3, 4, 1]), [(0, 2, 0), (3, 4, 0), (4, 9, 1), (9, 12, 0)]);
        assert_eq!(spans(&[2, 0, 4, 1, 4]), [(7, 9, 0)]);
        assert_eq!(spans(&[1, 0, 2, 2, 0]), [(0, 2, 0)]);
    }
}
