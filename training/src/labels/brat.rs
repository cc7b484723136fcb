//! BRAT standoff: `ID.ann` beside `ID.txt`.
//!
//! ```text
//! T1⇥Gene 0 5⇥BRCA1
//! T2⇥Disease 10 15;20 26⇥ovary cancer
//! N1⇥Reference T1 NCBIGene:672⇥BRCA1
//! ```
//!
//! Offsets are code points of the text file. The quoted text of fragments is joined by spaces. Normalisations (`N`)
//! are read; relations, events, attributes and notes are passed over. The types that were looked for are those
//! under `[entities]` in an `annotation.conf` in the folder, where there is one. The document's id is the files'
//! name, in which `%3A` stands for a colon.
//!
//! It holds one text: passages become lines of it. It does not hold sections, annotators, or stretches left open.

use super::writer::{Losses, one_line};
use super::{Annotation, Documents, SourceDocument, bare_id, joined_offsets};
use litflow::article::input::{self, Input};
use litflow::article::lines::Lines;
use litflow::article::{Options, Position, Reason, RecordError, curie};
use litflow::bus::records::LabeledDocument;
use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;
use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

const CONFIGURATION: &str = "annotation.conf";

/// Reads the document whose annotations are in `file`. A line that is broken is an error of its own.
pub(super) fn read(input: Input, file: &Path, limits: &Options) -> Documents {
    let stem = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let stem = stem.strip_suffix(".gz").unwrap_or(&stem);
    let stem = stem.strip_suffix(".ann").unwrap_or(stem).to_owned();
    let id = curie("brat", &decoded(&stem));
    let name = file.display().to_string();
    let error = |position, reason| RecordError { file: name.clone(), position, id: Some(id.clone()), reason };
    let text = match text_of(file, &stem, limits) {
        Ok(text) => text,
        Err(reason) => return Box::new(std::iter::once(Err(error(None, reason)))),
    };

    let mut items = Vec::new();
    let mut lines = Lines::new(input.reader, limits.max_record_bytes);
    let mut annotations: Vec<Annotation> = Vec::new();
    let mut by_id: HashMap<String, usize> = HashMap::new();
    while let Some(line) = lines.next_line() {
        let step = line.and_then(|line| match line.as_bytes().first() {
            Some(b'T') => {
                let (name, annotation) = text_bound(line).map_err(Reason::Malformed)?;
                by_id.insert(name.to_owned(), annotations.len());
                annotations.push(annotation);
                Ok(())
            }
            Some(b'N') => {
                let (target, identifier) = normalisation(line).map_err(Reason::Malformed)?;
                if let Some(&at) = by_id.get(target) {
                    annotations[at].identifiers.push(identifier.to_owned());
                }
                Ok(())
            }
            _ => Ok(()),
        });
        if let Err(reason) = step {
            let ended = matches!(reason, Reason::Io(_));
            items.push(Err(error(Some(Position::Line(lines.number())), reason)));
            if ended {
                return Box::new(items.into_iter());
            }
        }
    }
    let entity_types = file.parent().and_then(|folder| std::fs::read_to_string(folder.join(CONFIGURATION)).ok());
    let entity_types = entity_types.map(|configuration| configured_types(&configuration));
    items.push(Ok(SourceDocument { annotations, entity_types, ..SourceDocument::of_text(id, text) }));
    Box::new(items.into_iter())
}

fn text_of(file: &Path, stem: &str, limits: &Options) -> Result<String, Reason> {
    let path = [".txt", ".txt.gz"]
        .map(|end| file.with_file_name(format!("{stem}{end}")))
        .into_iter()
        .find(|path| path.exists());
    let Some(path) = path else {
        return Err(Reason::Format(format!("there is no {stem}.txt beside it")));
    };
    let mut text = Vec::new();
    let limit = limits.max_record_bytes;
    input::open(&path, Arc::default())?.reader.take(limit as u64 + 1).read_to_end(&mut text)?;
    if text.len() > limit {
        return Err(Reason::TooLong { limit });
    }
    String::from_utf8(text).map_err(|error| {
        Reason::Encoding(format!("{}: invalid UTF-8 at byte {}", path.display(), error.utf8_error().valid_up_to()))
    })
}

/// `T1⇥Type 0 5;8 9⇥text`: the id and the annotation.
fn text_bound(line: &str) -> Result<(&str, Annotation), String> {
    let wrong = || "a text-bound annotation needs `ID⇥TYPE BEGIN END[;BEGIN END]⇥TEXT`".to_owned();
    let mut columns = line.splitn(3, '\t');
    let (Some(id), Some(place), text) = (columns.next(), columns.next(), columns.next()) else { return Err(wrong()) };
    let (entity_type, stretches) = place.split_once(' ').ok_or_else(wrong)?;
    let stretch = |pair: &str| -> Option<Range<u32>> {
        let (begin, end) = pair.trim().split_once(' ')?;
        Some(begin.parse().ok()?..end.parse().ok()?)
    };
    let fragments = stretches.split(';').map(stretch).collect::<Option<Vec<_>>>().ok_or_else(wrong)?;
    let annotation = Annotation {
        entity_type: entity_type.to_owned(),
        fragments,
        text: text.map(str::to_owned),
        joint: " ".into(),
        identifiers: Vec::new(),
    };
    Ok((id, annotation))
}

