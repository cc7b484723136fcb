//! The training run.

mod prepare;
#[cfg(test)]
mod tests;

use crate::calibrate::temperature;
use crate::checkpoint::{self, Best, Epoch, Running, State};
use crate::dataset::LabeledDocument;
use crate::error::Error;
use crate::examples::Example;
use crate::files;
use crate::labels::LeftOut;
use crate::loss::loss;
use crate::network::Network;
use crate::optimizer::{AdamW, schedule};
use crate::progress::Progress;
use crate::publish;
use crate::recipe::Recipe;
use crate::scorer::{Report, Scorer, Span};
use prepare::{Prepared, StagePlan, prepare};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tch::{Device, Tensor};

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// Files or snapshots to learn from.
    pub data: Vec<PathBuf>,
    /// Files or snapshots to develop on; a share of `data` where there are none.
    pub dev: Vec<PathBuf>,
    /// A list of documents that are neither learned from nor developed on.
    pub hold_out: Option<PathBuf>,
    /// The directory of the encoder to start from, or of a model, whose head then is kept for the labels it knows.
    pub encoder: PathBuf,
    /// Where the model directory is to lie.
    pub out: PathBuf,
    /// How to train.
    pub recipe: Recipe,
    /// Whether to go on from `out`'s checkpoint.
    pub resume: bool,
    /// The longest time between two checkpoints; there is one at the end of each epoch too.
    pub checkpoint_every: Duration,
    /// Where to compute.
    pub device: Device,
}

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    /// Whether it was interrupted before its end. The model directory is there all the same.
    pub interrupted: bool,
    /// What of the data was left out.
    pub left_out: LeftOut,
    /// The best epoch, where one was finished.
    pub best: Option<Epoch>,
}

/// Trains a model. When `interrupted` becomes true the run stops after its current step with a checkpoint
/// and a model directory of the best weights so far.
pub fn fit(request: &Request, interrupted: &AtomicBool) -> Result<Outcome, Error> {
    let recipe = &request.recipe;
    let (data, network) = prepare(request)?;
    let mut run = Run::start(request, &data, network)?;
    let mut stopped = false;
    let mut first_step = 0;
    'stages: for (stage, plan) in recipe.stages.iter().zip(&data.stages) {
        for epoch in 0..plan.epochs() {
            let place = Place { stage: plan.number, epoch: epoch + 1 };
            let epoch_step = first_step + plan.steps_before(epoch);
            if run.has_behind(place) {
                continue; // a resumed run
            }
            let batches = plan.batches(epoch).skip((run.state.steps - epoch_step) as usize);
            for (step, batch) in (run.state.steps..).zip(batches) {
                let rate = stage.learning_rate * schedule(step - first_step, plan.steps(), stage.warmup);
                run.step(place, &data.examples.get(batch)?, &data.adjustments, rate)?;
                stopped = interrupted.load(Ordering::Relaxed);
                if stopped {
                    break 'stages;
                }
                run.save_now_and_then()?;
            }
            run.end_epoch(place, &data)?;
            let is_last_stage = plan.number == recipe.stages.len();
            if is_last_stage && run.epochs_without_gain() >= recipe.patience {
                break 'stages;
            }
        }
        first_step += plan.steps();
    }
    run.finish(&data, stopped)
}

/// Where in the recipe a step belongs, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    stage: usize,
    epoch: usize,
}

/// The moving parts of a run.
struct Run<'a> {
    request: &'a Request,
    network: Network,
    optimizer: AdamW,
    state: State,
    best: Best,
    saved: Instant,
    /// Of the steps that [`Run::add_losses`] has not read yet.
    losses: Vec<StepLoss>,
    progress: Progress,
}

/// The loss of a step, still where it was computed.
struct StepLoss {
    step: u64,
    loss: Tensor,
    words: u64,
}

/// Steps whose losses are read together, on a GPU.
const LOSSES_AT_A_TIME: usize = 16;

impl<'a> Run<'a> {
    /// At the beginning, or where the checkpoint says.
    fn start(request: &'a Request, data: &Prepared, network: Network) -> Result<Self, Error> {
        let recipe = &request.recipe;
        let fresh = State {
            recipe: data.recipe.clone(),
            train_digest: data.train.digest.clone(),
            dev_digest: data.dev_summary.digest.clone(),
            steps: 0,
            running: Running::default(),
            epochs: Vec::new(),
        };
        let new_optimizer = |network: &Network| AdamW::new(network.trainables(&recipe.optimizer), &recipe.optimizer);
        let (state, (network, optimizer, best)) = if request.resume {
            let state = resumable(&request.out, &fresh)?;
            let restored = checkpoint::restore(&request.out, &state, network, new_optimizer)?;
            (state, restored)
        } else {
            let optimizer = new_optimizer(&network);
            (fresh, (network, optimizer, None))
        };
        let progress = Progress::new(data.stages.iter().map(StagePlan::steps).sum(), state.steps);
        Ok(Self { request, network, optimizer, state, best, saved: Instant::now(), losses: Vec::new(), progress })
    }

