//! What can only be seen from inside. The contract is in `tests/it/contract`, faults in `tests/it/storage_faults.rs`.

use jiff::Timestamp;
use sqlx::Executor as _;

use super::SqliteStore;
use crate::domain::credential::{Claim, Credential, Fingerprint, Sealed, StoredRefreshToken, StoredTokens};
use crate::domain::key::{
    Account, ClaimOwner, CredentialId, CredentialKey, GrantId, GrantName, ProviderId, TenantId, UserId,
};
use crate::domain::ports::{
    ClaimRequest, CredentialStore as _, GrantCondition, LineageWrite, NewGrant, StoreError, StoreHealth as _,
    StoredGrant,
};
use crate::domain::scope::ScopeSet;
use crate::domain::token_set::AccessLife;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn grant(user: &str, access_bytes: usize) -> NewGrant {
    let mut id = [0; 16];
    id[..user.len()].copy_from_slice(user.as_bytes());
    NewGrant {
        id_if_new: CredentialId::from_bytes(id),
        key: CredentialKey {
            tenant: TenantId::new("acme").unwrap(),
            provider: ProviderId::new("google").unwrap(),
            user: UserId::new(user).unwrap(),
            grant: GrantName::new("mail").unwrap(),
            account: Account::default(),
        },
        grant_id: GrantId::from_bytes(id),
        configuration: None,
        user_key: None,
        tokens: StoredTokens {
            access_sealed: Sealed(vec![7; access_bytes]),
            access_life: AccessLife { obtained_at: NOW, expires_at: None },
            token_type: "Bearer".to_owned(),
            refresh: Some(StoredRefreshToken {
                sealed: Sealed(vec![7; 16]),
                fingerprint: Fingerprint([1; 32]),
                parent_fingerprint: None,
                epoch: 0,
            }),
            profile_sealed: Sealed(vec![7; 16]),
            scopes: ScopeSet::default(),
            scopes_assumed: false,
            next_refresh_at: None,
        },
        condition: GrantCondition::Overwrite,
        now: NOW,
    }
}

async fn stored(store: &SqliteStore, grant: NewGrant) -> Credential {
    match store.store_grant(grant).await.unwrap() {
        StoredGrant::Stored(row) => *row,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn writes_are_flushed_and_readers_can_not_write() {
    let home = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&home.path().join("broker.db")).await.unwrap();
    for (pragma, expected) in [
        ("SELECT journal_mode = 'wal' FROM pragma_journal_mode", true),
        ("SELECT synchronous = 2 FROM pragma_synchronous", true),
        ("SELECT foreign_keys = 1 FROM pragma_foreign_keys", true),
        ("SELECT secure_delete = 1 FROM pragma_secure_delete", true),
        ("SELECT timeout = 5000 FROM pragma_busy_timeout", true),
    ] {
        let actual: bool = sqlx::query_scalar(pragma).fetch_one(&store.inner.writer).await.unwrap();
        assert_eq!(actual, expected, "{pragma}");
    }
    let error = store.inner.readers.execute("DELETE FROM credentials").await.unwrap_err();
    assert!(error.to_string().contains("readonly"), "{error}");
}

#[tokio::test]
async fn a_full_disk_is_not_acknowledged_and_changes_nothing() {
    let home = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&home.path().join("broker.db")).await.unwrap();
    let row = stored(&store, grant("alice", 16)).await;
    // SQLite can't go below the pages in use, and so stops there.
    store.inner.writer.execute("PRAGMA max_page_count = 1").await.unwrap();
    // A transaction.
    let error = store.store_grant(grant("bob", 100_000)).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    assert_eq!(store.load(&grant("bob", 0).key).await.unwrap(), None);
    // The single statement that stores a refresh.
    let claim = Claim { owner: ClaimOwner::from_bytes([9; 16]), deadline: NOW, settle_at: NOW };
    let fingerprint = Fingerprint([1; 32]);
    let (id, generation, epoch) = (row.id, row.generation, row.epoch);
    let request = ClaimRequest { id, fingerprint, generation, epoch, claim, now: NOW };
    let epoch = store.claim_for_refresh(request).await.unwrap().unwrap();
    let write = LineageWrite {
        id,
        grant_id: row.grant_id,
        epoch,
        parent_fingerprint: fingerprint,
        tokens: grant("alice", 100_000).tokens,
        now: NOW,
    };
    let error = store.persist_lineage(write.clone()).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    let after = store.load_by_id(id).await.unwrap().unwrap();
    assert_eq!((after.generation, after.epoch), (generation, epoch));
    // Reads go on, and with room again so does the write.
    store.ping().await.unwrap();
    store.inner.writer.execute("PRAGMA max_page_count = 1000").await.unwrap();
    store.persist_lineage(write).await.unwrap();
    assert_eq!(store.load_by_id(id).await.unwrap().unwrap().generation, generation + 1);
}

#[tokio::test]
async fn a_transaction_that_is_dropped_is_rolled_back() {
    let home = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&home.path().join("broker.db")).await.unwrap();
    let row = stored(&store, grant("alice", 16)).await;
    let mut transaction = store.begin().await.unwrap();
    transaction.execute("UPDATE credentials SET epoch = 99").await.unwrap();
    drop(transaction);
    // The one writing connection comes back, and comes back clean.
    stored(&store, grant("bob", 16)).await;
    assert_eq!(store.load(&row.key).await.unwrap(), Some(row));
}

/// The statements that run often must not read more rows as the tables grow.
#[tokio::test]
async fn frequent_statements_use_an_index() {
    let home = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&home.path().join("broker.db")).await.unwrap();
    for sql in super::frequent_statements() {
        let explain = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
        let plan: Vec<(i64, i64, i64, String)> =
            sqlx::query_as(explain).fetch_all(&store.inner.readers).await.unwrap();
        for (_, _, _, step) in &plan {
            // An index of the few rows that are being refreshed may be read as a whole, and so may the one row of last
            // numbers.
            let small = ["VIRTUAL TABLE", "CONSTANT ROW", "credentials_to_settle", "sqlite_sequence"]
                .iter()
                .any(|s| step.contains(s));
            let whole_table = step.starts_with("SCAN") && !small;
            assert!(!whole_table && !step.contains("TEMP B-TREE"), "{sql}\n{plan:#?}");
        }
    }
}
