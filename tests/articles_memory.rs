//! A file of 30,000 citations passes in bounded memory. Alone in its binary: it measures the process.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)] // helpers of a test

#[path = "support/citations.rs"]
mod citations;

use flate2::{Compression, write::GzEncoder};
use litflow::article::{Articles, Options};

/// The largest resident set of this process so far, in bytes.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn thirty_thousand_citations_stay_far_below_200_megabytes() {
    let file = tempfile::Builder::new().suffix(".xml.gz").tempfile().unwrap();
    let mut encoder = GzEncoder::new(&file, Compression::fast());
    citations::write_citations(&mut encoder, 30_000, 30_000).unwrap();
    encoder.finish().unwrap();
    let before = peak_memory();
    let articles = Articles::new(&[file.path().to_owned()], None, &Options::default());
    assert_eq!(articles.map(Result::unwrap).count(), 30_000);
    let grown = peak_memory() - before;
    eprintln!(
        "{} MB stored, peak memory grew by {:.1} MB",
        file.path().metadata().unwrap().len() >> 20,
        grown as f64 / 1e6
    );
    assert!(grown < 50_000_000, "{grown} bytes");
}
