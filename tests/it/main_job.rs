//! The broker's main job at a strict provider, end to end: a real broker process, real tokens, real expiry.

use token_broker::domain::ports::Clock as _;
use token_broker::r#gen::v1::get_credential_response::Result as Got;
use token_broker::r#gen::v1::{
    AuthorizationRequired, BeginOAuthRequest, ConsentOptions, Credential, CredentialKey,
    GetCredentialRequest, GetFlowRequest, RevokeRequest,
};
use token_broker::infra::system::SystemClock;

use crate::support::broker::{BrokerBuilder, Client, TestBroker, answered};
use crate::support::browser::{Answer, Browser, Page};
use crate::support::oidc::{OidcOptions, OidcServer, digest};

fn key(user: &str, service: &str) -> CredentialKey {
    CredentialKey {
        provider: "oidc".to_owned(),
        user_id: user.to_owned(),
        service: service.to_owned(),
        account: String::new(),
    }
}

async fn get(agent: &mut Client, user: &str, service: &str) -> Got {
    let request = GetCredentialRequest { key: Some(key(user, service)), ..GetCredentialRequest::default() };
    answered(agent.get_credential(request).await).result.unwrap()
}

async fn token(agent: &mut Client, user: &str, service: &str) -> Credential {
    match get(agent, user, service).await {
        Got::Credential(credential) => credential,
        Got::AuthorizationRequired(required) => panic!("consent needed: {}", reason(&required)),
    }
}

async fn required(agent: &mut Client, user: &str, service: &str) -> AuthorizationRequired {
    match get(agent, user, service).await {
        Got::AuthorizationRequired(required) => required,
        Got::Credential(_) => panic!("a token where none may be"),
    }
}

/// Why a consent is needed, by the proto's name without the enum's own.
fn reason(required: &AuthorizationRequired) -> &'static str {
    required.reason().as_str_name().trim_start_matches("AUTHORIZATION_REQUIRED_REASON_")
}

/// A consent by `BeginOAuth`; the page at its end and where the flow stands then.
async fn connect(
    agent: &mut Client,
    user: &str,
    services: &[&str],
    answer: Answer<'_>,
) -> (Page, &'static str) {
    let begun = answered(
        agent
            .begin_o_auth(BeginOAuthRequest {
                provider: "oidc".to_owned(),
                user_id: user.to_owned(),
                services: services.iter().map(|&service| service.to_owned()).collect(),
                options: Some(ConsentOptions { login_hint: user.to_owned(), ..ConsentOptions::default() }),
                ..BeginOAuthRequest::default()
            })
            .await,
    );
    let flow = begun.flow.unwrap();
    let page = Browser::new().consent(&flow.authorization_url, user, answer).await;
    let flow = answered(agent.get_flow(GetFlowRequest { flow_id: flow.flow_id }).await).flow.unwrap();
    (page, flow.status().as_str_name())
}

async fn start(options: OidcOptions) -> (OidcServer, TestBroker, Client) {
    let oidc = OidcServer::start(options).await;
    let broker = BrokerBuilder::new().oidc(&oidc).set("oauth.refresh_ahead", "0s").spawn_process().await;
    let agent = broker.client("agent").await;
    (oidc, broker, agent)
}

/// Waits for the end of the token's life; the provider, which counted from earlier, refuses it then.
async fn until_expired(oidc: &OidcServer, token: &Credential) {
    let end = token.expire_time.unwrap();
    let end = jiff::Timestamp::new(end.seconds, end.nanos).unwrap();
    let left = end.duration_since(SystemClock.now());
    tokio::time::sleep(left.try_into().unwrap_or_default()).await;
    assert_eq!(oidc.userinfo(&token.access_token).await, None);
}

