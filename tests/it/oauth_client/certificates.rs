//! Clients that show a certificate in TLS (RFC 8705), at a server that asks for it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use token_broker::domain::ports::{OAuthClient as _, ProviderFailure, RevocationOutcome};
use token_broker::domain::provider::{ClientAuth, ClientCertificate, EndpointSource, Provider};
use token_broker::infra::oauth::{BadClientKey, HttpOAuthClient, check_client_keys};
use token_broker::infra::outbound::HttpSettings;
use token_broker::infra::system::{SystemClock, SystemEntropy};

use super::{AMPLE, secret};
use crate::support::hostile::{HostileServer, Reply};
use crate::support::provider::{CLIENT_ID, discovered, provider_at, scopes};
use crate::support::tls_front::{TlsFront, certificate, pem};

/// Trusts the test's authority.
fn client() -> HttpOAuthClient {
    let settings = HttpSettings { authorities: Some(pem("ca.crt")), ..HttpSettings::default() };
    HttpOAuthClient::new(settings, Arc::new(SystemClock), Arc::new(SystemEntropy)).unwrap()
}

fn identity(name: &str) -> ClientCertificate {
    ClientCertificate { chain: pem(&format!("{name}.crt")), key: secret(&pem(&format!("{name}.key"))) }
}

fn with_certificate(mut provider: Provider, name: &str) -> Provider {
    provider.client.auth = ClientAuth::TlsCertificate;
    provider.client.secret = None;
    provider.client.certificate = Some(identity(name));
    provider
}

/// Its literal endpoints, by the front.
fn behind(front: &TlsFront) -> Provider {
    provider_at(&format!("https://localhost:{}", front.port()))
}

#[tokio::test]
async fn a_certificate_is_shown_and_no_secret_sent() {
    let server = HostileServer::start().await;
    let front = TlsFront::start(server.port(), true).await;
    server.push(Reply::tokens("at-1", "rt-1"));
    server.push_at("/revoke", Reply::status(200));
    let provider = with_certificate(behind(&front), "client");
    let client = client();
    client.refresh(&provider, &secret("rt-0"), &scopes("read"), AMPLE).await.unwrap();
    let revoked = client.revoke(&provider, &secret("at-1"), Some(&secret("rt-1"))).await;
    assert_eq!(revoked, Ok(RevocationOutcome::Revoked));
    let shown = Some(certificate("client.crt"));
    assert_eq!(front.peers(), [shown.clone(), shown]);
    for request in server.requests() {
        let params = request.params();
        assert_eq!(params.get("client_id").map(String::as_str), Some(CLIENT_ID), "{}", request.path);
        assert!(!params.contains_key("client_secret") && !params.contains_key("client_assertion"));
        assert_eq!(request.header("authorization"), None);
    }
}

#[tokio::test]
async fn without_the_right_certificate_nothing_is_answered() {
    let server = HostileServer::start().await;
    let front = TlsFront::start(server.port(), true).await;
    server.always("/token", Reply::tokens("at-1", "rt-1"));
    let mut none = behind(&front);
    none.client.auth = ClientAuth::None;
    for (name, provider) in [("none", none), ("a stranger's", with_certificate(behind(&front), "stranger"))] {
        let answer = client().refresh(&provider, &secret("rt-0"), &scopes("read"), AMPLE).await;
        // In TLS 1.3 the server refuses after the client has sent: what became of the request is not known to the client.
        let failure = answer.unwrap_err();
        assert!(
            matches!(failure, ProviderFailure::NotSent | ProviderFailure::Ambiguous),
            "{name}: {failure:?}"
        );
    }
    assert_eq!((front.peers().len(), server.requests().len()), (0, 0));
}

