//! Both doors on loopback ports, over the real store, vault and OAuth client; the provider is the hostile server, the
//! clock the test's.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use serde_json::json;
use token_broker::application::audit::{AuditArchive, AuditLog, AuditSettings};
use token_broker::application::keys::{KeyPorts, KeySettings, Keys};
use token_broker::application::limits::Limits;
use token_broker::application::{Broker, Login, Ports, Settings};
use token_broker::domain::access_policy::{Action, Allowed, Caller, Identity, Rule, Suspension, UserRule};
use token_broker::domain::audit::{AuditSink, NoAudit};
use token_broker::domain::flow::ConsentBinding;
use token_broker::domain::jwt::SigningAlgorithm;
use token_broker::domain::key::{CallerId, ClaimOwner, ProviderId, TenantId, UserId};
use token_broker::domain::ports::{CallerDirectory, Clock, StoreError};
use token_broker::domain::provider::{EndpointSource, Provider};
use token_broker::domain::rate_limit::{RateLimits, SharedBuckets};
use token_broker::domain::secret::{SecretBytes, SecretString};
use token_broker::domain::step::NoSteps;
use token_broker::r#gen::v1::token_broker_service_client::TokenBrokerServiceClient;
use token_broker::r#gen::v1::{
    BeginOAuthRequest, ConsentOptions, CredentialKey, FlowStatus, GetFlowRequest, StartedFlow,
};
use token_broker::infra::coordination::local::LocalPermits;
use token_broker::infra::crypto::{KeyEncryptionKey, Keyring, Vault};
use token_broker::infra::jwt::{Issuer, IssuerSettings, JwtVerifier, KeyAccess, KeyLocation, KeyTimes};
use token_broker::infra::oauth::HttpOAuthClient;
use token_broker::infra::outbound::{Http, HttpSettings};
use token_broker::infra::providers::ConfiguredProviders;
use token_broker::infra::storage::sqlite::SqliteStore;
use token_broker::infra::system::SystemEntropy;
use token_broker::transport::{grpc, http};
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};

use super::alone;
use super::clock::ManualClock;
use super::faulty_flows::FaultyFlows;
use super::faulty_store::{Faults, FaultyStore};
use super::hostile::{HostileServer, Reply};
use super::jwt::{Signer, jwks};
use super::memory_journal::MemoryJournal;
use super::provider;
use crate::fakes::MemoryStore;

/// May do everything in tenant a.
pub(crate) const AGENT: &str = "tb_agent__________________________________________";
/// May do everything in tenant b, which has the same providers.
pub(crate) const RIVAL: &str = "tb_rival__________________________________________";
/// May do everything in tenant a, for bob alone, at `hostile` alone.
pub(crate) const BOBS: &str = "tb_bobs___________________________________________";
/// May do nothing, in tenant a.
pub(crate) const POWERLESS: &str = "tb_powerless______________________________________";

/// May ask for tokens in tenant a, and do nothing else.
pub(crate) const READER: &str = "tb_reader_________________________________________";
/// Is disabled, in tenant a.
pub(crate) const DISABLED: &str = "tb_disabled_______________________________________";
/// Its tenant, which is tenant c, is disabled.
pub(crate) const OF_DISABLED: &str = "tb_of_disabled____________________________________";

/// Where users of the binding *login* sign in.
pub(crate) const LOGIN_ISSUER: &str = "https://login.example";

/// Where that issuer's keys are, at the hostile server.
pub(crate) const LOGIN_KEYS: &str = "/login/keys";

/// Its key.
pub(crate) static LOGIN_SIGNER: LazyLock<Signer> = LazyLock::new(|| Signer::new("ES256", "login-1"));

/// The issuer of the providers that have one.
pub(crate) const ISSUER: &str = "https://as.example";

/// The service's full name.
pub(crate) const SERVICE: &str = "tokenbroker.v1.TokenBrokerService";

/// A key of the right length: 46 characters.
fn key(padded: &str) -> String {
    padded[..46].to_owned()
}

