//! Scores a model directory as the worker runs it: by the tagging engine, in the precision it would choose.

use crate::analysis::{Metrics, Outcome, PassageOutcome, Predicted, Training, bootstrap};
use crate::checkpoint::Epoch;
use crate::dataset::{DataOptions, Dataset, LabeledDocument, LabeledPassage};
use crate::error::Error;
use crate::labels::LeftOut;
use crate::publish::RECIPE;
use crate::recipe::Recipe;
use crate::report::{Champion, METRICS, Report};
use crate::scorer::Span;
use crate::split::HoldOut;
use futures::{StreamExt, TryStreamExt};
use litflow::article::{Document, Passage, Section};
use litflow::model::{Model, Options, directory};
use litflow::tagger::encode::{SentenceTokenizer, segments};
use litflow::tagger::engine::{self, Engine};
use litflow::tagger::{ModelRef, Tag, TaggedDocument};
use litflow::text::{CodePoints, sentences};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Documents in the engine at a time: enough to fill its batches.
const DOCUMENTS_AT_A_TIME: usize = 64;

/// What an evaluation came to.
pub struct Evaluation {
    /// The model that was measured.
    pub model: ModelRef,
    /// Its entity types; spans index them.
    pub types: Vec<String>,
    /// What it said about each document.
    pub outcomes: Vec<Outcome>,
    /// What of the data was left out.
    pub left_out: LeftOut,
    /// The epochs of its training, where its directory tells.
    pub epochs: Vec<Epoch>,
    /// How its data was read.
    data_options: DataOptions,
}

/// Which of the files' documents are scored.
#[derive(Debug, Clone, PartialEq)]
pub enum Scope {
    /// All.
    All,
    /// Those that the model's recipe holds out of training for development.
    HeldOut,
    /// Those of a list.
    Listed(HoldOut),
}

/// Scores the model on PubTator files. Only the types that a file annotates count, in gold and prediction.
/// A model directory with a recipe reads the files as the recipe says (renamed types).
pub fn evaluate(directory: &Path, files: &[PathBuf], scope: &Scope, options: &Options) -> Result<Evaluation, Error> {
    let recipe_file = directory.join(RECIPE);
    let recipe = if recipe_file.exists() { Recipe::read(&recipe_file)? } else { Recipe::default() };
    let types = directory::read_config(directory)?.label_set(directory)?.entity_types().to_vec();
    let data_options = DataOptions { types, ..recipe.data };
    let mut data = Dataset::read(files, &data_options)?;
    let rule = match scope {
        Scope::All => None,
        Scope::HeldOut => Some(&HoldOut::Share(recipe.dev_share)),
        Scope::Listed(rule) => Some(rule),
    };
    if let Some(rule) = rule {
        let held_out = data.hold_out(rule)?;
        let left_out = std::mem::replace(&mut data, held_out).left_out;
        data.left_out = left_out;
        if data.is_empty() {
            let why = match rule {
                HoldOut::Share(_) => "none of the documents was held out of this model's training".to_owned(),
                HoldOut::Frozen(_) => format!("none of the {} documents of the list is in the data", rule.listed()),
            };
            return Err(Error::Usage(why));
        }
    }
    measure(directory, &data, options)
}

/// Scores the model on documents that are read already, by their types: what the model does not know it misses.
pub fn measure(directory: &Path, data: &Dataset, options: &Options) -> Result<Evaluation, Error> {
    let model = Model::load(directory, options)?;
    let reference = model.model_ref().clone();
    Ok(Evaluation {
        model: reference,
        types: data.types.clone(),
        outcomes: outcomes(model, data)?,
        left_out: data.left_out.clone(),
        epochs: epochs(directory),
        data_options: data.options.clone(),
    })
}

impl Evaluation {
    /// What the model's training had: the mentions of `files`, but for the documents that it was measured on. None
    /// where there are no files.
    pub fn training(&self, files: &[PathBuf]) -> Result<Training, Error> {
        if files.is_empty() {
            return Ok(Training::default());
        }
        let mut data = Dataset::read(files, &self.data_options)?;
        let measured: BTreeSet<String> = self.outcomes.iter().map(|outcome| outcome.id.clone()).collect();
        data.remove(&measured)?;
        Training::of(&data)
    }

