//! The use cases on the real store and the real vault, with a clock and a provider under the test's control.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use token_broker::application::error::{BrokerError, Unavailable};
use token_broker::application::types::{
    AccessGrant, AuthorizationAnswer, AuthorizationRequired, BeginInput, BrowserKeys, CallbackAnswer,
    CallbackInput, CallbackOutcome, ConsentInput, GetCredentialInput, ImportInput, ServiceKey, StartedFlow,
    TokenAnswer,
};
use token_broker::application::{Broker, Ports, Settings, WatchSettings};
use token_broker::domain::access_policy::{Action, Allowed, Caller, Principal, Rule};
use token_broker::domain::audit::NoAudit;
use token_broker::domain::cipher::Cipher as _;
use token_broker::domain::coordination::{PermitStore as _, Successor};
use token_broker::domain::credential::{Credential, Fingerprint};
use token_broker::domain::key::{
    Account, CallerId, ClaimOwner, CredentialKey, FlowId, GrantName, ProviderId, ServiceId, TenantId, UserId,
};
use token_broker::domain::ports::{
    Clock as _, CredentialStore as _, LineageWrite, OAuthClient, OutboxStore, ProviderDirectory,
};
use token_broker::domain::provider::{Provider, Revocation, RevokedToken, Rotation, STRICT_SETTLE, Service};
use token_broker::domain::scope::ScopeSet;
use token_broker::domain::secret::{SecretBytes, SecretString};
use token_broker::domain::token_set::ProviderAccount;
use token_broker::infra::coordination::local::LocalLeases;
use token_broker::infra::crypto::{KeyEncryptionKey, Keyring, Vault};
use token_broker::infra::providers::ConfiguredProviders;
use token_broker::infra::storage::sqlite::SqliteStore;
use token_broker::infra::system::SystemEntropy;
use tokio_util::task::TaskTracker;

use crate::storage_faults::tamper;

use super::alone;
use super::clock::ManualClock;
use super::coordination::{Permits, SharedPermits, SharedWakeups, Words};
use super::faulty_store::{Faults, FaultyStore};
use super::keep::KeptFolder;
use super::life::Life;
use super::memory_journal::MemoryJournal;
use super::mortal::Mortal;
use super::provider::provider_at;
use super::replica::Replica;
use super::strict_provider::{Script, StrictProvider, scope_set};
use super::switched_leases::SwitchedLeases;

/// The world, and the first replica in it.
pub(crate) struct Rig {
    first: Replica,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) provider: Arc<StrictProvider>,
    pub(crate) store: SqliteStore,
    pub(crate) permits: Arc<SharedPermits>,
    pub(crate) words: Arc<SharedWakeups>,
    pub(crate) leases: Arc<SwitchedLeases>,
    pub(crate) providers: Arc<dyn ProviderDirectory>,
    world: World,
    callbacks: tokio::sync::Mutex<BTreeMap<FlowId, CallbackInput>>,
    _dir: KeptFolder,
}

/// What the replicas share.
struct World {
    store: SqliteStore,
    clock: Arc<ManualClock>,
    provider: Arc<StrictProvider>,
    permits: Arc<SharedPermits>,
    words: Arc<SharedWakeups>,
    leases: Arc<SwitchedLeases>,
    cipher: Arc<Vault>,
    providers: Arc<dyn ProviderDirectory>,
    settings: Settings,
}

