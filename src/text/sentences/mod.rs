//! Sentence bounds in biomedical prose.
//!
//! [`sentences`] is one pass over the text by rules, with no model and no regular expressions. It
//! looks at each stop (`.`, `?`, `!`, `…`) and each line break and decides from the word before and
//! the word after whether a sentence ends there. The rules are in this file, from the scan at the
//! top to single words at the bottom; the word lists are in `lexicon.rs`. `docs/text.md` tells
//! the rules in prose and how they were measured.

mod lexicon;

use lexicon::Abbreviation;
use std::ops::Range;

/// Longest stretch looked at for the word before or after a stop, in bytes: it keeps the scan linear.
const WORD: usize = 48;

/// A line longer than this (bytes) was not wrapped by hand or machine: its end is the end of a paragraph.
const UNWRAPPED: usize = 160;

/// No text is wrapped to lines shorter than this (bytes).
const NARROWEST: usize = 40;

/// The bounds of the sentences of `text`, as byte ranges, ascending.
///
/// Each range is trimmed of white space and not empty, and each character that is no white space
/// ([`char::is_whitespace`]) lies in exactly one. The text itself is never altered. Time is linear in the text's
/// length whatever the text is; there is no limit on the length of a sentence.
///
/// ```
/// use litflow::text::sentences;
///
/// let text = "Binding (Fig. 2) to p53 fell by 0.5 fold. mTOR was unchanged.";
/// let found: Vec<&str> = sentences(text).into_iter().map(|range| &text[range]).collect();
/// assert_eq!(found, ["Binding (Fig. 2) to p53 fell by 0.5 fold.", "mTOR was unchanged."]);
/// ```
pub fn sentences(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut start = skip_whitespace(text, 0);
    let mut at = start;
    while let Some(offset) = text.as_bytes()[at..].iter().position(|&byte| MAY_END[usize::from(byte)]) {
        at += offset;
        let step = match text.as_bytes()[at] {
            b'\n' | b'\r' | FORM_FEED => line_break(text, at),
            _ => stop(text, start, at),
        };
        at = step.resume;
        if let Some(end) = step.end
            && end > start
        {
            found.push(start..end);
            start = skip_whitespace(text, end);
            at = at.max(start);
        }
    }
    let end = text.trim_end().len();
    if end > start {
        found.push(start..end);
    }
    found
}

const FORM_FEED: u8 = 0x0C;

/// The bytes at which the scan halts: stops, line breaks, and the first bytes of `…`, `。`, `！`, `？`.
const MAY_END: [bool; 256] = {
    let mut table = [false; 256];
    let halts = [b'.', b'?', b'!', b'\n', b'\r', FORM_FEED, 0xE2, 0xE3, 0xEF];
    let mut i = 0;
    while i < halts.len() {
        table[halts[i] as usize] = true;
        i += 1;
    }
    table
};

/// What the scan learned at one place.
struct Step {
    /// The end of the sentence, where one ends here.
    end: Option<usize>,
    /// Where the scan goes on.
    resume: usize,
}

impl Step {
    fn when(ends: bool, end: usize, resume: usize) -> Self {
        Self { end: ends.then_some(end), resume }
    }

    fn on(resume: usize) -> Self {
        Self { end: None, resume }
    }
}

// ---- Line breaks ----

/// An empty line ends a sentence. A single line break does so where the text was not merely wrapped:
/// the line before is longer than wrapped lines are, or the next line's first word would still have
/// fitted into it (as after a heading), and the next line begins like a sentence.
fn line_break(text: &str, at: usize) -> Step {
    let next = skip_whitespace(text, at);
    let end = text[..at].trim_end().len();
    let gap = &text.as_bytes()[at..next];
    let breaks = gap.iter().filter(|&&byte| byte == b'\n').count();
    let is_paragraph = breaks > 1 || gap.contains(&FORM_FEED) || gap.iter().filter(|&&byte| byte == b'\r').count() > 1;
    if is_paragraph || next == text.len() {
        return Step::when(is_paragraph, end, next);
    }
    let line = line_before(text, end);
    let next_line = line_after(text, next);
    let is_list_item = is_bullet(next_line) || (line.ends_with([':', ';', '.']) && is_numbered_item(next_line));
    let goes_on = line.ends_with([',', '-', '–', '(', '[', '/', '=', '<', '>']);
    let width = next_line.len().max(NARROWEST);
    let first_word = next_line.find(char::is_whitespace).unwrap_or(next_line.len());
    let was_wrapped = line.len() <= UNWRAPPED && line.len() + 1 + first_word >= width;
    let opens = !matches!(Next::at(text, next), Next::Lower | Next::Other);
    Step::when(is_list_item || (!was_wrapped && !goes_on && opens), end, next)
}

