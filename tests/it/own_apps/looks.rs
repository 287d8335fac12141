//! How often the database is asked whose app is whose.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use token_broker::domain::key::{ConfigId, ProviderId, TenantId};
use token_broker::domain::ports::{ProviderDirectory as _, StoreError};
use token_broker::domain::provider_config::{
    ClientAuthentication, ConfigWrite, DueConfig, ProviderConfig, ProviderConfigStore,
};
use token_broker::domain::secret::SecretBytes;
use token_broker::infra::crypto::{KeyEncryptionKey, Keyring, Vault};
use token_broker::infra::providers::{Catalogue, ConfiguredProviders, TenantProviders};
use token_broker::infra::system::SystemEntropy;

use crate::contract::samples::{provider, tenant};
use crate::contract::{provider_config, sqlite};
use crate::support::clock::ManualClock;

const TTL: Duration = Duration::from_secs(5);

/// Counts the looks.
struct Counted {
    store: Arc<dyn ProviderConfigStore>,
    looks: AtomicU32,
}

impl Counted {
    fn looks(&self) -> u32 {
        self.looks.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl ProviderConfigStore for Counted {
    async fn list_provider_configs(
        &self,
        tenant: &TenantId,
        after: Option<&ProviderId>,
        limit: u32,
    ) -> Result<Vec<ProviderConfig>, StoreError> {
        self.looks.fetch_add(1, Ordering::Relaxed);
        self.store.list_provider_configs(tenant, after, limit).await
    }

    async fn load_provider_config(
        &self,
        tenant: &TenantId,
        provider: &ProviderId,
    ) -> Result<Option<ProviderConfig>, StoreError> {
        self.store.load_provider_config(tenant, provider).await
    }

    async fn insert_provider_config(&self, config: ProviderConfig) -> Result<ConfigWrite, StoreError> {
        self.store.insert_provider_config(config).await
    }

    async fn update_provider_config(&self, config: ProviderConfig) -> Result<ConfigWrite, StoreError> {
        self.store.update_provider_config(config).await
    }

    async fn delete_provider_config(
        &self,
        tenant: &TenantId,
        provider: &ProviderId,
        force: bool,
    ) -> Result<ConfigWrite, StoreError> {
        self.store.delete_provider_config(tenant, provider, force).await
    }

    async fn due_provider_configs(&self, now: Timestamp, limit: u32) -> Result<Vec<DueConfig>, StoreError> {
        self.store.due_provider_configs(now, limit).await
    }
}

#[tokio::test]
async fn what_is_known_of_a_tenant_is_read_once_in_the_cache_time_and_so_is_what_is_gone() {
    let stores = sqlite().await;
    let clock = Arc::new(ManualClock::new());
    let counted = Arc::new(Counted { store: stores.configs.clone(), looks: AtomicU32::new(0) });
    let kek = KeyEncryptionKey::new("k1", SecretBytes::new(vec![1; 32])).unwrap();
    let keyring = Keyring::new(vec![kek], "k1").unwrap();
    let vault = Vault::new(keyring, stores.data_keys.clone(), Arc::new(SystemEntropy), clock.clone());
    let providers = TenantProviders::new(
        (Catalogue::load(&[]).unwrap(), ConfiguredProviders::of([])),
        counted.clone(),
        Arc::new(vault),
        clock.clone(),
        Box::new(|_| Vec::new()),
        TTL,
    );
    let (acme, google) = (tenant("acme"), provider("google"));
    let standing = async |id: u8| {
        let id = Some(ConfigId::from_bytes([id; 16]));
        providers.of_configuration(&acme, &google, id).await.unwrap()
    };
    // Nobody has any: of the tenant one look, and one more for each app that rows name and nobody knows.
    for _ in 0..50 {
        assert!(providers.current(&acme, &google).await.unwrap().is_none());
        assert!(standing(1).await.is_none());
    }
    assert_eq!(counted.looks(), 2);
    assert!(standing(2).await.is_none());
    assert_eq!(counted.looks(), 3);
    // What another replica makes is found at once when it is named for the first time.
    let mine = ProviderConfig {
        client_id: "app".to_owned(),
        variables: [].into(),
        authentication: ClientAuthentication::default(),
        disabled_at: None,
        ..provider_config("acme", "google", 3)
    };
    stores.configs.insert_provider_config(mine).await.unwrap();
    for _ in 0..50 {
        assert!(standing(3).await.is_some());
    }
    assert_eq!(counted.looks(), 4);
    // After the cache time all is read again, once.
    clock.advance(TTL * 3);
    for _ in 0..50 {
        assert!(standing(3).await.is_some());
        assert!(standing(1).await.is_none());
    }
    assert_eq!(counted.looks(), 6);
}
