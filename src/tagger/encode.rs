//! From a sentence to what the encoder sees: words, word pieces and windows.
//!
//! Training and inference call exactly this code, so a model meets the same words, pieces and windows
//! in both. The unit of labelling is the **word**: what the tokenizer's own pre-tokenizer splits off.
//! A word is labelled by the emission at its first piece, so mentions begin and end at word boundaries.
//!
//! ```text
//! passage ──text::split──▶ sentences ──segments──▶ segments ──encode──▶ words, pieces ──windows──▶ encoder
//! ```
//!
//! A *segment* is a whole sentence, except for "sentences" of tens of kilobytes (tables, base64), which
//! are cut so that memory stays bounded; their parts overlap. A *window* is what fits into the encoder;
//! windows overlap, and each word is read from the window in which it has the most context.

use crate::model::tokenizer::guarded;
use crate::text::CodePoints;
use regex::Regex;
use std::ops::Range;
use std::sync::LazyLock;
use tokenizers::Tokenizer;

/// The longest text that is tokenised at once, in bytes. Real sentences are hundreds of bytes long; the
/// tokenizer needs about 100 times its input in memory.
pub const MAX_SEGMENT_BYTES: usize = 32 * 1024;
/// How much of its neighbours a segment sees on either side, in bytes: more than any mention is long.
const SEGMENT_CONTEXT_BYTES: usize = 1024;

/// A word and where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Word {
    /// Index of its first piece in [`EncodedSentence::ids`].
    pub first_piece: u32,
    /// Begin in the passage, in code points.
    pub begin: u32,
    /// End in the passage, in code points.
    pub end: u32,
}

/// The words and word pieces of a sentence (or of a segment of a very long one).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EncodedSentence {
    /// Vocabulary ids of the pieces, without special tokens.
    pub ids: Vec<u32>,
    /// The words, ascending and disjoint, both in pieces and in the text.
    pub words: Vec<Word>,
}

/// A stretch of pieces that goes through the encoder together, and the words that are read from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Range in [`EncodedSentence::ids`], never empty, at most the window's capacity.
    pub pieces: Range<usize>,
    /// Range in [`EncodedSentence::words`]: those whose first piece has its best context here. Every
    /// word of a sentence belongs to exactly one of its windows.
    pub words: Range<usize>,
}

/// A part of a sentence that is tokenised and decoded as a whole. Offsets are bytes into the sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// What is tokenised: the core and some context on both sides.
    pub text: Range<usize>,
    /// What it answers for: mentions that begin here. The cores of a sentence tile it.
    pub core: Range<usize>,
}

/// The model's tokenizer, set up for sentences of any length.
pub struct SentenceTokenizer {
    tokenizer: Tokenizer,
    /// Special tokens before (`[CLS]`) and after (`[SEP]`) every window.
    prefix: Vec<u32>,
    suffix: Vec<u32>,
    /// Pieces that fit into one window, special tokens not counted.
    capacity: usize,
    /// Pieces that two neighbouring windows share.
    overlap: usize,
}

/// Why a tokenizer or a text was refused.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum Error {
    #[error("max_length {max_length} leaves no room for text beside {special} special tokens: raise it to {} or more", special + 2)]
    MaxLength { max_length: usize, special: usize },
    #[error("the tokenizer does not wrap a text in special tokens as a whole: only `prefix text suffix` is understood")]
    Template,
    #[error("the tokenizer failed: {0}")]
    Tokenizer(String),
}

impl SentenceTokenizer {
    /// Takes the model's tokenizer. Truncation and padding are switched off, and special tokens that
    /// stand in the text (an abstract that says `[SEP]`) are read as text.
    ///
    /// `max_length` is the encoder's limit in pieces, special tokens included. `overlap` is how many
    /// pieces neighbouring windows share; it is cut to half a window.
    pub fn new(mut tokenizer: Tokenizer, max_length: usize, overlap: usize) -> Result<Self, Error> {
        let failed = |error: tokenizers::Error| Error::Tokenizer(error.to_string());
        let encode = |tokenizer: &Tokenizer, special| {
            guarded(|| tokenizer.encode("a", special)).map_err(Error::Tokenizer)?.map_err(failed)
        };
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(failed)?;
        tokenizer.set_encode_special_tokens(true);

        let (bare, wrapped) = (encode(&tokenizer, false)?, encode(&tokenizer, true)?);
        let (bare, wrapped) = (bare.get_ids(), wrapped.get_ids());
        let at = wrapped.windows(bare.len().max(1)).position(|window| window == bare).ok_or(Error::Template)?;
        let (prefix, suffix) = (wrapped[..at].to_vec(), wrapped[at + bare.len()..].to_vec());

        let special = prefix.len() + suffix.len();
        let capacity = max_length.saturating_sub(special);
        if capacity < 2 {
            return Err(Error::MaxLength { max_length, special });
        }
        Ok(Self { tokenizer, prefix, suffix, capacity, overlap: overlap.min(capacity / 2) })
    }

