//! Encoders, heads, weights and tokenizers: a model directory on disk becomes a [`Model`] in memory.
//!
//! [`directory`] reads and verifies the files; [`config`] and [`labels`] read `config.json`, [`weights`] and
//! `checkpoint` the tensors, [`tokenizer`] the vocabulary. [`bert`] is the encoder in plain libtorch operators,
//! [`crf`] the head that joins neighbouring labels, [`device`] chooses where it all runs.

pub mod bert;
pub mod checkpoint;
pub mod config;
pub mod crf;
pub mod device;
pub mod directory;
mod error;
mod kernels;
pub mod labels;
mod onednn;
mod packed;
pub mod pickle;
pub mod tokenizer;
pub mod weights;

pub use bert::Bert;
pub use config::Config;
pub use device::Options;
pub use directory::Directory;
pub use error::Error;
pub use labels::{LabelSet, Tag};
pub use weights::Weights;

use crate::failpoint;
use crate::tagger::ModelRef;
use bert::Linear;
use config::HeadKind;
use packed::PackedEncoder;
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// Windows that go through the encoder together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PackedBatch {
    /// Vocabulary ids of all windows, `[CLS]` … `[SEP]` each, one after the other without padding.
    pub ids: Vec<u32>,
    /// `lengths[i]` ids belong to window i; each at least 1 and at most [`Config::max_position_embeddings`].
    /// Windows of the same length next to each other are computed together: sort them.
    pub lengths: Vec<u32>,
}

/// What the model says about each token of a batch.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Emissions {
    /// [T, K] row-major: T tokens in the batch's order, K labels. Logits, divided by the temperature where
    /// the model is calibrated.
    pub values: Vec<f32>,
    /// K.
    pub labels: usize,
}

impl Emissions {
    /// The K emissions of a token.
    pub fn row(&self, token: usize) -> &[f32] {
        &self.values[token * self.labels..(token + 1) * self.labels]
    }
}

/// What turns emissions into a label sequence.
#[derive(Debug, Clone, PartialEq)]
pub enum Head {
    /// Each token's label on its own: the probabilities are the emissions' softmax.
    Softmax,
    /// A linear-chain CRF, its scores divided by the temperature where the model is calibrated.
    Crf {
        /// [K, K] row-major, from label to label.
        transitions: Vec<f32>,
        /// [K], for the first label.
        start: Vec<f32>,
        /// [K], for the last label.
        end: Vec<f32>,
    },
}

/// A tagging model, ready to run. It is shared: many threads call [`Model::emissions`] at a time, each with
/// `tch::set_num_threads(1)`, which is faster than one call on many threads.
pub struct Model {
    config: Config,
    labels: LabelSet,
    tokenizer: tokenizers::Tokenizer,
    head: Head,
    reference: ModelRef,
    engine: Engine,
    device: Device,
}

/// Where the work is done.
enum Engine {
    /// On the CPU: no padding.
    Packed(PackedEncoder),
    /// On a GPU: a padded batch.
    Padded { encoder: Bert, classifier: Linear },
}

// SAFETY: after `load` no tensor is written and no gradient recorded (`emissions` runs under `no_grad`), and
// libtorch's reference counts are atomic, so reading them from many threads is sound. `Tensor` is not `Sync`
// only because it has methods that write through `&self`.
unsafe impl Sync for Model {}

impl Model {
    /// Loads the model directory at `path`: all of it, or an error that says what is wrong with it.
    pub fn load(path: &Path, options: &Options) -> Result<Self, Error> {
        let device = device::select(options.device)?; // before the first tensor
        let kind = device::compute_kind(options.precision, device);
        let directory = Directory::read(path)?;
        let config = directory.config()?;
        let config_file = path.join(directory::CONFIG);
        let labels = config.label_set(&config_file)?;
        let tokenizer = directory.tokenizer(&config)?;
        let weights = directory.weights()?;
        let temperature = config.litflow.as_ref().and_then(|s| s.calibration).map_or(1.0, |c| c.temperature);
        let head = load_head(&config, &weights, labels.labels().len(), temperature)?;
        let reference = model_ref(&config, &directory);

        let engine = if device == Device::Cpu {
            let classifier = load_classifier(&weights, &config, labels.labels().len(), temperature)?;
            Engine::Packed(PackedEncoder::load(&weights, &config, classifier, kind)?)
        } else {
            let weights = weights.on(device, kind);
            let classifier = load_classifier(&weights, &config, labels.labels().len(), temperature)?;
            Engine::Padded { encoder: Bert::load(&weights, &config)?, classifier }
        };
        tracing::info!(model = reference.name, version = reference.version, ?device, ?kind, "the model is loaded");
        Ok(Self { config, labels, tokenizer, head, reference, engine, device })
    }

    /// The encoder's configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The labels, in the order of the emissions.
    pub fn label_set(&self) -> &LabelSet {
        &self.labels
    }

    /// The model's own tokenizer, without truncation and padding.
    pub fn tokenizer(&self) -> &tokenizers::Tokenizer {
        &self.tokenizer
    }

    /// What turns emissions into labels.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Name, version and digest.
    pub fn model_ref(&self) -> &ModelRef {
        &self.reference
    }