impl World {
    fn replica(&self, number: u8) -> Replica {
        let life = Arc::new(Life::default());
        let faults = Arc::new(Faults { life: life.clone(), ..Faults::default() });
        let journal = Arc::new(MemoryJournal::of(life.clone()));
        let tasks = TaskTracker::new();
        let owner = ClaimOwner::from_random([number; 16]);
        let ports = Ports {
            audit: Arc::new(NoAudit),
            audit_archive: None,
            clock: self.clock.clone(),
            entropy: Arc::new(SystemEntropy),
            credentials: Arc::new(FaultyStore {
                inner: Arc::new(self.store.clone()),
                faults: faults.clone(),
            }),
            flows: Arc::new(self.store.clone()),
            outbox: Arc::new(Mortal::<dyn OutboxStore> {
                inner: Arc::new(self.store.clone()),
                life: life.clone(),
            }),
            cipher: self.cipher.clone(),
            oauth: Arc::new(Mortal::<dyn OAuthClient> { inner: self.provider.clone(), life: life.clone() }),
            providers: self.providers.clone(),
            permits: Arc::new(Permits { shared: self.permits.clone(), life: life.clone() }),
            journal: journal.clone(),
            wakeups: Arc::new(Words { shared: self.words.clone(), life: life.clone() }),
            leases: self.leases.clone(),
            events: Arc::new(self.store.clone()),
            callers: Arc::new(self.store.clone()),
            tenants: Arc::new(self.store.clone()),
            provider_configs: Arc::new(self.store.clone()),
            steps: life.clone(),
        };
        let broker = Broker::new(ports, self.settings.clone(), owner, tasks.clone());
        Replica { broker, owner, life, faults, journal, caller: caller("agents"), tasks }
    }
}

impl Deref for Rig {
    type Target = Replica;

    fn deref(&self) -> &Replica {
        &self.first
    }
}

/// What a test changes before the broker is put together.
pub(crate) struct RigOptions {
    pub(crate) rotation: Rotation,
    pub(crate) revocation: Revocation,
    pub(crate) max_wait: Duration,
    pub(crate) refresh_ahead: Duration,
    pub(crate) concurrency: usize,
    pub(crate) idle_limit: Option<Duration>,
    /// A refresh ends the access token before.
    pub(crate) kills_access: bool,
    pub(crate) watches: WatchSettings,
    /// No word of a change comes through.
    pub(crate) deaf: bool,
    /// The provider `bolt` beside `acme`.
    pub(crate) bolt: bool,
}

impl RigOptions {
    /// With readers who do not wait for long.
    pub(crate) fn impatient() -> Self {
        Self { max_wait: Duration::from_millis(500), ..Self::default() }
    }
}

impl Default for RigOptions {
    fn default() -> Self {
        Self {
            rotation: Rotation::Strict,
            revocation: Revocation::Rfc7009 { token: RevokedToken::RefreshElseAccess },
            max_wait: Duration::from_secs(5),
            refresh_ahead: Duration::from_secs(300),
            concurrency: 32,
            idle_limit: None,
            kills_access: false,
            watches: WatchSettings::default(),
            deaf: false,
            bolt: false,
        }
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
        let dir = KeptFolder::new();
        let store = SqliteStore::open(&dir.path().join("broker.db")).await.unwrap();
        let clock = Arc::new(ManualClock::new());
        let provider = Arc::new(StrictProvider::new());
        provider.account("alice-at-acme");
        let key = KeyEncryptionKey::new("k1", SecretBytes::new(vec![7; 32])).unwrap();
        let keyring = Keyring::new(vec![key], "k1").unwrap();
        let entropy = Arc::new(SystemEntropy);
        let vault = Vault::new(keyring, Arc::new(store.clone()), entropy.clone(), clock.clone());
        let mut definitions = vec![Arc::new(acme(&options))];
        if options.bolt {
            let mut bolt = acme(&options);
            bolt.id = ProviderId::new("bolt").unwrap();
            definitions.push(Arc::new(bolt));
        }
        let settings = Settings {
            max_wait: options.max_wait,
            refresh_ahead: options.refresh_ahead,
            provider_concurrency: options.concurrency,
            watches: options.watches,
            ..alone::settings("https://broker.example")
        };
        let permits = Arc::new(SharedPermits::new(clock.clone()));
        let words = Arc::new(SharedWakeups::default());
        words.lost.store(options.deaf, Ordering::SeqCst);
        let leases = Arc::new(SwitchedLeases::new(Arc::new(LocalLeases::new(clock.clone()))));
        let providers: Arc<dyn ProviderDirectory> = Arc::new(ConfiguredProviders::of(definitions));
        let world = World {
            store: store.clone(),
            clock: clock.clone(),
            provider: provider.clone(),
            permits: permits.clone(),
            words: words.clone(),
            leases: leases.clone(),
            cipher: Arc::new(vault),
            providers: providers.clone(),
            settings,
        };
        let first = world.replica(1);
        Self {
            first,
            clock,
            provider,
            store,
            permits,
            words,
            leases,
            providers,
            world,
            callbacks: <_>::default(),
            _dir: dir,
        }
    }

