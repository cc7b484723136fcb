//! From what a source says to labels that training can use: what is wrong is quarantined, what the tag scheme
//! cannot express is settled by a policy, and both are counted.
//!
//! The scheme is BIO: each word belongs to at most one mention, and a mention is one stretch of a passage. The
//! text itself is never altered. Where a span is quarantined, its place is left *open*: what it was meant to
//! mark is not known, so its words are neither positive nor negative in training.

use super::corpus::{Scheme, Tally};
use super::quarantine::{Cause, Entry, Quarantine};
use super::{Annotation, SourceDocument};
use litflow::bus::records::{GoldSpan, LabeledDocument, OpenSpan};
use litflow::text::CodePoints;
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;

/// Longer spans, in code points, mark no mention. The limit keeps the labels' size in proportion to the text's.
const LONGEST_MENTION: u32 = 1_000;

/// What becomes of spans that overlap.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// The longest stays, of equally long ones the first; those that overlap it are left out.
    #[default]
    Longest,
    /// None stays, and their words are left open.
    Refuse,
}

/// What becomes of a mention in several fragments with other words between them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Discontinuous {
    /// One span from the first fragment's begin to the last one's end.
    #[default]
    FillGap,
    /// The first fragment alone.
    FirstFragment,
    /// The words between the fragments are dropped from the mention, so each fragment is a span of its own. (To
    /// drop them from the text would alter it.)
    DropGap,
}

/// Words whose labels in some files say nothing, because the annotation guidelines differ.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenWords {
    /// File names without their extension, or annotators.
    pub files: Vec<String>,
    /// Whole words, lower case. Where one stands outside a mention it is left open.
    pub words: Vec<String>,
}

/// The document with every span that is sound, in the text's order. Spans may still overlap: see
/// [`settle_overlaps`]. `None` where the document itself is quarantined.
pub(super) fn check(
    source: SourceDocument,
    looked_for: Vec<String>,
    scheme: &Scheme,
    place: &str,
    tally: &mut Tally,
    quarantine: &mut Quarantine,
) -> Option<LabeledDocument> {
    let entry =
        |cause, reason: String| Entry { cause, place: place.to_owned(), document_id: Some(source.id.clone()), reason };
    if source.passages.iter().all(|passage| passage.text.trim().is_empty()) {
        quarantine.add(entry(Cause::EmptyDocument, "the document has no text".into()));
        return None;
    }
    let text = Text::new(&source);
    let known: BTreeSet<&str> = looked_for.iter().map(String::as_str).collect();
    let mut open = source.open.clone();
    let mut spans = Vec::with_capacity(source.annotations.len());
    for annotation in &source.annotations {
        match text.settle(annotation, scheme, &known, tally) {
            Ok(Settled::Spans(found)) => spans.extend(found),
            Ok(Settled::Open(stretches)) => open.extend(stretches),
            Ok(Settled::Nothing) => {}
            Err((cause, reason)) => {
                quarantine.add(entry(cause, format!("{}: {reason}", Shown(annotation))));
                open.extend(annotation.fragments.iter().cloned());
            }
        }
    }
    open.extend(open_words(&source, &scheme.open));
    let open = text.open(open);
    let mut document = LabeledDocument {
        document_id: source.id,
        passages: source.passages,
        spans,
        entity_types: looked_for,
        annotator: source.annotator.unwrap_or_default(),
        guideline: source.guideline,
        annotated_at: source.annotated_at,
        open,
    };
    join_repeated(&mut document, tally);
    Some(document)
}

/// The annotation as a person finds it again.
struct Shown<'a>(&'a Annotation);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LONGEST: usize = 60;
        let Annotation { entity_type, fragments, text, .. } = self.0;
        let stretch = |range: &Range<u32>| format!("{}-{}", range.start, range.end);
        let places: Vec<String> = fragments.iter().take(4).map(stretch).collect();
        write!(f, "{} {}", entity_type.chars().take(LONGEST).collect::<String>(), places.join(";"))?;
        match text {
            Some(text) => write!(f, " {:?}", text.chars().take(LONGEST).collect::<String>()),
            None => Ok(()),
        }
    }
}

type Refusal = (Cause, String);

/// What an annotation comes to.
enum Settled {
    Spans(Vec<GoldSpan>),
    /// Its type says nothing, so its words are left open.
    Open(Vec<Range<u32>>),
    /// Its type is not learned.
    Nothing,
}

/// A document's text by its source's offsets.
struct Text<'a> {
    source: &'a SourceDocument,
    passages: Vec<CodePoints<'a>>,
}

impl<'a> Text<'a> {
    fn new(source: &'a SourceDocument) -> Self {
        Self { source, passages: source.passages.iter().map(|passage| CodePoints::new(&passage.text)).collect() }
    }

