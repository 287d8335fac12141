//! How callers and users prove who they are: TLS with client certificates, and JWTs.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::StartError;
use crate::application::limits::Limits;
use crate::config::{self, Config, KeyPlace};
use crate::domain::jwt::SigningAlgorithm;
use crate::domain::ports::Clock;
use crate::infra::jwt::{Issuer, IssuerSettings, JwtVerifier, KeyAccess, KeyLocation, KeyTimes, check_file};
use crate::infra::outbound::Http;
use crate::infra::tls::{ServerTls, TlsError, TlsSettings, read_svid};
use crate::transport::Proxies;
use crate::transport::grpc::IncomingTls;

/// Trust domains are not configured apart: an SVID lives for an hour or so.
const SVID_LEEWAY: Duration = Duration::from_secs(30);
const SVID_MAX_LIFETIME: Duration = Duration::from_hours(24);

/// TLS of the gRPC listener, if it speaks it.
pub(super) fn tls(config: &Config) -> Result<Option<Arc<ServerTls>>, TlsError> {
    let Some(files) = &config.grpc.tls else { return Ok(None) };
    let bundle = |entry: &config::TrustDomainEntry| Some((entry.domain.clone(), entry.bundle_file.clone()?));
    let settings = TlsSettings {
        certificate: files.certificate.clone(),
        key: files.key.clone(),
        trust_domains: config.trust_domains.iter().filter_map(bundle).collect(),
        client_certificate_required: config.grpc.client_certificate_required,
    };
    ServerTls::open(settings).map(|tls| Some(Arc::new(tls)))
}

/// What the listener needs of it.
pub(super) fn incoming_tls(
    tls: Arc<ServerTls>,
    clock: Arc<dyn Clock>,
    limits: &Arc<Limits>,
    proxies: Proxies,
) -> IncomingTls {
    IncomingTls {
        proxies: Arc::new(proxies),
        limits: Arc::clone(limits),
        config: Arc::new(move || tls.config()),
        peer: Arc::new(move |certificate| {
            let svid = read_svid(certificate).ok()?;
            let left = svid.not_after.duration_since(clock.now());
            Some((svid.id, Duration::try_from(left).unwrap_or_default()))
        }),
    }
}

/// Looks at the files every so often, and at SIGHUP.
pub(super) async fn reload(tls: Arc<ServerTls>, every: Duration, stop: CancellationToken) {
    let mut hangups = match signal(SignalKind::hangup()) {
        Ok(hangups) => Some(hangups),
        Err(error) => {
            tracing::warn!(%error, "SIGHUP is not listened to");
            None
        }
    };
    loop {
        let tls = Arc::clone(&tls);
        // It reads files. The first look is for a SIGHUP that came before it was listened to.
        let _ = tokio::task::spawn_blocking(move || tls.reload()).await;
        let hangup = async {
            match &mut hangups {
                Some(hangups) => hangups.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(every) => {}
            _ = hangup => {}
        }
    }
}

/// Whoever verifies tokens; `None`: no issuer is configured. Begins to fetch the keys.
pub(super) fn tokens(config: &Config, http: &Http, clock: &Arc<dyn Clock>) -> Option<Arc<JwtVerifier>> {
    let issuers = issuers(config);
    (!issuers.is_empty()).then(|| verifier(issuers, key_times(config), http, clock))
}

/// Whoever verifies the tokens of these issuers. Begins to fetch the keys.
pub(super) fn verifier(
    issuers: Vec<IssuerSettings>,
    times: KeyTimes,
    http: &Http,
    clock: &Arc<dyn Clock>,
) -> Arc<JwtVerifier> {
    let verifier = Arc::new(JwtVerifier::new(issuers, times, http, clock));
    let warm = Arc::clone(&verifier);
    tokio::spawn(async move { warm.warm_up().await });
    verifier
}

/// How long issuers' keys are kept.
pub(super) fn key_times(config: &Config) -> KeyTimes {
    KeyTimes {
        refresh: config.jwt.key_refresh,
        max_age: config.jwt.key_max_age,
        unknown_key_pause: config.jwt.unknown_key_pause,
    }
}

/// Whether the files of keys can be used. Those elsewhere are looked at when they are needed: an issuer that is down keeps no
/// broker from starting.
pub(super) fn check_key_files(config: &Config) -> Result<(), StartError> {
    for issuer in issuers(config) {
        if let KeyLocation::File(path) = &issuer.keys.location {
            check(path, &issuer)?;
        }
    }
    Ok(())
}

fn check(path: &Path, issuer: &IssuerSettings) -> Result<(), StartError> {
    check_file(path, &issuer.who).map_err(|problem| StartError::Keys { path: path.to_owned(), problem })
}

fn issuers(config: &Config) -> Vec<IssuerSettings> {
    let named = config.issuers.iter().map(|entry| IssuerSettings {
        who: Issuer::Named { name: entry.name.as_str().to_owned(), url: entry.issuer.clone() },
        audiences: entry.audiences.clone(),
        algorithms: entry.algorithms.clone(),
        keys: KeyAccess {
            location: location(&entry.keys, &entry.issuer),
            ca_file: entry.ca_file.clone(),
            bearer_token_file: entry.bearer_token_file.clone(),
        },
        leeway: entry.leeway,
        max_lifetime: entry.max_lifetime,
        for_callers: entry.for_callers,
        for_users: entry.for_users,
    });
    let trust_domains = config.trust_domains.iter().filter_map(|entry| {
        let jwt = entry.jwt.as_ref()?;
        Some(IssuerSettings {
            who: Issuer::TrustDomain(entry.domain.clone()),
            audiences: jwt.audiences.clone(),
            algorithms: SigningAlgorithm::ALL.to_vec(),
            keys: KeyAccess {
                location: location(&jwt.keys, ""),
                ca_file: jwt.ca_file.clone(),
                bearer_token_file: None,
            },
            leeway: SVID_LEEWAY,
            max_lifetime: SVID_MAX_LIFETIME,
            for_callers: true,
            for_users: false,
        })
    });
    named.chain(trust_domains).collect()
}

fn location(place: &KeyPlace, issuer: &str) -> KeyLocation {
    match place {
        KeyPlace::Discovered => KeyLocation::Discovered(issuer.to_owned()),
        KeyPlace::Url(url) => KeyLocation::Url(url.clone()),
        KeyPlace::File(path) => KeyLocation::File(path.clone()),
    }
}
