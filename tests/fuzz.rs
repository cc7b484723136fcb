//! The fuzz targets' committed inputs, without a fuzzer: the seeds, and what the fuzzer has found
//! (`tests/fixtures/fuzz`). `make fuzz` looks for more.
#![allow(clippy::unwrap_used)] // helpers of a test

#[path = "../fuzz/src/articles.rs"]
mod articles;
#[path = "../fuzz/src/avro.rs"]
mod avro;
#[path = "../fuzz/src/memory.rs"]
mod memory;
#[path = "../fuzz/src/model.rs"]
mod model;
#[path = "support/replay.rs"]
mod replay;

use replay::replay;

macro_rules! replays {
    ($($target:ident: $module:ident;)*) => {
        $(
            #[test]
            fn $target() {
                replay(stringify!($target), $module::$target);
            }
        )*

        /// Those whose inputs are replayed here; the formats of labels are `training/tests/fuzz.rs`'s.
        const TARGETS: &[&str] = &[$(stringify!($target)),*];
    };
}

replays! {
    pubmed: articles;
    jats: articles;
    pubtator: articles;
    bioc_xml: articles;
    bioc_json: articles;
    jsonl: articles;
    text: articles;
    avro: avro;
    config: model;
    manifest: model;
    tokenizer: model;
    pickle: model;
    checkpoint: model;
}

#[test]
fn every_target_is_replayed() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/fuzz_targets");
    for file in std::fs::read_dir(folder).unwrap() {
        let name = file.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned();
        assert!(TARGETS.contains(&name.as_str()) || ["labels", "brat"].contains(&name.as_str()), "{name}");
    }
}
