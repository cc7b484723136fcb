//! What is to be done: the articles whose newest annotations are by another version.
//!
//! [`Survey`] is told every event of `articles`, then every record of `annotations`, each up to a fixed end, and keeps
//! of each article where its newest event and its newest annotations stand. An article is done when its annotations
//! are by this version and of its newest event: so a run that was killed goes on by itself, and annotations of an
//! older event that took the place of newer ones are found and put right.
//!
//! Memory: [`ARTICLE_BYTES`] an article in a hash table, which is between half full and full, and half as much again
//! while it grows. Ids are told apart by 128 bits of a keyed hash.

use super::diff::Span;
use super::names::Names;
use super::spool::{Older, Place, Spool};
use crate::article::{Document, Section};
use crate::bus::codec;
use crate::bus::records::Annotations;
use crate::bus::topics;
use crate::tagger::ModelRef;
use crate::text::CodePoints;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher as _, Hash as _, Hasher as _, RandomState};
use std::io;

/// What an article takes in the table of a survey.
pub const ARTICLE_BYTES: usize = size_of::<(Key, Article)>();

/// Stands for an article's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key(u64, u64);

/// Makes keys, differently in each process, so that nobody can choose ids that meet.
#[derive(Default)]
pub(super) struct Keys(RandomState, RandomState);

impl Keys {
    pub fn of(&self, id: &[u8]) -> Key {
        Key(self.0.hash_one(id), self.1.hash_one(id))
    }
}

/// How an article's newest annotations stand to its newest event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// There are none: the article is the worker's.
    Unannotated,
    /// A tombstone.
    Deleted,
    /// Of the newest event, by this version.
    Done,
    /// Of the newest event, by another version.
    Outdated,
    /// Of an event before the newest.
    Superseded,
    /// By another version, of an event that came after the survey had begun.
    Ahead,
    /// They cannot be decoded.
    Unreadable,
}

/// What is known of an article.
#[derive(Debug, Clone, Copy)]
pub(super) struct Article {
    /// Offset of its newest event; none where `articles` has no event of it (any more).
    newest: i64,
    /// The annotations of another version.
    pub older: Option<Place>,
    /// Of the newest event.
    partition: i32,
    /// The number of the version that its annotations are by.
    pub version: u32,
    pub standing: Standing,
}

const NONE: i64 = -1;

/// An event that is to be tagged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Due {
    pub offset: i64,
    /// What the report compares it with.
    pub older: Option<Place>,
    pub version: u32,
}

/// What is known of all articles.
pub(super) struct Survey {
    digest: String,
    /// Where the partitions of `articles` end for this survey.
    ends: BTreeMap<i32, i64>,
    articles: HashMap<Key, Article>,
    pub keys: Keys,
    pub versions: Names<ModelRef>,
    pub types: Names<String>,
    pub spool: Spool,
}

/// Articles by what is to be done about them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Those to be tagged, by the number of the version that their annotations are by.
    pub due: BTreeMap<u32, u64>,
    pub up_to_date: u64,
    /// By another version, and no event on `articles` any more.
    pub expired: u64,
    /// Annotated by another version while the survey went on.
    pub overtaken: u64,
    pub unreadable: u64,
}

impl Survey {
    /// Before anything was read, for the version with this digest.
    pub fn new(digest: &str) -> io::Result<Self> {
        Ok(Self {
            digest: digest.to_owned(),
            ends: BTreeMap::new(),
            articles: HashMap::new(),
            keys: Keys::default(),
            versions: Names::default(),
            types: Names::default(),
            spool: Spool::new()?,
        })
    }

    /// Takes note of an event. Those of a partition come in order.
    pub fn event(&mut self, id: &[u8], partition: i32, offset: i64) {
        let article = self.article(id);
        (article.partition, article.newest) = (partition, offset);
    }

    /// All events up to these ends were told.
    pub fn end_of_events(&mut self, ends: BTreeMap<i32, i64>) {
        self.ends = ends;
    }

    /// Takes note of a record of `annotations`; the last one of an article counts.
    pub fn annotations(&mut self, id: &[u8], value: Option<Result<Annotations, codec::Error>>) -> io::Result<()> {
        let article = *self.article(id);
        let (standing, older, version) = match value {
            None => (Standing::Deleted, None, article.version),
            Some(Err(error)) => {
                tracing::warn!("the annotations of {:?}: {error}", String::from_utf8_lossy(id));
                (Standing::Unreadable, None, article.version)
            }
            Some(Ok(annotations)) => {
                let standing = self.standing(&article, &annotations);
                let older = match standing {
                    Standing::Outdated => Some(self.keep(&annotations)?),
                    _ => None,
                };
                (standing, older, self.versions.number(&annotations.model))
            }
        };
        let article = self.article(id);
        *article = Article { standing, older, version, ..*article };
        Ok(())
    }

