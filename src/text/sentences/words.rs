//! Words and characters: what the rules look at, each within a bounded stretch of text.

/// Longest stretch looked at for the word before or after a stop, in bytes: it keeps the scan linear.
const WORD: usize = 48;

/// Longest list of labels in brackets, "(a, b, d–f)", in bytes.
const LABELS: usize = 24;

/// A number, a single letter, or a small roman number.
pub(super) fn is_item_label(word: &str) -> bool {
    let bytes = word.as_bytes();
    if bytes.is_empty() {
        return false;
    }
    bytes.iter().all(u8::is_ascii_digit)
        || (bytes.len() == 1 && bytes[0].is_ascii_alphabetic())
        || bytes.iter().all(|byte| b"ivx".contains(byte))
        || bytes.iter().all(|byte| b"IVX".contains(byte))
}

/// The word that ends at `end`, white space between them left out, no earlier than `start`.
pub(super) fn word_before(text: &str, start: usize, end: usize) -> &str {
    let end = text[start..end].trim_end().len() + start;
    let from = char_boundary(text, end.saturating_sub(WORD)).max(start);
    let window = &text[from..end];
    let begin = window.char_indices().rev().find(|&(_, c)| !is_word_char(c)).map_or(0, |(at, c)| at + c.len_utf8());
    window[begin..].trim_start_matches(['.', '-', '–', '/'])
}

/// Whether `text` begins with labels and a closing bracket: `a)`, `a–c)`, `i)`, `B, b')`, `E) `.
/// Without an opening bracket before it only a single capital or number is a label.
pub(super) fn is_label_list(text: &str, is_bracketed: bool) -> bool {
    let window = &text[..char_boundary(text, LABELS)];
    let Some(end) = window.find([')', ']']) else { return false };
    let mut labels =
        window[..end].split([' ', ',', '-', '–', '/', '\'', '′']).filter(|label| !label.is_empty()).peekable();
    labels.peek().is_some()
        && if is_bracketed {
            labels.all(|label| label == "and" || is_item_label(label))
        } else {
            end == 1 && window.starts_with(|c: char| c.is_ascii_uppercase() || c.is_ascii_digit())
        }
}

/// The word that begins at `begin`, without trailing punctuation.
pub(super) fn word_after(text: &str, begin: usize) -> &str {
    let window = &text[begin..char_boundary(text, begin.saturating_add(WORD))];
    let end = window.find(|c| !is_word_char(c)).unwrap_or(window.len());
    window[..end].trim_end_matches(['.', '-', '–', '/'])
}

pub(super) fn has_open_bracket(text: &str) -> bool {
    let mut closed = 0;
    text.bytes().rev().any(|byte| {
        closed += i32::from(byte == b')') - i32::from(byte == b'(');
        closed < 0
    })
}

/// `[12]`, `[3, 5–7]` at `at`: where it ends.
pub(super) fn bracketed_citation(text: &str, at: usize) -> Option<usize> {
    let inside = text[at..].strip_prefix('[').map(|_| at + 1)?;
    let end = skip(text, inside, |c| is_citation_char(c) || c == ' ');
    (end > inside && text[end..].starts_with(']')).then_some(end + 1)
}

pub(super) fn is_word_char(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '.' | '-' | '–' | '/' | '°')
}

pub(super) fn is_stop(c: char) -> bool {
    matches!(c, '.' | '?' | '!' | '…') || is_ideographic_stop(c)
}

pub(super) fn is_ideographic_stop(c: char) -> bool {
    matches!(c, '。' | '！' | '？')
}

pub(super) fn is_note(c: char) -> bool {
    matches!(c, '*' | '#' | '†' | '‡' | '§' | '¶')
}

pub(super) fn is_closer(c: char) -> bool {
    matches!(c, ')' | ']' | '}' | '"' | '\'' | '”' | '’' | '»' | '」' | '』')
}

pub(super) fn is_opener(c: char) -> bool {
    matches!(c, '(' | '[' | '{' | '"' | '\'' | '“' | '‘' | '«' | '¿' | '¡') || is_note(c)
}

pub(super) fn is_citation_char(c: char) -> bool {
    c.is_ascii_digit() || matches!(c, ',' | '-' | '–' | '¹' | '²' | '³' | '⁰' | '⁴'..='⁹')
}

/// `J`, `U.S`, `J.-P`: single capitals, each with its stop but for the last.
pub(super) fn is_initials(word: &str) -> bool {
    !word.is_empty()
        && word.split('.').all(|part| {
            let mut chars = part.trim_start_matches('-').chars();
            chars.next().is_some_and(char::is_uppercase) && chars.next().is_none()
        })
}

/// The end of the run of characters from `at` on that satisfy `belongs`.
pub(super) fn skip(text: &str, at: usize, belongs: impl Fn(char) -> bool) -> usize {
    text[at..].find(|c| !belongs(c)).map_or(text.len(), |run| at + run)
}

pub(super) fn skip_whitespace(text: &str, at: usize) -> usize {
    skip(text, at, char::is_whitespace)
}

pub(super) fn skip_one(text: &str, at: usize) -> usize {
    at + text[at..].chars().next().map_or(0, char::len_utf8)
}

/// The first character boundary at `byte` or after it.
pub(super) fn char_boundary(text: &str, byte: usize) -> usize {
    (byte..text.len()).find(|&byte| text.is_char_boundary(byte)).unwrap_or(text.len())
}
