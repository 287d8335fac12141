//! The `AuditStore` port.
//!
//! A batch is one statement: it moves the tenant's head, if that is still where the batch was hashed from, and adds the rows.
//! Of two replicas, one waits for the other's commit and then finds the head moved. Sent again after a lost answer, the
//! statement does nothing, and the rows are found to be there.

use async_trait::async_trait;
use jiff::Timestamp;

use super::PgStore;
use super::session::Again;
use crate::domain::audit::{AuditQuery, AuditStore, Entry, Head, Row};
use crate::domain::key::{ServiceId, TenantId, UserId};
use crate::domain::ports::StoreError;
use crate::infra::storage::audit_row::{
    AuditRow, audit_columns, bind_audit_filters, column, head, mark_columns,
};
use crate::infra::storage::codec::{json_list, micros, tenant};

const HEAD: &str = "SELECT sequence, hash FROM audit_heads WHERE tenant = $1";

const FIRST_HEAD: &str = "
    INSERT INTO audit_heads (tenant, sequence, hash) VALUES ($1, 0, $2) ON CONFLICT (tenant) DO NOTHING";

const APPEND: &str = concat!(
    "WITH moved AS (
        UPDATE audit_heads SET sequence = $4, hash = $5 WHERE tenant = $1 AND sequence = $2 AND hash = $3
        RETURNING tenant
    )
    INSERT INTO audit_log (",
    audit_columns!(),
    ")
    SELECT moved.tenant, added.* FROM moved, unnest(
        $6::bigint[], $7::bigint[], $8::text[], $9::text[], $10::text[], $11::text[], $12::text[], $13::text[],
        $14::text[], $15::text[], $16::text[], $17::bytea[], $18::bigint[], $19::bytea[], $20::text[], $21::text[],
        $22::bigint[], $23::bytea[], $24::bytea[], $25::bytea[], $26::text[]
    ) AS added"
);

const HASH_OF: &str = "SELECT hash FROM audit_log WHERE tenant = $1 AND sequence = $2";

const AFTER: &str = concat!(
    "SELECT ",
    audit_columns!(),
    " FROM audit_log WHERE tenant = $1 AND sequence > $2 ORDER BY sequence LIMIT $3"
);

macro_rules! find {
    ($of_user:literal) => {
        concat!(
            "SELECT ",
            audit_columns!(),
            " FROM audit_log
            WHERE tenant = $1 ",
            $of_user,
            " AND ($3::text IS NULL OR provider = $3)
                AND ($4::text IS NULL OR services::jsonb ? $4)
                AND ($5::text IS NULL OR caller = $5)
                AND ($6::text IS NULL OR action = $6)
                AND ($7::text IS NULL OR outcome = $7)
                AND ($8::bigint IS NULL OR created_at >= $8)
                AND ($9::bigint IS NULL OR created_at < $9)
                AND sequence < $10
            ORDER BY sequence DESC LIMIT $11"
        )
    };
}

const FIND: &str = find!("AND $2::text IS NULL");
const FIND_OF_USER: &str = find!("AND user_id = $2");

const LAST_PRUNE: &str = concat!(
    "SELECT ",
    audit_columns!(),
    " FROM audit_log WHERE tenant = $1 AND action = 'AuditPrune' ORDER BY sequence DESC LIMIT 1"
);

const LAST_BEFORE: &str = "
    SELECT sequence, hash FROM audit_log
    WHERE tenant = $1 AND sequence < coalesce(
        (SELECT sequence FROM audit_log WHERE tenant = $1 AND created_at >= $2 ORDER BY created_at LIMIT 1),
        9223372036854775807
    )
    ORDER BY sequence DESC LIMIT 1";

const DELETE_THROUGH: &str = "
    DELETE FROM audit_log
    WHERE tenant = $1 AND sequence = ANY (ARRAY(
        SELECT sequence FROM audit_log WHERE tenant = $1 AND sequence <= $2 ORDER BY sequence LIMIT $3
    ))";

const TENANTS: &str = "SELECT tenant FROM audit_heads ORDER BY tenant";

#[async_trait]
impl AuditStore for PgStore {
    async fn audit_head(&self, tenant: &TenantId) -> Result<Head, StoreError> {
        let look = || sqlx::query(HEAD).bind(tenant.as_str());
        if let Some((sequence, hash)) = self.one::<(i64, Vec<u8>)>(Again::Once, look).await? {
            return head(sequence, &hash);
        }
        let genesis = Head::default();
        let first = || sqlx::query(FIRST_HEAD).bind(tenant.as_str()).bind(genesis.hash.0.to_vec());
        self.write(Again::Once, first).await?;
        // Another replica may have been first, and further.
        let found = self.one::<(i64, Vec<u8>)>(Again::Once, look).await?;
        found.map_or(Ok(genesis), |(sequence, hash)| head(sequence, &hash))
    }

