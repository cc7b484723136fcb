//! From labelled documents to batches: sentences, words and pieces as inference sees them, and for each
//! word the tags that its annotation allows.

use crate::dataset::{LabeledDocument, LabeledPassage};
use crate::error::Error;
use crate::random::SplitMix;
use crate::split::{local_id, unit_hash};
use crate::spool::Spool;
use litflow::model::{LabelSet, Tag};
use litflow::tagger::encode::{SentenceTokenizer, Word, segments};
use litflow::text::{CodePoints, sentences};
use serde::{Deserialize, Serialize};
use std::borrow::Borrow;
use tch::{Device, TchError, Tensor};

/// Most labels: their sets are bits of a `u64`.
pub const MAX_LABELS: usize = 64;

/// A window of a sentence.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Example {
    /// Index of the passage in the document.
    pub passage: usize,
    /// The window's ids, special tokens included.
    pub ids: Vec<i64>,
    /// For each word the index in `ids` of its first piece, at which it is labelled.
    pub first_pieces: Vec<i64>,
    /// For each word its begin and end in the passage, code points.
    pub words: Vec<(u32, u32)>,
    /// For each word the labels that agree with the annotation, one bit each.
    pub allowed: Vec<u64>,
}

/// Turns documents into examples.
pub struct Encoder {
    /// The encoder's tokenizer.
    pub tokenizer: SentenceTokenizer,
    /// The model's labels.
    pub labels: LabelSet,
}

impl Encoder {
    /// All windows of all sentences of a document that hold a word, in their order.
    pub fn encode(&self, document: &LabeledDocument) -> Result<Vec<Example>, Error> {
        let mut examples = Vec::new();
        for index in 0..document.passages.len() {
            self.encode_passage(document, index, &mut examples)?;
        }
        Ok(examples)
    }

    fn encode_passage(
        &self,
        document: &LabeledDocument,
        index: usize,
        examples: &mut Vec<Example>,
    ) -> Result<(), Error> {
        let passage = &document.passages[index];
        let code_points = CodePoints::new(&passage.text);
        for sentence in sentences(&passage.text) {
            // Sentences beyond a segment are no prose: the core alone is enough to learn from.
            for segment in segments(&passage.text[sentence.clone()]) {
                let core = sentence.start + segment.core.start..sentence.start + segment.core.end;
                let encoded = self.tokenizer.encode(&passage.text[core.clone()], code_points.code_point(core.start))?;
                for window in self.tokenizer.windows(&encoded) {
                    let words = &encoded.words[window.words.clone()];
                    if words.is_empty() {
                        continue;
                    }
                    let piece_at = |word: &Word| word.first_piece as usize - window.pieces.start;
                    let allowed = self.allowed(document, passage, words);
                    examples.push(Example {
                        passage: index,
                        ids: self.tokenizer.input(&encoded.ids[window.pieces.clone()]).map(i64::from).collect(),
                        first_pieces: words
                            .iter()
                            .map(|word| (self.tokenizer.prefix_len() + piece_at(word)) as i64)
                            .collect(),
                        words: words.iter().map(|word| (word.begin, word.end)).collect(),
                        allowed,
                    });
                }
            }
        }
        Ok(())
    }

    /// The allowed labels of each word.
    ///
    /// A mention's words are all words that it touches (its borders may lie within a word); where two
    /// mentions touch a word, the first has it.
    fn allowed(&self, document: &LabeledDocument, passage: &LabeledPassage, words: &[Word]) -> Vec<u64> {
        let all =
            if self.labels.labels().len() == MAX_LABELS { u64::MAX } else { (1 << self.labels.labels().len()) - 1 };
        let outside = self.labels.tags().iter().enumerate().fold(0u64, |set, (label, tag)| match tag {
            Tag::Outside => set | 1 << label,
            Tag::Begin(of) | Tag::Inside(of) if !document.annotated[*of] => set | 1 << label,
            _ => set,
        });
        let mut previous = None;
        let mut allowed = Vec::with_capacity(words.len());
        for word in words {
            let touches = |begin: u32, end: u32| begin < word.end && word.begin < end;
            let mention = passage.spans.iter().position(|span| touches(span.begin, span.end));
            allowed.push(match mention {
                Some(index) => {
                    let entity_type = passage.spans[index].entity_type;
                    let goes_on = previous == mention;
                    let tag = if goes_on { Tag::Inside(entity_type) } else { Tag::Begin(entity_type) };
                    self.labels.index_of(tag).map_or(all, |label| 1 << label)
                }
                None if passage.open.iter().any(|&(begin, end)| touches(begin, end)) => all,
                None => outside,
            });
            previous = mention;
        }
        allowed
    }
}

