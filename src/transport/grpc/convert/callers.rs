//! Callers, keys and tenants of AdminService, between messages and what use cases take and answer.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use super::check::Check;
use super::number;
use super::rules::{rule, rule_message};
use super::time::{parse_duration, timestamp};
use crate::application::admin::{ApiKeyInput, CallerName, CallerSettings, CallerView, ExplainInput};
use crate::application::error::BrokerError;
use crate::domain::access_policy::{Action, Identity};
use crate::domain::admin_policy::{AdminAction, AdminRights};
use crate::domain::caller_store::{ApiKey, MAX_IDENTITIES, MAX_RULES, Tenant};
use crate::domain::key::{ApiKeyId, CallerId, ProviderId, ServiceId, TenantId, UserId};
use crate::domain::spiffe::SpiffeId;
use crate::r#gen::v1 as pb;

/// The longest description, label and display name, in bytes.
const MAX_LABEL_BYTES: usize = 256;
/// The longest issuer and the longest subject, in bytes.
const MAX_IDENTITY_BYTES: usize = 2048;
/// The longest overlap of two keys.
const MAX_OVERLAP: Duration = Duration::from_secs(90 * 24 * 3600);
/// The longest life of a key: a hundred years, which no clock runs over.
const MAX_LIFETIME: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// What a page has at most that does not say how many.
const DEFAULT_PAGE_SIZE: u32 = 100;

/// A page of a list: what comes behind which id, and how many.
pub(in super::super) type Page<I> = (Option<I>, u32);

impl Check {
    pub(super) fn page<I>(
        &mut self,
        page_size: i32,
        page_token: String,
        id: impl Fn(String) -> Option<I>,
    ) -> Option<Page<I>> {
        let size = self.page_size(page_size, DEFAULT_PAGE_SIZE);
        if page_token.is_empty() {
            return Some((None, size?));
        }
        match id(page_token) {
            Some(after) => Some((Some(after), size?)),
            None => self.fail("page_token", "must be the `next_page_token` of an answer to the same request"),
        }
    }
}

pub(in super::super) fn caller_name(tenant: String, caller: String) -> Result<CallerName, BrokerError> {
    let mut check = Check::default();
    let tenant = check.tenant(tenant);
    let caller = check.parsed("caller", CallerId::new(caller));
    check.finish(|| Some(CallerName { tenant, caller: caller? }))
}

pub(in super::super) fn caller_page(
    message: pb::ListCallersRequest,
) -> Result<(Option<TenantId>, Page<CallerId>), BrokerError> {
    let mut check = Check::default();
    let tenant = check.tenant(message.tenant);
    let page = check.page(message.page_size, message.page_token, |text| CallerId::new(text).ok());
    check.finish(|| Some((tenant, page?)))
}

pub(in super::super) fn tenant_page(message: pb::ListTenantsRequest) -> Result<Page<TenantId>, BrokerError> {
    let mut check = Check::default();
    let page = check.page(message.page_size, message.page_token, |text| TenantId::new(text).ok());
    check.finish(|| page)
}

/// The name and the settings of a caller, and the revision if one is given.
pub(in super::super) fn caller_settings(
    tenant: String,
    caller: String,
    revision: Option<i64>,
    settings: Option<pb::CallerSettings>,
) -> Result<(CallerName, u64, CallerSettings), BrokerError> {
    let mut check = Check::default();
    let tenant = check.tenant(tenant);
    let caller = check.parsed("caller", CallerId::new(caller));
    let revision = match revision {
        None => Some(0),
        Some(revision) => check.revision(revision, "caller"),
    };
    let settings =
        check.required("settings", settings).and_then(|settings| read_settings(&mut check, settings));
    check.finish(|| Some((CallerName { tenant, caller: caller? }, revision?, settings?)))
}

fn read_settings(check: &mut Check, message: pb::CallerSettings) -> Option<CallerSettings> {
    let description = check.text("settings.description", message.description, MAX_LABEL_BYTES);
    if message.allow.len() > MAX_RULES {
        return check.fail("settings.allow", format!("must be at most {MAX_RULES} rules"));
    }
    let rules: Vec<_> = message
        .allow
        .into_iter()
        .enumerate()
        .map(|(index, message)| rule(check, &format!("settings.allow[{index}]"), message))
        .collect();
    let mut actions = BTreeSet::new();
    for (index, action) in message.admin_actions.into_iter().enumerate() {
        match pb::AdminAction::try_from(action).ok().and_then(admin_action) {
            Some(action) => actions.extend([action]),
            None => {
                check.fail::<()>(
                    format!("settings.admin_actions[{index}]"),
                    "must be an action that there is",
                );
            }
        }
    }
    let identities = identities(check, message.spiffe_ids, message.subjects);
    Some(CallerSettings {
        description: description.unwrap_or_default(),
        rules: rules.into_iter().collect::<Option<_>>()?,
        admin: AdminRights { actions, all_tenants: message.all_tenants },
        identities: identities?,
        disabled: message.disabled,
    })
}

