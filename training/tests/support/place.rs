//! A place where the monthly job can run: what its tests share.

// Each test binary uses its part; the lint knows test functions, not what they share.
#![allow(dead_code, clippy::unwrap_used)]

use crate::cluster::{Cluster, wait_until};
use crate::support;
use litflow::bus::records::ModelVersion;
use litflow::registry::{self, Registry};
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

pub const NAME: &str = "tiny";

/// A cluster, an encoder, a corpus, a recipe, and a registry in a folder.
pub struct Place {
    pub cluster: Cluster,
    folder: TempDir,
}

impl Place {
    pub fn new() -> Option<Self> {
        let place = Self { cluster: Cluster::start()?, folder: tempfile::tempdir().unwrap() };
        support::write_encoder(&place.path("encoder"));
        support::write_corpus(&place.path("corpus.pubtator"));
        let documents = fs::read_to_string(place.path("corpus.pubtator")).unwrap();
        let documents: Vec<&str> = documents.trim_end().split("\n\n").collect();
        let (first, rest) = documents.split_at(20);
        fs::write(place.path("first.pubtator"), first.join("\n\n") + "\n").unwrap();
        fs::write(place.path("rest.pubtator"), rest.join("\n\n") + "\n").unwrap();
        place.recipe(NAME, 3e-3, 7);
        Some(place)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes `NAME.toml`, with a gate that does not mind how fast a machine at other work is.
    pub fn recipe(&self, name: &str, learning_rate: f64, epochs: usize) {
        self.recipe_with_gate(name, learning_rate, epochs, "speed_drop = 0.9");
    }

    pub fn recipe_with_gate(&self, name: &str, learning_rate: f64, epochs: usize, gate: &str) {
        let recipe = format!(
            "batch_tokens = 128\ndev_share = 0.25\npatience = 100\n[model]\nname = \"{name}\"\nversion = \"1.0.0\"\n\
             max_length = 64\n[gate]\n{gate}\n[[stages]]\nepochs = {epochs}\nlearning_rate = {learning_rate}\n"
        );
        fs::write(self.path(&format!("{name}.toml")), recipe).unwrap();
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_litflow-train"));
        command.current_dir(self.folder.path()).args(arguments);
        command.args(["--bootstrap-servers", self.cluster.broker.bootstrap_servers()]);
        command.env("LITFLOW_REGISTRY__CACHE", self.path("cache")).env("LITFLOW_REGISTRY__STORE", self.path("store"));
        command
    }

    pub fn import(&self, file: &str) {
        let imported = self.command(&["import", file]).output().unwrap();
        assert_eq!(imported.status.code(), Some(0), "{}", stderr(&imported));
    }

    pub fn job(&self, name: &str, more: &[&str]) -> Command {
        let (recipe, work) = (format!("{name}.toml"), format!("work-{name}"));
        let arguments =
            ["run", "--work", &work, "--encoder", "encoder", "--recipe", &recipe, "--json", "--device", "cpu"];
        self.command(&[&arguments[..], &["--hold-out-share", "0.2"], more].concat())
    }

    /// Does the job: its exit code and what it printed.
    pub fn run(&self, name: &str, more: &[&str]) -> (Option<i32>, serde_json::Value, String) {
        let output = self.job(name, more).output().unwrap();
        let json = serde_json::from_slice(&output.stdout).unwrap_or_default();
        (output.status.code(), json, stderr(&output))
    }

    pub fn registry_options(&self) -> registry::Options {
        let store = self.path("store").to_str().unwrap().to_owned();
        registry::Options { store, cache: Some(self.path("cache")), ..registry::Options::default() }
    }

    pub fn registry(&self) -> Registry {
        Registry::create(&self.registry_options(), &self.cluster.options("registry")).unwrap()
    }

    /// A strict F1 of a version on the hold-out, `/micro` or `/types/Gene`.
    pub fn hold_out_f1(&self, version: &str, of: &str) -> f64 {
        let metrics = fs::read(self.path(&format!("store/{NAME}/{version}/metrics.json"))).unwrap();
        let metrics: serde_json::Value = serde_json::from_slice(&metrics).unwrap();
        metrics.pointer(&format!("/hold_out/strict{of}/f1")).unwrap().as_f64().unwrap()
    }

    /// What the gate said about a version, and why.
    pub fn decision(&self, version: &str) -> serde_json::Value {
        serde_json::from_slice(&fs::read(self.path(&format!("store/{NAME}/{version}/decision.json"))).unwrap()).unwrap()
    }

    pub fn state(&self, name: &str) -> ModelVersion {
        self.registry().announcements().unwrap().get(name).unwrap().unwrap().clone()
    }
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Kills a job as soon as `is_time`; true where it was alive until then.
pub fn kill_when(job: &mut Command, is_time: impl Fn() -> bool) -> bool {
    end_when(job, "-KILL", is_time).is_none()
}

/// Sends a job this signal as soon as `is_time`, or waits until it has ended by itself: its exit code.
pub fn end_when(job: &mut Command, signal: &str, is_time: impl Fn() -> bool) -> Option<i32> {
    let mut child = job.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_until("the moment to end it has come", || child.try_wait().unwrap().is_some() || is_time());
    let _ = Command::new("kill").args([signal, &child.id().to_string()]).stderr(Stdio::null()).status().unwrap();
    child.wait().unwrap().code()
}