/// Drops a share of a document's examples that hold no mention, where it is annotated for some types only: `keep` of
/// them stays, always the same ones.
pub fn thin_out(examples: &mut Vec<Example>, document: &LabeledDocument, labels: &LabelSet, keep: f64) {
    let begins = labels.tags().iter().enumerate().filter(|(_, tag)| matches!(tag, Tag::Begin(_)));
    let begins: u64 = begins.fold(0, |set, (label, _)| set | 1 << label);
    examples.retain(|example| {
        let has_mention = example.allowed.iter().any(|set| set.count_ones() == 1 && set & begins != 0);
        let place = || format!("{} {} {}", local_id(&document.id), example.passage, example.words[0].0);
        has_mention || document.is_complete() || unit_hash(&place()) < keep
    });
}

/// Examples that wait on the disk for their batch.
#[derive(Default)]
pub struct Examples {
    spool: Spool<Example>,
    /// Of each, how many pieces it has.
    lengths: Vec<u32>,
}

impl Examples {
    /// Adds one.
    pub fn push(&mut self, example: &Example) -> Result<(), Error> {
        self.lengths.push(example.ids.len() as u32);
        self.spool.push(example).map(|_| ())
    }

    /// How many pieces each has, special tokens included.
    pub fn lengths(&self) -> &[u32] {
        &self.lengths
    }

    /// Those at these places.
    pub fn get(&self, places: impl IntoIterator<Item = usize>) -> Result<Vec<Example>, Error> {
        places.into_iter().map(|place| self.spool.get(place)).collect()
    }
}

/// Examples padded to one length, on the device. B examples, L pieces, W words, K labels.
pub struct Batch {
    /// `[B, L]` int64.
    pub ids: Tensor,
    /// `[B, L]` bool, true where a piece is real.
    pub mask: Tensor,
    /// `[B, W]` int64, where in L each word is labelled.
    pub first_pieces: Tensor,
    /// `[B, W]` bool, true where a word is real.
    pub word_mask: Tensor,
    /// `[B, W, K]` bool.
    pub allowed: Tensor,
}

impl Batch {
    /// Pads examples into a batch.
    pub fn new<E: Borrow<Example>>(
        examples: &[E],
        labels: usize,
        padding_id: i64,
        device: Device,
    ) -> Result<Self, TchError> {
        let rows = examples.len();
        let examples = || examples.iter().map(Borrow::borrow);
        let pieces = examples().map(|example| example.ids.len()).max().unwrap_or(0);
        let words = examples().map(|example| example.words.len()).max().unwrap_or(0);
        let mut ids = vec![padding_id; rows * pieces];
        let mut mask = vec![false; rows * pieces];
        let mut first_pieces = vec![0i64; rows * words];
        let mut word_mask = vec![false; rows * words];
        let mut allowed = vec![true; rows * words * labels];
        for (row, example) in examples().enumerate() {
            let at = row * pieces;
            ids[at..at + example.ids.len()].copy_from_slice(&example.ids);
            mask[at..at + example.ids.len()].fill(true);
            let at = row * words;
            first_pieces[at..at + example.words.len()].copy_from_slice(&example.first_pieces);
            word_mask[at..at + example.words.len()].fill(true);
            for (word, set) in example.allowed.iter().enumerate() {
                for label in 0..labels {
                    allowed[(at + word) * labels + label] = set >> label & 1 == 1;
                }
            }
        }
        let (rows, pieces, words) = (rows as i64, pieces as i64, words as i64);
        let to_device = |tensor: Tensor| tensor.f_to_device(device);
        Ok(Self {
            ids: to_device(Tensor::f_from_slice(&ids)?.f_view([rows, pieces])?)?,
            mask: to_device(Tensor::f_from_slice(&mask)?.f_view([rows, pieces])?)?,
            first_pieces: to_device(Tensor::f_from_slice(&first_pieces)?.f_view([rows, words])?)?,
            word_mask: to_device(Tensor::f_from_slice(&word_mask)?.f_view([rows, words])?)?,
            allowed: to_device(Tensor::f_from_slice(&allowed)?.f_view([rows, words, labels as i64])?)?,
        })
    }
}

/// A random order of batches over all examples, of these numbers of pieces, each batch at most `budget` pieces with its
/// padding. Examples of like length share a batch, but which ones is chosen anew with every seed: the shuffled examples
/// are sorted only within pools of some batches.
pub fn shuffled_batches(lengths: &[u32], budget: usize, seed: u64) -> Vec<Vec<usize>> {
    /// Enough batches to sort away most padding, few enough to mix well.
    const BATCHES_PER_POOL: usize = 16;
    let mut random = SplitMix(seed);
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    random.shuffle(&mut order);
    let mut batches = Vec::new();
    let mut pool = Vec::new();
    let mut pieces = 0;
    for (at, &index) in order.iter().enumerate() {
        pool.push(index);
        pieces += lengths[index] as usize;
        if pieces >= budget * BATCHES_PER_POOL || at + 1 == order.len() {
            pool.sort_by_key(|&index| lengths[index]);
            batches.extend(batches_of_sorted(lengths, &pool, budget));
            pool.clear();
            pieces = 0;
        }
    }
    random.shuffle(&mut batches);
    batches
}

