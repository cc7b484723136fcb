//! Everything that decides what a training run does, beside the data: a TOML file, see `recipes/`.

use crate::dataset::DataOptions;
use crate::error::Error;
use crate::gate::GateOptions;
use crate::loss::ClassWeighting;
use litflow::model::device::Precision;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// A training recipe. Every field has a default; `litflow-train fit` works without a recipe.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Recipe {
    /// How the data is read.
    pub data: DataOptions,
    /// Share of the completely annotated documents that is held out for development, 0 to 1. Not used where
    /// `--dev` names files.
    pub dev_share: f64,
    /// Share of the sentences without any mention that is kept of documents annotated for some types only.
    /// They teach little and take time; all others are always kept.
    pub keep_empty_partial: f64,
    /// The model that comes out.
    pub model: ModelOptions,
    /// The optimiser.
    pub optimizer: OptimizerOptions,
    /// How the types are weighed in the loss.
    pub class_weighting: ClassWeighting,
    /// By how much, 0 to 1: the exponent of the weights. 1 is as if all types were equally frequent, which finds more
    /// of the rare ones at the cost of precision.
    pub class_weighting_strength: f64,
    /// Most word pieces, padding included, in one optimiser step.
    pub batch_tokens: usize,
    /// Seed of the head's initial weights, of the order of the sentences and of dropout: 0 to 2³² − 1, because each step
    /// has a seed of its own that begins with it.
    pub seed: u64,
    /// What the encoder multiplies in: `auto` (bf16 where the device computes it natively, else fp32), `fp32` or
    /// `bf16`. Weights, norms, head and loss are fp32 always.
    pub precision: Precision,
    /// Training ends after this many epochs in a row without a better dev F1, in the last stage.
    pub patience: usize,
    /// What a candidate must keep to beside the champion.
    pub gate: GateOptions,
    /// What is trained on, one stage after the other.
    pub stages: Vec<Stage>,
}

/// The model directory's own description.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelOptions {
    /// The model's name, in every record that it will make.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The longest window in word pieces, special tokens included; longer sentences are windowed.
    pub max_length: usize,
    /// Dropout between encoder and classifier. (The encoder's own stands in its `config.json`.)
    pub dropout: f64,
    /// What the model card is to say beside the figures: licence, limits. Markdown.
    pub card: String,
}

/// AdamW and its surroundings.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerOptions {
    /// Learning rate of classifier and CRF, relative to that of the encoder's top layer.
    pub head_factor: f64,
    /// Each encoder layer learns at this factor times the rate of the layer above it, 1 for all alike.
    pub layer_decay: f64,
    /// Decoupled weight decay, per unit of learning rate; on matrices only.
    pub weight_decay: f64,
    /// Decay of the mean gradient.
    pub beta1: f64,
    /// Decay of the mean squared gradient.
    pub beta2: f64,
    /// Added to the denominator.
    pub epsilon: f64,
    /// The gradient's longest Euclidean norm over all parameters.
    pub clip_norm: f64,
}

/// A part of training with its own data and its own warm-up and decay.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Stage {
    /// Which documents.
    pub documents: Documents,
    /// Passes over them.
    pub epochs: usize,
    /// The encoder's top learning rate, reached after the warm-up.
    pub learning_rate: f64,
    /// Share of the stage's steps over which the learning rate rises from 0.
    pub warmup: f64,
}

/// The documents of a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Documents {
    /// All of them.
    All,
    /// Those that are annotated for every type.
    Complete,
}

impl Default for Recipe {
    fn default() -> Self {
        Self {
            data: DataOptions::default(),
            dev_share: 0.15,
            keep_empty_partial: 1.0,
            model: ModelOptions::default(),
            optimizer: OptimizerOptions::default(),
            class_weighting: ClassWeighting::Off,
            class_weighting_strength: 1.0,
            batch_tokens: 4096,
            seed: 1,
            precision: Precision::Auto,
            patience: 4,
            gate: GateOptions::default(),
            stages: vec![Stage::default()],
        }
    }
}

impl Default for ModelOptions {
    fn default() -> Self {
        Self { name: "model".into(), version: "0.1.0".into(), max_length: 256, dropout: 0.1, card: String::new() }
    }
}

impl Default for OptimizerOptions {
    fn default() -> Self {
        Self {
            // The head starts from nothing and is small: it wants steps of 1e-3 and more.
            head_factor: 10.0,
            layer_decay: 0.9,
            weight_decay: 0.01,
            beta1: 0.9,
            // 0.98 forgets faster than the usual 0.999: a run has only some thousand steps.
            beta2: 0.98,
            epsilon: 1e-8,
            clip_norm: 1.0,
        }
    }
}

