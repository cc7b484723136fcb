//! HTTP for those who run a worker, on a listener of its own: `/admin/model` tells about the model in force
//! (GET), and has the worker look now whether another one is to be served (POST).
//!
//! Every request must show the token, `Authorization: Bearer …`; without it the answer is 401, whatever the path.

use crate::worker::reload::{Handle, Snapshot};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tokio::net::TcpListener;

/// Answers requests that show `token`, until `stop` is done.
pub async fn run(
    listener: TcpListener,
    token: String,
    reload: Handle,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    super::serve(listener, protected(router(reload), &token), stop).await
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

/// A token as it is compared: digests have one length, and take the same time wherever they differ.
type TokenDigest = [u8; 32];

fn digest(token: &[u8]) -> TokenDigest {
    Sha256::digest(token).into()
}

/// Lets nobody in who does not show the token.
fn protected(router: Router, token: &str) -> Router {
    router.layer(from_fn_with_state(digest(token.as_bytes()), check_token))
}

async fn check_token(State(expected): State<TokenDigest>, request: Request, next: Next) -> Response {
    let shown = request.headers().get(header::AUTHORIZATION).and_then(bearer);
    if shown.is_some_and(|token| digest(token).ct_eq(&expected).into()) {
        return next.run(request).await;
    }
    let reason = "show the token of http.admin_token as Authorization: Bearer …";
    let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
    (StatusCode::UNAUTHORIZED, challenge, Json(json!({ "error": reason }))).into_response()
}

fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"Bearer ";
    let (scheme, token) = value.as_bytes().split_at_checked(SCHEME.len())?;
    scheme.eq_ignore_ascii_case(SCHEME).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test]
    async fn nothing_is_answered_without_the_token() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/admin/model", get(async || "the answer"));
        tokio::spawn(axum::serve(listener, protected(router, "hunter2")).into_future());
        let ask = async |path: &str, header: &str| {
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n{header}Connection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        };
        for header in [
            "",
            "Authorization: hunter2\r\n",
            "Authorization: Basic hunter2\r\n",
            "Authorization: Bearer \r\n",
            "Authorization: Bearer hunter\r\n",
            "Authorization: Bearer hunter22\r\n",
            "Authorization: Bearer HUNTER2\r\n",
        ] {
            for path in ["/admin/model", "/other"] {
                let answer = ask(path, header).await;
                assert!(answer.starts_with("HTTP/1.1 401") && answer.contains("www-authenticate: Bearer"), "{answer}");
                assert!(!answer.contains("hunter2") && !answer.contains("the answer"), "{answer}");
            }
        }
        let right = "Authorization: Bearer hunter2\r\n";
        assert!(ask("/admin/model", right).await.ends_with("the answer"));
        assert!(ask("/admin/model", "authorization: bearer hunter2\r\n").await.ends_with("the answer"));
        assert!(ask("/other", right).await.starts_with("HTTP/1.1 404"));
    }
}
