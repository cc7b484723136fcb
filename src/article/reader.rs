//! The one entry to article files: paths in, [`ArticleEvent`]s out.
//!
//! ```no_run
//! # use litflow::article::{Articles, Options};
//! let mut articles = Articles::new(&["pubmed26n0001.xml.gz".into()], None, &Options::default());
//! for article in &mut articles {
//!     match article {
//!         Ok(event) => println!("{}", event.id),
//!         Err(error) => eprintln!("{error}"), // names the file, the place, the record and the reason
//!     }
//! }
//! ```
//!
//! Inputs are streamed: memory is bounded by the longest record ([`Options::max_record_bytes`]), not
//! by the file. A record that cannot be read is an `Err`, and the next item is the next record.

use super::format::Format;
use super::json::JsonRecords;
use super::lines::Lines;
use super::record::{Options, Place, Position, Reason, RecordError, article_id, with_content, within_limits};
use super::xml::records::{Dialect, XmlRecords};
use super::{ArticleEvent, Passage, Section};
use super::{bioc, input, jats, jsonl, pubmed, pubtator};
use std::collections::VecDeque;
use std::io::{BufRead, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

type Item = Result<ArticleEvent, RecordError>;
type Items = Box<dyn Events + Send>;

/// The articles of one input.
pub(super) trait Events: Iterator<Item = Item> {
    /// Where the last one begins, in an input that holds more than one.
    fn last_position(&self) -> Option<Position>;
}

/// Reads the articles of files, directories and stdin, one after the other.
pub struct Articles {
    paths: VecDeque<PathBuf>,
    /// Paths that could not be listed.
    unlisted: VecDeque<RecordError>,
    from: Option<Format>,
    options: Options,
    current: Option<Items>,
    place: Place,
    consumed: Arc<AtomicU64>,
    total: Option<u64>,
}

impl Articles {
    /// `paths` are files, directories (read recursively, in the order of their paths) and `-` for
    /// stdin; `from` names the format where names and contents do not tell.
    pub fn new(paths: &[PathBuf], from: Option<Format>, options: &Options) -> Self {
        let (mut files, mut unlisted) = (VecDeque::new(), VecDeque::new());
        for path in paths {
            match input::expand(path, from.is_some()) {
                Ok(expanded) => files.extend(expanded),
                Err(error) => unlisted.push_back(file_error(path, error.into())),
            }
        }
        let size =
            |path: &PathBuf| if input::is_stdin(path) { None } else { Some(path.metadata().map_or(0, |m| m.len())) };
        let total = files.iter().map(size).sum();
        Self {
            paths: files,
            unlisted,
            from,
            options: options.clone(),
            current: None,
            place: Place { file: "".into(), position: None },
            consumed: Arc::new(AtomicU64::new(0)),
            total,
        }
    }

    /// Where the last article begins, for whoever finds out later that something is wrong with it.
    pub fn place(&self) -> &Place {
        &self.place
    }

    fn checked(&self, event: ArticleEvent) -> Item {
        let id = event.id.clone();
        within_limits(event, &self.options).map_err(|reason| {
            let Place { file, position } = self.place.clone();
            RecordError { file: file.to_string(), position, id: Some(id), reason }
        })
    }

    /// How far reading has come.
    pub fn progress(&self) -> Progress {
        Progress { consumed: Arc::clone(&self.consumed), total: self.total }
    }
}

/// A handle on how far [`Articles`] has come; it stays valid while they are read elsewhere.
#[derive(Debug, Clone)]
pub struct Progress {
    consumed: Arc<AtomicU64>,
    /// The size of all inputs in bytes as they are stored; `None` when stdin is among them.
    pub total: Option<u64>,
}

impl Progress {
    /// Bytes read so far, as they are stored (compressed).
    pub fn consumed(&self) -> u64 {
        self.consumed.load(Ordering::Relaxed)
    }
}

impl Iterator for Articles {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        if let Some(error) = self.unlisted.pop_front() {
            return Some(Err(error));
        }
        loop {
            if let Some(items) = &mut self.current {
                match items.next() {
                    Some(item) => {
                        self.place.position = items.last_position();
                        return Some(item.and_then(|event| self.checked(event)));
                    }
                    None => self.current = None,
                }
            }
            let path = self.paths.pop_front()?;
            match read_path(&path, self.from, &self.options, Arc::clone(&self.consumed)) {
                Ok(items) => {
                    self.place.file = file_name(&path).into();
                    self.current = Some(items);
                }
                Err(reason) => return Some(Err(file_error(&path, reason))),
            }
        }
    }
}

fn file_error(path: &Path, reason: Reason) -> RecordError {
    RecordError { file: file_name(path), position: None, id: None, reason }
}

fn file_name(path: &Path) -> String {
    if input::is_stdin(path) { "stdin".to_owned() } else { path.display().to_string() }
}

