//! Who may call: nobody without a known key, and no more than is written.

use token_broker::app::Overrides;
use token_broker::r#gen::v1::{
    CredentialKey, GetCredentialRequest, ListCredentialsRequest, ListProvidersRequest,
};
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::support::broker::{BrokerBuilder, CallerRights, TestBroker, answered, refused};

async fn list_providers(broker: &TestBroker, key: Option<&str>) -> Result<(), Status> {
    broker.client_with_key(key).await.list_providers(ListProvidersRequest {}).await.map(|_| ())
}

/// What a caller can see of a refusal.
fn seen(status: &Status) -> (Code, String, Vec<u8>) {
    (status.code(), status.message().to_owned(), status.details().to_vec())
}

#[tokio::test]
async fn only_a_whole_known_key_is_let_in_and_every_refusal_is_the_same() {
    let broker = BrokerBuilder::new().start_in_process(Overrides::default()).await;
    let key = broker.api_key("agent").to_owned();
    list_providers(&broker, Some(&key)).await.unwrap();

    let other = BrokerBuilder::new().write().api_key("agent").to_owned();
    let without = list_providers(&broker, None).await.unwrap_err();
    assert_eq!(without.code(), Code::Unauthenticated);
    let wrong = [
        String::new(),
        "tb_".to_owned(),
        other,
        key[..key.len() - 1].to_owned(),
        key[..10].to_owned(),
        format!("{key}a"),
        key.to_uppercase(),
        format!("{key} {key}"),
        key["tb_".len()..].to_owned(),
        "x".repeat(8_000),
    ];
    for bad in wrong {
        let refusal = list_providers(&broker, Some(&bad)).await.unwrap_err();
        assert_eq!(seen(&refusal), seen(&without), "{} characters", bad.len());
    }
}

#[tokio::test]
async fn health_needs_no_key() {
    let broker = BrokerBuilder::new().start_in_process(Overrides::default()).await;
    let mut health = HealthClient::new(broker.channel().await);
    for service in ["", "tokenbroker.v1.TokenBrokerService"] {
        let request = HealthCheckRequest { service: service.to_owned() };
        assert_eq!(health.check(request).await.unwrap().into_inner().status, 1, "{service}");
    }
}

#[tokio::test]
async fn what_is_not_written_is_not_allowed() {
    let broker = BrokerBuilder::new()
        .caller("nobody", CallerRights::none("acme"))
        .caller("elsewhere", CallerRights::all("acme").providers(&["other"]))
        .caller("lister", CallerRights::all("acme").actions(&["list_credentials"]).users(&["alice"], &[]))
        .start_in_process(Overrides::default())
        .await;

    let mut nobody = broker.client("nobody").await;
    let refusal = refused(nobody.list_providers(ListProvidersRequest {}).await);
    assert_eq!(refusal.code(), Code::PermissionDenied);
    let key = CredentialKey {
        provider: "oidc".to_owned(),
        user_id: "alice".to_owned(),
        service: "mail".to_owned(),
        account: String::new(),
    };
    let get = GetCredentialRequest { key: Some(key), ..GetCredentialRequest::default() };
    assert_eq!(refused(nobody.get_credential(get.clone()).await).code(), Code::PermissionDenied);
    // Not its provider: the same whether or not there is one of that name.
    let elsewhere = refused(broker.client("elsewhere").await.get_credential(get).await);
    assert_eq!(elsewhere.code(), Code::PermissionDenied);

    let mut lister = broker.client("lister").await;
    assert_eq!(refused(lister.list_providers(ListProvidersRequest {}).await).code(), Code::PermissionDenied);
    let of =
        |user: &str| ListCredentialsRequest { user_id: user.to_owned(), ..ListCredentialsRequest::default() };
    answered(lister.list_credentials(of("alice")).await);
    assert_eq!(refused(lister.list_credentials(of("bob")).await).code(), Code::PermissionDenied);
    assert!(answered(lister.list_credentials(of("")).await).credentials.is_empty());
}
