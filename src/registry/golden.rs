//! `golden.jsonl`: sentences with the mentions and scores that a model version gave when it was made. Whoever
//! loads the version tags them again: where the answer is another one, it is not the model that was evaluated.
//!
//! One line a sentence, offsets in code points of its text, half-open:
//! ```json
//! {"text": "BRCA1 causes cancer.", "mentions": [{"type": "Gene", "begin": 0, "end": 5, "score": 0.99}]}
//! ```

use super::Error;
use crate::article::{Document, Passage, Section};
use crate::tagger::{self, Tag};
use futures::future::try_join_all;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

/// The file's name in a model directory.
pub const GOLDEN: &str = "golden.jsonl";
/// The largest file that is read.
const MAX_BYTES: u64 = 16 << 20;

/// A sentence and what was found in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sentence {
    /// The text.
    pub text: String,
    /// The mentions, by begin and end.
    pub mentions: Vec<Found>,
}

/// A mention in a sentence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Found {
    /// Entity type.
    #[serde(rename = "type")]
    pub entity_type: String,
    /// Begin, in code points of the text.
    pub begin: u32,
    /// End, exclusive.
    pub end: u32,
    /// The model's probability for the span, 0 to 1.
    pub score: f32,
}

/// How far another machine's answer may lie from the recorded one. bf16 and other kernels shift scores, and now
/// and then a span whose score is close to another's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerance {
    /// The most that the score of one mention may differ.
    pub score: f32,
    /// The share of all mentions that may be missing or new.
    pub mentions: f32,
}

impl Default for Tolerance {
    fn default() -> Self {
        Self { score: 0.1, mentions: 0.05 }
    }
}

/// How a model's answer differs from the recorded one.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Report {
    /// Sentences that were tagged.
    pub sentences: usize,
    /// Mentions that were recorded.
    pub mentions: usize,
    /// Recorded mentions that were not found again, as `line:begin-end type "words"`, where `line` is the sentence's
    /// in the file, from 1.
    pub missing: Vec<String>,
    /// Mentions that were not recorded, in the same form.
    pub unexpected: Vec<String>,
    /// The largest difference of a score, …
    pub largest_shift: f32,
    /// … and whose it is, in the same form; none where no score differs.
    pub most_shifted: Option<String>,
    /// Mentions whose score is not a number between 0 and 1.
    pub not_a_score: Vec<String>,
}

impl Report {
    /// Why the model is to be refused, if it is.
    pub fn check(&self, tolerance: &Tolerance) -> Result<(), String> {
        if let Some(place) = self.not_a_score.first() {
            let count = self.not_a_score.len();
            return Err(format!("{count} scores are no probabilities, the first at {GOLDEN} line {place}"));
        }
        let differ = self.missing.len() + self.unexpected.len();
        let allowed = (self.mentions as f32 * tolerance.mentions) as usize;
        if differ > allowed {
            let examples: Vec<&str> = self.missing.iter().chain(&self.unexpected).take(3).map(String::as_str).collect();
            return Err(format!(
                "{} of {} golden mentions are missing and {} are new (together at most {allowed}): {GOLDEN} line {}",
                self.missing.len(),
                self.mentions,
                self.unexpected.len(),
                examples.join(", line ")
            ));
        }
        if self.largest_shift > tolerance.score {
            return Err(format!(
                "the score of a golden mention differs by {:.3}, at most {:.3} may be: {GOLDEN} line {}",
                self.largest_shift,
                tolerance.score,
                self.most_shifted.as_deref().unwrap_or_default()
            ));
        }
        Ok(())
    }
}

/// What `tagger` finds in each text: what is written as golden for its model.
///
/// # Errors
/// Where a text cannot be tagged, or a score is no probability.
pub fn record(tagger: &dyn Tag, texts: &[String]) -> Result<Vec<Sentence>, tagger::Error> {
    let sentences = tag(tagger, texts)?;
    let found = sentences.iter().flat_map(|sentence| &sentence.mentions);
    match found.map(|found| found.score).find(|score| !is_probability(*score)) {
        Some(score) => Err(tagger::Error::Document(format!("a mention's score is {score}, no probability"))),
        None => Ok(sentences),
    }
}

