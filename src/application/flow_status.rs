//! GetFlow and CancelFlow.

use super::Broker;
use super::error::{BrokerError, NotFound, Precondition};
use super::target::permit;
use super::types::FlowView;
use crate::domain::access_policy::{Action, Principal, Question};
use crate::domain::flow::{Flow, FlowStatus};
use crate::domain::key::FlowId;

impl Broker {
    /// How a flow stands.
    pub async fn get_flow(&self, principal: &Principal, id: FlowId) -> Result<FlowView, BrokerError> {
        let flow = self.permitted_flow(principal, Action::GetFlow, id).await?;
        Ok(self.view_flow(flow))
    }

    /// Cancels a flow that waits. Cancelling a cancelled one changes nothing.
    pub async fn cancel_flow(&self, principal: &Principal, id: FlowId) -> Result<FlowView, BrokerError> {
        self.permitted_flow(principal, Action::CancelFlow, id).await?;
        let now = self.ports.clock.now();
        let flow = self.ports.flows.cancel_flow(principal.tenant(), id, now).await?;
        self.tell_watches(principal.tenant());
        let view = self.view_flow(flow.ok_or(BrokerError::NotFound(NotFound::Flow))?);
        if view.status == FlowStatus::Cancelled {
            Ok(view)
        } else {
            Err(BrokerError::FailedPrecondition(Precondition::FlowEnded))
        }
    }

    /// The flow, if it is for a user and a provider of the caller's. Somebody else's is as unknown as one that never was.
    pub(super) async fn permitted_flow(
        &self,
        principal: &Principal,
        action: Action,
        id: FlowId,
    ) -> Result<Flow, BrokerError> {
        permit(principal, &Question::of(action))?;
        self.ports
            .flows
            .load_flow(principal.tenant(), id)
            .await?
            .filter(|flow| {
                let question = Question::about(action, &flow.key.provider, &flow.services, &flow.key.user);
                principal.decide(&question).is_allowed()
            })
            .ok_or(BrokerError::NotFound(NotFound::Flow))
    }

    /// The flow as callers see it.
    pub(super) fn view_flow(&self, flow: Flow) -> FlowView {
        let status = flow.status_at(self.ports.clock.now());
        FlowView {
            id: flow.id,
            status,
            key: flow.key,
            services: flow.services,
            scopes: flow.scopes,
            options: flow.options,
            binding: flow.proof.binding,
            created_at: flow.created_at,
            expires_at: flow.expires_at,
            ended_at: flow.ended_at,
        }
    }
}
