//! The whole tagging path with a small random model: whatever the text, offsets are exact and a document's
//! mentions do not depend on its company.

#![allow(clippy::unwrap_used)] // the helpers of tests are tests

use futures::executor::block_on;
use futures::future::join_all;
use litflow::article::{Document, Passage, Section};
use litflow::model::device::{DeviceChoice, Precision};
use litflow::model::{self, Model};
use litflow::tagger::{Engine, Options, Tag, TaggedDocument};
use proptest::prelude::*;
use std::collections::HashSet;
use std::path::Path;
use std::sync::LazyLock;

fn engine(options: Options) -> Engine {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/bert/ner");
    let on_cpu = model::Options { device: DeviceChoice::Cpu, precision: Precision::Fp32 };
    Engine::start(Model::load(&directory, &on_cpu).unwrap(), &options).unwrap()
}

/// Its windows are 40 pieces long, so sentences of a few dozen words already take several.
static ENGINE: LazyLock<Engine> =
    LazyLock::new(|| engine(Options { threads: 2, window_overlap: 12, ..Options::default() }));

fn document(id: usize, texts: &[String]) -> Document {
    let passage = |text: &String| Passage { section: Section::Body, heading: None, language: None, text: text.clone() };
    Document { article_id: format!("pmid:{id}"), article_version: 1, passages: texts.iter().map(passage).collect() }
}

/// Prose with the characters that tokenizers and offset code trip over.
fn nasty_text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => "[a-zA-Z0-9]{1,9}",
        4 => Just(" ".to_owned()),
        1 => "[ \\t\\n\\r\\u{a0}\\u{2003}\\u{2028}\\u{85}]{1,3}",
        2 => "[.?!;:,]( [A-Z])?",
        1 => "[-()<>=/%+\\[\\]]",
        1 => "[éüïßñøİıſŁ]{1,3}",
        1 => "[\\u{300}-\\u{310}\\u{200b}\\u{200d}\\u{feff}\\u{fffd}\\u{0}\\u{7f}\\u{ad}\\u{e000}]{1,2}",
        1 => "[ﬁﬀ㎎½…中가각🧬𝒳𐐀👩🏽‍🔬]{1,2}",
        1 => any::<char>().prop_map(String::from),
    ];
    prop::collection::vec(piece, 0..120).prop_map(|pieces| pieces.concat())
}

/// All that is promised of a tagged document, checked on characters alone.
fn check(tagged: &TaggedDocument, texts: &[String]) -> Result<(), TestCaseError> {
    let passages: Vec<Vec<char>> = texts.iter().map(|text| text.chars().collect()).collect();
    let whole: Vec<char> = passages.join(&'\n');
    let unaltered: Vec<&String> = tagged.document.passages.iter().map(|passage| &passage.text).collect();
    prop_assert_eq!(unaltered, texts.iter().collect::<Vec<_>>());

    prop_assert_eq!(tagged.sentences.len(), texts.len());
    for (passage, sentences) in passages.iter().zip(&tagged.sentences) {
        prop_assert!(sentences.iter().all(|&(begin, end)| begin < end && end as usize <= passage.len()));
        prop_assert!(sentences.windows(2).all(|pair| pair[0].1 <= pair[1].0));
    }

    let ids: HashSet<&str> = tagged.mentions.iter().map(|mention| mention.id.as_str()).collect();
    prop_assert_eq!(ids.len(), tagged.mentions.len());
    for mention in &tagged.mentions {
        let passage = &passages[mention.passage as usize];
        let exact: String = passage[mention.begin as usize..mention.end as usize].iter().collect();
        prop_assert_eq!(&exact, &mention.text);
        let in_document: String =
            whole[mention.document_begin as usize..mention.document_end as usize].iter().collect();
        prop_assert_eq!(&in_document, &mention.text);
        prop_assert!(!mention.text.is_empty() && mention.text.trim() == mention.text);
        prop_assert!(ENGINE.entity_types().contains(&mention.entity_type));
        prop_assert!((0.0..=1.0).contains(&mention.score));
        let (begin, end) = tagged.sentences[mention.passage as usize][mention.sentence as usize];
        prop_assert!(begin <= mention.begin && mention.end <= end);
    }
    let places: Vec<_> = tagged.mentions.iter().map(|m| (m.passage, m.begin, m.end)).collect();
    prop_assert!(places.windows(2).all(|pair| pair[0] < pair[1]));
    prop_assert!(places.windows(2).all(|pair| pair[0].0 < pair[1].0 || pair[0].2 <= pair[1].1));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn every_text_comes_back_exact(
        documents in prop::collection::vec(prop::collection::vec(nasty_text(), 0..4), 1..6),
    ) {
        let tagged = documents.iter().enumerate().map(|(id, texts)| ENGINE.tag(document(id, texts)));
        for (tagged, texts) in block_on(join_all(tagged)).into_iter().zip(&documents) {
            check(&tagged.unwrap(), texts)?;
        }
    }
}

/// Some prose without end, from a fixed seed.
fn prose(seed: u64, words: usize) -> String {
    let vocabulary =
        ["BRCA1", "the", "of", "p53", "mutation", "in", "naïve", "cells", "α-synuclein", "was", "2.5", "mg"];
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut word = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let index = (state >> 33) as usize;
        (vocabulary[index % vocabulary.len()], (index / 64).is_multiple_of(9))
    };
    (0..words).map(|_| word()).map(|(word, ends)| format!("{word}{}", if ends { ". The " } else { " " })).collect()
}

#[test]
fn company_changes_nothing() {
    let documents: Vec<Document> = (0..60).map(|id| document(id, &[prose(id as u64, 8 * id + 3)])).collect();
    let alone: Vec<_> = documents.iter().map(|document| block_on(ENGINE.tag(document.clone())).unwrap()).collect();
    assert!(alone.iter().map(|tagged| tagged.mentions.len()).sum::<usize>() > 500);
    let reversed = documents.iter().rev().map(|document| ENGINE.tag(document.clone()));
    let mut together = block_on(join_all(reversed));
    together.reverse();
    for (alone, together) in alone.into_iter().zip(together) {
        let together = together.unwrap();
        // Scores may differ in their last digits, and what a document costs depends on its company.
        let found = |tagged: &TaggedDocument| {
            let mut tagged = TaggedDocument { compute_seconds: 0.0, ..tagged.clone() };
            tagged.mentions.iter_mut().for_each(|mention| mention.score = 0.0);
            tagged
        };
        assert_eq!(found(&alone), found(&together));
        for (one, other) in alone.mentions.iter().zip(&together.mentions) {
            assert!((one.score - other.score).abs() < 1e-4, "{one:?} {other:?}");
        }
    }
}

#[test]
fn a_window_longer_than_the_model_is_refused() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/bert/ner");
    let model = Model::load(&directory, &model::Options::default()).unwrap();
    let error = Engine::start(model, &Options { max_length: 41, ..Options::default() }).err().unwrap();
    let told = "tagger.max_length is 41, the model has 40 positions: lower it, or leave it at 0";
    assert_eq!(error.to_string(), told);
}
