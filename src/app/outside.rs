//! What is behind the ports: the one file that names SQLite, Postgres, Redis and reqwest.

use std::sync::Arc;

use super::audit::{self, Audit};
use super::database::Database;
use super::providers::{catalogue_and_providers, own_app_check};
use super::{Overrides, StartError, keys, oauth_client};
use crate::application::Ports;
use crate::application::keys::{KeyPorts, Keys};
use crate::application::limits::Limits;
use crate::config::{self, Config};
use crate::domain::coordination::{LeaseStore, PermitStore, Wakeups};
use crate::domain::key::ClaimOwner;
use crate::domain::ports::{Clock, DeadOwners};
use crate::domain::rate_limit::SharedBuckets;
use crate::domain::step::NoSteps;
use crate::infra::coordination::local::{LocalLeases, LocalPermits, LocalWakeups};
use crate::infra::coordination::redis::{
    RedisCoordination, RedisLogin, RedisSettings, RedisTls, RedisTlsClient,
};
use crate::infra::crypto::Vault;
use crate::infra::journal::{FileJournal, Former};
use crate::infra::providers::TenantProviders;
use crate::infra::storage::postgres::{DatabaseClock, PgSettings, PgStore, RowClock};
use crate::infra::storage::sqlite::SqliteStore;
use crate::infra::system::{SystemClock, SystemEntropy};

/// Everything behind the ports.
pub(super) struct Outside {
    pub(super) database: Database,
    pub(super) ports: Ports,
    pub(super) audit: Audit,
    pub(super) limits: Arc<Limits>,
    pub(super) keys: Arc<Keys>,
    pub(super) owner: ClaimOwner,
    pub(super) former: Vec<Former>,
    /// Who else is provably dead.
    pub(super) dead: Option<DeadOwners>,
}

pub(super) async fn open(config: &Config, overrides: Overrides) -> Result<Outside, StartError> {
    // What only reads comes first, so that a mistake there leaves no new database behind.
    let providers = catalogue_and_providers(config)?;
    let local = overrides.clock.unwrap_or_else(|| Arc::new(SystemClock));
    let keyring = keys::keyring(config, &local)?;
    let entropy = overrides.entropy.unwrap_or_else(|| Arc::new(SystemEntropy));
    let oauth = match overrides.oauth {
        Some(oauth) => oauth,
        None => oauth_client(config, Arc::clone(&local), Arc::clone(&entropy))?,
    };
    let coordination = coordination(config, &local).await?;

    let (database, clock) = database(config, local).await?;
    let roles = database.roles();
    let data_keys = Arc::clone(&roles.data_keys);
    let vault = Vault::new(keyring, roles.data_keys, Arc::clone(&entropy), Arc::clone(&clock));
    vault.check().await?;
    let vault = Arc::new(vault);
    let mut owner = [0; 16];
    entropy.fill(&mut owner);
    let owner = ClaimOwner::from_random(owner);
    let (journal, former) = FileJournal::open(&config.journal.directory, owner, Arc::clone(&clock))?;
    // The lock on an embedded database shows that every other owner is dead; of a server's, journals tell.
    let dead = matches!(database, Database::Sqlite(_)).then_some(DeadOwners::AllBut(owner));
    let limits = Limits::new(config.limits, Arc::clone(&clock), coordination.buckets);
    let audit = audit::start(&config.audit, roles.audit, vault.clone(), Arc::clone(&clock))?;
    let key_ports =
        KeyPorts { clock: Arc::clone(&clock), keeper: vault.clone(), data_keys, rows: roles.reencryption };
    let keys = Arc::new(Keys::new(key_ports, keys::settings(config), owner));
    let providers = TenantProviders::new(
        providers,
        Arc::clone(&roles.provider_configs),
        vault.clone(),
        Arc::clone(&clock),
        own_app_check(config),
        config.authentication.cache_ttl,
    );
    let ports = Ports {
        audit: audit.log.clone(),
        audit_archive: Some(Arc::clone(&audit.archive)),
        clock,
        entropy,
        credentials: match overrides.wrap_credentials {
            Some(wrap) => wrap(roles.credentials),
            None => roles.credentials,
        },
        flows: roles.flows,
        outbox: roles.outbox,
        events: roles.events,
        callers: roles.callers,
        tenants: roles.tenants,
        provider_configs: roles.provider_configs,
        cipher: vault.clone(),
        oauth,
        providers: Arc::new(providers),
        permits: match overrides.wrap_permits {
            Some(wrap) => wrap(coordination.permits),
            None => coordination.permits,
        },
        journal,
        wakeups: coordination.wakeups,
        leases: coordination.leases,
        steps: overrides.steps.unwrap_or_else(|| Arc::new(NoSteps)),
    };
    Ok(Outside { database, ports, audit, keys, limits: Arc::new(limits), owner, former, dead })
}

