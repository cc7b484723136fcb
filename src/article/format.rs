//! The formats that are read, and how an input's format is told.

use super::record::Reason;
use serde::Deserialize;
use std::{fmt, path::Path, str::FromStr};

/// The format of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// PubMed citation XML.
    Pubmed,
    /// JATS full text (PMC and publishers).
    Jats,
    /// PubTator.
    Pubtator,
    /// BioC, XML or JSON.
    Bioc,
    /// JSON lines.
    Jsonl,
    /// Plain text, one document a file.
    Text,
}

impl Format {
    /// All formats, by the names that `--from` takes.
    pub const NAMES: [(&'static str, Self); 6] = [
        ("pubmed", Self::Pubmed),
        ("jats", Self::Jats),
        ("pubtator", Self::Pubtator),
        ("bioc", Self::Bioc),
        ("jsonl", Self::Jsonl),
        ("text", Self::Text),
    ];

    /// What a file's name says, `.gz` aside; `.xml` and `.json` say nothing.
    pub fn of_name(path: &Path) -> Option<Self> {
        match extension(path)?.as_str() {
            "nxml" => Some(Self::Jats),
            "pubtator" => Some(Self::Pubtator),
            "jsonl" | "ndjson" => Some(Self::Jsonl),
            "txt" => Some(Self::Text),
            _ => None,
        }
    }

    /// Whether a file of this name is taken when a directory is read.
    pub(crate) fn is_input_name(path: &Path) -> bool {
        Self::of_name(path).is_some() || matches!(extension(path).as_deref(), Some("xml" | "json"))
    }

    /// What an input's first bytes say; plain text says nothing.
    fn of_content(head: &str) -> Option<Self> {
        let head = head.trim_start_matches('\u{FEFF}').trim_start();
        match head.bytes().next()? {
            b'<' => match root_element(head)? {
                "PubmedArticleSet"
                | "PubmedBookArticleSet"
                | "PubmedArticle"
                | "PubmedBookArticle"
                | "DeleteCitation" => Some(Self::Pubmed),
                "article" | "pmc-articleset" => Some(Self::Jats),
                "collection" => Some(Self::Bioc),
                _ => None,
            },
            b'{' | b'[' => {
                let has_key = |key: &str| head.contains(key);
                let is_bioc = has_key("\"documents\"") || has_key("\"PubTator3\"") || has_key("\"infons\"");
                let is_line = head.starts_with('{');
                if is_bioc { Some(Self::Bioc) } else { is_line.then_some(Self::Jsonl) }
            }
            _ => head.lines().any(|line| super::pubtator::title_line(line).is_some()).then_some(Self::Pubtator),
        }
    }

    /// The format of an input: as the user says, else as its name says, else as its first bytes say.
    ///
    /// # Errors
    /// An input that is empty, not UTF-8, of no format that is known, or plainly of another format
    /// than it is said to be.
    pub(crate) fn detect(from: Option<Self>, name: Option<&Path>, head: &[u8]) -> Result<Self, Reason> {
        let head = utf8_head(head)?;
        if head.trim_start_matches('\u{FEFF}').trim().is_empty() {
            return Err(Reason::Format("is empty".into()));
        }
        let named = name.and_then(Self::of_name);
        let content = Self::of_content(head);
        let format = match (from, named, content) {
            (Some(Self::Text), ..) => Self::Text,
            // The first title line may stand beyond the head, and an XML root may be a wrapper of the user's.
            (Some(from), _, None) => from,
            (None, Some(Self::Text), Some(Self::Pubtator)) => Self::Pubtator,
            (None, Some(Self::Jsonl), Some(Self::Bioc)) => Self::Bioc,
            (Some(said), _, Some(content)) | (None, Some(said), Some(content)) if said != content => {
                let way_out = match from {
                    Some(_) => "--from must name another format, or be left out",
                    None => "name its format with --from",
                };
                let (said, content) = (said.title(), content.title());
                return Err(Reason::Format(format!("is not {said}: it begins like {content}; {way_out}")));
            }
            (Some(format), ..) | (None, _, Some(format)) | (None, Some(format), None) => format,
            (None, None, None) => {
                let what = match root_element(head) {
                    Some(root) => format!("the root element `{root}` is of no format that is read"),
                    None => "its format cannot be told from its name or content".to_owned(),
                };
                let names = Self::NAMES.map(|(name, _)| name).join(", ");
                return Err(Reason::Format(format!("{what}; name it with --from ({names})")));
            }
        };
        let begins_with = |marks: &[char]| head.trim_start_matches('\u{FEFF}').trim_start().starts_with(marks);
        let is_plausible = match format {
            Self::Pubmed | Self::Jats => begins_with(&['<']),
            Self::Bioc => begins_with(&['<', '{', '[']),
            Self::Jsonl => begins_with(&['{']),
            Self::Pubtator => content == Some(Self::Pubtator),
            Self::Text => true,
        };
        if !is_plausible {
            return Err(Reason::Format(format!("is not {}", format.title())));
        }
        if begins_with(&['<']) && format != Self::Text {
            check_declared_encoding(head)?;
        }
        Ok(format)
    }

    /// The format as a reader of messages knows it.
    fn title(self) -> &'static str {
        match self {
            Self::Pubmed => "PubMed XML",
            Self::Jats => "JATS",
            Self::Pubtator => "PubTator (`ID|t|title` lines)",
            Self::Bioc => "BioC",
            Self::Jsonl => "JSON lines",
            Self::Text => "plain text",
        }
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::NAMES.iter().find(|(known, _)| *known == name);
        let names = Self::NAMES.map(|(name, _)| name).join(", ");
        found.map(|(_, format)| *format).ok_or_else(|| format!("unknown format `{name}`: one of {names}"))
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = Self::NAMES.iter().find(|(_, format)| format == self);
        f.write_str(named.map_or("", |(name, _)| name))
    }
}

