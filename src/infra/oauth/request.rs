//! Authorization URLs and token requests.
//!
//! The `oauth2` crate builds them: parameters, client authentication, PKCE. It does not send them and does not read the
//! answers: its answer types know neither errors inside 200, nor values at JSON pointers, nor lifetimes as strings, and
//! they do not tell "nothing was spent" from "unknown", on which the refresh protocol rests.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use oauth2::basic::{BasicClient, BasicErrorResponse};
use oauth2::{
    AuthType, AuthUrl, AuthorizationCode, ClientId, ClientSecret, CsrfToken, HttpRequest, HttpResponse,
    PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, RefreshToken, RequestTokenError, TokenUrl,
};
use url::{Url, form_urlencoded};

use crate::domain::flow::RecordedEndpoints;
use crate::domain::ports::{AuthorizationRequest, ProviderFailure};
use crate::domain::provider::{AUTHORIZATION_RESERVED, TOKEN_RESERVED};
use crate::domain::provider::{BodyFormat, Client, ClientAuth, Provider};
use crate::domain::scope::ScopeSet;
use crate::domain::secret::SecretString;
use crate::infra::outbound::{Request, is_allowed};

fn refuse_reserved(params: &BTreeMap<String, String>, reserved: &[&str]) -> Result<(), ProviderFailure> {
    if reserved.iter().any(|name| params.contains_key(*name)) {
        return Err(ProviderFailure::Refused);
    }
    Ok(())
}

/// RFC 7636 section 4.1: 43 to 128 of the unreserved characters.
fn is_verifier(verifier: &str) -> bool {
    (43..=128).contains(&verifier.len())
        && verifier.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b))
}

/// The URL that the browser is sent to (RFC 6749 section 4.1.1, RFC 7636 section 4.3).
pub(super) fn authorization_url(
    provider: &Provider,
    request: AuthorizationRequest<'_>,
) -> Result<SecretString, ProviderFailure> {
    let rules = &provider.authorization;
    let endpoint = &request.endpoints.authorization;
    refuse_reserved(&rules.params, AUTHORIZATION_RESERVED)?;
    refuse_reserved(&endpoint.query_pairs().into_owned().collect(), AUTHORIZATION_RESERVED)?;
    if !is_allowed(endpoint) || rules.params.contains_key(&rules.scope_param) {
        return Err(ProviderFailure::Refused);
    }

    let client = BasicClient::new(ClientId::new(provider.client.id.clone()))
        .set_auth_uri(AuthUrl::from_url(endpoint.clone()))
        .set_redirect_uri(RedirectUrl::from_url(request.redirect_uri.clone()));
    let state = request.secrets.state.expose_secret().to_owned();
    let mut built = client.authorize_url(|| CsrfToken::new(state));
    if rules.pkce {
        let verifier = request.secrets.code_verifier.expose_secret();
        if !is_verifier(verifier) {
            return Err(ProviderFailure::Refused);
        }
        let verifier = PkceCodeVerifier::new(verifier.to_owned());
        built = built.set_pkce_challenge(PkceCodeChallenge::from_code_verifier_sha256(&verifier));
    }
    if !request.scopes.is_empty() {
        let scopes = request.scopes.join(&rules.scope_separator);
        built = built.add_extra_param(rules.scope_param.as_str(), scopes);
    }
    if rules.nonce {
        built = built.add_extra_param("nonce", request.secrets.nonce.expose_secret());
    }
    if let Some(hint) = request.login_hint {
        built = built.add_extra_param("login_hint", hint);
    }
    for (name, value) in &rules.params {
        built = built.add_extra_param(name.as_str(), value.as_str());
    }
    let (url, _) = built.url();
    Ok(SecretString::new(url.into()))
}

