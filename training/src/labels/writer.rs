//! Writes labelled documents in any of the formats, and counts what a format cannot hold.

use super::{Format, bioc, brat, conll, knowtator, label_studio, prodigy, pubtator};
use crate::error::Error;
use crate::files::Successor;
use litflow::article::Section;
use litflow::bus::records::{GoldSpan, LabeledDocument, OpenSpan};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// Where documents are written to.
pub struct Writer<'a> {
    format: Format,
    out: Out<'a>,
    /// The file that the stream is to become.
    successor: Option<Successor>,
    /// What the output is called in messages.
    name: PathBuf,
    losses: Losses,
    documents: u64,
}

enum Out<'a> {
    Stream(Box<dyn Write + 'a>),
    Brat(brat::Folder<'a>),
    Knowtator(&'a Path),
}

/// What a format could not hold, with the number of documents.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Losses(BTreeMap<&'static str, u64>);

impl<'a> Writer<'a> {
    /// Writes to a stream.
    ///
    /// # Errors
    /// BRAT and Knowtator, which need a folder.
    pub fn to_stream(format: Format, out: Box<dyn Write + 'a>) -> Result<Self, Error> {
        if format.needs_folder() {
            return Err(Error::Usage(
                "brat and knowtator have several files a document: name a folder by --out".into(),
            ));
        }
        Self::new(format, Out::Stream(out), Path::new("-"))
    }

    /// Writes a file, which takes the place of an earlier one by [`Writer::finish`] only. What is no file (`/dev/stdout`,
    /// a pipe) is written to as it is.
    ///
    /// # Errors
    /// BRAT and Knowtator, which need a folder, and what cannot be written.
    pub fn to_file(format: Format, path: &Path) -> Result<Self, Error> {
        let is_other = path.metadata().is_ok_and(|found| !found.is_file());
        let successor = if is_other { None } else { Some(Successor::create(path)?) };
        let out = match &successor {
            Some(successor) => successor.writer()?,
            None => File::create(path).map_err(|error| Error::io(path, error))?,
        };
        let writer = Self::to_stream(format, Box::new(BufWriter::new(out)))?;
        Ok(Self { successor, name: path.to_owned(), ..writer })
    }

    /// Writes into a folder, which must be new or empty, so that nothing of another export is left in it.
    ///
    /// # Errors
    /// A format that is one file, and what cannot be written.
    pub fn to_folder(format: Format, path: &'a Path) -> Result<Self, Error> {
        std::fs::create_dir_all(path).map_err(|error| Error::io(path, error))?;
        if std::fs::read_dir(path).map_err(|error| Error::io(path, error))?.next().is_some() {
            return Err(Error::Usage(format!("{} is not empty: name another --out", path.display())));
        }
        let out = match format {
            Format::Brat => Out::Brat(brat::Folder::new(path)),
            Format::Knowtator => Out::Knowtator(path),
            _ => return Err(Error::Usage("only brat and knowtator are written into a folder".into())),
        };
        Self::new(format, out, path)
    }

    fn new(format: Format, mut out: Out<'a>, path: &Path) -> Result<Self, Error> {
        let name = path.to_owned();
        if let (Out::Stream(out), Some((begin, _))) = (&mut out, frame(format)) {
            out.write_all(begin.as_bytes()).map_err(|error| Error::io(&name, error))?;
        }
        Ok(Self { format, out, successor: None, name, losses: Losses::default(), documents: 0 })
    }

    /// Writes a document; or says why the format cannot hold it at all, and it was left out.
    pub fn write(&mut self, document: &LabeledDocument) -> Result<Result<(), &'static str>, Error> {
        let losses = &mut self.losses;
        losses.count(!document.open.is_empty() && !holds_everything(self.format), "stretches left open");
        if matches!(self.format, Format::BiocXml | Format::Knowtator) && !bioc::fits_xml(document) {
            return Ok(Err("its text has control characters, which XML cannot hold"));
        }
        if self.format.needs_folder() && !brat::is_name(&document.document_id) {
            return Ok(Err("its id is too long for a file's name"));
        }
        if self.format == Format::Knowtator && !document.entity_types.iter().all(|name| brat::is_name(name)) {
            return Ok(Err("one of its types is too long for a folder's name"));
        }
        let separator = if self.documents > 0 { ",\n" } else { "" };
        let written = match (&mut self.out, self.format) {
            (Out::Brat(folder), _) => folder.write(document, losses),
            (Out::Knowtator(folder), _) => knowtator::write(document, folder, losses),
            (Out::Stream(out), Format::Pubtator) => pubtator::write(document, out, losses),
            (Out::Stream(out), Format::Conll) => conll::write(document, out, losses),
            (Out::Stream(out), Format::BiocJson) => write!(out, "{separator}{}", bioc::to_json(document)),
            (Out::Stream(out), Format::BiocXml) => bioc::write_xml(document, out),
            (Out::Stream(out), Format::LabelStudio) => {
                write!(out, "{separator}{}", label_studio::task(document, losses))
            }
            (Out::Stream(out), Format::Prodigy) => writeln!(out, "{}", prodigy::line(document, losses)),
            (Out::Stream(out), Format::Jsonl | Format::Brat | Format::Knowtator) => {
                writeln!(out, "{}", serde_json::to_string(document).expect("a document is plain data"))
            }
        };
        written.map_err(|error| Error::io(&self.name, error))?;
        self.documents += 1;
        Ok(Ok(()))
    }

    /// Ends the output; returns what the format could not hold.
    pub fn finish(self) -> Result<Losses, Error> {
        let ended = match self.out {
            Out::Brat(folder) => folder.finish(),
            Out::Knowtator(_) => Ok(()),
            Out::Stream(mut out) => {
                let end = frame(self.format).map_or("", |(_, end)| end);
                out.write_all(end.as_bytes()).and_then(|()| out.flush())
            }
        };
        ended.map_err(|error| Error::io(&self.name, error))?;
        if let Some(successor) = self.successor {
            successor.replace()?;
        }
        Ok(self.losses)
    }
}

/// Formats that hold every field of a document.
fn holds_everything(format: Format) -> bool {
    matches!(format, Format::Jsonl | Format::BiocJson | Format::BiocXml)
}

/// What stands before and after all documents.
fn frame(format: Format) -> Option<(&'static str, &'static str)> {
    match format {
        Format::BiocJson => Some(bioc::JSON_FRAME),
        Format::BiocXml => Some(bioc::XML_FRAME),
        Format::LabelStudio => Some(("[\n", "\n]\n")),
        _ => None,
    }
}

impl Losses {
    /// Counts a document that loses this.
    pub(super) fn count(&mut self, lost: bool, what: &'static str) {
        if lost {
            *self.0.entry(what).or_default() += 1;
        }
    }

    /// Counts what stands beside the text and the spans, in formats that have no place for it.
    pub(super) fn count_names(&mut self, document: &LabeledDocument) {
        let named = |section: Section| !matches!(section, Section::Title | Section::Abstract | Section::Body);
        let of_passage =
            document.passages.iter().any(|p| named(p.section) || p.heading.is_some() || p.language.is_some());
        self.count(of_passage, "names of sections");
        let absent = |name: &String| !document.spans.iter().any(|span| span.entity_type == *name);
        self.count(document.entity_types.iter().any(absent), "types that were looked for and do not occur");
        self.count(document.guideline.is_some() || document.annotated_at.is_some(), "guideline and time");
    }
}

impl fmt::Display for Losses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = self.0.iter().map(|(what, count)| format!("{what} ({count} documents)")).collect();
        f.write_str(&parts.join(", "))
    }
}

