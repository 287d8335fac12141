//! GetFlow and CancelFlow.
use super::Broker;
use super::error::BrokerError;
use super::types::FlowView;
use crate::domain::access_policy::Caller;
use crate::domain::key::FlowId;

impl Broker {
    /// How a flow stands.
    pub async fn get_flow(&self, caller: &Caller, id: FlowId) -> Result<FlowView, BrokerError> {
        let _ = (caller, id);
        todo!()
    }

    /// Cancels a pending flow.
    pub async fn cancel_flow(&self, caller: &Caller, id: FlowId) -> Result<FlowView, BrokerError> {
        let _ = (caller, id);
        todo!()
    }
}