    /// The passage that holds a stretch, and where in it.
    fn locate(&self, stretch: &Range<u32>) -> Result<(usize, Range<u32>), Refusal> {
        let outside = |why: &str| Err((Cause::OutsideText, why.to_owned()));
        if stretch.is_empty() {
            return outside("an empty span");
        }
        let Some(passage) = self.source.offsets.partition_point(|&offset| offset <= stretch.start).checked_sub(1)
        else {
            return outside("begins before the text");
        };
        let offset = self.source.offsets[passage];
        let (begin, end, length) = (stretch.start - offset, stretch.end - offset, self.passages[passage].len());
        if begin < length && end <= length {
            return Ok((passage, begin..end));
        }
        let last = self.passages.len() - 1;
        let document_end = u64::from(self.source.offsets[last]) + u64::from(self.passages[last].len());
        if u64::from(stretch.end) > document_end {
            return outside(&format!("the text ends at {document_end}"));
        }
        if begin >= length && self.source.offsets.get(passage + 1).is_none_or(|&next| stretch.end <= next) {
            return outside("lies between two passages");
        }
        Err((Cause::AcrossPassages, "runs over more than one passage".to_owned()))
    }

    fn words(&self, stretch: &Range<u32>) -> Result<&'a str, Refusal> {
        let (passage, within) = self.locate(stretch)?;
        Ok(self.passages[passage].slice(within.start, within.end).expect("the stretch was found to lie in the passage"))
    }

    /// An annotation as the policies have it; `known` are the types that were looked for.
    fn settle(
        &self,
        annotation: &Annotation,
        scheme: &Scheme,
        known: &BTreeSet<&str>,
        tally: &mut Tally,
    ) -> Result<Settled, Refusal> {
        let fragments = self.check(annotation)?;
        if annotation.entity_type.trim().is_empty() {
            return Err((Cause::UnknownType, "has no type".into()));
        }
        let entity_type = scheme.renamed(&annotation.entity_type);
        if entity_type.is_empty() {
            return Ok(Settled::Open(fragments));
        }
        if !scheme.is_learned(entity_type) {
            return Ok(Settled::Nothing);
        }
        if !known.contains(entity_type) {
            return Err((Cause::UnknownType, format!("{entity_type:?} is no type that was looked for")));
        }
        let fragments = self.contiguous(fragments);
        tally.discontinuous += u64::from(fragments.len() > 1);
        let stretches = match scheme.discontinuous {
            Discontinuous::FillGap => vec![fragments[0].start..fragments[fragments.len() - 1].end],
            Discontinuous::FirstFragment => vec![fragments[0].clone()],
            Discontinuous::DropGap => fragments,
        };
        let span = |stretch| self.span(stretch, entity_type, &annotation.identifiers);
        stretches.into_iter().map(span).collect::<Result<_, _>>().map(Settled::Spans)
    }

    /// An annotation's fragments, if they lie in the text and select the words that it quotes.
    fn check(&self, annotation: &Annotation) -> Result<Vec<Range<u32>>, Refusal> {
        if annotation.fragments.is_empty() {
            return Err((Cause::OutsideText, "has no place in any passage".into()));
        }
        let length = annotation.fragments.iter().map(|fragment| u64::from(fragment.end.saturating_sub(fragment.start)));
        if length.sum::<u64>() > LONGEST_MENTION.into() {
            return Err((Cause::TooLong, format!("longer than {LONGEST_MENTION} characters, which is no mention")));
        }
        let words = annotation.fragments.iter().map(|fragment| self.words(fragment)).collect::<Result<Vec<_>, _>>()?;
        if let Some(quoted) = &annotation.text {
            // Formats of lines write a space for a line break.
            let spaced = |c: char| if c.is_whitespace() { ' ' } else { c };
            let selected = words.join(&annotation.joint);
            if !selected.chars().map(spaced).eq(quoted.chars().map(spaced)) {
                let selected: String = selected.chars().take(60).collect();
                return Err((Cause::TextDiffers, format!("the text there is {selected:?}")));
            }
        }
        Ok(annotation.fragments.clone())
    }

    /// The fragments in order, joined where there is nothing but white space between them.
    fn contiguous(&self, mut fragments: Vec<Range<u32>>) -> Vec<Range<u32>> {
        fragments.sort_by_key(|fragment| (fragment.start, fragment.end));
        let mut joined: Vec<Range<u32>> = Vec::with_capacity(fragments.len());
        for fragment in fragments {
            match joined.last_mut() {
                Some(last)
                    if fragment.start <= last.end
                        || self.words(&(last.end..fragment.start)).is_ok_and(|gap| gap.trim().is_empty()) =>
                {
                    last.end = last.end.max(fragment.end);
                }
                _ => joined.push(fragment),
            }
        }
        joined
    }

    fn span(&self, stretch: Range<u32>, entity_type: &str, identifiers: &[String]) -> Result<GoldSpan, Refusal> {
        let (passage, within) = self.locate(&stretch)?;
        if within.end - within.start > LONGEST_MENTION {
            let reason = format!("longer than {LONGEST_MENTION} characters with the gap between its fragments");
            return Err((Cause::TooLong, reason));
        }
        Ok(GoldSpan {
            entity_type: entity_type.to_owned(),
            passage: passage as u32,
            begin: within.start,
            end: within.end,
            text: self.words(&stretch)?.to_owned(),
            identifiers: identifiers.to_vec(),
        })
    }

    /// Stretches of the document by passage, disjoint; what lies outside the text is cut off.
    fn open(&self, mut stretches: Vec<Range<u32>>) -> Vec<OpenSpan> {
        stretches.retain(|stretch| !stretch.is_empty());
        stretches.sort_by_key(|stretch| stretch.start);
        stretches.dedup_by(|next, last| {
            let touches = next.start <= last.end;
            if touches {
                last.end = last.end.max(next.end);
            }
            touches
        });
        let mut open = Vec::new();
        for (passage, (&offset, points)) in self.source.offsets.iter().zip(&self.passages).enumerate() {
            let end = offset.saturating_add(points.len());
            let first = stretches.partition_point(|stretch| stretch.end <= offset);
            for stretch in stretches[first..].iter().take_while(|stretch| stretch.start < end) {
                let (begin, end) = (stretch.start.max(offset) - offset, stretch.end.min(end) - offset);
                open.push(OpenSpan { passage: passage as u32, begin, end });
            }
        }
        open
    }
}

