//! BioC, the exchange format of NCBI's text-mining services: XML and JSON.
//!
//! An article has a document's passages with their text as it stands, to the character; section
//! titles (`title_1`, …) become the heading of what follows, references are left out, and so are gold
//! annotations. [`documents`] gives the documents whole, with their annotations. PMC's and PubTator 3's names
//! of sections are known; `docs/articles.md` has the table. Relations are passed over.

mod json;
mod xml;

pub(super) use self::json::event;

use super::input::Input;
use super::json::JsonRecords;
use super::record::{Options, RecordError, article_id, is_pmcid, is_pmid};
use super::xml::records::{Dialect, XmlRecords};
use super::{ArticleEvent, ArticleIds, Passage, Section, section};
use std::collections::HashMap;

/// A document of either syntax.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BiocDocument {
    /// The id as the file has it; not empty.
    pub id: String,
    /// Its infons.
    pub infons: Infons,
    /// Its passages in order.
    pub passages: Vec<BiocPassage>,
}

/// Keys and values without a schema: `type`, `section_type`, `article-id_pmc`, …
pub type Infons = HashMap<String, String>;

/// A passage with its annotations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BiocPassage {
    /// Its infons.
    pub infons: Infons,
    /// Where it starts in the document; `None` where the file does not say.
    pub offset: Option<u32>,
    /// The text, unaltered; that of its sentences, joined by spaces, where it has none itself.
    pub text: String,
    /// The annotations of the passage and of its sentences.
    pub annotations: Vec<BiocAnnotation>,
}

/// An annotation as the file has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BiocAnnotation {
    /// Its infons; `type` is the entity type.
    pub infons: Infons,
    /// The text that it marks, as the file says.
    pub text: String,
    /// Where it lies in the document, `(offset, length)`; more than one where it is discontinuous.
    pub locations: Vec<(u32, u32)>,
}

/// XML that becomes articles.
pub(super) const DIALECT: Dialect<ArticleEvent> = xml::dialect(xml::events);

/// The documents of an input, XML or JSON. `file` names it in errors.
pub fn documents(
    input: Input,
    file: String,
    options: &Options,
) -> Box<dyn Iterator<Item = Result<BiocDocument, RecordError>> + Send> {
    static DIALECT: Dialect<BiocDocument> = xml::dialect(xml::documents);
    if input.is_xml() {
        Box::new(XmlRecords::new(input.reader, file, &DIALECT, &input.head, options))
    } else {
        Box::new(JsonRecords::new(input.reader, file, options, json::document))
    }
}

impl BiocPassage {
    /// A passage's kind and section in lower case: the infons `type` and `section_type`.
    fn names(&self) -> (String, String) {
        let infon = |key: &str| self.infons.get(key).map(|value| value.to_lowercase()).unwrap_or_default();
        (infon("type"), infon("section_type"))
    }

    /// Whether it is the document's title.
    pub fn is_title(&self) -> bool {
        let (kind, named) = self.names();
        matches!(kind.as_str(), "front" | "title") || (named == "title" && kind != "footnote")
    }

    /// Its section by the fixed list; that of a title is told by [`is_title`](Self::is_title).
    pub fn section(&self) -> Section {
        let (kind, named) = self.names();
        section_of(&kind, &named)
    }
}

impl BiocDocument {
    fn into_event(self) -> ArticleEvent {
        let of_passages = self.passages.iter().map(|passage| &passage.infons);
        let infons: Vec<_> = std::iter::once(&self.infons).chain(of_passages).collect();
        let find =
            |key: &str| infons.iter().find_map(|infons| infons.get(key)).filter(|value| !value.is_empty()).cloned();
        let pmc = find("article-id_pmc").map(|pmc| if is_pmcid(&pmc) { pmc } else { format!("PMC{pmc}") });
        let mut ids = ArticleIds {
            pmid: find("article-id_pmid").filter(|pmid| is_pmid(pmid)),
            pmcid: pmc.filter(|pmc| is_pmcid(pmc)),
            doi: find("article-id_doi"),
        };
        // PMC's service writes its ids without their prefix.
        let with_prefix = format!("PMC{}", self.id);
        let id = if is_pmcid(&self.id) || ids.pmcid.as_ref() == Some(&with_prefix) {
            ids.pmcid = Some(if is_pmcid(&self.id) { self.id } else { with_prefix });
            format!("pmc:{}", ids.pmcid.as_deref().unwrap_or_default())
        } else if is_pmid(&self.id) {
            let id = format!("pmid:{}", self.id);
            ids.pmid = Some(self.id);
            id
        } else {
            article_id("bioc", &self.id)
        };
        let mut event = ArticleEvent::new(id, "bioc");
        event.ids = ids;
        event.journal = find("journal-title").or_else(|| find("journal"));
        event.published = find("year").filter(|year| year.len() == 4 && year.bytes().all(|b| b.is_ascii_digit()));
        let mut heading = None;
        for passage in self.passages {
            let (kind, named) = passage.names();
            let is_title = passage.is_title();
            let text = passage.text;
            let is_reference = named == "ref" || matches!(kind.as_str(), "ref" | "reference");
            if is_reference || text.is_empty() {
                continue;
            }
            if is_title && event.title.is_none() && event.passages.is_empty() {
                event.title = Some(text);
            } else if kind.strip_prefix("abstract_").unwrap_or(&kind).starts_with("title") {
                heading = section::heading(None, &text);
            } else {
                let section = section_of(&kind, &named);
                let heading = if matches!(section, Section::Caption | Section::Table) { None } else { heading.clone() };
                event.passages.push(Passage { section, heading, language: None, text });
            }
        }
        event
    }
}

/// The section of a passage, of its `type` and `section_type` in lower case.
fn section_of(kind: &str, named: &str) -> Section {
    match kind {
        "table" => return Section::Table,
        "fig"
        | "fig_caption"
        | "fig_title"
        | "fig_title_caption"
        | "table_caption"
        | "table_title"
        | "table_title_caption"
        | "table_foot"
        | "table_footnote" => return Section::Caption,
        _ => {}
    }
    match named {
        "title" => Section::Title,
        "abstract" => Section::Abstract,
        "intro" => Section::Introduction,
        "methods" => Section::Methods,
        "results" => Section::Results,
        "discuss" => Section::Discussion,
        "concl" => Section::Conclusion,
        "case" => Section::CaseReport,
        "fig" => Section::Caption,
        "table" => Section::Table,
        "keyword" => Section::Keywords,
        "suppl" => Section::Supplement,
        "appendix" => Section::Appendix,
        "abbr" => Section::Abbreviations,
        "ack_fund" => Section::Acknowledgements,
        "auth_cont" | "comp_int" | "review_info" => Section::Other,
        _ if kind.starts_with("abstract") => Section::Abstract,
        _ => Section::from_heading(named).or_else(|| Section::from_heading(kind)).unwrap_or(Section::Body),
    }
}
