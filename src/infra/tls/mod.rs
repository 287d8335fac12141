//! TLS of the listener for callers: its certificate, and whose certificates it accepts.
//!
//! | file | does |
//! |---|---|
//! | `files.rs` | the PEM files, read as one |
//! | `server.rs` | the settings in force, and their replacement when a file changes |
//! | `svid.rs` | what a client's certificate says (X509-SVID) |
//! | `verifier.rs` | whether that is so |

mod files;
mod server;
mod svid;
mod verifier;

use std::path::PathBuf;

pub use server::ServerTls;
pub use svid::{Svid, SvidProblem, read as read_svid};

use crate::domain::spiffe::TrustDomain;

/// The files, and what clients have to show.
#[derive(Debug, Clone)]
pub struct TlsSettings {
    /// PEM: the chain, the server's own certificate first.
    pub certificate: PathBuf,
    /// PEM: its private key.
    pub key: PathBuf,
    /// Whose workloads may show certificates. Empty: nobody is asked for one.
    pub trust_domains: Vec<(TrustDomain, PathBuf)>,
    /// A connection without a client's certificate is refused.
    pub client_certificate_required: bool,
}

/// Why there is no TLS, or none with the new files.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read.
    #[error("{} cannot be read: {source}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file has no certificate, or a broken one.
    #[error("{} has no certificate in PEM form, or a broken one", .0.display())]
    NoCertificate(PathBuf),
    /// A file has no private key, or a broken one.
    #[error("{} has no private key in PEM form, or a broken one", .0.display())]
    NoKey(PathBuf),
    /// A bundle has a certificate that nobody can be verified by.
    #[error("the bundle of trust domain {0} has a certificate that cannot be an authority's")]
    BadBundle(TrustDomain),
    /// Certificate and key do not fit each other, or are not fit for TLS.
    #[error("the certificate and the key cannot be used for TLS: {0}")]
    Unfit(#[from] rustls::Error),
}
