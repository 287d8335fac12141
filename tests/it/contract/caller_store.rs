//! The contract of `CallerStore`.

use std::collections::BTreeSet;

use token_broker::domain::access_policy::{Identity, Rule};
use token_broker::domain::admin_policy::{AdminAction, AdminRights};
use token_broker::domain::caller_store::{
    ApiKey, ApiKeyWrite, CallerWrite, Claim, IdentityList, MAX_API_KEYS, NewApiKey, StoredCaller,
};
use token_broker::domain::key::{ApiKeyId, CallerId};

use super::samples::{at, tenant};
use super::{Stores, contract};

contract!(
    a_caller_comes_back_as_it_was_stored,
    an_id_is_one_callers_in_its_tenant,
    a_change_needs_the_revision_that_it_is_of,
    an_identity_is_one_callers,
    the_list_with_the_taken_identity_is_named,
    what_callers_have_of_ids_and_identities_is_told_at_once,
    pages_of_callers_follow_their_ids,
    a_key_leads_to_its_caller_whatever_has_become_of_it,
    a_deleted_callers_keys_and_identities_are_gone,
    a_rotated_key_ends_after_its_overlap,
    a_caller_has_so_many_good_keys_at_most,
    of_many_that_add_keys_at_one_time_none_goes_beyond_the_limit,
    the_last_use_is_written_once_an_hour,
);

fn id(text: &str) -> CallerId {
    CallerId::new(text).unwrap()
}

pub(crate) fn caller(tenant_name: &str, name: &str) -> StoredCaller {
    StoredCaller {
        tenant: tenant(tenant_name),
        id: id(name),
        description: "for tests: 'quoted' \"ä\u{1F511}\"".to_owned(),
        rules: vec![Rule::everything(), Rule { assert_user_id: false, ..Rule::everything() }],
        admin: AdminRights { actions: [AdminAction::ReadAudit].into(), all_tenants: true },
        identities: BTreeSet::new(),
        disabled_at: None,
        revision: 1,
        created_at: at(1),
        updated_at: at(1),
    }
}

fn spiffe(path: &str) -> Identity {
    Identity::SpiffeId(format!("spiffe://example.org/{path}"))
}

fn subject(issuer: &str, subject: &str) -> Identity {
    Identity::Subject { issuer: issuer.to_owned(), subject: subject.to_owned() }
}

pub(crate) fn key(n: u8, of: &StoredCaller, created_at: i64) -> NewApiKey {
    NewApiKey {
        key: ApiKey {
            id: ApiKeyId::from_bytes([n; 16]),
            tenant: of.tenant.clone(),
            caller: of.id.clone(),
            label: format!("key {n}"),
            created_at: at(created_at),
            expires_at: None,
            revoked_at: None,
            last_used_at: None,
        },
        hash: [n; 32],
    }
}

async fn a_caller_comes_back_as_it_was_stored(stores: Stores) {
    let callers = stores.callers;
    let mut agents = caller("acme", "agents");
    agents.identities = [spiffe("a"), subject("https://a.example", "s")].into();
    agents.disabled_at = Some(at(7));
    assert_eq!(callers.load_caller(&agents.tenant, &agents.id).await.unwrap(), None);
    assert_eq!(callers.insert_caller(agents.clone()).await.unwrap(), CallerWrite::Done);
    assert_eq!(callers.load_caller(&agents.tenant, &agents.id).await.unwrap(), Some(agents.clone()));
    for identity in &agents.identities {
        let found = callers.find_caller(identity).await.unwrap().unwrap();
        assert_eq!((found.caller, found.key), (agents.clone(), None));
    }
    for nobody in [
        spiffe("b"),
        subject("https://a.example", "t"),
        subject("https://b.example", "s"),
        subject("", "spiffe://example.org/a"),
        Identity::ApiKey([0; 32]),
    ] {
        assert_eq!(callers.find_caller(&nobody).await.unwrap(), None, "{nobody:?}");
    }
}

async fn an_id_is_one_callers_in_its_tenant(stores: Stores) {
    let callers = stores.callers;
    let first = caller("acme", "agents");
    assert_eq!(callers.insert_caller(first.clone()).await.unwrap(), CallerWrite::Done);
    let second = StoredCaller { description: "another".to_owned(), ..first.clone() };
    assert_eq!(callers.insert_caller(second).await.unwrap(), CallerWrite::Exists);
    assert_eq!(callers.load_caller(&first.tenant, &first.id).await.unwrap(), Some(first));
    assert_eq!(callers.insert_caller(caller("globex", "agents")).await.unwrap(), CallerWrite::Done);
}

