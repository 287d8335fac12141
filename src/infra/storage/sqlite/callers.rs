//! The `CallerStore` port.

use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::{Sqlite, Transaction};

use super::error::store_error;
use super::{Query, SqliteStore};
use crate::domain::access_policy::Identity;
use crate::domain::caller_store::{
    ApiKey, ApiKeyWrite, CallerStore, CallerWrite, Claim, FoundCaller, IdentityList, MAX_API_KEYS, NewApiKey,
    StoredCaller,
};
use crate::domain::key::{ApiKeyId, CallerId, TenantId};
use crate::domain::ports::StoreError;
use crate::infra::storage::caller_row::{
    CallerJson, CallerRow, ClaimRow, KeyAndCallerRow, KeyRow, claim_columns, identity_columns, identity_rows,
    newest_first, used_before,
};
use crate::infra::storage::caller_sql as sql;
use crate::infra::storage::codec::micros;

/// The claims lead, so that the tables are asked by their keys.
const TAKEN: &str = "
    WITH claims AS (
        SELECT value ->> 0 AS kind, value ->> 1 AS issuer, value ->> 2 AS subject FROM json_each(?1)
    )
    SELECT claims.kind, claims.issuer, claims.subject FROM claims CROSS JOIN caller_identities AS taken
    WHERE taken.kind = claims.kind AND taken.issuer = claims.issuer AND taken.subject = claims.subject
    UNION ALL
    SELECT claims.kind, claims.issuer, claims.subject FROM claims CROSS JOIN callers AS taken
    WHERE claims.kind = 'id' AND taken.tenant = claims.issuer AND taken.id = claims.subject";

fn load<'q>(tenant: &'q TenantId, id: &'q CallerId) -> Query<'q> {
    sqlx::query(sql::LOAD).bind(tenant.as_str()).bind(id.as_str())
}

fn insert_key(new: &NewApiKey, most: u32) -> Query<'_> {
    sqlx::query(sql::INSERT_KEY)
        .bind(&new.hash[..])
        .bind(&new.key.id.as_bytes()[..])
        .bind(new.key.tenant.as_str())
        .bind(new.key.caller.as_str())
        .bind(&new.key.label)
        .bind(micros(new.key.created_at))
        .bind(new.key.expires_at.map(micros))
        .bind(i64::from(most))
}

/// One statement of a transaction. Answers how many rows changed.
pub(super) async fn execute(
    transaction: &mut Transaction<'_, Sqlite>,
    query: Query<'_>,
) -> Result<u64, StoreError> {
    Ok(query.execute(&mut **transaction).await.map_err(store_error)?.rows_affected())
}

async fn is_there(
    transaction: &mut Transaction<'_, Sqlite>,
    tenant: &TenantId,
    id: &CallerId,
) -> Result<bool, StoreError> {
    Ok(load(tenant, id).fetch_optional(&mut **transaction).await.map_err(store_error)?.is_some())
}

/// The list with one that is another caller's, if there is one.
async fn insert_identities(
    transaction: &mut Transaction<'_, Sqlite>,
    caller: &StoredCaller,
) -> Result<Option<IdentityList>, StoreError> {
    for (list, (kind, issuer, subject)) in identity_rows(&caller.identities) {
        let insert = sqlx::query(sql::INSERT_IDENTITY)
            .bind(kind)
            .bind(issuer)
            .bind(subject)
            .bind(caller.tenant.as_str())
            .bind(caller.id.as_str());
        if execute(transaction, insert).await? == 0 {
            return Ok(Some(list));
        }
    }
    Ok(None)
}

