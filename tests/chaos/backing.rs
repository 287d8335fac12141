//! What the replicas stand on: private servers of Postgres and Redis, or one file of SQLite for a single replica.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sqlx::Connection as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use tempfile::TempDir;
use token_broker::infra::storage::sqlite::SqliteStore;

use crate::history::Row;
use crate::rows;
use crate::site::Site;

/// The store and the permit store.
pub(crate) enum Backing {
    /// One process, one file.
    Sqlite(TempDir),
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

const GLANCE: &str = "SELECT (SELECT count(*) FROM credentials WHERE status = 'refreshing'),
    (SELECT count(*) FROM revocations WHERE finished_at IS NULL)";

impl Backing {
    pub(crate) fn sqlite() -> Self {
        Self::Sqlite(tempfile::tempdir().unwrap())
    }

    fn file(folder: &TempDir) -> PathBuf {
        folder.path().join("chaos.db")
    }

    /// The part of a replica's configuration.
    pub(crate) fn settings(&self, _replica: usize) -> String {
        match self {
            Self::Sqlite(folder) => format!("[storage]\npath = \"{}\"\n", Self::file(folder).display()),
        }
    }

    /// Looks at the rows past the brokers.
    pub(crate) async fn glance(&self) -> Result<Glance, sqlx::Error> {
        match self {
            Self::Sqlite(folder) => {
                let options = SqliteConnectOptions::new().filename(Self::file(folder)).read_only(true);
                let mut connection = SqliteConnection::connect_with(&options).await?;
                let (refreshing, revocations) = sqlx::query_as(GLANCE).fetch_one(&mut connection).await?;
                let ids: Vec<(Vec<u8>, String)> =
                    sqlx::query_as("SELECT id, account FROM credentials").fetch_all(&mut connection).await?;
                connection.close().await?;
                let ids = ids.into_iter().map(|(id, account)| (uuid_text(&id), account)).collect();
                Ok(Glance { refreshing, revocations, ids })
            }
        }
    }

    /// FLUSHALL. False: there is no Redis.
    pub(crate) async fn flush_redis(&self) -> bool {
        match self {
            Self::Sqlite(_) => false,
        }
    }

    /// Ends it, and starts it again after a while. False: there is none.
    pub(crate) async fn restart_redis(&self, _away: Duration) -> bool {
        match self {
            Self::Sqlite(_) => false,
        }
    }

    /// Stops its process for a while. False: there is none.
    pub(crate) async fn pause_redis(&self, _lasts: Duration) -> bool {
        match self {
            Self::Sqlite(_) => false,
        }
    }

    /// Ends Postgres as a crash does, and starts it again after a while. False: there is none.
    pub(crate) async fn restart_postgres(&self, _away: Duration) -> bool {
        match self {
            Self::Sqlite(_) => false,
        }
    }
}

fn uuid_text(id: &[u8]) -> String {
    uuid::Uuid::from_slice(id).unwrap().to_string()
}

/// The rows at rest. The replicas have ended.
pub(crate) async fn rows(backing: &Backing, site: &Site) -> Vec<Row> {
    match backing {
        Backing::Sqlite(folder) => {
            let store = SqliteStore::open(&Backing::file(folder)).await.unwrap();
            rows::read(Arc::new(store), site).await
        }
    }
}
