//! A real schema registry, Apicurio's, as `scripts/schema-registry/fetch` brings it; and an edge before it, which asks
//! for credentials, speaks TLS, is slow, fails, and goes away: what a registry cannot be brought to.

#![allow(dead_code, clippy::unwrap_used)] // each test binary uses its part; the lint knows test functions only

use crate::support::http::free_port;
use crate::support::wait_until;
use axum::Router;
use axum::body::{Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use litflow::bus::schema_registry::Options;
use openssl::ssl::{Ssl, SslAcceptor};
use serde_json::{Value as Json, json};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_openssl::SslStream;

const RUNNER: &str = "apicurio-registry-app-3.0.9-runner.jar";
const API: &str = "/apis/ccompat/v7";

/// The registry of this test program. It ends with the program.
pub struct Apicurio {
    port: u16,
}

impl Apicurio {
    /// The same for all tests; none, with a note, where there is no Java or no Apicurio.
    pub fn get() -> Option<&'static Self> {
        static STARTED: OnceLock<Option<Apicurio>> = OnceLock::new();
        STARTED.get_or_init(Self::start).as_ref()
    }

    fn start() -> Option<Self> {
        let Some(folder) = folder() else {
            eprintln!("skipped: no Apicurio Registry; scripts/schema-registry/fetch brings it");
            return None;
        };
        let port = free_port();
        let mut command = Command::new("java");
        command
            .args([
                "-Xmx256m",
                "-XX:TieredStopAtLevel=1",
                "-XX:+UseSerialGC",
                "-Dquarkus.http.host=127.0.0.1",
                "-Dquarkus.http.access-log.enabled=false",
            ])
            .arg(format!("-Dquarkus.http.port={port}"))
            .args(["-jar", RUNNER])
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // SAFETY: between fork and exec the closure makes one system call and touches no memory of the parent.
        unsafe {
            command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            });
        }
        // It is killed when the thread that started it ends: this one ends with the program, however that ends.
        let (started, is_started) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let _ = started.send(command.spawn().map(drop));
            loop {
                std::thread::park();
            }
        });
        if let Err(reason) = is_started.recv().unwrap() {
            eprintln!("skipped: java: {reason}");
            return None;
        }
        let registry = Self { port };
        wait_until("Apicurio answers", || {
            TcpStream::connect(("127.0.0.1", port)).is_ok() && registry.call("GET", "/subjects", None).0 == 200
        });
        Some(registry)
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}{API}", self.port)
    }

    pub fn options(&self) -> Options {
        Options { url: Some(self.url()), ..Options::default() }
    }

    /// A call past litflow; status and answer.
    pub fn call(&self, method: &str, path: &str, body: Option<Json>) -> (u16, Json) {
        let call = async {
            let client = reqwest::Client::new();
            let mut request = client.request(method.parse().unwrap(), self.url() + path);
            if let Some(body) = body {
                let json = "application/vnd.schemaregistry.v1+json";
                request = request.header(header::CONTENT_TYPE, json).body(body.to_string());
            }
            let Ok(response) = request.send().await else { return (0, Json::Null) };
            let status = response.status().as_u16();
            (status, serde_json::from_str(&response.text().await.unwrap_or_default()).unwrap_or_default())
        };
        Runtime::new().unwrap().block_on(call)
    }

    /// Registers a schema as somebody else would; its id.
    pub fn register(&self, subject: &str, schema: &Json) -> u32 {
        let body = json!({"schema": schema.to_string()});
        let (status, answer) = self.call("POST", &format!("/subjects/{subject}/versions"), Some(body));
        assert_eq!(status, 200, "{answer}");
        answer["id"].as_u64().unwrap() as u32
    }
}

/// The unpacked registry, in `LITFLOW_REGISTRY_HOME` or the next `.registry` upward.
fn folder() -> Option<PathBuf> {
    let home = std::env::var_os("LITFLOW_REGISTRY_HOME").map(PathBuf::from);
    let upward = || Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|folder| folder.join(".registry"));
    let mut places = home.into_iter().chain(upward()).map(|home| home.join("apicurio"));
    places.find(|folder| folder.join(RUNNER).is_file())
}

/// How an edge answers.
#[derive(Clone)]
pub enum Mode {
    /// As the registry behind it.
    Pass,
    /// The same, later.
    Slow(Duration),
    /// With this in its place.
    Instead(u16, String),
}

