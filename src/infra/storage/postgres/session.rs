//! Connections: how long a statement may take, what becomes of a connection that broke, and what is sent again.
//!
//! **Dead connections.** A server that restarted, or an administrator, leaves connections in the pool that only look
//! alive. One that has lain idle for a second is tried before it is used; so is, once, each one that lay idle when another
//! was found broken, since they mostly break together. All that are older than the discovery that the server only reads are
//! closed: it has become a replica, and new ones lead to the new primary. What breaks all the same is an outage, unless the
//! statement may be sent again.
//!
//! **What is sent again**, once, on another connection, after one broke: statements whose second run answers what the
//! first would have, although the first may have been done.
//! - Every single statement that a server refused because it only reads: nothing has been done.
//! - Reads, and the ping.
//! - `BEGIN` and the lock behind it: nothing has been done.
//! - `persist_lineage`: done already, it answers "already stored", which callers take for the same.
//! - What sets rows to values: `reschedule`, `mark_used`, `settle_early`, `postpone_revocation`, `finish_revocation`,
//!   `enqueue_revocation` (one id, one row), and the sweeps, but for what they count.
//!
//! Not a claim, nor the taking or ending of anything else: a second run that finds the first one's work would tell the
//! caller that somebody else was first.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use sqlx::pool::{PoolConnection, PoolConnectionMetadata};
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Connection as _, FromRow, Postgres};
use tokio::runtime::Handle;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout};

use super::error::{connection_is_lost, only_reads, store_error};
use super::{PgStore, Query};
use crate::domain::ports::StoreError;

/// A connection that has lain idle so long is tried before it is used.
const TRY_AFTER: Duration = Duration::from_secs(1);
/// How long a trial may take.
const TRIAL: Duration = Duration::from_millis(500);

/// When a connection was last found to be of no use.
#[derive(Debug)]
pub(super) struct Suspicion {
    start: Instant,
    /// One was found broken. Milliseconds since `start`, rounded up; 0: never.
    broken_at: AtomicU64,
    /// One was found to lead to a server that only reads. The same.
    read_only_at: AtomicU64,
}

impl Default for Suspicion {
    fn default() -> Self {
        Self { start: Instant::now(), broken_at: AtomicU64::new(0), read_only_at: AtomicU64::new(0) }
    }
}

impl Suspicion {
    fn age(&self) -> Duration {
        self.start.elapsed()
    }

    fn note(&self, moment: &AtomicU64) {
        let now = u64::try_from(self.age().as_millis()).unwrap_or(u64::MAX);
        moment.fetch_max(now.saturating_add(1), Ordering::Relaxed);
    }

    /// Whether something that began so long ago began before this moment.
    fn is_older(&self, began: Duration, moment: &AtomicU64) -> bool {
        let moment = Duration::from_millis(moment.load(Ordering::Relaxed));
        !moment.is_zero() && self.age().saturating_sub(began) <= moment
    }

    /// Whether a connection that has been idle for so long may be used. Tries it if there is a doubt.
    pub(super) async fn clears(
        &self,
        connection: &mut PgConnection,
        meta: PoolConnectionMetadata,
    ) -> Result<bool, sqlx::Error> {
        if self.is_older(meta.age, &self.read_only_at) {
            // It was made when the name led to that server.
            return Ok(false);
        }
        if meta.idle_for >= TRY_AFTER || self.is_older(meta.idle_for, &self.broken_at) {
            // One that says nothing is as dead as one that is refused.
            return timeout(TRIAL, connection.ping())
                .await
                .unwrap_or_else(|_| Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())))
                .map(|()| true);
        }
        Ok(true)
    }
}

/// A connection of the pool. Closed, not returned, if it broke, or if it is dropped in the middle of something: what is
/// left on it would be the next one's trouble.
pub(super) struct Session<'s> {
    store: &'s PgStore,
    connection: PoolConnection<Postgres>,
    busy: bool,
    in_transaction: bool,
}

