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
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::path::Path;

/// Sentences that are kept.
const SENTENCES: usize = 200;
/// The longest that is kept, in bytes: longer ones are mostly tables.
const LONGEST: usize = 1000;

/// Sentences of the documents, each once: those with mentions first, in turns by type, because a model that finds
/// nothing must not pass for the same.
pub fn texts(data: &Dataset) -> Result<Vec<String>, Error> {
    let (mut with, mut without, mut seen) = (Vec::new(), Vec::new(), HashSet::new());
    let mut of_type = vec![0; data.types.len()];
    for document in data.documents() {
        for passage in document?.passages {
            let text = litflow::text::CodePoints::new(&passage.text);
            for sentence in sentences(&passage.text).into_iter().filter(|sentence| sentence.len() <= LONGEST) {
                let (begin, end) = (text.code_point(sentence.start), text.code_point(sentence.end));
                let spans = passage.spans.iter().filter(|span| begin <= span.begin && span.end <= end);
                let types: BTreeSet<usize> = spans.map(|span| span.entity_type).collect();
                let sentence = &passage.text[sentence];
                // No type can have more turns than there are sentences to choose.
                let kept = types.iter().map(|name| of_type[*name]).min().unwrap_or(without.len());
                if kept < SENTENCES && seen.insert(sentence.to_owned()) {
                    types.iter().for_each(|name| of_type[*name] += 1);
                    match types.is_empty() {
                        true => without.push(sentence.to_owned()),
                        false => with.push((sentence.to_owned(), types)),
                    }
                }
            }
        }
    }
    let chosen = in_turns(with, |(_, types)| types.clone());
    Ok(chosen.into_iter().map(|(sentence, _)| sentence).chain(without).take(SENTENCES).collect())
}

/// Sentences of articles that nobody has labelled, each once, for [`add`] to choose from.
#[derive(Debug, Default)]
pub struct Choice {
    texts: Vec<String>,
    seen: HashSet<String>,
}

impl Choice {
    /// As many as are tagged to choose from.
    const MOST: usize = 10 * SENTENCES;

