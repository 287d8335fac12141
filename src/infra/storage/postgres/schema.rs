//! The migrations, and what a database has of them.
//!
//! During a rolling update two versions of the program share a database, and an old one may have to start again. So a
//! database with migrations that this version does not know is not refused for that: it says itself, in `broker_schema`,
//! which migration a program has to know. A migration that only adds leaves the number; the one that takes away what the
//! old version used raises it, and by then no old version runs any more. See `docs/POSTGRES.md`.

use std::collections::BTreeMap;
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::{AssertSqlSafe, Executor as _, PgConnection};
use tokio::time::sleep;

use super::error::OpenError;
use crate::infra::storage::migrations::{self, MigrationState};

/// Embedded, so that the program needs no files.
static MIGRATOR: Migrator = sqlx::migrate!("migrations/postgres");

/// "tkbr" and a number: which advisory lock.
const LOCK: i64 = 0x746b_6272_0000_0002;
/// What a building of an index that was broken off has left, which is of no use and in the way of the next attempt. Of the tables
/// that grow, whose indexes are built while others write.
const BROKEN_OFF: &str = "
    SELECT indexrelid::regclass::text FROM pg_index
    WHERE NOT indisvalid
        AND indrelid = ANY (ARRAY[to_regclass('credentials'), to_regclass('flows'), to_regclass('revocations'),
            to_regclass('events'), to_regclass('audit_log'), to_regclass('user_keys')])";
/// How often the lock is asked for.
const ASK_EVERY: Duration = Duration::from_millis(200);

const TABLES: &str = "
    SELECT to_regclass('_sqlx_migrations') IS NOT NULL, to_regclass('broker_schema') IS NOT NULL,
        to_regclass('credentials') IS NOT NULL";

const APPLIED: &str = "SELECT version, checksum FROM _sqlx_migrations WHERE success ORDER BY version";

/// Applies what is missing; of many that do so at one time, one at a time. The lock is asked for again and again: whoever waits in
/// a statement for it has a snapshot, which an index that is built `CONCURRENTLY` waits for, and both would wait for ever. The
/// lock ends with the connection at the latest.
pub(super) async fn migrate(connection: &mut PgConnection) -> Result<(), MigrateError> {
    let lock = |sql| sqlx::query_scalar::<_, bool>(sql).bind(LOCK);
    let mut waits = false;
    while !lock("SELECT pg_try_advisory_lock($1)").fetch_one(&mut *connection).await? {
        if !waits {
            tracing::info!("another process migrates the database: waiting for it");
        }
        waits = true;
        sleep(ASK_EVERY).await;
    }
    for index in sqlx::query_scalar::<_, String>(BROKEN_OFF).fetch_all(&mut *connection).await? {
        // Written by the database, with quotes where they are needed.
        let drop = AssertSqlSafe(format!("DROP INDEX CONCURRENTLY {index}"));
        connection.execute(drop).await?;
    }
    let mut migrator = Migrator::with_migrations(MIGRATOR.iter().cloned().collect());
    migrator.set_locking(false);
    let migrated = migrator.run_direct(None, &mut *connection, false).await;
    let unlocked = lock("SELECT pg_advisory_unlock($1)").fetch_one(connection).await;
    // What the migration ran into is said first: a connection that was lost then can't unlock, either.
    migrated?;
    unlocked?;
    Ok(())
}

/// Reads what the database has; refuses another program's tables and what this version can't work with.
pub(super) async fn inspect(
    server: &str,
    connection: &mut PgConnection,
) -> Result<Vec<MigrationState>, OpenError> {
    let failed = |error| OpenError::from_sqlx(server, error);
    let name = || server.to_owned();
    let (migrated, ours, credentials): (bool, bool, bool) =
        sqlx::query_as(TABLES).fetch_one(&mut *connection).await.map_err(failed)?;
    if !migrated {
        return if credentials {
            Err(OpenError::NotADatabase { server: name() })
        } else {
            Ok(migrations::none_applied(&MIGRATOR))
        };
    }
    let rows: Vec<(i64, Vec<u8>)> =
        sqlx::query_as(APPLIED).fetch_all(&mut *connection).await.map_err(failed)?;
    let applied: BTreeMap<i64, Vec<u8>> = rows.into_iter().collect();
    if !applied.is_empty() && !ours {
        return Err(OpenError::NotADatabase { server: name() });
    }
    let found = migrations::compare(&MIGRATOR, &applied)
        .map_err(|version| OpenError::ChangedSchema { server: name(), version })?;
    if let Some(version) = migrations::unknown(&MIGRATOR, &applied) {
        let oldest: i64 = sqlx::query_scalar("SELECT oldest_version FROM broker_schema")
            .fetch_one(connection)
            .await
            .map_err(failed)?;
        // One that lacks what this version needs as well comes from neither.
        let complete = found.iter().all(|migration| migration.applied);
        if !complete || !MIGRATOR.version_exists(oldest) {
            return Err(OpenError::NewerSchema { server: name(), version });
        }
    }
    Ok(found)
}