/// The extension in lower case, `.gz` aside.
fn extension(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?.to_lowercase();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    name.rsplit_once('.').map(|(_, extension)| extension.to_owned())
}

/// The head as text; a character cut off at its end is left out.
fn utf8_head(head: &[u8]) -> Result<&str, Reason> {
    if head.starts_with(b"\xFF\xFE") || head.starts_with(b"\xFE\xFF") {
        return Err(Reason::Encoding(
            "is UTF-16; only UTF-8 is read: convert it with `iconv -f UTF-16 -t UTF-8`".into(),
        ));
    }
    if head.contains(&0) {
        return Err(Reason::Format("is no text: it has NUL bytes at its beginning".into()));
    }
    match std::str::from_utf8(head) {
        Ok(text) => Ok(text),
        // One bad record is not to condemn its file: what comes before it tells the format.
        Err(error) => match std::str::from_utf8(&head[..error.valid_up_to()]) {
            Ok(text) if !text.trim().is_empty() => Ok(text),
            _ => Err(Reason::not_utf8(error)),
        },
    }
}

/// The name of the first element.
pub(crate) fn root_element(head: &str) -> Option<&str> {
    let mut rest = head.trim_start_matches('\u{FEFF}');
    loop {
        rest = &rest[rest.find('<')? + 1..];
        if let Some(comment) = rest.strip_prefix("!--") {
            rest = &comment[comment.find("-->")?..];
        } else if rest.starts_with('!') {
            // A document type may hold declarations in brackets.
            let bracket = rest.find('[').filter(|at| rest.find('>').is_none_or(|close| *at < close));
            rest = &rest[bracket.map_or(Some(0), |_| rest.find("]"))?..];
        } else if !rest.starts_with('?') {
            let end = rest.find(|c: char| c.is_whitespace() || c == '>' || c == '/')?;
            return Some(&rest[..end]).filter(|name| !name.is_empty());
        }
    }
}

