//! Rows of any table with ciphertexts, and the row of `reencryption`, between columns and domain.

use crate::domain::cipher::Field;
use crate::domain::credential::Sealed;
use crate::domain::data_key::{PassCounts, PassPlace, Reencryption, RowsPerKey, SealedRow, SealedTable};
use crate::domain::key::GrantId;
use crate::domain::ports::StoreError;
use crate::domain::provider_config::CONFIG_FIELDS;

use super::codec::{KeyColumns, array, number, optional_time, place};

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

/// Binds the columns of a pass after a step in their order, from what is done to what is expected. A macro, since the two
/// databases' queries are of two types.
macro_rules! bind_step {
    ($query:expr, $step:expr) => {{
        use $crate::infra::storage::codec::{after_bytes, micros, place_text, stored};
        let $crate::domain::data_key::PassStep { state, done_until, .. } = $step;
        $query
            .bind(done_until.map(micros))
            .bind(state.pass)
            .bind(state.began_at.map(micros))
            .bind(state.place.map(|place| place_text(place.table)))
            .bind(state.place.as_ref().map(|place| after_bytes(place.after.as_ref())))
            .bind(stored(state.counts.looked_at))
            .bind(stored(state.counts.renewed))
            .bind(stored(state.counts.skipped))
            .bind(stored(state.counts.unreadable))
            .bind(state.ended_at.map(micros))
            .bind(stored(state.counts.expected))
    }};
}
pub(super) use bind_step;

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
