//! ListCredentials.
use super::Broker;
use super::error::BrokerError;
use super::types::{ListAnswer, ListInput};
use crate::domain::access_policy::Caller;

impl Broker {
    /// A page of credentials without tokens.
    pub async fn list_credentials(
        &self,
        caller: &Caller,
        input: ListInput,
    ) -> Result<ListAnswer, BrokerError> {
        let _ = (caller, input);
        todo!()
    }
}
