//! The use cases on the real store and the real vault, with a clock and a provider under the test's control.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use token_broker::application::types::{
    AccessGrant, AuthorizationRequired, BeginInput, CallbackInput, CallbackOutcome, ConsentInput,
    GetCredentialInput, ImportInput, RefreshInput, ServiceKey, StartedFlow, TokenAnswer,
};
use token_broker::application::{Broker, Ports, Settings, WatchSettings, error::BrokerError};
use token_broker::domain::access_policy::{Action, Caller, ProviderRule, UserRule};
use token_broker::domain::coordination::{Wake, Wakeups};
use token_broker::domain::credential::Credential;
use token_broker::domain::key::{
    Account, CallerId, ClaimOwner, CredentialKey, GrantName, ProviderId, ServiceId, TenantId, UserId,
};
use token_broker::domain::ports::{Clock as _, CredentialStore as _, ProviderDirectory};
use token_broker::domain::provider::{Provider, Revocation, RevokedToken, Rotation, Service};
use token_broker::domain::scope::ScopeSet;
use token_broker::domain::secret::{SecretBytes, SecretString};
use token_broker::domain::step::NoSteps;
use token_broker::domain::token_set::ProviderAccount;
use token_broker::infra::coordination::local::{LocalLeases, LocalPermits};
use token_broker::infra::crypto::{KeyEncryptionKey, Keyring, Vault};
use token_broker::infra::storage::sqlite::SqliteStore;
use token_broker::infra::system::SystemEntropy;
use tokio_util::task::TaskTracker;

use super::alone;
use super::clock::ManualClock;
use super::faulty_store::{Faults, FaultyStore};
use super::memory_journal::MemoryJournal;
use super::provider::provider_at;
use super::strict_provider::{StrictProvider, scope_set};
use super::switched_leases::SwitchedLeases;

pub(crate) struct Rig {
    pub(crate) broker: Arc<Broker>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) provider: Arc<StrictProvider>,
    pub(crate) store: SqliteStore,
    pub(crate) faults: Arc<Faults>,
    pub(crate) permits: Arc<LocalPermits>,
    pub(crate) caller: Caller,
    pub(crate) tasks: TaskTracker,
    pub(crate) leases: Arc<SwitchedLeases>,
    pub(crate) providers: Arc<dyn ProviderDirectory>,
    _dir: tempfile::TempDir,
}

/// What a test changes before the broker is put together.
pub(crate) struct RigOptions {
    pub(crate) rotation: Rotation,
    pub(crate) revocation: Revocation,
    pub(crate) max_wait: Duration,
    /// A refresh ends the access token before.
    pub(crate) kills_access: bool,
    pub(crate) watches: WatchSettings,
    /// No word of a change comes through.
    pub(crate) deaf: bool,
}

impl Default for RigOptions {
    fn default() -> Self {
        Self {
            rotation: Rotation::Strict,
            revocation: Revocation::Rfc7009 { token: RevokedToken::RefreshElseAccess },
            max_wait: Duration::from_secs(5),
            kills_access: false,
            watches: WatchSettings::default(),
            deaf: false,
        }
    }
}

struct Providers(Mutex<Vec<Arc<Provider>>>);

impl ProviderDirectory for Providers {
    fn provider(&self, _: &TenantId, id: &ProviderId) -> Option<Arc<Provider>> {
        self.0.lock().unwrap().iter().find(|p| p.id == *id).cloned()
    }
    fn providers(&self, _: &TenantId) -> Vec<Arc<Provider>> {
        self.all()
    }
    fn all(&self) -> Vec<Arc<Provider>> {
        self.0.lock().unwrap().clone()
    }
}

/// Tells and hears nothing.
struct Deaf;

#[async_trait::async_trait]
impl Wakeups for Deaf {
    async fn publish(&self, _: Wake) {}

    fn listen(&self, _: &Wake) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(std::future::pending())
    }
}

pub(crate) fn service(id: &str) -> ServiceKey {
    user_service("alice", id)
}

pub(crate) fn user_service(user: &str, id: &str) -> ServiceKey {
    ServiceKey {
        provider: ProviderId::new("acme").unwrap(),
        user: UserId::new(user).unwrap(),
        service: ServiceId::new(id).unwrap(),
        account: Account::default(),
    }
}