    /// All measures, beside those of a champion on the same documents.
    ///
    /// # Errors
    /// The champion was measured on other documents.
    pub fn report(&self, champion: Option<&Self>, training: &Training) -> Result<Report, Error> {
        let metrics = |evaluation: &Self| Metrics::of(&evaluation.outcomes, &evaluation.types, training);
        let champion = match champion {
            None => None,
            Some(champion) => Some(Champion {
                model: champion.model.clone(),
                metrics: metrics(champion),
                difference: bootstrap::difference(&champion.outcomes, &self.outcomes).map_err(Error::Usage)?,
            }),
        };
        let documents = self.outcomes.len();
        Ok(Report { model: self.model.clone(), documents, metrics: metrics(self), champion })
    }
}

/// The epochs that training wrote into a model directory; none where something else made it.
pub(crate) fn epochs(directory: &Path) -> Vec<Epoch> {
    let read = || -> Option<Vec<Epoch>> {
        let json = std::fs::read(directory.join(METRICS)).ok()?;
        let mut metrics: serde_json::Value = serde_json::from_slice(&json).ok()?;
        serde_json::from_value(metrics["epochs"].take()).ok()
    };
    read().unwrap_or_default()
}

/// What the model says about the documents of `data`, whose types are the model's. Of types that a document does not
/// annotate neither gold nor prediction counts.
pub fn outcomes(model: Model, data: &Dataset) -> Result<Vec<Outcome>, Error> {
    let tokenizer = SentenceTokenizer::new(model.tokenizer().clone(), model.config().max_length(), 0)?;
    let engine = Engine::start(model, &engine::Options::default())?;
    let tag = async |document: Result<LabeledDocument, Error>| {
        let document = document?;
        let tagged = engine.tag(document_of(&document)).await?;
        outcome(&document, &tagged, &data.types, &tokenizer)
    };
    let tagging = futures::stream::iter(data.documents()).map(tag).buffered(DOCUMENTS_AT_A_TIME).try_collect();
    futures::executor::block_on(tagging)
}

fn outcome(
    document: &LabeledDocument,
    tagged: &TaggedDocument,
    types: &[String],
    tokenizer: &SentenceTokenizer,
) -> Result<Outcome, Error> {
    let passage = |passage: &LabeledPassage| -> Result<PassageOutcome, Error> {
        let (text, gold) = (passage.text.clone(), passage.spans.clone());
        Ok(PassageOutcome { words: words(&text, tokenizer)?, text, gold, predicted: Vec::new() })
    };
    let mut passages = document.passages.iter().map(passage).collect::<Result<Vec<_>, _>>()?;
    for mention in &tagged.mentions {
        let entity_type = types.iter().position(|entity_type| *entity_type == mention.entity_type);
        if let Some(entity_type) = entity_type.filter(|&entity_type| document.annotated[entity_type]) {
            let span = Span { begin: mention.begin, end: mention.end, entity_type };
            passages[mention.passage as usize].predicted.push(Predicted { span, score: mention.score.into() });
        }
    }
    Ok(Outcome { id: document.id.clone(), passages })
}

/// The words of a passage as the model labels them, code points.
fn words(text: &str, tokenizer: &SentenceTokenizer) -> Result<Vec<(u32, u32)>, Error> {
    let code_points = CodePoints::new(text);
    let mut words = Vec::new();
    for sentence in sentences(text) {
        for segment in segments(&text[sentence.clone()]) {
            let core = sentence.start + segment.core.start..sentence.start + segment.core.end;
            let encoded = tokenizer.encode(&text[core.clone()], code_points.code_point(core.start))?;
            words.extend(encoded.words.iter().map(|word| (word.begin, word.end)));
        }
    }
    Ok(words)
}

/// The document without its gold mentions. Passages keep their places, by which the mentions come back.
pub(crate) fn document_of(document: &LabeledDocument) -> Document {
    let passage = |passage: &LabeledPassage| {
        let section = if passage.offset == 0 { Section::Title } else { Section::Abstract };
        Passage::new(section, passage.text.clone())
    };
    Document {
        article_id: document.id.clone(),
        article_version: 1,
        passages: document.passages.iter().map(passage).collect(),
    }
}
