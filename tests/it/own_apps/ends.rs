//! Disabled and deleted apps, and what becomes of what they obtained.

use token_broker::r#gen::v1 as pb;
use tonic::Code;
use tonic_types::StatusExt as _;

use super::{
    app, begin, begin_at, client_of, connect, create, get, last_client, missing, ops, pair, reason, refresh,
    start, token,
};
use crate::support::broker::{TestBroker, answered, refused};
use crate::support::consent::key_at;
use crate::support::hostile::{HostileServer, Reply};

fn disable(revision: i64, disabled: bool) -> pb::UpdateProviderConfigurationRequest {
    pb::UpdateProviderConfigurationRequest {
        provider: "hostile".to_owned(),
        revision,
        disabled: Some(disabled),
        ..Default::default()
    }
}

fn delete(provider: &str, force: bool) -> pb::DeleteProviderConfigurationRequest {
    pb::DeleteProviderConfigurationRequest { provider: provider.to_owned(), force, ..Default::default() }
}

async fn revoke(broker: &TestBroker, tenant: &str, user: &str) -> pb::RevokeResponse {
    let revoke = pb::RevokeRequest { key: Some(key_at("hostile", user, "files")), force: false };
    answered(broker.client(&format!("{tenant}-agent")).await.revoke(revoke).await)
}

#[tokio::test]
async fn a_disabled_app_ends_grants_and_does_nothing_else() {
    let server = HostileServer::start().await;
    let broker = start(&server).await;
    create(&broker, "acme", app("acme-app", "acme-secret")).await;
    connect(&broker, &server, "acme", "alice", "1").await;
    connect(&broker, &server, "acme", "bob", "2").await;
    let mut open = begin(&broker, "acme", "carol").await;
    let mut operator = ops(&broker, "acme").await;
    answered(operator.update_provider_configuration(disable(1, true)).await);
    let before = server.requests().len();
    let refusals = [
        get(&broker, "acme", "alice").await.err().unwrap(),
        begin_at(&broker, "acme", "hostile", "dave").await.err().unwrap(),
    ];
    for refusal in refusals {
        assert_eq!(
            (refusal.code(), reason(&refusal).as_str()),
            (Code::FailedPrecondition, "PROVIDER_DISABLED")
        );
    }
    // It is not offered, and the operator's of its id does not come in its place.
    let mut agent = broker.client("acme-agent").await;
    assert!(answered(agent.list_providers(pb::ListProvidersRequest {}).await).providers.is_empty());
    let listed = answered(agent.list_credentials(pb::ListCredentialsRequest::default()).await).credentials;
    assert_eq!(listed.len(), 2, "what there is can be seen, to be revoked");
    assert_eq!(open.back().await.status.as_u16(), 400);
    assert_eq!(server.requests().len(), before, "no endpoint was asked");

    server.push_at("/revoke", Reply::status(200));
    assert!(revoke(&broker, "acme", "alice").await.provider_revocation() == pb::ProviderRevocation::Revoked);
    assert_eq!(client_of(&server.requests_at("/revoke").pop().unwrap()), pair("acme-app", "acme-secret"));
    answered(operator.update_provider_configuration(disable(2, false)).await);
    refresh(&broker, &server, "acme", "bob", "3").await;
    assert_eq!(last_client(&server), pair("acme-app", "acme-secret"));
}

#[tokio::test]
async fn an_app_that_users_are_connected_by_is_deleted_by_force_alone() {
    let server = HostileServer::start().await;
    let broker = start(&server).await;
    create(&broker, "acme", app("acme-app", "acme-secret")).await;
    connect(&broker, &server, "acme", "alice", "1").await;
    let mut open = begin(&broker, "acme", "bob").await;
    let mut operator = ops(&broker, "acme").await;
    let refusal = refused(operator.delete_provider_configuration(delete("hostile", false)).await);
    let info = refusal.get_details_error_info().unwrap();
    assert_eq!(
        (refusal.code(), info.reason.as_str()),
        (Code::FailedPrecondition, "PROVIDER_CONFIGURATION_IN_USE")
    );
    let counted = ["credentials", "flows", "revocations"].map(|name| info.metadata[name].as_str());
    assert_eq!(counted, ["1", "1", "0"]);
    refresh(&broker, &server, "acme", "alice", "2").await;
    answered(operator.delete_provider_configuration(delete("hostile", true)).await);
    let before = server.requests().len();

    // What it obtained is nobody else's to use: neither the operator's app of this id, nor one that is made anew.
    let gone = pb::AuthorizationRequiredReason::AppGone.as_str_name();
    assert_eq!(missing(&broker, "acme", "alice").await, gone);
    assert_eq!(open.back().await.status.as_u16(), 400);
    create(&broker, "acme", app("acme-app", "another-secret")).await;
    assert_eq!(missing(&broker, "acme", "alice").await, gone);
    assert_eq!(server.requests().len(), before, "no endpoint was asked");
    // A new consent makes it good.
    connect(&broker, &server, "acme", "alice", "3").await;
    assert_eq!(token(&broker, "acme", "alice").await.access_token, "at-3");
    assert_eq!(last_client(&server), pair("acme-app", "another-secret"));
}

