//! The migration that brought users' keys: the work of moving rows goes on where it was, and is asked for once more.

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _};

use crate::engines;

/// A data key, and a pass that stands in the middle of a table.
fn old_rows(blob: impl Fn(u8) -> String) -> String {
    format!(
        "INSERT INTO data_keys (id, tenant, purpose, kek_id, wrapped, created_at)
         VALUES ({one}, 'acme', 'encryption', 'k1', {one}, 1);
         UPDATE reencryption SET worker = {one}, lease_until = 5, requested_at = 2, pass = 3, began_at = 4, place = 'flows',
             after = {one}, expected = 6, looked_at = 7, renewed = 8, skipped = 9, unreadable = 10, ended_at = 11;
         INSERT INTO data_key_rows (pass, data_key, place, row_count) VALUES (3, {one}, 'credentials', 12);",
        one = blob(1)
    )
}

const STATE: &str =
    "SELECT lease_until, pass, began_at, place, expected, looked_at, renewed, skipped, unreadable, ended_at
    FROM reencryption";
type State = (i64, i64, i64, String, i64, i64, i64, i64, i64, i64);

fn state() -> State {
    (5, 3, 4, "flows".to_owned(), 6, 7, 8, 9, 10, 11)
}

const COUNTED: &str = "SELECT place, row_count FROM data_key_rows";
const REQUESTED: &str = "SELECT requested_at FROM reencryption";
/// What this version's pass does, and could not do before.
const NEXT: &str = "UPDATE reencryption SET place = 'user_keys'";
/// 2026-01-01, in microseconds.
const LATELY: i64 = 1_767_225_600_000_000;

#[tokio::test]
async fn sqlite_asks_for_a_pass_and_keeps_the_state_of_the_last_one() {
    let home = tempfile::tempdir().unwrap();
    let options = SqliteConnectOptions::new().filename(home.path().join("broker.db")).create_if_missing(true);
    let mut connection = options.connect().await.unwrap();
    connection.execute(include_str!("../../migrations/sqlite/0001_initial.sql")).await.unwrap();
    connection.execute(include_str!("../../migrations/sqlite/0006_key_rotation.sql")).await.unwrap();
    let blob = |n: u8| format!("x'{}'", hex::encode([n; 16]));
    connection.execute(AssertSqlSafe(old_rows(blob))).await.unwrap();
    connection.execute(NEXT).await.unwrap_err();
    connection.execute(include_str!("../../migrations/sqlite/0010_user_keys.sql")).await.unwrap();
    let found: State = sqlx::query_as(STATE).fetch_one(&mut connection).await.unwrap();
    assert_eq!(found, state());
    let counted: Vec<(String, i64)> = sqlx::query_as(COUNTED).fetch_all(&mut connection).await.unwrap();
    assert_eq!(counted, [("credentials".to_owned(), 12)]);
    let requested: i64 = sqlx::query_scalar(REQUESTED).fetch_one(&mut connection).await.unwrap();
    assert!(requested > LATELY, "{requested}");
    connection.execute(NEXT).await.unwrap();
    connection.close().await.unwrap();
}

#[tokio::test]
async fn postgres_asks_for_a_pass_keeps_the_state_and_shuts_the_version_before_out() {
    let server = engines::postgres::shared();
    let database = server.create_database("template1").await;
    let mut connection = server.backdoor(&database).await;
    connection.execute(include_str!("../../migrations/postgres/0001_initial.sql")).await.unwrap();
    connection.execute(include_str!("../../migrations/postgres/0006_key_rotation.sql")).await.unwrap();
    let blob = |n: u8| format!("'\\x{}'", hex::encode([n; 16]));
    connection.execute(AssertSqlSafe(old_rows(blob))).await.unwrap();
    connection.execute(NEXT).await.unwrap_err();
    connection.execute(include_str!("../../migrations/postgres/0010_user_keys.sql")).await.unwrap();
    let found: State = sqlx::query_as(STATE).fetch_one(&mut connection).await.unwrap();
    assert_eq!(found, state());
    let counted: Vec<(String, i64)> = sqlx::query_as(COUNTED).fetch_all(&mut connection).await.unwrap();
    assert_eq!(counted, [("credentials".to_owned(), 12)]);
    let requested: i64 = sqlx::query_scalar(REQUESTED).fetch_one(&mut connection).await.unwrap();
    assert!(requested > LATELY, "{requested}");
    connection.execute(NEXT).await.unwrap();
    let oldest: i64 = sqlx::query_scalar("SELECT oldest_version FROM broker_schema")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(oldest, 10);
    connection.close().await.unwrap();
}

#[tokio::test]
async fn an_empty_database_has_nothing_to_seal_anew() {
    let sqlite = crate::contract::sqlite().await;
    let postgres = crate::contract::postgres().await;
    for stores in [sqlite, postgres] {
        assert_eq!(stores.reencryption.reencryption().await.unwrap().requested_at, None);
    }
}