/// A proxy before the registry.
pub struct Edge {
    port: u16,
    acceptor: Option<SslAcceptor>,
    behind: Arc<Behind>,
    /// None while it is down.
    running: Option<Runtime>,
}

struct Behind {
    origin: String,
    mode: Mutex<Mode>,
    /// What the header `Authorization` must be.
    authorization: Option<String>,
    requests: AtomicUsize,
}

impl Edge {
    /// One that is down.
    pub fn new(registry: &Apicurio) -> Self {
        Self::with(registry, None, None)
    }

    pub fn with(registry: &Apicurio, authorization: Option<&str>, acceptor: Option<SslAcceptor>) -> Self {
        let behind = Behind {
            origin: format!("http://127.0.0.1:{}", registry.port),
            mode: Mutex::new(Mode::Pass),
            authorization: authorization.map(str::to_owned),
            requests: AtomicUsize::new(0),
        };
        Self { port: free_port(), acceptor, behind: Arc::new(behind), running: None }
    }

    pub fn options(&self) -> Options {
        let scheme = if self.acceptor.is_some() { "https" } else { "http" };
        Options {
            url: Some(format!("{scheme}://localhost:{}{API}", self.port)),
            timeout_ms: 20_000,
            ..Options::default()
        }
    }

    pub fn up(&mut self) {
        let runtime = Runtime::new().unwrap();
        let tcp = runtime.block_on(TcpListener::bind(("127.0.0.1", self.port))).unwrap();
        let router = Router::new().fallback(answer).with_state(self.behind.clone());
        match self.acceptor.clone() {
            Some(acceptor) => runtime.spawn(axum::serve(Tls { tcp, acceptor }, router).into_future()),
            None => runtime.spawn(axum::serve(tcp, router).into_future()),
        };
        self.running = Some(runtime);
    }

    /// Nobody listens, and no connection is left.
    pub fn down(&mut self) {
        if let Some(runtime) = self.running.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }

    pub fn set(&self, mode: Mode) {
        *self.behind.mode.lock().unwrap() = mode;
    }

    /// How often it was asked.
    pub fn requests(&self) -> usize {
        self.behind.requests.load(Ordering::SeqCst)
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        self.down();
    }
}

async fn answer(State(behind): State<Arc<Behind>>, request: Request) -> Response {
    behind.requests.fetch_add(1, Ordering::SeqCst);
    let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    if behind.authorization.as_deref().is_some_and(|wanted| given != Some(wanted)) {
        return (StatusCode::UNAUTHORIZED, r#"{"error_code":401,"message":"Unauthorized"}"#).into_response();
    }
    let mode = behind.mode.lock().unwrap().clone();
    match mode {
        Mode::Instead(status, body) => return (StatusCode::from_u16(status).unwrap(), body).into_response(),
        Mode::Slow(pause) => tokio::time::sleep(pause).await,
        Mode::Pass => {}
    }
    pass(&behind.origin, request).await.unwrap_or_else(|error| (StatusCode::BAD_GATEWAY, error).into_response())
}

async fn pass(origin: &str, request: Request) -> Result<Response, String> {
    let (head, body) = request.into_parts();
    let body: Bytes = to_bytes(body, usize::MAX).await.map_err(|e| e.to_string())?;
    let mut headers = HeaderMap::new();
    for name in [header::CONTENT_TYPE, header::ACCEPT] {
        headers.extend(head.headers.get(&name).map(|value| (name, value.clone())));
    }
    let request = reqwest::Client::new().request(head.method, format!("{origin}{}", head.uri)).headers(headers);
    let response = request.body(body).send().await.map_err(|e| e.to_string())?;
    let status = response.status();
    Ok((status, response.bytes().await.map_err(|e| e.to_string())?).into_response())
}

/// A listener with TLS; a connection without it is left alone.
struct Tls {
    tcp: TcpListener,
    acceptor: SslAcceptor,
}

impl axum::serve::Listener for Tls {
    type Io = SslStream<tokio::net::TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let Ok((tcp, address)) = self.tcp.accept().await else { continue };
            let Ok(mut stream) = SslStream::new(Ssl::new(self.acceptor.context()).unwrap(), tcp) else { continue };
            if Pin::new(&mut stream).accept().await.is_ok() {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.tcp.local_addr()
    }
}
