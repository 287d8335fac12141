//! Revoke.
use std::sync::Arc;

use super::Broker;
use super::error::BrokerError;
use super::types::{RevokeAnswer, ServiceKey};
use crate::domain::access_policy::Caller;

impl Broker {
    /// Gone here at once; the provider is told.
    pub async fn revoke(
        self: &Arc<Self>,
        caller: &Caller,
        key: ServiceKey,
    ) -> Result<RevokeAnswer, BrokerError> {
        let _ = (caller, key);
        todo!()
    }
}
