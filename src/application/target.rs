//! Permission first, existence second: what a caller's key names, if the caller may know.

use std::sync::Arc;

use super::Broker;
use super::error::{BrokerError, NotFound};
use super::types::ServiceKey;
use std::time::Duration;

use crate::domain::access_policy::{Action, Principal};
use crate::domain::key::{CredentialKey, ProviderId, ServiceId, UserId};
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

/// Whether the caller may do this at the provider for the user. The answer does not depend on what exists.
pub(super) fn permit(
    principal: &Principal,
    action: Action,
    provider: &ProviderId,
    user: &UserId,
) -> Result<(), BrokerError> {
    if principal.may(action) && principal.may_use(provider) && principal.may_act_for(user) {
        Ok(())
    } else {
        Err(BrokerError::PermissionDenied)
    }
}

impl Broker {
    /// The target of a call that names a service.
    pub(super) fn target(
        &self,
        principal: &Principal,
        action: Action,
        asked: ServiceKey,
    ) -> Result<Target, BrokerError> {
        permit(principal, action, &asked.provider, &asked.user)?;
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
