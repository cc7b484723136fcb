//! Entities in their sentences on a terminal: coloured by type, wrapped or cut to its width. Without
//! colours they stand in brackets with their type, `[BRCA1|Gene]`.
//!
//! Text from articles is foreign: control characters and bidirectional overrides in it never reach
//! the terminal.

use anstyle::{AnsiColor, Style};
use std::fmt::Write as _;
use std::io::IsTerminal as _;
use unicode_width::UnicodeWidthChar as _;

/// A mention in a sentence: code points of the sentence, half-open.
#[derive(Debug, Clone, Copy)]
pub struct Marked<'a> {
    pub begin: usize,
    pub end: usize,
    pub entity_type: &'a str,
}

/// How to write on stdout.
#[derive(Debug, Clone, Copy)]
pub struct Painter {
    colour: bool,
    /// Columns of the terminal; `None` where lines are neither wrapped nor cut.
    columns: Option<usize>,
}

/// One character on the screen and the type of the entity that it belongs to.
type Cell<'a> = (char, Option<&'a str>);

impl Painter {
    /// What stdout is.
    pub fn for_stdout() -> Self {
        let stdout = std::io::stdout();
        Self {
            colour: anstream::AutoStream::choice(&stdout) != anstream::ColorChoice::Never,
            columns: stdout.is_terminal().then(terminal_columns),
        }
    }

    #[cfg(test)]
    pub fn plain_text() -> Self {
        Self { colour: false, columns: None }
    }

    /// `text` in `style`, where there are colours.
    pub fn styled(&self, style: Style, text: &str) -> String {
        if self.colour { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }

    /// A type's name in its colour.
    pub fn entity_type(&self, name: &str) -> String {
        self.styled(style_of(name), name)
    }

    /// The sentence with its mentions, in lines that leave `indent` columns free. Without a terminal
    /// it is one line.
    pub fn paragraph(&self, sentence: &str, mentions: &[Marked<'_>], indent: usize) -> Vec<String> {
        let cells = self.cells(sentence, mentions);
        let Some(columns) = self.columns else { return vec![self.render(&cells)] };
        let room = columns.saturating_sub(indent).max(20);
        let mut lines = Vec::new();
        let mut rest = cells.as_slice();
        while width(rest) > room {
            let (line, after) = rest.split_at(break_at(rest, room));
            lines.push(self.render(line.trim_end()));
            rest = after.trim_start();
        }
        if !rest.is_empty() || lines.is_empty() {
            lines.push(self.render(rest));
        }
        lines
    }

    /// One line with the mention in sight: where the sentence does not fit beside `indent` columns,
    /// its ends are cut off.
    pub fn line(&self, sentence: &str, mention: Marked<'_>, indent: usize) -> String {
        let cells = self.cells(sentence, &[mention]);
        let Some(columns) = self.columns else { return self.render(&cells) };
        let room = columns.saturating_sub(indent).max(20);
        if width(&cells) <= room {
            return self.render(&cells);
        }
        let first = cells.iter().position(|(_, entity)| entity.is_some()).unwrap_or(0);
        let last = cells.iter().rposition(|(_, entity)| entity.is_some()).map_or(first, |at| at + 1);
        let beside = room.saturating_sub(width(&cells[first..last]));
        let mut begin = first;
        while begin > 0 && width(&cells[begin - 1..first]) <= beside * 2 / 5 {
            begin -= 1;
        }
        if begin > 0 {
            begin += 1; // for the ellipsis
        }
        let mut end = begin;
        while end < cells.len() && width(&cells[begin..=end]) + usize::from(begin > 0) < room {
            end += 1;
        }
        let mut cut: Vec<Cell<'_>> = Vec::with_capacity(end - begin + 2);
        cut.extend((begin > 0).then_some(('…', None)));
        cut.extend(&cells[begin..end]);
        cut.extend((end < cells.len()).then_some(('…', None)));
        self.render(&cut)
    }

    /// Plain text on one line, cut to the columns that are left.
    pub fn plain(&self, text: &str, indent: usize) -> String {
        let cells = self.cells(text, &[]);
        let Some(columns) = self.columns else { return self.render(&cells) };
        let room = columns.saturating_sub(indent).max(20);
        if width(&cells) <= room {
            return self.render(&cells);
        }
        let mut end = 0;
        while width(&cells[..=end]) < room {
            end += 1;
        }
        self.render(&cells[..end]) + "…"
    }

    fn cells<'a>(&self, sentence: &str, mentions: &[Marked<'a>]) -> Vec<Cell<'a>> {
        let mut mentions: Vec<&Marked<'a>> = mentions.iter().filter(|marked| marked.begin < marked.end).collect();
        mentions.sort_by_key(|marked| (marked.begin, std::cmp::Reverse(marked.end)));
        let mut mentions = mentions.into_iter().peekable();
        let mut open: Option<&Marked<'a>> = None;
        let mut cells = Vec::with_capacity(sentence.len());
        for (point, character) in sentence.chars().enumerate() {
            while mentions.peek().is_some_and(|next| next.begin < point) {
                mentions.next(); // inside the one before
            }
            if open.is_none()
                && let Some(next) = mentions.next_if(|next| next.begin == point)
            {
                open = Some(next);
                cells.extend((!self.colour).then_some(('[', Some(next.entity_type))));
            }
            cells.push((harmless(character), open.map(|marked| marked.entity_type)));
            if let Some(marked) = open.take_if(|marked| marked.end == point + 1)
                && !self.colour
            {
                let label = std::iter::once('|').chain(marked.entity_type.chars()).chain([']']);
                cells.extend(label.map(|character| (character, Some(marked.entity_type))));
            }
        }
        cells
    }

    fn render(&self, cells: &[Cell<'_>]) -> String {
        let mut line = String::with_capacity(cells.len() * 2);
        for run in cells.chunk_by(|left, right| left.1 == right.1) {
            let text = run.iter().map(|(character, _)| character);
            match run[0].1.filter(|_| self.colour).map(style_of) {
                Some(style) => {
                    let _ = write!(line, "{style}{}{style:#}", text.collect::<String>()); // a String takes it
                }
                None => line.extend(text),
            }
        }
        line
    }
}

