//! The limits of everything that goes out by HTTP.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::guard::Guard;
use super::resolve::{Lookup, SystemLookup};

/// The limits of a call, and where it may go.
#[derive(Clone)]
pub struct HttpSettings {
    /// Name resolution, TCP and TLS together.
    pub connect_timeout: Duration,
    /// The whole call. A shorter deadline of a single call wins.
    pub total_timeout: Duration,
    /// A longer body makes the answer unreadable.
    pub max_body_bytes: usize,
    /// The places in this network that documents from outside may name.
    pub guard: Arc<Guard>,
    /// Authorities that are trusted beside the system's, as PEM.
    pub authorities: Option<String>,
    /// The system's authorities are not trusted at all.
    pub authorities_alone: bool,
    /// How names become addresses.
    pub lookup: Arc<dyn Lookup>,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            total_timeout: Duration::from_secs(30),
            max_body_bytes: 256 * 1024,
            guard: Arc::default(),
            authorities: None,
            authorities_alone: false,
            lookup: Arc::new(SystemLookup),
        }
    }
}

impl fmt::Debug for HttpSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpSettings")
            .field("connect_timeout", &self.connect_timeout)
            .field("total_timeout", &self.total_timeout)
            .field("max_body_bytes", &self.max_body_bytes)
            .field("guard", &self.guard)
            .finish_non_exhaustive()
    }
}

/// The HTTP client could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum HttpSetupError {
    /// By the library.
    #[error("the HTTP client could not be set up")]
    Client(#[source] reqwest::Error),
    /// The file of authorities.
    #[error("outbound.ca_file holds no certificates in PEM")]
    Authorities,
    /// A client's own certificate.
    #[error(
        "the certificate and its key do not make a TLS client: PEM, the key not encrypted, and of the certificate"
    )]
    Certificate,
}
