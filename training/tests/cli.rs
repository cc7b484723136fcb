//! The command as a user has it: exit codes, JSON, Ctrl-C.

// The lint knows test functions, not their helpers.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

const RECIPE: &str = r#"
batch_tokens = 128
dev_share = 0.25

[model]
name = "tiny"
max_length = 64

[[stages]]
epochs = 3
learning_rate = 3e-3
"#;

fn workplace() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    support::write_encoder(&folder.path().join("encoder"));
    support::write_corpus(&folder.path().join("corpus.pubtator"));
    std::fs::write(folder.path().join("recipe.toml"), RECIPE).unwrap();
    folder
}

fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_litflow-train"));
    command.current_dir(folder).args(arguments);
    command
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    command(folder, arguments).output().unwrap()
}

const FIT: [&str; 9] =
    ["fit", "--data", "corpus.pubtator", "--encoder", "encoder", "--recipe", "recipe.toml", "--out", "model"];

const RUN: [&str; 7] = ["run", "--work", "work", "--encoder", "encoder", "--recipe", "recipe.toml"];

#[test]
fn fit_and_eval() {
    let folder = workplace();
    let fitted = run(folder.path(), &FIT);
    let (results, log) = (String::from_utf8_lossy(&fitted.stdout), String::from_utf8_lossy(&fitted.stderr));
    assert_eq!(fitted.status.code(), Some(0), "{log}");
    assert!(results.contains("micro") && log.contains("dev precision"), "{results}\n{log}");

    let evaluated = run(folder.path(), &["eval", "--model", "model", "--data", "corpus.pubtator", "--json"]);
    assert_eq!(evaluated.status.code(), Some(0));
    let json: serde_json::Value = serde_json::from_slice(&evaluated.stdout).unwrap();
    for scores in ["/strict/micro", "/strict/macro", "/strict/types/Gene", "/strict/types/Disease"] {
        let scores = json.pointer(scores).unwrap();
        for name in ["precision", "recall", "f1"] {
            assert!((0.0..=1.0).contains(&scores[name].as_f64().unwrap()));
        }
        assert!(scores["support"].is_u64());
    }
    assert_eq!(json["model"]["name"], "tiny");
    let table = run(folder.path(), &["eval", "--model", "model", "--data", "corpus.pubtator"]);
    assert!(String::from_utf8_lossy(&table.stdout).contains("precision  recall"));
}

#[test]
fn interrupted_the_run_leaves_a_model_and_can_go_on() {
    let folder = workplace();
    for (signal, code) in [("-TERM", 143), ("-INT", 130)] {
        let _ = std::fs::remove_dir_all(folder.path().join("model"));
        interrupt(folder.path(), signal, code);
    }
    let evaluated = run(folder.path(), &["eval", "--model", "model", "--data", "corpus.pubtator"]);
    assert_eq!(evaluated.status.code(), Some(0), "{}", String::from_utf8_lossy(&evaluated.stderr));
    let elsewhere = run(folder.path(), &[&FIT[..], &["--resume"]].concat());
    assert_eq!(elsewhere.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&elsewhere.stderr).contains("another recipe"));
}

/// Trains until the signal ends it, in its second epoch.
fn interrupt(folder: &Path, signal: &str, code: i32) {
    let endless = [&FIT[..], &["--epochs", "2000"]].concat();
    let mut child = command(folder, &endless).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("epoch 2/") {
        line.clear();
        assert!(log.read_line(&mut line).unwrap() > 0, "the run ended by itself");
    }
    let killed = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let mut rest = String::new();
    log.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(code), "{rest}");
    assert!(rest.contains("--resume"), "{rest}");
}

#[test]
fn wrong_input_is_named_and_has_its_exit_code() {
    let folder = workplace();
    std::fs::write(folder.path().join("empty"), "").unwrap();
    std::fs::write(folder.path().join("bare.txt"), "1\n2\n").unwrap();
    std::fs::write(folder.path().join("bad.toml"), "epochs = 3\n").unwrap();
    let replaced = |from: &str, to: &str| -> Output {
        let arguments: Vec<&str> = FIT.iter().map(|argument| if *argument == from { to } else { argument }).collect();
        run(folder.path(), &arguments)
    };
    for (output, code, said) in [
        (replaced("corpus.pubtator", "nowhere"), 1, "nowhere"),
        (replaced("corpus.pubtator", "empty"), 2, "holds no labelled document"),
        (replaced("encoder", "nowhere"), 1, "nowhere"),
        (replaced("recipe.toml", "bad.toml"), 2, "epochs"),
        (run(folder.path(), &["fit", "--data", "corpus.pubtator"]), 2, "--encoder"),
        (run(folder.path(), &[&FIT[..], &["--hold-out", "bare.txt"]].concat()), 2, "bare.txt is in the data"),
        (run(folder.path(), &[&RUN[..], &["--alias", "rejected"]].concat()), 2, "name another alias"),
        (run(folder.path(), &["eval", "--model", "encoder", "--data", "corpus.pubtator"]), 1, "id2label"),
    ] {
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{log}");
        assert!(log.contains(said), "{log}");
    }
}