    /// One more replica. Numbers are not used twice: each is a process run.
    pub(crate) fn replica(&self, number: u8) -> Replica {
        self.world.replica(number)
    }

    /// So many replicas, the first one included.
    pub(crate) fn replicas(&self, count: u8) -> Vec<Replica> {
        let others = (2..=count).map(|number| self.replica(number));
        std::iter::once(self.first.clone()).chain(others).collect()
    }

    /// I5: the row's refresh token is the one that is good at the provider.
    pub(crate) async fn holds_the_live_token(&self) -> bool {
        let row = self.row().await;
        let held = row.tokens().and_then(|tokens| tokens.refresh.as_ref()).map(|refresh| refresh.fingerprint);
        let live = match self.provider.live_token() {
            Some(live) => Some(self.world.cipher.fingerprint(&row.key.tenant, &live).await.unwrap()),
            None => None,
        };
        held.is_some() && held == live
    }

    /// The vault of all replicas.
    pub(crate) fn cipher(&self) -> &Arc<Vault> {
        &self.world.cipher
    }

    /// Puts a pair into the permit store as a broker does.
    pub(crate) async fn keep_successor(&self, write: LineageWrite) {
        let tenant = self.row().await.key.tenant;
        let mac = self.world.cipher.successor_mac(&tenant, &write).await.unwrap();
        self.permits.store().keep_successor(&Successor { write, mac }).await.unwrap();
    }