    fn has_behind(&self, place: Place) -> bool {
        self.state.epochs.iter().any(|epoch| (epoch.stage, epoch.epoch) == (place.stage, place.epoch))
    }

    /// One step of the optimiser.
    fn step(
        &mut self,
        place: Place,
        examples: &[Example],
        adjustments: &Tensor,
        learning_rate: f64,
    ) -> Result<(), Error> {
        let (step, started) = (self.state.steps, Instant::now());
        // A seed a step: a resumed run drops out what an uninterrupted one would have.
        tch::manual_seed((self.request.recipe.seed << 32 | step) as i64);
        let batch = self.network.batch(examples)?;
        let loss = loss(self.network.crf(), &self.network.emissions(&batch, true)?, &batch, adjustments);
        let _norm = self.optimizer.step(&loss, learning_rate)?;

        let words: u64 = examples.iter().map(|example| example.words.len() as u64).sum();
        self.state.steps += 1;
        self.losses.push(StepLoss { step, loss: loss.detach(), words });
        if self.losses.len() >= LOSSES_AT_A_TIME || self.request.device == Device::Cpu {
            self.add_losses()?;
        }
        self.state.running.pieces += examples.iter().map(|example| example.ids.len() as u64).sum::<u64>();
        self.state.running.seconds += started.elapsed().as_secs_f64();
        self.progress.step(&self.name(place), self.mean_loss(), self.state.running.words);
        Ok(())
    }

    /// Reads the losses of the last steps, for which a GPU has to be waited for, and adds them up.
    ///
    /// # Errors
    /// One is not finite.
    fn add_losses(&mut self) -> Result<(), Error> {
        for StepLoss { step, loss, words } in self.losses.drain(..) {
            let loss = loss.f_double_value(&[])?;
            if !loss.is_finite() {
                return Err(Error::Diverged { step, loss });
            }
            self.state.running.loss += loss * words as f64;
            self.state.running.words += words;
        }
        Ok(())
    }

    /// Scores the epoch, keeps its weights if they are the best, and writes the checkpoint.
    fn end_epoch(&mut self, place: Place, data: &Prepared) -> Result<(), Error> {
        self.add_losses()?;
        let dev = evaluate(&self.network, data, self.request.recipe.batch_tokens)?;
        let (loss, scores) = (self.mean_loss(), dev.micro);
        let Running { pieces, seconds, .. } = self.state.running;
        self.progress.line(&format!(
            "{}  loss {loss:.4}  dev precision {:.4}  recall {:.4}  F1 {:.4}  {:.0} pieces/s",
            self.name(place),
            scores.precision,
            scores.recall,
            scores.f1,
            pieces as f64 / seconds
        ));
        if self.state.best().is_none_or(|best| scores.f1 > best.dev.micro.f1) {
            let copy = |(name, tensor): (String, Tensor)| (name, tensor.detach().copy());
            self.best = Some(self.network.named_tensors().into_iter().map(copy).collect());
        }
        self.state.epochs.push(Epoch { stage: place.stage, epoch: place.epoch, steps: self.state.steps, loss, dev });
        self.state.running = Running::default();
        self.save()
    }

    /// Finished epochs of the stage since the best one of all.
    fn epochs_without_gain(&self) -> usize {
        let stage = self.state.epochs.last().map_or(0, |epoch| epoch.stage);
        let best = self.state.best().map_or(0, |best| best.steps);
        self.state.epochs.iter().filter(|epoch| epoch.stage == stage && epoch.steps > best).count()
    }

