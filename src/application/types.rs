//! What use cases take and answer, in terms of the domain.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

use crate::domain::credential::{Fingerprint, Generation, ReauthReason, RefreshFailure};
use crate::domain::event::Event;
use crate::domain::flow::{ConsentBinding, ConsentOptions, FlowStatus};
use crate::domain::key::{Account, CredentialKey, FlowId, LeaseId, ProviderId, ServiceId, UserId};
use crate::domain::scope::ScopeSet;
use crate::domain::secret::SecretString;
use crate::domain::token_set::ProviderAccount;

pub use super::consent_types::{
    AuthorizationAnswer, BrowserKeys, CallbackAnswer, CallbackInput, CallbackOutcome, CompleteInput,
    CompletedFlow, LinkView,
};

/// A key as callers give it; the tenant is the caller's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceKey {
    /// The provider.
    pub provider: ProviderId,
    /// The user.
    pub user: UserId,
    /// The service.
    pub service: ServiceId,
    /// The account.
    pub account: Account,
}

/// See `get_credential`.
#[derive(Debug, Clone)]
pub struct GetCredentialInput {
    /// Whose token for what.
    pub key: ServiceKey,
    /// Beside the service's own.
    pub scopes: ScopeSet,
    /// How long it must stay valid.
    pub min_ttl: Duration,
    /// Begin a consent if there is no token.
    pub begin_if_missing: Option<ConsentInput>,
    /// How long the caller waits; the broker waits at most 5 seconds.
    pub time_left: Option<Duration>,
}

/// Options of a consent, not yet checked against the allow-list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConsentInput {
    /// Where the result page links to.
    pub return_url: Option<String>,
    /// Opaque.
    pub client_state: Option<String>,
    /// Account name to suggest.
    pub login_hint: Option<String>,
    /// How the browser is to be proved the user's; `None`: as the configuration has it.
    pub binding: Option<ConsentBinding>,
}

/// See `refresh`.
#[derive(Debug, Clone)]
pub struct RefreshInput {
    /// Whose token for what.
    pub key: ServiceKey,
    /// The generation that did not work.
    pub expected_generation: Generation,
    /// How long the caller waits; the broker waits at most 5 seconds.
    pub time_left: Option<Duration>,
}

/// A token, or the need to consent.
#[derive(Debug, Clone)]
pub enum TokenAnswer {
    /// The token.
    Token(Box<AccessGrant>),
    /// The user must consent.
    AuthorizationRequired(AuthorizationRequired),
}

/// An access token with what its user needs to know.
#[derive(Debug, Clone)]
pub struct AccessGrant {
    /// The key as it was asked for.
    pub key: ServiceKey,
    /// The token.
    pub access_token: SecretString,
    /// RFC 6749 section 7.1.
    pub token_type: String,
    /// By the provider's word.
    pub expires_at: Option<Timestamp>,
    /// Granted.
    pub scopes: ScopeSet,
    /// The provider did not say.
    pub scopes_assumed: bool,
    /// Of this pair.
    pub generation: Generation,
    /// The access token's, for the audit log.
    pub fingerprint: Fingerprint,
    /// Who consented.
    pub account: ProviderAccount,
    /// The provider's further values.
    pub extra: BTreeMap<String, String>,
    /// The last refresh failed, and so.
    pub failure: Option<RefreshFailure>,
}

/// Why the user must consent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConsentReason {
    /// There is no row.
    NotConnected,
    /// The grant lacks scopes.
    ScopesMissing,
    /// Revoked through the broker.
    Revoked,
    /// See [`ReauthReason::ExpiredNoRefresh`].
    ExpiredNoRefresh,
    /// See [`ReauthReason::RefreshTokenRejected`].
    RefreshTokenRejected,
    /// A consent is under way.
    FlowPending,
    /// The user's last answer was no.
    ConsentDenied,
    /// The tokens are those of an app that is not configured any more: nothing else can use them.
    AppGone,
}

