//! Rows and pages of the `SQLite` file that something else has written to: told as damage, never a panic, never "not there".

use sqlx::Executor as _;
use token_broker::domain::data_key::DataKeyStore as _;
use token_broker::domain::ports::{
    CredentialStore as _, FlowStore as _, ListQuery, OutboxStore as _, StoreError,
};
use token_broker::infra::storage::sqlite::{OpenError, SqliteStore};

use crate::contract::samples::{
    BROWSER, at, credential_id, key, new_grant, outbox_id, provider, scopes, state, tenant,
};
use crate::storage_faults::{backdoor, filled, open, place, tamper};

fn corrupt<T: std::fmt::Debug>(result: &Result<T, StoreError>, damage: &str) {
    assert!(matches!(result, Err(StoreError::Corrupt(_))), "{damage}: {result:?}");
}

#[tokio::test]
async fn a_damaged_credential_is_said_to_be_damaged() {
    for damage in [
        "UPDATE credentials SET status = 'sleeping'",
        "UPDATE credentials SET id = x'00'",
        "UPDATE credentials SET grant_id = x'0011223344556677889900112233445566'",
        "UPDATE credentials SET created_at = 9223372036854775807",
        "UPDATE credentials SET access_sealed = NULL",
        "UPDATE credentials SET token_type = NULL",
        "UPDATE credentials SET profile_sealed = NULL",
        "UPDATE credentials SET access_obtained_at = NULL",
        "UPDATE credentials SET scopes = NULL",
        "UPDATE credentials SET scopes = 'mail.read'",
        "UPDATE credentials SET scopes = '{}'",
        "UPDATE credentials SET scopes = '[1]'",
        "UPDATE credentials SET scopes = '[\"a b\"]'",
        "UPDATE credentials SET rt_fingerprint = x'00'",
        "UPDATE credentials SET rt_fingerprint = NULL",
        "UPDATE credentials SET rt_parent_fingerprint = x'00'",
        "UPDATE credentials SET status = 'refreshing'",
        "UPDATE credentials SET status = 'refreshing', claim_owner = x'00', claim_deadline = 0, settle_at = 0",
        "UPDATE credentials SET status = 'needs_reauth'",
        "UPDATE credentials SET status = 'needs_reauth', reauth_reason = 'mood'",
        "UPDATE credentials SET not_before = 1",
        "UPDATE credentials SET not_before = 1, failures = 1, last_error = 'mood'",
        "UPDATE credentials SET not_before = 1, failures = -1, last_error = 'rate_limited'",
    ] {
        let (_home, path) = place();
        filled(&path).await;
        tamper(&path, damage).await;
        let store = open(&path).await;
        corrupt(&store.load(&key("alice")).await, damage);
        let query = ListQuery {
            tenant: tenant("acme"),
            user: None,
            among: None,
            providers: None,
            covering: scopes(&[]),
            after: None,
            limit: 9,
        };
        corrupt(&store.list(query).await, damage);
        // It harms no other row.
        store.store_grant(new_grant(key("bob"), 2)).await.unwrap();
        assert!(store.load(&key("bob")).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn a_list_that_is_no_json_is_damage_to_the_filter_too() {
    let (_home, path) = place();
    filled(&path).await;
    tamper(&path, "UPDATE credentials SET scopes = 'mail.read'").await;
    let store = open(&path).await;
    let query = ListQuery {
        tenant: tenant("acme"),
        user: None,
        among: None,
        providers: None,
        covering: scopes(&["mail.read"]),
        after: None,
        limit: 9,
    };
    corrupt(&store.list(query).await, "filter");
}

#[tokio::test]
async fn a_damaged_key_part_is_said_to_be_damaged() {
    for damage in [
        "UPDATE credentials SET tenant = 'A C M E'",
        "UPDATE credentials SET provider = ''",
        "UPDATE credentials SET user_id = ' '",
        "UPDATE credentials SET grant_name = '/'",
        "UPDATE credentials SET account = x'0a' || ''",
    ] {
        let (_home, path) = place();
        filled(&path).await;
        tamper(&path, damage).await;
        corrupt(&open(&path).await.load_by_id(credential_id(1)).await, damage);
    }
}

#[tokio::test]
async fn a_damaged_flow_is_said_to_be_damaged() {
    for damage in [
        "UPDATE flows SET status = 'sleeping'",
        "UPDATE flows SET failure = 'interrupted'",
        "UPDATE flows SET status = 'failed', failure = 'mood', ended_at = 0",
        "UPDATE flows SET caller = ''",
        "UPDATE flows SET services = '[\"a b\"]'",
        "UPDATE flows SET scopes = 'x'",
        "UPDATE flows SET grant_id = x'00'",
        "UPDATE flows SET endpoints = '{}'",
        "UPDATE flows SET redirect_uri = 'nowhere'",
        "UPDATE flows SET return_url = 'nowhere'",
        "UPDATE flows SET binding = 'trust'",
        "UPDATE flows SET link_hash = x'00'",
        "UPDATE flows SET browser_hash = x'00'",
        "UPDATE flows SET expires_at = -9223372036854775808",
    ] {
        let (_home, path) = place();
        filled(&path).await;
        tamper(&path, damage).await;
        corrupt(&open(&path).await.latest_flow(&key("alice")).await, damage);
    }
    let (_home, path) = place();
    filled(&path).await;
    tamper(&path, "UPDATE flows SET status = 'sleeping'").await;
    corrupt(&open(&path).await.consume_flow(state(1), &provider("google"), BROWSER, at(1)).await, "status");
}

#[tokio::test]
async fn a_damaged_revocation_or_data_key_is_said_to_be_damaged() {
    for damage in [
        "UPDATE revocations SET grant_id = x'00'",
        "UPDATE revocations SET access_sealed = NULL",
        "UPDATE revocations SET attempts = -7",
        "UPDATE revocations SET user_id = ''",
    ] {
        let (_home, path) = place();
        filled(&path).await;
        tamper(&path, damage).await;
        corrupt(&open(&path).await.take_revocation(outbox_id(1), at(0), at(9)).await, damage);
    }
    let (_home, path) = place();
    filled(&path).await;
    tamper(&path, "UPDATE revocations SET id = x'00'").await;
    corrupt(&open(&path).await.due_revocations(at(0), 9).await, "id");
    for damage in [
        "INSERT INTO data_keys (id, tenant, purpose, kek_id, wrapped, created_at) VALUES (x'00', 'acme', 'encryption', 'k', x'00', 0)",
        "INSERT INTO data_keys (id, tenant, purpose, kek_id, wrapped, created_at) VALUES (zeroblob(16), 'acme', 'fun', 'k', x'00', 0)",
        "INSERT INTO data_keys (id, tenant, purpose, kek_id, wrapped, created_at) VALUES (zeroblob(16), '', 'encryption', 'k', x'00', 0)",
    ] {
        let (_home, path) = place();
        filled(&path).await;
        tamper(&path, damage).await;
        corrupt(&open(&path).await.data_keys_under("k", 9).await, damage);
    }
}

#[tokio::test]
async fn damaged_pages_are_not_a_reason_to_try_again() {
    let (_home, path) = place();
    filled(&path).await;
    let mut bytes = std::fs::read(&path).unwrap();
    // All pages but the first, which holds the schema.
    bytes[4096..].fill(0xff);
    std::fs::write(&path, &bytes).unwrap();
    // What exactly is noticed first is SQLite's; that it is called damage is ours.
    match SqliteStore::open(&path).await {
        Err(error) => assert!(matches!(error, OpenError::Damaged { .. }), "{error:?}"),
        Ok(store) => corrupt(&store.load(&key("alice")).await, "pages"),
    }
}

#[tokio::test]
async fn the_checks_of_the_tables_refuse_impossible_rows() {
    let (_home, path) = place();
    filled(&path).await;
    let mut connection = backdoor(&path).await;
    for impossible in [
        "UPDATE credentials SET status = 'revoked'",
        "UPDATE credentials SET status = 'refreshing'",
        "UPDATE credentials SET claim_owner = zeroblob(16)",
        "UPDATE credentials SET access_sealed = NULL",
        "UPDATE credentials SET rt_sealed = NULL",
        "UPDATE credentials SET reauth_reason = 'refresh_token_rejected'",
        "UPDATE credentials SET epoch = 0",
        "UPDATE credentials SET generation = 'one'",
        "UPDATE flows SET ended_at = 1",
        "UPDATE flows SET status = 'failed', ended_at = 1",
        "UPDATE revocations SET outcome = 'revoked'",
        "UPDATE revocations SET finished_at = 1, outcome = 'revoked'",
    ] {
        connection.execute(impossible).await.expect_err(impossible);
    }
}