fn identities(
    check: &mut Check,
    spiffe_ids: Vec<String>,
    subjects: Vec<pb::JwtSubject>,
) -> Option<BTreeSet<Identity>> {
    if spiffe_ids.len() + subjects.len() > MAX_IDENTITIES {
        return check
            .fail("settings.spiffe_ids", format!("must be at most {MAX_IDENTITIES} with `subjects`"));
    }
    let mut all = BTreeSet::new();
    for (index, id) in spiffe_ids.into_iter().enumerate() {
        // What no certificate and no token can name, nobody could come in as.
        if check.parsed(format!("settings.spiffe_ids[{index}]"), SpiffeId::parse(&id)).is_some() {
            all.insert(Identity::SpiffeId(id));
        }
    }
    for (index, pb::JwtSubject { issuer, subject }) in subjects.into_iter().enumerate() {
        let field = format!("settings.subjects[{index}]");
        let issuer = check.needed_text(&format!("{field}.issuer"), issuer, MAX_IDENTITY_BYTES);
        let subject = check.needed_text(&format!("{field}.subject"), subject, MAX_IDENTITY_BYTES);
        if let (Some(issuer), Some(subject)) = (issuer, subject) {
            all.insert(Identity::Subject { issuer, subject });
        }
    }
    Some(all)
}

fn admin_action(action: pb::AdminAction) -> Option<AdminAction> {
    match action {
        pb::AdminAction::Unspecified => None,
        pb::AdminAction::ManageCallers => Some(AdminAction::ManageCallers),
        pb::AdminAction::ManageTenants => Some(AdminAction::ManageTenants),
        pb::AdminAction::ManageProviders => Some(AdminAction::ManageProviders),
        pb::AdminAction::ManageKeys => Some(AdminAction::ManageKeys),
        pb::AdminAction::ReadAudit => Some(AdminAction::ReadAudit),
        pb::AdminAction::BreakGlass => Some(AdminAction::BreakGlass),
    }
}

/// As a message names it.
pub(in super::super) fn admin_action_message(action: AdminAction) -> pb::AdminAction {
    match action {
        AdminAction::ManageCallers => pb::AdminAction::ManageCallers,
        AdminAction::ManageTenants => pb::AdminAction::ManageTenants,
        AdminAction::ManageProviders => pb::AdminAction::ManageProviders,
        AdminAction::ManageKeys => pb::AdminAction::ManageKeys,
        AdminAction::ReadAudit => pb::AdminAction::ReadAudit,
        AdminAction::BreakGlass => pb::AdminAction::BreakGlass,
    }
}

/// What a new key is to be.
pub(in super::super) fn new_key(
    label: String,
    lifetime: Option<prost_types::Duration>,
) -> Result<ApiKeyInput, BrokerError> {
    let mut check = Check::default();
    let label = check.text("label", label, MAX_LABEL_BYTES);
    let lifetime = lifetime.map(|lifetime| {
        let range = Duration::from_secs(1)..=MAX_LIFETIME;
        let read = parse_duration(lifetime).filter(|lifetime| range.contains(lifetime));
        read.or_else(|| check.fail("lifetime", "must be one second to a hundred years"))
    });
    check.finish(|| {
        let lifetime = match lifetime {
            None => None,
            Some(read) => Some(read?),
        };
        Some(ApiKeyInput { label: label.unwrap_or_default(), lifetime })
    })
}

pub(in super::super) fn key_id(text: &str) -> Result<ApiKeyId, BrokerError> {
    let mut check = Check::default();
    let id =
        ApiKeyId::parse(text).or_else(|| check.fail("key_id", "must be a `key_id` as ListApiKeys gave it"));
    check.finish(|| id)
}

pub(in super::super) fn overlap(overlap: Option<prost_types::Duration>) -> Result<Duration, BrokerError> {
    let mut check = Check::default();
    let read = match overlap {
        None => Some(Duration::ZERO),
        Some(overlap) => parse_duration(overlap)
            .filter(|overlap| *overlap <= MAX_OVERLAP)
            .or_else(|| check.fail("overlap", "must be at most 90 days")),
    };
    check.finish(|| read)
}

