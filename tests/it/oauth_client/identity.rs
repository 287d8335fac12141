//! Who consented.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use token_broker::domain::flow::RecordedEndpoints;
use token_broker::domain::ports::{IdentityError, OAuthClient as _};
use token_broker::domain::provider::Provider;
use token_broker::domain::token_set::{ProviderAccount, TokenResponse};
use token_broker::infra::outbound::HttpSettings;

use super::{NOW, client, client_with, secret};
use crate::support::hostile::{HostileServer, Reply};
use crate::support::provider::{CLIENT_ID, endpoints, provider_at, scopes};

const ISSUER: &str = "https://issuer.example";

fn encoded(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

fn id_token(header: &Value, claims: &Value) -> String {
    format!("{}.{}.{}", encoded(header), encoded(claims), URL_SAFE_NO_PAD.encode("signature"))
}

fn claims() -> Value {
    json!({
        "iss": ISSUER,
        "sub": "alice-1",
        "aud": CLIENT_ID,
        "exp": NOW + 600,
        "iat": NOW - 5,
        "nonce": "nonce-1",
        "email": "alice@example.com",
    })
}

fn response(id_token: Option<String>) -> TokenResponse {
    TokenResponse {
        access_token: secret("at-1"),
        refresh_token: None,
        token_type: "Bearer".to_owned(),
        expires_in: None,
        scopes: None,
        id_token: id_token.map(|token| secret(&token)),
        extra: std::collections::BTreeMap::new(),
        account: ProviderAccount::default(),
        excess: None,
    }
}

/// An OpenID provider with an issuer, and without a userinfo endpoint unless the test adds one.
fn openid(base: &str) -> (Provider, RecordedEndpoints) {
    let mut provider = provider_at(base);
    provider.authorization.nonce = true;
    provider.identity.id_token = true;
    let mut written = endpoints(&provider);
    written.issuer = Some(ISSUER.to_owned());
    (provider, written)
}

async fn identify(
    provider: &Provider,
    written: &RecordedEndpoints,
    response: &TokenResponse,
) -> Result<ProviderAccount, IdentityError> {
    client().identify(provider, written, response, &secret("nonce-1")).await
}

fn account(subject: Option<&str>, label: Option<&str>) -> ProviderAccount {
    ProviderAccount { subject: subject.map(str::to_owned), label: label.map(str::to_owned) }
}

/// What becomes of an ID token at the provider above, with nobody to ask.
async fn verdict(token: Option<String>) -> Result<ProviderAccount, IdentityError> {
    let (mut provider, written) = openid("https://unused.invalid");
    provider.identity.userinfo = None;
    identify(&provider, &written, &response(token)).await
}

type Change = (&'static str, fn(&mut Value));

#[tokio::test]
async fn an_id_token_tells_the_account() {
    let rs256 = json!({ "alg": "RS256", "kid": "1" });
    let alice = account(Some("alice-1"), Some("alice@example.com"));
    let changes: [Change; 8] = [
        ("as it is", |_| {}),
        ("audience in an array", |c| c["aud"] = json!([CLIENT_ID])),
        ("audiences with azp", |c| (c["aud"], c["azp"]) = (json!(["other", CLIENT_ID]), json!(CLIENT_ID))),
        ("audience with azp", |c| c["azp"] = json!(CLIENT_ID)),
        ("over, within the skew", |c| c["exp"] = json!(NOW - 59)),
        ("issued ahead, within the skew", |c| c["iat"] = json!(NOW + 60)),
        ("times with fractions", |c| {
            (c["exp"], c["iat"]) = (json!(1_767_225_900.5), json!(1_767_225_500.25));
        }),
        ("claims beside", |c| c["acr"] = json!({ "x": [1] })),
    ];
    for (name, change) in changes {
        let mut claims = claims();
        change(&mut claims);
        assert_eq!(verdict(Some(id_token(&rs256, &claims))).await, Ok(alice.clone()), "{name}");
    }
}

#[tokio::test]
async fn an_id_token_that_is_not_this_flows_is_refused() {
    let rs256 = json!({ "alg": "RS256" });
    let changes: [Change; 22] = [
        ("another issuer", |c| c["iss"] = json!("https://evil.example")),
        ("a slash more", |c| c["iss"] = json!(format!("{ISSUER}/"))),
        ("no issuer", |c| c["iss"] = Value::Null),
        ("another client", |c| c["aud"] = json!("client-2")),
        ("a client with a longer id", |c| c["aud"] = json!(format!("{CLIENT_ID}0"))),
        ("other clients", |c| c["aud"] = json!(["client-2", "client-3"])),
        ("no audience", |c| c["aud"] = Value::Null),
        ("an empty audience", |c| c["aud"] = json!([])),
        ("audiences without azp", |c| c["aud"] = json!([CLIENT_ID, "client-2"])),
        ("another azp", |c| c["azp"] = json!("client-2")),
        ("over", |c| c["exp"] = json!(NOW - 60)),
        ("no end", |c| c["exp"] = Value::Null),
        ("an end that is a text", |c| c["exp"] = json!("1999999999")),
        ("an end beyond all time", |c| c["exp"] = json!(1e300)),
        ("issued ahead", |c| c["iat"] = json!(NOW + 61)),
        ("no time of issue", |c| c["iat"] = Value::Null),
        ("another nonce", |c| c["nonce"] = json!("nonce-2")),
        ("no nonce", |c| c["nonce"] = Value::Null),
        ("an empty nonce", |c| c["nonce"] = json!("")),
        ("no subject", |c| c["sub"] = Value::Null),
        ("an empty subject", |c| c["sub"] = json!("")),
        ("a subject that is no text", |c| c["sub"] = json!(["alice-1"])),
    ];
    for (name, change) in changes {
        let mut claims = claims();
        change(&mut claims);
        assert_eq!(verdict(Some(id_token(&rs256, &claims))).await, Err(IdentityError), "{name}");
    }
}

#[tokio::test]
async fn what_is_no_signed_jwt_is_refused() {
    let good = id_token(&json!({ "alg": "RS256" }), &claims());
    let parts: Vec<&str> = good.split('.').collect();
    for (name, token) in [
        ("alg none", id_token(&json!({ "alg": "none" }), &claims())),
        ("alg NoNe", id_token(&json!({ "alg": "NoNe" }), &claims())),
        ("no alg", id_token(&json!({}), &claims())),
        ("an alg that is no text", id_token(&json!({ "alg": 1 }), &claims())),
        ("no signature", format!("{}.{}.", parts[0], parts[1])),
        ("two parts", format!("{}.{}", parts[0], parts[1])),
        ("five parts", format!("{good}.x.y")),
        ("no Base64", format!("{}.!.{}", parts[0], parts[2])),
        ("padded Base64", format!("{}.{}==.{}", parts[0], parts[1], parts[2])),
        ("no JSON", format!("{}.{}.{}", parts[0], URL_SAFE_NO_PAD.encode("alice"), parts[2])),
        ("no object", format!("{}.{}.{}", parts[0], encoded(&json!([1])), parts[2])),
        ("not UTF-8", format!("{}.{}.{}", parts[0], URL_SAFE_NO_PAD.encode(b"{\"sub\":\"\xff\"}"), parts[2])),
        (
            "deep nesting",
            format!("{}.{}.{}", parts[0], URL_SAFE_NO_PAD.encode("[".repeat(100_000)), parts[2]),
        ),
        ("a text", "alice".to_owned()),
    ] {
        assert_eq!(verdict(Some(token)).await, Err(IdentityError), "{name}");
    }
}

#[tokio::test]
async fn an_id_token_is_missed_only_where_openid_was_granted() {
    assert_eq!(verdict(None).await, Ok(account(None, None)));
    let (mut provider, written) = openid("https://unused.invalid");
    provider.identity.userinfo = None;
    let mut response = response(None);
    response.scopes = Some(scopes("openid read"));
    assert_eq!(identify(&provider, &written, &response).await, Err(IdentityError));
    provider.authorization.nonce = false;
    assert_eq!(identify(&provider, &written, &response).await, Ok(account(None, None)));
}

#[tokio::test]
async fn without_a_nonce_or_an_issuer_of_its_own_a_provider_is_not_held_to_them() {
    let mut claims = claims();
    (claims["nonce"], claims["iss"]) = (Value::Null, json!("https://sts.example/tenant-7"));
    let token = id_token(&json!({ "alg": "ES256" }), &claims);
    let (mut provider, mut written) = openid("https://unused.invalid");
    provider.identity.userinfo = None;
    provider.authorization.nonce = false;
    written.issuer = None;
    let alice = account(Some("alice-1"), Some("alice@example.com"));
    assert_eq!(identify(&provider, &written, &response(Some(token))).await, Ok(alice));
}

#[tokio::test]
async fn a_provider_whose_id_tokens_are_not_used_may_send_anything() {
    let (mut provider, written) = openid("https://unused.invalid");
    provider.identity.userinfo = None;
    provider.identity.id_token = false;
    let mut response = response(Some("rubbish".to_owned()));
    response.account = account(Some("from-the-answer"), None);
    assert_eq!(identify(&provider, &written, &response).await, Ok(account(Some("from-the-answer"), None)));
}

#[tokio::test]
async fn userinfo_is_asked_with_the_access_token() {
    let server = HostileServer::start().await;
    server.push_at("/userinfo", Reply::json(200, &json!({ "sub": 17, "email": "alice@example.com" })));
    let mut provider = provider_at(&server.base());
    provider.token.headers.insert("user-agent".to_owned(), "linux:broker:1".to_owned());
    let found = identify(&provider, &endpoints(&provider), &response(None)).await;
    assert_eq!(found, Ok(account(Some("17"), Some("alice@example.com"))));
    let request = server.only_request();
    assert_eq!((request.method.as_str(), request.path.as_str()), ("GET", "/userinfo"));
    assert_eq!(request.header("authorization"), Some("Bearer at-1"));
    assert_eq!(request.header("accept"), Some("application/json"));
    assert_eq!(request.header("user-agent"), Some("linux:broker:1"));
    assert!(request.query.is_empty() && request.body.is_empty());
}

#[tokio::test]
async fn userinfo_may_stand_elsewhere() {
    let server = HostileServer::start().await;
    server.push_at("/v1/me", Reply::json(200, &json!({ "sub": "a", "email": null })));
    let mut provider = provider_at("https://unused.invalid");
    provider.identity.userinfo.as_mut().unwrap().url = Some(server.url("/v1/me"));
    let found = identify(&provider, &endpoints(&provider), &response(None)).await;
    assert_eq!(found, Ok(account(Some("a"), None)));
}

#[tokio::test]
async fn userinfo_fills_in_what_the_id_token_left_out() {
    for (answer, label) in [
        (json!({ "sub": "alice-1", "email": "alice@example.com" }), Some("alice@example.com")),
        (json!({ "email": "alice@example.com" }), Some("alice@example.com")),
        // OpenID Connect Core section 5.3.2.
        (json!({ "sub": "bob-1", "email": "bob@example.com" }), None),
    ] {
        let server = HostileServer::start().await;
        server.push_at("/userinfo", Reply::json(200, &answer));
        let (provider, written) = openid(&server.base());
        let mut claims = claims();
        claims["email"] = Value::Null;
        let token = id_token(&json!({ "alg": "RS256" }), &claims);
        let found = identify(&provider, &written, &response(Some(token))).await;
        assert_eq!(found, Ok(account(Some("alice-1"), label)), "{answer}");
    }
}

#[tokio::test]
async fn nobody_is_asked_for_what_is_known() {
    let server = HostileServer::start().await;
    let (provider, written) = openid(&server.base());
    let token = id_token(&json!({ "alg": "RS256" }), &claims());
    identify(&provider, &written, &response(Some(token))).await.unwrap();
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn a_bad_id_token_is_not_made_good_by_userinfo() {
    let server = HostileServer::start().await;
    server.always("/userinfo", Reply::json(200, &json!({ "sub": "alice-1" })));
    let (provider, written) = openid(&server.base());
    let token = id_token(&json!({ "alg": "none" }), &claims());
    assert_eq!(identify(&provider, &written, &response(Some(token))).await, Err(IdentityError));
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn a_userinfo_endpoint_that_fails_costs_only_the_account() {
    for (name, reply) in [
        ("an error", Reply::status(500)),
        ("401", Reply::json(401, &json!({ "sub": "x" }))),
        ("a redirect", Reply::redirect(302, &"https://evil.example/".parse().unwrap())),
        ("a page", Reply::body(200, "text/html", "<html></html>")),
        ("endless", Reply::endless()),
        ("silence", Reply::silence()),
        ("a reset", Reply::reset()),
    ] {
        let server = HostileServer::start().await;
        server.push_at("/userinfo", reply);
        let provider = provider_at(&server.base());
        let total_timeout = Duration::from_secs(1);
        let client = client_with(HttpSettings { total_timeout, ..HttpSettings::default() });
        let found = client.identify(&provider, &endpoints(&provider), &response(None), &secret("n")).await;
        assert_eq!(found, Ok(account(None, None)), "{name}");
        server.only_request();
    }
}
