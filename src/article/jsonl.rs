//! JSON lines: one article a line.
//!
//! ```json
//! {"id": "pmid:12345", "title": "BRCA1 in breast cancer", "text": "We studied BRCA1."}
//! {"id": "n7", "passages": [{"section": "methods", "heading": "2.1 Mice", "text": "Mice were …"}]}
//! ```
//!
//! `id` is a string or a number; one without a CURIE prefix becomes `jsonl:<id>`. `text` is one
//! passage ([`Section::Body`]); `passages` takes its place. Texts are kept as they are, to the character.
//! Optional: `version`, `op` (`UPSERT`, `DELETE`), `source`, `pmid`, `pmcid`, `doi`, `language`,
//! `published`, `revised`, `journal`, `retracted`. Other keys are passed over.

use super::record::{Reason, article_id, is_pmcid, is_pmid};
use super::{ArticleEvent, Op, Passage, Section};
use serde::Deserialize;

#[derive(Deserialize)]
struct Line {
    id: Option<Id>,
    title: Option<String>,
    text: Option<String>,
    passages: Option<Vec<LinePassage>>,
    version: Option<i64>,
    op: Option<Op>,
    source: Option<String>,
    pmid: Option<Id>,
    pmcid: Option<String>,
    doi: Option<String>,
    language: Option<String>,
    published: Option<String>,
    revised: Option<String>,
    journal: Option<String>,
    #[serde(default)]
    retracted: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Id {
    Number(u64),
    Text(String),
}

impl Id {
    fn into_text(self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text,
        }
    }
}

#[derive(Deserialize)]
struct LinePassage {
    section: Option<String>,
    heading: Option<String>,
    language: Option<String>,
    text: String,
}

impl LinePassage {
    /// A section is one of the fixed names, or else a heading that may name one.
    fn into_passage(self) -> Passage {
        let Self { section, heading, language, text } = self;
        let name = section.as_deref().or(heading.as_deref()).unwrap_or_default();
        let fixed = serde_json::from_value(serde_json::Value::from(name)).ok();
        let named = fixed.or_else(|| Section::from_heading(name));
        let fallback = if section.is_some() { Section::Other } else { Section::Body };
        Passage {
            section: named.unwrap_or(fallback),
            heading: heading.or(section.filter(|_| fixed.is_none())),
            language,
            text,
        }
    }
}

/// The event of one line.
///
/// # Errors
/// What is no JSON object of the shape above, or has no `id`. `id` holds the id as soon as it is known.
pub(crate) fn parse(line: &[u8], id: &mut Option<String>) -> Result<ArticleEvent, Reason> {
    if line.trim_ascii_start().first() != Some(&b'{') {
        return Err(Reason::malformed("not a JSON object")); // serde would take an array's items for the fields
    }
    let line: Line = serde_json::from_slice(line).map_err(|error| {
        // serde_json counts lines in what it was given, which is one.
        Reason::malformed(error.to_string().replace(" at line 1 column", " at column"))
    })?;
    let raw_id = line.id.map(Id::into_text).unwrap_or_default();
    if raw_id.trim().is_empty() {
        return Err(Reason::malformed("no `id`"));
    }
    *id = Some(raw_id.clone());
    if line.text.is_some() && line.passages.is_some() {
        return Err(Reason::malformed("both `text` and `passages`: give one"));
    }
    let source = line.source.unwrap_or_else(|| "jsonl".to_owned());
    let mut event = ArticleEvent::new(article_id(&source, &raw_id), source);
    event.version = line.version.unwrap_or(1);
    event.op = line.op.unwrap_or(Op::Upsert);
    event.ids.pmid = line.pmid.map(Id::into_text);
    event.ids.pmcid = line.pmcid;
    event.ids.doi = line.doi;
    match event.id.split_once(':') {
        Some(("pmid", pmid)) if is_pmid(pmid) => event.ids.pmid = Some(pmid.to_owned()),
        Some(("pmc", pmcid)) if is_pmcid(pmcid) => event.ids.pmcid = Some(pmcid.to_owned()),
        Some(("doi", doi)) => event.ids.doi = Some(doi.to_owned()),
        _ => {}
    }
    event.language = line.language;
    event.published = line.published;
    event.revised = line.revised;
    event.journal = line.journal;
    event.retracted = line.retracted;
    event.title = line.title;
    let text = line.text.map(|text| Passage::new(Section::Body, text));
    event.passages = match line.passages {
        Some(passages) => passages.into_iter().map(LinePassage::into_passage).collect(),
        None => text.into_iter().collect(),
    };
    Ok(event)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(line: &str) -> Result<ArticleEvent, Reason> {
        parse(line.as_bytes(), &mut None)
    }

    #[test]
    fn ids_sections_and_defaults() {
        let event = read(r#"{"id": 12345, "title": "T", "text": " a\n b ", "unknown": {}}"#).unwrap();
        assert_eq!((event.id.as_str(), event.version, event.source.as_str()), ("jsonl:12345", 1, "jsonl"));
        assert_eq!(event.passages, [Passage::new(Section::Body, " a\n b ")]);

        let event = read(
            r#"{"id": "pmid:7", "version": 3, "op": "DELETE", "passages": [{"text": "x"}, {"section": "case_report", "text": "y"},
                {"heading": "2. Methods", "text": "z"}, {"section": "Sidebar", "text": "w"}]}"#,
        )
        .unwrap();
        assert_eq!((event.ids.pmid.as_deref(), event.version, event.op), (Some("7"), 3, Op::Delete));
        let sections: Vec<_> = event.passages.iter().map(|p| (p.section, p.heading.as_deref())).collect();
        assert_eq!(
            sections,
            [
                (Section::Body, None),
                (Section::CaseReport, None),
                (Section::Methods, Some("2. Methods")),
                (Section::Other, Some("Sidebar")),
            ]
        );
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (line, reason) in [
            ("{", "EOF while parsing"),
            ("[]", "not a JSON object"),
            (r#"{"text": "x"}"#, "no `id`"),
            (r#"{"id": "a", "text": "x", "passages": []}"#, "both `text` and `passages`"),
            (r#"{"id": "a", "text": 5}"#, "expected a string"),
            (r#"{"id": "a", "text": "\ud800"}"#, "hex escape"),
        ] {
            let error = read(line).unwrap_err().to_string();
            assert!(error.contains(reason), "{line}: {error}");
        }
        let deep = format!(r#"{{"id": "a", "unknown": {}{}, "text": "x"}}"#, "[".repeat(100_000), "]".repeat(100_000));
        assert!(read(&deep).is_ok(), "what is passed over needs no stack");
    }

    proptest! {
        #[test]
        fn text_is_kept_to_the_character(text in any::<String>()) {
            let line = serde_json::json!({"id": "a", "text": text}).to_string();
            prop_assert_eq!(&read(&line).unwrap().passages[0].text, &text);
        }
    }
}
