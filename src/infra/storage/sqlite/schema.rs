//! The migrations, and what a database file has of them.

use std::collections::BTreeMap;
use std::path::Path;

use sqlx::migrate::Migrator;
use sqlx::{Connection as _, SqliteConnection};

use super::error::OpenError;
use crate::infra::storage::migrations::{self, MigrationState};

/// Embedded, so that the program needs no files.
pub(super) static MIGRATOR: Migrator = sqlx::migrate!("migrations/sqlite");

/// "tkbr" in the header of the file; the first migration writes it.
const APPLICATION_ID: i32 = i32::from_be_bytes(*b"tkbr");

/// Reads what the database has; refuses another program's file and another version's migrations.
pub(super) async fn inspect(
    path: &Path,
    connection: &mut SqliteConnection,
) -> Result<Vec<MigrationState>, OpenError> {
    let (application_id, objects, migrated) =
        header(connection).await.map_err(|e| OpenError::from_sqlx(path, e))?;
    if objects > 0 && application_id != APPLICATION_ID {
        // A crash before the first migration leaves the table of migrations alone.
        if !(application_id == 0 && objects == 1 && migrated) {
            return Err(OpenError::NotADatabase { path: path.to_owned() });
        }
    }
    let applied = if migrated {
        applied(connection).await.map_err(|e| OpenError::from_sqlx(path, e))?
    } else {
        BTreeMap::new()
    };
    if let Some(unknown) = migrations::unknown(&MIGRATOR, &applied) {
        return Err(OpenError::NewerSchema { path: path.to_owned(), version: unknown });
    }
    migrations::compare(&MIGRATOR, &applied)
        .map_err(|version| OpenError::ChangedSchema { path: path.to_owned(), version })
}

/// All pending.
pub(super) fn none_applied() -> Vec<MigrationState> {
    migrations::none_applied(&MIGRATOR)
}

async fn header(connection: &mut SqliteConnection) -> Result<(i32, i64, bool), sqlx::Error> {
    // One transaction, so that the three agree while another process migrates.
    let mut transaction = connection.begin().await?;
    let application_id = sqlx::query_scalar("PRAGMA application_id").fetch_one(&mut *transaction).await?;
    let (objects, migrated) = sqlx::query_as(
        "SELECT count(*), coalesce(max(name = '_sqlx_migrations'), 0)
         FROM sqlite_schema WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\'",
    )
    .fetch_one(&mut *transaction)
    .await?;
    transaction.rollback().await?;
    Ok((application_id, objects, migrated))
}

async fn applied(connection: &mut SqliteConnection) -> Result<BTreeMap<i64, Vec<u8>>, sqlx::Error> {
    let rows: Vec<(i64, Vec<u8>)> =
        sqlx::query_as("SELECT version, checksum FROM _sqlx_migrations WHERE success ORDER BY version")
            .fetch_all(connection)
            .await?;
    Ok(rows.into_iter().collect())
}