/// The exchange of a code (RFC 6749 section 4.1.3).
pub(super) async fn exchange(
    provider: &Provider,
    endpoints: &RecordedEndpoints,
    assertion: Option<&SecretString>,
    redirect_uri: &Url,
    code: &SecretString,
    verifier: &SecretString,
) -> Result<Request, ProviderFailure> {
    refuse_reserved(&provider.token.exchange_params, TOKEN_RESERVED)?;
    let client = crate_client(&provider.client).set_token_uri(TokenUrl::from_url(endpoints.token.clone()));
    let mut request = client
        .exchange_code(AuthorizationCode::new(code.expose_secret().to_owned()))
        .set_redirect_uri(Cow::Owned(RedirectUrl::from_url(redirect_uri.clone())));
    if provider.authorization.pkce {
        request = request.set_pkce_verifier(PkceCodeVerifier::new(verifier.expose_secret().to_owned()));
    }
    for (name, value) in &provider.token.exchange_params {
        request = request.add_extra_param(name.as_str(), value.as_str());
    }
    let built = handed_over(request.request_async(&hand_over).await.err())?;
    finish(provider, &endpoints.token, assertion, &built)
}

/// A refresh (RFC 6749 section 6).
pub(super) async fn refresh(
    provider: &Provider,
    endpoints: &RecordedEndpoints,
    assertion: Option<&SecretString>,
    refresh_token: &SecretString,
    scopes: &ScopeSet,
) -> Result<Request, ProviderFailure> {
    refuse_reserved(&provider.token.refresh_params, TOKEN_RESERVED)?;
    let client = crate_client(&provider.client).set_token_uri(TokenUrl::from_url(endpoints.token.clone()));
    let token = RefreshToken::new(refresh_token.expose_secret().to_owned());
    let mut request = client.exchange_refresh_token(&token);
    if provider.token.scopes_at_refresh && !scopes.is_empty() {
        request = request.add_extra_param("scope", scopes.join(&provider.authorization.scope_separator));
    }
    for (name, value) in &provider.token.refresh_params {
        request = request.add_extra_param(name.as_str(), value.as_str());
    }
    let built = handed_over(request.request_async(&hand_over).await.err())?;
    finish(provider, &endpoints.token, assertion, &built)
}

fn crate_client(client: &Client) -> BasicClient {
    let auth_type = match client.auth {
        ClientAuth::Basic => AuthType::BasicAuth,
        // Without a secret the crate puts the client's id alone into the body, which goes with an assertion and with a
        // certificate (RFC 8705 section 2).
        ClientAuth::Post | ClientAuth::PrivateKeyJwt | ClientAuth::TlsCertificate | ClientAuth::None => {
            AuthType::RequestBody
        }
    };
    let built = BasicClient::new(ClientId::new(client.id.clone())).set_auth_type(auth_type);
    match (&client.secret, client.auth) {
        (Some(secret), ClientAuth::Basic | ClientAuth::Post) => {
            built.set_client_secret(ClientSecret::new(secret.expose_secret().to_owned()))
        }
        (_, ClientAuth::PrivateKeyJwt | ClientAuth::TlsCertificate | ClientAuth::None) | (None, _) => built,
    }
}

/// A request on its way out of the `oauth2` crate, which gives requests to its HTTP client only. Ours hands them over to
/// us as its error.
struct HandedOver(HttpRequest);

impl fmt::Debug for HandedOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HandedOver")
    }
}

impl fmt::Display for HandedOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("handed over")
    }
}

impl std::error::Error for HandedOver {}

fn hand_over(request: HttpRequest) -> std::future::Ready<Result<HttpResponse, HandedOver>> {
    std::future::ready(Err(HandedOver(request)))
}

fn handed_over(
    error: Option<RequestTokenError<HandedOver, BasicErrorResponse>>,
) -> Result<HttpRequest, ProviderFailure> {
    match error {
        Some(RequestTokenError::Request(HandedOver(request))) => Ok(request),
        // The crate could not build it: nothing was sent, and trying again gives the same.
        Some(
            RequestTokenError::ServerResponse(_) | RequestTokenError::Parse(..) | RequestTokenError::Other(_),
        )
        | None => Err(ProviderFailure::Refused),
    }
}

