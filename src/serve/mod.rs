//! HTTP for those who watch a process: `/metrics` (Prometheus text), `/healthz` (is it alive?) and
//! `/readyz` (is it doing its work?), the latter two as JSON with their reasons.

pub mod admin;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use metrics_exporter_prometheus::PrometheusHandle;
use serde::{Deserialize, Serialize};
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

/// `[http]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Address and port to listen on; none: no listener.
    pub listen: Option<SocketAddr>,
    /// Address and port of the admin listener; none: no such listener.
    pub admin_listen: Option<SocketAddr>,
    /// What requests to the admin listener must show.
    pub admin_token: Option<String>,
}

/// What a process says about itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Health {
    /// Whether it works at all; an orchestrator restarts it where not.
    pub live: bool,
    /// Whether it is doing its work: the model is loaded, partitions are assigned.
    pub ready: bool,
    /// Both, explained: any JSON object.
    pub details: serde_json::Value,
}

/// Asked at each request; must not block.
pub type HealthCheck = Arc<dyn Fn() -> Health + Send + Sync>;

/// Why there is no listener.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for HTTP: {reason}; choose another {key}")]
pub struct Error {
    key: &'static str,
    address: SocketAddr,
    reason: std::io::Error,
}

/// Binds the address that the configuration's `key` says, so that a port in use is known before any work begins.
pub async fn bind(key: &'static str, address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|reason| Error { key, address, reason })
}

/// Answers requests until `stop` is done.
pub async fn run(
    listener: TcpListener,
    metrics: PrometheusHandle,
    health: HealthCheck,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let upkeep = tokio::spawn(upkeep(metrics.clone()));
    let served = serve(listener, router(metrics, health), stop).await;
    upkeep.abort();
    served
}

/// Answers until `stop` is done. Answers under way then have a second: a client that does not read holds nobody up.
async fn serve(
    listener: TcpListener,
    router: Router,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    const GRACE: Duration = Duration::from_secs(1);
    let (stopping, stopped) = tokio::sync::oneshot::channel();
    let serving = axum::serve(listener, router).with_graceful_shutdown(async {
        stop.await;
        let _ = stopping.send(()); // nobody listens where all has ended
    });
    tokio::select! {
        served = serving => served,
        () = async {
            let _ = stopped.await;
            tokio::time::sleep(GRACE).await;
        } => Ok(()),
    }
}

#[derive(Clone)]
struct Sources {
    metrics: PrometheusHandle,
    health: HealthCheck,
}

fn router(metrics: PrometheusHandle, health: HealthCheck) -> Router {
    Router::new()
        .route("/metrics", get(render_metrics))
        .route("/healthz", get(|sources| answer(sources, |health| health.live)))
        .route("/readyz", get(|sources| answer(sources, |health| health.ready)))
        .with_state(Sources { metrics, health })
}

async fn render_metrics(State(sources): State<Sources>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], sources.metrics.render()).into_response()
}

async fn answer(State(sources): State<Sources>, good: fn(&Health) -> bool) -> Response {
    let health = (sources.health)();
    let status = if good(&health) { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(health.details)).into_response()
}

/// Histograms keep their samples until they are drained, by a scrape or by this.
async fn upkeep(metrics: PrometheusHandle) {
    let mut every = tokio::time::interval(Duration::from_secs(5));
    loop {
        every.tick().await;
        metrics.run_upkeep();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use metrics_exporter_prometheus::PrometheusBuilder;
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn answers_by_health() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let metrics = recorder.handle();
        metrics::with_local_recorder(&recorder, || metrics::counter!("litflow_test_requests_total").increment(3));
        let listener = bind("http.listen", "127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let health: HealthCheck =
            Arc::new(|| Health { live: true, ready: false, details: json!({"state": "joining"}) });
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let server = tokio::spawn(run(listener, metrics, health, async {
            let _ = stopped.await;
        }));

        assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200"));
        let ready = get(address, "/readyz").await;
        assert!(ready.starts_with("HTTP/1.1 503"), "{ready}");
        assert!(ready.ends_with(r#"{"state":"joining"}"#), "{ready}");
        assert!(get(address, "/metrics").await.contains("litflow_test_requests_total 3"));
        assert!(get(address, "/other").await.starts_with("HTTP/1.1 404"));

        stop.send(()).unwrap();
        server.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_port_in_use_is_told_before_work_begins() {
        let first = bind("http.listen", "127.0.0.1:0".parse().unwrap()).await.unwrap();
        let error = bind("http.listen", first.local_addr().unwrap()).await.unwrap_err().to_string();
        assert!(error.contains("http.listen"), "{error}");
    }
}
