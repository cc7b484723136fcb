//! PubTator: titles and abstracts with gold annotations, the format of NCBI's corpora.
//!
//! ```text
//! 12345|t|BRCA1 in breast cancer
//! 12345|a|We studied BRCA1.
//! 12345⇥0⇥5⇥BRCA1⇥Gene⇥672
//! 12345⇥Association⇥672⇥D001943⇥Novel
//!
//! ```
//!
//! A document is a title line, an abstract line and tab-separated annotations; a blank line or the
//! next title line ends it. Offsets are code points into `title + " " + abstract`, half-open. Lines
//! whose second column is no number are relations and are passed over, and so are columns after the
//! identifier. Annotations are kept as written: see [`PubtatorDocument::mismatches`].

use super::lines::Lines;
use super::record::{Options, Position, Reason, RecordError, curie, is_pmcid, is_pmid};
use super::{ArticleEvent, ArticleIds, Passage, Section};
use std::io::BufRead;

/// A document with its gold annotations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PubtatorDocument {
    /// The id as the file has it: a PMID, or any other id without `|` and tabs.
    pub id: String,
    /// The title, unaltered; may be empty.
    pub title: String,
    /// The abstract, unaltered; may be empty.
    pub abstract_text: String,
    /// The annotations in the file's order.
    pub annotations: Vec<PubtatorAnnotation>,
}

/// An annotated span of a document's `title + " " + abstract`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PubtatorAnnotation {
    /// First code point.
    pub begin: usize,
    /// One after the last code point.
    pub end: usize,
    /// The mention as the file has it.
    pub text: String,
    /// The entity type as the file names it.
    pub entity_type: String,
    /// The normalised id, where the annotation has one.
    pub identifier: Option<String>,
}

impl PubtatorDocument {
    /// `title + " " + abstract`: what the annotations' offsets count.
    pub fn text(&self) -> String {
        format!("{} {}", self.title, self.abstract_text)
    }

    /// The annotations whose offsets do not select their text: errors of the corpus (0.3 % of
    /// GNormPlus), to be left out or repaired by whoever trains on it.
    pub fn mismatches(&self) -> impl Iterator<Item = &PubtatorAnnotation> {
        let text: Vec<char> = self.text().chars().collect();
        self.annotations.iter().filter(move |annotation| {
            let selected = text.get(annotation.begin..annotation.end);
            !selected.is_some_and(|selected| selected.iter().copied().eq(annotation.text.chars()))
        })
    }

    /// The article as the pipeline sees it, without its annotations. The title is there even when it
    /// is empty, so that document offsets are those of the file.
    pub fn into_event(self) -> ArticleEvent {
        let mut event = ArticleEvent::new(curie("pubtator", &self.id), "pubtator");
        if is_pmid(&self.id) {
            event.ids = ArticleIds { pmid: Some(self.id), ..ArticleIds::default() };
        } else if is_pmcid(&self.id) {
            event.ids = ArticleIds { pmcid: Some(self.id), ..ArticleIds::default() };
        }
        event.title = Some(self.title);
        if !self.abstract_text.is_empty() {
            event.passages.push(Passage::new(Section::Abstract, self.abstract_text));
        }
        event
    }
}

/// Reads documents one after the other. A broken one is reported, and reading goes on at the next
/// blank or title line.
pub struct Reader<R> {
    lines: Lines<R>,
    file: String,
    max_record_bytes: usize,
    reads_annotations: bool,
    /// A title line that ended the document before it.
    pending: Option<String>,
    /// The line on which the document last read begins.
    first_line: u64,
    ended: bool,
}

impl<R: BufRead> Reader<R> {
    /// `file` names the input in errors.
    pub fn new(reader: R, file: impl Into<String>, options: &Options) -> Self {
        Self {
            lines: Lines::new(reader, options.max_record_bytes),
            file: file.into(),
            max_record_bytes: options.max_record_bytes,
            reads_annotations: true,
            pending: None,
            first_line: 0,
            ended: false,
        }
    }

    /// Passes annotations and relations over, so that a broken one does not cost the document: for those who
    /// want nothing but the text.
    pub(crate) fn without_annotations(self) -> Self {
        Self { reads_annotations: false, ..self }
    }

    /// The line on which the document last read begins.
    pub fn document_line(&self) -> u64 {
        self.first_line
    }

    fn error(&self, id: Option<&str>, reason: Reason) -> RecordError {
        RecordError {
            file: self.file.clone(),
            position: Some(Position::Line(self.lines.number())),
            id: id.map(str::to_owned),
            reason,
        }
    }

    /// Skips the rest of a broken document.
    fn resynchronise(&mut self) {
        while let Some(line) = self.lines.next_line() {
            match line {
                Ok(line) if line.trim().is_empty() => return,
                Ok(line) if title_line(line).is_some() => {
                    self.pending = Some(line.to_owned());
                    return;
                }
                Err(Reason::Io(_)) => {
                    self.ended = true;
                    return;
                }
                _ => {}
            }
        }
        self.ended = true;
    }