/// Dropping it stops both listeners.
pub(crate) struct Doors {
    pub(crate) grpc: SocketAddr,
    pub(crate) public: SocketAddr,
    pub(crate) provider: Arc<HostileServer>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) faults: Arc<Faults>,
    pub(crate) tasks: TaskTracker,
    pub(crate) broker: Arc<Broker>,
    pub(crate) audit: Option<Audited>,
    browser: reqwest::Client,
    pub(crate) database: PathBuf,
    cookies: Arc<Mutex<BTreeMap<String, String>>>,
    store: SqliteStore,
    _serving: tokio::task::JoinSet<()>,
    home: Arc<tempfile::TempDir>,
}

struct Callers(HashMap<Identity, Arc<Caller>>);

#[tonic::async_trait]
impl CallerDirectory for Callers {
    async fn caller(&self, identity: &Identity) -> Result<Option<Arc<Caller>>, StoreError> {
        Ok(self.0.get(identity).cloned())
    }

    fn remembers(&self, identity: &Identity) -> bool {
        self.0.contains_key(identity)
    }
}

/// The audit log behind doors that have one.
pub(crate) struct Audited {
    pub(crate) log: Arc<AuditLog>,
    pub(crate) archive: Arc<AuditArchive>,
}

/// How doors are opened.
struct Opening {
    settings: Settings,
    max_deadline: Duration,
    replica: u8,
    audit: Option<(AuditSettings, Vec<Arc<dyn AuditSink>>)>,
    limits: Arc<Limits>,
}

impl Opening {
    fn new(settings: Settings, max_deadline: Duration, replica: u8) -> Self {
        Self { settings, max_deadline, replica, audit: None, limits: Arc::new(Limits::none()) }
    }
}

impl Doors {
    /// Opens them, at an empty database.
    pub(crate) async fn open() -> Self {
        Self::open_with("https://broker.example", Duration::from_secs(60)).await
    }

    /// With this public base URL, and this limit for every call.
    pub(crate) async fn open_with(public_base_url: &str, max_deadline: Duration) -> Self {
        Self::open_as(public_base_url, |at, _| at.max_deadline = max_deadline).await
    }

    /// At an empty database, with what is decided about the opening by whoever knows the clock.
    async fn open_as(public_base_url: &str, decide: impl FnOnce(&mut Opening, Arc<ManualClock>)) -> Self {
        let home = Arc::new(tempfile::tempdir().unwrap());
        let store = SqliteStore::open(&home.path().join("broker.db")).await.unwrap();
        let server = Arc::new(HostileServer::start().await);
        let clock = Arc::new(ManualClock::new());
        server.always(LOGIN_KEYS, Reply::json(200, &jwks(&[LOGIN_SIGNER.jwk()])));
        let settings = settings(public_base_url, &server.base(), &clock);
        let mut at = Opening::new(settings, Duration::from_secs(60), 1);
        decide(&mut at, clock.clone());
        Self::over(home, store, server, clock, at).await
    }

    /// With an audit log: at the database, with these sinks.
    pub(crate) async fn open_audited(audit: AuditSettings, sinks: Vec<Arc<dyn AuditSink>>) -> Self {
        Self::open_as("https://broker.example", |at, _| at.audit = Some((audit, sinks))).await
    }

    /// With rate limits, by the test's clock.
    pub(crate) async fn open_limited(
        limits: RateLimits,
        shared: Option<Arc<dyn SharedBuckets>>,
        audited: bool,
    ) -> Self {
        Self::open_as("https://broker.example", |at, clock| {
            at.limits = Arc::new(Limits::new(limits, clock, shared));
            at.audit = audited.then(|| (AuditSettings::default(), vec![]));
        })
        .await
    }

    /// Where callers may use these bindings alone.
    pub(crate) async fn open_bound(bindings: &[ConsentBinding]) -> Self {
        Self::open_as("https://broker.example", |at, _| at.settings.bindings = bindings.to_vec()).await
    }

    /// Another replica at the same database and provider. The two share nothing else: no word of one reaches the other.
    pub(crate) async fn beside(&self) -> Self {
        let mut settings = settings("https://broker.example", &self.provider.base(), &self.clock);
        settings.watches.poll = Duration::from_millis(50);
        let (home, store) = (Arc::clone(&self.home), self.store.clone());
        let (server, clock) = (Arc::clone(&self.provider), Arc::clone(&self.clock));
        let opening = Opening::new(settings, Duration::from_secs(60), 2);
        let beside = Self::over(home, store, server, clock, opening).await;
        Self { cookies: Arc::clone(&self.cookies), ..beside }
    }

