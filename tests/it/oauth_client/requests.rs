//! What leaves the broker: authorization URLs and token requests, as the server sees them.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};
use token_broker::domain::flow::FlowSecrets;
use token_broker::domain::ports::{AuthorizationRequest, OAuthClient as _, ProviderFailure};
use token_broker::domain::provider::{BodyFormat, ClientAuth, EndpointSource, Provider};
use token_broker::domain::scope::ScopeSet;
use url::Url;

use super::{AMPLE, client, secret};
use crate::support::hostile::{HostileServer, Recorded, Reply};
use crate::support::provider::{CLIENT_ID, CLIENT_SECRET, endpoints, provider_at, scopes};

/// RFC 7636 appendix B.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

const REDIRECT_URI: &str = "https://broker.example/oauth/callback/hostile";

fn flow_secrets() -> FlowSecrets {
    FlowSecrets {
        state: secret("state-1"),
        code_verifier: secret(VERIFIER),
        nonce: secret("nonce-1"),
        link: None,
        flow_secret: None,
    }
}

fn authorization_url(
    provider: &Provider,
    scopes: &ScopeSet,
    login_hint: Option<&str>,
) -> Result<Url, ProviderFailure> {
    let request = AuthorizationRequest {
        endpoints: &endpoints(provider),
        redirect_uri: &REDIRECT_URI.parse().unwrap(),
        secrets: &flow_secrets(),
        scopes,
        login_hint,
    };
    client().authorization_url(provider, request).map(|url| url.expose_secret().parse().unwrap())
}

/// The query's parameters, each of which may come once.
fn query(url: &Url) -> BTreeMap<String, String> {
    let mut params = BTreeMap::new();
    for (name, value) in url.query_pairs() {
        assert!(params.insert(name.to_string(), value.to_string()).is_none(), "{name} is there twice");
    }
    params
}

