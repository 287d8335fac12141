//! The contract of `DataKeyStore`.

use token_broker::domain::caller_store::{Tenant, TenantWrite};
use token_broker::domain::data_key::{DataKeyPurpose, WrappedDataKey};

use super::samples::{at, set, tenant};
use super::{Stores, contract};

contract!(
    the_first_key_of_a_tenant_and_purpose_is_kept,
    of_two_that_race_one_is_kept,
    keys_are_found_by_id_and_by_key_encryption_key,
    a_successor_takes_the_place_of_the_active_key,
    of_two_rotations_at_one_time_one_is_done,
    a_wrapping_is_replaced_where_it_is_as_it_was_read,
    only_a_key_that_was_superseded_long_enough_is_retired,
    keys_are_listed_by_id_and_asked_for_by_id,
    a_tenants_keys_for_encryption_end_with_it_and_nobody_elses,
);

fn data_key(n: u8, tenant_name: &str, purpose: DataKeyPurpose) -> WrappedDataKey {
    WrappedDataKey {
        id: [n; 16],
        tenant: tenant(tenant_name),
        purpose,
        kek_id: "k1".to_owned(),
        wrapped: vec![n; 61],
        created_at: at(i64::from(n)),
        superseded_at: None,
    }
}

async fn the_first_key_of_a_tenant_and_purpose_is_kept(stores: Stores) {
    let keys = stores.data_keys;
    let (acme, other) = (tenant("acme"), tenant("other"));
    assert_eq!(keys.newest_data_key(&acme, DataKeyPurpose::Encryption).await.unwrap(), None);
    let first = data_key(1, "acme", DataKeyPurpose::Encryption);
    assert_eq!(keys.newest_data_key_or_insert(first.clone()).await.unwrap().unwrap(), first);
    let second = data_key(2, "acme", DataKeyPurpose::Encryption);
    assert_eq!(keys.newest_data_key_or_insert(second).await.unwrap().unwrap(), first);
    assert_eq!(keys.data_key([2; 16]).await.unwrap(), None);
    // Another purpose and another tenant have keys of their own.
    let mac = data_key(3, "acme", DataKeyPurpose::Fingerprint);
    assert_eq!(keys.newest_data_key_or_insert(mac.clone()).await.unwrap().unwrap(), mac);
    let foreign = data_key(4, "other", DataKeyPurpose::Encryption);
    assert_eq!(keys.newest_data_key_or_insert(foreign.clone()).await.unwrap().unwrap(), foreign);
    assert_eq!(keys.newest_data_key(&acme, DataKeyPurpose::Encryption).await.unwrap(), Some(first));
    assert_eq!(keys.newest_data_key(&acme, DataKeyPurpose::Fingerprint).await.unwrap(), Some(mac));
    assert_eq!(keys.newest_data_key(&other, DataKeyPurpose::Encryption).await.unwrap(), Some(foreign));
    assert_eq!(keys.newest_data_key(&other, DataKeyPurpose::Fingerprint).await.unwrap(), None);
}

async fn of_two_that_race_one_is_kept(stores: Stores) {
    let tasks: Vec<_> = (1..=16)
        .map(|n| {
            let keys = stores.data_keys.clone();
            tokio::spawn(async move {
                keys.newest_data_key_or_insert(data_key(n, "acme", DataKeyPurpose::Encryption))
                    .await
                    .unwrap()
                    .unwrap()
                    .id
            })
        })
        .collect();
    let mut answers = set([]);
    for task in tasks {
        answers.insert(task.await.unwrap());
    }
    assert_eq!(answers.len(), 1, "every racer is told the same key: {answers:?}");
}

async fn keys_are_found_by_id_and_by_key_encryption_key(stores: Stores) {
    let keys = stores.data_keys;
    assert_eq!(keys.kek_ids_in_use().await.unwrap(), set([]));
    for (n, kek, tenant_name) in [(1, "old", "a"), (2, "old", "b"), (3, "new", "c"), (4, "old", "d")] {
        let mut key = data_key(n, tenant_name, DataKeyPurpose::Encryption);
        kek.clone_into(&mut key.kek_id);
        keys.newest_data_key_or_insert(key).await.unwrap();
    }
    assert_eq!(keys.kek_ids_in_use().await.unwrap(), set(["old".to_owned(), "new".to_owned()]));
    assert_eq!(keys.data_key([3; 16]).await.unwrap().unwrap().kek_id, "new");
    assert_eq!(keys.data_key([9; 16]).await.unwrap(), None);
    let under = async |kek, limit| {
        let found = keys.data_keys_under(kek, limit).await.unwrap();
        found.iter().map(|key| key.id[0]).collect::<Vec<_>>()
    };
    assert_eq!(under("old", 9).await, [4, 2, 1], "the newest first");
    assert_eq!(under("old", 2).await, [4, 2]);
    assert_eq!(under("new", 9).await, [3]);
    assert!(under("none", 9).await.is_empty());
}

