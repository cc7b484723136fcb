//! From a request to what the training loop works on.

use super::Request;
use crate::dataset::{DataOptions, Dataset, Summary};
use crate::error::Error;
use crate::examples::{Encoder, Example, Examples, MAX_LABELS, shuffled_batches, thin_out};
use crate::labels::LeftOut;
use crate::loss::label_adjustments;
use crate::network::Network;
use crate::random::SplitMix;
use crate::recipe::{Documents, Recipe};
use crate::split::HoldOut;
use litflow::model::device::compute_kind;
use litflow::model::{Directory, LabelSet};
use litflow::tagger::encode::SentenceTokenizer;
use std::path::Path;
use tch::Tensor;
use tokenizers::Tokenizer;

/// Pieces of the development documents by which the temperature is chosen, at most: one number needs no more.
const CALIBRATION_PIECES: usize = 200_000;

/// All that the loop works on but the network. Documents and examples wait on the disk.
pub(super) struct Prepared {
    pub(super) types: Vec<String>,
    pub(super) train: Summary,
    pub(super) dev: Dataset,
    pub(super) dev_summary: Summary,
    pub(super) left_out: LeftOut,
    /// The recipe with what the data decided about its types, so that other data is read alike.
    pub(super) recipe: Recipe,
    pub(super) encoder: Encoder,
    pub(super) examples: Examples,
    /// What the class weighting takes from each label's emission, `[K]`.
    pub(super) adjustments: Tensor,
    pub(super) stages: Vec<StagePlan>,
    pub(super) tokenizer: Tokenizer,
    pub(super) encoder_digest: String,
}

/// Which examples a stage learns from, and in how many steps each of its epochs does.
pub(super) struct StagePlan {
    pub(super) number: usize, // from 1
    /// Places in [`Prepared::examples`].
    members: Vec<usize>,
    lengths: Vec<u32>, // of the members
    seed: u64,
    batch_tokens: usize,
    steps: Vec<u64>, // of each epoch
}

impl StagePlan {
    fn new(number: usize, members: Vec<usize>, epochs: usize, examples: &Examples, recipe: &Recipe) -> Self {
        let lengths = members.iter().map(|&place| examples.lengths()[place]).collect();
        let seed = recipe.seed.wrapping_mul(1_000_003).wrapping_add((number * 1000) as u64);
        let mut plan = Self { number, members, lengths, seed, batch_tokens: recipe.batch_tokens, steps: Vec::new() };
        plan.steps = (0..epochs).map(|epoch| plan.shuffled(epoch).len() as u64).collect();
        plan
    }

    pub(super) fn epochs(&self) -> usize {
        self.steps.len()
    }

    pub(super) fn steps(&self) -> u64 {
        self.steps_before(self.epochs())
    }

    /// Steps before an epoch, from 0.
    pub(super) fn steps_before(&self, epoch: usize) -> u64 {
        self.steps[..epoch].iter().sum()
    }

    /// The batches of an epoch, from 0: places of examples.
    pub(super) fn batches(&self, epoch: usize) -> impl Iterator<Item = Vec<usize>> {
        let places = |batch: Vec<usize>| batch.into_iter().map(|member| self.members[member]).collect();
        self.shuffled(epoch).into_iter().map(places)
    }

    fn shuffled(&self, epoch: usize) -> Vec<Vec<usize>> {
        shuffled_batches(&self.lengths, self.batch_tokens, self.seed.wrapping_add(epoch as u64))
    }
}

impl Prepared {
    /// Examples of development documents to calibrate on: of all, or of as many as are enough, chosen by chance.
    pub(super) fn calibration_examples(&self) -> Result<Vec<Example>, Error> {
        let mut order: Vec<usize> = (0..self.dev.len()).collect();
        SplitMix(0).shuffle(&mut order);
        let (mut chosen, mut pieces) = (Vec::new(), 0);
        for place in order {
            let examples = self.encoder.encode(&self.dev.get(place)?)?;
            pieces += examples.iter().map(|example| example.ids.len()).sum::<usize>();
            chosen.extend(examples);
            if pieces >= CALIBRATION_PIECES {
                break;
            }
        }
        Ok(chosen)
    }
}