fn params<const N: usize>(list: [(&str, &str); N]) -> BTreeMap<String, String> {
    list.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

#[tokio::test]
async fn an_authorization_url_has_what_the_rfcs_ask_for_and_nothing_else() {
    let provider = provider_at("https://provider.example");
    let url = authorization_url(&provider, &scopes("write read"), None).unwrap();
    assert_eq!(url.as_str().split('?').next(), Some("https://provider.example/authorize"));
    assert_eq!(
        query(&url),
        params([
            ("response_type", "code"),
            ("client_id", CLIENT_ID),
            ("redirect_uri", REDIRECT_URI),
            ("state", "state-1"),
            ("scope", "read write"),
            ("code_challenge", CHALLENGE),
            ("code_challenge_method", "S256"),
        ])
    );
    assert!(!url.as_str().contains(VERIFIER) && !url.as_str().contains(CLIENT_SECRET));
}

#[tokio::test]
async fn an_authorization_url_follows_the_definition() {
    let mut provider = provider_at("https://provider.example");
    let mut written = endpoints(&provider);
    written.authorization = "https://provider.example/authorize?tenant=a%26b".parse().unwrap();
    provider.endpoints = EndpointSource::Literal(written);
    provider.authorization.params = params([("access_type", "offline"), ("prompt", "a&b=c")]);
    provider.authorization.pkce = false;
    provider.authorization.nonce = true;
    provider.authorization.scope_separator = ",".to_owned();
    provider.authorization.scope_param = "user_scope".to_owned();
    let url = authorization_url(&provider, &scopes("b a"), Some("alice+x@example.com")).unwrap();
    assert_eq!(
        query(&url),
        params([
            ("tenant", "a&b"),
            ("response_type", "code"),
            ("client_id", CLIENT_ID),
            ("redirect_uri", REDIRECT_URI),
            ("state", "state-1"),
            ("user_scope", "a,b"),
            ("nonce", "nonce-1"),
            ("login_hint", "alice+x@example.com"),
            ("access_type", "offline"),
            ("prompt", "a&b=c"),
        ])
    );
}

#[tokio::test]
async fn no_scopes_means_no_parameter() {
    let provider = provider_at("https://provider.example");
    let url = authorization_url(&provider, &ScopeSet::default(), None).unwrap();
    assert!(!query(&url).contains_key("scope"));
}

type Change = (&'static str, fn(&mut Provider));

#[tokio::test]
async fn no_authorization_url_is_made_of_a_bad_definition() {
    let changes: [Change; 8] = [
        ("state", |p| drop(p.authorization.params.insert("state".into(), "fixed".into()))),
        ("redirect_uri", |p| {
            drop(p.authorization.params.insert("redirect_uri".into(), "https://evil".into()));
        }),
        ("scope", |p| drop(p.authorization.params.insert("scope".into(), "all".into()))),
        ("scope parameter", |p| {
            p.authorization.scope_param = "user_scope".into();
            p.authorization.params.insert("user_scope".into(), "all".into());
        }),
        ("challenge method", |p| {
            p.authorization.params.insert("code_challenge_method".into(), "plain".into());
        }),
        ("state in the endpoint", |p| set_authorization(p, "https://provider.example/authorize?state=fixed")),
        ("no TLS", |p| set_authorization(p, "http://provider.example/authorize")),
        ("no http", |p| set_authorization(p, "javascript:alert(1)")),
    ];
    for (name, change) in changes {
        let mut provider = provider_at("https://provider.example");
        change(&mut provider);
        let refused = authorization_url(&provider, &scopes("read"), None);
        assert_eq!(refused.unwrap_err(), ProviderFailure::Refused, "{name}");
    }
}

fn set_authorization(provider: &mut Provider, url: &str) {
    let mut written = endpoints(provider);
    written.authorization = url.parse().unwrap();
    provider.endpoints = EndpointSource::Literal(written);
}

#[tokio::test]
async fn a_verifier_that_is_none_makes_no_url() {
    let provider = provider_at("https://provider.example");
    for verifier in ["", "short", &"a".repeat(42), &"a".repeat(129), &format!("{} ", "a".repeat(43))] {
        let secrets = FlowSecrets { code_verifier: secret(verifier), ..flow_secrets() };
        let request = AuthorizationRequest {
            endpoints: &endpoints(&provider),
            redirect_uri: &REDIRECT_URI.parse().unwrap(),
            secrets: &secrets,
            scopes: &scopes("read"),
            login_hint: None,
        };
        let refused = client().authorization_url(&provider, request);
        assert_eq!(refused.unwrap_err(), ProviderFailure::Refused, "{} bytes", verifier.len());
    }
}

/// One exchange of the code `code-1`; the request as the server saw it.
async fn exchanged(change: impl FnOnce(&mut Provider)) -> Recorded {
    let server = HostileServer::start().await;
    server.push(Reply::tokens("at-1", "rt-1"));
    let mut provider = provider_at(&server.base());
    change(&mut provider);
    let redirect_uri = REDIRECT_URI.parse().unwrap();
    let (code, verifier) = (secret("code-1"), secret(VERIFIER));
    let written = endpoints(&provider);
    client().exchange_code(&provider, &written, &redirect_uri, &code, &verifier).await.unwrap();
    server.only_request()
}

/// One refresh with `rt-0`; the request as the server saw it.
async fn refreshed(change: impl FnOnce(&mut Provider)) -> Recorded {
    let server = HostileServer::start().await;
    server.push(Reply::tokens("at-1", "rt-1"));
    let mut provider = provider_at(&server.base());
    change(&mut provider);
    client().refresh(&provider, &secret("rt-0"), &scopes("write read"), AMPLE).await.unwrap();
    server.only_request()
}

#[tokio::test]
async fn an_exchange_is_by_the_letter() {
    let request = exchanged(|_| {}).await;
    assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/token"));
    assert!(request.query.is_empty());
    assert_eq!(request.header("content-type"), Some("application/x-www-form-urlencoded"));
    assert_eq!(request.header("accept"), Some("application/json"));
    assert!(request.header("user-agent").unwrap().starts_with("token-broker/"));
    for absent in ["cookie", "referer", "accept-encoding"] {
        assert_eq!(request.header(absent), None, "{absent}");
    }
    let basic = STANDARD.encode(format!("{CLIENT_ID}:{CLIENT_SECRET}"));
    assert_eq!(request.header("authorization"), Some(format!("Basic {basic}").as_str()));
    assert_eq!(
        request.params(),
        params([
            ("grant_type", "authorization_code"),
            ("code", "code-1"),
            ("redirect_uri", REDIRECT_URI),
            ("code_verifier", VERIFIER),
        ])
    );
}

#[tokio::test]
async fn the_server_finds_the_challenge_of_the_verifier() {
    let request = exchanged(|_| {}).await;
    let verifier = request.param("code_verifier").unwrap();
    let recomputed = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()));
    let url = authorization_url(&provider_at("https://provider.example"), &scopes("read"), None).unwrap();
    assert_eq!(query(&url)["code_challenge"], recomputed);
}

#[tokio::test]
async fn without_pkce_no_verifier_is_sent() {
    assert_eq!(exchanged(|p| p.authorization.pkce = false).await.param("code_verifier"), None);
}

#[tokio::test]
async fn an_exchange_goes_to_the_recorded_endpoint() {
    let (recorded, moved) = (HostileServer::start().await, HostileServer::start().await);
    recorded.push(Reply::tokens("at-1", "rt-1"));
    let then = endpoints(&provider_at(&recorded.base()));
    let now = provider_at(&moved.base());
    let redirect_uri = REDIRECT_URI.parse().unwrap();
    client().exchange_code(&now, &then, &redirect_uri, &secret("code-1"), &secret(VERIFIER)).await.unwrap();
    assert_eq!((recorded.requests().len(), moved.connections()), (1, 0));
}