impl From<ReauthReason> for ConsentReason {
    fn from(reason: ReauthReason) -> Self {
        match reason {
            ReauthReason::RefreshTokenRejected => Self::RefreshTokenRejected,
            ReauthReason::ExpiredNoRefresh => Self::ExpiredNoRefresh,
        }
    }
}

/// The user must consent.
#[derive(Debug, Clone)]
pub struct AuthorizationRequired {
    /// Why.
    pub reason: ConsentReason,
    /// With [`ConsentReason::ScopesMissing`].
    pub missing_scopes: ScopeSet,
    /// Begun, or found pending.
    pub flow: Option<StartedFlow>,
}

/// A consent to go through.
#[derive(Debug, Clone)]
pub struct StartedFlow {
    /// Its id.
    pub id: FlowId,
    /// How the browser is proved to be the user's.
    pub binding: ConsentBinding,
    /// Contains the state, or leads to the broker's own page.
    pub authorization_url: SecretString,
    /// With [`ConsentBinding::App`]: the half of whoever began.
    pub flow_secret: Option<SecretString>,
    /// When it stops working.
    pub expires_at: Timestamp,
    /// What the user is asked for.
    pub scopes: ScopeSet,
}

/// See `begin_oauth`.
#[derive(Debug, Clone)]
pub struct BeginInput {
    /// The provider.
    pub provider: ProviderId,
    /// Who is to consent.
    pub user: UserId,
    /// Never empty.
    pub services: BTreeSet<ServiceId>,
    /// Which account.
    pub account: Account,
    /// Beside the services' own.
    pub scopes: ScopeSet,
    /// Options.
    pub options: ConsentInput,
}

/// A flow as callers see it.
#[derive(Debug, Clone)]
pub struct FlowView {
    /// Its id.
    pub id: FlowId,
    /// Where it stands now.
    pub status: FlowStatus,
    /// What it is for.
    pub key: CredentialKey,
    /// What it is for.
    pub services: BTreeSet<ServiceId>,
    /// What the user is asked for.
    pub scopes: ScopeSet,
    /// As given.
    pub options: ConsentOptions,
    /// How the browser is proved to be the user's.
    pub binding: ConsentBinding,
    /// When it began.
    pub created_at: Timestamp,
    /// When the link stops working.
    pub expires_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
}

/// See `revoke`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevokeAnswer {
    /// Whether there was something.
    pub deleted: bool,
    /// `None` if there was nothing to revoke.
    pub provider: Option<ProviderRevocation>,
    /// What was disconnected.
    pub services: BTreeSet<ServiceId>,
    /// How many pending consents.
    pub cancelled_flows: u32,
}

/// What is known about the grant at the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProviderRevocation {
    /// Confirmed.
    Revoked,
    /// Being tried.
    Pending,
    /// Given up.
    Failed,
    /// The provider has none.
    NotSupported,
}

/// See `list_credentials`.
#[derive(Debug, Clone)]
pub struct ListInput {
    /// Only this user's.
    pub user: Option<UserId>,
    /// Only this provider's.
    pub provider: Option<ProviderId>,
    /// Only those with all of these.
    pub covering_scopes: ScopeSet,
    /// 1 to 1,000.
    pub page_size: u32,
    /// Opaque.
    pub page_token: Option<String>,
}

/// A page of a list ends when its rows have about so many bytes, whatever page size was asked for, but not before it has one: clients
/// refuse answers of more than 4 MiB (the default of gRPC), and who can't read one page never sees the next.
pub const MAX_PAGE_BYTES: usize = 1024 * 1024;

/// A page.
#[derive(Debug, Clone)]
pub struct ListAnswer {
    /// The page: as many as asked for, or fewer if they would pass [`MAX_PAGE_BYTES`].
    pub credentials: Vec<CredentialView>,
    /// `None` on the last page.
    pub next_page_token: Option<String>,
}

/// Where a credential stands, for lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ViewStatus {
    /// In order.
    Active,
    /// A refresh is under way, or its outcome unknown.
    Refreshing,
    /// The user has to consent again.
    NeedsReauth(ReauthReason),
}