/// Writes the file's lines. It belongs into the directory before its manifest is written.
pub fn write(file: &Path, sentences: &[Sentence]) -> Result<(), Error> {
    let lines: String = sentences
        .iter()
        .map(|sentence| {
            serde_json::to_string(sentence).expect("texts and finite numbers can be written as JSON") + "\n"
        })
        .collect();
    std::fs::write(file, lines).map_err(|e| Error::io(file, e))
}

/// Reads the file, which must be no longer than 16 MiB; none where there is none.
pub fn read(file: &Path) -> Result<Option<Vec<Sentence>>, Error> {
    let damaged = |reason: String| Error::damaged(file.display().to_string(), reason);
    let opened = match File::open(file) {
        Ok(opened) => opened,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io(file, e)),
    };
    let mut lines = Vec::new();
    opened.take(MAX_BYTES + 1).read_to_end(&mut lines).map_err(|e| Error::io(file, e))?;
    if lines.len() as u64 > MAX_BYTES {
        return Err(damaged(format!("more than the {MAX_BYTES} bytes that it may have")));
    }
    let lines = String::from_utf8(lines).map_err(|e| damaged(e.to_string()))?;
    let parse = |(number, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|e| damaged(format!("line {}: {e}", number + 1)))
    };
    lines.lines().enumerate().map(parse).collect::<Result<_, _>>().map(Some)
}

/// Tags the golden sentences again and compares.
///
/// # Errors
/// Where a sentence cannot be tagged: the model computes NaN, say.
pub fn check(tagger: &dyn Tag, golden: &[Sentence]) -> Result<Report, tagger::Error> {
    let texts: Vec<String> = golden.iter().map(|sentence| sentence.text.clone()).collect();
    let mut report = Report { sentences: golden.len(), ..Report::default() };
    for (number, (expected, found)) in golden.iter().zip(tag(tagger, &texts)?).enumerate() {
        report.compare(number + 1, &expected.text, &expected.mentions, &found.mentions);
    }
    Ok(report)
}

impl Report {
    fn compare(&mut self, line: usize, text: &str, expected: &[Found], found: &[Found]) {
        /// Enough to know a mention by.
        const QUOTED: usize = 40;
        let place = |mention: &Found| {
            let Found { entity_type, begin, end, .. } = mention;
            let length = (end.saturating_sub(*begin) as usize).min(QUOTED);
            let words: String = text.chars().skip(*begin as usize).take(length).collect();
            format!("{line}:{begin}-{end} {entity_type} {words:?}")
        };
        let spans = |mentions: &[Found]| -> BTreeMap<(u32, u32, String), f32> {
            let span = |mention: &Found| (mention.begin, mention.end, mention.entity_type.clone());
            mentions.iter().map(|mention| (span(mention), mention.score)).collect()
        };
        let (expected_spans, found_spans) = (spans(expected), spans(found));
        self.mentions += expected.len();
        let key = |mention: &Found| (mention.begin, mention.end, mention.entity_type.clone());
        self.missing.extend(expected.iter().filter(|mention| !found_spans.contains_key(&key(mention))).map(place));
        for mention in found {
            if !is_probability(mention.score) {
                self.not_a_score.push(place(mention));
                continue;
            }
            match expected_spans.get(&key(mention)) {
                Some(score) if (score - mention.score).abs() > self.largest_shift => {
                    self.largest_shift = (score - mention.score).abs();
                    self.most_shifted = Some(place(mention));
                }
                Some(_) => {}
                None => self.unexpected.push(place(mention)),
            }
        }
    }
}

fn is_probability(score: f32) -> bool {
    (0.0..=1.0).contains(&score) // no NaN is
}

