//! JATS full text, as PMC and publishers give it: a single `article`, or many in a `pmc-articleset`.
//!
//! The front gives ids, title, abstracts, keywords and metadata; body, back matter and floats become
//! passages ([`body`]). Reference lists, authors, permissions, and articles inside the article
//! (`sub-article`, `response`: letters, corrections) are left out. `docs/articles.md` has the table.

mod body;

use self::body::{Blocks, Context, inline};
use super::record::{Options, Reason, all_with_content, is_pmcid, is_pmid};
use super::xml::records::Dialect;
use super::xml::{Record, attribute, local_name};
use super::{ArticleEvent, ArticleIds, Passage, Section};
use quick_xml::events::BytesStart;

pub(crate) const DIALECT: Dialect<ArticleEvent> = Dialect {
    records: &["article"],
    wrappers: &["pmc-articleset"],
    header: false,
    parse: |xml, options, id| all_with_content(parse(xml, options, id)?),
    id_pattern: r#"<article-id[^>]*pub-id-type="(?:pmc|pmcid|pmid|doi)"[^>]*>\s*([^<\s]+)\s*</article-id>"#,
};

/// The event of one `article`.
///
/// # Errors
/// XML that is not well-formed or exceeds the caps; an article without any id.
pub(crate) fn parse(xml: &[u8], options: &Options, id: &mut Option<String>) -> Result<Vec<ArticleEvent>, Reason> {
    let mut record = Record::new(xml, options)?;
    let root = record.root()?;
    if local_name(&root) != "article" {
        return Err(Reason::malformed(format!("`{}` is no JATS article", local_name(&root))));
    }
    let mut article = Article::new(&root);
    let result = article.read(&mut record);
    article.name();
    *id = Some(article.event.id.clone()).filter(|id| !id.is_empty());
    result?;
    article.into_event().map(|event| vec![event])
}

/// An article while it is read.
struct Article {
    event: ArticleEvent,
    /// The publisher's own id.
    publisher_id: Option<String>,
    subtitle: Option<String>,
    /// The date of publication and how well it says that.
    published: Option<(u32, String)>,
    blocks: Blocks,
}

impl Article {
    fn new(root: &BytesStart<'_>) -> Self {
        let mut event = ArticleEvent::new(String::new(), "jats");
        event.language = attribute(root, "xml:lang");
        event.publication_types.extend(attribute(root, "article-type"));
        event.retracted = event.publication_types.iter().any(|name| name == "retracted-article");
        Self { event, publisher_id: None, subtitle: None, published: None, blocks: Blocks::default() }
    }

    /// Gives the article its id: the first that it has of PMC id, PMID, DOI and publisher's id.
    fn name(&mut self) {
        let ArticleIds { pmid, pmcid, doi } = &self.event.ids;
        let candidates = [("pmc", pmcid), ("pmid", pmid), ("doi", doi), ("jats", &self.publisher_id)];
        let named = candidates.into_iter().find_map(|(prefix, id)| id.as_ref().map(|id| format!("{prefix}:{id}")));
        self.event.id = named.unwrap_or_default();
        if pmcid.is_some() {
            self.event.source = "pmc".into();
        }
    }

    fn into_event(self) -> Result<ArticleEvent, Reason> {
        let mut event = self.event;
        if event.id.is_empty() {
            return Err(Reason::malformed(
                "the article has no id (article-id of type pmcid, pmid, doi or publisher-id)",
            ));
        }
        if let (Some(title), Some(subtitle)) = (&mut event.title, &self.subtitle) {
            let joint = if title.ends_with(|c: char| c.is_alphanumeric()) { ": " } else { " " };
            title.push_str(joint);
            title.push_str(subtitle);
        }
        event.published = self.published.map(|(_, date)| date);
        event.passages = self.blocks.into_passages();
        Ok(event)
    }

