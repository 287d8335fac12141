//! The public listener: `GET /oauth/callback/{provider}`, and pages for everything else.
//!
//! The callback answers with a page, not with a redirect to a clean address: the page holds neither code nor state, is
//! not stored and sends no referrer, both are spent when it is shown, and where the database could not be asked they are
//! what makes trying again possible. Only GET is answered: a HEAD or a prefetching POST must not spend a link.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use futures_util::FutureExt as _;
use http::header::{ALLOW, RETRY_AFTER};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode};
use tokio::time::Instant;

use super::client::{self, Proxies};
use super::page::Page;
use super::{callback, headers};
use crate::application::Broker;
use crate::application::limits::Limits;

/// How soon to try again, in seconds.
const RETRY_SECONDS: HeaderValue = HeaderValue::from_static("5");

/// Everything that browsers can reach.
pub fn public_router(broker: Arc<Broker>) -> Router {
    Router::new().fallback(serve).with_state(broker)
}

/// The same, with a limit of pages for each client.
pub fn limited_public_router(broker: Arc<Broker>, limits: Arc<Limits>, proxies: Proxies) -> Router {
    let https = broker.public_base_url().scheme() == "https";
    client::limited(public_router(broker), limits, proxies, https)
}

/// Answers a client that asks for too many pages.
pub(super) fn too_many(wait: Duration, https: bool) -> Response {
    let page = Page::TooMany;
    metrics::counter!("token_broker_pages_total", "page" => page.name()).increment(1);
    let mut response = respond(&page, https);
    // Whole seconds (RFC 9110 section 10.2.3), rounded up.
    let seconds = wait.as_secs().saturating_add(1);
    if let Ok(seconds) = HeaderValue::try_from(seconds.to_string()) {
        response.headers_mut().insert(RETRY_AFTER, seconds);
    }
    response
}

async fn serve(State(broker): State<Arc<Broker>>, request: Request) -> Response {
    let started = Instant::now();
    let https = broker.public_base_url().scheme() == "https";
    let (head, _body) = request.into_parts();
    let (route, page) = if head.uri.path().starts_with(callback::PATH_PREFIX) {
        ("callback", on_callback(broker, &head).await)
    } else {
        ("other", Page::NotFound)
    };
    let response = respond(&page, https);
    let status = response.status().as_u16();
    let took = started.elapsed();
    metrics::counter!("token_broker_pages_total", "page" => page.name()).increment(1);
    // Neither the path nor the query: both are the browser's, and the query holds a code and a state.
    let duration_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    tracing::info!(route, page = page.name(), status, duration_us, "page");
    response
}

async fn on_callback(broker: Arc<Broker>, head: &Parts) -> Page {
    if head.method != Method::GET {
        return Page::MethodNotAllowed;
    }
    let Some(input) = callback::read(head.uri.path(), head.uri.query()) else {
        return Page::Invalid;
    };
    match AssertUnwindSafe(broker.complete_oauth(input)).catch_unwind().await {
        Ok(outcome) => Page::from(outcome),
        Err(_panic) => {
            // The payload stays out of the log: it may quote anything. The panic hook has named the line.
            tracing::error!("a callback panicked");
            Page::Broken
        }
    }
}

fn respond(page: &Page, https: bool) -> Response {
    let (status, html) = match page.render() {
        Ok(html) => (page.status(), html),
        Err(error) => {
            tracing::error!(%error, page = page.name(), "a page could not be rendered");
            (StatusCode::INTERNAL_SERVER_ERROR, String::new())
        }
    };
    let mut response = Response::new(Body::from(html));
    *response.status_mut() = status;
    headers::add_to(response.headers_mut(), https);
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
    }
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(RETRY_AFTER, RETRY_SECONDS);
    }
    response
}
