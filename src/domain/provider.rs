//! What the broker knows about a provider. Everything here comes from data: the built-in catalogue and the operator's
//! file, read and validated by `infra::providers`.

use std::collections::BTreeMap;
use std::time::Duration;

use url::Url;

pub use super::client::{
    AssertionAlgorithm, AssertionAudience, AssertionKey, Client, ClientAuth, ClientCertificate,
};
use super::key::{ConfigId, GrantName, ProviderId, ServiceId};
use super::scope::{Scope, ScopeSet};

/// A provider, complete and valid.
#[derive(Debug, Clone)]
pub struct Provider {
    /// The id in keys and in the redirect URI.
    pub id: ProviderId,
    /// For people.
    pub display_name: String,
    /// Where it is.
    pub endpoints: EndpointSource,
    /// Who the broker is there.
    pub client: Client,
    /// How the authorization request is made.
    pub authorization: AuthorizationRules,
    /// How token requests are made.
    pub token: TokenRules,
    /// How token answers are read.
    pub response: ResponseRules,
    /// How it treats refresh tokens.
    pub refresh: RefreshRules,
    /// How a grant is ended.
    pub revocation: Revocation,
    /// How the consenting account is found out.
    pub identity: Identity,
    /// What users connect to, never empty.
    pub services: BTreeMap<ServiceId, Service>,
    /// The tenant's configuration that it is made of; `None`: the operator's.
    pub own: Option<OwnConfig>,
}

/// What is known of a tenant's own configuration.
#[derive(Debug, Clone)]
pub struct OwnConfig {
    /// Which.
    pub id: ConfigId,
    /// Goes up with every change.
    pub revision: u64,
    /// Those of the provider's URLs that have a value of the tenant's in them. The tenant is nobody to say where in the operator's
    /// network a request goes: they lead to public addresses only, by https.
    pub named_by_tenant: Vec<Url>,
}

/// An app at a provider: what has a standing, limits and users of its own there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AppKey {
    /// At which provider.
    pub provider: ProviderId,
    /// The tenant's configuration with its revision; `None`: the operator's.
    pub configuration: Option<(ConfigId, u64)>,
}

/// Where the endpoints come from.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "there are few, and they live as long as the process")]
pub enum EndpointSource {
    /// Written down.
    Literal(super::flow::RecordedEndpoints),
    /// From `{issuer}/.well-known/openid-configuration` or RFC 8414 metadata, fetched on first use.
    Discovered {
        /// Compared exactly with the metadata's `issuer`.
        issuer: String,
    },
}

/// How the authorization request is made.
#[derive(Debug, Clone)]
pub struct AuthorizationRules {
    /// Fixed parameters, such as `access_type=offline`.
    pub params: BTreeMap<String, String>,
    /// Whether PKCE is sent. Only an explicit opt-out in the definition turns it off.
    pub pkce: bool,
    /// Whether it is an OpenID provider: send a `nonce`, expect an ID token when `openid` is asked for.
    pub nonce: bool,
    /// What joins scopes.
    pub scope_separator: String,
    /// What the scope parameter is called: `scope`, or Slack's `user_scope`.
    pub scope_param: String,
}

/// How token requests are made.
#[derive(Debug, Clone)]
pub struct TokenRules {
    /// Form or JSON.
    pub body: BodyFormat,
    /// Fixed headers, sent with every call: token, revocation and userinfo. GitHub and Reddit want a `User-Agent`.
    pub headers: BTreeMap<String, String>,
    /// Fixed parameters of the code exchange.
    pub exchange_params: BTreeMap<String, String>,
    /// Fixed parameters of the refresh.
    pub refresh_params: BTreeMap<String, String>,
    /// Whether the scopes are sent at refresh. Microsoft needs them, many refuse them.
    pub scopes_at_refresh: bool,
}

/// Parameters of the authorization request that only the broker sets. A definition with one of them is refused when it is
/// loaded; should one get past that, no request is made.
pub const AUTHORIZATION_RESERVED: &[&str] = &[
    "response_type",
    "response_mode",
    "client_id",
    "client_secret",
    "redirect_uri",
    "scope",
    "state",
    "nonce",
    "code_challenge",
    "code_challenge_method",
    "login_hint",
    "request",
    "request_uri",
];

