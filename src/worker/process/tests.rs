use super::*;
use crate::article::event::MOST_PASSAGES;
use crate::article::{Document, Passage, RawDocument, Section};
use crate::bus::codec::Record as _;
use crate::tagger::{Dictionary, ModelRef};
use futures::executor::block_on;
use futures::future::BoxFuture;
use rdkafka::Timestamp;
use std::sync::Arc;

fn dictionary() -> Dictionary {
    Dictionary::new([("BRCA1", "Gene"), ("cancer", "Disease")]).unwrap()
}

fn limits() -> Limits {
    let outputs = [topics::ANNOTATIONS, "entities.Gene", "entities.Disease"].map(|topic| (topic, 100_000));
    let outputs = Arc::new(Outputs::with_limits(outputs));
    Limits { article: 1 << 20, output: 1 << 20, outputs, raw: article::Options::default(), claims: Arc::default() }
}

fn event(title: &str) -> ArticleEvent {
    let json = serde_json::json!({
        "id": "pmid:1", "version": 2, "op": "UPSERT", "ids": {}, "source": "test", "published": null,
        "revised": null, "language": null, "journal": null, "publication_types": [], "retracted": false,
        "mesh": [], "title": title, "passages": [], "raw": null,
    });
    serde_json::from_value(json).unwrap()
}

fn message(key: Option<&str>, value: Option<Vec<u8>>) -> OwnedMessage {
    let key = key.map(|key| key.as_bytes().to_vec());
    OwnedMessage::new(value, key, topics::ARTICLES.into(), Timestamp::CreateTime(1), 3, 14, None)
}

fn run(message: &OwnedMessage) -> Result<Output, Refusal> {
    run_with(message, &dictionary(), &limits())
}

fn run_with(message: &OwnedMessage, tagger: &dyn Tag, limits: &Limits) -> Result<Output, Refusal> {
    block_on(process(message, tagger, limits)).map_err(|failure| match failure {
        Failure::Refused(refusal) => refusal,
        Failure::Stopped(error) => panic!("{error}"),
        Failure::SchemaRegistry(error) => panic!("{error}"),
    })
}

fn reason(message: &OwnedMessage) -> &'static str {
    run(message).unwrap_err().reason
}

#[test]
fn an_article_becomes_its_annotations_and_a_record_a_mention() {
    let output = run(&message(Some("pmid:1"), Some(event("BRCA1 in cancer").encode().unwrap()))).unwrap();
    let topics: Vec<&str> = output.records.iter().map(|record| record.topic.as_str()).collect();
    assert_eq!(topics, [topics::ANNOTATIONS, "entities.Gene", "entities.Disease"]);
    assert!(output.records.iter().all(|record| record.key.as_deref() == Some(b"pmid:1")));
    let annotations = Annotations::decode(output.records[0].value.as_ref().unwrap()).unwrap();
    assert_eq!((annotations.article_version, annotations.mentions.len()), (2, 2));
    assert_eq!(annotations.source, SourceRecord { topic: "articles".into(), partition: 3, offset: 14 });
    let disease = EntityMention::decode(output.records[2].value.as_ref().unwrap()).unwrap();
    assert_eq!((disease.begin, disease.end, disease.text.as_str()), (9, 15, "cancer"));
    assert_eq!(disease.sentence_text.as_deref(), Some("BRCA1 in cancer"));
    assert_eq!(output.counts.mentions, BTreeMap::from([("Disease".into(), 1), ("Gene".into(), 1)]));
}

#[test]
fn deletions_retractions_and_tombstones_delete_the_state_and_nothing_else() {
    let deleted = ArticleEvent { op: Op::Delete, ..event("x") };
    let retracted = ArticleEvent { retracted: true, ..event("BRCA1") };
    for value in [Some(deleted.encode().unwrap()), Some(retracted.encode().unwrap()), None] {
        let output = run(&message(Some("pmid:1"), value)).unwrap();
        let [tombstone] = output.records.as_slice() else { panic!("{:?}", output.records) };
        assert_eq!(tombstone.topic, topics::ANNOTATIONS);
        assert_eq!((tombstone.key.as_deref(), tombstone.value.as_deref()), (Some(&b"pmid:1"[..]), None));
        assert_eq!(output.counts.tombstones, 1);
    }
}

#[test]
fn millions_of_passages_are_refused_before_they_fill_the_memory() {
    let nothing = Passage::new(Section::Body, "");
    let limits = Limits { article: 16 << 20, outputs: Arc::default(), ..limits() };
    let refused = |passages: usize| {
        let event = ArticleEvent { passages: vec![nothing.clone(); passages], ..event("BRCA1") };
        let refusal = run_with(&message(Some("pmid:1"), Some(event.encode().unwrap())), &dictionary(), &limits);
        refusal.map(|_| ()).map_err(|refusal| (refusal.reason, refusal.error))
    };
    assert_eq!(refused(100_000), Ok(()));
    let (reason, error) = refused(100_001).unwrap_err();
    assert_eq!(reason, "unreadable_document");
    assert!(error.contains("100001 passages, more than 100000 (max_passages)"), "{error}");
    // Here not even all of them are read.
    let (reason, error) = refused(MOST_PASSAGES + 1).unwrap_err();
    assert_eq!(reason, "malformed_avro");
    assert!(error.contains("more than 1048576 passages"), "{error}");
}

