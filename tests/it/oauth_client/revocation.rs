//! Ending a grant at the provider.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use token_broker::domain::ports::{OAuthClient as _, ProviderFailure, RevocationOutcome};
use token_broker::domain::provider::{
    BodyFormat, ClientAuth, EndpointSource, Provider, Revocation, RevocationAuth, RevocationCall,
    RevocationMethod, RevokedToken,
};
use token_broker::infra::outbound::HttpSettings;

use super::{client, client_with, secret};
use crate::support::hostile::{HostileServer, Recorded, Reply};
use crate::support::provider::{CLIENT_ID, CLIENT_SECRET, discovered, endpoints, provider_at};

use ProviderFailure::{Ambiguous, ClientRejected, NotSent, RateLimited, Refused};
use RevocationOutcome::{NotSupported, Revoked};

type Outcome = Result<RevocationOutcome, ProviderFailure>;

/// One revocation of `at-1` and perhaps `rt-1` at a server that gives this one reply at `/revoke`.
async fn revoke_against(
    reply: Reply,
    refresh: bool,
    change: impl FnOnce(&mut Provider),
) -> (Outcome, Recorded) {
    let server = HostileServer::start().await;
    server.push_at("/revoke", reply);
    let mut provider = provider_at(&server.base());
    change(&mut provider);
    let refresh = refresh.then(|| secret("rt-1"));
    let outcome = client().revoke(&provider, &secret("at-1"), refresh.as_ref()).await;
    (outcome, server.only_request())
}

/// A call of the provider's own at `{base}/revoke`.
fn call(provider: &Provider, method: RevocationMethod, auth: RevocationAuth) -> RevocationCall {
    RevocationCall {
        method,
        url: endpoints(provider).revocation.unwrap().to_string(),
        auth,
        token: RevokedToken::Access,
        token_param: None,
        body: BodyFormat::Form,
    }
}

fn bearer_call(provider: &mut Provider) {
    provider.revocation = Revocation::Call(call(provider, RevocationMethod::Post, RevocationAuth::Bearer));
}

#[tokio::test]
async fn rfc_7009_by_the_letter() {
    let (outcome, request) = revoke_against(Reply::status(200), true, |_| {}).await;
    assert_eq!(outcome, Ok(Revoked));
    assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/revoke"));
    assert_eq!(request.header("content-type"), Some("application/x-www-form-urlencoded"));
    let basic = STANDARD.encode(format!("{CLIENT_ID}:{CLIENT_SECRET}"));
    assert_eq!(request.header("authorization"), Some(format!("Basic {basic}").as_str()));
    let expected = [("token", "rt-1"), ("token_type_hint", "refresh_token")];
    assert_eq!(request.params(), expected.map(|(n, v)| (n.to_owned(), v.to_owned())).into());
    assert!(request.query.is_empty());
}

#[tokio::test]
async fn the_token_that_the_provider_takes_is_presented() {
    for (rule, refresh, token, hint) in [
        (RevokedToken::RefreshElseAccess, true, "rt-1", "refresh_token"),
        (RevokedToken::RefreshElseAccess, false, "at-1", "access_token"),
        (RevokedToken::Access, true, "at-1", "access_token"),
        (RevokedToken::Access, false, "at-1", "access_token"),
    ] {
        let change = |p: &mut Provider| p.revocation = Revocation::Rfc7009 { token: rule };
        let (_, request) = revoke_against(Reply::status(200), refresh, change).await;
        assert_eq!(request.param("token").as_deref(), Some(token), "{rule:?} {refresh}");
        assert_eq!(request.param("token_type_hint").as_deref(), Some(hint), "{rule:?} {refresh}");
    }
}

#[tokio::test]
async fn the_client_authenticates_as_it_is_registered() {
    let (_, post) = revoke_against(Reply::status(200), true, |p| p.client.auth = ClientAuth::Post).await;
    assert_eq!(post.header("authorization"), None);
    assert_eq!(post.param("client_id").as_deref(), Some(CLIENT_ID));
    assert_eq!(post.param("client_secret").as_deref(), Some(CLIENT_SECRET));
    let (_, none) = revoke_against(Reply::status(200), true, |p| p.client.auth = ClientAuth::None).await;
    assert_eq!(none.header("authorization"), None);
    assert_eq!(none.param("client_id").as_deref(), Some(CLIENT_ID));
    assert_eq!(none.param("client_secret"), None);
}

