//! The training run.

#[cfg(test)]
mod tests;

use crate::calibrate::temperature;
use crate::checkpoint::{self, Best, Epoch, Running, State};
use crate::dataset::{DataOptions, Dataset};
use crate::error::Error;
use crate::examples::{Encoder, Example, MAX_LABELS, shuffled_batches, thin_out};
use crate::labels::LeftOut;
use crate::loss::{label_adjustments, loss};
use crate::network::Network;
use crate::optimizer::{AdamW, schedule};
use crate::progress::Progress;
use crate::publish;
use crate::recipe::{Documents, Recipe};
use crate::scorer::{Report, Scorer};
use crate::split::HoldOut;
use litflow::model::device::compute_kind;
use litflow::model::{Directory, LabelSet};
use litflow::tagger::encode::SentenceTokenizer;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tch::{Device, Tensor};
use tokenizers::Tokenizer;

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
        for (epoch, batches) in plan.epochs.iter().enumerate() {
            let place = Place { stage: plan.number, epoch: epoch + 1 };
            let epoch_step = first_step + plan.steps_before(epoch);
            if run.has_behind(place) {
                continue; // a resumed run
            }
            for (step, batch) in (epoch_step..).zip(batches).skip((run.state.steps - epoch_step) as usize) {
                let rate = stage.learning_rate * schedule(step - first_step, plan.steps(), stage.warmup);
                let examples: Vec<&Example> = batch.iter().map(|&index| &plan.examples[index]).collect();
                run.step(place, &examples, &data.adjustments, rate)?;
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
            recipe: settled_recipe(recipe, &data.train),
            train_digest: data.train.digest(),
            dev_digest: data.dev.digest(),
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
        examples: &[&Example],
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
        let dev = evaluate(&self.network, &data.dev, &data.dev_examples, self.request.recipe.batch_tokens)?;
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
            let temperature = temperature(&self.network, &data.dev_examples, self.request.recipe.batch_tokens)?;
            self.network.set_temperature(temperature);
        }
        publish::publish(&publish::Publication {
            out: &self.request.out,
            config: self.network.config(),
            tensors: &self.network.named_tensors(),
            tokenizer: &data.tokenizer,
            state: &self.state,
            train: &data.train,
            dev: &data.dev,
            files: &self.request.data,
            parent: &data.encoder_digest,
        })?;
        if !interrupted {
            checkpoint::clear(&self.request.out)?;
        }
        self.progress.finish();
        Ok(Outcome { interrupted, left_out: data.train.left_out.clone(), best: self.state.best().cloned() })
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

/// All that the loop works on but the network.
struct Prepared {
    train: Dataset,
    dev: Dataset,
    dev_examples: Vec<Example>,
    /// What the class weighting takes from each label's emission, `[K]`.
    adjustments: Tensor,
    stages: Vec<StagePlan>,
    tokenizer: Tokenizer,
    encoder_digest: String,
}

/// A stage's examples and, epoch by epoch, their batches.
struct StagePlan {
    number: usize, // from 1
    examples: Vec<Example>,
    epochs: Vec<Vec<Vec<usize>>>,
}

impl StagePlan {
    fn steps(&self) -> u64 {
        self.steps_before(self.epochs.len())
    }

    fn steps_before(&self, epoch: usize) -> u64 {
        self.epochs[..epoch].iter().map(|batches| batches.len() as u64).sum()
    }
}

fn prepare(request: &Request) -> Result<(Prepared, Network), Error> {
    let recipe = &request.recipe;
    let encoder = Directory::read(&request.encoder)?;
    let tokenizer = encoder.tokenizer(&encoder.config()?)?;
    let (train, dev) = read_data(request)?;

    let labels = LabelSet::bio(&train.types);
    if labels.labels().len() > MAX_LABELS {
        return Err(Error::Usage(format!(
            "{} entity types, at most {} are supported: choose by `data.types` or join some by `data.rename`",
            train.types.len(),
            (MAX_LABELS - 1) / 2
        )));
    }
    let kind = compute_kind(recipe.precision, request.device);
    let network = Network::new(&encoder, labels.clone(), &recipe.model, recipe.seed, request.device, kind)?;
    let max_length = recipe.model.max_length;
    let sentence_tokenizer = SentenceTokenizer::new(tokenizer.clone(), max_length, max_length / 4)?;
    let windows = Encoder { tokenizer: &sentence_tokenizer, labels: &labels };
    let dev_examples = windows.encode(&dev)?;
    let examples = thin_out(windows.encode(&train)?, &train, &labels, recipe.keep_empty_partial);
    let mut adjustments = recipe.class_weighting.adjustments(&train.mentions_by_type());
    adjustments.iter_mut().for_each(|adjustment| *adjustment *= recipe.class_weighting_strength);
    let adjustments = label_adjustments(&labels, &adjustments, request.device);
    let stages = plan(recipe, &train, &examples)?;
    prepare_out(&request.out, request.resume)?;
    let encoder_digest = encoder.digest().to_owned();
    let prepared = Prepared { train, dev, dev_examples, adjustments, stages, tokenizer, encoder_digest };
    Ok((prepared, network))
}

fn read_data(request: &Request) -> Result<(Dataset, Dataset), Error> {
    let recipe = &request.recipe;
    let mut train = Dataset::read(&request.data, &recipe.data)?;
    let hold_out = request.hold_out.as_deref().map(HoldOut::read).transpose()?;
    let held_out = hold_out.as_ref().map(|rule| train.hold_out(rule).documents.len());
    if let (Some(count), Some(file)) = (held_out, &request.hold_out) {
        eprintln!("{count} documents of {} are held out", file.display());
    }
    let dev = if request.dev.is_empty() {
        train.hold_out(&HoldOut::Share(recipe.dev_share))
    } else {
        // The types are those of the training data, in the same order.
        let mut dev = Dataset::read(&request.dev, &train.options)?;
        if let Some(rule) = &hold_out {
            dev.hold_out(rule);
        }
        train.remove_documents_of(&dev);
        dev
    };
    eprintln!("{} documents to learn from, {} to develop on", train.documents.len(), dev.documents.len());
    if dev.documents.is_empty() || train.documents.is_empty() {
        return Err(Error::Usage(format!(
            "there must be documents of both kinds; those to develop on are a share (`dev_share` = {}) of those \
             annotated for every type ({}), or the files of --dev",
            recipe.dev_share,
            train.types.join(", ")
        )));
    }
    Ok((train, dev))
}

fn plan(recipe: &Recipe, train: &Dataset, examples: &[Example]) -> Result<Vec<StagePlan>, Error> {
    let mut stages = Vec::with_capacity(recipe.stages.len());
    for (number, stage) in (1..).zip(&recipe.stages) {
        let belongs =
            |example: &&Example| stage.documents == Documents::All || train.documents[example.document].is_complete();
        let examples: Vec<Example> = examples.iter().filter(belongs).cloned().collect();
        if examples.is_empty() {
            return Err(Error::Usage(format!("stage {number} has nothing to learn from")));
        }
        let seed = |epoch: usize| recipe.seed.wrapping_mul(1_000_003).wrapping_add((number * 1000 + epoch) as u64);
        let epochs = (0..stage.epochs).map(|epoch| shuffled_batches(&examples, recipe.batch_tokens, seed(epoch)));
        let epochs: Vec<_> = epochs.collect();
        let pieces: usize = examples.iter().map(|example| example.ids.len()).sum();
        eprintln!(
            "stage {number}: {} sentences, {pieces} word pieces, {} steps an epoch",
            examples.len(),
            epochs.first().map_or(0, Vec::len)
        );
        stages.push(StagePlan { number, examples, epochs });
    }
    Ok(stages)
}

/// The recipe with what the data decided about its types, so that other data is read alike.
fn settled_recipe(recipe: &Recipe, train: &Dataset) -> Recipe {
    let data = DataOptions { types: recipe.data.types.clone(), ..train.options.clone() };
    Recipe { data, ..recipe.clone() }
}

/// The output folder: new or empty, unless a run is resumed.
fn prepare_out(out: &Path, resume: bool) -> Result<(), Error> {
    std::fs::create_dir_all(out).map_err(|error| Error::io(out, error))?;
    let mut entries = std::fs::read_dir(out).map_err(|error| Error::io(out, error))?;
    if !resume && entries.next().is_some() {
        return Err(Error::Usage(format!(
            "{} is not empty: name another --out, or go on with a stopped run by --resume",
            out.display()
        )));
    }
    Ok(())
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

fn evaluate(network: &Network, dev: &Dataset, examples: &[Example], batch_tokens: usize) -> Result<Report, Error> {
    let mut found: Vec<Vec<Vec<_>>> =
        dev.documents.iter().map(|document| vec![Vec::new(); document.passages.len()]).collect();
    for (example, spans) in examples.iter().zip(network.predict(examples, batch_tokens)?) {
        found[example.document][example.passage].extend(spans);
    }
    let mut scorer = Scorer::new(&dev.types);
    for (document, passages) in dev.documents.iter().zip(found) {
        for (passage, mut predicted) in document.passages.iter().zip(passages) {
            predicted.retain(|span| document.annotated[span.entity_type]);
            scorer.add(&passage.spans, &predicted);
        }
    }
    Ok(scorer.report())
}