    /// Takes a document's sentences; false where no more are needed.
    pub fn take(&mut self, document: &Document) -> bool {
        for passage in &document.passages {
            for sentence in sentences(&passage.text).into_iter().filter(|sentence| sentence.len() <= LONGEST) {
                let text = &passage.text[sentence];
                if self.texts.len() < Self::MOST && self.seen.insert(text.to_owned()) {
                    self.texts.push(text.to_owned());
                }
            }
        }
        self.texts.len() < Self::MOST
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
/// are those of the choice in which it finds something, in turns by type, the rarest first. What it says is computed in
/// fp32 on the CPU, which other precisions and devices come nearest to, and must then be repeated by what this machine
/// would serve.
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
    let mut found = record(folder, &choice.texts, &exact)?;
    found.retain(|sentence| !sentence.mentions.is_empty());
    if found.is_empty() {
        let reason = "the model finds nothing in them, which tells it from no other: name other articles";
        return Err(Error::Usage(format!("{} sentences: {reason}", choice.texts.len())));
    }
    let types = |sentence: &Sentence| sentence.mentions.iter().map(|mention| mention.entity_type.clone()).collect();
    let sentences = in_turns(found, types);
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

/// At most [`SENTENCES`], chosen in turns: in each, every type takes the next sentence with a mention of it, the type in
/// the fewest sentences first. So no type is untested.
fn in_turns<S, T: Ord>(sentences: Vec<S>, types: impl Fn(&S) -> BTreeSet<T>) -> Vec<S> {
    let mut places: BTreeMap<T, Vec<usize>> = BTreeMap::new();
    for (place, sentence) in sentences.iter().enumerate() {
        for name in types(sentence) {
            places.entry(name).or_default().push(place);
        }
    }
    let mut types: Vec<Vec<usize>> = places.into_values().collect();
    types.sort_by_key(Vec::len);
    let mut types: Vec<_> = types.into_iter().map(Vec::into_iter).collect();
    let mut sentences: Vec<Option<S>> = sentences.into_iter().map(Some).collect();
    let mut chosen = Vec::new();
    while chosen.len() < SENTENCES && !types.is_empty() {
        types.retain_mut(|places| {
            let next = places.find_map(|place| sentences[place].take());
            let is_left = next.is_some();
            chosen.extend(next);
            is_left
        });
    }
    chosen.truncate(SENTENCES);
    chosen
}

fn engine(folder: &Path, options: &Options) -> Result<Engine, Error> {
    Ok(Engine::start(Model::load(folder, options)?, &engine::Options::default())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of the texts have each of the words.
    fn with(texts: &[String], words: [&str; 3]) -> [usize; 3] {
        words.map(|word| texts.iter().filter(|text| text.contains(word)).count())
    }

    #[test]
    fn no_type_takes_the_turns_of_another() {
        // Genes most of all, then diseases, and one species, in a sentence with a gene.
        let genes = (0..600).map(|n| (format!("Gene {n}."), BTreeSet::from(["Gene"])));
        let diseases = (0..300).map(|n| (format!("Disease {n}."), BTreeSet::from(["Disease"])));
        let both = std::iter::once(("Species and Gene.".to_owned(), BTreeSet::from(["Gene", "Species"])));
        let all: Vec<_> = genes.chain(diseases).chain(both).collect();
        let chosen: Vec<String> = in_turns(all, |(_, types)| types.clone()).into_iter().map(|(text, _)| text).collect();
        assert_eq!(chosen[..3], ["Species and Gene.", "Disease 0.", "Gene 0."], "the rarest first");
        assert_eq!(chosen.len(), SENTENCES);
        assert_eq!(with(&chosen, ["Gene", "Disease", "Species"]), [100, 100, 1]);
        assert_eq!(chosen.iter().collect::<HashSet<_>>().len(), SENTENCES);

        // A type whose sentences have run out leaves its turns to the others.
        let of = |text, types: &[i32]| (text, types.iter().copied().collect::<BTreeSet<_>>());
        let few = vec![of("a", &[1]), of("b", &[1]), of("c", &[2, 1]), of("d", &[1])];
        let chosen: Vec<&str> = in_turns(few, |(_, types)| types.clone()).into_iter().map(|(text, _)| text).collect();
        assert_eq!(chosen, ["c", "a", "b", "d"]);
    }

    #[test]
    fn the_sentences_of_labelled_documents_have_every_type_and_no_repetition() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("labels.pubtator");
        let mut corpus = String::new();
        for id in 0..900 {
            // Ever the same sentence of a gene, then others; the diseases come last.
            let (name, title) = match id {
                0..300 => ("Gene", "BRCA1 was found.".to_owned()),
                300..600 => ("Gene", format!("BRCA1 was found {id} times.")),
                _ => ("Disease", format!("Fever was found {id} times.")),
            };
            corpus += &format!("{id}|t|{title}\n{id}|a|\n{id}\t0\t5\t{}\t{name}\t\n\n", &title[..5]);
        }
        std::fs::write(&file, corpus).unwrap();
        let data = Dataset::read(&[file], &Default::default()).unwrap();
        let texts = texts(&data).unwrap();
        assert_eq!(texts.len(), SENTENCES);
        assert_eq!(with(&texts, ["BRCA1", "Fever", "BRCA1 was found."]), [100, 100, 1]);
        assert_eq!(texts.iter().collect::<HashSet<_>>().len(), SENTENCES);
    }

    #[test]
    fn a_sentence_is_chosen_from_once() {
        let passage = |text: &str| litflow::article::Passage::new(litflow::article::Section::Body, text);
        let document = Document {
            article_id: "pmid:1".into(),
            article_version: 1,
            passages: vec![passage("Fever was found. Cancer was found."), passage("Fever was found.")],
        };
        let mut choice = Choice::default();
        assert!(choice.take(&document) && choice.take(&document));
        assert_eq!(choice.texts, ["Fever was found.", "Cancer was found."]);
    }

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
