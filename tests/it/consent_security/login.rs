//! The binding *login*: who signs in must be the one that the consent is for.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use token_broker::domain::ports::Clock as _;
use token_broker::r#gen::v1::{ConsentBinding, FlowStatus, StartedFlow};

use super::{assert_ended, begin, come_back, nothing_came_of_it, token};
use crate::support::doors::{Doors, LOGIN_ISSUER, Page, state_in};
use crate::support::hostile::Reply;
use crate::support::provider::CLIENT_ID;

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

/// A token answer with these claims in its ID token.
fn signed_in(claims: &Value) -> Reply {
    let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let id_token = format!("{}.{}.c2ln", part(&json!({ "alg": "RS256" })), part(claims));
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
