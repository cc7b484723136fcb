//! The program as a person or a script meets it: help, output, errors, exit codes.

#![allow(clippy::unwrap_used)] // the helpers of tests are tests

use assert_cmd::Command;
use litflow::model::directory::Manifest;
use litflow::registry::golden;
use std::io::Write as _;
use std::path::Path;

fn litflow() -> Command {
    let mut command = Command::cargo_bin("litflow").unwrap();
    for (name, _) in std::env::vars() {
        if name.starts_with("LITFLOW_") {
            command.env_remove(name);
        }
    }
    command
}

fn stdout(command: &mut Command) -> String {
    String::from_utf8(command.assert().success().get_output().stdout.clone()).unwrap()
}

/// The tiny model with random weights that the model's own tests load.
const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/bert/ner");
const PUBTATOR: &str =
    "12345|t|BRCA1 in breast cancer\n12345|a|Loss of BRCA1 \u{1d6fc}-causes cancer.\n12345\t0\t5\tBRCA1\tGene\t672\n\n";

fn tag(arguments: &[&str], stdin: &str) -> Command {
    let mut command = litflow();
    command.args(["tag", "--model", MODEL, "--precision", "fp32"]).args(arguments).write_stdin(stdin);
    command
}

fn stderr_of_failure(command: &mut Command, code: i32) -> String {
    String::from_utf8(command.assert().code(code).get_output().stderr.clone()).unwrap()
}

#[test]
fn every_command_has_help_with_an_example() {
    let top = stdout(litflow().arg("--help"));
    assert!(top.contains("Exit codes:"), "{top}");
    for command in ["demo", "ingest", "worker", "tag", "tail", "dlq", "models", "topics", "config"] {
        assert!(top.contains(&format!("  {command} ")), "{command} is not in the list: {top}");
        let help = stdout(litflow().args([command, "--help"]));
        assert!(help.contains(&format!("  litflow {command}")), "no example: {help}");
    }
    let models = &["list", "show", "history", "verify", "import", "promote", "rollback", "gc"][..];
    let dlq = &["list", "show", "replay", "purge"][..];
    let subcommands =
        [("models", models), ("dlq", dlq), ("topics", &["create", "check", "list"]), ("config", &["show", "default"])];
    for (command, subcommands) in subcommands {
        for subcommand in subcommands {
            let help = stdout(litflow().args([command, subcommand, "--help"]));
            assert!(help.contains(&format!("\n  litflow {command} {subcommand}")), "no example: {help}");
        }
    }
}

#[test]
fn wrong_usage_is_2() {
    let told = stderr_of_failure(litflow().arg("tga"), 2);
    assert!(told.contains("unrecognized subcommand"), "{told}");
}

#[test]
fn configuration_errors_are_told_all_at_once() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"[http]\nlisten = 'nowhere'\nport = 1\n[logs]\nlevel = 'info'\n").unwrap();
    let told = stderr_of_failure(
        litflow()
            .args(["config", "show", "--config"])
            .arg(file.path())
            .args(["--log-format", "yaml"])
            .env("LITFLOW_LOG__LEVLE", "info"),
        2,
    );
    assert!(told.contains("the configuration has 5 problems"), "{told}");
    for part in ["http.listen", "http.port", "did you mean `log`?", "LITFLOW_LOG__LEVLE", "--log-format"] {
        assert!(told.contains(part), "{part} is missing: {told}");
    }
}

#[test]
fn configuration_is_shown_with_its_origins() {
    let shown = stdout(litflow().args(["config", "show"]).env("LITFLOW_HTTP__LISTEN", "127.0.0.1:9464"));
    assert!(shown.contains("listen = \"127.0.0.1:9464\"  # from LITFLOW_HTTP__LISTEN"), "{shown}");
    let json = stdout(litflow().args(["config", "show", "--json", "--log-level", "off"]));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["config"]["log"]["level"], "off");
    assert_eq!(json["origins"]["log.level"], "--log-level");
    let defaults = stdout(litflow().args(["config", "default"]));
    assert_eq!(defaults, litflow::config::DEFAULT_TOML);
}

