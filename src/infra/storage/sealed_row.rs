//! Rows of any table with ciphertexts, and the row of `reencryption`, between columns and domain.

use crate::domain::credential::Sealed;
use crate::domain::data_key::{PassCounts, PassPlace, Reencryption, RowsPerKey, SealedRow, SealedTable};
use crate::domain::key::GrantId;
use crate::domain::ports::{Field, StoreError};
use crate::domain::provider_config::CONFIG_FIELDS;

use super::codec::{KeyColumns, array, optional_time};

/// The ciphertexts of a table, in the order of its columns.
pub(super) fn fields_of(table: SealedTable) -> &'static [Field] {
    match table {
        SealedTable::Credentials => &[Field::AccessToken, Field::RefreshToken, Field::Profile],
        SealedTable::Flows => &[Field::FlowSecrets],
        SealedTable::Revocations => &[Field::AccessToken, Field::RefreshToken],
        SealedTable::ProviderConfigs => &CONFIG_FIELDS,
        SealedTable::UserKeys => &[Field::UserKey],
    }
}

pub(super) fn place_text(table: SealedTable) -> &'static str {
    match table {
        SealedTable::Credentials => "credentials",
        SealedTable::Flows => "flows",
        SealedTable::Revocations => "revocations",
        SealedTable::ProviderConfigs => "provider_configurations",
        SealedTable::UserKeys => "user_keys",
    }
}

fn place(text: &str) -> Result<SealedTable, StoreError> {
    let found = SealedTable::ALL.into_iter().find(|table| place_text(*table) == text);
    found.ok_or(StoreError::Corrupt("a table's name"))
}

/// The columns that stand for the ciphertexts are `first`, `second` and `third`, NULL where the table has fewer.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct SealedColumns {
    id: Vec<u8>,
    #[sqlx(flatten)]
    key: KeyColumns,
    grant_id: Vec<u8>,
    first: Option<Vec<u8>>,
    second: Option<Vec<u8>>,
    third: Option<Vec<u8>>,
}

impl SealedColumns {
    pub(super) fn row(self, table: SealedTable) -> Result<SealedRow, StoreError> {
        let columns = [self.first, self.second, self.third];
        let fields = fields_of(table).iter().zip(columns);
        Ok(SealedRow {
            id: array(&self.id)?,
            key: self.key.try_into()?,
            grant_id: GrantId::from_bytes(array(&self.grant_id)?),
            fields: fields.filter_map(|(field, bytes)| Some((*field, Sealed(bytes?)))).collect(),
        })
    }
}

/// The ciphertext in a column of its table, as bytes.
pub(super) fn column(row: &SealedRow, table: SealedTable, index: usize) -> Option<&[u8]> {
    row.field(*fields_of(table).get(index)?).map(|sealed| &sealed.0[..])
}

/// The columns of [`ReencryptionRow`].
macro_rules! reencryption_columns {
    () => {
        "requested_at, pass, began_at, place, after, expected, looked_at, renewed, skipped, unreadable, ended_at, lease_until"
    };
}
pub(super) use reencryption_columns;

#[derive(Debug, sqlx::FromRow)]
pub(super) struct ReencryptionRow {
    requested_at: Option<i64>,
    pass: i64,
    began_at: Option<i64>,
    place: Option<String>,
    after: Option<Vec<u8>>,
    expected: i64,
    looked_at: i64,
    renewed: i64,
    skipped: i64,
    unreadable: i64,
    ended_at: Option<i64>,
    lease_until: Option<i64>,
}

pub(super) fn number(stored: i64) -> Result<u64, StoreError> {
    u64::try_from(stored).map_err(|_| StoreError::Corrupt("a counter is out of range"))
}

/// As stored: counters never come near the limit.
pub(super) fn stored(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// An id of no bytes is before all others.
pub(super) fn after_bytes(after: Option<&[u8; 16]>) -> &[u8] {
    after.map_or(&[], |id| &id[..])
}

impl TryFrom<ReencryptionRow> for Reencryption {
    type Error = StoreError;

    fn try_from(row: ReencryptionRow) -> Result<Self, StoreError> {
        let at = match (row.place, row.after) {
            (Some(table), Some(after)) => {
                let after = if after.is_empty() { None } else { Some(array(&after)?) };
                Some(PassPlace { table: place(&table)?, after })
            }
            (None, None) => None,
            _ => return Err(StoreError::Corrupt("the place of a pass")),
        };
        Ok(Self {
            requested_at: optional_time(row.requested_at)?,
            pass: row.pass,
            began_at: optional_time(row.began_at)?,
            place: at,
            counts: PassCounts {
                expected: number(row.expected)?,
                looked_at: number(row.looked_at)?,
                renewed: number(row.renewed)?,
                skipped: number(row.skipped)?,
                unreadable: number(row.unreadable)?,
            },
            ended_at: optional_time(row.ended_at)?,
            lease_until: optional_time(row.lease_until)?,
        })
    }
}

/// From rows of `data_key_rows`.
pub(super) fn rows_per_key(rows: Vec<(Vec<u8>, String, i64)>) -> Result<RowsPerKey, StoreError> {
    rows.into_iter().map(|(key, table, count)| Ok(((array(&key)?, place(&table)?), number(count)?))).collect()
}
