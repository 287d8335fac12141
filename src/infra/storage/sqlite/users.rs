//! The `UserKeyStore` port, and the end of a user's data.

use async_trait::async_trait;
use sqlx::{FromRow as _, Sqlite, Transaction};

use super::callers::execute;
use super::error::store_error;
use super::{Query, SqliteStore, id_list};
use crate::domain::key::{TenantId, UserId};
use crate::domain::ports::StoreError;
use crate::domain::user_key::{StoredUserKey, UserDeleted, UserDeletion, UserKeyId, UserKeyStore};
use crate::infra::storage::codec::{array, micros, number};
use crate::infra::storage::user_key_row::UserKeyRow;
use crate::infra::storage::user_sql::{self as sql, user_key_columns};

const BY_IDS: &str = concat!(
    "SELECT ",
    user_key_columns!(),
    " FROM user_keys WHERE id IN (SELECT unhex(value) FROM json_each(?1))"
);

#[async_trait]
impl UserKeyStore for SqliteStore {
    async fn user_key(&self, id: UserKeyId) -> Result<Option<StoredUserKey>, StoreError> {
        let row: Option<UserKeyRow> = self.read_one(sqlx::query(sql::BY_ID).bind(&id[..])).await?;
        row.map(TryInto::try_into).transpose()
    }

    async fn user_keys(&self, ids: &[UserKeyId]) -> Result<Vec<StoredUserKey>, StoreError> {
        let query = sqlx::query(BY_IDS).bind(id_list(ids.iter().map(|id| &id[..])));
        let rows: Vec<UserKeyRow> = self.read_all(query).await?;
        rows.into_iter().map(TryInto::try_into).collect()
    }

    async fn user_key_of(
        &self,
        tenant: &TenantId,
        user: &UserId,
    ) -> Result<Option<StoredUserKey>, StoreError> {
        let query = sqlx::query(sql::OF_USER).bind(tenant.as_str()).bind(user.as_str());
        let row: Option<UserKeyRow> = self.read_one(query).await?;
        row.map(TryInto::try_into).transpose()
    }

    async fn user_key_or_insert(
        &self,
        candidate: StoredUserKey,
    ) -> Result<Option<StoredUserKey>, StoreError> {
        let query = sqlx::query(sql::INSERT_OR_GET)
            .bind(&candidate.id[..])
            .bind(candidate.tenant.as_str())
            .bind(candidate.user.as_str())
            .bind(&candidate.sealed.0)
            .bind(micros(candidate.created_at));
        let row: Option<UserKeyRow> = self.write_one(query).await?;
        row.map(TryInto::try_into).transpose()
    }
}

impl SqliteStore {
    pub(super) async fn delete_data_of(&self, deletion: &UserDeletion) -> Result<UserDeleted, StoreError> {
        let UserDeletion { tenant, user, abandon_revocations, limit } = deletion;
        let of_user = |sql| sqlx::query(sql).bind(tenant.as_str()).bind(user.as_str());
        let limited = |sql| of_user(sql).bind(*limit);
        // Dropped before its commit, it is rolled back.
        let mut transaction = self.begin().await?;
        if counted(&mut transaction, of_user(sql::LIVE)).await? > 0 {
            return Ok(UserDeleted::Partly);
        }
        let waiting = counted(&mut transaction, of_user(sql::WAITING)).await?;
        if waiting > 0 && !abandon_revocations {
            return Ok(UserDeleted::Waiting(waiting));
        }
        let mut all = true;
        for delete in std::iter::once(sql::DELETE_FLOWS).chain(sql::DELETE_REST) {
            all &= execute(&mut transaction, limited(delete)).await? < u64::from(*limit);
        }
        if !all {
            transaction.commit().await.map_err(store_error)?;
            return Ok(UserDeleted::Partly);
        }
        let key = of_user(sql::DELETE_KEY).fetch_all(&mut *transaction).await.map_err(store_error)?;
        transaction.commit().await.map_err(store_error)?;
        let key: Option<(Vec<u8>,)> = key.first().map(<_>::from_row).transpose().map_err(store_error)?;
        Ok(UserDeleted::Gone(key.map(|(id,)| array(&id)).transpose()?))
    }
}

async fn counted(transaction: &mut Transaction<'_, Sqlite>, query: Query<'_>) -> Result<u64, StoreError> {
    let row = query.fetch_one(&mut **transaction).await.map_err(store_error)?;
    let (rows,) = <(i64,)>::from_row(&row).map_err(store_error)?;
    number(rows)
}

/// For the test of query plans.
#[cfg(test)]
pub(super) const STATEMENTS: &[&str] = &[
    sql::BY_ID,
    sql::THERE,
    BY_IDS,
    sql::OF_USER,
    sql::INSERT_OR_GET,
    sql::DELETE_KEY,
    sql::WAITING,
    sql::LIVE,
    sql::DELETE_FLOWS,
    sql::DELETE_REST[0],
    sql::DELETE_REST[1],
    sql::DELETE_REST[2],
];
