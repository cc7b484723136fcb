//! The README's commands are run as they stand there, its links followed.
//!
//! Lines that begin with `$ ` in ```` ```console ```` blocks run in a shell, in order, in the repository's root.
//! Those under "With your own Kafka" get a broker of this test's own.

#![allow(clippy::unwrap_used)] // the helpers of tests are tests

use litflow::bus::broker::{Local, LocalOptions};
use std::path::Path;
use std::process::Command;

const README: &str = include_str!("../README.md");
const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The commands of the console blocks below a heading.
fn commands(heading: &str) -> Vec<&'static str> {
    let section = README.split("\n## ").find(|section| section.starts_with(heading)).expect("the heading is there");
    let blocks = section.split("```console\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let commands: Vec<_> = blocks.flat_map(str::lines).filter_map(|line| line.strip_prefix("$ ")).collect();
    assert!(!commands.is_empty(), "no commands under {heading}");
    commands
}

/// Runs a line of the README; its standard output.
fn run(line: &str, environment: &[(&str, &str)]) -> String {
    let binary = Path::new(env!("CARGO_BIN_EXE_litflow"));
    let path = format!("{}:{}", binary.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let mut shell = Command::new("sh");
    shell.args(["-ec", line]).current_dir(ROOT).env("PATH", path).envs(environment.iter().copied());
    let output = shell.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "`{line}` ended with {}:\n{stderr}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_commands_without_kafka_work() {
    for line in commands("Without Kafka") {
        let stdout = run(line, &[]);
        assert!(stdout.contains("BRCA") || stdout.contains("Gene"), "`{line}` found no gene:\n{stdout}");
    }
}

#[test]
fn the_commands_on_a_real_kafka_work() {
    let broker = match Local::start(&LocalOptions::default()) {
        Ok(broker) => broker,
        Err(reason) => return eprintln!("skipped: {reason}"),
    };
    let environment = [("LITFLOW_KAFKA__BOOTSTRAP_SERVERS", broker.bootstrap_servers())];
    let mut last = String::new();
    for line in commands("With your own Kafka") {
        last = run(line, &environment);
    }
    assert_eq!(last.lines().filter(|line| !line.trim().is_empty()).count(), 5, "tail shows five entities:\n{last}");
}

#[test]
fn every_command_of_the_program_stands_in_the_table() {
    let help = run("litflow --help", &[]);
    let listed = help.split("Commands:").nth(1).and_then(|rest| rest.split("Options:").next()).unwrap();
    let names = listed.lines().filter_map(|line| line.split_whitespace().next()).filter(|&name| name != "help");
    for name in names {
        assert!(README.contains(&format!("| `litflow {name}` |")), "`litflow {name}` is not in the table of commands");
    }
}

#[test]
fn the_links_lead_somewhere() {
    let targets = README.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    for target in targets.filter(|target| !target.starts_with("http")) {
        let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
        let path = Path::new(ROOT).join(file);
        assert!(path.exists(), "README.md links to {file}, which is not there");
        if !anchor.is_empty() {
            let text = std::fs::read_to_string(&path).unwrap();
            let mut headings = text.lines().filter_map(|line| line.strip_prefix("## "));
            let found = headings.any(|heading| heading.to_lowercase().replace(' ', "-") == anchor);
            assert!(found, "{file} has no heading for #{anchor}");
        }
    }
}