#[async_trait]
impl CallerStore for SqliteStore {
    async fn find_caller(&self, identity: &Identity) -> Result<Option<FoundCaller>, StoreError> {
        if let Identity::ApiKey(hash) = identity {
            let query = sqlx::query(sql::BY_KEY).bind(&hash[..]);
            let row: Option<KeyAndCallerRow> = self.read_one(query).await?;
            return row.map(TryInto::try_into).transpose();
        }
        let Some((kind, issuer, subject)) = identity_columns(identity) else { return Ok(None) };
        let query = sqlx::query(sql::BY_IDENTITY).bind(kind).bind(issuer).bind(subject);
        let row: Option<CallerRow> = self.read_one(query).await?;
        row.map(|row| Ok(FoundCaller { caller: row.try_into()?, key: None })).transpose()
    }

    async fn load_caller(
        &self,
        tenant: &TenantId,
        id: &CallerId,
    ) -> Result<Option<StoredCaller>, StoreError> {
        let row: Option<CallerRow> = self.read_one(load(tenant, id)).await?;
        row.map(TryInto::try_into).transpose()
    }

    async fn taken(&self, claims: &[Claim]) -> Result<Vec<Claim>, StoreError> {
        let claims: Vec<_> = claims.iter().filter_map(claim_columns).collect();
        // Lists of texts always have a JSON form.
        let claims = serde_json::to_string(&claims).unwrap_or_default();
        let rows: Vec<ClaimRow> = self.read_all(sqlx::query(TAKEN).bind(claims)).await?;
        rows.into_iter().map(TryInto::try_into).collect()
    }

    async fn list_callers(
        &self,
        tenant: &TenantId,
        after: Option<&CallerId>,
        limit: u32,
    ) -> Result<Vec<StoredCaller>, StoreError> {
        let after = after.map_or("", CallerId::as_str);
        let query = sqlx::query(sql::PAGE).bind(tenant.as_str()).bind(after).bind(i64::from(limit));
        let rows: Vec<CallerRow> = self.read_all(query).await?;
        rows.into_iter().map(TryInto::try_into).collect()
    }

    async fn insert_caller(&self, caller: StoredCaller) -> Result<CallerWrite, StoreError> {
        let json = CallerJson::of(&caller);
        let mut transaction = self.begin().await?;
        let insert = sqlx::query(sql::INSERT)
            .bind(caller.tenant.as_str())
            .bind(caller.id.as_str())
            .bind(&caller.description)
            .bind(json.rules)
            .bind(json.admin)
            .bind(json.identities)
            .bind(caller.disabled_at.map(micros))
            .bind(micros(caller.created_at))
            .bind(micros(caller.updated_at));
        if execute(&mut transaction, insert).await? == 0 {
            transaction.rollback().await.map_err(store_error)?;
            return Ok(CallerWrite::Exists);
        }
        if let Some(list) = insert_identities(&mut transaction, &caller).await? {
            transaction.rollback().await.map_err(store_error)?;
            return Ok(CallerWrite::IdentityTaken(list));
        }
        transaction.commit().await.map_err(store_error)?;
        Ok(CallerWrite::Done)
    }

    async fn update_caller(&self, caller: StoredCaller) -> Result<CallerWrite, StoreError> {
        let json = CallerJson::of(&caller);
        let revision = i64::try_from(caller.revision).map_err(|_| StoreError::Corrupt("a revision"))?;
        let mut transaction = self.begin().await?;
        let update = sqlx::query(sql::UPDATE)
            .bind(caller.tenant.as_str())
            .bind(caller.id.as_str())
            .bind(&caller.description)
            .bind(json.rules)
            .bind(json.admin)
            .bind(json.identities)
            .bind(caller.disabled_at.map(micros))
            .bind(micros(caller.updated_at))
            .bind(revision);
        if execute(&mut transaction, update).await? == 0 {
            let there = is_there(&mut transaction, &caller.tenant, &caller.id).await?;
            transaction.rollback().await.map_err(store_error)?;
            return Ok(if there { CallerWrite::Changed } else { CallerWrite::Unknown });
        }
        let delete =
            sqlx::query(sql::DELETE_IDENTITIES).bind(caller.tenant.as_str()).bind(caller.id.as_str());
        execute(&mut transaction, delete).await?;
        if let Some(list) = insert_identities(&mut transaction, &caller).await? {
            transaction.rollback().await.map_err(store_error)?;
            return Ok(CallerWrite::IdentityTaken(list));
        }
        transaction.commit().await.map_err(store_error)?;
        Ok(CallerWrite::Done)
    }

