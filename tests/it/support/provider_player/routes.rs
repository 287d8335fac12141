//! The endpoints.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State as Extract;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::json;
use token_broker::domain::provider::{
    EndpointSource, Revocation, RevocationAuth, RevocationCall, RevocationMethod, RevokedToken, Rotation,
};
use url::Url;

use super::answers::{self, Issued};
use super::request::{self, ClientProblem, Params};
use super::{Grant, Mishap, Scene, State};

pub(super) fn router(scene: Arc<Scene>) -> Router {
    Router::new().fallback(dispatch).with_state(scene)
}

async fn dispatch(
    Extract(scene): Extract<Arc<Scene>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if let Some(mishap) = scene.state().mishap.take() {
        return happen(&scene, &mishap);
    }
    let handled = handle(&scene, &method, &uri, &headers, &body);
    handled.unwrap_or_else(|problem| {
        scene.complain(format!("{method} {}: {problem}", uri.path()));
        answers::refusal(&scene.provider, "invalid_request")
    })
}

fn happen(scene: &Scene, mishap: &Mishap) -> Response {
    match mishap {
        Mishap::Error { word, status } => answers::error(&scene.provider, word, *status),
        Mishap::Status(status, retry_after) => {
            let mut response = StatusCode::from_u16(*status).unwrap().into_response();
            if let Some(seconds) = retry_after {
                response.headers_mut().insert(header::RETRY_AFTER, (*seconds).into());
            }
            response
        }
    }
}

