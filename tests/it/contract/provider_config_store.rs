//! The contract of `ProviderConfigStore`, and of what other stores remember of configurations.

use std::collections::BTreeSet;

use token_broker::domain::caller_store::Tenant;
use token_broker::domain::client::{AssertionAlgorithm, ClientAuth};
use token_broker::domain::credential::Sealed;
use token_broker::domain::flow::FlowStatus;
use token_broker::domain::key::ConfigId;
use token_broker::domain::ports::{DueRequest, NewGrant, PendingRevocation};
use token_broker::domain::provider_config::{
    ClientAuthentication, ConfigUses, ConfigWrite, DueConfig, MAX_CONFIGS, ProviderConfig,
};

use super::samples::{
    at, flow, flow_id, key, new_grant, outbox_id, provider, revocation, revoke_write, tenant, tokens,
};
use super::{Stores, contract};

contract!(
    a_configuration_comes_back_as_it_was_stored,
    a_provider_id_is_one_configurations_in_its_tenant,
    a_change_needs_the_revision_and_leaves_what_never_changes,
    pages_of_configurations_follow_their_provider_ids,
    a_tenant_has_so_many_configurations_at_most,
    of_many_that_add_at_one_time_none_goes_beyond_the_limit,
    a_deleted_tenant_has_no_configurations_and_gets_none,
    what_was_obtained_keeps_its_configuration,
    a_configuration_in_use_is_deleted_by_force_alone,
    due_rows_are_those_of_their_configuration,
);

fn id(n: u8) -> ConfigId {
    ConfigId::from_bytes([n; 16])
}

pub(crate) fn config(of: &str, name: &str, n: u8) -> ProviderConfig {
    ProviderConfig {
        id: id(n),
        tenant: tenant(of),
        provider: provider(name),
        definition: "google".to_owned(),
        client_id: format!("client {n} 'quoted' \"ä\u{1F511}\""),
        variables: [("host".to_owned(), "id.example".to_owned()), ("realm".to_owned(), "a".to_owned())]
            .into(),
        authentication: ClientAuthentication {
            method: Some(ClientAuth::TlsCertificate),
            client_secret: Some(Sealed(vec![n, 0, 255])),
            private_key: Some(Sealed(vec![n, 1])),
            private_key_id: Some("k".to_owned()),
            private_key_algorithm: Some(AssertionAlgorithm::Ps256),
            tls_certificate: Some("-----BEGIN CERTIFICATE-----\n".to_owned()),
            tls_key: Some(Sealed(vec![n, 2])),
        },
        disabled_at: Some(at(3)),
        revision: 1,
        created_at: at(1),
        updated_at: at(2),
    }
}

async fn a_configuration_comes_back_as_it_was_stored(stores: Stores) {
    let full = config("acme", "google", 1);
    let bare = ProviderConfig {
        variables: [].into(),
        authentication: ClientAuthentication::default(),
        disabled_at: None,
        ..config("acme", "github", 2)
    };
    for config in [full, bare] {
        let load = || stores.configs.load_provider_config(&config.tenant, &config.provider);
        assert_eq!(load().await.unwrap(), None);
        assert_eq!(stores.configs.insert_provider_config(config.clone()).await.unwrap(), ConfigWrite::Done);
        assert_eq!(load().await.unwrap(), Some(config.clone()));
    }
}

async fn a_provider_id_is_one_configurations_in_its_tenant(stores: Stores) {
    let insert = |config| stores.configs.insert_provider_config(config);
    assert_eq!(insert(config("acme", "google", 1)).await.unwrap(), ConfigWrite::Done);
    assert_eq!(insert(config("acme", "google", 2)).await.unwrap(), ConfigWrite::Exists);
    assert_eq!(insert(config("globex", "google", 3)).await.unwrap(), ConfigWrite::Done);
    for (of, n) in [("acme", 1), ("globex", 3)] {
        let found = stores.configs.load_provider_config(&tenant(of), &provider("google")).await.unwrap();
        assert_eq!(found.unwrap().id, id(n));
    }
}

async fn a_change_needs_the_revision_and_leaves_what_never_changes(stores: Stores) {
    let first = config("acme", "google", 1);
    assert_eq!(stores.configs.update_provider_config(first.clone()).await.unwrap(), ConfigWrite::Unknown);
    stores.configs.insert_provider_config(first.clone()).await.unwrap();
    let changed = ProviderConfig {
        definition: "other".to_owned(),
        client_id: "other".to_owned(),
        variables: [].into(),
        authentication: ClientAuthentication {
            client_secret: Some(Sealed(vec![9])),
            ..ClientAuthentication::default()
        },
        disabled_at: None,
        created_at: at(8),
        updated_at: at(9),
        ..first.clone()
    };
    let stale = ProviderConfig { revision: 2, ..changed.clone() };
    assert_eq!(stores.configs.update_provider_config(stale).await.unwrap(), ConfigWrite::Changed);
    // One that was deleted and made again is another.
    let another = ProviderConfig { id: id(7), ..changed.clone() };
    assert_eq!(stores.configs.update_provider_config(another).await.unwrap(), ConfigWrite::Changed);
    assert_eq!(stores.configs.update_provider_config(changed.clone()).await.unwrap(), ConfigWrite::Done);
    let expected = ProviderConfig {
        authentication: changed.authentication,
        disabled_at: None,
        updated_at: at(9),
        revision: 2,
        ..first.clone()
    };
    let found = stores.configs.load_provider_config(&first.tenant, &first.provider).await.unwrap();
    assert_eq!(found, Some(expected));
}

