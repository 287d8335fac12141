//! Clients that sign who they are (`private_key_jwt`), at npm's oidc-provider, which checks it: signature, audience, times, and
//! that no assertion comes twice.

use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use std::time::Duration;
use token_broker::domain::ports::{Clock, Entropy, OAuthClient as _, ProviderFailure, RevocationOutcome};
use token_broker::domain::provider::{
    AssertionAlgorithm, AssertionAudience, AssertionKey, ClientAuth, Provider, Revocation, RevocationAuth,
    RevocationCall, RevocationMethod, RevokedToken,
};
use token_broker::infra::oauth::{BadClientKey, HttpOAuthClient, check_client_keys};
use token_broker::infra::outbound::HttpSettings;
use token_broker::infra::system::{SystemClock, SystemEntropy};

use super::{AMPLE, secret};
use crate::support::hostile::{HostileServer, Reply};
use crate::support::oidc::{CLIENT_ID, OidcOptions, OidcServer};
use crate::support::provider::{discovered, endpoints, provider_at, scopes};

fn pem(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/support/keys");
    std::fs::read_to_string(folder.join(name)).unwrap()
}

fn key(name: &str, algorithm: Option<AssertionAlgorithm>) -> AssertionKey {
    AssertionKey {
        private_key: secret(&pem(&format!("{name}.pem"))),
        key_id: None,
        algorithm,
        audience: AssertionAudience::Issuer,
    }
}

fn signing(mut provider: Provider, key: AssertionKey) -> Provider {
    provider.client.auth = ClientAuth::PrivateKeyJwt;
    provider.client.secret = None;
    provider.client.assertion = Some(key);
    provider
}

/// The server with this public key, and its provider.
async fn at_server(name: &str, algorithm: Option<AssertionAlgorithm>) -> (OidcServer, Provider) {
    let client_keys = vec![pem(&format!("{name}.pub.pem"))];
    let server = OidcServer::start(OidcOptions { client_keys, ..OidcOptions::default() }).await;
    let mut provider = discovered(server.issuer());
    CLIENT_ID.clone_into(&mut provider.client.id);
    (server, signing(provider, key(name, algorithm)))
}

fn client_of(clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> HttpOAuthClient {
    HttpOAuthClient::new(HttpSettings::default(), clock, entropy).unwrap()
}

fn client() -> HttpOAuthClient {
    client_of(Arc::new(SystemClock), Arc::new(SystemEntropy))
}

/// A refresh with a token that nobody issued: `InvalidGrant` says that the client was accepted.
async fn knock(client: &HttpOAuthClient, provider: &Provider) -> ProviderFailure {
    client.refresh(provider, &secret("no-such-token"), &scopes("openid"), AMPLE).await.unwrap_err()
}

#[tokio::test]
async fn the_server_accepts_every_kind_of_key() {
    use AssertionAlgorithm::{EdDsa, Es256, Ps256, Rs256};
    for (name, algorithm) in [
        ("ec", None),
        ("ec", Some(Es256)),
        ("rsa", None),
        ("rsa", Some(Rs256)),
        ("rsa", Some(Ps256)),
        ("ed", None),
        ("ed", Some(EdDsa)),
    ] {
        let (server, provider) = at_server(name, algorithm).await;
        let client = client();
        assert_eq!(knock(&client, &provider).await, ProviderFailure::InvalidGrant, "{name} {algorithm:?}");
        // Revocation asks for the client as well; of an unknown token the answer is a success (RFC 7009 section 2.2).
        let revoked = client.revoke(&provider, &secret("no-such-token"), None).await;
        assert_eq!(revoked, Ok(RevocationOutcome::Revoked), "{name} {algorithm:?}");
        let outcomes: Vec<_> = server.revocations().await.into_iter().map(|seen| seen.outcome).collect();
        assert_eq!(outcomes, ["ok"]);
    }
}

/// A clock that is wrong.
struct Shifted(SignedDuration);

impl Clock for Shifted {
    fn now(&self) -> Timestamp {
        SystemClock.now() + self.0
    }

    fn monotonic(&self) -> Duration {
        SystemClock.monotonic()
    }
}

/// Randomness that is none.
struct Constant;

impl Entropy for Constant {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(7);
    }
}

#[tokio::test]
async fn the_server_refuses_what_is_not_right() {
    let (_server, provider) = at_server("ec", None).await;
    let rejected = ProviderFailure::ClientRejected;

    let late = client_of(Arc::new(Shifted(SignedDuration::from_mins(-10))), Arc::new(SystemEntropy));
    assert_eq!(knock(&late, &provider).await, rejected, "expired");

    let again = client_of(Arc::new(SystemClock), Arc::new(Constant));
    assert_eq!(knock(&again, &provider).await, ProviderFailure::InvalidGrant);
    assert_eq!(knock(&again, &provider).await, rejected, "the same jti once more");

    let mut wrong = provider.clone();
    wrong.client.assertion = Some(key("ed", None));
    assert_eq!(knock(&client(), &wrong).await, rejected, "another key");

    let found = client().endpoints(&provider).await.unwrap();
    let mut elsewhere = found.clone();
    elsewhere.issuer = Some("https://elsewhere.example".to_owned());
    let redirect_uri = "https://broker.example/cb".parse().unwrap();
    let verifier = secret("a-verifier-of-more-than-forty-three-characters");
    for (endpoints, expected) in [(&found, ProviderFailure::InvalidGrant), (&elsewhere, rejected)] {
        let code = secret("no-such-code");
        let answer = client().exchange_code(&provider, endpoints, &redirect_uri, &code, &verifier).await;
        assert_eq!(answer.unwrap_err(), expected, "for {:?}", endpoints.issuer);
    }

    let mut secretive = provider.clone();
    (secretive.client.auth, secretive.client.secret) = (ClientAuth::Post, Some(secret("broker-secret")));
    assert_eq!(knock(&client(), &secretive).await, rejected, "a secret");
}

