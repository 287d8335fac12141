//! A user's consent through the broker's own doors.

use token_broker::r#gen::v1::{BeginOAuthRequest, CredentialKey};

use super::broker::{TestBroker, answered};
use super::browser::{Answer, Browser};

/// A key at provider `oidc`.
pub(crate) fn key(user: &str, service: &str) -> CredentialKey {
    key_at("oidc", user, service)
}

pub(crate) fn key_at(provider: &str, user: &str, service: &str) -> CredentialKey {
    CredentialKey {
        provider: provider.to_owned(),
        user_id: user.to_owned(),
        service: service.to_owned(),
        account: String::new(),
    }
}

/// The user, who has the same name at the provider, connects services of provider `oidc`.
pub(crate) async fn connect(broker: &TestBroker, user: &str, services: &[&str]) {
    let request = BeginOAuthRequest {
        provider: "oidc".to_owned(),
        user_id: user.to_owned(),
        services: services.iter().map(|s| (*s).to_owned()).collect(),
        ..BeginOAuthRequest::default()
    };
    let flow = answered(broker.client("agent").await.begin_o_auth(request).await).flow.unwrap();
    let page = Browser::new().consent(&flow.authorization_url, user, Answer::Allow).await;
    assert!(page.status.is_success(), "{}: {}", page.status, page.text());
}
