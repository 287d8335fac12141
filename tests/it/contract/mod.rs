//! What every store must do, written against the ports. A case is an `async fn(Stores)`; [`contract!`] runs it on every
//! database: another one is one more line in the macro and one more function that opens it empty.

pub(crate) mod coordination;
pub(crate) mod samples;

mod audit_store;
mod caller_store;
mod credential_list;
mod credential_model;
mod credential_store;
mod data_key_store;
mod due;
mod event_store;
mod flow_proof;
mod flow_store;
mod leases;
mod lineage;
mod outbox_store;
mod permit_store;
mod provider_config_store;
mod reencryption;
mod revocation;
mod tenant_store;
mod user_store;
mod wakeups;

pub(crate) use audit_store::rows as audit_rows;
pub(crate) use caller_store::{caller, key as api_key};
pub(crate) use provider_config_store::config as provider_config;

use std::any::Any;
use std::sync::Arc;

use token_broker::domain::audit::AuditStore;
use token_broker::domain::caller_store::{CallerStore, TenantStore};
use token_broker::domain::data_key::{DataKeyStore, ReencryptionStore};
use token_broker::domain::event::EventStore;
use token_broker::domain::ports::{CredentialStore, FlowStore, OutboxStore, StoreHealth};
use token_broker::domain::provider_config::ProviderConfigStore;
use token_broker::infra::storage::postgres::RowClock;
use token_broker::infra::storage::sqlite::SqliteStore;

use crate::engines;
use crate::fakes::MemoryStore;

/// The ports of one empty database.
#[derive(Clone)]
pub(crate) struct Stores {
    pub(crate) credentials: Arc<dyn CredentialStore>,
    pub(crate) flows: Arc<dyn FlowStore>,
    pub(crate) outbox: Arc<dyn OutboxStore>,
    pub(crate) data_keys: Arc<dyn DataKeyStore>,
    pub(crate) reencryption: Arc<dyn ReencryptionStore>,
    pub(crate) events: Arc<dyn EventStore>,
    pub(crate) audit: Arc<dyn AuditStore>,
    pub(crate) health: Arc<dyn StoreHealth>,
    pub(crate) callers: Arc<dyn CallerStore>,
    pub(crate) tenants: Arc<dyn TenantStore>,
    pub(crate) configs: Arc<dyn ProviderConfigStore>,
    /// Deletes the database when dropped.
    _home: Arc<dyn Any + Send + Sync>,
}

/// An empty `SQLite` database.
pub(crate) async fn sqlite() -> Stores {
    let home = tempfile::tempdir().unwrap();
    let store = Arc::new(SqliteStore::open(&home.path().join("broker.db")).await.unwrap());
    Stores {
        credentials: store.clone(),
        flows: store.clone(),
        outbox: store.clone(),
        data_keys: store.clone(),
        reencryption: store.clone(),
        events: store.clone(),
        audit: store.clone(),
        health: store.clone(),
        callers: store.clone(),
        tenants: store.clone(),
        configs: store,
        _home: Arc::new(home),
    }
}

/// An empty database in memory: what the simulations of the protocol run on keeps the same promises.
pub(crate) async fn memory() -> Stores {
    let store = Arc::new(MemoryStore::default());
    Stores {
        credentials: store.clone(),
        flows: store.clone(),
        outbox: store.clone(),
        data_keys: store.clone(),
        reencryption: store.clone(),
        events: store.clone(),
        audit: store.clone(),
        health: store.clone(),
        callers: store.clone(),
        tenants: store.clone(),
        configs: store,
        _home: Arc::new(()),
    }
}

/// An empty `PostgreSQL` database.
pub(crate) async fn postgres() -> Stores {
    let server = engines::postgres::shared();
    let settings = engines::postgres::settings(&server.url(&server.migrated_database().await));
    let store = Arc::new(engines::postgres::open(&settings, RowClock::Caller).await);
    Stores {
        credentials: store.clone(),
        flows: store.clone(),
        outbox: store.clone(),
        data_keys: store.clone(),
        reencryption: store.clone(),
        events: store.clone(),
        audit: store.clone(),
        health: store.clone(),
        callers: store.clone(),
        tenants: store.clone(),
        configs: store,
        _home: Arc::new(()),
    }
}

macro_rules! contract {
    ($($case:ident),+ $(,)?) => {
        $crate::contract::contract!(@on sqlite: $($case),+);
        $crate::contract::contract!(@on postgres: $($case),+);
        $crate::contract::contract!(@on memory: $($case),+);
    };
    (@on $database:ident: $($case:ident),+) => {
        mod $database {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    super::$case($crate::contract::$database().await).await;
                }
            )+
        }
    };
}
pub(crate) use contract;

contract!(answers_a_ping);

async fn answers_a_ping(stores: Stores) {
    stores.health.ping().await.unwrap();
}
