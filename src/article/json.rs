//! JSON objects cut out of a stream: of arrays, arrays of arrays, known keys, or one after the other.
//!
//! Objects are cut out by their braces and parsed one at a time, so memory is bounded by the longest of them and
//! one of a wrong shape costs only itself.

use super::record::{Options, Position, Reason, RecordError};
use std::io::BufRead;

/// Keys whose arrays hold records: BioC's collections, and PubTator 3's export of it.
const RECORD_KEYS: [&[u8]; 2] = [b"documents", b"PubTator3"];
/// What is read nests about ten levels.
const MAX_DEPTH: usize = 64;

/// Parses an object; the id is set as soon as it is known, so that an error can name it.
pub type Parse<T> = fn(&[u8], &mut Option<String>) -> Result<T, Reason>;

/// Iterates over the records of an input.
pub struct JsonRecords<R, T> {
    reader: R,
    file: String,
    parse: Parse<T>,
    max_record_bytes: usize,
    offset: u64,
    ended: bool,
    /// Where the last record begins.
    position: u64,
    scan: Scan,
}

/// Where in the JSON the reader is.
#[derive(Default)]
struct Scan {
    /// The open brackets; an array of records is `D`.
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
                        return Err("nested too deeply");
                    }
                    let is_records = byte == b'[' && RECORD_KEYS.contains(&self.key.as_slice());
                    self.key.clear();
                    if is_records {
                        self.object = None; // it was a collection, not a record
                    }
                    // A record stands in an array of records, or in no object at all.
                    let begins =
                        byte == b'{' && self.open.iter().rev().find(|b| **b != b'[').is_none_or(|b| *b == b'D');
                    if begins && self.object.is_none() {
                        self.object = Some((offset, self.open.len(), Vec::new()));
                    }
                    self.open.push(if is_records { b'D' } else { byte });
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

/// An object as it was cut out of the stream.
struct Object {
    position: u64,
    /// `None` where it was too long.
    bytes: Option<Vec<u8>>,
}

impl<R: BufRead, T> JsonRecords<R, T> {
    /// `file` names the input in errors.
    pub fn new(reader: R, file: String, options: &Options, parse: Parse<T>) -> Self {
        Self {
            reader,
            file,
            parse,
            max_record_bytes: options.max_record_bytes,
            offset: 0,
            ended: false,
            position: 0,
            scan: Scan::default(),
        }
    }

    /// Where the last record begins.
    pub fn last_position(&self) -> Position {
        Position::Byte(self.position)
    }

    fn error(&self, position: u64, id: Option<String>, reason: Reason) -> RecordError {
        RecordError { file: self.file.clone(), position: Some(Position::Byte(position)), id, reason }
    }

    /// The next object; `None` at the end.
    fn next_object(&mut self) -> Result<Option<Object>, Reason> {
        loop {
            let available = self.reader.fill_buf()?;
            if available.is_empty() {
                self.ended = true;
                return match self.scan.open.is_empty() && !self.scan.in_string {
                    true => Ok(None),
                    false => Err(Reason::malformed("the input ends inside a record: it was cut off")),
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

impl<R: BufRead, T> Iterator for JsonRecords<R, T> {
    type Item = Result<T, RecordError>;

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
                Some((self.parse)(&bytes, &mut id).map_err(|reason| self.error(position, id, reason)))
            }
            Err(reason) => {
                self.ended = true;
                Some(Err(self.error(self.offset, None, reason)))
            }
        }
    }
}
