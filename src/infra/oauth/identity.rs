//! Who consented: the ID token, the token answer itself, or userinfo.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tokio::time::Instant;

use super::client::route;
use super::request::{authorize, bearer, fixed_headers};
use super::response::{document, is_subject, label, read_account};
use crate::domain::flow::RecordedEndpoints;
use crate::domain::ports::IdentityError;
use crate::domain::provider::Provider;
use crate::domain::secret::SecretString;
use crate::domain::token_set::{ProviderAccount, TokenResponse};
use crate::infra::outbound::{Http, Request};

/// Clocks differ by less than this.
const SKEW: SignedDuration = SignedDuration::from_secs(60);
/// Claims that a person recognises, best first.
const LABEL_CLAIMS: [&str; 3] = ["email", "preferred_username", "name"];

/// Which check an ID token failed. Fixed words: nothing of the token is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Problem {
    #[error("`openid` was granted, but there is no ID token")]
    Missing,
    #[error("it is not a signed JWT")]
    Malformed,
    #[error("its `alg` is missing or `none`")]
    Unsigned,
    #[error("its `iss` is another issuer's")]
    Issuer,
    #[error("its `aud` or `azp` is another client's")]
    Audience,
    #[error("its `exp` is missing or over")]
    Expired,
    #[error("its `iat` is missing or ahead")]
    IssuedAt,
    #[error("its `nonce` is missing or another flow's")]
    Nonce,
    #[error("its `sub` is missing or too long")]
    Subject,
}

/// What is known without asking anybody: from the ID token, then from the token answer.
pub(super) fn told(
    provider: &Provider,
    endpoints: &RecordedEndpoints,
    response: &TokenResponse,
    nonce: &SecretString,
    now: Timestamp,
) -> Result<ProviderAccount, IdentityError> {
    if !provider.identity.id_token {
        return Ok(response.account.clone());
    }
    let verified = match &response.id_token {
        Some(token) => verify(provider, endpoints, token, nonce, now).map(Some),
        None if openid_granted(provider, response) => Err(Problem::Missing),
        None => Ok(None),
    };
    match verified {
        Ok(Some(account)) => Ok(account),
        Ok(None) => Ok(response.account.clone()),
        Err(problem) => {
            tracing::warn!(provider = %provider.id, %problem, "the ID token was refused");
            Err(IdentityError)
        }
    }
}

/// Asks the userinfo endpoint for what is still missing. Its failure costs only the label.
pub(super) async fn ask(
    http: &Http,
    provider: &Provider,
    endpoints: &RecordedEndpoints,
    access_token: &SecretString,
    told: ProviderAccount,
    until: Instant,
) -> ProviderAccount {
    let Some(userinfo) = &provider.identity.userinfo else { return told };
    let Some(url) = userinfo.url.as_ref().or(endpoints.userinfo.as_ref()) else { return told };
    if told.subject.is_some() && told.label.is_some() {
        return told;
    }
    let (Ok(headers), Ok(token)) = (fixed_headers(provider), bearer(access_token)) else { return told };
    let mut request = Request { headers, ..Request::get(url.clone()) };
    authorize(&mut request, token);
    let document = match http.send_by(route(provider, url), request, until).await {
        Ok(answer) if answer.status.is_success() => document(&answer),
        Ok(_) | Err(_) => None,
    };
    let Some(document) = document else {
        tracing::debug!(provider = %provider.id, "the userinfo endpoint gave no answer");
        return told;
    };
    let asked = read_account(&document, &userinfo.pointers);
    match (&told.subject, &asked.subject) {
        // OpenID Connect Core section 5.3.2: an answer about somebody else is not used.
        (Some(told_subject), Some(asked_subject)) if told_subject != asked_subject => told,
        _ => ProviderAccount { subject: told.subject.or(asked.subject), label: told.label.or(asked.label) },
    }
}

fn openid_granted(provider: &Provider, response: &TokenResponse) -> bool {
    let listed = response.scopes.as_ref().is_some_and(|s| s.iter().any(|scope| scope.as_str() == "openid"));
    provider.authorization.nonce && listed
}

/// OpenID Connect Core section 3.1.3.7 without the signature: the token came from the token endpoint itself, and TLS
/// vouches for that (point 6).
fn verify(
    provider: &Provider,
    endpoints: &RecordedEndpoints,
    token: &SecretString,
    nonce: &SecretString,
    now: Timestamp,
) -> Result<ProviderAccount, Problem> {
    let parts: Vec<&str> = token.expose_secret().split('.').collect();
    let [header, claims, signature] = parts[..] else { return Err(Problem::Malformed) };
    if signature.is_empty() {
        return Err(Problem::Unsigned);
    }
    let header = object(header)?;
    let claims = object(claims)?;
    match header.get("alg").and_then(Value::as_str) {
        Some(alg) if !alg.is_empty() && !alg.eq_ignore_ascii_case("none") => {}
        _ => return Err(Problem::Unsigned),
    }
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    // A provider that is configured without an issuer has none to compare with.
    if let Some(issuer) = &endpoints.issuer
        && text("iss") != Some(issuer)
    {
        return Err(Problem::Issuer);
    }
    audience(&claims, &provider.client.id)?;
    match time(&claims, "exp") {
        Some(end) if now.duration_since(end) < SKEW => {}
        _ => return Err(Problem::Expired),
    }
    match time(&claims, "iat") {
        Some(issued) if issued.duration_since(now) <= SKEW => {}
        _ => return Err(Problem::IssuedAt),
    }
    if provider.authorization.nonce && text("nonce") != Some(nonce.expose_secret()) {
        return Err(Problem::Nonce);
    }
    let subject = text("sub").filter(|subject| is_subject(subject)).ok_or(Problem::Subject)?;
    let label = LABEL_CLAIMS.iter().find_map(|name| label(text(name)?));
    Ok(ProviderAccount { subject: Some(subject.to_owned()), label })
}

fn object(part: &str) -> Result<Value, Problem> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| Problem::Malformed)?;
    let value: Value = serde_json::from_slice(&bytes).map_err(|_| Problem::Malformed)?;
    if value.is_object() { Ok(value) } else { Err(Problem::Malformed) }
}

/// Points 3 to 5: this client is among the audiences; of several, or if it is named, `azp` is this client.
fn audience(claims: &Value, client_id: &str) -> Result<(), Problem> {
    let (ours, several) = match claims.get("aud") {
        Some(Value::String(audience)) => (audience == client_id, false),
        Some(Value::Array(all)) => (all.iter().any(|a| a.as_str() == Some(client_id)), all.len() > 1),
        _ => (false, false),
    };
    let authorized = match claims.get("azp") {
        None | Some(Value::Null) => !several,
        Some(azp) => azp.as_str() == Some(client_id),
    };
    if ours && authorized { Ok(()) } else { Err(Problem::Audience) }
}

/// A `NumericDate` (RFC 7519 section 2), whole or not.
fn time(claims: &Value, name: &str) -> Option<Timestamp> {
    let seconds = claims.get(name)?.as_f64()?;
    #[expect(clippy::cast_possible_truncation, reason = "the cast saturates, and such times are refused")]
    Timestamp::from_second(seconds.floor() as i64).ok()
}