/// All examples by ascending length, cut into batches of at most `budget` pieces with padding.
pub fn sorted_batches(examples: &[Example], budget: usize) -> Vec<Vec<usize>> {
    let lengths: Vec<u32> = examples.iter().map(|example| example.ids.len() as u32).collect();
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&index| lengths[index]);
    batches_of_sorted(&lengths, &order, budget)
}

/// Cuts a list that ascends in length.
fn batches_of_sorted(lengths: &[u32], sorted: &[usize], budget: usize) -> Vec<Vec<usize>> {
    let mut batches: Vec<Vec<usize>> = Vec::new();
    for &index in sorted {
        let length = lengths[index] as usize;
        match batches.last_mut() {
            Some(batch) if (batch.len() + 1) * length <= budget => batch.push(index),
            _ => batches.push(vec![index]),
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scorer::Span;
    use crate::testing;

    fn passage(text: &str, spans: &[(u32, u32, usize)], open: &[(u32, u32)]) -> LabeledPassage {
        let span = |&(begin, end, entity_type): &(u32, u32, usize)| Span { begin, end, entity_type };
        LabeledPassage { text: text.into(), offset: 0, spans: spans.iter().map(span).collect(), open: open.to_vec() }
    }

    fn encode(passage: LabeledPassage, annotated: &[bool]) -> Vec<Example> {
        let document = LabeledDocument { id: "1".into(), passages: vec![passage], annotated: annotated.to_vec() };
        encoder().encode(&document).unwrap()
    }

    fn encoder() -> Encoder {
        let tokenizer = SentenceTokenizer::new(testing::tokenizer(), 64, 8).unwrap();
        Encoder { tokenizer, labels: LabelSet::bio(&["Gene", "Disease"].map(String::from)) }
    }

    // Labels: O 0, B-Gene 1, I-Gene 2, B-Disease 3, I-Disease 4.

    #[test]
    fn a_complete_annotation_allows_one_label_a_word() {
        //                                  0         10        20
        let found = encode(passage("The a-b gene and cancer x", &[(4, 7, 0), (17, 23, 1)], &[]), &[true, true]);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].words[1..4], [(4, 5), (5, 6), (6, 7)]);
        assert_eq!(found[0].allowed, [1, 1 << 1, 1 << 2, 1 << 2, 1, 1, 1 << 3, 1]);
    }

    #[test]
    fn what_is_not_annotated_is_not_negative() {
        let found = encode(passage("a gene b c", &[(0, 1, 0)], &[(9, 10)]), &[true, false]);
        let other_types = 1 | 1 << 3 | 1 << 4;
        assert_eq!(found[0].allowed, [1 << 1, other_types, other_types, 0b11111]);
    }

    #[test]
    fn mentions_side_by_side_both_begin_and_a_border_within_a_word_takes_the_word() {
        let found = encode(passage("a b xyz", &[(0, 1, 0), (2, 3, 0), (5, 7, 1)], &[]), &[true, true]);
        assert_eq!(found[0].allowed, [1 << 1, 1 << 1, 1 << 3]);
    }

    #[test]
    fn only_empty_partial_examples_are_thinned_out() {
        let none = |text| passage(text, &[], &[]);
        let document = |id: &str, passage, complete| LabeledDocument {
            id: id.into(),
            passages: vec![passage],
            annotated: vec![true, complete],
        };
        let documents = [
            document("1", none("nothing here"), false),
            document("2", none("nothing here"), true),
            document("3", passage("gene", &[(0, 4, 0)], &[]), false),
        ];
        let encoder = encoder();
        let kept = |keep| {
            documents.each_ref().map(|document| {
                let mut examples = encoder.encode(document).unwrap();
                thin_out(&mut examples, document, &encoder.labels, keep);
                examples.len()
            })
        };
        assert_eq!(kept(0.0), [0, 1, 1]);
        assert_eq!(kept(1.0), [1, 1, 1]);
    }

    #[test]
    fn batches_hold_every_example_once_within_the_budget() {
        let lengths: Vec<u32> = (0..500).map(|i| 3 + i * 37 % 60).collect();
        let example = |&length: &u32| Example {
            passage: 0,
            ids: vec![0; length as usize],
            first_pieces: vec![0],
            words: vec![(0, 1)],
            allowed: vec![1],
        };
        let sorted = sorted_batches(&lengths.iter().map(example).collect::<Vec<_>>(), 256);
        for batches in [shuffled_batches(&lengths, 256, 1), shuffled_batches(&lengths, 256, 2), sorted] {
            let mut seen = batches.concat();
            seen.sort_unstable();
            assert_eq!(seen, (0..500).collect::<Vec<_>>());
            let padded = |batch: &Vec<usize>| batch.len() * batch.iter().map(|&i| lengths[i] as usize).max().unwrap();
            assert!(batches.iter().all(|batch| padded(batch) <= 256));
        }
        assert_eq!(shuffled_batches(&lengths, 256, 1), shuffled_batches(&lengths, 256, 1));
        assert_ne!(shuffled_batches(&lengths, 256, 1), shuffled_batches(&lengths, 256, 2));
    }
}