fn handle(
    scene: &Scene,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Response, String> {
    let endpoints = &scene.endpoints;
    let at = |url: Option<&Url>| url.is_some_and(|url| url.path() == uri.path());
    if uri.query().is_some() {
        return Err("there is a query, and secrets do not belong there".to_owned());
    }
    if let Some(metadata) = metadata(scene, uri) {
        return Ok(metadata);
    }
    request::fixed_headers(&scene.provider, headers)?;
    if at(Some(&endpoints.token)) && method == Method::POST {
        return token(scene, headers, body);
    }
    if at(endpoints.userinfo.as_ref()) && method == Method::GET {
        let token = request::bearer(headers)?;
        let known = scene.state().grants.iter().any(|grant| grant.access.contains(&token));
        let refused = || StatusCode::UNAUTHORIZED.into_response();
        return Ok(if known { answers::userinfo(&scene.provider) } else { refused() });
    }
    match &scene.provider.revocation {
        Revocation::Rfc7009 { token } if at(endpoints.revocation.as_ref()) && method == Method::POST => {
            rfc7009(scene, *token, headers, body)
        }
        Revocation::Call(call) if is_call(scene, call, method, uri) => described(scene, call, headers, body),
        _ => Err("there is no such endpoint".to_owned()),
    }
}

/// OpenID Connect Discovery section 4.
fn metadata(scene: &Scene, uri: &Uri) -> Option<Response> {
    if uri.path() != "/.well-known/openid-configuration" {
        return None;
    }
    let EndpointSource::Discovered { issuer } = &scene.provider.endpoints else { return None };
    let endpoints = &scene.endpoints;
    let document = json!({
        "issuer": issuer,
        "authorization_endpoint": endpoints.authorization,
        "token_endpoint": endpoints.token,
        "revocation_endpoint": endpoints.revocation,
        "userinfo_endpoint": endpoints.userinfo,
    });
    Some(answers::json_answer(StatusCode::OK, &document))
}

fn token(scene: &Scene, headers: &HeaderMap, body: &[u8]) -> Result<Response, String> {
    let provider = &scene.provider;
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    if accept != Some("application/json") {
        return Err(format!("Accept is {accept:?}"));
    }
    let mut params = request::body(provider.token.body, headers, body)?;
    match request::client(&provider.client, provider.client.auth, headers, &mut params) {
        Ok(()) => {}
        Err(ClientProblem::Manner(problem)) => return Err(problem),
        Err(ClientProblem::Unknown) => return Ok(answers::refusal(provider, "invalid_client")),
    }
    match params.required("grant_type")?.as_str() {
        "authorization_code" => exchange(scene, params),
        "refresh_token" => refresh(scene, params),
        other => Err(format!("grant type {other:?}")),
    }
}

/// RFC 6749 section 4.1.3, RFC 7636 section 4.6.
fn exchange(scene: &Scene, mut params: Params) -> Result<Response, String> {
    let provider = &scene.provider;
    let invalid_grant = || Ok(answers::refusal(provider, "invalid_grant"));
    let code = params.required("code")?;
    let redirect_uri = params.required("redirect_uri")?;
    let verifier = if provider.authorization.pkce { Some(params.required("code_verifier")?) } else { None };
    params.fixed(&provider.token.exchange_params)?;
    params.nothing_left()?;

    let mut state = scene.state();
    // Used or not, a code is good for one try.
    let Some(code) = state.codes.remove(&code) else { return invalid_grant() };
    let fits = match (&code.challenge, &verifier) {
        (Some(challenge), Some(verifier)) => request::verifies(challenge, verifier),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    };
    if !fits || code.redirect_uri != redirect_uri {
        return invalid_grant();
    }
    let mut grant = Grant { alive: true, scopes: code.scopes, ..Grant::default() };
    let access = state.token("access");
    grant.access.push(access.clone());
    grant.refresh = (!provider.response.refresh_token.is_empty()).then(|| state.token("refresh"));
    let openid = provider.identity.id_token && grant.scopes.iter().any(|scope| scope == "openid");
    let id_token = openid.then(|| answers::id_token(scene, code.nonce.as_deref().unwrap_or_default()));
    let issued = Issued {
        access: &access,
        refresh: grant.refresh.as_deref(),
        scopes: &grant.scopes,
        id_token,
        is_exchange: true,
    };
    let response = answers::success(provider, &issued);
    state.grants.push(grant);
    Ok(response)
}

/// RFC 6749 section 6, with the definition's rotation.
fn refresh(scene: &Scene, mut params: Params) -> Result<Response, String> {
    let provider = &scene.provider;
    let presented = params.required("refresh_token")?;
    if provider.token.scopes_at_refresh {
        params.required("scope")?;
    }
    params.fixed(&provider.token.refresh_params)?;
    params.nothing_left()?;

    let state = &mut *scene.state();
    let (access, next) = (state.token("access"), state.token("refresh"));
    let known =
        |grant: &&mut Grant| grant.refresh.as_ref() == Some(&presented) || grant.spent.contains(&presented);
    let Some(grant) = state.grants.iter_mut().filter(|grant| grant.alive).find(known) else {
        return Ok(answers::refusal(provider, "invalid_grant"));
    };
    if grant.refresh.as_ref() != Some(&presented)
        && !within_grace(provider.refresh.rotation, grant, &presented)
    {
        // RFC 9700 section 4.14.2: somebody has a copy.
        *grant = Grant::default();
        return Ok(answers::refusal(provider, "invalid_grant"));
    }
    if provider.refresh.kills_access {
        grant.access.clear();
    }
    grant.access.push(access.clone());
    let refresh = match provider.refresh.rotation {
        Rotation::None => None,
        Rotation::Strict | Rotation::Grace(_) => {
            if let Some(used) = grant.refresh.replace(next.clone()) {
                grant.spent.push(used);
            }
            Some(next)
        }
    };
    let issued = Issued {
        access: &access,
        refresh: refresh.as_deref(),
        scopes: &grant.scopes,
        id_token: None,
        is_exchange: false,
    };
    Ok(answers::success(provider, &issued))
}

/// Time stands still here, so the last one used is within its grace and those before are not.
fn within_grace(rotation: Rotation, grant: &Grant, presented: &str) -> bool {
    match rotation {
        Rotation::Grace(_) => grant.spent.last().is_some_and(|last| last == presented),
        Rotation::None | Rotation::Strict => false,
    }
}

/// RFC 7009 section 2.
fn rfc7009(scene: &Scene, which: RevokedToken, headers: &HeaderMap, body: &[u8]) -> Result<Response, String> {
    let provider = &scene.provider;
    let mut params = request::body(token_broker::domain::provider::BodyFormat::Form, headers, body)?;
    match request::client(&provider.client, provider.client.auth, headers, &mut params) {
        Ok(()) => {}
        Err(ClientProblem::Manner(problem)) => return Err(problem),
        Err(ClientProblem::Unknown) => return Ok(answers::refusal(provider, "invalid_client")),
    }
    let token = params.required("token")?;
    let hint = params.take("token_type_hint");
    params.nothing_left()?;
    let state = &mut *scene.state();
    let is_refresh = end_grant(state, which, &token)?;
    if hint.is_some_and(|hint| hint != if is_refresh { "refresh_token" } else { "access_token" }) {
        return Err("the hint names another kind of token".to_owned());
    }
    // Section 2.2: 200, and the body means nothing.
    Ok(done(provider.response.success_flag.as_deref(), StatusCode::OK))
}

fn is_call(scene: &Scene, call: &RevocationCall, method: &Method, uri: &Uri) -> bool {
    let expected = match call.method {
        RevocationMethod::Post => Method::POST,
        RevocationMethod::Delete => Method::DELETE,
        RevocationMethod::Get => Method::GET,
    };
    // Segment by segment: the client's id may hold a slash, and has to stay in its own.
    let template = call.url.splitn(4, '/').nth(3).unwrap_or_default();
    let wanted = template.split('/').map(|part| part.replace("{client_id}", &scene.provider.client.id));
    let found = uri.path().trim_start_matches('/').split('/').map(decoded);
    *method == expected && wanted.eq(found)
}

/// A segment of a path without its percent encoding (RFC 3986 section 2.1).
fn decoded(segment: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = segment.as_bytes();
    while let [first, tail @ ..] = rest {
        let code = if *first == b'%' { tail.get(..2) } else { None };
        let code = code.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8(bytes).unwrap_or_default()
}

fn described(
    scene: &Scene,
    call: &RevocationCall,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Response, String> {
    let provider = &scene.provider;
    let has_body = call.token_param.is_some() || call.auth == RevocationAuth::ClientBody;
    let mut params = if has_body {
        request::body(call.body, headers, body)?
    } else if body.is_empty() && !headers.contains_key(header::CONTENT_TYPE) {
        Params::new([])?
    } else {
        return Err("a body was not asked for".to_owned());
    };
    let by_bearer = match call.auth {
        RevocationAuth::Bearer => Some(request::bearer(headers)?),
        RevocationAuth::ClientBasic | RevocationAuth::ClientBody => {
            let auth = if call.auth == RevocationAuth::ClientBasic {
                token_broker::domain::provider::ClientAuth::Basic
            } else {
                token_broker::domain::provider::ClientAuth::Post
            };
            match request::client(&provider.client, auth, headers, &mut params) {
                Ok(()) => None,
                Err(ClientProblem::Manner(problem)) => return Err(problem),
                Err(ClientProblem::Unknown) => return Ok(StatusCode::UNAUTHORIZED.into_response()),
            }
        }
    };
    let in_body = call.token_param.as_ref().map(|name| params.required(name)).transpose()?;
    params.nothing_left()?;
    let token = match (by_bearer, in_body) {
        (Some(one), Some(other)) if one != other => return Err("two tokens".to_owned()),
        (Some(token), _) | (None, Some(token)) => token,
        (None, None) => return Err("no token".to_owned()),
    };
    end_grant(&mut scene.state(), call.token, &token)?;
    let status =
        if call.method == RevocationMethod::Delete { StatusCode::NO_CONTENT } else { StatusCode::OK };
    Ok(done(provider.response.success_flag.as_deref(), status))
}

/// Ends the grant of this token, which has to be the one that the definition says. Whether it is a refresh token.
fn end_grant(state: &mut State, which: RevokedToken, token: &str) -> Result<bool, String> {
    let Some(grant) = state.grant_of(token) else { return Err(format!("{token:?} is not alive")) };
    let is_refresh = grant.refresh.as_deref() == Some(token);
    let wants_refresh = which == RevokedToken::RefreshElseAccess && grant.refresh.is_some();
    if is_refresh != wants_refresh {
        return Err(format!("{token:?} is not the token that ends the grant"));
    }
    *grant = Grant::default();
    state.revocations += 1;
    Ok(is_refresh)
}

fn done(success_flag: Option<&str>, status: StatusCode) -> Response {
    match success_flag {
        Some("/ok") => answers::json_answer(status, &json!({"ok": true})),
        Some(other) => panic!("teach the player the flag {other}"),
        None => status.into_response(),
    }
}