#[tokio::test]
async fn what_each_answer_means() {
    let limited = |seconds: Option<u64>| Err(RateLimited { retry_after: seconds.map(Duration::from_secs) });
    for (name, reply, expected) in [
        ("200", Reply::status(200), Ok(Revoked)),
        ("204", Reply::status(204), Ok(Revoked)),
        ("200 with a JSON", Reply::json(200, &json!({ "done": true })), Ok(Revoked)),
        ("200 with a page", Reply::body(200, "text/html", "<html></html>"), Ok(Revoked)),
        ("the token is dead already", Reply::error("invalid_token"), Ok(Revoked)),
        ("the grant is dead already", Reply::error("invalid_grant"), Ok(Revoked)),
        ("unsupported_token_type", Reply::error("unsupported_token_type"), Err(Refused)),
        ("invalid_request", Reply::error("invalid_request"), Err(Refused)),
        ("invalid_client", Reply::json(401, &json!({ "error": "invalid_client" })), Err(ClientRejected)),
        ("401", Reply::status(401), Err(ClientRejected)),
        ("403", Reply::status(403), Err(Refused)),
        ("404", Reply::status(404), Err(Refused)),
        ("an error inside 200", Reply::json(200, &json!({ "error": "no_way" })), Err(Refused)),
        ("429", Reply::status(429).header("retry-after", "30"), limited(Some(30))),
        ("503 with a time", Reply::status(503).header("retry-after", "60"), limited(Some(60))),
        ("503", Reply::status(503), Err(Ambiguous)),
        ("500", Reply::status(500), Err(Ambiguous)),
        ("a redirect", Reply::redirect(302, &"https://evil.example/".parse().unwrap()), Err(Ambiguous)),
        ("200 that breaks off", Reply::json(200, &json!({ "error": "x" })).cut_off(), Err(Ambiguous)),
        ("a reset", Reply::reset(), Err(Ambiguous)),
        ("no answer", Reply::close(), Err(Ambiguous)),
    ] {
        let (outcome, _) = revoke_against(reply, true, |_| {}).await;
        assert_eq!(outcome, expected, "{name}");
    }
}

#[tokio::test]
async fn a_dead_access_token_is_a_dead_grant_only_where_there_is_no_other() {
    let access_only = |p: &mut Provider| p.revocation = Revocation::Rfc7009 { token: RevokedToken::Access };
    for (refresh, expected) in [(false, Ok(Revoked)), (true, Err(Refused))] {
        let (outcome, _) = revoke_against(Reply::error("invalid_token"), refresh, access_only).await;
        assert_eq!(outcome, expected, "by code, refresh token {refresh}");
        let (outcome, _) = revoke_against(Reply::status(401), refresh, bearer_call).await;
        assert_eq!(outcome, expected, "by 401, refresh token {refresh}");
    }
}

#[tokio::test]
async fn a_success_flag_decides() {
    for (body, expected) in [
        (json!({ "ok": true, "revoked": true }), Ok(Revoked)),
        (json!({ "ok": false, "error": "token_revoked" }), Ok(Revoked)),
        (json!({ "ok": false, "error": "no_permission" }), Err(Refused)),
        (json!({ "ok": false }), Err(Refused)),
        (json!({}), Err(Ambiguous)),
        (json!("fine"), Err(Ambiguous)),
    ] {
        let (outcome, _) = revoke_against(Reply::json(200, &body), false, |p| {
            bearer_call(p);
            p.response.success_flag = Some("/ok".to_owned());
            p.response.error_aliases.insert("token_revoked".to_owned(), "invalid_token".to_owned());
        })
        .await;
        assert_eq!(outcome, expected, "{body}");
    }
}

#[tokio::test]
async fn a_call_by_bearer() {
    let (outcome, request) = revoke_against(Reply::status(200), true, bearer_call).await;
    assert_eq!(outcome, Ok(Revoked));
    assert_eq!(request.method, "POST");
    assert_eq!(request.header("authorization"), Some("Bearer at-1"));
    assert_eq!(request.header("content-length"), Some("0"));
    assert_eq!(request.header("content-type"), None);
    assert!(request.query.is_empty() && request.body.is_empty());
}

