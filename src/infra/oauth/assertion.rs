//! `private_key_jwt`: the client signs who it is, anew for each request (RFC 7523 section 2.2, OpenID Connect Core section 9).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;

use crate::domain::flow::RecordedEndpoints;
use crate::domain::ports::{Entropy, ProviderFailure};
use crate::domain::provider::{AssertionAlgorithm, AssertionAudience, AssertionKey, Client, ClientAuth};
use crate::domain::secret::SecretString;

/// How long an assertion may be used, in seconds. It is sent at once; what a log keeps of it is worth nothing a minute later.
const LIFETIME: i64 = 60;

/// RFC 7523 section 3. `aud` is a text, not a list.
#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    jti: String,
    iat: i64,
    exp: i64,
}

/// The assertion for one request; `None` if the client authenticates by other means.
pub(super) fn assertion(
    client: &Client,
    endpoints: &RecordedEndpoints,
    entropy: &dyn Entropy,
    now: Timestamp,
) -> Result<Option<SecretString>, ProviderFailure> {
    if client.auth != ClientAuth::PrivateKeyJwt {
        return Ok(None);
    }
    let key = client.assertion.as_ref().ok_or(ProviderFailure::Refused)?;
    let audience = match key.audience {
        AssertionAudience::Issuer => endpoints.issuer.as_deref().ok_or(ProviderFailure::Refused)?,
        AssertionAudience::TokenEndpoint => endpoints.token.as_str(),
    };
    // Never seen before, so that a server that remembers them can refuse a second one.
    let mut unique = [0; 16];
    entropy.fill(&mut unique);
    let issued = now.as_second();
    let claims = Claims {
        iss: &client.id,
        sub: &client.id,
        aud: audience,
        jti: URL_SAFE_NO_PAD.encode(unique),
        iat: issued,
        exp: issued.saturating_add(LIFETIME),
    };
    sign(key, &claims).map(Some).ok_or(ProviderFailure::Refused)
}

/// Whether the key can sign as it is configured.
pub(super) fn can_sign(key: &AssertionKey) -> bool {
    let claims = Claims { iss: "", sub: "", aud: "", jti: String::new(), iat: 0, exp: 0 };
    sign(key, &claims).is_some()
}

fn sign(key: &AssertionKey, claims: &Claims<'_>) -> Option<SecretString> {
    let (algorithm, signing_key) = signing_key(key)?;
    let header = Header { kid: key.key_id.clone(), ..Header::new(algorithm) };
    jsonwebtoken::encode(&header, claims, &signing_key).ok().map(SecretString::new)
}

/// The key, and the algorithm that was asked for if it is one of its kind, else the usual one.
fn signing_key(key: &AssertionKey) -> Option<(Algorithm, EncodingKey)> {
    use AssertionAlgorithm::{EdDsa, Es256, Ps256, Rs256};
    let pem = key.private_key.expose_secret().as_bytes();
    if let Ok(signing_key) = EncodingKey::from_ec_pem(pem) {
        return matches!(key.algorithm, None | Some(Es256)).then_some((Algorithm::ES256, signing_key));
    }
    if let Ok(signing_key) = EncodingKey::from_ed_pem(pem) {
        return matches!(key.algorithm, None | Some(EdDsa)).then_some((Algorithm::EdDSA, signing_key));
    }
    let signing_key = EncodingKey::from_rsa_pem(pem).ok()?;
    match key.algorithm {
        None | Some(Rs256) => Some((Algorithm::RS256, signing_key)),
        Some(Ps256) => Some((Algorithm::PS256, signing_key)),
        Some(Es256 | EdDsa) => None,
    }
}
