//! The calls: one request and what its answer means, at the first address that answers.
//!
//! An answer counts as the registry's own where it is JSON with a status of success, or with the `error_code` that
//! these APIs send. Whatever else comes (a gateway's page, an answer of another API) is the registry's absence.

use super::{Error, Options, subject};
use crate::bus;
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Certificate, Identity, Method, Response, StatusCode, redirect};
use serde_json::{Value as Json, json};
use std::error::Error as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use url::Url;

const MEDIA_TYPE: &str = "application/vnd.schemaregistry.v1+json";
/// The longest answer; the longest schema that is read by is shorter.
const MAX_ANSWER: usize = 4 << 20;
/// The longest quotation of an answer, in characters.
const MAX_REASON: usize = 1_000;

/// `error_code`: no such schema, version or subject.
const NOT_FOUND: std::ops::RangeInclusive<i64> = 40400..=40499;
const INCOMPATIBLE: i64 = 409;

pub(super) struct Client {
    http: reqwest::Client,
    urls: Vec<Url>,
    /// The one that answered last.
    first: AtomicUsize,
    credentials: Credentials,
}

enum Credentials {
    None,
    Basic { username: String, password: Option<String> },
    Bearer(String),
}

/// What a registry says about an id.
pub(super) enum Found {
    /// Its schema's text.
    Schema(String),
    /// Nothing has that id.
    Nothing,
    /// Something that no value is read by; why.
    Other(String),
}

/// The registry's own answer.
struct Answer {
    url: String,
    content: Content,
}

enum Content {
    Done(Json),
    Failed { code: i64, reason: String },
    TooLong,
}

