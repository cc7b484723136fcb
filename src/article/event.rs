//! The Rust types of `schemas/ArticleEvent.avsc`, field for field.

use super::Document;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// No event with more passages is read, whatever [`Options::max_passages`](super::Options::max_passages) says: a
/// passage without text has four bytes on the wire and twenty times as many in memory.
pub const MOST_PASSAGES: usize = 1 << 20;

/// One event on the `articles` topic. The record's key is [`ArticleEvent::id`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ArticleEvent {
    /// A CURIE: `pmid:…`, `pmc:…`, `doi:…`, else `<source>:<id>`.
    pub id: String,
    /// The article's version as its source counts it (PubMed: the PMID's `Version`), 1 where it does not.
    pub version: i64,
    /// Whether the article is there (again) or gone.
    pub op: Op,
    /// All ids of the article.
    pub ids: ArticleIds,
    /// Who said so: `pubmed`, `pmc`, `pubtator`, `jsonl`, `text`, or a name of the user's.
    pub source: String,
    /// Publication date as far as it is known: `2024`, `2024-03` or `2024-03-09`.
    pub published: Option<String>,
    /// When the source last revised the record, `YYYY-MM-DD`.
    pub revised: Option<String>,
    /// ISO 639 code of the article's language as its source gives it (`eng`, `en`).
    pub language: Option<String>,
    /// The journal's title.
    pub journal: Option<String>,
    /// Publication types as the source names them (`Journal Article`, `Retracted Publication`).
    pub publication_types: Vec<String>,
    /// Whether the source says that the article was retracted.
    pub retracted: bool,
    /// MeSH headings: metadata, never tagged.
    pub mesh: Vec<MeshHeading>,
    /// The title; `None` where the article has none, or where `raw` is set.
    pub title: Option<String>,
    /// The passages after the title, in reading order; empty where `raw` is set. At most [`MOST_PASSAGES`].
    #[serde(deserialize_with = "bounded")]
    pub passages: Vec<Passage>,
    /// The document as it came, to be parsed by the worker, instead of title and passages.
    pub raw: Option<RawDocument>,
}

/// Reads passages and stops at the first that is too many.
fn bounded<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Passage>, D::Error> {
    struct Bounded;

    impl<'de> Visitor<'de> for Bounded {
        type Value = Vec<Passage>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "a sequence of at most {MOST_PASSAGES} passages")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Vec<Passage>, A::Error> {
            let mut passages = Vec::new();
            while let Some(passage) = sequence.next_element()? {
                if passages.len() == MOST_PASSAGES {
                    return Err(A::Error::custom(format!("more than {MOST_PASSAGES} passages")));
                }
                passages.push(passage);
            }
            Ok(passages)
        }
    }

    deserializer.deserialize_seq(Bounded)
}

/// What happened to the article.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// New, or replaced by this version.
    #[serde(rename = "UPSERT")]
    Upsert,
    /// Deleted or withdrawn at the source: its annotations become a tombstone.
    #[serde(rename = "DELETE")]
    Delete,
}

/// The ids that an article is known by, without their CURIE prefix.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArticleIds {
    /// PubMed id, digits.
    pub pmid: Option<String>,
    /// PubMed Central id with its prefix, `PMC12345`.
    pub pmcid: Option<String>,
    /// DOI, as the source writes it.
    pub doi: Option<String>,
}

/// A MeSH descriptor with its qualifiers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeshHeading {
    /// Descriptor UI, `D000818`.
    pub id: String,
    /// Descriptor name.
    pub name: String,
    /// Whether the descriptor is a major topic.
    pub major: bool,
    /// Qualifier names.
    pub qualifiers: Vec<String>,
}

/// A stretch of text that belongs together: the title, a section of an abstract, a paragraph, a caption.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passage {
    /// Where in the article it stands.
    pub section: Section,
    /// The section's heading as the source writes it (`BACKGROUND`); in JATS, where sections stand in sections,
    /// after those around it (`Methods / 2.1 Mice`).
    pub heading: Option<String>,
    /// ISO 639 code where it differs from the article's language (other-language abstracts).
    pub language: Option<String>,
    /// The text. It is never altered after this point; all offsets count its Unicode code points.
    pub text: String,
}

/// A document in its source's own format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RawDocument {
    /// `application/vnd.pubmed+xml`, `application/jats+xml`, `text/plain`, `application/json`.
    pub content_type: String,
    /// The bytes as they came; empty where `claim` is set.
    #[serde(with = "apache_avro::serde::bytes")]
    pub bytes: Vec<u8>,
    /// Where the document lies instead (the claim-check pattern); [`crate::claims`] brings it.
    pub claim: Option<Claim>,
}

/// Where a document lies that is too large for the topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The object: `s3://bucket/path`, `gs://…`, `az://…` or `file:///path`.
    pub uri: String,
    /// SHA-256 of the document, 64 hex digits.
    pub sha256: String,
    /// Its bytes, where that is known.
    pub size: Option<i64>,
}

/// The fixed list of section names that every source's own headings are mapped to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // the names say it
pub enum Section {
    Title,
    Abstract,
    Background,
    Objective,
    Introduction,
    Methods,
    Results,
    Discussion,
    Conclusion,
    CaseReport,
    Caption,
    Table,
    Keywords,
    Acknowledgements,
    Funding,
    Supplement,
    Appendix,
    Abbreviations,
    Body,
    Other,
}

impl RawDocument {
    /// A document that travels in its event.
    pub fn new(content_type: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        Self { content_type: content_type.into(), bytes: bytes.into(), claim: None }
    }
}

impl Passage {
    /// A passage without heading, in the article's language.
    pub fn new(section: Section, text: impl Into<String>) -> Self {
        Self { section, heading: None, language: None, text: text.into() }
    }
}

impl ArticleEvent {
    /// An event that says nothing yet but that the article is there, in version 1.
    pub fn new(id: impl Into<String>, source: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            version: 1,
            op: Op::Upsert,
            ids: ArticleIds::default(),
            source: source.into(),
            published: None,
            revised: None,
            language: None,
            journal: None,
            publication_types: Vec::new(),
            retracted: false,
            mesh: Vec::new(),
            title: None,
            passages: Vec::new(),
            raw: None,
        }
    }

    /// The tagger's view of an event whose content is parsed: title first, then the passages.
    /// A title of `None` adds no passage; an empty one adds an empty passage, which keeps the
    /// offsets of formats that count it.
    pub fn into_document(self) -> Document {
        let title = self.title.map(|text| Passage::new(Section::Title, text));
        Document {
            article_id: self.id,
            article_version: self.version,
            passages: title.into_iter().chain(self.passages).collect(),
        }
    }
}
