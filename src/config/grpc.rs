//! `[grpc]`: the listener for callers.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::reader::Section;
use super::trusted_proxies::{self, TrustedProxies};

/// See `default.toml`.
#[derive(Debug, Clone)]
pub struct Grpc {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Whether reflection is served.
    pub reflection: bool,
    /// The longest a call may take.
    pub max_deadline: Duration,
    /// The largest request.
    pub max_request_bytes: usize,
    /// How many connections at a time.
    pub max_connections: usize,
    /// How many streams of WatchCredentials one caller may have open.
    pub max_watches_per_caller: usize,
    /// HTTP/2 pings to a silent peer.
    pub keepalive_interval: Duration,
    /// How long the peer has to answer a ping.
    pub keepalive_timeout: Duration,
    /// After this a connection is asked to end.
    pub max_connection_age: Duration,
    /// How long its calls have to end.
    pub max_connection_age_grace: Duration,
    /// TLS, if the listener speaks it.
    pub tls: Option<TlsFiles>,
    /// Nobody connects without a certificate of a configured trust domain.
    pub client_certificate_required: bool,
    /// How often TLS files and bundles are looked at.
    pub tls_reload: Duration,
    /// Whose word about a caller's address counts.
    pub proxies: TrustedProxies,
}

/// PEM files.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The certificate chain.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

pub(super) fn read(section: &Section<'_>) -> Option<Grpc> {
    let listen = section.required("listen").address();
    let reflection = section.required("reflection").boolean();
    let max_deadline = section.required("max_deadline").duration(SECOND..=Duration::from_mins(5));
    let max_request_bytes = section.required("max_request_bytes").integer(1_024..=16_777_216);
    let max_connections = section.required("max_connections").integer(1..=65_535);
    let max_watches_per_caller = section.required("max_watches_per_caller").integer(1..=65_535);
    let keepalive_interval = section.required("keepalive_interval").duration(SECOND..=HOUR);
    let keepalive_timeout = section.required("keepalive_timeout").duration(SECOND..=HOUR);
    let max_connection_age = section.required("max_connection_age").duration(SECOND..=DAY);
    let max_connection_age_grace = section.required("max_connection_age_grace").duration(SECOND..=HOUR);
    let certificate = section.optional("tls_certificate_file");
    let key = section.optional("tls_key_file");
    if certificate.is_set() && !key.is_set() {
        key.problem("is required beside tls_certificate_file");
    }
    if key.is_set() && !certificate.is_set() {
        certificate.problem("is required beside tls_key_file");
    }
    let tls = certificate.path().zip(key.path()).map(|(certificate, key)| TlsFiles { certificate, key });
    let client_certificates = section.required("tls_client_certificates").parsed(|text| match text {
        "optional" => Ok(false),
        "required" => Ok(true),
        _ => Err("must be \"optional\" or \"required\""),
    });
    let tls_reload = section.required("tls_reload").duration(SECOND..=HOUR);
    let proxies = trusted_proxies::read(section);
    section.finish();
    Some(Grpc {
        listen: listen?,
        reflection: reflection?,
        max_deadline: max_deadline?,
        max_request_bytes: usize::try_from(max_request_bytes?).ok()?,
        max_connections: usize::try_from(max_connections?).ok()?,
        max_watches_per_caller: usize::try_from(max_watches_per_caller?).ok()?,
        keepalive_interval: keepalive_interval?,
        keepalive_timeout: keepalive_timeout?,
        max_connection_age: max_connection_age?,
        max_connection_age_grace: max_connection_age_grace?,
        tls,
        client_certificate_required: client_certificates?,
        tls_reload: tls_reload?,
        proxies: proxies?,
    })
}
