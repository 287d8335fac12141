//! Tokens that the broker obtained and can't keep are revoked: a grant that nobody can use must not live on at the
//! provider.

use std::sync::Arc;

use super::Broker;
use super::error::BrokerError;
use super::metrics;
use super::sealing::seal_text;
use crate::domain::cipher::{Binding, Field};
use crate::domain::key::{CredentialKey, GrantId, OutboxId};
use crate::domain::ports::PendingRevocation;
use crate::domain::provider::Provider;
use crate::domain::secret::SecretString;

/// An access token, with the refresh token that came with it.
pub(super) type Pair = (SecretString, Option<SecretString>);

impl Broker {
    /// Revokes tokens that no row holds. Durable if the database answers and the user's data was not deleted; else the
    /// provider is told at once, once.
    pub(super) async fn revoke_orphan(
        self: &Arc<Self>,
        provider: &Provider,
        key: &CredentialKey,
        grant: GrantId,
        access_token: &SecretString,
        refresh_token: Option<&SecretString>,
    ) {
        if !provider.supports_revocation() {
            tracing::warn!(provider = %provider.id, "tokens that can't be kept can't be revoked at this provider either");
            return;
        }
        match self.enqueue_orphan(provider, key, grant, access_token, refresh_token).await {
            Ok(Some(id)) => {
                self.attempt_revocation(id).await;
                return;
            }
            // For a revocation alone a deleted user is given no key again.
            Ok(None) => tracing::info!("the user was deleted meanwhile; telling the provider directly"),
            Err(error) => {
                tracing::error!(%error, "a revocation could not be stored; telling the provider directly");
            }
        }
        let result = self.ports.oauth.revoke(provider, access_token, refresh_token).await;
        let outcome = if result.is_ok() { "orphan_revoked" } else { "orphan_lost" };
        metrics::revocation(provider, outcome);
        self.audit_revocation(key, result.is_ok(), outcome);
        if let Err(failure) = result {
            tracing::error!(provider = %provider.id, %failure, "a grant that nobody can use lives on");
        }
    }

    async fn enqueue_orphan(
        &self,
        provider: &Provider,
        key: &CredentialKey,
        grant: GrantId,
        access_token: &SecretString,
        refresh_token: Option<&SecretString>,
    ) -> Result<Option<OutboxId>, BrokerError> {
        let Some(sealer) = self.ports.cipher.existing_sealer(key).await? else { return Ok(None) };
        let seal = |field, text| seal_text(&*sealer, Binding { key, grant, field }, text);
        let refresh_sealed = refresh_token.map(|token| seal(Field::RefreshToken, token)).transpose()?;
        let access_sealed = seal(Field::AccessToken, access_token)?;
        let now = self.ports.clock.now();
        let id = OutboxId::from_random(self.random());
        let revocation = PendingRevocation {
            id,
            key: key.clone(),
            grant_id: grant,
            configuration: provider.configuration(),
            access_sealed,
            refresh_sealed,
            attempts: 0,
            created_at: now,
            next_attempt_at: now,
        };
        self.ports.outbox.enqueue_revocation(revocation).await?;
        Ok(Some(id))
    }
}