#[tokio::test]
async fn without_another_of_its_id_a_deleted_app_is_an_unknown_provider() {
    let server = HostileServer::start().await;
    let broker = start(&server).await;
    let only = pb::CreateProviderConfigurationRequest { provider: "only".to_owned(), ..app("app", "secret") };
    create(&broker, "acme", only).await;
    let mut begun = begin_at(&broker, "acme", "only", "alice").await.unwrap();
    server.push(Reply::tokens("at", "rt"));
    assert!(begun.back().await.status.is_success());
    answered(ops(&broker, "acme").await.delete_provider_configuration(delete("only", true)).await);
    let get = pb::GetCredentialRequest { key: Some(key_at("only", "alice", "files")), ..Default::default() };
    let refusal = refused(broker.client("acme-agent").await.get_credential(get).await);
    assert_eq!((refusal.code(), reason(&refusal).as_str()), (Code::NotFound, "PROVIDER_NOT_FOUND"));
    // Other tenants never had it.
    let elsewhere = begin_at(&broker, "globex", "only", "alice").await.err().unwrap();
    assert_eq!(reason(&elsewhere), "PROVIDER_NOT_FOUND");
}

#[tokio::test]
async fn a_refresh_under_way_outlives_its_app() {
    let server = HostileServer::start().await;
    let broker = start(&server).await;
    create(&broker, "acme", app("acme-app", "acme-secret")).await;
    connect(&broker, &server, "acme", "alice", "1").await;
    let gate = crate::support::hostile::Gate::default();
    server.push(Reply::tokens("at-2", "rt-2").held_by(&gate));
    let mut agent = broker.client("acme-agent").await;
    let request =
        pb::RefreshRequest { key: Some(key_at("hostile", "alice", "files")), expected_generation: 1 };
    let before = server.requests().len();
    let running = tokio::spawn(async move { agent.refresh(request).await });
    server.wait_for_requests(before + 1).await;
    answered(ops(&broker, "acme").await.delete_provider_configuration(delete("hostile", true)).await);
    gate.release();
    // Its caller is given what it obtained. From then on nobody can use it.
    let result = answered(running.await.unwrap()).result.unwrap();
    let pb::refresh_response::Result::Credential(credential) = result else { panic!("no token") };
    assert_eq!(credential.access_token, "at-2");
    let gone = pb::AuthorizationRequiredReason::AppGone.as_str_name();
    assert_eq!(missing(&broker, "acme", "alice").await, gone);
    let mut agent = broker.client("acme-agent").await;
    let listed = answered(agent.list_credentials(pb::ListCredentialsRequest::default()).await).credentials;
    assert_eq!((listed.len(), listed[0].generation), (1, 2));
    // It can be ended here; nobody can end it at the provider.
    let told = revoke(&broker, "acme", "alice").await;
    assert!(told.deleted);
    assert!(told.provider_revocation() == pb::ProviderRevocation::Failed);
}

#[tokio::test]
async fn a_deleted_tenants_apps_are_gone() {
    let server = HostileServer::start().await;
    let broker = start(&server).await;
    create(&broker, "globex", app("globex-app", "globex-secret")).await;
    let mut root = broker.admin("root").await;
    answered(root.delete_tenant(pb::DeleteTenantRequest { tenant: "globex".to_owned() }).await);
    let list = pb::ListProviderConfigurationsRequest { tenant: "globex".to_owned(), ..Default::default() };
    assert!(answered(root.list_provider_configurations(list).await).configurations.is_empty());
    let again =
        pb::CreateProviderConfigurationRequest { tenant: "globex".to_owned(), ..app("app", "secret") };
    let refusal = refused(root.create_provider_configuration(again).await);
    assert_eq!((refusal.code(), reason(&refusal).as_str()), (Code::NotFound, "TENANT_NOT_FOUND"));
}
