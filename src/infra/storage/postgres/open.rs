//! Opening the database: a look at what is in it, then the migrations, then the connections.

use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::MigrateError;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPoolOptions};
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::time::timeout;

use super::error::OpenError;
use super::schema;
use super::session::Suspicion;
use super::{DatabaseClock, Inner, PgSettings, PgStore, RowClock};
use crate::domain::ports::StoreHealth as _;
use crate::infra::storage::migrations::MigrationState;

/// What the server calls these connections.
const NAME: &str = "token-broker";
/// The SQL is that of this version and later.
const OLDEST_SERVER: i32 = 140_000;
/// Nothing waits longer for a row or a lock of another statement: all of ours are short.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);
/// A transaction in which nothing is said for so long was forgotten.
const IDLE_TRANSACTION: Duration = Duration::from_secs(10);
/// An unused connection is closed after this.
const IDLE: Duration = Duration::from_secs(600);
/// No connection is older, so that a server that was moved away from is left in the end.
const LIFETIME: Duration = Duration::from_secs(1800);
/// How long a replica waits for another one's migrations.
const MIGRATION_LIMIT: Duration = Duration::from_secs(600);
/// What the way to the server may add to a statement's limit.
const WAY: Duration = Duration::from_secs(1);

pub(super) async fn open(
    settings: &PgSettings,
    row_clock: RowClock,
    clock: Arc<DatabaseClock>,
) -> Result<PgStore, OpenError> {
    let (server, options) = options(settings)?;
    let mut connection = connect(&server, &options, settings.connect_timeout).await?;
    let prepared = prepare(&server, &mut connection).await;
    // What it was for is done, or has failed.
    let _ = connection.close().await;
    prepared?;

    let millis = |duration: Duration| duration.as_millis().to_string();
    let limited = options.options([
        ("statement_timeout", millis(settings.statement_timeout)),
        ("lock_timeout", millis(LOCK_TIMEOUT.min(settings.statement_timeout))),
        ("idle_in_transaction_session_timeout", millis(IDLE_TRANSACTION)),
    ]);
    let suspicion = Arc::new(Suspicion::default());
    let suspects = Arc::clone(&suspicion);
    let pool = PgPoolOptions::new()
        .min_connections(1)
        .max_connections(settings.max_connections)
        .acquire_timeout(settings.connect_timeout)
        .idle_timeout(IDLE)
        .max_lifetime(LIFETIME)
        // Only where there is a doubt: see `session`.
        .test_before_acquire(false)
        .before_acquire(move |connection, meta| {
            let suspects = Arc::clone(&suspects);
            Box::pin(async move { suspects.clears(connection, meta).await })
        })
        .connect_with(limited)
        .await
        .map_err(|error| OpenError::from_sqlx(&server, error))?;
    let limit = settings.statement_timeout + WAY;
    let store = PgStore { inner: Arc::new(Inner { pool, row_clock, clock, limit, suspicion }) };
    let unreachable = |error| OpenError::Unreachable { server: server.clone(), source: Box::new(error) };
    // Measures the database's clock.
    store.ping().await.map_err(unreachable)?;
    store.renumber_foreign_events().await.map_err(unreachable)?;
    Ok(store)
}

pub(super) async fn migrations(settings: &PgSettings) -> Result<Vec<MigrationState>, OpenError> {
    let (server, options) = options(settings)?;
    let mut connection = connect(&server, &options, settings.connect_timeout).await?;
    let found = schema::inspect(&server, &mut connection).await;
    // It only read.
    let _ = connection.close().await;
    found
}

/// Leaves the database with all of this version's migrations.
async fn prepare(server: &str, connection: &mut PgConnection) -> Result<(), OpenError> {
    let failed = |error| OpenError::from_sqlx(server, error);
    let name = || server.to_owned();
    let (number, version, encoding, read_only): (i32, String, String, bool) = sqlx::query_as(
        "SELECT current_setting('server_version_num')::int, current_setting('server_version'),
            current_setting('server_encoding'), current_setting('transaction_read_only')::boolean",
    )
    .fetch_one(&mut *connection)
    .await
    .map_err(failed)?;
    if number < OLDEST_SERVER {
        return Err(OpenError::TooOld { server: name(), version });
    }
    if encoding != "UTF8" {
        return Err(OpenError::Encoding { server: name(), encoding });
    }
    if read_only {
        return Err(OpenError::ReadOnly { server: name() });
    }
    let found = schema::inspect(server, &mut *connection).await?;
    if found.iter().all(|migration| migration.applied) {
        // Without asking for the lock, or for the right to make tables.
        return Ok(());
    }
    let migrated = timeout(MIGRATION_LIMIT, schema::migrate(connection)).await;
    match migrated.unwrap_or_else(|_| Err(MigrateError::Execute(sqlx::Error::PoolTimedOut))) {
        Ok(()) => Ok(()),
        Err(MigrateError::VersionMissing(version)) => Err(OpenError::NewerSchema { server: name(), version }),
        Err(MigrateError::VersionMismatch(version)) => {
            Err(OpenError::ChangedSchema { server: name(), version })
        }
        Err(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) => Err(failed(error)),
        Err(other) => Err(OpenError::Other { server: name(), source: Box::new(other) }),
    }
}

/// How to connect, and how to call the database in messages.
pub(super) fn options(settings: &PgSettings) -> Result<(String, PgConnectOptions), OpenError> {
    let url = &settings.url;
    let server = format!(
        "{}@{}:{}{}",
        url.username(),
        url.host_str().unwrap_or_default(),
        url.port().unwrap_or(5432),
        url.path(),
    );
    let options = PgConnectOptions::from_url(url)
        .map_err(|error| OpenError::Options { server: server.clone(), source: Box::new(error) })?;
    let options = options.port(url.port().unwrap_or(5432)).application_name(NAME).disable_statement_logging();
    Ok(match &settings.password {
        Some(password) => (server, options.password(password.expose_secret())),
        None => (server, options),
    })
}

async fn connect(
    server: &str,
    options: &PgConnectOptions,
    limit: Duration,
) -> Result<PgConnection, OpenError> {
    match timeout(limit, options.connect()).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => Err(OpenError::from_sqlx(server, error)),
        Err(_) => Err(OpenError::from_sqlx(server, sqlx::Error::PoolTimedOut)),
    }
}