    /// What the row's refresh token is in the permit store.
    pub(crate) async fn fingerprint(&self) -> Fingerprint {
        let row = self.row().await;
        row.tokens().and_then(|tokens| tokens.refresh.as_ref()).unwrap().fingerprint
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

    /// The user's browser opens the link, confirms, and consents; what it brings back. The same each time.
    pub(crate) async fn callback(&self, flow: &StartedFlow) -> CallbackInput {
        self.confirmed(flow).await.unwrap()
    }

    async fn confirmed(&self, flow: &StartedFlow) -> Result<CallbackInput, CallbackOutcome> {
        let mut known = self.callbacks.lock().await;
        if let Some(callback) = known.get(&flow.id) {
            return Ok(callback.clone());
        }
        let handle = handle_of(flow);
        let view = self.broker.open_link(&handle, &BrowserKeys::default()).await?;
        let browser: BrowserKeys = [(view.flow, view.browser_key)].into_iter().collect();
        let url = self.broker.follow_link(&handle, &browser, &view.form_token).await?;
        let callback = callback_with(state_in(&url), browser);
        known.insert(flow.id, callback.clone());
        Ok(callback)
    }

    /// Brings something to the callback; answers the page.
    pub(crate) async fn take(&self, input: CallbackInput) -> CallbackOutcome {
        match self.broker.take_callback(input).await {
            CallbackAnswer::Page(outcome) => outcome,
            CallbackAnswer::ToApplication(_) => panic!("sent to the application"),
        }
    }

    pub(crate) async fn come_back(&self, flow: &StartedFlow) -> CallbackOutcome {
        match self.confirmed(flow).await {
            Ok(callback) => self.take(callback).await,
            Err(outcome) => outcome,
        }
    }

    /// The user consents to a service.
    pub(crate) async fn connect(&self, services: &[&str]) {
        let flow = self.begin(services).await.unwrap();
        let outcome = self.come_back(&flow).await;
        assert!(matches!(outcome, CallbackOutcome::Connected { .. }), "{outcome:?}");
    }

    pub(crate) async fn row(&self) -> Credential {
        self.store.load(&row_key("mail")).await.unwrap().unwrap()
    }

    /// The row of one of the users of [`Rig::import_at`].
    pub(crate) async fn row_of(&self, user: &str) -> Credential {
        let key = CredentialKey { user: UserId::new(user).unwrap(), ..row_key("mail") };
        self.store.load(&key).await.unwrap().unwrap()
    }

    /// A grant made elsewhere, with this much of its access token's life left; zero: it has expired.
    pub(crate) async fn import_at(&self, provider: &str, user: &str, left: Duration) {
        let mut input = self.import_input();
        input.key = ServiceKey { provider: ProviderId::new(provider).unwrap(), ..user_service(user, "mail") };
        input.expires_at = Some(self.now() + left);
        self.broker.import_credential(&self.caller, input).await.unwrap();
    }

    /// What is in the database, to come back to.
    pub(crate) async fn save_rows(&self) {
        tamper(
            self.store.path(),
            "DROP TABLE IF EXISTS saved; CREATE TABLE saved AS SELECT * FROM credentials",
        )
        .await;
    }

    /// A failover loses what was committed since.
    pub(crate) async fn lose_commits(&self) {
        let sql =
            "DELETE FROM credentials; INSERT INTO credentials SELECT * FROM saved; DELETE FROM revocations";
        tamper(self.store.path(), sql).await;
    }

    pub(crate) fn now(&self) -> jiff::Timestamp {
        self.clock.now()
    }

    pub(crate) fn expire_token(&self) {
        self.clock.advance(Duration::from_secs(3600));
    }

    /// A refresh of the token whose outcome is unknown, and by now may be settled.
    pub(crate) async fn comes_to_the_last_chance(&self) {
        self.expire_token();
        self.provider.next_refresh(Script::LostBefore);
        unavailable(self.get().await);
        self.clock.advance(STRICT_SETTLE);
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

/// What is not available, and for how long; anything else fails the test.
pub(crate) fn unavailable(answer: Result<TokenAnswer, BrokerError>) -> (Unavailable, Duration) {
    match answer {
        Err(BrokerError::Unavailable { what, retry_after }) => (what, retry_after),
        other => panic!("expected an outage, got {other:?}"),
    }
}

/// The `state` that a browser takes to the provider.
pub(crate) fn state_in(url: &SecretString) -> SecretString {
    let url: url::Url = url.expose_secret().parse().unwrap();
    let state = url.query_pairs().find(|(name, _)| name == "state").unwrap().1.into_owned();
    SecretString::new(state)
}

/// What a browser brings back with this state.
pub(crate) fn callback_with(state: SecretString, browser: BrowserKeys) -> CallbackInput {
    let code = Some(SecretString::from("code"));
    let answer = AuthorizationAnswer { state: Some(state), code, error: None, iss: None };
    CallbackInput { provider: "acme".to_owned(), configuration: None, answer, browser }
}

/// The handle of a link to the broker's page.
pub(crate) fn handle_of(flow: &StartedFlow) -> SecretString {
    let (_, handle) = flow.authorization_url.expose_secret().rsplit_once("/connect/").unwrap();
    SecretString::from(handle)
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

pub(crate) fn caller(id: &str) -> Principal {
    let (id, tenant) = (CallerId::new(id).unwrap(), TenantId::new("tenant-a").unwrap());
    Caller::new(id, tenant, vec![Rule::everything()]).into()
}

/// The one rule of [`caller`], to be changed.
pub(crate) fn rule(principal: &mut Principal) -> &mut Rule {
    &mut rights(principal).rules[0]
}

/// Every action but this one.
pub(crate) fn all_but(action: Action) -> Allowed<Action> {
    Allowed::Only(Action::ALL.into_iter().filter(|other| *other != action).collect())
}

/// What a principal's caller is and may do, to be changed.
pub(crate) fn rights(principal: &mut Principal) -> &mut Caller {
    Arc::make_mut(&mut principal.caller)
}

fn acme(options: &RigOptions) -> Provider {
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
    provider.refresh.rotation = options.rotation;
    provider.refresh.idle_limit = options.idle_limit;
    provider.refresh.kills_access = options.kills_access;
    provider.revocation = options.revocation.clone();
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
