//! Makes connections: one for commands, one for wake-ups.

use std::path::Path;
use std::time::Duration;

use redis::aio::{MultiplexedConnection, PubSub};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionAddr, ConnectionInfo,
    IntoConnectionInfo as _, RedisConnectionInfo, RedisError, RedisResult, TlsCertificates, TlsMode, Value,
};
use tokio::time::timeout;

use super::error::{ConnectError, RedisSetupError};
use super::servers::{Address, Servers};
use super::{RedisLogin, RedisSettings, RedisTls};

/// Knows how to reach the server that takes writes.
pub(super) struct Connector {
    target: Target,
    pub(super) connect_timeout: Duration,
    pub(super) response_timeout: Duration,
}

enum Target {
    One(Client),
    Sentinel(SentinelClient),
    /// Each node carries the messages of all.
    Cluster {
        client: ClusterClient,
        nodes: Vec<Client>,
        next: usize,
    },
}

/// A connection that many calls use at a time.
#[derive(Clone)]
pub(super) enum Wire {
    Server(MultiplexedConnection),
    /// Mends itself, node by node.
    Cluster(ClusterConnection),
}

impl Wire {
    pub(super) async fn send(&mut self, command: &Cmd) -> RedisResult<Value> {
        match self {
            Self::Server(connection) => command.query_async(connection).await,
            Self::Cluster(connection) => command.query_async(connection).await,
        }
    }
}

impl Connector {
    /// Reads the files that the settings name; asks no server.
    pub(super) fn new(servers: &Servers, settings: &RedisSettings) -> Result<Self, RedisSetupError> {
        let target = match servers {
            Servers::One { address, database } => Target::One(client(
                address.to_redis(),
                *database,
                settings,
                certificates(address.tls, settings)?,
            )?),
            Servers::Socket { path, database } => {
                Target::One(client(ConnectionAddr::Unix(path.clone()), *database, settings, None)?)
            }
            Servers::Sentinel { sentinels, master, database } => {
                Target::Sentinel(sentinel(sentinels, master, *database, settings)?)
            }
            Servers::Cluster { nodes } => cluster(nodes, settings)?,
        };
        let RedisSettings { connect_timeout, response_timeout, .. } = *settings;
        Ok(Self { target, connect_timeout, response_timeout })
    }

    /// A connection for commands, whose server answers.
    pub(super) async fn connect(&mut self) -> Result<Wire, ConnectError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.connect_timeout))
            .set_response_timeout(Some(self.response_timeout));
        let attempt = async {
            let mut wire = match &mut self.target {
                Target::One(client) => {
                    Wire::Server(client.get_multiplexed_async_connection_with_config(&config).await?)
                }
                Target::Sentinel(sentinel) => {
                    Wire::Server(sentinel.get_async_connection_with_config(&config).await?)
                }
                Target::Cluster { client, .. } => Wire::Cluster(client.get_async_connection().await?),
            };
            // A server that loads its data, or a replica without its master, says so here. Nodes of a cluster are on their own.
            if let Wire::Server(_) = wire {
                wire.send(&redis::cmd("PING")).await?;
            }
            Ok(wire)
        };
        within(self.connect_timeout, attempt).await
    }

    /// A connection for messages, subscribed to a channel.
    pub(super) async fn subscribe(&mut self, channel: &str) -> Result<PubSub, ConnectError> {
        let attempt = async {
            let mut messages = match &mut self.target {
                Target::One(client) => client.get_async_pubsub().await?,
                Target::Sentinel(sentinel) => sentinel.async_get_client().await?.get_async_pubsub().await?,
                Target::Cluster { nodes, next, .. } => {
                    // The next one, if this one is down.
                    let node = &nodes[*next % nodes.len()];
                    *next = next.wrapping_add(1);
                    node.get_async_pubsub().await?
                }
            };
            messages.subscribe(channel).await?;
            Ok(messages)
        };
        within(self.connect_timeout, attempt).await
    }
}

async fn within<T>(
    limit: Duration,
    attempt: impl Future<Output = RedisResult<T>>,
) -> Result<T, ConnectError> {
    match timeout(limit, attempt).await {
        Ok(result) => result.map_err(ConnectError::Failed),
        Err(_) => Err(ConnectError::TimedOut),
    }
}

