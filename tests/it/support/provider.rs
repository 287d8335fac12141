//! A provider by hand. Tests change the fields they are about.

use std::collections::BTreeMap;
use std::time::Duration;

use token_broker::domain::flow::RecordedEndpoints;
use token_broker::domain::key::{GrantName, ProviderId, ServiceId};
use token_broker::domain::provider::{
    AccountPointers, AuthorizationRules, BodyFormat, Client, ClientAuth, EndpointSource, Identity, Provider,
    RefreshRules, ResponseRules, Revocation, RevokedToken, Rotation, Service, TokenRules, Userinfo,
};
use token_broker::domain::scope::{Scope, ScopeSet};
use token_broker::domain::secret::SecretString;

/// The client's id at [`provider_at`].
pub(crate) const CLIENT_ID: &str = "client-1";
/// The client's secret at [`provider_at`].
pub(crate) const CLIENT_SECRET: &str = "client-secret-1";

/// Scopes from a list with spaces.
pub(crate) fn scopes(list: &str) -> ScopeSet {
    list.split_whitespace().map(|s| Scope::new(s).unwrap()).collect()
}

/// An ordinary provider at a server (`http://127.0.0.1:1234`), by the letter of RFC 6749, 7009 and 7636: strict rotation,
/// `client_secret_basic`, form bodies, one service `files` with the scopes `read` and `write`, account by userinfo. Its
/// endpoints are written down; [`discovered`] has them found out.
pub(crate) fn provider_at(base: &str) -> Provider {
    let url = |path: &str| format!("{base}{path}").parse().unwrap();
    let endpoints = RecordedEndpoints {
        issuer: None,
        iss_required: false,
        authorization: url("/authorize"),
        token: url("/token"),
        revocation: Some(url("/revoke")),
        userinfo: Some(url("/userinfo")),
    };
    let service =
        Service { display_name: "Files".to_owned(), scopes: scopes("read write"), grant: grant_name() };
    Provider {
        id: ProviderId::new("hostile").unwrap(),
        display_name: "Hostile".to_owned(),
        endpoints: EndpointSource::Literal(endpoints),
        client: Client {
            id: CLIENT_ID.to_owned(),
            secret: Some(SecretString::from(CLIENT_SECRET)),
            auth: ClientAuth::Basic,
            assertion: None,
            certificate: None,
        },
        authorization: AuthorizationRules {
            params: BTreeMap::new(),
            pkce: true,
            nonce: false,
            scope_separator: " ".to_owned(),
            scope_param: "scope".to_owned(),
        },
        token: TokenRules {
            body: BodyFormat::Form,
            headers: BTreeMap::new(),
            exchange_params: BTreeMap::new(),
            refresh_params: BTreeMap::new(),
            scopes_at_refresh: false,
        },
        response: response_rules(),
        refresh: RefreshRules {
            rotation: Rotation::Strict,
            kills_access: false,
            idle_limit: None,
            expiry_margin: Duration::from_secs(60),
        },
        revocation: Revocation::Rfc7009 { token: RevokedToken::RefreshElseAccess },
        identity: Identity {
            id_token: false,
            token_response: None,
            userinfo: Some(Userinfo {
                url: None,
                pointers: AccountPointers { subject: "/sub".to_owned(), label: vec!["/email".to_owned()] },
            }),
        },
        services: BTreeMap::from([(ServiceId::new("files").unwrap(), service)]),
        own: None,
    }
}

/// The grant of the service `files`.
pub(crate) fn grant_name() -> GrantName {
    GrantName::new("default").unwrap()
}

/// The same provider, an OpenID one whose endpoints are discovered at the issuer.
pub(crate) fn discovered(issuer: &str) -> Provider {
    let mut provider = provider_at("https://unused.invalid");
    provider.endpoints = EndpointSource::Discovered { issuer: issuer.to_owned() };
    provider.authorization.nonce = true;
    provider.identity.id_token = true;
    provider
}

/// The endpoints that are written down.
pub(crate) fn endpoints(provider: &Provider) -> RecordedEndpoints {
    match &provider.endpoints {
        EndpointSource::Literal(endpoints) => endpoints.clone(),
        EndpointSource::Discovered { .. } => panic!("this provider is discovered"),
    }
}

fn response_rules() -> ResponseRules {
    ResponseRules {
        access_token: vec!["/access_token".to_owned()],
        refresh_token: vec!["/refresh_token".to_owned()],
        expires_in: vec!["/expires_in".to_owned()],
        scope: vec!["/scope".to_owned()],
        scope_separators: " ".to_owned(),
        expires_in_unit_ms: 1_000,
        default_lifetime: None,
        success_flag: None,
        error: "/error".to_owned(),
        extra: BTreeMap::new(),
        error_aliases: BTreeMap::new(),
        scope_aliases: BTreeMap::new(),
        scope_implies: BTreeMap::new(),
        scopes_never_listed: ScopeSet::default(),
    }
}
