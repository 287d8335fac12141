//! What can go wrong with Redis: in the settings, and later.

use std::path::PathBuf;
use std::sync::Arc;

use redis::{ErrorKind, RedisError, ServerErrorKind};

/// A mistake in the settings: no server was asked.
#[derive(Debug, thiserror::Error)]
pub enum RedisSetupError {
    /// The URL says nothing that can be connected to.
    #[error("the URL of Redis: {0}")]
    Url(&'static str),
    /// A PEM file.
    #[error("{path} cannot be read")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A PEM file has no certificate.
    #[error("{path} has no certificate in PEM format")]
    NoCertificate {
        /// Which.
        path: PathBuf,
    },
    /// Certificates or keys that do not fit.
    #[error("the client of Redis could not be set up")]
    Client(#[source] RedisError),
}

/// Why a call had no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    /// With the outcome of the last attempt, if one has ended.
    #[error("Redis is not connected{}", .0.as_ref().map(|error| format!(": {error}")).unwrap_or_default())]
    NotConnected(Option<Arc<ConnectError>>),
    #[error("Redis did not answer in time")]
    TimedOut,
    #[error("Redis answered with an error: {0}")]
    Refused(RedisError),
}

/// Why a connection was not made.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("Redis cannot be connected to: {0}")]
    Failed(RedisError),
    #[error("Redis did not take the connection in time")]
    TimedOut,
}

impl CallError {
    /// Whether another connection may do better: the wire is broken or silent, or the server is not (any more) the one that
    /// takes writes.
    pub(super) fn is_of_the_connection(&self) -> bool {
        match self {
            Self::NotConnected(_) => false,
            Self::TimedOut => true,
            Self::Refused(error) => match error.kind() {
                ErrorKind::AuthenticationFailed
                | ErrorKind::Server(
                    ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown | ServerErrorKind::BusyLoading,
                ) => true,
                _ => error.is_io_error() || error.is_unrecoverable_error(),
            },
        }
    }
}
