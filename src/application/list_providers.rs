//! ListProviders: what the caller can connect users to.

use super::Broker;
use super::error::BrokerError;
use super::types::ProviderView;
use crate::domain::access_policy::{Action, Caller};

impl Broker {
    /// What the caller can connect users to, sorted by id.
    pub fn list_providers(&self, caller: &Caller) -> Result<Vec<ProviderView>, BrokerError> {
        if !caller.may(Action::ListProviders) {
            return Err(BrokerError::PermissionDenied);
        }
        let mut providers = self.ports.providers.providers(&caller.tenant);
        providers.retain(|provider| caller.may_use(&provider.id));
        Ok(providers
            .into_iter()
            .map(|provider| ProviderView { redirect_uri: self.redirect_uri(&provider.id), provider })
            .collect())
    }
}
