//! Errors to statuses: the one map. Each status carries `google.rpc.ErrorInfo` with a stable reason; texts are fixed, so
//! that nothing of a provider or of the database can reach a caller. `docs/API.md` lists them all.

mod precondition;

use std::collections::HashMap;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};

use crate::application::error::{BrokerError, Limit, NotFound, Unavailable, Violation};
use crate::domain::access_policy::Suspension;
use crate::domain::caller_store::IdentityList;

/// `ErrorInfo.domain` of every error.
pub const DOMAIN: &str = "tokenbroker";

/// The reason of a call that came too often.
pub(super) const RATE_LIMITED: &str = "RATE_LIMITED";

/// Where waiting helps, the least that is asked for: `0s` would read as "at once".
const LEAST_RETRY: Duration = Duration::from_millis(100);
/// When an issuer that did not tell its keys is asked again.
const IDENTITY_RETRY: Duration = Duration::from_secs(2);

/// When to come back while the audit log can't be written.
const AUDIT_RETRY: Duration = Duration::from_secs(1);

impl From<BrokerError> for Status {
    fn from(error: BrokerError) -> Self {
        match error {
            BrokerError::InvalidArgument(violations) => invalid_argument(violations),
            BrokerError::NotKnownAnyMore => unauthenticated(),
            BrokerError::PermissionDenied => status(
                Code::PermissionDenied,
                "PERMISSION_DENIED",
                "the caller may not do this: its rights are in the broker's configuration",
                None,
            ),
            BrokerError::Suspended(suspension) => suspended(suspension),
            BrokerError::NotFound(what) => not_found(what),
            BrokerError::IdentityTaken(list) => identity_taken(list),
            BrokerError::FailedPrecondition(what) => precondition::failed_precondition(what),
            BrokerError::ResourceExhausted { limit, retry_after } => limit_reached(limit, retry_after),
            BrokerError::Unavailable { what, retry_after } => unavailable(what, retry_after),
            BrokerError::DataLoss => status(
                Code::DataLoss,
                "STORED_DATA_DAMAGED",
                "stored data is damaged or was encrypted with another key; the operator's log has the details",
                None,
            ),
            BrokerError::CompletionRefused => status(
                Code::PermissionDenied,
                "COMPLETION_REFUSED",
                "the flow secret, the completion code and the user do not belong together",
                None,
            ),
            BrokerError::Internal => internal(),
        }
    }
}

fn suspended(suspension: Suspension) -> Status {
    let (reason, text) = match suspension {
        Suspension::Caller => ("CALLER_DISABLED", "this caller is disabled: the operator has to enable it"),
        Suspension::Tenant => {
            ("TENANT_DISABLED", "the caller's tenant is disabled: the operator has to enable it")
        }
    };
    status(Code::PermissionDenied, reason, text, None)
}

fn not_found(what: NotFound) -> Status {
    let (reason, text) = match what {
        NotFound::Provider => ("PROVIDER_NOT_FOUND", "no such provider: ListProviders names those there are"),
        NotFound::Service => {
            ("SERVICE_NOT_FOUND", "no such service at this provider: ListProviders names those there are")
        }
        NotFound::DataKey => ("DATA_KEY_NOT_FOUND", "no such data key"),
        NotFound::Flow => ("FLOW_NOT_FOUND", "no such flow: it never was, or ended long ago"),
        NotFound::Caller => ("CALLER_NOT_FOUND", "no such caller: ListCallers names those there are"),
        NotFound::ApiKey => ("API_KEY_NOT_FOUND", "this caller has no such API key, or it is good no more"),
        NotFound::Tenant => ("TENANT_NOT_FOUND", "no such tenant: ListTenants names those there are"),
        NotFound::ProviderConfiguration => (
            "PROVIDER_CONFIGURATION_NOT_FOUND",
            "the tenant has no such provider configuration: ListProviderConfigurations names those there are",
        ),
    };
    status(Code::NotFound, reason, text, None)
}

/// It does not say whose: that may be another tenant's.
fn identity_taken(list: IdentityList) -> Status {
    let text = match list {
        IdentityList::SpiffeIds => {
            "settings.spiffe_ids: one of them is a caller's already; an identity is one caller's"
        }
        IdentityList::Subjects => {
            "settings.subjects: one of them is a caller's already; an identity is one caller's"
        }
    };
    status(Code::AlreadyExists, "IDENTITY_TAKEN", text, None)
}

