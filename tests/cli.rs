//! The program as a person or a script meets it: help, output, errors, exit codes.

use assert_cmd::Command;
use std::io::Write as _;

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

fn stderr_of_failure(command: &mut Command, code: i32) -> String {
    String::from_utf8(command.assert().code(code).get_output().stderr.clone()).unwrap()
}

#[test]
fn every_command_has_help_with_an_example() {
    let top = stdout(litflow().arg("--help"));
    assert!(top.contains("Exit codes:"), "{top}");
    for command in ["config"] {
        assert!(top.contains(&format!("  {command} ")), "{command} is not in the list: {top}");
        let help = stdout(litflow().args([command, "--help"]));
        assert!(help.contains(&format!("  litflow {command}")), "no example: {help}");
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
