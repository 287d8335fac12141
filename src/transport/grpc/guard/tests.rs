//! The guard around methods of the tests' own.

use axum::Router;
use axum::body::Body;
use http::{HeaderMap, Response};
use tower::ServiceExt as _;

use super::*;
use crate::application::limits::Limits;
use crate::domain::access_policy::{Caller, Identity};
use crate::domain::audit::NoAudit;
use crate::domain::key::{CallerId, TenantId};
use crate::domain::ports::{CallerDirectory, StoreError};
use crate::domain::secret::SecretString;

const KEY: &str = "tb_0123456789012345678901234567890123456789012";
/// Longer than any test takes.
const MAX: Duration = Duration::from_secs(600);
const OWN: &str = "/tokenbroker.v1.TokenBrokerService/GetCredential";
const HEALTH: &str = "/grpc.health.v1.Health/Check";

pub(super) fn agent() -> Arc<Caller> {
    Arc::new(Caller::new(CallerId::new("agent").unwrap(), TenantId::new("acme").unwrap(), vec![]))
}

struct OneCaller;

#[tonic::async_trait]
impl CallerDirectory for OneCaller {
    async fn caller(&self, identity: &Identity) -> Result<Option<Arc<Caller>>, StoreError> {
        let known = Identity::of_api_key(&SecretString::from(KEY)).as_ref() == Some(identity);
        Ok(known.then(agent))
    }

    fn remembers(&self, _: &Identity) -> bool {
        true
    }
}

pub(super) struct Zeros;

impl Entropy for Zeros {
    fn fill(&self, buffer: &mut [u8]) {
        buffer.fill(0);
    }
}

struct Stopped;

impl crate::domain::ports::Clock for Stopped {
    fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::UNIX_EPOCH
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}

async fn ask(path: &str, headers: &[(&str, &str)]) -> Response<Body> {
    ask_within(MAX, path, headers).await
}

async fn ask_within(max: Duration, path: &str, headers: &[(&str, &str)]) -> Response<Body> {
    let limits = Arc::new(Limits::none());
    let identifier = Identifier { callers: Arc::new(OneCaller), tokens: None, limits };
    let guard = Arc::new(Guard::new(
        identifier,
        Auditor::new(Arc::new(NoAudit), Arc::new(Stopped)),
        Proxies::none(),
        &Zeros,
        max,
        TaskTracker::new(),
    ));
    let method = |request: Request| async move {
        let wish = request.headers().get("wish").map(|w| w.to_str().unwrap().to_owned());
        match wish.as_deref() {
            Some("panic") => panic!("a secret in a panic"),
            Some("hang") => std::future::pending().await,
            Some("bare") => Status::out_of_range("decoded 9 bytes too many").into_http(),
            Some("bare headers") => {
                Response::builder().header("grpc-status", "12").body(Body::empty()).unwrap()
            }
            Some("bare internal") => Status::internal("failed to decode").into_http(),
            _ => {
                let call = request.extensions().get::<Call>();
                let id = call.map_or("nobody", |call| call.principal.id().as_str());
                let left = call.map_or(0, |call| call.deadline.time_left().as_millis());
                Response::builder()
                    .header("seen", id)
                    .header("left", left.to_string())
                    .body(Body::empty())
                    .unwrap()
            }
        }
    };
    let router = Router::new().fallback(method).layer(axum::middleware::from_fn_with_state(guard, run));
    let mut request = Request::builder().uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    router.oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
}

fn with_key<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut headers = vec![("authorization", "Bearer tb_0123456789012345678901234567890123456789012")];
    headers.extend_from_slice(more);
    headers
}

fn outcome(headers: &HeaderMap) -> (Code, String) {
    let status = Status::from_header_map(headers).expect("an error");
    (status.code(), status.get_details_error_info().map(|info| info.reason).unwrap_or_default())
}

