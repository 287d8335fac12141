//! The binding *login*: who signs in must be the one that the consent is for.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};
use token_broker::app::Overrides;
use token_broker::domain::ports::Clock as _;
use token_broker::r#gen::v1::{BeginOAuthRequest, ConsentBinding, FlowStatus, StartedFlow};

use super::{assert_ended, begin, come_back, nothing_came_of_it, token};
use crate::support::broker::{BrokerBuilder, answered};
use crate::support::clock::ManualClock;
use crate::support::doors::{Doors, LOGIN_ISSUER, LOGIN_KEYS, LOGIN_SIGNER, Page, state_in};
use crate::support::hostile::{HostileServer, Reply};
use crate::support::jwt::{Signer, hs256, jwks, message};
use crate::support::provider::{CLIENT_ID, CLIENT_SECRET};

/// The page of a link, its form, and where that leads to: the login issuer.
pub(super) async fn sign_in_url(doors: &Doors, flow: &StartedFlow) -> url::Url {
    let url: url::Url = doors.first_stop(flow).await.parse().unwrap();
    assert_eq!(url.path(), "/login/authorize", "{url}");
    url
}

fn parameter(url: &url::Url, name: &str) -> String {
    url.query_pairs().find(|(key, _)| key == name).unwrap().1.into_owned()
}

/// The claims of a good ID token.
fn claims(doors: &Doors, sign_in: &url::Url, subject: &str) -> Value {
    let now = doors.clock.now().as_second();
    json!({
        "iss": LOGIN_ISSUER,
        "aud": CLIENT_ID,
        "sub": subject,
        "iat": now,
        "exp": now + 300,
        "nonce": parameter(sign_in, "nonce"),
    })
}

/// A token answer with these claims in its ID token, signed by the issuer's key.
fn signed_in(claims: &Value) -> Reply {
    with_id_token(&LOGIN_SIGNER.token(claims))
}

fn with_id_token(id_token: &str) -> Reply {
    Reply::json(200, &json!({ "access_token": "at-of-login", "token_type": "Bearer", "id_token": id_token }))
}

/// Somebody with an account at the login issuer.
pub(super) struct Person {
    subject: &'static str,
}

impl Person {
    pub(super) fn of(subject: &'static str) -> Self {
        Self { subject }
    }

    /// Signs in; the way back, not gone yet.
    pub(super) fn way_back(&self, doors: &Doors, sign_in: &url::Url) -> String {
        doors.provider.push_at("/login/token", signed_in(&claims(doors, sign_in, self.subject)));
        let state = parameter(sign_in, "state");
        format!("/login/callback?code=code-of-{}&state={state}&iss={LOGIN_ISSUER}", self.subject)
    }

