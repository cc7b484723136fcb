use super::*;
use crate::error::Error;
use crate::labels::{Corpus, Entry, LeftOut};
use litflow::article::{Passage, Section};
use proptest::prelude::*;

/// A title of 11 code points and a body; document offsets 0 and 12.
fn document(annotations: Vec<Annotation>) -> SourceDocument {
    let passages =
        vec![Passage::new(Section::Title, "α TP53 mice"), Passage::new(Section::Body, "Breast and ovary cancer cells")];
    SourceDocument { id: "x:1".into(), offsets: vec![0, 12], passages, annotations, ..SourceDocument::default() }
}

fn annotation(entity_type: &str, fragments: &[(u32, u32)], text: &str) -> Annotation {
    Annotation {
        entity_type: entity_type.into(),
        fragments: fragments.iter().map(|&(begin, end)| begin..end).collect(),
        text: Some(text.into()),
        joint: " ".into(),
        identifiers: Vec::new(),
    }
}

/// The documents, what was left out, and the entries.
fn read(sources: Vec<SourceDocument>, scheme: Scheme) -> (Vec<LabeledDocument>, LeftOut, Vec<Entry>) {
    let mut entries = Vec::new();
    let mut list = |entry: &Entry| entries.push(entry.clone());
    let mut quarantine = Quarantine::listing(&mut list);
    let mut corpus = Corpus::new(scheme);
    for source in sources {
        corpus.add_document("file".into(), source, &mut quarantine).unwrap();
    }
    let mut documents = Vec::new();
    let keep = |document, _: &mut Quarantine| {
        documents.push(document);
        Ok::<_, Error>(())
    };
    corpus.finish(&mut quarantine, keep).unwrap();
    let left_out = quarantine.counts().clone();
    (documents, left_out, entries)
}

fn spans(document: &LabeledDocument) -> Vec<(u32, u32, u32, &str)> {
    document.spans.iter().map(|span| (span.passage, span.begin, span.end, span.text.as_str())).collect()
}

#[test]
fn what_is_wrong_is_quarantined_and_its_place_left_open() {
    let bad = [
        annotation("Gene", &[(2, 5)], "TP53"),
        annotation("Gene", &[(2, 2)], ""),
        annotation("Gene", &[(30, 90)], "cancer cells"),
        annotation("Species", &[(7, 18)], "mice Breast"),
        annotation("Gene", &[(11, 12)], " "),
        annotation("Gene", &[], ""),
        annotation("Gene", &[(900, 905)], "p53"),
        annotation(" ", &[(7, 11)], "mice"),
    ];
    let good = annotation("Gene", &[(2, 6)], "TP53");
    let sources = vec![document(bad.into_iter().chain([good]).collect())];
    let (documents, left_out, entries) = read(sources, Scheme::default());
    assert_eq!(spans(&documents[0]), [(0, 2, 6, "TP53")]);
    assert_eq!(left_out.count(Cause::TextDiffers), 1);
    assert_eq!(left_out.count(Cause::AcrossPassages), 1);
    assert_eq!(left_out.count(Cause::OutsideText), 5);
    assert_eq!(left_out.count(Cause::UnknownType), 1, "an annotation without a type");
    assert_eq!(entries[0].to_string(), "file, document x:1: Gene 2-5 \"TP53\": the text there is \"TP5\"");
    assert!(entries[1].reason.ends_with("an empty span") && entries[2].reason.ends_with("the text ends at 41"));
    assert!(entries[4].reason.ends_with("lies between two passages"), "{}", entries[4].reason);
    let open: Vec<_> = documents[0].open.iter().map(|open| (open.passage, open.begin, open.end)).collect();
    assert_eq!(open, [(0, 2, 5), (0, 7, 11), (1, 0, 6), (1, 18, 29)]);
}

#[test]
fn a_document_without_text_and_a_type_that_was_not_looked_for() {
    let empty =
        SourceDocument { passages: vec![Passage::new(Section::Title, " \n")], offsets: vec![0], ..document(vec![]) };
    let stranger = document(vec![annotation("Gnee", &[(2, 6)], "TP53"), annotation("Species", &[(7, 11)], "mice")]);
    let scheme = Scheme { types: Some(vec!["Gene".into(), "Species".into()]), ..Scheme::default() };
    let (documents, left_out, _) = read(vec![empty, SourceDocument { id: "x:2".into(), ..stranger }], scheme);
    assert_eq!((left_out.count(Cause::EmptyDocument), left_out.count(Cause::UnknownType)), (1, 1));
    assert_eq!(documents.len(), 1);
    assert_eq!(documents[0].entity_types, ["Gene", "Species"]);
    assert_eq!(documents[0].open, [OpenSpan { passage: 0, begin: 2, end: 6 }]);
}

