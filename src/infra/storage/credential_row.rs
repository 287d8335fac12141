//! A row of `credentials`, between columns and domain.

use crate::domain::credential::{
    BackOff, Claim, Credential, CredentialState, Generation, Sealed, StoredRefreshToken, StoredTokens,
};
use crate::domain::event::Standing;
use crate::domain::key::{ClaimOwner, CredentialId, GrantId};
use crate::domain::ports::StoreError;
use crate::domain::token_set::AccessLife;

use super::codec::{
    KeyColumns, array, count, fingerprint, optional_time, reauth_reason, refresh_failure, scopes,
    status_standing, time,
};
use super::provider_config_row::configuration;

/// The columns of [`CredentialRow`].
macro_rules! credential_columns {
    () => {
        "id, tenant, provider, user_id, grant_name, account, created_at, updated_at, grant_id, generation, epoch, status, \
         access_sealed, access_obtained_at, access_expires_at, token_type, profile_sealed, scopes, scopes_assumed, \
         rt_sealed, rt_fingerprint, rt_parent_fingerprint, rt_epoch, claim_owner, claim_deadline, settle_at, failures, \
         not_before, last_error, reauth_reason, next_refresh_at, configuration"
    };
}
pub(super) use credential_columns;

/// Binds the columns from `access_sealed` to `rt_fingerprint` and then `next_refresh_at`, in that order: each statement
/// that writes tokens numbers them so. A macro, since the two databases' queries are of two types.
macro_rules! bind_tokens {
    ($query:expr, $tokens:expr) => {{
        use $crate::infra::storage::codec::{json_scopes, micros};
        let tokens: &$crate::domain::credential::StoredTokens = $tokens;
        let refresh = tokens.refresh.as_ref();
        $query
            .bind(&tokens.access_sealed.0)
            .bind(micros(tokens.access_life.obtained_at))
            .bind(tokens.access_life.expires_at.map(micros))
            .bind(&tokens.token_type)
            .bind(&tokens.profile_sealed.0)
            .bind(json_scopes(&tokens.scopes))
            .bind(tokens.scopes_assumed)
            .bind(refresh.map(|refresh| &refresh.sealed.0))
            .bind(refresh.map(|refresh| &refresh.fingerprint.0[..]))
            .bind(tokens.next_refresh_at.map(micros))
    }};
}
pub(super) use bind_tokens;

/// As stored.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct CredentialRow {
    id: Vec<u8>,
    #[sqlx(flatten)]
    key: KeyColumns,
    created_at: i64,
    updated_at: i64,
    grant_id: Vec<u8>,
    generation: i64,
    epoch: i64,
    status: String,
    #[sqlx(flatten)]
    tokens: TokenColumns,
    #[sqlx(flatten)]
    claim: ClaimColumns,
    failures: i64,
    not_before: Option<i64>,
    last_error: Option<String>,
    reauth_reason: Option<String>,
    configuration: Option<Vec<u8>>,
}

/// How the row of a key stands, where the rest of it is of no interest.
#[derive(Debug)]
pub(super) struct Before {
    pub(super) standing: Standing,
    pub(super) generation: Generation,
    grant_id: GrantId,
}

impl Before {
    /// The grant that the row's tokens are of; `None`: it has none.
    pub(super) fn grant(&self) -> Option<GrantId> {
        (self.standing != Standing::Revoked).then_some(self.grant_id)
    }
}

/// [`Before`] as stored.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct BeforeRow {
    status: String,
    generation: i64,
    grant_id: Vec<u8>,
}

impl TryFrom<BeforeRow> for Before {
    type Error = StoreError;

    fn try_from(row: BeforeRow) -> Result<Self, StoreError> {
        Ok(Self {
            standing: status_standing(&row.status)?,
            generation: row.generation,
            grant_id: GrantId::from_bytes(array(&row.grant_id)?),
        })
    }
}

#[derive(Debug, sqlx::FromRow)]
struct TokenColumns {
    access_sealed: Option<Vec<u8>>,
    access_obtained_at: Option<i64>,
    access_expires_at: Option<i64>,
    token_type: Option<String>,
    profile_sealed: Option<Vec<u8>>,
    scopes: Option<String>,
    scopes_assumed: Option<bool>,
    rt_sealed: Option<Vec<u8>>,
    rt_fingerprint: Option<Vec<u8>>,
    rt_parent_fingerprint: Option<Vec<u8>>,
    rt_epoch: Option<i64>,
    next_refresh_at: Option<i64>,
}