fn part(assertion: &str, index: usize) -> Value {
    let part = assertion.split('.').nth(index).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

#[tokio::test]
async fn an_assertion_is_for_one_server_for_one_minute_for_one_request() {
    let server = HostileServer::start().await;
    let mut provider =
        signing(provider_at(&server.base()), AssertionKey { key_id: Some("2026".into()), ..key("ec", None) });
    let mut literal = endpoints(&provider);
    literal.issuer = Some("https://issuer.example".to_owned());
    provider.endpoints = token_broker::domain::provider::EndpointSource::Literal(literal);
    let client = super::client();
    let mut seen = Vec::new();
    for audience in [AssertionAudience::Issuer, AssertionAudience::Issuer, AssertionAudience::TokenEndpoint] {
        server.push(Reply::tokens("at-1", "rt-1"));
        provider.client.assertion.as_mut().unwrap().audience = audience;
        client.refresh(&provider, &secret("rt-0"), &scopes("read"), AMPLE).await.unwrap();
    }
    for request in server.requests() {
        let mut params = request.params();
        assert_eq!(request.header("authorization"), None);
        assert_eq!(params.remove("client_secret"), None);
        assert_eq!(params["client_assertion_type"], "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
        seen.push(params.remove("client_assertion").unwrap());
    }
    let token_endpoint = server.token_url();
    for (assertion, audience) in
        seen.iter().zip(["https://issuer.example", "https://issuer.example", token_endpoint.as_str()])
    {
        let (header, claims) = (part(assertion, 0), part(assertion, 1));
        assert_eq!((&header["alg"], &header["kid"]), (&Value::from("ES256"), &Value::from("2026")));
        assert_eq!(claims["aud"], audience);
        assert_eq!((&claims["iss"], &claims["sub"]), (&Value::from("client-1"), &Value::from("client-1")));
        assert_eq!(claims["iat"], super::NOW);
        assert_eq!(claims["exp"], super::NOW + 60);
        assert!(claims["jti"].as_str().unwrap().len() >= 22);
    }
    assert_ne!(part(&seen[0], 1)["jti"], part(&seen[1], 1)["jti"]);
}

#[tokio::test]
async fn revocation_calls_of_a_providers_own_carry_the_assertion() {
    let server = HostileServer::start().await;
    server.always("/end", Reply::status(200));
    for auth in [RevocationAuth::ClientBasic, RevocationAuth::ClientBody] {
        let key = AssertionKey { audience: AssertionAudience::TokenEndpoint, ..key("ed", None) };
        let mut provider = signing(provider_at(&server.base()), key);
        provider.revocation = Revocation::Call(RevocationCall {
            method: RevocationMethod::Post,
            url: server.url("/end").to_string(),
            auth,
            token: RevokedToken::Access,
            token_param: Some("token".to_owned()),
            body: token_broker::domain::provider::BodyFormat::Form,
        });
        super::client().revoke(&provider, &secret("at-1"), None).await.unwrap();
    }
    for request in server.requests() {
        assert!(request.param("client_assertion").is_some());
        assert_eq!(request.header("authorization"), None);
    }
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn without_an_issuer_nothing_is_signed_for_one() {
    let server = HostileServer::start().await;
    let provider = signing(provider_at(&server.base()), key("ec", None));
    let answer = super::client().refresh(&provider, &secret("rt-0"), &scopes("read"), AMPLE).await;
    assert_eq!(answer.unwrap_err(), ProviderFailure::Refused);
    assert_eq!(server.connections(), 0);
}

#[test]
fn a_key_that_can_not_sign_is_found_at_start() {
    use AssertionAlgorithm::{EdDsa, Es256, Ps256};
    let mut client = signing(provider_at("https://unused.invalid"), key("ec", None)).client;
    for (name, algorithm, good) in [
        ("ec", Some(Es256), true),
        ("rsa", Some(Ps256), true),
        ("ed", Some(EdDsa), true),
        ("ec", Some(EdDsa), false),
        ("ec", Some(Ps256), false),
        ("rsa", Some(Es256), false),
        ("ed", Some(Es256), false),
        ("p384", None, false),
        ("rsa1024", None, false),
        ("encrypted", None, false),
        ("ec.pub", None, false),
        ("rsa.pub", None, false),
    ] {
        client.assertion = Some(key(name, algorithm));
        let expected = if good { Ok(()) } else { Err(BadClientKey::PrivateKey) };
        assert_eq!(check_client_keys(&client), expected, "{name} {algorithm:?}");
    }
    for text in ["", "no key", "-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----"] {
        client.assertion = Some(AssertionKey { private_key: secret(text), ..key("ec", None) });
        assert_eq!(check_client_keys(&client), Err(BadClientKey::PrivateKey), "{text:?}");
    }
}