    async fn delete_caller(&self, tenant: &TenantId, id: &CallerId) -> Result<bool, StoreError> {
        let query = sqlx::query(sql::DELETE).bind(tenant.as_str()).bind(id.as_str());
        Ok(self.write(query).await? > 0)
    }

    async fn insert_api_key(&self, new: NewApiKey) -> Result<ApiKeyWrite, StoreError> {
        let (tenant, caller) = (&new.key.tenant, &new.key.caller);
        let mut transaction = self.begin().await?;
        if execute(&mut transaction, insert_key(&new, MAX_API_KEYS)).await? == 0 {
            let there = is_there(&mut transaction, tenant, caller).await?;
            transaction.rollback().await.map_err(store_error)?;
            return Ok(if there { ApiKeyWrite::TooMany } else { ApiKeyWrite::Unknown });
        }
        transaction.commit().await.map_err(store_error)?;
        Ok(ApiKeyWrite::Done)
    }

    async fn list_api_keys(&self, tenant: &TenantId, caller: &CallerId) -> Result<Vec<ApiKey>, StoreError> {
        let query = sqlx::query(sql::KEYS).bind(tenant.as_str()).bind(caller.as_str());
        let rows: Vec<KeyRow> = self.read_all(query).await?;
        newest_first(rows)
    }

    async fn rotate_api_key(
        &self,
        old: ApiKeyId,
        old_ends_at: Timestamp,
        new: NewApiKey,
    ) -> Result<ApiKeyWrite, StoreError> {
        let mut transaction = self.begin().await?;
        let end = sqlx::query(sql::END_KEY)
            .bind(&old.as_bytes()[..])
            .bind(new.key.tenant.as_str())
            .bind(new.key.caller.as_str())
            .bind(micros(old_ends_at))
            .bind(micros(new.key.created_at));
        if execute(&mut transaction, end).await? == 0 {
            transaction.rollback().await.map_err(store_error)?;
            return Ok(ApiKeyWrite::Unknown);
        }
        // The old one counts until its end.
        if execute(&mut transaction, insert_key(&new, MAX_API_KEYS + 1)).await? == 0 {
            transaction.rollback().await.map_err(store_error)?;
            return Ok(ApiKeyWrite::TooMany);
        }
        transaction.commit().await.map_err(store_error)?;
        Ok(ApiKeyWrite::Done)
    }

    async fn revoke_api_key(
        &self,
        tenant: &TenantId,
        caller: &CallerId,
        id: ApiKeyId,
        now: Timestamp,
    ) -> Result<Option<ApiKey>, StoreError> {
        let query = sqlx::query(sql::REVOKE_KEY)
            .bind(&id.as_bytes()[..])
            .bind(tenant.as_str())
            .bind(caller.as_str())
            .bind(micros(now));
        let row: Option<KeyRow> = self.write_one(query).await?;
        row.map(TryInto::try_into).transpose()
    }

    async fn mark_api_key_used(&self, id: ApiKeyId, now: Timestamp) -> Result<(), StoreError> {
        let query = sqlx::query(sql::KEY_USED)
            .bind(&id.as_bytes()[..])
            .bind(micros(now))
            .bind(micros(now) - used_before());
        self.write(query).await.map(|_| ())
    }
}

/// For the test of query plans.
#[cfg(test)]
pub(super) use sql::STATEMENTS;
/// The same.
#[cfg(test)]
pub(super) const OWN_STATEMENTS: &[&str] = &[TAKEN];
