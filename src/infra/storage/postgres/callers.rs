//! The `CallerStore` port.

use async_trait::async_trait;
use jiff::Timestamp;

use super::session::{Again, Session, lock_of};
use super::{PgStore, Query};
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

const TAKEN: &str = "
    WITH claims AS (SELECT * FROM unnest($1::text[], $2::text[], $3::text[]) AS given (kind, issuer, subject))
    SELECT kind, issuer, subject FROM claims JOIN caller_identities USING (kind, issuer, subject)
    UNION ALL
    SELECT claims.kind, claims.issuer, claims.subject FROM claims
        JOIN callers AS taken ON claims.kind = 'id' AND taken.tenant = claims.issuer AND taken.id = claims.subject";

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

/// One transaction of a caller at a time.
fn lock(tenant: &TenantId, caller: &CallerId) -> i64 {
    lock_of("caller", &[tenant.as_str(), caller.as_str()])
}

/// The list with one that is another caller's, if there is one.
async fn insert_identities(
    transaction: &mut Session<'_>,
    caller: &StoredCaller,
) -> Result<Option<IdentityList>, StoreError> {
    for (list, (kind, issuer, subject)) in identity_rows(&caller.identities) {
        let insert = sqlx::query(sql::INSERT_IDENTITY)
            .bind(kind)
            .bind(issuer)
            .bind(subject)
            .bind(caller.tenant.as_str())
            .bind(caller.id.as_str());
        if transaction.execute(insert).await? == 0 {
            return Ok(Some(list));
        }
    }
    Ok(None)
}

#[async_trait]
impl CallerStore for PgStore {
    async fn find_caller(&self, identity: &Identity) -> Result<Option<FoundCaller>, StoreError> {
        if let Identity::ApiKey(hash) = identity {
            let query = || sqlx::query(sql::BY_KEY).bind(&hash[..]);
            let row: Option<KeyAndCallerRow> = self.one(Again::Once, query).await?;
            return row.map(TryInto::try_into).transpose();
        }
        let Some((kind, issuer, subject)) = identity_columns(identity) else { return Ok(None) };
        let query = || sqlx::query(sql::BY_IDENTITY).bind(kind).bind(issuer).bind(subject);
        let row: Option<CallerRow> = self.one(Again::Once, query).await?;
        row.map(|row| Ok(FoundCaller { caller: row.try_into()?, key: None })).transpose()
    }

    async fn load_caller(
        &self,
        tenant: &TenantId,
        id: &CallerId,
    ) -> Result<Option<StoredCaller>, StoreError> {
        let row: Option<CallerRow> = self.one(Again::Once, || load(tenant, id)).await?;
        row.map(TryInto::try_into).transpose()
    }

    async fn taken(&self, claims: &[Claim]) -> Result<Vec<Claim>, StoreError> {
        let mut columns: [Vec<&str>; 3] = Default::default();
        for (kind, issuer, subject) in claims.iter().filter_map(claim_columns) {
            for (column, text) in columns.iter_mut().zip([kind, issuer, subject]) {
                column.push(text);
            }
        }
        let [kinds, issuers, subjects] = &columns;
        let query = || sqlx::query(TAKEN).bind(kinds).bind(issuers).bind(subjects);
        let rows: Vec<ClaimRow> = self.all(Again::Once, query).await?;
        rows.into_iter().map(TryInto::try_into).collect()
    }

    async fn list_callers(
        &self,
        tenant: &TenantId,
        after: Option<&CallerId>,
        limit: u32,
    ) -> Result<Vec<StoredCaller>, StoreError> {
        let after = after.map_or("", CallerId::as_str);
        let query = || sqlx::query(sql::PAGE).bind(tenant.as_str()).bind(after).bind(i64::from(limit));
        let rows: Vec<CallerRow> = self.all(Again::Once, query).await?;
        rows.into_iter().map(TryInto::try_into).collect()
    }

    async fn insert_caller(&self, caller: StoredCaller) -> Result<CallerWrite, StoreError> {
        let json = CallerJson::of(&caller);
        let mut transaction = self.begin(lock(&caller.tenant, &caller.id)).await?;
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
        if transaction.execute(insert).await? == 0 {
            transaction.roll_back().await?;
            return Ok(CallerWrite::Exists);
        }
        if let Some(list) = insert_identities(&mut transaction, &caller).await? {
            transaction.roll_back().await?;
            return Ok(CallerWrite::IdentityTaken(list));
        }
        transaction.commit().await?;
        Ok(CallerWrite::Done)
    }

