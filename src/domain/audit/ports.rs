//! What the audit log needs from outside, and what the use cases need of it.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;

use super::{Entry, Hash, Head, Name, Outcome, Row, Seal};
use crate::domain::cipher::CipherError;
use crate::domain::key::{CallerId, ProviderId, ServiceId, TenantId, UserId};
use crate::domain::ports::StoreError;

/// The decision could not be recorded, and what is not recorded may not be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the decision could not be recorded")]
pub struct AuditUnavailable;

/// Where decisions are told. Each exactly once.
#[async_trait]
pub trait Audit: Send + Sync {
    /// Takes a decision whose answer gives nothing away, or that has happened already. Never waits.
    fn note(&self, entry: Entry);

    /// Takes a decision, and waits until it is recorded where the operator demands that. An error: the answer must not be
    /// given. The row may come to be recorded all the same.
    async fn record(&self, entry: Entry) -> Result<(), AuditUnavailable>;

    /// The same, and waits whatever the operator demands.
    async fn record_for_certain(&self, entry: Entry) -> Result<(), AuditUnavailable>;

    /// Whether [`Audit::record`] would fail for this tenant as things stand: then nothing that needs a record should be begun.
    fn is_stuck(&self, tenant: &TenantId) -> bool;
}

/// Records nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoAudit;

#[async_trait]
impl Audit for NoAudit {
    fn note(&self, _: Entry) {}

    async fn record(&self, _: Entry) -> Result<(), AuditUnavailable> {
        Ok(())
    }

    async fn record_for_certain(&self, _: Entry) -> Result<(), AuditUnavailable> {
        Ok(())
    }

    fn is_stuck(&self, _: &TenantId) -> bool {
        false
    }
}

/// See [`AuditStore::find_audit`]. What is `None` is not asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditQuery {
    /// Whose log.
    pub tenant: TenantId,
    /// About this user.
    pub user: Option<UserId>,
    /// About this provider.
    pub provider: Option<ProviderId>,
    /// About this service.
    pub service: Option<ServiceId>,
    /// By this caller.
    pub caller: Option<CallerId>,
    /// This action.
    pub action: Option<Name>,
    /// With this outcome.
    pub outcome: Option<Outcome>,
    /// Not before this time.
    pub since: Option<Timestamp>,
    /// Before this time.
    pub until: Option<Timestamp>,
    /// Only rows with a smaller number.
    pub before: Option<u64>,
    /// At most so many.
    pub limit: u32,
}

impl AuditQuery {
    /// Asks for the newest of everything.
    #[must_use]
    pub fn all(tenant: TenantId, limit: u32) -> Self {
        Self {
            tenant,
            user: None,
            provider: None,
            service: None,
            caller: None,
            action: None,
            outcome: None,
            since: None,
            until: None,
            before: None,
            limit,
        }
    }
}

/// The chains. Contract: `tests/it/contract/audit_store.rs`.
#[async_trait]
pub trait AuditStore: Send + Sync {
    /// Where a tenant's chain ends.
    async fn audit_head(&self, tenant: &TenantId) -> Result<Head, StoreError>;

    /// Appends rows of one tenant, numbered from `over` on, all or none. False: the chain does not end at `over`. Rows that
    /// are there already were appended by an earlier call whose answer was lost: that is true as well.
    async fn append_audit(&self, tenant: &TenantId, over: Head, rows: &[Row]) -> Result<bool, StoreError>;

    /// The next rows behind a number, in order.
    async fn audit_after(&self, tenant: &TenantId, sequence: u64, limit: u32)
    -> Result<Vec<Row>, StoreError>;

    /// The newest rows that a query is about, the newest first.
    async fn find_audit(&self, query: &AuditQuery) -> Result<Vec<Row>, StoreError>;

    /// The newest row that says that old rows are removed.
    async fn last_audit_prune(&self, tenant: &TenantId) -> Result<Option<Row>, StoreError>;

    /// The last row before the first one that is of this time or later. `None`: there is none before it.
    async fn last_audit_before(&self, tenant: &TenantId, time: Timestamp)
    -> Result<Option<Head>, StoreError>;

    /// Removes rows up to a number, the oldest first, at most `limit`. Only where the chain says that they are removed.
    /// Answers how many.
    async fn delete_audit_through(
        &self,
        tenant: &TenantId,
        sequence: u64,
        limit: u32,
    ) -> Result<u64, StoreError>;

    /// All tenants that have a chain.
    async fn audit_tenants(&self) -> Result<Vec<TenantId>, StoreError>;
}

/// Makes seals.
#[async_trait]
pub trait AuditSealer: Send + Sync {
    /// The MACs of some hashes under the tenant's key, in order.
    async fn seal(&self, tenant: &TenantId, hashes: &[Hash]) -> Result<Vec<Seal>, CipherError>;
}

/// Why a sink did not take rows.
#[derive(Debug, thiserror::Error)]
#[error("the audit sink {sink} does not take rows")]
pub struct SinkError {
    /// Which.
    pub sink: &'static str,
    /// Why.
    #[source]
    pub source: std::io::Error,
}

/// A copy of the log outside the database, as lines of JSON. Each row goes there once it is in its chain.
#[async_trait]
pub trait AuditSink: Send + Sync {
    /// Its name, for logs.
    fn name(&self) -> &'static str;

    /// Writes rows behind `over`, in order. When it answers they have been handed to the operating system. Rows that it has
    /// written, it is not given again.
    async fn write(&self, over: Head, rows: Arc<[Row]>) -> Result<(), SinkError>;
}
