//! BeginOAuth.
use std::sync::Arc;

use super::Broker;
use super::error::BrokerError;
use super::types::{BeginInput, StartedFlow};
use crate::domain::access_policy::Caller;

impl Broker {
    /// Starts a consent.
    pub async fn begin_oauth(
        self: &Arc<Self>,
        caller: &Caller,
        input: BeginInput,
    ) -> Result<StartedFlow, BrokerError> {
        let _ = (caller, input);
        todo!()
    }
}