impl Rig {
    pub(crate) async fn new() -> Self {
        Self::with(RigOptions::default()).await
    }

    pub(crate) async fn with(options: RigOptions) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&dir.path().join("broker.db")).await.unwrap();
        let clock = Arc::new(ManualClock::new());
        let provider = Arc::new(StrictProvider::new());
        provider.account("alice-at-acme");
        let key = KeyEncryptionKey::new("k1", SecretBytes::new(vec![7; 32])).unwrap();
        let keyring = Keyring::new(vec![key], "k1").unwrap();
        let entropy = Arc::new(SystemEntropy);
        let vault = Vault::new(keyring, Arc::new(store.clone()), entropy.clone(), clock.clone());
        let tasks = TaskTracker::new();
        let faults = Arc::new(Faults::default());
        let leases = Arc::new(SwitchedLeases::new(Arc::new(LocalLeases::new(clock.clone()))));
        let mut acme = acme(options.rotation, options.revocation);
        acme.refresh.kills_access = options.kills_access;
        let providers: Arc<dyn ProviderDirectory> = Arc::new(Providers(Mutex::new(vec![Arc::new(acme)])));
        let permits = Arc::new(LocalPermits::new(clock.clone()));
        let journal = Arc::new(MemoryJournal::default());
        let ports = Ports {
            clock: clock.clone(),
            entropy,
            credentials: Arc::new(FaultyStore { inner: Arc::new(store.clone()), faults: faults.clone() }),
            flows: Arc::new(store.clone()),
            outbox: Arc::new(store.clone()),
            cipher: Arc::new(vault),
            oauth: provider.clone(),
            providers: providers.clone(),
            permits: permits.clone(),
            journal: journal.clone(),
            wakeups: if options.deaf { Arc::new(Deaf) } else { alone::wakeups() },
            leases: leases.clone(),
            events: Arc::new(store.clone()),
            steps: Arc::new(NoSteps),
        };
        let settings = Settings {
            max_wait: options.max_wait,
            watches: options.watches,
            ..alone::settings("https://broker.example")
        };
        let broker = Broker::new(ports, settings, ClaimOwner::from_random([1; 16]), tasks.clone());
        Self {
            broker,
            clock,
            provider,
            store,
            faults,
            permits,
            caller: caller("agents"),
            tasks,
            leases,
            providers,
            _dir: dir,
        }
    }

    /// Waits for everything that runs in the background.
    pub(crate) async fn settle(&self) {
        self.tasks.close();
        self.tasks.wait().await;
        self.tasks.reopen();
    }

    pub(crate) async fn begin(&self, services: &[&str]) -> Result<StartedFlow, BrokerError> {
        let input = BeginInput {
            provider: ProviderId::new("acme").unwrap(),
            user: UserId::new("alice").unwrap(),
            services: services.iter().map(|s| ServiceId::new(*s).unwrap()).collect(),
            account: Account::default(),
            scopes: ScopeSet::default(),
            options: ConsentInput::default(),
        };
        self.broker.begin_oauth(&self.caller, input).await
    }

    pub(crate) async fn come_back(&self, flow: &StartedFlow) -> CallbackOutcome {
        self.broker.complete_oauth(callback(flow)).await
    }

    /// The user consents to a service.
    pub(crate) async fn connect(&self, services: &[&str]) {
        let flow = self.begin(services).await.unwrap();
        let outcome = self.come_back(&flow).await;
        assert!(matches!(outcome, CallbackOutcome::Connected { .. }), "{outcome:?}");
    }

    pub(crate) async fn ask(&self, input: GetCredentialInput) -> Result<TokenAnswer, BrokerError> {
        self.broker.get_credential(&self.caller, input).await
    }

    pub(crate) async fn get(&self) -> Result<TokenAnswer, BrokerError> {
        self.ask(get_input("mail")).await
    }

    /// The token; anything else fails the test.
    pub(crate) async fn token(&self) -> Box<AccessGrant> {
        token(self.get().await)
    }

    /// The need to consent; anything else fails the test.
    pub(crate) async fn required(&self) -> AuthorizationRequired {
        required(self.get().await)
    }

    pub(crate) async fn refresh(&self, expected_generation: i64) -> Result<TokenAnswer, BrokerError> {
        let input = RefreshInput { key: service("mail"), expected_generation, time_left: None };
        self.broker.refresh(&self.caller, input).await
    }

    pub(crate) async fn row(&self) -> Credential {
        self.store.load(&row_key("mail")).await.unwrap().unwrap()
    }

    pub(crate) fn now(&self) -> jiff::Timestamp {
        self.clock.now()
    }

    pub(crate) fn expire_token(&self) {
        self.clock.advance(Duration::from_secs(3600));
    }

    pub(crate) fn import_input(&self) -> ImportInput {
        let (access_token, refresh_token) = self.provider.issue();
        ImportInput {
            key: service("mail"),
            access_token,
            refresh_token: Some(refresh_token),
            token_type: "Bearer".to_owned(),
            expires_at: None,
            scopes: ScopeSet::default(),
            account: ProviderAccount::default(),
            extra: BTreeMap::new(),
            overwrite: false,
        }
    }
}

