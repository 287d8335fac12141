//! A database with rows, vaults over it as several replicas would have them, and the use cases of keys.

use std::sync::Arc;
use std::time::Duration;

use token_broker::application::keys::{KeyPorts, KeySettings, Keys, KeysQuery, Whose};
use token_broker::domain::access_policy::{Caller, Principal};
use token_broker::domain::admin_policy::{AdminAction, AdminRights};
use token_broker::domain::cipher::{Binding, Cipher as _, CipherError, Field};
use token_broker::domain::credential::Sealed;
use token_broker::domain::data_key::{
    DataKeyId, DataKeyPurpose, KeyKeeper as _, Reencryption, ReencryptionStore, SealedTable,
};
use token_broker::domain::key::{CallerId, CredentialKey, GrantId, TenantId};
use token_broker::domain::secret::SecretBytes;
use token_broker::infra::crypto::{KeyEncryptionKey, Keyring, Vault};
use token_broker::infra::system::SystemEntropy;

use crate::contract::samples::{flow, key, new_grant, owner, revocation, tenant};
use crate::contract::{self, Stores};
use crate::support::clock::ManualClock;

pub(super) const RETIRE_AFTER: Duration = Duration::from_hours(25);

pub(super) struct World {
    pub(super) stores: Stores,
    pub(super) clock: Arc<ManualClock>,
    pub(super) vault: Arc<Vault>,
    pub(super) keys: Arc<Keys>,
}

pub(super) fn kek(id: &str, first: u8) -> KeyEncryptionKey {
    KeyEncryptionKey::new(id, SecretBytes::new((first..first + 32).collect())).unwrap()
}

/// Looks after the keys of every tenant.
pub(super) fn operator() -> Principal {
    principal("acme", AdminRights { actions: [AdminAction::ManageKeys].into(), all_tenants: true })
}

pub(super) fn principal(tenant_name: &str, admin: AdminRights) -> Principal {
    Principal::from(Caller {
        id: CallerId::new("ops").unwrap(),
        tenant: tenant(tenant_name),
        rules: Vec::new(),
        suspension: None,
        admin,
    })
}

impl World {
    pub(super) async fn new() -> Self {
        Self::over(contract::sqlite().await, Keyring::new(vec![kek("k1", 1)], "k1").unwrap())
    }

    pub(super) fn over(stores: Stores, keyring: Keyring) -> Self {
        let clock = Arc::new(ManualClock::new());
        let vault = Arc::new(vault(&stores, keyring, &clock));
        let keys = keys(&stores, &vault, &clock, 1, stores.reencryption.clone());
        Self { stores, clock, vault, keys }
    }

    /// Another replica's vault, with nothing in memory.
    pub(super) fn replica(&self) -> Arc<Vault> {
        Arc::new(vault(&self.stores, Keyring::new(vec![kek("k1", 1)], "k1").unwrap(), &self.clock))
    }

    /// The use cases of another replica.
    pub(super) fn keys_of(&self, vault: &Arc<Vault>, number: u32) -> Arc<Keys> {
        keys(&self.stores, vault, &self.clock, number, self.stores.reencryption.clone())
    }

    /// Credentials, a flow and a revocation for each of `count` users, sealed by the vault.
    pub(super) async fn populate(&self, count: u32) {
        for n in 1..=count {
            self.user(n).await;
        }
    }

    pub(super) async fn user(&self, n: u32) {
        let key = key(&format!("user-{n}"));
        let mut grant = new_grant(key.clone(), n);
        let id = grant.grant_id;
        let seal = async |field, text: &str| seal(&self.vault, &key, id, field, text).await;
        grant.tokens.access_sealed = seal(Field::AccessToken, &format!("access {n}")).await;
        grant.tokens.profile_sealed = seal(Field::Profile, "{}").await;
        grant.tokens.refresh.as_mut().unwrap().sealed = seal(Field::RefreshToken, "refresh").await;
        self.stores.stored(grant).await;
        let mut flow = flow(key.clone(), n, 0);
        flow.secrets_sealed = seal(Field::FlowSecrets, "secrets").await;
        self.stores.begun(&flow).await;
        let mut revocation = revocation(key.clone(), n, 0);
        revocation.access_sealed = seal(Field::AccessToken, "revoked").await;
        revocation.refresh_sealed = Some(seal(Field::RefreshToken, "revoked").await);
        self.stores.outbox.enqueue_revocation(revocation).await.unwrap();
    }

