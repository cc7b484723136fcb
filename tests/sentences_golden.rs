//! One text, its sentences with their offsets in code points, as a file that reviews show changes in.
//!
//! `UPDATE_GOLDEN=1 cargo test --test sentences_golden` writes the file anew.

use litflow::text::{CodePoints, sentences};
use std::fmt::Write;

#[test]
fn sentences_of_the_golden_text() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let text = std::fs::read_to_string(folder.join("sentences.txt")).unwrap();
    let offsets = CodePoints::new(&text);
    let mut found = String::new();
    for range in sentences(&text) {
        let (begin, end) = offsets.span(&range);
        assert_eq!(offsets.slice(begin, end), Some(&text[range.clone()]));
        writeln!(found, "{begin}\t{end}\t{:?}", &text[range]).unwrap();
    }
    let golden = folder.join("sentences.tsv");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&golden, &found).unwrap();
    }
    assert_eq!(found, std::fs::read_to_string(&golden).unwrap(), "differs from {}", golden.display());
}
