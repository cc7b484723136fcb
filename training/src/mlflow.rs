//! Mirrors trained versions to an MLflow server by its REST API: a run with parameters, metrics and artifacts, and a
//! registered version with aliases.
//!
//! It is a mirror for those who look at MLflow anyway; what counts is litflow's own registry. So nothing waits for it
//! beyond its time limits, and whoever calls it goes on where it fails. Doing it again changes nothing: a run is known
//! by its model's digest.

use litflow::config::Mlflow as Options;
use litflow::registry::aliases::{CANDIDATE, CHAMPION, REJECTED};
use reqwest::StatusCode;
use reqwest::blocking::{Client, RequestBuilder};

use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What is mirrored.
#[derive(Debug, Clone)]
pub struct Trained<'a> {
    /// The model's name: the registered model.
    pub name: &'a str,
    /// Its version.
    pub version: &'a str,
    /// Its digest, by which the run is known.
    pub digest: &'a str,
    /// Parameters, by name.
    pub parameters: BTreeMap<String, String>,
    /// Metrics: name, step and value.
    pub metrics: Vec<(String, u64, f64)>,
    /// Files of the run.
    pub artifacts: &'a [PathBuf],
}

/// The server did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection, or none in time.
    #[error("MLflow at {uri}: {reason}")]
    Unreachable {
        /// The server.
        uri: String,
        /// What is wrong with it.
        reason: String,
    },
    /// It answered with an error.
    #[error("MLflow at {uri}: {call}: {status}: {reason}")]
    Refused {
        /// The server.
        uri: String,
        /// What it was asked.
        call: String,
        /// The HTTP status.
        status: u16,
        /// The beginning of its answer.
        reason: String,
    },
    /// A file that is to be mirrored cannot be read.
    #[error("{}: {cause}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What the operating system says.
        cause: std::io::Error,
    },
}

/// One call, an upload aside.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);
/// The upload of one file.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(300);
/// MLflow's own limits on one `log-batch`.
const METRICS_A_BATCH: usize = 500;
const PARAMETERS_A_BATCH: usize = 100;
/// The longest value of a parameter, in characters.
const LONGEST_PARAMETER: usize = 6000;
/// The tag by which a run is known.
const DIGEST: &str = "litflow.digest";

/// A connection to a server.
pub struct Mlflow {
    client: Client,
    uri: String,
    options: Options,
}

impl Mlflow {
    /// A connection, where the options name a server. Nothing is sent yet.
    pub fn new(options: &Options) -> Result<Option<Self>, Error> {
        let Some(uri) = &options.tracking_uri else { return Ok(None) };
        let uri = uri.trim_end_matches('/').to_owned();
        let client = Client::builder().connect_timeout(CALL_TIMEOUT).build();
        let client = client.map_err(|error| unreachable(&uri, &error))?;
        Ok(Some(Self { client, uri, options: options.clone() }))
    }

    /// Mirrors a version, without aliases; returns the run's id.
    pub fn mirror(&self, trained: &Trained) -> Result<String, Error> {
        let experiment = self.experiment()?;
        let (run, is_new) = self.run(&experiment, trained)?;
        if is_new {
            self.log(&run, trained)?;
            for file in trained.artifacts {
                self.upload(&experiment, &run, file)?;
            }
            self.post("runs/update", &json!({"run_id": run, "status": "FINISHED", "end_time": now()}))?;
        }
        self.register(&experiment, &run, trained)?;
        Ok(run)
    }