/// Reads the data, starts the network, plans the stages, and makes the output folder.
pub(super) fn prepare(request: &Request) -> Result<(Prepared, Network), Error> {
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
    let windows = Encoder { tokenizer: sentence_tokenizer, labels };
    let (examples, is_complete) = encode(&train, &windows, recipe.keep_empty_partial)?;
    let (types, left_out) = (train.types.clone(), train.left_out.clone());
    let data = DataOptions { types: recipe.data.types.clone(), ..train.options.clone() };
    let (train, dev_summary) = (train.summary()?, dev.summary()?);
    let mut adjustments = recipe.class_weighting.adjustments(&train.mentions);
    adjustments.iter_mut().for_each(|adjustment| *adjustment *= recipe.class_weighting_strength);
    let adjustments = label_adjustments(&windows.labels, &adjustments, request.device);
    let stages = plan(recipe, &examples, &is_complete)?;
    prepare_out(&request.out, request.resume)?;
    let prepared = Prepared {
        types,
        train,
        dev,
        dev_summary,
        left_out,
        recipe: Recipe { data, ..recipe.clone() },
        encoder: windows,
        examples,
        adjustments,
        stages,
        tokenizer,
        encoder_digest: encoder.digest().to_owned(),
    };
    Ok((prepared, network))
}

/// The examples of the documents, and of each whether its document is annotated for every type.
fn encode(data: &Dataset, encoder: &Encoder, keep: f64) -> Result<(Examples, Vec<bool>), Error> {
    let (mut examples, mut is_complete) = (Examples::default(), Vec::new());
    for document in data.documents() {
        let document = document?;
        let mut of_document = encoder.encode(&document)?;
        thin_out(&mut of_document, &document, &encoder.labels, keep);
        for example in &of_document {
            examples.push(example)?;
            is_complete.push(document.is_complete());
        }
    }
    Ok((examples, is_complete))
}

fn read_data(request: &Request) -> Result<(Dataset, Dataset), Error> {
    let recipe = &request.recipe;
    let mut train = Dataset::read(&request.data, &recipe.data)?;
    let hold_out = request.hold_out.as_deref().map(HoldOut::read).transpose()?;
    if let (Some(rule), Some(file)) = (&hold_out, &request.hold_out) {
        let (held_out, listed) = (train.hold_out(rule)?.len(), rule.listed());
        eprintln!("{held_out} of the {listed} documents of {} are held out", file.display());
        if held_out == 0 {
            return Err(Error::Usage(format!(
                "none of the documents of {} is in the data: its ids must be those of the data (`pmid:1`); without \
                 --hold-out nothing is held out",
                file.display()
            )));
        }
    }
    let dev = if request.dev.is_empty() {
        train.hold_out(&HoldOut::Share(recipe.dev_share))?
    } else {
        // The types are those of the training data, in the same order.
        let mut dev = Dataset::read(&request.dev, &train.options)?;
        if let Some(rule) = &hold_out {
            dev.hold_out(rule)?;
        }
        train.remove(&dev.ids()?)?;
        dev
    };
    eprintln!("{} documents to learn from, {} to develop on", train.len(), dev.len());
    if dev.is_empty() || train.is_empty() {
        return Err(Error::Usage(format!(
            "there must be documents of both kinds; those to develop on are a share (`dev_share` = {}) of those \
             annotated for every type ({}), or the files of --dev",
            recipe.dev_share,
            train.types.join(", ")
        )));
    }
    Ok((train, dev))
}

fn plan(recipe: &Recipe, examples: &Examples, is_complete: &[bool]) -> Result<Vec<StagePlan>, Error> {
    let mut stages = Vec::with_capacity(recipe.stages.len());
    for (number, stage) in (1..).zip(&recipe.stages) {
        let belongs = |place: &usize| stage.documents == Documents::All || is_complete[*place];
        let members: Vec<usize> = (0..is_complete.len()).filter(belongs).collect();
        if members.is_empty() {
            return Err(Error::Usage(format!("stage {number} has nothing to learn from")));
        }
        let plan = StagePlan::new(number, members, stage.epochs, examples, recipe);
        eprintln!(
            "stage {number}: {} sentences, {} word pieces, {} steps an epoch",
            plan.lengths.len(),
            plan.lengths.iter().map(|&length| u64::from(length)).sum::<u64>(),
            plan.steps.first().copied().unwrap_or(0)
        );
        stages.push(plan);
    }
    Ok(stages)
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
