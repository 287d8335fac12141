//! Whether this replica may serve beside others. Every replica holds an advisory lock for as long as it runs: shared where
//! Redis is between the replicas, or the operator wants to do without; exclusive where it has to be the only one.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::open::options;
use super::{PgSettings, PgStore};

/// "tkbr" and a number: which advisory lock.
const LOCK: i64 = 0x746b_6272_0000_0001;
const ALONE: &str = "SELECT pg_try_advisory_lock($1)";
const BESIDE_OTHERS: &str = "SELECT pg_try_advisory_lock_shared($1)";
/// How often the connection that holds the lock is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Why a replica does not start.
#[derive(Debug, thiserror::Error)]
pub enum CompanyError {
    /// Others are there, or want to be alone.
    #[error(
        "another replica serves from this database, and not both of them have Redis: set redis.url for all replicas, or \
         replicas.without_redis = true (the claims in the database keep tokens safe; it costs waiting), or run one replica"
    )]
    NotAlone,
    /// The database did not say.
    #[error("the database did not say whether other replicas serve from it: {0}")]
    Unknown(#[source] sqlx::Error),
}

/// This replica among the others.
pub struct Company {
    keeper: JoinHandle<()>,
    connection: Arc<Mutex<Option<PgConnection>>>,
}

impl PgStore {
    /// Takes the replica's place. `alone`: it must be the only one.
    pub async fn join(&self, settings: &PgSettings, alone: bool) -> Result<Company, CompanyError> {
        let sql = if alone { ALONE } else { BESIDE_OTHERS };
        let connection = hold(settings, sql).await?;
        let connection = Arc::new(Mutex::new(Some(connection)));
        let (held, settings) = (Arc::clone(&connection), settings.clone());
        let keeper = tokio::spawn(async move {
            loop {
                sleep(LOOK_EVERY).await;
                keep(&held, &settings, sql).await;
            }
        });
        Ok(Company { keeper, connection })
    }
}

impl Company {
    /// Gives the place up.
    pub async fn leave(&self) {
        self.keeper.abort();
        if let Some(connection) = self.connection.lock().await.take() {
            // The server lets go of the lock with the connection, however that ends.
            let _ = connection.close().await;
        }
    }
}

impl Drop for Company {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

async fn hold(settings: &PgSettings, sql: &'static str) -> Result<PgConnection, CompanyError> {
    let (_, options) =
        options(settings).map_err(|error| CompanyError::Unknown(sqlx::Error::Configuration(error.into())))?;
    let mut connection = options.connect().await.map_err(CompanyError::Unknown)?;
    let held: bool =
        sqlx::query_scalar(sql).bind(LOCK).fetch_one(&mut connection).await.map_err(CompanyError::Unknown)?;
    if held { Ok(connection) } else { Err(CompanyError::NotAlone) }
}

/// The lock goes with its connection, and comes back with a new one. A replica that serves can't be refused any more: that
/// another one came meanwhile is said, again and again.
async fn keep(held: &Mutex<Option<PgConnection>>, settings: &PgSettings, sql: &'static str) {
    let mut held = held.lock().await;
    if let Some(connection) = held.as_mut()
        && connection.ping().await.is_ok()
    {
        return;
    }
    *held = None;
    match hold(settings, sql).await {
        Ok(connection) => *held = Some(connection),
        Err(error @ CompanyError::NotAlone) => tracing::error!("{error}"),
        // The database is away, which is said elsewhere.
        Err(CompanyError::Unknown(_)) => {}
    }
}
