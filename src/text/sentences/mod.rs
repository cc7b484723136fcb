//! Sentence bounds in biomedical prose.
//!
//! [`sentences`] is one pass over the text by rules, with no model and no regular expressions. It
//! looks at each stop (`.`, `?`, `!`, `…`) and each line break and decides from the word before and
//! the word after whether a sentence ends there. The rules are in this file, the
//! characters and words they look at in `words.rs`, the word lists in `lexicon.rs`. `docs/text.md` tells
//! the rules in prose and how they were measured.

mod lexicon;
mod words;

use lexicon::Abbreviation;
use std::ops::Range;
use words::*;

/// How far an open bracket and its closing one are looked for, in bytes.
const BRACKETED: usize = 160;

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
    // A short line with another one right behind it is no rest of a wrapped paragraph but a heading.
    let mut after = text[next + next_line.len()..].lines().skip(1);
    let is_heading = next_line.len() < NARROWEST
        && !next_line.ends_with(is_stop)
        && after.next().is_some_and(|line| line.starts_with(|c: char| !c.is_whitespace()));
    let was_wrapped = !is_heading && line.len() <= UNWRAPPED && line.len() + 1 + first_word >= width;
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
    is_item_label(&line[..label]) && rest.starts_with(['.', ')']) && rest[1..].starts_with(char::is_whitespace)
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
    if let Some(citation_end) = bracketed_citation(text, next).filter(|_| !text[end..next].contains('\n')) {
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
    if before.is_question || !before.is_plain() {
        return Step::on(end);
    }
    let citation_end = bracketed_citation(text, end).unwrap_or_else(|| skip(text, end, is_citation_char));
    if citation_end > end {
        let after = skip_whitespace(text, citation_end);
        let closes = text[..citation_end].ends_with(|c: char| c == ']' || c.is_numeric());
        let ends = closes && after > citation_end && after < text.len() && before.ends_sentence(Next::at(text, after));
        return Step::when(ends, citation_end, citation_end);
    }
    // "cells.Mice were", and not "B.subtilis", "node.JS" or "example.Com/": a word like others on both sides.
    let word = word_after(text, end);
    let is_word =
        word.len() > 2 && word.starts_with(char::is_uppercase) && word.chars().skip(1).all(char::is_lowercase);
    let ends = (is_word || lexicon::opens_sentence(word)) && text[end + word.len()..].starts_with([' ', ',']);
    Step::when(ends, end, end)
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

    /// A closing bracket, or a word of three letters or more that is no abbreviation and no name in
    /// capitals, directly before the stop.
    fn is_plain(&self) -> bool {
        if self.is_closed || self.text[..self.at].ends_with(is_closer) {
            return true;
        }
        let word = self.word();
        word.len() >= 3
            && self.text[..self.at].ends_with(word)
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
        if self.is_within_brackets() && !next.opens_sentence() {
            return false; // "(Gibco, San Diego, Calif. United States)"
        }
        let word = self.word();
        let word_begin = self.text[self.start..self.at].trim_end().len() + self.start - word.len();
        if self.is_item_label(word, word_begin) {
            return false;
        }
        if matches!(next, Next::Number) && self.is_split_decimal(word) {
            return false;
        }
        if is_initials(word) && self.stands_alone(word_begin) {
            return self.ends_after_initial(word, word_begin, next);
        }
        if word.len() == 1 && word.starts_with(char::is_lowercase) && matches!(next, Next::Number) {
            // "v. 1.32", "p. 5" go on, "for 24 h. 12 patients" ends
            return self.follows_number(word_begin);
        }
        // "the EST. Regions" is no estimate, but "FIG. 2" is a figure.
        let is_acronym = word.len() > 1 && word.chars().all(char::is_uppercase) && !matches!(next, Next::Number);
        let Some(abbreviation) = lexicon::abbreviation(word).filter(|_| !is_acronym) else { return true };
        match abbreviation {
            _ if self.is_closed => false,
            Abbreviation::Leading => false,
            Abbreviation::Numbered => match next {
                Next::Number | Next::Label | Next::Initial => false,
                Next::Capital(word) => !word.contains(|c: char| c.is_ascii_digit()),
                _ => true,
            },
            Abbreviation::Inner => next.opens_sentence(),
            Abbreviation::Unit => match next {
                Next::Capital(capital) => {
                    next.opens_sentence()
                        || capital.chars().skip(1).any(char::is_lowercase)
                        || self.follows_number(word_begin)
                }
                Next::Note => true,
                _ => false,
            },
        }
    }

    /// Whether a bracket was opened before the stop and is closed soon after it.
    fn is_within_brackets(&self) -> bool {
        let from = char_boundary(self.text, self.at.saturating_sub(BRACKETED)).clamp(self.start, self.at);
        let to = char_boundary(self.text, self.at.saturating_add(BRACKETED));
        let following = self.text.as_bytes()[self.at..to].iter().find(|byte| matches!(byte, b'(' | b')' | b'\n'));
        following == Some(&b')') && !self.is_closed && has_open_bracket(&self.text[from..self.at])
    }

    /// The label of a list item or a panel: "1. Cells were" and "A–D. Cells" at the beginning of the
    /// sentence, "1). Cells" anywhere, unless a bracket is open: "(Fig. 1). Cells".
    fn is_item_label(&self, word: &str, word_begin: usize) -> bool {
        if word_begin <= self.start {
            return !word.is_empty() && word.split(['-', '–']).all(is_item_label);
        }
        let Some(before) = self.text[..self.at].strip_suffix(')') else { return false };
        let before = before.trim_end(); // where the word before ends
        let label = word_before(before, self.start.min(before.len()), before.len());
        let lead = &before[self.start.min(before.len())..before.len() - label.len()];
        let lead = &lead[char_boundary(lead, lead.len().saturating_sub(BRACKETED))..];
        let is_unit = lead.trim_end().ends_with(|c: char| c.is_ascii_digit() || c == ')'); // "× 10(-10) M)."
        label.len() <= 2 && is_item_label(label) && !is_unit && !has_open_bracket(lead)
    }

    /// "J. Smith", "U.S. Army", "and E. Coli" go on; "amphotericin B. Lungs", "at 37 C. Samples",
    /// "hepatitis B and C. Patients" end.
    fn ends_after_initial(&self, word: &str, word_begin: usize, next: Next) -> bool {
        if self.is_closed {
            return false;
        }
        if next.opens_sentence() {
            return true;
        }
        if word.len() != 1 || matches!(next, Next::SmallName | Next::Initial) {
            return false;
        }
        let earlier = word_before(self.text, self.start, word_begin);
        if matches!(earlier, "and" | "or" | "to") {
            let at = self.text[self.start..word_begin].trim_end().len() + self.start - earlier.len();
            let listed = word_before(self.text, self.start, at);
            return listed.len() == 1 && self.text[self.start..at].trim_end().ends_with(listed);
        }
        if self.follows_number(word_begin) {
            return true;
        }
        let is_noun =
            earlier.starts_with(char::is_lowercase) || earlier.contains('-') || lexicon::takes_letter(earlier);
        earlier.len() > 2
            && (is_noun || word == "I")
            && !lexicon::precedes_name(earlier)
            && self.text[..word_begin].trim_end().ends_with(earlier)
    }

    /// "0. 05", "37. 85%", "P =. 02": decimals that came apart. A year before the stop is none.
    fn is_split_decimal(&self, word: &str) -> bool {
        match word {
            "" => self.text[..self.at].trim_end().ends_with(['=', '<', '>', '≤', '≥']),
            _ => word.len() <= 3 && word.bytes().all(|byte| byte.is_ascii_digit()),
        }
    }

    /// Whether the word that begins at `word_begin` is not the rest of something: "A>C", "µ-M".
    fn stands_alone(&self, word_begin: usize) -> bool {
        let before = self.text[..word_begin].chars().next_back();
        before.is_none_or(|c| c.is_whitespace() || is_opener(c) || is_closer(c) || ",;:&.–".contains(c))
    }

    /// Whether the word that begins at `word_begin` is the unit of a number: "24 h", "37 C".
    fn follows_number(&self, word_begin: usize) -> bool {
        self.text[self.start..word_begin].trim_end().ends_with(|c: char| c.is_ascii_digit())
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
    /// A code, label or initial: `S1`, `4A`, `(a)`, `(b, c)`, `B)`
    Label,
    /// A single capital with a stop: `J.`
    Initial,
    /// The mark of a footnote: `*`, `†`.
    Note,
    /// An ordinary word in small letters.
    Lower,
    /// Anything else: operators, dashes, more stops.
    Other,
}

impl<'t> Next<'t> {
    fn at(text: &'t str, at: usize) -> Self {
        let begin = skip(text, at, is_opener);
        if text[at..begin].contains(is_note) {
            return Self::Note;
        }
        if is_label_list(&text[begin..], begin > at && text[at..begin].ends_with(['(', '['])) {
            return Self::Label;
        }
        let word = word_after(text, begin);
        let rest = &text[begin + word.len()..];
        let Some(first) = word.chars().next() else { return Self::Other };
        let has_digit = word.bytes().any(|byte| byte.is_ascii_digit());
        if first.is_numeric() {
            if word.chars().all(|c| c.is_numeric() || ".,".contains(c)) { Self::Number } else { Self::Label }
        } else if first.is_lowercase() {
            let is_name = has_digit || word.chars().any(char::is_uppercase) || word.chars().nth(1) == Some('-');
            let is_legend = word.len() <= 5 && rest.starts_with(", ") || word.len() == 1 && rest.starts_with(" =");
            if is_name || is_legend { Self::SmallName } else { Self::Lower }
        } else if word.len() == 1 && rest.starts_with('.') {
            Self::Initial
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

#[cfg(test)]
mod tests;
