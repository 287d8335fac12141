//! Permits, wake-ups, leases and rate limits of many replicas, in Redis. What is stored, and what an operator has to know:
//! `docs/REDIS.md`.
//!
//! Every call answers or fails within the response time-out, and at once while Redis is known to be down; a task of its own
//! connects again. Times are those of Redis, so that replicas whose clocks differ agree on ages. The keys of one
//! credential share a hash tag, so that a cluster keeps them on one node, where a script may use them together.

mod buckets;
mod connector;
mod error;
mod keys;
mod leases;
mod link;
mod permits;
mod script;
mod servers;
mod wakeups;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use error::RedisSetupError;

use crate::domain::coordination::{LeaseStore, PermitStore, Wakeups};
use crate::domain::rate_limit::SharedBuckets;
use crate::domain::secret::SecretString;
use buckets::RedisBuckets;
use connector::Connector;
use keys::Keys;
use leases::RedisLeases;
use link::Link;
use permits::RedisPermits;
use servers::Servers;
use wakeups::RedisWakeups;

/// Where Redis is and how to talk to it.
#[derive(Debug, Clone)]
pub struct RedisSettings {
    /// See `redis.url` in the default configuration file.
    pub url: String,
    /// For the servers.
    pub login: Option<RedisLogin>,
    /// For the sentinels, if they ask for one.
    pub sentinel_login: Option<RedisLogin>,
    /// For a URL with TLS.
    pub tls: RedisTls,
    /// In front of every key and of the channel.
    pub key_prefix: String,
    /// How long an answer may take.
    pub response_timeout: Duration,
    /// How long a connection may take to be made.
    pub connect_timeout: Duration,
}

/// A user of Redis.
#[derive(Debug, Clone)]
pub struct RedisLogin {
    /// The ACL user; `None`: the default user.
    pub username: Option<String>,
    /// Its password.
    pub password: SecretString,
}

/// PEM files.
#[derive(Debug, Clone, Default)]
pub struct RedisTls {
    /// Authorities instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// The broker's own certificate and its key, for servers that ask for one.
    pub client: Option<RedisTlsClient>,
}

/// PEM files.
#[derive(Debug, Clone)]
pub struct RedisTlsClient {
    /// The certificate chain.
    pub certificate_file: PathBuf,
    /// Its private key.
    pub key_file: PathBuf,
}

/// The four ports over one Redis.
pub struct RedisCoordination {
    /// Permits, successors, tombstones.
    pub permits: Arc<dyn PermitStore>,
    /// Leases.
    pub leases: Arc<dyn LeaseStore>,
    /// Wake-ups.
    pub wakeups: Arc<dyn Wakeups>,
    /// Rate limits.
    pub buckets: Arc<dyn SharedBuckets>,
}

impl RedisCoordination {
    /// Begins to connect and answers as soon as the first attempt has ended, well or not: a Redis that is down or refuses the
    /// login is a matter of the moment, and the broker serves without it. An error is a mistake in the settings. The
    /// connections live as long as the ports.
    pub async fn connect(settings: &RedisSettings) -> Result<Self, RedisSetupError> {
        let servers = Servers::parse(&settings.url)?;
        let connector = || Connector::new(&servers, settings);
        let keys = Keys::new(&settings.key_prefix);
        let link = Arc::new(Link::start(connector()?));
        let wakeups = RedisWakeups::start(connector()?, link.clone(), keys.wake_channel());
        tokio::join!(link.first_attempt(), wakeups.first_attempt());
        Ok(Self {
            permits: Arc::new(RedisPermits::new(link.clone(), keys.clone())),
            leases: Arc::new(RedisLeases::new(link.clone(), keys.clone())),
            buckets: Arc::new(RedisBuckets::new(link, keys)),
            wakeups: Arc::new(wakeups),
        })
    }
}
