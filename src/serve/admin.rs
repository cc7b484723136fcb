//! HTTP for those who run a worker, on a listener of its own: `/admin/model` tells about the model in force
//! (GET), and has the worker look now whether another one is to be served (POST).
//!
//! It knows no users: let it listen where only they can reach it.

use crate::worker::reload::{Handle, Snapshot};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;
use tokio::net::TcpListener;

/// Answers requests until `stop` is done.
pub async fn run(
    listener: TcpListener,
    reload: Handle,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    super::serve(listener, router(reload), stop).await
}

fn router(reload: Handle) -> Router {
    Router::new().route("/admin/model", get(show).post(look_now)).with_state(reload)
}

async fn show(State(reload): State<Handle>) -> Json<Snapshot> {
    Json(reload.snapshot())
}

/// Answers when the look, and the load where there is one, is over: 200 where the version that is to be served is
/// in force, 409 where it is refused.
async fn look_now(State(reload): State<Handle>) -> Response {
    match reload.look_now().await {
        Some(snapshot) if snapshot.refused.is_none() => Json(snapshot).into_response(),
        Some(snapshot) => (StatusCode::CONFLICT, Json(snapshot)).into_response(),
        None => {
            let reason = "too many requests are waiting, or the worker is ending";
            (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "error": reason }))).into_response()
        }
    }
}