pub(in super::super) fn tenant_id(text: String) -> Result<TenantId, BrokerError> {
    let mut check = Check::default();
    let id = check.parsed("tenant", TenantId::new(text));
    check.finish(|| id)
}

/// Empty: the principal's own.
pub(in super::super) fn optional_tenant(text: String) -> Result<Option<TenantId>, BrokerError> {
    if text.is_empty() { Ok(None) } else { tenant_id(text).map(Some) }
}

pub(in super::super) fn display_name(text: String) -> Result<String, BrokerError> {
    let mut check = Check::default();
    let name = check.text("display_name", text, MAX_LABEL_BYTES);
    check.finish(|| Some(name.unwrap_or_default()))
}

pub(in super::super) fn user_id(text: String) -> Result<UserId, BrokerError> {
    let mut check = Check::default();
    let id = check.parsed("user_id", UserId::new(text));
    check.finish(|| id)
}

pub(in super::super) fn explain(message: pb::ExplainAccessRequest) -> Result<ExplainInput, BrokerError> {
    let mut check = Check::default();
    let tenant = check.tenant(message.tenant);
    let caller = check.parsed("caller", CallerId::new(message.caller));
    let action = check.parsed("action", message.action.parse::<Action>());
    let provider = check.optional("provider", message.provider, ProviderId::new);
    let services = message.services.into_iter().enumerate();
    let services: Vec<_> = services
        .filter_map(|(index, text)| check.parsed(format!("services[{index}]"), ServiceId::new(text)))
        .collect();
    let scopes = check.scopes("scopes", message.scopes);
    let user = check.optional("user_id", message.user_id, UserId::new);
    if message.own_token && user.is_none() {
        check.fail::<()>("own_token", "needs `user_id`: whose token it is");
    }
    check.finish(|| {
        Some(ExplainInput {
            caller: CallerName { tenant, caller: caller? },
            action: action?,
            provider,
            services,
            scopes: scopes?,
            user,
            own: message.own_token,
        })
    })
}

/// A caller's SPIFFE ids and subjects.
pub(crate) fn identity_messages(
    identities: impl IntoIterator<Item = Identity>,
) -> (Vec<String>, Vec<pb::JwtSubject>) {
    let (mut spiffe_ids, mut subjects) = (Vec::new(), Vec::new());
    for identity in identities {
        match identity {
            // Keys are listed by themselves.
            Identity::ApiKey(_) => {}
            Identity::SpiffeId(id) => spiffe_ids.push(id),
            Identity::Subject { issuer, subject } => subjects.push(pb::JwtSubject { issuer, subject }),
        }
    }
    (spiffe_ids, subjects)
}

pub(in super::super) fn caller_message(view: CallerView) -> pb::Caller {
    let settings = view.settings;
    let (spiffe_ids, subjects) = identity_messages(settings.identities);
    let actions = settings.admin.actions.into_iter();
    pb::Caller {
        tenant: view.tenant.into(),
        caller: view.id.into(),
        settings: Some(pb::CallerSettings {
            description: settings.description,
            allow: settings.rules.into_iter().map(rule_message).collect(),
            admin_actions: actions.map(|action| admin_action_message(action).into()).collect(),
            all_tenants: settings.admin.all_tenants,
            spiffe_ids,
            subjects,
            disabled: settings.disabled,
        }),
        revision: view.stored.map_or(0, |stored| number(stored.revision)),
        create_time: view.stored.map(|stored| timestamp(stored.created_at)),
        update_time: view.stored.map(|stored| timestamp(stored.updated_at)),
    }
}

pub(in super::super) fn key_message(key: ApiKey, good: bool) -> pb::ApiKey {
    pb::ApiKey {
        key_id: key.id.to_string(),
        good,
        label: key.label,
        create_time: Some(timestamp(key.created_at)),
        expire_time: key.expires_at.map(timestamp),
        revoke_time: key.revoked_at.map(timestamp),
        last_use_time: key.last_used_at.map(timestamp),
    }
}

pub(in super::super) fn tenant_message(tenant: Tenant) -> pb::Tenant {
    let made = tenant.created_at != Timestamp::UNIX_EPOCH;
    pb::Tenant {
        tenant: tenant.id.into(),
        display_name: tenant.display_name,
        create_time: made.then(|| timestamp(tenant.created_at)),
        disable_time: tenant.disabled_at.map(timestamp),
    }
}
