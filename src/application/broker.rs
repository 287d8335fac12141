//! The object that holds the ports. Use cases are methods on it, one file each.

use std::collections::HashSet;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio_util::task::TaskTracker;
use url::Url;

use super::admin::ConfiguredCaller;
use super::audit::AuditArchive;
use super::gates::Gates;
use super::keyed_lock::KeyedLock;
use super::lease::LeaseSettings;
use super::login::Login;
use super::refresh_ahead::Ahead;
use super::single_flight::Flights;
use super::sweep::Housekeeping;
use super::watch::{WatchSettings, Watchers};
use crate::domain::audit::Audit;
use crate::domain::caller_store::{CallerStore, TenantStore};
use crate::domain::cipher::Cipher;
use crate::domain::coordination::{Journal, LeaseStore, PermitStore, Wakeups};
use crate::domain::event::EventStore;
use crate::domain::flow::ConsentBinding;
use crate::domain::key::{ClaimOwner, ConfigId, CredentialId, CredentialKey, OutboxId, ProviderId};
use crate::domain::ports::{
    Clock, CredentialStore, Entropy, FlowStore, OAuthClient, OutboxPair, OutboxStore, ProviderDirectory,
};
use crate::domain::provider::{Provider, TimingLimits};
use crate::domain::provider_config::ProviderConfigStore;
use crate::domain::secret::SecretString;
use crate::domain::step::Steps;

/// The outside world.
#[derive(Clone)]
pub struct Ports {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Credentials.
    pub credentials: Arc<dyn CredentialStore>,
    /// Flows.
    pub flows: Arc<dyn FlowStore>,
    /// Revocations to do.
    pub outbox: Arc<dyn OutboxStore>,
    /// The vault.
    pub cipher: Arc<dyn Cipher>,
    /// The way to providers.
    pub oauth: Arc<dyn OAuthClient>,
    /// The providers.
    pub providers: Arc<dyn ProviderDirectory>,
    /// Permits, successors, tombstones.
    pub permits: Arc<dyn PermitStore>,
    /// The local copy of new token pairs.
    pub journal: Arc<dyn Journal>,
    /// Words between replicas.
    pub wakeups: Arc<dyn Wakeups>,
    /// Who is using a token.
    pub leases: Arc<dyn LeaseStore>,
    /// What has changed for users.
    pub events: Arc<dyn EventStore>,
    /// The callers of the database.
    pub callers: Arc<dyn CallerStore>,
    /// What is known of tenants.
    pub tenants: Arc<dyn TenantStore>,
    /// Tenants' own provider configurations, to be changed; they are used through `providers`.
    pub provider_configs: Arc<dyn ProviderConfigStore>,
    /// Hears of the protocol's steps.
    pub steps: Arc<dyn Steps>,
    /// Where decisions are told.
    pub audit: Arc<dyn Audit>,
    /// What was told; `None`: it is not kept.
    pub audit_archive: Option<Arc<AuditArchive>>,
}

/// What the operator decides.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where browsers reach the public listener; the redirect URIs are `{public_base_url}/oauth/callback/{provider}`, with
    /// `/{configuration}` behind it for a tenant's own.
    pub public_base_url: Url,
    /// Origins with path prefixes that a `return_url` may lie under. Empty: none is allowed.
    pub return_urls: Vec<Url>,
    /// A token with less than this left is refreshed behind the reader's back and in the background. Zero: never.
    pub refresh_ahead: Duration,
    /// The background keeps a token fresh for this long after it was last asked for.
    pub active_window: Duration,
    /// Calls to one provider's token endpoint at a time.
    pub provider_concurrency: usize,
    /// How long requests and their settling take.
    pub timings: TimingLimits,
    /// How long a link works.
    pub flow_lifetime: Duration,
    /// How long a reader waits for somebody else's refresh, at most.
    pub max_wait: Duration,
    /// How long leases stand.
    pub leases: LeaseSettings,
    /// How watches run.
    pub watches: WatchSettings,
    /// The callers of the configuration, for operators to see.
    pub configured_callers: Vec<ConfiguredCaller>,
    /// How browsers may be proved to be their users'; the first one is what a caller gets that does not choose. Never empty.
    pub bindings: Vec<ConsentBinding>,
    /// Where users sign in, for [`ConsentBinding::Login`].
    pub login: Option<Login>,
}

