//! What each answer means for the token that was presented (refresh protocol, "What the provider may answer").

use std::time::Duration;

use serde_json::json;
use token_broker::domain::ports::{OAuthClient as _, ProviderFailure};
use token_broker::domain::provider::{EndpointSource, Provider};
use token_broker::domain::token_set::TokenResponse;
use token_broker::infra::oauth::HttpOAuthClient;
use token_broker::infra::outbound::HttpSettings;

use super::{AMPLE, client, client_with, refresh_against, secret};
use crate::support::hostile::{HostileServer, Reply};
use crate::support::provider::{endpoints, provider_at, scopes};

use ProviderFailure::{Ambiguous, ClientRejected, InvalidGrant, NotSent, Refused};

fn rate_limited(seconds: Option<u64>) -> ProviderFailure {
    ProviderFailure::RateLimited { retry_after: seconds.map(Duration::from_secs) }
}

#[tokio::test]
async fn every_answer_has_its_class() {
    let html = "<html>no</html>";
    let cases = [
        ("invalid_grant", Reply::error("invalid_grant"), InvalidGrant),
        ("invalid_grant, 401", Reply::json(401, &json!({ "error": "invalid_grant" })), InvalidGrant),
        (
            "invalid_grant in a form",
            Reply::body(400, "application/x-www-form-urlencoded", "error=invalid_grant"),
            InvalidGrant,
        ),
        ("invalid_client", Reply::error("invalid_client"), ClientRejected),
        ("invalid_client, 401", Reply::json(401, &json!({ "error": "invalid_client" })), ClientRejected),
        ("unauthorized_client", Reply::error("unauthorized_client"), ClientRejected),
        ("401 without a body", Reply::status(401), ClientRejected),
        ("401 with a page", Reply::body(401, "text/html", html), ClientRejected),
        ("401 with its own word", Reply::json(401, &json!({ "error": "go_away" })), Refused),
        ("401 cut off", Reply::json(401, &json!({ "error": "invalid_grant" })).cut_off(), Refused),
        ("invalid_request", Reply::error("invalid_request"), Refused),
        ("invalid_scope", Reply::error("invalid_scope"), Refused),
        ("unsupported_grant_type", Reply::error("unsupported_grant_type"), Refused),
        ("its own word", Reply::error("no_way"), Refused),
        ("400 without a body", Reply::status(400), Refused),
        ("400 with a page", Reply::body(400, "text/html", html), Refused),
        ("403 without a body", Reply::status(403), Refused),
        ("404", Reply::status(404), Refused),
        (
            "an error that is no text",
            Reply::json(400, &json!({ "error": { "code": "invalid_grant" } })),
            Refused,
        ),
        ("slow_down", Reply::error("slow_down"), rate_limited(None)),
        ("429", Reply::status(429), rate_limited(None)),
        (
            "429 with invalid_grant",
            Reply::json(429, &json!({ "error": "invalid_grant" })),
            rate_limited(None),
        ),
        ("429 with seconds", Reply::status(429).header("retry-after", "17"), rate_limited(Some(17))),
        (
            "429 with a date",
            Reply::status(429).header("retry-after", "Thu, 01 Jan 2026 00:02:00 GMT"),
            rate_limited(Some(120)),
        ),
        ("429 with a year", Reply::status(429).header("retry-after", "31536000"), rate_limited(Some(86_400))),
        ("429 with nonsense", Reply::status(429).header("retry-after", "soon"), rate_limited(None)),
        ("server_error", Reply::error("server_error"), Ambiguous),
        ("temporarily_unavailable", Reply::error("temporarily_unavailable"), Ambiguous),
        ("408", Reply::status(408), Ambiguous),
        ("500", Reply::status(500), Ambiguous),
        ("500 with invalid_grant", Reply::json(500, &json!({ "error": "invalid_grant" })), Ambiguous),
        ("502 with a page", Reply::body(502, "text/html", html), Ambiguous),
        ("503 with a time", Reply::status(503).header("retry-after", "5"), Ambiguous),
        ("504", Reply::status(504), Ambiguous),
    ];
    for (name, reply, expected) in cases {
        let answer = refresh_against(reply, |_| {}).await;
        assert_eq!(answer.unwrap_err(), expected, "{name}");
    }
}