fn limit_reached(limit: Limit, retry_after: Duration) -> Status {
    let (reason, text) = match limit {
        Limit::PendingConsents => {
            ("LIMIT_REACHED", "too many consents of this user at this provider are pending")
        }
        Limit::Watches => ("TOO_MANY_WATCHES", "this caller has too many streams of WatchCredentials open"),
        Limit::Rate(which) => {
            let metadata = HashMap::from([("limit".to_owned(), which.name().to_owned())]);
            let mut details = ErrorDetails::with_error_info(RATE_LIMITED, DOMAIN, metadata);
            details.set_retry_info(Some(retry_after.max(LEAST_RETRY)));
            let text = "too many calls: the details say by which limit, and when to come back";
            return Status::with_error_details(Code::ResourceExhausted, text, details);
        }
    };
    status(Code::ResourceExhausted, reason, text, Some(retry_after))
}

fn unavailable(what: Unavailable, retry_after: Duration) -> Status {
    let (reason, text) = match what {
        Unavailable::Storage => ("STORAGE_UNAVAILABLE", "the broker's database or journal is not available"),
        Unavailable::KeyService => (
            "KEY_SERVICE_UNAVAILABLE",
            "the service that holds the broker's key-encryption key does not answer",
        ),
        Unavailable::Provider => {
            ("PROVIDER_UNAVAILABLE", "the provider does not answer, and no valid token is left")
        }
        Unavailable::ProviderRateLimited => {
            ("PROVIDER_RATE_LIMITED", "the provider limits the rate, and no valid token is left")
        }
        Unavailable::ClientRejected => (
            "CLIENT_REJECTED",
            "the provider refuses the broker's client, and no valid token is left: the operator has to act",
        ),
        Unavailable::RefreshInProgress => {
            ("REFRESH_IN_PROGRESS", "the token is being refreshed, which takes longer than the caller waits")
        }
        Unavailable::OutcomeUnknown => (
            "OUTCOME_UNKNOWN",
            "the answer to a refresh was lost, and no valid token is left: the broker will find out",
        ),
        Unavailable::Audit => (
            "AUDIT_UNAVAILABLE",
            "the broker's audit log does not take the decision, so its answer is withheld",
        ),
    };
    status(Code::Unavailable, reason, text, Some(retry_after))
}

/// Every violation at once.
fn invalid_argument(violations: Vec<Violation>) -> Status {
    let mut details = ErrorDetails::with_error_info("INVALID_ARGUMENT", DOMAIN, []);
    details.set_bad_request(
        violations.into_iter().map(|v| FieldViolation::new(v.field, v.description)).collect::<Vec<_>>(),
    );
    Status::with_error_details(
        Code::InvalidArgument,
        "the request is not valid: see the field violations in the details",
        details,
    )
}

/// One answer for every way of not being known.
pub(super) fn unauthenticated() -> Status {
    status(
        Code::Unauthenticated,
        "UNAUTHENTICATED",
        "say who calls by one valid API key or token, as metadata `authorization: Bearer ...`, or by a client certificate",
        None,
    )
}

/// One answer for every way in which a user's token is none. Only known callers get it.
pub(super) fn user_token() -> Status {
    status(
        Code::Unauthenticated,
        "USER_TOKEN_INVALID",
        "the metadata `tokenbroker-user-token` must be one valid token of the user whom the call is for, or absent",
        None,
    )
}

/// What a stream was begun with has expired.
pub(super) fn identity_expired() -> Status {
    status(
        Code::Unauthenticated,
        "IDENTITY_EXPIRED",
        "a token or certificate that the stream was begun with has expired: begin anew with a new one, from the last cursor",
        None,
    )
}

/// Whether a token is good can't be found out now.
pub(super) fn identity_unavailable() -> Status {
    status(
        Code::Unavailable,
        "IDENTITY_UNAVAILABLE",
        "the broker cannot get the keys that the token has to be verified with",
        Some(IDENTITY_RETRY),
    )
}

/// The broker's own fault.
pub(super) fn internal() -> Status {
    status(Code::Internal, "INTERNAL", "internal error: the broker's log has the details", None)
}