#[tokio::test]
async fn one_consent_for_two_services_then_expiry_refresh_and_revoke() {
    let (oidc, _broker, mut agent) =
        start(OidcOptions { access_token_seconds: 8, ..OidcOptions::default() }).await;
    assert_eq!(reason(&required(&mut agent, "alice", "mail").await), "NOT_CONNECTED");
    let (page, status) = connect(&mut agent, "alice", &["mail", "calendar"], Answer::Allow).await;
    assert_eq!((page.status.as_u16(), status), (200, "FLOW_STATUS_COMPLETED"), "{}", page.text());

    let mail = token(&mut agent, "alice", "mail").await;
    let calendar = token(&mut agent, "alice", "calendar").await;
    assert_eq!(mail.access_token, calendar.access_token);
    assert_eq!(oidc.userinfo(&mail.access_token).await.as_deref(), Some("alice-0001"));
    assert_eq!(mail.account.as_ref().unwrap().label, "alice@example.test");

    until_expired(&oidc, &mail).await;
    let renewed = token(&mut agent, "alice", "mail").await;
    assert_eq!(renewed.generation, mail.generation + 1);
    assert_eq!(oidc.userinfo(&renewed.access_token).await.as_deref(), Some("alice-0001"));

    let revoked =
        answered(agent.revoke(RevokeRequest { key: Some(key("alice", "mail")), ..Default::default() }).await);
    assert!(revoked.deleted);
    assert_eq!(revoked.provider_revocation().as_str_name(), "PROVIDER_REVOCATION_REVOKED");
    assert_eq!(revoked.services, ["calendar", "mail"]);
    assert_eq!(oidc.userinfo(&renewed.access_token).await, None);
    for service in ["mail", "calendar"] {
        assert_eq!(reason(&required(&mut agent, "alice", service).await), "REVOKED");
    }

    // The provider's side of it.
    let requests = oidc.token_requests().await;
    let [exchange, refresh] = requests.as_slice() else { panic!("{requests:?}") };
    assert_eq!(refresh.presented, exchange.issued_refresh);
    assert_eq!(refresh.issued_access, Some(digest(&renewed.access_token)));
    let revocations = oidc.revocations().await;
    assert_eq!(revocations.len(), 1);
    assert_eq!(revocations[0].presented, refresh.issued_refresh);
    assert_eq!(oidc.dead_grants().await, 1);
}

#[tokio::test]
async fn a_denied_and_a_partial_consent_are_told_apart() {
    let (oidc, _broker, mut agent) = start(OidcOptions::default()).await;
    let (page, status) = connect(&mut agent, "bob", &["mail"], Answer::Deny).await;
    assert_eq!(status, "FLOW_STATUS_DENIED", "{}", page.text());
    assert_eq!(reason(&required(&mut agent, "bob", "mail").await), "CONSENT_DENIED");
    assert!(oidc.token_requests().await.is_empty(), "there was no code to exchange");

    let granted = ["openid", "email", "offline_access", "calendar.read"];
    let (_, status) = connect(&mut agent, "bob", &["mail", "calendar"], Answer::AllowOnly(&granted)).await;
    assert_eq!(status, "FLOW_STATUS_COMPLETED");
    token(&mut agent, "bob", "calendar").await;
    let missing = required(&mut agent, "bob", "mail").await;
    assert_eq!(
        (reason(&missing), missing.missing_scopes.clone()),
        ("SCOPES_MISSING", vec!["mail.read".to_owned()])
    );
}

#[tokio::test]
async fn a_provider_that_is_down_takes_no_valid_token_away() {
    let (oidc, _broker, mut agent) = start(OidcOptions::default()).await;
    connect(&mut agent, "carol", &["mail"], Answer::Allow).await;
    let before = token(&mut agent, "carol", "mail").await;
    oidc.set(serde_json::json!({ "outage": true })).await;
    let after = token(&mut agent, "carol", "mail").await;
    assert_eq!(after.access_token, before.access_token);

    // Revoked here at once, at the provider when it is back.
    let revoked =
        answered(agent.revoke(RevokeRequest { key: Some(key("carol", "mail")), ..Default::default() }).await);
    assert_eq!(revoked.provider_revocation().as_str_name(), "PROVIDER_REVOCATION_PENDING");
    assert_eq!(reason(&required(&mut agent, "carol", "mail").await), "REVOKED");
    assert_eq!(oidc.userinfo(&before.access_token).await.as_deref(), Some("carol-0001"));
    oidc.set(serde_json::json!({ "outage": false })).await;
    oidc.wait_for_dead_grants(1).await;
    assert_eq!(oidc.userinfo(&before.access_token).await, None);
}
