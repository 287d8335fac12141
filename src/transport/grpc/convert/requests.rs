//! Messages to what use cases take. The limits are those that the proto documents.

use std::collections::BTreeSet;
use std::time::Duration;

use super::check::Check;
use super::time::{parse_duration, parse_timestamp};
use crate::application::error::BrokerError;
use crate::application::types::{
    AcquireInput, BeginInput, CompleteInput, ConsentInput, GetCredentialInput, ImportInput, LeaseTarget,
    ListInput, RefreshInput, RenewInput, ServiceKey, WatchInput,
};
use crate::domain::flow::ConsentBinding;
use crate::domain::key::{FlowId, LeaseId, MAX_TEXT_BYTES, ProviderId, ServiceId, UserId};
use crate::domain::secret::SecretString;
use crate::domain::token_set::{MAX_TOKEN_TYPE_BYTES, ProviderAccount};
use crate::r#gen::v1 as pb;

/// The longest `min_ttl`.
const MAX_MIN_TTL: Duration = Duration::from_secs(24 * 3600);
/// The longest `ttl` of a lease that makes sense to ask for; the broker's configuration has the real limit.
const MAX_LEASE_TTL: Duration = Duration::from_secs(24 * 3600);
/// A cursor holds three numbers.
const MAX_CURSOR_BYTES: usize = 256;
/// The most services of one consent.
const MAX_SERVICES: usize = 32;
const MAX_RETURN_URL_BYTES: usize = 2_048;
const MAX_CLIENT_STATE_BYTES: usize = 1_024;
const MAX_LOGIN_HINT_BYTES: usize = 256;
/// A secret or code of a consent has 43.
const MAX_HALF_BYTES: usize = 256;
const DEFAULT_PAGE_SIZE: u32 = 50;
/// A page token holds a key.
const MAX_PAGE_TOKEN_BYTES: usize = 4_096;

/// GetCredential.
pub(in super::super) fn get_credential(
    message: pb::GetCredentialRequest,
    time_left: Duration,
) -> Result<GetCredentialInput, BrokerError> {
    let mut check = Check::default();
    let key = service_key(&mut check, message.key);
    let scopes = check.scopes("scopes", message.scopes);
    let min_ttl = min_ttl(&mut check, message.min_ttl);
    let consent =
        message.begin_if_missing.map(|options| consent_options(&mut check, "begin_if_missing", options));
    check.finish(|| {
        Some(GetCredentialInput {
            key: key?,
            scopes: scopes?,
            min_ttl: min_ttl?,
            begin_if_missing: consent,
            time_left: Some(time_left),
        })
    })
}

/// Refresh.
pub(in super::super) fn refresh(
    message: pb::RefreshRequest,
    time_left: Duration,
) -> Result<RefreshInput, BrokerError> {
    let mut check = Check::default();
    let key = service_key(&mut check, message.key);
    if message.expected_generation < 1 {
        check.fail::<()>(
            "expected_generation",
            "must be at least 1: `generation` of the token that did not work",
        );
    }
    check.finish(|| {
        Some(RefreshInput {
            key: key?,
            expected_generation: message.expected_generation,
            time_left: Some(time_left),
        })
    })
}

/// Revoke: the key and whether by force.
pub(in super::super) fn revoke(message: pb::RevokeRequest) -> Result<(ServiceKey, bool), BrokerError> {
    let mut check = Check::default();
    let key = service_key(&mut check, message.key);
    check.finish(|| Some((key?, message.force)))
}

/// AcquireLease.
pub(in super::super) fn acquire_lease(
    message: pb::AcquireLeaseRequest,
    time_left: Duration,
) -> Result<AcquireInput, BrokerError> {
    let mut check = Check::default();
    let key = service_key(&mut check, message.key);
    let ttl = lease_ttl(&mut check, message.ttl);
    let scopes = check.scopes("scopes", message.scopes);
    let min_ttl = min_ttl(&mut check, message.min_ttl);
    check.finish(|| {
        Some(AcquireInput { key: key?, ttl, scopes: scopes?, min_ttl: min_ttl?, time_left: Some(time_left) })
    })
}

/// RenewLease.
pub(in super::super) fn renew_lease(
    message: pb::RenewLeaseRequest,
    time_left: Duration,
) -> Result<RenewInput, BrokerError> {
    let mut check = Check::default();
    let lease = lease_target(&mut check, message.key, &message.lease_id);
    let ttl = lease_ttl(&mut check, message.ttl);
    check.finish(|| Some(RenewInput { lease: lease?, ttl, time_left: Some(time_left) }))
}

