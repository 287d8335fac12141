//! The composition root: binds the listeners and puts the broker together. `outside.rs` names the engines behind the ports.

mod audit;
mod callers;
mod database;
mod grpc;
mod identity;
mod keys;
mod login;
mod outside;
mod providers;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use url::Url;

use crate::application::{Broker, LeaseSettings, Login, Settings, WatchSettings};
use crate::config::{self, Config};
use crate::domain::coordination::PermitStore;
use crate::domain::ports::{Clock, CredentialStore, Entropy, OAuthClient, StoreError};
use crate::domain::provider::TimingLimits;
use crate::domain::step::Steps;
use crate::infra::audit::FileSinkError;
use crate::infra::coordination::redis::RedisSetupError;
use crate::infra::crypto::services::KeyServiceSetupError;
use crate::infra::crypto::{KeyringError, VaultError};
use crate::infra::journal;
use crate::infra::jwt::FetchProblem;
use crate::infra::oauth::HttpOAuthClient;
use crate::infra::outbound::{Guard, Http, HttpSettings, HttpSetupError};
use crate::infra::providers::{DefinitionError, RegistrationError};
use crate::infra::storage::{postgres, sqlite};
use crate::infra::tls::TlsError;
pub(crate) use database::Database;
use outside::Outside;
pub(crate) use outside::postgres_settings;
pub(crate) use providers::{catalogue, providers};

use crate::lifecycle::{self, Parts, Readiness, Running};
use crate::telemetry::metrics::{self, MetricsError};
use crate::transport::http::{self, Limits, OperationsState};
use crate::transport::{ForwardedBy, Proxies};

/// Puts a wrapper around the credential store.
pub type WrapCredentials = Box<dyn FnOnce(Arc<dyn CredentialStore>) -> Arc<dyn CredentialStore> + Send>;

/// Puts a wrapper around the permit store.
pub type WrapPermits = Box<dyn FnOnce(Arc<dyn PermitStore>) -> Arc<dyn PermitStore> + Send>;

/// What tests put in place of the real thing.
#[derive(Default)]
pub struct Overrides {
    /// Time.
    pub clock: Option<Arc<dyn Clock>>,
    /// Randomness.
    pub entropy: Option<Arc<dyn Entropy>>,
    /// The way to providers.
    pub oauth: Option<Arc<dyn OAuthClient>>,
    /// Around the credential store.
    pub wrap_credentials: Option<WrapCredentials>,
    /// Around the permit store.
    pub wrap_permits: Option<WrapPermits>,
    /// Hears of the refresh protocol's steps.
    pub steps: Option<Arc<dyn Steps>>,
}

