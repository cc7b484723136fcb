//! BioC, the exchange format of NCBI's text-mining services: XML and JSON.
//!
//! A document's passages are taken with their text as it stands, to the character; gold annotations and
//! relations are ignored. Section titles (`title_1`, …) become the heading of what follows, references
//! are left out. PMC's and PubTator 3's names of sections are known; `docs/articles.md` has the table.

mod json;
mod xml;

pub(super) use json::JsonDocuments;
pub(super) use xml::DIALECT;

use super::record::{article_id, is_pmcid, is_pmid};
use super::{ArticleEvent, ArticleIds, Passage, Section, section};
use std::collections::HashMap;

/// A document of either syntax.
#[derive(Default)]
struct BiocDocument {
    id: String,
    infons: HashMap<String, String>,
    passages: Vec<BiocPassage>,
}

#[derive(Default)]
struct BiocPassage {
    infons: HashMap<String, String>,
    text: String,
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
        for BiocPassage { infons, text } in self.passages {
            let infon = |key: &str| infons.get(key).map(|value| value.to_lowercase()).unwrap_or_default();
            let (kind, named) = (infon("type"), infon("section_type"));
            let is_reference = named == "ref" || matches!(kind.as_str(), "ref" | "reference");
            if is_reference || text.is_empty() {
                continue;
            }
            let is_title = matches!(kind.as_str(), "front" | "title") || (named == "title" && kind != "footnote");
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
