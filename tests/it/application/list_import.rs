//! ImportCredential and ListCredentials.

use std::time::Duration;

use token_broker::application::error::{BrokerError, NotFound, Precondition};
use token_broker::application::types::{ConsentReason, ListAnswer, ListInput, ViewStatus};
use token_broker::domain::access_policy::{Action, Allowed, UserRule};
use token_broker::domain::credential::ReauthReason;
use token_broker::domain::key::{ProviderId, TenantId, UserId};
use token_broker::domain::scope::ScopeSet;

use crate::support::rig::{Rig, all_but, caller, get_input, ids, rights, rule, token, user_service};
use crate::support::strict_provider::scope_set;

fn everything(page_size: u32) -> ListInput {
    ListInput {
        user: None,
        provider: None,
        covering_scopes: ScopeSet::default(),
        page_size,
        page_token: None,
    }
}

async fn import_for(rig: &Rig, user: &str) {
    let mut input = rig.import_input();
    input.key = user_service(user, "mail");
    rig.broker.import_credential(&rig.caller, input).await.unwrap();
}

#[tokio::test]
async fn imported_tokens_are_served_and_refreshed() {
    let rig = Rig::new().await;
    let mut input = rig.import_input();
    input.expires_at = Some(rig.now() + Duration::from_secs(3600));
    input.account.label = Some("alice@example.com".to_owned());
    input.extra.insert("instance_url".to_owned(), "https://eu1.acme.example".to_owned());
    let view = rig.broker.import_credential(&rig.caller, input).await.unwrap();
    assert_eq!((view.status, view.generation, view.refreshable), (ViewStatus::Active, 1, true));
    assert_eq!(ids(&view.services), ["mail"]);
    assert!(view.scopes_assumed);
    let first = rig.token().await;
    assert_eq!(first.extra["instance_url"], "https://eu1.acme.example");
    rig.expire_token();
    let second = rig.token().await;
    assert_eq!(second.generation, 2);
    assert_eq!(second.extra, first.extra);
    assert_eq!(second.account.label.as_deref(), Some("alice@example.com"));
}

#[tokio::test]
async fn an_import_replaces_a_connected_row_only_when_told() {
    let rig = Rig::new().await;
    rig.connect(&["mail"]).await;
    let before = rig.row().await;
    let refused = rig.broker.import_credential(&rig.caller, rig.import_input()).await;
    assert!(matches!(refused, Err(BrokerError::FailedPrecondition(Precondition::CredentialExists))));
    assert_eq!(rig.row().await, before);
    let mut input = rig.import_input();
    input.overwrite = true;
    rig.broker.import_credential(&rig.caller, input).await.unwrap();
    let after = rig.row().await;
    assert_eq!((after.id, after.generation), (before.id, before.generation + 1));
    assert_ne!(after.grant_id, before.grant_id);
}

#[tokio::test]
async fn an_import_repairs_a_dead_row_without_being_told() {
    let rig = Rig::new().await;
    rig.connect(&["mail"]).await;
    rig.provider.end_all_grants();
    rig.expire_token();
    assert_eq!(rig.required().await.reason, ConsentReason::RefreshTokenRejected);
    rig.broker.import_credential(&rig.caller, rig.import_input()).await.unwrap();
    rig.token().await;
}

#[tokio::test]
async fn an_import_replaces_a_token_that_has_expired_for_good() {
    let rig = Rig::new().await;
    let mut short = rig.import_input();
    short.refresh_token = None;
    short.expires_at = Some(rig.now() + Duration::from_secs(3600));
    rig.broker.import_credential(&rig.caller, short).await.unwrap();
    rig.clock.advance(Duration::from_secs(3599));
    let refused = rig.broker.import_credential(&rig.caller, rig.import_input()).await;
    assert!(matches!(refused, Err(BrokerError::FailedPrecondition(Precondition::CredentialExists))));
    rig.clock.advance(Duration::from_secs(1));
    assert_eq!(rig.required().await.reason, ConsentReason::ExpiredNoRefresh);
    rig.broker.import_credential(&rig.caller, rig.import_input()).await.unwrap();
    assert_eq!(rig.token().await.generation, 2);
}

