//! The contract of `DataKeyStore`.

use token_broker::domain::ports::{DataKeyPurpose, WrappedDataKey};

use super::samples::{at, set, tenant};
use super::{Stores, contract};

contract!(
    the_first_key_of_a_tenant_and_purpose_is_kept,
    of_two_that_race_one_is_kept,
    keys_are_found_by_id_and_by_key_encryption_key,
);

fn data_key(n: u8, tenant_name: &str, purpose: DataKeyPurpose) -> WrappedDataKey {
    WrappedDataKey {
        id: [n; 16],
        tenant: tenant(tenant_name),
        purpose,
        kek_id: "k1".to_owned(),
        wrapped: vec![n; 61],
        created_at: at(i64::from(n)),
    }
}

async fn the_first_key_of_a_tenant_and_purpose_is_kept(stores: Stores) {
    let keys = stores.data_keys;
    let (acme, other) = (tenant("acme"), tenant("other"));
    assert_eq!(keys.newest_data_key(&acme, DataKeyPurpose::Encryption).await.unwrap(), None);
    let first = data_key(1, "acme", DataKeyPurpose::Encryption);
    assert_eq!(keys.newest_data_key_or_insert(first.clone()).await.unwrap(), first);
    let second = data_key(2, "acme", DataKeyPurpose::Encryption);
    assert_eq!(keys.newest_data_key_or_insert(second).await.unwrap(), first);
    assert_eq!(keys.data_key([2; 16]).await.unwrap(), None);
    // Another purpose and another tenant have keys of their own.
    let mac = data_key(3, "acme", DataKeyPurpose::Fingerprint);
    assert_eq!(keys.newest_data_key_or_insert(mac.clone()).await.unwrap(), mac);
    let foreign = data_key(4, "other", DataKeyPurpose::Encryption);
    assert_eq!(keys.newest_data_key_or_insert(foreign.clone()).await.unwrap(), foreign);
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
