//! Scores a model directory as the worker runs it: by the tagging engine, in the precision it would choose.

use crate::dataset::{DataOptions, Dataset, LabeledDocument, LeftOut};
use crate::error::Error;
use crate::publish::RECIPE;
use crate::recipe::Recipe;
use crate::scorer::{Report, Scorer, Span};
use futures::{StreamExt, TryStreamExt};
use litflow::article::{Document, Passage, Section};
use litflow::model::{Model, Options};
use litflow::tagger::engine::{self, Engine};
use litflow::tagger::{ModelRef, Tag, TaggedDocument};
use std::path::{Path, PathBuf};

/// Documents in the engine at a time: enough to fill its batches.
const DOCUMENTS_AT_A_TIME: usize = 64;

/// What an evaluation came to.
pub struct Evaluation {
    /// The model that was measured.
    pub model: ModelRef,
    /// Documents read.
    pub documents: usize,
    /// Strict entity scores.
    pub strict: Report,
    /// What of the data was left out.
    pub left_out: LeftOut,
}

/// Which of the files' documents are scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All.
    All,
    /// Those that the model's recipe holds out of training for development.
    HeldOut,
}

/// Scores the model on PubTator files. Only the types that a file annotates count, in gold and prediction.
/// A model directory with a recipe reads the files as the recipe says (renamed types).
pub fn evaluate(directory: &Path, files: &[PathBuf], scope: Scope, options: &Options) -> Result<Evaluation, Error> {
    let model = Model::load(directory, options)?;
    let recipe_file = directory.join(RECIPE);
    let recipe = if recipe_file.exists() { Recipe::read(&recipe_file)? } else { Recipe::default() };
    let reference = model.model_ref().clone();
    let types = model.label_set().entity_types().to_vec();
    let mut data = Dataset::read(files, &DataOptions { types: types.clone(), ..recipe.data })?;
    if scope == Scope::HeldOut {
        data.documents = data.hold_out(recipe.dev_share).documents;
        if data.documents.is_empty() {
            return Err(Error::Usage("none of the documents was held out of this model's training".into()));
        }
    }

    let engine = Engine::start(model, &engine::Options::default())?;
    let tag = |document: &LabeledDocument| engine.tag(document_of(document));
    let tagging = futures::stream::iter(&data.documents).map(tag).buffered(DOCUMENTS_AT_A_TIME).try_collect();
    let tagged: Vec<TaggedDocument> = futures::executor::block_on(tagging)?;

    let mut scorer = Scorer::new(&types);
    for (document, tagged) in data.documents.iter().zip(tagged) {
        let mut predicted = vec![Vec::new(); document.passages.len()];
        for mention in tagged.mentions {
            let entity_type = types.iter().position(|entity_type| *entity_type == mention.entity_type);
            if let Some(entity_type) = entity_type.filter(|&entity_type| document.annotated[entity_type]) {
                let span = Span { begin: mention.begin, end: mention.end, entity_type };
                predicted[mention.passage as usize].push(span);
            }
        }
        for (passage, predicted) in document.passages.iter().zip(predicted) {
            scorer.add(&passage.spans, &predicted);
        }
    }
    let (documents, left_out) = (data.documents.len(), data.left_out);
    Ok(Evaluation { model: reference, documents, strict: scorer.report(), left_out })
}

/// The document without its gold mentions. Passages keep their places, by which the mentions come back.
fn document_of(document: &LabeledDocument) -> Document {
    let passage = |passage: &crate::dataset::LabeledPassage| {
        let section = if passage.offset == 0 { Section::Title } else { Section::Abstract };
        Passage::new(section, passage.text.clone())
    };
    Document {
        article_id: format!("pmid:{}", document.id),
        article_version: 1,
        passages: document.passages.iter().map(passage).collect(),
    }
}
