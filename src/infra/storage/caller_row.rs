//! Rows of `callers`, `api_keys` and `tenants`, between columns and domain.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::codec::{array, micros_of, optional_time, tenant, time};
use crate::domain::access_policy::Identity;
use crate::domain::caller_store::{
    ApiKey, Claim, FoundCaller, IdentityList, LAST_USED_GRAIN, StoredCaller, Tenant,
};
use crate::domain::key::{ApiKeyId, CallerId};
use crate::domain::ports::StoreError;

/// As stored.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct CallerRow {
    tenant: String,
    id: String,
    description: String,
    rules: String,
    admin: String,
    identities: String,
    disabled_at: Option<i64>,
    revision: i64,
    created_at: i64,
    updated_at: i64,
}

/// As stored.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct KeyRow {
    key_id: Vec<u8>,
    key_tenant: String,
    key_caller: String,
    label: String,
    key_created_at: i64,
    expires_at: Option<i64>,
    revoked_at: Option<i64>,
    last_used_at: Option<i64>,
}

/// A key with its caller.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct KeyAndCallerRow {
    #[sqlx(flatten)]
    caller: CallerRow,
    #[sqlx(flatten)]
    key: KeyRow,
}

/// As stored.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct TenantRow {
    id: String,
    display_name: String,
    created_at: i64,
    disabled_at: Option<i64>,
    deleted_at: Option<i64>,
}

fn caller_id(text: String) -> Result<CallerId, StoreError> {
    CallerId::new(text).map_err(|_| StoreError::Corrupt("a caller id"))
}

impl TryFrom<CallerRow> for StoredCaller {
    type Error = StoreError;

    fn try_from(row: CallerRow) -> Result<Self, StoreError> {
        let identities: Vec<IdentityForm> = read_json(&row.identities, "the identities of a caller")?;
        Ok(Self {
            tenant: tenant(row.tenant)?,
            id: caller_id(row.id)?,
            description: row.description,
            rules: read_json(&row.rules, "the rules of a caller")?,
            admin: read_json(&row.admin, "the admin rights of a caller")?,
            identities: identities.into_iter().map(Into::into).collect(),
            disabled_at: optional_time(row.disabled_at)?,
            revision: u64::try_from(row.revision).map_err(|_| StoreError::Corrupt("a revision"))?,
            created_at: time(row.created_at)?,
            updated_at: time(row.updated_at)?,
        })
    }
}

impl TryFrom<KeyRow> for ApiKey {
    type Error = StoreError;

    fn try_from(row: KeyRow) -> Result<Self, StoreError> {
        Ok(Self {
            id: ApiKeyId::from_bytes(array(&row.key_id)?),
            tenant: tenant(row.key_tenant)?,
            caller: caller_id(row.key_caller)?,
            label: row.label,
            created_at: time(row.key_created_at)?,
            expires_at: optional_time(row.expires_at)?,
            revoked_at: optional_time(row.revoked_at)?,
            last_used_at: optional_time(row.last_used_at)?,
        })
    }
}

impl TryFrom<KeyAndCallerRow> for FoundCaller {
    type Error = StoreError;

    fn try_from(row: KeyAndCallerRow) -> Result<Self, StoreError> {
        Ok(Self { caller: row.caller.try_into()?, key: Some(row.key.try_into()?) })
    }
}

impl TryFrom<TenantRow> for Tenant {
    type Error = StoreError;

    fn try_from(row: TenantRow) -> Result<Self, StoreError> {
        Ok(Self {
            id: tenant(row.id)?,
            display_name: row.display_name,
            created_at: time(row.created_at)?,
            disabled_at: optional_time(row.disabled_at)?,
            deleted_at: optional_time(row.deleted_at)?,
        })
    }
}

/// An identity as JSON. API keys have a table of their own.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum IdentityForm {
    Spiffe(String),
    Subject { issuer: String, subject: String },
}

