//! npm's oidc-provider as a process of the test: strict rotation (a second presentation of a refresh token ends its
//! grant), revocation, PKCE required, users alice, bob and carol. See `tests/oidc/server.mjs`.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::Mutex as AsyncMutex;

/// Registered at the server.
pub(crate) const CLIENT_ID: &str = "broker";
/// Registered at the server.
pub(crate) const CLIENT_SECRET: &str = "broker-secret";

/// How long the server may take for anything. A limit for broken machines, never waited for in a test that passes.
const PATIENCE: Duration = Duration::from_mins(1);

/// How the server behaves.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct OidcOptions {
    /// How long access tokens live. Whole seconds, at least 1.
    pub(crate) access_token_seconds: u64,
    /// The paths under which brokers, on any loopback port, receive codes.
    pub(crate) redirect_uris: Vec<String>,
    /// Public keys in PEM; with one, the client signs assertions and has no secret.
    pub(crate) client_keys: Vec<String>,
    /// Scopes beside `openid`, `offline_access`, `email` and `profile`.
    pub(crate) scopes: Vec<String>,
    /// How long each token request takes at least.
    pub(crate) token_delay_ms: u64,
}

impl Default for OidcOptions {
    fn default() -> Self {
        Self {
            access_token_seconds: 3600,
            redirect_uris: vec!["http://127.0.0.1/oauth/callback/oidc".to_owned()],
            client_keys: Vec::new(),
            scopes: ["mail.read", "mail.send", "calendar.read"].map(str::to_owned).to_vec(),
            token_delay_ms: 0,
        }
    }
}

/// A request to the token endpoint that reached the provider. Tokens are [`digest`]s.
#[derive(Debug, Clone, Deserialize)]
#[expect(dead_code, reason = "the whole record, for tests and for Debug output")]
pub(crate) struct TokenRequest {
    /// Counts all requests to the server.
    pub(crate) number: u64,
    /// When the server began and ended with it, in milliseconds of the server's own monotonic clock.
    pub(crate) started_ms: f64,
    pub(crate) ended_ms: f64,
    /// `authorization_code` or `refresh_token`.
    pub(crate) grant_type: String,
    /// The refresh token that was presented.
    pub(crate) presented: Option<String>,
    /// Whether it had been presented before.
    pub(crate) presented_before: bool,
    /// `ok` or the error code.
    pub(crate) outcome: String,
    pub(crate) issued_access: Option<String>,
    pub(crate) issued_refresh: Option<String>,
    /// The user's subject.
    pub(crate) user: Option<String>,
    pub(crate) scope: Option<String>,
}

/// A request to the revocation endpoint. Tokens are [`digest`]s.
#[derive(Debug, Clone, Deserialize)]
#[expect(dead_code, reason = "the whole record, for tests and for Debug output")]
pub(crate) struct Revocation {
    pub(crate) number: u64,
    pub(crate) presented: Option<String>,
    pub(crate) hint: Option<String>,
    pub(crate) outcome: String,
}

/// The provider's identifier of a user.
pub(crate) fn subject(user: &str) -> String {
    format!("{user}-0001")
}

/// How the server's log writes a token: the first 16 hex digits of its SHA-256.
pub(crate) fn digest(token: &str) -> String {
    hex::encode(&Sha256::digest(token.as_bytes())[..8])
}

/// The running server; dropping it stops it.
pub(crate) struct OidcServer {
    issuer: String,
    pipes: AsyncMutex<Pipes>,
    events: Mutex<Vec<Value>>,
    _process: Child,
}

struct Pipes {
    commands: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    syncs: u64,
}

