//! The Rust types of the values that litflow writes, field for field as in `schemas/*.avsc`.
//!
//! [`ArticleEvent`](crate::article::ArticleEvent) has its type where articles are read; a test in
//! [`codec`](super::codec) proves that all of them agree with the schema files.

use crate::article::{Passage, Section};
use crate::tagger::{Mention, ModelRef, TaggedDocument};
use crate::text::CodePoints;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The record on the `articles` topic that another record was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceRecord {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
}

/// `schemas/Annotations.avsc`: the newest state of one article.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Annotations {
    /// The article's id, the record's key.
    pub article_id: String,
    /// The article's version.
    pub article_version: i64,
    /// The model version that found the mentions.
    pub model: ModelRef,
    /// Where the article event stands.
    pub source: SourceRecord,
    /// The document's passages in order.
    pub passages: Vec<AnnotatedPassage>,
    /// All mentions, ordered by passage, begin, end.
    pub mentions: Vec<AnnotatedMention>,
}

/// Where a passage and its sentences lie; the text itself stays on the `articles` topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnnotatedPassage {
    /// Where in the article it stands.
    pub section: Section,
    /// Where it starts in the document, in code points.
    pub offset: u32,
    /// Its length in code points.
    pub length: u32,
    /// The sentences' bounds, ascending.
    pub sentences: Vec<Span>,
}

/// A half-open range of code points in a passage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// Begin.
    pub begin: u32,
    /// End, exclusive.
    pub end: u32,
}

/// A [`Mention`] with what later stages know about it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)] // as in `Mention` and `EntityMention`
pub struct AnnotatedMention {
    pub id: String,
    #[serde(rename = "type")]
    pub entity_type: String,
    pub text: String,
    pub passage: u32,
    pub begin: u32,
    pub end: u32,
    pub document_begin: u32,
    pub document_end: u32,
    pub sentence: u32,
    pub score: f32,
    pub identifiers: Vec<String>,
    pub negated: Option<bool>,
    pub long_form: Option<String>,
}

/// `schemas/EntityMention.avsc`: one mention with its sentence and its provenance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EntityMention {
    /// The article's id, the record's key.
    pub article_id: String,
    /// The article's version.
    pub article_version: i64,
    /// Deterministic, see [`Mention::id`].
    pub id: String,
    /// Entity type, one of the model's label set.
    #[serde(rename = "type")]
    pub entity_type: String,
    /// The exact text.
    pub text: String,
    /// Index of the passage in the document.
    pub passage: u32,
    /// Begin in the passage.
    pub begin: u32,
    /// End in the passage.
    pub end: u32,
    /// Begin in the document.
    pub document_begin: u32,
    /// End in the document.
    pub document_end: u32,
    /// Index of the sentence within the passage.
    pub sentence: u32,
    /// The model's probability for the span, 0 to 1.
    pub score: f32,
    /// Normalised ids as CURIEs, best first.
    pub identifiers: Vec<String>,
    /// Whether the sentence denies the mention; `None` where that was not determined.
    pub negated: Option<bool>,
    /// The abbreviation's long form.
    pub long_form: Option<String>,
    /// Section of the mention's passage.
    pub section: Section,
    /// Where the sentence begins in the passage.
    pub sentence_begin: u32,
    /// Where it ends, exclusive.
    pub sentence_end: u32,
    /// The sentence; `None` where it is longer than [`SENTENCE_TEXT_MAX`] code points or the mention
    /// runs over its end.
    pub sentence_text: Option<String>,
    /// The model version that found the mention.
    pub model: ModelRef,
    /// Where the article event stands.
    pub source: SourceRecord,
}

/// The longest sentence, in code points, that is repeated in each of its mentions' records. What the
/// splitter leaves in one piece beyond that is no sentence, and repeating it would square its size.
pub const SENTENCE_TEXT_MAX: u32 = 4_000;