    async fn append_audit(&self, tenant: &TenantId, over: Head, rows: &[Row]) -> Result<bool, StoreError> {
        let Some(last) = rows.last() else { return Ok(true) };
        let appended = self.write(Again::Once, || append(tenant, over, last, rows)).await?;
        if appended > 0 {
            return Ok(true);
        }
        let at = || sqlx::query(HASH_OF).bind(tenant.as_str()).bind(column(last.sequence));
        let there: Option<(Vec<u8>,)> = self.one(Again::Once, at).await?;
        Ok(there.is_some_and(|(hash,)| hash == last.hash.0))
    }

    async fn audit_after(
        &self,
        tenant: &TenantId,
        sequence: u64,
        limit: u32,
    ) -> Result<Vec<Row>, StoreError> {
        let query = || sqlx::query(AFTER).bind(tenant.as_str()).bind(column(sequence)).bind(i64::from(limit));
        read(self.all(Again::Once, query).await?)
    }

    async fn find_audit(&self, asked: &AuditQuery) -> Result<Vec<Row>, StoreError> {
        let sql = if asked.user.is_some() { FIND_OF_USER } else { FIND };
        let query = || {
            let query =
                sqlx::query(sql).bind(asked.tenant.as_str()).bind(asked.user.as_ref().map(UserId::as_str));
            bind_audit_filters!(query, asked)
        };
        read(self.all(Again::Once, query).await?)
    }

    async fn last_audit_prune(&self, tenant: &TenantId) -> Result<Option<Row>, StoreError> {
        let query = || sqlx::query(LAST_PRUNE).bind(tenant.as_str());
        self.one::<AuditRow>(Again::Once, query).await?.map(TryInto::try_into).transpose()
    }

    async fn last_audit_before(
        &self,
        tenant: &TenantId,
        time: Timestamp,
    ) -> Result<Option<Head>, StoreError> {
        let query = || sqlx::query(LAST_BEFORE).bind(tenant.as_str()).bind(micros(time));
        let found: Option<(i64, Vec<u8>)> = self.one(Again::Once, query).await?;
        found.map(|(sequence, hash)| head(sequence, &hash)).transpose()
    }

    async fn delete_audit_through(
        &self,
        tenant: &TenantId,
        sequence: u64,
        limit: u32,
    ) -> Result<u64, StoreError> {
        let query = || {
            sqlx::query(DELETE_THROUGH).bind(tenant.as_str()).bind(column(sequence)).bind(i64::from(limit))
        };
        self.write(Again::Once, query).await
    }

    async fn audit_tenants(&self) -> Result<Vec<TenantId>, StoreError> {
        let found: Vec<(String,)> = self.all(Again::Once, || sqlx::query(TENANTS)).await?;
        found.into_iter().map(|(text,)| tenant(text)).collect()
    }
}

fn read(found: Vec<AuditRow>) -> Result<Vec<Row>, StoreError> {
    found.into_iter().map(TryInto::try_into).collect()
}

fn append<'q>(tenant: &TenantId, over: Head, last: &Row, rows: &[Row]) -> super::Query<'q> {
    fn of<T>(rows: &[Row], field: impl Fn(&Entry) -> T) -> Vec<T> {
        rows.iter().map(|row| field(&row.entry)).collect()
    }
    fn text<T: ToString>(part: Option<&T>) -> Option<String> {
        part.map(ToString::to_string)
    }
    sqlx::query(APPEND)
        .bind(tenant.as_str().to_owned())
        .bind(column(over.sequence))
        .bind(over.hash.0.to_vec())
        .bind(column(last.sequence))
        .bind(last.hash.0.to_vec())
        .bind(rows.iter().map(|row| column(row.sequence)).collect::<Vec<_>>())
        .bind(of(rows, |entry| micros(entry.at)))
        .bind(of(rows, |entry| text(entry.actor.caller.as_ref())))
        .bind(of(rows, |entry| text(entry.actor.identified_by.as_ref())))
        .bind(of(rows, |entry| entry.action.to_string()))
        .bind(of(rows, |entry| entry.outcome.name()))
        .bind(of(rows, |entry| text(entry.reason.as_ref())))
        .bind(of(rows, |entry| text(entry.subject.user.as_ref())))
        .bind(of(rows, |entry| text(entry.subject.provider.as_ref())))
        .bind(of(rows, |entry| json_list(entry.subject.services.iter().map(ServiceId::as_str))))
        .bind(of(rows, |entry| text(entry.subject.account.as_ref())))
        .bind(of(rows, |entry| entry.subject.flow.as_ref().map(|id| id.as_bytes().to_vec())))
        .bind(of(rows, |entry| entry.token.map(|token| token.generation)))
        .bind(of(rows, |entry| entry.token.map(|token| token.fingerprint.0.to_vec())))
        .bind(of(rows, |entry| entry.purpose.clone()))
        .bind(of(rows, |entry| entry.request_id.clone()))
        .bind(of(rows, |entry| mark_columns(entry.mark.as_ref()).0))
        .bind(of(rows, |entry| mark_columns(entry.mark.as_ref()).1.map(<[u8]>::to_vec)))
        .bind(rows.iter().map(|row| row.hash.0.to_vec()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.seal.0.to_vec()).collect::<Vec<_>>())
        .bind(of(rows, |entry| entry.subject.target.as_ref().map(|target| target.as_str().to_owned())))
}
