//! The records of an XML input: cut out of the stream, each parsed on its own.

use super::split::{Piece, Splitter};
use crate::article::format::root_element;
use crate::article::record::{Options, Position, Reason, RecordError};
use quick_xml::events::Event;
use regex::bytes::Regex;
use std::collections::VecDeque;
use std::io::Read;

/// What distinguishes one XML format from another, and what its records become.
pub(crate) struct Dialect<T> {
    /// The elements that are records; they must not nest.
    pub(crate) records: &'static [&'static str],
    /// Root elements that hold nothing but records (and what `header` allows before the first).
    pub(crate) wrappers: &'static [&'static str],
    /// Whether a wrapper may begin with other elements.
    pub(crate) header: bool,
    /// A record's items.
    pub(crate) parse: Parse<T>,
    /// Finds the id (group 1) in a record that cannot be parsed.
    pub(crate) id_pattern: &'static str,
}

/// Parses a record; the id is set as soon as it is known, so that an error can name it.
pub(crate) type Parse<T> = fn(&[u8], &Options, &mut Option<String>) -> Result<Vec<T>, Reason>;

/// Iterates over the items of one input's records.
pub(crate) struct XmlRecords<R, T: 'static> {
    splitter: Splitter<R>,
    dialect: &'static Dialect<T>,
    options: Options,
    file: String,
    id_pattern: Regex,
    /// The root element, where it is one of the dialect's wrappers.
    wrapper: Option<String>,
    wrapper_closed: bool,
    any_record: bool,
    ended: bool,
    /// Where the last record begins.
    position: u64,
    /// Items of a record that has more than one.
    queue: VecDeque<T>,
}

impl<R: Read, T> XmlRecords<R, T> {
    /// `head` is how the input begins; `file` names it in errors.
    pub(crate) fn new(source: R, file: String, dialect: &'static Dialect<T>, head: &[u8], options: &Options) -> Self {
        let root = std::str::from_utf8(head).ok().and_then(root_element);
        let wrapper = root.filter(|root| dialect.wrappers.contains(root)).map(str::to_owned);
        Self {
            splitter: Splitter::new(source, dialect.records, options),
            dialect,
            options: options.clone(),
            file,
            id_pattern: Regex::new(dialect.id_pattern).expect("the dialects' patterns are valid"),
            wrapper,
            wrapper_closed: false,
            any_record: false,
            ended: false,
            position: 0,
            queue: VecDeque::new(),
        }
    }

    /// Where the record of the last event begins.
    pub(crate) fn last_position(&self) -> Position {
        Position::Byte(self.position)
    }

    fn error(&self, position: u64, id: Option<String>, reason: Reason) -> RecordError {
        RecordError { file: self.file.clone(), position: Some(Position::Byte(position)), id, reason }
    }

    /// The id of a record that cannot be parsed, where it is to be found.
    fn find_id(&self, bytes: &[u8]) -> Option<String> {
        let id = self.id_pattern.captures(bytes)?.get(1)?;
        Some(String::from_utf8_lossy(id.as_bytes()).into_owned())
    }

    /// What is wrong with the input as a whole, now that it has ended.
    fn at_end(&self) -> Option<RecordError> {
        let reason = match &self.wrapper {
            Some(root) if !self.wrapper_closed => {
                Reason::malformed(format!("the input ends before </{root}>: it was cut off"))
            }
            None if !self.any_record => {
                Reason::Format(format!("has no <{}> element", self.dialect.records.join("> or <")))
            }
            _ => return None,
        };
        Some(self.error(self.splitter.offset(), None, reason))
    }

    /// Says what stands where only records should; a record with a misspelt start tag stands there too.
    fn check_gap(&mut self, bytes: &[u8]) -> Result<(), Reason> {
        let Some(wrapper) = &self.wrapper else { return Ok(()) };
        let text = String::from_utf8_lossy(bytes);
        let mut reader = quick_xml::reader::Reader::from_str(&text);
        reader.config_mut().check_end_names = false;
        reader.config_mut().allow_unmatched_ends = true;
        let is_header = self.dialect.header && !self.any_record;
        loop {
            let stray = match reader.read_event() {
                Ok(Event::Eof) => return Ok(()),
                Ok(Event::End(end)) if end.name().0 == wrapper => {
                    self.wrapper_closed = true;
                    continue;
                }
                Ok(Event::Start(start)) if start.name().0 == wrapper => continue,
                Ok(Event::Empty(start)) if start.name().0 == wrapper => {
                    self.wrapper_closed = true;
                    continue;
                }
                Ok(Event::Text(text)) if text.trim().is_empty() => continue,
                Ok(Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_)) => continue,
                _ if is_header => continue,
                Ok(Event::Start(start) | Event::Empty(start)) => format!("<{}>", start.name().0),
                Ok(Event::End(end)) => format!("</{}>", end.name().0),
                Ok(Event::Text(text)) => text.trim().to_owned(),
                Ok(_) | Err(_) => "something that is not XML".to_owned(),
            };
            let shown: String = stray.chars().take(60).collect();
            return Err(Reason::malformed(format!("{shown} where a record should stand")));
        }
    }
}

impl<R: Read, T> Iterator for XmlRecords<R, T> {
    type Item = Result<T, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(item) = self.queue.pop_front() {
                return Some(Ok(item));
            }
            if self.ended {
                return None;
            }
            match self.splitter.next_piece() {
                Ok(None) => {
                    self.ended = true;
                    return self.at_end().map(Err);
                }
                Ok(Some(Piece::Gap { position, bytes })) => {
                    if let Err(reason) = self.check_gap(&bytes) {
                        return Some(Err(self.error(position, None, reason)));
                    }
                }
                Ok(Some(Piece::Record { position, bytes })) => {
                    self.any_record = true;
                    self.position = position;
                    let mut id = None;
                    match (self.dialect.parse)(&bytes, &self.options, &mut id) {
                        Ok(items) => self.queue.extend(items),
                        Err(reason) => {
                            let id = id.or_else(|| self.find_id(&bytes));
                            return Some(Err(self.error(position, id, reason)));
                        }
                    }
                }
                Ok(Some(Piece::Broken { position, begin, reason })) => {
                    self.any_record = true;
                    // Nothing more is said of an input that was cut off inside a record.
                    self.wrapper_closed |= self.splitter.is_at_end();
                    return Some(Err(self.error(position, self.find_id(&begin), reason)));
                }
                Err(error) => {
                    self.ended = true;
                    return Some(Err(self.error(self.splitter.offset(), None, error.into())));
                }
            }
        }
    }
}
