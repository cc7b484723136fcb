//! One consumed record to the records that it becomes: no Kafka here, only a message in and bytes out.

use super::claim;
use super::dead_letter::{Refusal, Stage};
use super::order::Turn;
use super::outputs::Outputs;
use crate::ErrorClass;
use crate::article::{self, ArticleEvent, Document, Op, parse_raw};
use crate::bus::codec;
use crate::bus::producer::Outgoing;
use crate::bus::records::{Annotations, EntityMention, SourceRecord};
use crate::bus::{schema_registry, topics};
use crate::claims::Claims;
use crate::tagger::{self, Tag, TaggedDocument};
use rdkafka::message::{Message as _, OwnedMessage};
use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

/// The sizes beyond which an article is refused.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// Bytes of one article event.
    pub article: usize,
    /// Bytes of everything that one article becomes.
    pub output: usize,
    /// The largest record that each output topic takes.
    pub outputs: Arc<Outputs>,
    /// Those of raw documents.
    pub raw: article::Options,
    /// Where documents may be fetched from, and how many at a time.
    pub claims: Arc<Claims>,
}

/// What one article becomes.
#[derive(Debug, Default)]
pub(crate) struct Output {
    pub records: Vec<Outgoing>,
    pub counts: Counts,
}

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub tagged: u64,
    pub tombstones: u64,
    pub sentences: u64,
    pub tokens: u64,
    pub mentions: BTreeMap<String, u64>,
}

impl Counts {
    pub fn add(&mut self, other: &Self) {
        self.tagged += other.tagged;
        self.tombstones += other.tombstones;
        self.sentences += other.sentences;
        self.tokens += other.tokens;
        for (entity_type, count) in &other.mentions {
            *self.mentions.entry(entity_type.clone()).or_default() += count;
        }
    }
}

/// Why there is no output.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The article goes to the dead letters.
    Refused(Refusal),
    /// No article can be tagged any more.
    Stopped(tagger::Error),
    /// The schema registry refuses what it must be asked for.
    SchemaRegistry(schema_registry::Error),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<schema_registry::Error> for Failure {
    fn from(error: schema_registry::Error) -> Self {
        Self::SchemaRegistry(error)
    }
}

/// Decodes, parses, tags and encodes one record.
pub(crate) async fn process(message: &OwnedMessage, tagger: &dyn Tag, limits: &Limits) -> Result<Output, Failure> {
    tag(prepare(message, limits).await?, message, tagger, limits).await
}

/// The same, tagged in its turn. An article that has to wait for its schema gives the turn up: others need not wait.
pub(super) async fn process_in_turn(
    turn: Turn,
    message: &OwnedMessage,
    tagger: &dyn Tag,
    limits: &Limits,
) -> Result<Output, Failure> {
    let mut preparing = pin!(prepare(message, limits));
    match futures::poll!(&mut preparing) {
        Poll::Ready(prepared) => turn.begin(async { tag(prepared?, message, tagger, limits).await }).await,
        Poll::Pending => {
            drop(turn);
            tag(preparing.await?, message, tagger, limits).await
        }
    }
}

/// What is to be done with a record.
enum Prepared {
    Tag(Document),
    Delete,
    /// The document is to be fetched first. That is left to [`tag`], whose turn comes in order: what is fetched takes
    /// room, and no article may wait for the room of one that waits for its turn.
    Fetch(Box<ArticleEvent>),
}

/// Decodes and parses one record.
async fn prepare(message: &OwnedMessage, limits: &Limits) -> Result<Prepared, Failure> {
    let key = key(message)?;
    let Some(event) = decode(key, message, limits).await? else { return Ok(Prepared::Delete) };
    if event.op == Op::Delete || event.retracted {
        return Ok(Prepared::Delete);
    }
    if claim::of(&event).is_some() {
        return Ok(Prepared::Fetch(Box::new(event)));
    }
    Ok(parse(event, limits)?)
}

fn parse(event: ArticleEvent, limits: &Limits) -> Result<Prepared, Refusal> {
    let event = parse_raw(event, &limits.raw).map_err(|e| Refusal::new(Stage::Parse, "unreadable_document", e))?;
    Ok(if event.retracted { Prepared::Delete } else { Prepared::Tag(event.into_document()) })
}