/// A credential without its tokens.
#[derive(Debug, Clone)]
pub struct CredentialView {
    /// The key; `grant` is not shown to callers.
    pub key: CredentialKey,
    /// The services that the scopes cover.
    pub services: BTreeSet<ServiceId>,
    /// Where it stands.
    pub status: ViewStatus,
    /// Granted.
    pub scopes: ScopeSet,
    /// The provider did not say.
    pub scopes_assumed: bool,
    /// Of the pair.
    pub generation: Generation,
    /// Who consented.
    pub account: ProviderAccount,
    /// When the access token ends.
    pub expires_at: Option<Timestamp>,
    /// First stored.
    pub created_at: Timestamp,
    /// Last changed.
    pub updated_at: Timestamp,
    /// There is a refresh token.
    pub refreshable: bool,
}

/// See `import_credential`.
#[derive(Debug, Clone)]
pub struct ImportInput {
    /// Where to.
    pub key: ServiceKey,
    /// Never empty.
    pub access_token: SecretString,
    /// `None`: it can't be refreshed.
    pub refresh_token: Option<SecretString>,
    /// "Bearer" if the caller gave none.
    pub token_type: String,
    /// When the access token ends.
    pub expires_at: Option<Timestamp>,
    /// Empty: the service's are assumed.
    pub scopes: ScopeSet,
    /// As far as known.
    pub account: ProviderAccount,
    /// The provider's further values.
    pub extra: BTreeMap<String, String>,
    /// Replace one that is in order.
    pub overwrite: bool,
}

/// A provider for callers.
#[derive(Debug, Clone)]
pub struct ProviderView {
    /// Definition and name.
    pub provider: std::sync::Arc<crate::domain::provider::Provider>,
    /// To register there.
    pub redirect_uri: url::Url,
}

/// See `acquire_lease`.
#[derive(Debug, Clone)]
pub struct AcquireInput {
    /// Whose token for what.
    pub key: ServiceKey,
    /// `None`: the broker's default.
    pub ttl: Option<Duration>,
    /// Beside the service's own.
    pub scopes: ScopeSet,
    /// How long it must stay valid.
    pub min_ttl: Duration,
    /// How long the caller waits; the broker waits at most 5 seconds.
    pub time_left: Option<Duration>,
}

/// A lease as its holder names it: the id is good with its key alone.
#[derive(Debug, Clone)]
pub struct LeaseTarget {
    /// What it was acquired with.
    pub key: ServiceKey,
    /// Which.
    pub lease: LeaseId,
}

/// See `renew_lease`.
#[derive(Debug, Clone)]
pub struct RenewInput {
    /// Which.
    pub lease: LeaseTarget,
    /// `None`: the broker's default.
    pub ttl: Option<Duration>,
    /// How long the caller waits; the broker waits at most 5 seconds.
    pub time_left: Option<Duration>,
}

/// A lease for its holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseView {
    /// Its id.
    pub id: LeaseId,
    /// When it ends.
    pub expires_at: Timestamp,
    /// A refresh waits.
    pub capped: bool,
    /// Not registered: nothing waits for it.
    pub unprotected: bool,
}

/// A token with a lease, or the need to consent.
#[derive(Debug, Clone)]
pub enum LeaseAnswer {
    /// The token.
    Leased {
        /// The token.
        grant: Box<AccessGrant>,
        /// For how long.
        lease: LeaseView,
    },
    /// The user must consent.
    AuthorizationRequired(AuthorizationRequired),
}

/// See `watch_credentials`.
#[derive(Debug, Clone)]
pub struct WatchInput {
    /// Only this user's.
    pub user: Option<UserId>,
    /// Opaque. `None`: from now on.
    pub cursor: Option<String>,
}

/// An event for callers.
#[derive(Debug, Clone)]
pub struct EventView {
    /// As stored; `grant` is not shown to callers.
    pub event: Event,
    /// Those of the grant.
    pub services: BTreeSet<ServiceId>,
}

/// What a watch tells.
#[derive(Debug, Clone)]
pub struct WatchMessage {
    /// Opaque.
    pub cursor: String,
    /// `None`: nothing has happened.
    pub event: Option<EventView>,
}
