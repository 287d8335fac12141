//! A store, a sealer and a sink that fail and block as they are told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use jiff::Timestamp;
use token_broker::domain::audit::{
    AuditQuery, AuditSealer, AuditSink, AuditStore, Hash, Head, Row, Seal, SinkError,
};
use token_broker::domain::cipher::CipherError;
use token_broker::domain::key::TenantId;
use token_broker::domain::ports::StoreError;
use tokio::sync::{Semaphore, watch};

use super::PATIENCE;

/// What they do.
#[derive(Default)]
pub(super) struct Script {
    /// Every call fails.
    pub(super) down: AtomicBool,
    /// So many appends are done, and answered with an error.
    pub(super) lost_answers: AtomicUsize,
    /// How many appends, seals or writes were begun.
    begun: watch::Sender<usize>,
    /// Calls wait for a permit of this.
    pub(super) gate: Option<Semaphore>,
}

impl Script {
    pub(super) fn blocked() -> Self {
        Self { gate: Some(Semaphore::new(0)), ..Self::default() }
    }

    pub(super) fn unblock(&self) {
        self.gate.as_ref().unwrap().add_permits(1_000_000);
    }

    pub(super) fn begun(&self) -> usize {
        *self.begun.borrow()
    }

    /// Waits until so many were begun.
    pub(super) async fn has_begun(&self, count: usize) {
        let mut begun = self.begun.subscribe();
        let reached = begun.wait_for(|begun| *begun >= count);
        tokio::time::timeout(PATIENCE, reached).await.expect("it is begun").unwrap();
    }

    async fn pass(&self) -> Result<(), StoreError> {
        self.begun.send_modify(|begun| *begun += 1);
        if let Some(gate) = &self.gate {
            gate.acquire().await.unwrap().forget();
        }
        if self.down.load(Ordering::SeqCst) { Err(lost()) } else { Ok(()) }
    }
}

fn lost() -> StoreError {
    StoreError::Unavailable("scripted".into())
}

pub(super) struct ScriptedStore {
    pub(super) inner: Arc<dyn AuditStore>,
    pub(super) script: Arc<Script>,
}

#[async_trait]
impl AuditStore for ScriptedStore {
    async fn audit_head(&self, tenant: &TenantId) -> Result<Head, StoreError> {
        self.inner.audit_head(tenant).await
    }

    async fn append_audit(&self, tenant: &TenantId, over: Head, rows: &[Row]) -> Result<bool, StoreError> {
        self.script.pass().await?;
        let done = self.inner.append_audit(tenant, over, rows).await?;
        let left = &self.script.lost_answers;
        if left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok() {
            return Err(lost());
        }
        Ok(done)
    }

    async fn audit_after(
        &self,
        tenant: &TenantId,
        sequence: u64,
        limit: u32,
    ) -> Result<Vec<Row>, StoreError> {
        self.inner.audit_after(tenant, sequence, limit).await
    }

    async fn find_audit(&self, query: &AuditQuery) -> Result<Vec<Row>, StoreError> {
        self.inner.find_audit(query).await
    }

    async fn last_audit_prune(&self, tenant: &TenantId) -> Result<Option<Row>, StoreError> {
        self.inner.last_audit_prune(tenant).await
    }

    async fn last_audit_before(
        &self,
        tenant: &TenantId,
        time: Timestamp,
    ) -> Result<Option<Head>, StoreError> {
        self.inner.last_audit_before(tenant, time).await
    }

    async fn delete_audit_through(
        &self,
        tenant: &TenantId,
        sequence: u64,
        limit: u32,
    ) -> Result<u64, StoreError> {
        self.inner.delete_audit_through(tenant, sequence, limit).await
    }

    async fn audit_tenants(&self) -> Result<Vec<TenantId>, StoreError> {
        self.inner.audit_tenants().await
    }
}

/// Seals for all, but for one tenant only as it is told.
pub(super) struct ScriptedSealer {
    pub(super) inner: Arc<dyn AuditSealer>,
    pub(super) tenant: TenantId,
    pub(super) script: Script,
}

#[async_trait]
impl AuditSealer for ScriptedSealer {
    async fn seal(&self, tenant: &TenantId, hashes: &[Hash]) -> Result<Vec<Seal>, CipherError> {
        if *tenant == self.tenant {
            self.script.pass().await.map_err(|_| CipherError::KeyService("scripted".into()))?;
        }
        self.inner.seal(tenant, hashes).await
    }
}

/// Keeps what it is given.
#[derive(Default)]
pub(super) struct ScriptedSink {
    pub(super) script: Script,
    pub(super) got: std::sync::Mutex<Vec<Row>>,
}

#[async_trait]
impl AuditSink for ScriptedSink {
    fn name(&self) -> &'static str {
        "scripted"
    }

    async fn write(&self, _: Head, rows: Arc<[Row]>) -> Result<(), SinkError> {
        let failed = |_| SinkError { sink: "scripted", source: std::io::ErrorKind::StorageFull.into() };
        self.script.pass().await.map_err(failed)?;
        self.got.lock().unwrap().extend(rows.iter().cloned());
        Ok(())
    }
}