/// Where the words stand that are to be left open in documents of this annotator.
fn open_words(source: &SourceDocument, open: &[OpenWords]) -> Vec<Range<u32>> {
    let of_annotator = |open: &&OpenWords| source.annotator.as_ref().is_some_and(|name| open.files.contains(name));
    let words: BTreeSet<&str> =
        open.iter().filter(of_annotator).flat_map(|open| open.words.iter().map(String::as_str)).collect();
    let mut found = Vec::new();
    if words.is_empty() {
        return found;
    }
    for (passage, &offset) in source.passages.iter().zip(&source.offsets) {
        let (mut word, mut begin) = (String::new(), offset);
        for (at, c) in (offset..).zip(passage.text.chars().chain([' '])) {
            if c.is_alphanumeric() {
                word.extend(c.to_lowercase());
                continue;
            }
            if words.contains(word.as_str()) {
                found.push(begin..at);
            }
            word.clear();
            begin = at.saturating_add(1);
        }
    }
    found
}

/// Orders the spans, and makes one of those that say the same twice.
fn join_repeated(document: &mut LabeledDocument, tally: &mut Tally) {
    document.spans.sort_by_key(|span| (span.passage, span.begin, span.end));
    let mut joined: Vec<GoldSpan> = Vec::with_capacity(document.spans.len());
    for span in std::mem::take(&mut document.spans) {
        let same_place =
            |other: &GoldSpan| (other.passage, other.begin, other.end) == (span.passage, span.begin, span.end);
        let twin = joined.iter_mut().rev().take_while(|other| same_place(other));
        match twin.into_iter().find(|other| other.entity_type == span.entity_type) {
            Some(twin) => {
                tally.repeated_spans += 1;
                let new = span.identifiers.into_iter().filter(|id| !twin.identifiers.contains(id));
                let new: Vec<String> = new.collect();
                twin.identifiers.extend(new);
            }
            None => joined.push(span),
        }
    }
    document.spans = joined;
}

