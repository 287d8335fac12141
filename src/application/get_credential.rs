//! GetCredential.
use std::sync::Arc;

use super::Broker;
use super::error::BrokerError;
use super::types::{GetCredentialInput, TokenAnswer};
use crate::domain::access_policy::Caller;

impl Broker {
    /// A valid token of the user, refreshed first if needed, or the need to consent.
    pub async fn get_credential(
        self: &Arc<Self>,
        caller: &Caller,
        input: GetCredentialInput,
    ) -> Result<TokenAnswer, BrokerError> {
        let _ = (caller, input);
        todo!()
    }
}
