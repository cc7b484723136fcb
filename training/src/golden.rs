//! A model's golden sentences: which are kept, what it says of them, and whether it says the same a second time.

use crate::dataset::Dataset;
use crate::error::Error;
use litflow::article::Document;
use litflow::model::Model;
use litflow::model::device::{DeviceChoice, Options, Precision};
use litflow::model::directory::{MANIFEST, Manifest};
use litflow::registry::golden::{self, GOLDEN, Report, Sentence, Tolerance};
use litflow::tagger::engine::{self, Engine};
use litflow::text::sentences;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Sentences that are kept.
const SENTENCES: usize = 200;
/// The longest that is kept, in bytes: longer ones are mostly tables.
const LONGEST: usize = 1000;

/// Sentences of the documents, those with mentions first: a model that finds nothing must not pass for the same.
pub fn texts(data: &Dataset) -> Result<Vec<String>, Error> {
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for document in data.documents() {
        for passage in document?.passages {
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
    }
    Ok(with.into_iter().chain(without).take(SENTENCES).collect())
}

/// Sentences of articles that nobody has labelled, for [`add`] to choose from.
#[derive(Debug, Default)]
pub struct Choice(Vec<String>);

impl Choice {
    /// As many as are tagged to choose from.
    const MOST: usize = 10 * SENTENCES;

    /// Takes a document's sentences; false where no more are needed.
    pub fn take(&mut self, document: &Document) -> bool {
        for passage in &document.passages {
            let of_passage = sentences(&passage.text).into_iter().filter(|sentence| sentence.len() <= LONGEST);
            self.0.extend(of_passage.map(|sentence| passage.text[sentence].to_owned()));
        }
        self.0.truncate(Self::MOST);
        self.0.len() < Self::MOST
    }
}

/// What the model in `folder` says about the texts.
pub fn record(folder: &Path, texts: &[String], options: &Options) -> Result<Vec<Sentence>, Error> {
    Ok(golden::record(&engine(folder, options)?, texts)?)
}

/// Whether the model in `folder`, loaded anew, says the same; else what differs.
pub fn repeats(folder: &Path, sentences: &[Sentence], options: &Options) -> Result<Result<(), String>, Error> {
    let checked = golden::check(&engine(folder, options)?, sentences).map_err(|error| error.to_string());
    Ok(checked.and_then(|report| report.check(&Tolerance::default())))
}

/// Gives the model in `folder` golden sentences, which its manifest names from then on: it has another digest. They
/// are those of the choice in which it finds something, the rarest types first. What it says is computed in fp32 on
/// the CPU, which other precisions and devices come nearest to, and must then be repeated by what this machine would
/// serve.
///
/// # Errors
/// Where there are golden sentences, nothing is found in the choice, or the answer is not repeated.
pub fn add(folder: &Path, choice: &Choice) -> Result<Report, Error> {
    let file = folder.join(GOLDEN);
    if file.exists() {
        let reason = "what a version gave when it was made stays; a copy without it and manifest.json may get others";
        return Err(Error::Usage(format!("{} is there already: {reason}", file.display())));
    }
    let exact = Options { device: DeviceChoice::Cpu, precision: Precision::Fp32 };
    let mut found = record(folder, &choice.0, &exact)?;
    found.retain(|sentence| !sentence.mentions.is_empty());
    if found.is_empty() {
        let reason = "the model finds nothing in them, which tells it from no other: name other articles";
        return Err(Error::Usage(format!("{} sentences: {reason}", choice.0.len())));
    }
    let sentences = rarest(found);
    let report = golden::check(&engine(folder, &Options::default())?, &sentences)?;
    report.check(&Tolerance::default()).map_err(|reason| {
        Error::Job(format!("{}: here it is not what fp32 on the CPU makes of it: {reason}", folder.display()))
    })?;
    golden::write(&file, &sentences)?;
    let manifest = folder.join(MANIFEST);
    if manifest.exists() {
        let json = fs::read(&manifest).map_err(|error| Error::io(&manifest, error))?;
        Manifest::parse(&json, &manifest)?.write(folder)?;
    }
    Ok(report)
}

/// The sentences whose rarest mention is of the rarest types, so that none of the types is untested.
fn rarest(mut found: Vec<Sentence>) -> Vec<Sentence> {
    let mut of_type: BTreeMap<String, usize> = BTreeMap::new();
    for mention in found.iter().flat_map(|sentence| &sentence.mentions) {
        *of_type.entry(mention.entity_type.clone()).or_default() += 1;
    }
    found.sort_by_key(|sentence| sentence.mentions.iter().map(|mention| of_type[&mention.entity_type]).min());
    found.truncate(SENTENCES);
    found
}

fn engine(folder: &Path, options: &Options) -> Result<Engine, Error> {
    Ok(Engine::start(Model::load(folder, options)?, &engine::Options::default())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_that_says_something_else_the_second_time_does_not_repeat() {
        let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/bert/ner"));
        let options = Options { device: "cpu".parse().unwrap(), ..Options::default() };
        let texts = ["BRCA1 causes cancer.", "The gene p53 in mice.", "Fever."].map(str::to_owned);
        let mut sentences = record(folder, &texts, &options).unwrap();
        let mentions = sentences.iter().map(|sentence| sentence.mentions.len()).sum::<usize>();
        assert!(mentions > 0, "a model that finds nothing shows nothing here");
        assert_eq!(repeats(folder, &sentences, &options).unwrap(), Ok(()));

        let first = sentences.iter_mut().find(|sentence| !sentence.mentions.is_empty()).unwrap();
        let recorded = first.mentions.clone();
        first.mentions[0].score = if recorded[0].score < 0.5 { 1.0 } else { 0.0 };
        let shifted = repeats(folder, &sentences, &options).unwrap().unwrap_err();
        assert!(shifted.contains("differs by"), "{shifted}");

        let first = sentences.iter_mut().find(|sentence| !sentence.mentions.is_empty()).unwrap();
        first.mentions = recorded;
        first.mentions[0].entity_type = "Other".into();
        let other = repeats(folder, &sentences, &options).unwrap().unwrap_err();
        assert!(other.contains("golden mentions are missing"), "{other}");
    }
}
