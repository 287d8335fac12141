//! Endpoints found out from an issuer.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use token_broker::domain::ports::{OAuthClient as _, ProviderFailure};
use token_broker::infra::oauth::HttpOAuthClient;
use token_broker::infra::outbound::HttpSettings;
use token_broker::infra::system::SystemEntropy;

use super::{AMPLE, TestClock, client_with, secret};
use crate::support::hostile::{Gate, HostileServer, Reply};
use crate::support::provider::{discovered, scopes};

const OPENID: &str = "/.well-known/openid-configuration";
const OAUTH: &str = "/.well-known/oauth-authorization-server";

fn metadata(issuer: &str) -> Value {
    json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{issuer}/authorize"),
        "token_endpoint": format!("{issuer}/token"),
        "revocation_endpoint": format!("{issuer}/revoke"),
        "userinfo_endpoint": format!("{issuer}/userinfo"),
        "authorization_response_iss_parameter_supported": true,
        "unknown": ["things"],
    })
}

/// One that knows nothing yet.
fn client() -> HttpOAuthClient {
    client_with(HttpSettings::default())
}

fn client_and_clock() -> (HttpOAuthClient, Arc<TestClock>) {
    let clock = Arc::new(TestClock::default());
    (
        HttpOAuthClient::new(HttpSettings::default(), Arc::clone(&clock) as _, Arc::new(SystemEntropy))
            .unwrap(),
        clock,
    )
}

#[tokio::test]
async fn an_issuer_tells_its_endpoints() {
    let server = HostileServer::start().await;
    let issuer = server.base();
    server.push_at(OPENID, Reply::json(200, &metadata(&issuer)));
    let found = client().endpoints(&discovered(&issuer)).await.unwrap();
    assert_eq!(found.issuer.as_deref(), Some(issuer.as_str()));
    assert!(found.iss_required);
    assert_eq!(found.authorization, server.url("/authorize"));
    assert_eq!(found.token, server.url("/token"));
    assert_eq!(found.revocation, Some(server.url("/revoke")));
    assert_eq!(found.userinfo, Some(server.url("/userinfo")));
    assert_eq!(server.only_request().method, "GET");
}

#[tokio::test]
async fn what_is_not_told_is_not_there() {
    let server = HostileServer::start().await;
    let issuer = server.base();
    let least = json!({
        "issuer": issuer,
        "authorization_endpoint": server.url("/a").as_str(),
        "token_endpoint": server.url("/t").as_str(),
        "userinfo_endpoint": null,
    });
    server.push_at(OPENID, Reply::json(200, &least));
    let found = client().endpoints(&discovered(&issuer)).await.unwrap();
    assert_eq!((found.revocation, found.userinfo, found.iss_required), (None, None, false));
}