    async fn over(
        home: Arc<tempfile::TempDir>,
        store: SqliteStore,
        server: Arc<HostileServer>,
        clock: Arc<ManualClock>,
        opening: Opening,
    ) -> Self {
        let Opening { settings, max_deadline, replica, audit, limits } = opening;
        let database = home.path().join("broker.db");
        let faults = Arc::new(Faults::default());
        let tasks = TaskTracker::new();
        let vault = Arc::new(vault(&store, &clock));
        let mut ports = ports(&store, &server, &clock, &faults, &vault);
        let audit = audit.map(|(settings, sinks)| {
            let log = AuditLog::start(Arc::new(store.clone()), vault.clone(), sinks, clock.clone(), settings);
            ports.audit = log.clone();
            let keep = Some(Duration::from_secs(7 * 24 * 3600));
            let (store, log_port) = (Arc::new(store.clone()), log.clone());
            let archive = Arc::new(AuditArchive::new(store, vault.clone(), log_port, clock.clone(), keep));
            ports.audit_archive = Some(archive.clone());
            Audited { log, archive }
        });
        let broker = Broker::new(ports, settings, ClaimOwner::from_random([replica; 16]), tasks.clone());
        let mut serving = tokio::task::JoinSet::new();
        let grpc = serve_grpc(&mut serving, Arc::clone(&broker), max_deadline, limits).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let public = listener.local_addr().unwrap();
        let pages = http::public_router(Arc::clone(&broker));
        serving.spawn(async move { axum::serve(listener, pages).await.unwrap() });
        let browser = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
        let browser = browser.build().unwrap();
        Self {
            grpc,
            public,
            provider: server,
            clock,
            faults,
            tasks,
            broker: Arc::clone(&broker),
            audit,
            browser,
            cookies: Arc::default(),
            database,
            store,
            _serving: serving,
            home,
        }
    }

    /// A new connection to the gRPC door.
    pub(crate) async fn channel(&self) -> Channel {
        Endpoint::from_shared(format!("http://{}", self.grpc)).unwrap().connect().await.unwrap()
    }

    /// A client that presents this key.
    pub(crate) async fn client(&self, caller: &'static str) -> Client {
        TokenBrokerServiceClient::with_interceptor(self.channel().await, Present(caller))
    }

    /// Opens an address of the public door, as a browser does but without following anything.
    pub(crate) async fn browse(&self, path_and_query: &str) -> Page {
        self.browse_with(reqwest::Method::GET, path_and_query).await
    }