/// Trimming of lines of cells.
trait Trim {
    fn trim_start(&self) -> &Self;
    fn trim_end(&self) -> &Self;
}

impl Trim for [Cell<'_>] {
    fn trim_start(&self) -> &Self {
        let blank = self.iter().take_while(|(character, _)| *character == ' ').count();
        &self[blank..]
    }

    fn trim_end(&self) -> &Self {
        let blank = self.iter().rev().take_while(|(character, _)| *character == ' ').count();
        &self[..self.len() - blank]
    }
}

/// Where a line of at most `room` columns ends: after the last space, or within a word that is longer.
fn break_at(cells: &[Cell<'_>], room: usize) -> usize {
    let mut columns = 0;
    let mut after_space = 0;
    for (at, (character, _)) in cells.iter().enumerate() {
        columns += character.width().unwrap_or(0);
        if columns > room {
            if *character == ' ' {
                return at; // a blank may hang over the edge
            }
            return if after_space > 0 { after_space } else { at.max(1) };
        }
        if *character == ' ' {
            after_space = at + 1;
        }
    }
    cells.len()
}

fn width(cells: &[Cell<'_>]) -> usize {
    cells.iter().map(|(character, _)| character.width().unwrap_or(0)).sum()
}

/// What may be sent to a terminal in the place of `character`.
fn harmless(character: char) -> char {
    match character {
        '\n' | '\r' | '\t' | '\u{0b}' | '\u{0c}' | '\u{85}' | '\u{2028}' | '\u{2029}' => ' ',
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        control if control.is_control() => '\u{fffd}',
        other => other,
    }
}

/// `text` as it may be sent to a terminal.
pub fn sanitized(text: &str) -> String {
    text.chars().map(harmless).collect()
}

/// The colour of an entity type: fixed for the types of the shipped model, any other type always gets
/// the same one too.
pub fn style_of(entity_type: &str) -> Style {
    const OTHERS: [AnsiColor; 6] = [
        AnsiColor::BrightBlue,
        AnsiColor::BrightRed,
        AnsiColor::BrightGreen,
        AnsiColor::BrightMagenta,
        AnsiColor::BrightYellow,
        AnsiColor::BrightCyan,
    ];
    let colour = match entity_type {
        "Gene" => AnsiColor::Blue,
        "Disease" => AnsiColor::Red,
        "Chemical" => AnsiColor::Green,
        "Species" => AnsiColor::Magenta,
        "Variant" => AnsiColor::Yellow,
        "CellLine" => AnsiColor::Cyan,
        other => OTHERS[other.bytes().map(usize::from).sum::<usize>() % OTHERS.len()],
    };
    Style::new().bold().fg_color(Some(colour.into()))
}

fn terminal_columns() -> usize {
    // SAFETY: `ioctl` with TIOCGWINSZ writes one `winsize` through the pointer, which is valid and large enough.
    let size = unsafe {
        let mut size: libc::winsize = std::mem::zeroed();
        (libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &raw mut size) == 0).then_some(size)
    };
    match size {
        Some(size) if size.ws_col > 0 => usize::from(size.ws_col),
        _ => 100,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENTENCE: &str = "Loss of BRCA1 causes cancer.";
    const GENE: Marked<'_> = Marked { begin: 8, end: 13, entity_type: "Gene" };
    const DISEASE: Marked<'_> = Marked { begin: 21, end: 27, entity_type: "Disease" };

    fn plain(columns: Option<usize>) -> Painter {
        Painter { colour: false, columns }
    }

    #[test]
    fn brackets_without_colours() {
        let lines = plain(None).paragraph(SENTENCE, &[DISEASE, GENE], 0);
        assert_eq!(lines, ["Loss of [BRCA1|Gene] causes [cancer|Disease]."]);
    }

    #[test]
    fn colours_change_at_the_bounds() {
        let painter = Painter { colour: true, columns: None };
        let style = style_of("Gene");
        assert_eq!(painter.line(SENTENCE, GENE, 0), format!("Loss of {style}BRCA1{style:#} causes cancer."));
    }

    #[test]
    fn paragraphs_are_wrapped_between_words() {
        let painter = Painter { colour: true, columns: Some(25) };
        let lines = painter.paragraph(SENTENCE, &[], 5);
        assert_eq!(lines, ["Loss of BRCA1 causes", "cancer."]);
        let lines = painter.paragraph(&"x".repeat(45), &[], 5);
        assert_eq!(lines.iter().map(String::len).collect::<Vec<_>>(), [20, 20, 5]);
    }

    #[test]
    fn a_line_keeps_the_mention_in_sight() {
        let long = format!("{} {SENTENCE} {}", "before ".repeat(20), "after ".repeat(20));
        let at = long.find("BRCA1").unwrap();
        let marked = Marked { begin: at, end: at + 5, entity_type: "Gene" };
        let line = plain(Some(60)).line(&long, marked, 10);
        assert!(line.contains("[BRCA1|Gene]") && line.starts_with('…') && line.ends_with('…'), "{line}");
        assert_eq!(line.chars().count(), 50, "{line}");
        assert_eq!(plain(Some(30)).plain(&long, 10).chars().count(), 20);
    }

    #[test]
    fn foreign_text_cannot_drive_the_terminal() {
        let painted = plain(None).paragraph("a\u{1b}[2Jb\u{202e}c\nd", &[], 0);
        assert_eq!(painted, ["a\u{fffd}[2Jb\u{fffd}c d"]);
    }

    #[test]
    fn overlapping_mentions_show_the_outer_one() {
        let inner = Marked { begin: 9, end: 11, entity_type: "Disease" };
        assert_eq!(plain(None).paragraph(SENTENCE, &[inner, GENE], 0), ["Loss of [BRCA1|Gene] causes cancer."]);
    }
}