    /// Tokenises `text`, which starts `offset` code points into its passage. Texts longer than
    /// [`MAX_SEGMENT_BYTES`] are to be cut by [`segments`] first.
    pub fn encode(&self, text: &str, offset: u32) -> Result<EncodedSentence, Error> {
        let encoding = guarded(|| self.tokenizer.encode(text, false)).map_err(Error::Tokenizer)?;
        let encoding = encoding.map_err(|error| Error::Tokenizer(error.to_string()))?;
        let code_points = CodePoints::new(text);
        let mut words: Vec<Word> = Vec::new();
        let mut current = None;
        let pieces = encoding.get_word_ids().iter().zip(encoding.get_offsets());
        for (piece, (&word_id, &(begin_byte, end_byte))) in pieces.enumerate() {
            // Byte-level tokenizers may cut within a character; a mention never does.
            let begin = offset + code_points.code_point(char_boundary(text, begin_byte));
            let end = offset + code_points.code_point(end_byte);
            match words.last_mut() {
                // Where one character becomes several words ("…" to "..." under NFKC), they stay one.
                Some(word) if begin < word.end || (word_id.is_some() && word_id == current) => {
                    word.end = word.end.max(end);
                }
                _ => words.push(Word { first_piece: piece as u32, begin, end }),
            }
            current = word_id;
        }
        attach_marks(text, offset, &code_points, &mut words);
        Ok(EncodedSentence { ids: encoding.get_ids().to_vec(), words })
    }

    /// Lays windows over a sentence: one where it fits, else overlapping ones.
    pub fn windows(&self, sentence: &EncodedSentence) -> Vec<Window> {
        windows(sentence.ids.len(), &sentence.words, self.capacity, self.overlap)
    }

    /// The encoder's input for one window: the pieces between the special tokens. The emission of
    /// piece `p` of the sentence is row `prefix_len() + p - window.pieces.start`.
    pub fn input<'a>(&'a self, pieces: &'a [u32]) -> impl Iterator<Item = u32> + 'a {
        self.prefix.iter().chain(pieces).chain(&self.suffix).copied()
    }

    /// How many special tokens stand before the first piece of each window.
    pub fn prefix_len(&self) -> usize {
        self.prefix.len()
    }

    /// How many special tokens each window carries.
    pub fn special_len(&self) -> usize {
        self.prefix.len() + self.suffix.len()
    }
}

/// Cuts a sentence into segments of at most [`MAX_SEGMENT_BYTES`]: one, where it is shorter. Cuts are
/// made at white space where there is any nearby, so that no word is cut.
pub fn segments(sentence: &str) -> Vec<Segment> {
    if sentence.len() <= MAX_SEGMENT_BYTES {
        return vec![Segment { text: 0..sentence.len(), core: 0..sentence.len() }];
    }
    let longest_core = MAX_SEGMENT_BYTES - 2 * SEGMENT_CONTEXT_BYTES;
    let mut segments = Vec::with_capacity(sentence.len() / longest_core + 1);
    let mut begin = 0;
    while begin < sentence.len() {
        let end = cut_before(sentence, begin + longest_core, begin);
        let text_begin = cut_before(sentence, begin.saturating_sub(SEGMENT_CONTEXT_BYTES / 2), 0);
        let text_end = cut_before(sentence, end + SEGMENT_CONTEXT_BYTES, end);
        segments.push(Segment { text: text_begin..text_end, core: begin..end });
        begin = end;
    }
    segments
}

/// The last white space at or before byte `at`, looking back no further than [`SEGMENT_CONTEXT_BYTES`]
/// / 2 and staying above `floor`; the last character boundary where there is none.
fn cut_before(text: &str, at: usize, floor: usize) -> usize {
    if at >= text.len() {
        return text.len();
    }
    let at = char_boundary(text, at);
    let lowest = char_boundary(text, at.saturating_sub(SEGMENT_CONTEXT_BYTES / 2)).max(floor);
    match text[lowest..at].rfind(char::is_whitespace) {
        Some(space) if lowest + space > floor => lowest + space,
        _ => at,
    }
}