    /// The document that begins with the title line `first`.
    fn read_document(&mut self, first: &str) -> Result<PubtatorDocument, RecordError> {
        let Some((id, title)) = title_line(first) else {
            let shown: String = first.chars().take(40).collect();
            return Err(self.error(None, Reason::malformed(format!("expected `ID|t|title`, found `{shown}`"))));
        };
        let mut document = PubtatorDocument {
            id: id.to_owned(),
            title: title.to_owned(),
            abstract_text: String::new(),
            annotations: Vec::new(),
        };
        let mut has_abstract = false;
        let mut bytes = first.len();
        loop {
            let step = match self.lines.next_line() {
                None => {
                    self.ended = true;
                    return Ok(document);
                }
                Some(Err(reason)) => Err(reason),
                Some(Ok(line)) => {
                    if line.trim().is_empty() {
                        return Ok(document);
                    }
                    if title_line(line).is_some() {
                        self.pending = Some(line.to_owned());
                        return Ok(document);
                    }
                    bytes += line.len();
                    if bytes > self.max_record_bytes {
                        Err(Reason::TooLong { limit: self.max_record_bytes })
                    } else if let Some((_, text)) = field_line(line, "|a|").filter(|(id, _)| *id == document.id) {
                        if has_abstract {
                            Err(Reason::malformed("a second abstract line"))
                        } else {
                            has_abstract = true;
                            document.abstract_text = text.to_owned();
                            Ok(())
                        }
                    } else if !self.reads_annotations && is_meant_as_annotation(line, &document.id) {
                        Ok(())
                    } else {
                        parse_annotation(line, &document.id)
                            .map(|annotation| document.annotations.extend(annotation))
                            .map_err(Reason::Malformed)
                    }
                }
            };
            if let Err(reason) = step {
                return Err(self.error(Some(&document.id), reason));
            }
        }
    }
}

impl<R: BufRead> Iterator for Reader<R> {
    type Item = Result<PubtatorDocument, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended && self.pending.is_none() {
            return None;
        }
        let first = match self.pending.take() {
            Some(line) => line,
            None => loop {
                match self.lines.next_line() {
                    None => {
                        self.ended = true;
                        return None;
                    }
                    Some(Ok(line)) if line.trim().is_empty() => {}
                    Some(Ok(line)) => break line.to_owned(),
                    Some(Err(reason)) => {
                        let error = self.error(None, reason);
                        self.skip_after(&error);
                        return Some(Err(error));
                    }
                }
            },
        };
        self.first_line = self.lines.number();
        let document = self.read_document(&first);
        if let Err(error) = &document {
            self.skip_after(error);
        }
        Some(document)
    }
}

impl<R: BufRead> Reader<R> {
    fn skip_after(&mut self, error: &RecordError) {
        match error.reason {
            Reason::Io(_) => self.ended = true,
            _ => self.resynchronise(),
        }
    }
}

/// `ID|t|title`, split; `None` for any other line.
pub(crate) fn title_line(line: &str) -> Option<(&str, &str)> {
    field_line(line, "|t|")
}

fn field_line<'a>(line: &'a str, mark: &str) -> Option<(&'a str, &'a str)> {
    let (id, text) = line.split_once(mark)?;
    let is_id = !id.is_empty() && !id.contains(['|', '\t']);
    is_id.then_some((id, text))
}

/// Whether a line, however broken, is an annotation or a relation. Any other is text that was torn off its
/// title or abstract, or another document's.
fn is_meant_as_annotation(line: &str, document_id: &str) -> bool {
    line.contains('\t') || line.split_whitespace().next() == Some(document_id)
}

