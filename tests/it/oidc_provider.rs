//! The provider of the tests is as strict as the tests believe, and the broker's main job works against it.

use std::collections::HashMap;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;

use crate::support::browser::{Answer, Browser};
use crate::support::oidc::{CLIENT_ID, CLIENT_SECRET, OidcOptions, OidcServer, digest};

const VERIFIER: &str = "a-verifier-of-more-than-forty-three-characters";

/// Posts a form with the client's credentials; the status and the JSON body (null if there is none).
async fn post(url: String, fields: &[(&str, &str)]) -> (u16, Value) {
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    let response = reqwest::Client::builder()
        .no_proxy()
        .build()
        .unwrap()
        .post(url)
        .basic_auth(CLIENT_ID, Some(CLIENT_SECRET))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(body)
        .send()
        .await
        .unwrap();
    (response.status().as_u16(), serde_json::from_str(&response.text().await.unwrap()).unwrap_or_default())
}

/// Stands where the broker's callback would: answers one request and tells its query.
async fn callback() -> (String, tokio::task::JoinHandle<HashMap<String, String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}/oauth/callback/oidc", listener.local_addr().unwrap());
    let received = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await.unwrap();
        let url = url::Url::parse(&format!("http://x{}", line.split(' ').nth(1).unwrap())).unwrap();
        url.query_pairs().into_owned().collect()
    });
    (uri, received)
}

/// A consent of the user's up to the tokens.
async fn tokens(server: &OidcServer, user: &str) -> Value {
    let (redirect_uri, received) = callback().await;
    let link = authorization_url(server, &redirect_uri, Some(VERIFIER));
    Browser::new().consent(&link, user, Answer::Allow).await;
    let query = received.await.unwrap();
    let (status, answer) = post(
        format!("{}/token", server.issuer()),
        &[
            ("grant_type", "authorization_code"),
            ("code", &query["code"]),
            ("redirect_uri", &redirect_uri),
            ("code_verifier", VERIFIER),
        ],
    )
    .await;
    assert_eq!(status, 200, "{answer}");
    answer
}

async fn refresh(server: &OidcServer, token: &str) -> (u16, Value) {
    post(format!("{}/token", server.issuer()), &[("grant_type", "refresh_token"), ("refresh_token", token)])
        .await
}

/// An authorization URL with or without PKCE.
fn authorization_url(server: &OidcServer, redirect_uri: &str, verifier: Option<&str>) -> String {
    let mut url = url::Url::parse(&format!("{}/auth", server.issuer())).unwrap();
    url.query_pairs_mut()
        .append_pair("client_id", CLIENT_ID)
        .append_pair("response_type", "code")
        .append_pair("redirect_uri", redirect_uri)
        .append_pair("scope", "openid offline_access mail.read")
        .append_pair("prompt", "consent")
        .append_pair("state", "s");
    if let Some(verifier) = verifier {
        let challenge = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()));
        url.query_pairs_mut()
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256");
    }
    url.into()
}

#[tokio::test]
async fn a_second_presentation_of_a_refresh_token_ends_the_grant() {
    let server = OidcServer::start(OidcOptions::default()).await;
    let first = tokens(&server, "alice").await;
    let first_refresh = first["refresh_token"].as_str().unwrap();
    let (status, second) = refresh(&server, first_refresh).await;
    assert_eq!(status, 200);
    let second_access = second["access_token"].as_str().unwrap();
    let second_refresh = second["refresh_token"].as_str().unwrap();
    assert_ne!(first_refresh, second_refresh);
    assert_eq!(server.userinfo(second_access).await.as_deref(), Some("alice-0001"));

    assert_eq!(refresh(&server, first_refresh).await.1["error"], "invalid_grant");
    assert_eq!(refresh(&server, second_refresh).await.1["error"], "invalid_grant");
    assert_eq!(server.userinfo(second_access).await, None);

    let log = server.refreshes().await;
    assert_eq!(
        log.iter().map(|r| r.outcome.as_str()).collect::<Vec<_>>(),
        ["ok", "invalid_grant", "invalid_grant"]
    );
    assert_eq!(log.iter().map(|r| r.presented_before).collect::<Vec<_>>(), [false, true, false]);
    assert_eq!(log[0].presented, Some(digest(first_refresh)));
    assert_eq!(log[0].issued_refresh, Some(digest(second_refresh)));
    assert_eq!(server.dead_grants().await, 1);
}

#[tokio::test]
async fn revoking_the_refresh_token_ends_that_grant_and_no_other() {
    let server = OidcServer::start(OidcOptions::default()).await;
    let alice = tokens(&server, "alice").await;
    let bob = tokens(&server, "bob").await;
    let token = alice["refresh_token"].as_str().unwrap();
    let revocation = format!("{}/token/revocation", server.issuer());
    assert_eq!(post(revocation, &[("token", token), ("token_type_hint", "refresh_token")]).await.0, 200);

    assert_eq!(server.userinfo(alice["access_token"].as_str().unwrap()).await, None);
    assert_eq!(refresh(&server, token).await.1["error"], "invalid_grant");
    assert_eq!(server.userinfo(bob["access_token"].as_str().unwrap()).await.as_deref(), Some("bob-0001"));
    let revocations = server.revocations().await;
    assert_eq!(revocations.len(), 1);
    assert_eq!(revocations[0].presented, Some(digest(token)));
}

#[tokio::test]
async fn pkce_is_required_and_a_no_is_an_error() {
    let server = OidcServer::start(OidcOptions::default()).await;
    for (verifier, answer, expected) in
        [(None, Answer::Allow, "invalid_request"), (Some(VERIFIER), Answer::Deny, "access_denied")]
    {
        let (redirect_uri, received) = callback().await;
        let link = authorization_url(&server, &redirect_uri, verifier);
        Browser::new().consent(&link, "alice", answer).await;
        assert_eq!(received.await.unwrap()["error"], expected);
    }
    assert!(server.token_requests().await.is_empty());
}

#[tokio::test]
async fn a_scope_can_be_withheld_and_an_outage_arranged() {
    let server = OidcServer::start(OidcOptions { access_token_seconds: 1, ..OidcOptions::default() }).await;
    let (redirect_uri, received) = callback().await;
    let link = authorization_url(&server, &redirect_uri, Some(VERIFIER));
    Browser::new().consent(&link, "carol", Answer::AllowOnly(&["openid", "offline_access"])).await;
    let code = received.await.unwrap().remove("code").unwrap();
    let form = [
        ("grant_type", "authorization_code"),
        ("code", &code),
        ("redirect_uri", &redirect_uri),
        ("code_verifier", VERIFIER),
    ];
    let endpoint = format!("{}/token", server.issuer());
    server.set(serde_json::json!({ "outage": true })).await;
    assert_eq!(post(endpoint.clone(), &form).await.0, 503);
    server.set(serde_json::json!({ "outage": false })).await;
    let (_, answer) = post(endpoint, &form).await;
    assert_eq!(answer["scope"], "openid offline_access");
    assert_eq!(answer["expires_in"], 1);
}