#[tokio::test]
async fn a_call_by_basic_with_the_clients_id_in_the_path() {
    let server = HostileServer::start().await;
    server.push_at("/applications/client%2F1%20%C3%A9/grant", Reply::status(204));
    let mut provider = provider_at(&server.base());
    provider.client.id = "client/1 é".to_owned();
    provider.token.headers.insert("accept".to_owned(), "application/vnd.github+json".to_owned());
    provider.revocation = Revocation::Call(RevocationCall {
        url: format!("{}/applications/{{client_id}}/grant", server.base()),
        token_param: Some("access_token".to_owned()),
        body: BodyFormat::Json,
        ..call(&provider, RevocationMethod::Delete, RevocationAuth::ClientBasic)
    });
    let outcome = client().revoke(&provider, &secret("at-1"), Some(&secret("rt-1"))).await;
    assert_eq!(outcome, Ok(Revoked));
    let request = server.only_request();
    assert_eq!(request.method, "DELETE");
    assert_eq!(request.header("accept"), Some("application/vnd.github+json"));
    assert!(request.header("authorization").unwrap().starts_with("Basic "));
    assert_eq!(request.params(), [("access_token".to_owned(), "at-1".to_owned())].into());
}

#[tokio::test]
async fn a_call_with_the_client_in_the_body() {
    let (outcome, request) = revoke_against(Reply::status(200), true, |p| {
        p.revocation = Revocation::Call(RevocationCall {
            token: RevokedToken::RefreshElseAccess,
            token_param: Some("refresh".to_owned()),
            ..call(p, RevocationMethod::Post, RevocationAuth::ClientBody)
        });
    })
    .await;
    assert_eq!(outcome, Ok(Revoked));
    assert_eq!(request.header("authorization"), None);
    let expected = [("refresh", "rt-1"), ("client_id", CLIENT_ID), ("client_secret", CLIENT_SECRET)];
    assert_eq!(request.params(), expected.map(|(n, v)| (n.to_owned(), v.to_owned())).into());
}

#[tokio::test]
async fn no_secret_goes_into_a_url() {
    let server = HostileServer::start().await;
    let mut provider = provider_at(&server.base());
    for (auth, token_param) in
        [(RevocationAuth::Bearer, Some("token".to_owned())), (RevocationAuth::ClientBody, None)]
    {
        let get = call(&provider, RevocationMethod::Get, auth);
        provider.revocation = Revocation::Call(RevocationCall { token_param, ..get });
        assert_eq!(client().revoke(&provider, &secret("at-1"), None).await, Err(Refused), "{auth:?}");
    }
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn a_token_that_is_no_header_is_not_sent_as_one() {
    let server = HostileServer::start().await;
    let mut provider = provider_at(&server.base());
    bearer_call(&mut provider);
    assert_eq!(client().revoke(&provider, &secret("at\r\nx: y"), None).await, Err(Refused));
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn a_provider_without_revocation_says_so() {
    let server = HostileServer::start().await;
    let mut provider = provider_at(&server.base());
    provider.revocation = Revocation::NotSupported;
    assert_eq!(client().revoke(&provider, &secret("at-1"), None).await, Ok(NotSupported));
    assert_eq!(server.connections(), 0);

    let issuer = server.base();
    let least = json!({
        "issuer": issuer, "authorization_endpoint": format!("{issuer}/a"), "token_endpoint": format!("{issuer}/t"),
    });
    server.always("/.well-known/openid-configuration", Reply::json(200, &least));
    let client = client_with(HttpSettings::default());
    assert_eq!(client.revoke(&discovered(&issuer), &secret("at-1"), None).await, Ok(NotSupported));
}

#[tokio::test]
async fn a_provider_that_can_not_be_reached_is_tried_again() {
    let server = HostileServer::start().await;
    server.always("/revoke", Reply::silence());
    let mut provider = provider_at(&server.base());
    let total_timeout = Duration::from_secs(1);
    let hasty = client_with(HttpSettings { total_timeout, ..HttpSettings::default() });
    assert_eq!(hasty.revoke(&provider, &secret("at-1"), None).await, Err(Ambiguous));
    let mut written = endpoints(&provider);
    written.revocation = Some(format!("https://127.0.0.1:{}/revoke", server.port()).parse().unwrap());
    provider.endpoints = EndpointSource::Literal(written);
    assert_eq!(client().revoke(&provider, &secret("at-1"), None).await, Err(NotSent));
}
