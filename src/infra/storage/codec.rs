//! How values of the domain are written in columns, and read back. Whatever can't be read is [`StoreError::Corrupt`].

use std::time::Duration;

use jiff::Timestamp;

use crate::domain::credential::{Fingerprint, ReauthReason, RefreshFailure};
use crate::domain::data_key::{DataKeyPurpose, SealedTable};
use crate::domain::event::Standing;
use crate::domain::flow::{ConsentBinding, FlowFailure, FlowStatus};
use crate::domain::key::{Account, CredentialKey, GrantName, ProviderId, TenantId, UserId};
use crate::domain::ports::{RevocationOutcome, StoreError};
use crate::domain::scope::{Scope, ScopeSet};

/// A time as microseconds since 1970.
pub(super) fn micros(time: Timestamp) -> i64 {
    time.as_microsecond()
}

/// A while as microseconds.
pub(super) fn micros_of(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

pub(super) fn time(micros: i64) -> Result<Timestamp, StoreError> {
    Timestamp::from_microsecond(micros).map_err(|_| StoreError::Corrupt("a time is out of range"))
}

pub(super) fn optional_time(micros: Option<i64>) -> Result<Option<Timestamp>, StoreError> {
    micros.map(time).transpose()
}

pub(super) fn array<const N: usize>(bytes: &[u8]) -> Result<[u8; N], StoreError> {
    bytes.try_into().map_err(|_| StoreError::Corrupt("an id or hash has another length"))
}

pub(super) fn fingerprint(bytes: &[u8]) -> Result<Fingerprint, StoreError> {
    array(bytes).map(Fingerprint)
}

pub(super) fn count(number: i64) -> Result<u32, StoreError> {
    u32::try_from(number).map_err(|_| StoreError::Corrupt("a counter is out of range"))
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

/// The key's columns, in the order of the row.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct KeyColumns {
    tenant: String,
    provider: String,
    user_id: String,
    grant_name: String,
    account: String,
}

impl TryFrom<KeyColumns> for CredentialKey {
    type Error = StoreError;

    fn try_from(row: KeyColumns) -> Result<Self, StoreError> {
        Ok(Self {
            tenant: tenant(row.tenant)?,
            provider: provider(row.provider)?,
            user: UserId::new(row.user_id).map_err(|_| StoreError::Corrupt("a user id"))?,
            grant: GrantName::new(row.grant_name).map_err(|_| StoreError::Corrupt("a grant name"))?,
            account: Account::new(row.account).map_err(|_| StoreError::Corrupt("an account"))?,
        })
    }
}

pub(super) fn tenant(text: String) -> Result<TenantId, StoreError> {
    TenantId::new(text).map_err(|_| StoreError::Corrupt("a tenant id"))
}

pub(super) fn provider(text: String) -> Result<ProviderId, StoreError> {
    ProviderId::new(text).map_err(|_| StoreError::Corrupt("a provider id"))
}

/// A JSON array of strings.
pub(super) fn json_list<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    texts.collect::<serde_json::Value>().to_string()
}

pub(super) fn list(json: &str) -> Result<Vec<String>, StoreError> {
    serde_json::from_str(json).map_err(|_| StoreError::Corrupt("a list"))
}

pub(super) fn json_scopes(scopes: &ScopeSet) -> String {
    json_list(scopes.iter().map(Scope::as_str))
}

pub(super) fn scopes(json: &str) -> Result<ScopeSet, StoreError> {
    list(json)?.into_iter().map(|text| Scope::new(text).map_err(|_| StoreError::Corrupt("a scope"))).collect()
}

/// An enum in a text column.
macro_rules! text_column {
    ($to_text:ident, $from_text:ident, $type:ty, $what:literal, { $($text:literal = $variant:path),+ $(,)? }) => {
        pub(super) fn $to_text(value: $type) -> &'static str {
            match value {
                $($variant => $text,)+
            }
        }

        pub(super) fn $from_text(text: &str) -> Result<$type, StoreError> {
            match text {
                $($text => Ok($variant),)+
                _ => Err(StoreError::Corrupt($what)),
            }
        }
    };
}