/// The last character boundary at or before byte `at`, which lies within the text.
fn char_boundary(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

fn windows(pieces: usize, words: &[Word], capacity: usize, overlap: usize) -> Vec<Window> {
    if pieces <= capacity {
        return if pieces == 0 { Vec::new() } else { vec![Window { pieces: 0..pieces, words: 0..words.len() }] };
    }
    let step = capacity - overlap;
    let count = (pieces - capacity).div_ceil(step) + 1;
    // The last window is moved back so that it is full: context costs little and helps the last words.
    let begin_of = |window: usize| (window * step).min(pieces - capacity);
    let mut first_word = 0;
    (0..count)
        .map(|window| {
            let (begin, end) = (begin_of(window), begin_of(window) + capacity);
            // In the part that two windows share, a word left of its middle is better centred in the
            // first, right of it in the second.
            let seam = if window + 1 == count { pieces } else { (begin_of(window + 1) + end).div_ceil(2) };
            let after = words.partition_point(|word| (word.first_piece as usize) < seam);
            let owned = first_word..after;
            first_word = after;
            Window { pieces: begin..end, words: owned }
        })
        .collect()
}

/// Lets a word keep the combining marks that follow it: a tokenizer that strips accents leaves the accent
/// of a decomposed "é" out of its offsets, and no mention may end between a letter and its accent.
fn attach_marks(text: &str, offset: u32, code_points: &CodePoints, words: &mut [Word]) {
    if text.is_ascii() {
        return;
    }
    for at in 0..words.len() {
        let limit = words.get(at + 1).map_or(u32::MAX, |next| next.begin);
        let word = &mut words[at];
        let rest = code_points.byte(word.end - offset).and_then(|byte| text.get(byte..)).unwrap_or_default();
        let marks = MARKS.find(rest).map_or(0, |found| found.as_str().chars().count() as u32);
        word.end = (word.end + marks).min(limit.max(word.end));
    }
}

/// Combining marks at the start of a text.
static MARKS: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"^\p{M}+").expect("the pattern is constant and valid"));

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tagger::testing::tokenizer;
    use proptest::prelude::*;

    fn encode(text: &str) -> EncodedSentence {
        SentenceTokenizer::new(tokenizer(), 512, 64).unwrap().encode(text, 0).unwrap()
    }

    fn words(text: &str) -> Vec<String> {
        let code_points = CodePoints::new(text);
        encode(text).words.iter().map(|word| code_points.slice(word.begin, word.end).unwrap().to_owned()).collect()
    }

    #[test]
    fn words_are_what_stands_in_the_text() {
        assert_eq!(words("IL-2 (p < 0.05)"), ["IL", "-", "2", "(", "p", "<", "0", ".", "05", ")"]);
        assert_eq!(words("naïve Sjögren ﬁbrosis"), ["naïve", "Sjögren", "ﬁbrosis"]);
        assert_eq!(words("na\u{0131}\u{308}ve cafe\u{301}, x"), ["na\u{0131}\u{308}ve", "cafe\u{301}", ",", "x"]);
        assert_eq!(words("zero\u{200b}width 🧬𝒳-gene"), ["zero\u{200b}width", "🧬𝒳", "-", "gene"]);
        assert_eq!(words("α中β"), ["α", "中", "β"]);
        assert_eq!(words("İstanbul [SEP] \0x"), ["İstanbul", "[", "SEP", "]", "x"]);
        assert!(words("").is_empty() && words(" \u{a0}\0\u{200b}").is_empty());
    }

    #[test]
    fn a_word_knows_its_first_piece_and_its_place_in_the_passage() {
        let tokenizer = SentenceTokenizer::new(tokenizer(), 512, 64).unwrap();
        let sentence = tokenizer.encode("ab c", 10).unwrap();
        let expected = [Word { first_piece: 0, begin: 10, end: 12 }, Word { first_piece: 2, begin: 13, end: 14 }];
        assert_eq!(sentence.words, expected);
        assert_eq!(sentence.ids.len(), 3);
        assert_eq!(tokenizer.input(&sentence.ids).count(), 3 + tokenizer.special_len());
    }

    #[test]
    fn a_limit_without_room_is_refused() {
        let error = SentenceTokenizer::new(tokenizer(), 3, 0).err().unwrap();
        assert_eq!(
            error.to_string(),
            "max_length 3 leaves no room for text beside 2 special tokens: raise it to 4 or more"
        );
    }

    #[test]
    fn a_table_is_cut_at_white_space_and_a_long_word_anywhere() {
        let table = "cell 1.5 ± 0.2 ".repeat(10_000);
        let found = segments(&table);
        assert!(found.len() > 4);
        assert!(found[1..].iter().all(|segment| table[segment.core.start..].starts_with(' ')));
        let word = "α".repeat(100_000);
        assert!(segments(&word).len() > 6);
    }

    /// Characters that tokenizers and offset code trip over.
    fn nasty_text() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            "[a-zA-Z0-9]{1,9}",
            "[ \\t\\n\\r\\u{a0}\\u{2003}]{1,3}",
            "[-.,;:()<>=/%+\\[\\]]",
            "[éüïßñøİıſŁ]{1,3}",
            "[\\u{300}-\\u{310}\\u{200b}\\u{200d}\\u{feff}\\u{fffd}\\u{0}\\u{7f}\\u{ad}]{1,2}",
            "[ﬁﬀ㎎½…中가각🧬𝒳𐐀👩🏽‍🔬]{1,2}",
            any::<char>().prop_map(String::from),
        ];
        prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn words_are_disjoint_and_leave_no_letter_out(text in nasty_text(), offset in 0u32..1000) {
            let tokenizer = SentenceTokenizer::new(tokenizer(), 512, 64).unwrap();
            let sentence = tokenizer.encode(&text, offset).unwrap();
            let length = text.chars().count() as u32;
            prop_assert!(sentence.words.iter().all(|word| offset <= word.begin && word.begin <= word.end));
            prop_assert!(sentence.words.last().is_none_or(|word| word.end <= offset + length));
            for pair in sentence.words.windows(2) {
                prop_assert!(pair[0].end <= pair[1].begin && pair[0].first_piece < pair[1].first_piece);
            }
            for (at, character) in text.chars().enumerate() {
                let at = at as u32 + offset;
                let covered = sentence.words.iter().any(|word| word.begin <= at && at < word.end);
                prop_assert!(covered || !character.is_ascii_alphanumeric(), "{character:?} at {at} is in no word");
                // BERT drops control characters (a vertical tab) before it looks for white space.
                let splits = character.is_whitespace() && !character.is_control();
                prop_assert!(!covered || !splits, "white space at {at} is in a word");
            }
        }

        #[test]
        fn segments_tile_the_sentence(pieces in prop::collection::vec(("[a-zé ]{0,30}", 1usize..4000), 0..12)) {
            let text: String = pieces.iter().map(|(piece, times)| piece.repeat(*times)).collect();
            let found = segments(&text);
            prop_assert_eq!(found.first().map(|segment| segment.core.start), Some(0));
            prop_assert_eq!(found.last().map(|segment| segment.core.end), Some(text.len()));
            prop_assert!(found.windows(2).all(|pair| pair[0].core.end == pair[1].core.start));
            for Segment { text: around, core } in found {
                prop_assert!(around.start <= core.start && core.end <= around.end);
                prop_assert!(around.len() <= MAX_SEGMENT_BYTES);
                prop_assert!(text.get(around).is_some() && text.get(core).is_some());
            }
        }

        #[test]
        fn each_word_is_read_where_it_has_the_most_context(
            lengths in prop::collection::vec(1u32..9, 0..200), capacity in 2usize..40, overlap in 0usize..20,
        ) {
            let mut pieces = 0;
            let words: Vec<Word> = lengths.iter().map(|&length| {
                pieces += length;
                Word { first_piece: pieces - length, begin: 0, end: 0 }
            }).collect();
            let pieces = pieces as usize;
            let found = windows(pieces, &words, capacity, overlap.min(capacity / 2));
            let read: Vec<usize> = found.iter().flat_map(|window| window.words.clone()).collect();
            prop_assert_eq!(read, (0..words.len()).collect::<Vec<_>>());
            // Context on the poorer side; a true end of the sentence is no want of context.
            let context = |window: &Window, at: usize| {
                let left = if window.pieces.start == 0 { usize::MAX } else { at - window.pieces.start };
                let right = if window.pieces.end == pieces { usize::MAX } else { window.pieces.end - 1 - at };
                left.min(right)
            };
            for window in &found {
                prop_assert!(!window.pieces.is_empty() && window.pieces.len() <= capacity);
                for word in &words[window.words.clone()] {
                    let at = word.first_piece as usize;
                    prop_assert!(window.pieces.contains(&at));
                    let here = context(window, at);
                    let elsewhere = found.iter().filter(|other| other.pieces.contains(&at));
                    prop_assert!(elsewhere.map(|other| context(other, at)).all(|there| there <= here));
                }
            }
        }
    }
}
