//! PubMed citation XML: `PubmedArticle`, `PubmedBookArticle` and `DeleteCitation`.
//!
//! What becomes of each element is listed in `docs/articles.md`. In short: the title and each abstract
//! section are passages, author keywords are one passage, abstracts in other languages are passages
//! with their language; MeSH, dates and types are metadata; reference lists, authors, affiliations,
//! vernacular titles (unless there is no other) and copyright notes are left out.

use super::record::{Options, Reason, all_with_content, is_pmcid, is_pmid};
use super::xml::records::Dialect;
use super::xml::text::{TextBuilder, inline, pubmed_joint};
use super::xml::{Record, attribute, local_name};
use super::{ArticleEvent, ArticleIds, MeshHeading, Op, Passage, Section};
use quick_xml::events::BytesStart;

pub(crate) const DIALECT: Dialect<ArticleEvent> = Dialect {
    records: &["PubmedArticle", "PubmedBookArticle", "DeleteCitation", "DeleteDocument"],
    wrappers: &["PubmedArticleSet", "PubmedBookArticleSet"],
    header: false,
    parse: |xml, options, id| all_with_content(parse(xml, options, id)?),
    id_pattern: r"<PMID[^>]*>\s*(\d+)\s*</PMID>",
};

/// The events of one record: one for an article, one for each PMID of a `DeleteCitation`.
///
/// # Errors
/// XML that is not well-formed or exceeds the caps; a record without a PMID; an element that is none
/// of the records. `id` holds the PMID as soon as it was read, so that an error can name it.
pub(crate) fn parse(xml: &[u8], options: &Options, id: &mut Option<String>) -> Result<Vec<ArticleEvent>, Reason> {
    let mut record = Record::new(xml, options)?;
    let root = record.root()?;
    match local_name(&root) {
        "DeleteCitation" | "DeleteDocument" => deletions(&mut record),
        "PubmedArticle" | "PubmedBookArticle" => {
            let mut citation = Citation::new();
            let result = citation.read(&mut record);
            *id = citation.event.ids.pmid.clone();
            result?;
            citation.into_event().map(|event| vec![event])
        }
        other => Err(Reason::malformed(format!("`{other}` is no PubMed record"))),
    }
}

fn deletions(record: &mut Record<'_>) -> Result<Vec<ArticleEvent>, Reason> {
    let mut events = Vec::new();
    while let Some(child) = record.next_child()? {
        if local_name(&child) != "PMID" {
            record.skip(&child)?;
            continue;
        }
        let version = version_of(&child)?;
        let pmid = pmid(record)?;
        let mut event = ArticleEvent::new(format!("pmid:{pmid}"), "pubmed");
        event.version = version;
        event.op = Op::Delete;
        event.ids.pmid = Some(pmid);
        events.push(event);
    }
    Ok(events)
}

fn pmid(record: &mut Record<'_>) -> Result<String, Reason> {
    let pmid = record.value()?;
    if is_pmid(&pmid) {
        Ok(pmid)
    } else {
        Err(record.at_place(&format!("PMID `{pmid}` is not a number of 1 to 8 digits")))
    }
}

fn version_of(start: &BytesStart<'_>) -> Result<i64, Reason> {
    match attribute(start, "Version") {
        None => Ok(1),
        Some(version) => version
            .trim()
            .parse()
            .map_err(|_| Reason::malformed(format!("Version `{version}` of a PMID is not a number"))),
    }
}

/// A citation while it is read.
struct Citation {
    event: ArticleEvent,
    vernacular_title: Option<String>,
    book_title: Option<String>,
    keywords: Vec<String>,
    /// Dates by how well they say when it was published.
    issue_date: Option<String>,
    electronic_date: Option<String>,
}

impl Citation {
    fn new() -> Self {
        Self {
            event: ArticleEvent::new(String::new(), "pubmed"),
            vernacular_title: None,
            book_title: None,
            keywords: Vec::new(),
            issue_date: None,
            electronic_date: None,
        }
    }

    fn into_event(self) -> Result<ArticleEvent, Reason> {
        let mut event = self.event;
        let Some(pmid) = &event.ids.pmid else {
            return Err(Reason::malformed("the record has no PMID"));
        };
        event.id = format!("pmid:{pmid}");
        event.title = event.title.or(self.vernacular_title);
        if event.title.is_none() {
            event.title = self.book_title.clone();
        }
        event.journal = event.journal.or(self.book_title);
        event.published = self.issue_date.or(self.electronic_date);
        event.retracted |= event.publication_types.iter().any(|name| name == "Retracted Publication");
        let article_language = event.language.clone();
        for passage in &mut event.passages {
            if passage.language == article_language {
                passage.language = None;
            }
        }
        if !self.keywords.is_empty() {
            event.passages.push(Passage::new(Section::Keywords, self.keywords.join("; ")));
        }
        Ok(event)
    }