#[test]
fn types_are_renamed_left_open_or_not_learned() {
    let source = document(vec![
        annotation("Protein", &[(2, 6)], "TP53"),
        annotation("Domain", &[(7, 11)], "mice"),
        annotation("Tissue", &[(12, 18)], "Breast"),
    ]);
    let rename = [("Protein", "Gene"), ("Domain", "")].map(|(from, to)| (from.to_owned(), to.to_owned()));
    let scheme = Scheme { rename: rename.into(), only: vec!["Gene".into()], ..Scheme::default() };
    let (documents, left_out, _) = read(vec![source], scheme);
    assert!(left_out.is_empty());
    assert_eq!(documents[0].entity_types, ["Gene"]);
    assert_eq!(documents[0].spans.len(), 1);
    assert_eq!(documents[0].open, [OpenSpan { passage: 0, begin: 7, end: 11 }]);
}

/// "Breast … cancer" and "ovary cancer" of one noun phrase.
#[test]
fn mentions_in_fragments_become_what_the_policy_says() {
    let source = || document(vec![annotation("Disease", &[(29, 35), (12, 18)], "cancer Breast")]);
    for (discontinuous, expected) in [
        (Discontinuous::FillGap, vec![(1, 0, 23, "Breast and ovary cancer")]),
        (Discontinuous::FirstFragment, vec![(1, 0, 6, "Breast")]),
        (Discontinuous::DropGap, vec![(1, 0, 6, "Breast"), (1, 17, 23, "cancer")]),
    ] {
        let (documents, left_out, _) = read(vec![source()], Scheme { discontinuous, ..Scheme::default() });
        assert!(left_out.is_empty());
        assert_eq!(spans(&documents[0]), expected);
    }
    // With nothing but white space between them, fragments are one stretch; in two passages they cannot be.
    let touching = document(vec![annotation("Disease", &[(23, 28), (29, 35)], "ovary cancer")]);
    let scheme = || Scheme { discontinuous: Discontinuous::FirstFragment, ..Scheme::default() };
    assert_eq!(spans(&read(vec![touching], scheme()).0[0]), [(1, 11, 23, "ovary cancer")]);
    let apart = document(vec![annotation("Disease", &[(7, 11), (12, 18)], "mice Breast")]);
    let (documents, left_out, _) = read(vec![apart], Scheme::default());
    assert_eq!((documents[0].spans.len(), left_out.count(Cause::AcrossPassages)), (0, 1));
}

#[test]
fn of_spans_that_overlap_the_longest_stays_or_none() {
    let source = || {
        document(vec![
            annotation("Disease", &[(29, 35)], "cancer"),
            annotation("Disease", &[(23, 35)], "ovary cancer"),
            annotation("Cell", &[(29, 41)], "cancer cells"),
            annotation("Tissue", &[(12, 18)], "Breast"),
            annotation("Tissue", &[(12, 18)], "Breast"),
        ])
    };
    let (documents, left_out, entries) = read(vec![source()], Scheme::default());
    assert_eq!(spans(&documents[0]), [(1, 0, 6, "Breast"), (1, 11, 23, "ovary cancer")]);
    assert_eq!(left_out.count(Cause::Overlap), 2);
    assert!(
        entries[0].reason.contains("overlaps Disease 11-23 of passage 1 \"ovary cancer\""),
        "{}",
        entries[0].reason
    );
    let (documents, left_out, _) = read(vec![source()], Scheme { overlap: Overlap::Refuse, ..Scheme::default() });
    assert_eq!(spans(&documents[0]), [(1, 0, 6, "Breast")]);
    assert_eq!(left_out.count(Cause::Overlap), 3);
    assert_eq!(documents[0].open, [OpenSpan { passage: 1, begin: 11, end: 29 }]);
}