#[test]
fn bytes_that_are_no_article_are_refused_by_reason() {
    let good = event("BRCA1").encode().unwrap();
    let mut unknown = good.clone();
    unknown[4] ^= 0xFF;
    assert_eq!(reason(&message(Some("pmid:1"), Some(b"<xml/>".to_vec()))), "not_avro");
    assert_eq!(reason(&message(Some("pmid:1"), Some(unknown))), "unknown_schema");
    assert_eq!(reason(&message(Some("pmid:1"), Some(good[..good.len() - 1].to_vec()))), "malformed_avro");
    assert_eq!(reason(&message(Some("pmid:2"), Some(good.clone()))), "key_mismatch");
    assert_eq!(reason(&message(None, Some(good))), "key_mismatch");
    assert_eq!(reason(&message(None, None)), "key_mismatch");
}

#[test]
fn text_that_is_not_utf8_is_refused() {
    let mut bytes = event("BRCA1 in cancer").encode().unwrap();
    let at = bytes.windows(5).position(|window| window == b"BRCA1").unwrap();
    bytes[at] = 0xFF;
    assert_eq!(reason(&message(Some("pmid:1"), Some(bytes))), "malformed_avro");
}

#[test]
fn documents_that_cannot_be_read_are_refused() {
    let laughs = r#"<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]>
        <PubmedArticleSet><PubmedArticle>&b;</PubmedArticle></PubmedArticleSet>"#;
    for (content_type, bytes) in [
        ("application/vnd.pubmed+xml", laughs.as_bytes().to_vec()),
        ("application/vnd.pubmed+xml", "<a>".repeat(100_000).into_bytes()),
        ("application/jats+xml", b"<article><body>".to_vec()),
        ("text/plain", b"caf\xE9 au lait".to_vec()),
        ("image/png", b"\x89PNG".to_vec()),
    ] {
        let raw = Some(RawDocument::new(content_type, bytes));
        let event = ArticleEvent { raw, title: None, ..event("") };
        assert_eq!(reason(&message(Some("pmid:1"), Some(event.encode().unwrap()))), "unreadable_document");
    }
    for empty in [ArticleEvent { title: None, ..event("") }, event(""), event(" \n\t ")] {
        assert_eq!(reason(&message(Some("pmid:1"), Some(empty.encode().unwrap()))), "unreadable_document");
    }
}

#[test]
fn a_raw_document_is_read_by_the_worker() {
    let raw = Some(RawDocument::new("text/plain", "BRCA1 in cancer."));
    let event = ArticleEvent { raw, title: None, ..event("") };
    let output = run(&message(Some("pmid:1"), Some(event.encode().unwrap()))).unwrap();
    assert_eq!(output.counts.mentions.values().sum::<u64>(), 2);
}

#[test]
fn what_is_too_large_is_refused_and_says_so() {
    let large = message(Some("pmid:1"), Some(event(&"BRCA1 ".repeat(2_000)).encode().unwrap()));
    let refusal = run_with(&large, &dictionary(), &Limits { article: 1_000, ..limits() }).unwrap_err();
    assert_eq!((refusal.stage, refusal.reason), (Stage::Decode, "article_too_large"));
    let refusal = run(&large).unwrap_err();
    assert_eq!((refusal.stage, refusal.reason), (Stage::Encode, "output_too_large"));
    assert!(refusal.error.contains("annotations"), "{}", refusal.error);
    let refusal = run_with(&large, &dictionary(), &Limits { output: 500_000, outputs: Arc::default(), ..limits() });
    assert!(refusal.unwrap_err().error.contains("worker.output_max_bytes"));
}

#[test]
fn control_characters_and_long_sentences_keep_exact_offsets() {
    let title = format!("\u{0}\u{7}BRCA1\u{200B} \u{1F9EC} {} cancer", "word ".repeat(2_000));
    let output = run(&message(Some("pmid:1"), Some(event(&title).encode().unwrap()))).unwrap();
    let text: Vec<char> = title.chars().collect();
    for record in &output.records[1..] {
        let mention = EntityMention::decode(record.value.as_ref().unwrap()).unwrap();
        assert_eq!(text[mention.begin as usize..mention.end as usize].iter().collect::<String>(), mention.text);
        assert_eq!(mention.sentence_text, None, "too long to be repeated with each mention");
    }
    assert_eq!(output.records.len(), 3);
}

/// A tagger whose engine has gone.
struct Gone;

impl Tag for Gone {
    fn model(&self) -> Arc<ModelRef> {
        Arc::new(ModelRef { name: String::new(), version: String::new(), digest: String::new() })
    }

    fn entity_types(&self) -> Arc<[String]> {
        Arc::default()
    }

    fn tag(&self, _: Document) -> BoxFuture<'_, Result<TaggedDocument, tagger::Error>> {
        Box::pin(async { Err(tagger::Error::Stopped("out of memory".into())) })
    }
}

#[test]
fn a_stopped_engine_is_no_fault_of_the_article() {
    let message = message(Some("pmid:1"), Some(event("BRCA1").encode().unwrap()));
    let failure = block_on(process(&message, &Gone, &limits())).unwrap_err();
    assert!(matches!(failure, Failure::Stopped(_)));
}
