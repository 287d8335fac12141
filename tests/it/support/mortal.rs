//! Ports of a replica that can be stopped.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use token_broker::domain::flow::RecordedEndpoints;
use token_broker::domain::key::OutboxId;
use token_broker::domain::ports::{
    AuthorizationRequest, IdentityError, OAuthClient, OutboxStore, PendingRevocation, ProviderFailure,
    RevocationOutcome, StoreError,
};
use token_broker::domain::provider::Provider;
use token_broker::domain::scope::ScopeSet;
use token_broker::domain::secret::SecretString;
use token_broker::domain::token_set::{ProviderAccount, TokenResponse};

use super::life::Life;

/// Whatever is behind the port, for as long as the replica lives.
pub(crate) struct Mortal<T: ?Sized> {
    pub(crate) inner: Arc<T>,
    pub(crate) life: Arc<Life>,
}

#[async_trait]
impl OutboxStore for Mortal<dyn OutboxStore> {
    async fn enqueue_revocation(&self, revocation: PendingRevocation) -> Result<(), StoreError> {
        self.life.goes_on().await;
        self.inner.enqueue_revocation(revocation).await
    }

    async fn take_revocation(
        &self,
        id: OutboxId,
        now: Timestamp,
        lease_until: Timestamp,
    ) -> Result<Option<PendingRevocation>, StoreError> {
        self.life.goes_on().await;
        self.inner.take_revocation(id, now, lease_until).await
    }

    async fn due_revocations(&self, now: Timestamp, limit: u32) -> Result<Vec<OutboxId>, StoreError> {
        self.life.goes_on().await;
        self.inner.due_revocations(now, limit).await
    }

    async fn postpone_revocation(&self, id: OutboxId, next_attempt_at: Timestamp) -> Result<(), StoreError> {
        self.life.goes_on().await;
        self.inner.postpone_revocation(id, next_attempt_at).await
    }

    async fn finish_revocation(
        &self,
        id: OutboxId,
        outcome: RevocationOutcome,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.life.goes_on().await;
        self.inner.finish_revocation(id, outcome, now).await
    }

    async fn delete_finished_revocations(&self, before: Timestamp) -> Result<u64, StoreError> {
        self.life.goes_on().await;
        self.inner.delete_finished_revocations(before).await
    }
}

#[async_trait]
impl OAuthClient for Mortal<dyn OAuthClient> {
    async fn endpoints(&self, provider: &Provider) -> Result<RecordedEndpoints, ProviderFailure> {
        self.life.goes_on().await;
        self.inner.endpoints(provider).await
    }

    fn authorization_url(
        &self,
        provider: &Provider,
        request: AuthorizationRequest<'_>,
    ) -> Result<SecretString, ProviderFailure> {
        self.inner.authorization_url(provider, request)
    }

    async fn exchange_code(
        &self,
        provider: &Provider,
        endpoints: &RecordedEndpoints,
        redirect_uri: &url::Url,
        code: &SecretString,
        verifier: &SecretString,
    ) -> Result<TokenResponse, ProviderFailure> {
        self.life.goes_on().await;
        self.inner.exchange_code(provider, endpoints, redirect_uri, code, verifier).await
    }

    async fn refresh(
        &self,
        provider: &Provider,
        refresh_token: &SecretString,
        scopes: &ScopeSet,
        deadline: Duration,
    ) -> Result<TokenResponse, ProviderFailure> {
        self.life.goes_on().await;
        self.inner.refresh(provider, refresh_token, scopes, deadline).await
    }

    async fn revoke(
        &self,
        provider: &Provider,
        access_token: &SecretString,
        refresh_token: Option<&SecretString>,
    ) -> Result<RevocationOutcome, ProviderFailure> {
        self.life.goes_on().await;
        self.inner.revoke(provider, access_token, refresh_token).await
    }

    async fn identify(
        &self,
        provider: &Provider,
        endpoints: &RecordedEndpoints,
        response: &TokenResponse,
        nonce: &SecretString,
    ) -> Result<ProviderAccount, IdentityError> {
        self.life.goes_on().await;
        self.inner.identify(provider, endpoints, response, nonce).await
    }
}