    /// With another method.
    pub(crate) async fn browse_with(&self, method: reqwest::Method, path_and_query: &str) -> Page {
        let url = format!("http://{}{path_and_query}", self.public);
        self.send(self.browser.request(method, url)).await
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Page {
        let cookies: Vec<String> =
            self.cookies().iter().map(|(name, value)| format!("{name}={value}")).collect();
        let request = if cookies.is_empty() { request } else { request.header("cookie", cookies.join("; ")) };
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        for set in headers.get_all("set-cookie") {
            let (name, rest) = set.to_str().unwrap().split_once('=').unwrap();
            let value = rest.split(';').next().unwrap();
            self.cookies().insert(name.to_owned(), value.to_owned());
        }
        Page { status, headers, html: response.text().await.unwrap() }
    }

    /// Begins a consent of a user to the service `files`, which the user's browser confirms; answers its id and its state.
    pub(crate) async fn begin(&self, caller: &'static str, provider: &str, user: &str) -> (String, String) {
        let flow = self.begin_with(caller, provider, user, ConsentOptions::default()).await;
        let state = self.confirm(&flow).await;
        (flow.flow_id, state)
    }

    /// Begins one; nobody opens its link.
    pub(crate) async fn begin_with(
        &self,
        caller: &'static str,
        provider: &str,
        user: &str,
        options: ConsentOptions,
    ) -> StartedFlow {
        let request = BeginOAuthRequest {
            provider: provider.to_owned(),
            user_id: user.to_owned(),
            services: vec!["files".to_owned()],
            options: Some(options),
            ..Default::default()
        };
        self.client(caller).await.begin_o_auth(request).await.unwrap().into_inner().flow.unwrap()
    }

    /// The browser opens the link and goes on to the provider; the `state` that it takes there.
    pub(crate) async fn confirm(&self, flow: &StartedFlow) -> String {
        state_in(&self.first_stop(flow).await)
    }

    /// The browser opens the link and submits the page's form; where that leads to.
    pub(crate) async fn first_stop(&self, flow: &StartedFlow) -> String {
        let link: url::Url = flow.authorization_url.parse().unwrap();
        let page = self.browse(link.path()).await;
        let shown = self.submit(link.path(), &page.form_token()).await;
        assert_eq!(shown.status, 303, "{}", shown.html);
        shown.headers["location"].to_str().unwrap().to_owned()
    }

    /// Sends the form of the page behind a link.
    pub(crate) async fn submit(&self, path: &str, token: &str) -> Page {
        let form = url::form_urlencoded::Serializer::new(String::new()).append_pair("token", token).finish();
        let url = format!("http://{}{path}", self.public);
        let request = self.browser.post(url).header("content-type", "application/x-www-form-urlencoded");
        self.send(request.body(form)).await
    }

    /// Another person's browser: without the cookies of the first one.
    pub(crate) fn forget_cookies(&self) {
        self.cookies.lock().unwrap().clear();
    }

    /// The browser's cookies, to be changed or kept for later.
    pub(crate) fn cookies(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, String>> {
        self.cookies.lock().unwrap()
    }

    /// The user consents; `at` and `rt` are the tokens. Answers the flow's id.
    pub(crate) async fn connect(&self, caller: &'static str, user: &str, at: &str, rt: &str) -> String {
        let (flow, state) = self.begin(caller, "hostile", user).await;
        self.provider.push(Reply::tokens(at, rt));
        self.provider.push_at(
            "/userinfo",
            Reply::json(200, &json!({ "sub": user, "email": format!("{user}@example.com") })),
        );
        let page = self.browse(&format!("/oauth/callback/hostile?code=code&state={state}")).await;
        assert_eq!(page.name(), "connected", "{}", page.html);
        flow
    }

    /// How a flow stands, and why.
    pub(crate) async fn flow(&self, id: &str) -> (FlowStatus, String) {
        let request = GetFlowRequest { flow_id: id.to_owned() };
        let flow = self.client(AGENT).await.get_flow(request).await.unwrap().into_inner().flow.unwrap();
        (flow.status(), flow.failure)
    }

    /// Everything that is stored, as text: to see that nothing changed.
    pub(crate) async fn rows(&self) -> String {
        super::dump::rows(&self.database).await
    }

    /// Waits for everything that runs in the background.
    pub(crate) async fn settle(&self) {
        self.tasks.close();
        self.tasks.wait().await;
        self.tasks.reopen();
    }
}

/// All bindings are allowed, *confirm* first; users `login|…` sign in at the hostile server's `/login`.
fn settings(public_base_url: &str, base: &str, clock: &Arc<ManualClock>) -> Settings {
    let mut issuer = provider::provider_at(base);
    issuer.id = ProviderId::new("login").unwrap();
    issuer.authorization.nonce = true;
    issuer.identity.id_token = true;
    issuer.identity.userinfo = None;
    if let EndpointSource::Literal(endpoints) = &mut issuer.endpoints {
        endpoints.issuer = Some(LOGIN_ISSUER.to_owned());
        endpoints.authorization = format!("{base}/login/authorize").parse().unwrap();
        endpoints.token = format!("{base}/login/token").parse().unwrap();
    }
    let scopes = provider::scopes("openid");
    let keys = IssuerSettings {
        who: Issuer::Named { name: "login".to_owned(), url: LOGIN_ISSUER.to_owned() },
        audiences: vec![provider::CLIENT_ID.to_owned()],
        algorithms: SigningAlgorithm::ALL.to_vec(),
        keys: KeyAccess {
            location: KeyLocation::Url(format!("{base}{LOGIN_KEYS}").parse().unwrap()),
            ca_file: None,
            bearer_token_file: None,
        },
        leeway: Duration::from_secs(60),
        max_lifetime: Duration::from_hours(24),
        for_callers: false,
        for_users: true,
    };
    let times = KeyTimes {
        refresh: Duration::from_secs(300),
        max_age: Duration::from_hours(1),
        unknown_key_pause: Duration::from_secs(10),
    };
    let http = Http::new(HttpSettings::default()).unwrap();
    let clock: Arc<dyn Clock> = Arc::clone(clock) as _;
    let tokens = Arc::new(JwtVerifier::new(vec![keys], times, &http, &clock));
    Settings {
        bindings: vec![ConsentBinding::Confirm, ConsentBinding::App, ConsentBinding::Login],
        login: Some(Login { name: "login".to_owned(), provider: Arc::new(issuer), scopes, tokens }),
        ..alone::settings(public_base_url)
    }
}

/// What the public door answered.
pub(crate) struct Page {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) html: String,
}

/// The `state` in a provider's URL.
pub(crate) fn state_in(url: &str) -> String {
    let url: url::Url = url.parse().unwrap();
    url.query_pairs().find(|(name, _)| name == "state").unwrap().1.into_owned()
}

impl Page {
    /// The token in the form of the page behind a link.
    pub(crate) fn form_token(&self) -> String {
        let (_, rest) = self.html.split_once("name=\"token\" value=\"").expect(&self.html);
        rest.split_once('"').unwrap().0.to_owned()
    }