impl Client {
    /// None where no registry is set.
    pub fn new(options: &Options) -> Result<Option<Self>, bus::Error> {
        options.check().map_err(bus::Error::Options)?;
        let urls = options.urls().map_err(bus::Error::Options)?;
        if urls.is_empty() {
            return Ok(None);
        }
        let timeout = Duration::from_millis(options.timeout_ms);
        let mut http = reqwest::Client::builder()
            .user_agent(concat!("litflow/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(timeout)
            .timeout(timeout)
            // A redirect leads to a page to log in at, or takes the credentials elsewhere.
            .redirect(redirect::Policy::none());
        if let Some(file) = &options.ca_file {
            let pem = read("ca_file", file)?;
            let certificates = Certificate::from_pem_bundle(&pem).map_err(|e| unusable("ca_file", file, &e))?;
            if certificates.is_empty() {
                return Err(unusable("ca_file", file, &"it holds no certificate"));
            }
            http = http.tls_certs_only(certificates);
        }
        if let (Some(certificate_file), Some(key_file)) = (&options.certificate_file, &options.key_file) {
            let (certificate, key) = (read("certificate_file", certificate_file)?, read("key_file", key_file)?);
            let identity = Identity::from_pkcs8_pem(&certificate, &key);
            http = http.identity(identity.map_err(|e| unusable("key_file", key_file, &with_causes(&e)))?);
        }
        let http = http.build().map_err(|e| bus::Error::Options(format!("no client for the schema registry: {e}")))?;
        let credentials = match options {
            Options { username: Some(username), password, .. } => {
                Credentials::Basic { username: username.clone(), password: password.clone() }
            }
            Options { token: Some(token), .. } => Credentials::Bearer(token.clone()),
            _ => Credentials::None,
        };
        Ok(Some(Self { http, urls, first: AtomicUsize::new(0), credentials }))
    }

    /// The schema with this id.
    pub async fn schema_of(&self, id: u32) -> Result<Found, Error> {
        let call = format!("tell the schema with the id {id}");
        let Answer { url, content } = self.ask(&call, Method::GET, &["schemas", "ids", &id.to_string()], None).await?;
        match content {
            Content::Done(answer) => {
                let Some(schema) = answer["schema"].as_str() else { return Err(unintelligible(&url, &call)) };
                Ok(match answer["schemaType"].as_str() {
                    Some(other) if other != "AVRO" => Found::Other(format!("it is of the type {other}, not Avro")),
                    _ if answer["references"].as_array().is_some_and(|references| !references.is_empty()) => {
                        Found::Other("it refers to schemas of other subjects".to_owned())
                    }
                    _ => Found::Schema(schema.to_owned()),
                })
            }
            Content::Failed { code, .. } if NOT_FOUND.contains(&code) => Ok(Found::Nothing),
            Content::Failed { code, reason } => Err(unavailable(&url, &format!("{code}: {reason}"))),
            Content::TooLong => Ok(Found::Other(format!("it is longer than {MAX_ANSWER} bytes"))),
        }
    }

    /// The id of a schema under the subject of a topic's values; none where the subject does not have it.
    pub async fn id_of(&self, topic: &str, schema: &str) -> Result<Option<u32>, Error> {
        let subject = subject(topic);
        let call = format!("look a schema up under {subject}");
        let body = json!({"schema": schema});
        let Answer { url, content } = self.ask(&call, Method::POST, &["subjects", &subject], Some(&body)).await?;
        match content {
            Content::Failed { code, .. } if NOT_FOUND.contains(&code) => Ok(None),
            content => id_in(url, call, content).map(Some),
        }
    }

    /// Registers a schema under the subject of a topic's values, where it is not there yet; its id.
    pub async fn register(&self, topic: &str, schema: &str) -> Result<u32, Error> {
        let subject = subject(topic);
        let call = format!("register a schema under {subject}");
        let body = json!({"schema": schema});
        let path = ["subjects", &subject, "versions"];
        let Answer { url, content } = self.ask(&call, Method::POST, &path, Some(&body)).await?;
        match content {
            Content::Failed { code: INCOMPATIBLE, reason } => Err(Error::Incompatible { subject, reason }),
            content => id_in(url, call, content),
        }
    }

    /// The compatibility that the subject of a topic's values asks for; none where it has none of its own.
    pub async fn compatibility(&self, topic: &str) -> Result<Option<String>, Error> {
        let subject = subject(topic);
        let call = format!("tell the compatibility of {subject}");
        let Answer { url, content } = self.ask(&call, Method::GET, &["config", &subject], None).await?;
        match content {
            Content::Failed { code, .. } if NOT_FOUND.contains(&code) => Ok(None),
            content => {
                let answer = done(&url, &call, content)?;
                let level = answer["compatibilityLevel"].as_str().ok_or_else(|| unintelligible(&url, &call))?;
                Ok(Some(level.to_owned()))
            }
        }
    }

    /// Sets it. The subject may have no schema yet.
    pub async fn set_compatibility(&self, topic: &str, level: &str) -> Result<(), Error> {
        let subject = subject(topic);
        let call = format!("set the compatibility of {subject}");
        let body = json!({"compatibility": level});
        let Answer { url, content } = self.ask(&call, Method::PUT, &["config", &subject], Some(&body)).await?;
        done(&url, &call, content).map(drop)
    }

    /// The answer of the first address that has one.
    async fn ask(&self, call: &str, method: Method, path: &[&str], body: Option<&Json>) -> Result<Answer, Error> {
        let first = self.first.load(Ordering::Relaxed);
        let mut reasons = Vec::new();
        for turn in 0..self.urls.len() {
            let place = (first + turn) % self.urls.len();
            match self.ask_at(&self.urls[place], call, method.clone(), path, body).await {
                Err(Error::Unavailable { reason }) => reasons.push(reason),
                answer => {
                    self.first.store(place, Ordering::Relaxed);
                    tell(if answer.is_ok() { "answered" } else { "refused" });
                    return answer;
                }
            }
        }
        tell("failed");
        Err(Error::Unavailable { reason: reasons.join("; ") })
    }

    async fn ask_at(
        &self,
        base: &Url,
        call: &str,
        method: Method,
        path: &[&str],
        body: Option<&Json>,
    ) -> Result<Answer, Error> {
        let mut url = base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        let mut request = self.http.request(method, url).header(ACCEPT, MEDIA_TYPE);
        request = match &self.credentials {
            Credentials::None => request,
            Credentials::Basic { username, password } => request.basic_auth(username, password.as_ref()),
            Credentials::Bearer(token) => request.bearer_auth(token),
        };
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, MEDIA_TYPE).body(body.to_string());
        }
        let base = base.as_str();
        let response = request.send().await.map_err(|e| unreachable(base, &e))?;
        let status = response.status();
        let answer = content(response).await.map_err(|e| unreachable(base, &e))?;
        let Some(bytes) = answer else { return Ok(Answer { url: base.to_owned(), content: Content::TooLong }) };
        let json: Option<Json> = serde_json::from_slice(&bytes).ok();
        let code = json.as_ref().and_then(|json| json["error_code"].as_i64());
        if status.is_success()
            && code.is_none()
            && let Some(json) = json
        {
            return Ok(Answer { url: base.to_owned(), content: Content::Done(json) });
        }
        let said = || match json.as_ref().and_then(|json| json["message"].as_str()) {
            Some(message) => brief(message),
            None => brief(&String::from_utf8_lossy(&bytes)),
        };
        let refused = |way_out| {
            let reason = format!("asked to {call}, it answers HTTP {}: {}", status.as_u16(), said());
            Err(Error::Refused { url: base.to_owned(), reason, way_out })
        };
        match status {
            StatusCode::UNAUTHORIZED => refused(
                "set kafka.schema_registry.username and password, or kafka.schema_registry.token, to what it accepts",
            ),
            StatusCode::FORBIDDEN => refused("grant this to the user of kafka.schema_registry"),
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
                Err(unavailable(base, &format!("HTTP {}: {}", status.as_u16(), said())))
            }
            status if status.is_server_error() => {
                Err(unavailable(base, &format!("HTTP {}: {}", status.as_u16(), said())))
            }
            status => match code {
                // 404 alone is a web server's word for a path that it does not know.
                Some(code) if code != 404 => {
                    Ok(Answer { url: base.to_owned(), content: Content::Failed { code, reason: said() } })
                }
                _ => {
                    let reason = format!(
                        "HTTP {} is no answer of a schema registry when asked to {call}; does the address end where \
                         its API begins, as in http://host:8080/apis/ccompat/v7?",
                        status.as_u16()
                    );
                    Err(unavailable(base, &reason))
                }
            },
        }
    }
}

