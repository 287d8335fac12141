//! Enumerations and reason words of the proto: exhaustive, so that a new variant does not compile before it has a name.

use crate::application::types::{ConsentReason, ProviderRevocation, ViewStatus};
use crate::domain::credential::{ReauthReason, RefreshFailure};
use crate::domain::event::Standing;
use crate::domain::flow::{ConsentBinding, FlowFailure, FlowStatus};
use crate::r#gen::v1 as pb;

pub(super) fn consent_reason(reason: ConsentReason) -> pb::AuthorizationRequiredReason {
    match reason {
        ConsentReason::NotConnected => pb::AuthorizationRequiredReason::NotConnected,
        ConsentReason::ScopesMissing => pb::AuthorizationRequiredReason::ScopesMissing,
        ConsentReason::Revoked => pb::AuthorizationRequiredReason::Revoked,
        ConsentReason::ExpiredNoRefresh => pb::AuthorizationRequiredReason::ExpiredNoRefresh,
        ConsentReason::RefreshTokenRejected => pb::AuthorizationRequiredReason::RefreshTokenRejected,
        ConsentReason::FlowPending => pb::AuthorizationRequiredReason::FlowPending,
        ConsentReason::ConsentDenied => pb::AuthorizationRequiredReason::ConsentDenied,
        ConsentReason::AppGone => pb::AuthorizationRequiredReason::AppGone,
    }
}

/// The reason's name without the enum's, for errors.
pub(in super::super) fn consent_reason_name(reason: ConsentReason) -> &'static str {
    let name = consent_reason(reason).as_str_name();
    name.strip_prefix("AUTHORIZATION_REQUIRED_REASON_").unwrap_or(name)
}

/// How a credential stands, for events.
pub(super) fn standing(standing: Standing) -> pb::CredentialStanding {
    match standing {
        Standing::NotConnected => pb::CredentialStanding::NotConnected,
        Standing::Connected => pb::CredentialStanding::Connected,
        Standing::NeedsReauth => pb::CredentialStanding::NeedsReauth,
        Standing::Revoked => pb::CredentialStanding::Revoked,
    }
}

/// `Credential.refresh_failure`.
pub(super) fn refresh_failure(failure: RefreshFailure) -> &'static str {
    match failure {
        RefreshFailure::ProviderUnavailable => "PROVIDER_UNAVAILABLE",
        RefreshFailure::RateLimited => "RATE_LIMITED",
        RefreshFailure::ClientRejected => "CLIENT_REJECTED",
        RefreshFailure::OutcomeUnknown => "OUTCOME_UNKNOWN",
    }
}

/// `Flow.status` and `Flow.failure`.
pub(super) fn flow_status(status: FlowStatus) -> (pb::FlowStatus, &'static str) {
    match status {
        FlowStatus::Pending => (pb::FlowStatus::Pending, ""),
        FlowStatus::Returned => (pb::FlowStatus::Returned, ""),
        FlowStatus::Exchanging => (pb::FlowStatus::Exchanging, ""),
        FlowStatus::Completed => (pb::FlowStatus::Completed, ""),
        FlowStatus::Denied => (pb::FlowStatus::Denied, "ACCESS_DENIED"),
        FlowStatus::Failed(failure) => (pb::FlowStatus::Failed, flow_failure(failure)),
        FlowStatus::Expired => (pb::FlowStatus::Expired, ""),
        FlowStatus::Cancelled => (pb::FlowStatus::Cancelled, ""),
    }
}

fn flow_failure(failure: FlowFailure) -> &'static str {
    match failure {
        FlowFailure::ProviderError => "PROVIDER_ERROR",
        FlowFailure::ExchangeRejected => "EXCHANGE_REJECTED",
        FlowFailure::ExchangeFailed => "EXCHANGE_FAILED",
        FlowFailure::StoreFailed => "STORE_FAILED",
        FlowFailure::IdTokenInvalid => "ID_TOKEN_INVALID",
        FlowFailure::AccountMismatch => "ACCOUNT_MISMATCH",
        FlowFailure::Interrupted => "INTERRUPTED",
        FlowFailure::UserMismatch => "USER_MISMATCH",
        FlowFailure::BrowserMismatch => "BROWSER_MISMATCH",
    }
}

pub(super) fn binding(binding: ConsentBinding) -> pb::ConsentBinding {
    match binding {
        ConsentBinding::App => pb::ConsentBinding::App,
        ConsentBinding::Login => pb::ConsentBinding::Login,
        ConsentBinding::Confirm => pb::ConsentBinding::Confirm,
    }
}

pub(super) fn credential_status(
    status: ViewStatus,
) -> (pb::CredentialStatus, pb::AuthorizationRequiredReason) {
    let unspecified = pb::AuthorizationRequiredReason::Unspecified;
    match status {
        ViewStatus::Active => (pb::CredentialStatus::Active, unspecified),
        ViewStatus::Refreshing => (pb::CredentialStatus::Refreshing, unspecified),
        ViewStatus::NeedsReauth(reason) => (pb::CredentialStatus::NeedsReauth, reauth_reason(reason)),
    }
}

pub(super) fn reauth_reason(reason: ReauthReason) -> pb::AuthorizationRequiredReason {
    consent_reason(reason.into())
}

pub(super) fn provider_revocation(revocation: Option<ProviderRevocation>) -> pb::ProviderRevocation {
    match revocation {
        None => pb::ProviderRevocation::Unspecified,
        Some(ProviderRevocation::Revoked) => pb::ProviderRevocation::Revoked,
        Some(ProviderRevocation::Pending) => pb::ProviderRevocation::Pending,
        Some(ProviderRevocation::Failed) => pb::ProviderRevocation::Failed,
        Some(ProviderRevocation::NotSupported) => pb::ProviderRevocation::NotSupported,
    }
}