/// `schemas/LabeledDocument.avsc`: a document with one annotator's gold spans.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LabeledDocument {
    /// The document's id, the record's key.
    pub document_id: String,
    /// The passages in order, a title first.
    pub passages: Vec<Passage>,
    /// The gold spans, ordered by passage, begin, end.
    pub spans: Vec<GoldSpan>,
    /// Every type that the annotator looked for; what is unlabelled is a negative for these only.
    pub entity_types: Vec<String>,
    /// Who annotated: a person, a corpus, a programme.
    pub annotator: String,
    /// Name and version of the annotation guideline.
    pub guideline: Option<String>,
    /// When it was annotated, milliseconds since the epoch, UTC.
    pub annotated_at: Option<i64>,
    /// Stretches whose labels are unknown for every type; outside the spans they are no negatives.
    pub open: Vec<OpenSpan>,
}

/// A half-open range of code points in one of a document's passages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenSpan {
    /// Index of the passage.
    pub passage: u32,
    /// Begin in the passage.
    pub begin: u32,
    /// End in the passage, exclusive.
    pub end: u32,
}

/// A gold annotation; offsets are code points, half-open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoldSpan {
    /// Entity type.
    #[serde(rename = "type")]
    pub entity_type: String,
    /// Index of the passage.
    pub passage: u32,
    /// Begin in the passage.
    pub begin: u32,
    /// End in the passage, exclusive.
    pub end: u32,
    /// The exact text, to be checked against the passage.
    pub text: String,
    /// Normalised ids as CURIEs.
    pub identifiers: Vec<String>,
}

/// `schemas/ModelVersion.avsc`: a model version was published or an alias moved to it. The newest record of a
/// name carries the whole state of the name's aliases.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ModelVersion {
    /// The model's name, the record's key.
    pub name: String,
    /// Its version, `1.0.0`.
    pub version: String,
    /// `sha256:` and the digest of its manifest.
    pub digest: String,
    /// URI of the directory that holds the files.
    pub location: String,
    /// Every file with its digest, the manifest among them.
    pub files: Vec<ModelFile>,
    /// The label set's entity types, in the order of the model's labels.
    pub entity_types: Vec<String>,
    /// Evaluation figures as fractions, by name.
    pub metrics: BTreeMap<String, f64>,
    /// The digest of the model that it was fine-tuned from.
    pub parent: Option<String>,
    /// The pretrained encoder below it.
    pub encoder: Option<String>,
    /// When it was published, milliseconds since the epoch, UTC.
    pub created_at: Option<i64>,
    /// All aliases of the model; see [`crate::registry::aliases`].
    pub aliases: BTreeMap<String, AliasTarget>,
    /// The changes of the aliases, oldest first.
    pub history: Vec<AliasChange>,
}

/// The version that an alias stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AliasTarget {
    /// The version.
    pub version: String,
    /// `sha256:` and the digest of its manifest.
    pub digest: String,
    /// URI of the directory that holds its files.
    pub location: String,
}

/// An alias was moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AliasChange {
    /// When, milliseconds since the epoch, UTC.
    pub at: i64,
    /// The alias.
    pub alias: String,
    /// What was done.
    pub action: AliasAction,
    /// The version that it was given to or taken from.
    pub version: String,
    /// That version's digest.
    pub digest: String,
    /// The version that had it before.
    pub previous: Option<String>,
    /// Who did it: a person, a program.
    pub by: String,
    /// Why, for a person.
    pub reason: String,
}

/// What was done to an alias.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum AliasAction {
    /// Given to the version.
    Assigned,
    /// Given back to the version before.
    RolledBack,
    /// Taken from the version.
    Removed,
}

/// One file of a model directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelFile {
    /// Path relative to the version's location.
    pub path: String,
    /// SHA-256 of its bytes, 64 hex digits.
    pub sha256: String,
    /// Its size in bytes.
    pub bytes: i64,
}

/// `schemas/ShadowTally.avsc`: how far a candidate agrees with the champion, as one worker has counted it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShadowTally {
    /// The version that published nothing.
    pub candidate: ModelRef,
    /// The version whose mentions were published.
    pub champion: ModelRef,
    /// The worker's transactional id.
    pub worker: String,
    /// When the tally began, milliseconds since the epoch, UTC.
    pub since: i64,
    /// When it was published.
    pub updated_at: i64,
    /// Why the worker refuses to load the candidate; none where it has loaded it or tries again.
    pub refused: Option<String>,
    /// What it has counted.
    pub agreement: Agreement,
}