/// ReleaseLease.
pub(in super::super) fn release_lease(message: pb::ReleaseLeaseRequest) -> Result<LeaseTarget, BrokerError> {
    let mut check = Check::default();
    let lease = lease_target(&mut check, message.key, &message.lease_id);
    check.finish(|| lease)
}

/// WatchCredentials.
pub(in super::super) fn watch_credentials(
    message: pb::WatchCredentialsRequest,
) -> Result<WatchInput, BrokerError> {
    let mut check = Check::default();
    let user = check.optional("user_id", message.user_id, UserId::new);
    let cursor = check.text("cursor", message.cursor, MAX_CURSOR_BYTES);
    check.finish(|| Some(WatchInput { user, cursor }))
}

/// BeginOAuth.
pub(in super::super) fn begin_oauth(message: pb::BeginOAuthRequest) -> Result<BeginInput, BrokerError> {
    let mut check = Check::default();
    let provider = check.parsed("provider", ProviderId::new(message.provider));
    let user = check.parsed("user_id", UserId::new(message.user_id));
    let services = services(&mut check, message.services);
    let account = check.account("account", message.account);
    let scopes = check.scopes("scopes", message.scopes);
    let options = consent_options(&mut check, "options", message.options.unwrap_or_default());
    check.finish(|| {
        Some(BeginInput {
            provider: provider?,
            user: user?,
            services: services?,
            account: account?,
            scopes: scopes?,
            options,
        })
    })
}

/// CompleteOAuth.
pub(in super::super) fn complete_oauth(
    message: pb::CompleteOAuthRequest,
    time_left: Duration,
) -> Result<CompleteInput, BrokerError> {
    let mut check = Check::default();
    let flow = check.flow_id("flow_id", &message.flow_id);
    let flow_secret = half(&mut check, "flow_secret", message.flow_secret);
    let completion_code = half(&mut check, "completion_code", message.completion_code);
    let user = check.parsed("user_id", UserId::new(message.user_id));
    check.finish(|| {
        Some(CompleteInput {
            flow: flow?,
            flow_secret: flow_secret?,
            completion_code: completion_code?,
            user: user?,
            time_left: Some(time_left),
        })
    })
}

/// One half of a consent's proof. Whether it is right is for the use case to say, and not of which form it would be.
fn half(check: &mut Check, field: &str, value: String) -> Option<SecretString> {
    let value = SecretString::new(value);
    if value.is_empty() || value.expose_secret().len() > MAX_HALF_BYTES {
        return check.fail(field, format!("must be 1 to {MAX_HALF_BYTES} bytes long"));
    }
    Some(value)
}

/// GetFlow and CancelFlow.
pub(in super::super) fn flow_id(value: &str) -> Result<FlowId, BrokerError> {
    let mut check = Check::default();
    let id = check.flow_id("flow_id", value);
    check.finish(|| id)
}

/// ListCredentials.
pub(in super::super) fn list_credentials(
    message: pb::ListCredentialsRequest,
) -> Result<ListInput, BrokerError> {
    let mut check = Check::default();
    let user = check.optional("user_id", message.user_id, UserId::new);
    let provider = check.optional("provider", message.provider, ProviderId::new);
    let covering_scopes = check.scopes("covering_scopes", message.covering_scopes);
    let page_size = check.page_size(message.page_size, DEFAULT_PAGE_SIZE);
    let page_token = check.text("page_token", message.page_token, MAX_PAGE_TOKEN_BYTES);
    check.finish(|| {
        Some(ListInput {
            user,
            provider,
            covering_scopes: covering_scopes?,
            page_size: page_size?,
            page_token,
        })
    })
}

/// ImportCredential.
pub(in super::super) fn import_credential(
    message: pb::ImportCredentialRequest,
) -> Result<ImportInput, BrokerError> {
    let mut check = Check::default();
    let key = service_key(&mut check, message.key);
    let access_token = given(message.access_token);
    let access_token = check.required("access_token", access_token);
    let access_token = access_token.and_then(|token| check.token("access_token", token));
    let refresh_token = check.token("refresh_token", message.refresh_token);
    let token_type = token_type(&mut check, message.token_type);
    let expires_at = message.expire_time.and_then(|time| {
        let time = parse_timestamp(time);
        if time.is_none() {
            check.fail::<()>("expire_time", "must be a point in time between the years 1 and 9999");
        }
        time
    });
    let scopes = check.scopes("scopes", message.scopes);
    let account = message.account.unwrap_or_default();
    let subject = check.text("account.subject", account.subject, MAX_TEXT_BYTES);
    let label = check.text("account.label", account.label, MAX_TEXT_BYTES);
    let extra = check.extra("extra", message.extra);
    check.finish(|| {
        Some(ImportInput {
            key: key?,
            access_token: access_token?,
            refresh_token,
            token_type: token_type?,
            expires_at,
            scopes: scopes?,
            account: ProviderAccount { subject, label },
            extra: extra?,
            overwrite: message.overwrite,
        })
    })
}

