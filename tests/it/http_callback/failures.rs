//! What goes wrong behind the callback: every failure has its page, and leaves no grant that nobody can use.

use std::sync::atomic::Ordering;

use serde_json::json;
use token_broker::r#gen::v1::get_credential_response::Result as GetResult;
use token_broker::r#gen::v1::{FlowStatus, GetCredentialRequest};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::support::doors::{AGENT, Doors, files};
use crate::support::hostile::{Gate, Reply};

async fn token(doors: &Doors, user: &str) -> Option<String> {
    let request = GetCredentialRequest { key: Some(files("hostile", user)), ..Default::default() };
    match doors.client(AGENT).await.get_credential(request).await.unwrap().into_inner().result.unwrap() {
        GetResult::Credential(credential) => Some(credential.access_token),
        GetResult::AuthorizationRequired(_) => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_providers_errors_have_their_pages() {
    let doors = Doors::open().await;
    for (error, page, status, failure) in [
        ("access_denied", "denied", FlowStatus::Denied, "ACCESS_DENIED"),
        ("server_error", "failed", FlowStatus::Failed, "PROVIDER_ERROR"),
        ("temporarily_unavailable", "failed", FlowStatus::Failed, "PROVIDER_ERROR"),
        ("invalid_scope", "failed", FlowStatus::Failed, "PROVIDER_ERROR"),
        ("made_up", "failed", FlowStatus::Failed, "PROVIDER_ERROR"),
    ] {
        let (flow, state) = doors.begin(AGENT, "hostile", "alice").await;
        // With a code beside it: an error is an error.
        let link =
            format!("/oauth/callback/hostile?error={error}&error_description=canary&state={state}&code=c");
        let shown = doors.browse(&link).await;
        assert_eq!(shown.name(), page, "{error}");
        assert!(!shown.html.contains("canary") && !shown.html.contains(error));
        let (ended, why) = doors.flow(&flow).await;
        assert!(ended == status && why == failure, "{error}: {why}");
    }
    assert_eq!(doors.provider.requests().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_that_fails_has_its_page() {
    let doors = Doors::open().await;
    for (reply, failure) in [
        (Reply::error("invalid_grant"), "EXCHANGE_REJECTED"),
        (Reply::error("invalid_client"), "EXCHANGE_REJECTED"),
        (Reply::status(503), "EXCHANGE_FAILED"),
        (Reply::reset(), "EXCHANGE_FAILED"),
        (Reply::tokens("at", "rt").cut_off(), "EXCHANGE_FAILED"),
    ] {
        let (flow, state) = doors.begin(AGENT, "hostile", "alice").await;
        doors.provider.push(reply);
        let page = doors.browse(&format!("/oauth/callback/hostile?code=c&state={state}")).await;
        assert_eq!((page.name(), page.status), ("failed", 500), "{failure}");
        let (status, why) = doors.flow(&flow).await;
        assert!(status == FlowStatus::Failed && why == failure, "{why} instead of {failure}");
        assert_eq!(token(&doors, "alice").await, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_write_fails_the_page_and_revokes_the_orphan() {
    let doors = Doors::open().await;
    let (flow, state) = doors.begin(AGENT, "hostile", "alice").await;
    doors.provider.push(Reply::tokens("at-1", "rt-1"));
    doors.provider.push_at("/userinfo", Reply::status(500));
    doors.provider.always("/revoke", Reply::status(200));
    doors.faults.store_grant.store(1, Ordering::SeqCst);
    let page = doors.browse(&format!("/oauth/callback/hostile?code=c&state={state}")).await;
    assert_eq!((page.name(), page.status), ("failed", 500));
    doors.settle().await;
    let revoked = doors.provider.requests_at("/revoke");
    assert_eq!(revoked.len(), 1);
    assert_eq!(revoked[0].param("token").as_deref(), Some("rt-1"));
    let (status, failure) = doors.flow(&flow).await;
    assert!(status == FlowStatus::Failed && failure == "STORE_FAILED", "{failure}");
    assert_eq!(token(&doors, "alice").await, None);
}

/// A server that answers without measure gets its grant back, and nothing of it stays.
#[tokio::test(flavor = "multi_thread")]
async fn a_grant_beyond_the_limits_is_refused_and_revoked() {
    let doors = Doors::open().await;
    doors.provider.always("/revoke", Reply::status(200));
    let before = doors.rows().await;
    let scopes: Vec<_> = (0..62_000).map(|n| format!("{n:05}")).map(|n| n[2..].to_owned()).collect();
    for (n, body) in [
        json!({ "access_token": "canary-at", "refresh_token": "canary-rt-0", "scope": scopes.join(" ") }),
        json!({ "access_token": "canary-at".repeat(4_096), "refresh_token": "canary-rt-1" }),
    ]
    .into_iter()
    .enumerate()
    {
        let (flow, state) = doors.begin(AGENT, "hostile", "alice").await;
        doors.provider.push(Reply::json(200, &body));
        let page = doors.browse(&format!("/oauth/callback/hostile?code=c&state={state}")).await;
        assert_eq!((page.name(), page.status), ("failed", 500));
        doors.settle().await;
        let revoked = doors.provider.requests_at("/revoke");
        assert_eq!(revoked.len(), n + 1);
        assert_eq!(revoked[n].param("token"), Some(format!("canary-rt-{n}")));
        let (status, failure) = doors.flow(&flow).await;
        assert!(status == FlowStatus::Failed && failure == "EXCHANGE_FAILED", "{failure}");
        assert_eq!(token(&doors, "alice").await, None);
    }
    assert!(doors.provider.requests_at("/userinfo").is_empty(), "nobody is asked who it was");
    let after = doors.rows().await;
    assert!(after.len() < before.len() + 8_192, "{} bytes became {}", before.len(), after.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_account_than_the_connected_one_is_refused_and_revoked() {
    let doors = Doors::open().await;
    doors.connect(AGENT, "alice", "at-1", "rt-1").await;
    let (flow, state) = doors.begin(AGENT, "hostile", "alice").await;
    doors.provider.push(Reply::tokens("at-2", "rt-2"));
    doors.provider.push_at("/userinfo", Reply::json(200, &json!({ "sub": "mallory" })));
    doors.provider.always("/revoke", Reply::status(200));
    let page = doors.browse(&format!("/oauth/callback/hostile?code=c&state={state}")).await;
    assert_eq!(page.name(), "failed");
    doors.settle().await;
    assert_eq!(doors.provider.requests_at("/revoke")[0].param("token").as_deref(), Some("rt-2"));
    assert_eq!(doors.flow(&flow).await.1, "ACCOUNT_MISMATCH");
    assert_eq!(token(&doors, "alice").await.as_deref(), Some("at-1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_that_hangs_up_interrupts_nothing() {
    let doors = Doors::open().await;
    let (flow, state) = doors.begin(AGENT, "hostile", "alice").await;
    let gate = Gate::default();
    doors.provider.push(Reply::tokens("at-1", "rt-1").held_by(&gate));
    doors.provider.push_at("/userinfo", Reply::status(500));
    let (name, key) = doors.cookies().clone().into_iter().next().unwrap();
    let cookie = format!("{name}={key}");
    let mut browser = TcpStream::connect(doors.public).await.unwrap();
    let request = format!(
        "GET /oauth/callback/hostile?code=c&state={state} HTTP/1.1\r\nhost: broker\r\ncookie: {cookie}\r\n\r\n"
    );
    browser.write_all(request.as_bytes()).await.unwrap();
    doors.provider.wait_for_requests(1).await;
    browser.set_zero_linger().unwrap();
    drop(browser);
    gate.release();
    doors.settle().await;
    assert!(doors.flow(&flow).await.0 == FlowStatus::Completed);
    assert_eq!(token(&doors, "alice").await.as_deref(), Some("at-1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_back_is_offered_whatever_happened() {
    let doors = Doors::open().await;
    for (query, page) in [("code=c", "connected"), ("error=access_denied", "denied"), ("error=x", "failed")] {
        let options = token_broker::r#gen::v1::ConsentOptions {
            return_url: "https://app.example/chat/42?a=1&b=2".to_owned(),
            ..Default::default()
        };
        let flow = doors.begin_with(AGENT, "hostile", page, options).await;
        let state = doors.confirm(&flow).await;
        doors.provider.push(Reply::tokens("at", "rt"));
        doors.provider.push_at("/userinfo", Reply::status(500));
        let shown = doors.browse(&format!("/oauth/callback/hostile?{query}&state={state}")).await;
        assert_eq!(shown.name(), page);
        assert!(
            shown.html.contains("href=\"https://app.example/chat/42?a=1&#38;b=2\""),
            "{page}: {}",
            shown.html
        );
    }
}