impl Default for Stage {
    fn default() -> Self {
        Self { documents: Documents::All, epochs: 10, learning_rate: 2e-4, warmup: 0.1 }
    }
}

impl Recipe {
    /// Reads a recipe.
    ///
    /// # Errors
    /// A file that cannot be read or parsed, with the place, or values that make no sense: all at once.
    pub fn read(file: &Path) -> Result<Self, Error> {
        let text =
            std::fs::read_to_string(file).map_err(|error| Error::Usage(format!("{}: {error}", file.display())))?;
        let mut recipe: Self =
            toml::from_str(&text).map_err(|error| Error::Usage(format!("{}: {error}", file.display())))?;
        recipe.data.read_type_map(file.parent().unwrap_or(Path::new("")))?;
        recipe.check().map_err(|reasons| Error::Usage(format!("{}: {reasons}", file.display())))?;
        Ok(recipe)
    }

    fn check(&self) -> Result<(), String> {
        let share = |value: f64| (0.0..=1.0).contains(&value);
        let optimizer = &self.optimizer;
        let mut wrong = Vec::new();
        let mut require = |holds: bool, what: &str| {
            if !holds {
                wrong.push(what.to_owned());
            }
        };
        require(share(self.dev_share), "`dev_share` must be 0 to 1");
        require(share(self.keep_empty_partial), "`keep_empty_partial` must be 0 to 1");
        require(share(self.class_weighting_strength), "`class_weighting_strength` must be 0 to 1");
        require((0.0..1.0).contains(&self.model.dropout), "`model.dropout` must be at least 0 and less than 1");
        require(!self.model.name.is_empty(), "`model.name` must not be empty");
        require(optimizer.head_factor > 0.0, "`optimizer.head_factor` must be positive");
        require(
            optimizer.layer_decay > 0.0 && optimizer.layer_decay <= 1.0,
            "`optimizer.layer_decay` must be in (0, 1]",
        );
        require(optimizer.weight_decay >= 0.0, "`optimizer.weight_decay` must not be negative");
        require((0.0..1.0).contains(&optimizer.beta1), "`optimizer.beta1` must be in [0, 1)");
        require((0.0..1.0).contains(&optimizer.beta2), "`optimizer.beta2` must be in [0, 1)");
        require(optimizer.epsilon > 0.0, "`optimizer.epsilon` must be positive");
        require(optimizer.clip_norm > 0.0, "`optimizer.clip_norm` must be positive");
        require(self.seed <= u32::MAX.into(), "`seed` must be at most 4294967295");
        require(self.batch_tokens >= self.model.max_length, "`batch_tokens` must be at least `model.max_length`");
        let gate = &self.gate;
        require(gate.margin_points >= 0.0, "`gate.margin_points` must not be negative");
        require((0.0..100.0).contains(&gate.first_min_f1), "`gate.first_min_f1` must be at least 0 and less than 100");
        require(gate.type_drop_points >= 0.0, "`gate.type_drop_points` must not be negative");
        require(share(gate.speed_drop), "`gate.speed_drop` must be 0 to 1");
        require(!self.stages.is_empty(), "there must be a `[[stages]]`");
        for stage in &self.stages {
            require(stage.epochs > 0, "`stages.epochs` must be at least 1");
            require(stage.learning_rate > 0.0 && stage.learning_rate < 1.0, "`stages.learning_rate` must be in (0, 1)");
            require(share(stage.warmup), "`stages.warmup` must be 0 to 1");
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Recipe, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("recipe.toml");
        std::fs::write(&file, text).unwrap();
        Recipe::read(&file).map_err(|error| error.to_string())
    }

    #[test]
    fn an_empty_recipe_is_the_default_and_round_trips() {
        let recipe = read("").unwrap();
        let written = toml::to_string(&recipe).unwrap();
        assert_eq!(toml::to_string(&read(&written).unwrap()).unwrap(), written);
    }

    #[test]
    fn all_errors_are_named_at_once_and_unknown_keys_refused() {
        let error = read("dev_share = 2\n[optimizer]\nclip_norm = 0\n").unwrap_err();
        assert!(error.contains("dev_share") && error.contains("clip_norm"), "{error}");
        assert!(read("[optimiser]\n").unwrap_err().contains("optimiser"));
    }

    #[test]
    fn a_seed_that_would_be_cut_is_refused() {
        assert_eq!(read("seed = 4294967295\n").unwrap().seed, u64::from(u32::MAX));
        assert!(read("seed = 4294967296\n").unwrap_err().contains("`seed` must be at most 4294967295"));
    }
}
