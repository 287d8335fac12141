//! The `PostgreSQL` store: many replicas over one database.
//!
//! - Every method is one guarded autocommit statement, one round trip, or one short transaction. Under READ COMMITTED a
//!   statement that waited for a row looks at its conditions again on the row as it has become, so that a guard holds
//!   under races; what reads before it writes takes the row's lock, or the key's ([`session`]), first.
//! - Deadlines are taken and judged by the database's clock ([`RowClock`]).
//! - Every statement has a limit, on the server and on this side, and every failure of the connection is an outage:
//!   [`StoreError::Unavailable`].
//!
//! Times are stored as whole microseconds: what is read back is cut off, never rounded up.

mod audit;
mod callers;
mod clock;
mod company;
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
mod session;
mod tenants;
mod users;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::FromRow as _;
use sqlx::postgres::PgPool;
use url::Url;

pub use clock::DatabaseClock;
pub use company::{Company, CompanyError};
pub use error::OpenError;

use crate::domain::ports::{Clock as _, StoreError, StoreHealth};
use crate::domain::secret::SecretString;
use crate::infra::storage::codec::{micros, time};
use crate::infra::storage::migrations::MigrationState;

/// Where the database is and how it is used.
#[derive(Debug, Clone)]
pub struct PgSettings {
    /// `postgres://user@host:port/database?sslmode=…`, without a password.
    pub url: Url,
    /// The password, if the server asks for one.
    pub password: Option<SecretString>,
    /// How many connections at most.
    pub max_connections: u32,
    /// How long a call waits for a connection, be it a free one or a new one.
    pub connect_timeout: Duration,
    /// How long a statement may take.
    pub statement_timeout: Duration,
}

/// Whose clock takes and judges deadlines in rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowClock {
    /// The database's: replicas whose clocks differ agree. What callers say is taken as distances from their `now`.
    Database,
    /// The caller's `now` as it is, for tests that set the time.
    Caller,
}

impl RowClock {
    /// What a statement is given as the time: NULL asks the database for its own.
    fn given(self, now: Timestamp) -> Option<i64> {
        match self {
            Self::Database => None,
            Self::Caller => Some(micros(now)),
        }
    }
}

/// The time of a statement as SQL: the parameter, or the database's own where that is NULL. Not for scans: an index is of
/// no use for what may change from row to row.
macro_rules! now_or {
    ($parameter:literal) => {
        concat!(
            "coalesce(",
            $parameter,
            "::bigint, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)"
        )
    };
}
use now_or;

/// The same for scans: found out once.
macro_rules! scan_now_or {
    ($parameter:literal) => {
        concat!("(SELECT ", $crate::infra::storage::postgres::now_or!($parameter), ")")
    };
}
use scan_now_or;

/// The distance of a deadline from the time that it was made at, in microseconds.
fn distance(from: Timestamp, to: Timestamp) -> i64 {
    micros(to).saturating_sub(micros(from))
}

/// The store. Clones share it.
#[derive(Debug, Clone)]
pub struct PgStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    pool: PgPool,
    row_clock: RowClock,
    clock: Arc<DatabaseClock>,
    /// After this long without an answer the server is taken for gone, and the connection with it.
    limit: Duration,
    suspicion: Arc<session::Suspicion>,
}

/// A statement with its values.
type Query<'q> = sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>;

impl PgStore {
    /// Connects, and applies pending migrations: of several replicas that start at one time, one does and the others
    /// wait. Changes nothing if the database is another program's or too new. `clock` is set by the database's.
    pub async fn open(
        settings: &PgSettings,
        row_clock: RowClock,
        clock: Arc<DatabaseClock>,
    ) -> Result<Self, OpenError> {
        open::open(settings, row_clock, clock).await
    }

    /// The migrations that this version has, in order, and whether the database has them. Creates and changes nothing.
    pub async fn migrations(settings: &PgSettings) -> Result<Vec<MigrationState>, OpenError> {
        open::migrations(settings).await
    }

    /// Closes all connections. Waits for statements under way; later ones fail.
    pub async fn close(&self) {
        self.inner.pool.close().await;
    }

    fn now(&self, now: Timestamp) -> Option<i64> {
        self.inner.row_clock.given(now)
    }
}

/// Reads a table, since a server that has lost its files still does sums. The time and whether it may write come along.
const PING: &str = "
    SELECT EXISTS (SELECT 1 FROM data_keys), (extract(epoch FROM clock_timestamp()) * 1000000)::bigint,
        current_setting('transaction_read_only')::boolean";

#[async_trait]
impl StoreHealth for PgStore {
    async fn ping(&self) -> Result<(), StoreError> {
        match self.ask().await {
            Err(error) if error::connection_is_lost(&error) => self.ask().await,
            other => other,
        }
        .map_err(error::store_error)?
    }
}

impl PgStore {
    async fn ask(&self) -> Result<Result<(), StoreError>, sqlx::Error> {
        let mut session = self.connected().await?;
        let asked = self.inner.clock.monotonic();
        let rows = session.rows(sqlx::query(PING)).await?;
        let Some(row) = rows.first() else { return Ok(Err(StoreError::Corrupt("no answer"))) };
        let (_, at, read_only) = <(bool, i64, bool)>::from_row(row)?;
        if read_only {
            // A primary that has become a replica. A new connection may lead to the new primary.
            session.leave_server();
            return Ok(Err(StoreError::Unavailable("the database is read-only".into())));
        }
        Ok(time(at).map(|at| self.inner.clock.measured(asked, at)))
    }
}
