//! A row of `data_keys`, between columns and domain.

use crate::domain::data_key::WrappedDataKey;
use crate::domain::ports::StoreError;

use super::codec::{array, optional_time, purpose, tenant, time};

/// The columns of [`DataKeyRow`].
macro_rules! data_key_columns {
    () => {
        "id, tenant, purpose, kek_id, wrapped, created_at, superseded_at"
    };
}
pub(super) use data_key_columns;

/// As stored.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct DataKeyRow {
    id: Vec<u8>,
    tenant: String,
    purpose: String,
    kek_id: String,
    wrapped: Vec<u8>,
    created_at: i64,
    superseded_at: Option<i64>,
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
            superseded_at: optional_time(row.superseded_at)?,
        })
    }
}
