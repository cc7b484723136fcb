//! CoNLL: a token and its tag a line, a blank line after each sentence.
//!
//! ```text
//! # newdoc id = pmid:12345
//! BRCA1⇥B-Gene
//! mutations⇥O
//!
//! ```
//!
//! The first column is the token, the last one the tag; columns are separated by tabs, or, in a line without one, by
//! spaces. Tags are read as BIO, also where a mention begins with `I-` (IOB1) or ends with `E-` or `S-` (IOBES).
//!
//! **Text.** The format does not hold the text, so one is made: tokens joined by a space, except that there is none
//! before closing and after opening punctuation nor within numbers, and sentences by a line break. For a model the words are the same
//! either way; this way the text looks like the prose that it will tag, and is cut into the same sentences.
//!
//! **Documents.** They begin at `# newdoc id = …` or `-DOCSTART-` lines. In a file without any, such as that of
//! Europe PMC, each sentence is a document, and its id a digest of its text: it stays the same when lines are
//! added, and a sentence that is repeated is one document, so that no copy of it can stand on both sides of a
//! split.

use super::writer::{Losses, spans_of};
use super::{Annotation, Documents, SourceDocument};
use litflow::article::input::Input;
use litflow::article::lines::Lines;
use litflow::article::{Options, Position, Reason, RecordError, article_id};
use litflow::bus::records::{GoldSpan, LabeledDocument};
use litflow::text::{CodePoints, sentences};
use sha2::{Digest, Sha256};
use std::collections::VecDeque;
use std::io::{self, BufRead, Write};

const DOCUMENT_MARK: &str = "-DOCSTART-";
const DOCUMENT_ID: &str = "# newdoc id =";

/// A tag without its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Begin,
    Inside,
}

/// A token and what its tag says: where in a mention of which type it stands.
struct Token<'a> {
    text: &'a str,
    mention: Option<(Place, &'a str)>,
}

/// The token of a line; `None` where the line is none.
fn parse(line: &str) -> Option<Token<'_>> {
    let separator = if line.contains('\t') { '\t' } else { ' ' };
    let (text, rest) = line.split_once(separator)?;
    let tag = rest.rsplit(separator).next().unwrap_or(rest).trim();
    let mention = match tag.split_once('-') {
        _ if tag == "O" => None,
        Some((_, "")) => return None,
        Some(("B" | "S" | "U", name)) => Some((Place::Begin, name)),
        Some(("I" | "E" | "L", name)) => Some((Place::Inside, name)),
        _ => return None,
    };
    let is_word = !text.is_empty() && !text.chars().any(char::is_whitespace);
    is_word.then_some(Token { text, mention })
}

/// Whether a line is one of this format: its token.
pub(super) fn token(line: &str) -> Option<&str> {
    parse(line).map(|token| token.text)
}

/// Reads documents; a sentence with a line that is none of the format's is left out.
pub(super) fn read(input: Input, file: String, limits: &Options) -> Documents {
    let lines = Lines::new(input.reader, limits.max_record_bytes);
    let max_bytes = limits.max_record_bytes;
    Box::new(Reader { lines, file, max_bytes, document: None, ready: VecDeque::new(), ended: false })
}

struct Reader<R> {
    lines: Lines<R>,
    file: String,
    max_bytes: usize,
    /// The document that the file's marks have begun; none in a file without marks.
    document: Option<Builder>,
    ready: VecDeque<Result<SourceDocument, RecordError>>,
    ended: bool,
}

/// A document's text as it grows.
#[derive(Default)]
struct Builder {
    id: Option<String>,
    text: String,
    /// Code points of the text.
    length: u32,
    annotations: Vec<Annotation>,
    /// Whether the next token begins a sentence.
    at_start: bool,
    /// The type of the mention that the last token belongs to.
    inside: Option<String>,
}

impl Builder {
    /// Adds the lines of a sentence.
    fn push_sentence(&mut self, lines: &[String]) {
        self.at_start = true;
        self.inside = None;
        lines.iter().filter_map(|line| parse(line)).for_each(|token| self.push(&token));
    }