fn tag(tagger: &dyn Tag, texts: &[String]) -> Result<Vec<Sentence>, tagger::Error> {
    let tagged = texts.iter().enumerate().map(|(number, text)| {
        let passage = Passage { section: Section::Body, heading: None, language: None, text: text.clone() };
        tagger.tag(Document {
            article_id: format!("golden:{}", number + 1),
            article_version: 1,
            passages: vec![passage],
        })
    });
    let tagged = futures::executor::block_on(try_join_all(tagged))?;
    let found = |mention: tagger::Mention| Found {
        entity_type: mention.entity_type,
        begin: mention.begin,
        end: mention.end,
        score: mention.score,
    };
    let sentences = texts.iter().zip(tagged);
    Ok(sentences
        .map(|(text, tagged)| Sentence {
            text: text.clone(),
            mentions: tagged.mentions.into_iter().map(found).collect(),
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tagger::Dictionary;

    fn tagger(words: &[(&str, &str)]) -> Dictionary {
        Dictionary::new(words.iter().copied()).unwrap()
    }

    fn texts() -> Vec<String> {
        vec!["Über BRCA1 in breast cancer.".into(), "Nothing here.".into(), "p53 and BRCA1.".into()]
    }

    const WORDS: [(&str, &str); 3] = [("BRCA1", "Gene"), ("breast cancer", "Disease"), ("p53", "Gene")];

    #[test]
    fn the_same_model_agrees_with_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(GOLDEN);
        assert_eq!(read(&file).unwrap(), None);
        let golden = record(&tagger(&WORDS), &texts()).unwrap();
        assert_eq!((golden[0].mentions[0].begin, golden[0].mentions[0].end), (5, 10));
        write(&file, &golden).unwrap();
        let read = read(&file).unwrap().unwrap();
        assert_eq!(read, golden);
        let report = check(&tagger(&WORDS), &read).unwrap();
        assert_eq!(report, Report { sentences: 3, mentions: 4, ..Report::default() });
        report.check(&Tolerance { score: 0.0, mentions: 0.0 }).unwrap();
    }

    #[test]
    fn another_model_is_told_by_its_mentions_and_scores() {
        let golden = record(&tagger(&WORDS), &texts()).unwrap();
        let report = check(&tagger(&[("BRCA1", "Gene"), ("breast", "Disease")]), &golden).unwrap();
        assert_eq!(report.missing, ["1:14-27 Disease \"breast cancer\"", "3:0-3 Gene \"p53\""]);
        assert_eq!(report.unexpected, ["1:14-20 Disease \"breast\""]);
        let told = report.check(&Tolerance::default()).unwrap_err();
        assert!(told.contains("2 of 4 golden mentions are missing and 1 are new"), "{told}");
        assert!(told.contains("golden.jsonl line 1:14-27 Disease \"breast cancer\", line 3:0-3 Gene"), "{told}");
        report.check(&Tolerance { mentions: 0.75, ..Tolerance::default() }).unwrap();

        let mut shifted = golden;
        shifted[2].mentions[0].score -= 0.2;
        let report = check(&tagger(&WORDS), &shifted).unwrap();
        let told = report.check(&Tolerance::default()).unwrap_err();
        assert!(told.contains("differs by 0.200") && told.ends_with("line 3:0-3 Gene \"p53\""), "{told}");
    }

    #[test]
    fn a_score_that_is_no_number_is_never_tolerated() {
        let mut report = Report { sentences: 1, ..Report::default() };
        let found = |score| Found { entity_type: "Gene".into(), begin: 0, end: 5, score };
        report.compare(1, "BRCA1.", &[found(0.9)], &[found(f32::NAN)]);
        let told = report.check(&Tolerance { score: f32::MAX, mentions: 1.0 }).unwrap_err();
        assert!(told.contains("no probabilities, the first at golden.jsonl line 1:0-5 Gene \"BRCA1\""), "{told}");
    }

    #[test]
    fn a_file_that_is_not_golden_is_refused_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(GOLDEN);
        for (text, said) in [
            ("{\"text\": \"a\", \"mentions\": []}\n{", "line 2"),
            ("{\"text\": \"a\", \"mentions\": [], \"more\": 1}", "line 1"),
            ("{\"text\": \"a\", \"mentions\": [{\"type\": \"T\", \"begin\": -1, \"end\": 2, \"score\": 1}]}", "line 1"),
        ] {
            std::fs::write(&file, text).unwrap();
            let message = read(&file).unwrap_err().to_string();
            assert!(message.contains(said) && message.contains(GOLDEN), "{message}");
        }
        std::fs::write(&file, [0xFF]).unwrap();
        assert!(read(&file).is_err());
    }
}