#[test]
fn what_is_left_out_is_said_by_the_exit_code() {
    let folder = workplace();
    assert_eq!(run(folder.path(), &FIT).status.code(), Some(0));
    let mut corpus = std::fs::read_to_string(folder.path().join("corpus.pubtator")).unwrap();
    corpus.push_str("99|t|The gene xq1\n99|a|\n99\t0\t3\txq1\tGene\t\n\n");
    std::fs::write(folder.path().join("flawed.pubtator"), corpus).unwrap();
    let evaluated = run(folder.path(), &["eval", "--model", "model", "--data", "flawed.pubtator"]);
    assert_eq!(evaluated.status.code(), Some(3));
    let log = String::from_utf8_lossy(&evaluated.stderr);
    assert!(log.contains("1 annotations whose offsets do not select their text"), "{log}");
}

/// Steps of the checkpoint in `model`; 0 where there is none.
fn checkpoint_steps(folder: &Path) -> u64 {
    let state = std::fs::read(folder.join("model/checkpoint/state.json")).unwrap_or_default();
    serde_json::from_slice(&state).map_or(0, |state: serde_json::Value| state["steps"].as_u64().unwrap_or(0))
}

#[test]
fn a_kill_and_a_full_disk_leave_the_checkpoint_and_the_run_goes_on_to_the_same_model() {
    let (whole, folder) = (workplace(), workplace());
    assert_eq!(run(whole.path(), &FIT).status.code(), Some(0));

    // SIGKILL, at any moment.
    let every_step = [&FIT[..], &["--checkpoint-seconds", "0"]].concat();
    let mut child = command(folder.path(), &every_step).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while checkpoint_steps(folder.path()) < 3 {
        assert!(child.try_wait().unwrap().is_none(), "the run ended by itself");
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let steps = checkpoint_steps(folder.path());

    // A disk that takes no more than 16 kB of a file: the checkpoint's weights do not fit.
    let resume = [&every_step[..], &["--resume"]].concat();
    let limited = format!("trap '' XFSZ; ulimit -f 16; exec '{}' \"$@\"", env!("CARGO_BIN_EXE_litflow-train"));
    let mut shell = Command::new("bash");
    let full = shell.current_dir(folder.path()).args(["-c", &limited, "sh"]).args(&resume).output().unwrap();
    let log = String::from_utf8_lossy(&full.stderr);
    assert_eq!(full.status.code(), Some(1), "{log}");
    assert!(log.contains("checkpoint.new") && log.contains("too large"), "{log}");
    assert!(checkpoint_steps(folder.path()) >= steps, "the old one stays whole");

    let resumed = run(folder.path(), &resume);
    assert_eq!(resumed.status.code(), Some(0), "{}", String::from_utf8_lossy(&resumed.stderr));
    let [whole, resumed] = [whole, folder].map(|of| std::fs::read(of.path().join("model/model.safetensors")).unwrap());
    assert!(whole == resumed, "not the weights of a run that was never stopped");
}

#[test]
fn an_encoder_whose_vocabulary_does_not_fit_its_tokenizer_is_refused() {
    let folder = workplace();
    let file = folder.path().join("encoder/tokenizer.json");
    let mut tokenizer: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    tokenizer["model"]["vocab"]["beyond"] = 5000.into();
    std::fs::write(&file, tokenizer.to_string()).unwrap();
    let output = run(folder.path(), &FIT);
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{log}");
    assert!(log.contains("tokenizer.json") && log.contains("5000"), "{log}");
    assert!(!folder.path().join("model").exists());
}

#[test]
fn a_closed_stdout_is_no_error_and_a_full_one_is() {
    let folder = workplace();
    let closed = |arguments: &[&str]| {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        command(folder.path(), arguments).stdout(writer).stderr(Stdio::piped()).output().unwrap()
    };
    let full = |arguments: &[&str]| {
        let device = std::fs::File::options().write(true).open("/dev/full").unwrap();
        command(folder.path(), arguments).stdout(device).stderr(Stdio::piped()).output().unwrap()
    };
    snapshot(folder.path());
    let eval = ["eval", "--model", "model", "--data", "corpus.pubtator"];
    let import = ["import", "--dry-run", "--json", "corpus.pubtator"];
    let export = ["export", "--to", "conll", "--snapshot", "snapshot"];
    for arguments in [&FIT[..], &eval, &import, &export] {
        let output = closed(arguments);
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(0) && !log.contains("error:"), "{arguments:?} {log}");
    }
    for arguments in [&eval[..], &import, &export] {
        let output = full(arguments);
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && log.contains("No space left on device"), "{arguments:?} {log}");
    }

    // What was found out before stays the exit code.
    std::fs::write(folder.path().join("flawed.pubtator"), "1|t|The gene xq1\n1|a|\n1\t0\t3\txq1\tGene\t\n\n").unwrap();
    assert_eq!(closed(&["import", "--dry-run", "--json", "flawed.pubtator"]).status.code(), Some(3));
}