#[tokio::test]
async fn a_success_that_can_not_be_read_may_have_spent_the_token() {
    let nested = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let gzip = [
        31, 139, 8, 0, 0, 0, 0, 0, 2, 3, 171, 86, 74, 76, 78, 78, 45, 46, 142, 47, 201, 207, 78, 205, 83,
        178, 82, 74, 44, 209, 77, 173, 40, 72, 204, 75, 73, 77, 81, 170, 5, 0, 188, 184, 155, 144, 30, 0, 0,
        0,
    ];
    let tokens = || Reply::tokens("at-1", "rt-1");
    let too_long = format!("{{\"access_token\":\"at-1\"{}}}", " ".repeat(256 * 1024));
    let cases = [
        ("no body", Reply::status(200)),
        ("204", Reply::status(204)),
        ("an empty object", Reply::json(200, &json!({}))),
        ("an array", Reply::json(200, &json!(["access_token"]))),
        ("a text", Reply::json(200, &json!("at-1"))),
        ("no access token", Reply::json(200, &json!({ "refresh_token": "rt-1" }))),
        ("an empty access token", Reply::json(200, &json!({ "access_token": "" }))),
        ("an access token of null", Reply::json(200, &json!({ "access_token": null }))),
        ("an access token that is a number", Reply::json(200, &json!({ "access_token": 5 }))),
        ("a page", Reply::body(200, "text/html", "<html>sign in</html>")),
        ("half a JSON", Reply::body(200, "application/json", "{\"access_token\":\"at-1\"")),
        ("not UTF-8", Reply::body(200, "application/json", b"{\"access_token\":\"\xff\xfe\"}".to_vec())),
        ("deep nesting", Reply::body(200, "application/json", nested)),
        ("compressed unasked", Reply::body(200, "application/json", gzip).header("content-encoding", "gzip")),
        ("an endless body", Reply::endless()),
        ("a body that is too long", Reply::body(200, "application/json", too_long)),
        ("a body that breaks off", tokens().cut_off()),
        ("a reset in the body", tokens().reset_in_body()),
        ("no answer", Reply::close()),
        ("a reset", Reply::reset()),
        ("not HTTP", Reply::raw("SSH-2.0-OpenSSH_9.6\r\n")),
        ("half a head", Reply::raw("HTTP/1.1 200 OK\r\ncontent-")),
        (
            "a head without end",
            Reply::raw(format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(1024 * 1024))),
        ),
        ("too many headers", Reply::raw(format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(10_000)))),
    ];
    for (name, reply) in cases {
        let answer = refresh_against(reply, |_| {}).await;
        assert_eq!(answer.unwrap_err(), Ambiguous, "{name}");
    }
}

#[tokio::test]
async fn an_error_inside_200_is_an_error() {
    for (code, expected) in [
        ("bad_refresh_token", InvalidGrant),
        ("invalid_grant", InvalidGrant),
        ("bad_client", ClientRejected),
        ("invalid_client", ClientRejected),
        ("slow_down", rate_limited(None)),
        ("temporarily_unavailable", Ambiguous),
        ("server_error", Ambiguous),
        ("something_else", Refused),
    ] {
        let reply = Reply::json(200, &json!({ "error": code, "error_description": "words" }));
        let answer = refresh_against(reply, |p| {
            p.response.error_aliases =
                [("bad_refresh_token", "invalid_grant"), ("bad_client", "invalid_client")]
                    .map(|(word, code)| (word.to_owned(), code.to_owned()))
                    .into();
        });
        assert_eq!(answer.await.unwrap_err(), expected, "{code}");
    }
    // As GitHub answers those who do not ask for JSON.
    let form =
        Reply::body(200, "application/x-www-form-urlencoded; charset=utf-8", "error=invalid_grant&x=y");
    assert_eq!(refresh_against(form, |_| {}).await.unwrap_err(), InvalidGrant);
}

#[tokio::test]
async fn a_success_flag_decides() {
    for (body, expected) in [
        (json!({ "ok": true, "access_token": "at-1" }), Ok(())),
        (json!({ "ok": false, "error": "invalid_grant", "access_token": "at-1" }), Err(InvalidGrant)),
        (json!({ "ok": false, "error": "internal_error" }), Err(Ambiguous)),
        (json!({ "ok": false, "error": "some_word" }), Err(Refused)),
        (json!({ "ok": false }), Err(Refused)),
        (json!({ "ok": "true", "access_token": "at-1" }), Err(Ambiguous)),
        (json!({ "access_token": "at-1" }), Err(Ambiguous)),
        (json!({ "ok": true }), Err(Ambiguous)),
    ] {
        let answer = refresh_against(Reply::json(200, &body), |p| {
            p.response.success_flag = Some("/ok".to_owned());
            p.response.error_aliases.insert("internal_error".to_owned(), "server_error".to_owned());
        });
        assert_eq!(answer.await.map(|_| ()), expected, "{body}");
    }
}

#[tokio::test]
async fn an_error_stands_where_the_provider_puts_it() {
    let body = json!({ "errors": [{ "code": 1004 }] });
    let answer = refresh_against(Reply::json(400, &body), |p| {
        p.response.error = "/errors/0/code".to_owned();
        p.response.error_aliases.insert("1004".to_owned(), "invalid_grant".to_owned());
    });
    assert_eq!(answer.await.unwrap_err(), InvalidGrant);
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let elsewhere = HostileServer::start().await;
    elsewhere.always("/token", Reply::tokens("at-stolen", "rt-stolen"));
    for status in [301, 302, 303, 307, 308] {
        let reply = Reply::redirect(status, &elsewhere.token_url());
        assert_eq!(refresh_against(reply, |_| {}).await.unwrap_err(), Ambiguous, "{status}");
    }
    assert_eq!(elsewhere.connections(), 0);
}

