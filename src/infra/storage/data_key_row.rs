//! A row of `data_keys`, between columns and domain.

use crate::domain::ports::{StoreError, WrappedDataKey};

use super::codec::{array, purpose, tenant, time};

/// As stored.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct DataKeyRow {
    id: Vec<u8>,
    tenant: String,
    purpose: String,
    kek_id: String,
    wrapped: Vec<u8>,
    created_at: i64,
}

impl TryFrom<DataKeyRow> for WrappedDataKey {
    type Error = StoreError;

    fn try_from(row: DataKeyRow) -> Result<Self, StoreError> {
        Ok(Self {
            id: array(&row.id)?,
            tenant: tenant(row.tenant)?,
            purpose: purpose(&row.purpose)?,
            kek_id: row.kek_id,
            wrapped: row.wrapped,
            created_at: time(row.created_at)?,
        })
    }
}
