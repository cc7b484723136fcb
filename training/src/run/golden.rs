//! The candidate's golden sentences, and whether it says the same of them a second time.

use crate::dataset::Dataset;
use crate::error::Error;
use litflow::model::{Model, Options};
use litflow::registry::golden::{self, Sentence, Tolerance};
use litflow::tagger::engine::{self, Engine};
use litflow::text::sentences;
use std::path::Path;

/// Sentences that are kept.
const SENTENCES: usize = 200;
/// The longest that is kept, in bytes: longer ones are mostly tables.
const LONGEST: usize = 1000;

/// Sentences of the documents, those with mentions first: a model that finds nothing must not pass for the same.
pub fn texts(data: &Dataset) -> Vec<String> {
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for passage in data.documents.iter().flat_map(|document| &document.passages) {
        let text = litflow::text::CodePoints::new(&passage.text);
        for sentence in sentences(&passage.text) {
            let (begin, end) = (text.code_point(sentence.start), text.code_point(sentence.end));
            let has_mention = passage.spans.iter().any(|span| begin <= span.begin && span.end <= end);
            let chosen = if has_mention { &mut with } else { &mut without };
            if sentence.len() <= LONGEST && chosen.len() < SENTENCES {
                chosen.push(passage.text[sentence].to_owned());
            }
        }
    }
    with.into_iter().chain(without).take(SENTENCES).collect()
}

/// What the model in `folder` says about the texts.
pub fn record(folder: &Path, texts: &[String], options: &Options) -> Result<Vec<Sentence>, Error> {
    Ok(golden::record(&engine(folder, options)?, texts)?)
}

/// Whether the model in `folder`, loaded anew, says the same; else what differs.
pub fn repeats(folder: &Path, sentences: &[Sentence], options: &Options) -> Result<Result<(), String>, Error> {
    let report = golden::check(&engine(folder, options)?, sentences)?;
    Ok(report.check(&Tolerance::default()))
}

fn engine(folder: &Path, options: &Options) -> Result<Engine, Error> {
    Ok(Engine::start(Model::load(folder, options)?, &engine::Options::default())?)
}
