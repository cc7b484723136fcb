//! How fast articles are read, in bytes of XML a second on one core.

#[path = "../tests/support/citations.rs"]
mod citations;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use flate2::{Compression, write::GzEncoder};
use litflow::article::{Articles, Options};
use std::io::Write;

fn read_pubmed(criterion: &mut Criterion) {
    let mut xml = Vec::new();
    citations::write_citations(&mut xml, 3_000, 3_000).expect("memory can be written to");
    let folder = tempfile::tempdir().expect("a folder for the inputs");
    let plain = folder.path().join("citations.xml");
    let compressed = folder.path().join("citations.xml.gz");
    std::fs::write(&plain, &xml).expect("the plain input");
    let mut encoder = GzEncoder::new(std::fs::File::create(&compressed).expect("the file"), Compression::default());
    encoder.write_all(&xml).and_then(|()| encoder.finish()).expect("the compressed input");

    let mut group = criterion.benchmark_group("read_pubmed");
    group.throughput(Throughput::Bytes(xml.len() as u64));
    group.sample_size(10);
    for (name, path) in [("plain", plain), ("gzip", compressed)] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| Articles::new(std::slice::from_ref(&path), None, &Options::default()).flatten().count());
        });
    }
    group.finish();
}

criterion_group!(benches, read_pubmed);
criterion_main!(benches);
