//! The database behind the storage ports, whichever it is.

use std::sync::Arc;

use crate::domain::audit::AuditStore;
use crate::domain::caller_store::{CallerStore, TenantStore};
use crate::domain::data_key::{DataKeyStore, ReencryptionStore};
use crate::domain::event::EventStore;
use crate::domain::ports::{CredentialStore, FlowStore, OutboxStore, StoreHealth};
use crate::domain::provider_config::ProviderConfigStore;
use crate::infra::storage::postgres::{Company, PgStore};
use crate::infra::storage::sqlite::SqliteStore;

/// An open database.
#[derive(Clone)]
pub(crate) enum Database {
    /// The embedded one.
    Sqlite(SqliteStore),
    /// A server, with what tells other replicas of this one.
    Postgres(PgStore, Arc<Company>),
}

/// One store in all of its roles.
pub(super) struct Roles {
    pub(super) credentials: Arc<dyn CredentialStore>,
    pub(super) flows: Arc<dyn FlowStore>,
    pub(super) outbox: Arc<dyn OutboxStore>,
    pub(super) events: Arc<dyn EventStore>,
    pub(super) data_keys: Arc<dyn DataKeyStore>,
    pub(super) audit: Arc<dyn AuditStore>,
    pub(super) reencryption: Arc<dyn ReencryptionStore>,
    pub(super) health: Arc<dyn StoreHealth>,
    pub(super) callers: Arc<dyn CallerStore>,
    pub(super) tenants: Arc<dyn TenantStore>,
    pub(super) provider_configs: Arc<dyn ProviderConfigStore>,
}

impl Database {
    pub(super) fn roles(&self) -> Roles {
        match self {
            Self::Sqlite(store) => roles(store),
            Self::Postgres(store, _) => roles(store),
        }
    }

    /// Whether it answers.
    pub(super) fn health(&self) -> Arc<dyn StoreHealth> {
        self.roles().health
    }

    /// Ends it in order: statements under way are waited for.
    pub(crate) async fn close(&self) {
        match self {
            Self::Sqlite(store) => store.close().await,
            Self::Postgres(store, company) => {
                company.leave().await;
                store.close().await;
            }
        }
    }
}

fn roles<S>(store: &S) -> Roles
where
    S: CredentialStore
        + FlowStore
        + OutboxStore
        + EventStore
        + DataKeyStore
        + AuditStore
        + CallerStore
        + TenantStore
        + ReencryptionStore
        + StoreHealth
        + ProviderConfigStore
        + Clone
        + 'static,
{
    let shared = Arc::new(store.clone());
    Roles {
        credentials: shared.clone(),
        flows: shared.clone(),
        outbox: shared.clone(),
        events: shared.clone(),
        data_keys: shared.clone(),
        audit: shared.clone(),
        reencryption: shared.clone(),
        health: shared.clone(),
        callers: shared.clone(),
        tenants: shared.clone(),
        provider_configs: shared,
    }
}
