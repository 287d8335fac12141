//! A lease store between the use cases and the real one that is not reachable when it is told to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use token_broker::domain::coordination::{CoordinationError, LeaseStore, LeaseTerm};
use token_broker::domain::key::{CredentialId, LeaseId};

pub(crate) struct SwitchedLeases {
    pub(crate) inner: Arc<dyn LeaseStore>,
    pub(crate) down: AtomicBool,
}

impl SwitchedLeases {
    pub(crate) fn new(inner: Arc<dyn LeaseStore>) -> Self {
        Self { inner, down: AtomicBool::new(false) }
    }

    fn check(&self) -> Result<(), CoordinationError> {
        if self.down.load(Ordering::SeqCst) {
            Err(CoordinationError::Unreachable("the test says so".into()))
        } else {
            Ok(())
        }
    }
}

#[async_trait]
impl LeaseStore for SwitchedLeases {
    async fn acquire(
        &self,
        credential: CredentialId,
        lease: LeaseId,
        ttl: Duration,
    ) -> Result<Option<LeaseTerm>, CoordinationError> {
        self.check()?;
        self.inner.acquire(credential, lease, ttl).await
    }

    async fn renew(
        &self,
        credential: CredentialId,
        lease: LeaseId,
        ttl: Duration,
    ) -> Result<Option<LeaseTerm>, CoordinationError> {
        self.check()?;
        self.inner.renew(credential, lease, ttl).await
    }

    async fn release(&self, credential: CredentialId, lease: LeaseId) -> Result<bool, CoordinationError> {
        self.check()?;
        self.inner.release(credential, lease).await
    }

    async fn cap(&self, credential: CredentialId) -> Result<Duration, CoordinationError> {
        self.check()?;
        self.inner.cap(credential).await
    }

    async fn uncap(&self, credential: CredentialId) -> Result<(), CoordinationError> {
        self.check()?;
        self.inner.uncap(credential).await
    }

    async fn count(&self, credential: CredentialId) -> Result<u64, CoordinationError> {
        self.check()?;
        self.inner.count(credential).await
    }

    async fn end_all(&self, credential: CredentialId) -> Result<u64, CoordinationError> {
        self.check()?;
        self.inner.end_all(credential).await
    }
}