/// The line that ends at `end`, or as much of it as tells that it was not wrapped.
fn line_before(text: &str, end: usize) -> &str {
    let from = char_boundary(text, end.saturating_sub(UNWRAPPED + 1));
    let window = &text[from..end];
    window.rfind(['\n', '\r', '\u{c}']).map_or(window, |at| &window[at + 1..]).trim_start()
}

/// The line that begins at `begin`, or as much of it as tells that it was not wrapped.
fn line_after(text: &str, begin: usize) -> &str {
    let to = char_boundary(text, begin.saturating_add(UNWRAPPED + 1));
    let window = &text[begin..to];
    window.find(['\n', '\r', '\u{c}']).map_or(window, |at| &window[..at]).trim_end()
}

/// `• cells`, `- cells`, `* cells`
fn is_bullet(line: &str) -> bool {
    let mut chars = line.chars();
    matches!(chars.next(), Some('•' | '·' | '‣' | '▪' | '-' | '–' | '*' | '○' | '●'))
        && chars.next().is_some_and(char::is_whitespace)
}

/// `1. Cells`, `2) cells`, `(iv) cells`, `a) cells`
fn is_numbered_item(line: &str) -> bool {
    let line = line.strip_prefix('(').unwrap_or(line);
    let label = line.bytes().take(4).take_while(u8::is_ascii_alphanumeric).count();
    let rest = &line[label..]; // ASCII before it
    label > 0
        && is_item_label(&line[..label])
        && rest.starts_with(['.', ')'])
        && rest[1..].starts_with(char::is_whitespace)
}

/// A number, a single letter, or a small roman number.
fn is_item_label(word: &str) -> bool {
    let bytes = word.as_bytes();
    bytes.iter().all(u8::is_ascii_digit)
        || (bytes.len() == 1 && bytes[0].is_ascii_alphabetic())
        || bytes.iter().all(|byte| b"ivx".contains(byte))
        || bytes.iter().all(|byte| b"IVX".contains(byte))
}

// ---- Stops ----

/// Decides about the run of stops that begins at `at`, in the sentence that begins at `start`.
fn stop(text: &str, start: usize, at: usize) -> Step {
    let marks_end = skip(text, at, is_stop);
    if marks_end == at {
        // A character that only shares its first byte with a stop.
        return Step::on(skip_one(text, at));
    }
    let marks = &text[at..marks_end];
    let end = skip(text, marks_end, is_closer);
    if marks.contains(is_ideographic_stop) {
        return Step::when(true, end, end);
    }
    let next = skip_whitespace(text, end);
    if next == text.len() {
        return Step::on(end);
    }
    let before = Before { text, start, at, is_question: marks.contains(['?', '!']), is_closed: end > marks_end };
    if next == end {
        return after_attached(&before, end);
    }
    // "… cells. [12] The …": the citation belongs to the sentence that it follows.
    if let Some(citation_end) = bracketed_citation(text, next) {
        let after = skip_whitespace(text, citation_end);
        if after > citation_end && after < text.len() {
            return Step::when(before.ends_sentence(Next::at(text, after)), citation_end, citation_end);
        }
    }
    Step::when(before.ends_sentence(Next::at(text, next)), end, end)
}

