//! The `SQLite` store: one host, one process, one file.
//!
//! - One connection writes, four read; with the write-ahead log, readers never wait for the writer.
//! - `synchronous=FULL`: what is acknowledged has been flushed to the disk.
//! - Every method is one guarded statement or one short `BEGIN IMMEDIATE` transaction. A future that is dropped halfway
//!   leaves all or nothing: its transaction is rolled back, and a single statement runs to its end.
//! - A lock file keeps a second process out, so that a claim of another owner is provably dead.
//!
//! Times are stored as whole microseconds: what is read back is cut off, never rounded up.

mod audit;
mod callers;
mod credentials;
mod data_keys;
mod error;
mod events;
mod flows;
mod grants;
mod lineage;
mod listing;
mod open;
mod outbox;
mod provider_configs;
mod reencryption;
mod schema;
mod tenants;
#[cfg(test)]
mod tests;
mod users;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use sqlx::sqlite::{SqlitePool, SqliteRow};
use sqlx::{FromRow, Sqlite, Transaction};

pub use error::OpenError;

use crate::domain::ports::{StoreError, StoreHealth};
use crate::infra::file_lock::{FileId, FileLock};
use crate::infra::storage::codec::json_list;
use crate::infra::storage::migrations::MigrationState;
use error::store_error;

/// The store. Clones share it.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    /// What was there when it was opened.
    file: FileId,
    readers: SqlitePool,
    writer: SqlitePool,
    /// Holds the lock file until [`SqliteStore::close`].
    lock: Mutex<Option<FileLock>>,
}

/// A statement with its values.
type Query<'q> = sqlx::query::Query<'q, Sqlite, sqlx::sqlite::SqliteArguments>;

/// Ids for `json_each`.
fn id_list<'a>(ids: impl Iterator<Item = &'a [u8]>) -> String {
    let ids = ids.map(hex::encode).collect::<Vec<_>>();
    json_list(ids.iter().map(String::as_str))
}

impl SqliteStore {
    /// Opens a database for this process alone, and creates it (mode 0600) if it is not there. Applies pending
    /// migrations. Changes nothing if the file is another program's or a newer version's.
    pub async fn open(path: &Path) -> Result<Self, OpenError> {
        open::open(path).await
    }

    /// The migrations that this version has, in order, and whether the database has them. Creates and changes nothing;
    /// works while another process has the database open.
    pub async fn migrations(path: &Path) -> Result<Vec<MigrationState>, OpenError> {
        open::migrations(path).await
    }

    /// Where it is, links resolved.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Empties the write-ahead log into the database, closes all connections and gives up the lock. Waits for statements
    /// under way; later ones fail.
    pub async fn close(&self) {
        self.inner.readers.close().await;
        // Best effort: the log is as durable as the database, and is read when the database is opened next.
        let _ = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").fetch_all(&self.inner.writer).await;
        self.inner.writer.close().await;
        drop(self.inner.lock.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Whether the path still leads to the file that is open. If not, what is written goes into a file that is gone with the process,
    /// and another process may have opened what is there now.
    fn is_in_place(&self) -> Result<(), StoreError> {
        let Inner { path, file, lock, .. } = &*self.inner;
        let lock = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let locked = lock.as_ref().is_none_or(|lock| lock.is_at(&open::lock_path(path)));
        if locked && FileId::of(path).is_ok_and(|found| found == *file) {
            return Ok(());
        }
        let what = "the file or its lock was removed or replaced: put it back, or restart the broker";
        Err(StoreError::Unavailable(what.into()))
    }

    /// At most one row, read.
    async fn read_one<R>(&self, query: Query<'_>) -> Result<Option<R>, StoreError>
    where
        R: for<'r> FromRow<'r, SqliteRow>,
    {
        let row = query.fetch_optional(&self.inner.readers).await.map_err(store_error)?;
        row.map(|row| R::from_row(&row)).transpose().map_err(store_error)
    }

    /// All rows, read.
    async fn read_all<R>(&self, query: Query<'_>) -> Result<Vec<R>, StoreError>
    where
        R: for<'r> FromRow<'r, SqliteRow>,
    {
        let rows = query.fetch_all(&self.inner.readers).await.map_err(store_error)?;
        rows.iter().map(R::from_row).collect::<Result<_, _>>().map_err(store_error)
    }

    /// One autocommit statement that returns at most one row.
    async fn write_one<R>(&self, query: Query<'_>) -> Result<Option<R>, StoreError>
    where
        R: for<'r> FromRow<'r, SqliteRow>,
    {
        // Never `fetch_optional`: it stops at the first row, the statement is committed when it is reset, and an error
        // of that commit (a full disk) is lost.
        self.is_in_place()?;
        let rows = query.fetch_all(&self.inner.writer).await.map_err(store_error)?;
        rows.first().map(R::from_row).transpose().map_err(store_error)
    }

    /// One autocommit statement. Answers how many rows changed.
    async fn write(&self, query: Query<'_>) -> Result<u64, StoreError> {
        self.is_in_place()?;
        Ok(query.execute(&self.inner.writer).await.map_err(store_error)?.rows_affected())
    }

    /// A transaction that may write from its first statement on, so that it can't fail halfway for lack of the lock.
    async fn begin(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        self.is_in_place()?;
        self.inner.writer.begin_with("BEGIN IMMEDIATE").await.map_err(store_error)
    }
}

#[async_trait]
impl StoreHealth for SqliteStore {
    async fn ping(&self) -> Result<(), StoreError> {
        self.is_in_place()?;
        // Reads a table, since a constant would be answered without the file.
        let found: Option<(bool,)> =
            self.read_one(sqlx::query("SELECT EXISTS (SELECT 1 FROM data_keys)")).await?;
        found.map(|_| ()).ok_or(StoreError::Corrupt("no answer"))
    }
}

/// All statements that are run per call or per sweep.
#[cfg(test)]
fn frequent_statements() -> Vec<&'static str> {
    [credentials::STATEMENTS, lineage::STATEMENTS, grants::STATEMENTS, listing::STATEMENTS]
        .into_iter()
        .chain([
            flows::STATEMENTS,
            outbox::STATEMENTS,
            data_keys::STATEMENTS,
            events::STATEMENTS,
            callers::STATEMENTS,
            callers::OWN_STATEMENTS,
            provider_configs::STATEMENTS,
            audit::STATEMENTS,
            reencryption::STATEMENTS,
            users::STATEMENTS,
        ])
        .flatten()
        .copied()
        .collect()
}