    /// Which page it is.
    pub(crate) fn name(&self) -> &str {
        let marked = self.html.split_once("data-page=\"").map(|(_, rest)| rest);
        marked.and_then(|rest| rest.split_once('"')).map_or("", |(name, _)| name)
    }
}

/// The key of a user's service `files`.
pub(crate) fn files(provider: &str, user: &str) -> CredentialKey {
    CredentialKey {
        provider: provider.to_owned(),
        user_id: user.to_owned(),
        service: "files".to_owned(),
        account: String::new(),
    }
}

/// Speaks for one caller.
pub(crate) type Client =
    TokenBrokerServiceClient<tonic::service::interceptor::InterceptedService<Channel, Present>>;

/// Adds a caller's key, and always the same request id, so that replies can be compared.
#[derive(Clone, Copy)]
pub(crate) struct Present(&'static str);

impl tonic::service::Interceptor for Present {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, tonic::Status> {
        request.metadata_mut().insert("authorization", bearer(self.0));
        request.metadata_mut().insert("x-request-id", MetadataValue::from_static("test"));
        Ok(request)
    }
}

/// The metadata entry of a caller.
pub(crate) fn bearer(caller: &str) -> MetadataValue<tonic::metadata::Ascii> {
    format!("Bearer {}", key(caller)).parse().unwrap()
}

async fn serve_grpc(
    serving: &mut tokio::task::JoinSet<()>,
    broker: Arc<Broker>,
    max_deadline: Duration,
    limits: Arc<Limits>,
) -> SocketAddr {
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status(SERVICE, tonic_health::ServingStatus::Serving).await;
    let options = grpc::GrpcOptions { max_deadline, limits, ..grpc::GrpcOptions::default() };
    let router = grpc::router(broker, keys(), Arc::new(callers()), &SystemEntropy, health, options);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    serving.spawn(async move { router.serve_with_incoming(incoming).await.unwrap() });
    address
}

fn vault(store: &SqliteStore, clock: &Arc<ManualClock>) -> Vault {
    let key = KeyEncryptionKey::new("k1", SecretBytes::new(vec![7; 32])).unwrap();
    let keyring = Keyring::new(vec![key], "k1").unwrap();
    Vault::new(keyring, Arc::new(store.clone()), Arc::new(SystemEntropy), clock.clone())
}

/// Key use cases over an empty database in memory.
fn keys() -> Arc<Keys> {
    let store = Arc::new(MemoryStore::default());
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new());
    let kek = KeyEncryptionKey::new("k", SecretBytes::new((1..33).collect())).unwrap();
    let keyring = Keyring::new(vec![kek], "k").unwrap();
    let vault = Vault::new(keyring, store.clone(), Arc::new(SystemEntropy), Arc::clone(&clock));
    let ports = KeyPorts { clock, keeper: Arc::new(vault), data_keys: store.clone(), rows: store };
    let settings = KeySettings { rows_per_second: 1000, retire_after: Duration::from_hours(25) };
    Arc::new(Keys::new(ports, settings, ClaimOwner::from_bytes([1; 16])))
}

fn ports(
    store: &SqliteStore,
    server: &HostileServer,
    clock: &Arc<ManualClock>,
    faults: &Arc<Faults>,
    vault: &Arc<Vault>,
) -> Ports {
    let clock: Arc<dyn Clock> = Arc::clone(clock) as _;
    let entropy = Arc::new(SystemEntropy);
    Ports {
        audit: Arc::new(NoAudit),
        audit_archive: None,
        entropy,
        credentials: Arc::new(FaultyStore { inner: Arc::new(store.clone()), faults: Arc::clone(faults) }),
        flows: Arc::new(FaultyFlows { inner: Arc::new(store.clone()), faults: Arc::clone(faults) }),
        outbox: Arc::new(store.clone()),
        cipher: vault.clone(),
        oauth: Arc::new(
            HttpOAuthClient::new(HttpSettings::default(), Arc::clone(&clock), Arc::new(SystemEntropy))
                .unwrap(),
        ),
        providers: Arc::new(ConfiguredProviders::of(providers(&server.base()))),
        permits: Arc::new(LocalPermits::new(Arc::clone(&clock))),
        journal: Arc::new(MemoryJournal::default()),
        wakeups: alone::wakeups(),
        leases: alone::leases(Arc::clone(&clock)),
        steps: Arc::new(NoSteps),
        events: Arc::new(store.clone()),
        callers: Arc::new(store.clone()),
        tenants: Arc::new(store.clone()),
        provider_configs: Arc::new(store.clone()),
        clock,
    }
}

/// `hostile` and `other` without an issuer; `issuer` that may send `iss`, `promises` that must.
fn providers(base: &str) -> Vec<Arc<Provider>> {
    let one = |id: &str, issuer: Option<&str>, iss_required: bool| {
        let mut provider = provider::provider_at(base);
        provider.id = ProviderId::new(id).unwrap();
        if let EndpointSource::Literal(endpoints) = &mut provider.endpoints {
            endpoints.issuer = issuer.map(str::to_owned);
            endpoints.iss_required = iss_required;
        }
        Arc::new(provider)
    };
    vec![
        one("hostile", None, false),
        one("issuer", Some(ISSUER), false),
        one("other", None, false),
        one("promises", Some(ISSUER), true),
    ]
}

fn identity_of(key: &str) -> Identity {
    Identity::of_api_key(&SecretString::from(key)).unwrap()
}

fn callers() -> Callers {
    let one = |padded: &str, id: &str, tenant: &str, rules: Vec<Rule>| {
        let caller = Caller::new(CallerId::new(id).unwrap(), TenantId::new(tenant).unwrap(), rules);
        (identity_of(&key(padded)), Arc::new(caller))
    };
    let bobs = Rule {
        providers: Allowed::Only([ProviderId::new("hostile").unwrap()].into()),
        users: Allowed::Only([UserRule::Exact(UserId::new("bob").unwrap())].into()),
        ..Rule::everything()
    };
    let reader = Rule { actions: Allowed::Only([Action::GetCredential].into()), ..Rule::everything() };
    let suspended = |padded: &str, id: &str, tenant: &str, why: Suspension| {
        let (identity, caller) = one(padded, id, tenant, vec![Rule::everything()]);
        (identity, Arc::new(Caller { suspension: Some(why), ..Caller::clone(&caller) }))
    };
    Callers(HashMap::from([
        one(READER, "reader", "tenant-a", vec![reader]),
        suspended(DISABLED, "disabled", "tenant-a", Suspension::Caller),
        suspended(OF_DISABLED, "of-disabled", "tenant-c", Suspension::Tenant),
        one(AGENT, "agent", "tenant-a", vec![Rule::everything()]),
        one(RIVAL, "rival", "tenant-b", vec![Rule::everything()]),
        one(BOBS, "bobs", "tenant-a", vec![bobs]),
        one(POWERLESS, "powerless", "tenant-a", vec![]),
    ]))
}
