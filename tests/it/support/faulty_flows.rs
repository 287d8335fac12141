//! A flow store between the use cases and the real one, which fails when it is told to.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use token_broker::domain::flow::{Flow, FlowStatus, SecretHash, StateHash};
use token_broker::domain::key::{CredentialKey, FlowId, ProviderId, TenantId, UserId};
use token_broker::domain::ports::{CancelledFlows, Consumed, FlowStore, HeldCode, StoreError};

use super::faulty_store::Faults;

pub(crate) struct FaultyFlows {
    pub(crate) inner: Arc<dyn FlowStore>,
    pub(crate) faults: Arc<Faults>,
}

impl FaultyFlows {
    fn pass(&self) -> Result<&dyn FlowStore, StoreError> {
        Faults::hit(&self.faults.flows)?;
        Ok(&*self.inner)
    }
}

#[async_trait]
impl FlowStore for FaultyFlows {
    async fn insert_flow(&self, flow: &Flow, max_pending: u32) -> Result<bool, StoreError> {
        self.pass()?.insert_flow(flow, max_pending).await
    }

    async fn load_flow(&self, tenant: &TenantId, id: FlowId) -> Result<Option<Flow>, StoreError> {
        self.pass()?.load_flow(tenant, id).await
    }

    async fn latest_flow(&self, key: &CredentialKey) -> Result<Option<Flow>, StoreError> {
        self.pass()?.latest_flow(key).await
    }

    async fn pending_flows(&self, key: &CredentialKey, now: Timestamp) -> Result<Vec<Flow>, StoreError> {
        self.pass()?.pending_flows(key, now).await
    }

    async fn flow_of_state(
        &self,
        state: StateHash,
        provider: &ProviderId,
    ) -> Result<Option<Flow>, StoreError> {
        self.pass()?.flow_of_state(state, provider).await
    }

    async fn flow_of_link(&self, link: SecretHash) -> Result<Option<Flow>, StoreError> {
        self.pass()?.flow_of_link(link).await
    }

    async fn flow_of_browser(&self, id: FlowId) -> Result<Option<Flow>, StoreError> {
        self.pass()?.flow_of_browser(id).await
    }

    async fn admit_browser(
        &self,
        id: FlowId,
        browser: SecretHash,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.pass()?.admit_browser(id, browser, now).await
    }

    async fn consume_flow(
        &self,
        state: StateHash,
        provider: &ProviderId,
        browser: SecretHash,
        now: Timestamp,
    ) -> Result<Consumed, StoreError> {
        self.pass()?.consume_flow(state, provider, browser, now).await
    }

    async fn hold_code(&self, held: HeldCode, now: Timestamp) -> Result<Consumed, StoreError> {
        self.pass()?.hold_code(held, now).await
    }

    async fn redeem_flow(
        &self,
        id: FlowId,
        completion_code: SecretHash,
        now: Timestamp,
    ) -> Result<Consumed, StoreError> {
        self.pass()?.redeem_flow(id, completion_code, now).await
    }

    async fn end_flow(
        &self,
        id: FlowId,
        from: FlowStatus,
        status: FlowStatus,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.pass()?.end_flow(id, from, status, now).await
    }

    async fn cancel_flow(
        &self,
        tenant: &TenantId,
        id: FlowId,
        now: Timestamp,
    ) -> Result<Option<Flow>, StoreError> {
        self.pass()?.cancel_flow(tenant, id, now).await
    }

    async fn cancel_flows(
        &self,
        tenant: &TenantId,
        user: Option<&UserId>,
        limit: u32,
        now: Timestamp,
    ) -> Result<CancelledFlows, StoreError> {
        self.pass()?.cancel_flows(tenant, user, limit, now).await
    }

    async fn sweep_flows(
        &self,
        now: Timestamp,
        interrupted_before: Timestamp,
        delete_before: Timestamp,
    ) -> Result<u64, StoreError> {
        self.pass()?.sweep_flows(now, interrupted_before, delete_before).await
    }
}