/// Tags what was prepared of a record, and encodes it.
async fn tag(prepared: Prepared, message: &OwnedMessage, tagger: &dyn Tag, limits: &Limits) -> Result<Output, Failure> {
    let (prepared, _room) = match prepared {
        Prepared::Fetch(event) => {
            let (event, room) = claim::redeem(*event, &limits.claims).await?;
            (parse(event, limits)?, room)
        }
        prepared => (prepared, None),
    };
    let Prepared::Tag(document) = prepared else { return Ok(tombstone(key(message)?)) };
    let tagged = tagger.tag(document).await.map_err(|error| match error.class() {
        ErrorClass::Poison => Refusal::new(Stage::Tag, "untaggable", error).into(),
        _ => Failure::Stopped(error),
    })?;
    let source =
        SourceRecord { topic: message.topic().to_owned(), partition: message.partition(), offset: message.offset() };
    encode(&tagged, &source, limits).await
}

fn key(message: &OwnedMessage) -> Result<&str, Refusal> {
    std::str::from_utf8(message.key().unwrap_or_default())
        .map_err(|e| Refusal::new(Stage::Decode, "key_mismatch", format!("the key is not UTF-8: {e}")))
}

/// The event; none for a tombstone.
async fn decode(key: &str, message: &OwnedMessage, limits: &Limits) -> Result<Option<ArticleEvent>, Failure> {
    let refused = |reason, error: String| Err(Refusal::new(Stage::Decode, reason, error).into());
    let Some(value) = message.payload() else {
        if key.is_empty() {
            return refused("key_mismatch", "a tombstone without a key deletes nothing".to_owned());
        }
        return Ok(None);
    };
    if value.len() > limits.article {
        let error = format!("{} bytes, more than worker.article_max_bytes = {}", value.len(), limits.article);
        return refused("article_too_large", error);
    }
    let decoded = limits.outputs.wire().decode::<ArticleEvent>(value).await?;
    let event = decoded.map_err(|e| Refusal::new(Stage::Decode, e.reason(), e))?;
    if event.id != key || key.is_empty() {
        // Only a common key keeps the events of an article in order.
        let error = format!("the key is {key:?}, the article's id {:?}", event.id);
        return refused("key_mismatch", error);
    }
    Ok(Some(event))
}

/// The article is gone: its state is deleted. The entity topics are logs and get nothing.
fn tombstone(article_id: &str) -> Output {
    let record = Outgoing { topic: topics::ANNOTATIONS.into(), key: Some(article_id.into()), ..Outgoing::default() };
    Output { records: vec![record], counts: Counts { tombstones: 1, ..Counts::default() } }
}

async fn encode(tagged: &TaggedDocument, source: &SourceRecord, limits: &Limits) -> Result<Output, Failure> {
    let wire = limits.outputs.wire();
    let unencodable = |e: codec::Error| Refusal::new(Stage::Encode, e.reason(), e);
    let key = tagged.document.article_id.as_bytes();
    let mut records = Vec::with_capacity(tagged.mentions.len() + 1);
    let mut total = 0;
    let mut add = |topic: String, value: Vec<u8>| {
        let bytes = value.len() + key.len();
        let limit = limits.outputs.limit(&topic);
        if bytes > limit {
            let error = format!("a record of {bytes} bytes for {topic}, which takes {limit}");
            return Err(Refusal::new(Stage::Encode, "output_too_large", error));
        }
        total += bytes;
        if total > limits.output {
            let error = format!("more than worker.output_max_bytes = {} bytes of output", limits.output);
            return Err(Refusal::new(Stage::Encode, "output_too_large", error));
        }
        records.push(Outgoing { topic, key: Some(key.to_vec()), value: Some(value), ..Outgoing::default() });
        Ok(())
    };
    let annotations = wire.encode(topics::ANNOTATIONS, &Annotations::new(tagged, source)).await?;
    add(topics::ANNOTATIONS.into(), annotations.map_err(unencodable)?)?;
    let mut mentions: BTreeMap<String, u64> = BTreeMap::new();
    for mention in EntityMention::all(tagged, source) {
        let topic =
            topics::entities(&mention.entity_type).map_err(|e| Refusal::new(Stage::Encode, "unencodable", e))?;
        let value = wire.encode(&topic, &mention).await?.map_err(unencodable)?;
        add(topic, value)?;
        *mentions.entry(mention.entity_type).or_default() += 1;
    }
    let sentences = tagged.sentences.iter().map(|sentences| sentences.len() as u64).sum();
    Ok(Output { records, counts: Counts { tagged: 1, tombstones: 0, sentences, tokens: tagged.tokens, mentions } })
}

#[cfg(test)]
mod tests;