async fn a_change_needs_the_revision_that_it_is_of(stores: Stores) {
    let callers = stores.callers;
    let first = caller("acme", "agents");
    assert_eq!(callers.update_caller(first.clone()).await.unwrap(), CallerWrite::Unknown);
    callers.insert_caller(first.clone()).await.unwrap();
    let changed = StoredCaller {
        description: "changed".to_owned(),
        rules: vec![],
        admin: AdminRights::default(),
        identities: [spiffe("a")].into(),
        disabled_at: Some(at(2)),
        updated_at: at(2),
        ..first.clone()
    };
    assert_eq!(callers.update_caller(changed.clone()).await.unwrap(), CallerWrite::Done);
    let now = StoredCaller { revision: 2, ..changed.clone() };
    assert_eq!(callers.load_caller(&first.tenant, &first.id).await.unwrap(), Some(now.clone()));
    assert_eq!(callers.update_caller(first.clone()).await.unwrap(), CallerWrite::Changed);
    assert_eq!(callers.load_caller(&first.tenant, &first.id).await.unwrap(), Some(now.clone()));
    // The identity that it gives up is free.
    let without = StoredCaller { identities: [].into(), ..now };
    assert_eq!(callers.update_caller(without).await.unwrap(), CallerWrite::Done);
    assert_eq!(callers.find_caller(&spiffe("a")).await.unwrap(), None);
}

async fn an_identity_is_one_callers(stores: Stores) {
    let callers = stores.callers;
    let first = StoredCaller { identities: [spiffe("a")].into(), ..caller("acme", "first") };
    callers.insert_caller(first.clone()).await.unwrap();
    for (tenant_name, name) in [("acme", "second"), ("globex", "first")] {
        let second =
            StoredCaller { identities: [spiffe("a"), spiffe("b")].into(), ..caller(tenant_name, name) };
        assert_eq!(
            callers.insert_caller(second.clone()).await.unwrap(),
            CallerWrite::IdentityTaken(IdentityList::SpiffeIds)
        );
        assert_eq!(callers.load_caller(&second.tenant, &second.id).await.unwrap(), None);
        let plain = caller(tenant_name, name);
        callers.insert_caller(plain.clone()).await.unwrap();
        assert_eq!(
            callers.update_caller(second).await.unwrap(),
            CallerWrite::IdentityTaken(IdentityList::SpiffeIds)
        );
        assert_eq!(callers.load_caller(&plain.tenant, &plain.id).await.unwrap(), Some(plain));
    }
    assert_eq!(callers.find_caller(&spiffe("a")).await.unwrap().unwrap().caller, first);
    assert_eq!(callers.find_caller(&spiffe("b")).await.unwrap(), None);
}

async fn the_list_with_the_taken_identity_is_named(stores: Stores) {
    let callers = stores.callers;
    let both = [spiffe("a"), subject("https://a.example", "s")];
    let first = StoredCaller { identities: both.clone().into(), ..caller("acme", "first") };
    callers.insert_caller(first).await.unwrap();
    for (identity, list) in both.into_iter().zip([IdentityList::SpiffeIds, IdentityList::Subjects]) {
        let second = StoredCaller { identities: [identity].into(), ..caller("globex", "second") };
        assert_eq!(callers.insert_caller(second).await.unwrap(), CallerWrite::IdentityTaken(list));
    }
}

async fn what_callers_have_of_ids_and_identities_is_told_at_once(stores: Stores) {
    let callers = stores.callers;
    let of_first = [spiffe("a"), subject("https://a.example", "s")];
    let first = StoredCaller { identities: of_first.clone().into(), ..caller("acme", "first") };
    callers.insert_caller(first).await.unwrap();
    callers.insert_caller(caller("globex", "second")).await.unwrap();
    callers.insert_api_key(key(1, &caller("globex", "second"), 10)).await.unwrap();
    let named = |tenant_name: &str, name: &str| Claim::Id(tenant(tenant_name), id(name));
    let free = [
        named("acme", "second"),
        named("globex", "first"),
        named("first", "acme"),
        Claim::Identity(spiffe("b")),
        Claim::Identity(subject("https://a.example", "t")),
        Claim::Identity(subject("https://b.example", "s")),
        Claim::Identity(subject("acme", "first")),
        Claim::Identity(Identity::ApiKey([1; 32])),
    ];
    let taken = [named("acme", "first"), named("globex", "second")];
    let taken = taken.into_iter().chain(of_first.map(Claim::Identity)).collect::<Vec<_>>();
    let told = callers.taken(&[&free[..], &taken[..]].concat()).await.unwrap();
    assert!(told.len() == taken.len() && taken.iter().all(|claim| told.contains(claim)), "{told:?}");
    for nothing in [&free[..], &[]] {
        assert_eq!(callers.taken(nothing).await.unwrap(), []);
    }
}

