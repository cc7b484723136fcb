//! A gzip file of 30,000 citations passes through `litflow tag` and `litflow ingest` in less than 200 MB, the
//! model's own memory aside. The program runs as a process of its own, and the kernel says what it took.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)] // helpers of a test

#[path = "support/citations.rs"]
mod citations;

use flate2::{Compression, write::GzEncoder};
use rdkafka::mocking::MockCluster;
use std::fs::File;
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const CITATIONS: usize = 30_000;
const LIMIT: u64 = 200_000_000;
/// The tiny model with random weights that the model's own tests load: its mentions mean nothing, and are many.
const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/bert/ner");

#[test]
fn tagging_takes_a_bounded_memory_beside_the_model() {
    // The first ones, more than are on their way at a time, fill all queues with whole abstracts. The others,
    // without, show that none leaves anything behind.
    let (few, many) = (tag(1, 1), tag(CITATIONS, 1_500));
    eprintln!("tag: {} MB, of which {} MB for one citation", many / 1_000_000, few / 1_000_000);
    assert!(many - few < LIMIT, "{many} bytes, of which the model and the program take {few}");
}

/// The peak memory of `litflow tag`.
fn tag(count: usize, abstracts: usize) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    let input = write_input(folder.path(), count, abstracts);
    let mut command = litflow(&["tag", "--model", MODEL, "--precision", "fp32"]);
    let ended = Program::start(command.arg(input), folder.path()).wait();
    assert_eq!(ended.stdout.lines().count(), count, "{}", ended.stderr);
    ended.peak_memory
}

#[test]
fn ingesting_takes_a_bounded_memory_though_the_cluster_is_away() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("articles", 12, 1).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let input = write_input(folder.path(), CITATIONS, CITATIONS);
    let mut command = litflow(&["ingest", "--json", "--bootstrap-servers", &cluster.bootstrap_servers()]);
    let program = Program::start(command.arg(&input), folder.path());
    // While the broker is down nothing leaves the program, so what was read has piled up in it. The events of the
    // whole file are twice what it may hold.
    wait_until("it reads", || program.has_read(&input) > 0);
    cluster.broker_down(1).unwrap();
    let least = input.metadata().unwrap().len() * 2 / 5;
    let mut last_step = (0, Instant::now());
    wait_until("it is full and reads no further", || {
        let read = program.has_read(&input);
        if read > last_step.0 {
            last_step = (read, Instant::now());
        }
        read > least && last_step.1.elapsed() > Duration::from_secs(2)
    });
    cluster.broker_up(1).unwrap();
    let ended = program.wait();
    let counts: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!((&counts["articles"], &counts["left_out"]), (&CITATIONS.into(), &0.into()));
    let events = counts["bytes"].as_u64().unwrap();
    eprintln!("ingest: {} MB, {} MB of events", ended.peak_memory / 1_000_000, events / 1_000_000);
    assert!(ended.peak_memory < LIMIT, "{} bytes", ended.peak_memory);
}

/// A gzip file of citations in `folder`.
fn write_input(folder: &Path, count: usize, abstracts: usize) -> PathBuf {
    let path = folder.join("citations.xml.gz");
    let mut encoder = GzEncoder::new(File::create(&path).unwrap(), Compression::fast());
    citations::write_citations(&mut encoder, count, abstracts).unwrap();
    encoder.finish().unwrap();
    path
}

fn litflow(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_litflow"));
    command.args(arguments);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("LITFLOW_")) {
        command.env_remove(name);
    }
    command
}

/// A running program, its output in files, so that no reader holds it up.
struct Program {
    pid: libc::pid_t,
    stdout: PathBuf,
    stderr: PathBuf,
    /// The largest resident set that this test had before.
    own_peak: u64,
}

struct Ended {
    stdout: String,
    stderr: String,
    /// The largest resident set, in bytes.
    peak_memory: u64,
}

impl Program {
    fn start(command: &mut Command, folder: &Path) -> Self {
        let (stdout, stderr) = (folder.join("stdout"), folder.join("stderr"));
        command.stdout(File::create(&stdout).unwrap()).stderr(File::create(&stderr).unwrap());
        let own_peak = own_peak_memory();
        let pid = libc::pid_t::try_from(command.spawn().unwrap().id()).unwrap();
        Self { pid, stdout, stderr, own_peak }
    }

    /// How far it has come in a file, in bytes; 0 where it has not opened it.
    fn has_read(&self, file: &Path) -> u64 {
        let process = PathBuf::from(format!("/proc/{}", self.pid));
        let open = std::fs::read_dir(process.join("fd")).unwrap().map(|entry| entry.unwrap());
        let Some(open) = open.into_iter().find(|open| open.path().read_link().is_ok_and(|target| target == file))
        else {
            return 0;
        };
        let told = std::fs::read_to_string(process.join("fdinfo").join(open.file_name())).unwrap_or_default();
        let position = told.lines().find_map(|line| line.strip_prefix("pos:"));
        position.map_or(0, |position| position.trim().parse().unwrap())
    }

    /// Waits for its end.
    fn wait(self) -> Ended {
        let (mut status, mut usage) = (0, MaybeUninit::<libc::rusage>::uninit());
        // SAFETY: both pointers are valid for writing, and nobody else waits for this child.
        let waited = unsafe { libc::wait4(self.pid, &raw mut status, 0, usage.as_mut_ptr()) };
        assert_eq!(waited, self.pid, "{}", std::io::Error::last_os_error());
        // SAFETY: `wait4` has succeeded, so it has filled it in.
        let usage = unsafe { usage.assume_init() };
        let peak_memory = u64::try_from(usage.ru_maxrss).unwrap() * 1024;
        let stderr = std::fs::read_to_string(&self.stderr).unwrap();
        assert_eq!(status, 0, "{stderr}");
        // To the kernel a process was the one that started it, until `exec`, and its peak counts.
        assert!(self.own_peak < peak_memory, "this test itself took {}: {peak_memory} says nothing", self.own_peak);
        Ended { stdout: std::fs::read_to_string(&self.stdout).unwrap(), stderr, peak_memory }
    }
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !condition() {
        assert!(Instant::now() < deadline, "waited too long until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The largest resident set of this process so far, in bytes.
fn own_peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}