/// Adds a copy of a document: spans of the types that the first copy did not look for. Of the others the first
/// copy has the say; where the two differ, that is quarantined.
pub(super) fn merge(first: &mut LabeledDocument, copy: LabeledDocument, place: &str, quarantine: &mut Quarantine) {
    let mut refuse = |cause, reason| {
        let document_id = Some(copy.document_id.clone());
        quarantine.add(Entry { cause, place: place.to_owned(), document_id, reason });
    };
    let texts =
        |document: &LabeledDocument| document.passages.iter().map(|passage| passage.text.clone()).collect::<Vec<_>>();
    if texts(first) != texts(&copy) {
        let by = Named(&first.annotator);
        refuse(Cause::DifferingText, format!("its text is not that of the copy of {by}; give them different ids"));
        return;
    }
    let is_new = |name: &String| !first.entity_types.contains(name);
    let (new, shared): (Vec<String>, Vec<String>) = copy.entity_types.iter().cloned().partition(is_new);
    for name in &shared {
        let places = |document: &LabeledDocument| -> BTreeSet<(u32, u32, u32)> {
            let of_type = document.spans.iter().filter(|span| span.entity_type == *name);
            of_type.map(|span| (span.passage, span.begin, span.end)).collect()
        };
        let (ours, theirs) = (places(first), places(&copy));
        if ours != theirs {
            let (by, differing) = (Named(&first.annotator), ours.symmetric_difference(&theirs).count());
            refuse(Cause::Conflict, format!("{name}: {differing} spans differ from those of {by}, which stay"));
        }
    }
    if new.is_empty() {
        return;
    }
    first.spans.extend(copy.spans.into_iter().filter(|span| new.contains(&span.entity_type)));
    first.open.extend(copy.open);
    first.entity_types.extend(new);
    if !first.annotator.split('+').any(|name| name == copy.annotator) {
        first.annotator = format!("{}+{}", first.annotator, copy.annotator);
    }
    first.annotated_at = first.annotated_at.max(copy.annotated_at);
}

/// An annotator in a message.
struct Named<'a>(&'a str);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { f.write_str("another annotator") } else { f.write_str(self.0) }
    }
}

/// Makes the spans disjoint as the policy has it, and orders them. What is left out is quarantined.
pub(super) fn settle_overlaps(
    document: &mut LabeledDocument,
    policy: Overlap,
    place: &str,
    tally: &mut Tally,
    quarantine: &mut Quarantine,
) {
    join_repeated(document, tally);
    let spans = std::mem::take(&mut document.spans);
    let (kept, dropped) = match policy {
        Overlap::Longest => longest_disjoint(spans),
        Overlap::Refuse => without_overlapping(spans),
    };
    for (span, reason) in dropped {
        if policy == Overlap::Refuse {
            document.open.push(OpenSpan { passage: span.passage, begin: span.begin, end: span.end });
        }
        let reason = format!("{} {reason}", shown(&span));
        let document_id = Some(document.document_id.clone());
        quarantine.add(Entry { cause: Cause::Overlap, place: place.to_owned(), document_id, reason });
    }
    document.spans = kept;
    document.spans.sort_by_key(|span| (span.passage, span.begin));
    join_open(&mut document.open);
}

/// Makes stretches disjoint and orders them.
fn join_open(open: &mut Vec<OpenSpan>) {
    open.sort_by_key(|open| (open.passage, open.begin));
    open.dedup_by(|next, last| {
        let touches = next.passage == last.passage && next.begin <= last.end;
        if touches {
            last.end = last.end.max(next.end);
        }
        touches
    });
}

fn shown(span: &GoldSpan) -> String {
    let text: String = span.text.chars().take(60).collect();
    format!("{} {}-{} of passage {} {text:?}", span.entity_type, span.begin, span.end, span.passage)
}

type Kept = (Vec<GoldSpan>, Vec<(GoldSpan, String)>);

/// Of spans that overlap the longest stays, of equally long ones the first.
fn longest_disjoint(mut spans: Vec<GoldSpan>) -> Kept {
    spans.sort_by_key(|span| (Reverse(span.end - span.begin), span.passage, span.begin));
    // By place; disjoint, so the last one that begins before a span's end is the only one that can overlap it.
    let mut kept: BTreeMap<(u32, u32), GoldSpan> = BTreeMap::new();
    let mut dropped = Vec::new();
    for span in spans {
        let before = kept.range((span.passage, 0)..(span.passage, span.end)).next_back();
        match before.filter(|(_, other)| other.end > span.begin) {
            Some((_, longer)) => {
                let reason = format!("overlaps {}", shown(longer));
                dropped.push((span, reason));
            }
            None => {
                kept.insert((span.passage, span.begin), span);
            }
        }
    }
    (kept.into_values().collect(), dropped)
}

/// The spans, ordered by place, that overlap no other, and those that do.
fn without_overlapping(spans: Vec<GoldSpan>) -> Kept {
    let mut overlaps = vec![false; spans.len()];
    let mut reaching = 0; // the span so far that reaches furthest
    for at in 1..spans.len() {
        let (span, other) = (&spans[at], &spans[reaching]);
        if span.passage == other.passage && span.begin < other.end {
            overlaps[at] = true;
            overlaps[reaching] = true;
        }
        if span.passage != other.passage || span.end > other.end {
            reaching = at;
        }
    }
    let (mut kept, mut dropped) = (Vec::new(), Vec::new());
    for (span, overlaps) in spans.into_iter().zip(overlaps) {
        if overlaps {
            dropped.push((span, "overlaps another annotation".to_owned()));
        } else {
            kept.push(span);
        }
    }
    (kept, dropped)
}

#[cfg(test)]
mod tests;