#[tokio::test]
async fn a_certificate_is_for_its_own_provider_only() {
    let server = HostileServer::start().await;
    let front = TlsFront::start(server.port(), true).await;
    server.always("/token", Reply::tokens("at-1", "rt-1"));
    let client = client();
    let with = with_certificate(behind(&front), "client");
    client.refresh(&with, &secret("rt-0"), &scopes("read"), AMPLE).await.unwrap();
    let mut without = behind(&front);
    without.client.auth = ClientAuth::None;
    client.refresh(&without, &secret("rt-1"), &scopes("read"), AMPLE).await.unwrap_err();
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn a_client_with_a_certificate_uses_the_endpoints_that_metadata_has_for_it() {
    let server = HostileServer::start().await;
    let front = TlsFront::start(server.port(), true).await;
    let issuer = server.base();
    let metadata = json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{issuer}/authorize"),
        "token_endpoint": format!("{issuer}/usual-token"),
        "revocation_endpoint": format!("{issuer}/usual-revoke"),
        "mtls_endpoint_aliases": {
            "token_endpoint": format!("https://localhost:{}/token", front.port()),
            "revocation_endpoint": format!("https://localhost:{}/revoke", front.port()),
        },
    });
    server.always("/.well-known/openid-configuration", Reply::json(200, &metadata));
    for path in ["/token", "/usual-token"] {
        server.always(path, Reply::tokens("at-1", "rt-1"));
    }
    server.always("/revoke", Reply::status(200));
    let client = client();
    let with = with_certificate(discovered(&issuer), "client");
    client.refresh(&with, &secret("rt-0"), &scopes("read"), AMPLE).await.unwrap();
    client.revoke(&with, &secret("at-1"), None).await.unwrap();
    client.refresh(&discovered(&issuer), &secret("rt-1"), &scopes("read"), AMPLE).await.unwrap();
    let counts =
        ["/token", "/revoke", "/usual-token", "/usual-revoke"].map(|path| server.requests_at(path).len());
    assert_eq!(counts, [1, 1, 1, 0]);
    assert_eq!(front.peers().len(), 2);
}

#[tokio::test]
async fn a_server_of_an_unknown_authority_is_not_spoken_to() {
    let server = HostileServer::start().await;
    let front = TlsFront::start(server.port(), false).await;
    let stranger =
        HttpOAuthClient::new(HttpSettings::default(), Arc::new(SystemClock), Arc::new(SystemEntropy));
    let answer = stranger.unwrap().refresh(&behind(&front), &secret("rt-0"), &scopes("read"), AMPLE).await;
    assert_eq!(answer.unwrap_err(), ProviderFailure::NotSent);
    assert_eq!(server.requests().len(), 0);
}

#[test]
fn a_certificate_that_can_not_be_used_is_found_at_start() {
    let mut client = with_certificate(provider_at("https://unused.invalid"), "client").client;
    assert_eq!(check_client_keys(&client), Ok(()));
    let good = identity("client");
    for (name, bad) in [
        ("another's key", ClientCertificate { key: identity("stranger").key, ..good.clone() }),
        ("no key", ClientCertificate { key: secret("x"), ..good.clone() }),
        ("no certificate", ClientCertificate { chain: String::new(), ..good.clone() }),
        ("a key as certificate", ClientCertificate { chain: pem("client.key"), ..good.clone() }),
        ("a torn certificate", ClientCertificate { chain: good.chain[..200].to_owned(), ..good }),
    ] {
        client.certificate = Some(bad);
        assert_eq!(check_client_keys(&client), Err(BadClientKey::Certificate), "{name}");
    }
}

#[test]
fn a_file_without_authorities_is_a_mistake() {
    for bad in ["", "no PEM", &pem("client.key")] {
        let settings = HttpSettings { authorities: Some(bad.to_owned()), ..HttpSettings::default() };
        let client = HttpOAuthClient::new(settings, Arc::new(SystemClock), Arc::new(SystemEntropy));
        assert!(client.is_err(), "{bad:.20}");
    }
}

/// Beside a secret, too: for tokens that are bound to a certificate (RFC 8705 section 3).
#[tokio::test]
async fn a_certificate_may_go_with_another_way_to_authenticate() {
    let server = HostileServer::start().await;
    let front = TlsFront::start(server.port(), true).await;
    server.push(Reply::tokens("at-1", "rt-1"));
    let mut provider = behind(&front);
    provider.client.certificate = Some(identity("client"));
    assert!(matches!(provider.endpoints, EndpointSource::Literal(_)));
    let deadline = Duration::from_secs(20);
    client().refresh(&provider, &secret("rt-0"), &scopes("read"), deadline).await.unwrap();
    assert!(server.only_request().header("authorization").is_some_and(|value| value.starts_with("Basic ")));
}