    /// Where the model runs.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Runs the encoder and the classifier over a batch.
    ///
    /// What a window gets does not depend on the others in the batch, to rounding: about 1e-6 in fp32, about
    /// 2e-2 in bf16.
    pub fn emissions(&self, batch: &PackedBatch) -> Result<Emissions, Error> {
        self.check(batch)?;
        let labels = self.labels.labels().len();
        if batch.ids.is_empty() {
            return Ok(Emissions { values: Vec::new(), labels });
        }
        let _guard = tch::no_grad_guard();
        let logits = match &self.engine {
            Engine::Packed(encoder) => encoder.logits(batch)?,
            Engine::Padded { encoder, classifier } => self.padded_logits(batch, encoder, classifier)?,
        }; // [T, K]
        let mut values = vec![0f32; batch.ids.len() * labels];
        let count = values.len();
        logits.f_to_kind(Kind::Float)?.f_to_device(Device::Cpu)?.f_contiguous()?.f_copy_data(&mut values, count)?;
        inject(batch, &mut values)?;
        if values.iter().any(|value| !value.is_finite()) {
            return Err(Error::Batch("the model computed NaN or infinite scores".into()));
        }
        Ok(Emissions { values, labels })
    }

    fn check(&self, batch: &PackedBatch) -> Result<(), Error> {
        let limit = self.config.max_position_embeddings;
        if let Some(length) = batch.lengths.iter().find(|&&length| length == 0 || length as usize > limit) {
            return Err(Error::Batch(format!("a window has {length} tokens, must have 1 to {limit}")));
        }
        let total: usize = batch.lengths.iter().map(|&length| length as usize).sum();
        if total != batch.ids.len() {
            return Err(Error::Batch(format!("the lengths sum to {total}, there are {} ids", batch.ids.len())));
        }
        match batch.ids.iter().find(|&&id| id as usize >= self.config.vocab_size) {
            Some(id) => {
                Err(Error::Batch(format!("the id {id} lies outside the {} embeddings", self.config.vocab_size)))
            }
            None => Ok(()),
        }
    }

    /// Logits [T, K] by way of a padded batch of B windows, the longest of L tokens.
    fn padded_logits(&self, batch: &PackedBatch, encoder: &Bert, classifier: &Linear) -> Result<Tensor, Error> {
        let rows = batch.lengths.len();
        let longest = batch.lengths.iter().copied().max().unwrap_or(0) as usize;
        let mut ids = vec![self.config.pad_token_id as i64; rows * longest];
        let mut real = Vec::with_capacity(batch.ids.len()); // where each real token lies in [B × L]
        for (row, &length) in batch.lengths.iter().enumerate() {
            for column in 0..length as usize {
                let at = row * longest + column;
                ids[at] = i64::from(batch.ids[real.len()]);
                real.push(at as i64);
            }
        }
        let mut mask = vec![false; ids.len()];
        real.iter().for_each(|&at| mask[at as usize] = true);
        let shape = [rows as i64, longest as i64];
        let ids = Tensor::f_from_slice(&ids)?.f_view(shape)?.f_to_device(self.device)?;
        let mask = Tensor::f_from_slice(&mask)?.f_view(shape)?.f_to_device(self.device)?;
        let real = Tensor::f_from_slice(&real)?.f_to_device(self.device)?;
        let hidden = encoder.forward_t(&ids, &mask, false)?; // [B, L, H]
        let hidden = hidden.f_flatten(0, 1)?.f_index_select(0, &real)?; // [T, H]
        Ok(classifier.forward(&hidden)?)
    }
}

fn load_classifier(weights: &Weights, config: &Config, labels: usize, temperature: f64) -> Result<Linear, Error> {
    if !weights.contains("classifier.weight") {
        let reason = "is missing: this is an encoder without a token-classification head; \
                      train one with `litflow-train fit --encoder`";
        return Err(Error::tensor(weights.file(), "classifier.weight", reason));
    }
    let linear = Linear::load(weights, "classifier", labels, config.hidden_size)?;
    Ok(Linear { weight: linear.weight.f_div_scalar(temperature)?, bias: linear.bias.f_div_scalar(temperature)? })
}

fn load_head(config: &Config, weights: &Weights, labels: usize, temperature: f64) -> Result<Head, Error> {
    if config.litflow.as_ref().is_none_or(|section| section.head == HeadKind::Softmax) {
        return Ok(Head::Softmax);
    }
    let scores = |name: &str, shape: &[i64]| -> Result<Vec<f32>, Error> {
        Ok(Vec::try_from(weights.float(name, shape)?.f_div_scalar(temperature)?.f_flatten(0, -1)?)?)
    };
    let labels = labels as i64;
    Ok(Head::Crf {
        transitions: scores("crf.transitions", &[labels, labels])?,
        start: scores("crf.start_transitions", &[labels])?,
        end: scores("crf.end_transitions", &[labels])?,
    })
}

/// The `litflow` section's name and version; the folder's name and version 0 for a checkpoint from elsewhere.
fn model_ref(config: &Config, directory: &Directory) -> ModelRef {
    let digest = directory.digest().to_owned();
    if let Some(section) = &config.litflow {
        return ModelRef { name: section.name.clone(), version: section.version.clone(), digest };
    }
    let folder = directory.path().canonicalize().unwrap_or_else(|_| directory.path().to_owned());
    let name = folder.file_name().map_or_else(|| "model".into(), |name| name.to_string_lossy().into_owned());
    ModelRef { name, version: "0".into(), digest }
}
/// What a test has the model do at a batch that holds a word piece: `forward=return(nan 40)`.
fn inject(batch: &PackedBatch, values: &mut [f32]) -> Result<(), Error> {
    let Some(fault) = failpoint::value("forward") else { return Ok(()) };
    let (what, piece) = fault.split_once(' ').unwrap_or((&fault, ""));
    if !batch.ids.iter().any(|id| id.to_string() == piece) {
        return Ok(());
    }
    match what {
        "panic" => panic!("a test has the model panic"),
        "memory" => return Err(Error::Batch("not enough memory: a test has the allocation fail".into())),
        _ => values.fill(f32::NAN),
    }
    Ok(())
}
