//! One document on its way through the engine: split into segments, decoded piece by piece, put together.
//!
//! Nobody owns a document while it is worked on. Its segments share a [`Work`]; whoever decodes the last
//! of them puts the document together and answers the caller. What remains of a document that was given
//! up (its future dropped) or that failed is skipped as soon as somebody meets it.

use super::clock::Clock;
use super::encode::{EncodedSentence, Window, segments};
use super::engine::LoadedModel;
use super::{Error, Mention, TaggedDocument, lock};
use crate::article::Document;
use crate::text::{CodePoints, sentences};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// What the segments of one document have in common.
pub(super) struct Work {
    /// The one model that the whole document is tagged by.
    pub model: Arc<LoadedModel>,
    /// Segments that are not decoded yet, and one more until the document is split.
    open: AtomicUsize,
    found: Mutex<Found>,
    reply: Mutex<Option<Reply>>,
    max_mentions: usize,
}

struct Reply {
    sender: oneshot::Sender<Result<TaggedDocument, Error>>,
    /// The document's part of the byte budget, given back with the answer.
    _permit: OwnedSemaphorePermit,
}

#[derive(Default)]
struct Found {
    /// Set once the document is split.
    split: Option<Split>,
    spans: Vec<FoundSpan>,
    tokens: u64,
    compute_seconds: f64,
}

struct Split {
    document: Document,
    /// As in [`TaggedDocument::sentences`].
    sentences: Vec<Vec<(u32, u32)>>,
}

/// A mention before it is verified; code points into its passage.
#[derive(Debug, Clone, Copy, PartialEq)]
struct FoundSpan {
    passage: u32,
    begin: u32,
    end: u32,
    sentence: u32,
    entity_type: u32,
    score: f32,
}

/// A sentence, or a part of a very long one, between tokenisation and decoding.
pub(super) struct Segment {
    pub work: Arc<Work>,
    pub encoded: EncodedSentence,
    passage: u32,
    sentence: u32,
    /// Mentions that begin here belong to this segment; code points into the passage.
    core: Range<u32>,
    /// `[words, K]`, filled window by window.
    emissions: Mutex<Vec<f32>>,
    windows_left: AtomicUsize,
}

/// A window that waits for the encoder.
pub(super) struct QueuedWindow {
    pub segment: Arc<Segment>,
    pub window: Window,
}

impl Work {
    pub fn new(
        model: Arc<LoadedModel>,
        permit: OwnedSemaphorePermit,
        sender: oneshot::Sender<Result<TaggedDocument, Error>>,
        max_mentions: usize,
    ) -> Arc<Self> {
        let reply = Mutex::new(Some(Reply { sender, _permit: permit }));
        Arc::new(Self { model, open: AtomicUsize::new(1), found: Mutex::default(), reply, max_mentions })
    }

    /// Splits and tokenises the document and hands each segment's windows to `queue`, until it says `false`.
    /// A document without a word is answered at once.
    pub fn split(
        self: &Arc<Self>,
        document: Document,
        mut queue: impl FnMut(Vec<QueuedWindow>) -> bool,
    ) -> Result<(), Error> {
        let clock = Clock::of_thread();
        let mut bounds = Vec::with_capacity(document.passages.len());
        for (passage, text) in document.passages.iter().map(|passage| passage.text.as_str()).enumerate() {
            let code_points = CodePoints::new(text);
            let found = sentences(text);
            metrics::counter!("litflow_tagger_sentences_total").increment(found.len() as u64);
            bounds.push(found.iter().map(|sentence| code_points.span(sentence)).collect());
            for (sentence, bytes) in found.into_iter().enumerate() {
                for part in segments(&text[bytes.clone()]) {
                    if self.is_over() {
                        return Ok(());
                    }
                    let in_passage = |range: &Range<usize>| bytes.start + range.start..bytes.start + range.end;
                    let (text_bytes, core) = (in_passage(&part.text), code_points.span(&in_passage(&part.core)));
                    let offset = code_points.code_point(text_bytes.start);
                    let tokenised = self.model.tokenizer.encode(&text[text_bytes], offset);
                    let encoded = tokenised.map_err(|error| Error::Document(error.to_string()))?;
                    let windows = self.open_segment(encoded, passage as u32, sentence as u32, core.0..core.1);
                    if !windows.is_empty() && !queue(windows) {
                        return Ok(());
                    }
                }
            }
        }
        let mut found = lock(&self.found);
        found.split = Some(Split { document, sentences: bounds });
        found.compute_seconds += clock.seconds();
        drop(found);
        self.close_one();
        Ok(())
    }