fn check_declared_encoding(head: &str) -> Result<(), Reason> {
    let declaration = head.trim_start_matches('\u{FEFF}').strip_prefix("<?xml").and_then(|d| d.split_once("?>"));
    let Some((_, value)) = declaration.and_then(|(declaration, _)| declaration.split_once("encoding")) else {
        return Ok(());
    };
    let encoding = value.trim_start_matches([' ', '=', '"', '\'', '\t', '\n', '\r']);
    let encoding = encoding.split(['"', '\'']).next().unwrap_or_default();
    if ["utf-8", "utf8", "us-ascii", "ascii", ""].contains(&encoding.to_lowercase().as_str()) {
        return Ok(());
    }
    Err(Reason::Encoding(format!(
        "declares the encoding {encoding}; only UTF-8 is read: convert it with `iconv -f {encoding} -t UTF-8` and correct the declaration"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detect(from: Option<Format>, name: &str, head: &str) -> Result<Format, String> {
        Format::detect(from, Some(Path::new(name)), head.as_bytes()).map_err(|reason| reason.to_string())
    }

    #[test]
    fn names_and_contents_tell_the_format() {
        let doctype = "<?xml version='1.0'?><!-- <x> --><!DOCTYPE article [<!ENTITY a 'b'>]>\n";
        for (name, head, format) in [
            ("a.xml", "<?xml version=\"1.0\"?>\n<PubmedArticleSet>", Format::Pubmed),
            ("a.xml.gz", &format!("{doctype}<article xmlns:x='y'>"), Format::Jats),
            ("a.nxml", "<article>", Format::Jats),
            ("a.xml", "\u{FEFF}<pmc-articleset>", Format::Jats),
            ("a.xml", "<collection>", Format::Bioc),
            ("a.json", "{\"source\": \"x\", \"documents\": []}", Format::Bioc),
            ("a.PubTator", "\n1|t|Title\n", Format::Pubtator),
            ("a.txt", "1|t|Title\n", Format::Pubtator),
            ("a.txt.gz", "BRCA1.", Format::Text),
            ("a.txt", "< 0.05", Format::Text),
            ("a.ndjson", "{\"id\": 1}", Format::Jsonl),
            ("stdin", "{\"id\": 1}", Format::Jsonl),
        ] {
            assert_eq!(detect(None, name, head), Ok(format), "{name} {head}");
        }
        assert_eq!(detect(Some(Format::Pubmed), "a.dat", "<wrapper><PubmedArticle>"), Ok(Format::Pubmed));
        assert_eq!(detect(Some(Format::Text), "a.dat", "{}"), Ok(Format::Text));
    }

    #[test]
    fn a_file_that_is_not_what_it_claims_is_refused() {
        for (from, name, head, reason) in [
            (None, "a.jsonl", "<PubmedArticleSet>", "is not JSON lines: it begins like PubMed XML"),
            (None, "a.jsonl", "id,text\n", "is not JSON lines"),
            (None, "a.pubtator", "prose", "is not PubTator"),
            (Some(Format::Pubmed), "a.xml", "<article>", "is not PubMed XML: it begins like JATS"),
            (Some(Format::Pubmed), "a.xml", "no XML", "is not PubMed XML"),
            (None, "a.xml", "<html><body>", "the root element `html` is of no format that is read"),
            (None, "a.pdf", "%PDF-1.4", "cannot be told"),
            (None, "a.xml", " \n", "is empty"),
            (None, "a.txt", "a\0b", "is no text"),
            (None, "a.xml", "<?xml version='1.0' encoding='ISO-8859-1'?><article>", "declares the encoding ISO-8859-1"),
        ] {
            let error = detect(from, name, head).unwrap_err();
            assert!(error.contains(reason), "{name}: {error}");
        }
        let utf16 = Format::detect(None, None, b"\xFF\xFE<\0a\0").unwrap_err().to_string();
        assert!(utf16.contains("UTF-16"), "{utf16}");
    }

    #[test]
    fn formats_have_names() {
        for (name, format) in Format::NAMES {
            assert_eq!(name.parse(), Ok(format));
            assert_eq!(format.to_string(), name);
        }
        assert!("xml".parse::<Format>().unwrap_err().contains("pubmed, jats"));
    }
}