/// Neither where it is shown, nor where something else is wrong.
#[test]
fn a_secret_in_a_file_is_told_by_the_files_name() {
    let mut secret = tempfile::NamedTempFile::new().unwrap();
    secret.write_all(b"hunter2\n").unwrap();
    let path = secret.path().display().to_string();
    let with_secrets = |arguments: &[&str]| {
        let mut command = litflow();
        command.args(arguments).env("LITFLOW_KAFKA__PROPERTIES__SECURITY_PROTOCOL", "SASL_SSL");
        command.env("LITFLOW_KAFKA__PROPERTIES__SASL_PASSWORD_FILE", &path);
        command.env("LITFLOW_KAFKA__PROPERTIES__SSL_KEY_PASSWORD", "hunter2");
        command.env("LITFLOW_REGISTRY__STORE", "s3://alice:hunter2@bucket/models");
        command
    };
    let shown =
        stdout(&mut with_secrets(&["config", "show"])) + &stdout(&mut with_secrets(&["config", "show", "--json"]));
    assert!(shown.contains(&format!("{path}, named by LITFLOW_KAFKA__PROPERTIES__SASL_PASSWORD_FILE")), "{shown}");
    let mut told = stderr_of_failure(with_secrets(&["config", "show"]).env("LITFLOW_HTTP__LISTEN", "nowhere"), 2);
    // librdkafka refuses the value, and quotes it.
    let refused = &mut with_secrets(&["tail", "articles", "--log-level", "trace"]);
    refused.env("LITFLOW_KAFKA__PROPERTIES__SASL_MECHANISM", "PLAIN").env("LITFLOW_KAFKA__PROPERTIES__DEBUG", "all");
    refused.env("LITFLOW_KAFKA__PROPERTIES__SASL_OAUTHBEARER_SCOPE_SECRET", "hunter2");
    told += &stderr_of_failure(refused, 2);
    assert!(told.contains("sasl.oauthbearer.scope.secret"), "{told}");
    assert!(!shown.contains("hunter2") && !told.contains("hunter2"), "{shown}{told}");

    let mut missing = litflow();
    missing.args(["config", "show"]).env("LITFLOW_MLFLOW__TOKEN_FILE", "/nowhere/token");
    let told = stderr_of_failure(&mut missing, 2);
    assert!(told.contains("mlflow.token_file") && told.contains("/nowhere/token"), "{told}");
}

#[test]
fn tag_writes_json_lines_in_input_order() {
    let texts: Vec<String> = (0..50)
        .map(|i| {
            serde_json::json!({"id": i.to_string(), "title": "A title", "text": "Word ".repeat(i + 1)}).to_string()
        })
        .collect();
    let lines = stdout(&mut tag(&["-", "--from", "jsonl"], &texts.join("\n")));
    let lines: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 50);
    for (i, line) in lines.iter().enumerate() {
        assert_eq!(line["article_id"], format!("jsonl:{i}"));
        assert_eq!(line["passages"][0]["section"], "title");
        assert_eq!(line["passages"][1]["offset"], 8);
        assert_eq!(line["passages"][1]["text"].as_str().unwrap().matches("Word").count(), i + 1);
        assert!(line["model"]["digest"].as_str().unwrap().starts_with("sha256:"));
        for mention in line["mentions"].as_array().unwrap() {
            let passage = line["passages"][mention["passage"].as_u64().unwrap() as usize]["text"].as_str().unwrap();
            let (begin, end) = (mention["begin"].as_u64().unwrap() as usize, mention["end"].as_u64().unwrap() as usize);
            let selected: String = passage.chars().skip(begin).take(end - begin).collect();
            assert_eq!(mention["text"], selected);
        }
    }
}

#[test]
fn tag_keeps_pubtator_lines_and_ignores_their_annotations() {
    let written = stdout(&mut tag(&["-", "--to", "pubtator"], PUBTATOR));
    let mut lines = written.lines();
    assert_eq!(lines.next(), Some("12345|t|BRCA1 in breast cancer"));
    assert_eq!(lines.next(), Some("12345|a|Loss of BRCA1 \u{1d6fc}-causes cancer."));
    assert!(!written.contains("672"), "the gold annotation was kept: {written}");
}

#[test]
fn a_broken_gold_annotation_changes_nothing() {
    let broken = PUBTATOR.replace("\t0\t5\t", "\t0\tfive\t");
    assert_ne!(broken, PUBTATOR);
    let tagged = |input| stdout(&mut tag(&["-", "--to", "pubtator"], input));
    assert_eq!(tagged(&broken), tagged(PUBTATOR));
}

#[test]
fn tag_leaves_broken_records_out_and_says_so() {
    let input = "{\"id\": \"1\", \"text\": \"One.\"}\n{\"id\": 2,\n{\"id\": \"3\", \"text\": \"Three.\"}\n";
    let assert = tag(&["-", "--from", "jsonl"], input).assert().code(3);
    let (out, err) = (&assert.get_output().stdout, String::from_utf8_lossy(&assert.get_output().stderr));
    assert_eq!(String::from_utf8_lossy(out).lines().count(), 2);
    assert!(err.contains("left out: stdin, line 2"), "{err}");
    assert!(err.contains("2 articles") && err.contains("1 record was left out"), "{err}");
}

