//! The audit log: each decision has one row, no row can be changed unseen, and what happens when rows can't be written is
//! what the operator chose.

mod admin;
mod calls;
mod chains;
mod crash;
mod files;
mod log;
mod replicas;
mod retention;
mod scripted;
mod tampering;

use std::sync::Arc;
use std::time::Duration;

use sqlx::{ConnectOptions as _, Connection as _};
use token_broker::application::audit::{AuditArchive, AuditLog, AuditSettings, OnFailure};
use token_broker::domain::audit::{AuditSealer, AuditSink, AuditStore, Entry, Outcome, Row};
use token_broker::domain::data_key::DataKeyStore;
use token_broker::domain::key::TenantId;
use token_broker::domain::ports::Clock as _;
use token_broker::domain::secret::SecretBytes;
use token_broker::infra::crypto::{KeyEncryptionKey, Keyring, Vault};
use token_broker::infra::storage::sqlite::SqliteStore;
use token_broker::infra::system::SystemEntropy;

use crate::support::clock::ManualClock;

/// Longer than any answer should wait.
const LONG: AuditSettings =
    AuditSettings { on_failure: OnFailure::Refuse, wait: Duration::from_secs(60), queue: 10_000 };
/// For tests in which answers are refused; long enough for a commit on a busy machine.
const SHORT: AuditSettings =
    AuditSettings { on_failure: OnFailure::Refuse, wait: Duration::from_secs(2), queue: 10_000 };

fn tenant() -> TenantId {
    TenantId::new("acme").unwrap()
}

fn entry(request: &str) -> Entry {
    entry_of(tenant(), request)
}

fn entry_of(tenant: TenantId, request: &str) -> Entry {
    let clock = ManualClock::new();
    let mut entry = Entry::new(clock.now(), tenant, "GetCredential", Outcome::Allowed);
    entry.request_id = Some(request.to_owned());
    entry
}

/// How long something is waited for. A limit for broken code, never waited for in a test that passes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until something is so that nobody tells of; every other wait is for an event.
async fn until(mut so: impl AsyncFnMut() -> bool) {
    let look = async {
        while !so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, look).await.expect("it comes about");
}

fn vault(keys: Arc<dyn DataKeyStore>) -> Arc<Vault> {
    let key = KeyEncryptionKey::new("k1", SecretBytes::new(vec![7; 32])).unwrap();
    let keyring = Keyring::new(vec![key], "k1").unwrap();
    Arc::new(Vault::new(keyring, keys, Arc::new(SystemEntropy), Arc::new(ManualClock::new())))
}

/// A database with an archive over it.
struct World {
    store: SqliteStore,
    sealer: Arc<dyn AuditSealer>,
    clock: Arc<ManualClock>,
    home: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&home.path().join("broker.db")).await.unwrap();
        let sealer = vault(Arc::new(store.clone()));
        Self { store, sealer, clock: Arc::new(ManualClock::new()), home }
    }

    fn log(&self, settings: AuditSettings, sinks: Vec<Arc<dyn AuditSink>>) -> Arc<AuditLog> {
        self.log_over(Arc::new(self.store.clone()), settings, sinks)
    }

    fn log_over(
        &self,
        store: Arc<dyn AuditStore>,
        settings: AuditSettings,
        sinks: Vec<Arc<dyn AuditSink>>,
    ) -> Arc<AuditLog> {
        self.log_by(store, self.sealer.clone(), settings, sinks)
    }

    fn log_by(
        &self,
        store: Arc<dyn AuditStore>,
        sealer: Arc<dyn AuditSealer>,
        settings: AuditSettings,
        sinks: Vec<Arc<dyn AuditSink>>,
    ) -> Arc<AuditLog> {
        AuditLog::start(store, sealer, sinks, self.clock.clone(), settings)
    }

    fn archive(&self, log: &Arc<AuditLog>) -> AuditArchive {
        let keep = Some(Duration::from_secs(7 * 24 * 3600));
        let store = Arc::new(self.store.clone());
        AuditArchive::new(store, self.sealer.clone(), log.clone(), self.clock.clone(), keep)
    }

    async fn rows(&self) -> Vec<Row> {
        self.store.audit_after(&tenant(), 0, 10_000).await.unwrap()
    }

    async fn requests(&self) -> Vec<String> {
        self.rows().await.into_iter().filter_map(|row| row.entry.request_id).collect()
    }
}

/// What somebody with the database does behind the broker's back.
async fn tamper(world: &World, sql: &str) -> Result<(), sqlx::Error> {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(world.store.path());
    let mut connection = options.connect().await?;
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(&mut connection).await?;
    connection.close().await
}