    pub(super) async fn active(&self, tenant: &TenantId) -> DataKeyId {
        let found = self.stores.data_keys.newest_data_key(tenant, DataKeyPurpose::Encryption).await;
        found.unwrap().unwrap().id
    }

    pub(super) async fn state(&self) -> Reencryption {
        self.stores.reencryption.reencryption().await.unwrap()
    }

    /// Works until nothing is asked for any more; time goes on as the work says, and faster.
    pub(super) async fn work(&self, keys: &Keys) {
        for _ in 0..10_000 {
            if self.state().await.requested_at.is_none() {
                return;
            }
            keys.work().await;
            self.clock.advance(Duration::from_secs(1));
        }
        panic!("the work does not end: {:?}", self.state().await);
    }

    /// The data keys that any row's ciphertexts were made with.
    pub(super) async fn in_use(&self) -> std::collections::BTreeSet<DataKeyId> {
        let mut found = std::collections::BTreeSet::new();
        for table in SealedTable::ALL {
            let rows = self.stores.reencryption.sealed_rows(table, None, 10_000).await.unwrap();
            for row in rows {
                found.extend(row.fields.iter().map(|(_, sealed)| self.vault.made_with(sealed).unwrap()));
            }
        }
        found
    }

    /// Every ciphertext of every row opens in its place.
    pub(super) async fn all_open(&self, vault: &Vault) -> usize {
        let mut opened = 0;
        for table in SealedTable::ALL {
            let rows = self.stores.reencryption.sealed_rows(table, None, 10_000).await.unwrap();
            for row in rows {
                for (field, sealed) in &row.fields {
                    let binding = Binding { key: &row.key, grant: row.grant_id, field: *field };
                    vault.open(binding, sealed).await.unwrap();
                    opened += 1;
                }
            }
        }
        opened
    }

    pub(super) async fn status(&self) -> token_broker::application::keys::KeysPage {
        let query = KeysQuery { whose: Whose::All, after: None, limit: 100 };
        self.keys.status(&operator(), &query).await.unwrap()
    }
}

pub(super) fn vault(stores: &Stores, keyring: Keyring, clock: &Arc<ManualClock>) -> Vault {
    Vault::new(keyring, stores.data_keys.clone(), Arc::new(SystemEntropy), clock.clone())
}

pub(super) fn keys(
    stores: &Stores,
    vault: &Arc<Vault>,
    clock: &Arc<ManualClock>,
    number: u32,
    rows: Arc<dyn ReencryptionStore>,
) -> Arc<Keys> {
    let ports =
        KeyPorts { clock: clock.clone(), keeper: vault.clone(), data_keys: stores.data_keys.clone(), rows };
    let settings = KeySettings { rows_per_second: 1000, retire_after: RETIRE_AFTER };
    Arc::new(Keys::new(ports, settings, owner(number)))
}

pub(super) async fn seal(
    vault: &Vault,
    key: &CredentialKey,
    grant: GrantId,
    field: Field,
    text: &str,
) -> Sealed {
    let plaintext = SecretBytes::new(text.as_bytes().to_vec());
    vault.seal(Binding { key, grant, field }, &plaintext).await.unwrap()
}

pub(super) async fn open(
    vault: &Vault,
    key: &CredentialKey,
    grant: GrantId,
    field: Field,
    sealed: &Sealed,
) -> Result<String, CipherError> {
    let opened = vault.open(Binding { key, grant, field }, sealed).await?;
    Ok(String::from_utf8(opened.expose_secret().to_vec()).unwrap())
}
