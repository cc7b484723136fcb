use super::*;
use crate::analysis::Training;
use crate::evaluate::{Evaluation, Scope, evaluate as evaluate_directory};
use crate::recipe::{Documents, Stage};
use crate::testing;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tempfile::TempDir;

/// A folder with an encoder and a corpus, and the leave to use them. libtorch has one random generator
/// for the process, and both making an encoder and training draw from it: the tests take turns.
fn workplace() -> (TempDir, MutexGuard<'static, ()>) {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    testing::write_encoder(&folder.path().join("encoder"));
    testing::write_corpus(&folder.path().join("corpus.pubtator"));
    (folder, turn)
}

fn request(folder: &Path, out: &str) -> Request {
    let mut recipe = Recipe { batch_tokens: 128, dev_share: 0.25, patience: 100, ..Recipe::default() };
    recipe.model.max_length = 64;
    recipe.stages = vec![
        Stage { epochs: 1, learning_rate: 3e-3, ..Stage::default() },
        Stage { documents: Documents::Complete, epochs: 7, learning_rate: 3e-3, ..Stage::default() },
    ];
    Request {
        data: vec![folder.join("corpus.pubtator")],
        dev: Vec::new(),
        hold_out: None,
        encoder: folder.join("encoder"),
        out: folder.join(out),
        recipe,
        resume: false,
        checkpoint_every: Duration::from_secs(600),
        device: Device::Cpu,
    }
}

fn eval(request: &Request) -> Evaluation {
    evaluate_directory(&request.out, &request.data, &Scope::All, &litflow::model::Options::default()).unwrap()
}

fn weights(out: &Path) -> Vec<u8> {
    std::fs::read(out.join("model.safetensors")).unwrap()
}

#[test]
fn learns_a_corpus_by_heart_and_the_directory_says_the_same() {
    let (folder, _turn) = workplace();
    let request = request(folder.path(), "model");
    let outcome = fit(&request, &AtomicBool::new(false)).unwrap();
    let best = outcome.best.unwrap();
    assert!(!outcome.interrupted && outcome.left_out.is_empty());
    assert_eq!(best.dev.micro.f1, 1.0, "{}", best.dev.table());

    let evaluation = eval(&request);
    let config = litflow::model::Directory::read(&request.out).unwrap().config().unwrap();
    assert!(config.litflow.unwrap().calibration.unwrap().temperature < 1.0, "what is always right may be surer");
    let report = evaluation.report(None, &Training::default()).unwrap();
    assert_eq!(report.metrics.strict.micro.f1, 1.0, "{}", report.metrics.strict.table());
    assert_eq!((report.documents, report.metrics.strict.micro.support), (40, 120));
    assert_eq!(evaluation.model.name, "model");

    let metrics: serde_json::Value =
        serde_json::from_slice(&std::fs::read(request.out.join("metrics.json")).unwrap()).unwrap();
    let losses: Vec<f64> =
        metrics["epochs"].as_array().unwrap().iter().map(|epoch| epoch["loss"].as_f64().unwrap()).collect();
    assert!(losses.len() == 8 && losses[7] < losses[0] / 10.0, "{losses:?}");
    assert!(std::fs::read_to_string(request.out.join("README.md")).unwrap().contains("corpus.pubtator"));
    assert!(!request.out.join("checkpoint").exists());
}

/// Stops a run after its first step, goes on, and compares with a run that was never stopped.
#[test]
fn a_stopped_run_leaves_a_model_and_goes_on_to_the_same_weights() {
    let (folder, _turn) = workplace();
    let short = |out: &str| {
        let mut request = request(folder.path(), out);
        request.recipe.stages.truncate(1);
        request.recipe.stages[0].epochs = 2;
        request
    };
    let whole = short("whole");
    fit(&whole, &AtomicBool::new(false)).unwrap();

    let mut stopped = short("stopped");
    let outcome = fit(&stopped, &AtomicBool::new(true)).unwrap();
    assert!(outcome.interrupted && outcome.best.is_none());
    eval(&stopped);

    let again = fit(&stopped, &AtomicBool::new(false)).unwrap_err();
    assert!(again.to_string().contains("--resume") && again.exit_code() == 2, "{again}");
    stopped.resume = true;
    let outcome = fit(&stopped, &AtomicBool::new(false)).unwrap();
    assert!(!outcome.interrupted && outcome.best.is_some());
    assert!(weights(&stopped.out) == weights(&whole.out));
}

/// A run that is never trained shows what it starts with.
#[test]
fn a_warm_start_goes_on_from_the_models_own_head() {
    let (folder, _turn) = workplace();
    let first = request(folder.path(), "first");
    fit(&first, &AtomicBool::new(false)).unwrap();
    let mut warm = Request { encoder: first.out.clone(), ..request(folder.path(), "warm") };
    warm.recipe.stages.truncate(1);
    warm.recipe.stages[0].learning_rate = 1e-9;
    let outcome = fit(&warm, &AtomicBool::new(false)).unwrap();
    assert_eq!(outcome.best.unwrap().dev.micro.f1, 1.0);
}

#[test]
fn a_checkpoint_of_another_recipe_or_of_none_is_refused() {
    let (folder, _turn) = workplace();
    let mut other = request(folder.path(), "model");
    other.resume = true;
    let error = fit(&other, &AtomicBool::new(false)).unwrap_err();
    assert!(error.to_string().contains("no checkpoint"), "{error}");
    other.resume = false;
    fit(&other, &AtomicBool::new(true)).unwrap();
    other.resume = true;
    other.recipe.seed += 1;
    let error = fit(&other, &AtomicBool::new(false)).unwrap_err();
    assert!(error.to_string().contains("another recipe"), "{error}");
}

#[test]
fn an_encoder_that_lacks_something_is_refused_before_anything_is_written() {
    let (folder, _turn) = workplace();
    let request = request(folder.path(), "model");
    std::fs::remove_file(request.encoder.join("tokenizer.json")).unwrap();
    let error = fit(&request, &AtomicBool::new(false)).err().unwrap();
    assert!(error.to_string().contains("tokenizer.json"), "{error}");
    assert!(!request.out.exists());
}