    /// Reads the children of the innermost open element, which is the article or part of its front.
    fn read(&mut self, record: &mut Record<'_>) -> Result<(), Reason> {
        while let Some(child) = record.next_child()? {
            match local_name(&child) {
                "front" | "journal-meta" | "journal-title-group" | "article-meta" | "title-group" | "funding-group" => {
                    self.read(record)?
                }
                "journal-title" => self.event.journal = inline(record)?,
                "article-id" => self.article_id(record, &child)?,
                "article-version" => self.version(&record.value()?),
                "article-title" => self.event.title = inline(record)?,
                "subtitle" => self.subtitle = inline(record)?,
                "abstract" | "trans-abstract" => {
                    let language =
                        attribute(&child, "xml:lang").filter(|own| Some(own) != self.event.language.as_ref());
                    self.blocks.part(record, Context { language, ..Context::new(Section::Abstract) })?;
                }
                "kwd-group" => self.keywords(record)?,
                "funding-statement" => {
                    let text = inline(record)?;
                    self.blocks.push(text.map(|text| Passage::new(Section::Funding, text)));
                }
                "pub-date" => self.pub_date(record, &child)?,
                "related-article" => {
                    // PMC's link from a retracted article to its retraction.
                    let kind = attribute(&child, "related-article-type");
                    self.event.retracted |= kind.as_deref() == Some("retraction-forward");
                    record.skip(&child)?;
                }
                "body" => self.blocks.part(record, Context::new(Section::Body))?,
                "back" => self.blocks.part(record, Context::new(Section::Other))?,
                "floats-group" | "floats-wrap" => self.blocks.part(record, Context::new(Section::Body))?,
                _ => record.skip(&child)?,
            }
        }
        Ok(())
    }

    fn article_id(&mut self, record: &mut Record<'_>, start: &BytesStart<'_>) -> Result<(), Reason> {
        let kind = attribute(start, "pub-id-type").unwrap_or_default();
        let value = record.value()?;
        let ids = &mut self.event.ids;
        match kind.as_str() {
            "pmid" if is_pmid(&value) => ids.pmid = Some(value),
            "pmc" | "pmcid" if is_pmcid(&value) => ids.pmcid = Some(value),
            "pmc" | "pmcid" if is_pmcid(&format!("PMC{value}")) => ids.pmcid = Some(format!("PMC{value}")),
            "pmcid-ver" => self.version(value.rsplit('.').next().unwrap_or_default()),
            "doi" if !value.is_empty() => ids.doi = Some(value),
            "publisher-id" if !value.is_empty() => self.publisher_id = Some(value),
            _ => {}
        }
        Ok(())
    }

    fn version(&mut self, version: &str) {
        if let Ok(version) = version.parse() {
            self.event.version = version;
        }
    }

    /// The keywords of a group are one passage.
    fn keywords(&mut self, record: &mut Record<'_>) -> Result<(), Reason> {
        let (mut heading, mut keywords) = (None, Vec::new());
        while let Some(child) = record.next_child()? {
            match local_name(&child) {
                "title" | "label" => heading = inline(record)?.or(heading),
                _ => keywords.extend(inline(record)?),
            }
        }
        if !keywords.is_empty() {
            self.blocks.push(Some(Passage { heading, ..Passage::new(Section::Keywords, keywords.join("; ")) }));
        }
        Ok(())
    }

    /// Of several dates the electronic publication counts, then the printed one, then any other; the
    /// day on which PMC released the article is none.
    fn pub_date(&mut self, record: &mut Record<'_>, start: &BytesStart<'_>) -> Result<(), Reason> {
        let kind = attribute(start, "pub-type").or_else(|| attribute(start, "date-type")).unwrap_or_default();
        let (mut year, mut month, mut day) = (None, None, None);
        while let Some(child) = record.next_child()? {
            let value = record.value()?.parse::<u32>().ok();
            match local_name(&child) {
                "year" => year = value.filter(|year| (1000..=9999).contains(year)),
                "month" => month = value.filter(|month| (1..=12).contains(month)),
                "day" => day = value.filter(|day| (1..=31).contains(day)),
                _ => {}
            }
        }
        let date = match (year, month, day) {
            (Some(year), Some(month), Some(day)) => format!("{year:04}-{month:02}-{day:02}"),
            (Some(year), Some(month), None) => format!("{year:04}-{month:02}"),
            (Some(year), None, _) => format!("{year:04}"),
            (None, ..) => return Ok(()),
        };
        let rank = match kind.as_str() {
            "epub" | "pub" | "publication" => 0,
            "ppub" | "epub-ppub" => 1,
            "pmc-release" => return Ok(()),
            _ => 2,
        };
        if self.published.as_ref().is_none_or(|(best, _)| rank < *best) {
            self.published = Some((rank, date));
        }
        Ok(())
    }
}