/// The same for token requests.
pub const TOKEN_RESERVED: &[&str] = &[
    "grant_type",
    "client_id",
    "client_secret",
    "client_assertion",
    "client_assertion_type",
    "redirect_uri",
    "code",
    "code_verifier",
    "refresh_token",
    "scope",
    "username",
    "password",
];

/// How parameters are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFormat {
    /// `application/x-www-form-urlencoded`.
    Form,
    /// `application/json` (Notion, Atlassian).
    Json,
}

/// How token answers are read. Pointers are RFC 6901 JSON pointers. Where there are several, the first that leads to a
/// value counts: Slack answers an exchange under `/authed_user` and a refresh at the top.
#[derive(Debug, Clone)]
pub struct ResponseRules {
    /// The access token; never empty.
    pub access_token: Vec<String>,
    /// The refresh token.
    pub refresh_token: Vec<String>,
    /// The lifetime, a number or a string of one.
    pub expires_in: Vec<String>,
    /// The granted scopes.
    pub scope: Vec<String>,
    /// What separates granted scopes: any of these characters.
    pub scope_separators: String,
    /// One lifetime unit in milliseconds: 1,000 for seconds, 1 for milliseconds.
    pub expires_in_unit_ms: u64,
    /// The lifetime if the answer has none. `None`: such a token is taken not to expire.
    pub default_lifetime: Option<Duration>,
    /// If given, the pointer that must be `true` for an answer to be a success (Slack's `/ok`).
    pub success_flag: Option<String>,
    /// The error code. Looked at in answers of any status.
    pub error: String,
    /// Further values for callers: name to pointer.
    pub extra: BTreeMap<String, String>,
    /// The provider's words for standard error codes: word to code.
    pub error_aliases: BTreeMap<String, String>,
    /// The provider's granted scopes that go by another name in requests: granted to requested.
    pub scope_aliases: BTreeMap<Scope, Scope>,
    /// Scopes that contain others, which are then granted though not named: GitHub's `repo` contains `public_repo`.
    pub scope_implies: BTreeMap<Scope, ScopeSet>,
    /// Scopes that are asked for but never listed among the granted ones, such as `offline_access`.
    pub scopes_never_listed: ScopeSet,
}

/// How the provider treats refresh tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefreshRules {
    /// What becomes of a used one.
    pub rotation: Rotation,
    /// Whether a refresh ends the life of the old access token.
    pub kills_access: bool,
    /// After this long unused the refresh token is dead.
    pub idle_limit: Option<Duration>,
    /// See [`super::token_set::EXPIRY_MARGIN`].
    pub expiry_margin: Duration,
}

/// What becomes of a used refresh token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotation {
    /// It stays good; presenting it again is harmless.
    None,
    /// It is dead at once, and a second presentation may end the grant. Also taken when unknown.
    Strict,
    /// It may be presented again for this long.
    Grace(Duration),
}

/// How a grant is ended at the provider.
#[derive(Debug, Clone)]
pub enum Revocation {
    /// RFC 7009, at the discovered or written endpoint.
    Rfc7009 {
        /// Which token is presented.
        token: RevokedToken,
    },
    /// A call of the provider's own.
    Call(RevocationCall),
    /// There is none.
    NotSupported,
}

/// Which token ends the grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RevokedToken {
    /// The refresh token if there is one, else the access token.
    RefreshElseAccess,
    /// The access token only.
    Access,
}

/// A revocation call of the provider's own.
#[derive(Debug, Clone)]
pub struct RevocationCall {
    /// `POST` or `DELETE`.
    pub method: RevocationMethod,
    /// Where; `{client_id}` stands for the client's id.
    pub url: String,
    /// How the call is authorized.
    pub auth: RevocationAuth,
    /// Which token is presented.
    pub token: RevokedToken,
    /// The name of the body parameter with the token; `None` if it goes in the `Authorization` header only. A call that
    /// has nothing to say in a body is sent without one (Dropbox refuses an empty form).
    pub token_param: Option<String>,
    /// How the body is sent.
    pub body: BodyFormat,
}

/// The HTTP method of a revocation call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RevocationMethod {
    /// `POST`.
    Post,
    /// `DELETE`.
    Delete,
    /// `GET` (Slack's `auth.revoke` takes either).
    Get,
}