    fn push(&mut self, token: &Token<'_>) {
        let joint = match self.text.as_str() {
            "" => "",
            _ if self.at_start => "\n",
            text => joint(text, token.text),
        };
        self.at_start = false;
        self.text.push_str(joint);
        let begin = self.length + joint.len() as u32; // a joint is ASCII
        self.text.push_str(token.text);
        self.length = begin + token.text.chars().count() as u32;
        let Some((place, name)) = token.mention else {
            self.inside = None;
            return;
        };
        match self.annotations.last_mut() {
            Some(last) if place == Place::Inside && self.inside.as_deref() == Some(name) => {
                last.fragments[0].end = self.length;
            }
            _ => self.annotations.push(Annotation {
                entity_type: name.to_owned(),
                fragments: vec![begin..self.length],
                ..Annotation::default()
            }),
        }
        self.inside = Some(name.to_owned());
    }

    fn finish(self) -> SourceDocument {
        let id = self.id.map_or_else(
            || format!("conll:{}", &crate::dataset::hex(&Sha256::digest(&self.text))[..16]),
            |id| article_id("conll", &id),
        );
        SourceDocument { annotations: self.annotations, ..SourceDocument::of_text(id, self.text) }
    }
}

/// What stands between the text so far and a token: a space, but for punctuation that prose writes without one, and
/// within numbers (`0`, `.`, `05`).
fn joint(text: &str, next: &str) -> &'static str {
    let closes = |c: char| matches!(c, '.' | ',' | ';' | ':' | '?' | '!' | ')' | ']' | '}' | '%' | '’' | '”');
    let opens = |c: char| matches!(c, '(' | '[' | '{' | '“' | '‘');
    let mut before = text.chars().rev();
    let (last, last_but_one) = (before.next(), before.next());
    let in_number = matches!(last, Some('.' | ','))
        && last_but_one.is_some_and(|c| c.is_ascii_digit())
        && next.starts_with(|c: char| c.is_ascii_digit());
    if in_number || last.is_some_and(opens) || next.chars().all(closes) { "" } else { " " }
}

/// What a line says.
enum Line {
    Token,
    Blank,
    Comment,
    /// A document begins, with an id or without.
    Document(Option<String>),
    Unknown,
}

fn kind(line: &str) -> Line {
    if line.trim().is_empty() {
        Line::Blank
    } else if let Some(id) = line.strip_prefix(DOCUMENT_ID) {
        Line::Document(Some(id.trim().to_owned()).filter(|id| !id.is_empty()))
    } else if line.starts_with(DOCUMENT_MARK) {
        Line::Document(None)
    } else if parse(line).is_some() {
        Line::Token
    } else if line.starts_with("# ") {
        Line::Comment
    } else {
        Line::Unknown
    }
}

impl<R: BufRead> Reader<R> {
    /// Reads to the end of a sentence.
    fn read_sentence(&mut self) {
        let mut sentence: Vec<String> = Vec::new();
        let mut bytes = 0;
        let mut wrong: Option<RecordError> = None;
        let mark = loop {
            let reason = match self.lines.next_line().map(|line| line.map(|line| (kind(line), line))) {
                None => {
                    self.ended = true;
                    break None;
                }
                Some(Ok((Line::Blank, _))) => break None,
                Some(Ok((Line::Document(id), _))) => break Some(id),
                Some(Ok((Line::Comment, _))) => continue,
                Some(Ok((Line::Token, line))) => {
                    bytes += line.len();
                    if bytes <= self.max_bytes {
                        sentence.push(line.to_owned());
                        continue;
                    }
                    sentence.clear();
                    Reason::TooLong { limit: self.max_bytes }
                }
                Some(Ok((Line::Unknown, line))) => {
                    let shown: String = line.chars().take(40).collect();
                    Reason::Malformed(format!("expected a token and its tag, found `{shown}`"))
                }
                Some(Err(reason)) => reason,
            };
            self.ended = matches!(reason, Reason::Io(_));
            let position = Some(Position::Line(self.lines.number()));
            let id = self.document.as_ref().and_then(|document| document.id.clone());
            wrong.get_or_insert(RecordError { file: self.file.clone(), position, id, reason });
            if self.ended {
                break None;
            }
        };
        match wrong {
            Some(error) => self.ready.push_back(Err(error)),
            None if sentence.is_empty() => {}
            None => match &mut self.document {
                Some(document) => document.push_sentence(&sentence),
                None => {
                    let mut alone = Builder::default();
                    alone.push_sentence(&sentence);
                    self.ready.push_back(Ok(alone.finish()));
                }
            },
        }
        if mark.is_some() || self.ended {
            let ended = self.document.take().filter(|document| !document.text.is_empty());
            self.ready.extend(ended.map(|document| Ok(document.finish())));
        }
        if let Some(id) = mark {
            self.document = Some(Builder { id, ..Builder::default() });
        }
    }
}

