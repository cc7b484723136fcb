//! The splitter against CRAFT's treebank sentences, on the held-out articles.
//!
//! The same split, alignment and measure as `benches/peers/sentences.py`, which compares the public splitters.

#![allow(clippy::unwrap_used)] // a missing file ends the test

use litflow::text::sentences;
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// What was measured (0.9974), less a margin for small changes of the rules.
const FLOOR: f64 = 0.9965;

#[test]
fn boundary_f1_on_held_out_articles() {
    let craft = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpora/craft");
    if !craft.is_dir() {
        println!("skipped: no CRAFT corpus in {}", craft.display());
        return;
    }
    let (mut right, mut found, mut gold, mut articles) = (0, 0, 0, 0);
    for path in text_files(&craft.join("articles/txt")) {
        let article = path.file_stem().unwrap().to_str().unwrap();
        if is_development(article) {
            continue;
        }
        let trees = craft.join(format!("structural-annotation/treebank/penn/{article}.tree"));
        let text = std::fs::read_to_string(&path).unwrap();
        for (line, ends) in gold_passages(&text, &std::fs::read_to_string(trees).unwrap()) {
            let ours: HashSet<usize> = sentences(line).into_iter().map(|range| range.end).collect();
            right += ours.intersection(&ends).count();
            found += ours.len();
            gold += ends.len();
        }
        articles += 1;
    }
    let f1 = 2.0 * right as f64 / (found + gold) as f64;
    println!("CRAFT, {articles} held-out articles, {gold} sentences: boundary F1 {f1:.4}");
    assert!(articles > 30 && gold > 10_000, "the corpus is not whole");
    assert!(f1 >= FLOOR, "boundary F1 {f1:.4} is below {FLOOR}");
}

fn text_files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|extension| extension == "txt")).collect()
}

/// Articles that may be looked at while the rules are written; the others are only scored.
fn is_development(article: &str) -> bool {
    Sha256::digest(article)[0] % 2 == 0
}

/// The lines of `text` that the trees cover, each with the byte offsets at which its gold sentences end.
fn gold_passages<'t>(text: &'t str, trees: &str) -> Vec<(&'t str, HashSet<usize>)> {
    // The visible characters as one string, and for each of its bytes the byte of `text`.
    let mut shown = String::new();
    let mut offsets = Vec::new();
    for (at, c) in text.char_indices().filter(|(_, c)| !c.is_whitespace()) {
        shown.push(c);
        offsets.extend(at..at + c.len_utf8());
    }
    let mut covered = vec![false; text.len()];
    let mut spans: Vec<(usize, usize)> = Vec::new();
    let mut at = 0;
    for tree in trees.lines() {
        let words = leaves(tree);
        let Some(gap) = shown[at..].find(&words).filter(|_| !words.is_empty()) else { continue };
        // The first sentence comes after the front matter; later ones follow each other closely.
        if !spans.is_empty() && gap > 5000 {
            continue;
        }
        let begin = at + gap;
        at = begin + words.len();
        spans.push((offsets[begin], offsets[at - 1] + 1));
        offsets[begin..at].iter().for_each(|&byte| covered[byte] = true);
    }
    let mut passages = Vec::new();
    let mut begin = 0;
    for line in text.split('\n') {
        let end = begin + line.len();
        let touching: Vec<_> = spans.iter().filter(|&&(from, to)| from < end && to > begin).collect();
        let is_whole = touching.iter().all(|&&(from, to)| begin <= from && to <= end);
        let is_covered = line.char_indices().all(|(at, c)| c.is_whitespace() || covered[begin + at]);
        if !touching.is_empty() && is_whole && is_covered {
            passages.push((line, touching.iter().map(|&&(_, to)| to - begin).collect()));
        }
        begin = end + 1;
    }
    passages
}

/// The words of a Penn tree, joined: `(NN cell)` gives `cell`, traces (`-NONE-`) give nothing.
fn leaves(tree: &str) -> String {
    let mut words = String::new();
    for part in tree.split('(') {
        let Some((tag, rest)) = part.split_once(' ') else { continue };
        let Some((word, _)) = rest.split_once(')') else { continue };
        if tag == "-NONE-" || word.is_empty() || word.contains(' ') {
            continue;
        }
        let word = match word {
            "-LRB-" => "(",
            "-RRB-" => ")",
            "-LSB-" => "[",
            "-RSB-" => "]",
            "-LCB-" => "{",
            "-RCB-" => "}",
            word => word,
        };
        words.extend(word.chars().filter(|c| !c.is_whitespace()));
    }
    words
}