fn client(
    address: ConnectionAddr,
    database: i64,
    settings: &RedisSettings,
    certificates: Option<TlsCertificates>,
) -> Result<Client, RedisSetupError> {
    let info = logged_in(address, database, settings.login.as_ref()).map_err(RedisSetupError::Client)?;
    match certificates {
        Some(certificates) => Client::build_with_tls(info, certificates),
        None => Client::open(info),
    }
    .map_err(RedisSetupError::Client)
}

fn logged_in(
    address: ConnectionAddr,
    database: i64,
    login: Option<&RedisLogin>,
) -> Result<ConnectionInfo, RedisError> {
    let mut settings = RedisConnectionInfo::default().set_db(database).set_skip_set_lib_name();
    if let Some(RedisLogin { username, password }) = login {
        settings = settings.set_password(password.expose_secret());
        if let Some(username) = username {
            settings = settings.set_username(username);
        }
    }
    Ok(address.into_connection_info()?.set_redis_settings(settings))
}

fn sentinel(
    sentinels: &[Address],
    master: &str,
    database: i64,
    settings: &RedisSettings,
) -> Result<SentinelClient, RedisSetupError> {
    let tls = sentinels.iter().any(|sentinel| sentinel.tls);
    let build = || {
        let addresses = sentinels.iter().map(Address::to_redis);
        let mut builder = SentinelClientBuilder::new(addresses, master, SentinelServerType::Master)?
            .set_client_to_redis_db(database);
        if let Some(RedisLogin { username, password }) = &settings.login {
            builder = builder.set_client_to_redis_password(password.expose_secret());
            if let Some(username) = username {
                builder = builder.set_client_to_redis_username(username);
            }
        }
        if let Some(RedisLogin { username, password }) = &settings.sentinel_login {
            builder = builder.set_client_to_sentinel_password(password.expose_secret());
            if let Some(username) = username {
                builder = builder.set_client_to_sentinel_username(username);
            }
        }
        Ok(if tls { builder.set_client_to_redis_tls_mode(TlsMode::Secure) } else { builder })
    };
    let mut builder = build().map_err(RedisSetupError::Client)?;
    if let Some(certificates) = certificates(tls, settings)? {
        builder = builder
            .set_client_to_redis_certificates(certificates.clone())
            .set_client_to_sentinel_certificates(certificates);
    }
    builder.build().map_err(RedisSetupError::Client)
}

fn cluster(nodes: &[Address], settings: &RedisSettings) -> Result<Target, RedisSetupError> {
    let tls = nodes.iter().any(|node| node.tls);
    let certificates = certificates(tls, settings)?;
    let infos = nodes
        .iter()
        .map(|node| logged_in(node.to_redis(), 0, settings.login.as_ref()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(RedisSetupError::Client)?;
    // The caller's limit is for all attempts together.
    let mut builder = ClusterClient::builder(infos)
        .connection_timeout(settings.connect_timeout)
        .response_timeout(settings.response_timeout)
        .retries(2)
        .min_retry_wait(5)
        .max_retry_wait(50);
    if let Some(certificates) = certificates.clone() {
        builder = builder.certs(certificates);
    }
    let client = builder.build().map_err(RedisSetupError::Client)?;
    let nodes = nodes
        .iter()
        .map(|node| self::client(node.to_redis(), 0, settings, certificates.clone()))
        .collect::<Result<_, _>>()?;
    Ok(Target::Cluster { client, nodes, next: 0 })
}

/// `None` without TLS.
fn certificates(tls: bool, settings: &RedisSettings) -> Result<Option<TlsCertificates>, RedisSetupError> {
    if !tls {
        return Ok(None);
    }
    let RedisTls { ca_file, client } = &settings.tls;
    let root_cert = ca_file.as_deref().map(certificate_file).transpose()?;
    let client_tls = match client {
        Some(files) => Some(ClientTlsConfig {
            client_cert: certificate_file(&files.certificate_file)?,
            client_key: read(&files.key_file)?,
        }),
        None => None,
    };
    Ok(Some(TlsCertificates { client_tls, root_cert }))
}

/// The reader of PEM skips what it does not know; an authority that is left out silently would be looked for all night.
fn certificate_file(path: &Path) -> Result<Vec<u8>, RedisSetupError> {
    const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";
    let bytes = read(path)?;
    if bytes.windows(BEGIN.len()).any(|window| window == BEGIN) {
        Ok(bytes)
    } else {
        Err(RedisSetupError::NoCertificate { path: path.to_owned() })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, RedisSetupError> {
    std::fs::read(path).map_err(|source| RedisSetupError::File { path: path.to_owned(), source })
}