/// A snapshot of one document, larger than what is written at a time.
fn snapshot(folder: &Path) {
    use sha2::Digest as _;
    let text = "BRCA1 in mice. ".repeat(10_000);
    let documents = serde_json::json!({
        "document_id": "pmid:1", "passages": [{"section": "body", "text": text}], "spans": [],
        "entity_types": ["Gene"], "annotator": "ada", "open": [],
    });
    let documents = format!("{documents}\n");
    let digest: String = sha2::Sha256::digest(&documents).iter().map(|byte| format!("{byte:02x}")).collect();
    let summary = serde_json::json!({
        "topic": "labels", "offsets": {}, "digest": format!("sha256:{digest}"), "documents": 1, "mentions": {},
        "records": 1, "superseded": 0, "withdrawn": 0, "left_out": {},
    });
    std::fs::create_dir(folder.join("snapshot")).unwrap();
    std::fs::write(folder.join("snapshot/documents.jsonl"), documents).unwrap();
    std::fs::write(folder.join("snapshot/snapshot.json"), summary.to_string()).unwrap();
}

#[test]
fn a_tombstone_takes_one_id_and_nothing_that_is_none() {
    let folder = workplace();
    for (id, said) in [
        ("corpus.pubtator", "it is a file"),
        ("", "no document id"),
        ("12345", "no document id"),
        (":1", "no document id"),
        ("pmid:", "no document id"),
    ] {
        let output = run(folder.path(), &["import", "--tombstone", "pmid:39", "--tombstone", id, "--dry-run"]);
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && log.contains(said), "{id:?} {log}");
    }
    // What follows the id is a file to import.
    let output = run(folder.path(), &["import", "--dry-run", "--tombstone", "pmid:39", "corpus.pubtator"]);
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(0) && log.contains("40 documents and 120 spans"), "{log}");
}

#[test]
fn an_export_that_fails_leaves_the_earlier_one() {
    let folder = workplace();
    let file = folder.path().join("labels.jsonl");
    std::fs::write(&file, "earlier").unwrap();
    let output = run(folder.path(), &["export", "--to", "jsonl", "--out", "labels.jsonl", "--snapshot", "nowhere"]);
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "earlier");
    assert!(!folder.path().join("labels.jsonl.new").exists());
}

#[test]
fn a_cause_is_told_once() {
    let folder = workplace();
    let output = run(folder.path(), &["fit", "--data", "nowhere", "--encoder", "encoder", "--out", "model"]);
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(log.matches("No such file").count(), 1, "{log}");
}

#[test]
fn golden_sentences_become_a_part_of_the_model() {
    let folder = workplace();
    assert_eq!(run(folder.path(), &FIT).status.code(), Some(0));
    let model = folder.path().join("model");
    let digest = || litflow::model::directory::manifest_digest(&model).unwrap();
    let (before, golden) = (digest(), ["golden", "--model", "model", "articles.txt"]);
    let write = |text: &str| std::fs::write(folder.path().join("articles.txt"), text).unwrap();

    write("");
    let refused = run(folder.path(), &golden);
    assert_eq!((refused.status.code(), digest()), (Some(2), before.clone()));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("finds nothing"));

    write("The gene abc1 causes cancer in mice. Fever of mice and the gene xyz2.");
    let added = run(folder.path(), &golden);
    assert_eq!(added.status.code(), Some(0), "{}", String::from_utf8_lossy(&added.stderr));
    let file = model.join("golden.jsonl");
    let sentences = litflow::registry::golden::read(&file).unwrap().unwrap();
    assert!(!sentences.is_empty() && sentences.iter().all(|sentence| !sentence.mentions.is_empty()));
    let manifest = std::fs::read_to_string(model.join("manifest.json")).unwrap();
    assert!(manifest.contains("golden.jsonl") && manifest.contains("\"data\": \"sha256:"), "{manifest}");
    assert_ne!(digest(), before);
    let evaluated = run(folder.path(), &["eval", "--model", "model", "--data", "corpus.pubtator"]);
    assert_eq!(evaluated.status.code(), Some(0), "the manifest fits its files");

    let (kept, again) = (std::fs::read(&file).unwrap(), run(folder.path(), &golden));
    assert_eq!((again.status.code(), std::fs::read(&file).unwrap()), (Some(2), kept));
    assert!(String::from_utf8_lossy(&again.stderr).contains("golden.jsonl is there already"));
}