/// How a revocation call is authorized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RevocationAuth {
    /// The client's id and secret by HTTP Basic.
    ClientBasic,
    /// The token itself as Bearer.
    Bearer,
    /// The client's id and secret in the body.
    ClientBody,
}

/// How the consenting account is found out.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Take it from the ID token if there is one.
    pub id_token: bool,
    /// Pointers into the token answer.
    pub token_response: Option<AccountPointers>,
    /// Ask an endpoint with the access token. Done after the tokens are safe; its failure costs only the label.
    pub userinfo: Option<Userinfo>,
}

/// Where an account's subject and label stand in a JSON.
#[derive(Debug, Clone)]
pub struct AccountPointers {
    /// The stable identifier.
    pub subject: String,
    /// What a person recognises: the first of these that there is.
    pub label: Vec<String>,
}

/// An endpoint that tells the account.
#[derive(Debug, Clone)]
pub struct Userinfo {
    /// `None`: the discovered `userinfo_endpoint`.
    pub url: Option<Url>,
    /// What to read.
    pub pointers: AccountPointers,
}

/// A service of a provider.
#[derive(Debug, Clone)]
pub struct Service {
    /// For people.
    pub display_name: String,
    /// What its use needs.
    pub scopes: ScopeSet,
    /// Services with the same grant are connected by one consent and hold one token.
    pub grant: GrantName,
}

/// The times of a refresh, as the provider's rules allow (see the refresh protocol).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefreshTimings {
    /// The request is sent only this soon after the claim; later it is left to settle.
    pub dispatch_within: Duration,
    /// The whole HTTP request takes at most this long.
    pub http_deadline: Duration,
    /// An unknown outcome is settled by one more presentation this long after the claim.
    pub settle_after: Duration,
}

/// How long after a claim a request may be dispatched.
pub const DISPATCH_WITHIN: Duration = Duration::from_secs(2);
/// The HTTP deadline at a provider without a shorter need.
pub const HTTP_DEADLINE: Duration = Duration::from_secs(30);
/// When an unknown outcome is settled at a strict provider.
pub const STRICT_SETTLE: Duration = Duration::from_secs(300);
/// How long a process may be paused between its checks of the clock and its actions.
pub const PAUSE_BUDGET: Duration = Duration::from_secs(2);

/// What the operator allows a refresh to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimingLimits {
    /// For a whole HTTP request, at most [`HTTP_DEADLINE`].
    pub http_deadline: Duration,
    /// When an unknown outcome is settled at a strict provider.
    pub strict_settle: Duration,
}

impl Default for TimingLimits {
    fn default() -> Self {
        Self { http_deadline: HTTP_DEADLINE, strict_settle: STRICT_SETTLE }
    }
}

impl TimingLimits {
    /// The shortest settling time that is safe with this HTTP deadline: the claim's request may leave late, take its time,
    /// and its process may be paused between.
    #[must_use]
    pub fn shortest_settle(&self) -> Duration {
        DISPATCH_WITHIN + self.http_deadline + PAUSE_BUDGET
    }
}

impl RefreshRules {
    /// The times that are safe at this provider within these limits; `None` if there are none: its grace is too short (with
    /// the default limits under 24 seconds: treat such a provider as strict), or the limits are unsafe themselves.
    #[must_use]
    pub fn timings(&self, limits: &TimingLimits) -> Option<RefreshTimings> {
        let timings = match self.rotation {
            Rotation::None => RefreshTimings {
                dispatch_within: DISPATCH_WITHIN,
                http_deadline: limits.http_deadline,
                settle_after: limits.shortest_settle(),
            },
            Rotation::Strict => RefreshTimings {
                dispatch_within: DISPATCH_WITHIN,
                http_deadline: limits.http_deadline,
                settle_after: limits.strict_settle,
            },
            // The retry must land inside the grace, the first request's own time included.
            Rotation::Grace(grace) => RefreshTimings {
                dispatch_within: DISPATCH_WITHIN,
                http_deadline: limits.http_deadline.min(grace / 3),
                settle_after: limits.strict_settle.min(grace / 2),
            },
        };
        let needed = timings.dispatch_within + timings.http_deadline + PAUSE_BUDGET;
        (timings.settle_after >= needed).then_some(timings)
    }
}

