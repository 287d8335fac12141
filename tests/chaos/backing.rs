//! What the replicas stand on: private servers of Postgres and Redis, or one file of SQLite for a single replica.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{Connection as _, PgConnection};
use tempfile::TempDir;
use token_broker::infra::storage::postgres::{DatabaseClock, PgSettings, PgStore, RowClock};
use token_broker::infra::storage::sqlite::SqliteStore;
use token_broker::infra::system::SystemClock;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::engines::postgres::{self, Postgres, Stop};
use crate::engines::redis::{self, Redis};
use crate::history::Row;
use crate::rows;
use crate::site::Site;

/// The store and the permit store.
pub(crate) enum Backing {
    /// One process, one file.
    Sqlite(TempDir),
    /// As in production.
    Servers(Servers),
}

/// The two.
pub(crate) struct Servers {
    postgres: Arc<Postgres>,
    redis: Arc<Redis>,
    /// The database's URL.
    url: String,
}

/// What has to be zero for the system to be at rest, and who is who.
#[derive(Debug, Default)]
pub(crate) struct Glance {
    /// Rows that are being refreshed.
    pub(crate) refreshing: i64,
    /// Revocations that the provider has not confirmed.
    pub(crate) revocations: i64,
    /// Each row's id and account.
    pub(crate) ids: Vec<(String, String)>,
}

const COUNTS: &str = "SELECT (SELECT count(*) FROM credentials WHERE status = 'refreshing'),
    (SELECT count(*) FROM revocations WHERE finished_at IS NULL)";
const IDS: &str = "SELECT id, account FROM credentials";

impl Backing {
    pub(crate) fn sqlite() -> Self {
        Self::Sqlite(tempfile::tempdir().unwrap())
    }

    /// Starts both; Postgres with further arguments.
    pub(crate) async fn servers(more: &'static str) -> Self {
        let started = spawn_blocking(move || {
            let postgres = Postgres::start(postgres::Options { fsync: true, max_connections: 100, more });
            (postgres, Redis::start(redis::Options::default()))
        });
        let (postgres, redis) = started.await.unwrap();
        let url = postgres.url(&postgres.create_database("template1").await);
        Self::Servers(Servers { postgres: Arc::new(postgres), redis: Arc::new(redis), url })
    }

    fn file(folder: &TempDir) -> PathBuf {
        folder.path().join("chaos.db")
    }

    /// The part of a replica's configuration.
    pub(crate) fn settings(&self) -> String {
        match self {
            Self::Sqlite(folder) => format!("[storage]\npath = \"{}\"\n", Self::file(folder).display()),
            Self::Servers(servers) => {
                format!("[storage]\nurl = \"{}\"\n[redis]\nurl = \"{}\"\n", servers.url, servers.redis.url())
            }
        }
    }

    /// A connection to the database past the brokers.
    ///
    /// # Panics
    ///
    /// If there is no Postgres.
    pub(crate) async fn backdoor(&self) -> PgConnection {
        let Self::Servers(servers) = self else { panic!("no server") };
        PgConnection::connect(&servers.url).await.unwrap()
    }

    /// What Postgres has logged.
    ///
    /// # Panics
    ///
    /// If there is no Postgres.
    pub(crate) fn postgres_log(&self) -> String {
        let Self::Servers(servers) = self else { panic!("no server") };
        servers.postgres.log()
    }

    /// For people.
    pub(crate) fn addresses(&self) -> String {
        match self {
            Self::Sqlite(folder) => format!("  SQLite    {}", Self::file(folder).display()),
            Self::Servers(servers) => {
                format!("  Postgres  {}\n  Redis     {}", servers.url, servers.redis.url())
            }
        }
    }

    /// Looks at the rows past the brokers.
    pub(crate) async fn glance(&self) -> Result<Glance, sqlx::Error> {
        let (counts, ids): (_, Vec<(Vec<u8>, String)>) = match self {
            Self::Sqlite(folder) => {
                let options = SqliteConnectOptions::new().filename(Self::file(folder)).read_only(true);
                let mut connection = SqliteConnection::connect_with(&options).await?;
                let counts = sqlx::query_as(COUNTS).fetch_one(&mut connection).await?;
                (counts, sqlx::query_as(IDS).fetch_all(&mut connection).await?)
            }
            Self::Servers(servers) => {
                let mut connection = PgConnection::connect(&servers.url).await?;
                let counts = sqlx::query_as(COUNTS).fetch_one(&mut connection).await?;
                (counts, sqlx::query_as(IDS).fetch_all(&mut connection).await?)
            }
        };
        let (refreshing, revocations) = counts;
        let text = |id: &[u8]| uuid::Uuid::from_slice(id).unwrap().to_string();
        let ids = ids.into_iter().map(|(id, account)| (text(&id), account)).collect();
        Ok(Glance { refreshing, revocations, ids })
    }

    /// FLUSHALL. False: there is no Redis.
    pub(crate) async fn flush_redis(&self) -> bool {
        let Self::Servers(servers) = self else { return false };
        let redis = Arc::clone(&servers.redis);
        spawn_blocking(move || redis.flush()).await.is_ok()
    }

    /// Ends it, and starts it again after a while: empty, as it persists nothing. False: there is none.
    pub(crate) async fn restart_redis(&self, away: Duration) -> bool {
        let Self::Servers(servers) = self else { return false };
        let (first, second) = (Arc::clone(&servers.redis), Arc::clone(&servers.redis));
        let gone = spawn_blocking(move || first.kill()).await.is_ok();
        sleep(away).await;
        gone && spawn_blocking(move || second.start_again()).await.is_ok()
    }

    /// Stops its process for a while. False: there is none.
    pub(crate) async fn pause_redis(&self, lasts: Duration) -> bool {
        let Self::Servers(servers) = self else { return false };
        servers.redis.pause();
        sleep(lasts).await;
        servers.redis.resume();
        true
    }

    /// Ends Postgres as a crash does, and starts it again after a while. False: there is none.
    pub(crate) async fn restart_postgres(&self, away: Duration) -> bool {
        let Self::Servers(servers) = self else { return false };
        let (first, second) = (Arc::clone(&servers.postgres), Arc::clone(&servers.postgres));
        let gone = spawn_blocking(move || first.stop(Stop::Immediate)).await.is_ok();
        sleep(away).await;
        gone && spawn_blocking(move || second.start_again()).await.is_ok()
    }

    /// The rows at rest. The replicas have ended.
    pub(crate) async fn rows(&self, site: &Site) -> Vec<Row> {
        match self {
            Self::Sqlite(folder) => {
                let store = SqliteStore::open(&Self::file(folder)).await.unwrap();
                rows::read(Arc::new(store), site).await
            }
            Self::Servers(servers) => {
                let settings = PgSettings {
                    url: servers.url.parse().unwrap(),
                    password: None,
                    max_connections: 2,
                    connect_timeout: Duration::from_secs(5),
                    statement_timeout: Duration::from_secs(5),
                };
                let clock = Arc::new(DatabaseClock::new(Arc::new(SystemClock)));
                let store = PgStore::open(&settings, RowClock::Database, clock).await.unwrap();
                rows::read(Arc::new(store), site).await
            }
        }
    }
}
