//! The `AuditStore` port.

use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::FromRow as _;

use super::SqliteStore;
use super::error::store_error;
use crate::domain::audit::{AuditQuery, AuditStore, Head, Row, Target};
use crate::domain::key::{Account, CallerId, ProviderId, ServiceId, TenantId, UserId};
use crate::domain::ports::StoreError;
use crate::infra::storage::audit_row::{
    AuditRow, audit_columns, bind_audit_filters, column, head, mark_columns,
};
use crate::infra::storage::codec::{json_list, micros, tenant};

const HEAD: &str = "SELECT sequence, hash FROM audit_heads WHERE tenant = ?1";

const SET_HEAD: &str = "
    INSERT INTO audit_heads (tenant, sequence, hash) VALUES (?1, ?2, ?3)
    ON CONFLICT (tenant) DO UPDATE SET sequence = ?2, hash = ?3";

const INSERT: &str = concat!(
    "INSERT INTO audit_log (",
    audit_columns!(),
    ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22)"
);

const HASH_OF: &str = "SELECT hash FROM audit_log WHERE tenant = ?1 AND sequence = ?2";

const AFTER: &str = concat!(
    "SELECT ",
    audit_columns!(),
    " FROM audit_log WHERE tenant = ?1 AND sequence > ?2 ORDER BY sequence LIMIT ?3"
);

macro_rules! find {
    ($of_user:literal) => {
        concat!(
            "SELECT ",
            audit_columns!(),
            " FROM audit_log
            WHERE tenant = ?1 ",
            $of_user,
            " AND (?3 IS NULL OR provider = ?3)
                AND (?4 IS NULL OR EXISTS (SELECT 1 FROM json_each(services) WHERE value = ?4))
                AND (?5 IS NULL OR caller = ?5)
                AND (?6 IS NULL OR action = ?6)
                AND (?7 IS NULL OR outcome = ?7)
                AND (?8 IS NULL OR created_at >= ?8)
                AND (?9 IS NULL OR created_at < ?9)
                AND sequence < ?10
            ORDER BY sequence DESC LIMIT ?11"
        )
    };
}

const FIND: &str = find!("AND ?2 IS NULL");
const FIND_OF_USER: &str = find!("AND user_id = ?2");

const LAST_PRUNE: &str = concat!(
    "SELECT ",
    audit_columns!(),
    " FROM audit_log INDEXED BY audit_prunes WHERE tenant = ?1 AND action = 'AuditPrune'
    ORDER BY sequence DESC LIMIT 1"
);

const LAST_BEFORE: &str = "
    SELECT sequence, hash FROM audit_log
    WHERE tenant = ?1 AND sequence < coalesce(
        (SELECT sequence FROM audit_log WHERE tenant = ?1 AND created_at >= ?2 ORDER BY created_at LIMIT 1),
        9223372036854775807
    )
    ORDER BY sequence DESC LIMIT 1";

const DELETE_THROUGH: &str = "
    DELETE FROM audit_log
    WHERE tenant = ?1 AND sequence IN (
        SELECT sequence FROM audit_log WHERE tenant = ?1 AND sequence <= ?2 ORDER BY sequence LIMIT ?3
    )";

const TENANTS: &str = "SELECT tenant FROM audit_heads ORDER BY tenant";

/// For the test of query plans. The tenants are few.
#[cfg(test)]
pub(super) const STATEMENTS: &[&str] =
    &[HEAD, SET_HEAD, INSERT, HASH_OF, AFTER, FIND_OF_USER, LAST_PRUNE, LAST_BEFORE, DELETE_THROUGH];

#[async_trait]
impl AuditStore for SqliteStore {
    async fn audit_head(&self, tenant: &TenantId) -> Result<Head, StoreError> {
        let found: Option<(i64, Vec<u8>)> = self.read_one(sqlx::query(HEAD).bind(tenant.as_str())).await?;
        found.map_or(Ok(Head::default()), |(sequence, hash)| head(sequence, &hash))
    }

