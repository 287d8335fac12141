//! The operations listener, never public: is it alive, is it ready, how is it doing.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use tokio::sync::watch;

use crate::domain::ports::StoreHealth;

/// A database that takes longer than this to answer a trivial statement is not one to serve from.
const PING_LIMIT: Duration = Duration::from_secs(2);

/// What the listener looks at.
#[derive(Clone)]
pub struct OperationsState {
    /// True between start-up and shutdown.
    pub ready: watch::Receiver<bool>,
    /// The database.
    pub store: Arc<dyn StoreHealth>,
    /// The metrics in the Prometheus text format.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
}

/// `/livez`, `/readyz`, `/metrics`.
pub fn operations_router(state: OperationsState) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(render_metrics))
        .with_state(state)
}

/// The process answers. It does not look at the database: a restart would not mend that.
async fn livez() -> Response {
    text(StatusCode::OK, "ok\n".to_owned())
}

/// It is started, not shutting down, and the database answers.
async fn readyz(State(state): State<OperationsState>) -> Response {
    if !*state.ready.borrow() {
        return text(StatusCode::SERVICE_UNAVAILABLE, "not ready: starting or shutting down\n".to_owned());
    }
    match tokio::time::timeout(PING_LIMIT, state.store.ping()).await {
        Ok(Ok(())) => text(StatusCode::OK, "ready\n".to_owned()),
        Ok(Err(error)) => {
            tracing::warn!(%error, "not ready: the database does not answer");
            text(StatusCode::SERVICE_UNAVAILABLE, "not ready: the database does not answer\n".to_owned())
        }
        Err(_elapsed) => {
            tracing::warn!(limit = ?PING_LIMIT, "not ready: the database is too slow");
            text(StatusCode::SERVICE_UNAVAILABLE, "not ready: the database is too slow\n".to_owned())
        }
    }
}

async fn render_metrics(State(state): State<OperationsState>) -> Response {
    let headers = [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8"), (CACHE_CONTROL, "no-store")];
    (headers, (state.metrics)()).into_response()
}

fn text(status: StatusCode, body: String) -> Response {
    let headers = [(CONTENT_TYPE, "text/plain; charset=utf-8"), (CACHE_CONTROL, "no-store")];
    (status, headers, body).into_response()
}