/// `N1⇥Reference T1 DB:ID⇥text`: the annotation's id and the normalised one.
fn normalisation(line: &str) -> Result<(&str, &str), String> {
    let mut words = line.split('\t').nth(1).unwrap_or_default().split(' ').skip(1);
    match (words.next(), words.next()) {
        (Some(target), Some(identifier)) => Ok((target, identifier)),
        _ => Err("a normalisation needs `ID⇥Reference T1 DATABASE:ID⇥TEXT`".into()),
    }
}

/// The names under `[entities]`.
fn configured_types(configuration: &str) -> Vec<String> {
    let lines = configuration.lines().map(str::trim);
    let entities = lines.skip_while(|line| *line != "[entities]").skip(1).take_while(|line| !line.starts_with('['));
    let names = entities.filter_map(|line| line.split_whitespace().next());
    // `!` marks a heading of the hierarchy, which marks nothing itself.
    names.filter(|name| !name.starts_with(['#', '!', '<', '-'])).map(str::to_owned).collect()
}

/// A folder of documents as they are written.
pub(super) struct Folder<'a> {
    path: &'a Path,
    entity_types: BTreeSet<String>,
}

impl<'a> Folder<'a> {
    pub(super) fn new(path: &'a Path) -> Self {
        Self { path, entity_types: BTreeSet::new() }
    }

    /// Writes a document's two files. Its name must be [`is_name`].
    pub(super) fn write(&mut self, document: &LabeledDocument, losses: &mut Losses) -> io::Result<()> {
        losses.count(document.passages.len() > 1, "passages became lines of one text");
        losses.count_names(document);
        self.entity_types.extend(document.entity_types.iter().cloned());
        let stem = encoded(bare_id("brat", &document.document_id));
        let texts: Vec<&str> = document.passages.iter().map(|passage| passage.text.as_str()).collect();
        std::fs::write(self.path.join(format!("{stem}.txt")), texts.join("\n"))?;
        let offsets = joined_offsets(&document.passages);
        let (mut lines, mut normalisations) = (String::new(), 0);
        for (number, span) in (1..).zip(&document.spans) {
            let offset = offsets[span.passage as usize];
            let (begin, end) = (offset + span.begin, offset + span.end);
            let (name, text) = (span.entity_type.replace(char::is_whitespace, "_"), one_line(&span.text, losses));
            let _ = writeln!(lines, "T{number}\t{name} {begin} {end}\t{text}");
            for identifier in &span.identifiers {
                normalisations += 1;
                let identifier = identifier.replace(char::is_whitespace, "_");
                let _ = writeln!(lines, "N{normalisations}\tReference T{number} {identifier}\t{text}");
            }
        }
        std::fs::write(self.path.join(format!("{stem}.ann")), lines)
    }

    /// Writes the types that were looked for in any of the documents.
    pub(super) fn finish(self) -> io::Result<()> {
        let names: Vec<String> =
            self.entity_types.iter().map(|name| name.replace(char::is_whitespace, "_") + "\n").collect();
        let text = format!("[entities]\n{}\n[relations]\n\n[events]\n\n[attributes]\n", names.concat());
        std::fs::write(self.path.join(CONFIGURATION), text)
    }
}

/// Whether an id or a type can be a file's name, with an extension of the writers'.
pub(super) fn is_name(id: &str) -> bool {
    const LONGEST: usize = 255 - ".txt.knowtator.xml".len();
    encoded(id).len() <= LONGEST
}

/// An id as a file's name.
pub(super) fn encoded(id: &str) -> String {
    let mut name = String::new();
    for byte in id.bytes() {
        match byte {
            b'.' if name.is_empty() => name.push_str("%2E"),
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-' => name.push(char::from(byte)),
            byte => {
                let _ = write!(name, "%{byte:02X}");
            }
        }
    }
    name
}

/// The id in a file's name; a percent sign that begins no code stands for itself.
pub(super) fn decoded(name: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), name.as_bytes());
    while let Some((&byte, after)) = rest.split_first() {
        let code = after.get(..2).and_then(|code| std::str::from_utf8(code).ok());
        match code.filter(|_| byte == b'%').and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(decoded) => {
                bytes.push(decoded);
                rest = &after[2..];
            }
            None => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| name.to_owned())
}
