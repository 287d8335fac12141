//! No secret in any log, at the most talkative level, whatever goes wrong.

use std::io::Write;
use std::process::Command;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::json;
use token_broker::domain::flow::FlowSecrets;
use token_broker::domain::ports::{AuthorizationRequest, OAuthClient as _};
use token_broker::domain::provider::{BodyFormat, ClientAuth};

use super::{AMPLE, client, secret};
use crate::support::hostile::{HostileServer, Reply};
use crate::support::provider::{discovered, endpoints, provider_at, scopes};

/// In every secret of this test.
const CANARY: &str = "canary";

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Captured {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

/// Replies that hold secrets, and those that fail with secrets in places where none belongs.
fn replies() -> Vec<Reply> {
    let description = json!({ "error": "canary-error", "error_description": "canary-description" });
    let scopes: Vec<_> = (0..300).map(|n| format!("scope-{n}")).collect();
    vec![
        Reply::tokens("canary-at", "canary-rt"),
        Reply::tokens(&"canary-at".repeat(4_096), "canary-rt"),
        Reply::json(200, &json!({ "access_token": "canary-at", "scope": scopes })),
        Reply::tokens("canary-at", "canary-rt").cut_off(),
        Reply::tokens("canary-at", "canary-rt").reset_in_body(),
        Reply::tokens("canary-at", "canary-rt").header("set-cookie", "canary-cookie=1"),
        Reply::body(200, "text/canary-type", "canary-body"),
        Reply::body(200, "application/json", "{\"access_token\":\"canary-at\""),
        Reply::json(400, &description),
        Reply::json(401, &description),
        Reply::json(500, &description),
        Reply::redirect(302, &"https://elsewhere.example/?code=canary-code".parse().unwrap()),
        Reply::raw("canary-is-not-http\r\n\r\n"),
        Reply::reset(),
        Reply::close(),
    ]
}

/// Set in the process that does the work. It has its own, since `tracing` remembers call sites that nobody listens to, and
/// the threads of other tests have no listener.
const ALONE: &str = "TOKEN_BROKER_TEST_ALONE";

#[test]
fn no_secret_in_any_log() {
    if std::env::var_os(ALONE).is_none() {
        let name = "oauth_client::leaks::no_secret_in_any_log";
        let mut alone = Command::new(std::env::current_exe().unwrap());
        let output = alone.args(["--exact", name, "--nocapture"]).env(ALONE, "1").output().unwrap();
        let said = format!(
            "{}\n{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    let captured = Captured::default();
    let writer = captured.clone();
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .init();
    tokio::runtime::Runtime::new().unwrap().block_on(use_every_secret());

    let log = captured.text();
    for proof in
        ["provider called", "starting new connection", "the ID token was refused", "discovery failed"]
    {
        assert!(log.contains(proof), "the log was not captured: no {proof:?} in {} bytes", log.len());
    }
    let encoded = STANDARD.encode("client-1:canary-client-secret");
    let leak = log.lines().find(|line| line.contains(CANARY) || line.contains(&encoded));
    assert_eq!(leak, None);
}

/// Calls everything with all that may go wrong.
async fn use_every_secret() {
    let server = HostileServer::start().await;
    let redirect_uri = "https://broker.example/oauth/callback/hostile".parse().unwrap();
    let (code, verifier) = (secret("canary-code"), secret(&format!("canary-verifier-{}", "a".repeat(43))));
    let (access, refresh) = (secret("canary-at"), secret("canary-rt"));
    let client = client();
    for (auth, body) in [
        (ClientAuth::Basic, BodyFormat::Form),
        (ClientAuth::Post, BodyFormat::Json),
        (ClientAuth::None, BodyFormat::Form),
    ] {
        let mut provider = provider_at(&server.base());
        provider.client.secret = Some(secret("canary-client-secret"));
        (provider.client.auth, provider.token.body) = (auth, body);
        let written = endpoints(&provider);
        for reply in replies() {
            for path in ["/token", "/token", "/revoke", "/userinfo"] {
                server.push_at(path, reply.clone());
            }
            let exchange = client.exchange_code(&provider, &written, &redirect_uri, &code, &verifier).await;
            let refreshed = client.refresh(&provider, &refresh, &scopes("read"), AMPLE).await;
            let revoked = client.revoke(&provider, &access, Some(&refresh)).await;
            tracing::debug!(?exchange, ?refreshed, ?revoked, ?provider, "as a careless caller would");
            if let Ok(response) = exchange {
                let account = client.identify(&provider, &written, &response, &secret("canary-nonce")).await;
                tracing::debug!(?account);
            }
        }
        let secrets = FlowSecrets {
            state: secret("canary-state"),
            code_verifier: verifier.clone(),
            nonce: secret("canary-nonce"),
            link: None,
            flow_secret: None,
        };
        let request = AuthorizationRequest {
            endpoints: &written,
            redirect_uri: &redirect_uri,
            secrets: &secrets,
            scopes: &scopes("read"),
            login_hint: None,
        };
        let url = client.authorization_url(&provider, request);
        tracing::debug!(?request, ?url, "as a careless caller would");
    }

    // An ID token that is refused, and metadata of somebody else.
    let mut openid = discovered(&server.base());
    let part = URL_SAFE_NO_PAD.encode("{\"alg\":\"canary-alg\",\"iss\":\"canary-issuer\"}");
    server.push(Reply::json(
        200,
        &json!({ "access_token": "canary-at", "id_token": format!("{part}.{part}.x") }),
    ));
    let metadata = json!({ "issuer": "https://canary-issuer.example", "token_endpoint": "canary-endpoint" });
    server.push_at("/.well-known/openid-configuration", Reply::json(200, &metadata));
    let literal = provider_at(&server.base());
    openid.client.secret = literal.client.secret.clone();
    let written = endpoints(&literal);
    let response = client.exchange_code(&openid, &written, &redirect_uri, &code, &verifier).await.unwrap();
    client.identify(&openid, &written, &response, &secret("canary-nonce")).await.unwrap_err();
    client.endpoints(&openid).await.unwrap_err();
}
