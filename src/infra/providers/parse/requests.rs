//! `[client]`, `[authorization]`, `[token]`: what the broker sends.

use std::collections::BTreeMap;

use super::super::definition::SecretRule;
use super::super::reader::{At, Report, Section};
use super::values;
use crate::domain::provider::{AUTHORIZATION_RESERVED, TOKEN_RESERVED};
use crate::domain::provider::{AssertionAudience, AuthorizationRules, BodyFormat, ClientAuth, TokenRules};

/// Who the broker is there.
#[derive(Clone, Copy)]
pub(super) struct ClientRules {
    pub(super) auth: ClientAuth,
    pub(super) secret: SecretRule,
    pub(super) audience: AssertionAudience,
}

/// Headers that belong to the HTTP client or would carry a secret.
const HEADERS_RESERVED: &[&str] = &[
    "authorization",
    "proxy-authorization",
    "content-type",
    "content-length",
    "content-encoding",
    "transfer-encoding",
    "connection",
    "host",
    "cookie",
    "te",
    "upgrade",
];

/// `[client]`
pub(super) fn client(report: &mut Report<'_>, root: &mut Section<'_, '_>) -> ClientRules {
    let mut section = root.section(report, "client");
    let auths = [
        ("basic", ClientAuth::Basic),
        ("post", ClientAuth::Post),
        ("private_key_jwt", ClientAuth::PrivateKeyJwt),
        ("tls_client_auth", ClientAuth::TlsCertificate),
        ("none", ClientAuth::None),
    ];
    let auth = section.word(report, "auth", &auths).map_or(ClientAuth::Basic, |auth| auth.value);
    let secrets = [("required", SecretRule::Required), ("optional", SecretRule::Optional)];
    let secret = section.word(report, "secret", &secrets);
    let audiences =
        [("issuer", AssertionAudience::Issuer), ("token_endpoint", AssertionAudience::TokenEndpoint)];
    let audience = section.word(report, "assertion_audience", &audiences);
    section.finish(report);
    if auth == ClientAuth::None
        && let Some(audience) = &audience
    {
        report.at(audience, "a client with auth = \"none\" signs nothing; drop this line");
    }
    let audience = audience.map_or(AssertionAudience::Issuer, |audience| audience.value);
    let secret = match (auth, secret) {
        (ClientAuth::Basic | ClientAuth::Post, secret) => {
            secret.map_or(SecretRule::Required, |secret| secret.value)
        }
        (ClientAuth::PrivateKeyJwt | ClientAuth::TlsCertificate | ClientAuth::None, secret) => {
            if let Some(secret) = secret {
                report.at(&secret, "a client with this auth has no secret; drop this line");
            }
            SecretRule::Forbidden
        }
    };
    ClientRules { auth, secret, audience }
}

/// `[authorization]`
pub(super) fn authorization(report: &mut Report<'_>, root: &mut Section<'_, '_>) -> AuthorizationRules {
    let mut section = root.section(report, "authorization");
    let params = values::params(report, &mut section, "params", AUTHORIZATION_RESERVED);
    let pkce = section.text(report, "pkce").is_none_or(|word| pkce(report, &word));
    let nonce = section.flag(report, "openid").unwrap_or(false);
    let separator = section.text(report, "scope_separator").map(|separator| {
        if separator.value.len() > 3 || separator.value.bytes().any(|b| b.is_ascii_alphanumeric() || b > 0x7e)
        {
            report.at(&separator, "must be one to three characters such as \" \" or \",\"");
        }
        separator.value
    });
    let scope_param = section.text(report, "scope_param").map(|param| {
        if param.value != "scope" && AUTHORIZATION_RESERVED.contains(&param.value.as_str()) {
            report.at(&param, "is a parameter with another meaning");
        } else if params.contains_key(&param.value) {
            report.at(&param, "is among params too");
        }
        param.value
    });
    section.finish(report);
    AuthorizationRules {
        params,
        pkce,
        nonce,
        scope_separator: separator.unwrap_or_else(|| " ".to_owned()),
        scope_param: scope_param.unwrap_or_else(|| "scope".to_owned()),
    }
}

fn pkce(report: &mut Report<'_>, word: &At<String>) -> bool {
    match word.value.as_str() {
        "S256" => return true,
        "off" => return false,
        "plain" => report.at(
            word,
            "must be \"S256\": \"plain\" shows the verifier to whoever sees the request (RFC 9700 section 2.1.1)",
        ),
        _ => report.at(word, "must be \"S256\", or \"off\" for a provider that refuses it"),
    }
    true
}

/// `[token]`
pub(super) fn token(report: &mut Report<'_>, root: &mut Section<'_, '_>) -> TokenRules {
    let mut section = root.section(report, "token");
    let bodies = [("form", BodyFormat::Form), ("json", BodyFormat::Json)];
    let body = section.word(report, "body", &bodies).map_or(BodyFormat::Form, |body| body.value);
    let headers = headers(report, &mut section);
    let exchange_params = values::params(report, &mut section, "exchange_params", TOKEN_RESERVED);
    let refresh_params = values::params(report, &mut section, "refresh_params", TOKEN_RESERVED);
    let scopes_at_refresh = section.flag(report, "scopes_at_refresh").unwrap_or(false);
    section.finish(report);
    TokenRules { body, headers, exchange_params, refresh_params, scopes_at_refresh }
}

/// Names in lower case.
fn headers(report: &mut Report<'_>, section: &mut Section<'_, '_>) -> BTreeMap<String, String> {
    let mut headers = BTreeMap::new();
    for (name, value) in section.text_map(report, "headers") {
        let lower = name.value.to_ascii_lowercase();
        if HEADERS_RESERVED.contains(&lower.as_str()) {
            report.at(&name, "is set by the broker and can't be fixed here");
        } else if http::HeaderName::from_bytes(lower.as_bytes()).is_err() {
            report.at(&name, "is not the name of a header");
        } else if !value.value.bytes().all(|b| (b' '..=b'~').contains(&b)) {
            report.at(&value, "must be printable ASCII");
        } else if headers.insert(lower, value.value).is_some() {
            report.at(&name, "is given twice (the names of headers ignore case)");
        }
    }
    headers
}