#[test]
fn tag_refuses_what_is_not_there_before_any_work() {
    let told = stderr_of_failure(&mut tag(&["nowhere.xml"], ""), 2);
    assert!(told.contains("nowhere.xml") && told.lines().count() == 1, "{told}");
    let told = stderr_of_failure(litflow().args(["tag", "-", "--model", MODEL, "--device", "tpu"]).write_stdin(""), 2);
    assert!(told.contains("--device") && told.contains("cuda:N"), "{told}");
}

#[test]
fn a_model_that_is_missing_or_broken_is_5() {
    let told = stderr_of_failure(litflow().args(["tag", "-", "--model", "/nowhere/model"]).write_stdin(""), 5);
    assert!(told.contains("/nowhere/model") && told.lines().count() == 1, "{told}");

    let broken = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(MODEL).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), broken.path().join(file.file_name())).unwrap();
    }
    let weights = broken.path().join("model.safetensors");
    let bytes = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &bytes[..bytes.len() / 2]).unwrap();
    let told = stderr_of_failure(litflow().args(["tag", "-", "--model"]).arg(broken.path()).write_stdin(""), 5);
    assert!(told.contains("model.safetensors") && told.lines().count() == 1, "{told}");

    let elsewhere = tempfile::tempdir().unwrap();
    let program = elsewhere.path().join("litflow");
    std::fs::copy(assert_cmd::cargo::cargo_bin("litflow"), &program).unwrap();
    let told = stderr_of_failure(Command::new(program).current_dir(elsewhere.path()).args(["tag", "-"]), 5);
    assert!(told.contains("--model DIR") && told.lines().count() == 1, "{told}");
}

/// Neither a store nor Kafka is needed.
#[test]
fn a_model_directory_is_verified_on_its_own() {
    let verify = |folder: &Path| {
        let mut command = litflow();
        command.args(["models", "verify", "--precision", "fp32", "--json"]).arg(folder);
        command
    };
    let folder = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(MODEL).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
    }
    let verified = |folder| serde_json::from_str::<serde_json::Value>(&stdout(&mut verify(folder))).unwrap();
    assert_eq!((&verified(folder.path())["ok"], &verified(folder.path())["golden"]), (&true.into(), &().into()));

    let golden = folder.path().join("golden.jsonl");
    std::fs::write(&golden, "{\"text\": \"BRCA1.\", \"mentions\": []}\n").unwrap();
    let answer = stdout(&mut tag(&["-", "--from", "text"], "BRCA1.\n"));
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    let found = answer["mentions"].as_array().unwrap();
    assert!(!found.is_empty(), "random weights that find nothing in the sentence prove nothing");
    let told = stderr_of_failure(&mut verify(folder.path()), 5);
    assert!(told.contains("golden mentions are missing") && told.contains("1:"), "{told}");
    let mentions: Vec<_> = found
        .iter()
        .map(|m| serde_json::json!({"type": m["type"], "begin": m["begin"], "end": m["end"], "score": m["score"]}))
        .collect();
    std::fs::write(&golden, serde_json::json!({"text": "BRCA1.", "mentions": mentions}).to_string()).unwrap();
    let report = verified(folder.path())["golden"].clone();
    assert_eq!((&report["sentences"], &report["mentions"]), (&1.into(), &found.len().into()), "{report}");

    stderr_of_failure(&mut verify(Path::new("/nowhere/model")), 5);
}

/// It says what it said when it was made, and what says anything else is another model.
#[test]
fn the_shipped_model_is_told_from_others_by_its_golden_sentences() {
    let verify = |folder: &Path| {
        let mut command = litflow();
        command.args(["models", "verify", "--json"]).arg(folder);
        command
    };
    let shipped = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/models/biored-minilm"));
    let verified: serde_json::Value = serde_json::from_str(&stdout(&mut verify(shipped))).unwrap();
    assert_eq!((&verified["ok"], &verified["golden"]["sentences"]), (&true.into(), &200.into()), "{verified}");

    let folder = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(shipped).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
    }
    let file = folder.path().join(golden::GOLDEN);
    let recorded = golden::read(&file).unwrap().unwrap();
    let refusal = |change: &dyn Fn(&mut Vec<golden::Sentence>)| {
        let mut changed = recorded.clone();
        change(&mut changed);
        golden::write(&file, &changed).unwrap();
        Manifest::default().write(folder.path()).unwrap();
        stderr_of_failure(&mut verify(folder.path()), 5)
    };
    let told = refusal(&|sentences| sentences[6].mentions[0].score -= 0.5);
    let mention = &recorded[6].mentions[0];
    let place = format!("golden.jsonl line 7:{}-{} {}", mention.begin, mention.end, mention.entity_type);
    assert!(told.contains("differs by 0.") && told.contains(&place), "{told}");
    let told = refusal(&|sentences| sentences.iter_mut().for_each(|sentence| sentence.mentions.clear()));
    assert!(told.contains("mentions are missing and") && told.contains("golden.jsonl line 1:"), "{told}");
}