impl From<IdentityForm> for Identity {
    fn from(form: IdentityForm) -> Self {
        match form {
            IdentityForm::Spiffe(id) => Self::SpiffeId(id),
            IdentityForm::Subject { issuer, subject } => Self::Subject { issuer, subject },
        }
    }
}

/// The columns of a caller that are JSON.
pub(super) struct CallerJson {
    pub(super) rules: String,
    pub(super) admin: String,
    pub(super) identities: String,
}

impl CallerJson {
    pub(super) fn of(caller: &StoredCaller) -> Self {
        let identities: Vec<_> = caller.identities.iter().filter_map(form).collect();
        Self { rules: json(&caller.rules), admin: json(&caller.admin), identities: json(&identities) }
    }
}

fn form(identity: &Identity) -> Option<IdentityForm> {
    match identity {
        Identity::ApiKey(_) => None,
        Identity::SpiffeId(id) => Some(IdentityForm::Spiffe(id.clone())),
        Identity::Subject { issuer, subject } => {
            Some(IdentityForm::Subject { issuer: issuer.clone(), subject: subject.clone() })
        }
    }
}

const SPIFFE: &str = "spiffe";
const SUBJECT: &str = "subject";
const ID: &str = "id";

/// Kind, issuer and subject of an identity that is no API key.
pub(super) fn identity_columns(identity: &Identity) -> Option<(&'static str, &str, &str)> {
    match identity {
        Identity::ApiKey(_) => None,
        Identity::SpiffeId(id) => Some((SPIFFE, "", id)),
        Identity::Subject { issuer, subject } => Some((SUBJECT, issuer, subject)),
    }
}

/// All of those, in their order, each with its list.
pub(super) fn identity_rows(
    identities: &BTreeSet<Identity>,
) -> impl Iterator<Item = (IdentityList, (&'static str, &str, &str))> {
    identities.iter().filter_map(|identity| IdentityList::of(identity).zip(identity_columns(identity)))
}

/// Claims as the statements take them: kind, tenant or issuer, id or subject. An id is of a kind of its own.
pub(super) fn claim_columns(claim: &Claim) -> Option<(&'static str, &str, &str)> {
    match claim {
        Claim::Id(tenant, id) => Some((ID, tenant.as_str(), id.as_str())),
        Claim::Identity(identity) => identity_columns(identity),
    }
}

/// A claim that somebody has.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct ClaimRow {
    kind: String,
    issuer: String,
    subject: String,
}

impl TryFrom<ClaimRow> for Claim {
    type Error = StoreError;

    fn try_from(ClaimRow { kind, issuer, subject }: ClaimRow) -> Result<Self, StoreError> {
        match kind.as_str() {
            ID => Ok(Self::Id(tenant(issuer)?, caller_id(subject)?)),
            SPIFFE => Ok(Self::Identity(Identity::SpiffeId(subject))),
            SUBJECT => Ok(Self::Identity(Identity::Subject { issuer, subject })),
            _ => Err(StoreError::Corrupt("the kind of an identity")),
        }
    }
}

fn json(value: &impl Serialize) -> String {
    // Lists of texts always have a JSON form; an empty text would not be read back.
    serde_json::to_string(value).unwrap_or_default()
}

fn read_json<'a, T: Deserialize<'a>>(text: &'a str, what: &'static str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|_| StoreError::Corrupt(what))
}

/// In microseconds: a key that was last seen longer ago is marked again.
pub(super) fn used_before() -> i64 {
    micros_of(LAST_USED_GRAIN)
}

pub(super) fn newest_first(rows: Vec<KeyRow>) -> Result<Vec<ApiKey>, StoreError> {
    let mut keys = rows.into_iter().map(TryInto::try_into).collect::<Result<Vec<ApiKey>, StoreError>>()?;
    keys.sort_by_key(|key| (std::cmp::Reverse(key.created_at), key.id));
    Ok(keys)
}
