//! ImportCredential.
use super::Broker;
use super::error::BrokerError;
use super::types::{CredentialView, ImportInput};
use crate::domain::access_policy::Caller;

impl Broker {
    /// Stores tokens obtained elsewhere.
    pub async fn import_credential(
        &self,
        caller: &Caller,
        input: ImportInput,
    ) -> Result<CredentialView, BrokerError> {
        let _ = (caller, input);
        todo!()
    }
}
