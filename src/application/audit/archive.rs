//! Reading the log: queries, verification, export. A caller sees its own tenant's log.

use std::sync::Arc;
use std::time::Duration;

use crate::application::error::BrokerError;
use crate::domain::audit::{
    Audit, AuditQuery, AuditSealer, AuditStore, Flaw, FlawKind, Head, Mark, Row, Walk,
};
use crate::domain::key::TenantId;
use crate::domain::ports::Clock;

/// How many rows are read at a time.
const BATCH: u32 = 500;

/// A page of rows, the newest first.
#[derive(Debug, Clone)]
pub struct AuditPage {
    /// The rows.
    pub rows: Vec<Row>,
    /// Where the next page begins; `None` on the last.
    pub before: Option<u64>,
}

/// What a walk along a whole chain found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditVerdict {
    /// From behind which row on the chain is there.
    pub base: Head,
    /// How far it is in order.
    pub head: Head,
    /// The first thing that is wrong; `None`: nothing.
    pub flaw: Option<Flaw>,
}

/// The chains, for those who read them and for those who shorten them.
pub struct AuditArchive {
    pub(super) store: Arc<dyn AuditStore>,
    pub(super) sealer: Arc<dyn AuditSealer>,
    pub(super) log: Arc<dyn Audit>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) keep: Option<Duration>,
}

impl AuditArchive {
    /// Rows older than `keep` are removed; `None`: they are kept for good.
    #[must_use]
    pub fn new(
        store: Arc<dyn AuditStore>,
        sealer: Arc<dyn AuditSealer>,
        log: Arc<dyn Audit>,
        clock: Arc<dyn Clock>,
        keep: Option<Duration>,
    ) -> Self {
        Self { store, sealer, log, clock, keep }
    }

    /// One page. `query.limit` is at least 1.
    pub async fn find(&self, query: &AuditQuery) -> Result<AuditPage, BrokerError> {
        let rows = self.store.find_audit(query).await?;
        let full = rows.len() >= query.limit as usize;
        let before = rows.last().filter(|_| full).map(|row| row.sequence).filter(|sequence| *sequence > 1);
        Ok(AuditPage { rows, before })
    }

    /// Walks along the tenant's chain. `noted`: a head that was written down elsewhere, which the chain must contain.
    pub async fn verify(&self, tenant: &TenantId, noted: Option<Head>) -> Result<AuditVerdict, BrokerError> {
        let base = self.base(tenant).await?;
        // What is added meanwhile is not waited for.
        let end = self.store.audit_head(tenant).await?;
        let mut walk = Walk::from(base);
        // Of what was removed nothing is known but its end.
        let mut met = noted.is_none_or(|noted| noted.sequence < base.sequence || noted == base);
        loop {
            let after = walk.head().sequence;
            let rows = self.store.audit_after(tenant, after, BATCH).await?;
            let verdict = |walk: &Walk, flaw| AuditVerdict { base, head: walk.head(), flaw };
            if rows.is_empty() {
                let flaw = if after < end.sequence {
                    Some(Flaw { sequence: after + 1, kind: FlawKind::Missing })
                } else if !met {
                    noted.map(|noted| Flaw { sequence: noted.sequence, kind: FlawKind::NotTheHead })
                } else {
                    None
                };
                return Ok(verdict(&walk, flaw));
            }
            let hashes: Vec<_> = rows.iter().map(|row| row.hash).collect();
            let seals = self.sealer.seal(tenant, &hashes).await?;
            for (row, seal) in rows.iter().zip(seals) {
                let good = walk.clone();
                if let Err(flaw) = walk.step(row) {
                    return Ok(verdict(&good, Some(flaw)));
                }
                if row.seal != seal {
                    let flaw = Flaw { sequence: row.sequence, kind: FlawKind::Unsealed };
                    return Ok(verdict(&good, Some(flaw)));
                }
                if let Some(noted) = noted
                    && noted.sequence == row.sequence
                {
                    if noted != row.head() {
                        let flaw = Flaw { sequence: row.sequence, kind: FlawKind::NotTheHead };
                        return Ok(verdict(&good, Some(flaw)));
                    }
                    met = true;
                }
            }
        }
    }

    /// The next rows behind `over`, for an export; empty at the end. Begin with [`AuditArchive::base`].
    pub async fn export(&self, tenant: &TenantId, over: Head) -> Result<Vec<Row>, BrokerError> {
        Ok(self.store.audit_after(tenant, over.sequence, BATCH).await?)
    }

    /// The head at a row, or at the beginning of the chain if that is later. `None`: the chain is shorter.
    pub async fn head_at(&self, tenant: &TenantId, sequence: u64) -> Result<Option<Head>, BrokerError> {
        let base = self.base(tenant).await?;
        if sequence <= base.sequence {
            return Ok(Some(base));
        }
        let rows = self.store.audit_after(tenant, sequence - 1, 1).await?;
        Ok(rows.first().map(Row::head))
    }

    /// Behind which row the chain begins: the last one that was removed.
    pub async fn base(&self, tenant: &TenantId) -> Result<Head, BrokerError> {
        let said = self.store.last_audit_prune(tenant).await?;
        Ok(match said.and_then(|row| row.entry.mark) {
            Some(Mark::Pruned(end)) => end,
            Some(Mark::Gap(_)) | None => Head::default(),
        })
    }
}
