//! What is refused because of how things are: the reasons of `FAILED_PRECONDITION`.

use std::collections::HashMap;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::super::convert::consent_reason_name;
use super::DOMAIN;
use crate::application::error::{LostLease, Precondition};
use crate::application::keys::Refusal;

pub(super) fn failed_precondition(what: Precondition) -> Status {
    let mut metadata = HashMap::new();
    let (reason, text) = match what {
        Precondition::CredentialExists => (
            "CREDENTIAL_EXISTS",
            "a credential of this key is in order: set `overwrite` to replace it, or revoke it first",
        ),
        Precondition::FlowEnded => {
            ("FLOW_ENDED", "the flow is not pending any more: GetFlow tells how it ended")
        }
        Precondition::BrowserNotBack => {
            ("BROWSER_NOT_BACK", "the user's browser has not come back yet: there is nothing to complete")
        }
        Precondition::OtherBinding => (
            "OTHER_BINDING",
            "this flow's browser completes it by itself: CompleteOAuth is for the binding APP",
        ),
        Precondition::LeaseLost(why) => {
            let why = match why {
                LostLease::Ended => "ENDED",
                LostLease::NoToken(reason) => consent_reason_name(reason),
            };
            metadata.insert("lease_lost_reason".to_owned(), why.to_owned());
            ("LEASE_LOST", "the lease is none any more: do not use the token, acquire a new lease")
        }
        Precondition::Leased { leases } => {
            metadata.insert("leases".to_owned(), leases.to_string());
            ("LEASED", "the credential is in use: wait for its leases to end, or set `force`")
        }
        Precondition::KeyInUse(refusal) => key_in_use(refusal, &mut metadata),
        Precondition::RotatedLately { until } => {
            metadata.insert("until".to_owned(), until.to_string());
            (
                "DATA_KEY_ROTATED_LATELY",
                "the tenant's active data key is younger than an hour: rotate again later, or by an operator of all tenants",
            )
        }
        Precondition::CursorExpired => {
            ("CURSOR_EXPIRED", "the cursor is too old, or of another database: watch without one, then list")
        }
        Precondition::CallerExists => ("CALLER_EXISTS", "there is a caller of this id already"),
        Precondition::CallerConfigured => (
            "CALLER_CONFIGURED",
            "this caller is in the broker's configuration, and can only be changed there",
        ),
        Precondition::CallerChanged => {
            ("CALLER_CHANGED", "the caller has been changed meanwhile: read it again, and change that")
        }
        Precondition::TooManyApiKeys => {
            ("TOO_MANY_API_KEYS", "the caller has as many good API keys as it may have: revoke one first")
        }
        Precondition::TenantExists => ("TENANT_EXISTS", "there is a tenant of this id, or was one"),
        Precondition::ProviderDisabled => (
            "PROVIDER_DISABLED",
            "the tenant's app at this provider is disabled: its operator has to enable it",
        ),
        Precondition::ProviderMisconfigured => (
            "PROVIDER_MISCONFIGURED",
            "the tenant's app does not fit the provider's definition any more: its operator has to make it anew",
        ),
        Precondition::ProviderConfigurationExists => {
            ("PROVIDER_CONFIGURATION_EXISTS", "the tenant has a configuration of this provider id already")
        }
        Precondition::ProviderConfigurationChanged => (
            "PROVIDER_CONFIGURATION_CHANGED",
            "the configuration has been changed meanwhile: read it again, and change that",
        ),
        Precondition::ProviderConfigurationInUse(uses) => {
            for (name, count) in
                [("credentials", uses.credentials), ("flows", uses.flows), ("revocations", uses.revocations)]
            {
                metadata.insert(name.to_owned(), count.to_string());
            }
            (
                "PROVIDER_CONFIGURATION_IN_USE",
                "users are connected by this configuration: revoke their credentials first, or set `force`",
            )
        }
        Precondition::TooManyProviderConfigurations => (
            "TOO_MANY_PROVIDER_CONFIGURATIONS",
            "the tenant has as many provider configurations as it may have: delete one first",
        ),
    };
    let details = ErrorDetails::with_error_info(reason, DOMAIN, metadata);
    Status::with_error_details(Code::FailedPrecondition, text, details)
}

fn key_in_use(refusal: Refusal, metadata: &mut HashMap<String, String>) -> (&'static str, &'static str) {
    match refusal {
        Refusal::Active => (
            "DATA_KEY_ACTIVE",
            "it is the active data key of its tenant: rotate, and wait until its rows have moved",
        ),
        Refusal::Fingerprints => (
            "DATA_KEY_FINGERPRINTS",
            "it makes fingerprints, and those that are stored could not be compared any more",
        ),
        Refusal::TooEarly { until } => {
            metadata.insert("until".to_owned(), until.to_string());
            (
                "DATA_KEY_TOO_YOUNG",
                "it was superseded less than vault.retire_after ago: copies of tokens may still come back",
            )
        }
        Refusal::Counting => (
            "DATA_KEY_COUNTING",
            "whether rows are left is being looked at: try again when the pass has ended",
        ),
        Refusal::InUse { rows } => {
            metadata.insert("credentials".to_owned(), rows.credentials.to_string());
            metadata.insert("flows".to_owned(), rows.flows.to_string());
            metadata.insert("revocations".to_owned(), rows.revocations.to_string());
            metadata.insert("provider_configurations".to_owned(), rows.provider_configs.to_string());
            metadata.insert("user_keys".to_owned(), rows.user_keys.to_string());
            (
                "DATA_KEY_IN_USE",
                "rows are left that were sealed with it: another pass was asked for, try again after it",
            )
        }
    }
}