const ENCRYPTION: DataKeyPurpose = DataKeyPurpose::Encryption;

async fn a_successor_takes_the_place_of_the_active_key(stores: Stores) {
    let keys = stores.data_keys;
    let acme = tenant("acme");
    let first = data_key(5, "acme", ENCRYPTION);
    let mac = data_key(6, "acme", DataKeyPurpose::Fingerprint);
    let foreign = data_key(7, "other", ENCRYPTION);
    for key in [&first, &mac, &foreign] {
        keys.newest_data_key_or_insert(key.clone()).await.unwrap();
    }
    // Made earlier, by a clock that was set back: it is the active one all the same, and later than the first.
    let second = data_key(3, "acme", ENCRYPTION);
    assert!(keys.supersede_data_key(first.id, second.clone()).await.unwrap());
    let active = keys.newest_data_key(&acme, ENCRYPTION).await.unwrap().unwrap();
    assert_eq!((active.id, active.superseded_at), (second.id, None));
    assert!(active.created_at > first.created_at, "a replica that goes by the time takes it, too");
    let former = keys.data_key(first.id).await.unwrap().unwrap();
    assert_eq!(former.superseded_at, Some(first.created_at), "not before it was made");
    // What is superseded is so for good, and the candidate of a late first user is not taken.
    assert!(!keys.supersede_data_key(first.id, data_key(8, "acme", ENCRYPTION)).await.unwrap());
    assert_eq!(keys.data_key([8; 16]).await.unwrap(), None);
    assert_eq!(
        keys.newest_data_key_or_insert(data_key(9, "acme", ENCRYPTION)).await.unwrap().unwrap().id,
        second.id
    );
    // Not another purpose's or tenant's.
    assert!(!keys.supersede_data_key(foreign.id, data_key(8, "acme", ENCRYPTION)).await.unwrap());
    assert_eq!(keys.newest_data_key(&acme, DataKeyPurpose::Fingerprint).await.unwrap(), Some(mac));
    assert_eq!(keys.newest_data_key(&tenant("other"), ENCRYPTION).await.unwrap(), Some(foreign));
}

async fn of_two_rotations_at_one_time_one_is_done(stores: Stores) {
    let first = data_key(1, "acme", ENCRYPTION);
    stores.data_keys.newest_data_key_or_insert(first.clone()).await.unwrap();
    let tasks: Vec<_> = (2..=9)
        .map(|n| {
            let (keys, over) = (stores.data_keys.clone(), first.id);
            tokio::spawn(async move {
                keys.supersede_data_key(over, data_key(n, "acme", ENCRYPTION)).await.unwrap()
            })
        })
        .collect();
    let mut won = 0;
    for task in tasks {
        won += u32::from(task.await.unwrap());
    }
    assert_eq!((won, stores.data_keys.data_keys(None, None, 99).await.unwrap().len()), (1, 2));
}

async fn a_wrapping_is_replaced_where_it_is_as_it_was_read(stores: Stores) {
    let keys = stores.data_keys;
    let was = data_key(1, "acme", ENCRYPTION);
    keys.newest_data_key_or_insert(was.clone()).await.unwrap();
    let is = WrappedDataKey { kek_id: "k2".to_owned(), wrapped: vec![7; 80], ..was.clone() };
    assert!(keys.rewrap_data_key(&was, &is).await.unwrap());
    assert_eq!(keys.data_key(was.id).await.unwrap(), Some(is.clone()));
    let late = WrappedDataKey { kek_id: "k3".to_owned(), ..was.clone() };
    assert!(!keys.rewrap_data_key(&was, &late).await.unwrap(), "another replica was first");
    let other_bytes = WrappedDataKey { wrapped: vec![8; 80], ..is.clone() };
    assert!(!keys.rewrap_data_key(&other_bytes, &late).await.unwrap());
    assert_eq!(keys.data_key(was.id).await.unwrap(), Some(is));
}