fn read_path(path: &Path, from: Option<Format>, options: &Options, consumed: Arc<AtomicU64>) -> Result<Items, Reason> {
    let input = input::open(path, consumed)?;
    let format = Format::detect(from, Some(path), &input.head)?;
    Ok(items(input, format, file_name(path), text_id(path), options))
}

/// The articles of bytes that are no file; a plain text gets the id `id`.
///
/// # Errors
/// Bytes whose beginning cannot be read.
pub fn read_events(
    bytes: impl BufRead + Send + 'static,
    format: Format,
    id: &str,
    options: &Options,
) -> Result<impl Iterator<Item = Item>, Reason> {
    let input = input::Input::new(bytes)?;
    Ok(items(input, format, String::new(), id.to_owned(), options))
}

fn items(input: input::Input, format: Format, file: String, text_id: String, options: &Options) -> Items {
    let max = options.max_record_bytes;
    let xml = |dialect: &'static Dialect<ArticleEvent>, input: input::Input, file: String| -> Items {
        Box::new(XmlRecords::new(input.reader, file, dialect, &input.head, options))
    };
    match format {
        Format::Pubmed => xml(&pubmed::DIALECT, input, file),
        Format::Jats => xml(&jats::DIALECT, input, file),
        Format::Bioc if input.is_xml() => xml(&bioc::DIALECT, input, file),
        Format::Bioc => Box::new(JsonRecords::new(input.reader, file, options, bioc::event)),
        Format::Pubtator => {
            let documents = pubtator::Reader::new(input.reader, file.clone(), options).without_annotations();
            Box::new(PubtatorDocuments { documents, file })
        }
        Format::Jsonl => Box::new(JsonLines { lines: Lines::new(input.reader, max), file, ended: false }),
        Format::Text => {
            let event = read_text(input.reader, &text_id, max);
            let event = event.map_err(|reason| RecordError { file, position: None, id: Some(text_id), reason });
            Box::new(Text(Some(event)))
        }
    }
}

impl<R: Read> Events for XmlRecords<R, ArticleEvent> {
    fn last_position(&self) -> Option<Position> {
        Some(self.last_position())
    }
}

impl<R: BufRead> Events for JsonRecords<R, ArticleEvent> {
    fn last_position(&self) -> Option<Position> {
        Some(self.last_position())
    }
}

struct PubtatorDocuments<R> {
    documents: pubtator::Reader<R>,
    file: String,
}

impl<R: BufRead> Iterator for PubtatorDocuments<R> {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        Some(self.documents.next()?.and_then(|document| {
            let id = document.id.clone();
            let (file, position) = (self.file.clone(), self.last_position());
            let event = with_content(document.into_event());
            event.map_err(|reason| RecordError { file, position, id: Some(id), reason })
        }))
    }
}

impl<R: BufRead> Events for PubtatorDocuments<R> {
    fn last_position(&self) -> Option<Position> {
        Some(Position::Line(self.documents.document_line()))
    }
}

/// A plain text: one article.
struct Text(Option<Item>);

impl Iterator for Text {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        self.0.take()
    }
}

impl Events for Text {
    fn last_position(&self) -> Option<Position> {
        None
    }
}

struct JsonLines<R> {
    lines: Lines<R>,
    file: String,
    ended: bool,
}

impl<R: BufRead> Iterator for JsonLines<R> {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        loop {
            if self.ended {
                return None;
            }
            let mut id = None;
            let result = match self.lines.next_line()? {
                Ok(line) if line.trim().is_empty() => continue,
                Ok(line) => jsonl::parse(line.as_bytes(), &mut id).and_then(with_content),
                Err(reason) => Err(reason),
            };
            return Some(result.map_err(|reason| {
                self.ended = matches!(reason, Reason::Io(_));
                RecordError { file: self.file.clone(), position: Some(Position::Line(self.lines.number())), id, reason }
            }));
        }
    }
}

impl<R: BufRead> Events for JsonLines<R> {
    fn last_position(&self) -> Option<Position> {
        Some(Position::Line(self.lines.number()))
    }
}

/// The id of a text file: its name without `.txt` and `.gz`.
fn text_id(path: &Path) -> String {
    let name =
        if input::is_stdin(path) { "stdin".into() } else { path.file_name().unwrap_or_default().to_string_lossy() };
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    article_id("text", name.strip_suffix(".txt").unwrap_or(name))
}

/// A plain text is one document with one passage, so that offsets are those of the file; only a byte
/// order mark is taken off.
fn read_text(reader: impl Read, id: &str, max_bytes: usize) -> Result<ArticleEvent, Reason> {
    let mut bytes = Vec::new();
    reader.take(max_bytes as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > max_bytes {
        return Err(Reason::TooLong { limit: max_bytes });
    }
    let text = std::str::from_utf8(&bytes).map_err(Reason::not_utf8)?;
    let mut event = ArticleEvent::new(id, "text");
    event.passages.push(Passage::new(Section::Body, text.strip_prefix('\u{FEFF}').unwrap_or(text)));
    with_content(event)
}