async fn pages_of_configurations_follow_their_provider_ids(stores: Stores) {
    for (n, name) in (1..).zip(["b", "a.b", "a", "a-b", "c"]) {
        stores.configs.insert_provider_config(config("acme", name, n)).await.unwrap();
    }
    stores.configs.insert_provider_config(config("globex", "aa", 9)).await.unwrap();
    let page = async |after: Option<&str>, limit| {
        let after = after.map(provider);
        let page = stores.configs.list_provider_configs(&tenant("acme"), after.as_ref(), limit).await;
        page.unwrap().into_iter().map(|config| config.provider.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(page(None, 9).await, ["a", "a-b", "a.b", "b", "c"]);
    assert_eq!(page(Some("a-b"), 2).await, ["a.b", "b"]);
    assert!(page(Some("c"), 2).await.is_empty());
}

fn numbered(n: u32) -> ProviderConfig {
    let mut bytes = [0xc0; 16];
    bytes[..4].copy_from_slice(&n.to_be_bytes());
    ProviderConfig { id: ConfigId::from_bytes(bytes), ..config("acme", &format!("p{n}"), 1) }
}

async fn a_tenant_has_so_many_configurations_at_most(stores: Stores) {
    for n in 0..MAX_CONFIGS {
        assert_eq!(
            stores.configs.insert_provider_config(numbered(n)).await.unwrap(),
            ConfigWrite::Done,
            "{n}"
        );
    }
    let more = numbered(MAX_CONFIGS);
    assert_eq!(stores.configs.insert_provider_config(more).await.unwrap(), ConfigWrite::TooMany);
    let others = config("globex", "google", 7);
    assert_eq!(stores.configs.insert_provider_config(others).await.unwrap(), ConfigWrite::Done);
}

async fn of_many_that_add_at_one_time_none_goes_beyond_the_limit(stores: Stores) {
    for n in 0..MAX_CONFIGS - 2 {
        stores.configs.insert_provider_config(numbered(n)).await.unwrap();
    }
    let adding = (0..8).map(|n| {
        let configs = stores.configs.clone();
        tokio::spawn(async move { configs.insert_provider_config(numbered(MAX_CONFIGS + n)).await.unwrap() })
    });
    let mut done = 0;
    for adding in adding.collect::<Vec<_>>() {
        done += usize::from(adding.await.unwrap() == ConfigWrite::Done);
    }
    assert_eq!(done, 2);
}

async fn a_deleted_tenant_has_no_configurations_and_gets_none(stores: Stores) {
    for (n, of) in [(1, "acme"), (2, "globex")] {
        stores.configs.insert_provider_config(config(of, "google", n)).await.unwrap();
    }
    let acme = Tenant {
        id: tenant("acme"),
        display_name: String::new(),
        created_at: at(1),
        disabled_at: None,
        deleted_at: None,
    };
    stores.tenants.insert_tenant(acme.clone()).await.unwrap();
    stores.tenants.update_tenant(Tenant { deleted_at: Some(at(9)), ..acme }).await.unwrap();
    let left = async |of: &str| {
        let left = stores.configs.list_provider_configs(&tenant(of), None, 9).await;
        left.unwrap().len()
    };
    assert_eq!((left("acme").await, left("globex").await), (0, 1));
    let again = stores.configs.insert_provider_config(config("acme", "github", 3)).await.unwrap();
    assert_eq!(again, ConfigWrite::Unknown);
    assert_eq!(left("acme").await, 0);
}

async fn what_was_obtained_keeps_its_configuration(stores: Stores) {
    let own = Some(id(5));
    let row = stores.stored(NewGrant { configuration: own, ..new_grant(key("alice"), 1) }).await;
    assert_eq!(row.configuration, own);
    assert_eq!(stores.credentials.load(&row.key).await.unwrap(), Some(row.clone()));
    // A new consent with another app.
    let again = stores.stored(new_grant(key("alice"), 2)).await;
    assert_eq!((again.id, again.configuration), (row.id, None));
    let back = stores.stored(NewGrant { configuration: own, ..new_grant(key("alice"), 3) }).await;
    assert_eq!(back.configuration, own);

    let begun = token_broker::domain::flow::Flow { configuration: own, ..flow(key("bob"), 4, 0) };
    assert!(stores.flows.insert_flow(&begun, 9).await.unwrap());
    assert_eq!(stores.flows.load_flow(&begun.key.tenant, begun.id).await.unwrap(), Some(begun.clone()));
    let ended = stores.flows.end_flow(begun.id, FlowStatus::Pending, FlowStatus::Denied, at(1)).await;
    assert!(ended.unwrap());

    // A revocation takes it along, and one that is stored by itself has it.
    stores
        .credentials
        .revoke_with_outbox(revoke_write(&key("alice"), Some(outbox_id(6)), at(10)))
        .await
        .unwrap();
    let pending = PendingRevocation { configuration: own, ..revocation(key("bob"), 9, 10) };
    stores.outbox.enqueue_revocation(pending).await.unwrap();
    let mut seen = BTreeSet::new();
    for id in stores.outbox.due_revocations(at(20), 9).await.unwrap() {
        let taken = stores.outbox.take_revocation(id, at(20), at(60)).await.unwrap().unwrap();
        assert_eq!(taken.configuration, own);
        seen.insert(taken.key.user.to_string());
    }
    assert_eq!(seen, ["alice".to_owned(), "bob".to_owned()].into());
}

async fn a_configuration_in_use_is_deleted_by_force_alone(stores: Stores) {
    let google = config("acme", "google", 1);
    stores.configs.insert_provider_config(google.clone()).await.unwrap();
    let own = Some(google.id);
    let delete =
        async |force| stores.configs.delete_provider_config(&google.tenant, &google.provider, force).await;
    let in_use =
        |credentials, flows, revocations| ConfigWrite::InUse(ConfigUses { credentials, flows, revocations });
    // Those of others do not count.
    stores.connected(key("carol"), 7).await;
    stores.stored(NewGrant { configuration: Some(id(9)), ..new_grant(key("dave"), 8) }).await;

    let mut due = tokens(1);
    due.next_refresh_at = Some(at(5));
    stores.stored(NewGrant { configuration: own, tokens: due, ..new_grant(key("alice"), 1) }).await;
    let begun = token_broker::domain::flow::Flow { configuration: own, ..flow(key("bob"), 2, 0) };
    stores.flows.insert_flow(&begun, 9).await.unwrap();
    assert_eq!(delete(false).await.unwrap(), in_use(1, 1, 0));
    assert!(stores.flows.cancel_flow(&begun.key.tenant, flow_id(2), at(1)).await.unwrap().is_some());
    assert_eq!(delete(false).await.unwrap(), in_use(1, 0, 0));
    stores
        .credentials
        .revoke_with_outbox(revoke_write(&key("alice"), Some(outbox_id(20)), at(10)))
        .await
        .unwrap();
    assert_eq!(delete(false).await.unwrap(), in_use(0, 0, 1));
    let finish = token_broker::domain::ports::RevocationOutcome::Revoked;
    let told = stores.outbox.due_revocations(at(99), 9).await.unwrap();
    assert_eq!(told.len(), 1);
    stores.outbox.finish_revocation(told[0], finish, at(11)).await.unwrap();
    assert_eq!(delete(false).await.unwrap(), ConfigWrite::Done);
    assert_eq!(delete(false).await.unwrap(), ConfigWrite::Unknown);

    // By force: what it obtained stays, and is not due any more.
    stores.configs.insert_provider_config(ProviderConfig { id: id(2), ..google.clone() }).await.unwrap();
    let mut due = tokens(3);
    due.next_refresh_at = Some(at(5));
    let grant = NewGrant { configuration: Some(id(2)), tokens: due, ..new_grant(key("erin"), 3) };
    let row = stores.stored(grant).await;
    assert_eq!(delete(true).await.unwrap(), ConfigWrite::Done);
    let left = stores.credentials.load(&row.key).await.unwrap().unwrap();
    assert_eq!((left.configuration, left.generation), (Some(id(2)), row.generation));
    assert_eq!(left.tokens().unwrap().next_refresh_at, None);
}

async fn due_rows_are_those_of_their_configuration(stores: Stores) {
    let own = config("acme", "google", 1);
    stores.configs.insert_provider_config(own.clone()).await.unwrap();
    stores.configs.insert_provider_config(config("globex", "google", 2)).await.unwrap();
    let grant = |user: &str, n: u32, configuration| {
        let mut tokens = tokens(n);
        tokens.next_refresh_at = Some(at(50));
        NewGrant { configuration, tokens, ..new_grant(key(user), n) }
    };
    let mine = stores.stored(grant("alice", 1, Some(own.id))).await;
    let operators = stores.stored(grant("bob", 2, None)).await;
    let configs = async |now| stores.configs.due_provider_configs(at(now), 9).await.unwrap();
    assert!(configs(49).await.is_empty());
    let due = DueConfig { tenant: own.tenant.clone(), provider: own.provider.clone(), id: own.id };
    assert_eq!(configs(50).await, [due]);
    let reserve = async |configuration| {
        let request =
            DueRequest { provider: provider("google"), configuration, now: at(60), until: at(120), limit: 9 };
        let reserved = stores.credentials.reserve_due(request).await.unwrap();
        reserved.into_iter().map(|due| due.id).collect::<Vec<_>>()
    };
    assert!(reserve(Some(id(2))).await.is_empty());
    assert_eq!(reserve(None).await, [operators.id]);
    assert_eq!(reserve(Some(own.id)).await, [mine.id]);
    assert!(configs(60).await.is_empty());
}
