//! What goes with every page, and what else the listeners answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use token_broker::domain::ports::{StoreError, StoreHealth};
use token_broker::r#gen::v1::BeginOAuthRequest;
use token_broker::transport::http::{OperationsState, operations_router};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::support::broker::{BrokerBuilder, answered};
use crate::support::browser::Browser;
use crate::support::doors::{Doors, Page, state_in};
use crate::support::hostile::HostileServer;

#[tokio::test(flavor = "multi_thread")]
async fn everything_else_is_a_page_too() {
    let doors = Doors::open().await;
    for path in [
        "/",
        "/favicon.ico",
        "/robots.txt",
        "/oauth/callback",
        "/oauth",
        "/livez",
        "/readyz",
        "/metrics",
        "/connect",
        "/login",
        "/%00",
        "/%ff",
        "//evil.example/",
        "/.well-known/openid-configuration",
    ] {
        let page = doors.browse(path).await;
        assert_eq!((page.name(), page.status), ("not-found", 404), "{path}");
        assert_headers(&page);
    }
    for path in [
        "/oauth/callback/",
        "/oauth/callback/a/b",
        "/oauth/callback/hostile/",
        "/connect/",
        "/connect/x",
        "/login/callback",
    ] {
        let page = doors.browse(path).await;
        assert_eq!((page.name(), page.status), ("invalid", 400), "{path}");
        assert_headers(&page);
    }
}

fn assert_headers(page: &Page) {
    let header = |name: &str| page.headers[name].to_str().unwrap();
    assert_eq!(header("content-type"), "text/html; charset=utf-8");
    assert_eq!(header("cache-control"), "no-store");
    assert_eq!(header("referrer-policy"), "no-referrer");
    assert_eq!(header("x-content-type-options"), "nosniff");
    assert_eq!(header("x-frame-options"), "DENY");
    assert_eq!(header("cross-origin-opener-policy"), "same-origin");
    assert!(header("permissions-policy").contains("camera=()"));
    let policy: Vec<_> = header("content-security-policy").split("; ").collect();
    assert_eq!(policy[0], "default-src 'none'");
    assert!(policy[1].starts_with("style-src 'sha256-"));
    assert_eq!(policy[2..], ["base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"]);
    assert!(page.headers.get("server").is_none() && page.headers.get("set-cookie").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn https_is_for_good_where_there_is_https() {
    let doors = Doors::open().await;
    assert_eq!(doors.browse("/").await.headers["strict-transport-security"], "max-age=31536000");
    let doors = Doors::open_with("http://127.0.0.1:8080", Duration::from_secs(60)).await;
    assert!(doors.browse("/").await.headers.get("strict-transport-security").is_none());
}

struct Store(AtomicBool);

#[async_trait]
impl StoreHealth for Store {
    async fn ping(&self) -> Result<(), StoreError> {
        if self.0.load(Ordering::SeqCst) {
            Ok(())
        } else {
            Err(StoreError::Unavailable("the test says so".into()))
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn operations_tell_life_readiness_and_metrics() {
    let (ready, receiver) = watch::channel(false);
    let store = Arc::new(Store(AtomicBool::new(true)));
    let state = OperationsState {
        ready: receiver,
        store: store.clone(),
        metrics: Arc::new(|| "# HELP a b\na 1\n".to_owned()),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move { axum::serve(listener, operations_router(state)).await.unwrap() });
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let get = |path: &str| {
        let request = client.get(format!("{base}{path}"));
        async move {
            let response = request.send().await.unwrap();
            (response.status().as_u16(), response.text().await.unwrap())
        }
    };
    assert_eq!(get("/livez").await, (200, "ok\n".to_owned()));
    assert_eq!(get("/readyz").await.0, 503, "before start-up has ended");
    ready.send_replace(true);
    assert_eq!(get("/readyz").await, (200, "ready\n".to_owned()));
    store.0.store(false, Ordering::SeqCst);
    assert_eq!(get("/readyz").await, (503, "not ready: the database does not answer\n".to_owned()));
    assert_eq!(get("/livez").await.0, 200, "a restart would not mend the database");
    store.0.store(true, Ordering::SeqCst);
    ready.send_replace(false);
    assert_eq!(get("/readyz").await.0, 503, "at shutdown");
    assert_eq!(get("/metrics").await, (200, "# HELP a b\na 1\n".to_owned()));
    assert_eq!(get("/").await.0, 404);
    serving.abort();
}

/// A process of its own, at its most talkative: what it writes is all that it logs.
#[tokio::test]
async fn nothing_of_an_address_is_logged() {
    let provider = HostileServer::start().await;
    let broker = BrokerBuilder::new().hostile(&provider).set("log.level", "trace").spawn_process().await;
    let request = BeginOAuthRequest {
        provider: "hostile".to_owned(),
        user_id: "alice".to_owned(),
        services: vec!["files".to_owned()],
        ..BeginOAuthRequest::default()
    };
    let flow = answered(broker.client("agent").await.begin_o_auth(request).await).flow.unwrap();
    let provider_page = Browser::new().confirm(&flow.authorization_url).await;
    let state = &state_in(provider_page.as_str());
    let (_, handle) = flow.authorization_url.split_once("/connect/").unwrap();
    for path in [
        format!("/oauth/callback/hostile?code=canary-code&state={state}&error_description=canary-text"),
        format!("/oauth/callback/canary-path/{state}?canary-query"),
        format!("/canary-path?code=canary-code&state={state}"),
    ] {
        reqwest::get(format!("{}{path}", broker.public_url())).await.unwrap();
    }
    for page in ["other-browser", "invalid", "not-found"] {
        broker.wait_for_log(&format!("\"page\":\"{page}\"")).await;
    }
    let logs = broker.logs();
    for secret in ["canary", state, handle] {
        assert!(!logs.contains(secret), "{logs}");
    }
}
