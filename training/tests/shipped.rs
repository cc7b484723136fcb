//! The model in `models/` is the one that the recipe and the card speak of.

use litflow_training::analysis::Training;
use litflow_training::evaluate::{Scope, evaluate};
use litflow_training::recipe::Recipe;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn the_model_carries_the_recipe_that_is_in_the_repository() {
    let read = |file: &str| serde_json::to_value(Recipe::read(&root().join(file)).unwrap()).unwrap();
    assert_eq!(read("models/biored-minilm/recipe.toml"), read("training/recipes/biored-minilm.toml"));
}

/// Loading verifies every file's digest.
#[test]
fn the_engine_finds_what_the_card_says_on_documents_held_out() {
    let corpus = root().join("../shared/corpora/aioner/BioRED_TrainDev.PubTator");
    if !corpus.exists() {
        eprintln!("skipped: there is no {}", corpus.display());
        return;
    }
    let model = root().join("models/biored-minilm");
    let evaluation = evaluate(&model, &[corpus], &Scope::HeldOut, &litflow::model::Options::default()).unwrap();
    let report = evaluation.report(None, &Training::default()).unwrap();
    let micro = report.metrics.strict.micro;
    assert_eq!((report.documents, micro.support), (84, 2858));
    let f1 = micro.f1;
    assert!((f1 - 0.8473).abs() < 0.002, "{f1}");
}