#[test]
fn copies_add_types_and_what_they_differ_on_is_quarantined() {
    let by = |name: &str, annotations| SourceDocument { annotator: Some(name.into()), ..document(annotations) };
    let gene = || annotation("Gene", &[(2, 6)], "TP53");
    let first = by("a", vec![gene()]);
    let second = by("b", vec![annotation("Gene", &[(0, 6)], "α TP53"), annotation("Species", &[(7, 11)], "mice")]);
    let third = by("c", vec![gene()]);
    let mut other_text = by("d", vec![]);
    other_text.passages[1].text.push('!');
    let (documents, left_out, entries) = read(vec![first, second, third, other_text], Scheme::default());
    assert_eq!(documents.len(), 1);
    assert_eq!(spans(&documents[0]), [(0, 2, 6, "TP53"), (0, 7, 11, "mice")]);
    assert_eq!((documents[0].annotator.as_str(), documents[0].entity_types.len()), ("a+b", 2));
    assert_eq!((left_out.count(Cause::Conflict), left_out.count(Cause::DifferingText)), (1, 1));
    assert!(entries[0].reason.contains("Gene: 2 spans differ from those of a"), "{}", entries[0].reason);
}

#[test]
fn words_are_left_open_for_an_annotator() {
    let source = SourceDocument { annotator: Some("SPECIES".into()), ..document(vec![]) };
    let open = vec![OpenWords { files: vec!["SPECIES".into()], words: vec!["mice".into(), "breast".into()] }];
    let (documents, _, _) = read(vec![source], Scheme { open, ..Scheme::default() });
    let open: Vec<_> = documents[0].open.iter().map(|open| (open.passage, open.begin, open.end)).collect();
    assert_eq!(open, [(0, 7, 11), (1, 0, 6)]);
}

/// A hostile document costs time and memory in proportion to its size.
#[test]
fn a_hundred_thousand_overlapping_spans_are_settled_quickly() {
    const COUNT: u32 = 100_000;
    let started = std::time::Instant::now();
    let settle = |end: fn(u32) -> u32| {
        let span = |begin: u32| Annotation { fragments: vec![begin..end(begin)], ..annotation("A", &[], "") };
        let annotations = (0..COUNT).map(|begin| Annotation { text: None, ..span(begin) }).collect();
        let text = SourceDocument::of_text("x:1".into(), "x".repeat(COUNT as usize + 500));
        read(vec![SourceDocument { annotations, ..text }], Scheme::default())
    };
    let (documents, left_out, _) = settle(|begin| begin + 500);
    assert_eq!((documents[0].spans.len(), left_out.count(Cause::Overlap)), (200, 99_800));
    let (documents, left_out, _) = settle(|_| COUNT + 400);
    assert_eq!((documents[0].spans.len() as u64, left_out.count(Cause::TooLong)), (1, 99_400));
    assert!(started.elapsed().as_secs() < 60, "{:?}", started.elapsed());
}

proptest! {
    /// Whatever a source says: spans are disjoint, select their text, and nothing vanishes uncounted.
    #[test]
    fn what_comes_out_is_sound(
        places in prop::collection::vec(((0u32..45, 0u32..45), 0usize..3), 0..20),
        refuse in any::<bool>(),
    ) {
        let types = ["Gene", "Disease", "Cell"];
        let annotations = places.iter().map(|&((begin, end), of)| Annotation {
            entity_type: types[of].into(),
            fragments: vec![begin..end],
            ..Annotation::default()
        });
        let overlap = if refuse { Overlap::Refuse } else { Overlap::Longest };
        let source = document(annotations.collect());
        let distinct: BTreeSet<_> = places.iter().copied().collect();
        let (documents, left_out, entries) = read(vec![source.clone()], Scheme { overlap, ..Scheme::default() });
        let found = &documents[0];
        for span in &found.spans {
            let text: Vec<char> = found.passages[span.passage as usize].text.chars().collect();
            prop_assert_eq!(&text[span.begin as usize..span.end as usize].iter().collect::<String>(), &span.text);
        }
        for pair in found.spans.windows(2) {
            prop_assert!(pair[0].passage < pair[1].passage || pair[0].end <= pair[1].begin);
        }
        let wrong: BTreeSet<_> = entries.iter().filter(|entry| entry.cause != Cause::Overlap).map(|entry| &entry.reason).collect();
        let overlapping = left_out.count(Cause::Overlap) as usize;
        prop_assert_eq!(found.spans.len() + overlapping + wrong.len(), distinct.len());
        // Settled labels are left as they are.
        let again = read(vec![found.clone().into()], Scheme { overlap, ..Scheme::default() });
        prop_assert_eq!(&again.0[0], found);
        prop_assert!(again.1.is_empty());
    }
}
