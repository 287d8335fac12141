//! ListProviders: what the caller can connect users to.

use super::Broker;
use super::error::BrokerError;
use super::types::ProviderView;
use crate::domain::access_policy::{Action, Principal};

impl Broker {
    /// What the caller can connect users to, sorted by id.
    pub fn list_providers(&self, principal: &Principal) -> Result<Vec<ProviderView>, BrokerError> {
        if !principal.may(Action::ListProviders) {
            return Err(BrokerError::PermissionDenied);
        }
        let mut providers = self.ports.providers.providers(principal.tenant());
        providers.retain(|provider| principal.may_use(&provider.id));
        Ok(providers
            .into_iter()
            .map(|provider| ProviderView { redirect_uri: self.redirect_uri(&provider.id), provider })
            .collect())
    }
}
