//! Training takes no more memory for twenty times the documents. The program runs as a process of its own, and the
//! kernel says what it took.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)] // helpers of a test

#[allow(dead_code)] // what other tests use
mod support;

use std::io::{BufRead, BufReader, Write as _};
use std::mem::MaybeUninit;
use std::path::Path;
use std::process::{Command, Stdio};

const FEW: usize = 200;
const MANY: usize = 20 * FEW;
/// Of a document. Every word of it is a piece, of which an example keeps eight bytes in memory.
const WORDS: usize = 400;
/// What the indices of so many documents and sentences may take, and the allocator's whims.
const LIMIT: u64 = 16_000_000;

#[test]
fn training_takes_a_memory_that_does_not_grow_with_the_documents() {
    let (few, many) = (fit(FEW), fit(MANY));
    let text = MANY * WORDS * 5;
    eprintln!("fit: {} MB, {} MB for {} MB of text", few / 1_000_000, many / 1_000_000, text / 1_000_000);
    assert!(many - few < LIMIT, "{few} bytes for {FEW} documents, {many} for {MANY}");
}

/// The peak memory of a `fit`, up to its first step: then all documents have been read, checked and tokenized.
fn fit(documents: usize) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    support::write_encoder(&folder.path().join("encoder"));
    write_corpus(&folder.path().join("corpus.pubtator"), documents);
    std::fs::write(folder.path().join("recipe.toml"), "batch_tokens = 128\n[model]\nmax_length = 64\n").unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_litflow-train"))
        .current_dir(folder.path())
        .args(["fit", "--data", "corpus.pubtator", "--encoder", "encoder", "--recipe", "recipe.toml", "--out", "model"])
        .args(["--device", "cpu"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.starts_with("stage 1: ")), "the stages are planned");
    let interrupted = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(interrupted.success());
    assert!(lines.count() < 1000); // to their end, so that the program never waits for this reader
    assert_eq!(child.wait().unwrap().code(), Some(130));
    largest_child()
}

/// Documents in words that are a piece each, with one mention.
fn write_corpus(file: &Path, documents: usize) {
    let mut file = std::io::BufWriter::new(std::fs::File::create(file).unwrap());
    let sentence = "the gene in mice causes fever and cancer of mice . ";
    let text = sentence.repeat(WORDS / sentence.split_whitespace().count());
    for id in 0..documents {
        writeln!(file, "{id}|t|The gene xq1\n{id}|a|{}\n{id}\t9\t12\txq1\tGene\t\n", text.trim_end()).unwrap();
    }
}

/// The largest resident set of any child that has ended, in bytes.
fn largest_child() -> u64 {
    let mut usage = MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: the pointer is valid for writing.
    assert_eq!(unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr()) }, 0);
    // SAFETY: `getrusage` has succeeded, so it has filled it in.
    let usage = unsafe { usage.assume_init() };
    u64::try_from(usage.ru_maxrss).unwrap() * 1024
}
