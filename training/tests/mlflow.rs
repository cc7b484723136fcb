//! On a real MLflow server, where `mlflow` can be started: `MLFLOW_COMMAND` names the command, else it is looked
//! for in the search path.

// The lint knows test functions, not what they share.
#![allow(clippy::unwrap_used)]

#[path = "../../tests/support/mod.rs"]
mod cluster;
#[path = "support/place.rs"]
mod place;
mod support;

use litflow::config::Mlflow as Options;
use litflow::registry::Occasion;
use litflow_training::mlflow::{Error, Mlflow, Trained};
use place::{NAME, Place, stderr};
use serde_json::Value;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

struct Server {
    process: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Server {
    /// Starts one; none, with a note, where there is no `mlflow`.
    fn start() -> Option<Self> {
        let command = std::env::var_os("MLFLOW_COMMAND").unwrap_or_else(|| "mlflow".into());
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let database = format!("sqlite:///{}", folder.path().join("mlflow.db").display());
        let process = Command::new(command)
            .args(["server", "--host", "127.0.0.1", "--port", &port.to_string(), "--workers", "1"])
            .args(["--backend-store-uri", &database, "--serve-artifacts"])
            .arg("--artifacts-destination")
            .arg(folder.path().join("artifacts"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .inspect_err(|_| eprintln!("skipped: there is no `mlflow` to start (`pip install mlflow==3.17.2`)"))
            .ok()?;
        let server = Self { process, port, _folder: folder };
        let deadline = Instant::now() + Duration::from_secs(120);
        while reqwest::blocking::get(server.url("/health")).is_err() {
            assert!(Instant::now() < deadline, "the MLflow server does not answer");
            std::thread::sleep(Duration::from_millis(100));
        }
        Some(server)
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    fn get(&self, path: &str) -> Value {
        serde_json::from_str(&reqwest::blocking::get(self.url(path)).unwrap().text().unwrap()).unwrap()
    }

    /// The id of the run whose version has this alias.
    fn alias(&self, alias: &str) -> Option<String> {
        let path = format!("/api/2.0/mlflow/registered-models/alias?name={NAME}&alias={alias}");
        self.get(&path)["model_version"]["run_id"].as_str().map(str::to_owned)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It ends its workers when it is asked to.
        let _ = Command::new("kill").arg(self.process.id().to_string()).status();
        let _ = self.process.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn options(port: u16) -> Options {
    Options { tracking_uri: Some(format!("http://127.0.0.1:{port}/")), ..Options::default() }
}

fn trained<'a>(version: &'a str, digest: &'a str, artifacts: &'a [PathBuf]) -> Trained<'a> {
    Trained {
        name: "tiny",
        version,
        digest,
        parameters: [("optimizer.clip_norm".to_owned(), "1.0".to_owned())].into(),
        metrics: vec![("dev.f1".to_owned(), 10, 0.5), ("dev.f1".to_owned(), 20, 0.75)],
        artifacts,
    }
}

#[test]
fn runs_and_versions_are_mirrored_once_with_their_aliases() {
    let Some(server) = Server::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report.md");
    std::fs::write(&report, "# tiny 1.0.0\n").unwrap();
    let artifacts = [report];
    let mlflow = Mlflow::new(&options(server.port)).unwrap().unwrap();
    let align = |aliases: &[(&'static str, &'static str)]| mlflow.align("tiny", &aliases.iter().copied().collect());
    align(&[("champion", "sha256:aa")]).unwrap(); // nothing of it is there yet
    let run = mlflow.mirror(&trained("1.0.0", "sha256:aa", &artifacts)).unwrap();
    // Again: the same run, the same version.
    assert_eq!(mlflow.mirror(&trained("1.0.0", "sha256:aa", &artifacts)).unwrap(), run);
    let second = mlflow.mirror(&trained("1.1.0", "sha256:bb", &[])).unwrap();
    assert_ne!(second, run);

    let found = server.get(&format!("/api/2.0/mlflow/runs/get?run_id={run}"));
    let data = &found["run"]["data"];
    assert_eq!(found["run"]["info"]["status"], "FINISHED");
    assert_eq!(data["params"][0]["key"], "optimizer.clip_norm");
    assert_eq!(data["metrics"][0]["value"], 0.75);
    let path = format!("/api/2.0/mlflow/metrics/get-history?run_id={run}&metric_key=dev.f1");
    assert_eq!(server.get(&path)["metrics"].as_array().unwrap().len(), 2);
    let listed = server.get(&format!("/api/2.0/mlflow/artifacts/list?run_id={run}"));
    assert_eq!(listed["files"][0]["path"], "report.md");

    // Aliases follow the registry, whoever moved them there.
    let alias = |name: &str| server.alias(name);
    align(&[("champion", "sha256:aa"), ("candidate", "sha256:bb")]).unwrap();
    assert_eq!((alias("champion"), alias("candidate")), (Some(run.clone()), Some(second.clone())));
    align(&[("champion", "sha256:bb"), ("month-11", "sha256:bb")]).unwrap(); // promoted
    assert_eq!((alias("champion"), alias("candidate")), (Some(second.clone()), None));
    align(&[("champion", "sha256:aa"), ("rejected", "sha256:bb")]).unwrap(); // rolled back
    assert_eq!((alias("champion"), alias("rejected")), (Some(run), Some(second.clone())));
    align(&[("champion", "sha256:imported")]).unwrap(); // a version that MLflow does not have
    assert_eq!((alias("champion"), alias("month-11")), (None, Some(second)));
    let versions = server.get("/api/2.0/mlflow/model-versions/search?filter=name%3D%27tiny%27");
    assert_eq!(versions["model_versions"].as_array().unwrap().len(), 2);
}

#[test]
fn a_run_that_finds_nothing_new_or_fails_mirrors_what_was_moved_by_hand() {
    let Some(server) = Server::start() else { return };
    let Some(place) = Place::new() else { return };
    let run = |more: &[&str], code: i32| {
        let mut job = place.job(NAME, more);
        let output = job.env("LITFLOW_MLFLOW__TRACKING_URI", server.url("")).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
        assert!(!stderr(&output).contains("not mirrored"), "{}", stderr(&output));
    };
    let mirror_of = |version: &str| {
        Some(std::fs::read_to_string(place.path(&format!("work-tiny/{version}/mlflow.txt"))).unwrap().trim().to_owned())
    };
    place.import("first.pubtator");
    run(&[], 0);
    assert_eq!(server.alias("champion"), mirror_of("1.0.0"));
    run(&["--always"], 0);
    assert_eq!(server.alias("champion"), mirror_of("1.1.0"));
    place.registry().rollback(NAME, &Occasion::now("a test", "a test")).unwrap();
    run(&[], 10);
    assert_eq!(server.alias("champion"), mirror_of("1.0.0"));
    place.registry().assign(NAME, "1.1.0", "champion", &Occasion::now("a test", "another test")).unwrap();
    std::fs::remove_dir_all(place.path("encoder")).unwrap();
    run(&["--always"], 1);
    assert_eq!(server.alias("champion"), mirror_of("1.1.0"));
}

#[test]
fn a_server_that_is_not_there_is_an_error_and_none_is_no_mirror() {
    assert!(Mlflow::new(&Options::default()).unwrap().is_none());
    let mlflow = Mlflow::new(&options(free_port())).unwrap().unwrap();
    let error = mlflow.mirror(&trained("1.0.0", "sha256:aa", &[])).unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }) && error.to_string().contains("refused"), "{error}");
}
