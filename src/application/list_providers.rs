//! ListProviders.
use super::Broker;
use super::error::BrokerError;
use super::types::ProviderView;
use crate::domain::access_policy::Caller;

impl Broker {
    /// What the caller can connect users to, sorted by id.
    pub fn list_providers(&self, caller: &Caller) -> Result<Vec<ProviderView>, BrokerError> {
        let _ = caller;
        todo!()
    }
}