/// What two versions were compared on, and how far they agree; see [`crate::worker::shadow`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Agreement {
    /// Articles that both tagged.
    pub articles: i64,
    /// Their sentences.
    pub sentences: i64,
    /// Articles that the candidate could not tag though the champion could.
    pub failed: i64,
    /// Sampled articles that were not compared, because too many were waiting.
    pub dropped: i64,
    /// What the articles cost the champion ([`TaggedDocument::compute_seconds`]).
    pub champion_seconds: f64,
    /// What they cost the candidate.
    pub candidate_seconds: f64,
    /// By entity type.
    pub types: BTreeMap<String, TypeAgreement>,
}

/// Mentions of one entity type, compared strictly.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct TypeAgreement {
    /// Found by both.
    pub agreed: i64,
    /// Found by the candidate only.
    pub added: i64,
    /// Found by the champion only.
    pub missing: i64,
    /// Sum over the agreed mentions of the candidate's score less the champion's.
    pub score_shift: f64,
}

impl Annotations {
    /// The state that `tagged` gives its article.
    pub fn new(tagged: &TaggedDocument, source: &SourceRecord) -> Self {
        let passages = tagged.document.passages.iter().zip(tagged.document.passage_offsets()).enumerate();
        Self {
            article_id: tagged.document.article_id.clone(),
            article_version: tagged.document.article_version,
            model: tagged.model.clone(),
            source: source.clone(),
            passages: passages
                .map(|(index, (passage, offset))| AnnotatedPassage {
                    section: passage.section,
                    offset,
                    length: passage.text.chars().count() as u32,
                    sentences: sentences_of(tagged, index).iter().map(|&(begin, end)| Span { begin, end }).collect(),
                })
                .collect(),
            mentions: tagged.mentions.iter().map(AnnotatedMention::from).collect(),
        }
    }
}

impl From<&Mention> for AnnotatedMention {
    fn from(mention: &Mention) -> Self {
        Self {
            id: mention.id.clone(),
            entity_type: mention.entity_type.clone(),
            text: mention.text.clone(),
            passage: mention.passage,
            begin: mention.begin,
            end: mention.end,
            document_begin: mention.document_begin,
            document_end: mention.document_end,
            sentence: mention.sentence,
            score: mention.score,
            identifiers: Vec::new(),
            negated: None,
            long_form: None,
        }
    }
}

impl EntityMention {
    /// The records of all mentions of `tagged`, in order. Lazily, because together they repeat each
    /// sentence once a mention. Linear in the text and the mentions.
    pub fn all<'a>(tagged: &'a TaggedDocument, source: &'a SourceRecord) -> impl Iterator<Item = Self> + 'a {
        // Mentions come ordered by passage, so each passage is indexed once.
        let mut indexed = (u32::MAX, CodePoints::new(""));
        tagged.mentions.iter().map(move |mention| {
            let passage = &tagged.document.passages[mention.passage as usize];
            if indexed.0 != mention.passage {
                indexed = (mention.passage, CodePoints::new(&passage.text));
            }
            let sentences = sentences_of(tagged, mention.passage as usize);
            let (sentence_begin, sentence_end) =
                sentences.get(mention.sentence as usize).copied().unwrap_or((mention.begin, mention.end));
            let shown = sentence_end - sentence_begin <= SENTENCE_TEXT_MAX && mention.end <= sentence_end;
            Self {
                article_id: tagged.document.article_id.clone(),
                article_version: tagged.document.article_version,
                id: mention.id.clone(),
                entity_type: mention.entity_type.clone(),
                text: mention.text.clone(),
                passage: mention.passage,
                begin: mention.begin,
                end: mention.end,
                document_begin: mention.document_begin,
                document_end: mention.document_end,
                sentence: mention.sentence,
                score: mention.score,
                identifiers: Vec::new(),
                negated: None,
                long_form: None,
                section: passage.section,
                sentence_begin,
                sentence_end,
                sentence_text: indexed.1.slice(sentence_begin, sentence_end).filter(|_| shown).map(str::to_owned),
                model: tagged.model.clone(),
                source: source.clone(),
            }
        })
    }
}

fn sentences_of(tagged: &TaggedDocument, passage: usize) -> &[(u32, u32)] {
    tagged.sentences.get(passage).map_or(&[], Vec::as_slice)
}