    /// Reads the children of the innermost open element. The elements of a citation have names that
    /// say what they are wherever they stand, so containers are simply entered.
    fn read(&mut self, record: &mut Record<'_>) -> Result<(), Reason> {
        while let Some(child) = record.next_child()? {
            match local_name(&child) {
                // Containers.
                "MedlineCitation"
                | "BookDocument"
                | "Article"
                | "Journal"
                | "JournalIssue"
                | "Abstract"
                | "PublicationTypeList"
                | "MeshHeadingList"
                | "PubmedData"
                | "PubmedBookData"
                | "ArticleIdList"
                | "CommentsCorrectionsList"
                | "Book" => self.read(record)?,
                "PMID" if self.event.ids.pmid.is_none() => {
                    self.event.version = version_of(&child)?;
                    self.event.ids.pmid = Some(pmid(record)?);
                }
                "ArticleTitle" => self.event.title = text(record)?.or(self.event.title.take()),
                "VernacularTitle" => self.vernacular_title = text(record)?,
                "BookTitle" => self.book_title = text(record)?,
                "AbstractText" => self.abstract_section(record, &child, None)?,
                "OtherAbstract" => {
                    let language = attribute(&child, "Language");
                    while let Some(section) = record.next_child()? {
                        match local_name(&section) {
                            "AbstractText" => self.abstract_section(record, &section, language.clone())?,
                            _ => record.skip(&section)?,
                        }
                    }
                }
                // NLM's and NASA's keywords are the indexer's, not the article's.
                "KeywordList" if attribute(&child, "Owner").is_none_or(|owner| owner == "NOTNLM") => {
                    while let Some(keyword) = record.next_child()? {
                        match local_name(&keyword) {
                            "Keyword" => self.keywords.extend(text(record)?),
                            _ => record.skip(&keyword)?,
                        }
                    }
                }
                "Title" => self.event.journal = text(record)?,
                "Language" => {
                    let language = text(record)?;
                    self.event.language = self.event.language.take().or(language);
                }
                "PublicationType" => self.event.publication_types.extend(text(record)?),
                "PubDate" => self.issue_date = date(record)?.or(self.issue_date.take()),
                // A chapter's own date comes after that of its book, and counts more.
                "ContributionDate" => self.issue_date = date(record)?.or(self.issue_date.take()),
                "ArticleDate" => self.electronic_date = date(record)?.or(self.electronic_date.take()),
                "DateRevised" => self.event.revised = date(record)?,
                "ELocationID" | "ArticleId" => self.article_id(record, &child)?,
                "MeshHeading" => self.mesh_heading(record)?,
                "CommentsCorrections" => {
                    self.event.retracted |= attribute(&child, "RefType").as_deref() == Some("RetractionIn");
                    record.skip(&child)?;
                }
                _ => record.skip(&child)?,
            }
        }
        Ok(())
    }

    fn abstract_section(
        &mut self,
        record: &mut Record<'_>,
        start: &BytesStart<'_>,
        language: Option<String>,
    ) -> Result<(), Reason> {
        let heading = attribute(start, "Label").filter(|label| !label.trim().is_empty());
        let category = attribute(start, "NlmCategory").filter(|category| category != "UNASSIGNED");
        let section = category
            .as_deref()
            .and_then(Section::from_heading)
            .or_else(|| heading.as_deref().and_then(Section::from_heading))
            .unwrap_or(Section::Abstract);
        if let Some(text) = text(record)? {
            self.event.passages.push(Passage { section, heading, language, text });
        }
        Ok(())
    }

    /// `ELocationID` or `ArticleId`. The article's own come before those of its references, whose list
    /// is never entered.
    fn article_id(&mut self, record: &mut Record<'_>, start: &BytesStart<'_>) -> Result<(), Reason> {
        let kind = attribute(start, "IdType").or_else(|| attribute(start, "EIdType"));
        let is_valid = attribute(start, "ValidYN").is_none_or(|valid| valid != "N");
        let value = record.value()?;
        let ArticleIds { pmcid, doi, .. } = &mut self.event.ids;
        match kind.as_deref() {
            Some("doi") if is_valid && !value.is_empty() => *doi = Some(value),
            Some("pmc" | "pmcid") if is_pmcid(&value) => *pmcid = Some(value),
            _ => {}
        }
        Ok(())
    }

    fn mesh_heading(&mut self, record: &mut Record<'_>) -> Result<(), Reason> {
        let mut heading = MeshHeading { id: String::new(), name: String::new(), major: false, qualifiers: Vec::new() };
        while let Some(child) = record.next_child()? {
            // A heading is a major topic when its descriptor is, or any of its qualifiers.
            heading.major |= attribute(&child, "MajorTopicYN").as_deref() == Some("Y");
            match local_name(&child) {
                "DescriptorName" => {
                    heading.id = attribute(&child, "UI").unwrap_or_default();
                    heading.name = record.value()?;
                }
                "QualifierName" => heading.qualifiers.push(record.value()?),
                _ => record.skip(&child)?,
            }
        }
        self.event.mesh.push(heading);
        Ok(())
    }
}