    /// Writes the model directory; a run that was stopped also leaves a checkpoint.
    fn finish(mut self, data: &Prepared, interrupted: bool) -> Result<Outcome, Error> {
        if interrupted {
            self.save()?;
        }
        if let Some(best) = self.best.take() {
            self.network.assign(&best)?;
            let temperature =
                temperature(&self.network, &data.calibration_examples()?, self.request.recipe.batch_tokens)?;
            self.network.set_temperature(temperature);
        }
        publish::publish(&publish::Publication {
            out: &self.request.out,
            config: self.network.config(),
            tensors: &self.network.named_tensors(),
            tokenizer: &data.tokenizer,
            state: &self.state,
            types: &data.types,
            train: &data.train,
            dev: &data.dev_summary,
            left_out: &data.left_out,
            files: &self.request.data,
            parent: &data.encoder_digest,
        })?;
        if !interrupted {
            files::sync(&self.request.out)?; // until then the checkpoint is what survives a power cut
            checkpoint::clear(&self.request.out)?;
        }
        self.progress.finish();
        Ok(Outcome { interrupted, left_out: data.left_out.clone(), best: self.state.best().cloned() })
    }

    /// Within an epoch, so that a run that is killed loses no more than that.
    fn save_now_and_then(&mut self) -> Result<(), Error> {
        if self.saved.elapsed() < self.request.checkpoint_every { Ok(()) } else { self.save() }
    }

    fn save(&mut self) -> Result<(), Error> {
        self.add_losses()?;
        checkpoint::save(&self.request.out, &self.state, &self.network, &self.optimizer, &self.best)?;
        self.saved = Instant::now();
        Ok(())
    }

    fn mean_loss(&self) -> f64 {
        self.state.running.loss / self.state.running.words.max(1) as f64
    }

    fn name(&self, place: Place) -> String {
        let stages = &self.request.recipe.stages;
        let Place { stage, epoch } = place;
        format!("stage {stage}/{} epoch {epoch}/{}", stages.len(), stages[stage - 1].epochs)
    }
}

/// The checkpoint's state, if it is of the same run.
fn resumable(out: &Path, fresh: &State) -> Result<State, Error> {
    let Some(saved) = checkpoint::state(out)? else {
        return Err(Error::Usage(format!("{}: there is no checkpoint to resume from", out.display())));
    };
    let same_recipe = serde_json::to_value(&saved.recipe).ok() == serde_json::to_value(&fresh.recipe).ok();
    let same_data = saved.train_digest == fresh.train_digest && saved.dev_digest == fresh.dev_digest;
    if !(same_recipe && same_data) {
        let what = if same_recipe { "data" } else { "recipe" };
        return Err(Error::Usage(format!(
            "{}: the checkpoint is of a run with another {what}; resume with the same one, or start anew in another --out",
            out.display()
        )));
    }
    Ok(saved)
}

/// The scores on the development documents.
fn evaluate(network: &Network, data: &Prepared, batch_tokens: usize) -> Result<Report, Error> {
    let mut scorer = Scorer::new(&data.types);
    let mut pool = Pool::default();
    for document in data.dev.documents() {
        let document = document?;
        pool.add(data.encoder.encode(&document)?, document);
        if pool.pieces >= batch_tokens * BATCHES_AT_A_TIME {
            std::mem::take(&mut pool).score(network, batch_tokens, &mut scorer)?;
        }
    }
    pool.score(network, batch_tokens, &mut scorer)?;
    Ok(scorer.report())
}

/// Enough batches of a pool to sort away most padding.
const BATCHES_AT_A_TIME: usize = 16;

/// Documents whose examples are sorted into batches together.
#[derive(Default)]
struct Pool {
    documents: Vec<LabeledDocument>,
    examples: Vec<Example>,
    /// Of each example, which of the documents it is of.
    owners: Vec<usize>,
    pieces: usize,
}

impl Pool {
    fn add(&mut self, examples: Vec<Example>, document: LabeledDocument) {
        self.pieces += examples.iter().map(|example| example.ids.len()).sum::<usize>();
        self.owners.extend(examples.iter().map(|_| self.documents.len()));
        self.examples.extend(examples);
        self.documents.push(document);
    }

    fn score(self, network: &Network, batch_tokens: usize, scorer: &mut Scorer) -> Result<(), Error> {
        let mut found: Vec<Vec<Vec<Span>>> =
            self.documents.iter().map(|document| vec![Vec::new(); document.passages.len()]).collect();
        let predicted = network.predict(&self.examples, batch_tokens)?;
        for ((example, owner), spans) in self.examples.iter().zip(self.owners).zip(predicted) {
            found[owner][example.passage].extend(spans);
        }
        for (document, passages) in self.documents.iter().zip(found) {
            for (passage, mut predicted) in document.passages.iter().zip(passages) {
                predicted.retain(|span| document.annotated[span.entity_type]);
                scorer.add(&passage.spans, &predicted);
            }
        }
        Ok(())
    }
}