    fn standing(&self, article: &Article, annotations: &Annotations) -> Standing {
        let source = &annotations.source;
        let is_ours = annotations.model.digest == self.digest;
        let came_later = self.ends.get(&source.partition).is_none_or(|&end| source.offset >= end);
        let is_newest = source.partition == article.partition && source.offset == article.newest;
        match (source.topic == topics::ARTICLES, is_ours) {
            (true, true) if came_later || is_newest || article.newest == NONE => Standing::Done,
            (true, false) if came_later => Standing::Ahead,
            (true, false) if is_newest || article.newest == NONE => Standing::Outdated,
            _ => Standing::Superseded,
        }
    }

    fn keep(&mut self, annotations: &Annotations) -> io::Result<Place> {
        let passages = annotations.passages.iter().map(|passage| (passage.section, passage.length));
        let texts = annotations.mentions.iter().map(|mention| mention.text.as_str());
        let fingerprint = self.fingerprint(annotations.article_version, passages, texts);
        let spans = annotations.mentions.iter().map(|mention| Span {
            passage: mention.passage,
            begin: mention.begin,
            end: mention.end,
            entity_type: self.types.number(&mention.entity_type),
            score: mention.score,
        });
        let spans = spans.collect();
        let source = &annotations.source;
        self.spool.put(&Older { partition: source.partition, offset: source.offset, fingerprint, spans })
    }

    /// Whether a document is the one that the older annotations are of, as far as those tell: the same version, the
    /// same sections of the same lengths, the same text in every mention.
    pub fn is_text_of(&self, document: &Document, older: &Older) -> bool {
        let texts: Vec<CodePoints<'_>> =
            document.passages.iter().map(|passage| CodePoints::new(&passage.text)).collect();
        let passages = document.passages.iter().zip(&texts).map(|(passage, text)| (passage.section, text.len()));
        let mentions = older.spans.iter().map(|span| {
            let text = texts.get(span.passage as usize);
            text.and_then(|text| text.slice(span.begin, span.end)).unwrap_or_default()
        });
        self.fingerprint(document.article_version, passages, mentions) == older.fingerprint
    }

