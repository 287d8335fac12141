//! The demo server's pages.

use askama::Template;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};

use super::{Fields, field};

#[derive(Template)]
#[template(path = "consent.html", config = "src/demo/askama.toml")]
struct Consent<'a> {
    /// The request's parameters, carried along in the form.
    carried: Vec<(&'a str, &'a str)>,
    hint: &'a str,
    scopes: Vec<&'a str>,
}

#[derive(Template)]
#[template(path = "refusal.html", config = "src/demo/askama.toml")]
struct Refusal;

/// Asks who is there and whether they agree.
pub(super) fn consent(request: &Fields) -> Response {
    let page = Consent {
        carried: request.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect(),
        hint: field(request, "login_hint"),
        scopes: field(request, "scope").split(' ').collect(),
    };
    html(StatusCode::OK, &page)
}

/// For a request that must not be answered at its redirect URI.
pub(super) fn refusal() -> Response {
    html(StatusCode::BAD_REQUEST, &Refusal)
}

fn html(status: StatusCode, page: &impl Template) -> Response {
    let headers = [(CONTENT_TYPE, "text/html; charset=utf-8"), (CACHE_CONTROL, "no-store")];
    match page.render() {
        Ok(body) => (status, headers, body).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
