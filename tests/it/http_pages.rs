//! What goes with every page, and what else the listeners answer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use token_broker::domain::ports::{StoreError, StoreHealth};
use token_broker::transport::http::{OperationsState, operations_router, public_router};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tower::ServiceExt as _;

use crate::support::doors::{AGENT, Doors, Page};

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

/// Collects what is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// On one thread, so that the log of this thread is the log of everything.
#[tokio::test]
async fn nothing_of_an_address_is_logged() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let doors = Doors::open().await;
    let (_, state) = doors.begin(AGENT, "hostile", "alice").await;
    let router = public_router(Arc::clone(&doors.broker));
    let _logging = tracing::subscriber::set_default(subscriber);
    for path in [
        format!("/oauth/callback/hostile?code=canary-code&state={state}&error_description=canary-text"),
        format!("/oauth/callback/canary-path/{state}?canary-query"),
        format!("/canary-path?code=canary-code&state={state}"),
    ] {
        let request = http::Request::get(path).body(axum::body::Body::empty()).unwrap();
        router.clone().oneshot(request).await.unwrap();
    }
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(text.contains("page=\"other-browser\"") && text.contains("page=\"not-found\""), "{text}");
    assert!(!text.contains("canary") && !text.contains(&state), "{text}");
}