    /// Brings a model's aliases in line with these: alias to the digest of its version. `champion`, `candidate` and
    /// `rejected` are taken away where none of these, or no version that was mirrored, has them; any other alias that
    /// is not among these is left as it is: somebody set it in MLflow.
    pub fn align(&self, name: &str, aliases: &BTreeMap<&str, &str>) -> Result<(), Error> {
        let call = "registered-models/get";
        let model = match self.send(call, self.client.get(self.url(call)).query(&[("name", name)])) {
            // None of its versions was mirrored.
            Err(Error::Refused { status: 404, .. }) => return Ok(()),
            model => model?,
        };
        let present: BTreeMap<&str, String> = model["registered_model"]["aliases"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|entry| Some((entry["alias"].as_str()?, number(&entry["version"]))))
            .collect();
        for alias in [CHAMPION, CANDIDATE, REJECTED].into_iter().chain(aliases.keys().copied()).collect::<BTreeSet<_>>()
        {
            let filter = aliases.get(alias).map(|digest| format!("name='{name}' and tags.`{DIGEST}` = '{digest}'"));
            let wanted = filter.map(|filter| self.find_version(&filter)).transpose()?.flatten();
            match (wanted, present.get(alias)) {
                (Some(wanted), present) if present != Some(&wanted) => {
                    let body = json!({"name": name, "alias": alias, "version": wanted});
                    self.post("registered-models/alias", &body)?;
                }
                (None, Some(_)) => {
                    let call = "registered-models/alias";
                    let request = self.client.delete(self.url(call)).json(&json!({"name": name, "alias": alias}));
                    self.send(call, request)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The id of the experiment, which is made where it is missing.
    fn experiment(&self) -> Result<String, Error> {
        let name = &self.options.experiment;
        let call = "experiments/get-by-name";
        let found = self.send(call, self.client.get(self.url(call)).query(&[("experiment_name", name)]));
        match found {
            Err(Error::Refused { status: 404, .. }) => {
                let made = self.post("experiments/create", &json!({"name": name}))?;
                self.text(&made, "/experiment_id", "experiments/create")
            }
            found => self.text(&found?, "/experiment/experiment_id", call),
        }
    }

    /// The run of this digest that was finished, or a new one; whether it is new.
    fn run(&self, experiment: &str, trained: &Trained) -> Result<(String, bool), Error> {
        let body = json!({
            "experiment_ids": [experiment],
            "filter": format!("tags.`{DIGEST}` = '{}' and attributes.status = 'FINISHED'", trained.digest),
            "max_results": 1,
        });
        let found = self.post("runs/search", &body)?;
        if let Some(run) = found.pointer("/runs/0/info/run_id").and_then(Value::as_str) {
            return Ok((run.to_owned(), false));
        }
        let body = json!({
            "experiment_id": experiment,
            "run_name": format!("{} {}", trained.name, trained.version),
            "start_time": now(),
            "tags": [
                {"key": DIGEST, "value": trained.digest},
                {"key": "litflow.version", "value": trained.version},
            ],
        });
        let made = self.post("runs/create", &body)?;
        Ok((self.text(&made, "/run/info/run_id", "runs/create")?, true))
    }

    fn log(&self, run: &str, trained: &Trained) -> Result<(), Error> {
        let parameters: Vec<Value> = trained
            .parameters
            .iter()
            .map(|(key, value)| json!({"key": key, "value": value.chars().take(LONGEST_PARAMETER).collect::<String>()}))
            .collect();
        for params in parameters.chunks(PARAMETERS_A_BATCH) {
            self.post("runs/log-batch", &json!({"run_id": run, "params": params}))?;
        }
        let timestamp = now();
        let metric = |(key, step, value): &(String, u64, f64)| json!({"key": key, "value": value, "timestamp": timestamp, "step": step});
        let metrics: Vec<Value> = trained.metrics.iter().map(metric).collect();
        for metrics in metrics.chunks(METRICS_A_BATCH) {
            self.post("runs/log-batch", &json!({"run_id": run, "metrics": metrics}))?;
        }
        Ok(())
    }

    /// Puts a file under the run's artifacts.
    fn upload(&self, experiment: &str, run: &str, file: &Path) -> Result<(), Error> {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let content = File::open(file).map_err(|cause| Error::File { file: file.to_owned(), cause })?;
        let url = format!("{}/api/2.0/mlflow-artifacts/artifacts/{experiment}/{run}/artifacts/{name}", self.uri);
        self.send(&format!("upload of {name}"), self.client.put(url).timeout(UPLOAD_TIMEOUT).body(content))?;
        Ok(())
    }

    /// Registers the run as a version, where it is none yet.
    fn register(&self, experiment: &str, run: &str, trained: &Trained) -> Result<(), Error> {
        match self.post("registered-models/create", &json!({"name": trained.name})) {
            // It exists already.
            Ok(_) | Err(Error::Refused { status: 400, .. }) => {}
            Err(error) => return Err(error),
        }
        if self.find_version(&format!("name='{}' and run_id='{run}'", trained.name))?.is_some() {
            return Ok(());
        }
        let body = json!({
            "name": trained.name,
            "source": format!("mlflow-artifacts:/{experiment}/{run}/artifacts"),
            "run_id": run,
            "tags": [
                {"key": DIGEST, "value": trained.digest},
                {"key": "litflow.version", "value": trained.version},
            ],
        });
        self.post("model-versions/create", &body)?;
        Ok(())
    }

    /// MLflow's own number of the newest version that the filter finds.
    fn find_version(&self, filter: &str) -> Result<Option<String>, Error> {
        let call = "model-versions/search";
        let found = self.send(call, self.client.get(self.url(call)).query(&[("filter", filter)]))?;
        Ok(found.pointer("/model_versions/0/version").map(number))
    }

    fn url(&self, call: &str) -> String {
        format!("{}/api/2.0/mlflow/{call}", self.uri)
    }

    fn post(&self, call: &str, body: &Value) -> Result<Value, Error> {
        self.send(call, self.client.post(self.url(call)).json(body))
    }

    fn send(&self, call: &str, request: RequestBuilder) -> Result<Value, Error> {
        let request = match &self.options.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        let (client, built) = request.build_split();
        let mut built = built.map_err(|error| unreachable(&self.uri, &error))?;
        built.timeout_mut().get_or_insert(CALL_TIMEOUT);
        let response = client.execute(built).map_err(|error| unreachable(&self.uri, &error))?;
        let status = response.status();
        let body = response.text().map_err(|error| unreachable(&self.uri, &error))?;
        if status != StatusCode::OK {
            let reason = body.chars().take(300).collect();
            return Err(Error::Refused {
                uri: self.uri.clone(),
                call: call.to_owned(),
                status: status.as_u16(),
                reason,
            });
        }
        Ok(serde_json::from_str(&body).unwrap_or_default())
    }

    fn text(&self, answer: &Value, pointer: &str, call: &str) -> Result<String, Error> {
        answer.pointer(pointer).and_then(Value::as_str).map(str::to_owned).ok_or_else(|| Error::Refused {
            uri: self.uri.clone(),
            call: call.to_owned(),
            status: StatusCode::OK.as_u16(),
            reason: format!("an answer without {pointer}: is this an MLflow server?"),
        })
    }
}

/// The number of a version, which is a string in some answers.
fn number(version: &Value) -> String {
    version.as_str().map_or_else(|| version.to_string(), str::to_owned)
}

fn unreachable(uri: &str, error: &reqwest::Error) -> Error {
    // The error itself only says that a request failed; its sources say why.
    let mut reason = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        reason = format!("{reason}: {error}");
        source = error.source();
    }
    Error::Unreachable { uri: uri.to_owned(), reason }
}

/// Milliseconds since the epoch.
fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}