    async fn update_caller(&self, caller: StoredCaller) -> Result<CallerWrite, StoreError> {
        let json = CallerJson::of(&caller);
        let revision = i64::try_from(caller.revision).map_err(|_| StoreError::Corrupt("a revision"))?;
        let mut transaction = self.begin(lock(&caller.tenant, &caller.id)).await?;
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
        if transaction.execute(update).await? == 0 {
            let there: Option<CallerRow> = transaction.one(load(&caller.tenant, &caller.id)).await?;
            transaction.roll_back().await?;
            return Ok(if there.is_some() { CallerWrite::Changed } else { CallerWrite::Unknown });
        }
        let delete =
            sqlx::query(sql::DELETE_IDENTITIES).bind(caller.tenant.as_str()).bind(caller.id.as_str());
        transaction.execute(delete).await?;
        if let Some(list) = insert_identities(&mut transaction, &caller).await? {
            transaction.roll_back().await?;
            return Ok(CallerWrite::IdentityTaken(list));
        }
        transaction.commit().await?;
        Ok(CallerWrite::Done)
    }

    async fn delete_caller(&self, tenant: &TenantId, id: &CallerId) -> Result<bool, StoreError> {
        let query = || sqlx::query(sql::DELETE).bind(tenant.as_str()).bind(id.as_str());
        Ok(self.write(Again::Never, query).await? > 0)
    }

    async fn insert_api_key(&self, new: NewApiKey) -> Result<ApiKeyWrite, StoreError> {
        let (tenant, caller) = (&new.key.tenant, &new.key.caller);
        // Under the lock: two that count at one time would both find room.
        let mut transaction = self.begin(lock(tenant, caller)).await?;
        if transaction.execute(insert_key(&new, MAX_API_KEYS)).await? == 0 {
            let there: Option<CallerRow> = transaction.one(load(tenant, caller)).await?;
            transaction.roll_back().await?;
            return Ok(if there.is_some() { ApiKeyWrite::TooMany } else { ApiKeyWrite::Unknown });
        }
        transaction.commit().await?;
        Ok(ApiKeyWrite::Done)
    }

    async fn list_api_keys(&self, tenant: &TenantId, caller: &CallerId) -> Result<Vec<ApiKey>, StoreError> {
        let query = || sqlx::query(sql::KEYS).bind(tenant.as_str()).bind(caller.as_str());
        let rows: Vec<KeyRow> = self.all(Again::Once, query).await?;
        newest_first(rows)
    }

    async fn rotate_api_key(
        &self,
        old: ApiKeyId,
        old_ends_at: Timestamp,
        new: NewApiKey,
    ) -> Result<ApiKeyWrite, StoreError> {
        let mut transaction = self.begin(lock(&new.key.tenant, &new.key.caller)).await?;
        let end = sqlx::query(sql::END_KEY)
            .bind(&old.as_bytes()[..])
            .bind(new.key.tenant.as_str())
            .bind(new.key.caller.as_str())
            .bind(micros(old_ends_at))
            .bind(micros(new.key.created_at));
        if transaction.execute(end).await? == 0 {
            transaction.roll_back().await?;
            return Ok(ApiKeyWrite::Unknown);
        }
        // The old one counts until its end.
        if transaction.execute(insert_key(&new, MAX_API_KEYS + 1)).await? == 0 {
            transaction.roll_back().await?;
            return Ok(ApiKeyWrite::TooMany);
        }
        transaction.commit().await?;
        Ok(ApiKeyWrite::Done)
    }

    async fn revoke_api_key(
        &self,
        tenant: &TenantId,
        caller: &CallerId,
        id: ApiKeyId,
        now: Timestamp,
    ) -> Result<Option<ApiKey>, StoreError> {
        let query = || {
            sqlx::query(sql::REVOKE_KEY)
                .bind(&id.as_bytes()[..])
                .bind(tenant.as_str())
                .bind(caller.as_str())
                .bind(micros(now))
        };
        let row: Option<KeyRow> = self.one(Again::Once, query).await?;
        row.map(TryInto::try_into).transpose()
    }

    async fn mark_api_key_used(&self, id: ApiKeyId, now: Timestamp) -> Result<(), StoreError> {
        let query = || {
            sqlx::query(sql::KEY_USED)
                .bind(&id.as_bytes()[..])
                .bind(micros(now))
                .bind(micros(now) - used_before())
        };
        self.write(Again::Once, query).await.map(|_| ())
    }
}
