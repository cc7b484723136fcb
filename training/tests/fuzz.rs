//! The fuzz targets' committed inputs of labelled documents, without a fuzzer; `tests/fuzz.rs` has the others.
#![allow(clippy::unwrap_used)] // helpers of a test

#[path = "../../fuzz/src/labels.rs"]
mod labels;
#[path = "../../fuzz/src/memory.rs"]
mod memory;
#[path = "../../tests/support/replay.rs"]
mod replay;

use replay::replay;

#[test]
fn labels() {
    replay("labels", labels::labels);
}

#[test]
fn brat() {
    replay("brat", labels::brat);
}
