//! ImportCredential: stores tokens obtained elsewhere.

use std::time::Duration;

use super::Broker;
use super::error::{BrokerError, Precondition, Violation};
use super::list_credentials::view;
use super::sealing::{PlainTokens, Profile};
use super::types::{CredentialView, ImportInput};
use crate::domain::access_policy::{Action, Principal};
use crate::domain::key::{CredentialId, GrantId};
use crate::domain::ports::{GrantCondition, NewGrant, ProviderStanding, StoreError, StoredGrant};
use crate::domain::provider::Provider;
use crate::domain::token_set::AccessLife;

/// How often an import is sealed, should its user be deleted each time.
const SEALED_AGAIN: u32 = 3;

impl Broker {
    /// Stores tokens obtained elsewhere.
    pub async fn import_credential(
        &self,
        principal: &Principal,
        input: ImportInput,
    ) -> Result<CredentialView, BrokerError> {
        let target = self.target(principal, Action::ImportCredential, input.key, &input.scopes).await?;
        let now = self.ports.clock.now();
        if input.refresh_token.is_none() && input.expires_at.is_some_and(|end| end <= now) {
            return Err(BrokerError::InvalidArgument(vec![Violation::new(
                "expire_time",
                "An access token that has expired is of no use without a refresh token.",
            )]));
        }
        let life = match input.expires_at {
            Some(end) if end <= now => AccessLife { obtained_at: end, expires_at: Some(end) },
            Some(end) => {
                // Through the lifetime, so that an end beyond all reason is cut like a provider's.
                let left = Duration::try_from(end.duration_since(now)).unwrap_or_default();
                AccessLife::starting(now, Some(left))
            }
            None => AccessLife::starting(now, target.provider.response.default_lifetime),
        };
        let scopes_assumed = input.scopes.is_empty();
        let scopes = if scopes_assumed { target.service_scopes.clone() } else { input.scopes };
        let profile = Profile::new(input.account, input.extra);
        let condition =
            if input.overwrite { GrantCondition::Overwrite } else { GrantCondition::NotConnected };
        for _ in 0..SEALED_AGAIN {
            let grant_id = GrantId::from_random(self.random());
            let sealer = self.ports.cipher.sealer(&target.key, None).await?;
            let plain = PlainTokens {
                access_token: &input.access_token,
                refresh_token: input.refresh_token.as_ref(),
                token_type: input.token_type.clone(),
                life,
                scopes: scopes.clone(),
                scopes_assumed,
                profile: profile.clone(),
            };
            let tokens = self.seal_grant(&*sealer, &target.provider, (&target.key, grant_id), plain).await?;
            let grant = NewGrant {
                id_if_new: CredentialId::from_random(self.random()),
                key: target.key.clone(),
                grant_id,
                configuration: target.provider.configuration(),
                tokens,
                user_key: Some(sealer.user_key()),
                condition,
                now,
            };
            match self.ports.credentials.store_grant(grant).await? {
                StoredGrant::Stored(row) => {
                    self.tell_watches(&row.key.tenant);
                    return self.view_opened(&row).await;
                }
                StoredGrant::ConditionFailed => {
                    return Err(BrokerError::FailedPrecondition(Precondition::CredentialExists));
                }
                // The user was deleted in this moment, and is a new one from here on, with another key.
                StoredGrant::KeyDeleted => {}
            }
        }
        Err(StoreError::Unavailable("the user's key is deleted again and again".into()).into())
    }

    /// The row as lists show it, with its account.
    pub(super) async fn view_opened(
        &self,
        row: &crate::domain::credential::Credential,
    ) -> Result<CredentialView, BrokerError> {
        let provider = self.provider_of(row).await?.and_then(ProviderStanding::known);
        self.view_at(row, provider.as_deref()).await
    }

    /// The same of a row whose provider is known; `None`: it is not configured.
    pub(super) async fn view_at(
        &self,
        row: &crate::domain::credential::Credential,
        provider: Option<&Provider>,
    ) -> Result<CredentialView, BrokerError> {
        let tokens = row.tokens().ok_or(BrokerError::Internal)?;
        let (account, _) = self.open_profile(row, tokens).await?.account();
        view(row, provider, account, self.ports.clock.now()).ok_or(BrokerError::Internal)
    }
}
