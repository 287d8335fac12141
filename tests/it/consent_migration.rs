//! The migration that brought the proof of consent, over rows of the version before it, and what that version may still do.

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _};

use crate::engines;

/// Flows of the version before: pending, being exchanged, completed, failed.
fn old_rows(blob: impl Fn(u8, usize) -> String) -> String {
    let row = |n: u8, status: &str, failure: &str, began: &str, ended: &str| {
        format!(
            "({}, 'acme', 'google', 'alice', 'mail', 'default', 'agent', '[]', '[]', {}, {}, {}, '{{}}', \
             'https://b.example', '{status}', {failure}, {n}, 1000, {began}, {ended})",
            blob(n, 16),
            blob(n, 16),
            blob(n, 32),
            blob(n, 1)
        )
    };
    let rows = [
        row(1, "pending", "NULL", "NULL", "NULL"),
        row(2, "exchanging", "NULL", "20", "NULL"),
        row(3, "completed", "NULL", "30", "31"),
        row(4, "failed", "'provider_error'", "40", "41"),
    ];
    format!(
        "INSERT INTO flows (id, tenant, provider, user_id, grant_name, account, caller, services, scopes, grant_id, state_hash,
            secrets_sealed, endpoints, redirect_uri, status, failure, created_at, expires_at, exchange_began_at, ended_at)
        VALUES {}",
        rows.join(", ")
    )
}

const ROWS: &str = "SELECT status, failure, ended_at, binding FROM flows ORDER BY created_at";
/// What the version before does when a browser comes back.
const CONSUME: &str =
    "UPDATE flows SET status = 'exchanging', exchange_began_at = 5 WHERE status = 'pending'";

type Row = (String, Option<String>, Option<i64>, String);

fn row(status: &str, failure: Option<&str>, ended_at: Option<i64>) -> Row {
    (status.to_owned(), failure.map(str::to_owned), ended_at, "app".to_owned())
}

#[tokio::test]
async fn sqlite_keeps_old_consents_and_exchanges_none_without_proof() {
    let home = tempfile::tempdir().unwrap();
    let options = SqliteConnectOptions::new().filename(home.path().join("broker.db")).create_if_missing(true);
    let mut connection = options.connect().await.unwrap();
    connection.execute(include_str!("../../migrations/sqlite/0001_initial.sql")).await.unwrap();
    connection.execute(include_str!("../../migrations/sqlite/0002_refresh_ahead.sql")).await.unwrap();
    connection.execute(include_str!("../../migrations/sqlite/0003_events.sql")).await.unwrap();
    let blob = |n: u8, length: usize| format!("x'{}'", hex::encode(vec![n; length]));
    connection.execute(AssertSqlSafe(old_rows(blob))).await.unwrap();
    connection.execute(include_str!("../../migrations/sqlite/0004_consent_proof.sql")).await.unwrap();
    let rows: Vec<Row> = sqlx::query_as(ROWS).fetch_all(&mut connection).await.unwrap();
    // One process at a time: what was being exchanged ended with it.
    let interrupted = row("failed", Some("interrupted"), Some(20));
    let failed = row("failed", Some("provider_error"), Some(41));
    assert_eq!(rows, [row("pending", None, None), interrupted, row("completed", None, Some(31)), failed]);
    let refused = connection.execute(CONSUME).await.unwrap_err().to_string();
    assert!(refused.contains("CHECK constraint failed"), "{refused}");
    connection.close().await.unwrap();
}

#[tokio::test]
async fn postgres_keeps_old_consents_and_exchanges_none_without_proof() {
    let server = engines::postgres::shared();
    let database = server.create_database("template1").await;
    let mut connection = server.backdoor(&database).await;
    connection.execute(include_str!("../../migrations/postgres/0001_initial.sql")).await.unwrap();
    connection.execute(include_str!("../../migrations/postgres/0002_events.sql")).await.unwrap();
    let blob = |n: u8, length: usize| format!("'\\x{}'", hex::encode(vec![n; length]));
    connection.execute(AssertSqlSafe(old_rows(blob))).await.unwrap();
    connection.execute(include_str!("../../migrations/postgres/0004_consent_proof.sql")).await.unwrap();
    // A replica of the version before may be exchanging just now, and ends that.
    connection
        .execute("UPDATE flows SET status = 'completed', ended_at = 21 WHERE status = 'exchanging'")
        .await
        .unwrap();
    let rows: Vec<Row> = sqlx::query_as(ROWS).fetch_all(&mut connection).await.unwrap();
    let completed = row("completed", None, Some(21));
    let failed = row("failed", Some("provider_error"), Some(41));
    assert_eq!(rows, [row("pending", None, None), completed, row("completed", None, Some(31)), failed]);
    // But it begins no exchange any more: it would ask for no proof.
    let refused = connection.execute(CONSUME).await.unwrap_err().to_string();
    assert!(refused.contains("flows_proved"), "{refused}");
    connection.close().await.unwrap();
}