async fn pages_of_callers_follow_their_ids(stores: Stores) {
    let callers = stores.callers;
    for name in ["b", "a.b", "a", "a-b", "a_b", "c"] {
        callers.insert_caller(caller("acme", name)).await.unwrap();
    }
    callers.insert_caller(caller("globex", "a0")).await.unwrap();
    let page = async |after: Option<&str>, limit| {
        let after = after.map(id);
        let page = callers.list_callers(&tenant("acme"), after.as_ref(), limit).await.unwrap();
        page.into_iter().map(|caller| caller.id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(page(None, 10).await, ["a", "a-b", "a.b", "a_b", "b", "c"]);
    assert_eq!(page(None, 2).await, ["a", "a-b"]);
    assert_eq!(page(Some("a-b"), 2).await, ["a.b", "a_b"]);
    assert_eq!(page(Some("bb"), 2).await, ["c"]);
    assert!(page(Some("c"), 2).await.is_empty());
}

async fn a_key_leads_to_its_caller_whatever_has_become_of_it(stores: Stores) {
    let callers = stores.callers;
    let owner = caller("acme", "agents");
    let mut new = key(1, &owner, 10);
    new.key.expires_at = Some(at(20));
    assert_eq!(callers.insert_api_key(new.clone()).await.unwrap(), ApiKeyWrite::Unknown);
    callers.insert_caller(owner.clone()).await.unwrap();
    assert_eq!(callers.insert_api_key(new.clone()).await.unwrap(), ApiKeyWrite::Done);
    let found = callers.find_caller(&Identity::ApiKey([1; 32])).await.unwrap().unwrap();
    assert_eq!((found.caller, found.key), (owner.clone(), Some(new.key.clone())));
    assert!(new.key.is_good(at(19)) && !new.key.is_good(at(20)));
    let revoke = async |name: &str, n: u8, when| {
        let id = ApiKeyId::from_bytes([n; 16]);
        callers.revoke_api_key(&tenant("acme"), &CallerId::new(name).unwrap(), id, at(when)).await.unwrap()
    };
    assert_eq!(revoke("agents", 2, 12).await, None);
    assert_eq!(revoke("other", 1, 12).await, None);
    let revoked = revoke("agents", 1, 12).await.unwrap();
    assert_eq!(revoked.revoked_at, Some(at(12)));
    assert_eq!(revoke("agents", 1, 15).await.unwrap(), revoked, "once is once");
    assert!(!revoked.is_good(at(13)));
    let found = callers.find_caller(&Identity::ApiKey([1; 32])).await.unwrap().unwrap();
    assert_eq!(found.key, Some(revoked.clone()));
    let later = key(2, &owner, 30);
    callers.insert_api_key(later.clone()).await.unwrap();
    assert_eq!(callers.list_api_keys(&owner.tenant, &owner.id).await.unwrap(), [later.key, revoked]);
    assert!(callers.list_api_keys(&tenant("globex"), &owner.id).await.unwrap().is_empty());
}

async fn a_deleted_callers_keys_and_identities_are_gone(stores: Stores) {
    let callers = stores.callers;
    let owner = StoredCaller { identities: [spiffe("a")].into(), ..caller("acme", "agents") };
    callers.insert_caller(owner.clone()).await.unwrap();
    callers.insert_api_key(key(1, &owner, 1)).await.unwrap();
    assert!(!callers.delete_caller(&tenant("globex"), &owner.id).await.unwrap());
    assert!(callers.delete_caller(&owner.tenant, &owner.id).await.unwrap());
    assert!(!callers.delete_caller(&owner.tenant, &owner.id).await.unwrap());
    assert_eq!(callers.find_caller(&Identity::ApiKey([1; 32])).await.unwrap(), None);
    assert_eq!(callers.find_caller(&spiffe("a")).await.unwrap(), None);
    // A new one of the same name does not inherit.
    callers.insert_caller(caller("acme", "agents")).await.unwrap();
    assert!(callers.list_api_keys(&owner.tenant, &owner.id).await.unwrap().is_empty());
}

async fn a_rotated_key_ends_after_its_overlap(stores: Stores) {
    let callers = stores.callers;
    let owner = caller("acme", "agents");
    callers.insert_caller(owner.clone()).await.unwrap();
    callers.insert_api_key(key(1, &owner, 10)).await.unwrap();
    let (old, new) = (ApiKeyId::from_bytes([1; 16]), key(2, &owner, 20));
    let unknown = ApiKeyId::from_bytes([9; 16]);
    assert_eq!(callers.rotate_api_key(unknown, at(50), new.clone()).await.unwrap(), ApiKeyWrite::Unknown);
    assert_eq!(callers.find_caller(&Identity::ApiKey([2; 32])).await.unwrap(), None);
    assert_eq!(callers.rotate_api_key(old, at(50), new).await.unwrap(), ApiKeyWrite::Done);
    let ends = async |n: u8| {
        let found = callers.find_caller(&Identity::ApiKey([n; 32])).await.unwrap().unwrap();
        found.key.unwrap().expires_at
    };
    assert_eq!((ends(1).await, ends(2).await), (Some(at(50)), None));
    // An earlier end stays.
    assert_eq!(callers.rotate_api_key(old, at(90), key(3, &owner, 30)).await.unwrap(), ApiKeyWrite::Done);
    assert_eq!(ends(1).await, Some(at(50)));
    // One that has ended is not replaced.
    assert_eq!(callers.rotate_api_key(old, at(90), key(4, &owner, 50)).await.unwrap(), ApiKeyWrite::Unknown);
    callers.revoke_api_key(&owner.tenant, &owner.id, ApiKeyId::from_bytes([2; 16]), at(40)).await.unwrap();
    let revoked = ApiKeyId::from_bytes([2; 16]);
    assert_eq!(
        callers.rotate_api_key(revoked, at(90), key(5, &owner, 45)).await.unwrap(),
        ApiKeyWrite::Unknown
    );
    // Another caller's key is as unknown as none.
    let other = caller("acme", "other");
    callers.insert_caller(other.clone()).await.unwrap();
    let third = ApiKeyId::from_bytes([3; 16]);
    assert_eq!(
        callers.rotate_api_key(third, at(90), key(6, &other, 45)).await.unwrap(),
        ApiKeyWrite::Unknown
    );
    assert_eq!(ends(3).await, None);
}

async fn a_caller_has_so_many_good_keys_at_most(stores: Stores) {
    let callers = stores.callers;
    let owner = caller("acme", "agents");
    callers.insert_caller(owner.clone()).await.unwrap();
    let most = u8::try_from(MAX_API_KEYS).unwrap();
    for n in 1..=most {
        let mut new = key(n, &owner, 10);
        new.key.expires_at = (n == 1).then(|| at(20));
        assert_eq!(callers.insert_api_key(new).await.unwrap(), ApiKeyWrite::Done);
    }
    assert_eq!(callers.insert_api_key(key(100, &owner, 19)).await.unwrap(), ApiKeyWrite::TooMany);
    // Whoever has all can still replace one.
    let two = ApiKeyId::from_bytes([2; 16]);
    assert_eq!(callers.rotate_api_key(two, at(30), key(101, &owner, 19)).await.unwrap(), ApiKeyWrite::Done);
    assert_eq!(
        callers.rotate_api_key(two, at(30), key(102, &owner, 19)).await.unwrap(),
        ApiKeyWrite::TooMany
    );
    // One that has ended or was revoked does not count.
    callers.revoke_api_key(&owner.tenant, &owner.id, ApiKeyId::from_bytes([3; 16]), at(20)).await.unwrap();
    assert_eq!(callers.insert_api_key(key(103, &owner, 20)).await.unwrap(), ApiKeyWrite::Done);
    assert_eq!(callers.insert_api_key(key(104, &owner, 20)).await.unwrap(), ApiKeyWrite::TooMany);
}

async fn of_many_that_add_keys_at_one_time_none_goes_beyond_the_limit(stores: Stores) {
    let owner = caller("acme", "agents");
    stores.callers.insert_caller(owner.clone()).await.unwrap();
    let most = u8::try_from(MAX_API_KEYS).unwrap();
    let tasks: Vec<_> = (1..=most + 8)
        .map(|n| {
            let (callers, new) = (stores.callers.clone(), key(n, &owner, 10));
            tokio::spawn(async move { callers.insert_api_key(new).await.unwrap() })
        })
        .collect();
    let mut done = 0;
    for task in tasks {
        done += u32::from(task.await.unwrap() == ApiKeyWrite::Done);
    }
    assert_eq!(done, MAX_API_KEYS);
}

async fn the_last_use_is_written_once_an_hour(stores: Stores) {
    let callers = stores.callers;
    let owner = caller("acme", "agents");
    callers.insert_caller(owner.clone()).await.unwrap();
    callers.insert_api_key(key(1, &owner, 10)).await.unwrap();
    let id = ApiKeyId::from_bytes([1; 16]);
    for (now, noted) in [(100, 100), (101, 100), (3_699, 100), (3_700, 3_700), (50, 3_700)] {
        callers.mark_api_key_used(id, at(now)).await.unwrap();
        let keys = callers.list_api_keys(&owner.tenant, &owner.id).await.unwrap();
        assert_eq!(keys[0].last_used_at, Some(at(noted)), "at {now}");
    }
}
