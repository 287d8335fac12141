//! The audit log of the database in memory.

use async_trait::async_trait;
use jiff::Timestamp;
use token_broker::domain::audit::{AuditQuery, AuditStore, Head, Mark, Row};
use token_broker::domain::key::TenantId;
use token_broker::domain::ports::StoreError;

use super::memory_store::MemoryStore;

fn matches(row: &Row, asked: &AuditQuery) -> bool {
    let (entry, subject) = (&row.entry, &row.entry.subject);
    asked.user.as_ref().is_none_or(|id| subject.user.as_ref() == Some(id))
        && asked.provider.as_ref().is_none_or(|id| subject.provider.as_ref() == Some(id))
        && asked.service.as_ref().is_none_or(|id| subject.services.contains(id))
        && asked.caller.as_ref().is_none_or(|id| entry.actor.caller.as_ref() == Some(id))
        && asked.action.as_ref().is_none_or(|action| *action == entry.action)
        && asked.outcome.is_none_or(|outcome| outcome == entry.outcome)
        && asked.since.is_none_or(|since| entry.at >= since)
        && asked.until.is_none_or(|until| entry.at < until)
        && asked.before.is_none_or(|before| row.sequence < before)
}

fn pruned(row: &Row) -> Option<Head> {
    match row.entry.mark {
        Some(Mark::Pruned(end)) => Some(end),
        Some(Mark::Gap(_)) | None => None,
    }
}

impl MemoryStore {
    fn of<T: Default>(&self, tenant: &TenantId, read: impl FnOnce(&[Row]) -> T) -> T {
        self.read(|tables| tables.audit.get(tenant).map(|chain| read(&chain.rows)).unwrap_or_default())
    }
}

#[async_trait]
impl AuditStore for MemoryStore {
    async fn audit_head(&self, tenant: &TenantId) -> Result<Head, StoreError> {
        Ok(self.read(|tables| tables.audit.get(tenant).map(|chain| chain.head).unwrap_or_default()))
    }

    async fn append_audit(&self, tenant: &TenantId, over: Head, rows: &[Row]) -> Result<bool, StoreError> {
        let Some(last) = rows.last() else { return Ok(true) };
        Ok(self.write(|tables| {
            let chain = tables.audit.entry(tenant.clone()).or_default();
            if chain.head != over {
                return chain.rows.iter().any(|row| row.head() == last.head());
            }
            chain.rows.extend_from_slice(rows);
            chain.head = last.head();
            true
        }))
    }

    async fn audit_after(
        &self,
        tenant: &TenantId,
        sequence: u64,
        limit: u32,
    ) -> Result<Vec<Row>, StoreError> {
        let limit = limit as usize;
        Ok(self.of(tenant, |rows| {
            rows.iter().filter(|row| row.sequence > sequence).take(limit).cloned().collect()
        }))
    }

    async fn find_audit(&self, asked: &AuditQuery) -> Result<Vec<Row>, StoreError> {
        let limit = asked.limit as usize;
        Ok(self.of(&asked.tenant, |rows| {
            rows.iter().rev().filter(|row| matches(row, asked)).take(limit).cloned().collect()
        }))
    }

    async fn last_audit_prune(&self, tenant: &TenantId) -> Result<Option<Row>, StoreError> {
        Ok(self.of(tenant, |rows| rows.iter().rev().find(|row| pruned(row).is_some()).cloned()))
    }

    async fn last_audit_before(
        &self,
        tenant: &TenantId,
        time: Timestamp,
    ) -> Result<Option<Head>, StoreError> {
        Ok(self.of(tenant, |rows| {
            let later = rows.iter().filter(|row| row.entry.at >= time).min_by_key(|row| row.entry.at);
            let first = later.map_or(u64::MAX, |row| row.sequence);
            rows.iter().rev().find(|row| row.sequence < first).map(Row::head)
        }))
    }

    async fn delete_audit_through(
        &self,
        tenant: &TenantId,
        sequence: u64,
        limit: u32,
    ) -> Result<u64, StoreError> {
        self.write(|tables| {
            let Some(chain) = tables.audit.get_mut(tenant) else { return Ok(0) };
            let said = chain.rows.iter().filter_map(pruned).map(|end| end.sequence).max().unwrap_or_default();
            let old = |row: &&Row| row.sequence <= sequence;
            let gone: Vec<_> =
                chain.rows.iter().filter(old).take(limit as usize).map(|row| row.sequence).collect();
            if gone.iter().any(|gone| *gone > said) {
                return Err(StoreError::Unavailable("the audit log is append-only".into()));
            }
            chain.rows.retain(|row| !gone.contains(&row.sequence));
            Ok(gone.len() as u64)
        })
    }

    async fn audit_tenants(&self) -> Result<Vec<TenantId>, StoreError> {
        Ok(self.read(|tables| tables.audit.keys().cloned().collect()))
    }
}
