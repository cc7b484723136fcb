//! How fast text goes through the sentence splitter and the offset index.
//!
//! `cargo bench --bench text`

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use litflow::text::{CodePoints, sentences};
use std::hint::black_box;

const ABSTRACT: &str = "We examined the effect of TNF-α (10 ng/ml; Fig. 2) on E. coli clearance in mice treated i.v. \
    with IL-2. The clearance rate was 0.5 ± 0.1 h in both groups (P < 0.05). p53 was up-regulated, as shown by Smith et al. \
    [12] for human cells. In contrast, c-Myc and mTOR did not change (see Table 1). We conclude that TNF-α acts via p53. ";

fn text(criterion: &mut Criterion) {
    let mixed = ABSTRACT.repeat(2_000);
    let ascii = mixed.replace('α', "alpha").replace('±', "+/-");
    let mut group = criterion.benchmark_group("text");
    for (name, text) in [("mixed", &mixed), ("ascii", &ascii)] {
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(format!("sentences/{name}"), |bencher| bencher.iter(|| sentences(black_box(text))));
        group
            .bench_function(format!("code_points/{name}"), |bencher| bencher.iter(|| CodePoints::new(black_box(text))));
    }
    group.finish();
}

criterion_group!(benches, text);
criterion_main!(benches);