text_column!(refresh_failure_text, refresh_failure, RefreshFailure, "a refresh failure", {
    "provider_unavailable" = RefreshFailure::ProviderUnavailable,
    "rate_limited" = RefreshFailure::RateLimited,
    "client_rejected" = RefreshFailure::ClientRejected,
    "outcome_unknown" = RefreshFailure::OutcomeUnknown,
});
text_column!(reauth_reason_text, reauth_reason, ReauthReason, "a reauthorization reason", {
    "refresh_token_rejected" = ReauthReason::RefreshTokenRejected,
    "expired_no_refresh" = ReauthReason::ExpiredNoRefresh,
});
text_column!(flow_failure_text, flow_failure, FlowFailure, "a flow failure", {
    "provider_error" = FlowFailure::ProviderError,
    "exchange_rejected" = FlowFailure::ExchangeRejected,
    "exchange_failed" = FlowFailure::ExchangeFailed,
    "store_failed" = FlowFailure::StoreFailed,
    "id_token_invalid" = FlowFailure::IdTokenInvalid,
    "account_mismatch" = FlowFailure::AccountMismatch,
    "interrupted" = FlowFailure::Interrupted,
    "user_mismatch" = FlowFailure::UserMismatch,
    "browser_mismatch" = FlowFailure::BrowserMismatch,
});
text_column!(binding_text, binding, ConsentBinding, "a binding", {
    "app" = ConsentBinding::App,
    "login" = ConsentBinding::Login,
    "confirm" = ConsentBinding::Confirm,
});
text_column!(standing_text, standing, Standing, "an event's status", {
    "not_connected" = Standing::NotConnected,
    "connected" = Standing::Connected,
    "needs_reauth" = Standing::NeedsReauth,
    "revoked" = Standing::Revoked,
});
text_column!(purpose_text, purpose, DataKeyPurpose, "a data key purpose", {
    "encryption" = DataKeyPurpose::Encryption,
    "fingerprint" = DataKeyPurpose::Fingerprint,
});
text_column!(place_text, place, SealedTable, "a table's name", {
    "credentials" = SealedTable::Credentials,
    "flows" = SealedTable::Flows,
    "revocations" = SealedTable::Revocations,
    "provider_configurations" = SealedTable::ProviderConfigs,
    "user_keys" = SealedTable::UserKeys,
});

/// What the status of a credential's row means to others.
pub(super) fn status_standing(status: &str) -> Result<Standing, StoreError> {
    match status {
        "active" | "refreshing" => Ok(Standing::Connected),
        "needs_reauth" => Ok(Standing::NeedsReauth),
        "revoked" => Ok(Standing::Revoked),
        _ => Err(StoreError::Corrupt("a credential status")),
    }
}

/// Never read back by the broker: kept for the operator.
pub(super) fn outcome_text(outcome: RevocationOutcome) -> &'static str {
    match outcome {
        RevocationOutcome::Revoked => "revoked",
        RevocationOutcome::Failed => "failed",
        RevocationOutcome::NotSupported => "not_supported",
    }
}

/// The columns `status` and `failure` of a flow.
pub(super) fn flow_status_texts(status: FlowStatus) -> (&'static str, Option<&'static str>) {
    match status {
        FlowStatus::Pending => ("pending", None),
        FlowStatus::Returned => ("returned", None),
        FlowStatus::Exchanging => ("exchanging", None),
        FlowStatus::Completed => ("completed", None),
        FlowStatus::Denied => ("denied", None),
        FlowStatus::Failed(failure) => ("failed", Some(flow_failure_text(failure))),
        FlowStatus::Expired => ("expired", None),
        FlowStatus::Cancelled => ("cancelled", None),
    }
}

pub(super) fn flow_status(status: &str, failure: Option<&str>) -> Result<FlowStatus, StoreError> {
    match (status, failure) {
        ("pending", None) => Ok(FlowStatus::Pending),
        ("returned", None) => Ok(FlowStatus::Returned),
        ("exchanging", None) => Ok(FlowStatus::Exchanging),
        ("completed", None) => Ok(FlowStatus::Completed),
        ("denied", None) => Ok(FlowStatus::Denied),
        ("failed", Some(failure)) => Ok(FlowStatus::Failed(flow_failure(failure)?)),
        ("expired", None) => Ok(FlowStatus::Expired),
        ("cancelled", None) => Ok(FlowStatus::Cancelled),
        _ => Err(StoreError::Corrupt("a flow status")),
    }
}