/// A stop with no white space behind it: within numbers and names it ends nothing, but a citation mark may
/// stand there ("cells.12 The", "cells.[3,4] The"), or the space may be missing ("cells.The").
fn after_attached(before: &Before, end: usize) -> Step {
    let text = before.text;
    if before.is_question || !(before.is_closed || before.is_plain_word()) {
        return Step::on(end);
    }
    let citation_end = bracketed_citation(text, end).unwrap_or_else(|| skip(text, end, is_citation_char));
    if citation_end > end {
        let after = skip_whitespace(text, citation_end);
        let ends = after > citation_end && after < text.len() && before.ends_sentence(Next::at(text, after));
        return Step::when(ends, citation_end, citation_end);
    }
    let word = word_after(text, end);
    Step::when(word.len() > 1 && lexicon::opens_sentence(word), end, end)
}

/// What stands before a stop.
struct Before<'t> {
    text: &'t str,
    /// Where the sentence begins.
    start: usize,
    /// Where the run of stops begins.
    at: usize,
    /// There is a `?` or `!` among the stops.
    is_question: bool,
    /// Closing brackets or quotes follow the stops.
    is_closed: bool,
}

impl<'t> Before<'t> {
    /// The word before the stop, a blank between them left out ("et al ." in tokenised text).
    fn word(&self) -> &'t str {
        word_before(self.text, self.start, self.at)
    }

    /// A word of three letters or more that is no abbreviation and no name in capitals.
    fn is_plain_word(&self) -> bool {
        let word = self.word();
        word.len() >= 3
            && word.chars().all(|c| c.is_alphabetic() || c == '-')
            && word.ends_with(char::is_lowercase)
            && lexicon::abbreviation(word).is_none()
    }

    /// Whether the sentence ends here, given what follows.
    fn ends_sentence(&self, next: Next) -> bool {
        if matches!(next, Next::Lower | Next::Other) {
            return false;
        }
        if self.is_question {
            return true;
        }
        let word = self.word();
        let word_begin = self.text[..self.at].trim_end().len() - word.len();
        if word_begin <= self.start && is_item_label(word) {
            return false; // the label of a list item: "1. Cells were …"
        }
        if is_initials(word) {
            return !self.is_closed && self.ends_after_initial(word, word_begin, next);
        }
        match lexicon::abbreviation(word) {
            None => true,
            Some(_) if self.is_closed => false,
            Some(Abbreviation::Leading) => false,
            Some(Abbreviation::Numbered) => !matches!(next, Next::Number | Next::Label),
            Some(Abbreviation::Either) => next.opens_sentence(),
        }
    }

    /// "J. Smith", "U.S. Army", "E. Coli" go on; "vitamin D. Patients", "at 37 C. Samples" end.
    fn ends_after_initial(&self, word: &str, word_begin: usize, next: Next) -> bool {
        if next.opens_sentence() {
            return true;
        }
        let earlier = word_before(self.text, self.start, word_begin);
        word.len() == 1
            && matches!(next, Next::Capital(_) | Next::Number)
            && (lexicon::takes_letter(earlier) || earlier.ends_with(|c: char| c.is_ascii_digit()))
    }
}

/// What stands after a stop and white space, opening quotes and brackets left out.
#[derive(Debug, Clone, Copy)]
enum Next<'t> {
    /// A word with a capital, or of a script without case.
    Capital(&'t str),
    /// A number.
    Number,
    /// A name that keeps its small letter: `p53`, `mTOR`, `c-Myc`, `α-synuclein`.
    SmallName,
    /// One letter or a code such as `S1`, `4A`, `(a)`, as after `Fig.`
    Label,
    /// An ordinary word in small letters.
    Lower,
    /// Anything else: operators, dashes, more stops.
    Other,
}