impl Losses {
    /// Whether everything was held.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The spans of a passage: they are ordered by passage.
pub(super) fn spans_of(document: &LabeledDocument, passage: usize) -> &[GoldSpan] {
    let begin = document.spans.partition_point(|span| (span.passage as usize) < passage);
    let end = document.spans.partition_point(|span| span.passage as usize <= passage);
    &document.spans[begin..end]
}

/// The open stretches of a passage, ordered alike.
pub(super) fn open_of(document: &LabeledDocument, passage: usize) -> &[OpenSpan] {
    let begin = document.open.partition_point(|open| (open.passage as usize) < passage);
    let end = document.open.partition_point(|open| open.passage as usize <= passage);
    &document.open[begin..end]
}

/// The text with a space for each line break and tab, so that offsets hold.
pub(super) fn one_line<'t>(text: &'t str, losses: &mut Losses) -> Cow<'t, str> {
    let breaks = ['\n', '\r', '\t'];
    if !text.contains(breaks) {
        return text.into();
    }
    losses.count(true, "line breaks and tabs became spaces");
    text.replace(breaks, " ").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_earlier_file_stays_until_the_new_one_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("labels.xml"), folder.path().join("link"));
        std::fs::write(&file, "earlier").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let content = || std::fs::read_to_string(&file).unwrap();
        let names = || std::fs::read_dir(folder.path()).unwrap().count();

        drop(Writer::to_file(Format::BiocXml, &file).unwrap());
        assert_eq!((content().as_str(), names()), ("earlier", 2), "what is broken off leaves nothing");

        let writer = Writer::to_file(Format::BiocXml, &link).unwrap();
        assert_eq!(content(), "earlier");
        writer.finish().unwrap();
        assert_eq!(content(), bioc::XML_FRAME.0.to_owned() + bioc::XML_FRAME.1);
        assert!(link.is_symlink() && names() == 2, "the link stays one");

        Writer::to_file(Format::Jsonl, Path::new("/dev/null")).unwrap().finish().unwrap();
        assert!(!Path::new("/dev/null").is_file(), "a device is written to, never replaced");
    }
}
