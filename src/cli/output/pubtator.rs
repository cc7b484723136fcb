//! PubTator: `PMID|t|title`, `PMID|a|abstract`, then `PMID⇥begin⇥end⇥mention⇥type`, and a blank line.
//!
//! Offsets are code points over title + one space + abstract. The abstract line holds every passage
//! after the title, joined by one space each, so that sections of an abstract and full text keep the
//! document offsets that all other outputs have. The format cannot hold line breaks inside a text:
//! each becomes one space, which moves no offset. Tabs in the text stay, as the input's lines have them; in
//! the column of a mention they too become spaces.

use litflow::article::Section;
use litflow::tagger::TaggedDocument;
use std::io::{self, Write};

pub fn write(tagged: &TaggedDocument, out: &mut dyn Write) -> io::Result<()> {
    let document = &tagged.document;
    let id = record_id(&document.article_id);
    let (title, rest) = match document.passages.split_first() {
        Some((first, rest)) if first.section == Section::Title => (first.text.as_str(), rest),
        _ => ("", document.passages.as_slice()),
    };
    // Without a title the abstract still begins after its (empty) line and the space.
    let shift = if rest.len() == document.passages.len() { 1 } else { 0 };

    writeln!(out, "{id}|t|{}", one_line(title))?;
    let texts: Vec<&str> = rest.iter().map(|passage| passage.text.as_str()).collect();
    writeln!(out, "{id}|a|{}", one_line(&texts.join(" ")))?;
    for mention in &tagged.mentions {
        let (begin, end) = (mention.document_begin + shift, mention.document_end + shift);
        let text = one_line(&mention.text).replace('\t', " ");
        writeln!(out, "{id}\t{begin}\t{end}\t{text}\t{}", mention.entity_type)?;
    }
    writeln!(out)
}

/// The id as PubTator files have it: a PMID or PMCID without its CURIE prefix; other ids keep theirs.
fn record_id(article_id: &str) -> String {
    let bare = ["pmid:", "pmc:", "pubtator:"].iter().find_map(|prefix| article_id.strip_prefix(prefix));
    bare.unwrap_or(article_id).replace(['|', '\t', '\n', '\r'], "_")
}

fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}