fn service_key(check: &mut Check, key: Option<pb::CredentialKey>) -> Option<ServiceKey> {
    let key = check.required("key", key)?;
    let provider = check.parsed("key.provider", ProviderId::new(key.provider));
    let user = check.parsed("key.user_id", UserId::new(key.user_id));
    let service = check.parsed("key.service", ServiceId::new(key.service));
    let account = check.account("key.account", key.account);
    Some(ServiceKey { provider: provider?, user: user?, service: service?, account: account? })
}

fn lease_target(check: &mut Check, key: Option<pb::CredentialKey>, id: &str) -> Option<LeaseTarget> {
    let key = service_key(check, key);
    let lease = match LeaseId::parse(id) {
        Some(lease) => Some(lease),
        None => check.fail("lease_id", "must be the `lease_id` of an answer to AcquireLease"),
    };
    Some(LeaseTarget { key: key?, lease: lease? })
}

/// The proto's way to leave a text out.
fn given(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn services(check: &mut Check, values: Vec<String>) -> Option<BTreeSet<ServiceId>> {
    if values.is_empty() || values.len() > MAX_SERVICES {
        return check.fail("services", format!("must be 1 to {MAX_SERVICES} services"));
    }
    let count = values.len();
    let parsed: Vec<_> = values
        .into_iter()
        .enumerate()
        .filter_map(|(index, value)| check.parsed(format!("services[{index}]"), ServiceId::new(value)))
        .collect();
    (parsed.len() == count).then(|| parsed.into_iter().collect())
}

fn consent_options(check: &mut Check, field: &str, options: pb::ConsentOptions) -> ConsentInput {
    let return_url = check.text(&format!("{field}.return_url"), options.return_url, MAX_RETURN_URL_BYTES);
    let client_state =
        check.text(&format!("{field}.client_state"), options.client_state, MAX_CLIENT_STATE_BYTES);
    let login_hint = check.text(&format!("{field}.login_hint"), options.login_hint, MAX_LOGIN_HINT_BYTES);
    let binding = match pb::ConsentBinding::try_from(options.binding) {
        Ok(pb::ConsentBinding::Unspecified) => None,
        Ok(pb::ConsentBinding::App) => Some(ConsentBinding::App),
        Ok(pb::ConsentBinding::Login) => Some(ConsentBinding::Login),
        Ok(pb::ConsentBinding::Confirm) => Some(ConsentBinding::Confirm),
        Err(_) => check.fail(format!("{field}.binding"), "must be one of ConsentBinding"),
    };
    ConsentInput { return_url, client_state, login_hint, binding }
}

fn min_ttl(check: &mut Check, value: Option<prost_types::Duration>) -> Option<Duration> {
    let Some(value) = value else { return Some(Duration::ZERO) };
    match parse_duration(value) {
        Some(ttl) if ttl <= MAX_MIN_TTL => Some(ttl),
        _ => check.fail("min_ttl", "must be 0 to 24 hours"),
    }
}

/// `None`: not given, or not valid.
fn lease_ttl(check: &mut Check, value: Option<prost_types::Duration>) -> Option<Duration> {
    match parse_duration(value?) {
        Some(ttl) if ttl > Duration::ZERO && ttl <= MAX_LEASE_TTL => Some(ttl),
        _ => check.fail("ttl", "must be more than 0 and at most 24 hours"),
    }
}

fn token_type(check: &mut Check, value: String) -> Option<String> {
    if value.is_empty() {
        return Some("Bearer".to_owned());
    }
    if value.len() > MAX_TOKEN_TYPE_BYTES || !value.bytes().all(|b| b.is_ascii_graphic()) {
        return check.fail(
            "token_type",
            format!("must be at most {MAX_TOKEN_TYPE_BYTES} bytes of printable ASCII without space"),
        );
    }
    Some(value)
}

#[cfg(test)]
mod tests;
