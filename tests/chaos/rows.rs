//! The rows at rest, opened with the run's own vault key: which of the provider's tokens are stored.

use std::sync::Arc;

use token_broker::domain::cipher::{Binding, Cipher as _, Field};
use token_broker::domain::credential::{Credential, CredentialState};
use token_broker::domain::data_key::DataKeyStore;
use token_broker::domain::key::TenantId;
use token_broker::domain::ports::{CredentialStore, ListQuery};
use token_broker::domain::scope::ScopeSet;
use token_broker::domain::secret::SecretBytes;
use token_broker::infra::crypto::{KeyEncryptionKey, Keyring, Vault};
use token_broker::infra::system::{SystemClock, SystemEntropy};

use crate::history::{GrantNo, Issue, Row, RowState};
use crate::provider::token_names;
use crate::site::{Site, TENANT};

/// All rows but those that are revoked: they have no tokens.
pub(crate) async fn read<S: CredentialStore + DataKeyStore + 'static>(
    store: Arc<S>,
    site: &Site,
) -> Vec<Row> {
    let key = KeyEncryptionKey::new("chaos", SecretBytes::new(site.vault_key.clone())).unwrap();
    let keyring = Keyring::new(vec![key], "chaos").unwrap();
    let vault = Vault::new(keyring, store.clone(), Arc::new(SystemEntropy), Arc::new(SystemClock));
    let mut query = ListQuery {
        tenant: TenantId::new(TENANT).unwrap(),
        user: None,
        among: None,
        providers: None,
        covering: ScopeSet::default(),
        after: None,
        limit: 100,
    };
    let mut rows = Vec::new();
    loop {
        let page = store.list(query.clone()).await.unwrap();
        let Some(last) = page.last() else { return rows };
        query.after = Some(last.key.clone());
        for credential in &page {
            rows.push(row(credential, &vault).await);
        }
    }
}

async fn row(credential: &Credential, vault: &Vault) -> Row {
    let state = match credential.state {
        CredentialState::Active { .. } => RowState::Active,
        CredentialState::Refreshing { .. } => RowState::Refreshing,
        CredentialState::NeedsReauth { .. } => RowState::NeedsReauth,
        CredentialState::Revoked => RowState::Revoked,
    };
    let open = async |field, sealed: Option<&token_broker::domain::credential::Sealed>| {
        let binding = Binding { key: &credential.key, grant: credential.grant_id, field };
        let plain = vault.open(binding, sealed?).await.ok()?;
        token_names(std::str::from_utf8(plain.expose_secret()).ok()?)
    };
    let tokens = credential.tokens();
    let refresh: Option<(GrantNo, Issue)> =
        open(Field::RefreshToken, tokens.and_then(|t| t.refresh.as_ref()).map(|r| &r.sealed)).await;
    let access = open(Field::AccessToken, tokens.map(|t| &t.access_sealed)).await;
    Row {
        credential: credential.key.account.as_str().parse().unwrap(),
        state,
        generation: credential.generation,
        refresh,
        access,
    }
}
