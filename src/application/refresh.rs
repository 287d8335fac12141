//! Refresh.
use std::sync::Arc;

use super::Broker;
use super::error::BrokerError;
use super::types::{RefreshInput, TokenAnswer};
use crate::domain::access_policy::Caller;

impl Broker {
    /// A token newer than the expected generation.
    pub async fn refresh(
        self: &Arc<Self>,
        caller: &Caller,
        input: RefreshInput,
    ) -> Result<TokenAnswer, BrokerError> {
        let _ = (caller, input);
        todo!()
    }
}
