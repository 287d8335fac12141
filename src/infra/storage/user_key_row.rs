//! A row of `user_keys`, between columns and domain.

use crate::domain::credential::Sealed;
use crate::domain::key::UserId;
use crate::domain::ports::StoreError;
use crate::domain::user_key::StoredUserKey;

use super::codec::{array, tenant, time};

/// As stored.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct UserKeyRow {
    id: Vec<u8>,
    tenant: String,
    user_id: String,
    sealed: Vec<u8>,
    created_at: i64,
}

impl TryFrom<UserKeyRow> for StoredUserKey {
    type Error = StoreError;

    fn try_from(row: UserKeyRow) -> Result<Self, StoreError> {
        Ok(Self {
            id: array(&row.id)?,
            tenant: tenant(row.tenant)?,
            user: UserId::new(row.user_id).map_err(|_| StoreError::Corrupt("a user id"))?,
            sealed: Sealed(row.sealed),
            created_at: time(row.created_at)?,
        })
    }
}