fn tell(outcome: &'static str) {
    metrics::counter!("litflow_schema_registry_requests_total", "outcome" => outcome).increment(1);
}

/// The answer's body; none where it is too long.
async fn content(mut response: Response) -> reqwest::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if bytes.len() + chunk.len() > MAX_ANSWER {
            return Ok(None);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Some(bytes))
}

fn done(url: &str, call: &str, content: Content) -> Result<Json, Error> {
    let reason = match content {
        Content::Done(answer) => return Ok(answer),
        Content::Failed { code, reason } => format!("{code}: {reason}"),
        Content::TooLong => format!("its answer is longer than {MAX_ANSWER} bytes"),
    };
    Err(Error::Rejected { url: url.to_owned(), call: call.to_owned(), reason })
}

fn id_in(url: String, call: String, content: Content) -> Result<u32, Error> {
    let answer = done(&url, &call, content)?;
    let id = answer["id"].as_u64().and_then(|id| u32::try_from(id).ok());
    id.ok_or_else(|| unintelligible(&url, &call))
}

fn unintelligible(url: &str, call: &str) -> Error {
    unavailable(url, &format!("its answer cannot be understood when asked to {call}"))
}

fn unavailable(url: &str, reason: &str) -> Error {
    Error::Unavailable { reason: format!("{url}: {reason}") }
}

/// No connection, or none that can be trusted.
fn unreachable(url: &str, error: &reqwest::Error) -> Error {
    let reason = with_causes(error);
    if reason.contains("certificate") {
        let way_out = "set kafka.schema_registry.ca_file to the authority that signed the certificate, and \
                       kafka.schema_registry.certificate_file where one is asked for; look at the host's name and at \
                       the date";
        return Error::Refused { url: url.to_owned(), reason, way_out };
    }
    if error.is_timeout() {
        return unavailable(url, "no answer within kafka.schema_registry.timeout_ms");
    }
    unavailable(url, &reason)
}

/// The innermost causes say what happened, the outermost only that something did.
fn with_causes(error: &reqwest::Error) -> String {
    let mut causes = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        causes.push(cause.to_string());
        next = cause.source();
    }
    causes.dedup();
    if causes.is_empty() { error.to_string() } else { causes.join(": ") }
}

fn brief(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MAX_REASON) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

fn read(key: &str, file: &Path) -> Result<Vec<u8>, bus::Error> {
    std::fs::read(file).map_err(|e| unusable(key, file, &e))
}

fn unusable(key: &str, file: &Path, reason: &dyn std::fmt::Display) -> bus::Error {
    bus::Error::Options(format!("kafka.schema_registry.{key} {} cannot be used: {reason}", file.display()))
}
