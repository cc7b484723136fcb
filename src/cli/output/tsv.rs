//! Tab-separated values, one mention a line. A tab, line break or backslash inside a text is written
//! `\t`, `\n`, `\r`, `\\`, so that every mention is one line of the same number of columns.

use super::rounded;
use litflow::tagger::TaggedDocument;
use std::borrow::Cow;
use std::io::{self, Write};

pub fn write_header(out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "article_id\tarticle_version\tpassage\tsection\tsentence\tbegin\tend\tdocument_begin\tdocument_end\ttype\ttext\tscore\tid"
    )
}

pub fn write(tagged: &TaggedDocument, out: &mut dyn Write) -> io::Result<()> {
    let document = &tagged.document;
    let article_id = escaped(&document.article_id);
    for mention in &tagged.mentions {
        let section = document.passages[mention.passage as usize].section.name();
        writeln!(
            out,
            "{article_id}\t{}\t{}\t{section}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}",
            document.article_version,
            mention.passage,
            mention.sentence,
            mention.begin,
            mention.end,
            mention.document_begin,
            mention.document_end,
            escaped(&mention.entity_type),
            escaped(&mention.text),
            rounded(mention.score),
            mention.id,
        )?;
    }
    Ok(())
}

fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(['\t', '\n', '\r', '\\']) {
        return Cow::Borrowed(text);
    }
    let escaped = text.replace('\\', "\\\\").replace('\t', "\\t").replace('\n', "\\n").replace('\r', "\\r");
    Cow::Owned(escaped)
}
