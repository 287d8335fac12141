//! The settings in force. When a file changes they are made anew for connections to come; those that stand go on with what
//! they began with, and end by their age. New files that can't be used leave the old settings in force.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::NoServerSessionStorage;

use super::files::Files;
use super::verifier::SvidVerifier;
use super::{TlsError, TlsSettings};

/// TLS for a listener.
pub struct ServerTls {
    settings: TlsSettings,
    provider: Arc<CryptoProvider>,
    current: RwLock<Arc<ServerConfig>>,
    seen: Mutex<Seen>,
}

/// What the last look found.
#[derive(PartialEq, Eq)]
enum Seen {
    /// These contents are in force.
    Good([u8; 32]),
    /// These can't be used, or can't be read for this reason. Said once.
    Bad(String),
}

impl ServerTls {
    /// Reads the files. Fails if they can't be used.
    pub fn open(settings: TlsSettings) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let files = Files::read(&settings)?;
        let config = config(&settings, &files, &provider)?;
        valid(true);
        Ok(Self {
            settings,
            provider,
            current: RwLock::new(Arc::new(config)),
            seen: Mutex::new(Seen::Good(files.fingerprint())),
        })
    }

    /// For the next handshake.
    #[must_use]
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks whether a file has changed. Reads a few small files, and blocks for that long.
    pub fn reload(&self) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let now = match self.renewed(&seen) {
            Ok(None) => return,
            Ok(Some(fingerprint)) => {
                tracing::info!("new TLS files are in force for new connections");
                valid(true);
                Seen::Good(fingerprint)
            }
            // Certificate and key are two files: between the two writes they do not fit, and the next look finds them
            // whole.
            Err(error) => {
                let bad = Seen::Bad(error.to_string());
                if *seen == bad {
                    return;
                }
                tracing::error!(%error, "new TLS files cannot be used: the old ones stay in force");
                metrics::counter!("token_broker_tls_reload_errors_total").increment(1);
                valid(false);
                bad
            }
        };
        *seen = now;
    }

    /// `None`: nothing has changed.
    fn renewed(&self, seen: &Seen) -> Result<Option<[u8; 32]>, TlsError> {
        let files = Files::read(&self.settings)?;
        let fingerprint = files.fingerprint();
        if *seen == Seen::Good(fingerprint) {
            return Ok(None);
        }
        let config = Arc::new(config(&self.settings, &files, &self.provider)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(Some(fingerprint))
    }
}

fn valid(valid: bool) {
    metrics::gauge!("token_broker_tls_files_valid").set(f64::from(u8::from(valid)));
}

fn config(
    settings: &TlsSettings,
    files: &Files,
    provider: &Arc<CryptoProvider>,
) -> Result<ServerConfig, TlsError> {
    let builder =
        ServerConfig::builder_with_provider(Arc::clone(provider)).with_safe_default_protocol_versions()?;
    let builder = if settings.trust_domains.is_empty() {
        builder.with_no_client_auth()
    } else {
        let bundles = files.bundles().collect::<Result<Vec<_>, _>>()?;
        let verifier = SvidVerifier::new(bundles, settings.client_certificate_required, provider)?;
        builder.with_client_cert_verifier(Arc::new(verifier))
    };
    let mut config = builder.with_single_cert(files.chain()?, files.key()?)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session brings its client's certificate along, unverified: also one that has expired since, or whose trust
    // domain is gone. Connections of callers are few and long, so a full handshake for each costs nothing.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}