    fn open_segment(
        self: &Arc<Self>,
        encoded: EncodedSentence,
        passage: u32,
        sentence: u32,
        core: Range<u32>,
    ) -> Vec<QueuedWindow> {
        let windows = self.model.tokenizer.windows(&encoded);
        if windows.is_empty() {
            return Vec::new();
        }
        self.open.fetch_add(1, Ordering::Relaxed);
        let segment = Arc::new(Segment {
            work: self.clone(),
            emissions: Mutex::new(vec![0.0; encoded.words.len() * self.model.decoder.labels()]),
            encoded,
            passage,
            sentence,
            core,
            windows_left: AtomicUsize::new(windows.len()),
        });
        windows.into_iter().map(|window| QueuedWindow { segment: segment.clone(), window }).collect()
    }

    /// Whether there is nobody left to answer: the document failed, or its caller has gone.
    pub fn is_over(&self) -> bool {
        lock(&self.reply).as_ref().is_none_or(|reply| reply.sender.is_closed())
    }

    /// Answers with an error; what is left of the document will be skipped.
    pub fn fail(&self, error: Error) {
        self.answer(Err(error));
    }

    fn answer(&self, result: Result<TaggedDocument, Error>) {
        if let Some(reply) = lock(&self.reply).take() {
            let outcome = if result.is_ok() { "tagged" } else { "failed" };
            metrics::counter!("litflow_tagger_documents_total", "outcome" => outcome).increment(1);
            // A caller that has gone wants no answer.
            let _ = reply.sender.send(result);
        }
    }

    /// A segment is decoded, or the document split. After the last of these it is answered.
    fn close_one(&self) {
        // Release what this thread found, acquire what the others did.
        if self.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            let found = std::mem::take(&mut *lock(&self.found));
            self.answer(found.put_together(&self.model));
        }
    }

    fn add(&self, tokens: usize, compute_seconds: f64, spans: impl Iterator<Item = FoundSpan>) {
        let mut found = lock(&self.found);
        found.tokens += tokens as u64;
        found.compute_seconds += compute_seconds;
        found.spans.extend(spans);
        let count = found.spans.len();
        drop(found);
        if count > self.max_mentions {
            let most = self.max_mentions;
            self.fail(Error::Document(format!(
                "more than {most} mentions: raise `tagger.max_mentions` to let it pass"
            )));
        }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if lock(&self.reply).is_some() {
            metrics::counter!("litflow_tagger_documents_total", "outcome" => "abandoned").increment(1);
        }
    }
}

impl QueuedWindow {
    /// Pieces in the window, special tokens not counted.
    pub fn pieces(&self) -> usize {
        self.window.pieces.len()
    }

    /// The encoder's input, special tokens included.
    pub fn input(&self) -> impl Iterator<Item = u32> + '_ {
        self.segment.work.model.tokenizer.input(&self.segment.encoded.ids[self.window.pieces.clone()])
    }

    /// Rows of the encoder's input.
    pub fn rows(&self) -> usize {
        self.pieces() + self.segment.work.model.tokenizer.special_len()
    }

    /// Takes the window's emissions, `[rows, K]`, and what they cost. The last window of a segment decodes it.
    pub fn deliver(self, emissions: &[f32], compute_seconds: f64) {
        let Self { segment, window } = self;
        if segment.work.is_over() {
            return;
        }
        segment.read(&window, emissions);
        segment.work.add(window.pieces.len(), compute_seconds, std::iter::empty());
        if segment.windows_left.fetch_sub(1, Ordering::AcqRel) == 1 {
            segment.decode();
            segment.work.close_one();
        }
    }
}

impl Segment {
    /// Copies the emissions of the window's own words.
    fn read(&self, window: &Window, emissions: &[f32]) {
        let labels = self.work.model.decoder.labels();
        let prefix = self.work.model.tokenizer.prefix_len();
        let mut buffer = lock(&self.emissions);
        for word in window.words.clone() {
            let row = prefix + self.encoded.words[word].first_piece as usize - window.pieces.start;
            buffer[word * labels..][..labels].copy_from_slice(&emissions[row * labels..][..labels]);
        }
    }

    fn decode(&self) {
        let clock = Clock::of_thread();
        let emissions = std::mem::take(&mut *lock(&self.emissions));
        let spans = self.work.model.decoder.decode(&emissions);
        let words = &self.encoded.words;
        let found = spans.into_iter().map(|span| FoundSpan {
            passage: self.passage,
            sentence: self.sentence,
            begin: words[span.words.start].begin,
            end: words[span.words.end - 1].end,
            entity_type: span.entity_type as u32,
            score: span.score,
        });
        self.work.add(0, clock.seconds(), found.filter(|span| self.core.contains(&span.begin)));
    }
}