#[tokio::test]
async fn a_refresh_is_by_the_letter() {
    let request = refreshed(|_| {}).await;
    assert_eq!(request.header("content-type"), Some("application/x-www-form-urlencoded"));
    assert!(request.header("authorization").unwrap().starts_with("Basic "));
    assert_eq!(request.params(), params([("grant_type", "refresh_token"), ("refresh_token", "rt-0")]));
}

#[tokio::test]
async fn scopes_are_sent_at_refresh_where_they_are_wanted() {
    assert_eq!(
        refreshed(|p| p.token.scopes_at_refresh = true).await.param("scope"),
        Some("read write".into())
    );
}

#[tokio::test]
async fn the_client_authenticates_as_it_is_registered() {
    let odd = |p: &mut Provider| {
        p.client.id = "client:1 é".to_owned();
        p.client.secret = Some(secret("a+b%c:d&e=f"));
    };
    // RFC 6749 section 2.3.1: form-encoded, then joined, then Base64.
    let basic = refreshed(odd).await;
    let pair =
        STANDARD.decode(basic.header("authorization").unwrap().strip_prefix("Basic ").unwrap()).unwrap();
    assert_eq!(String::from_utf8(pair).unwrap(), "client%3A1+%C3%A9:a%2Bb%25c%3Ad%26e%3Df");
    assert_eq!((basic.param("client_id"), basic.param("client_secret")), (None, None));

    let post = refreshed(|p| {
        odd(p);
        p.client.auth = ClientAuth::Post;
    })
    .await;
    assert_eq!(post.header("authorization"), None);
    assert_eq!(post.param("client_id").as_deref(), Some("client:1 é"));
    assert_eq!(post.param("client_secret").as_deref(), Some("a+b%c:d&e=f"));

    let none = refreshed(|p| p.client.auth = ClientAuth::None).await;
    assert_eq!(none.header("authorization"), None);
    assert_eq!(none.param("client_id").as_deref(), Some(CLIENT_ID));
    assert_eq!(none.param("client_secret"), None);

    let public = refreshed(|p| p.client.secret = None).await;
    assert_eq!(public.header("authorization"), None);
    assert_eq!(public.param("client_id").as_deref(), Some(CLIENT_ID));
}

#[tokio::test]
async fn json_bodies_and_fixed_values() {
    let change = |p: &mut Provider| {
        p.token.body = BodyFormat::Json;
        p.token.headers = params([
            ("Notion-Version", "2022-06-28"),
            ("User-Agent", "linux:broker:1"),
            ("Accept", "application/vnd.example+json"),
            ("Content-Length", "3"),
            ("Host", "elsewhere.example"),
            ("Content-Type", "text/plain"),
            ("Authorization", "Bearer fixed"),
        ]);
        p.token.exchange_params = params([("duration", "permanent")]);
        p.token.refresh_params = params([("resource", "https://api.example/")]);
    };
    let exchange = exchanged(change).await;
    assert_eq!(exchange.param("duration").as_deref(), Some("permanent"));
    assert_eq!(exchange.param("resource"), None);
    assert_eq!(exchange.param("code").as_deref(), Some("code-1"));
    let refresh = refreshed(change).await;
    assert_eq!(
        refresh.params(),
        params([
            ("grant_type", "refresh_token"),
            ("refresh_token", "rt-0"),
            ("resource", "https://api.example/"),
        ])
    );
    for request in [exchange, refresh] {
        assert_eq!(request.header("content-type"), Some("application/json"));
        assert_eq!(request.header("accept"), Some("application/vnd.example+json"));
        assert_eq!(request.header("user-agent"), Some("linux:broker:1"));
        assert_eq!(request.header("notion-version"), Some("2022-06-28"));
        assert!(request.header("host").unwrap().starts_with("127.0.0.1:"));
        assert!(request.header("authorization").unwrap().starts_with("Basic "));
        assert_eq!(request.header("content-length"), Some(request.body.len().to_string().as_str()));
    }
}

#[tokio::test]
async fn fixed_values_can_not_replace_the_brokers_own() {
    let server = HostileServer::start().await;
    let redirect_uri = REDIRECT_URI.parse().unwrap();
    for name in ["client_id", "code", "redirect_uri", "code_verifier", "grant_type", "refresh_token", "scope"]
    {
        let mut provider = provider_at(&server.base());
        let fixed = params([(name, "fixed")]);
        (provider.token.exchange_params, provider.token.refresh_params) = (fixed.clone(), fixed);
        let written = endpoints(&provider);
        let (code, verifier) = (secret("code-1"), secret(VERIFIER));
        let exchange = client().exchange_code(&provider, &written, &redirect_uri, &code, &verifier).await;
        assert_eq!(exchange.unwrap_err(), ProviderFailure::Refused, "{name}");
        let refresh = client().refresh(&provider, &secret("rt-0"), &scopes("read"), AMPLE).await;
        assert_eq!(refresh.unwrap_err(), ProviderFailure::Refused, "{name}");
    }
    assert_eq!(server.connections(), 0);
}