/// Opens the configured database. The clock that comes with it is the one that rows go by.
async fn database(config: &Config, local: Arc<dyn Clock>) -> Result<(Database, Arc<dyn Clock>), StartError> {
    match &config.storage {
        config::Storage::Sqlite { path } => {
            let store = SqliteStore::open(path).await?;
            tracing::info!(path = %path.display(), "database open");
            Ok((Database::Sqlite(store), local))
        }
        config::Storage::Postgres(settings) => {
            let clock = Arc::new(DatabaseClock::new(local));
            let settings = postgres_settings(settings);
            let store = PgStore::open(&settings, RowClock::Database, Arc::clone(&clock)).await?;
            let alone = config.redis.is_none() && !config.replicas.without_redis;
            let company = store.join(&settings, alone).await?;
            tracing::info!(url = %settings.url, "database open");
            Ok((Database::Postgres(store, Arc::new(company)), clock))
        }
    }
}

pub(crate) fn postgres_settings(settings: &config::Postgres) -> PgSettings {
    PgSettings {
        url: settings.url.clone(),
        password: settings.password.clone(),
        max_connections: settings.max_connections,
        connect_timeout: settings.connect_timeout,
        statement_timeout: settings.statement_timeout,
    }
}

struct Coordination {
    permits: Arc<dyn PermitStore>,
    wakeups: Arc<dyn Wakeups>,
    leases: Arc<dyn LeaseStore>,
    /// `None`: there is nobody to share them with.
    buckets: Option<Arc<dyn SharedBuckets>>,
}

async fn coordination(config: &Config, clock: &Arc<dyn Clock>) -> Result<Coordination, StartError> {
    let Some(redis) = &config.redis else {
        return Ok(Coordination {
            permits: Arc::new(LocalPermits::new(Arc::clone(clock))),
            wakeups: Arc::new(LocalWakeups::default()),
            leases: Arc::new(LocalLeases::new(Arc::clone(clock))),
            buckets: None,
        });
    };
    let RedisCoordination { permits, leases, wakeups, buckets } =
        RedisCoordination::connect(&redis_settings(redis)).await?;
    Ok(Coordination { permits, wakeups, leases, buckets: Some(buckets) })
}

fn redis_settings(redis: &config::Redis) -> RedisSettings {
    let login = |login: &config::RedisLogin| RedisLogin {
        username: login.username.clone(),
        password: login.password.clone(),
    };
    RedisSettings {
        url: redis.url.clone(),
        login: redis.login.as_ref().map(login),
        sentinel_login: redis.sentinel_login.as_ref().map(login),
        tls: RedisTls {
            ca_file: redis.tls_ca_file.clone(),
            client: redis.tls_client.as_ref().map(|files| RedisTlsClient {
                certificate_file: files.certificate.clone(),
                key_file: files.key.clone(),
            }),
        },
        key_prefix: redis.key_prefix.clone(),
        response_timeout: redis.response_timeout,
        connect_timeout: redis.connect_timeout,
    }
}