impl Found {
    fn put_together(mut self, model: &LoadedModel) -> Result<TaggedDocument, Error> {
        let Some(Split { document, sentences }) = self.split else {
            return Err(Error::Document("put together before it was split".into()));
        };
        self.spans.sort_by_key(|span| (span.passage, span.begin, span.end));
        // Only where two segments of one sentence disagree can mentions overlap: the first one stays.
        self.spans.dedup_by(|next, kept| next.passage == kept.passage && next.begin < kept.end);
        let mut mentions = Vec::with_capacity(self.spans.len());
        let mut document_offset = 0u32;
        let mut spans = self.spans.into_iter().peekable();
        for (index, passage) in document.passages.iter().enumerate() {
            let code_points = CodePoints::new(&passage.text);
            while let Some(span) = spans.next_if(|span| span.passage as usize == index) {
                let Some(span) = trimmed(span, &code_points)? else { continue };
                mentions.push(mention(span, &document, &code_points, document_offset, model)?);
            }
            document_offset += code_points.len() + 1;
        }
        verify(&document, &sentences, &mentions)?;
        let model = (*model.reference).clone();
        let Self { tokens, compute_seconds, .. } = self;
        Ok(TaggedDocument { document, sentences, mentions, model, tokens, compute_seconds })
    }
}

/// The span without white space at its ends; `None` where nothing is left.
fn trimmed(mut span: FoundSpan, code_points: &CodePoints) -> Result<Option<FoundSpan>, Error> {
    let text = code_points.slice(span.begin, span.end);
    let text = text.ok_or_else(|| Error::Document(format!("internal: {span:?} is out of bounds")))?;
    let leading = text.len() - text.trim_start().len();
    span.begin += text[..leading].chars().count() as u32;
    span.end = span.begin + text.trim().chars().count() as u32;
    Ok((span.begin < span.end).then_some(span))
}

fn mention(
    span: FoundSpan,
    document: &Document,
    code_points: &CodePoints,
    document_offset: u32,
    model: &LoadedModel,
) -> Result<Mention, Error> {
    let FoundSpan { passage, begin, end, sentence, score, .. } = span;
    let text = code_points.slice(begin, end);
    let text = text.ok_or_else(|| Error::Document(format!("internal: {span:?} is out of bounds")))?;
    let entity_type = &model.entity_types[span.entity_type as usize];
    Ok(Mention {
        id: Mention::id_of(document, passage, begin, end, entity_type),
        entity_type: entity_type.clone(),
        text: text.to_owned(),
        passage,
        begin,
        end,
        document_begin: document_offset + begin,
        document_end: document_offset + end,
        sentence,
        score,
    })
}

/// The promise of every published mention, checked by other means than it was made by: the text is counted
/// off character by character.
fn verify(document: &Document, sentences: &[Vec<(u32, u32)>], mentions: &[Mention]) -> Result<(), Error> {
    let violated = |mention: &Mention, what: &str| {
        let Mention { id, passage, begin, end, .. } = mention;
        Err(Error::Document(format!("internal: mention {id} at {passage}:{begin}..{end} {what}")))
    };
    let mut mentions = mentions.iter().peekable();
    let mut document_offset = 0;
    for (index, (passage, sentences)) in document.passages.iter().zip(sentences).enumerate() {
        let (mut rest, mut at) = (passage.text.as_str(), 0);
        while let Some(mention) = mentions.next_if(|mention| mention.passage as usize == index) {
            if mention.begin < at || mention.end <= mention.begin {
                return violated(mention, "is empty or overlaps the one before it");
            }
            let from_begin = split_off(rest, mention.begin - at).map(|(_, from_begin)| from_begin);
            let Some((text, after)) = from_begin.and_then(|text| split_off(text, mention.end - mention.begin)) else {
                return violated(mention, "is out of bounds");
            };
            (rest, at) = (after, mention.end);
            if text != mention.text {
                return violated(mention, "has another text than the passage");
            }
            let sentence = sentences.get(mention.sentence as usize);
            if !sentence.is_some_and(|&(begin, end)| begin <= mention.begin && mention.end <= end) {
                return violated(mention, "leaves its sentence");
            }
            if mention.document_begin != document_offset + mention.begin {
                return violated(mention, "has another offset in the document than in its passage");
            }
        }
        document_offset += passage.text.chars().count() as u32 + 1;
    }
    match mentions.next() {
        Some(mention) => violated(mention, "is in no passage, or not in order"),
        None => Ok(()),
    }
}

/// The first `count` characters of a text and the rest; `None` where there are fewer.
fn split_off(text: &str, count: u32) -> Option<(&str, &str)> {
    let mut bounds = text.char_indices().map(|(byte, _)| byte).chain([text.len()]);
    bounds.nth(count as usize).map(|byte| text.split_at(byte))
}
