//! The configuration: defaults < file < environment, validated whole.
//!
//! One file for each section; `default.toml` documents every key and holds its default. Whoever adds a key writes it in
//! both places; a test compares them.

mod admin;
mod audit;
mod authentication;
mod callers;
mod consent;
mod environment;
mod grpc;
mod issuers;
mod journal;
mod leases;
mod limits;
mod log;
mod login;
mod oauth;
mod operations;
mod outbound;
mod problem;
mod provider_definitions;
mod providers;
mod public;
mod reader;
mod redis;
mod replicas;
mod rules;
mod secret;
mod show;
mod shutdown;
mod spiffe;
mod storage;
mod tree;
mod trusted_proxies;
mod values;
mod vault;
mod vault_services;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

pub use self::redis::{Redis, RedisLogin};
pub use admin::Admin;
pub use audit::{Audit, AuditFile};
pub use authentication::Authentication;
pub use callers::CallerEntry;
pub use consent::Consent;
pub use environment::{Environment, PREFIX};
pub use grpc::{Grpc, TlsFiles};
pub use issuers::{IssuerEntry, Jwt, KeyPlace};
pub use journal::Journal;
pub use leases::Leases;
pub use log::{Log, LogFormat};
pub use login::Login;
pub use oauth::OAuth;
pub use operations::Operations;
pub use outbound::Outbound;
pub use problem::{ConfigErrors, Problem};
pub use providers::{PrivateKeyEntry, ProviderEntry};
pub use public::Public;
pub use replicas::Replicas;
pub use show::Setting;
pub use shutdown::Shutdown;
pub use spiffe::{JwtBundle, TrustDomainEntry};
pub use storage::{Postgres, Storage};
pub use trusted_proxies::{ClientAddressHeader, TrustedProxies};
pub use values::duration as parse_duration;
pub use vault::{Vault, VaultKey, VaultKeyKind};
pub use vault_services::{AwsEnvironment, AwsKms, GcpKms, Transit, TransitAuth};

use crate::domain::access_policy::Identity;
use crate::domain::rate_limit::RateLimits;
use crate::domain::spiffe::SpiffeId;
use problem::Problems;
use reader::{Context, Section};
use tree::{Origin, Source, Table};

/// The commented default file: every key, its meaning, its default.
pub const DEFAULT_FILE: &str = include_str!("default.toml");

/// The configuration, complete and valid. Its `Debug` shows no secret.
#[derive(Debug, Clone)]
pub struct Config {
    /// The listener for callers.
    pub grpc: Grpc,
    /// The listener for operators' tools.
    pub admin: Admin,
    /// The listener for browsers.
    pub public: Public,
    /// The listener for orchestrators.
    pub operations: Operations,
    /// The database.
    pub storage: Storage,
    /// How many may serve.
    pub replicas: Replicas,
    /// The local copy of new tokens.
    pub journal: Journal,
    /// What replicas share; `None`: the broker is alone.
    pub redis: Option<Redis>,
    /// The key-encryption keys.
    pub vault: Vault,
    /// Times.
    pub oauth: OAuth,
    /// Calls by HTTP.
    pub outbound: Outbound,
    /// How browsers are proved to be their users'.
    pub consent: Consent,
    /// Where users sign in, if anywhere.
    pub login: Option<Login>,
    /// How long leases stand.
    pub leases: Leases,
    /// Files with definitions beside the built-in ones.
    pub provider_definitions: Vec<PathBuf>,
    /// What users can connect to, sorted by id.
    pub providers: Vec<ProviderEntry>,
    /// Who may call, sorted by id.
    pub callers: Vec<CallerEntry>,
    /// Whose JWTs are accepted, sorted by name.
    pub issuers: Vec<IssuerEntry>,
    /// How long issuers' keys are kept.
    pub jwt: Jwt,
    /// Whose workloads are, sorted by trust domain.
    pub trust_domains: Vec<TrustDomainEntry>,
    /// How callers are authenticated.
    pub authentication: Authentication,
    /// Who may ask how often.
    pub limits: RateLimits,
    /// The log of decisions.
    pub audit: Audit,
    /// Logs.
    pub log: Log,
    /// The end.
    pub shutdown: Shutdown,
    /// Every setting in effect and where it is from, secrets masked.
    pub settings: Vec<Setting>,
}

impl Config {
    /// Reads the defaults, the file if there is one, and the overrides in the environment.
    pub fn load(file: Option<&Path>, environment: &Environment) -> Result<Self, ConfigErrors> {
        let Some(path) = file else { return Self::parse(None, environment) };
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigErrors::Unreadable { path: path.to_owned(), source })?;
        let text = zeroize::Zeroizing::new(text);
        Self::parse(Some((path, &text)), environment)
    }

    /// The same from the text of a file, with its path for messages and for relative paths in it.
    pub fn parse(file: Option<(&Path, &str)>, environment: &Environment) -> Result<Self, ConfigErrors> {
        let table = merged(file, environment)?;
        let problems = Problems::default();
        let base = tree::base_directory(file.map(|(path, _)| path));
        let config = {
            let context = Context { problems: &problems, base: &base, environment };
            read(&Section::root(&context, &table), &context).map(|sections| sections.with(&table))
        };
        for (name, message) in environment.mistaken_overrides(&problems.schema()) {
            let origin = Origin::Environment { name: name.to_owned() };
            problems.add("", Some(&origin), message);
        }
        match (config, problems.into_list()) {
            (Some(config), problems) if problems.is_empty() => Ok(config),
            (_, problems) => Err(ConfigErrors::Invalid(problems)),
        }
    }
}

