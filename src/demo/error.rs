//! Why the demo ended early.

use tonic::Status;

use super::browser::BrowserError;
use crate::app::StartError;
use crate::config::ConfigErrors;

/// Why the demo ended early.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// Something was not as the demo says it is.
    #[error("not as expected: {0}")]
    NotAsExpected(String),
    /// A file, a port or the output.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The demo's own configuration.
    #[error("{0}")]
    Config(#[from] ConfigErrors),
    /// The broker does not start.
    #[error("{0}")]
    Start(#[from] StartError),
    /// No connection to the broker.
    #[error("no connection to the broker")]
    Connect(#[from] tonic::transport::Error),
    /// A call failed.
    #[error("{method} failed: {status}")]
    Call {
        /// The RPC's name.
        method: &'static str,
        /// What the broker answered.
        status: Box<Status>,
    },
    /// A page or the API could not be opened.
    #[error("{0}")]
    Browser(#[from] BrowserError),
}