pub(crate) fn get_input(service_id: &str) -> GetCredentialInput {
    GetCredentialInput {
        key: service(service_id),
        scopes: ScopeSet::default(),
        min_ttl: Duration::ZERO,
        begin_if_missing: None,
        time_left: None,
    }
}

pub(crate) fn token(answer: Result<TokenAnswer, BrokerError>) -> Box<AccessGrant> {
    match answer {
        Ok(TokenAnswer::Token(token)) => token,
        other => panic!("expected a token, got {other:?}"),
    }
}

pub(crate) fn required(answer: Result<TokenAnswer, BrokerError>) -> AuthorizationRequired {
    match answer {
        Ok(TokenAnswer::AuthorizationRequired(required)) => required,
        other => panic!("expected the need to consent, got {other:?}"),
    }
}

pub(crate) fn state_of(flow: &StartedFlow) -> SecretString {
    let url: url::Url = flow.authorization_url.expose_secret().parse().unwrap();
    let state = url.query_pairs().find(|(name, _)| name == "state").unwrap().1.into_owned();
    SecretString::new(state)
}

pub(crate) fn callback(flow: &StartedFlow) -> CallbackInput {
    CallbackInput {
        provider: "acme".to_owned(),
        state: Some(state_of(flow)),
        code: Some(SecretString::from("code")),
        error: None,
        iss: None,
    }
}

/// Services `mail` and `files` share a grant, `admin` has its own.
pub(crate) fn row_key(service_id: &str) -> CredentialKey {
    CredentialKey {
        tenant: TenantId::new("tenant-a").unwrap(),
        provider: ProviderId::new("acme").unwrap(),
        user: UserId::new("alice").unwrap(),
        grant: GrantName::new(if service_id == "admin" { "admin" } else { "user" }).unwrap(),
        account: Account::default(),
    }
}

pub(crate) fn caller(id: &str) -> Caller {
    Caller {
        id: CallerId::new(id).unwrap(),
        tenant: TenantId::new("tenant-a").unwrap(),
        actions: Action::ALL.into_iter().collect(),
        providers: ProviderRule::Any,
        users: vec![UserRule::Any],
    }
}

fn acme(rotation: Rotation, revocation: Revocation) -> Provider {
    let one = |id: &str, grant: &str, scopes: Vec<&'static str>| {
        let service = Service {
            display_name: format!("Acme {id}"),
            scopes: scope_set(scopes),
            grant: GrantName::new(grant).unwrap(),
        };
        (ServiceId::new(id).unwrap(), service)
    };
    let mut provider = provider_at("https://as.example");
    provider.id = ProviderId::new("acme").unwrap();
    "Acme".clone_into(&mut provider.display_name);
    let denial = ("user_said_no".to_owned(), "access_denied".to_owned());
    provider.response.error_aliases = BTreeMap::from([denial]);
    provider.refresh.rotation = rotation;
    provider.revocation = revocation;
    provider.services = BTreeMap::from([
        one("mail", "user", vec!["mail.read"]),
        one("files", "user", vec!["files.read"]),
        one("admin", "admin", vec!["admin"]),
    ]);
    provider
}

/// All of the set, for messages.
pub(crate) fn ids(services: &BTreeSet<ServiceId>) -> Vec<&str> {
    services.iter().map(ServiceId::as_str).collect()
}
