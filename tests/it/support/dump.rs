//! What a database holds, as text.

use std::path::Path;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};

/// Every row of every table, ciphertexts included, in a fixed order. Reads beside the process that has it open.
pub(crate) async fn rows(database: &Path) -> String {
    let mut connection =
        SqliteConnectOptions::new().filename(database).read_only(true).connect().await.unwrap();
    let tables: Vec<String> =
        sqlx::query_scalar("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
            .fetch_all(&mut connection)
            .await
            .unwrap();
    let mut dump = Vec::new();
    for table in tables {
        let rows = table_rows(&mut connection, &table).await;
        dump.push(format!("{table}: {}", rows.join("\n  ")));
    }
    connection.close().await.unwrap();
    dump.join("\n")
}

async fn table_rows(connection: &mut SqliteConnection, table: &str) -> Vec<String> {
    let columns: Vec<String> = sqlx::query_scalar("SELECT name FROM pragma_table_info(?1) ORDER BY cid")
        .bind(table)
        .fetch_all(&mut *connection)
        .await
        .unwrap();
    let row =
        columns.iter().map(|column| format!("quote(\"{column}\")")).collect::<Vec<_>>().join(" || ' ' || ");
    let query = format!("SELECT {row} AS row FROM \"{table}\" ORDER BY row");
    sqlx::query_scalar(AssertSqlSafe(query)).fetch_all(connection).await.unwrap()
}
