//! XML records: cut out of a stream (`split`), pulled apart with caps (`Record`), their markup turned
//! into text (`text`, `mathml`); `records` iterates over an input.

pub(crate) mod mathml;
pub(crate) mod records;
pub(crate) mod split;
pub(crate) mod text;

use super::record::{Options, Reason};
use quick_xml::errors::{Error as XmlError, IllFormedError};
use quick_xml::events::{BytesStart, Event};
use quick_xml::reader::Reader;
use std::borrow::Cow;

/// One record's XML, read node by node. Comments, processing instructions and document types are
/// passed over; nothing is fetched, and no entity but those of XML, HTML and character references is
/// resolved, so nothing can expand.
pub struct Record<'a> {
    reader: Reader<&'a [u8]>,
    depth: usize,
    max_depth: usize,
}

/// What an element consists of.
pub enum Node<'a> {
    /// A child element begins and is now the innermost open one.
    Start(BytesStart<'a>),
    /// Text, entities resolved.
    Text(Cow<'a, str>),
}

impl<'a> Record<'a> {
    /// A record's bytes, to be read from its outermost element on.
    pub fn new(bytes: &'a [u8], options: &Options) -> Result<Self, Reason> {
        let text = std::str::from_utf8(bytes).map_err(Reason::not_utf8)?;
        let illegal = |byte: u8| byte < b' ' && !matches!(byte, b'\t' | b'\n' | b'\r');
        // Folded over all bytes, so that it is vectorised.
        if text.bytes().fold(false, |found, byte| found | illegal(byte)) {
            let at = text.bytes().position(illegal).unwrap_or_default();
            let byte = text.as_bytes()[at];
            return Err(Reason::malformed(format!("control character 0x{byte:02X} at byte {at} of the record")));
        }
        let mut reader = Reader::from_str(text);
        reader.config_mut().expand_empty_elements = true;
        Ok(Self { reader, depth: 0, max_depth: options.max_xml_depth })
    }

    /// The record's outermost element, now open.
    pub fn root(&mut self) -> Result<BytesStart<'a>, Reason> {
        loop {
            match self.next_inside()? {
                Some(Node::Start(start)) => return Ok(start),
                Some(Node::Text(text)) if text.trim().is_empty() => {}
                _ => return Err(self.at_place("no element")),
            }
        }
    }

    /// The next node inside the innermost open element; `None` when that ends.
    pub fn next_inside(&mut self) -> Result<Option<Node<'a>>, Reason> {
        loop {
            let event = self.reader.read_event();
            return Ok(match event.map_err(|error| self.malformed(&error))? {
                Event::Start(start) => {
                    self.depth += 1;
                    if self.depth > self.max_depth {
                        return Err(Reason::TooDeep { limit: self.max_depth });
                    }
                    Some(Node::Start(start))
                }
                Event::End(_) => {
                    self.depth -= 1; // cannot underflow: an end tag too many is an error of the reader's
                    None
                }
                Event::Text(text) => Some(Node::Text(text.into_inner())),
                Event::CData(text) => Some(Node::Text(text.into_inner())),
                Event::GeneralRef(reference) => {
                    Some(Node::Text(resolve(&reference).map_err(|what| self.at_place(&what))?))
                }
                Event::Eof => return Err(self.at_place("ends inside an element")),
                Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) | Event::Empty(_) => continue,
            });
        }
    }

    /// The next child element of the innermost open one, text between children passed over; `None`
    /// when that ends. The child is then the innermost open element.
    pub fn next_child(&mut self) -> Result<Option<BytesStart<'a>>, Reason> {
        loop {
            match self.next_inside()? {
                Some(Node::Start(start)) => return Ok(Some(start)),
                Some(_) => {}
                None => return Ok(None),
            }
        }
    }

    /// Passes over the rest of the innermost open element, which is `start`.
    pub fn skip(&mut self, start: &BytesStart<'_>) -> Result<(), Reason> {
        self.depth -= 1;
        match self.reader.read_to_end(start.name()) {
            Ok(_) => Ok(()),
            Err(error) => Err(self.malformed(&error)),
        }
    }

    /// The text of the innermost open element, which is a plain value (an id, a date's part, a name):
    /// markup inside it is dropped, its text kept, whitespace collapsed and trimmed.
    pub fn value(&mut self) -> Result<String, Reason> {
        let mut value = text::TextBuilder::default();
        let mut open = 1;
        while open > 0 {
            match self.next_inside()? {
                Some(Node::Start(_)) => open += 1,
                Some(Node::Text(text)) => value.push(&text),
                None => open -= 1,
            }
        }
        Ok(value.finish())
    }

    /// The text of the innermost open element to the character (line ends as XML has them, `\n`).
    pub fn verbatim(&mut self) -> Result<String, Reason> {
        let mut text = String::new();
        while let Some(node) = self.next_inside()? {
            match node {
                Node::Text(part) if part.contains('\r') && part.len() > 1 => {
                    text.push_str(&part.replace("\r\n", "\n").replace('\r', "\n"));
                }
                Node::Text(part) => text.push_str(&part),
                Node::Start(_) => text.push_str(&self.verbatim()?),
            }
        }
        Ok(text)
    }

    /// An error about the place just read.
    pub(crate) fn at_place(&self, what: &str) -> Reason {
        Reason::malformed(format!("{what} (byte {} of the record)", self.reader.buffer_position()))
    }

    fn malformed(&self, error: &XmlError) -> Reason {
        let at = self.reader.error_position();
        let what = match error {
            XmlError::IllFormed(IllFormedError::UnclosedReference) => "an `&` that begins no entity".to_owned(),
            error => error.to_string(),
        };
        Reason::malformed(format!("not well-formed XML: {what} (byte {at} of the record)"))
    }
}

fn resolve<'a>(reference: &quick_xml::events::BytesRef<'a>) -> Result<Cow<'a, str>, String> {
    let is_text = |c: char| !c.is_control() || matches!(c, '\t' | '\n' | '\r' | '\u{80}'..='\u{9F}');
    match reference.resolve_char_ref() {
        Ok(Some(c)) if is_text(c) => Ok(Cow::Owned(c.to_string())),
        Ok(None) => match quick_xml::escape::resolve_html5_entity(reference) {
            Some(text) => Ok(Cow::Borrowed(text)),
            None => Err(format!("undefined entity `&{};`", reference.chars().take(40).collect::<String>())),
        },
        Ok(Some(_)) | Err(_) => Err(format!("`&{};` is no character of XML", &**reference)),
    }
}

/// The element's name without its namespace prefix.
pub fn local_name<'s>(start: &'s BytesStart<'_>) -> &'s str {
    let name = start.name().0;
    name.rsplit_once(':').map_or(name, |(_, local)| local)
}

/// An attribute's value, entities resolved; `None` where it is absent or not well-formed. `name`
/// includes the prefix (`xml:lang`).
pub fn attribute(start: &BytesStart<'_>, name: &str) -> Option<String> {
    let attribute = start.attributes().with_checks(false).flatten().find(|attribute| attribute.key.0 == name)?;
    let value =
        attribute.normalized_value_with(quick_xml::XmlVersion::Implicit1_0, 1, quick_xml::escape::resolve_html5_entity);
    value.ok().map(Cow::into_owned)
}
