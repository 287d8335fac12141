//! ListProviders: what the caller can connect users to.

use std::sync::Arc;

use super::Broker;
use super::error::BrokerError;
use super::target::permit;
use super::types::ProviderView;
use crate::domain::access_policy::{Action, Allowed, Principal, Question};
use crate::domain::provider::Provider;

impl Broker {
    /// What the caller can connect users to, sorted by id: providers and services that a rule names.
    pub async fn list_providers(&self, principal: &Principal) -> Result<Vec<ProviderView>, BrokerError> {
        permit(principal, &Question::of(Action::ListProviders))?;
        let providers = self.ports.providers.all_of(principal.tenant()).await?.into_iter();
        Ok(providers
            .filter_map(|provider| visible(principal, provider))
            .map(|provider| ProviderView { redirect_uri: self.redirect_uri(&provider), provider })
            .collect())
    }
}

/// The provider with the services that the caller may know of; `None`: it may know of none.
fn visible(principal: &Principal, provider: Arc<Provider>) -> Option<Arc<Provider>> {
    match principal.allowed_services(Action::ListProviders, &provider.id) {
        Allowed::Any => Some(provider),
        Allowed::Only(services) => {
            let mut shown = Provider::clone(&provider);
            shown.services.retain(|id, _| services.contains(id));
            (!shown.services.is_empty()).then(|| Arc::new(shown))
        }
    }
}