/// The text of the innermost open element; `None` where it is empty.
fn text(record: &mut Record<'_>) -> Result<Option<String>, Reason> {
    let mut text = TextBuilder::default();
    inline(record, &mut text, pubmed_joint)?;
    Ok(Some(text.finish()).filter(|text| !text.is_empty()))
}

/// A date of `Year`, `Month` and `Day`, or a `MedlineDate` (`1998 Dec-1999 Jan`, `2000 Spring`), as far
/// as it is known: `2024`, `2024-03` or `2024-03-09`. Of a range the first date counts.
fn date(record: &mut Record<'_>) -> Result<Option<String>, Reason> {
    let (mut year, mut month, mut day) = (None, None, None);
    while let Some(child) = record.next_child()? {
        let value = record.value()?;
        match local_name(&child) {
            "Year" => year = year_of(&value),
            "Month" => month = month_of(&value),
            "Day" => day = value.parse::<u32>().ok().filter(|day| (1..=31).contains(day)),
            "MedlineDate" => {
                let mut words = value.split([' ', '-', '/']);
                year = words.by_ref().find_map(year_of);
                month = words.next().and_then(month_of);
            }
            _ => {}
        }
    }
    Ok(match (year, month, day) {
        (Some(year), Some(month), Some(day)) => Some(format!("{year:04}-{month:02}-{day:02}")),
        (Some(year), Some(month), None) => Some(format!("{year:04}-{month:02}")),
        (Some(year), None, _) => Some(format!("{year:04}")),
        (None, ..) => None,
    })
}

fn year_of(word: &str) -> Option<u32> {
    word.parse().ok().filter(|year| (1000..=9999).contains(year))
}

fn month_of(word: &str) -> Option<u32> {
    const NAMES: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    let word = word.to_lowercase();
    let by_name = NAMES.iter().position(|name| word.starts_with(name)).map(|at| at as u32 + 1);
    by_name.or_else(|| word.parse().ok()).filter(|month| (1..=12).contains(month))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_one(inner: &str) -> Result<ArticleEvent, Reason> {
        let xml = format!("<PubmedArticle><MedlineCitation>{inner}</MedlineCitation></PubmedArticle>");
        parse(xml.as_bytes(), &Options::default(), &mut None).map(|mut events| events.remove(0))
    }

    #[test]
    fn dates_in_all_their_forms() {
        for (xml, date) in [
            ("<Year>2024</Year><Month>Mar</Month><Day>9</Day>", Some("2024-03-09")),
            ("<Year>2024</Year><Month>03</Month>", Some("2024-03")),
            ("<Year>2024</Year><Season>Spring</Season>", Some("2024")),
            ("<MedlineDate>1998 Dec-1999 Jan</MedlineDate>", Some("1998-12")),
            ("<MedlineDate>2000 Spring</MedlineDate>", Some("2000")),
            ("<MedlineDate>1975-1976</MedlineDate>", Some("1975")),
            ("<MedlineDate>Summer 1999</MedlineDate>", Some("1999")),
            ("<MedlineDate>2000 Nov 15-30</MedlineDate>", Some("2000-11")),
            ("<Year>n. d.</Year><Month>13</Month>", None),
        ] {
            let event = parse_one(&format!(
                "<PMID>1</PMID><Article><Journal><JournalIssue><PubDate>{xml}</PubDate></JournalIssue></Journal></Article>"
            ));
            assert_eq!(event.unwrap().published.as_deref(), date, "{xml}");
        }
    }

    #[test]
    fn the_first_pmid_is_the_articles() {
        let event = parse_one(
            "<PMID Version='2'>11</PMID><CommentsCorrectionsList><CommentsCorrections RefType='RetractionIn'>\
             <PMID Version='1'>12</PMID></CommentsCorrections></CommentsCorrectionsList>",
        )
        .unwrap();
        assert_eq!((event.id.as_str(), event.version, event.retracted), ("pmid:11", 2, true));
    }

    #[test]
    fn a_record_without_pmid_or_with_a_bad_one_is_broken() {
        for (xml, reason) in [
            ("<Article/>", "the record has no PMID"),
            ("<PMID>abc</PMID>", "PMID `abc` is not a number"),
            ("<PMID Version='x'>1</PMID>", "Version `x` of a PMID"),
        ] {
            let error = parse_one(xml).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn an_error_names_the_record() {
        let mut id = None;
        let xml = b"<PubmedArticle><MedlineCitation><PMID>7</PMID><Article></MedlineCitation></PubmedArticle>";
        assert!(parse(xml, &Options::default(), &mut id).is_err());
        assert_eq!(id.as_deref(), Some("7"));
    }
}
