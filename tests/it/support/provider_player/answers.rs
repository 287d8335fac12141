//! What answers look like.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};
use token_broker::domain::provider::{AccountPointers, Provider};
use token_broker::domain::scope::Scope;

use super::Scene;

/// The subject of everybody who consents.
pub(crate) const ACCOUNT: &str = "account-1";
/// How long access tokens live.
pub(crate) const LIFETIME_SECONDS: u64 = 3_600;

/// What stands at a pointer that has no meaning of its own here.
pub(crate) fn value_at(provider: &Provider, pointer: &str) -> String {
    let identity = &provider.identity;
    let userinfo = identity.userinfo.as_ref().map(|userinfo| &userinfo.pointers);
    let subjects = identity.token_response.iter().chain(userinfo).map(|account| &account.subject);
    if subjects.into_iter().any(|subject| subject == pointer) {
        ACCOUNT.to_owned()
    } else {
        format!("value of {pointer}")
    }
}

/// A JSON answer.
pub(super) fn json_answer(status: StatusCode, document: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], document.to_string()).into_response()
}

/// Puts a value at a pointer (RFC 6901).
fn put(document: &mut Value, pointer: &str, value: Value) {
    let mut here = document;
    for part in pointer.split('/').skip(1) {
        let name = part.replace("~1", "/").replace("~0", "~");
        if !here.is_object() {
            *here = Value::Object(Map::new());
        }
        here = here.as_object_mut().unwrap().entry(name).or_insert(Value::Null);
    }
    *here = value;
}

/// The tokens that an answer carries.
pub(super) struct Issued<'a> {
    pub(super) access: &'a str,
    pub(super) refresh: Option<&'a str>,
    pub(super) scopes: &'a [String],
    pub(super) id_token: Option<String>,
    /// An exchange is answered at the first pointers with a number for the lifetime, a refresh at the last ones with a
    /// text: both have to be understood.
    pub(super) is_exchange: bool,
}

/// RFC 6749 section 5.1, by the definition.
pub(super) fn success(provider: &Provider, issued: &Issued<'_>) -> Response {
    let rules = &provider.response;
    let pick = |pointers: &[String]| {
        if issued.is_exchange { pointers.first().cloned() } else { pointers.last().cloned() }
    };
    let mut document = json!({});
    if let Some(pointer) = &rules.success_flag {
        put(&mut document, pointer, Value::Bool(true));
    }
    for pointer in rules.extra.values() {
        put(&mut document, pointer, json!(value_at(provider, pointer)));
    }
    if let Some(account) = &provider.identity.token_response {
        put_account(provider, &mut document, account);
    }
    put(&mut document, "/token_type", json!("bearer"));
    put(&mut document, &pick(&rules.access_token).unwrap(), json!(issued.access));
    if let (Some(pointer), Some(refresh)) = (pick(&rules.refresh_token), issued.refresh) {
        put(&mut document, &pointer, json!(refresh));
    }
    if let Some(pointer) = pick(&rules.expires_in) {
        let units = LIFETIME_SECONDS * 1_000 / rules.expires_in_unit_ms;
        let lifetime = if issued.is_exchange { json!(units) } else { json!(units.to_string()) };
        put(&mut document, &pointer, lifetime);
    }
    if let Some(pointer) = pick(&rules.scope) {
        put(&mut document, &pointer, json!(listed(provider, issued.scopes)));
    }
    if let Some(id_token) = &issued.id_token {
        put(&mut document, "/id_token", json!(id_token));
    }
    json_answer(StatusCode::OK, &document)
}

/// The granted scopes as this provider lists them: by its own names, without those that others contain and those that
/// it never lists, joined by the last of its separators.
fn listed(provider: &Provider, scopes: &[String]) -> String {
    let rules = &provider.response;
    let scopes: Vec<Scope> = scopes.iter().map(|scope| Scope::new(scope.as_str()).unwrap()).collect();
    let contained = |scope: &Scope| {
        scopes.iter().filter_map(|wide| rules.scope_implies.get(wide)).any(|narrow| narrow.contains(scope))
    };
    let own_name = |scope: &Scope| {
        let alias = rules.scope_aliases.iter().find(|(_, requested)| *requested == scope);
        alias.map_or(scope, |(granted, _)| granted).to_string()
    };
    let names: Vec<String> = scopes
        .iter()
        .filter(|scope| !rules.scopes_never_listed.contains(scope) && !contained(scope))
        .map(own_name)
        .collect();
    names.join(&rules.scope_separators.chars().next_back().unwrap().to_string())
}

fn put_account(provider: &Provider, document: &mut Value, account: &AccountPointers) {
    for pointer in std::iter::once(&account.subject).chain(account.label.first()) {
        put(document, pointer, json!(value_at(provider, pointer)));
    }
}

/// The answer of the userinfo endpoint.
pub(super) fn userinfo(provider: &Provider) -> Response {
    let mut document = json!({});
    if let Some(userinfo) = &provider.identity.userinfo {
        put_account(provider, &mut document, &userinfo.pointers);
    }
    json_answer(StatusCode::OK, &document)
}

/// An ID token. Its signature is nothing: the TLS connection would vouch for it.
pub(super) fn id_token(scene: &Scene, nonce: &str) -> String {
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = json!({
        "iss": scene.endpoints.issuer,
        "aud": scene.provider.client.id,
        "sub": ACCOUNT,
        "email": "account-1@example.com",
        "nonce": nonce,
        "iat": scene.now,
        "exp": scene.now + 300,
    });
    format!("{}.{}.{}", part(json!({"alg": "RS256"})), part(claims), URL_SAFE_NO_PAD.encode("signature"))
}

/// RFC 6749 section 5.2 in this provider's words, with this status.
pub(super) fn error(provider: &Provider, word: &str, status: u16) -> Response {
    let mut document = json!({});
    if let Some(pointer) = &provider.response.success_flag {
        put(&mut document, pointer, Value::Bool(false));
    }
    put(&mut document, &provider.response.error, json!(word));
    json_answer(StatusCode::from_u16(status).unwrap(), &document)
}

/// The provider's first own word for a standard code, else the code.
pub(super) fn word_for(provider: &Provider, code: &str) -> String {
    let aliases = &provider.response.error_aliases;
    let own = aliases.iter().find(|(_, standard)| *standard == code).map(|(word, _)| word.clone());
    own.unwrap_or_else(|| code.to_owned())
}

/// A refusal in the provider's manner: inside 200 where it has a flag for success or words of its own, else 400.
pub(super) fn refusal(provider: &Provider, code: &str) -> Response {
    let word = word_for(provider, code);
    let inside = provider.response.success_flag.is_some() || word != code;
    error(provider, &word, if inside { 200 } else { 400 })
}