impl<R: BufRead> Iterator for Reader<R> {
    type Item = Result<SourceDocument, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.ready.is_empty() && !self.ended {
            self.read_sentence();
        }
        self.ready.pop_front()
    }
}

/// Writes a document's sentences, each token with its tag. Tokens are runs of letters and digits, and every other
/// character alone; where a mention begins or ends within a run, the run is cut there.
pub(super) fn write(document: &LabeledDocument, out: &mut dyn Write, losses: &mut Losses) -> io::Result<()> {
    losses.count(true, "white space of the text, and the passages' bounds");
    losses.count_names(document);
    losses.count(document.spans.iter().any(|span| !span.identifiers.is_empty()), "normalised ids");
    writeln!(out, "{DOCUMENT_ID} {}", document.document_id.replace(['\n', '\r'], " "))?;
    for (index, passage) in document.passages.iter().enumerate() {
        let spans = spans_of(document, index);
        let points = CodePoints::new(&passage.text);
        for sentence in sentences(&passage.text) {
            let first = points.code_point(sentence.start);
            for (begin, end, token) in tokens(&passage.text[sentence], first, spans) {
                let at = spans.partition_point(|span| span.end <= begin);
                let tag = match spans.get(at).filter(|span| span.begin <= begin && end <= span.end) {
                    Some(span) if span.begin == begin => format!("B-{}", name(&span.entity_type)),
                    Some(span) => format!("I-{}", name(&span.entity_type)),
                    None => "O".to_owned(),
                };
                writeln!(out, "{token}\t{tag}")?;
            }
            writeln!(out)?;
        }
    }
    Ok(())
}

fn name(entity_type: &str) -> String {
    entity_type.replace(char::is_whitespace, "_")
}

/// The tokens of a sentence that begins at code point `first` of its passage, with their bounds there.
fn tokens<'t>(sentence: &'t str, first: u32, spans: &[GoldSpan]) -> Vec<(u32, u32, &'t str)> {
    let mut tokens: Vec<(u32, u32, &str)> = Vec::new();
    let mut run: Option<(u32, usize)> = None; // where the run of letters began
    let mut cut = spans.partition_point(|span| span.end <= first);
    let ends = [(sentence.len(), ' ')];
    for (at, (byte, c)) in (first..).zip(sentence.char_indices().chain(ends)) {
        while spans.get(cut).is_some_and(|span| span.end < at) {
            cut += 1;
        }
        let is_border = spans[cut..].iter().take(2).any(|span| span.begin == at || span.end == at);
        if let Some((begin, from)) = run
            && (is_border || !is_letter(c))
        {
            tokens.push((begin, at, &sentence[from..byte]));
            run = None;
        }
        if is_letter(c) {
            run = run.or(Some((at, byte)));
        } else if !c.is_whitespace() {
            tokens.push((at, at + 1, &sentence[byte..byte + c.len_utf8()]));
        }
    }
    tokens
}

/// Letters, digits, and the marks that stand on them.
fn is_letter(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '\u{300}'..='\u{36F}')
}
