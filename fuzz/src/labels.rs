//! Labelled documents of every format: a span that is taken selects its own words, and what is read survives the
//! topic and the project's own format.

use crate::memory::{FIXED, bounded};
use litflow::article::Options;
use litflow::bus::codec::Record as _;
use litflow::bus::records::LabeledDocument;
use litflow_training::Error;
use litflow_training::labels::{Corpus, Format, Quarantine, ReadOptions, Scheme};
use std::path::{Path, PathBuf};

/// A file whose format is told by its beginning.
pub fn labels(bytes: &[u8]) {
    let folder = Folder::new();
    check(&folder.write("labels", bytes), None, bytes.len());
}

/// A BRAT document: the text up to the first line `%%`, then its annotations.
pub fn brat(bytes: &[u8]) {
    const BREAK: &[u8] = b"\n%%\n";
    let at = bytes.windows(BREAK.len()).position(|window| window == BREAK);
    let (text, annotations) = at.map_or((bytes, &b""[..]), |at| (&bytes[..at], &bytes[at + BREAK.len()..]));
    let folder = Folder::new();
    folder.write("document.txt", text);
    check(&folder.write("document.ann", annotations), Some(Format::Brat), bytes.len());
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("there is room for a folder"))
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let file = self.0.path().join(name);
        std::fs::write(&file, bytes).expect("there is room for the input");
        file
    }
}

fn read(file: &Path, format: Option<Format>) -> Vec<LabeledDocument> {
    let limits = Options { max_record_bytes: 16 << 10, max_xml_depth: 64, max_passages: 500 };
    let options = ReadOptions { limits, texts: None };
    let mut left_out = |_: &_| {};
    let mut quarantine = Quarantine::listing(&mut left_out);
    let mut corpus = Corpus::new(Scheme::default());
    corpus.add(file, format, &options, &mut quarantine).expect("there is room for what waits");
    let mut documents = Vec::new();
    let each = |document: LabeledDocument, _: &mut Quarantine| {
        documents.push(document);
        Ok::<(), Error>(())
    };
    corpus.finish(&mut quarantine, each).expect("there is room for what waits");
    documents
}

fn check(file: &Path, format: Option<Format>, input: usize) {
    for document in bounded(input, FIXED, || read(file, format)) {
        for span in &document.spans {
            let passage: Vec<char> = document.passages[span.passage as usize].text.chars().collect();
            let selected: String = passage[span.begin as usize..span.end as usize].iter().collect();
            assert_eq!(selected, span.text, "{span:?}");
            assert!(span.begin < span.end && document.entity_types.contains(&span.entity_type), "{span:?}");
        }
        for open in &document.open {
            let length = document.passages[open.passage as usize].text.chars().count();
            assert!(open.begin < open.end && open.end as usize <= length, "{open:?} of {length}");
        }
        let encoded = document.encode().expect("what was read fits its schema");
        assert_eq!(LabeledDocument::decode(&encoded).expect("what was written can be read"), document);
    }
}