/// The call was not answered in the caller's or the broker's time.
pub(super) fn deadline_exceeded() -> Status {
    status(Code::DeadlineExceeded, "DEADLINE_EXCEEDED", "the call took longer than its deadline", None)
}

/// The `grpc-timeout` header can't be read.
pub(super) fn malformed_timeout() -> Status {
    status(
        Code::InvalidArgument,
        "MALFORMED_TIMEOUT",
        "the grpc-timeout header must be one to eight digits and one of H, M, S, m, u, n",
        None,
    )
}

/// The decision could not be recorded.
pub(super) fn audit_unavailable() -> Status {
    BrokerError::Unavailable { what: Unavailable::Audit, retry_after: AUDIT_RETRY }.into()
}

/// The purpose can't be recorded.
pub(super) fn malformed_purpose() -> Status {
    status(
        Code::InvalidArgument,
        "MALFORMED_PURPOSE",
        "the tokenbroker-purpose metadata must be one entry of 1 to 128 printable ASCII characters",
        None,
    )
}

/// The request never became a message.
pub(super) fn malformed_request() -> Status {
    status(
        Code::InvalidArgument,
        "MALFORMED_REQUEST",
        "the request is not one message of the type that the method takes",
        None,
    )
}

/// The message is larger than the operator allows.
pub(super) fn request_too_large() -> Status {
    status(Code::ResourceExhausted, "REQUEST_TOO_LARGE", "the request message is too large", None)
}

/// There is no such method, or no such compression.
pub(super) fn unimplemented() -> Status {
    status(
        Code::Unimplemented,
        "UNIMPLEMENTED",
        "the broker has no such method, or does not know the compression: gzip and zstd are on offer",
        None,
    )
}

fn status(code: Code, reason: &str, text: &str, retry_after: Option<Duration>) -> Status {
    let mut details = ErrorDetails::with_error_info(reason, DOMAIN, []);
    if let Some(delay) = retry_after {
        details.set_retry_info(Some(delay.max(LEAST_RETRY)));
    }
    Status::with_error_details(code, text, details)
}

