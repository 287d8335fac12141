//! What a use case can fail with. One exhaustive map in `transport/grpc/status.rs` turns it into a gRPC status.

use std::time::Duration;

use crate::domain::access_policy::Suspension;
use crate::domain::caller_store::IdentityList;
use crate::domain::cipher::CipherError;
use crate::domain::credential::RefreshFailure;
use crate::domain::ports::StoreError;
use crate::domain::provider_config::ConfigUses;
use crate::domain::rate_limit::RateLimit;

/// A field that can't be accepted, and what to change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The request's field, as `key.user_id` or `scopes[3]`.
    pub field: String,
    /// A full sentence for the caller's developer. Never repeats the value.
    pub description: String,
}

impl Violation {
    /// A violation of one field.
    #[must_use]
    pub fn new(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self { field: field.into(), description: description.into() }
    }
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// All that is wrong with the arguments.
    #[error("the arguments are not valid")]
    InvalidArgument(Vec<Violation>),
    /// The caller is known, and it or its tenant is disabled.
    #[error("the caller is disabled")]
    Suspended(Suspension),
    /// Who began a stream is nobody any more: the key was revoked or has ended, or the caller is gone.
    #[error("the caller is not known any more")]
    NotKnownAnyMore,
    /// Policy says no, whether or not the thing exists.
    #[error("the caller may not do this")]
    PermissionDenied,
    /// There is no such thing in the caller's tenant.
    #[error("not found")]
    NotFound(NotFound),
    /// An identity in this list is a caller's already, of whichever tenant.
    #[error("an identity is a caller's already")]
    IdentityTaken(IdentityList),
    /// The thing is in the wrong state.
    #[error("the state forbids it")]
    FailedPrecondition(Precondition),
    /// A limit is used up.
    #[error("a limit is used up")]
    ResourceExhausted {
        /// Of what there are too many.
        limit: Limit,
        /// When to come back.
        retry_after: Duration,
    },
    /// Try again later. Never "not connected".
    #[error("not available now")]
    Unavailable {
        /// What is not.
        what: Unavailable,
        /// When to come back.
        retry_after: Duration,
    },
    /// A stored ciphertext or row does not open.
    #[error("stored data is damaged")]
    DataLoss,
    /// The two halves of CompleteOAuth are not both right, or not for this user. It does not say which.
    #[error("the completion is refused")]
    CompletionRefused,
    /// The broker's own fault.
    #[error("internal error")]
    Internal,
}

/// What was not found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotFound {
    /// Not configured.
    Provider,
    /// Not a service of the provider.
    Service,
    /// No flow of this id in the tenant.
    Flow,
    /// No caller of this id in the tenant.
    Caller,
    /// No API key of this id of the caller, or none that is good.
    ApiKey,
    /// No tenant of this id, or it is deleted.
    Tenant,
    /// No data key of this id.
    DataKey,
    /// No configuration of this provider id in the tenant.
    ProviderConfiguration,
}

/// What forbids it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precondition {
    /// An import would replace a credential that is in order.
    CredentialExists,
    /// The flow is not pending any more.
    FlowEnded,
    /// CompleteOAuth before the browser has come back.
    BrowserNotBack,
    /// CompleteOAuth of a flow that its browser completes by itself.
    OtherBinding,
    /// The lease is none any more, and the token perhaps neither.
    LeaseLost(LostLease),
    /// The credential is in use and may not be revoked without force.
    Leased {
        /// By so many leases.
        leases: u64,
    },
    /// The data key is not retired.
    KeyInUse(super::keys::Refusal),
    /// The tenant's data keys were rotated less than an hour ago, by nobody of all tenants' operators.
    RotatedLately {
        /// From when on.
        until: jiff::Timestamp,
    },
    /// The cursor is older than the events that are kept, or of another database.
    CursorExpired,
    /// There is a caller of this id already, in the configuration or in the database.
    CallerExists,
    /// The caller is in the configuration, and can only be changed there.
    CallerConfigured,
    /// The caller has been changed since it was read.
    CallerChanged,
    /// The caller has as many good API keys as it may have.
    TooManyApiKeys,
    /// There is a tenant of this id, or was one.
    TenantExists,
    /// The tenant has disabled its configuration of the provider.
    ProviderDisabled,
    /// The tenant's configuration of the provider does not fit the definition any more.
    ProviderMisconfigured,
    /// The tenant has a configuration of this provider id already.
    ProviderConfigurationExists,
    /// The configuration has been changed since it was read.
    ProviderConfigurationChanged,
    /// Something was obtained with the configuration.
    ProviderConfigurationInUse(ConfigUses),
    /// The tenant has as many configurations as it may have.
    TooManyProviderConfigurations,
}

/// What became of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LostLease {
    /// It ran out, was released, or was lost with all others; or it is not of this key.
    Ended,
    /// There is no token any more.
    NoToken(super::types::ConsentReason),
}

/// What is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Consents of one user at one provider that are pending.
    PendingConsents,
    /// Streams of one caller at this replica.
    Watches,
    /// Calls in a time.
    Rate(RateLimit),
}

/// What is not available.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unavailable {
    /// The database.
    Storage,
    /// The service that holds the key-encryption key.
    KeyService,
    /// The provider, while no valid token is left.
    Provider,
    /// The provider limits the rate, while no valid token is left.
    ProviderRateLimited,
    /// The provider refuses the broker's client, while no valid token is left: the operator has to act.
    ClientRejected,
    /// A refresh is under way and takes longer than the caller waits.
    RefreshInProgress,
    /// A refresh's outcome is unknown, while no valid token is left.
    OutcomeUnknown,
    /// The audit log, without which the answer may not be given.
    Audit,
}

impl From<RefreshFailure> for Unavailable {
    fn from(failure: RefreshFailure) -> Self {
        match failure {
            RefreshFailure::ProviderUnavailable => Self::Provider,
            RefreshFailure::RateLimited => Self::ProviderRateLimited,
            RefreshFailure::ClientRejected => Self::ClientRejected,
            RefreshFailure::OutcomeUnknown => Self::OutcomeUnknown,
        }
    }
}

/// How soon to come back after a database error.
const STORAGE_RETRY: Duration = Duration::from_secs(1);

impl From<StoreError> for BrokerError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(cause) => {
                tracing::error!(cause = %cause, "database not available");
                Self::Unavailable { what: Unavailable::Storage, retry_after: STORAGE_RETRY }
            }
            StoreError::Corrupt(what) => {
                tracing::error!(what, "stored row is damaged");
                Self::DataLoss
            }
        }
    }
}

impl From<CipherError> for BrokerError {
    fn from(error: CipherError) -> Self {
        match error {
            CipherError::Store(store) => store.into(),
            CipherError::KeyService(cause) => {
                tracing::error!(%cause, "key service not available");
                Self::Unavailable { what: Unavailable::KeyService, retry_after: STORAGE_RETRY }
            }
            CipherError::UnknownKey | CipherError::KeysDeleted | CipherError::DoesNotOpen => {
                tracing::error!(%error, "stored secret does not open");
                Self::DataLoss
            }
        }
    }
}
