//! One HTTP client for each way out: who named the destination decides which addresses it may connect to, and a certificate of
//! the broker's is shown only where it belongs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use reqwest::{Certificate, Client, ClientBuilder, Identity};
use sha2::{Digest as _, Sha256};

use super::guard::Reach;
use super::http::Route;
use super::resolve::GuardedResolver;
use super::settings::{HttpSettings, HttpSetupError};
use crate::domain::provider::ClientCertificate;

/// So many ways are kept; certificates that are renewed leave some behind.
const MAX_KEPT: usize = 256;

/// A way: who named the destination, and the hash of the certificate.
type Way = (Reach, Option<[u8; 32]>);

pub(super) struct Clients {
    settings: HttpSettings,
    configured: Client,
    others: Mutex<HashMap<Way, Client>>,
}

impl Clients {
    pub(super) fn new(settings: HttpSettings) -> Result<Self, HttpSetupError> {
        let configured = build(&settings, Route::CONFIGURED)?;
        Ok(Self { settings, configured, others: Mutex::default() })
    }

    pub(super) fn settings(&self) -> &HttpSettings {
        &self.settings
    }

    /// The client of a way, made when it is first used.
    pub(super) fn client(&self, route: Route<'_>) -> Result<Client, HttpSetupError> {
        let way = (route.reach, route.certificate.map(hash));
        if way == (Reach::Configured, None) {
            return Ok(self.configured.clone());
        }
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = others.get(&way) {
            return Ok(client.clone());
        }
        let client = build(&self.settings, route)
            .inspect_err(|error| tracing::error!(%error, "a way out could not be set up"))?;
        if others.len() >= MAX_KEPT {
            others.clear();
        }
        others.insert(way, client.clone());
        Ok(client)
    }
}

fn hash(certificate: &ClientCertificate) -> [u8; 32] {
    let mut hasher = Sha256::new();
    // Lengths first, so that no two pairs are one text.
    hasher.update(certificate.chain.len().to_be_bytes());
    hasher.update(&certificate.chain);
    hasher.update(certificate.key.expose_secret());
    hasher.finalize().into()
}

/// Whether a TLS client can be made of a certificate and its key.
pub(crate) fn check_certificate(certificate: &ClientCertificate) -> Result<(), HttpSetupError> {
    let builder = Client::builder().identity(identity(certificate)?).tls_certs_only([]);
    builder.build().map(drop).map_err(|_| HttpSetupError::Certificate)
}

fn identity(certificate: &ClientCertificate) -> Result<Identity, HttpSetupError> {
    let mut pem = zeroize::Zeroizing::new(certificate.chain.clone().into_bytes());
    pem.push(b'\n');
    pem.extend_from_slice(certificate.key.expose_secret().as_bytes());
    Identity::from_pem(&pem).map_err(|_| HttpSetupError::Certificate)
}

fn build(settings: &HttpSettings, route: Route<'_>) -> Result<Client, HttpSetupError> {
    let extra = match &settings.authorities {
        None => Vec::new(),
        Some(pem) => match Certificate::from_pem_bundle(pem.as_bytes()) {
            Ok(found) if !found.is_empty() => found,
            Ok(_) | Err(_) => return Err(HttpSetupError::Authorities),
        },
    };
    let builder = || -> Result<ClientBuilder, HttpSetupError> {
        let builder = hardened(settings, route.reach);
        Ok(match route.certificate {
            Some(certificate) => builder.identity(identity(certificate)?),
            None => builder,
        })
    };
    if settings.authorities_alone {
        return builder()?.tls_certs_only(extra).build().map_err(HttpSetupError::Client);
    }
    builder()?.tls_certs_merge(extra.clone()).build().or_else(|error| {
        // A machine without root certificates: providers on loopback (the demo, the tests) still work, and every
        // TLS handshake fails, as it must, unless the operator named authorities.
        tracing::warn!(
            cause = %error,
            "no root certificates found, so only servers of outbound.ca_file can be reached by https; install ca-certificates"
        );
        builder()?.tls_certs_only(extra).build().map_err(HttpSetupError::Client)
    })
}

fn hardened(settings: &HttpSettings, reach: Reach) -> ClientBuilder {
    let resolver =
        GuardedResolver { lookup: Arc::clone(&settings.lookup), guard: Arc::clone(&settings.guard), reach };
    Client::builder()
        .user_agent(concat!("token-broker/", env!("CARGO_PKG_VERSION")))
        // A redirect would carry codes, tokens and secrets to wherever the answer says.
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        // Variables of the environment say nothing about where tokens go; and a proxy would resolve names by itself.
        .no_proxy()
        .dns_resolver(resolver)
        // A refresh token is presented once; a second presentation is the protocol's decision, not this layer's.
        .retry(reqwest::retry::never())
        // No connection is used twice: one that the server closes just as a request is written would leave it unknown
        // whether a refresh token was spent. It also makes every connection error one from before the request.
        .pool_max_idle_per_host(0)
        .http1_only()
        .connect_timeout(settings.connect_timeout)
}
