//! The public listener: what browsers come to.
//!
//! | address | does |
//! |---|---|
//! | `GET /oauth/callback/{provider}` | takes what a provider sends the browser back with |
//! | `GET /oauth/callback/{provider}/{configuration}` | the same for a tenant's own app |
//! | `GET, POST /connect/{handle}` | the page in front of a consent, and its form |
//! | `GET /login/callback` | takes what the login issuer sends the browser back with |
//! | anything else | a page that says so |
//!
//! The callback answers with a page, or with a redirect to the application. The page holds neither code nor state, is
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
use http::header::{ALLOW, LOCATION, RETRY_AFTER, SET_COOKIE};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode};
use tokio::time::Instant;

use super::page::Page;
use super::{callback, client, connect, cookie, headers};
use crate::application::Broker;
use crate::application::limits::Limits;
use crate::application::types::{CallbackAnswer, CallbackInput};
use crate::domain::secret::SecretString;
use crate::transport::proxies::Proxies;

/// How soon to try again, in seconds.
const RETRY_SECONDS: HeaderValue = HeaderValue::from_static("5");

/// What a browser is answered.
pub(super) struct Answer {
    pub(super) what: What,
    /// To be kept.
    pub(super) cookie: Option<HeaderValue>,
}

/// A page, or the way to another one.
pub(super) enum What {
    Page(Page),
    /// 303: whatever the method was, the next one is GET.
    Redirect(SecretString),
}

impl Answer {
    pub(super) fn page(page: Page) -> Self {
        Self { what: What::Page(page), cookie: None }
    }

    pub(super) fn redirect(url: SecretString) -> Self {
        Self { what: What::Redirect(url), cookie: None }
    }

    fn name(&self) -> &'static str {
        match &self.what {
            What::Page(page) => page.name(),
            What::Redirect(_) => "redirect",
        }
    }
}

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
    let mut response = page_response(&page, https);
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
    let (head, body) = request.into_parts();
    let path = head.uri.path();
    let route = if path.starts_with(callback::PATH_PREFIX) {
        "callback"
    } else if path.starts_with(connect::PATH_PREFIX) {
        "connect"
    } else if path == connect::LOGIN_CALLBACK {
        "login"
    } else {
        "other"
    };
    let answering = async {
        match route {
            "callback" => on_callback(&broker, &head, https).await,
            "connect" => connect::on_link(&broker, &head, body, https).await,
            "login" => connect::on_login(&broker, &head, https).await,
            _ => Answer::page(Page::NotFound),
        }
    };
    let answer = AssertUnwindSafe(answering).catch_unwind().await.unwrap_or_else(|_panic| {
        // The payload stays out of the log: it may quote anything. The panic hook has named the line.
        tracing::error!(route, "a page panicked");
        Answer::page(Page::Broken)
    });
    let page = answer.name();
    let response = respond(answer, https);
    let status = response.status().as_u16();
    let took = started.elapsed();
    metrics::counter!("token_broker_pages_total", "page" => page).increment(1);
    // Neither the path nor the query: both are the browser's, and hold a handle, or a code and a state.
    let duration_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    tracing::info!(route, page, status, duration_us, "page");
    response
}

async fn on_callback(broker: &Arc<Broker>, head: &Parts, https: bool) -> Answer {
    if head.method != Method::GET {
        return Answer::page(Page::MethodNotAllowed { allowed: "GET" });
    }
    let Some((provider, configuration, answer)) = callback::read(head.uri.path(), head.uri.query()) else {
        return Answer::page(Page::Invalid);
    };
    let browser = cookie::read(&head.headers, https);
    match broker.take_callback(CallbackInput { provider, configuration, answer, browser }).await {
        CallbackAnswer::Page(outcome) => Answer::page(outcome.into()),
        CallbackAnswer::ToApplication(url) => Answer::redirect(url),
    }
}

fn respond(answer: Answer, https: bool) -> Response {
    let mut response = match &answer.what {
        What::Page(page) => page_response(page, https),
        What::Redirect(url) => redirect_response(url, https),
    };
    if let Some(cookie) = answer.cookie {
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
    response
}

fn redirect_response(url: &SecretString, https: bool) -> Response {
    // A URL is always a header value; were it none, nobody would be sent anywhere.
    let Ok(mut location) = HeaderValue::try_from(url.expose_secret()) else {
        return page_response(&Page::Broken, https);
    };
    location.set_sensitive(true);
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SEE_OTHER;
    headers::add_to(response.headers_mut(), https, None);
    response.headers_mut().insert(LOCATION, location);
    response
}

fn page_response(page: &Page, https: bool) -> Response {
    let (status, html) = match page.render() {
        Ok(html) => (page.status(), html),
        Err(error) => {
            tracing::error!(%error, page = page.name(), "a page could not be rendered");
            (StatusCode::INTERNAL_SERVER_ERROR, String::new())
        }
    };
    let mut response = Response::new(Body::from(html));
    *response.status_mut() = status;
    headers::add_to(response.headers_mut(), https, page.form_target());
    if let Page::MethodNotAllowed { allowed } = page {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    }
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(RETRY_AFTER, RETRY_SECONDS);
    }
    response
}