impl OidcServer {
    /// Starts it on a free port.
    pub(crate) async fn start(options: OidcOptions) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let server = root.join("tests/oidc/server.mjs");
        assert!(root.join("tests/oidc/node_modules").is_dir(), "run `tests/setup` first (`make test` does)");
        let mut process = Command::new(node())
            .arg(server)
            .arg(serde_json::to_string(&options).unwrap())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("node starts: run `tests/setup` first");
        let mut pipes = Pipes {
            commands: process.stdin.take().unwrap(),
            output: BufReader::new(process.stdout.take().unwrap()).lines(),
            syncs: 0,
        };
        let first = next_event(&mut pipes.output).await;
        assert_eq!(first["event"], "listening", "the server's first line is {first}");
        let issuer = first["issuer"].as_str().unwrap().to_owned();
        Self { issuer, pipes: AsyncMutex::new(pipes), events: Mutex::default(), _process: process }
    }

    /// The issuer, also the base of every URL: `http://127.0.0.1:{port}`.
    pub(crate) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Changes `token_delay_ms`, or `outage` (true: the token and revocation endpoints answer 503), from the next request on.
    pub(crate) async fn set(&self, options: Value) {
        self.command(json!({ "set": options })).await;
        self.events().await;
    }

    /// Everything that the server has logged.
    pub(crate) async fn events(&self) -> Vec<Value> {
        let mut pipes = self.pipes.lock().await;
        pipes.syncs += 1;
        let id = pipes.syncs;
        pipes.commands.write_all(format!("{}\n", json!({ "sync": id })).as_bytes()).await.unwrap();
        loop {
            let event = next_event(&mut pipes.output).await;
            if event["event"] == "sync" && event["id"] == id {
                return self.events.lock().unwrap().clone();
            }
            self.events.lock().unwrap().push(event);
        }
    }

    /// Waits until so many grants have died. Sleeps meanwhile.
    pub(crate) async fn wait_for_dead_grants(&self, count: usize) {
        while self.dead_grants().await < count {
            let event = next_event(&mut self.pipes.lock().await.output).await;
            self.events.lock().unwrap().push(event);
        }
    }

    /// All requests to the token endpoint, in the order in which they ended.
    pub(crate) async fn token_requests(&self) -> Vec<TokenRequest> {
        self.of_kind("token").await
    }

    /// The token requests that presented a refresh token.
    pub(crate) async fn refreshes(&self) -> Vec<TokenRequest> {
        let mut requests = self.token_requests().await;
        requests.retain(|request| request.grant_type == "refresh_token");
        requests
    }

    /// All requests to the revocation endpoint.
    pub(crate) async fn revocations(&self) -> Vec<Revocation> {
        self.of_kind("revocation").await
    }

    /// How many grants have died: by revocation, or because a refresh token was presented twice.
    pub(crate) async fn dead_grants(&self) -> usize {
        self.events().await.iter().filter(|event| event["event"] == "grant_revoked").count()
    }

    /// Calls the provider's API as an agent does. The subject, or `None` if the token is refused.
    pub(crate) async fn userinfo(&self, access_token: &str) -> Option<String> {
        let response = reqwest::Client::builder()
            .no_proxy()
            .build()
            .unwrap()
            .get(format!("{}/me", self.issuer))
            .bearer_auth(access_token)
            .send()
            .await
            .unwrap();
        if response.status() == reqwest::StatusCode::UNAUTHORIZED {
            return None;
        }
        assert!(response.status().is_success(), "userinfo answers {}", response.status());
        let claims: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
        Some(claims["sub"].as_str().unwrap().to_owned())
    }

    async fn of_kind<T: serde::de::DeserializeOwned>(&self, kind: &str) -> Vec<T> {
        let events = self.events().await;
        events
            .into_iter()
            .filter(|event| event["event"] == kind)
            .map(|event| serde_json::from_value(event).unwrap())
            .collect()
    }

    async fn command(&self, command: Value) {
        let line = format!("{command}\n");
        self.pipes.lock().await.commands.write_all(line.as_bytes()).await.unwrap();
    }
}

async fn next_event(output: &mut Lines<BufReader<ChildStdout>>) -> Value {
    let line = tokio::time::timeout(PATIENCE, output.next_line())
        .await
        .expect("the provider answers in time")
        .expect("the provider's output can be read")
        .expect("the provider runs");
    serde_json::from_str(&line).expect("the provider logs JSON")
}

/// The Node that `tests/setup` chose.
pub(crate) fn node() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-tools/node")
}