/// Adds what the provider wants besides.
fn finish(
    provider: &Provider,
    url: &Url,
    assertion: Option<&SecretString>,
    built: &HttpRequest,
) -> Result<Request, ProviderFailure> {
    let mut params: Vec<_> = form_urlencoded::parse(built.body()).into_owned().collect();
    params.extend(assertion_params(assertion));
    let mut request = with_body(provider, Method::POST, url.clone(), provider.token.body, &params)?;
    if let Some(authorization) = built.headers().get(header::AUTHORIZATION) {
        authorize(&mut request, authorization.clone());
    }
    Ok(request)
}

/// RFC 7521 section 4.2.
pub(super) fn assertion_params(assertion: Option<&SecretString>) -> Vec<(String, String)> {
    let Some(assertion) = assertion else { return Vec::new() };
    vec![
        (
            "client_assertion_type".to_owned(),
            "urn:ietf:params:oauth:client-assertion-type:jwt-bearer".to_owned(),
        ),
        ("client_assertion".to_owned(), assertion.expose_secret().to_owned()),
    ]
}

/// A request with these parameters in its body and the provider's fixed headers.
pub(super) fn with_body(
    provider: &Provider,
    method: Method,
    url: Url,
    format: BodyFormat,
    params: &[(String, String)],
) -> Result<Request, ProviderFailure> {
    let mut request = Request { method, url, headers: fixed_headers(provider)?, body: Vec::new() };
    if params.is_empty() {
        if request.method == Method::POST {
            // Servers may refuse a POST that does not say how long it is (RFC 9110 section 8.6).
            request.headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        return Ok(request);
    }
    let (content_type, body) = match format {
        BodyFormat::Form => {
            let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(params).finish();
            ("application/x-www-form-urlencoded", body.into_bytes())
        }
        BodyFormat::Json => {
            let object: BTreeMap<&str, &str> = params.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            let body = serde_json::to_vec(&object).map_err(|_| ProviderFailure::Refused)?;
            ("application/json", body)
        }
    };
    request.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    request.body = body;
    Ok(request)
}

/// The provider's fixed headers over our defaults. What frames a message is not theirs to say.
pub(super) fn fixed_headers(provider: &Provider) -> Result<HeaderMap, ProviderFailure> {
    let framing = BTreeSet::from(
        [
            header::AUTHORIZATION,
            header::CONNECTION,
            header::CONTENT_LENGTH,
            header::CONTENT_TYPE,
            header::COOKIE,
            header::HOST,
            header::TRANSFER_ENCODING,
        ]
        .map(|name| name.as_str().to_owned()),
    );
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    for (name, value) in &provider.token.headers {
        let name = HeaderName::try_from(name).map_err(|_| ProviderFailure::Refused)?;
        let value = HeaderValue::try_from(value).map_err(|_| ProviderFailure::Refused)?;
        if !framing.contains(name.as_str()) {
            headers.insert(name, value);
        }
    }
    Ok(headers)
}

/// Sets the `Authorization` header, marked so that formatting the headers does not show it.
pub(super) fn authorize(request: &mut Request, mut value: HeaderValue) {
    value.set_sensitive(true);
    request.headers.insert(header::AUTHORIZATION, value);
}

/// The client's id and secret by HTTP Basic, each form-encoded first (RFC 6749 section 2.3.1).
pub(super) fn basic(client: &Client) -> Result<HeaderValue, ProviderFailure> {
    let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let secret = client.secret.as_ref().map_or("", SecretString::expose_secret);
    let pair = STANDARD.encode(format!("{}:{}", encode(&client.id), encode(secret)));
    HeaderValue::try_from(format!("Basic {pair}")).map_err(|_| ProviderFailure::Refused)
}

/// A token as Bearer (RFC 6750 section 2.1). A token that is no header value can't be presented.
pub(super) fn bearer(token: &SecretString) -> Result<HeaderValue, ProviderFailure> {
    HeaderValue::try_from(format!("Bearer {}", token.expose_secret())).map_err(|_| ProviderFailure::Refused)
}
