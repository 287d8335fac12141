//! A row of `revocations`, between columns and domain.

use crate::domain::credential::Sealed;
use crate::domain::key::{GrantId, OutboxId};
use crate::domain::ports::{PendingRevocation, StoreError};

use super::codec::{KeyColumns, array, count, time};
use super::provider_config_row::configuration;

/// The columns of [`RevocationRow`].
macro_rules! revocation_columns {
    () => {
        "id, tenant, provider, user_id, grant_name, account, grant_id, access_sealed, refresh_sealed, attempts, \
         created_at, next_attempt_at, configuration"
    };
}
pub(super) use revocation_columns;

/// Binds all columns in their order. A macro, since the two databases' queries are of two types.
macro_rules! bind_revocation {
    ($query:expr, $revocation:expr) => {{
        use $crate::infra::storage::codec::micros;
        let revocation: &$crate::domain::ports::PendingRevocation = $revocation;
        $query
            .bind(&revocation.id.as_bytes()[..])
            .bind(revocation.key.tenant.as_str())
            .bind(revocation.key.provider.as_str())
            .bind(revocation.key.user.as_str())
            .bind(revocation.key.grant.as_str())
            .bind(revocation.key.account.as_str())
            .bind(&revocation.grant_id.as_bytes()[..])
            .bind(&revocation.access_sealed.0)
            .bind(revocation.refresh_sealed.as_ref().map(|sealed| &sealed.0))
            .bind(i64::from(revocation.attempts))
            .bind(micros(revocation.created_at))
            .bind(micros(revocation.next_attempt_at))
            .bind(revocation.configuration.map(|id| id.as_bytes().to_vec()))
    }};
}
pub(super) use bind_revocation;

/// As stored.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct RevocationRow {
    id: Vec<u8>,
    #[sqlx(flatten)]
    key: KeyColumns,
    grant_id: Vec<u8>,
    /// NULL once finished. An `Option`, since sqlx reads NULL as an empty value otherwise.
    access_sealed: Option<Vec<u8>>,
    refresh_sealed: Option<Vec<u8>>,
    attempts: i64,
    created_at: i64,
    next_attempt_at: i64,
    configuration: Option<Vec<u8>>,
}

impl TryFrom<RevocationRow> for PendingRevocation {
    type Error = StoreError;

    fn try_from(row: RevocationRow) -> Result<Self, StoreError> {
        Ok(Self {
            id: OutboxId::from_bytes(array(&row.id)?),
            key: row.key.try_into()?,
            grant_id: GrantId::from_bytes(array(&row.grant_id)?),
            configuration: configuration(row.configuration.as_deref())?,
            access_sealed: Sealed(row.access_sealed.ok_or(StoreError::Corrupt("a token column is empty"))?),
            refresh_sealed: row.refresh_sealed.map(Sealed),
            attempts: count(row.attempts)?,
            created_at: time(row.created_at)?,
            next_attempt_at: time(row.next_attempt_at)?,
        })
    }
}
