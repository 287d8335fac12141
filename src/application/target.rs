//! Permission first, existence second: what a caller's key names, if the caller may know.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::Broker;
use super::error::{BrokerError, NotFound};
use super::types::ServiceKey;

use crate::domain::access_policy::{Action, Decision, Principal, Question};
use crate::domain::key::{CredentialKey, ProviderId, ServiceId};
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
    pub(super) fn question(&self, action: Action) -> Question<'_> {
        Question::about(action, &self.provider, [&self.service], &self.user)
    }
}

impl Broker {
    /// The target of a call that names a service, and these scopes beside it.
    pub(super) fn target(
        &self,
        principal: &Principal,
        action: Action,
        asked: ServiceKey,
        scopes: &ScopeSet,
    ) -> Result<Target, BrokerError> {
        permit(principal, &asked.question(action).asking(scopes))?;
        let provider = self.provider(principal, &asked.provider)?;
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

    /// The services that a stored token is for, whatever its scopes. Without a provider definition they are unknown.
    pub(super) fn services_of(&self, key: &CredentialKey) -> BTreeSet<ServiceId> {
        let provider = self.ports.providers.provider(&key.tenant, &key.provider);
        let services = provider.iter().flat_map(|provider| &provider.services);
        services.filter(|(_, service)| service.grant == key.grant).map(|(id, _)| id.clone()).collect()
    }

    /// A provider of the caller's tenant.
    pub(super) fn provider(
        &self,
        principal: &Principal,
        id: &ProviderId,
    ) -> Result<Arc<Provider>, BrokerError> {
        self.ports.providers.provider(principal.tenant(), id).ok_or(BrokerError::NotFound(NotFound::Provider))
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

/// A service of a provider.
pub(super) fn service<'a>(provider: &'a Provider, id: &ServiceId) -> Result<&'a Service, BrokerError> {
    provider.services.get(id).ok_or(BrokerError::NotFound(NotFound::Service))
}
