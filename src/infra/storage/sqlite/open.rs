//! Opening the file: the lock, then a look at what is in it, then the migrations, then the connections.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};
use sqlx::{ConnectOptions as _, Connection as _, Executor as _};

use super::error::OpenError;
use super::schema::{self, MIGRATOR};
use super::{Inner, SqliteStore};
use crate::infra::file_lock::{FileId, FileLock, private};
use crate::infra::storage::migrations::MigrationState;

/// How many statements read at a time.
const READERS: u32 = 4;
/// How long a statement waits for a connection or a lock before the database counts as not available.
const WAIT: Duration = Duration::from_secs(5);

pub(super) async fn open(path: &Path) -> Result<SqliteStore, OpenError> {
    let path = resolve(path)?;
    let lock = lock(&path)?;
    create(&path)?;
    // Before the first write, so that a file that is not ours stays as it is.
    inspect(&path).await?;

    let writing = options(&path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        // What was deleted is overwritten.
        .pragma("secure_delete", "ON")
        // The log shrinks again after a burst of writes.
        .pragma("journal_size_limit", "67108864");
    let pool_of_one = pool_options(1)
        // Opened while the file may not be written, a connection would only read, for good and without a word.
        .after_connect(|connection, _| {
            Box::pin(async { connection.execute("BEGIN IMMEDIATE; ROLLBACK").await.map(drop) })
        })
        .after_release(|connection, _| Box::pin(can_begin(connection)));
    let writer = connect(&path, pool_of_one, writing).await?;
    if let Err(error) = MIGRATOR.run(&writer).await {
        writer.close().await;
        return Err(OpenError::from_migrate(&path, error));
    }
    let readers = connect(&path, pool_options(READERS), options(&path).read_only(true)).await?;
    let file = FileId::of(&path).map_err(|error| OpenError::from_io(&path, error))?;
    Ok(SqliteStore { inner: Arc::new(Inner { path, file, readers, writer, lock: Mutex::new(Some(lock)) }) })
}

pub(super) async fn migrations(path: &Path) -> Result<Vec<MigrationState>, OpenError> {
    let path = resolve(path)?;
    if path.exists() { inspect(&path).await } else { Ok(schema::none_applied()) }
}

async fn inspect(path: &Path) -> Result<Vec<MigrationState>, OpenError> {
    let mut connection =
        options(path).read_only(true).connect().await.map_err(|e| OpenError::from_sqlx(path, e))?;
    let found = schema::inspect(path, &mut connection).await;
    // It only read.
    let _ = connection.close().await;
    found
}

/// With links resolved, since one file under two names must have one lock.
fn resolve(path: &Path) -> Result<PathBuf, OpenError> {
    let io = |error| OpenError::from_io(path, error);
    match path.canonicalize() {
        Ok(found) => Ok(found),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let name = path.file_name().ok_or_else(|| io(std::io::ErrorKind::IsADirectory.into()))?;
            let parent = match path.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent,
                _ => Path::new("."),
            };
            Ok(parent.canonicalize().map_err(io)?.join(name))
        }
        Err(error) => Err(io(error)),
    }
}

/// `<path>.lock`
pub(super) fn lock_path(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".lock");
    PathBuf::from(name)
}

fn lock(path: &Path) -> Result<FileLock, OpenError> {
    FileLock::take(&lock_path(path))
        .map_err(|e| OpenError::from_io(path, e))?
        .ok_or_else(|| OpenError::Locked { path: path.to_owned() })
}

/// Creates the file, if need be, before `SQLite` does, which would let the whole group read it. The files beside it get
/// the same mode.
fn create(path: &Path) -> Result<(), OpenError> {
    let file = private().open(path).map_err(|e| OpenError::from_io(path, e))?;
    let metadata = file.metadata().map_err(|e| OpenError::from_io(path, e))?;
    if metadata.permissions().readonly() {
        // The superuser may write all the same, but somebody meant it.
        return Err(OpenError::NotWritable { path: path.to_owned() });
    }
    Ok(())
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .foreign_keys(true)
        .busy_timeout(WAIT)
        .pragma("trusted_schema", "OFF")
        .disable_statement_logging()
}

/// Where it can't go on, as on a full disk, `SQLite` ends a transaction by itself (<https://sqlite.org/lang_transaction.html>,
/// section 3). Then the driver's own ROLLBACK is an error, and it counts that transaction as open for good: every further one would
/// be refused as one inside it. A connection that counts so is replaced.
async fn can_begin(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    if connection.is_in_transaction() {
        // The ROLLBACK of a transaction that was dropped may still be on its way, and comes before this.
        connection.ping().await?;
    }
    Ok(!connection.is_in_transaction())
}

fn pool_options(size: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .min_connections(size)
        .max_connections(size)
        .acquire_timeout(WAIT)
        .idle_timeout(None)
        .max_lifetime(None)
        // A local file does not go away; the check would cost more than a read.
        .test_before_acquire(false)
}

async fn connect(
    path: &Path,
    pool: SqlitePoolOptions,
    options: SqliteConnectOptions,
) -> Result<SqlitePool, OpenError> {
    pool.connect_with(options).await.map_err(|e| OpenError::from_sqlx(path, e))
}
