//! One line of JSON per article; its fields are part of the contract (`docs/output-formats.md`).

use super::rounded;
use litflow::article::Section;
use litflow::tagger::{Mention, ModelRef, TaggedDocument};
use serde::Serialize;
use std::io::{self, Write};

#[derive(Serialize)]
struct Line<'a> {
    article_id: &'a str,
    article_version: i64,
    model: &'a ModelRef,
    passages: Vec<PassageLine<'a>>,
    mentions: Vec<MentionLine<'a>>,
}

#[derive(Serialize)]
struct PassageLine<'a> {
    section: Section,
    /// Where the passage starts in the document, in code points.
    offset: u32,
    text: &'a str,
    sentences: &'a [(u32, u32)],
}

#[derive(Serialize)]
struct MentionLine<'a> {
    id: &'a str,
    #[serde(rename = "type")]
    entity_type: &'a str,
    text: &'a str,
    passage: u32,
    begin: u32,
    end: u32,
    document_begin: u32,
    document_end: u32,
    sentence: u32,
    score: f64,
}

pub fn write(tagged: &TaggedDocument, out: &mut dyn Write) -> io::Result<()> {
    let document = &tagged.document;
    let passages = document.passages.iter().zip(document.passage_offsets()).zip(&tagged.sentences);
    let line = Line {
        article_id: &document.article_id,
        article_version: document.article_version,
        model: &tagged.model,
        passages: passages
            .map(|((passage, offset), sentences)| PassageLine {
                section: passage.section,
                offset,
                text: &passage.text,
                sentences,
            })
            .collect(),
        mentions: tagged.mentions.iter().map(MentionLine::from).collect(),
    };
    serde_json::to_writer(&mut *out, &line)?;
    out.write_all(b"\n")
}

impl<'a> From<&'a Mention> for MentionLine<'a> {
    fn from(mention: &'a Mention) -> Self {
        Self {
            id: &mention.id,
            entity_type: &mention.entity_type,
            text: &mention.text,
            passage: mention.passage,
            begin: mention.begin,
            end: mention.end,
            document_begin: mention.document_begin,
            document_end: mention.document_end,
            sentence: mention.sentence,
            score: rounded(mention.score),
        }
    }
}