async fn only_a_key_that_was_superseded_long_enough_is_retired(stores: Stores) {
    let keys = stores.data_keys;
    let (first, second) = (data_key(1, "acme", ENCRYPTION), data_key(2, "acme", ENCRYPTION));
    keys.newest_data_key_or_insert(first.clone()).await.unwrap();
    assert!(!keys.retire_data_key(first.id, at(99)).await.unwrap(), "the active one");
    assert!(keys.supersede_data_key(first.id, second.clone()).await.unwrap());
    assert!(!keys.retire_data_key(first.id, at(2)).await.unwrap(), "superseded just then");
    assert!(!keys.retire_data_key(second.id, at(99)).await.unwrap(), "the active one");
    assert!(keys.retire_data_key(first.id, at(3)).await.unwrap());
    assert_eq!(keys.data_key(first.id).await.unwrap(), None);
    assert!(!keys.retire_data_key(first.id, at(3)).await.unwrap(), "gone");
}

async fn keys_are_listed_by_id_and_asked_for_by_id(stores: Stores) {
    let keys = stores.data_keys;
    for n in [3, 1, 2] {
        keys.newest_data_key_or_insert(data_key(n, &format!("t{n}"), ENCRYPTION)).await.unwrap();
    }
    assert!(keys.supersede_data_key([2; 16], data_key(4, "t2", ENCRYPTION)).await.unwrap());
    let list = async |after: Option<u8>, limit| {
        let found = keys.data_keys(None, after.map(|n| [n; 16]), limit).await.unwrap();
        found.iter().map(|key| key.id[0]).collect::<Vec<_>>()
    };
    assert_eq!(list(None, 9).await, [1, 2, 3, 4]);
    assert_eq!(list(None, 2).await, [1, 2]);
    assert_eq!(list(Some(2), 9).await, [3, 4]);
    assert!(list(Some(4), 9).await.is_empty());
    let mut states = keys.data_key_states(&[[9; 16], [2; 16], [3; 16]]).await.unwrap();
    states.sort_unstable();
    assert_eq!(states, [([2; 16], Some(at(4))), ([3; 16], None)]);
    assert!(keys.data_key_states(&[]).await.unwrap().is_empty());
}

async fn a_tenants_keys_for_encryption_end_with_it_and_nobody_elses(stores: Stores) {
    let keys = stores.data_keys;
    for key in [
        data_key(1, "acme", ENCRYPTION),
        data_key(3, "acme", DataKeyPurpose::Fingerprint),
        data_key(4, "acm", ENCRYPTION),
    ] {
        keys.newest_data_key_or_insert(key).await.unwrap();
    }
    assert!(keys.supersede_data_key([1; 16], data_key(2, "acme", ENCRYPTION)).await.unwrap());
    let acme = Tenant {
        id: tenant("acme"),
        display_name: String::new(),
        created_at: at(1),
        disabled_at: None,
        deleted_at: None,
    };
    assert_eq!(stores.tenants.insert_tenant(acme.clone()).await.unwrap(), TenantWrite::Done);
    let disabled = Tenant { disabled_at: Some(at(2)), ..acme.clone() };
    assert_eq!(stores.tenants.update_tenant(disabled).await.unwrap(), TenantWrite::Done);
    let ids = async |of: &str| {
        let found = keys.data_keys(Some(&tenant(of)), None, 9).await.unwrap();
        found.iter().map(|key| key.id[0]).collect::<Vec<_>>()
    };
    assert_eq!(ids("acme").await, [1, 2, 3], "one that is disabled keeps them");
    let deleted = Tenant { deleted_at: Some(at(3)), ..acme };
    assert_eq!(stores.tenants.update_tenant(deleted).await.unwrap(), TenantWrite::Done);
    assert_eq!((ids("acme").await, ids("acm").await), (vec![3], vec![4]));
    // Nobody makes one again, and whoever was about to replace one is too late.
    assert_eq!(keys.newest_data_key_or_insert(data_key(5, "acme", ENCRYPTION)).await.unwrap(), None);
    assert!(!keys.supersede_data_key([2; 16], data_key(6, "acme", ENCRYPTION)).await.unwrap());
    assert_eq!(ids("acme").await, [3]);
    let fingerprints = data_key(7, "acme", DataKeyPurpose::Fingerprint);
    let kept = keys.newest_data_key_or_insert(fingerprints).await.unwrap();
    assert_eq!(kept.unwrap().id, [3; 16], "the audit log is sealed with it");
}