#[tokio::test]
async fn an_expired_token_is_imported_for_its_refresh_token_only() {
    let rig = Rig::new().await;
    let mut input = rig.import_input();
    input.expires_at = Some(rig.now() - Duration::from_secs(60));
    let mut useless = input.clone();
    useless.refresh_token = None;
    let refused = rig.broker.import_credential(&rig.caller, useless).await;
    assert!(matches!(refused, Err(BrokerError::InvalidArgument(v)) if v[0].field == "expire_time"));
    rig.broker.import_credential(&rig.caller, input).await.unwrap();
    assert_eq!(rig.token().await.generation, 2);
}

#[tokio::test]
async fn lists_say_what_get_credential_says() {
    let rig = Rig::new().await;
    let mut input = rig.import_input();
    input.refresh_token = None;
    input.expires_at = Some(rig.now() + Duration::from_secs(3600));
    rig.broker.import_credential(&rig.caller, input).await.unwrap();
    let status = async || {
        let answer = rig.broker.list_credentials(&rig.caller, everything(50)).await.unwrap();
        answer.credentials[0].status
    };
    rig.token().await;
    assert_eq!(status().await, ViewStatus::Active);
    rig.expire_token();
    assert_eq!(rig.required().await.reason, ConsentReason::ExpiredNoRefresh);
    assert_eq!(status().await, ViewStatus::NeedsReauth(ReauthReason::ExpiredNoRefresh));
}

#[tokio::test]
async fn lists_page_through_everything_once() {
    let rig = Rig::new().await;
    let mut users: Vec<String> =
        ["a", "a:b", "a b", "b", "é", "\u{10FFFF}", "a'; DROP TABLE credentials; --"]
            .map(str::to_owned)
            .to_vec();
    for user in &users {
        import_for(&rig, user).await;
    }
    users.sort();
    for page_size in [1, 2, 3, 7, 50] {
        let (mut seen, mut input) = (Vec::new(), everything(page_size));
        loop {
            let ListAnswer { credentials, next_page_token } =
                rig.broker.list_credentials(&rig.caller, input.clone()).await.unwrap();
            assert!(credentials.len() <= page_size as usize);
            seen.extend(credentials.into_iter().map(|c| c.key.user.to_string()));
            let Some(next) = next_page_token else { break };
            input.page_token = Some(next);
        }
        assert_eq!(seen, users, "page size {page_size}");
    }
}