    fn fingerprint<'m>(
        &self,
        version: i64,
        passages: impl Iterator<Item = (Section, u32)>,
        mentions: impl Iterator<Item = &'m str>,
    ) -> u64 {
        let mut hasher = self.keys.0.build_hasher();
        version.hash(&mut hasher);
        passages.for_each(|passage| passage.hash(&mut hasher));
        mentions.for_each(|text| text.hash(&mut hasher));
        hasher.finish()
    }

    /// What is known of an article that was told of.
    pub fn get(&self, id: &str) -> Option<&Article> {
        self.articles.get(&self.keys.of(id.as_bytes()))
    }

    /// The article is done, or will be.
    pub fn set_done(&mut self, id: &str) {
        self.article(id.as_bytes()).standing = Standing::Done;
    }

    fn article(&mut self, id: &[u8]) -> &mut Article {
        let unknown =
            Article { newest: NONE, older: None, partition: NONE as i32, version: 0, standing: Standing::Unannotated };
        self.articles.entry(self.keys.of(id)).or_insert(unknown)
    }

    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for article in self.articles.values() {
            match article.standing {
                Standing::Unannotated | Standing::Deleted => {}
                Standing::Done => counts.up_to_date += 1,
                Standing::Ahead => counts.overtaken += 1,
                Standing::Unreadable => counts.unreadable += 1,
                Standing::Outdated | Standing::Superseded if article.newest == NONE => counts.expired += 1,
                Standing::Outdated | Standing::Superseded => {
                    *counts.due.entry(article.version).or_default() += 1;
                }
            }
        }
        counts
    }

    /// The newest events of all articles that are to be done, by partition, ascending.
    pub fn due(&self) -> BTreeMap<i32, Vec<Due>> {
        let mut due: BTreeMap<i32, Vec<Due>> = BTreeMap::new();
        for article in self.articles.values().filter(|article| article.newest != NONE) {
            if matches!(article.standing, Standing::Outdated | Standing::Superseded) {
                let Article { newest: offset, older, version, .. } = *article;
                due.entry(article.partition).or_default().push(Due { offset, older, version });
            }
        }
        due.values_mut().for_each(|partition| partition.sort_unstable_by_key(|due| due.offset));
        due
    }

    /// Gives the memory of the table back.
    pub fn forget_articles(&mut self) {
        self.articles = HashMap::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::article::Passage;
    use crate::bus::codec::Record as _;
    use crate::bus::records::SourceRecord;
    use crate::tagger::{Mention, TaggedDocument};

    fn document(id: &str, text: &str) -> Document {
        let passages = vec![Passage::new(Section::Title, text)];
        Document { article_id: id.to_owned(), article_version: 1, passages }
    }

    /// Annotations of the event at `offset` of partition 0 by a version, with a gene at the first five characters.
    fn annotated(id: &str, text: &str, version: &str, offset: i64) -> Vec<u8> {
        let document = document(id, text);
        let mention = Mention {
            id: String::new(),
            entity_type: "Gene".into(),
            text: text.chars().take(5).collect(),
            passage: 0,
            begin: 0,
            end: 5,
            document_begin: 0,
            document_end: 5,
            sentence: 0,
            score: 0.5,
        };
        let model = ModelRef { name: "m".into(), version: version.into(), digest: format!("sha256:{version}") };
        let tagged = TaggedDocument {
            document,
            sentences: vec![vec![]],
            mentions: vec![mention],
            model,
            tokens: 1,
            compute_seconds: 0.0,
        };
        let source = SourceRecord { topic: topics::ARTICLES.into(), partition: 0, offset };
        Annotations::new(&tagged, &source).encode().unwrap()
    }

    /// A survey for version 2 after these events, which stand at the offsets of their places in the list.
    fn survey(events: &[&str]) -> Survey {
        let mut survey = Survey::new("sha256:2").unwrap();
        for (offset, id) in events.iter().enumerate() {
            survey.event(id.as_bytes(), 0, offset as i64);
        }
        survey.end_of_events(BTreeMap::from([(0, events.len() as i64)]));
        survey
    }

    fn tell(survey: &mut Survey, id: &str, version: &str, offset: i64) {
        let value = Annotations::decode(&annotated(id, "BRCA1 here", version, offset));
        survey.annotations(id.as_bytes(), Some(value)).unwrap();
    }

    fn offsets_due(survey: &Survey) -> Vec<i64> {
        survey.due().values().flatten().map(|due| due.offset).collect()
    }

    #[test]
    fn the_newest_event_of_what_another_version_annotated_is_due() {
        let mut survey = survey(&["a", "b", "a", "c", "d", "e"]);
        tell(&mut survey, "a", "1", 0);
        tell(&mut survey, "a", "1", 2);
        tell(&mut survey, "b", "1", 1);
        tell(&mut survey, "b", "2", 1);
        tell(&mut survey, "c", "1", 3);
        survey.annotations(b"c", None).unwrap();
        tell(&mut survey, "d", "2", 4);
        tell(&mut survey, "d", "1", 4);
        // "e" has no annotations: it is the worker's.
        assert_eq!(offsets_due(&survey), [2, 4]);
        let counts = survey.counts();
        assert_eq!((counts.due, counts.up_to_date), (BTreeMap::from([(0, 2)]), 1));
    }

    #[test]
    fn annotations_of_an_older_event_are_put_right_whoever_made_them() {
        for version in ["1", "2"] {
            let mut survey = survey(&["a", "b", "a"]);
            tell(&mut survey, "a", "1", 2);
            tell(&mut survey, "a", version, 0);
            let due = survey.due().remove(&0).unwrap();
            assert_eq!((due.len(), due[0].offset), (1, 2));
            assert_eq!(due[0].older, None, "mentions in two texts are not compared");
        }
    }

    #[test]
    fn what_came_after_the_survey_had_begun_is_left_to_the_worker() {
        let mut survey = survey(&["a", "b"]);
        tell(&mut survey, "a", "1", 2);
        tell(&mut survey, "b", "2", 3);
        tell(&mut survey, "new", "1", 4);
        assert!(offsets_due(&survey).is_empty());
        assert_eq!(survey.counts(), Counts { up_to_date: 1, overtaken: 2, ..Counts::default() });
    }

    #[test]
    fn what_the_topic_has_lost_is_counted_and_can_come_from_a_file() {
        let mut survey = survey(&["z"]);
        survey.end_of_events(BTreeMap::from([(0, 100)]));
        tell(&mut survey, "a", "1", 7);
        tell(&mut survey, "b", "2", 8);
        survey.annotations(b"c", Some(Annotations::decode(b"nonsense"))).unwrap();
        assert_eq!(survey.counts(), Counts { up_to_date: 1, expired: 1, unreadable: 1, ..Counts::default() });
        assert!(offsets_due(&survey).is_empty());

        let article = *survey.get("a").unwrap();
        assert_eq!(article.standing, Standing::Outdated);
        let older = survey.spool.get(article.older.unwrap()).unwrap();
        assert_eq!((older.partition, older.offset, older.spans.len()), (0, 7, 1));
        assert!(survey.is_text_of(&document("a", "BRCA1 here"), &older));
        assert!(!survey.is_text_of(&document("a", "BRCA2 here"), &older), "another text in the mention");
        assert!(!survey.is_text_of(&document("a", "BRCA1 here."), &older), "another length");
        let newer = Document { article_version: 2, ..document("a", "BRCA1 here") };
        assert!(!survey.is_text_of(&newer, &older), "another version");
        survey.set_done("a");
        assert_eq!(survey.get("a").unwrap().standing, Standing::Done);
    }

    /// What `docs/backfill.md` says about memory.
    #[test]
    fn an_article_takes_what_the_documentation_says() {
        assert_eq!(ARTICLE_BYTES, 48);
        let said = format!("{ARTICLE_BYTES} bytes");
        assert!(include_str!("../../docs/backfill.md").contains(&said), "docs/backfill.md does not say {said}");
    }
}