fn merged(file: Option<(&Path, &str)>, environment: &Environment) -> Result<Table, ConfigErrors> {
    let mut table = tree::parse(DEFAULT_FILE, &Source::Default).map_err(ConfigErrors::Invalid)?;
    if let Some((path, text)) = file {
        let upper = tree::parse(text, &Source::File(path)).map_err(ConfigErrors::Invalid)?;
        tree::overlay(&mut table, upper);
    }
    for (segments, name, value) in environment.overrides() {
        tree::set_from_environment(&mut table, &segments, name, value);
    }
    Ok(table)
}

/// Reads every section before it gives up on any.
fn read(root: &Section<'_>, context: &Context<'_>) -> Option<Config> {
    let grpc = grpc::read(&root.section("grpc"));
    let admin = admin::read(&root.section("admin"));
    let public = public::read(&root.section("public"));
    let operations = operations::read(&root.section("operations"));
    let storage = storage::read(&root.section("storage"));
    let replicas = replicas::read(&root.section("replicas"));
    let journal = journal::read(&root.section("journal"));
    let redis = self::redis::read(&root.section("redis"));
    let vault = vault::read(&root.section("vault"));
    let oauth = oauth::read(&root.section("oauth"));
    let outbound = outbound::read(&root.section("outbound"));
    let login = login::read(&root.section("login"));
    let consent = consent::read(&root.section("consent"), login.as_ref().and_then(Option::as_ref));
    let leases = leases::read(&root.section("leases"));
    let definitions = provider_definitions::read(&root.section("provider_definitions"), context.base);
    let providers = providers::read(&root.section("providers"));
    let callers = callers::read(&root.section("callers"));
    let issuers = issuers::read(&root.section("issuers"));
    let jwt = issuers::read_jwt(&root.section("jwt"));
    let trust_domains = spiffe::read(&root.section("spiffe"), grpc.as_ref());
    let authentication = authentication::read(&root.section("authentication"));
    let limits = limits::read(&root.section("limits"));
    let audit = audit::read(&root.section("audit"));
    let log = log::read(&root.section("log"));
    let shutdown = shutdown::read(&root.section("shutdown"), oauth.as_ref());
    if let Some(grpc) = &grpc
        && grpc.client_certificate_required
        && trust_domains.as_ref().is_some_and(|all| all.iter().all(|entry| entry.bundle_file.is_none()))
    {
        context.problems.add(
            "grpc.tls_client_certificates",
            None,
            "cannot be \"required\" without a bundle_file in spiffe.trust_domains: nobody could connect",
        );
    }
    if let (Some(callers), Some(issuers), Some(domains)) = (&callers, &issuers, &trust_domains) {
        unknown_identities(callers, issuers, domains, context.problems);
    }
    root.finish();
    Some(Config {
        grpc: grpc?,
        admin: admin?,
        public: public?,
        operations: operations?,
        storage: storage?,
        replicas: replicas?,
        journal: journal?,
        redis: redis?,
        vault: vault?,
        oauth: oauth?,
        outbound: outbound?,
        consent: consent?,
        login: login?,
        leases: leases?,
        provider_definitions: definitions?,
        providers: providers?,
        callers: callers?,
        issuers: issuers?,
        jwt: jwt?,
        trust_domains: trust_domains?,
        authentication: authentication?,
        limits: limits?,
        audit: audit?,
        log: log?,
        shutdown: shutdown?,
        settings: Vec::new(),
    })
}

/// A caller that nobody can ever be is a mistake in a name.
fn unknown_identities(
    callers: &[CallerEntry],
    issuers: &[IssuerEntry],
    domains: &[TrustDomainEntry],
    problems: &Problems,
) {
    for entry in callers {
        let known = |identity: &Identity| match identity {
            Identity::ApiKey(_) => true,
            Identity::SpiffeId(id) => SpiffeId::parse(id)
                .is_ok_and(|id| domains.iter().any(|domain| domain.domain == *id.trust_domain())),
            Identity::Subject { issuer, .. } => {
                issuers.iter().any(|known| known.for_callers && known.issuer == *issuer)
            }
        };
        if !entry.identities.iter().all(known) {
            problems.add(
                &format!("callers.{}", entry.caller.id),
                None,
                "names a trust domain that is not in spiffe.trust_domains, or an issuer that is not in issuers for callers",
            );
        }
    }
}

impl Config {
    fn with(mut self, table: &Table) -> Self {
        self.settings = show::settings(table);
        self
    }
}
