//! What requests have to look like.

use std::collections::BTreeMap;

use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};
use token_broker::domain::provider::{BodyFormat, Client, ClientAuth, Provider};
use token_broker::domain::secret::SecretString;
use url::{Url, form_urlencoded};

use super::{Code, Scene};

/// Parameters that are taken one by one; what is left over was not asked for.
pub(super) struct Params(BTreeMap<String, String>);

impl Params {
    /// A parameter twice is a mistake (RFC 6749 section 3.1).
    pub(super) fn new(pairs: impl IntoIterator<Item = (String, String)>) -> Result<Self, String> {
        let mut params = BTreeMap::new();
        for (name, value) in pairs {
            if params.insert(name.clone(), value).is_some() {
                return Err(format!("{name} is there twice"));
            }
        }
        Ok(Self(params))
    }

    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    pub(super) fn required(&mut self, name: &str) -> Result<String, String> {
        self.take(name).filter(|value| !value.is_empty()).ok_or_else(|| format!("{name} is missing"))
    }

    pub(super) fn exactly(&mut self, name: &str, value: &str) -> Result<(), String> {
        match self.take(name) {
            Some(found) if found == value => Ok(()),
            Some(found) => Err(format!("{name} is {found:?}, not {value:?}")),
            None => Err(format!("{name} is missing")),
        }
    }

    pub(super) fn fixed(&mut self, params: &BTreeMap<String, String>) -> Result<(), String> {
        params.iter().try_for_each(|(name, value)| self.exactly(name, value))
    }

    pub(super) fn nothing_left(self) -> Result<(), String> {
        match self.0.into_keys().next() {
            None => Ok(()),
            Some(name) => Err(format!("{name} was not asked for")),
        }
    }
}

/// RFC 6749 section 4.1.1, RFC 7636 section 4.3, OpenID Connect Core section 3.1.2.1, and what the definition adds.
pub(super) fn consent(scene: &Scene, link: &Url) -> Option<String> {
    match read_consent(scene, link) {
        Ok(code) => {
            let mut state = scene.state();
            let name = state.token("code");
            state.codes.insert(name.clone(), code);
            Some(name)
        }
        Err(problem) => {
            scene.complain(format!("authorization request: {problem}"));
            None
        }
    }
}

fn read_consent(scene: &Scene, link: &Url) -> Result<Code, String> {
    let (provider, rules) = (&scene.provider, &scene.provider.authorization);
    let mut endpoint = link.clone();
    endpoint.set_query(None);
    if endpoint != scene.endpoints.authorization {
        return Err(format!("it goes to {endpoint}"));
    }
    let mut params = Params::new(link.query_pairs().into_owned())?;
    params.exactly("response_type", "code")?;
    params.exactly("client_id", &provider.client.id)?;
    let redirect_uri = params.required("redirect_uri")?;
    if params.required("state")?.len() < 43 {
        return Err("the state is short".to_owned());
    }
    let challenge = if rules.pkce {
        params.exactly("code_challenge_method", "S256")?;
        Some(params.required("code_challenge")?)
    } else {
        None
    };
    let nonce = if rules.nonce { Some(params.required("nonce")?) } else { None };
    let scopes = match params.take(&rules.scope_param) {
        None => Vec::new(),
        Some(joined) => joined.split(&rules.scope_separator).map(str::to_owned).collect(),
    };
    let known = |scope: &String| {
        provider.services.values().any(|service| service.scopes.iter().any(|known| known.as_str() == scope))
    };
    if let Some(unknown) = scopes.iter().find(|scope| !known(scope)) {
        return Err(format!("there is no scope {unknown:?}"));
    }
    params.fixed(&rules.params)?;
    params.nothing_left()?;
    Ok(Code { redirect_uri, challenge, nonce, scopes })
}

/// Whether the verifier fits the challenge (RFC 7636 section 4.6).
pub(super) fn verifies(challenge: &str, verifier: &str) -> bool {
    URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes())) == challenge
}

