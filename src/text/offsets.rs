//! Byte offsets to Unicode code points and back.
//!
//! Rust slices text by bytes; everything that litflow publishes counts code points. [`CodePoints`]
//! is built once for a text, in one pass, and then answers in either direction and in any order.

/// Bytes between two entries of the index: a look-up scans at most this many bytes (and 3 more).
const STRIDE: usize = 128;

/// The offsets of one text: byte offsets ↔ code points.
///
/// Building it takes time linear in the text and 4 bytes of memory for each 128 bytes of text; for
/// ASCII, where both offsets are the same, it keeps nothing. `code_point` takes constant time,
/// `byte` logarithmic time. Offsets are `u32`, as in the published records: a text must be shorter
/// than 4 GiB (beyond that, code points saturate).
///
/// ```
/// use litflow::text::CodePoints;
///
/// let offsets = CodePoints::new("TNF-α was up");
/// assert_eq!(offsets.code_point(6), 5); // after the two bytes of α
/// assert_eq!(offsets.byte(5), Some(6));
/// ```
#[derive(Debug, Clone)]
pub struct CodePoints<'t> {
    text: &'t str,
    /// Entry `k`: how many code points begin before byte `k * STRIDE`. Empty for ASCII.
    index: Vec<u32>,
    len: u32,
}

impl<'t> CodePoints<'t> {
    /// Indexes `text`.
    pub fn new(text: &'t str) -> Self {
        if text.is_ascii() {
            return Self { text, index: Vec::new(), len: saturate(text.len()) };
        }
        let mut index = Vec::with_capacity(text.len() / STRIDE + 1);
        let mut count = 0;
        for chunk in text.as_bytes().chunks(STRIDE) {
            index.push(saturate(count));
            count += first_bytes(chunk);
        }
        Self { text, index, len: saturate(count) }
    }

    /// The number of code points of the text.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether the text is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many code points begin before `byte`: for a character boundary, its offset in code points.
    /// A byte past the end counts as the end.
    pub fn code_point(&self, byte: usize) -> u32 {
        let byte = byte.min(self.text.len());
        let Some(&before) = self.index.get(byte / STRIDE) else {
            // ASCII, or the end of a text whose length is a multiple of the stride.
            return if self.index.is_empty() { saturate(byte) } else { self.len };
        };
        let entry = byte / STRIDE * STRIDE;
        before.saturating_add(saturate(first_bytes(&self.text.as_bytes()[entry..byte])))
    }

    /// The byte at which code point `code_point` begins, the text's length for the one after the
    /// last; `None` beyond that.
    pub fn byte(&self, code_point: u32) -> Option<usize> {
        if code_point >= self.len {
            return (code_point == self.len).then_some(self.text.len());
        }
        if self.index.is_empty() {
            return Some(code_point as usize);
        }
        // The last entry that does not count more than `code_point`; entry 0 is always 0.
        let entry = self.index.partition_point(|&before| before <= code_point) - 1;
        let mut left = code_point - self.index[entry];
        let from = entry * STRIDE;
        for (at, &byte) in self.text.as_bytes()[from..].iter().enumerate() {
            if is_first_byte(byte) {
                if left == 0 {
                    return Some(from + at);
                }
                left -= 1;
            }
        }
        None
    }

    /// A byte range in code points, `(begin, end)`.
    pub fn span(&self, bytes: &std::ops::Range<usize>) -> (u32, u32) {
        (self.code_point(bytes.start), self.code_point(bytes.end))
    }

    /// The text between two code points; `None` where they are out of bounds or reversed.
    pub fn slice(&self, begin: u32, end: u32) -> Option<&'t str> {
        self.text.get(self.byte(begin)?..self.byte(end)?)
    }
}

/// Whether a byte of UTF-8 begins a code point (it is no continuation byte).
fn is_first_byte(byte: u8) -> bool {
    byte & 0xC0 != 0x80
}

fn first_bytes(bytes: &[u8]) -> usize {
    bytes.iter().filter(|&&byte| is_first_byte(byte)).count()
}

fn saturate(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ascii_needs_no_index() {
        let offsets = CodePoints::new("BRCA1");
        assert!(offsets.index.is_empty());
        assert_eq!(offsets.span(&(1..4)), (1, 4));
        assert_eq!(offsets.byte(5), Some(5));
        assert_eq!(offsets.byte(6), None);
        assert_eq!(offsets.code_point(99), 5);
    }

    #[test]
    fn a_byte_within_a_character_counts_the_character() {
        let offsets = CodePoints::new("α🧬");
        assert_eq!((0..=6).map(|byte| offsets.code_point(byte)).collect::<Vec<_>>(), [0, 1, 1, 2, 2, 2, 2]);
        assert_eq!(offsets.slice(1, 2), Some("🧬"));
        assert_eq!(offsets.slice(2, 1), None);
        assert_eq!(offsets.slice(0, 3), None);
    }

    #[test]
    fn a_text_as_long_as_the_stride() {
        let text = "é".repeat(STRIDE);
        let offsets = CodePoints::new(&text);
        assert_eq!(offsets.code_point(text.len()), STRIDE as u32);
        assert_eq!(offsets.byte(STRIDE as u32), Some(text.len()));
        assert_eq!(offsets.byte(STRIDE as u32 + 1), None);
    }

    proptest! {
        /// Against the definition, over texts longer than the stride, with all widths of UTF-8.
        #[test]
        fn agrees_with_char_indices(text in "(\\PC|[a-z ]{0,40}){0,200}") {
            let offsets = CodePoints::new(&text);
            let starts: Vec<usize> = text.char_indices().map(|(byte, _)| byte).chain([text.len()]).collect();
            prop_assert_eq!(offsets.len() as usize, starts.len() - 1);
            for (code_point, &byte) in starts.iter().enumerate() {
                prop_assert_eq!(offsets.code_point(byte) as usize, code_point);
                prop_assert_eq!(offsets.byte(code_point as u32), Some(byte));
            }
            prop_assert_eq!(offsets.byte(starts.len() as u32), None);
        }
    }
}