/// The code as gRPC's documentation writes it.
#[must_use]
pub fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::application::error::{LostLease, Precondition};
    use crate::application::keys::{Refusal, TableRows};
    use crate::application::types::ConsentReason;
    use crate::domain::provider_config::ConfigUses;
    use crate::domain::rate_limit::RateLimit;

    const RETRY: Duration = Duration::from_millis(1_500);
    const UNTIL: jiff::Timestamp = jiff::Timestamp::UNIX_EPOCH;
    const ROWS: TableRows =
        TableRows { credentials: 1, flows: 2, revocations: 3, provider_configs: 4, user_keys: 5 };

    type Row = (BrokerError, Code, &'static str, Option<Duration>);

    /// Each answer to a caller that is known, with what has to stand in it.
    fn all() -> Vec<Row> {
        let not_found = |what, reason| (BrokerError::NotFound(what), Code::NotFound, reason, None);
        let precondition =
            |what, reason| (BrokerError::FailedPrecondition(what), Code::FailedPrecondition, reason, None);
        let denied = |error, reason| (error, Code::PermissionDenied, reason, None);
        let taken = |list| (BrokerError::IdentityTaken(list), Code::AlreadyExists, "IDENTITY_TAKEN", None);
        let exhausted = |limit, reason| {
            let error = BrokerError::ResourceExhausted { limit, retry_after: RETRY };
            (error, Code::ResourceExhausted, reason, Some(RETRY))
        };
        let unavailable = |what, reason| {
            (BrokerError::Unavailable { what, retry_after: RETRY }, Code::Unavailable, reason, Some(RETRY))
        };
        let uses = ConfigUses { credentials: 1, flows: 2, revocations: 3 };
        vec![
            denied(BrokerError::PermissionDenied, "PERMISSION_DENIED"),
            denied(BrokerError::CompletionRefused, "COMPLETION_REFUSED"),
            denied(BrokerError::Suspended(Suspension::Caller), "CALLER_DISABLED"),
            denied(BrokerError::Suspended(Suspension::Tenant), "TENANT_DISABLED"),
            not_found(NotFound::Provider, "PROVIDER_NOT_FOUND"),
            not_found(NotFound::Service, "SERVICE_NOT_FOUND"),
            not_found(NotFound::DataKey, "DATA_KEY_NOT_FOUND"),
            not_found(NotFound::Flow, "FLOW_NOT_FOUND"),
            not_found(NotFound::Caller, "CALLER_NOT_FOUND"),
            not_found(NotFound::ApiKey, "API_KEY_NOT_FOUND"),
            not_found(NotFound::Tenant, "TENANT_NOT_FOUND"),
            not_found(NotFound::ProviderConfiguration, "PROVIDER_CONFIGURATION_NOT_FOUND"),
            taken(IdentityList::SpiffeIds),
            taken(IdentityList::Subjects),
            precondition(Precondition::CredentialExists, "CREDENTIAL_EXISTS"),
            precondition(Precondition::FlowEnded, "FLOW_ENDED"),
            precondition(Precondition::BrowserNotBack, "BROWSER_NOT_BACK"),
            precondition(Precondition::OtherBinding, "OTHER_BINDING"),
            precondition(Precondition::LeaseLost(LostLease::Ended), "LEASE_LOST"),
            precondition(Precondition::Leased { leases: 3 }, "LEASED"),
            precondition(Precondition::CursorExpired, "CURSOR_EXPIRED"),
            precondition(Precondition::KeyInUse(Refusal::Active), "DATA_KEY_ACTIVE"),
            precondition(Precondition::KeyInUse(Refusal::Fingerprints), "DATA_KEY_FINGERPRINTS"),
            precondition(Precondition::KeyInUse(Refusal::TooEarly { until: UNTIL }), "DATA_KEY_TOO_YOUNG"),
            precondition(Precondition::KeyInUse(Refusal::Counting), "DATA_KEY_COUNTING"),
            precondition(Precondition::KeyInUse(Refusal::InUse { rows: ROWS }), "DATA_KEY_IN_USE"),
            precondition(Precondition::RotatedLately { until: UNTIL }, "DATA_KEY_ROTATED_LATELY"),
            precondition(Precondition::CallerExists, "CALLER_EXISTS"),
            precondition(Precondition::CallerConfigured, "CALLER_CONFIGURED"),
            precondition(Precondition::CallerChanged, "CALLER_CHANGED"),
            precondition(Precondition::TooManyApiKeys, "TOO_MANY_API_KEYS"),
            precondition(Precondition::TenantExists, "TENANT_EXISTS"),
            precondition(Precondition::ProviderDisabled, "PROVIDER_DISABLED"),
            precondition(Precondition::ProviderMisconfigured, "PROVIDER_MISCONFIGURED"),
            precondition(Precondition::ProviderConfigurationExists, "PROVIDER_CONFIGURATION_EXISTS"),
            precondition(Precondition::ProviderConfigurationChanged, "PROVIDER_CONFIGURATION_CHANGED"),
            precondition(Precondition::ProviderConfigurationInUse(uses), "PROVIDER_CONFIGURATION_IN_USE"),
            precondition(Precondition::TooManyProviderConfigurations, "TOO_MANY_PROVIDER_CONFIGURATIONS"),
            exhausted(Limit::PendingConsents, "LIMIT_REACHED"),
            exhausted(Limit::Watches, "TOO_MANY_WATCHES"),
            exhausted(Limit::Rate(RateLimit::User), "RATE_LIMITED"),
            unavailable(Unavailable::Storage, "STORAGE_UNAVAILABLE"),
            unavailable(Unavailable::KeyService, "KEY_SERVICE_UNAVAILABLE"),
            unavailable(Unavailable::Provider, "PROVIDER_UNAVAILABLE"),
            unavailable(Unavailable::ProviderRateLimited, "PROVIDER_RATE_LIMITED"),
            unavailable(Unavailable::ClientRejected, "CLIENT_REJECTED"),
            unavailable(Unavailable::RefreshInProgress, "REFRESH_IN_PROGRESS"),
            unavailable(Unavailable::OutcomeUnknown, "OUTCOME_UNKNOWN"),
            unavailable(Unavailable::Audit, "AUDIT_UNAVAILABLE"),
            (BrokerError::DataLoss, Code::DataLoss, "STORED_DATA_DAMAGED", None),
            (BrokerError::Internal, Code::Internal, "INTERNAL", None),
        ]
    }

    #[test]
    fn each_error_has_its_code_reason_and_delay() {
        for (error, code, reason, retry) in all() {
            let status = Status::from(error);
            let info = status.get_details_error_info().unwrap();
            assert_eq!((status.code(), info.reason.as_str()), (code, reason));
            assert_eq!(info.domain, DOMAIN);
            assert_eq!(status.get_details_retry_info().and_then(|r| r.retry_delay), retry, "{reason}");
            assert!(!status.message().is_empty());
        }
    }

    #[test]
    fn leases_say_more_in_the_metadata() {
        let told = |what, name| {
            let status = Status::from(BrokerError::FailedPrecondition(what));
            status.get_details_error_info().unwrap().metadata.get(name).cloned().unwrap()
        };
        assert_eq!(told(Precondition::Leased { leases: 3 }, "leases"), "3");
        for (why, name) in [
            (LostLease::Ended, "ENDED"),
            (LostLease::NoToken(ConsentReason::Revoked), "REVOKED"),
            (LostLease::NoToken(ConsentReason::RefreshTokenRejected), "REFRESH_TOKEN_REJECTED"),
        ] {
            assert_eq!(told(Precondition::LeaseLost(why), "lease_lost_reason"), name);
        }
    }

    #[test]
    fn the_rows_of_a_data_key_are_counted_in_the_metadata() {
        let in_use = Precondition::KeyInUse(Refusal::InUse { rows: ROWS });
        let info = Status::from(BrokerError::FailedPrecondition(in_use)).get_details_error_info().unwrap();
        let names = ["credentials", "flows", "revocations", "provider_configurations", "user_keys"];
        let counted = names.map(|name| info.metadata[name].as_str());
        assert_eq!((info.reason.as_str(), counted), ("DATA_KEY_IN_USE", ["1", "2", "3", "4", "5"]));
    }

    #[test]
    fn reasons_are_distinct_but_for_the_two_lists_of_identities() {
        let reasons: std::collections::BTreeSet<_> = all().into_iter().map(|row| row.2).collect();
        assert_eq!(reasons.len(), all().len() - 1);
    }

    #[test]
    fn each_reason_is_in_the_documentation_with_its_code() {
        let documentation = include_str!("../../../docs/API.md");
        let of_strangers = [
            unauthenticated(),
            user_token(),
            identity_expired(),
            identity_unavailable(),
            deadline_exceeded(),
            malformed_timeout(),
            malformed_purpose(),
            malformed_request(),
            request_too_large(),
            unimplemented(),
        ];
        let (mut code, mut documented) = ("", std::collections::BTreeSet::new());
        for line in documentation.lines() {
            let cells: Vec<_> = line.split('|').map(str::trim).collect();
            let [_, first, reasons, _, _, _] = cells[..] else { continue };
            code = if first.is_empty() { code } else { first.trim_matches('`') };
            documented.extend(reasons.split(", ").map(|reason| (code, reason.trim_matches('`'))));
        }
        for status in all().into_iter().map(|row| Status::from(row.0)).chain(of_strangers) {
            let info = status.get_details_error_info().unwrap();
            let answer = (code_name(status.code()), info.reason.as_str());
            assert!(documented.contains(&answer), "docs/API.md lacks {answer:?}");
        }
    }

    #[test]
    fn bad_arguments_carry_every_violation() {
        let status = Status::from(BrokerError::InvalidArgument(vec![
            Violation::new("key.user_id", "must not be empty"),
            Violation::new("scopes[3]", "a scope must not be empty"),
        ]));
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.get_details_error_info().unwrap().reason, "INVALID_ARGUMENT");
        let bad = status.get_details_bad_request().unwrap();
        let fields: Vec<_> = bad.field_violations.iter().map(|v| v.field.as_str()).collect();
        assert_eq!(fields, ["key.user_id", "scopes[3]"]);
        assert_eq!(bad.field_violations[0].description, "must not be empty");
    }

    #[test]
    fn a_delay_of_nothing_is_not_sent() {
        let error =
            BrokerError::Unavailable { what: Unavailable::RefreshInProgress, retry_after: Duration::ZERO };
        let retry = Status::from(error).get_details_retry_info().unwrap();
        assert_eq!(retry.retry_delay, Some(LEAST_RETRY));
    }
}