/// `litflow tag … | head -1` ends quietly.
#[test]
fn a_reader_that_has_enough_is_no_error() {
    let input = "{\"id\": \"1\", \"text\": \"One sentence.\"}\n".repeat(20_000);
    let program = assert_cmd::cargo::cargo_bin("litflow");
    let mut child = std::process::Command::new(program)
        .args(["tag", "-", "--from", "jsonl", "--model", MODEL])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let feeder = std::thread::spawn(move || {
        let _ = stdin.write_all(input.as_bytes()); // it ends before it has read everything
    });
    let mut line = String::new();
    let mut reader = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut reader, &mut line).unwrap();
    drop(reader);
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    assert!(line.starts_with('{'), "{line}");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn topics_are_listed_from_the_models_label_set() {
    let listed = stdout(litflow().args(["topics", "list", "--model", MODEL]));
    assert!(listed.lines().any(|line| line.starts_with("entities.")), "{listed}");
    let json = stdout(litflow().args(["topics", "list", "--types", "Gene,Disease", "--json"]));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let names: Vec<&str> = json.as_array().unwrap().iter().map(|topic| topic["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"entities.Gene") && names.contains(&"entities.Disease"), "{names:?}");
}

/// Broker, topics, ingest, worker and the readers, in one process.
#[test]
fn the_demo_runs_on_the_embedded_broker() {
    let demo = |arguments: &[&str], stdin: &'static str| {
        let mut command = litflow();
        command.args(["demo", "--broker", "embedded", "--model", MODEL, "--precision", "fp32"]);
        command.args(arguments).write_stdin(stdin);
        command
    };
    let json = stdout(&mut demo(&["--json"], ""));
    let summary: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&summary["articles"], &summary["tagged"]), (&34.into(), &34.into()), "{summary}");
    assert_eq!((&summary["dead_letters"], &summary["left_out"]), (&0.into(), &0.into()), "{summary}");
    assert!(summary["sentences"].as_u64().unwrap() > 200 && summary["tokens"].as_u64().unwrap() > 5_000, "{summary}");
    assert!(summary["broker"].as_str().unwrap().contains("embedded"), "{summary}");

    let assert = demo(&["-", "--from", "jsonl"], "{\"id\": \"a\", \"text\": \"One.\"}\n{\n").assert().code(3);
    let shown = String::from_utf8_lossy(&assert.get_output().stdout).into_owned();
    assert!(shown.contains("jsonl:a") && shown.contains("1 article, 1 sentence, "), "{shown}");
    let told = String::from_utf8_lossy(&assert.get_output().stderr).into_owned();
    assert!(told.contains("1 record was left out"), "{told}");
    assert!(!told.contains("WARN") && !told.contains("ERROR"), "{told}");
}

#[test]
fn a_port_in_use_ends_the_worker_before_it_loads_the_model() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let told = stderr_of_failure(litflow().args(["worker", "--listen", &address, "--model", "/nowhere"]), 1);
    assert!(told.contains("http.listen") && told.contains(&address), "{told}");
}

/// The first signal waits for what is on its way, which here never ends: stdin stays open.
#[test]
fn a_second_signal_ends_at_once_with_its_own_code() {
    use std::io::BufRead as _;
    let program = assert_cmd::cargo::cargo_bin("litflow");
    let mut child = std::process::Command::new(program)
        .args(["demo", "-", "--from", "jsonl", "--broker", "embedded", "--model", MODEL, "--precision", "fp32"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let stdin = child.stdin.take();
    let mut lines = std::io::BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let terminate = || {
        let status = std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
        assert!(status.success());
    };
    assert!(lines.any(|line| line.trim_start().starts_with("topics")), "it ended before it read stdin");
    terminate();
    assert!(lines.any(|line| line.contains("a second signal ends at once")), "the first signal ended it");
    terminate();
    assert_eq!(child.wait().unwrap().code(), Some(128 + 15));
    drop(stdin);
}