#[tokio::test]
async fn a_known_caller_reaches_the_method_with_a_deadline() {
    let response = ask(OWN, &with_key(&[])).await;
    assert_eq!(response.headers()["seen"], "agent");
    let left =
        |response: &Response<Body>| response.headers()["left"].to_str().unwrap().parse::<u64>().unwrap();
    assert!((1..=600_000).contains(&left(&response)));
    let response = ask(OWN, &with_key(&[("grpc-timeout", "5M")])).await;
    assert!((1..300_000).contains(&left(&response)));
}

#[tokio::test]
async fn nobody_reaches_anything_but_health() {
    for path in [OWN, "/", "/tokenbroker.v1.TokenBrokerService/New", "/grpc.reflection.v1.ServerReflection/X"]
    {
        for headers in [vec![], vec![("authorization", "Bearer tb_wrong")], vec![("x-api-key", KEY)]] {
            let response = ask(path, &headers).await;
            assert_eq!(outcome(response.headers()), (Code::Unauthenticated, "UNAUTHENTICATED".to_owned()));
            assert!(response.headers().get("seen").is_none());
        }
    }
    assert_eq!(ask(HEALTH, &[]).await.headers()["seen"], "nobody");
    assert_eq!(ask(&format!("{OWN}?key={KEY}"), &[]).await.headers().get("seen"), None);
}

#[tokio::test]
async fn every_refusal_of_an_unknown_caller_is_the_same() {
    let mut answers = std::collections::BTreeSet::new();
    for entry in
        ["", "Bearer", "Basic x", "Bearer tb_", "Bearer tb_9123456789012345678901234567890123456789012"]
    {
        let response = ask(OWN, &[("authorization", entry), ("x-request-id", "same")]).await;
        answers.insert(format!("{:?}", response.headers()));
    }
    assert_eq!(answers.len(), 1, "{answers:#?}");
}

#[tokio::test]
async fn a_panic_is_this_calls_failure_only() {
    let response = ask(OWN, &with_key(&[("wish", "panic")])).await;
    assert_eq!(outcome(response.headers()), (Code::Internal, "INTERNAL".to_owned()));
    assert!(!format!("{:?}", response.headers()).contains("secret"));
}

#[tokio::test]
async fn a_call_is_given_up_at_its_deadline() {
    for (timeout, waited) in [("50m", 45), ("10M", 190)] {
        let started = Instant::now();
        let headers = with_key(&[("wish", "hang"), ("grpc-timeout", timeout)]);
        let response = ask_within(Duration::from_millis(200), OWN, &headers).await;
        assert_eq!(outcome(response.headers()), (Code::DeadlineExceeded, "DEADLINE_EXCEEDED".to_owned()));
        let took = u64::try_from(started.elapsed().as_millis()).unwrap();
        assert!(took >= waited, "{timeout}: {took}");
    }
    let response = ask(OWN, &with_key(&[("grpc-timeout", "soon")])).await;
    assert_eq!(outcome(response.headers()), (Code::InvalidArgument, "MALFORMED_TIMEOUT".to_owned()));
}

#[tokio::test]
async fn what_the_framework_refuses_gets_the_brokers_reasons() {
    for (wish, code, reason) in [
        ("bare", Code::ResourceExhausted, "REQUEST_TOO_LARGE"),
        ("bare headers", Code::Unimplemented, "UNIMPLEMENTED"),
        ("bare internal", Code::InvalidArgument, "MALFORMED_REQUEST"),
    ] {
        let response = ask(OWN, &with_key(&[("wish", wish)])).await;
        assert_eq!(outcome(response.headers()), (code, reason.to_owned()));
    }
}

#[tokio::test]
async fn the_request_id_comes_back() {
    let response = ask(OWN, &with_key(&[("x-request-id", "run-7")])).await;
    assert_eq!(response.headers()["x-request-id"], "run-7");
    assert_eq!(ask(OWN, &[("x-request-id", "run-8")]).await.headers()["x-request-id"], "run-8");
    let made = ask(OWN, &with_key(&[])).await;
    assert!(made.headers()["x-request-id"].to_str().unwrap().len() > 10);
}