    async fn append_audit(&self, tenant: &TenantId, over: Head, rows: &[Row]) -> Result<bool, StoreError> {
        let Some(last) = rows.last() else { return Ok(true) };
        let mut transaction = self.begin().await?;
        let found = sqlx::query(HEAD).bind(tenant.as_str()).fetch_optional(&mut *transaction).await;
        let found = match found.map_err(store_error)? {
            None => Head::default(),
            Some(row) => {
                let (sequence, hash) = <(i64, Vec<u8>)>::from_row(&row).map_err(store_error)?;
                head(sequence, &hash)?
            }
        };
        if found != over {
            let at = sqlx::query(HASH_OF).bind(tenant.as_str()).bind(column(last.sequence));
            let there = at.fetch_optional(&mut *transaction).await.map_err(store_error)?;
            let there = there.map(|row| <(Vec<u8>,)>::from_row(&row)).transpose().map_err(store_error)?;
            transaction.rollback().await.map_err(store_error)?;
            return Ok(there.is_some_and(|(hash,)| hash == last.hash.0));
        }
        for Row { sequence, entry, hash, seal } in rows {
            let (mark, mark_hash) = mark_columns(entry.mark.as_ref());
            let insert = sqlx::query(INSERT)
                .bind(tenant.as_str())
                .bind(column(*sequence))
                .bind(micros(entry.at))
                .bind(entry.actor.caller.as_ref().map(CallerId::as_str))
                .bind(entry.actor.identified_by.as_deref())
                .bind(&*entry.action)
                .bind(entry.outcome.name())
                .bind(entry.reason.as_deref())
                .bind(entry.subject.user.as_ref().map(UserId::as_str))
                .bind(entry.subject.provider.as_ref().map(ProviderId::as_str))
                .bind(json_list(entry.subject.services.iter().map(ServiceId::as_str)))
                .bind(entry.subject.account.as_ref().map(Account::as_str))
                .bind(entry.subject.flow.as_ref().map(|id| &id.as_bytes()[..]))
                .bind(entry.token.map(|token| token.generation))
                .bind(entry.token.as_ref().map(|token| &token.fingerprint.0[..]))
                .bind(entry.purpose.as_deref())
                .bind(entry.request_id.as_deref())
                .bind(mark)
                .bind(mark_hash)
                .bind(&hash.0[..])
                .bind(&seal.0[..])
                .bind(entry.subject.target.as_ref().map(Target::as_str));
            insert.execute(&mut *transaction).await.map_err(store_error)?;
        }
        let set =
            sqlx::query(SET_HEAD).bind(tenant.as_str()).bind(column(last.sequence)).bind(&last.hash.0[..]);
        set.execute(&mut *transaction).await.map_err(store_error)?;
        transaction.commit().await.map_err(store_error)?;
        Ok(true)
    }

    async fn audit_after(
        &self,
        tenant: &TenantId,
        sequence: u64,
        limit: u32,
    ) -> Result<Vec<Row>, StoreError> {
        let query = sqlx::query(AFTER).bind(tenant.as_str()).bind(column(sequence)).bind(limit);
        rows(self.read_all(query).await?)
    }

    async fn find_audit(&self, asked: &AuditQuery) -> Result<Vec<Row>, StoreError> {
        let sql = if asked.user.is_some() { FIND_OF_USER } else { FIND };
        let query =
            sqlx::query(sql).bind(asked.tenant.as_str()).bind(asked.user.as_ref().map(UserId::as_str));
        rows(self.read_all(bind_audit_filters!(query, asked)).await?)
    }

    async fn last_audit_prune(&self, tenant: &TenantId) -> Result<Option<Row>, StoreError> {
        let found: Option<AuditRow> = self.read_one(sqlx::query(LAST_PRUNE).bind(tenant.as_str())).await?;
        found.map(TryInto::try_into).transpose()
    }

    async fn last_audit_before(
        &self,
        tenant: &TenantId,
        time: Timestamp,
    ) -> Result<Option<Head>, StoreError> {
        let query = sqlx::query(LAST_BEFORE).bind(tenant.as_str()).bind(micros(time));
        let found: Option<(i64, Vec<u8>)> = self.read_one(query).await?;
        found.map(|(sequence, hash)| head(sequence, &hash)).transpose()
    }

    async fn delete_audit_through(
        &self,
        tenant: &TenantId,
        sequence: u64,
        limit: u32,
    ) -> Result<u64, StoreError> {
        let query = sqlx::query(DELETE_THROUGH).bind(tenant.as_str()).bind(column(sequence)).bind(limit);
        self.write(query).await
    }

    async fn audit_tenants(&self) -> Result<Vec<TenantId>, StoreError> {
        let found: Vec<(String,)> = self.read_all(sqlx::query(TENANTS)).await?;
        found.into_iter().map(|(text,)| tenant(text)).collect()
    }
}

fn rows(found: Vec<AuditRow>) -> Result<Vec<Row>, StoreError> {
    found.into_iter().map(TryInto::try_into).collect()
}