impl<'t> Next<'t> {
    fn at(text: &'t str, at: usize) -> Self {
        let begin = skip(text, at, is_opener);
        let is_bracketed = begin > at && text[at..begin].contains(['(', '[']);
        let word = word_after(text, begin);
        let Some(first) = word.chars().next() else { return Self::Other };
        if is_bracketed && text[begin + word.len()..].starts_with([')', ']']) && is_item_label(word) {
            return Self::Label;
        }
        let has_digit = word.bytes().any(|byte| byte.is_ascii_digit());
        if first.is_numeric() {
            if word.chars().all(|c| c.is_numeric() || ".,".contains(c)) { Self::Number } else { Self::Label }
        } else if first.is_lowercase() {
            let mut rest = word.chars().skip(1);
            let is_name = has_digit || word.chars().any(char::is_uppercase) || rest.next() == Some('-');
            if is_name { Self::SmallName } else { Self::Lower }
        } else if has_digit && word.len() <= 4 {
            Self::Label
        } else {
            Self::Capital(word)
        }
    }

    fn opens_sentence(self) -> bool {
        matches!(self, Self::Capital(word) if lexicon::opens_sentence(word))
    }
}

// ---- Words and characters ----

/// The word that ends at `end`, white space between them left out, no earlier than `start`.
fn word_before(text: &str, start: usize, end: usize) -> &str {
    let end = text[start..end].trim_end().len() + start;
    let from = char_boundary(text, end.saturating_sub(WORD)).max(start);
    let window = &text[from..end];
    let begin = window.char_indices().rev().find(|&(_, c)| !is_word_char(c)).map_or(0, |(at, c)| at + c.len_utf8());
    window[begin..].trim_start_matches(['.', '-', '/'])
}

/// The word that begins at `begin`, without trailing punctuation.
fn word_after(text: &str, begin: usize) -> &str {
    let window = &text[begin..char_boundary(text, begin.saturating_add(WORD))];
    let end = window.find(|c| !is_word_char(c)).unwrap_or(window.len());
    window[..end].trim_end_matches(['.', '-', '/'])
}

/// `[12]`, `[3, 5–7]` at `at`: where it ends.
fn bracketed_citation(text: &str, at: usize) -> Option<usize> {
    let inside = text[at..].strip_prefix('[').map(|_| at + 1)?;
    let end = skip(text, inside, |c| is_citation_char(c) || c == ' ');
    (end > inside && text[end..].starts_with(']')).then_some(end + 1)
}

fn is_word_char(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '.' | '-' | '/' | '°')
}

fn is_stop(c: char) -> bool {
    matches!(c, '.' | '?' | '!' | '…') || is_ideographic_stop(c)
}

fn is_ideographic_stop(c: char) -> bool {
    matches!(c, '。' | '！' | '？')
}

fn is_closer(c: char) -> bool {
    matches!(c, ')' | ']' | '}' | '"' | '\'' | '”' | '’' | '»' | '」' | '』')
}

fn is_opener(c: char) -> bool {
    matches!(c, '(' | '[' | '{' | '"' | '\'' | '“' | '‘' | '«' | '*' | '†' | '‡' | '§' | '¿' | '¡')
}

fn is_citation_char(c: char) -> bool {
    c.is_ascii_digit() || matches!(c, ',' | '-' | '–' | '¹' | '²' | '³' | '⁰' | '⁴'..='⁹')
}

/// `J`, `U.S`, `J.-P`: single capitals, between stops.
fn is_initials(word: &str) -> bool {
    let mut parts = word.split(['.', '-']).filter(|part| !part.is_empty()).peekable();
    parts.peek().is_some()
        && parts.all(|part| {
            let mut chars = part.chars();
            chars.next().is_some_and(char::is_uppercase) && chars.next().is_none()
        })
}

/// The end of the run of characters from `at` on that satisfy `belongs`.
fn skip(text: &str, at: usize, belongs: impl Fn(char) -> bool) -> usize {
    text[at..].find(|c| !belongs(c)).map_or(text.len(), |run| at + run)
}

fn skip_whitespace(text: &str, at: usize) -> usize {
    skip(text, at, char::is_whitespace)
}

fn skip_one(text: &str, at: usize) -> usize {
    at + text[at..].chars().next().map_or(0, char::len_utf8)
}

/// The first character boundary at `byte` or after it.
fn char_boundary(text: &str, byte: usize) -> usize {
    (byte..text.len()).find(|&byte| text.is_char_boundary(byte)).unwrap_or(text.len())
}
