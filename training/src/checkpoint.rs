//! What a stopped run goes on from: `OUT/checkpoint/`, replaced as a whole.

use crate::error::Error;
use crate::files;
use crate::network::Network;
use crate::optimizer::AdamW;
use crate::recipe::Recipe;
use crate::scorer::Report;
use litflow::model::Weights;
use litflow::model::weights::write_safetensors;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};
use tch::{Kind, Tensor};

/// The folder in `OUT`.
pub const FOLDER: &str = "checkpoint";
const STATE: &str = "state.json";
const WEIGHTS: &str = "weights.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const BEST: &str = "best.safetensors";

/// Everything about a run that is not a tensor.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct State {
    /// The recipe in force.
    pub recipe: Recipe,
    /// Digest of the training documents.
    pub train_digest: String,
    /// Digest of the development documents.
    pub dev_digest: String,
    /// Optimiser steps made.
    pub steps: u64,
    /// The steps of the epoch that is under way.
    pub running: Running,
    /// The epochs so far.
    pub epochs: Vec<Epoch>,
}

/// Sums over steps.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Running {
    /// Loss, times words.
    pub loss: f64,
    /// Words.
    pub words: u64,
    /// Word pieces, special tokens included, padding not.
    pub pieces: u64,
    /// Time that the steps took. It stays out of the model directory: the same model has the same digest.
    pub seconds: f64,
}

/// What an epoch came to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Epoch {
    /// The stage, from 1.
    pub stage: usize,
    /// The epoch in its stage, from 1.
    pub epoch: usize,
    /// Optimiser steps since the start of the run.
    pub steps: u64,
    /// Mean loss a word.
    pub loss: f64,
    /// Scores on the development documents.
    pub dev: Report,
}

impl State {
    /// The epoch with the best dev F1, the first of equals.
    pub fn best(&self) -> Option<&Epoch> {
        self.epochs.iter().rev().max_by(|a, b| a.dev.micro.f1.total_cmp(&b.dev.micro.f1))
    }
}

/// The best weights so far, in memory.
pub type Best = Option<Vec<(String, Tensor)>>;

/// Writes the checkpoint beside the old one and then takes its place.
pub fn save(out: &Path, state: &State, network: &Network, optimizer: &AdamW, best: &Best) -> Result<(), Error> {
    let (new, old, place) = (out.join("checkpoint.new"), out.join("checkpoint.old"), out.join(FOLDER));
    remove(&new)?;
    fs::create_dir_all(&new).map_err(|error| Error::io(&new, error))?;
    write_safetensors(&new.join(WEIGHTS), &network.named_tensors(), Kind::Float)?;
    write_safetensors(&new.join(OPTIMIZER), &optimizer.state(), Kind::Float)?;
    if let Some(best) = best {
        write_safetensors(&new.join(BEST), best, Kind::Float)?;
    }
    let json = serde_json::to_vec_pretty(state).expect("a state is plain data");
    fs::write(new.join(STATE), json).map_err(|error| Error::io(&new.join(STATE), error))?;
    files::sync(&new)?;
    if place.exists() {
        // Only now: after a death between the two renames the old one is all there is.
        remove(&old)?;
        fs::rename(&place, &old).map_err(|error| Error::io(&place, error))?;
    }
    fs::rename(&new, &place).map_err(|error| Error::io(&new, error))?;
    files::sync(out)?;
    remove(&old)
}

/// Whether there is something to go on from.
pub fn is_there(out: &Path) -> bool {
    folder(out).is_some()
}

/// Reads the state of a stopped run; `None` where there is none.
pub fn state(out: &Path) -> Result<Option<State>, Error> {
    let Some(folder) = folder(out) else { return Ok(None) };
    let file = folder.join(STATE);
    let json = fs::read(&file).map_err(|error| Error::io(&file, error))?;
    let state = serde_json::from_slice(&json).map_err(|error| {
        Error::Usage(format!(
            "{}: not a checkpoint of this version: {error}; training must begin anew, without it",
            file.display()
        ))
    })?;
    Ok(Some(state))
}

/// Brings network and optimiser to where the run stopped.
pub fn restore(
    out: &Path,
    state: &State,
    network: Network,
    optimizer: impl FnOnce(&Network) -> AdamW,
) -> Result<(Network, AdamW, Best), Error> {
    let folder = folder(out).ok_or_else(|| Error::Usage(format!("{}: no checkpoint", out.display())))?;
    let network = network.restore(read(&folder.join(WEIGHTS))?)?;
    let mut optimizer = optimizer(&network);
    let moments = read(&folder.join(OPTIMIZER))?;
    optimizer.restore(state.steps, |name, shape| moments.float(name, shape).map_err(Error::from))?;
    let best = match folder.join(BEST) {
        file if file.exists() => {
            let weights = read(&file)?;
            let tensor = |(name, like): (String, Tensor)| {
                // Weights are read under their canonical names.
                let canonical = name.strip_prefix("bert.").unwrap_or(&name).to_owned();
                Ok((name, weights.float(&canonical, &like.size())?))
            };
            Some(network.named_tensors().into_iter().map(tensor).collect::<Result<_, Error>>()?)
        }
        _ => None,
    };
    Ok((network, optimizer, best))
}

/// Removes the checkpoint of a run that has ended.
pub fn clear(out: &Path) -> Result<(), Error> {
    remove(&out.join(FOLDER))
}

/// The checkpoint; the previous one where a run died between two renames.
fn folder(out: &Path) -> Option<PathBuf> {
    [FOLDER, "checkpoint.old"].map(|name| out.join(name)).into_iter().find(|folder| folder.join(STATE).exists())
}

fn read(file: &Path) -> Result<Weights, Error> {
    let bytes = fs::read(file).map_err(|error| Error::io(file, error))?;
    Ok(Weights::from_safetensors(&bytes, file)?)
}

/// Removes a checkpoint, first the file without which it is none.
fn remove(folder: &Path) -> Result<(), Error> {
    let _ = fs::remove_file(folder.join(STATE)); // where it is missing there is nothing to remove, or half of it
    files::remove(folder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scorer::Scorer;
    use proptest::prelude::*;

    proptest! {
        /// A score that came back a bit higher or lower would change which of two epochs is the best.
        #[test]
        fn numbers_come_back_to_the_last_bit(f1 in 0.0..1.0f64, loss in proptest::num::f64::NORMAL) {
            let mut dev = Scorer::new(&[]).report();
            dev.micro.f1 = f1;
            let epoch = Epoch { stage: 1, epoch: 1, steps: 1, loss, dev };
            let json = serde_json::to_vec_pretty(&epoch).unwrap();
            let back: Epoch = serde_json::from_slice(&json).unwrap();
            prop_assert_eq!((back.dev.micro.f1.to_bits(), back.loss.to_bits()), (f1.to_bits(), loss.to_bits()));
        }
    }
}
