//! Permission first, existence second: what a caller's key names, if the caller may know.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::Broker;
use super::error::{BrokerError, NotFound, Precondition};
use super::types::ServiceKey;

use crate::domain::access_policy::{Action, Decision, Principal, Question};
use crate::domain::cipher::CipherError;
use crate::domain::credential::Credential;
use crate::domain::key::{CredentialKey, ProviderId, ServiceId};
use crate::domain::ports::ProviderStanding;
use crate::domain::provider::{Provider, Service};
use crate::domain::refresh_policy::RefreshPolicy;
use crate::domain::scope::ScopeSet;

/// A permitted key, resolved.
pub(super) struct Target {
    pub(super) provider: Arc<Provider>,
    pub(super) key: CredentialKey,
    /// As the caller asked for it.
    pub(super) asked: ServiceKey,
    /// What the service itself needs.
    pub(super) service_scopes: ScopeSet,
}

/// Refuses what no rule allows. The answer does not depend on what exists.
pub(super) fn permit(principal: &Principal, question: &Question<'_>) -> Result<(), BrokerError> {
    let decision = principal.decide(question);
    tracing::debug!(action = question.action.name(), %decision, "policy");
    match decision {
        Decision::Allowed { .. } => Ok(()),
        Decision::Denied => Err(BrokerError::PermissionDenied),
    }
}

impl ServiceKey {
    /// Whether this may be done with it.
    #[must_use]
    pub fn question(&self, action: Action) -> Question<'_> {
        Question::about(action, &self.provider, [&self.service], &self.user)
    }
}

impl Broker {
    /// The target of a call that names a service, and these scopes beside it.
    pub(super) async fn target(
        &self,
        principal: &Principal,
        action: Action,
        asked: ServiceKey,
        scopes: &ScopeSet,
    ) -> Result<Target, BrokerError> {
        permit(principal, &asked.question(action).asking(scopes))?;
        let provider = match action {
            // What gives up access is possible at a provider that is disabled, too.
            Action::Revoke | Action::ReleaseLease => self.known_provider(principal, &asked.provider).await?,
            _ => self.provider(principal, &asked.provider).await?,
        };
        let service = service(&provider, &asked.service)?;
        let service_scopes = service.scopes.clone();
        let key = CredentialKey {
            tenant: principal.tenant().clone(),
            provider: asked.provider.clone(),
            user: asked.user.clone(),
            grant: service.grant.clone(),
            account: asked.account.clone(),
        };
        Ok(Target { provider, key, asked, service_scopes })
    }

    /// The services that a key's token is for, whatever its scopes. Without a provider definition they are unknown.
    pub(super) async fn services_of(&self, key: &CredentialKey) -> Result<BTreeSet<ServiceId>, BrokerError> {
        let standing = self.ports.providers.current(&key.tenant, &key.provider).await?;
        Ok(services_at(standing.and_then(ProviderStanding::known).as_deref(), key))
    }

    /// A provider of the caller's tenant, to be used now.
    pub(super) async fn provider(
        &self,
        principal: &Principal,
        id: &ProviderId,
    ) -> Result<Arc<Provider>, BrokerError> {
        match self.ports.providers.current(principal.tenant(), id).await? {
            Some(ProviderStanding::Ready(provider)) => Ok(provider),
            Some(ProviderStanding::Disabled(_)) => {
                Err(BrokerError::FailedPrecondition(Precondition::ProviderDisabled))
            }
            Some(ProviderStanding::Broken) => {
                Err(BrokerError::FailedPrecondition(Precondition::ProviderMisconfigured))
            }
            None => Err(BrokerError::NotFound(NotFound::Provider)),
        }
    }

    /// A provider of the caller's tenant, also one that is disabled.
    async fn known_provider(
        &self,
        principal: &Principal,
        id: &ProviderId,
    ) -> Result<Arc<Provider>, BrokerError> {
        match self.ports.providers.current(principal.tenant(), id).await? {
            Some(ProviderStanding::Disabled(provider)) => Ok(provider),
            _ => self.provider(principal, id).await,
        }
    }

    /// Refuses a provider that the caller's tenant does not have, in whatever state it is.
    pub(super) async fn provider_exists(
        &self,
        principal: &Principal,
        id: &ProviderId,
    ) -> Result<(), BrokerError> {
        let found = self.ports.providers.current(principal.tenant(), id).await?;
        found.map(|_| ()).ok_or(BrokerError::NotFound(NotFound::Provider))
    }

    /// The app that a row's tokens are of: refreshed and revoked with this one, and with no other. `None`: it is there no more.
    pub(super) async fn provider_of(
        &self,
        row: &Credential,
    ) -> Result<Option<ProviderStanding>, CipherError> {
        self.ports.providers.of_configuration(&row.key.tenant, &row.key.provider, row.configuration).await
    }

    /// The times that the refresh decision needs.
    pub(super) fn refresh_policy(&self, provider: &Provider) -> RefreshPolicy {
        // Early enough that the token outlives a refresh whose outcome is unknown.
        let outlive = provider
            .refresh
            .timings(&self.settings.timings)
            .map_or(Duration::ZERO, |timings| timings.settle_after + timings.http_deadline);
        let refresh_ahead = match self.settings.refresh_ahead {
            Duration::ZERO => Duration::ZERO,
            ahead => ahead.max(outlive),
        };
        RefreshPolicy { margin: provider.refresh.expiry_margin, refresh_ahead }
    }
}

/// The services of a provider that share a key's grant.
pub(super) fn services_at(provider: Option<&Provider>, key: &CredentialKey) -> BTreeSet<ServiceId> {
    let services = provider.into_iter().flat_map(|provider| &provider.services);
    services.filter(|(_, service)| service.grant == key.grant).map(|(id, _)| id.clone()).collect()
}

/// A service of a provider.
pub(super) fn service<'a>(provider: &'a Provider, id: &ServiceId) -> Result<&'a Service, BrokerError> {
    provider.services.get(id).ok_or(BrokerError::NotFound(NotFound::Service))
}