#[derive(Debug, sqlx::FromRow)]
struct ClaimColumns {
    claim_owner: Option<Vec<u8>>,
    claim_deadline: Option<i64>,
    settle_at: Option<i64>,
}

impl TryFrom<CredentialRow> for Credential {
    type Error = StoreError;

    fn try_from(row: CredentialRow) -> Result<Self, StoreError> {
        let state = match row.status.as_str() {
            "active" => CredentialState::Active {
                tokens: row.tokens.try_into()?,
                back_off: back_off(row.failures, row.not_before, row.last_error.as_deref())?,
            },
            "refreshing" => CredentialState::Refreshing {
                tokens: row.tokens.try_into()?,
                claim: row.claim.try_into()?,
                failures: count(row.failures)?,
            },
            "needs_reauth" => CredentialState::NeedsReauth {
                tokens: row.tokens.try_into()?,
                reason: reauth_reason(
                    row.reauth_reason.as_deref().ok_or(StoreError::Corrupt("a reauthorization reason"))?,
                )?,
            },
            "revoked" => CredentialState::Revoked,
            _ => return Err(StoreError::Corrupt("a credential status")),
        };
        Ok(Self {
            id: CredentialId::from_bytes(array(&row.id)?),
            key: row.key.try_into()?,
            created_at: time(row.created_at)?,
            updated_at: time(row.updated_at)?,
            grant_id: GrantId::from_bytes(array(&row.grant_id)?),
            configuration: configuration(row.configuration.as_deref())?,
            generation: row.generation,
            epoch: row.epoch,
            state,
        })
    }
}

impl TryFrom<TokenColumns> for StoredTokens {
    type Error = StoreError;

    fn try_from(row: TokenColumns) -> Result<Self, StoreError> {
        const MISSING: StoreError = StoreError::Corrupt("a token column is empty");
        let refresh = match (row.rt_sealed, row.rt_fingerprint, row.rt_epoch) {
            (Some(sealed), Some(own), Some(epoch)) => Some(StoredRefreshToken {
                sealed: Sealed(sealed),
                fingerprint: fingerprint(&own)?,
                parent_fingerprint: row.rt_parent_fingerprint.as_deref().map(fingerprint).transpose()?,
                epoch,
            }),
            (None, None, None) => None,
            _ => return Err(MISSING),
        };
        Ok(Self {
            access_sealed: Sealed(row.access_sealed.ok_or(MISSING)?),
            access_life: AccessLife {
                obtained_at: time(row.access_obtained_at.ok_or(MISSING)?)?,
                expires_at: optional_time(row.access_expires_at)?,
            },
            token_type: row.token_type.ok_or(MISSING)?,
            refresh,
            profile_sealed: Sealed(row.profile_sealed.ok_or(MISSING)?),
            scopes: scopes(&row.scopes.ok_or(MISSING)?)?,
            scopes_assumed: row.scopes_assumed.ok_or(MISSING)?,
            next_refresh_at: optional_time(row.next_refresh_at)?,
        })
    }
}

impl TryFrom<ClaimColumns> for Claim {
    type Error = StoreError;

    fn try_from(row: ClaimColumns) -> Result<Self, StoreError> {
        let (Some(owner), Some(deadline), Some(settle_at)) =
            (row.claim_owner, row.claim_deadline, row.settle_at)
        else {
            return Err(StoreError::Corrupt("a claim column is empty"));
        };
        Ok(Self {
            owner: ClaimOwner::from_bytes(array(&owner)?),
            deadline: time(deadline)?,
            settle_at: time(settle_at)?,
        })
    }
}

fn back_off(
    failures: i64,
    not_before: Option<i64>,
    last: Option<&str>,
) -> Result<Option<BackOff>, StoreError> {
    match (not_before, last) {
        (Some(not_before), Some(last)) => Ok(Some(BackOff {
            not_before: time(not_before)?,
            failures: count(failures)?,
            last: refresh_failure(last)?,
        })),
        (None, None) => Ok(None),
        _ => Err(StoreError::Corrupt("a back-off column is empty")),
    }
}
