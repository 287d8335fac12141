//! The `UserKeyStore` port, and the end of a user's data.

use async_trait::async_trait;

use super::session::{Again, Session, lock_of};
use super::{PgStore, Query};
use crate::domain::key::{TenantId, UserId};
use crate::domain::ports::StoreError;
use crate::domain::user_key::{StoredUserKey, UserDeleted, UserDeletion, UserKeyId, UserKeyStore};
use crate::infra::storage::codec::{array, micros, number};
use crate::infra::storage::user_key_row::UserKeyRow;
use crate::infra::storage::user_sql::{self as sql, user_key_columns};

const BY_IDS: &str = concat!("SELECT ", user_key_columns!(), " FROM user_keys WHERE id = ANY($1)");

/// Before all else: an import that is under way has a lock on it, and its credential is seen when that is over.
const LOCK_KEY: &str = "SELECT id FROM user_keys WHERE tenant = $1 AND user_id = $2 FOR UPDATE";

/// In the order of the index, so that no two wait for each other.
const LOCK_CREDENTIALS: &str = "
    SELECT id FROM credentials WHERE tenant = $1 AND user_id = $2
    ORDER BY provider, grant_name, account
    FOR UPDATE";

#[async_trait]
impl UserKeyStore for PgStore {
    async fn user_key(&self, id: UserKeyId) -> Result<Option<StoredUserKey>, StoreError> {
        let row: Option<UserKeyRow> = self.one(Again::Once, || sqlx::query(sql::BY_ID).bind(&id[..])).await?;
        row.map(TryInto::try_into).transpose()
    }

    async fn user_keys(&self, ids: &[UserKeyId]) -> Result<Vec<StoredUserKey>, StoreError> {
        let query = || sqlx::query(BY_IDS).bind(ids.iter().map(|id| &id[..]).collect::<Vec<_>>());
        let rows: Vec<UserKeyRow> = self.all(Again::Once, query).await?;
        rows.into_iter().map(TryInto::try_into).collect()
    }

    async fn user_key_of(
        &self,
        tenant: &TenantId,
        user: &UserId,
    ) -> Result<Option<StoredUserKey>, StoreError> {
        let query = || sqlx::query(sql::OF_USER).bind(tenant.as_str()).bind(user.as_str());
        let row: Option<UserKeyRow> = self.one(Again::Once, query).await?;
        row.map(TryInto::try_into).transpose()
    }

    async fn user_key_or_insert(
        &self,
        candidate: StoredUserKey,
    ) -> Result<Option<StoredUserKey>, StoreError> {
        let query = || {
            sqlx::query(sql::INSERT_OR_GET)
                .bind(&candidate.id[..])
                .bind(candidate.tenant.as_str())
                .bind(candidate.user.as_str())
                .bind(&candidate.sealed.0)
                .bind(micros(candidate.created_at))
        };
        // Done already, it answers the same.
        let row: Option<UserKeyRow> = self.one(Again::Once, query).await?;
        row.map(TryInto::try_into).transpose()
    }
}

impl PgStore {
    pub(super) async fn delete_data_of(&self, deletion: &UserDeletion) -> Result<UserDeleted, StoreError> {
        let UserDeletion { tenant, user, abandon_revocations, limit } = deletion;
        let of_user = |sql| sqlx::query(sql).bind(tenant.as_str()).bind(user.as_str());
        let limited = |sql| of_user(sql).bind(i64::from(*limit));
        let mut transaction = self.begin(lock_of("user", &[tenant.as_str(), user.as_str()])).await?;
        transaction.execute(of_user(LOCK_KEY)).await?;
        // The rows first and then the flows, as whoever ends a consent does. From here on none of the user's ends in tokens:
        // those that have are seen by what follows, the others wait for the flow and find it gone.
        transaction.execute(of_user(LOCK_CREDENTIALS)).await?;
        let mut all = transaction.execute(limited(sql::DELETE_FLOWS)).await? < u64::from(*limit);
        if counted(&mut transaction, of_user(sql::LIVE)).await? > 0 {
            transaction.roll_back().await?;
            return Ok(UserDeleted::Partly);
        }
        let waiting = counted(&mut transaction, of_user(sql::WAITING)).await?;
        if waiting > 0 && !abandon_revocations {
            transaction.roll_back().await?;
            return Ok(UserDeleted::Waiting(waiting));
        }
        for delete in sql::DELETE_REST {
            all &= transaction.execute(limited(delete)).await? < u64::from(*limit);
        }
        if !all {
            transaction.commit().await?;
            return Ok(UserDeleted::Partly);
        }
        let key: Option<(Vec<u8>,)> = transaction.one(of_user(sql::DELETE_KEY)).await?;
        transaction.commit().await?;
        Ok(UserDeleted::Gone(key.map(|(id,)| array(&id)).transpose()?))
    }
}

async fn counted(transaction: &mut Session<'_>, query: Query<'_>) -> Result<u64, StoreError> {
    let found: Option<(i64,)> = transaction.one(query).await?;
    found.map_or(Ok(0), |(rows,)| number(rows))
}