impl Session<'_> {
    /// All rows. The statement has been committed when they are there: an error of the commit comes behind the last row.
    pub(super) async fn rows(&mut self, query: Query<'_>) -> Result<Vec<PgRow>, sqlx::Error> {
        self.busy = true;
        let outcome = timeout(self.store.inner.limit, query.fetch_all(&mut *self.connection)).await;
        // Not reached by a caller that hung up.
        self.ended(outcome)
    }

    /// At most one row.
    pub(super) async fn one<R>(&mut self, query: Query<'_>) -> Result<Option<R>, StoreError>
    where
        R: for<'r> FromRow<'r, PgRow>,
    {
        let rows = self.rows(query).await.map_err(store_error)?;
        rows.first().map(R::from_row).transpose().map_err(store_error)
    }

    /// How many rows changed.
    pub(super) async fn execute(&mut self, query: Query<'_>) -> Result<u64, StoreError> {
        self.changed(query).await.map_err(store_error)
    }

    async fn changed(&mut self, query: Query<'_>) -> Result<u64, sqlx::Error> {
        self.busy = true;
        let outcome = timeout(self.store.inner.limit, query.execute(&mut *self.connection)).await;
        self.ended(outcome).map(|done| done.rows_affected())
    }

    fn ended<T>(&mut self, outcome: Result<Result<T, sqlx::Error>, Elapsed>) -> Result<T, sqlx::Error> {
        let outcome = outcome.unwrap_or_else(|_| Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())));
        self.busy = outcome.as_ref().is_err_and(connection_is_lost);
        let suspicion = &self.store.inner.suspicion;
        if self.busy {
            suspicion.note(&suspicion.broken_at);
        }
        if outcome.as_ref().is_err_and(only_reads) {
            suspicion.note(&suspicion.read_only_at);
        }
        outcome
    }

    /// Ends a transaction; what was done is done for good.
    pub(super) async fn commit(mut self) -> Result<(), StoreError> {
        self.execute(sqlx::query("COMMIT")).await?;
        self.in_transaction = false;
        Ok(())
    }

    /// Ends a transaction; nothing was done.
    pub(super) async fn roll_back(mut self) -> Result<(), StoreError> {
        self.execute(sqlx::query("ROLLBACK")).await?;
        self.in_transaction = false;
        Ok(())
    }

    /// The server only reads: has this connection closed instead of used again, and all that were made so far.
    pub(super) fn leave_server(&mut self) {
        self.busy = true;
        let suspicion = &self.store.inner.suspicion;
        suspicion.note(&suspicion.read_only_at);
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        if self.busy || self.in_transaction {
            self.connection.close_on_drop();
        } else if let Ok(runtime) = Handle::try_current() {
            // The pool tries each connection before it takes it back, and would wait for good for a server that is silent,
            // with the connection's place in the pool. This is what it does itself, with a limit.
            runtime.spawn(timeout(self.store.inner.limit, self.connection.return_to_pool()));
        }
    }
}

/// Whether a statement may run a second time although the first run may have been done. See the head of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    Never,
    Once,
}

impl Again {
    fn allows(self, error: &sqlx::Error) -> bool {
        only_reads(error) || self == Self::Once && connection_is_lost(error)
    }
}

impl PgStore {
    pub(super) async fn connected(&self) -> Result<Session<'_>, sqlx::Error> {
        let connection = self.inner.pool.acquire().await?;
        Ok(Session { store: self, connection, busy: false, in_transaction: false })
    }

    /// A transaction in which no other with the same lock runs, on any replica. Rolled back when it is dropped.
    pub(super) async fn begin(&self, lock: i64) -> Result<Session<'_>, StoreError> {
        match self.begun(lock).await {
            Err(error) if connection_is_lost(&error) => self.begun(lock).await,
            other => other,
        }
        .map_err(store_error)
    }

    async fn begun(&self, lock: i64) -> Result<Session<'_>, sqlx::Error> {
        let mut session = self.connected().await?;
        session.changed(sqlx::query("BEGIN")).await?;
        session.in_transaction = true;
        session.changed(sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(lock)).await?;
        Ok(session)
    }

    /// One autocommit statement that returns rows.
    pub(super) async fn all<'q, R>(
        &self,
        again: Again,
        query: impl Fn() -> Query<'q> + Send,
    ) -> Result<Vec<R>, StoreError>
    where
        R: for<'r> FromRow<'r, PgRow>,
    {
        let mut outcome = self.rows_of(query()).await;
        if outcome.as_ref().is_err_and(|error| again.allows(error)) {
            outcome = self.rows_of(query()).await;
        }
        outcome.map_err(store_error)?.iter().map(R::from_row).collect::<Result<_, _>>().map_err(store_error)
    }

    async fn rows_of(&self, query: Query<'_>) -> Result<Vec<PgRow>, sqlx::Error> {
        self.connected().await?.rows(query).await
    }

    /// One autocommit statement that returns at most one row.
    pub(super) async fn one<'q, R>(
        &self,
        again: Again,
        query: impl Fn() -> Query<'q> + Send,
    ) -> Result<Option<R>, StoreError>
    where
        R: for<'r> FromRow<'r, PgRow>,
    {
        Ok(self.all(again, query).await?.into_iter().next())
    }

    /// One autocommit statement. Answers how many rows changed.
    pub(super) async fn write<'q>(
        &self,
        again: Again,
        query: impl Fn() -> Query<'q> + Send,
    ) -> Result<u64, StoreError> {
        let mut outcome = self.changed_by(query()).await;
        if outcome.as_ref().is_err_and(|error| again.allows(error)) {
            outcome = self.changed_by(query()).await;
        }
        outcome.map_err(store_error)
    }

    async fn changed_by(&self, query: Query<'_>) -> Result<u64, sqlx::Error> {
        self.connected().await?.changed(query).await
    }
}

/// The number of a lock for a text of parts. Two texts that share a number wait for each other, and that is all.
pub(super) fn lock_of(kind: &str, parts: &[&str]) -> i64 {
    let mut hash = Sha256::new();
    for part in std::iter::once(&kind).chain(parts) {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().first_chunk().map_or(0, |bytes| i64::from_be_bytes(*bytes))
}
