//! Events that carry a document in its source's own format, parsed by the worker.

use super::format::Format;
use super::reader::read_events;
use super::record::{Options, Reason, RecordError, with_content, within_limits};
use super::{ArticleEvent, ArticleIds, Op};

/// Parses an event's raw document, if it has one, into title and passages.
///
/// What the event itself says wins: id, version, operation and source stay, other metadata are taken
/// from the document where the event has none. A deletion is returned as it is.
///
/// # Errors
/// All are of class [`Poison`](crate::ErrorClass::Poison): a content type that is not known, a document
/// that is broken, exceeds the caps of `options`, holds no article or more than one, or in which there
/// is nothing to read, a document that is still to be fetched.
pub fn parse_raw(mut event: ArticleEvent, options: &Options) -> Result<ArticleEvent, RecordError> {
    let id = event.id.clone();
    let error = |reason| RecordError { file: "event".into(), position: None, id: Some(id.clone()), reason };
    let raw = match event.raw.take() {
        Some(raw) if event.op == Op::Upsert => raw,
        _ => return with_content(event).and_then(|event| within_limits(event, options)).map_err(error),
    };
    if raw.claim.is_some() {
        return Err(error(Reason::malformed("the document lies elsewhere and was not fetched")));
    }
    if raw.bytes.len() > options.max_record_bytes {
        return Err(error(Reason::TooLong { limit: options.max_record_bytes }));
    }
    let format = format_of(&raw.content_type, &raw.bytes).map_err(error)?;
    let in_document = |mut error: RecordError| {
        error.file = "raw document".into();
        error.id = Some(id.clone());
        error
    };
    let mut articles = read_events(std::io::Cursor::new(raw.bytes), format, &id, options).map_err(error)?;
    let parsed = match articles.next() {
        Some(parsed) => parsed.map_err(in_document)?,
        None => return Err(error(Reason::malformed("the raw document holds no article"))),
    };
    match articles.next() {
        None => within_limits(merge(event, parsed), options).map_err(error),
        Some(Err(error)) => Err(in_document(error)),
        Some(Ok(_)) => Err(error(Reason::malformed("the raw document holds more than one article"))),
    }
}

fn format_of(content_type: &str, bytes: &[u8]) -> Result<Format, Reason> {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_lowercase();
    let from = match essence.as_str() {
        "application/vnd.pubmed+xml" => Some(Format::Pubmed),
        "application/jats+xml" => Some(Format::Jats),
        "text/plain" => Some(Format::Text),
        "application/xml" | "text/xml" | "application/json" => None,
        _ => {
            return Err(Reason::Format(format!(
                "the content type `{content_type}` is none of application/vnd.pubmed+xml, application/jats+xml, \
                 application/xml, application/json, text/plain"
            )));
        }
    };
    Format::detect(from, None, &bytes[..bytes.len().min(64 << 10)])
}

/// The event with the content of its document, and with its metadata where it has none itself.
fn merge(event: ArticleEvent, parsed: ArticleEvent) -> ArticleEvent {
    ArticleEvent {
        ids: ArticleIds {
            pmid: event.ids.pmid.or(parsed.ids.pmid),
            pmcid: event.ids.pmcid.or(parsed.ids.pmcid),
            doi: event.ids.doi.or(parsed.ids.doi),
        },
        published: event.published.or(parsed.published),
        revised: event.revised.or(parsed.revised),
        language: event.language.or(parsed.language),
        journal: event.journal.or(parsed.journal),
        publication_types: if event.publication_types.is_empty() {
            parsed.publication_types
        } else {
            event.publication_types
        },
        retracted: event.retracted || parsed.retracted,
        mesh: if event.mesh.is_empty() { parsed.mesh } else { event.mesh },
        title: parsed.title,
        passages: parsed.passages,
        id: event.id,
        version: event.version,
        op: event.op,
        source: event.source,
        raw: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorClass;
    use crate::article::{RawDocument, Section};

    fn event(content_type: &str, bytes: &[u8]) -> ArticleEvent {
        let raw = RawDocument::new(content_type, bytes);
        ArticleEvent { raw: Some(raw), version: 4, ..ArticleEvent::new("feed:1", "feed") }
    }

    #[test]
    fn the_events_own_words_win() {
        let xml = b"<PubmedArticleSet><PubmedArticle><MedlineCitation><PMID Version='2'>7</PMID><Article>\
            <ArticleTitle>T</ArticleTitle><Language>eng</Language></Article></MedlineCitation></PubmedArticle></PubmedArticleSet>";
        let parsed = parse_raw(event("application/vnd.pubmed+xml", xml), &Options::default()).unwrap();
        assert_eq!((parsed.id.as_str(), parsed.version, parsed.source.as_str()), ("feed:1", 4, "feed"));
        assert_eq!((parsed.title.as_deref(), parsed.ids.pmid.as_deref()), (Some("T"), Some("7")));
        assert_eq!((parsed.language.as_deref(), &parsed.raw), (Some("eng"), &None));

        let parsed = parse_raw(event("text/plain; charset=utf-8", b" BRCA1\n"), &Options::default()).unwrap();
        assert_eq!((parsed.passages[0].section, parsed.passages[0].text.as_str()), (Section::Body, " BRCA1\n"));

        let parsed =
            parse_raw(event("application/json", br#"{"id": 1, "text": "BRCA1"}"#), &Options::default()).unwrap();
        assert_eq!((parsed.id.as_str(), parsed.passages.len()), ("feed:1", 1));
    }

    #[test]
    fn what_cannot_be_parsed_is_poison() {
        let two = b"<PubmedArticleSet><PubmedArticle><PMID>1</PMID><ArticleTitle>T</ArticleTitle></PubmedArticle>\
            <PubmedArticle><PMID>2</PMID><ArticleTitle>T</ArticleTitle></PubmedArticle></PubmedArticleSet>";
        let options = Options { max_record_bytes: 1000, ..Options::default() };
        for (content_type, bytes, reason) in [
            ("application/pdf", &b"%PDF"[..], "the content type `application/pdf` is none of"),
            ("application/vnd.pubmed+xml", b"<PubmedArticleSet/>", "holds no article"),
            ("application/vnd.pubmed+xml", two, "more than one article"),
            ("application/vnd.pubmed+xml", b"<PubmedArticle><PMID>1</PMID>", "before this one's end tag"),
            ("application/vnd.pubmed+xml", b"prose", "is not PubMed XML"),
            ("text/plain", b"  ", "is empty"),
            ("text/plain", b"\xFF", "invalid UTF-8 at byte 0"),
            ("text/plain", &[b'x'; 1001], "longer than 1000 bytes"),
            ("application/json", b"{\"id\": 1}", "neither title nor text"),
        ] {
            let error = parse_raw(event(content_type, bytes), &options).unwrap_err();
            assert_eq!((error.class(), error.id.as_deref()), (ErrorClass::Poison, Some("feed:1")));
            assert!(error.to_string().contains(reason), "{error}");
        }
        let empty = ArticleEvent::new("pmid:1", "pubmed");
        assert!(parse_raw(empty, &options).unwrap_err().to_string().contains("neither title nor text"));
    }
}
