//! The formats, and how one is told.

use litflow::article::Reason;
use std::path::Path;

/// A format of labelled documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum Format {
    /// JSON lines of the values of the topic `labels`: holds everything.
    Jsonl,
    /// PubTator: title, abstract, tab-separated annotations.
    Pubtator,
    /// BioC JSON.
    BiocJson,
    /// BioC XML.
    BiocXml,
    /// One token a line with its BIO tag, sentences separated by blank lines.
    Conll,
    /// BRAT standoff: `.ann` files beside their `.txt`.
    Brat,
    /// Knowtator XML, as CRAFT has it: a file a document and type, beside the texts.
    Knowtator,
    /// Label Studio's JSON export or JSON lines of tasks.
    LabelStudio,
    /// Prodigy's JSON lines with `spans`.
    Prodigy,
}

/// What input files are called, `.gz` aside.
const EXTENSIONS: [&str; 14] = [
    "ann", "bio", "bioc", "conll", "iob", "iob2", "json", "jsonl", "ndjson", "pubtator", "tsv", "txt", "xml", "conllu",
];

impl Format {
    /// The format of a file, told by its first bytes and, for BRAT, by its name.
    ///
    /// # Errors
    /// What is of none of the formats.
    pub fn detect(path: &Path, head: &[u8]) -> Result<Self, Reason> {
        if extension(path).as_deref() == Some("ann") {
            return Ok(Self::Brat);
        }
        let head = String::from_utf8_lossy(head);
        let begin = head.trim_start_matches('\u{FEFF}').trim_start();
        let unknown = || {
            Err(Reason::Format("is in no format of labels that is known by its beginning; name it by --format".into()))
        };
        match begin.chars().next() {
            Some('<') if begin.contains("<annotations") => Ok(Self::Knowtator),
            Some('<') if begin.contains("<collection") || begin.contains("<document") => Ok(Self::BiocXml),
            Some('<') => unknown(),
            Some('{' | '[') => {
                let has = |key: &str| begin.contains(&format!("\"{key}\""));
                if has("document_id") && has("passages") {
                    Ok(Self::Jsonl)
                } else if has("passages") || has("documents") {
                    Ok(Self::BiocJson)
                } else if has("data") && (has("annotations") || has("completions")) {
                    Ok(Self::LabelStudio)
                } else if has("text") {
                    // Prodigy writes lines only.
                    Ok(if begin.starts_with('[') { Self::LabelStudio } else { Self::Prodigy })
                } else {
                    unknown()
                }
            }
            Some(_) => {
                // One bad record is not to condemn its file.
                let mut lines = begin.lines().take(50);
                if lines.clone().any(|line| line.contains("|t|")) {
                    Ok(Self::Pubtator)
                } else if lines.any(|line| super::conll::token(line).is_some()) {
                    Ok(Self::Conll)
                } else {
                    unknown()
                }
            }
            None => Err(Reason::Format("is empty".into())),
        }
    }

    /// Whether a document has several files.
    pub fn needs_folder(self) -> bool {
        matches!(self, Self::Brat | Self::Knowtator)
    }

    /// Whether a file of a directory is to be read.
    pub(super) fn is_input(format: Option<Self>, path: &Path) -> bool {
        let extension = extension(path);
        match format {
            Some(Self::Brat) => extension.as_deref() == Some("ann"),
            Some(Self::Knowtator | Self::BiocXml) => extension.as_deref() == Some("xml"),
            Some(_) => true,
            None => extension.is_some_and(|extension| {
                let is_text = path.with_extension("ann").exists() || path.parent().is_some_and(is_knowtator_texts);
                EXTENSIONS.contains(&extension.as_str()) && !(extension == "txt" && is_text)
            }),
        }
    }
}

/// Whether the folder holds the texts that Knowtator's files speak of.
fn is_knowtator_texts(folder: &Path) -> bool {
    folder.ends_with("articles/txt")
}

/// The extension in lower case, `.gz` aside.
fn extension(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?.to_lowercase();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    name.rsplit_once('.').map(|(_, extension)| extension.to_owned())
}