/// An annotation, or `None` for a relation.
fn parse_annotation(line: &str, document_id: &str) -> Result<Option<PubtatorAnnotation>, String> {
    let mut columns = line.split('\t');
    let id = columns.next().unwrap_or_default();
    if id != document_id {
        return Err(format!("a line of `{}` in this document", id.chars().take(40).collect::<String>()));
    }
    let Some(second) = columns.next() else {
        return Err("a line with neither text nor tab-separated columns".into());
    };
    let Ok(begin) = second.parse::<usize>() else {
        return Ok(None);
    };
    let (Some(Ok(end)), Some(text), Some(entity_type)) =
        (columns.next().map(str::parse::<usize>), columns.next(), columns.next())
    else {
        return Err("an annotation needs `ID begin end mention type`, tab-separated".into());
    };
    let identifier = columns.next().map(str::trim).filter(|identifier| !identifier.is_empty());
    Ok(Some(PubtatorAnnotation {
        begin,
        end,
        text: text.to_owned(),
        entity_type: entity_type.to_owned(),
        identifier: identifier.map(str::to_owned),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(input: &str) -> Vec<Result<PubtatorDocument, RecordError>> {
        Reader::new(input.as_bytes(), "test", &Options::default()).collect()
    }

    #[test]
    fn documents_annotations_and_relations() {
        let input = "12345|t|BRCA1 | in β cancer\r\n12345|a|We studied|t|BRCA1.\r\n\
                     12345\t0\t5\tBRCA1\tGene\t672\textra\r\n12345\t11\t19\tβ cancer\tDisease\t\r\n\
                     12345\tAssociation\t672\tD001943\tNovel\r\n\r\n\n\
                     abc|t|\nabc|a|\n99999999999|t|Next without a blank line";
        let documents: Vec<_> = read(input).into_iter().map(Result::unwrap).collect();
        assert_eq!(documents.len(), 3);
        assert_eq!(documents[0].text(), "BRCA1 | in β cancer We studied|t|BRCA1.");
        assert_eq!(documents[0].annotations.len(), 2);
        assert_eq!(documents[0].annotations[0].identifier.as_deref(), Some("672"));
        assert_eq!(documents[0].annotations[1].identifier, None);
        assert_eq!(documents[0].mismatches().count(), 0);
        let ids: Vec<_> = documents.into_iter().map(|document| document.into_event().id).collect();
        assert_eq!(ids, ["pmid:12345", "pubtator:abc", "pubtator:99999999999"]);
    }

    #[test]
    fn offsets_of_the_event_are_those_of_the_file() {
        let input = "1|t|\n1|a|BRCA1 here\n1\t1\t6\tBRCA1\tGene\t672\n";
        let document = read(input).remove(0).unwrap();
        assert_eq!(document.mismatches().count(), 0);
        let tagged = document.into_event().into_document();
        assert_eq!(tagged.passage_offsets(), [0, 1]);
    }

    #[test]
    fn a_broken_document_does_not_hurt_its_neighbours() {
        let input = "no document\n\n1|t|One\n1|a|Abstract\n2\t0\t3\tOne\tGene\n1\t0\t3\tOne\tGene\n\
                     2|t|Two\n2|a|Abstract\n2\t0\tx\tTwo\tGene\n\n3|t|Three\n3|a|A\n3|a|B\n\n4|t|Four\n4|a|D\n";
        let results = read(input);
        let errors: Vec<_> = results.iter().filter_map(|r| r.as_ref().err()).map(ToString::to_string).collect();
        assert_eq!(
            errors,
            [
                "test, line 1: expected `ID|t|title`, found `no document`",
                "test, line 5, record 1: a line of `2` in this document",
                "test, line 9, record 2: an annotation needs `ID begin end mention type`, tab-separated",
                "test, line 13, record 3: a second abstract line",
            ]
        );
        let good: Vec<_> = results.into_iter().filter_map(Result::ok).map(|document| document.id).collect();
        assert_eq!(good, ["4"]);
    }

    #[test]
    fn who_wants_only_the_text_is_not_hurt_by_a_broken_annotation() {
        for broken in
            ["1\t0\tx\tOne\tGene", "1\t0", "1 0 3 One Gene", "2\t0\t3\tOne\tGene", "\t\t\t", "1\t-4\t3\tOne", "1"]
        {
            let input = format!("1|t|One\n1|a|Abstract\n1\t0\t3\tOne\tGene\n{broken}\n\n2|t|Two\n2|a|B\n");
            let without = Reader::new(input.as_bytes(), "test", &Options::default()).without_annotations();
            let texts: Vec<_> = without.map(|document| document.unwrap()).collect();
            assert_eq!((texts.len(), texts[0].text().as_str()), (2, "One Abstract"), "{broken:?}");
            assert_eq!(texts[0].annotations, []);
        }
        // What is no annotation may be a part of the text: nothing is left out unsaid.
        for torn in ["1|t|One\n1|a|An abstract\nin two lines.\n", "1|t|One\n2|a|Of another\n", "1|t|O\n1|a|A\n1|a|B\n"]
        {
            let mut without = Reader::new(torn.as_bytes(), "test", &Options::default()).without_annotations();
            assert!(without.next().unwrap().is_err(), "{torn:?}");
        }
    }

    #[test]
    fn misplaced_annotations_are_told_apart() {
        let input = "1|t|One\n1|a|Two\n1\t4\t7\tTwo\tGene\n1\t4\t7\tOne\tGene\n1\t5\t90\tTwo\tGene\n1\t5\t4\tT\tGene\n";
        let document = read(input).remove(0).unwrap();
        assert_eq!(document.annotations.len(), 4);
        assert_eq!(document.mismatches().count(), 3);
    }

    #[test]
    fn every_corpus_file_is_read_whole() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpora/aioner");
        let Ok(files) = std::fs::read_dir(&folder) else {
            eprintln!("skipped: no {}", folder.display());
            return;
        };
        let (mut documents, mut annotations, mut mismatches) = (0, 0, 0);
        for file in files.map(|file| file.unwrap().path()) {
            let reader = std::io::BufReader::new(std::fs::File::open(&file).unwrap());
            for document in Reader::new(reader, file.display().to_string(), &Options::default()) {
                let document = document.unwrap();
                documents += 1;
                annotations += document.annotations.len();
                mismatches += document.mismatches().count();
            }
        }
        eprintln!("{documents} documents, {annotations} annotations, {mismatches} misplaced");
        assert!(documents > 10_000 && annotations > 50_000);
        assert!(mismatches * 500 < annotations, "{mismatches} of {annotations} misplaced");
    }
}