/// The headers that the definition fixes.
pub(super) fn fixed_headers(provider: &Provider, headers: &HeaderMap) -> Result<(), String> {
    for (name, value) in &provider.token.headers {
        match headers.get_all(name).iter().collect::<Vec<_>>()[..] {
            [found] if found == value.as_str() => {}
            ref found => return Err(format!("header {name} is {found:?}, not {value:?}")),
        }
    }
    if headers.contains_key(header::COOKIE) || headers.contains_key(header::REFERER) {
        return Err("it has a cookie or a referrer".to_owned());
    }
    Ok(())
}

/// The parameters of a body of this format.
pub(super) fn body(format: BodyFormat, headers: &HeaderMap, body: &[u8]) -> Result<Params, String> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let expected = match format {
        BodyFormat::Form => "application/x-www-form-urlencoded",
        BodyFormat::Json => "application/json",
    };
    if content_type != Some(expected) {
        return Err(format!("content type {content_type:?}, not {expected:?}"));
    }
    match format {
        BodyFormat::Form => Params::new(form_urlencoded::parse(body).into_owned()),
        BodyFormat::Json => {
            let object: BTreeMap<String, String> =
                serde_json::from_slice(body).map_err(|_| "not an object of strings".to_owned())?;
            Params::new(object)
        }
    }
}

/// Why a client is refused.
pub(super) enum ClientProblem {
    /// Not the way that the definition says: the broker's fault.
    Manner(String),
    /// Another id or secret: `invalid_client`.
    Unknown,
}

impl From<String> for ClientProblem {
    fn from(problem: String) -> Self {
        Self::Manner(problem)
    }
}

/// The client authenticates in this one way and in no other (RFC 6749 section 2.3).
pub(super) fn client(
    client: &Client,
    auth: ClientAuth,
    headers: &HeaderMap,
    params: &mut Params,
) -> Result<(), ClientProblem> {
    let authorization = headers.get(header::AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned());
    let secret = client.secret.as_ref().map(SecretString::expose_secret);
    let (id, found) = match auth {
        ClientAuth::Basic => {
            let (id, found) = basic(authorization.as_deref())?;
            (id, Some(found))
        }
        ClientAuth::Post => (params.required("client_id")?, Some(params.required("client_secret")?)),
        ClientAuth::TlsCertificate | ClientAuth::None => (params.required("client_id")?, None),
        ClientAuth::PrivateKeyJwt => {
            return Err("no built-in entry has it: oauth_client/client_keys.rs plays that".to_owned().into());
        }
    };
    if auth != ClientAuth::Basic && authorization.is_some() {
        return Err("an Authorization header was not asked for".to_owned().into());
    }
    // What is left over is refused later: here, a second client id or secret.
    if id == client.id && found.as_deref() == secret { Ok(()) } else { Err(ClientProblem::Unknown) }
}

/// Id and secret are form-encoded before they are joined (RFC 6749 section 2.3.1).
fn basic(authorization: Option<&str>) -> Result<(String, String), String> {
    let text = authorization
        .and_then(|text| text.strip_prefix("Basic "))
        .ok_or("Basic authentication is missing")?;
    let bytes = STANDARD.decode(text).map_err(|_| "Basic is not base64")?;
    let pair = String::from_utf8(bytes).map_err(|_| "Basic is not UTF-8")?;
    let (id, secret) = pair.split_once(':').ok_or("Basic has no colon")?;
    let decode = |text: &str| {
        let decoded = form_urlencoded::parse(text.as_bytes()).into_owned().next().map(|(name, _)| name);
        decoded.unwrap_or_default()
    };
    Ok((decode(id), decode(secret)))
}

/// The token of a Bearer header.
pub(super) fn bearer(headers: &HeaderMap) -> Result<String, String> {
    let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = value.and_then(|value| value.strip_prefix("Bearer "));
    token.map(str::to_owned).ok_or_else(|| "Bearer is missing".to_owned())
}
