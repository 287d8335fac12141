//! QueryAudit, VerifyAudit and ExportAudit: the trail of a tenant, for whoever may read it. Reading it is itself on record.

use std::sync::Arc;

use super::super::Broker;
use super::super::audit::{AuditArchive, AuditPage, AuditVerdict};
use super::super::error::BrokerError;
use crate::domain::access_policy::Principal;
use crate::domain::admin_policy::AdminAction;
use crate::domain::audit::{AuditQuery, Head, Row};
use crate::domain::key::TenantId;

impl Broker {
    fn archive(
        &self,
        principal: &Principal,
        tenant: Option<TenantId>,
    ) -> Result<(Arc<AuditArchive>, TenantId), BrokerError> {
        let tenant = Self::administer(principal, AdminAction::ReadAudit, tenant)?;
        let archive = self.ports.audit_archive.clone().ok_or(BrokerError::Internal)?;
        Ok((archive, tenant))
    }

    /// A page of a tenant's trail. `asked.tenant` is set here.
    pub async fn query_audit(
        &self,
        principal: &Principal,
        tenant: Option<TenantId>,
        asked: AuditQuery,
    ) -> Result<AuditPage, BrokerError> {
        let (archive, tenant) = self.archive(principal, tenant)?;
        archive.find(&AuditQuery { tenant, ..asked }).await
    }

    /// Walks along a tenant's trail.
    pub async fn verify_audit(
        &self,
        principal: &Principal,
        tenant: Option<TenantId>,
        noted: Option<Head>,
    ) -> Result<AuditVerdict, BrokerError> {
        let (archive, tenant) = self.archive(principal, tenant)?;
        archive.verify(&tenant, noted).await
    }

    /// Copies a tenant's trail from behind a row on.
    pub async fn export_audit(
        &self,
        principal: &Principal,
        tenant: Option<TenantId>,
        after: u64,
    ) -> Result<AuditExport, BrokerError> {
        let (archive, tenant) = self.archive(principal, tenant)?;
        let over = archive.head_at(&tenant, after).await?;
        Ok(AuditExport { archive, tenant, over })
    }
}

/// An export under way.
pub struct AuditExport {
    archive: Arc<AuditArchive>,
    tenant: TenantId,
    over: Option<Head>,
}

impl AuditExport {
    /// The next rows, and what they stand behind; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<(Head, Vec<Row>)>, BrokerError> {
        let Some(over) = self.over else { return Ok(None) };
        let rows = self.archive.export(&self.tenant, over).await?;
        self.over = rows.last().map(Row::head);
        Ok(self.over.map(|_| (over, rows)))
    }
}