#[tokio::test]
async fn what_hangs_is_given_up_at_the_deadline() {
    for (name, reply) in [
        ("silence", Reply::silence()),
        ("a body that drips", Reply::tokens("at-1", "rt-1").drip()),
        ("a refusal that drips", Reply::error("invalid_grant").drip()),
    ] {
        let refusal = name.starts_with("a refusal");
        let server = HostileServer::start().await;
        server.push(reply);
        let provider = provider_at(&server.base());
        let deadline = Duration::from_secs(1);
        let answer = refresh_within(client(), &provider, deadline).await;
        // The status of a refusal is known, whatever became of its body.
        assert_eq!(answer.unwrap_err(), if refusal { Refused } else { Ambiguous }, "{name}");
        server.only_request();
    }
}

#[tokio::test]
async fn no_call_outlasts_the_settings() {
    let server = HostileServer::start().await;
    server.always("/token", Reply::silence());
    let provider = provider_at(&server.base());
    let client =
        client_with(HttpSettings { total_timeout: Duration::from_secs(1), ..HttpSettings::default() });
    let answer = refresh_within(&client, &provider, Duration::MAX).await;
    assert_eq!(answer.unwrap_err(), Ambiguous);
}

#[tokio::test]
async fn what_never_left_was_not_sent() {
    let server = HostileServer::start().await;
    server.always("/token", Reply::tokens("at-1", "rt-1"));
    let free_port = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().port()
    };
    // Connections are accepted by the system, but nobody shakes hands.
    let deaf = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let deaf_port = deaf.local_addr().unwrap().port();
    for (name, token_url) in [
        ("TLS handshake without an answer", format!("https://127.0.0.1:{deaf_port}/token")),
        ("connection refused", format!("http://127.0.0.1:{free_port}/token")),
        ("TLS handshake fails", format!("https://127.0.0.1:{}/token", server.port())),
        ("unknown host", "https://broker-test.invalid/token".to_owned()),
    ] {
        let mut provider = provider_at(&server.base());
        set_token_url(&mut provider, &token_url);
        // Where nobody answers questions for names, that is a connection that takes too long.
        let connect_timeout = Duration::from_millis(500);
        let client = client_with(HttpSettings { connect_timeout, ..HttpSettings::default() });
        assert_eq!(refresh_within(&client, &provider, AMPLE).await.unwrap_err(), NotSent, "{name}");
    }
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn without_tls_only_this_machine_is_spoken_to() {
    let server = HostileServer::start().await;
    server.always("/token", Reply::tokens("at-1", "rt-1"));
    // 0.0.0.0 would reach the server, were it tried.
    for url in
        ["http://0.0.0.0:{}/token", "http://user:password@127.0.0.1:{}/token", "ftp://127.0.0.1:{}/token"]
    {
        let mut provider = provider_at(&server.base());
        set_token_url(&mut provider, &url.replace("{}", &server.port().to_string()));
        let answer = client().refresh(&provider, &secret("rt-0"), &scopes("read"), AMPLE).await;
        assert_eq!(answer.unwrap_err(), NotSent, "{url}");
    }
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn a_deadline_that_is_over_sends_nothing() {
    let server = HostileServer::start().await;
    let provider = provider_at(&server.base());
    let answer = client().refresh(&provider, &secret("rt-0"), &scopes("read"), Duration::ZERO).await;
    assert_eq!(answer.unwrap_err(), NotSent);
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn no_connection_is_used_twice() {
    let server = HostileServer::start().await;
    server.always("/token", Reply::tokens("at-1", "rt-1"));
    let provider = provider_at(&server.base());
    let client = client();
    for _ in 0..3 {
        client.refresh(&provider, &secret("rt-0"), &scopes("read"), AMPLE).await.unwrap();
    }
    assert_eq!((server.requests().len(), server.connections()), (3, 3));
}

/// A refresh that must end, if not within the deadline, then long before a test is given up.
async fn refresh_within(
    client: &HttpOAuthClient,
    provider: &Provider,
    deadline: Duration,
) -> Result<TokenResponse, ProviderFailure> {
    let (token, scopes) = (secret("rt-0"), scopes("read"));
    let answer = client.refresh(provider, &token, &scopes, deadline);
    tokio::time::timeout(Duration::from_secs(10), answer).await.expect("gave up")
}

fn set_token_url(provider: &mut Provider, url: &str) {
    let mut written = endpoints(provider);
    written.token = url.parse().unwrap();
    provider.endpoints = EndpointSource::Literal(written);
}