    /// Opens a link and signs in; what the broker answers then.
    pub(super) async fn opens_and_signs_in(&self, doors: &Doors, flow: &StartedFlow) -> Page {
        let sign_in = sign_in_url(doors, flow).await;
        doors.browse(&self.way_back(doors, &sign_in)).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_user_of_the_consent_signs_in_and_connects() {
    let doors = Doors::open().await;
    let flow = begin(&doors, "login|alice", ConsentBinding::Login).await;
    assert!(flow.flow_secret.is_empty() && flow.binding() == ConsentBinding::Login);
    let sign_in = sign_in_url(&doors, &flow).await;
    assert_eq!(parameter(&sign_in, "redirect_uri"), "https://broker.example/login/callback");
    assert_eq!(
        (parameter(&sign_in, "response_type"), parameter(&sign_in, "scope")),
        ("code".into(), "openid".into())
    );
    assert_eq!(parameter(&sign_in, "code_challenge_method"), "S256");
    nothing_came_of_it(&doors, "login|alice").await;
    let page = doors.browse(&Person::of("alice").way_back(&doors, &sign_in)).await;
    assert_eq!(page.status, 303, "{}", page.html);
    let exchange = &doors.provider.requests_at("/login/token")[0];
    assert_eq!(exchange.param("code").as_deref(), Some("code-of-alice"));
    assert_eq!(exchange.param("code_verifier").unwrap().len(), 43);
    nothing_came_of_it(&doors, "login|alice").await;
    doors.provider.push(Reply::tokens("at-1", "rt-1"));
    doors.provider.push_at("/userinfo", Reply::status(500));
    let page = come_back(&doors, &state_in(page.headers["location"].to_str().unwrap())).await;
    assert_eq!(page.name(), "connected", "{}", page.html);
    assert_eq!(token(&doors, "login|alice").await.as_deref(), Some("at-1"));
    assert_ended(&doors, &flow, FlowStatus::Completed, "").await;
}

/// None of them ends the consent, and the provider hears of none.
#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_that_does_not_hold_lets_nobody_in() {
    type Change = (&'static str, fn(&mut Value));
    let changes: &[Change] = &[
        ("another issuer", |claims| claims["iss"] = json!("https://evil.example")),
        ("another client", |claims| claims["aud"] = json!("another")),
        ("several clients without azp", |claims| claims["aud"] = json!([CLIENT_ID, "another"])),
        ("it has expired", |claims| claims["exp"] = json!(1)),
        ("it is from the future", |claims| claims["iat"] = json!(9_999_999_999_i64)),
        ("another sign-in's nonce", |claims| claims["nonce"] = json!("another")),
        ("no nonce", |claims| claims["nonce"] = Value::Null),
        ("no subject", |claims| claims["sub"] = Value::Null),
        ("an empty subject", |claims| claims["sub"] = json!("")),
        ("a subject with a control character", |claims| claims["sub"] = json!("alice\n")),
    ];
    let doors = Doors::open().await;
    let flow = begin(&doors, "login|alice", ConsentBinding::Login).await;
    let alice = Person::of("alice");
    let sign_in = sign_in_url(&doors, &flow).await;
    for (name, change) in changes {
        let mut claims = claims(&doors, &sign_in, "alice");
        change(&mut claims);
        doors.provider.push_at("/login/token", signed_in(&claims));
        let state = parameter(&sign_in, "state");
        let page = doors.browse(&format!("/login/callback?code=c&state={state}")).await;
        assert_eq!((page.name(), page.status), ("sign-in-failed", 400), "{name}");
    }
    for reply in [
        Reply::error("invalid_grant"),
        Reply::status(503),
        Reply::reset(),
        Reply::tokens("at-without-id-token", "rt"),
        Reply::json(200, &json!({ "access_token": "at", "token_type": "Bearer", "id_token": "x.y.z" })),
    ] {
        doors.provider.push_at("/login/token", reply);
        let state = parameter(&sign_in, "state");
        let page = doors.browse(&format!("/login/callback?code=c&state={state}")).await;
        assert_eq!(page.name(), "sign-in-failed");
    }
    let asked = doors.provider.requests_at("/login/token").len();
    let state = parameter(&sign_in, "state");
    for (query, name) in [
        (format!("error=access_denied&state={state}"), "sign-in-failed"),
        (format!("error=login_required&code=c&state={state}"), "sign-in-failed"),
        (format!("code=c&state={state}&iss=https://evil.example"), "sign-in-failed"),
        (format!("code=c&state={state}&iss={LOGIN_ISSUER}/"), "sign-in-failed"),
        (format!("code=c&state={}", "A".repeat(43)), "no-cookie"),
        ("code=c&state=short".to_owned(), "invalid"),
        ("code=c".to_owned(), "invalid"),
        (format!("state={state}"), "invalid"),
        (format!("code=c&state={state}&state={state}"), "invalid"),
        (format!("code=c&code=d&state={state}"), "invalid"),
    ] {
        assert_eq!(doors.browse(&format!("/login/callback?{query}")).await.name(), name, "{query}");
    }
    assert_eq!(doors.provider.requests_at("/login/token").len(), asked, "no code was exchanged for these");
    assert_ended(&doors, &flow, FlowStatus::Pending, "").await;
    nothing_came_of_it(&doors, "login|alice").await;
    // The link has not been used up.
    let page = doors.browse(&alice.way_back(&doors, &sign_in)).await;
    assert_eq!(page.status, 303, "{}", page.html);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_that_can_not_sign_in_is_refused_at_the_beginning() {
    let doors = Doors::open().await;
    for user in ["alice", "login", "login|", "login2|alice", "Login|alice", "login/alice"] {
        let request = token_broker::r#gen::v1::BeginOAuthRequest {
            provider: "hostile".to_owned(),
            user_id: user.to_owned(),
            services: vec!["files".to_owned()],
            options: Some(super::bound(ConsentBinding::Login)),
            ..Default::default()
        };
        let refused = doors.client(super::AGENT).await.begin_o_auth(request).await.err().unwrap();
        let bad = tonic_types::StatusExt::get_details_bad_request(&refused).unwrap();
        assert_eq!(bad.field_violations[0].field, "user_id", "{user}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_get_comes_back_from_a_sign_in() {
    let doors = Doors::open().await;
    let flow = begin(&doors, "login|alice", ConsentBinding::Login).await;
    let sign_in = sign_in_url(&doors, &flow).await;
    let way_back = Person::of("alice").way_back(&doors, &sign_in);
    for method in ["HEAD", "POST", "PUT", "OPTIONS"] {
        let page = doors.browse_with(method.parse().unwrap(), &way_back).await;
        assert_eq!((page.status, &page.headers["allow"]), (405, &"GET".parse().unwrap()), "{method}");
    }
    assert_eq!(doors.provider.requests().len(), 0);
    assert_eq!(doors.browse(&way_back).await.status, 303);
}

/// The token came from the token endpoint itself, over TLS; that alone does not make it the issuer's.
#[tokio::test(flavor = "multi_thread")]
async fn an_id_token_that_the_issuer_did_not_sign_lets_nobody_in() {
    let doors = Doors::open().await;
    let flow = begin(&doors, "login|alice", ConsentBinding::Login).await;
    let sign_in = sign_in_url(&doors, &flow).await;
    let good = claims(&doors, &sign_in, "alice");
    let bobs = claims(&doors, &sign_in, "bob");
    let (good, bobs) = (good.to_string(), bobs.to_string());
    let header = LOGIN_SIGNER.header();
    let with = |name: &str, value: &str| {
        let mut header = header.clone();
        header[name] = json!(value);
        header.to_string()
    };
    let signed = LOGIN_SIGNER.sign(&header.to_string(), &good);
    let (_, signature) = signed.rsplit_once('.').unwrap();
    let stranger = Signer::new("ES256", "login-1");
    let published = jwks(&[LOGIN_SIGNER.jwk()]).to_string();
    let tokens = [
        ("by another key of that id", stranger.sign(&header.to_string(), &good)),
        ("by a key that the issuer does not have", stranger.sign(&with("kid", "login-2"), &good)),
        ("the signature of another token", format!("{}.{signature}", message(&header.to_string(), &bobs))),
        ("a signature cut short", signed[..signed.len() - 8].to_owned()),
        ("a signature of nothing", format!("{}.c2ln", message(&header.to_string(), &good))),
        ("no signature", format!("{}.", message(&header.to_string(), &good))),
        ("none", format!("{}.{signature}", message(&with("alg", "none"), &good))),
        ("another algorithm's name", LOGIN_SIGNER.sign(&with("alg", "ES384"), &good)),
        ("RSA's name", LOGIN_SIGNER.sign(&with("alg", "RS256"), &good)),
        ("HS256 by the client's secret", hs256(&with("alg", "HS256"), &good, CLIENT_SECRET.as_bytes())),
        ("HS256 by the published keys", hs256(&with("alg", "HS256"), &good, published.as_bytes())),
        ("HS256 without a key", hs256(&with("alg", "HS256"), &good, b"")),
        ("critical extensions", LOGIN_SIGNER.sign(&with("crit", "b64"), &good)),
        ("the type of another token", LOGIN_SIGNER.sign(&with("typ", "logout+jwt"), &good)),
    ];
    let state = parameter(&sign_in, "state");
    for (name, token) in &tokens {
        doors.provider.push_at("/login/token", with_id_token(token));
        let page = doors.browse(&format!("/login/callback?code=c&state={state}")).await;
        assert_eq!((page.name(), page.status), ("sign-in-failed", 400), "{name}");
    }
    assert_ended(&doors, &flow, FlowStatus::Pending, "").await;
    nothing_came_of_it(&doors, "login|alice").await;
    doors.provider.push_at("/login/token", with_id_token(&signed));
    let page = doors.browse(&format!("/login/callback?code=c&state={state}")).await;
    assert_eq!(page.status, 303, "{}", page.html);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_issuers_keys_nobody_signs_in_until_they_are_there() {
    let doors = Doors::open().await;
    doors.provider.always(LOGIN_KEYS, Reply::status(503));
    let flow = begin(&doors, "login|alice", ConsentBinding::Login).await;
    let sign_in = sign_in_url(&doors, &flow).await;
    let alice = Person::of("alice");
    assert_eq!(doors.browse(&alice.way_back(&doors, &sign_in)).await.name(), "sign-in-failed");
    assert_ended(&doors, &flow, FlowStatus::Pending, "").await;
    doors.provider.always(LOGIN_KEYS, Reply::json(200, &jwks(&[LOGIN_SIGNER.jwk()])));
    doors.clock.advance(Duration::from_secs(10));
    assert_eq!(doors.browse(&alice.way_back(&doors, &sign_in)).await.status, 303);
}

/// Nothing is spent: the same way back is good when the database answers again.
#[tokio::test(flavor = "multi_thread")]
async fn a_browser_that_comes_back_while_the_database_fails_may_try_again() {
    let doors = Doors::open().await;
    let flow = begin(&doors, "login|alice", ConsentBinding::Login).await;
    let sign_in = sign_in_url(&doors, &flow).await;
    let fails_once = async |path: &str| {
        doors.faults.flows.store(1, Ordering::SeqCst);
        let page = doors.browse(path).await;
        assert_eq!((page.name(), page.status), ("try-again", 503), "{path}");
        assert!(!page.html.contains("code=") && !page.html.contains("state="));
    };
    let link: url::Url = flow.authorization_url.parse().unwrap();
    fails_once(link.path()).await;
    // Back from the sign-in; nobody has asked the issuer for anything.
    let way_back = Person::of("alice").way_back(&doors, &sign_in);
    fails_once(&way_back).await;
    assert_eq!(doors.provider.requests_at("/login/token").len(), 0);
    let let_in = doors.browse(&way_back).await;
    assert_eq!(let_in.status, 303, "{}", let_in.html);
    // Back from the provider: the code is as good as before.
    let state = state_in(let_in.headers["location"].to_str().unwrap());
    let callback = format!("/oauth/callback/hostile?code=code&state={state}");
    fails_once(&callback).await;
    nothing_came_of_it(&doors, "login|alice").await;
    assert_ended(&doors, &flow, FlowStatus::Pending, "").await;
    doors.provider.push(Reply::tokens("at-1", "rt-1"));
    doors.provider.push_at("/userinfo", Reply::status(500));
    assert_eq!(doors.browse(&callback).await.name(), "connected");
    assert_eq!(token(&doors, "login|alice").await.as_deref(), Some("at-1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_issuer_that_can_not_be_discovered_is_asked_again_later() {
    let (issuer, provider) = (HostileServer::start().await, HostileServer::start().await);
    let clock = std::sync::Arc::new(ManualClock::new());
    let broker = BrokerBuilder::new()
        .hostile(&provider)
        .set("consent.bindings", vec!["login"])
        .set("login.issuer", issuer.base())
        .set("login.client_id", "client-1")
        .start_in_process(Overrides { clock: Some(clock.clone()), ..Overrides::default() })
        .await;
    let request = BeginOAuthRequest {
        provider: "hostile".to_owned(),
        user_id: "login|alice".to_owned(),
        services: vec!["files".to_owned()],
        ..Default::default()
    };
    let flow = answered(broker.client("agent").await.begin_o_auth(request).await).flow.unwrap();
    let browser = reqwest::Client::builder().no_proxy().build().unwrap();
    let open = async || {
        let page = browser.get(&flow.authorization_url).send().await.unwrap();
        (page.status().as_u16(), page.text().await.unwrap())
    };
    let (status, html) = open().await;
    assert!(status == 503 && html.contains("data-page=\"try-again\""), "{html}");
    // Metadata of somebody else's are as good as none.
    let metadata = |name: &str| {
        let at = |path: &str| format!("{}/{path}", issuer.base());
        json!({
            "issuer": name,
            "authorization_endpoint": at("authorize"),
            "token_endpoint": at("token"),
            "jwks_uri": at("jwks"),
            "response_types_supported": ["code"],
            "code_challenge_methods_supported": ["S256"],
        })
    };
    let well_known = "/.well-known/openid-configuration";
    issuer.always(well_known, Reply::json(200, &metadata("https://evil.example")));
    clock.advance(Duration::from_secs(60));
    assert_eq!(open().await.0, 503);
    issuer.always(well_known, Reply::json(200, &metadata(&issuer.base())));
    clock.advance(Duration::from_secs(60));
    let (status, html) = open().await;
    assert!(status == 200 && html.contains("name=\"token\""), "{html}");
    assert!(issuer.requests_at("/token").is_empty());
}