#[tokio::test]
async fn rfc_8414_metadata_is_the_second_choice() {
    let server = HostileServer::start().await;
    // OpenID appends to the path, RFC 8414 puts its part before it.
    let issuer = server.url("/tenant/one").to_string();
    server.push_at("/tenant/one/.well-known/openid-configuration", Reply::status(404));
    server.push_at(&format!("{OAUTH}/tenant/one"), Reply::json(200, &metadata(&issuer)));
    let found = client().endpoints(&discovered(&issuer)).await.unwrap();
    assert_eq!(found.token, server.url("/tenant/one/token"));
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn bad_metadata_gives_no_endpoints() {
    type Change = (&'static str, fn(&mut Value, &str));
    let changes: [Change; 14] = [
        ("another issuer", |m, _| m["issuer"] = json!("https://evil.example")),
        ("a slash more", |m, issuer| m["issuer"] = json!(format!("{issuer}/"))),
        ("another case", |m, issuer| m["issuer"] = json!(issuer.replace("http", "HTTP"))),
        ("the same by another name", |m, issuer| {
            m["issuer"] = json!(issuer.replace("127.0.0.1", "localhost"));
        }),
        ("no issuer", |m, _| drop(m.as_object_mut().unwrap().remove("issuer"))),
        ("an issuer that is no text", |m, issuer| m["issuer"] = json!([issuer])),
        ("no token endpoint", |m, _| drop(m.as_object_mut().unwrap().remove("token_endpoint"))),
        ("no authorization endpoint", |m, _| m["authorization_endpoint"] = Value::Null),
        ("a token endpoint without TLS", |m, _| m["token_endpoint"] = json!("http://provider.example/token")),
        ("a token endpoint that is no URL", |m, _| m["token_endpoint"] = json!("/token")),
        ("a token endpoint with a password", |m, _| {
            m["token_endpoint"] = json!("https://a:b@provider.example/");
        }),
        ("a token endpoint with a fragment", |m, _| {
            m["token_endpoint"] = json!("https://provider.example/#x");
        }),
        ("a userinfo endpoint without TLS", |m, _| {
            m["userinfo_endpoint"] = json!("http://10.0.0.1/userinfo");
        }),
        ("a revocation endpoint of a file", |m, _| m["revocation_endpoint"] = json!("file:///etc/passwd")),
    ];
    for (name, change) in changes {
        let server = HostileServer::start().await;
        let issuer = server.base();
        let mut body = metadata(&issuer);
        change(&mut body, &issuer);
        server.push_at(OPENID, Reply::json(200, &body));
        let found = client().endpoints(&discovered(&issuer)).await;
        assert_eq!(found.unwrap_err(), ProviderFailure::NotSent, "{name}");
        server.only_request();
    }
}

#[tokio::test]
async fn an_issuer_that_does_not_answer_gives_no_endpoints() {
    let elsewhere = HostileServer::start().await;
    for (name, reply) in [
        ("no document", Reply::status(404)),
        ("an error", Reply::status(503)),
        ("a redirect", Reply::redirect(302, &elsewhere.url(OPENID))),
        ("a page", Reply::body(200, "text/html", "<html></html>")),
        ("an array", Reply::json(200, &json!([]))),
        ("an endless document", Reply::endless()),
        ("a document that breaks off", Reply::json(200, &json!({ "issuer": "x" })).cut_off()),
        ("a reset", Reply::reset()),
        ("silence", Reply::silence()),
    ] {
        let server = HostileServer::start().await;
        server.push_at(OPENID, reply);
        server.push_at(OAUTH, Reply::status(404));
        let settings = HttpSettings { total_timeout: Duration::from_millis(300), ..HttpSettings::default() };
        let found = client_with(settings).endpoints(&discovered(&server.base())).await;
        assert_eq!(found.unwrap_err(), ProviderFailure::NotSent, "{name}");
    }
    assert_eq!(elsewhere.connections(), 0);
}

#[tokio::test]
async fn an_issuer_must_be_a_plain_url() {
    let server = HostileServer::start().await;
    server.always(OPENID, Reply::json(200, &metadata(&server.base())));
    let port = server.port();
    for issuer in [
        format!("http://0.0.0.0:{port}"),
        format!("http://127.0.0.1:{port}?x=y"),
        format!("http://127.0.0.1:{port}#x"),
        format!("http://a:b@127.0.0.1:{port}"),
        "not a URL".to_owned(),
    ] {
        let found = client().endpoints(&discovered(&issuer)).await;
        assert_eq!(found.unwrap_err(), ProviderFailure::NotSent, "{issuer}");
    }
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn a_document_is_asked_for_once_an_hour() {
    let server = HostileServer::start().await;
    let issuer = server.base();
    server.always(OPENID, Reply::json(200, &metadata(&issuer)));
    let (client, clock) = client_and_clock();
    let provider = discovered(&issuer);
    for _ in 0..3 {
        client.endpoints(&provider).await.unwrap();
    }
    clock.advance(Duration::from_mins(59));
    client.endpoints(&provider).await.unwrap();
    assert_eq!(server.requests().len(), 1);
    clock.advance(Duration::from_mins(2));
    client.endpoints(&provider).await.unwrap();
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn many_that_ask_at_once_make_one_request() {
    let server = HostileServer::start().await;
    let issuer = server.base();
    let gate = Gate::default();
    server.push_at(OPENID, Reply::json(200, &metadata(&issuer)).held_by(&gate));
    let (client, provider) = (client(), discovered(&issuer));
    let all = futures_util::future::join_all((0..50).map(|_| client.endpoints(&provider)));
    let released = async {
        server.wait_for_requests(1).await;
        gate.release();
    };
    let (found, ()) = tokio::join!(all, released);
    assert!(found.iter().all(Result::is_ok));
    server.only_request();
}

#[tokio::test]
async fn a_failure_is_remembered_for_seconds() {
    let server = HostileServer::start().await;
    let issuer = server.base();
    server.push_at(OPENID, Reply::status(503));
    server.push_at(OPENID, Reply::json(200, &metadata(&issuer)));
    let (client, clock) = client_and_clock();
    let provider = discovered(&issuer);
    for _ in 0..3 {
        assert_eq!(client.endpoints(&provider).await.unwrap_err(), ProviderFailure::NotSent);
    }
    server.only_request();
    clock.advance(Duration::from_secs(5));
    client.endpoints(&provider).await.unwrap();
}

#[tokio::test]
async fn known_endpoints_serve_for_a_day_while_the_issuer_is_down() {
    let server = HostileServer::start().await;
    let issuer = server.base();
    server.push_at(OPENID, Reply::json(200, &metadata(&issuer)));
    server.always(OPENID, Reply::status(503));
    let (client, clock) = client_and_clock();
    let provider = discovered(&issuer);
    client.endpoints(&provider).await.unwrap();
    clock.advance(Duration::from_hours(23));
    client.endpoints(&provider).await.unwrap();
    assert_eq!(server.requests().len(), 2);
    clock.advance(Duration::from_hours(2));
    assert_eq!(client.endpoints(&provider).await.unwrap_err(), ProviderFailure::NotSent);
}

#[tokio::test]
async fn a_refresh_does_not_wait_for_a_second_document() {
    let server = HostileServer::start().await;
    let issuer = server.base();
    server.push_at(OPENID, Reply::json(200, &metadata(&issuer)));
    server.always("/token", Reply::tokens("at-1", "rt-1"));
    let (client, clock) = client_and_clock();
    let provider = discovered(&issuer);
    client.endpoints(&provider).await.unwrap();
    clock.advance(Duration::from_hours(20));
    client.refresh(&provider, &secret("rt-0"), &scopes("read"), AMPLE).await.unwrap();
    assert_eq!((server.requests_at(OPENID).len(), server.requests_at("/token").len()), (1, 1));
}

#[tokio::test]
async fn a_refresh_whose_endpoint_can_not_be_found_was_not_sent() {
    let server = HostileServer::start().await;
    server.push_at(OPENID, Reply::silence());
    let provider = discovered(&server.base());
    let deadline = Duration::from_secs(1);
    let answer = client().refresh(&provider, &secret("rt-0"), &scopes("read"), deadline).await;
    assert_eq!(answer.unwrap_err(), ProviderFailure::NotSent);
    assert_eq!(server.only_request().path, OPENID);
}

#[tokio::test]
async fn a_caller_that_gives_up_does_not_hold_up_the_next() {
    let server = HostileServer::start().await;
    let issuer = server.base();
    server.push_at(OPENID, Reply::silence());
    server.push_at(OPENID, Reply::json(200, &metadata(&issuer)));
    let (client, provider) = (client(), discovered(&issuer));
    tokio::select! {
        _ = client.endpoints(&provider) => panic!("silence gives no endpoints"),
        () = server.wait_for_requests(1) => {}
    }
    client.endpoints(&provider).await.unwrap();
}
