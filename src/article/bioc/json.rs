//! BioC JSON: a collection, a list of collections, PubTator 3's export, or documents one after the other.
//!
//! Documents are cut out of the stream by their braces and parsed one at a time, so memory is bounded
//! by the longest document and one of a wrong shape costs only itself.

use super::{BiocDocument, BiocPassage};
use crate::article::ArticleEvent;
use crate::article::record::{Options, Position, Reason, RecordError, with_content};
use serde::Deserialize;
use serde_json::Value;
use std::collections::HashMap;
use std::io::BufRead;

/// Keys whose arrays hold documents.
const DOCUMENT_KEYS: [&[u8]; 2] = [b"documents", b"PubTator3"];
/// BioC JSON nests about ten levels.
const MAX_DEPTH: usize = 64;

/// Iterates over the documents of an input.
pub(crate) struct JsonDocuments<R> {
    reader: R,
    file: String,
    max_record_bytes: usize,
    offset: u64,
    ended: bool,
    /// Where the last document begins.
    position: u64,
    scan: Scan,
}

/// Where in the JSON the reader is.
#[derive(Default)]
struct Scan {
    /// The open brackets; an array of documents is `D`.
    open: Vec<u8>,
    in_string: bool,
    escaped: bool,
    /// The last string's first bytes: the key, when a colon follows.
    string: Vec<u8>,
    key: Vec<u8>,
    /// The object being cut out: where it begins, how deep, its bytes.
    object: Option<(u64, usize, Vec<u8>)>,
}

/// Longer than any key that is looked for.
const MAX_KEY: usize = 16;

impl Scan {
    /// Takes one byte; says whether it ends the object being cut out.
    fn step(&mut self, byte: u8, offset: u64) -> Result<bool, &'static str> {
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ if self.string.len() < MAX_KEY => self.string.push(byte),
                _ => {}
            }
        } else {
            match byte {
                b'"' => {
                    self.in_string = true;
                    self.string.clear();
                }
                b':' => self.key = std::mem::take(&mut self.string),
                b'{' | b'[' => {
                    if self.open.len() >= MAX_DEPTH {
                        return Err("nested too deeply for BioC");
                    }
                    let is_documents = byte == b'[' && DOCUMENT_KEYS.contains(&self.key.as_slice());
                    self.key.clear();
                    if is_documents {
                        self.object = None; // it was a collection, not a document
                    }
                    // A document stands in an array of documents, or in no object at all.
                    let begins =
                        byte == b'{' && self.open.iter().rev().find(|b| **b != b'[').is_none_or(|b| *b == b'D');
                    if begins && self.object.is_none() {
                        self.object = Some((offset, self.open.len(), Vec::new()));
                    }
                    self.open.push(if is_documents { b'D' } else { byte });
                }
                b'}' | b']' => {
                    let opening = self.open.pop().ok_or("a bracket too many")?;
                    if (byte == b'}') != (opening == b'{') {
                        return Err("brackets do not match");
                    }
                    return Ok(self.object.as_ref().is_some_and(|(_, depth, _)| *depth == self.open.len()));
                }
                _ => {}
            }
        }
        Ok(false)
    }
}

/// A document as it was cut out of the stream.
struct Object {
    position: u64,
    /// `None` where it was too long.
    bytes: Option<Vec<u8>>,
}

impl<R: BufRead> JsonDocuments<R> {
    /// `file` names the input in errors.
    pub(crate) fn new(reader: R, file: String, options: &Options) -> Self {
        Self {
            reader,
            file,
            max_record_bytes: options.max_record_bytes,
            offset: 0,
            ended: false,
            position: 0,
            scan: Scan::default(),
        }
    }

    /// Where the last document begins.
    pub(crate) fn last_position(&self) -> Position {
        Position::Byte(self.position)
    }

    fn error(&self, position: u64, id: Option<String>, reason: Reason) -> RecordError {
        RecordError { file: self.file.clone(), position: Some(Position::Byte(position)), id, reason }
    }

    /// The next document; `None` at the end.
    fn next_object(&mut self) -> Result<Option<Object>, Reason> {
        loop {
            let available = self.reader.fill_buf()?;
            if available.is_empty() {
                self.ended = true;
                return match self.scan.open.is_empty() && !self.scan.in_string {
                    true => Ok(None),
                    false => Err(Reason::malformed("the input ends inside a document: it was cut off")),
                };
            }
            let (mut used, mut ended) = (0, false);
            for byte in available {
                ended = self.scan.step(*byte, self.offset).map_err(Reason::malformed)?;
                self.offset += 1;
                used += 1;
                if let Some((_, _, bytes)) = &mut self.scan.object
                    && bytes.len() <= self.max_record_bytes
                {
                    bytes.push(*byte);
                }
                if ended {
                    break;
                }
            }
            self.reader.consume(used);
            if ended && let Some((position, _, bytes)) = self.scan.object.take() {
                let bytes = Some(bytes).filter(|bytes| bytes.len() <= self.max_record_bytes);
                return Ok(Some(Object { position, bytes }));
            }
        }
    }
}

impl<R: BufRead> Iterator for JsonDocuments<R> {
    type Item = Result<ArticleEvent, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        match self.next_object() {
            Ok(None) => None,
            Ok(Some(Object { position, bytes: None })) => {
                Some(Err(self.error(position, None, Reason::TooLong { limit: self.max_record_bytes })))
            }
            Ok(Some(Object { position, bytes: Some(bytes) })) => {
                self.position = position;
                let mut id = None;
                Some(parse(&bytes, &mut id).and_then(with_content).map_err(|reason| self.error(position, id, reason)))
            }
            Err(reason) => {
                self.ended = true;
                Some(Err(self.error(self.offset, None, reason)))
            }
        }
    }
}

#[derive(Deserialize)]
struct JsonDocument {
    id: Option<Value>,
    #[serde(default)]
    infons: HashMap<String, Value>,
    passages: Vec<JsonPassage>,
}

#[derive(Deserialize)]
struct JsonPassage {
    #[serde(default)]
    infons: HashMap<String, Value>,
    text: Option<String>,
    #[serde(default)]
    sentences: Vec<JsonSentence>,
}

#[derive(Deserialize)]
struct JsonSentence {
    #[serde(default)]
    text: String,
}

fn parse(bytes: &[u8], id: &mut Option<String>) -> Result<ArticleEvent, Reason> {
    let document: JsonDocument = serde_json::from_slice(bytes).map_err(|error| Reason::malformed(error.to_string()))?;
    let document_id = document.id.map(scalar).unwrap_or_default();
    if document_id.is_empty() {
        return Err(Reason::malformed("the document has no id"));
    }
    *id = Some(document_id.clone());
    let texts = |infons: HashMap<String, Value>| infons.into_iter().map(|(key, value)| (key, scalar(value))).collect();
    let passages = document.passages.into_iter().map(|passage| BiocPassage {
        infons: texts(passage.infons),
        text: passage.text.filter(|text| !text.is_empty()).unwrap_or_else(|| {
            let sentences: Vec<_> = passage.sentences.into_iter().map(|sentence| sentence.text).collect();
            sentences.join(" ")
        }),
    });
    Ok(BiocDocument { id: document_id, infons: texts(document.infons), passages: passages.collect() }.into_event())
}

/// A string or number as text; anything else is none.
fn scalar(value: Value) -> String {
    match value {
        Value::String(text) => text,
        Value::Number(number) => number.to_string(),
        _ => String::new(),
    }
}