impl Provider {
    /// The granted scopes in the terms of requests, with what they imply.
    #[must_use]
    pub fn normalise_granted(&self, granted: &ScopeSet, requested: &ScopeSet) -> ScopeSet {
        let mut all: std::collections::BTreeSet<Scope> =
            granted.iter().map(|s| self.response.scope_aliases.get(s).unwrap_or(s).clone()).collect();
        for scope in granted.iter() {
            if let Some(implied) = self.response.scope_implies.get(scope) {
                all.extend(implied.iter().cloned());
            }
        }
        all.extend(self.response.scopes_never_listed.iter().filter(|s| requested.contains(s)).cloned());
        all.into_iter().collect()
    }

    /// The services whose scopes are all among these, for one grant.
    pub fn covered_services<'a>(
        &'a self,
        grant: &'a GrantName,
        scopes: &'a ScopeSet,
    ) -> impl Iterator<Item = &'a ServiceId> {
        self.services
            .iter()
            .filter(move |(_, s)| s.grant == *grant && s.scopes.minus(scopes).is_empty())
            .map(|(id, _)| id)
    }

    /// The tenant's configuration that it is made of.
    #[must_use]
    pub fn configuration(&self) -> Option<ConfigId> {
        self.own.as_ref().map(|own| own.id)
    }

    /// The app that it is. One whose configuration was changed counts as another: a circuit that was opened by a wrong secret says
    /// nothing about the right one.
    #[must_use]
    pub fn app(&self) -> AppKey {
        let configuration = self.own.as_ref().map(|own| (own.id, own.revision));
        AppKey { provider: self.id.clone(), configuration }
    }

    /// Whether Revoke can tell the provider.
    #[must_use]
    pub fn supports_revocation(&self) -> bool {
        !matches!(self.revocation, Revocation::NotSupported)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(rotation: Rotation) -> RefreshRules {
        RefreshRules {
            rotation,
            kills_access: false,
            idle_limit: None,
            expiry_margin: Duration::from_secs(60),
        }
    }

    /// What start-up refuses one by one is all that there is to refuse: a definition whose grace is too short for the default
    /// limits, and limits whose settling is shorter than a request may take.
    #[test]
    fn limits_and_grace_that_start_up_accepts_have_timings() {
        for grace in (24..200).chain([600, 3_600, 86_400]).map(Duration::from_secs) {
            assert!(rules(Rotation::Grace(grace)).timings(&TimingLimits::default()).is_some(), "{grace:?}");
            for http_deadline in (1..=30).map(Duration::from_secs) {
                for more in [0, 1, 10, 100, 3_000].map(Duration::from_secs) {
                    let mut limits = TimingLimits { http_deadline, strict_settle: Duration::ZERO };
                    limits.strict_settle = limits.shortest_settle() + more;
                    for rotation in [Rotation::None, Rotation::Strict, Rotation::Grace(grace)] {
                        assert!(rules(rotation).timings(&limits).is_some(), "{rotation:?} {limits:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn timings_keep_the_retry_inside_the_grace_and_outside_the_first_request() {
        for seconds in 0..2_000 {
            let grace = Duration::from_secs(seconds);
            if let Some(t) = rules(Rotation::Grace(grace)).timings(&TimingLimits::default()) {
                assert!(seconds >= 24, "{grace:?} should be too short");
                assert!(t.http_deadline <= grace / 3, "{grace:?} {t:?}");
                assert!(t.settle_after <= grace / 2, "{grace:?} {t:?}");
                assert!(
                    t.settle_after >= t.dispatch_within + t.http_deadline + PAUSE_BUDGET,
                    "{grace:?} {t:?}"
                );
            } else {
                assert!(seconds < 24, "{grace:?} should be usable");
            }
        }
        let limits = TimingLimits::default();
        assert_eq!(rules(Rotation::Strict).timings(&limits).unwrap().settle_after, STRICT_SETTLE);
        assert!(rules(Rotation::None).timings(&limits).is_some());
        let hasty = TimingLimits { strict_settle: Duration::from_secs(33), ..limits };
        assert_eq!(rules(Rotation::Strict).timings(&hasty), None, "shorter than a request may take");
    }
}
