//! A strict authorization server over real HTTP: its users consent at once, refresh tokens rotate, a spent one that comes
//! back ends its grant, revocation is RFC 7009's. It tells which access tokens are live and remembers every secret that
//! has passed through it. It outlives the brokers that a test kills.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use serde_json::json;
use tokio::sync::watch;

/// How one grant stands.
#[derive(Debug, Clone, Default)]
pub(crate) struct Grant {
    pub(crate) alive: bool,
    pub(crate) access: String,
    pub(crate) refresh: String,
    /// Refresh tokens that were presented after they had been spent.
    pub(crate) reuses: u32,
    /// Token requests.
    pub(crate) presentations: u32,
}

#[derive(Default)]
struct Server {
    grants: Vec<Grant>,
    /// Every token ever issued, to its grant.
    index: HashMap<String, usize>,
    counter: u64,
    /// Codes not used yet.
    codes: Vec<String>,
    /// What must be seen nowhere: states, codes, verifiers, tokens, client credentials.
    secrets: Vec<String>,
}

impl Server {
    fn issue(&mut self, grant: usize) -> (String, String) {
        self.counter += 1;
        let (access, refresh) =
            (format!("canary-access-{:08}", self.counter), format!("canary-refresh-{:08}", self.counter));
        self.secrets.extend([access.clone(), refresh.clone()]);
        self.index.insert(access.clone(), grant);
        self.index.insert(refresh.clone(), grant);
        self.grants[grant].access.clone_from(&access);
        self.grants[grant].refresh.clone_from(&refresh);
        (access, refresh)
    }
}

#[derive(Clone, Default)]
struct Shared(Arc<Inner>);

#[derive(Default)]
struct Inner {
    server: Mutex<Server>,
    presented: watch::Sender<()>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Server> {
        self.0.server.lock().unwrap()
    }
}

pub(crate) struct TokenServer {
    addr: SocketAddr,
    shared: Shared,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for TokenServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The lifetime of its access tokens in seconds.
pub(crate) const LIFETIME: u64 = 3600;

impl TokenServer {
    pub(crate) async fn start() -> Self {
        let shared = Shared::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let app = axum::Router::new()
            .route("/authorize", get(authorize))
            .route("/token", post(token))
            .route("/revoke", post(revoke))
            .with_state(shared.clone());
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { addr, shared, task }
    }

    /// The same server for clients that sign, under the id `signed`.
    pub(crate) fn definition_for_keys(&self) -> String {
        let signs = "auth = \"private_key_jwt\"\nassertion_audience = \"token_endpoint\"";
        self.definition().replace("id = \"strict\"", "id = \"signed\"").replace("auth = \"basic\"", signs)
    }

    /// The provider's definition for the broker, under the id `strict`.
    pub(crate) fn definition(&self) -> String {
        format!(
            r#"id = "strict"
display_name = "Strict"
[endpoints]
authorization = "http://{addr}/authorize"
token = "http://{addr}/token"
revocation = "http://{addr}/revoke"
[client]
auth = "basic"
[refresh]
rotation = "strict"
[services.api]
display_name = "API"
scopes = ["api"]
"#,
            addr = self.addr
        )
    }

    /// Every secret that has passed through: whole texts.
    pub(crate) fn secrets(&self) -> Vec<String> {
        self.shared.lock().secrets.clone()
    }

    /// Ends every grant, as users do in the provider's settings.
    pub(crate) fn end_all_grants(&self) {
        self.shared.lock().grants.iter_mut().for_each(|grant| grant.alive = false);
    }

    /// A grant made elsewhere: its number, access and refresh token.
    pub(crate) fn grant(&self) -> (usize, String, String) {
        let mut server = self.shared.lock();
        server.grants.push(Grant { alive: true, ..Grant::default() });
        let number = server.grants.len() - 1;
        let (access, refresh) = server.issue(number);
        (number, access, refresh)
    }

    pub(crate) fn look(&self, grant: usize) -> Grant {
        self.shared.lock().grants[grant].clone()
    }

    /// The live grant that this access token opens.
    pub(crate) fn accepts(&self, access: &str) -> Option<usize> {
        let server = self.shared.lock();
        let grant = *server.index.get(access)?;
        (server.grants[grant].alive && server.grants[grant].access == access).then_some(grant)
    }

    /// Changes with each refresh token that is presented.
    pub(crate) fn presented(&self) -> watch::Receiver<()> {
        self.shared.0.presented.subscribe()
    }
}

/// The user says yes; with `login_hint=refuse`, no.
async fn authorize(State(shared): State<Shared>, Query(query): Query<HashMap<String, String>>) -> Response {
    let mut server = shared.lock();
    server.counter += 1;
    let code = format!("canary-code-{:08}", server.counter);
    let mut back: url::Url = query["redirect_uri"].parse().unwrap();
    back.query_pairs_mut().append_pair("state", &query["state"]);
    if query.get("login_hint").is_some_and(|hint| hint == "refuse") {
        let description = "canary-description-of-a-refusal";
        back.query_pairs_mut()
            .append_pair("error", "access_denied")
            .append_pair("error_description", description);
        server.secrets.push(description.to_owned());
    } else {
        back.query_pairs_mut().append_pair("code", &code);
        server.codes.push(code.clone());
    }
    server.secrets.extend([query["state"].clone(), code]);
    (StatusCode::FOUND, [(header::LOCATION, back.to_string())]).into_response()
}

async fn token(State(shared): State<Shared>, headers: HeaderMap, body: String) -> Response {
    let form: HashMap<String, String> = url::form_urlencoded::parse(body.as_bytes()).into_owned().collect();
    let mut server = shared.lock();
    let basic = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    server.secrets.extend(basic.and_then(|value| value.strip_prefix("Basic ")).map(str::to_owned));
    server.secrets.extend(form.get("code_verifier").cloned());
    server.secrets.extend(form.get("client_assertion").cloned());
    let number = match (form.get("code"), form.get("refresh_token")) {
        (Some(code), _) => {
            let Some(index) = server.codes.iter().position(|known| known == code) else {
                return invalid_grant();
            };
            server.codes.remove(index);
            server.grants.push(Grant { alive: true, ..Grant::default() });
            server.grants.len() - 1
        }
        (None, Some(presented)) => {
            let Some(&number) = server.index.get(presented) else { return invalid_grant() };
            let grant = &mut server.grants[number];
            grant.presentations += 1;
            shared.0.presented.send_replace(());
            if grant.refresh != *presented {
                grant.reuses += 1;
                grant.alive = false;
            }
            if !grant.alive {
                return invalid_grant();
            }
            number
        }
        (None, None) => return invalid_grant(),
    };
    let (access, refresh) = server.issue(number);
    let answer = json!({
        "access_token": access, "refresh_token": refresh, "token_type": "Bearer", "expires_in": LIFETIME,
    });
    answer_json(StatusCode::OK, &answer)
}

fn invalid_grant() -> Response {
    let answer = json!({"error": "invalid_grant", "error_description": "canary-description-of-a-failure"});
    answer_json(StatusCode::BAD_REQUEST, &answer)
}

fn answer_json(status: StatusCode, body: &serde_json::Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

async fn revoke(State(shared): State<Shared>, body: String) -> StatusCode {
    let form: HashMap<String, String> = url::form_urlencoded::parse(body.as_bytes()).into_owned().collect();
    let mut server = shared.lock();
    if let Some(&number) = form.get("token").and_then(|token| server.index.get(token)) {
        server.grants[number].alive = false;
    }
    StatusCode::OK
}