#[tokio::test]
async fn lists_filter_and_leave_revoked_rows_out() {
    let rig = Rig::new().await;
    import_for(&rig, "alice").await;
    import_for(&rig, "bob").await;
    rig.broker.revoke(&rig.caller, user_service("bob", "mail"), false).await.unwrap();
    let list = |input: ListInput| async {
        let answer = rig.broker.list_credentials(&rig.caller, input).await.unwrap();
        answer.credentials.into_iter().map(|c| c.key.user.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(list(everything(50)).await, ["alice"]);
    for (scopes, found) in [(vec!["mail.read"], 1), (vec!["mail.read", "files.read"], 0), (vec!["mail"], 0)] {
        let mut input = everything(50);
        input.covering_scopes = scope_set(scopes);
        assert_eq!(list(input).await.len(), found);
    }
    let mut input = everything(50);
    input.user = Some(UserId::new("bob").unwrap());
    assert!(list(input).await.is_empty());
}

#[tokio::test]
async fn a_page_token_belongs_to_its_request() {
    let rig = Rig::new().await;
    import_for(&rig, "alice").await;
    import_for(&rig, "bob").await;
    let first = rig.broker.list_credentials(&rig.caller, everything(1)).await.unwrap();
    let good = first.next_page_token.unwrap();
    let mut other = everything(1);
    other.user = Some(UserId::new("alice").unwrap());
    for (mut input, token) in [(other, good.as_str()), (everything(1), "x"), (everything(1), "")] {
        input.page_token = Some(token.to_owned());
        let answer = rig.broker.list_credentials(&rig.caller, input).await;
        assert!(matches!(answer, Err(BrokerError::InvalidArgument(v)) if v[0].field == "page_token"));
    }
}

#[tokio::test]
async fn nothing_of_another_tenant_exists() {
    let rig = Rig::new().await;
    rig.connect(&["mail"]).await;
    let mut other = caller("other");
    rights(&mut other).tenant = TenantId::new("tenant-b").unwrap();
    assert!(rig.broker.list_credentials(&other, everything(50)).await.unwrap().credentials.is_empty());
    let answer = rig.broker.get_credential(&other, get_input("mail")).await.unwrap();
    let token_broker::application::types::TokenAnswer::AuthorizationRequired(required) = answer else {
        panic!()
    };
    assert_eq!(required.reason, ConsentReason::NotConnected);
    let revoked = rig.broker.revoke(&other, user_service("alice", "mail"), false).await.unwrap();
    assert!(!revoked.deleted);
    token(rig.get().await);
}

#[tokio::test]
async fn rights_come_before_existence() {
    let rig = Rig::new().await;
    rig.connect(&["mail"]).await;
    let full = caller("c");
    let without = |action: Action| {
        let mut c = full.clone();
        rule(&mut c).actions = all_but(action);
        c
    };
    let mut wrong_provider = full.clone();
    rule(&mut wrong_provider).providers = Allowed::Only([ProviderId::new("other").unwrap()].into());
    let mut wrong_user = full.clone();
    rule(&mut wrong_user).users = Allowed::Only([UserRule::Exact(UserId::new("bob").unwrap())].into());
    for refused in [&without(Action::GetCredential), &wrong_provider, &wrong_user] {
        for key in [user_service("alice", "mail"), user_service("alice", "nosuch")] {
            let mut input = get_input("mail");
            input.key = key;
            let answer = rig.broker.get_credential(refused, input).await;
            assert!(matches!(answer, Err(BrokerError::PermissionDenied)), "{answer:?}");
        }
    }
    let mut begin = get_input("mail");
    begin.begin_if_missing = Some(token_broker::application::types::ConsentInput::default());
    let answer = rig.broker.get_credential(&without(Action::BeginOauth), begin).await;
    assert!(matches!(answer, Err(BrokerError::PermissionDenied)), "also while there is a token");
    let answer = rig.broker.revoke(&without(Action::Revoke), user_service("alice", "mail"), false).await;
    assert!(matches!(answer, Err(BrokerError::PermissionDenied)));
    let answer = rig.broker.import_credential(&without(Action::ImportCredential), rig.import_input()).await;
    assert!(matches!(answer, Err(BrokerError::PermissionDenied)));
    let answer = rig.broker.list_credentials(&wrong_user, everything(1)).await.unwrap();
    assert!(answer.credentials.is_empty() && answer.next_page_token.is_none());
    assert!(rig.broker.list_providers(&wrong_provider).await.unwrap().is_empty());
    assert!(matches!(
        rig.broker.list_providers(&without(Action::ListProviders)).await,
        Err(BrokerError::PermissionDenied)
    ));
    let mut unknown = get_input("mail");
    unknown.key.provider = ProviderId::new("nosuch").unwrap();
    let answer = rig.ask(unknown).await;
    assert!(matches!(answer, Err(BrokerError::NotFound(NotFound::Provider))));
    let mut unknown = get_input("nosuch");
    unknown.key.user = UserId::new("nobody").unwrap();
    assert!(matches!(rig.ask(unknown).await, Err(BrokerError::NotFound(NotFound::Service))));
}
