//! Ending a grant at the provider: RFC 7009, or a call of the provider's own.
//!
//! Calls may be repeated without harm, so what is not known to be done is a failure that the outbox tries again.

use http::{Method, StatusCode};
use jiff::Timestamp;
use serde_json::Value;
use url::Url;

use super::classify::{Flag, by_code, by_status, error_code, retry_after, success_flag};
use super::request::{assertion_params, authorize, basic, bearer, with_body};
use super::response::document;
use crate::domain::ports::{ProviderFailure, RevocationOutcome};
use crate::domain::provider::{
    BodyFormat, ClientAuth, Provider, RevocationAuth, RevocationCall, RevocationMethod, RevokedToken,
};
use crate::domain::secret::SecretString;
use crate::infra::outbound::{Answer, Request};

/// The token that is presented.
#[derive(Clone, Copy)]
pub(super) struct Presented<'a> {
    token: &'a SecretString,
    is_refresh: bool,
    /// Whether the grant is dead if this token is. Not so for an access token beside a refresh token: it may merely
    /// have expired.
    stands_for_grant: bool,
}

impl<'a> Presented<'a> {
    /// Chooses by the provider's rule.
    pub(super) fn choose(
        rule: RevokedToken,
        access: &'a SecretString,
        refresh: Option<&'a SecretString>,
    ) -> Self {
        match (rule, refresh) {
            (RevokedToken::RefreshElseAccess, Some(token)) => {
                Self { token, is_refresh: true, stands_for_grant: true }
            }
            (RevokedToken::RefreshElseAccess, None) | (RevokedToken::Access, _) => {
                Self { token: access, is_refresh: false, stands_for_grant: refresh.is_none() }
            }
        }
    }
}

/// RFC 7009 section 2.1.
pub(super) fn rfc7009(
    provider: &Provider,
    url: &Url,
    assertion: Option<&SecretString>,
    presented: Presented<'_>,
) -> Result<Request, ProviderFailure> {
    let hint = if presented.is_refresh { "refresh_token" } else { "access_token" };
    let mut params = vec![
        ("token".to_owned(), presented.token.expose_secret().to_owned()),
        ("token_type_hint".to_owned(), hint.to_owned()),
    ];
    let mut authorization = None;
    match provider.client.auth {
        ClientAuth::Basic => authorization = Some(basic(&provider.client)?),
        ClientAuth::Post | ClientAuth::PrivateKeyJwt => params.extend(client_params(provider, assertion)),
        ClientAuth::TlsCertificate | ClientAuth::None => {
            params.push(("client_id".to_owned(), provider.client.id.clone()));
        }
    }
    let mut request = with_body(provider, Method::POST, url.clone(), BodyFormat::Form, &params)?;
    if let Some(authorization) = authorization {
        authorize(&mut request, authorization);
    }
    Ok(request)
}

/// A call of the provider's own.
pub(super) fn described(
    provider: &Provider,
    call: &RevocationCall,
    assertion: Option<&SecretString>,
    presented: Presented<'_>,
) -> Result<Request, ProviderFailure> {
    let method = match call.method {
        RevocationMethod::Post => Method::POST,
        RevocationMethod::Delete => Method::DELETE,
        RevocationMethod::Get => Method::GET,
    };
    let mut params = Vec::new();
    if let Some(name) = &call.token_param {
        params.push((name.clone(), presented.token.expose_secret().to_owned()));
    }
    let authorization = match call.auth {
        // A client without a secret authenticates here as everywhere.
        RevocationAuth::ClientBasic if provider.client.secret.is_some() => Some(basic(&provider.client)?),
        RevocationAuth::Bearer => Some(bearer(presented.token)?),
        RevocationAuth::ClientBasic | RevocationAuth::ClientBody => {
            params.extend(client_params(provider, assertion));
            None
        }
    };
    // A GET has no body, and secrets do not go into URLs. The loader refuses such a definition.
    if method == Method::GET && !params.is_empty() {
        return Err(ProviderFailure::Refused);
    }
    let mut request = with_body(provider, method, call_url(provider, call)?, call.body, &params)?;
    if let Some(authorization) = authorization {
        authorize(&mut request, authorization);
    }
    Ok(request)
}

fn client_params(provider: &Provider, assertion: Option<&SecretString>) -> Vec<(String, String)> {
    let mut params = vec![("client_id".to_owned(), provider.client.id.clone())];
    if let Some(secret) = &provider.client.secret {
        params.push(("client_secret".to_owned(), secret.expose_secret().to_owned()));
    }
    params.extend(assertion_params(assertion));
    params
}

/// The client's id is data: encoded, it stays within its path segment.
fn call_url(provider: &Provider, call: &RevocationCall) -> Result<Url, ProviderFailure> {
    let id: String = url::form_urlencoded::byte_serialize(provider.client.id.as_bytes()).collect();
    let id = id.replace('+', "%20");
    Url::parse(&call.url.replace("{client_id}", &id)).map_err(|_| ProviderFailure::Refused)
}

/// Reads the answer.
pub(super) fn answer(
    provider: &Provider,
    answer: &Answer,
    presented: Presented<'_>,
    by_bearer: bool,
    now: Timestamp,
) -> Result<RevocationOutcome, ProviderFailure> {
    // RFC 7009 section 2.2.1: the token still exists; come back when told.
    if answer.status == StatusCode::SERVICE_UNAVAILABLE
        && let Some(wait) = retry_after(&answer.headers, now)
    {
        return Err(ProviderFailure::RateLimited { retry_after: Some(wait) });
    }
    if let Some(failure) = by_status(answer, now) {
        return Err(failure);
    }
    let rules = &provider.response;
    let document = document(answer);
    let code = document.as_ref().and_then(|document| error_code(rules, document));
    let dead_already = |failure| {
        if presented.stands_for_grant { Ok(RevocationOutcome::Revoked) } else { Err(failure) }
    };
    match code.as_deref() {
        Some("invalid_token" | "invalid_grant") => return dead_already(ProviderFailure::Refused),
        Some(code) => return Err(by_code(code, answer, now)),
        None => {}
    }
    if answer.status.is_success() {
        // RFC 7009 section 2.2: the body means nothing, except where the provider has a flag in it.
        let flag = success_flag(rules, document.as_ref().unwrap_or(&Value::Null));
        return match flag {
            Flag::Success if answer.body.is_some() => Ok(RevocationOutcome::Revoked),
            Flag::Success | Flag::Unclear => Err(ProviderFailure::Ambiguous),
            Flag::Failure => Err(ProviderFailure::Refused),
        };
    }
    match (answer.status, by_bearer) {
        (StatusCode::UNAUTHORIZED, true) => dead_already(ProviderFailure::Refused),
        (StatusCode::UNAUTHORIZED, false) if answer.body.is_some() => Err(ProviderFailure::ClientRejected),
        _ => Err(ProviderFailure::Refused),
    }
}
