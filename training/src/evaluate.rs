//! Scores a model directory as the worker runs it: its stored weights, precision, windows and decoder.

use crate::dataset::{DataOptions, Dataset, LeftOut};
use crate::error::Error;
use crate::examples::{Encoder, Example, sorted_batches};
use crate::publish::RECIPE;
use crate::recipe::Recipe;
use crate::scorer::{Report, Scorer, Span};
use litflow::model::{Model, Options, PackedBatch};
use litflow::tagger::ModelRef;
use litflow::tagger::decode::Decoder;
use litflow::tagger::encode::SentenceTokenizer;
use std::path::{Path, PathBuf};

/// Word pieces that go through the encoder together.
const BATCH_TOKENS: usize = 4096;

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

/// Scores the model on PubTator files. Only the types that a file annotates count, in gold and prediction.
/// A model directory with a recipe reads the files as the recipe says (renamed types).
pub fn evaluate(directory: &Path, files: &[PathBuf], options: &Options) -> Result<Evaluation, Error> {
    let model = Model::load(directory, options)?;
    let recipe_file = directory.join(RECIPE);
    let recipe = if recipe_file.exists() { Recipe::read(&recipe_file)? } else { Recipe::default() };
    let types = model.label_set().entity_types().to_vec();
    let data = Dataset::read(files, &DataOptions { types: types.clone(), ..recipe.data })?;

    let max_length = model.config().max_length();
    let tokenizer = SentenceTokenizer::new(model.tokenizer().clone(), max_length, max_length / 4)?;
    let type_weights = vec![1.0; types.len()];
    let encoder = Encoder { tokenizer: &tokenizer, labels: model.label_set(), type_weights };
    let examples = encoder.encode(&data)?;
    let mut found: Vec<Vec<Vec<Span>>> =
        data.documents.iter().map(|document| vec![Vec::new(); document.passages.len()]).collect();
    for (example, spans) in examples.iter().zip(predict(&model, &examples)?) {
        found[example.document][example.passage].extend(spans);
    }
    let mut scorer = Scorer::new(&types);
    for (document, passages) in data.documents.iter().zip(found) {
        for (passage, mut predicted) in document.passages.iter().zip(passages) {
            predicted.retain(|span| document.annotated[span.entity_type]);
            scorer.add(&passage.spans, &predicted);
        }
    }
    Ok(Evaluation {
        model: model.model_ref().clone(),
        documents: data.documents.len(),
        strict: scorer.report(),
        left_out: data.left_out,
    })
}

fn predict(model: &Model, examples: &[Example]) -> Result<Vec<Vec<Span>>, Error> {
    let decoder = Decoder::new(model.label_set(), model.head());
    let mut predicted = vec![Vec::new(); examples.len()];
    for indices in sorted_batches(examples, BATCH_TOKENS) {
        let mut batch = PackedBatch::default();
        for &index in &indices {
            batch.ids.extend(examples[index].ids.iter().map(|&id| id as u32));
            batch.lengths.push(examples[index].ids.len() as u32);
        }
        let emissions = model.emissions(&batch)?;
        let mut first = 0;
        for index in indices {
            let example = &examples[index];
            let rows = example.first_pieces.iter().map(|&piece| emissions.row(first + piece as usize));
            let spans = decoder.decode(&rows.flatten().copied().collect::<Vec<f32>>());
            predicted[index] = spans
                .into_iter()
                .map(|span| Span {
                    begin: example.words[span.words.start].0,
                    end: example.words[span.words.end - 1].1,
                    entity_type: span.entity_type,
                })
                .collect();
            first += example.ids.len();
        }
    }
    Ok(predicted)
}
