//! What single providers want. The conformance kit shows that the broker does what an entry says; this shows that the
//! entry says what the provider's documents say.

use std::time::Duration;

use token_broker::domain::provider::{BodyFormat, ClientAuth, RevocationAuth, RevokedToken, Rotation};
use token_broker::infra::providers::{Catalogue, Definition, RevocationTemplate};

type Fact = (&'static str, &'static str, fn(&Definition) -> bool);

const DAY: Duration = Duration::from_hours(24);

fn param(definition: &Definition, name: &str, value: &str) -> bool {
    definition.authorization.params.get(name).is_some_and(|found| found == value)
}

fn alias(definition: &Definition, word: &str, code: &str) -> bool {
    definition.response.error_aliases.get(word).is_some_and(|found| found == code)
}

fn call(definition: &Definition, auth: RevocationAuth) -> bool {
    matches!(&definition.revocation, RevocationTemplate::Call { call, .. } if call.auth == auth)
}

const FACTS: &[Fact] = &[
    ("google", "offline access", |d| param(d, "access_type", "offline") && param(d, "prompt", "consent")),
    ("google", "grants are joined", |d| param(d, "include_granted_scopes", "true")),
    ("google", "refresh tokens stay", |d| d.refresh.rotation == Rotation::None),
    ("microsoft", "scopes at refresh", |d| d.token.scopes_at_refresh),
    ("microsoft", "offline_access is never listed", |d| {
        d.response.scopes_never_listed.iter().any(|scope| scope.as_str() == "offline_access")
    }),
    ("microsoft", "used refresh tokens live on", |d| d.refresh.rotation == Rotation::None),
    ("github", "scopes by comma", |d| d.response.scope_separators.contains(',')),
    ("github", "its word for a dead token", |d| alias(d, "bad_refresh_token", "invalid_grant")),
    ("github-app", "its word for a dead token", |d| alias(d, "bad_refresh_token", "invalid_grant")),
    ("github-app", "a refresh ends the old access token", |d| d.refresh.kills_access),
    ("slack", "user tokens", |d| d.authorization.scope_param == "user_scope"),
    ("slack", "scopes by comma", |d| d.authorization.scope_separator == ","),
    ("slack", "ok", |d| d.response.success_flag.as_deref() == Some("/ok")),
    ("slack", "tokens under authed_user", |d| d.response.access_token[0] == "/authed_user/access_token"),
    ("slack", "tokens at the top", |d| d.response.access_token[1] == "/access_token"),
    ("notion", "Basic", |d| d.auth == ClientAuth::Basic),
    ("notion", "JSON", |d| d.token.body == BodyFormat::Json),
    ("notion", "its version", |d| d.token.headers.contains_key("notion-version")),
    ("linear", "scopes by comma", |d| d.authorization.scope_separator == ","),
    ("linear", "revocation by Bearer", |d| call(d, RevocationAuth::Bearer)),
    ("atlassian", "JSON", |d| d.token.body == BodyFormat::Json),
    ("atlassian", "audience", |d| param(d, "audience", "api.atlassian.com") && param(d, "prompt", "consent")),
    ("atlassian", "ten minutes", |d| d.refresh.rotation == Rotation::Grace(Duration::from_mins(10))),
    ("x", "PKCE and Basic", |d| d.authorization.pkce && d.auth == ClientAuth::Basic),
    ("airtable", "PKCE and Basic", |d| d.authorization.pkce && d.auth == ClientAuth::Basic),
    ("airtable", "60 days", |d| d.refresh.idle_limit == Some(DAY * 60)),
    ("reddit", "a permanent grant", |d| param(d, "duration", "permanent")),
    ("reddit", "Basic", |d| d.auth == ClientAuth::Basic),
    ("reddit", "a User-Agent", |d| d.token.headers.contains_key("user-agent")),
    ("reddit", "the scope for everything", |d| {
        d.response.scope_implies.keys().any(|scope| scope.as_str() == "*")
    }),
    ("dropbox", "offline access", |d| param(d, "token_access_type", "offline")),
    ("dropbox", "revocation by Bearer", |d| call(d, RevocationAuth::Bearer)),
    ("salesforce", "the organisation's host", |d| d.response.extra["instance_url"] == "/instance_url"),
    ("salesforce", "an assumed lifetime", |d| d.response.default_lifetime.is_some()),
    ("todoist", "scopes by comma", |d| d.authorization.scope_separator == ","),
    ("todoist", "no refresh tokens", |d| d.response.refresh_token.is_empty()),
    ("zoom", "Basic", |d| d.auth == ClientAuth::Basic),
    ("zoom", "the access token is revoked", |d| {
        matches!(d.revocation, RevocationTemplate::Rfc7009 { token: RevokedToken::Access })
    }),
    ("gitlab", "servers elsewhere", |d| d.variables["host"].default.as_deref() == Some("gitlab.com")),
    ("spotify", "Basic", |d| d.auth == ClientAuth::Basic),
    ("asana", "refresh tokens stay", |d| d.refresh.rotation == Rotation::None),
    ("hubspot", "the client in the body", |d| d.auth == ClientAuth::Post),
    ("discord", "RFC 7009", |d| matches!(d.revocation, RevocationTemplate::Rfc7009 { .. })),
    ("oidc", "when in doubt, strict", |d| d.refresh.rotation == Rotation::Strict),
];

#[test]
fn entries_say_what_the_providers_want() {
    let catalogue = Catalogue::load(&[]).unwrap();
    let wrong: Vec<String> = FACTS
        .iter()
        .filter(|(id, _, holds)| !catalogue.definition(id).is_some_and(holds))
        .map(|(id, fact, _)| format!("{id}: {fact}"))
        .collect();
    assert_eq!(wrong, Vec::<String>::new());
    let silent: Vec<_> = catalogue
        .definitions()
        .filter(|definition| !FACTS.iter().any(|(id, _, _)| *id == definition.id.as_str()))
        .map(|definition| definition.id.to_string())
        .collect();
    assert_eq!(silent, Vec::<String>::new(), "an entry without a fact");
}

/// Those are written down here too, so that no other slips in.
#[test]
fn few_providers_are_without_pkce() {
    let catalogue = Catalogue::load(&[]).unwrap();
    let without: Vec<_> = catalogue
        .definitions()
        .filter(|definition| !definition.authorization.pkce)
        .map(|definition| definition.id.to_string())
        .collect();
    assert_eq!(without, ["notion", "slack"]);
}
