//! Article formats: each record is an article or an error that says why. However the bytes arrive, the articles are
//! the same; they survive the bus; sentences and offsets tile their texts.

use crate::memory::{FIXED, bounded};
use litflow::article::{ArticleEvent, Format, Options, RecordError, read_events};
use litflow::bus::codec::Record as _;
use litflow::text::{CodePoints, sentences};
use std::io::{BufReader, Cursor, Read};

/// Smaller than in production, so that inputs of some kilobytes meet them.
fn options() -> Options {
    Options { max_record_bytes: 16 << 10, max_xml_depth: 64, max_passages: 500 }
}

/// PubMed citations.
pub fn pubmed(bytes: &[u8]) {
    check(bytes, Format::Pubmed);
}

/// JATS articles.
pub fn jats(bytes: &[u8]) {
    check(bytes, Format::Jats);
}

/// PubTator documents.
pub fn pubtator(bytes: &[u8]) {
    check(bytes, Format::Pubtator);
}

/// BioC collections in XML.
pub fn bioc_xml(bytes: &[u8]) {
    check(bytes, Format::Bioc);
}

/// BioC collections in JSON.
pub fn bioc_json(bytes: &[u8]) {
    check(bytes, Format::Bioc);
}

/// JSON lines.
pub fn jsonl(bytes: &[u8]) {
    check(bytes, Format::Jsonl);
}

/// A plain text.
pub fn text(bytes: &[u8]) {
    check(bytes, Format::Text);
}

fn check(bytes: &[u8], format: Format) {
    let articles = bounded(bytes.len(), FIXED, || read(Cursor::new(bytes.to_vec()), format));
    // Some bytes at a time: a record, a tag, a character may end anywhere.
    let trickled = read(BufReader::with_capacity(PIECE, Trickle(Cursor::new(bytes.to_vec()))), format);
    assert_eq!(articles, trickled, "the articles depend on how the bytes arrive");
    for article in articles.into_iter().flatten() {
        check_article(article, bytes.len());
    }
}

/// The articles and the messages of the errors among them.
fn read(bytes: impl std::io::BufRead + Send + 'static, format: Format) -> Vec<Result<ArticleEvent, String>> {
    let message = |error: RecordError| {
        let message = error.to_string();
        assert!(!message.is_empty() && message.len() < 4_000, "a message of {} bytes: {message}", message.len());
        message
    };
    match read_events(bytes, format, "text:fuzz", &options()) {
        Ok(events) => events.map(|event| event.map_err(message)).collect(),
        Err(reason) => vec![Err(reason.to_string())],
    }
}

/// Bytes that come at a time: a prime, so that pieces end everywhere.
const PIECE: usize = 101;

struct Trickle(Cursor<Vec<u8>>);

impl Read for Trickle {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = buffer.len().min(PIECE);
        self.0.read(&mut buffer[..length])
    }
}

fn check_article(article: ArticleEvent, input: usize) {
    assert!(article.id.contains(':'), "the id {:?} is no CURIE", article.id);
    let encoded = article.encode().expect("what was read fits its schema");
    assert_eq!(ArticleEvent::decode(&encoded).expect("what was written can be read"), article);

    let document = article.into_document();
    let texts: usize = document.passages.iter().map(|passage| passage.text.len()).sum();
    // Markup becomes no more than separators between the words.
    assert!(texts <= 2 * input + 64, "{input} bytes became {texts} bytes of text");
    for (passage, offset) in document.passages.iter().zip(document.passage_offsets()) {
        assert!((offset as usize) <= texts + document.passages.len());
        check_text(&passage.text);
    }
}

/// Sentences lie one after the other, hold all that is no white space, and are found again by their offsets.
fn check_text(text: &str) {
    let code_points = CodePoints::new(text);
    assert_eq!(code_points.len() as usize, text.chars().count());
    let mut end = 0;
    for sentence in sentences(text) {
        assert!(sentence.start >= end && sentence.end > sentence.start, "{sentence:?} after {end}");
        assert!(text[end..sentence.start].trim().is_empty(), "text between sentences");
        let exact = &text[sentence.clone()];
        assert_eq!(exact.trim(), exact, "white space at a sentence's end");
        let (from, to) = code_points.span(&sentence);
        assert_eq!(code_points.slice(from, to), Some(exact));
        end = sentence.end;
    }
    assert!(text[end..].trim().is_empty(), "text after the last sentence");
}