/// Why the broker does not start. Each says what to change.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address is taken, or not this machine's.
    #[error("cannot listen on {address} ({key}): {source}")]
    Bind {
        /// The configuration's key.
        key: &'static str,
        /// Where to.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// The database can't be opened.
    #[error(transparent)]
    Store(#[from] sqlite::OpenError),
    /// The database can't be opened.
    #[error(transparent)]
    Postgres(#[from] postgres::OpenError),
    /// Another replica serves from this database, and there is no Redis between the two.
    #[error(transparent)]
    Company(#[from] postgres::CompanyError),
    /// The settings of Redis can't be used.
    #[error(transparent)]
    Redis(#[from] RedisSetupError),
    /// The database can't be used.
    #[error("the database cannot be used: {}", with_causes(.0))]
    StoreUse(#[from] StoreError),
    /// Key-encryption keys that can't be used.
    #[error("vault: {0}")]
    Keyring(#[from] KeyringError),
    /// A key service that can't be used as it is configured.
    #[error("vault.keys.{id}: {source}")]
    KeyService {
        /// Which key.
        id: String,
        /// Why not.
        source: KeyServiceSetupError,
    },
    /// Key-encryption keys that are not those of the database.
    #[error("vault: {0}")]
    Vault(#[from] VaultError),
    /// Provider definitions with mistakes.
    #[error("provider definitions have mistakes:{}", lines(.0))]
    Definitions(Vec<DefinitionError>),
    /// Providers with mistakes.
    #[error("configured providers have mistakes:{}", lines(.0))]
    Registrations(Vec<RegistrationError>),
    /// The journal can't be opened.
    #[error(transparent)]
    Journal(#[from] journal::OpenError),
    /// The audit log's file can't be used.
    #[error(transparent)]
    AuditFile(#[from] FileSinkError),
    /// The audit log's thread for standard output could not be started.
    #[error("audit.stdout: {0}")]
    AuditStdout(std::io::Error),
    /// The HTTP client.
    #[error(transparent)]
    Http(#[from] HttpSetupError),
    /// The files of TLS.
    #[error("grpc.tls_certificate_file, grpc.tls_key_file, spiffe.trust_domains: {0}")]
    Tls(#[from] TlsError),
    /// A file with an issuer's keys.
    #[error("{}: {problem} (issuers.*.jwks_file, spiffe.trust_domains.*.jwt_bundle_file)", path.display())]
    Keys {
        /// Which.
        path: PathBuf,
        /// Why.
        problem: FetchProblem,
    },
    /// The built-in definition of an OpenID issuer is missing.
    #[error("login: the built-in definition of an OpenID issuer cannot be used")]
    NoLogin,
    /// `public.base_url` is needed.
    #[error("public.base_url is required: it cannot be made of the listener's address")]
    NoBaseUrl,
    /// A caller of the configuration that the database has, too.
    #[error(
        "callers.{id}: there is a caller of this id in the database (`token-broker callers delete {id}` ends that one)"
    )]
    CallerTwice {
        /// Its id.
        id: String,
    },
    /// An identity of the configuration that the database has, too.
    #[error(
        "callers.{id}.{list}: one is also that of a caller of the database: an identity belongs to one caller \
         (`token-broker callers list --stored` shows whose, started without this one)"
    )]
    IdentityTwice {
        /// The configured caller's id.
        id: String,
        /// The key.
        list: &'static str,
    },
    /// Metrics.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
}

fn lines<T: ToString>(errors: &[T]) -> String {
    errors.iter().fold(String::new(), |text, error| text + "\n  " + &error.to_string())
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Orchestrators and scrapers are few.
const OPERATIONS_CONNECTIONS: usize = 64;

/// Opens the database, checks the keys, reads the providers, binds the listeners, serves.
pub async fn start(config: Config, overrides: Overrides) -> Result<Running, StartError> {
    // One crypto provider for everything; a second start in this process finds it there.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let metrics = metrics::install()?;
    warn_of_risks(&config);

    identity::check_key_files(&config)?;
    let tls = identity::tls(&config)?;
    let Outside { database, ports, audit, keys, limits, owner, former, dead } =
        outside::open(&config, overrides).await?;
    let listeners = Listeners::bind(&config).await?;
    let tasks = TaskTracker::new();
    let entropy = Arc::clone(&ports.entropy);
    let permits = Arc::clone(&ports.permits);
    let clock = Arc::clone(&ports.clock);
    let outbound = Http::new(http_settings(&config))?;
    let tokens = identity::tokens(&config, &outbound, &clock);
    callers::refuse_shared(&config.callers, ports.callers.as_ref()).await?;
    let callers = callers::directory(&config, &ports);
    let settings = settings(&config, listeners.public.1, &outbound, &clock)?;
    let broker = Broker::new(ports, settings, owner, tasks.clone());

    // Before anybody can ask for a token.
    broker.begin_replay();
    let (stop, stop_operations) = (CancellationToken::new(), CancellationToken::new());
    let (reporter, health) = tonic_health::server::health_reporter();
    let (ready, ready_receiver) = watch::channel(false);
    let readiness = Readiness { reporter, ready };
    readiness.set(false).await;
    let door = grpc::Door {
        broker: Arc::clone(&broker),
        callers,
        keys: Arc::clone(&keys),
        entropy,
        health,
        settings: config.grpc.clone(),
        tokens: tokens.map(|tokens| tokens as _),
        tls: tls
            .clone()
            .map(|tls| identity::incoming_tls(tls, clock, &limits, proxies(&config.grpc.proxies))),
        tasks: tasks.clone(),
        stop: stop.clone(),
        limits: Arc::clone(&limits),
    };
    let health_of_store = database.health();
    let upkeep = metrics.clone();
    let operations_router = http::operations_router(OperationsState {
        ready: ready_receiver,
        store: Arc::clone(&health_of_store),
        metrics: Arc::new(move || metrics.render()),
    });

    let [grpc_addr, public_addr, operations_addr] = listeners.addresses();
    let admin_addr = listeners.admin.as_ref().map(|(_, address)| *address);
    let mut servers = door.open(listeners.grpc.0, listeners.admin.map(|(listener, _)| listener));
    let pages = http::limited_public_router(Arc::clone(&broker), limits, proxies(&config.public.proxies))
        .layer(middleware::from_fn_with_state(tasks.clone(), count_under_way));
    let limits = Limits { connections: config.public.max_connections, ..Limits::default() };
    let public = http::serve("public", listeners.public.0, pages, limits, stop.clone());
    let limits = Limits { connections: OPERATIONS_CONNECTIONS, ..Limits::default() };
    let operations =
        http::serve("operations", listeners.operations.0, operations_router, limits, stop_operations.clone());
    servers.extend([
        tokio::spawn(public),
        tokio::spawn(lifecycle::sweep(Arc::clone(&broker), stop.clone())),
        tokio::spawn(lifecycle::refresh_ahead(Arc::clone(&broker), stop.clone())),
        tokio::spawn(lifecycle::replay(broker, former, dead, stop.clone())),
        tokio::spawn(lifecycle::watch_permits(permits, stop.clone())),
        tokio::spawn(lifecycle::prune_audit(audit.archive, stop.clone())),
        tokio::spawn(lifecycle::follow_keys(Arc::clone(&keys), stop.clone())),
        tokio::spawn(lifecycle::move_rows(keys, stop.clone())),
    ]);
    if let Some(tls) = tls {
        servers.push(tokio::spawn(identity::reload(tls, config.grpc.tls_reload, stop.clone())));
    }
    let operations = tokio::spawn(operations);
    readiness.set(true).await;
    let watcher =
        tokio::spawn(lifecycle::watch_store(health_of_store, readiness.clone(), move || upkeep.run_upkeep()));
    tracing::info!(grpc = %grpc_addr, public = %public_addr, operations = %operations_addr, "listening");

    let config::Shutdown { announce, drain } = config.shutdown;
    let parts = Parts {
        readiness,
        stop,
        stop_operations,
        watcher,
        servers,
        operations,
        tasks,
        audit: audit.log,
        database,
        announce,
        drain,
    };
    Ok(Running { grpc_addr, admin_addr, public_addr, operations_addr, parts })
}

/// Sockets with the addresses they got.
struct Listeners {
    grpc: (TcpListener, SocketAddr),
    admin: Option<(TcpListener, SocketAddr)>,
    public: (TcpListener, SocketAddr),
    operations: (TcpListener, SocketAddr),
}

impl Listeners {
    async fn bind(config: &Config) -> Result<Self, StartError> {
        Ok(Self {
            grpc: bind("grpc.listen", config.grpc.listen).await?,
            admin: match config.admin.listen {
                Some(address) => Some(bind("admin.listen", address).await?),
                None => None,
            },
            public: bind("public.listen", config.public.listen).await?,
            operations: bind("operations.listen", config.operations.listen).await?,
        })
    }

    fn addresses(&self) -> [SocketAddr; 3] {
        [self.grpc.1, self.public.1, self.operations.1]
    }
}

async fn bind(key: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |source| StartError::Bind { key, address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// Shutdown waits for requests under way, not for connections: browsers keep those open for nothing.
async fn count_under_way(State(tasks): State<TaskTracker>, request: Request, next: Next) -> Response {
    let _under_way = tasks.token();
    next.run(request).await
}

fn warn_of_risks(config: &Config) {
    if config.callers.is_empty() {
        tracing::warn!(
            "no callers are configured: only those of the database can call (`token-broker callers new`)"
        );
    }
    if config.providers.is_empty() {
        tracing::warn!("no providers are configured: there is nothing to connect to");
    }
    if config.grpc.tls.is_none() && !config.grpc.listen.ip().is_loopback() {
        tracing::warn!(
            "gRPC without TLS on a public address: API keys and tokens cross the network in the clear unless a proxy in front speaks TLS"
        );
    }
    if !config.operations.listen.ip().is_loopback() {
        tracing::warn!("the operations listener is on a public address: keep it inside the cluster");
    }
}

/// Whether the providers and keys of a configuration can be used; opens nothing.
pub fn check(config: &Config) -> Result<(), StartError> {
    providers(config)?;
    config.login.as_ref().map(login::provider).transpose()?;
    keys::check(config)?;
    identity::tls(config)?;
    identity::check_key_files(config)?;
    Ok(())
}

/// What everything that goes out by HTTP keeps to.
fn http_settings(config: &Config) -> HttpSettings {
    let outbound = &config.outbound;
    HttpSettings {
        connect_timeout: config.oauth.connect_timeout,
        total_timeout: config.oauth.request_timeout,
        max_body_bytes: outbound.max_response_bytes,
        guard: Arc::new(Guard {
            hosts: outbound.private_hosts.clone(),
            networks: outbound.private_networks.clone(),
        }),
        authorities: outbound.authorities.clone(),
        ..HttpSettings::default()
    }
}

fn oauth_client(
    config: &Config,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
) -> Result<Arc<dyn OAuthClient>, HttpSetupError> {
    Ok(Arc::new(HttpOAuthClient::new(http_settings(config), clock, entropy)?))
}

fn settings(
    config: &Config,
    public_addr: SocketAddr,
    http: &Http,
    clock: &Arc<dyn Clock>,
) -> Result<Settings, StartError> {
    let public_base_url = match &config.public.base_url {
        Some(url) => url.clone(),
        None => Url::parse(&format!("http://{public_addr}")).map_err(|_| StartError::NoBaseUrl)?,
    };
    Ok(Settings {
        public_base_url,
        return_urls: config.public.return_urls.clone(),
        refresh_ahead: config.oauth.refresh_ahead,
        flow_lifetime: config.oauth.flow_lifetime,
        max_wait: config.oauth.max_wait,
        active_window: config.oauth.active_window,
        provider_concurrency: config.oauth.provider_concurrency,
        timings: timing_limits(config),
        leases: LeaseSettings { default_ttl: config.leases.default_ttl, max_ttl: config.leases.max_ttl },
        watches: watches(config),
        configured_callers: callers::for_operators(&config.callers),
        bindings: config.consent.bindings.clone(),
        login: login(config, http, clock)?,
    })
}

fn login(config: &Config, http: &Http, clock: &Arc<dyn Clock>) -> Result<Option<Login>, StartError> {
    let Some(login) = &config.login else { return Ok(None) };
    login::login(login, identity::key_times(config), http, clock).map(Some)
}

/// As often as the directory looks at a caller that calls all the time; never so often that streams wear the database out.
const LEAST_RECHECK: Duration = Duration::from_secs(1);

fn watches(config: &Config) -> WatchSettings {
    WatchSettings {
        per_caller: config.grpc.max_watches_per_caller,
        recheck: (config.authentication.cache_ttl / 2).max(LEAST_RECHECK),
        ..WatchSettings::default()
    }
}

fn proxies(of: &config::TrustedProxies) -> Proxies {
    let header = match of.header {
        config::ClientAddressHeader::XForwardedFor => ForwardedBy::XForwardedFor,
        config::ClientAddressHeader::Forwarded => ForwardedBy::Forwarded,
        config::ClientAddressHeader::None => ForwardedBy::Nothing,
    };
    Proxies { trusted: of.networks.clone(), header }
}

fn timing_limits(config: &Config) -> TimingLimits {
    TimingLimits { http_deadline: config.oauth.request_timeout, strict_settle: config.oauth.strict_settle }
}
