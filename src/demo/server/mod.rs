//! The demo's own authorization server and API: small, in this process, on a loopback port, and strict. It stands for the
//! provider that a real broker would be registered at.

mod grants;
mod pages;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use url::Url;

use crate::domain::ports::{Clock, Entropy};
pub use grants::LogEntry;
use grants::{Approval, Grants, Issued};

/// The broker's registration.
pub const CLIENT_ID: &str = "token-broker-demo";
/// Known to everybody: it protects nothing outside the demo.
pub const CLIENT_SECRET: &str = "not-a-secret";

/// The server while it runs; dropping it stops it.
pub struct DemoServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    grants: Grants,
    redirect_uris: Mutex<Vec<String>>,
}

type Fields = BTreeMap<String, String>;

impl DemoServer {
    /// Listens on a free loopback port. `access_life` is how long access tokens live, in whole seconds.
    pub async fn start(
        access_life: Duration,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            grants: Grants::new(access_life, clock, entropy),
            redirect_uris: Mutex::default(),
        });
        let router = Router::new()
            .route("/authorize", get(ask).post(answer))
            .route("/token", post(token))
            .route("/revoke", post(revoke))
            .route("/notes", get(notes))
            .with_state(Arc::clone(&shared));
        let task = tokio::spawn(async move {
            // Accept errors are retried inside; it ends when the task is aborted.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { address, shared, task })
    }

    /// Its base URL, without a slash at the end.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Registers a redirect URI, compared exactly (RFC 9700 section 2.1).
    pub fn allow_redirect(&self, uri: &str) {
        self.shared.redirect_uris.lock().unwrap_or_else(PoisonError::into_inner).push(uri.to_owned());
    }

    /// What has happened at the token and revocation endpoints.
    #[must_use]
    pub fn log(&self) -> Vec<LogEntry> {
        self.shared.grants.log()
    }
}

impl Drop for DemoServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn fields(encoded: &str) -> Fields {
    url::form_urlencoded::parse(encoded.as_bytes()).into_owned().collect()
}

fn field<'a>(fields: &'a Fields, name: &str) -> &'a str {
    fields.get(name).map_or("", String::as_str)
}

impl Shared {
    /// Where to send the browser, if the request may be answered there at all (RFC 6749 section 4.1.2.1).
    fn redirect_target(&self, request: &Fields) -> Option<Url> {
        let uri = field(request, "redirect_uri");
        let registered = self.redirect_uris.lock().unwrap_or_else(PoisonError::into_inner);
        (field(request, "client_id") == CLIENT_ID && registered.iter().any(|known| known == uri))
            .then(|| Url::parse(uri).ok())
            .flatten()
    }
}

/// A request without PKCE is refused (RFC 9700 section 2.1.1).
fn is_well_formed(request: &Fields) -> bool {
    field(request, "response_type") == "code"
        && field(request, "code_challenge_method") == "S256"
        && !field(request, "code_challenge").is_empty()
}

fn back_to_client(mut target: Url, request: &Fields, name: &str, value: &str) -> Response {
    target.query_pairs_mut().append_pair(name, value).append_pair("state", field(request, "state"));
    Redirect::to(target.as_str()).into_response()
}

/// The page that asks the user.
async fn ask(State(shared): State<Arc<Shared>>, RawQuery(query): RawQuery) -> Response {
    let request = fields(&query.unwrap_or_default());
    match shared.redirect_target(&request) {
        None => pages::refusal(),
        Some(target) if !is_well_formed(&request) => {
            back_to_client(target, &request, "error", "invalid_request")
        }
        Some(_) => pages::consent(&request),
    }
}

/// What the user answered. The form carries the request along, and it is checked again.
async fn answer(State(shared): State<Arc<Shared>>, body: String) -> Response {
    let request = fields(&body);
    let Some(target) = shared.redirect_target(&request).filter(|_| is_well_formed(&request)) else {
        return pages::refusal();
    };
    let user = field(&request, "user").trim();
    if field(&request, "answer") != "allow" || user.is_empty() {
        return back_to_client(target, &request, "error", "access_denied");
    }
    let code = shared.grants.approve(Approval {
        user: user.to_owned(),
        scope: field(&request, "scope").to_owned(),
        redirect_uri: field(&request, "redirect_uri").to_owned(),
        challenge: field(&request, "code_challenge").to_owned(),
    });
    back_to_client(target, &request, "code", &code)
}

async fn token(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: String) -> Response {
    if !is_the_client(&headers) {
        return error(StatusCode::UNAUTHORIZED, "invalid_client");
    }
    let request = fields(&body);
    let issued = match field(&request, "grant_type") {
        "authorization_code" => shared.grants.exchange(
            field(&request, "code"),
            field(&request, "redirect_uri"),
            field(&request, "code_verifier"),
        ),
        "refresh_token" => shared.grants.refresh(field(&request, "refresh_token")),
        _ => return error(StatusCode::BAD_REQUEST, "unsupported_grant_type"),
    };
    issued.map_or_else(|| error(StatusCode::BAD_REQUEST, "invalid_grant"), |issued| tokens(&issued))
}

/// RFC 7009 section 2.2: 200 whether or not the token was known.
async fn revoke(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: String) -> Response {
    if !is_the_client(&headers) {
        return error(StatusCode::UNAUTHORIZED, "invalid_client");
    }
    shared.grants.revoke(field(&fields(&body), "token"));
    StatusCode::OK.into_response()
}

/// The API that the tokens are for.
async fn notes(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    match authorization(&headers, "Bearer").and_then(|token| shared.grants.user_of(token)) {
        Some(user) => answer_json(StatusCode::OK, &json!({ "owner": user, "notes": ["Water the plants"] })),
        None => answer_json(StatusCode::UNAUTHORIZED, &json!({ "error": "invalid_token" })),
    }
}

fn authorization<'a>(headers: &'a HeaderMap, scheme: &str) -> Option<&'a str> {
    headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix(scheme).map(str::trim_start)
}

fn is_the_client(headers: &HeaderMap) -> bool {
    let expected = BASE64_STANDARD.encode(format!("{CLIENT_ID}:{CLIENT_SECRET}"));
    authorization(headers, "Basic") == Some(expected.as_str())
}

fn tokens(issued: &Issued) -> Response {
    answer_json(
        StatusCode::OK,
        &json!({
            "access_token": issued.access_token,
            "token_type": "Bearer",
            "expires_in": issued.expires_in,
            "refresh_token": issued.refresh_token,
            "scope": issued.scope,
        }),
    )
}

fn error(status: StatusCode, code: &str) -> Response {
    answer_json(status, &json!({ "error": code }))
}

fn answer_json(status: StatusCode, body: &Value) -> Response {
    let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")];
    (status, headers, body.to_string()).into_response()
}