/// The use cases.
pub struct Broker {
    pub(super) ports: Ports,
    pub(super) settings: Settings,
    /// This process run, in claims.
    pub(super) owner: ClaimOwner,
    /// Work that outlives the call that began it: refreshes, exchanges, revocations. Shutdown waits for it.
    pub(super) tasks: TaskTracker,
    /// The refreshes under way.
    pub(super) flights: Flights,
    /// What the background remembers.
    pub(super) ahead: Ahead,
    /// Circuit breakers and bulkheads.
    pub(super) gates: Gates,
    /// Of callers that begin a consent for one key at the same time, all get the first one's link.
    pub(super) begin_turns: KeyedLock<CredentialKey>,
    /// Rows of which this process does not know whether it has claimed them.
    pub(super) unclear: Mutex<HashSet<CredentialId>>,
    /// See [`Broker::begin_replay`].
    pub(super) replaying: AtomicBool,
    /// What the sweeper remembers.
    pub(super) housekeeping: Housekeeping,
    /// How many watches each caller has.
    pub(super) watchers: Watchers,
}

impl Broker {
    /// Puts it together. `tasks` is what shutdown waits for.
    #[must_use]
    pub fn new(ports: Ports, settings: Settings, owner: ClaimOwner, tasks: TaskTracker) -> Arc<Self> {
        let gates = Gates::new(settings.provider_concurrency);
        Arc::new(Self {
            ports,
            settings,
            owner,
            tasks,
            flights: Flights::default(),
            gates,
            ahead: Ahead::default(),
            begin_turns: KeyedLock::default(),
            unclear: Mutex::default(),
            replaying: AtomicBool::new(false),
            housekeeping: Housekeeping::default(),
            watchers: Watchers::default(),
        })
    }

    /// Fresh random bytes.
    pub(super) fn random<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.ports.entropy.fill(&mut bytes);
        bytes
    }

    /// Ids for the outbox rows of one revocation.
    pub(super) fn new_outbox_pair(&self) -> OutboxPair {
        OutboxPair {
            first: OutboxId::from_random(self.random()),
            after_refresh: OutboxId::from_random(self.random()),
        }
    }

    /// Where browsers reach the public listener.
    #[must_use]
    pub fn public_base_url(&self) -> &Url {
        &self.settings.public_base_url
    }

    /// The redirect URI of a provider.
    pub(super) fn redirect_uri(&self, provider: &Provider) -> Url {
        self.redirect_uri_of(&provider.id, provider.configuration())
    }

    /// The redirect URI of a provider configuration (RFC 9700 section 4.4: a distinct one each). A tenant's own has the
    /// configuration's id in it, so that no two tenants' apps are mixed up, nor one of a tenant that came after another.
    pub(super) fn redirect_uri_of(&self, provider: &ProviderId, configuration: Option<ConfigId>) -> Url {
        let own = configuration.map(|id| id.to_string());
        let mut path = vec!["oauth", "callback", provider.as_str()];
        path.extend(own.as_deref());
        self.public_page(&path)
    }

    /// The redirect URI at the login issuer.
    pub(super) fn login_redirect_uri(&self) -> Url {
        self.public_page(&["login", "callback"])
    }

    /// The address of the page behind a link.
    pub(super) fn link_url(&self, handle: &SecretString) -> SecretString {
        SecretString::new(self.public_page(&["connect", handle.expose_secret()]).into())
    }

    fn public_page(&self, path: &[&str]) -> Url {
        let mut url = self.settings.public_base_url.clone();
        // A base URL can always be a base: configuration refuses others.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        url
    }
}
